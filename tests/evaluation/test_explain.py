from __future__ import annotations

import math
from typing import Any

import pytest

from rheostat.evaluation.explain import ConditionExplanation, Explanation, RuleExplanation, explain
from rheostat.evaluation.result import ErrorCode, Reason
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
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import BOOL
from rheostat.model.value import ABSENT

IS_EU = Comparison(Attribute("region"), Operator.EQUALS, Literal("eu"))
BETA = Segment("beta", Comparison(Attribute("user.email"), Operator.ENDS_WITH, Literal("@example.com")))
LOOP = Segment("loop", SegmentReference("loop"))
LIMIT = Setting("limit", "limit", BOOL, default=True)
EMPTY_JSON = Setting("void", "void", BOOL, default=None)


def explained(condition: Condition, context: dict[str, Any]) -> ConditionExplanation:
    rule = Rule("r", ValueOutcome(True), condition)
    setting = Setting("s", "s", BOOL, default=False, rules=(rule,))
    snapshot = Snapshot.of([setting, LIMIT, EMPTY_JSON], [BETA, LOOP])
    found = explain(snapshot, "s", context).rules[0].condition
    assert found is not None
    return found


def compare(path: str, op: Operator, literal: Any) -> Comparison:
    if isinstance(literal, list):
        return Comparison(Attribute(path), op, None, tuple(literal))
    return Comparison(Attribute(path), op, Literal(literal))


@pytest.mark.parametrize(
    ("condition", "context", "truth", "detail"),
    [
        (IS_EU, {"region": "eu"}, Truth.TRUE, 'region is "eu"'),
        (IS_EU, {"region": "us"}, Truth.FALSE, 'region is "us", not "eu"'),
        (IS_EU, {}, Truth.UNKNOWN, "region is missing"),
        (IS_EU, {"region": None}, Truth.UNKNOWN, "region is null, which counts as missing"),
        (
            IS_EU,
            {"region": b"eu"},
            Truth.UNKNOWN,
            "region is missing: a bytes that conditions do not know",
        ),
        (
            compare("age", Operator.LESS_THAN, 18),
            {"age": True},
            Truth.UNKNOWN,
            "age is true, a bool: < cannot be told for it and 18",
        ),
        (
            compare("age", Operator.GREATER_THAN_OR_EQUAL, 18),
            {"age": 17},
            Truth.FALSE,
            "age is 17, which is less than 18",
        ),
        (
            compare("plan", Operator.IN, ["pro", "team"]),
            {"plan": "free"},
            Truth.FALSE,
            'plan is "free", which is not in ["pro", "team"]',
        ),
        (compare("plan", Operator.NOT_EQUALS, "pro"), {"plan": "pro"}, Truth.FALSE, 'plan is "pro"'),
        (
            compare("plan", Operator.NOT_EQUALS, "pro"),
            {"plan": "free"},
            Truth.TRUE,
            'plan is "free", not "pro"',
        ),
        (Comparison(Attribute("plan"), Operator.EXISTS), {"plan": ""}, Truth.TRUE, 'plan is ""'),
        (Comparison(Attribute("plan"), Operator.EXISTS), {}, Truth.FALSE, "plan is missing"),
        (
            Comparison(Attribute("a"), Operator.EQUALS, Attribute("b")),
            {"a": 1},
            Truth.UNKNOWN,
            "a is 1, but b is missing",
        ),
        (
            Comparison(Attribute("a"), Operator.LESS_THAN, Attribute("b")),
            {"a": 1, "b": 2},
            Truth.TRUE,
            "a is 1, which is less than b, which is 2",
        ),
        (
            Comparison(SettingReference("limit"), Operator.EQUALS, Literal(True)),
            {},
            Truth.TRUE,
            'setting("limit") is true',
        ),
        (
            Comparison(SettingReference("gone"), Operator.EQUALS, Literal(True)),
            {},
            Truth.UNKNOWN,
            'setting("gone") does not exist',
        ),
        (
            Comparison(SettingReference("void"), Operator.EQUALS, Literal(True)),
            {},
            Truth.UNKNOWN,
            'setting("void") is null, which counts as missing',
        ),
        (
            Comparison(SettingReference("s"), Operator.EQUALS, Literal(True)),
            {},
            Truth.UNKNOWN,
            'setting("s") refers to itself: setting("s") → setting("s")',
        ),
        (SegmentReference("gone"), {}, Truth.UNKNOWN, 'segment "gone" does not exist'),
        (
            SegmentReference("loop"),
            {},
            Truth.UNKNOWN,
            'segment "loop" refers to itself: segment("loop") → segment("loop")',
        ),
        (SegmentReference("beta"), {}, Truth.UNKNOWN, 'segment "beta": user.email is missing'),
        (
            Percentage("id", "flag", 0, 25_000),
            {"id": "u1"},
            Truth.TRUE,
            'id is "u1", at 10.057 %, inside 0 to 25 %',
        ),
        (
            Percentage("id", "flag", 0, 25_000),
            {"id": "u2"},
            Truth.FALSE,
            'id is "u2", at 85.06 %, outside 0 to 25 %',
        ),
        (Percentage("id", "flag", 0, 25_000), {}, Truth.UNKNOWN, "id is missing"),
        (Percentage("id", "flag", 0, 25_000), {"id": 1.5}, Truth.UNKNOWN, "id is 1.5, which is no unit"),
        (AllOf(()), {}, Truth.TRUE, "it has no parts"),
        (AllOf((IS_EU, AllOf(()))), {"region": "eu"}, Truth.TRUE, "all parts hold"),
        (AnyOf((IS_EU, IS_EU)), {"region": "us"}, Truth.FALSE, "no part holds"),
        (Not(IS_EU), {"region": "us"}, Truth.TRUE, 'region is "us", not "eu"'),
        (Unrecognized("operator 99"), {}, Truth.UNKNOWN, "unknown to this version: operator 99"),
    ],
)
def test_the_reason_of_a_condition_is_told(
    condition: Condition, context: dict[str, Any], truth: Truth, detail: str
) -> None:
    found = explained(condition, context)

    assert (found.truth, found.detail) == (truth, detail)
    assert found.condition is condition


