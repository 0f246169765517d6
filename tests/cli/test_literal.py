"""Values and contexts as they are typed."""

from __future__ import annotations

import click
import pytest

from rheostat.cli.literal import parse_context, parse_value
from rheostat.errors import TypeMismatchError
from rheostat.model.type import parse_type
from rheostat.model.value import FrozenMapping, same


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("float", "4", 4.0),
        ("int", "5.0", 5),
        ("bool", "true", True),
        ("str", "hello", "hello"),
        ("str", "5", "5"),
        ("str", '"5"', "5"),
        ("str", "null", "null"),
        ("str", "", ""),
        ('Enum["a","b"]', "a", "a"),
        ('Enum[1,"1"]', "1", 1),
        ('Enum[1,"1"]', '"1"', "1"),
        ("Sequence<int>", "[1, 2.0]", (1, 2)),
        ("Mapping<str>", '{"a": "b"}', FrozenMapping({"a": "b"})),
        ("Json", "null", None),
    ],
)
def test_json_that_fits_the_type_wins_over_a_plain_string(type_, text, value):
    assert same(parse_value(text, parse_type(type_)), value)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("float", "soon"),
        ("int", "1.5"),
        ("bool", "yes"),
        ('Enum["a"]', "c"),
        ("Sequence<str>", "a,b"),
        ("Json", "hello"),
        ("int", "NaN"),
        ("int", "99999999999999999999"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_type(type_, text):
    with pytest.raises(TypeMismatchError) as refused:
        parse_value(text, parse_type(type_))
    assert type_ in refused.value.message or "64 bits" in refused.value.message


def test_a_context_has_json_values_and_plain_words():
    context = parse_context(["region=eu", "age=5", "on=true", 'id="5"', 'tags=["a"]', "url=a=b", "no="])
    assert context == {
        "region": "eu",
        "age": 5,
        "on": True,
        "id": "5",
        "tags": ("a",),
        "url": "a=b",
        "no": "",
    }


def test_a_context_that_is_no_object_is_refused():
    with pytest.raises(click.UsageError):
        parse_context([], "[1]")
    with pytest.raises(click.UsageError):
        parse_context([], "{")
