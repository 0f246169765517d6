from __future__ import annotations

import enum
import json
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from rheostat.errors import InvalidSettingError, InvalidTypeError, TypeMismatchError
from rheostat.model.type import FLOAT, INT, JSON, JsonType, MappingType, SequenceType, normalise, parse_type
from rheostat.model.value import ABSENT, INT64_MAX, FrozenMapping, Value, freeze, same
from rheostat.sdk.codec import Codec, Coerced, codec_for
from rheostat.service.schema import check_schema, validate_schema
from tests.strategies import types, values, values_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    CRIMSON = "red"  # noqa: PIE796 - another name for a member


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    YES = True
    TWO = 2
    HALF = 0.5
    TEXT = "2"


class Word(str, enum.Enum):  # noqa: UP042 - the older way, whose str() is the member's name
    A = "a"


class Access(enum.Flag):
    WRITE = enum.auto()
    READ = enum.auto()
    BOTH = READ | WRITE


class Bits(enum.IntFlag):
    ONE = 1
    FOUR = 4


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclass
class Retry:
    attempts: int
    delays: list[float] = field(default_factory=list)
    on: Access = Access.READ
    colour: Colour | None = None
    points: Mapping[str, Point] = field(default_factory=dict)
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ValueError("attempts is negative")


class Limits(TypedDict):
    soft: int
    hard: NotRequired[int]


class Plan(Limits, total=False):
    name: Required[str]
    points: Sequence[Point]
    extra: Any


class Node(TypedDict):
    children: list[Node]


UserName = NewType("UserName", str)

TYPES: list[object] = [
    bool,
    int,
    float,
    str,
    Any,
    Colour,
    Level,
    Mixed,
    Word,
    Access,
    Bits,
    Literal["a", 1, True, 2.5],
    Sequence[int],
    list[float],
    tuple[Literal["a", "b"], ...],
    Sequence[Colour],
    Mapping[str, int],
    dict[str, list[bool]],
    Mapping[str, Access],
    Point,
    Retry,
    Plan,
    list[Retry],
    dict[str, Plan],
    int | None,
    Sequence[Colour | None],
    'Flags["a","b",1]',
    "Sequence<Mapping<float>>",
]


def python_values(python_type: object) -> SearchStrategy[Any]:
    """Values of one of TYPES, with which `encode` has to do."""
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    ints = st.integers(-(2**63), INT64_MAX)
    points = st.builds(Point, numbers, numbers)
    access = st.sampled_from([Access(0), *Access, Access.BOTH])
    plans = st.fixed_dictionaries(
        {"soft": ints, "name": st.text("abc")},
        optional={"hard": ints, "points": st.lists(points, max_size=2).map(tuple), "extra": values(3)},
    )
    retries = st.builds(
        Retry,
        st.integers(0, 9),
        st.lists(numbers, max_size=2),
        access,
        st.sampled_from([None, *Colour]),
        st.dictionaries(st.text("ab"), points, max_size=2),
    )
    keys = st.text("abc", max_size=2)
    by_name: dict[str, SearchStrategy[Any]] = {
        str(bool): st.booleans(),
        str(int): ints,
        str(float): numbers,
        str(str): st.text(st.characters(exclude_categories=["Cs"])),
        str(Any): values(),
        str(Colour): st.sampled_from(Colour),
        str(Level): st.sampled_from(Level),
        str(Mixed): st.sampled_from(Mixed),
        str(Word): st.sampled_from(Word),
        str(Access): access,
        str(Bits): st.sampled_from([Bits(0), Bits.ONE, Bits.FOUR, Bits.ONE | Bits.FOUR]),
        str(Literal["a", 1, True, 2.5]): st.sampled_from(["a", 1, True, 2.5]),
        str(Sequence[int]): st.lists(ints).map(tuple),
        str(list[float]): st.lists(numbers),
        str(tuple[Literal["a", "b"], ...]): st.lists(st.sampled_from("ab")).map(tuple),
        str(Sequence[Colour]): st.lists(st.sampled_from(Colour)).map(tuple),
        str(Mapping[str, int]): st.dictionaries(keys, ints).map(FrozenMapping),
        str(dict[str, list[bool]]): st.dictionaries(keys, st.lists(st.booleans())),
        str(Mapping[str, Access]): st.dictionaries(keys, access),
        str(Point): points,
        str(Retry): retries,
        str(Plan): plans,
        str(list[Retry]): st.lists(retries, max_size=2),
        str(dict[str, Plan]): st.dictionaries(keys, plans, max_size=2),
        str(int | None): st.one_of(st.none(), ints),
        str(Sequence[Colour | None]): st.lists(st.sampled_from([None, *Colour])).map(tuple),
        'Flags["a","b",1]': st.lists(st.sampled_from(["a", "b", 1]), unique=True).map(tuple),
        "Sequence<Mapping<float>>": st.lists(st.dictionaries(keys, numbers).map(FrozenMapping)).map(tuple),
    }
    return by_name[str(python_type)]


