"""Brackets that stay on one line where there is room, in any language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

WIDTH: Final = 100
"""Columns of a line of generated code, as far as its texts allow."""


@dataclass(frozen=True, slots=True)
class Group:
    """Parts between brackets.

    Attributes:
        opening: Ends with the bracket.
        parts: Separated by commas.
        closing: Starts with the bracket.
        space: Within the brackets when on one line.
    """

    opening: str
    parts: Sequence[Part]
    closing: str
    space: str = ""


Part: TypeAlias = "str | Group"


def prefixed(prefix: str, part: Part) -> Part:
    """Return *part* with a text before it."""
    if isinstance(part, str):
        return prefix + part
    return Group(prefix + part.opening, part.parts, part.closing, part.space)


def laid_out(part: Part, step: str, indent: str = "") -> str:
    """Return *part* as text without a line end, broken where a line of it would be too long.

    Args:
        part: What to write.
        step: The indentation of each level.
        indent: That of the line which it stands on; the text starts behind it.
    """
    if isinstance(part, str):
        return part
    flat = _flat(part, WIDTH - len(indent))
    if flat is not None:
        return flat
    inner = indent + step
    lines = "".join(f"{inner}{laid_out(child, step, inner)},\n" for child in part.parts)
    return f"{part.opening}\n{lines}{indent}{part.closing}"


def _flat(part: Part, room: int) -> str | None:
    """Return *part* on one line, or None when it takes more than *room* columns."""
    if isinstance(part, str):
        return part if len(part) <= room else None
    pieces: list[str] = []
    left = room - len(part.opening) - len(part.closing)
    for child in part.parts:
        piece = _flat(child, left)
        if piece is None:
            return None
        pieces.append(piece)
        left -= len(piece) + 2
    if not pieces:
        return part.opening + part.closing
    flat = part.opening + part.space + ", ".join(pieces) + part.space + part.closing
    return flat if len(flat) <= room else None
