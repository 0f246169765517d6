from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.errors import FailedPreconditionError, InvalidConditionError
from rheostat.evaluation.analysis import (
    attributes_read,
    check_condition,
    check_features,
    check_nesting,
    check_references,
    find_cycle,
    find_segment_cycle,
    unknown_references,
    users_of,
)
from rheostat.evaluation.dependency import Dependencies
from rheostat.evaluation.reference import holds
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    Unrecognized,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import BOOL
from tests.evaluation import strategy
from tests.strategies import valid_conditions

X = Attribute("x")
IS_EU = Comparison(Attribute("region"), Operator.EQUALS, Literal("eu"))


def one(op: Operator, literal: Any) -> Comparison:
    return Comparison(X, op, Literal(literal))


def many(op: Operator, *literals: Any) -> Comparison:
    return Comparison(X, op, None, literals)


def refused(condition: Condition, **options: Any) -> InvalidConditionError:
    with pytest.raises(InvalidConditionError) as caught:
        check_condition(condition, **options)
    return caught.value


@pytest.mark.parametrize(
    "condition",
    [
        one(Operator.EQUALS, "eu"),
        one(Operator.EQUALS, True),
        one(Operator.NOT_EQUALS, 2.5),
        one(Operator.EQUALS, -(2**63)),
        one(Operator.LESS_THAN, "b"),
        many(Operator.IN),
        many(Operator.NOT_IN, 1, True, "1"),
        many(Operator.HAS_ALL, "a", 2.5),
        one(Operator.CONTAINS, ""),
        many(Operator.ENDS_WITH, ".com", ".org"),
        one(Operator.MATCHES, r"^\d+$"),
        one(Operator.BEFORE, "2026-01-01"),
        one(Operator.AFTER, "2026-01-01T00:00:00.5+01:00"),
        one(Operator.AFTER, 1767225600),
        one(Operator.SEMVER_GREATER_THAN_OR_EQUAL, "v2.1"),
        one(Operator.IP_IN, "10.0.0.0/8"),
        many(Operator.IP_IN, "10.0.0.0/8", "::1"),
        Comparison(X, Operator.EXISTS),
        Comparison(SettingReference("new-checkout"), Operator.EQUALS, Literal(True)),
        Comparison(X, Operator.LESS_THAN, Attribute("y")),
        Comparison(X, Operator.IP_IN, SettingReference("office")),
        Percentage("user.id", "", 0, 100_000),
        Percentage("user.id", "s", 500, 500, BucketAlgorithm.REPLANE),
        SegmentReference("beta-testers"),
        AllOf(()),
        AnyOf((Not(IS_EU),)),
    ],
    ids=repr,
)
def test_what_can_be_right_is_accepted(condition: Condition) -> None:
    check_condition(condition)


@pytest.mark.parametrize(
    ("condition", "field", "said"),
    [
        (Unrecognized("operator 99"), "", "operator 99"),
        (Comparison(Literal("eu"), Operator.EQUALS, X), "comparison.left", "on the left"),
        (Comparison(Attribute(""), Operator.EXISTS), "comparison.left", "needs a path"),
        (Comparison(SettingReference("a b"), Operator.EXISTS), "comparison.left", "no name of a setting"),
        (Comparison(X, Operator.EXISTS, Literal(True)), "comparison.right", "no right side"),
        (Comparison(X, Operator.EQUALS), "comparison.right", "== needs a right operand"),
        (many(Operator.EQUALS, "eu"), "comparison.right", "not a list"),
        (many(Operator.MATCHES, "eu"), "comparison.right", "not a list"),
        (one(Operator.IN, "eu"), "comparison.list", "in needs a list"),
        (one(Operator.IN, ("eu",)), "comparison.list", "in needs a list"),
        (Comparison(X, Operator.HAS_ANY, Attribute("y")), "comparison.list", "has_any needs a list"),
        (Comparison(X, Operator.STARTS_WITH), "comparison.right", "a literal, or a list"),
        (
            Comparison(X, Operator.STARTS_WITH, Literal("a"), ("b",)),
            "comparison.right",
            "not both",
        ),
        (one(Operator.EQUALS, None), "comparison.right", "missing"),
        (one(Operator.EQUALS, ("eu",)), "comparison.right", "takes no list"),
        (one(Operator.EQUALS, math.nan), "comparison.right", "finite"),
        (one(Operator.EQUALS, math.inf), "comparison.right", "finite"),
        (one(Operator.EQUALS, 2**63), "comparison.right", "64 bits"),
        (one(Operator.EQUALS, "\ud800"), "comparison.right", "surrogate"),
        (many(Operator.IN, "a", None), "comparison.list.values[1]", "null"),
        (many(Operator.HAS_ANY, ("a",)), "comparison.list.values[0]", "takes no list"),
        (many(Operator.NOT_IN, 1, math.nan), "comparison.list.values[1]", "finite"),
        (one(Operator.LESS_THAN, True), "comparison.right", "a number or a string, not true"),
        (one(Operator.CONTAINS, 5), "comparison.right", "takes a string, not 5"),
        (many(Operator.ENDS_WITH, "a", 5), "comparison.list.values[1]", "takes a string"),
        (one(Operator.MATCHES, "(a"), "comparison.right", "does not compile"),
        (one(Operator.MATCHES, "a(?=b)"), "comparison.right", "does not compile"),
        (one(Operator.BEFORE, "yesterday"), "comparison.right", "takes an instant"),
        (one(Operator.AFTER, "2026-01-01T00:00:00"), "comparison.right", "with an offset"),
        (one(Operator.AFTER, True), "comparison.right", "takes an instant"),
        (one(Operator.SEMVER_EQUALS, "one"), "comparison.right", "no semantic version"),
        (one(Operator.SEMVER_EQUALS, 1), "comparison.right", "takes a string"),
        (one(Operator.IP_IN, "10.0.0.0/33"), "comparison.right", "10.0.0.0/33"),
        (many(Operator.IP_IN, "10.0.0.0/8", "x"), "comparison.list.values[1]", "no IP address"),
        (Percentage("", "s", 0, 1), "percentage.attribute", "needs a path"),
        (Percentage("id", "s", -1, 1), "percentage.from_bucket", "-1"),
        (Percentage("id", "s", 0, 100_001), "percentage.to_bucket", "100001"),
        (Percentage("id", "s", 2, 1), "percentage.to_bucket", "below"),
        (Percentage("id", "\ud800", 0, 1), "percentage.salt", "surrogate"),
        (SegmentReference("a b"), "segment.name", "no name of a segment"),
        (SegmentReference(""), "segment.name", "no name of a segment"),
    ],
    ids=repr,
)
def test_what_can_never_be_right_is_refused_at_its_place(condition: Condition, field: str, said: str) -> None:
    error = refused(condition)

    assert [violation.field for violation in error.violations] == [field]
    assert said in error.violations[0].description
    assert said in str(error)


