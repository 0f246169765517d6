from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import InvalidTypeError, TypeMismatchError
from rheostat.model.type import (
    FLOAT,
    INT,
    JSON,
    MAX_TYPE_DEPTH,
    EnumType,
    FlagsType,
    MappingType,
    SequenceType,
    SettingType,
    is_subtype,
    normalise,
    parse_type,
)
from rheostat.model.value import INT64_MAX, INT64_MIN, Value, canonical_json, freeze, same
from tests.strategies import types, values, values_of

CANONICAL = [
    ("bool", "bool"),
    (" int ", "int"),
    ("float", "float"),
    ("str", "str"),
    ('Enum["b","a"]', 'Enum["a","b"]'),
    ('Enum [ 2 , 1, "1" ]', 'Enum["1",1,2]'),
    ("Enum[true,0.5]", "Enum[0.5,true]"),
    ('Flags["b", "a"]', 'Flags["a","b"]'),
    ('Enum["é","]","\\"",">"]', 'Enum[">","\\"","]","é"]'),
    ("Sequence< int >", "Sequence<int>"),
    ("Mapping<Sequence<Enum[1]>>", "Mapping<Sequence<Enum[1]>>"),
    ("Json", "Json"),
    ("Json[ {} ]", "Json[{}]"),
    ("Json[true]", "Json[true]"),
    ('Json[{"type": "object", "a": [1, 1.0]}]', 'Json[{"a":[1,1.0],"type":"object"}]'),
    ('Sequence<Json[{"const": "]>"}]>', 'Sequence<Json[{"const":"]>"}]>'),
]


@pytest.mark.parametrize(("written", "canonical"), CANONICAL)
def test_a_type_has_one_canonical_text(written: str, canonical: str) -> None:
    assert str(parse_type(written)) == canonical
    assert str(parse_type(canonical)) == canonical


@given(types())
def test_a_type_is_read_back_from_its_text(type_: SettingType) -> None:
    again = parse_type(str(type_))
    assert again == type_
    assert str(again) == str(type_)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown type ''"),
        ("integer", "unknown type 'integer'"),
        ("Int", "unknown type"),
        ("int int", "goes on after its end, at character 5"),
        ("int>", "goes on after its end"),
        ("Enum", "expected '\\['"),
        ("Enum[]", "at least one option"),
        ("Enum[null]", "bools, numbers and strings"),
        ("Enum[[1]]", "bools, numbers and strings"),
        ('Enum[{"a":1}]', "bools, numbers and strings"),
        ('Enum["a","a"]', "twice"),
        ("Enum[1,1.0]", "twice"),
        ("Flags[1,", "expected JSON"),
        ("Enum[NaN]", "finite"),
        ("Enum[9223372036854775808]", "64 bits"),
        ('Enum["\\ud800"]', "surrogate"),
        ("Sequence", "expected '<'"),
        ("Sequence[int]", "expected '<'"),
        ("Sequence<int", "expected '>'"),
        ("Sequence<>", "unknown type"),
        ("Mapping<str,int>", "expected '>'"),
        ("Json[", "expected JSON"),
        ("Json[{}", "expected ']'"),
        ("Json[1]", "not an object or a bool"),
        ("Json[null]", "not an object or a bool"),
        ("Sequence<" * (MAX_TYPE_DEPTH + 1) + "int" + ">" * (MAX_TYPE_DEPTH + 1), "nests more than"),
        ("Sequence<" * 100_000, "nests more than"),
        ("Json[" + '{"a":' * 600 + "1" + "}" * 600 + "]", "nests more than"),
        ("Json[" + "[" * 100_000, "expected JSON"),
        ("x" * 10_000, "unknown type 'xxx"),
    ],
    ids=lambda part: part[:30],
)
def test_a_wrong_type_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidTypeError, match=words) as caught:
        parse_type(text)
    assert len(caught.value.message) < 400
    assert isinstance(caught.value, ValueError)


def test_types_nest_as_deep_as_allowed() -> None:
    text = "Sequence<" * MAX_TYPE_DEPTH + "int" + ">" * MAX_TYPE_DEPTH
    assert str(parse_type(text)) == text


@pytest.mark.parametrize(
    ("text", "raw", "stored"),
    [
        ("int", 5.0, 5),
        ("int", -0.0, 0),
        ("int", float(2**53), 2**53),
        ("int", INT64_MIN, INT64_MIN),
        ("int", float(INT64_MIN), INT64_MIN),
        ("float", 5, 5.0),
        ("float", INT64_MAX, float(INT64_MAX)),
        ("float", 0.1, 0.1),
        ("bool", False, False),
        ("str", "", ""),
        ('Enum["a",1]', 1.0, 1),
        ("Enum[1.0]", 1, 1.0),
        ("Enum[true,1]", 1, 1),
        ("Enum[true,1]", True, True),
        ("Flags[1,2]", [2.0, 1], [2, 1]),
        ("Flags[1,2]", [], []),
        ("Sequence<float>", [1, 2.5], [1.0, 2.5]),
        ("Mapping<Sequence<int>>", {"a": [1.0]}, {"a": [1]}),
        ("Json", {"a": [1, 1.0, None, True]}, {"a": [1, 1.0, None, True]}),
        ("Sequence<Json>", [1, 1.0, None], [1, 1.0, None]),
    ],
)
def test_a_value_is_stored_in_the_form_of_its_type(text: str, raw: object, stored: object) -> None:
    assert same(normalise(parse_type(text), freeze(raw)), freeze(stored))


