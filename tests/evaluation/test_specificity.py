from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import InvalidConditionError
from rheostat.evaluation.reference import holds
from rheostat.evaluation.specificity import condition_key, order_by_specificity, specificity_of
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
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
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.snapshot import Snapshot

FEATURES = ("region", "user.plan", "user.id")
FURTHER = Comparison(Attribute("age"), Operator.GREATER_THAN, Literal(18))


def equals(path: str, value: Any) -> Comparison:
    return Comparison(Attribute(path), Operator.EQUALS, Literal(value))


def rule(id_: str, number: int, *parts: Condition, **fields: Any) -> Rule:
    condition: Condition | None = AllOf(parts) if len(parts) > 1 else (parts[0] if parts else None)
    return Rule(id_, ValueOutcome(id_), condition, number=number, **fields)


def order(*rules: Rule) -> list[str]:
    return [ordered.id for ordered in order_by_specificity(rules, FEATURES)]


def test_the_last_feature_counts_first() -> None:
    rules = [
        rule("anybody", 1),
        rule("region", 2, equals("region", "eu")),
        rule("plan", 3, equals("user.plan", "pro")),
        rule("region-plan", 4, equals("region", "eu"), equals("user.plan", "pro")),
        rule("user", 5, equals("user.id", "u1")),
        rule("region-user", 6, equals("region", "eu"), equals("user.id", "u1")),
    ]
    expected = ["region-user", "user", "region-plan", "plan", "region", "anybody"]

    for shuffled in itertools.permutations(rules):
        assert order(*shuffled) == expected


def test_a_further_condition_beats_none_and_no_equality() -> None:
    assert order(
        rule("plain", 1, equals("region", "eu")),
        rule("further", 2, equals("region", "eu"), FURTHER),
        rule("only-further", 3, FURTHER),
        rule("anybody", 4),
    ) == ["further", "plain", "only-further", "anybody"]


def test_the_lower_number_comes_first_among_equals() -> None:
    assert order(
        rule("c", 30, equals("region", "eu")),
        rule("a", 10, equals("region", "us")),
        rule("b", 20, equals("region", "asia")),
    ) == ["a", "b", "c"]


def test_the_place_in_the_conjunction_does_not_count() -> None:
    one = specificity_of(rule("a", 1, equals("region", "eu"), FURTHER, equals("user.id", "u1")), FEATURES)
    other = specificity_of(rule("b", 2, equals("user.id", "u1"), equals("region", "eu"), FURTHER), FEATURES)

    assert one == other
    assert dict(one.equalities) == {"region": "eu", "user.id": "u1"}
    assert one.further == FURTHER


def test_an_equality_beyond_the_features_is_a_further_condition() -> None:
    found = specificity_of(rule("a", 1, equals("country", "de"), equals("region", "eu")), FEATURES)

    assert dict(found.equalities) == {"region": "eu"}
    assert found.further == equals("country", "de")


@pytest.mark.parametrize(
    "condition",
    [
        AnyOf((equals("region", "eu"), equals("region", "us"))),
        Not(equals("region", "eu")),
        Comparison(Attribute("region"), Operator.IN, None, ("eu",)),
        Comparison(Attribute("region"), Operator.EQUALS, Attribute("user.id")),
        AllOf((AllOf((FURTHER, Not(FURTHER))),)),
        Percentage("user.id", "s", 0, 1),
    ],
    ids=repr,
)
def test_one_further_condition_may_be_anything(condition: Condition) -> None:
    assert specificity_of(Rule("r", ValueOutcome(1), condition), FEATURES).equalities == {}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((equals("region", "eu"), equals("region", "us")), "compares 'region' twice"),
        ((equals("region", "eu"), equals("region", "eu")), "compares 'region' twice"),
        ((equals("region", "eu"), FURTHER, Not(FURTHER)), "has 2 conditions"),
        ((equals("country", "de"), FURTHER), "has 2 conditions"),
    ],
)
def test_other_forms_are_refused(parts: tuple[Condition, ...], said: str) -> None:
    with pytest.raises(InvalidConditionError, match=said) as caught:
        order(rule("r1", 1, *parts))
    assert caught.value.reason == "NOT_SPECIFIC"
    assert "'r1'" in str(caught.value)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((), ()),
        ((equals("region", "eu"),), (equals("region", "eu"),)),
        ((equals("region", 1),), (equals("region", 1.0),)),
        ((equals("region", "eu"), FURTHER), (FURTHER, equals("region", "eu"))),
        ((FURTHER,), (FURTHER,)),
    ],
)
def test_two_rules_with_the_same_condition_are_refused(
    left: tuple[Condition, ...], right: tuple[Condition, ...]
) -> None:
    with pytest.raises(InvalidConditionError, match="'a' and 'b'") as caught:
        order(rule("a", 1, *left), rule("b", 2, *right, enabled=False))
    assert caught.value.reason == "DUPLICATE_RULE"


