"""Buckets: a unit's stable place among 100 000, the same in every language and release.

The algorithms are a contract (docs/reference/evaluation.md, vectors in tests/spec/buckets.json): an upgrade
adds some, and never changes what one of them answers.
"""

from __future__ import annotations

import re
from typing import Final

from rheostat.errors import InvalidConditionError
from rheostat.model.condition import BUCKETS, BucketAlgorithm

try:
    import mmh3 as _mmh3
except ImportError:  # pragma: no cover - the wheel exists for every platform that CI has
    _mmh3 = None  # type: ignore[assignment]

__all__ = ["bucket", "fnv1a_32", "format_percent", "murmur3_32", "parse_percent", "unit_text"]

_MASK: Final = 0xFFFFFFFF
_EXACT_FLOAT: Final = 2.0**53

_PERCENT: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?%?")


def bucket(algorithm: BucketAlgorithm, salt: str, unit: str) -> int:
    """Return the bucket of *unit*, 0 to 99 999.

    Raises:
        UnicodeEncodeError: The salt or the unit holds a lone surrogate; `unit_text` gives no such unit.
    """
    match algorithm:
        case BucketAlgorithm.MURMUR3:
            return murmur3_32(f"{salt}:{unit}".encode()) * BUCKETS >> 32
        case BucketAlgorithm.REPLANE:
            return fnv1a_32(f"{unit}{salt}".encode()) * BUCKETS >> 32
        case BucketAlgorithm.REPLANE_PYTHON:
            return fnv1a_32(f"{salt}:{unit}".encode()) % 10_000 * 10


def unit_text(value: object) -> str | None:
    """Return the text of a unit that is hashed, or None when *value* cannot be one.

    A unit is a non-empty string that UTF-8 can carry, an int within 64 bits, or an integral float below 2^53
    in magnitude, which is the same unit as that int.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
        return value or None
    if isinstance(value, int):
        return str(value) if -(2**63) <= value < 2**63 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT:
        return str(int(value))
    return None


def parse_percent(text: str) -> int:
    """Return a per cent in thousandths: ``"12.5"`` and ``"12.5%"`` are 12 500.

    Raises:
        InvalidConditionError: No plain decimal from 0 to 100 with at most three places.
    """
    match = _PERCENT.fullmatch(text)
    thousandths = -1 if match is None else int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))
    if not 0 <= thousandths <= BUCKETS:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise InvalidConditionError(
            f"{shown!r} is no per cent: expected 0 to 100 with at most three decimal places, such as 12.5"
        )
    return thousandths


def format_percent(thousandths: int) -> str:
    """Return the shortest text that `parse_percent` reads as *thousandths*: 12 500 is ``"12.5"``."""
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)


def fnv1a_32(octets: bytes) -> int:
    """Return the 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for octet in octets:
        value = (value ^ octet) * 0x01000193 & _MASK
    return value


def murmur3_32(octets: bytes) -> int:
    """Return the 32-bit MurmurHash3 (x86) with seed 0, unsigned."""
    if _mmh3 is None:  # pragma: no cover - see the import
        return murmur3_32_pure(octets)
    return _mmh3.hash(octets, 0, False)


def murmur3_32_pure(octets: bytes) -> int:
    """Return the same as `murmur3_32`, in Python alone, for platforms without the extension."""
    value = 0
    whole = len(octets) & ~3
    for at in range(0, whole, 4):
        value ^= _scramble(int.from_bytes(octets[at : at + 4], "little"))
        value = _rotate(value, 13) * 5 + 0xE6546B64 & _MASK
    value ^= _scramble(int.from_bytes(octets[whole:], "little"))
    value ^= len(octets)
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def _scramble(block: int) -> int:
    return _rotate(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _rotate(value: int, places: int) -> int:
    return (value << places | value >> 32 - places) & _MASK