def near_values(codec: Codec[Any], data: DataObject, python_type: object) -> Value:
    """A value of the type with some of its parts replaced, which is likelier to be mended than any value."""
    return data.draw(scrambled(codec.encode(data.draw(python_values(python_type)))))


def scrambled(value: Value) -> SearchStrategy[Value]:
    if isinstance(value, tuple) and value:
        return st.tuples(*[scrambled(item) for item in value])
    if isinstance(value, FrozenMapping) and value:
        whole = st.fixed_dictionaries(
            {}, optional={key: scrambled(item) for key, item in (*value.items(), ("new", 1))}
        )
        return whole.map(FrozenMapping)
    return st.one_of(st.just(value), st.just(value), values(3))


def codecs() -> SearchStrategy[Codec[Any]]:
    return st.one_of(st.sampled_from(TYPES).map(codec_for), types().map(codec_for))


@given(st.data(), st.sampled_from(TYPES))
def test_decoding_undoes_encoding(data: DataObject, python_type: object) -> None:
    codec = codec_for(python_type)
    value = data.draw(python_values(python_type))
    encoded = codec.encode(value)
    decoded = codec.decode(encoded)
    assert decoded == value
    assert same(codec.encode(decoded), encoded)
    assert codec.copy(decoded) == value
    # What is encoded fits as it is, and says so by being the same object.
    assert codec.coerce(encoded) == Coerced(encoded, ())
    assert codec.coerce(encoded).value is encoded
    assert same(normalise(codec.type, encoded), encoded)
    validate_schema(codec.type, encoded)
    if codec.identity:
        assert decoded is encoded


def check_coerced(codec: Codec[Any], value: Value) -> None:
    coerced = codec.coerce(value)
    if coerced.value is ABSENT:
        assert coerced.coercions
        return
    assert same(normalise(codec.type, coerced.value), coerced.value)
    decoded = codec.decode(coerced.value)
    assert codec.coerce(coerced.value).value is coerced.value
    assert not codec.coerce(coerced.value).coercions
    # Only the order of flags may differ, and defaults that a dataclass fills in.
    again = codec.encode(decoded)
    assert codec.decode(again) == decoded
    validate_schema(codec.type, again)
    for coercion in coerced.coercions:
        assert str(coercion).startswith(coercion.path) and coercion.reason in str(coercion)


@given(codecs().filter(lambda codec: "maximum" not in str(codec.type)), values())
def test_whatever_a_server_sends_is_legal_once_coerced(codec: Codec[Any], value: Value) -> None:
    check_coerced(codec, value)


@given(st.data(), st.sampled_from(TYPES))
def test_what_almost_fits_is_legal_once_coerced(data: DataObject, python_type: object) -> None:
    codec = codec_for(python_type)
    check_coerced(codec, near_values(codec, data, python_type))


@given(st.data())
def test_values_of_a_type_of_the_model_are_never_touched(data: DataObject) -> None:
    type_ = data.draw(types())
    value = data.draw(values_of(type_))
    codec = codec_for(type_)
    assert codec.identity and codec.immutable
    assert codec.type == type_
    assert codec.coerce(value).value is value
    assert codec.decode(value) is value
    assert same(codec.encode(value), value)
    assert str(codec_for(str(type_)).type) == str(type_)


@given(codecs(), st.recursive(st.builds(object) | st.binary() | values(3), st.lists))
def test_coercing_never_raises_on_what_is_no_value(codec: Codec[Any], value: Any) -> None:
    assert isinstance(codec.coerce(value), Coerced)