def test_values_of_different_kinds_are_different_conditions() -> None:
    ids = order(
        rule("int", 1, equals("region", 1)),
        rule("bool", 2, equals("region", True)),
        rule("text", 3, equals("region", "1")),
        rule("further-int", 4, equals("country", 1)),
        rule("further-bool", 5, equals("country", True)),
    )

    assert len(ids) == 5


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (equals("a", 1), equals("a", 1.0), True),
        (equals("a", 0), equals("a", -0.0), True),
        (equals("a", 1), equals("a", True), False),
        (equals("a", 1), equals("a", "1"), False),
        (equals("a", 2**53 + 1), equals("a", float(2**53)), False),
        (equals("a", None), equals("a", "null"), False),
        (AllOf((FURTHER,)), FURTHER, False),
        (AllOf((FURTHER,)), AnyOf((FURTHER,)), False),
        (AllOf((FURTHER, Not(FURTHER))), AllOf((Not(FURTHER), FURTHER)), False),
        (
            Comparison(Attribute("a"), Operator.IN, None, (1,)),
            Comparison(Attribute("a"), Operator.IN, None, (True,)),
            False,
        ),
        (Comparison(Attribute("a"), Operator.IN, None, ()), Comparison(Attribute("a"), Operator.IN), False),
        (
            Comparison(Attribute("a"), Operator.EXISTS),
            Comparison(SettingReference("a"), Operator.EXISTS),
            False,
        ),
        (SegmentReference("a"), SegmentReference("a"), True),
        (Percentage("a", "s", 0, 1), Percentage("a", "t", 0, 1), False),
        (Unrecognized("x"), Unrecognized("x"), True),
    ],
    ids=repr,
)
def test_conditions_are_the_same_part_by_part(left: Condition, right: Condition, same: bool) -> None:
    assert (condition_key(left) == condition_key(right)) is same
    if same:
        assert hash(condition_key(left)) == hash(condition_key(right))


equalities = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from(["x", "y"]), max_size=3)
contexts = st.fixed_dictionaries({feature: st.sampled_from(["x", "y"]) for feature in FEATURES})


@given(st.lists(st.tuples(equalities, st.booleans()), max_size=8, unique_by=repr), contexts, st.randoms())
def test_the_order_is_total_and_the_first_match_is_the_most_specific(
    shapes: list[tuple[dict[str, str], bool]], context: dict[str, str], shuffler: random.Random
) -> None:
    unique = {(frozenset(exact.items()), further): exact for exact, further in shapes}
    rules = [
        rule(
            f"r{i}",
            i,
            *(equals(path, value) for path, value in exact.items()),
            *((FURTHER,) if further else ()),
        )
        for i, ((_, further), exact) in enumerate(unique.items(), start=1)
    ]
    expected = order_by_specificity(rules, FEATURES)
    shuffled = list(rules)
    shuffler.shuffle(shuffled)

    assert order_by_specificity(shuffled, FEATURES) == expected

    matching = [
        specificity_of(one, FEATURES)
        for one in expected
        if one.condition is None or holds(Snapshot(), one.condition, {**context, "age": 20}) is Truth.TRUE
    ]
    for better, worse in itertools.pairwise(matching):
        # Of two that match, the better one has the last feature in which they differ.
        difference = set(better.equalities) ^ set(worse.equalities)
        last = next((feature for feature in reversed(FEATURES) if feature in difference), None)
        assert last in better.equalities if last else better.further is not None
