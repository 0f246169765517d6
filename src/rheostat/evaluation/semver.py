"""Semantic versions and their precedence, after semver.org 2.0.0, sections 9 to 11."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

__all__ = ["Precedence", "precedence"]

_NUMBER: Final = r"(0|[1-9][0-9]*)"
_TEXT: Final = re.compile(
    rf"v?{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER})?)?"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)

# Digits without leading zeros order by length, then as text: no conversion, however many there are.
_Number: TypeAlias = tuple[int, str]
# Numeric identifiers (0) are below alphanumeric ones (1), whose "length" is never compared.
_Identifier: TypeAlias = tuple[int, int, str]
Precedence: TypeAlias = tuple[tuple[_Number, _Number, _Number], int, tuple[_Identifier, ...]]
"""Orders as the versions do; equal when they differ in build metadata alone."""


def precedence(text: str) -> Precedence | None:
    """Return the precedence of the version *text*, or None when it is no semantic version.

    A leading ``v`` and a missing minor or patch (then 0) are accepted.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    numbers = (_number(match[1]), _number(match[2] or "0"), _number(match[3] or "0"))
    if match[4] is None:
        # A release is above all its pre-releases.
        return numbers, 1, ()
    identifiers = match[4].split(".")
    if any(_is_number(text) and text[0] == "0" and text != "0" for text in identifiers):
        return None
    return (
        numbers,
        0,
        tuple((0, len(text), text) if _is_number(text) else (1, 0, text) for text in identifiers),
    )


def _number(digits: str) -> _Number:
    return len(digits), digits


def _is_number(identifier: str) -> bool:
    # The pattern let nothing but ASCII through.
    return identifier.isdecimal()