@pytest.mark.parametrize(
    ("python_type", "text"),
    [
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (UserName, "str"),
        (Annotated[int, "seconds"], "int"),
        (Any, "Json"),
        (object, "Json"),
        (Colour, 'Enum["blue","red"]'),
        (Level, "Enum[1,2]"),
        (Mixed, 'Enum["2",0.5,2,true]'),
        (Access, 'Flags["READ","WRITE"]'),
        (Bits, 'Flags["FOUR","ONE"]'),
        (Literal["b", "a"], 'Enum["a","b"]'),
        (Literal[1, True], "Enum[1,true]"),
        (Sequence[int], "Sequence<int>"),
        (MutableSequence[int], "Sequence<int>"),
        (list[int], "Sequence<int>"),
        (tuple[int, ...], "Sequence<int>"),
        (list, "Sequence<Json>"),
        (Mapping[str, float], "Mapping<float>"),
        (MutableMapping[str, float], "Mapping<float>"),
        (dict[str, list[Colour]], 'Mapping<Sequence<Enum["blue","red"]>>'),
        (dict, "Mapping<Json>"),
        ('Enum["b", "a"]', 'Enum["a","b"]'),
        ("Sequence< int >", "Sequence<int>"),
        (SequenceType(MappingType(INT)), "Sequence<Mapping<int>>"),
        (JSON, "Json"),
        (int | None, 'Json[{"anyOf":[{"type":"integer"},{"type":"null"}]}]'),
    ],
)
def test_every_supported_type_has_its_type_of_a_setting(python_type: object, text: str) -> None:
    codec = codec_for(python_type)
    assert str(codec.type) == text
    assert parse_type(text) == codec.type


def test_structures_are_json_under_a_schema_of_their_fields() -> None:
    assert codec_for(Point).type == JsonType(
        '{"additionalProperties":false,"properties":{"x":{"type":"number"},"y":{"type":"number"}},'
        '"required":["x"],"type":"object"}'
    )
    plan = codec_for(Plan).type
    assert isinstance(plan, JsonType) and plan.schema is not None
    assert json.loads(plan.schema)["required"] == ["name", "soft"]
    assert json.loads(plan.schema)["properties"]["extra"] is True
    for structure in (Point, Retry, Plan, list[Plan], Limits):
        check_schema(codec_for(structure).type)


def test_the_order_and_the_defaults_of_fields_are_no_part_of_the_type() -> None:
    @dataclass
    class Before:
        a: int = 1
        b: str = ""

    @dataclass
    class After:
        b: str = "other"
        a: int = 2

    # Local classes have annotations as texts of builtins here, which resolve.
    assert codec_for(Before).type == codec_for(After).type


@pytest.mark.parametrize(
    ("python_type", "identity", "immutable"),
    [
        (float, True, True),
        (Literal["a"], True, True),
        (Sequence[int], True, True),
        (tuple[tuple[str, ...], ...], True, True),
        (Mapping[str, Sequence[int]], True, True),
        (Any, True, True),
        (int | None, True, True),
        (Colour, False, True),
        (Access, False, True),
        (Sequence[Colour], False, True),
        (Point, False, True),
        (list[int], False, False),
        (dict[str, int], False, False),
        (Sequence[list[int]], False, False),
        (Mapping[str, Limits], False, False),
        (Limits, False, False),
        (Retry, False, False),
    ],
)
def test_a_codec_says_whether_it_hands_out_the_values_themselves(
    python_type: object, identity: bool, immutable: bool
) -> None:
    codec = codec_for(python_type)
    assert (codec.identity, codec.immutable) == (identity, immutable)


def test_mutable_objects_are_handed_out_fresh() -> None:
    retry = Retry(1, [0.5])
    for codec, value in (
        (codec_for(list[int]), [1]),
        (codec_for(dict[str, list[int]]), {"a": [1]}),
        (codec_for(Limits), {"soft": 1}),
        (codec_for(Retry), retry),
        (codec_for(Sequence[list[int]]), ([1],)),
    ):
        encoded = codec.encode(value)
        assert codec.decode(encoded) is not codec.decode(encoded)
        assert codec.copy(value) is not value
        assert codec.copy(value) == value == codec.decode(encoded)
    assert codec_for(Retry).copy(retry).delays is not retry.delays
    held = ([1],)
    assert codec_for(Sequence[list[int]]).copy(held)[0] is not held[0]


def test_sequences_and_mappings_are_tuples_and_frozen() -> None:
    assert codec_for(Sequence[Colour]).decode(("red",)) == (Colour.RED,)
    decoded = codec_for(Mapping[str, Colour]).decode(freeze({"a": "red"}))
    assert isinstance(decoded, FrozenMapping) and decoded == {"a": Colour.RED}
    assert codec_for(list[Colour]).decode(("red",)) == [Colour.RED]
    assert codec_for(dict[str, Colour]).decode(freeze({"a": "red"})) == {"a": Colour.RED}


