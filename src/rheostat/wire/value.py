"""Values and contexts as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import ListValue as StructList
from google.protobuf.struct_pb2 import Struct
from google.protobuf.struct_pb2 import Value as StructValue

from rheo.v1 import value_pb2
from rheostat.errors import FieldViolation, TypeMismatchError
from rheostat.model.value import ABSENT, MAX_VALUE_DEPTH, Absent, FrozenMapping, Value

__all__ = [
    "context_from_proto",
    "context_from_request",
    "context_to_proto",
    "fill_value",
    "mapping_to_proto",
    "string_list_to_proto",
    "struct_from_proto",
    "struct_from_request",
    "value_from_proto",
    "value_from_request",
    "value_to_proto",
]


def value_to_proto(value: Value | Absent) -> value_pb2.Value:
    """Return *value* as a message; `ABSENT` is one with no kind set.

    Raises:
        TypeMismatchError: NaN, an infinity, an integer outside 64 bits, a lone surrogate, nesting deeper than
            `MAX_VALUE_DEPTH`, or no value at all.
    """
    message = value_pb2.Value()
    fill_value(message, value)
    return message


def fill_value(message: value_pb2.Value, value: Value | Absent) -> None:
    """Write *value* into *message*, an empty part of another one; copying parts costs as much as making them.

    Raises:
        TypeMismatchError: As `value_to_proto`.
    """
    if value is not ABSENT:
        _fill(message, value, 0)


def value_from_proto(message: value_pb2.Value) -> Value | Absent:
    """Return the value that *message* holds; `ABSENT` when no kind, or one of a newer peer, is set.

    Raises:
        TypeMismatchError: NaN, an infinity, nesting deeper than `MAX_VALUE_DEPTH`, or an element of a list or
            mapping that has no kind.
    """
    return _read(message, 0)


def value_from_request(message: value_pb2.Value, field: str) -> Value:
    """Return the value that *message* holds.

    Raises:
        TypeMismatchError: As `value_from_proto`, and when no kind is set; its violation names *field*.
    """
    try:
        value = _read(message, 0)
        if value is ABSENT:
            raise TypeMismatchError("a value has no kind; null is null_value")
    except TypeMismatchError as exc:
        raise _placed(exc, field) from None
    return value


def mapping_to_proto(mapping: Mapping[str, Value], entries: Any) -> None:
    """Write *mapping* into *entries*, a message's field of type ``map<string, Value>``.

    Raises:
        TypeMismatchError: As `value_to_proto`.
    """
    for key, value in mapping.items():
        try:
            _fill(entries[key], value, 0)
        except UnicodeEncodeError as exc:
            raise _unfit(exc) from None


def context_to_proto(context: Mapping[str, Value]) -> dict[str, value_pb2.Value]:
    """Return a context's attributes as the content of a field ``map<string, Value>``.

    Raises:
        TypeMismatchError: As `value_to_proto`.
    """
    return {key: value_to_proto(value) for key, value in context.items()}


def context_from_proto(entries: Mapping[str, value_pb2.Value]) -> FrozenMapping:
    """Return the entries of a field ``map<string, Value>``, without those that this version cannot read."""
    read: dict[str, Value] = {}
    for key, message in entries.items():
        try:
            value = value_from_proto(message)
        except TypeMismatchError:
            continue
        if value is not ABSENT:
            read[key] = value
    return FrozenMapping(read)


def context_from_request(entries: Mapping[str, value_pb2.Value], field: str) -> FrozenMapping:
    """Return the attributes of a field ``map<string, Value>`` called *field*.

    Raises:
        TypeMismatchError: As `value_from_request`; its violation names the entry.
    """
    return FrozenMapping(
        {key: value_from_request(message, f"{field}[{key!r}]") for key, message in entries.items()}
    )


def struct_from_proto(struct: Struct) -> dict[str, Any]:
    """Return the attributes of a ``google.protobuf.Struct`` as fresh dicts, lists and scalars.

    Numbers stay floats, as the message has no others; conditions compare them with ints by value. An entry
    without a kind is None, which counts as missing.

    Raises:
        TypeMismatchError: NaN, an infinity, or nesting deeper than `MAX_VALUE_DEPTH`.
    """
    return {key: _read_struct(value, 0) for key, value in struct.fields.items()}


def struct_from_request(struct: Struct, field: str) -> dict[str, Any]:
    """Return the attributes of the field called *field*; see `struct_from_proto`.

    Raises:
        TypeMismatchError: As `struct_from_proto`; its violation names *field*.
    """
    try:
        return struct_from_proto(struct)
    except TypeMismatchError as exc:
        raise _placed(exc, field) from None


def string_list_to_proto(texts: tuple[str, ...]) -> value_pb2.StringList:
    """Return *texts* as a message, which is present even when they are none."""
    return value_pb2.StringList(values=texts)


def _fill(message: value_pb2.Value, value: Value, level: int) -> None:
    try:
        if value is None:
            message.null_value = 0  # type: ignore[assignment]  # the stub wants the enum's own type
        elif isinstance(value, bool):
            message.bool_value = value
        elif isinstance(value, int):
            message.int_value = value
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise TypeMismatchError(f"{value} is not a finite number")
            message.double_value = value
        elif isinstance(value, str):
            message.string_value = value
        elif isinstance(value, tuple):
            _check_depth(level)
            message.list_value.SetInParent()
            elements = message.list_value.values
            for element in value:
                _fill(elements.add(), element, level + 1)
        elif isinstance(value, FrozenMapping):
            _check_depth(level)
            message.map_value.SetInParent()
            entries = message.map_value.entries
            for key, element in value.items():
                _fill(entries[key], element, level + 1)
        else:
            raise TypeMismatchError(f"a value of type {type(value).__name__} is not a value of a setting")
    except ValueError as exc:
        raise _unfit(exc) from None


def _unfit(exc: ValueError) -> TypeMismatchError:
    if isinstance(exc, UnicodeEncodeError):
        return TypeMismatchError("a string holds a lone surrogate, which UTF-8 cannot carry")
    return TypeMismatchError("an integer does not fit 64 bits")


def _check_depth(level: int) -> None:
    if level >= MAX_VALUE_DEPTH:
        raise TypeMismatchError(f"a value nests more than {MAX_VALUE_DEPTH} levels")


def _read(message: value_pb2.Value, level: int) -> Value | Absent:
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value
    if kind == "bool_value":
        return message.bool_value
    if kind == "int_value":
        return message.int_value
    if kind == "double_value":
        return _finite(message.double_value)
    if kind == "null_value":
        return None
    if kind == "list_value":
        _check_depth(level)
        return tuple(_element(element, level) for element in message.list_value.values)
    if kind == "map_value":
        _check_depth(level)
        return FrozenMapping(
            {key: _element(element, level) for key, element in message.map_value.entries.items()}
        )
    return ABSENT


def _element(message: value_pb2.Value, level: int) -> Value:
    value = _read(message, level + 1)
    if value is ABSENT:
        raise TypeMismatchError("an element of a list or mapping has no kind; null is null_value")
    return value


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise TypeMismatchError(f"{number} is not a finite number")
    return number


def _read_struct(message: StructValue, level: int) -> Any:
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "number_value":
            return _finite(message.number_value)
        case "list_value":
            _check_depth(level)
            elements: StructList = message.list_value
            return [_read_struct(element, level + 1) for element in elements.values]
        case "struct_value":
            _check_depth(level)
            fields = message.struct_value.fields
            return {key: _read_struct(element, level + 1) for key, element in fields.items()}
        case _:
            return None


def _placed(exc: TypeMismatchError, field: str) -> TypeMismatchError:
    return TypeMismatchError(f"{field}: {exc.message}", violations=[FieldViolation(field, exc.message)])