def test_every_wrong_part_is_named_by_its_path() -> None:
    condition = AllOf(
        (IS_EU, AnyOf((Not(one(Operator.MATCHES, "(")), many(Operator.IN, None))), SegmentReference(""))
    )

    error = refused(condition)

    assert [violation.field for violation in error.violations] == [
        "all_of.conditions[1].any_of.conditions[0].negation.condition.comparison.right",
        "all_of.conditions[1].any_of.conditions[1].comparison.list.values[0]",
        "all_of.conditions[2].segment.name",
    ]
    assert str(error).endswith("(and 2 more)")


def test_nesting_is_limited_and_harmless() -> None:
    condition: Condition = IS_EU
    for _ in range(31):
        condition = Not(condition)
    check_condition(condition)

    assert "33 levels" in str(refused(Not(condition)))
    check_condition(Not(condition), max_depth=33)
    for _ in range(100_000):
        condition = Not(condition)
    assert "at most 32" in str(refused(condition))


@settings(max_examples=200, deadline=None)
@given(valid_conditions(segment_names=["beta"]))
def test_what_the_other_tests_take_for_valid_is_accepted(condition: Condition) -> None:
    check_condition(condition)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(Operator), strategy.literals, st.lists(strategy.literals, max_size=3), strategy.hostile
)
def test_a_refused_comparison_is_known_in_no_context(
    op: Operator, literal: Any, literals: list[Any], value: object
) -> None:
    """A refusal takes nothing away from anybody; infinity alone is refused only for not being JSON."""
    for comparison in (one(op, literal), many(op, *literals), Comparison(X, op)):
        try:
            check_condition(comparison)
        except InvalidConditionError:
            if op is not Operator.EXISTS and math.inf not in (literal, *literals):
                assert holds(Snapshot(), comparison, {"x": value}) is Truth.UNKNOWN


def setting(name: str, *conditions: Condition, **fields: Any) -> Setting:
    rules = tuple(Rule(f"r{i}", ValueOutcome(True), condition) for i, condition in enumerate(conditions))
    return Setting(name, name, BOOL, default=False, rules=rules, **fields)


def is_on(name: str) -> Comparison:
    return Comparison(SettingReference(name), Operator.EQUALS, Literal(True))


def test_attributes_are_found_through_segments_units_and_settings() -> None:
    split = Rule("split", Distribution("account.id", "s", (Variant("all", 100_000, True),)), IS_EU)
    other = Setting("other", "other", BOOL, default=False, rules=(split,), aliases=("old",))
    snapshot = Snapshot.of(
        [other, setting("unrelated", Comparison(Attribute("secret"), Operator.EXISTS))],
        [
            Segment("outer", AnyOf((SegmentReference("inner"), is_on("old")))),
            Segment("inner", Percentage("user.id", "s", 0, 1)),
        ],
    )
    rule = Rule(
        "r",
        Distribution("device.id", "s", (Variant("all", 100_000, True),)),
        AllOf((SegmentReference("outer"), Comparison(X, Operator.EQUALS, Attribute("y")))),
    )

    expected = {"x", "y", "user.id", "region", "account.id", "device.id"}
    assert attributes_read(snapshot, rule) == expected
    assert attributes_read(Dependencies(snapshot), rule) == expected
    assert rule.condition is not None
    assert attributes_read(snapshot, rule.condition) == expected - {"device.id"}
    assert attributes_read(snapshot, Rule("r", ValueOutcome(True))) == set()


