"""From the types of settings, and the JSON Schemas in them, to shapes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote

from rheostat.cli.codegen.shape import (
    ANY,
    AnyShape,
    ArrayShape,
    Form,
    LiteralShape,
    MapShape,
    ObjectShape,
    PrimitiveShape,
    PropertyShape,
    ReferenceShape,
    Shape,
    bounded,
    literals,
    options,
    union,
)
from rheostat.model.type import (
    EnumType,
    FlagsType,
    JsonType,
    MappingType,
    PrimitiveType,
    SequenceType,
    SettingType,
    schema_of,
)
from rheostat.model.value import FrozenMapping, Value, same

__all__ = ["form_of", "schema_form"]

_MAX_PAIRS: Final = 256
"""Pairs of options that are compared to combine two unions."""

_MAX_MEETINGS: Final = 20_000
"""Pairs of shapes that are combined in one schema; two that refer to themselves would meet for ever."""

_MAX_DEPTH: Final = 64
"""Schemas within schemas, references followed."""

_PRIMITIVES: Final = {"null": "null", "boolean": "bool", "integer": "int", "number": "float", "string": "str"}


def form_of(type_: SettingType) -> Form:
    """Return the form of the values of a setting's type."""
    match type_:
        case PrimitiveType(name):
            return Form(PrimitiveShape(name))
        case EnumType(values):
            return Form(literals(values))
        case FlagsType(values):
            return Form(ArrayShape(literals(values)))
        case SequenceType(element):
            inner = form_of(element)
            return Form(bounded(ArrayShape(inner.shape)), inner.definitions)
        case MappingType(element):
            inner = form_of(element)
            return Form(bounded(MapShape(inner.shape)), inner.definitions)
        case JsonType():
            schema = schema_of(type_)
            return Form(ANY) if schema is None else schema_form(schema)


def schema_form(schema: Value) -> Form:
    """Return the form of what a JSON Schema admits. Never fails: what is unknown or too complex stays open.

    One thing is read as it is meant, rather than as it is defined: ``properties`` without a ``type`` describe an
    object, and ``items`` a list.
    """
    reader = _Reader(schema)
    shape = reader.reference("#")
    return Form(shape, reader.definitions)