@pytest.mark.parametrize(
    "python_type",
    [
        set,
        set[int],
        bytes,
        complex,
        None,
        tuple[int, str],
        tuple[()],
        int | str,
        int | str | None,
        dict[int, str],
        Mapping[UserName, int] | str,
        Literal[None],  # noqa: PYI061 - the very text
        Literal[b"a"],
        Literal[Colour.RED],
        enum.Enum("Empty", {}),
        enum.Enum("Tuples", {"A": (1, 2)}),
        enum.Enum("Huge", {"A": 2**70}),
        enum.Flag("NoFlags", {}),
        Colour.RED,
        3,
        Node,
        Sequence[set[int]],
    ],
)
def test_any_other_type_is_refused_with_what_is_supported(python_type: object) -> None:
    with pytest.raises(
        InvalidSettingError, match=r"is not supported.*: use bool, int, .* a TypedDict, a dataclass"
    ):
        codec_for(python_type)


def test_a_refusal_names_the_field() -> None:
    @dataclass
    class Bad:
        ok: int
        wrong: bytes

    @dataclass
    class Unresolved:
        a: Missing  # type: ignore[name-defined]  # noqa: F821 - what the test is about

    @dataclass
    class Initial:
        a: InitVar[int]

    with pytest.raises(InvalidSettingError, match=r"Bad, field 'wrong': the type bytes is not supported"):
        codec_for(Bad)
    with pytest.raises(
        InvalidSettingError, match=r"Unresolved.*name 'Missing' is not defined.*top of a module"
    ):
        codec_for(Unresolved)
    with pytest.raises(InvalidSettingError, match=r"Initial.*InitVar"):
        codec_for(Initial)
    with pytest.raises(InvalidSettingError, match=r"field 'children'.*contains itself; use Any"):
        codec_for(Node)


def test_a_text_that_is_no_type_and_too_deep_a_type_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match="unknown type 'number'"):
        codec_for("number")
    deep: Any = int
    for _ in range(17):
        deep = list[deep]
    with pytest.raises(InvalidTypeError, match="nests more than 16 levels"):
        codec_for(deep)


@pytest.mark.parametrize(
    ("python_type", "value", "message"),
    [
        (bool, 1, "1 is not of type bool"),
        (int, True, "True is not of type int"),
        (int, 1.5, "1.5 is not of type int"),
        (int, 2**63, "an int does not fit 64 bits"),
        (float, False, "False is not of type float"),
        (float, float("nan"), "nan is not of type float"),
        (float, 10**400, "is not of type float"),
        (str, b"a", "b'a' is not of type str"),
        (str, "\ud800", "lone surrogate"),
        (Any, {1: 2}, "the key 1 of a mapping is not a string"),
        (Literal["a", "b"], "c", """'c' is not of type Enum["a","b"]"""),
        (Literal[1], True, "True is not of type Enum[1]"),
        (Colour, "red", "'red' is no member of Colour: write Colour.RED"),
        (Colour, Level.LOW, "is no member of Colour"),
        (Access, Bits.ONE, "is no Access"),
        (Bits, Bits(8), "has bits that no member of Bits has"),
        (Sequence[int], "12", "'12' is not of type Sequence<int>"),
        (Sequence[int], [1, "2"], "[1]: '2' is not of type int"),
        (dict[str, list[int]], {"a": [1, 2, None]}, "['a'][2]: None is not of type int"),
        (dict[str, int], {1: 1}, "the key 1 is not a str"),
        (dict[str, int], [("a", 1)], "is not of type Mapping<int>"),
        ('Flags["a","b"]', ["a", "a"], "[1]: 'a' stands twice"),
        (Limits, {"hard": 1}, "the key 'soft' is missing"),
        (Limits, {"soft": 1, "sotf": 1}, "'sotf' is no key of Limits"),
        (Plan, {"soft": 1, "name": "", "points": [Point(1), Point("2")]}, "['points'][1].x: '2' is not of type float"),  # type: ignore[arg-type]  # as meant
        (list[Retry], [Retry(1, [0.5, "x"])], "[0].delays[1]: 'x' is not of type float"),  # type: ignore[list-item]  # as meant
        (Point, {"x": 1}, "is no Point"),
    ],
)  # fmt: skip
def test_encoding_names_the_place_of_what_does_not_fit(
    python_type: object, value: object, message: str
) -> None:
    with pytest.raises(TypeMismatchError) as caught:
        codec_for(python_type).encode(value)
    assert message in caught.value.message


