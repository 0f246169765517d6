from __future__ import annotations

import datetime
import enum
import math
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from rheostat.evaluation.context import Context, normalise
from rheostat.model.value import ABSENT


class Colour(enum.Enum):
    RED = "red"
    PAIR = ("a", "b")
    NOTHING = None


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    """A string with a will of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Count(int):
    def __int__(self) -> int:
        return 99


class Pair(NamedTuple):
    left: str
    right: int


BERLIN = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (True, True),
        (5, 5),
        (-0.0, 0.0),
        ("x", "x"),
        (uuid.UUID("550e8400-e29b-41d4-a716-446655440000"), "550e8400-e29b-41d4-a716-446655440000"),
        (Colour.RED, "red"),
        (Colour.PAIR, ("a", "b")),
        (Level.HIGH, 3),
        (Decimal(5), 5),
        (Decimal("5.00"), 5),
        (Decimal("5.5"), 5.5),
        (Decimal("-0.0"), 0),
        (Decimal("0E+1000000"), 0),
        (Decimal(9223372036854775807), 2**63 - 1),
        (Decimal("12345678901234567890.5"), 12345678901234567890.5),
        (Decimal("Infinity"), math.inf),
        (Decimal("1E-1000000"), 0.0),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05Z"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=BERLIN), "2026-01-02T01:04:05.000006Z"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05Z"),  # noqa: DTZ001 - naive on purpose
        (("a", 1), ("a", 1)),
        (["a", None, True], ("a", True)),
        ({"a"}, ("a",)),
        (frozenset({1}), (1,)),
        (Pair("l", 2), ("l", 2)),
        ([Colour.RED, Decimal("1.5")], ("red", 1.5)),
        ([], ()),
    ],
)
def test_python_types_become_what_conditions_know(raw: object, expected: object) -> None:
    found = normalise(raw)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        ABSENT,
        [ABSENT],
        Colour.NOTHING,
        object(),
        b"bytes",
        bytearray(b"x"),
        1j,
        datetime.time(1, 2),
        datetime.timedelta(1),
        2**63,
        -(2**63) - 1,
        Decimal(2**63),
        Decimal("1E+1000000"),
        range(3),
        (x for x in "ab"),
        {"a": 1}.keys(),
        [["a"]],
        [{"a": 1}],
        ["a", object()],
        ["a", 2**63],
        [Colour.PAIR],
        [("a",)],
        datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-1))),
        int,
    ],
)
def test_what_conditions_do_not_know_is_missing(raw: object) -> None:
    assert normalise(raw) is ABSENT


def test_not_a_number_stays_one() -> None:
    for raw in (math.nan, Decimal("NaN"), Decimal("sNaN")):
        found = normalise(raw)
        assert isinstance(found, float)
        assert math.isnan(found)


def test_subclasses_lose_their_own_operators() -> None:
    assert type(normalise(Word("a"))) is str
    assert normalise(Word("a")) != "b"
    assert normalise(Count(5)) == 5


def test_a_list_that_contains_itself_is_missing() -> None:
    looped: list[Any] = ["a"]
    looped.append(looped)

    assert normalise(looped) is ABSENT


@pytest.mark.parametrize("mapping", [dict, OrderedDict, lambda raw: MappingProxyType(dict(raw))])
def test_any_mapping_is_walked(mapping: Any) -> None:
    context = Context(mapping({"user": mapping({"plan": "pro"})}))

    assert context.lookup("user.plan") == "pro"


def test_a_mapping_that_contains_itself_is_walked_as_far_as_the_path_goes() -> None:
    looped: dict[str, Any] = {"a": 1}
    looped["self"] = looped

    assert Context(looped).lookup("self.self.self.a") == 1


class Broken(Mapping[str, object]):
    """Raises whatever is asked of it."""

    def __getitem__(self, key: str) -> object:
        raise RuntimeError(key)

    def __contains__(self, key: object) -> bool:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


def test_a_layer_that_cannot_be_read_is_missing_and_hides_the_next() -> None:
    context = Context(Broken(), {"a": 1})

    assert context.lookup("a") is ABSENT


def test_a_context_is_no_list() -> None:
    with pytest.raises(TypeError, match="not list"):
        Context.of([("a", 1)])  # type: ignore[arg-type]


def test_the_layer_that_has_a_path_is_told() -> None:
    context = Context({"user": {"id": "u1"}}, {"user.plan": None})

    assert context.locate("user.id") == (0, "u1")
    assert context.locate("user.plan") == (1, None)
    assert context.locate("user.email") is None
    assert Context.of(context) is context
    assert Context.of(None).layers == ()