def test_a_rule_may_read_the_settings_features_only() -> None:
    snapshot = Snapshot.of(segments=[Segment("eu", IS_EU)])
    rule = Rule("r", ValueOutcome(True), SegmentReference("eu"))

    check_features(snapshot, rule, None)
    check_features(snapshot, rule, ("region", "user.plan"))
    with pytest.raises(InvalidConditionError, match=r"'region'.*user\.plan") as caught:
        check_features(snapshot, rule, ("user.plan",))
    assert caught.value.reason == "UNDECLARED_FEATURE"
    with pytest.raises(InvalidConditionError, match="none"):
        check_features(snapshot, rule, ())
    check_features(snapshot, Rule("r", ValueOutcome(True)), ())


def test_attributes_are_found_on_a_cycle_too() -> None:
    snapshot = Snapshot.of([setting("a", is_on("b")), setting("b", is_on("a"), IS_EU)])

    assert attributes_read(snapshot, is_on("a")) == {"region"}


def test_a_cycle_is_found_from_wherever_it_is_reached() -> None:
    snapshot = Snapshot.of(
        [
            setting("a", SegmentReference("s")),
            setting("b", is_on("former-a")),
            setting("c", IS_EU, is_on("b")),
            setting("d", IS_EU),
        ],
        [Segment("s", is_on("b")), Segment("t", SegmentReference("t")), Segment("u", IS_EU)],
    ).replace(1, settings={"a": setting("a", SegmentReference("s"), aliases=("former-a",))})

    assert find_cycle(snapshot, "a") == ("a", 'segment("s")', "b", "a")
    assert find_cycle(snapshot, "b") == ("b", "a", 'segment("s")', "b")
    assert find_cycle(snapshot, "c") == ("b", "a", 'segment("s")', "b")
    assert find_cycle(snapshot, "d") is None
    assert find_cycle(snapshot, "gone") is None
    assert find_segment_cycle(snapshot, "t") == ('segment("t")', 'segment("t")')
    assert find_segment_cycle(snapshot, "u") is None


def test_references_are_checked() -> None:
    snapshot = Snapshot.of(
        [setting("a", is_on("a")), setting("b", aliases=("old-b",))],
        [Segment("s", is_on("gone"))],
    )

    check_references(snapshot, AllOf((is_on("b"), is_on("old-b"))))
    assert unknown_references(snapshot, AllOf((SegmentReference("s"), SegmentReference("t")))) == (
        ("segment", "t"),
        ("setting", "gone"),
    )
    with pytest.raises(InvalidConditionError, match="segment 't'") as caught:
        check_references(snapshot, SegmentReference("t"))
    assert caught.value.reason == "UNKNOWN_SEGMENT"
    with pytest.raises(FailedPreconditionError, match="a → a") as cyclic:
        check_references(snapshot, is_on("a"))
    assert cyclic.value.reason == "CYCLE"


def test_nesting_counts_what_is_referred_to() -> None:
    chain = [Segment(f"s{i}", SegmentReference(f"s{i + 1}")) for i in range(1, 63)]
    snapshot = Snapshot.of(segments=[*chain, Segment("s63", IS_EU)])

    check_nesting(snapshot, SegmentReference("s1"))
    with pytest.raises(InvalidConditionError, match="65 levels"):
        check_nesting(snapshot, Not(SegmentReference("s1")))


def test_users_of_a_segment_or_setting_are_named() -> None:
    snapshot = Snapshot.of(
        [setting("a", SegmentReference("s")), setting("b", is_on("a")), setting("c", is_on("old-a"))],
        [Segment("s", IS_EU), Segment("t", AnyOf((SegmentReference("s"), is_on("a"))))],
    ).replace(1, settings={"a": setting("a", SegmentReference("s"), aliases=("old-a",))})

    assert users_of(snapshot, ("segment", "s")) == (("segment", "t"), ("setting", "a"))
    assert users_of(snapshot, ("setting", "a")) == (("segment", "t"), ("setting", "b"), ("setting", "c"))
    assert users_of(snapshot, ("setting", "c")) == ()


def test_ten_thousand_settings_in_a_chain_are_searched_for_cycles_once() -> None:
    count = 10_000
    chain = [setting(f"s{i}", is_on(f"s{i + 1}")) for i in range(count)]
    dependencies = Dependencies(Snapshot.of([*chain, setting(f"s{count}")]))
    started = time.process_time()

    assert all(find_cycle(dependencies, f"s{i}") is None for i in range(count))
    # Quadratic would be fifty million steps.
    assert time.process_time() - started < 5
