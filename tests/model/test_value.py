from __future__ import annotations

import itertools
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import TypeMismatchError
from rheostat.model.value import (
    ABSENT,
    INT64_MAX,
    INT64_MIN,
    MAX_VALUE_DEPTH,
    FrozenMapping,
    Value,
    canonical_json,
    freeze,
    parse_json,
    same,
    thaw,
)
from tests.strategies import values

DIFFERENT: list[Value] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    0.0,
    -0.0,
    1.0,
    "",
    "0",
    "1",
    "null",
    (),
    (1,),
    (1.0,),
    (True,),
    (None,),
    ((),),
    (1, 2),
    (2, 1),
    FrozenMapping(),
    FrozenMapping({"a": 1}),
    FrozenMapping({"a": 1.0}),
    FrozenMapping({"a": True}),
    FrozenMapping({"b": 1}),
    FrozenMapping({"a": 1, "b": 2}),
    FrozenMapping({"a": (1,)}),
    FrozenMapping({"a": FrozenMapping()}),
    INT64_MAX,
    float(INT64_MAX),
    INT64_MIN,
]


def test_values_of_different_kinds_are_never_the_same() -> None:
    for left, right in itertools.combinations(DIFFERENT, 2):
        assert not same(left, right), (left, right)
        assert not same(right, left)
        assert canonical_json(left) != canonical_json(right)
    for value in DIFFERENT:
        assert same(value, value)


def test_the_order_of_keys_does_not_count() -> None:
    left, right = FrozenMapping({"a": 1, "b": 2}), FrozenMapping({"b": 2, "a": 1})
    assert same(left, right)
    assert left == right
    assert hash(left) == hash(right)
    assert list(right) == ["b", "a"], "but it is kept"
    assert canonical_json(left) == canonical_json(right) == '{"a":1,"b":2}'


def test_a_frozen_mapping_is_equal_by_kind_as_well() -> None:
    assert FrozenMapping({"a": 1}) != FrozenMapping({"a": True})
    assert FrozenMapping({"a": 1}) != FrozenMapping({"a": 1.0})
    assert FrozenMapping({"a": 1}) == {"a": 1}
    assert FrozenMapping() != 0
    copied = pickle.loads(pickle.dumps(FrozenMapping({"a": (1, None)})))
    assert copied == FrozenMapping({"a": (1, None)})


@given(values())
def test_thawing_and_freezing_gives_the_same_value(value: Value) -> None:
    assert same(freeze(thaw(value)), value)
    assert same(freeze(value), value)


@given(values())
def test_canonical_json_is_json_without_spaces_that_parses_to_the_same_value(value: Value) -> None:
    text = canonical_json(value)
    assert same(parse_json(text), value)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_json(parse_json(text)) == text


@given(values(), values())
def test_texts_are_equal_exactly_for_the_same_values(left: Value, right: Value) -> None:
    assert (canonical_json(left) == canonical_json(right)) == same(left, right)


def test_what_thaw_returns_may_be_changed() -> None:
    value = freeze({"a": [1, {"b": []}]})
    raw = thaw(value)
    raw["a"][1]["b"].append(1)
    assert same(value, freeze({"a": [1, {"b": []}]}))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (math.nan, "not a finite number"),
        (math.inf, "not a finite number"),
        ([-math.inf], "not a finite number"),
        (2**63, "does not fit 64 bits"),
        (-(2**63) - 1, "does not fit 64 bits"),
        ([10**5000], "of 16610 bits does not fit"),
        ({1: 2}, "the key 1 of a mapping is not a string"),
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        (b"x", "of type bytes is not JSON"),
        ({1, 2}, "of type set is not JSON"),
        (1j, "of type complex is not JSON"),
        (ABSENT, "of type Absent is not JSON"),
    ],
)
def test_what_is_no_value_is_refused(raw: object, words: str) -> None:
    with pytest.raises(TypeMismatchError, match=words):
        freeze(raw)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["list", "mapping"])
def test_a_value_nests_so_deep_and_no_deeper(wrap: object) -> None:
    raw: object = 1
    for _ in range(MAX_VALUE_DEPTH):
        raw = wrap(raw)  # type: ignore[operator]
    freeze(raw)
    with pytest.raises(TypeMismatchError, match="nests more than"):
        freeze(wrap(raw))  # type: ignore[operator]
    for _ in range(5_000):
        raw = wrap(raw)  # type: ignore[operator]
    with pytest.raises(TypeMismatchError, match="nests more than"):
        freeze(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "{",
        "[1,]",
        "{'a': 1}",
        "NaN",
        "-Infinity",
        "1e999",
        '{"a":1,"a":1}',
        '[{"b":{"a":1,"a":2}}]',
        "9223372036854775808",
        '"\\ud800"',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_text_that_holds_no_value_is_refused(text: str) -> None:
    with pytest.raises(TypeMismatchError):
        parse_json(text)


def test_a_number_keeps_the_form_that_it_was_written_in() -> None:
    assert same(parse_json("[1, 1.0, 1e0, -0.0]"), (1, 1.0, 1.0, -0.0))


def test_absent_is_neither_true_nor_false() -> None:
    assert repr(ABSENT) == "ABSENT"
    with pytest.raises(TypeError, match="is ABSENT"):
        bool(ABSENT)


@given(st.text())
def test_every_text_that_utf8_can_carry_is_a_value(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(TypeMismatchError):
            freeze(text)
    else:
        assert freeze(text) == text
