"""Codecs of bool, int, float, str and of any JSON."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from rheostat.errors import TypeMismatchError
from rheostat.model.type import BOOL, FLOAT, INT, STR, JsonType, SettingType
from rheostat.model.value import INT64_MAX, INT64_MIN, Absent, Value, freeze
from rheostat.sdk.codec.base import Coercion, IdentityCodec, Misfit, misfit, refuse

__all__ = ["BoolCodec", "FloatCodec", "IntCodec", "JsonCodec", "StrCodec", "frozen"]

_TWO_TO_63: Final = 2.0**63


def frozen(value: object) -> Value:
    """Return any JSON data as a value.

    Raises:
        Misfit: It is no JSON.
    """
    try:
        return freeze(value)
    except TypeMismatchError as exc:
        raise Misfit(exc.message) from None


class BoolCodec(IdentityCodec[bool]):
    """Codec of bool."""

    type: SettingType = BOOL

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if isinstance(value, bool):
            return value
        raise misfit(value, BOOL)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return value if isinstance(value, bool) else refuse(value, BOOL, found)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "boolean"}


class IntCodec(IdentityCodec[int]):
    """Codec of int; takes an integral float as well."""

    type: SettingType = INT

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        whole = _whole(value)
        if whole is not None:
            return whole
        if isinstance(value, int) and not isinstance(value, bool):
            raise Misfit("an int does not fit 64 bits")
        raise misfit(value, INT)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        if type(value) is int:
            return value
        whole = _whole(value)
        return refuse(value, INT, found) if whole is None else whole

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "integer"}


class FloatCodec(IdentityCodec[float]):
    """Codec of float; takes an int as well."""

    type: SettingType = FLOAT

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        number = _number(value)
        if number is None:
            raise misfit(value, FLOAT)
        return number

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        if type(value) is float and math.isfinite(value):
            return value
        number = _number(value)
        return refuse(value, FLOAT, found) if number is None else number

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "number"}


class StrCodec(IdentityCodec[str]):
    """Codec of str."""

    type: SettingType = STR

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if isinstance(value, str):
            # Of the exact type: str() of a member of a str enum is its name.
            return frozen(str.__str__(value))
        raise misfit(value, STR)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return value if isinstance(value, str) else refuse(value, STR, found)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "string"}


class JsonCodec(IdentityCodec[Any]):
    """Codec of any JSON, handed out as tuples and frozen mappings.

    A schema is the server's to enforce: validators of JSON Schema are no part of a client's installation.
    """

    def __init__(self, type_: JsonType) -> None:
        self.type = type_
        self._schema = type_.schema

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        return frozen(value)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return value

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return True if self._schema is None else json.loads(self._schema)


def _whole(value: object) -> int | None:
    """Return the int of 64 bits that *value* is, or None."""
    if isinstance(value, float):
        # Below, not at most: the largest int has no float, and the next one is too large.
        return int(value) if value.is_integer() and -_TWO_TO_63 <= value < _TWO_TO_63 else None
    if isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX:
        return int(value)
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