def test_a_conjunction_tells_the_part_that_decided() -> None:
    plan = compare("plan", Operator.EQUALS, "pro")

    found = explained(AllOf((plan, IS_EU)), {"region": "us"})

    assert found.detail == 'region is "us", not "eu"'
    assert [part.truth for part in found.parts] == [Truth.UNKNOWN, Truth.FALSE]
    assert found.parts[0].detail == "plan is missing"


def test_operands_and_buckets_are_given_as_values() -> None:
    comparison = explained(compare("n", Operator.IN, [1, 2]), {"n": 2.5})
    percentage = explained(Percentage("id", "flag", 0, 25_000), {"id": "u1"})

    assert (comparison.left, comparison.right) == (2.5, (1, 2))
    assert (percentage.left, percentage.bucket) == ("u1", 10_057)
    assert explained(compare("n", Operator.EQUALS, 1), {"n": math.nan}).left is ABSENT
    assert explained(compare("n", Operator.EQUALS, 1), {}).left is ABSENT


def test_a_segment_is_spelled_out_once() -> None:
    found = explained(
        AllOf((SegmentReference("beta"), SegmentReference("beta"))), {"user": {"email": "a@example.com"}}
    )

    assert [len(part.parts) for part in found.parts] == [1, 0]
    assert found.parts[1].detail == 'segment "beta" is TRUE, as above'


def test_a_long_value_is_shortened() -> None:
    assert len(explained(IS_EU, {"region": "x" * 10_000}).detail) < 200


def test_a_condition_that_nests_too_deep_is_not_walked() -> None:
    deep: Condition = IS_EU
    for _ in range(50_000):
        deep = Not(deep)

    found = explained(deep, {"region": "eu"})

    assert found.truth is Truth.UNKNOWN
    assert "64 levels" in found.detail
    assert found.parts == ()


SPLIT = Distribution("id", "split", (Variant("slow", 50_000, 6.0), Variant("same", 50_000, 3.0)))


def explanation_of(*rules: Rule, context: dict[str, Any], **fields: Any) -> Explanation:
    return explain(Snapshot.of([Setting("s", "s", BOOL, default=0.0, rules=rules, **fields)]), "s", context)


def test_rules_are_told_up_to_the_one_that_matched() -> None:
    found = explanation_of(
        Rule("off", ValueOutcome(1.0), IS_EU, enabled=False, number=7),
        Rule("plan", ValueOutcome(2.0), compare("plan", Operator.EQUALS, "pro"), number=8),
        Rule("eu", ValueOutcome(3.0), IS_EU, number=9),
        Rule("never-reached", ValueOutcome(4.0), number=10),
        context={"region": "eu"},
    )

    assert [(r.rule_id, r.number, r.truth, r.matched, r.detail) for r in found.rules] == [
        ("off", 7, None, False, "not enabled"),
        ("plan", 8, Truth.UNKNOWN, False, "plan is missing"),
        ("eu", 9, Truth.TRUE, True, 'region is "eu"'),
    ]
    assert found.rules[0].condition is None
    assert found.detail == "rule eu matched"
    assert found.evaluation.value == 3.0


def test_a_split_tells_bucket_and_variant() -> None:
    found = explanation_of(Rule("split", SPLIT), context={"id": "u1"})

    # "split:u1" is bucket 68 705.
    assert found.rules == (
        RuleExplanation("split", 0, Truth.TRUE, True, "it has no condition", None, "same", 68_705),
    )
    assert found.detail == "rule split matched, with variant same"


@pytest.mark.parametrize(
    ("outcome", "context", "detail"),
    [
        (SPLIT, {}, "its condition holds, but id is missing"),
        (SPLIT, {"id": True}, "its condition holds, but id is true, which is no unit"),
        (
            Distribution("id", "split", (Variant("a", 1, 1.0),)),
            {"id": "u1"},
            "its condition holds, but no variant has bucket 68705",
        ),
        (None, {}, "its condition holds, but its outcome is unknown to this version"),
    ],
)
def test_a_rule_that_is_true_and_passed_over_says_why(
    outcome: Distribution | None, context: dict[str, Any], detail: str
) -> None:
    found = explanation_of(Rule("r", outcome), context=context)

    assert found.rules[0].truth is Truth.TRUE
    assert not found.rules[0].matched
    assert found.rules[0].detail == detail
    assert found.evaluation.reason is Reason.DEFAULT
    assert found.detail == "no rule of 1 matched"


def test_a_setting_without_rules_or_disabled_is_told_in_the_summary() -> None:
    assert explanation_of(context={}).detail == "the setting has no rules"
    disabled = explanation_of(Rule("r", ValueOutcome(1.0)), context={}, enabled=False)
    assert disabled.detail == "the setting is disabled in this environment"
    assert disabled.rules == ()


def test_an_error_is_explained_by_its_message() -> None:
    found = explain(Snapshot(), "gone", {})

    assert found.evaluation.error_code is ErrorCode.FLAG_NOT_FOUND
    assert "gone" in found.detail
    assert explain(Snapshot(), "gone", 5).rules == ()  # type: ignore[arg-type]
