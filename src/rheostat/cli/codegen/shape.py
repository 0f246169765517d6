"""What values look like, between the types of settings and those of a language.

A shape is never narrower than the type that it stands for: what it cannot say, it leaves open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rheostat.model.value import FrozenMapping, Value, canonical_json, same

__all__ = [
    "ANY",
    "MAX_SIZE",
    "NULL",
    "AnyShape",
    "ArrayShape",
    "Form",
    "LiteralShape",
    "MapShape",
    "ObjectShape",
    "PrimitiveShape",
    "PropertyShape",
    "ReferenceShape",
    "Shape",
    "UnionShape",
    "bounded",
    "fits",
    "literals",
    "options",
    "union",
]

MAX_SIZE: Final = 500
"""Parts of one written type; a schema that refers to itself many times over could make millions of them."""


@dataclass(frozen=True, slots=True)
class AnyShape:
    """Any JSON, or what no type of the languages can say."""

    size: int = 1


@dataclass(frozen=True, slots=True)
class PrimitiveShape:
    """``null``, ``bool``, ``int``, ``float`` (an int is one too) or ``str``."""

    name: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class LiteralShape:
    """Exactly this value, which is a bool, an int or a str."""

    value: bool | int | str
    size: int = 1


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """A list."""

    element: Shape
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + self.element.size)


@dataclass(frozen=True, slots=True)
class MapShape:
    """An object with any keys."""

    element: Shape
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + self.element.size)


@dataclass(frozen=True, slots=True)
class PropertyShape:
    """One key of an object.

    Attributes:
        shape: Of its value.
        required: Whether every object has it.
        description: For people.
        deprecated: Whether it should no longer be used.
    """

    shape: Shape
    required: bool = False
    description: str = ""
    deprecated: bool = False


@dataclass(frozen=True, slots=True)
class ObjectShape:
    """An object with known keys.

    Attributes:
        properties: By key, in the order of the schema's canonical text.
        is_open: Whether the schema names a type of other keys, rather than saying nothing of them.
        description: For people.
    """

    properties: Mapping[str, PropertyShape]
    is_open: bool = False
    description: str = ""
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(entry.shape.size for entry in self.properties.values()))


@dataclass(frozen=True, slots=True)
class ReferenceShape:
    """One of the `Form.definitions`; anything where there is none of that pointer."""

    pointer: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class UnionShape:
    """One of several; made by `union`, which keeps it flat and without repeats."""

    options: tuple[Shape, ...]
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(option.size for option in self.options))


Shape: TypeAlias = "AnyShape | PrimitiveShape | LiteralShape | ArrayShape | MapShape | ObjectShape | ReferenceShape | UnionShape"


@dataclass(frozen=True, slots=True)
class Form:
    """The shape of a setting's values.

    Attributes:
        shape: The shape.
        definitions: The objects that references in it and in each other name, by JSON pointer.
    """

    shape: Shape
    definitions: Mapping[str, ObjectShape] = field(default_factory=dict)


ANY: Final = AnyShape()
NULL: Final = PrimitiveShape("null")


def bounded(shape: Shape) -> Shape:
    """Return *shape*, or `ANY` when it would be too long to write."""
    return shape if shape.size <= MAX_SIZE else ANY


def options(shape: Shape) -> tuple[Shape, ...]:
    """Return the options of a union, or the shape alone."""
    return shape.options if isinstance(shape, UnionShape) else (shape,)


def union(shapes: Iterable[Shape]) -> Shape:
    """Return what is any of *shapes*; `ANY` when one of them is, or there are none."""
    found: list[Shape] = []
    for shape in shapes:
        for option in options(shape):
            if isinstance(option, AnyShape):
                return ANY
            if not any(_equal(option, other) for other in found):
                found.append(option)
    primitives = {option.name for option in found if isinstance(option, PrimitiveShape)}
    if "float" in primitives:
        found = [option for option in found if option != PrimitiveShape("int")]
    found = [
        option for option in found if not (isinstance(option, LiteralShape) and _kinds(option) & primitives)
    ]
    if not found:
        return ANY
    return found[0] if len(found) == 1 else bounded(UnionShape(tuple(found)))


def _kinds(literal: LiteralShape) -> set[str]:
    match literal.value:
        case bool():
            return {"bool"}
        case int():
            return {"int", "float"}
        case str():
            return {"str"}


def _equal(left: Shape, right: Shape) -> bool:
    if isinstance(left, LiteralShape) and isinstance(right, LiteralShape):
        # Dataclass equality takes 1 for True.
        return same(left.value, right.value)
    return left == right


def literals(values: Iterable[Value]) -> Shape:
    """Return what is one of *values*; a float is any float, and a list any list, in the languages' types."""
    shapes: list[Shape] = []
    for value in values:
        match value:
            case None:
                shapes.append(NULL)
            case bool() | int() | str():
                shapes.append(LiteralShape(value))
            case float():
                shapes.append(PrimitiveShape("float"))
            case tuple():
                shapes.append(ArrayShape(ANY))
            case FrozenMapping():
                shapes.append(MapShape(ANY))
    return union(shapes)


def fits(value: Value, shape: Shape, definitions: Mapping[str, ObjectShape]) -> bool:
    """Tell whether a type checker takes *value*, written out, for one of *shape*.

    A checker refuses keys that an object does not name, which JSON Schema allows unless told not to.

    Args:
        value: Of the type that the shape was made of.
        shape: The shape.
        definitions: As in `Form`.
    """
    match shape:
        case AnyShape():
            return True
        case PrimitiveShape("null"):
            return value is None
        case PrimitiveShape("bool"):
            return isinstance(value, bool)
        case PrimitiveShape("int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case PrimitiveShape("float"):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case PrimitiveShape():
            return isinstance(value, str)
        case LiteralShape(wanted):
            return canonical_json(value) == canonical_json(wanted)
        case ArrayShape(element):
            return isinstance(value, tuple) and all(fits(item, element, definitions) for item in value)
        case MapShape(element):
            return isinstance(value, FrozenMapping) and all(
                fits(item, element, definitions) for item in value.values()
            )
        case ReferenceShape(pointer):
            return pointer not in definitions or fits(value, definitions[pointer], definitions)
        case UnionShape(parts):
            return any(fits(value, part, definitions) for part in parts)
        case ObjectShape(properties):
            return (
                isinstance(value, FrozenMapping)
                and all(
                    key in properties and fits(value[key], properties[key].shape, definitions)
                    for key in value
                )
                and all(key in value for key, entry in properties.items() if entry.required)
            )
