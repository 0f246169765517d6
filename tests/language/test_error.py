"""What a writer is told about a condition that does not parse."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rheostat.errors import InvalidConditionError
from rheostat.language import MAX_CONDITION_LENGTH, parse_condition
from rheostat.language.word import KEYWORDS
from tests.thorough import examples

MISTAKES = [
    ("", 1, 1, "expected a condition"),
    (" \n ", 1, 1, "expected a condition"),
    ("region == eu", 1, 11, '"eu"'),
    ("region == 'eu'", 1, 11, "double quotes"),
    ("region == “eu”", 1, 11, "straight double quotes"),
    ("region = 1", 1, 8, "=="),
    ("1 < x < 5", 1, 3, "`a < x and x < b`"),
    ("1 < x < 5", 1, 3, "x > 1 and x < 5"),
    ("1 <= x", 1, 6, "x >= 1"),
    ("x < 1 < 2", 1, 7, "`a < x and x < b`"),
    ("x == y", 1, 6, "attr(y)"),
    ("a AND b", 1, 3, "and"),
    ("a == 1 AND b == 2", 1, 8, "lower case: and"),
    ("NOT a == 1", 1, 5, "lower case: not"),
    ("a == TRUE", 1, 6, "true, in lower case"),
    ("a == 1 && b == 2", 1, 8, "and"),
    ("!a == 1", 1, 1, "not"),
    ("a in 1", 1, 6, "[1]"),
    ("a in attr(b)", 1, 6, "list of literals"),
    ("a == [1]", 1, 6, "in"),
    ("a in [eu]", 1, 7, "double quotes"),
    ('a in ["x", "y"', 1, 15, "ends"),
    ('a == {"x": 1, "x": 2}', 1, 6, "twice"),
    ("a == 1\nand\n  b ==", 3, 7, "expected a value"),
    ("(a == 1", 1, 8, "not closed"),
    ("a == 1)", 1, 7, "no parenthesis is open"),
    ("exists a", 1, 8, "`(`"),
    ("segment == 1", 1, 9, "`segment`"),
    ("contains == 1", 1, 1, "`contains`"),
    ("user.beta", 1, 10, "user.beta == true"),
    ("user id == 1", 1, 6, "backticks"),
    ("naïve == 1", 1, 3, "backticks"),
    ("2fa == 1", 1, 1, "`2fa`"),
    ("a == 007", 1, 6, "not a number"),
    ("a == 1.2.3", 1, 6, "not a number"),
    ("a == .5", 1, 6, "not a number"),
    ("a == 1e999", 1, 6, "range of a float"),
    ("a == 9223372036854775808", 1, 6, "64 bits"),
    ("a in [1, 9223372036854775808]", 1, 6, "64 bits"),
    ("a in [NaN]", 1, 6, "NaN"),
    ("a in [1e999]", 1, 6, "range of a float"),
    ('a == "x', 1, 6, "not closed"),
    ('a == "\\x"', 1, 7, "escape"),
    ('a == "x\ny"', 1, 8, "escapes"),
    ('a == "\\ud800"', 1, 6, "surrogate"),
    ("`a == 1", 1, 1, "not closed"),
    ("percent(a) < 25%", 1, 16, "without the sign"),
    ("percent(a) <= 25", 1, 12, "percent(…) < 25"),
    ("10 < percent(a)", 1, 4, "12.5 <= percent(…) < 50"),
    ("percent(a) < 12.3456", 1, 14, "three decimals"),
    ("percent(a) < 101", 1, 14, "above 100"),
    ("percent(a) < -1", 1, 14, "0 to 100"),
    ("percent(a) < 1e1", 1, 14, "0 to 100"),
    ("50 <= percent(a) < 20", 1, 20, "below the lower"),
    ("percent(a, salt=x) < 2", 1, 17, "double quotes"),
    ('percent(a, salt="x", salt="y") < 2', 1, 22, "twice"),
    ("percent(a, algorithm=MD5) < 2", 1, 22, "MURMUR3"),
    ("percent(a, pepper=MD5) < 2", 1, 12, "salt and algorithm"),
    ('semver(a) != "1.0"', 1, 11, "not semver(…) == …"),
    ('a before timestamp("2026-01-01T00:00:00")', 1, 20, "offset"),
    ('a before timestamp("2026-02-30")', 1, 20, "RFC 3339"),
    ("compare(a, LIKE, 1)", 1, 12, "EQUALS"),
    ("a == \x00", 1, 6, "U+0000"),
    ('a == b c == "', 1, 6, "attr(b)"),
]


@pytest.mark.parametrize(("text", "line", "column", "advice"), MISTAKES, ids=[m[0][:30] for m in MISTAKES])
def test_an_error_names_the_place_shows_the_line_and_advises(
    text: str, line: int, column: int, advice: str
) -> None:
    with pytest.raises(InvalidConditionError) as caught:
        parse_condition(text)
    error = caught.value
    assert (error.metadata["line"], error.metadata["column"]) == (str(line), str(column))
    assert f"line {line}, column {column}" in str(error)
    assert advice in str(error)
    shown, caret = str(error).split("\n")[1:3]
    assert caret.strip() == "^"
    # The caret stands below the offending character.
    if column <= len(text.split("\n")[line - 1]) and text.isprintable():
        assert shown[caret.index("^")] == text.split("\n")[line - 1][column - 1]


def test_a_long_line_is_cut_around_the_mistake() -> None:
    with pytest.raises(InvalidConditionError) as caught:
        parse_condition(" and ".join(["a == 1"] * 500) + " and region == eu and " + "b == 2 and " * 500)
    shown, caret = str(caught.value).split("\n")[1:3]
    assert len(shown) < 120
    assert shown[caret.index("^") :].startswith("eu and")


PIECES = [
    *KEYWORDS,
    *"()[]{},=<>\"'`\\.-+%\n\t ",
    "==",
    "a",
    "user.id",
    '"x"',
    "1",
    "1.5",
    "[1]",
    '{"a": 1}',
    "EQUALS",
    "salt",
    "algorithm",
    "\ud800",
    "\u2028",
]


@settings(deadline=None, max_examples=examples(200))
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join)))
@example("percent(a, algorithm=MURMUR3, algorithm=MURMUR3) < 1")
@example("percent(a, salt=")
@example("a in [" + "[" * 2_000)
def test_no_text_raises_anything_but_an_invalid_condition(text: str) -> None:
    error = refusal(text)
    assert error is None or error.metadata["problem"]
    assert error is None or error.message.encode()


def refusal(text: str) -> InvalidConditionError | None:
    try:
        parse_condition(text)
    except InvalidConditionError as exc:
        return exc
    return None


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "not ",
        "[",
        '{"a":',
        "a or ",
        "all_of(",
        "a == 1 or ",
        "1",
        '"',
        "`\\",
        "a.",
        "-",
        " ",
        "a in [1] and ",
    ],
)
def test_the_longest_text_takes_bounded_time(piece: str) -> None:
    text = (piece * MAX_CONDITION_LENGTH)[:MAX_CONDITION_LENGTH]
    started = time.monotonic()
    with pytest.raises(InvalidConditionError):
        parse_condition(text)
    # Two seconds here; the bound leaves room for a busy machine, and a quadratic parser would take hours.
    assert time.monotonic() - started < 30


def test_a_longer_text_is_refused_at_once() -> None:
    with pytest.raises(InvalidConditionError, match="longer than"):
        parse_condition("a == 1 or " * MAX_CONDITION_LENGTH)


@pytest.mark.parametrize(
    "text", ["not " * 101 + "a == 1", "(" * 101 + "a == 1" + ")" * 101, "all_of(" * 101 + ")" * 101]
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(InvalidConditionError, match="levels deep"):
        parse_condition(text)
