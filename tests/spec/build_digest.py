"""Writes digest.json: golden vectors of the digest over held items.

Run as ``python tests/spec/build_digest.py``; a test checks that the file is what this makes. The formula is written
here apart from the package, from the contract.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

Sent = tuple[str, str, int] | tuple[str, str, int, bool]

CASES: dict[str, list[Sent]] = {
    "nothing": [],
    "one setting": [("setting", "a", 1)],
    "one segment": [("segment", "a", 1)],
    "the kind counts": [("setting", "a", 1), ("segment", "a", 1)],
    "the order does not count": [("segment", "a", 1), ("setting", "a", 1)],
    "two settings": [("setting", "a", 1), ("setting", "b", 1)],
    "two settings of different revisions": [("setting", "a", 1), ("setting", "b", 2)],
    "a dotted name": [("setting", "checkout.timeout", 42)],
    "the longest name": [("setting", "n" * 200, 7)],
    "a later revision replaces": [("setting", "a", 1), ("setting", "a", 2)],
    "the same item twice": [("setting", "a", 1), ("setting", "a", 1)],
    "a colon in a key": [("setting", "a:b", 3)],
    "a colon that would be in the kind": [("setting:a", "b", 3)],
    "an at sign in a key": [("setting", "a@1", 2)],
    "revisions are decimal": [("setting", "a", 10)],
    "a revision above 32 bits": [("setting", "a", 2**32)],
    "a revision above 53 bits": [("setting", "a", 2**53 + 1)],
    "the highest revision": [("setting", "a", 2**64 - 1)],
    "an empty key": [("setting", "", 1)],
    "a key of two bytes a character": [("segment", "é", 5)],
    "a key that is not composed is another": [("segment", "e\u0301", 5)],
    "a key of three bytes a character": [("segment", "日本", 5)],
    "a key outside the basic plane": [("segment", "😀", 5)],
    "a kind that the client does not know": [("setting", "a", 1), ("experiment", "x", 9)],
    "a tombstone of nothing held": [("setting", "a", 1), ("setting", "b", 2, True)],
    "a tombstone removes": [("setting", "a", 1), ("setting", "b", 2), ("setting", "a", 3, True)],
    "tombstones of everything": [("setting", "a", 1), ("setting", "a", 2, True)],
    "a tombstone of another kind": [("setting", "a", 1), ("segment", "a", 2, True)],
    "made again": [("setting", "a", 1), ("setting", "a", 2, True), ("setting", "a", 3)],
    "a hundred settings": [("setting", f"s{i}", i + 1) for i in range(100)],
}


def digest(sent: list[Sent]) -> int:
    held: dict[tuple[str, str], int] = {}
    for kind, key, revision, *deleted in sent:
        if deleted:
            held.pop((kind, key), None)
        else:
            held[kind, key] = revision
    result = 0
    for (kind, key), revision in held.items():
        hashed = hashlib.sha256(b"%s:%s@%d" % (kind.encode(), key.encode(), revision)).digest()
        result ^= int.from_bytes(hashed[:8], "big")
    return result


def item(sent: Sent) -> dict[str, Any]:
    kind, key, revision, *deleted = sent
    made: dict[str, Any] = {"kind": kind, "key": key, "revision": str(revision)}
    if deleted:
        made["deleted"] = True
    return made


def build() -> str:
    """Return the text of the file."""
    cases = [
        {"name": name, "items": [item(entry) for entry in sent], "digest": str(digest(sent))}
        for name, sent in CASES.items()
    ]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    return f'{{"cases": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    Path(__file__).with_name("digest.json").write_text(build(), encoding="utf-8")