def test_encoding_gives_exact_types() -> None:
    assert type(codec_for(float).encode(2)) is float
    assert type(codec_for(int).encode(Level.HIGH)) is int
    assert type(codec_for(int).encode(2.0)) is int
    plain = codec_for(str).encode(Word.A)
    assert type(plain) is str and plain == "a"
    assert codec_for(Access).encode(Access.BOTH) == ("READ", "WRITE")
    assert codec_for(Colour).encode(Colour.CRIMSON) == "red"


def test_a_value_that_contains_itself_or_nests_too_deep_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for codec in (codec_for(Any), codec_for(list[Any])):
        with pytest.raises(TypeMismatchError, match="nests more than"):
            codec.encode(endless)


@pytest.mark.parametrize(
    ("python_type", "raw", "value", "coercions"),
    [
        (int, 5.0, 5, []),
        (float, 5, 5.0, []),
        (int, 5.5, ABSENT, ["5.5 is not of type int"]),
        (int, 2.0**63, ABSENT, ["9.223372036854776e+18 is not of type int"]),
        (bool, 1, ABSENT, ["1 is not of type bool"]),
        (float, True, ABSENT, ["true is not of type float"]),
        (str, None, ABSENT, ["null is not of type str"]),
        (Level, 2.0, 2, []),
        (Level, True, ABSENT, ["true is not of type Enum[1,2]"]),
        (Mixed, 1, ABSENT, ['1 is not of type Enum["2",0.5,2,true]']),
        (Colour, "green", ABSENT, ['"green" is not of type Enum["blue","red"]']),
        (
            Access,
            ["WRITE", "DELETE", "READ", "READ"],
            ["WRITE", "READ"],
            ["""[1]: 'DELETE' is no flag of Flags["READ","WRITE"]""", "[3]: 'READ' stands twice"],
        ),
        (Access, "READ", ABSENT, ['"READ" is not of type Flags["READ","WRITE"]']),
        (Sequence[float], [1, 2.5, "3", None], [1.0, 2.5], ["[2]: ", "[3]: "]),
        (Sequence[int], [], [], []),
        (Sequence[int], {"a": 1}, ABSENT, ['{"a":1} is not of type Sequence<int>']),
        (dict[str, list[int]], {"a": [1, "x"], "b": 3}, {"a": [1]}, ["['a'][1]: ", "['b']: "]),
        (Point, {"x": 1}, {"x": 1.0}, []),
        (Point, {"x": 1, "z": 3}, {"x": 1.0}, [".z: there is no such field; the fields are x, y"]),
        (Point, {"x": 1, "y": "?"}, {"x": 1.0}, ['.y: "?" is not of type float']),
        (Point, {"y": 1}, ABSENT, ["the field 'x' is missing"]),
        (Point, {"x": "?", "z": 1}, ABSENT, ["the field 'x' cannot be used: .x: "]),
        (
            list[Retry],
            [{"attempts": -1}, {"attempts": 1, "colour": "green", "delays": [1, "?"]}],
            [{"attempts": 1, "delays": [1.0]}],
            ["[0]: Retry refuses it: attempts is negative", "[1].colour: ", "[1].delays[1]: "],
        ),
        (Limits, {"soft": 1, "hard": None, "x": 1}, {"soft": 1}, ["['hard']: ", "['x']: there is no such field"]),
        (Colour | None, "green", ABSENT, ['"green" is not of type']),
    ],
)  # fmt: skip
def test_a_servers_value_is_mended_where_it_can_be(
    python_type: object, raw: object, value: object, coercions: list[str]
) -> None:
    coerced = codec_for(python_type).coerce(freeze(raw))
    if value is ABSENT:
        assert coerced.value is ABSENT
    else:
        assert coerced.value is not ABSENT and same(coerced.value, freeze(value))
    texts = sorted(str(coercion) for coercion in coerced.coercions)
    assert len(texts) == len(coercions)
    for text, start in zip(texts, sorted(coercions), strict=True):
        assert text.startswith(start)


def test_a_coercion_keeps_what_was_dropped() -> None:
    (coercion,) = codec_for(dict[str, list[int]]).coerce(freeze({"a": [1, {"x": 1}]})).coercions
    assert coercion.path == "['a'][1]"
    assert coercion.dropped == {"x": 1}


def test_options_that_are_the_same_number_are_the_option() -> None:
    codec = codec_for(Literal[1, 0.0])
    assert codec.coerce(1.0) == Coerced(1)
    assert type(codec.coerce(1.0).value) is int
    assert str(codec.coerce(-0.0).value) == "0.0"
    assert codec_for(FLOAT).coerce(-0.0).value == 0.0
