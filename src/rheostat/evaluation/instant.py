"""Instants: RFC 3339 strings and epoch seconds, compared at nanoseconds."""

from __future__ import annotations

import datetime
import math
import re
from typing import Final

__all__ = ["NANOSECONDS", "instant"]

NANOSECONDS: Final = 1_000_000_000

_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
# The years 0001 to 9999, as protobuf's Timestamp.
_FIRST: Final = (1 - _EPOCH) * 86_400 * NANOSECONDS
_LAST: Final = (datetime.date.max.toordinal() - _EPOCH + 1) * 86_400 * NANOSECONDS - 1

# RFC 3339, section 5.6, whose note allows a space for the T. As in most parsers, no second is a leap second.
_TEXT: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9])))?"
)


def instant(value: object) -> int | None:
    """Return the nanoseconds since 1970-01-01T00:00:00Z, or None when *value* is no instant.

    Takes RFC 3339 strings with an offset, dates (midnight UTC), and ints and floats as seconds since the
    epoch. What is finer than a nanosecond is cut off, towards the past. The years are 0001 to 9999.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        nanoseconds = _parsed(value)
    elif isinstance(value, int):
        nanoseconds = value * NANOSECONDS
    elif isinstance(value, float) and math.isfinite(value):
        numerator, denominator = value.as_integer_ratio()
        nanoseconds = numerator * NANOSECONDS // denominator
    else:
        return None
    return nanoseconds if nanoseconds is not None and _FIRST <= nanoseconds <= _LAST else None


def _parsed(text: str) -> int | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    seconds = days * 86_400 + int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second or 0)
    if sign is not None:
        offset = int(offset_hour) * 3600 + int(offset_minute) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * NANOSECONDS + int((fraction or "")[:9].ljust(9, "0"))
