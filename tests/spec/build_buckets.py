"""Writes buckets.json: golden vectors of the three bucket algorithms.

Run as ``python tests/spec/build_buckets.py``; a test checks that the file is what this makes. The hashes here are
written apart from those of the package, from the published descriptions, and are checked against published
values before anything is written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any


def murmur3_x86_32(octets: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, after the description of its author."""

    def rotl(x: int, r: int) -> int:
        return (x << r) % 2**32 | x >> (32 - r)

    h = 0
    blocks = len(octets) // 4
    for (k,) in struct.iter_unpack("<I", octets[: blocks * 4]):
        k = rotl(k * 0xCC9E2D51 % 2**32, 15) * 0x1B873593 % 2**32
        h = (rotl(h ^ k, 13) * 5 + 0xE6546B64) % 2**32
    tail = octets[blocks * 4 :]
    if tail:
        (k,) = struct.unpack("<I", tail.ljust(4, b"\0"))
        h ^= rotl(k * 0xCC9E2D51 % 2**32, 15) * 0x1B873593 % 2**32
    h ^= len(octets)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ h >> shift) * factor % 2**32
    return h ^ h >> 16


def fnv1a_32(octets: bytes) -> int:
    h = 0x811C9DC5
    for octet in octets:
        h ^= octet
        h = h * 0x01000193 % 2**32
    return h


# From the test vectors of the authors and of the reference implementations.
PUBLISHED: list[tuple[Callable[[bytes], int], bytes, int]] = [
    (murmur3_x86_32, b"", 0),
    (murmur3_x86_32, b"test", 0xBA6BD213),
    (murmur3_x86_32, b"hello", 0x248BFA47),
    (murmur3_x86_32, b"hello, world", 0x149BBB7F),
    (murmur3_x86_32, b"Hello, world!", 0xC0363E43),
    (murmur3_x86_32, b"The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    (fnv1a_32, b"", 0x811C9DC5),
    (fnv1a_32, b"a", 0xE40C292C),
    (fnv1a_32, b"b", 0xE70C2DE5),
    (fnv1a_32, b"foobar", 0xBF9CF968),
]

ALGORITHMS: dict[str, Callable[[str, str], int]] = {
    "MURMUR3": lambda salt, unit: murmur3_x86_32(f"{salt}:{unit}".encode()) * 100_000 >> 32,
    "REPLANE": lambda salt, unit: fnv1a_32(f"{unit}{salt}".encode()) * 100_000 >> 32,
    "REPLANE_PYTHON": lambda salt, unit: fnv1a_32(f"{salt}:{unit}".encode()) % 10_000 * 10,
}

# Unit and salt, bucket by REPLANE_PYTHON and by REPLANE: what that system's clients decide by.
REPLANE_VALUES = [
    ("user-1", "seed", 89390, 3475),
    ("user-123", "test-seed", 92990, 75943),
    ("user-123", "feature-x", 24360, 27796),
]

SALTS = ["", "seed", "test-seed", "feature-x", "checkout.timeout", "a:b", "sälz", "塩", "🧂"]

# The unit as an attribute, and the text that is hashed.
UNITS: list[tuple[Any, str]] = [
    *(
        (text, text)
        for text in ("a", "ab", "abc", "abcd", "abcde", "user-1", "user-2", "user-123", " ", "  x ")
    ),
    *((text, text) for text in ("0", "1", "true", "null", "1.0", "a:b", ":", "U1", "u1", "\n", "\x00")),
    *(
        (text, text)
        for text in ("é", "e\u0301", "ß", "日本語", "Ωmega", "😀", "👩‍👩‍👧", "\uffff", "\ufeffx", "İ")
    ),
    ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
    ("x" * 300, "x" * 300),
    (0, "0"),
    (1, "1"),
    (-1, "-1"),
    (42, "42"),
    (1234567890123, "1234567890123"),
    ({"$int": "9007199254740993"}, "9007199254740993"),
    ({"$int": "9223372036854775807"}, "9223372036854775807"),
    ({"$int": "-9223372036854775808"}, "-9223372036854775808"),
    ({"$float": "0.0"}, "0"),
    ({"$float": "-0.0"}, "0"),
    ({"$float": "1.0"}, "1"),
    ({"$float": "-42.0"}, "-42"),
    ({"$float": "1e15"}, "1000000000000000"),
    ({"$float": "9007199254740991.0"}, "9007199254740991"),
    ({"$float": "-9007199254740991.0"}, "-9007199254740991"),
]

INVALID: list[tuple[Any, str]] = [
    ("", "an empty string"),
    (None, "null"),
    (True, "a bool"),
    (False, "a bool"),
    ({"$float": "1.5"}, "a fraction"),
    ({"$float": "-0.25"}, "a fraction"),
    ({"$float": "9007199254740992.0"}, "2^53"),
    ({"$float": "-9007199254740992.0"}, "-2^53"),
    ({"$float": "1e300"}, "a float above 2^53"),
    ({"$float": "NaN"}, "NaN"),
    ({"$float": "Infinity"}, "infinity"),
    ({"$float": "-Infinity"}, "minus infinity"),
    ({"$int": "9223372036854775808"}, "an integer outside 64 bits"),
    ({"$int": "-9223372036854775809"}, "an integer outside 64 bits"),
    (["u1"], "a list"),
    ({"id": "u1"}, "a mapping"),
    ({"$unsupported": True}, "a type that conditions do not know"),
    ({"$surrogate": "d800"}, "a lone surrogate, which is no text in UTF-8"),
]


def document() -> str:
    """Return the text of buckets.json, one vector a line."""
    for function, octets, expected in PUBLISHED:
        if function(octets) != expected:
            raise AssertionError((function.__name__, octets))
    for unit, salt, python, javascript in REPLANE_VALUES:
        if (ALGORITHMS["REPLANE_PYTHON"](salt, unit), ALGORITHMS["REPLANE"](salt, unit)) != (
            python,
            javascript,
        ):
            raise AssertionError((unit, salt))
    vectors: dict[str, list[dict[str, Any]]] = {}
    for name, function_ in ALGORITHMS.items():
        vectors[name] = [
            {"salt": salt, "unit": unit, "bucket": function_(salt, text)}
            for salt in SALTS
            for unit, text in UNITS
        ]
    sections = [
        f'"{name}":[\n' + ",\n".join(map(_line, rows)) + "\n]"
        for name, rows in [
            *vectors.items(),
            ("INVALID_UNITS", [{"unit": unit, "why": why} for unit, why in INVALID]),
        ]
    ]
    return "{" + ",\n".join(sections) + "}\n"


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    Path(__file__).with_name("buckets.json").write_text(document(), encoding="ascii")
