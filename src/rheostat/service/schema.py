"""JSON Schema of Json settings, through `jsonschema-rs`."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema_rs

from rheostat.errors import FieldViolation, InvalidTypeError, TypeMismatchError
from rheostat.model.type import JsonType, MappingType, SequenceType, SettingType
from rheostat.model.value import FrozenMapping, Value, thaw

__all__ = ["check_schema", "validate_schema"]


def check_schema(type_: SettingType) -> None:
    """Check that the schemas inside a type are such.

    Raises:
        InvalidTypeError: One is no JSON Schema, or refers to another document, which is never fetched.
    """
    match type_:
        case JsonType(schema) if schema is not None:
            _validator(schema)
        case SequenceType(element) | MappingType(element):
            check_schema(element)
        case _:
            pass


def validate_schema(type_: SettingType, value: Value) -> None:
    """Check a value of *type_* against the JSON Schemas inside the type.

    Raises:
        TypeMismatchError: The value breaks a schema; the message names the place in the value.
    """
    match type_:
        case JsonType(schema) if schema is not None:
            error = next(iter(_validator(schema).iter_errors(thaw(value))), None)
            if error is not None:
                place = "".join(
                    f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
                )
                raise TypeMismatchError(f"the value{place} does not fit the schema: {error.message}")
        case SequenceType(element):
            for item in value if isinstance(value, tuple) else ():
                validate_schema(element, item)
        case MappingType(element):
            for item in value.values() if isinstance(value, FrozenMapping) else ():
                validate_schema(element, item)
        case _:
            pass


@functools.lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema),
            retriever=_refuse,
            # The engine that takes linear time; it knows no look-around and no back-references.
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except ValueError as exc:
        message = f"not a JSON Schema: {exc}"
        raise InvalidTypeError(message, violations=[FieldViolation("type", message)]) from None


def _refuse(uri: str) -> Any:
    raise ValueError(f"a schema may not refer to another document: {uri}")
