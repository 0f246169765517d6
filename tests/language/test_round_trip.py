"""The text form of every condition says the same condition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from rheostat.errors import InvalidConditionError
from rheostat.language import format_condition, parse_condition
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
from rheostat.model.encoding import condition_key
from rheostat.model.value import INT64_MAX, INT64_MIN, FrozenMapping, Value
from tests.strategies import conditions
from tests.thorough import examples

A = Attribute("a")


def equals(value: Value) -> Comparison:
    return Comparison(A, Operator.EQUALS, Literal(value))


ONE, TWO = equals(1), equals(2)


@settings(deadline=None, max_examples=examples(150))
@given(conditions())
def test_parsing_the_printed_form_gives_the_same_condition(condition: Condition) -> None:
    text = format_condition(condition)
    parsed = parse_condition(text)
    # The key tells 1, 1.0 and true apart, which == between dataclasses does not.
    assert condition_key(parsed) == condition_key(condition)
    assert format_condition(parsed) == text
    assert "\n" not in text


CANONICAL = [
    (equals(1), "a == 1"),
    (equals(1.0), "a == 1.0"),
    (equals(True), "a == true"),
    (equals("1"), 'a == "1"'),
    (equals(None), "a == null"),
    (equals(-0.0), "a == -0.0"),
    (equals(1e300), "a == 1e+300"),
    (equals(INT64_MIN), "a == -9223372036854775808"),
    (equals(INT64_MAX), "a == 9223372036854775807"),
    (equals("\u202e\x00é"), 'a == "\\u202e\\u0000é"'),
    (equals((1, 2)), "a == literal([1, 2])"),
    (equals(FrozenMapping({"b": 1, "a": ()})), 'a == {"a": [], "b": 1}'),
    (AllOf(()), "all_of()"),
    (AnyOf(()), "any_of()"),
    (AllOf((ONE,)), "all_of(a == 1)"),
    (AnyOf((AllOf((ONE, TWO)),)), "any_of(a == 1 and a == 2)"),
    (AllOf((ONE, TWO)), "a == 1 and a == 2"),
    (AllOf((AllOf((ONE, TWO)), ONE)), "(a == 1 and a == 2) and a == 1"),
    (AllOf((AnyOf((ONE, TWO)), ONE)), "(a == 1 or a == 2) and a == 1"),
    (AnyOf((AllOf((ONE, TWO)), ONE)), "a == 1 and a == 2 or a == 1"),
    (AnyOf((AnyOf((ONE, TWO)), ONE)), "(a == 1 or a == 2) or a == 1"),
    (Not(ONE), "not a == 1"),
    (Not(Not(ONE)), "not not a == 1"),
    (Not(AllOf((ONE, TWO))), "not (a == 1 and a == 2)"),
    (Not(AnyOf((ONE,))), "not any_of(a == 1)"),
    (Comparison(A, Operator.EXISTS), "exists(a)"),
    (Not(Comparison(A, Operator.EXISTS)), "missing(a)"),
    (Comparison(A, Operator.EXISTS, Literal(1)), "compare(a, EXISTS, 1)"),
    (Comparison(Literal("x"), Operator.EQUALS, A), 'literal("x") == attr(a)'),
    (Comparison(SettingReference("s"), Operator.NOT_EQUALS, Literal(True)), 'setting("s") != true'),
    (Comparison(A, Operator.LESS_THAN, SettingReference("s")), 'a < setting("s")'),
    (Comparison(A, Operator.IN, None, ("x", 1, True)), 'a in ["x", 1, true]'),
    (Comparison(A, Operator.NOT_IN, None, ()), "a not in []"),
    (Comparison(A, Operator.IN, Attribute("b")), "compare(a, IN, attr(b))"),
    (Comparison(A, Operator.EQUALS, None, (1,)), "compare(a, EQUALS, [1])"),
    (Comparison(A, Operator.EQUALS, Literal((1,))), "a == literal([1])"),
    (Comparison(A, Operator.LESS_THAN), "compare(a, LESS_THAN)"),
    (Comparison(A, Operator.HAS_NONE, None, ("x",)), 'a has_none ["x"]'),
    (Comparison(A, Operator.STARTS_WITH, Literal("x")), 'a starts_with "x"'),
    (Comparison(A, Operator.STARTS_WITH, None, ("x", "y")), 'a starts_with ["x", "y"]'),
    (Comparison(A, Operator.IP_IN, None, ("10.0.0.0/8",)), 'a ip_in ["10.0.0.0/8"]'),
    (Comparison(A, Operator.MATCHES, Literal("^a\\.b$")), 'a matches "^a\\\\.b$"'),
    (Comparison(A, Operator.BEFORE, Literal("2026-01-01")), 'a before timestamp("2026-01-01")'),
    (Comparison(A, Operator.AFTER, Literal("tomorrow")), 'a after "tomorrow"'),
    (Comparison(A, Operator.AFTER, Literal(1.5e9)), "a after 1500000000.0"),
    (
        Comparison(A, Operator.SEMVER_GREATER_THAN_OR_EQUAL, Literal("2.1")),
        'semver(a) >= "2.1"',
    ),
    (SegmentReference("beta-testers"), 'segment("beta-testers")'),
    (Percentage("user.id", "s", 0, 10_000), 'percent(user.id, salt="s") < 10'),
    (Percentage("user.id", "", 0, 0), "percent(user.id) < 0"),
    (Percentage("u", "s", 0, 100_000), 'percent(u, salt="s") < 100'),
    (Percentage("u", "s", 50_000, 100_000), 'percent(u, salt="s") >= 50'),
    (Percentage("u", "s", 100_000, 100_000), 'percent(u, salt="s") >= 100'),
    (Percentage("u", "s", 12_500, 50_001), '12.5 <= percent(u, salt="s") < 50.001'),
    (
        Percentage("u", '"`\n', 1, 2, BucketAlgorithm.REPLANE_PYTHON),
        '0.001 <= percent(u, salt="\\"`\\n", algorithm=REPLANE_PYTHON) < 0.002',
    ),
    (Comparison(Attribute("in"), Operator.EXISTS), "exists(`in`)"),
    (Comparison(Attribute("in.x-1"), Operator.EXISTS), "exists(in.x-1)"),
    (Comparison(Attribute(""), Operator.EXISTS), "exists(``)"),
    (Comparison(Attribute('a`b\\"\n'), Operator.EXISTS), 'exists(`a\\`b\\\\"\\n`)'),
    (Comparison(Attribute("user id"), Operator.EXISTS), "exists(`user id`)"),
    (Comparison(Attribute("2fa"), Operator.EXISTS), "exists(`2fa`)"),
]


@pytest.mark.parametrize(("condition", "text"), CANONICAL, ids=[text for _, text in CANONICAL])
def test_has_a_canonical_form_that_parses_back(condition: Condition, text: str) -> None:
    assert format_condition(condition) == text
    assert condition_key(parse_condition(text)) == condition_key(condition)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("(((a == 1)))", "a == 1"),
        ("all_of(a == 1, a == 2, a == 3)", "a == 1 and a == 2 and a == 3"),
        ("not a == 1 and a == 2", "not a == 1 and a == 2"),
        ("not (a == 1) or\n\t a == 2", "not a == 1 or a == 2"),
        ('percent(a, algorithm=MURMUR3, salt="s") < 25.500', 'percent(a, salt="s") < 25.5'),
        ("50 <= percent(a)", "percent(a) >= 50"),
        ("attr(a) == attr(`b`)", "a == attr(b)"),
        ('a == timestamp("2026-01-01")', 'a == "2026-01-01"'),
        ("compare(a, EQUALS, 1)", "a == 1"),
        ("compare(a, IN, [1])", "a in [1]"),
        ("literal(1) == 1", "literal(1) == 1"),
        ("a==-0", "a == 0"),
        ('a == "\\ud83d\\ude00\\/"', 'a == "😀/"'),
        ("not exists(a)", "missing(a)"),
        ('missing(setting("x"))', 'missing(setting("x"))'),
    ],
)  # fmt: skip
def test_other_spellings_have_the_canonical_form(written: str, canonical: str) -> None:
    assert format_condition(parse_condition(written)) == canonical


def test_nesting_is_as_deep_as_the_wire_can_carry() -> None:
    condition: Condition = ONE
    for level in range(99):
        condition = Not(condition) if level % 3 else AllOf((condition, TWO))
    assert condition_key(parse_condition(format_condition(condition))) == condition_key(condition)


def nested(levels: int) -> Condition:
    condition: Condition = ONE
    for _ in range(levels):
        condition = AllOf((condition,))
    return condition


def nested_value(levels: int) -> Value:
    value: Value = 1
    for _ in range(levels):
        value = (value,)
    return value


@pytest.mark.parametrize(
    "condition",
    [
        Unrecognized("a new kind"),
        Not(Unrecognized("a new kind")),
        equals(float("nan")),
        equals(float("inf")),
        equals("\ud800"),
        equals(2**63),
        equals(nested_value(5_000)),
        Comparison(Attribute("\udc00"), Operator.EXISTS),
        Comparison(A, Operator.EQUALS, Literal(1), (1,)),
        Percentage("u", "s", 5, 4),
        Percentage("u", "s", -1, 4),
        Percentage("u", "s", 0, 100_001),
        nested(100_000),
    ],
    ids=range(13),
)
def test_refuses_to_print_what_has_no_text_form(condition: Condition) -> None:
    with pytest.raises(InvalidConditionError):
        format_condition(condition)
