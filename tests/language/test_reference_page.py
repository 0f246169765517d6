"""The reference page says what the parser does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rheostat.language import MAX_CONDITION_LENGTH, format_condition, parse_condition
from rheostat.language.word import KEYWORDS, MAX_NESTING

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "conditions.md").read_text(encoding="utf-8")


def test_its_examples_parse() -> None:
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    examples = [line for block in blocks[:2] for line in block.splitlines()]
    assert len(examples) == 4
    for example in examples:
        assert format_condition(parse_condition(example)) == example


@pytest.mark.parametrize(
    "example",
    [
        "user.home == attr(region)",
        'setting("new-checkout") == true',
        'percent(user.id, salt="checkout") < 25',
        'percent(user.id, salt="checkout") >= 50',
        '12.5 <= percent(user.id, salt="checkout") < 50',
        'literal("eu") == attr(region)',
        'tags == literal(["a"])',
        "compare(tags, IN, attr(others))",
        'compare(region, EQUALS, ["eu", "us"])',
        "(a == 1 and b == 2) and c == 3",
    ],
)
def test_its_inline_examples_are_canonical(example: str) -> None:
    assert f"`{example}`" in PAGE.replace("\n", " ")
    assert format_condition(parse_condition(example)) == example


def test_it_lists_the_keywords() -> None:
    listed = PAGE[PAGE.index("The keywords are") : PAGE.index("Inside a longer")]
    assert set(re.findall(r"`(\w+)`", listed)) == set(KEYWORDS)


def test_it_states_the_limits() -> None:
    assert f"{MAX_CONDITION_LENGTH:,}".replace(",", " ") in PAGE
    assert f"at most {MAX_NESTING} levels" in PAGE
