"""A written condition beside a stored one: what it leaves open is taken from there."""

from __future__ import annotations

import pytest

from rheostat.language import WrittenCondition, format_condition, parse_condition


@pytest.mark.parametrize(
    ("written", "stored", "equal"),
    [
        ("a == 1", "a == 1", True),
        ("a == 1", "a == 1.0", False),
        ("a == 1", "a == true", False),
        ("percent(u) < 5", 'percent(u, salt="s", algorithm=REPLANE) < 5', True),
        ('percent(u, salt="s") < 5', 'percent(u, salt="s", algorithm=REPLANE) < 5', True),
        ('percent(u, salt="s", algorithm=MURMUR3) < 5', 'percent(u, salt="s", algorithm=REPLANE) < 5', False),
        ('percent(u, salt="t") < 5', 'percent(u, salt="s") < 5', False),
        ("percent(u) < 6", 'percent(u, salt="s") < 5', False),
        ("percent(u) < 5", "percent(v) < 5", False),
        ("percent(u) < 5", "a == 1", False),
        ("percent(algorithm) < 5", 'percent(algorithm, salt="s", algorithm=REPLANE) < 5', True),
        (
            "percent(u) < 5 and not percent(v) >= 2",
            'percent(u, salt="s", algorithm=REPLANE) < 5 and not percent(v, salt="t") >= 2',
            True,
        ),
    ],
)
def test_an_absent_salt_or_algorithm_equals_whatever_is_stored(
    written: str, stored: str, equal: bool
) -> None:
    assert WrittenCondition.parse(written).equals(parse_condition(stored)) is equal


def test_nothing_stored_equals_no_condition() -> None:
    assert not WrittenCondition.parse("a == 1").equals(None)


@pytest.mark.parametrize(
    ("written", "stored", "completed"),
    [
        ("percent(u) < 5", 'percent(u, salt="s", algorithm=REPLANE) < 5', "same"),
        # A rollout that grows keeps its salt, and with it the units that were already in.
        (
            "percent(u) < 50 and a == 1",
            'percent(u, salt="s", algorithm=REPLANE) < 5',
            'percent(u, salt="s", algorithm=REPLANE) < 50 and a == 1',
        ),
        ("percent(u) < 50", 'percent(v, salt="s") < 5', "percent(u) < 50"),
        (
            "percent(u, algorithm=MURMUR3) < 50",
            'percent(u, salt="s", algorithm=REPLANE) < 5',
            'percent(u, salt="s") < 50',
        ),
        (
            "percent(u) < 5 or percent(u) < 6",
            'percent(u, salt="s") < 5 or percent(u, salt="t") < 6',
            "same",
        ),
    ],
)
def test_what_is_open_is_taken_from_the_stored_condition(written: str, stored: str, completed: str) -> None:
    result = WrittenCondition.parse(written).completed(parse_condition(stored))
    assert format_condition(result) == (stored if completed == "same" else completed)


def test_without_a_stored_condition_it_stays_open() -> None:
    assert format_condition(WrittenCondition.parse("percent(u) < 5").completed(None)) == "percent(u) < 5"


def test_a_condition_is_complete_when_salt_and_algorithm_are_written() -> None:
    assert WrittenCondition.parse('percent(u, salt="s", algorithm=MURMUR3) < 5').is_complete
    assert not WrittenCondition.parse('percent(u, salt="s") < 5').is_complete
    assert not WrittenCondition.parse("percent(u, algorithm=MURMUR3) < 5").is_complete