class _Reader:
    def __init__(self, root: Value) -> None:
        self.definitions: dict[str, ObjectShape] = {}
        self._root = root
        self._others: dict[str, Shape] = {}
        self._reading: set[str] = set()
        self._depth = 0
        self._meetings = 0

    def reference(self, pointer: str) -> Shape:
        """Return the shape of what *pointer* names: a reference to an object, anything else as it is."""
        if pointer in self._reading or pointer in self.definitions:
            # One that is being read may turn out to be no object; then nothing is defined, and it is open.
            return ReferenceShape(pointer)
        if pointer not in self._others:
            schema = self._resolved(pointer)
            self._reading.add(pointer)
            shape = self._shape(schema)
            self._reading.discard(pointer)
            if isinstance(shape, ObjectShape):
                self.definitions[pointer] = shape
                return ReferenceShape(pointer)
            self._others[pointer] = shape
        return self._others[pointer]

    def _resolved(self, pointer: str) -> Value:
        found = self._root
        for token in pointer.split("/")[1:]:
            token = unquote(token).replace("~1", "/").replace("~0", "~")
            if isinstance(found, FrozenMapping):
                if token not in found:
                    return True
                found = found[token]
                if isinstance(found, FrozenMapping) and "$id" in found:
                    # Its references start from another place than the root.
                    return True
            elif isinstance(found, tuple) and token.isascii() and token.isdigit() and int(token) < len(found):
                found = found[int(token)]
            else:
                return True
        return found

    def _shape(self, schema: Value) -> Shape:
        if not isinstance(schema, FrozenMapping) or self._depth >= _MAX_DEPTH:
            return ANY
        if "$id" in schema and schema is not self._root:
            return ANY
        self._depth += 1
        try:
            shape = self._own(schema)
            match schema.get("$ref"):
                case str() as place if place == "#" or place.startswith("#/"):
                    shape = self._both(shape, self.reference(place))
                case _:
                    pass
            for part in _tuple(schema.get("allOf")):
                shape = self._both(shape, self._shape(part))
            for key in ("anyOf", "oneOf"):
                if parts := _tuple(schema.get(key)):
                    shape = self._both(shape, union([self._shape(part) for part in parts]))
            return bounded(shape)
        finally:
            self._depth -= 1

    def _own(self, schema: FrozenMapping) -> Shape:
        """Return what the keywords say that do not combine schemas."""
        types = schema.get("type")
        names = [types] if isinstance(types, str) else list(_tuple(types))
        values: tuple[Value, ...] | None = None
        if "const" in schema:
            values = (schema["const"],)
        elif isinstance(listed := schema.get("enum"), tuple):
            values = listed
        if values is not None:
            fitting = [value for value in values if not names or any(_is_of(value, name) for name in names)]
            return literals(fitting)
        if not names:
            if any(key in schema for key in ("properties", "patternProperties", "additionalProperties")):
                names = ["object"]
            elif any(key in schema for key in ("items", "prefixItems")):
                names = ["array"]
        return union([self._of(name, schema) for name in names])

    def _of(self, name: Value, schema: FrozenMapping) -> Shape:
        match name:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case str() if name in _PRIMITIVES:
                return PrimitiveShape(_PRIMITIVES[name])
            case _:
                return ANY

    def _array(self, schema: FrozenMapping) -> Shape:
        items = schema.get("items")
        if isinstance(items, tuple):
            # Drafts before 2020-12 wrote prefixItems so.
            first, rest = items, schema.get("additionalItems", True)
        else:
            first, rest = _tuple(schema.get("prefixItems")), True if items is None else items
        elements = [self._shape(part) for part in first]
        if rest is not False or not first:
            elements.append(self._shape(rest))
        return bounded(ArrayShape(union(elements)))

    def _object(self, schema: FrozenMapping) -> Shape:
        listed = _mapping(schema.get("properties"))
        patterns = _mapping(schema.get("patternProperties"))
        others = schema.get("additionalProperties", True)
        required = [key for key in _tuple(schema.get("required")) if isinstance(key, str)]
        if not listed and not required:
            rest = [self._shape(part) for part in patterns.values()]
            if others is not False or not rest:
                rest.append(self._shape(others))
            return bounded(MapShape(union(rest)))
        properties = {
            key: PropertyShape(
                self._shape(part), key in required, _text(part, "description"), _flag(part, "deprecated")
            )
            for key, part in listed.items()
        }
        for key in required:
            properties.setdefault(key, PropertyShape(ANY if patterns else self._shape(others), required=True))
        is_open = (
            bool(patterns) or isinstance(others, FrozenMapping) or schema.get("additionalProperties") is True
        )
        return bounded(ObjectShape(dict(sorted(properties.items())), is_open, _text(schema, "description")))

    def _both(self, left: Shape, right: Shape) -> Shape:
        """Return the shape of what is of two shapes, or a wider one."""
        if isinstance(left, AnyShape) or isinstance(right, AnyShape):
            return right if isinstance(left, AnyShape) else left
        pairs = list(itertools.product(options(left), options(right)))
        self._meetings += len(pairs)
        if len(pairs) > _MAX_PAIRS or self._meetings > _MAX_MEETINGS or self._depth >= _MAX_DEPTH:
            return left
        self._depth += 1
        met = [shape for pair in pairs if (shape := self._met(*pair)) is not None]
        self._depth -= 1
        # What nothing can be is said of by neither language; it is the author's mistake.
        return union(met) if met else left

    def _met(self, left: Shape, right: Shape) -> Shape | None:
        match left, right:
            case (AnyShape(), other) | (other, AnyShape()):
                return other
            case LiteralShape(a), LiteralShape(b):
                return left if same(a, b) else None
            case (LiteralShape(value) as literal, PrimitiveShape(name)) | (
                PrimitiveShape(name),
                LiteralShape(value) as literal,
            ):
                return literal if name in _primitives_of(value) else None
            case PrimitiveShape(a), PrimitiveShape(b):
                if a == b:
                    return left
                return PrimitiveShape("int") if {a, b} == {"int", "float"} else None
            case ArrayShape(a), ArrayShape(b):
                return ArrayShape(self._both(a, b))
            case MapShape(a), MapShape(b):
                return MapShape(self._both(a, b))
            case ReferenceShape(a), ReferenceShape(b) if a == b:
                return left
            case (ReferenceShape(pointer) as reference, other) | (
                other,
                ReferenceShape(pointer) as reference,
            ):
                known = self.definitions.get(pointer)
                return reference if known is None else self._met(known, other)
            case (ObjectShape() as entry, MapShape(element)) | (MapShape(element), ObjectShape() as entry):
                return self._merged(entry, ObjectShape({}), element)
            case ObjectShape(), ObjectShape():
                return self._merged(left, right, ANY)
            case _:
                return None

    def _merged(self, left: ObjectShape, right: ObjectShape, element: Shape) -> ObjectShape:
        properties: dict[str, PropertyShape] = {}
        for key in sorted({*left.properties, *right.properties}):
            one, two = left.properties.get(key, _UNKNOWN), right.properties.get(key, _UNKNOWN)
            properties[key] = PropertyShape(
                self._both(self._both(one.shape, two.shape), element),
                one.required or two.required,
                one.description or two.description,
                one.deprecated or two.deprecated,
            )
        return ObjectShape(properties, left.is_open or right.is_open, left.description or right.description)


_UNKNOWN: Final = PropertyShape(ANY)


def _tuple(value: Value) -> tuple[Value, ...]:
    return value if isinstance(value, tuple) else ()


def _mapping(value: Value) -> Mapping[str, Value]:
    return value if isinstance(value, FrozenMapping) else {}


def _text(schema: Value, key: str) -> str:
    found = schema.get(key) if isinstance(schema, FrozenMapping) else None
    return found if isinstance(found, str) else ""


def _flag(schema: Value, key: str) -> bool:
    return isinstance(schema, FrozenMapping) and schema.get(key) is True


def _primitives_of(value: bool | int | str) -> Collection[str]:
    match value:
        case bool():
            return ("bool",)
        case int():
            return ("int", "float")
        case str():
            return ("str",)


def _is_of(value: Value, name: Value) -> bool:
    match value:
        case None:
            return name == "null"
        case bool():
            return name == "boolean"
        case int():
            return name in ("integer", "number")
        case float():
            return name == "number" or (name == "integer" and value.is_integer())
        case str():
            return name == "string"
        case tuple():
            return name == "array"
        case _:
            return name == "object"