@pytest.mark.parametrize(
    ("text", "raw", "words"),
    [
        ("int", 5.5, "5.5 is not of type int"),
        ("int", float(2**63), "is not of type int"),
        ("int", True, "true is not of type int"),
        ("int", "5", '"5" is not of type int'),
        ("int", None, "null is not of type int"),
        ("float", False, "false is not of type float"),
        ("float", "1.0", "is not of type float"),
        ("bool", 1, "1 is not of type bool"),
        ("bool", 0.0, "is not of type bool"),
        ("str", 1, "1 is not of type str"),
        ("str", None, "null is not of type str"),
        ('Enum["a"]', "b", '"b" is not of type Enum'),
        ("Enum[1]", True, "true is not of type Enum"),
        ("Enum[true]", 1, "1 is not of type Enum"),
        ('Enum["1"]', 1, "is not of type Enum"),
        ('Flags["a"]', "a", "is not of type Flags"),
        ('Flags["a","b"]', ["a", "c"], '"c" at \\[1\\] is not'),
        ('Flags["a"]', ["a", "a"], "repeats a flag"),
        ("Flags[1]", [1, 1.0], "repeats a flag"),
        ("Sequence<int>", {"a": 1}, "is not of type Sequence"),
        ("Sequence<int>", [1, None], "null at \\[1\\] is not"),
        ("Mapping<int>", [1], "is not of type Mapping"),
        ("Mapping<Sequence<int>>", {"a": [1, 2.5]}, "2.5 at .a\\[1\\] is not of type int"),
        ("str", [1] * 1000, "\\.\\.\\. is not of type str"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(text: str, raw: object, words: str) -> None:
    with pytest.raises(TypeMismatchError, match=words) as caught:
        normalise(parse_type(text), freeze(raw))
    assert len(caught.value.message) < 300


@given(types().flatmap(lambda type_: st.tuples(st.just(type_), values_of(type_))))
def test_the_normal_form_of_a_value_is_its_own(pair: tuple[SettingType, Value]) -> None:
    type_, value = pair
    stored = normalise(type_, value)
    assert same(stored, value)
    assert same(normalise(type_, stored), stored)


@given(types(), values())
def test_any_value_is_either_stored_or_refused(type_: SettingType, value: Value) -> None:
    try:
        stored = normalise(type_, value)
    except TypeMismatchError:
        return
    assert same(normalise(type_, stored), stored)


NARROWER = [
    ("int", "float"),
    ('Enum["a"]', 'Enum["a","b"]'),
    ("Enum[1]", "Enum[1.0,2]"),
    ('Flags["a"]', 'Flags["b","a"]'),
    ("Sequence<int>", "Sequence<float>"),
    ("Mapping<Sequence<Enum[1]>>", "Mapping<Sequence<Enum[1,2]>>"),
    ("Json[{}]", "Json"),
    ("Sequence<Json[true]>", "Sequence<Json>"),
]

INCOMPARABLE = [
    ("bool", "int"),
    ("int", "str"),
    ("bool", "Json"),
    ("int", "Json"),
    ("str", 'Enum["a"]'),
    ('Enum["a"]', "str"),
    ("Enum[true]", "Enum[1,2]"),
    ('Enum["1"]', "Enum[1,2]"),
    ('Enum["a"]', 'Flags["a","b"]'),
    ('Enum["a","c"]', 'Enum["a","b"]'),
    ("Sequence<int>", "Mapping<float>"),
    ("Sequence<int>", "int"),
    ("Sequence<str>", "Sequence<int>"),
    ("Json[{}]", "Json[true]"),
    ("Sequence<int>", "Json"),
]


@pytest.mark.parametrize(("narrow", "wide"), NARROWER)
def test_a_narrower_type_is_a_subtype_and_not_the_other_way(narrow: str, wide: str) -> None:
    assert is_subtype(parse_type(narrow), parse_type(wide))
    assert not is_subtype(parse_type(wide), parse_type(narrow))


@pytest.mark.parametrize(("left", "right"), INCOMPARABLE)
def test_everything_else_is_incomparable(left: str, right: str) -> None:
    assert not is_subtype(parse_type(left), parse_type(right))
    if (right, left) not in INCOMPARABLE:
        assert not is_subtype(parse_type(right), parse_type(left))


@given(types())
def test_a_type_is_its_own_subtype(type_: SettingType) -> None:
    assert is_subtype(type_, type_)


def narrower(wide: SettingType) -> st.SearchStrategy[SettingType]:
    """Types that should be subtypes of *wide*, by the rules in words."""
    match wide:
        case EnumType(options) | FlagsType(options):
            some = st.lists(st.sampled_from(options), min_size=1, unique_by=repr)
            return some.map(
                lambda chosen: parse_type(f"{type(wide).__name__[:-4]}{canonical_json(tuple(chosen))}")
            )
        case SequenceType(element):
            return narrower(element).map(SequenceType)
        case MappingType(element):
            return narrower(element).map(MappingType)
        case _ if wide == FLOAT:
            return st.sampled_from([INT, FLOAT])
        case _ if wide == JSON:
            return st.sampled_from(
                [JSON, parse_type('Json[{"maximum":100,"type":["number","null","string"]}]')]
            )
        case _:
            return st.just(wide)


@given(types().flatmap(lambda wide: st.tuples(narrower(wide), st.just(wide))), st.data())
def test_every_value_of_a_subtype_is_valid_for_the_wider_type(
    pair: tuple[SettingType, SettingType], data: st.DataObject
) -> None:
    narrow, wide = pair
    assert is_subtype(narrow, wide)
    value = normalise(narrow, data.draw(values_of(narrow)))
    assert is_subtype(wide, narrow) == (str(wide) == str(narrow))
    normalise(wide, value)
