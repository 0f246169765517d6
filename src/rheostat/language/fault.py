"""A mistake at a place of a text, and how it is shown."""

from __future__ import annotations

from rheostat.errors import InvalidConditionError
from rheostat.language.quoting import escape_invisible

__all__ = ["Fault", "position", "shown_line"]

_WIDTH = 100


class Fault(Exception):  # noqa: N818  # never leaves this package; what callers see is InvalidConditionError
    """A mistake at an offset of a condition's text."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        """Make a fault at the offset *at*; *hint* says what to write instead."""
        super().__init__(message)
        self.at = at
        self.message = message
        self.hint = hint

    def error(self, text: str) -> InvalidConditionError:
        """Return what callers get: with line, column, the line with a caret under it, and the hint."""
        line, column = position(text, self.at)
        message = f"{self.message} (line {line}, column {column})\n{shown_line(text, self.at)}"
        if self.hint:
            message += f"\n  {self.hint}"
        metadata = {"line": str(line), "column": str(column), "problem": self.message}
        if self.hint:
            metadata["hint"] = self.hint
        return InvalidConditionError(message, metadata=metadata)


def position(text: str, at: int) -> tuple[int, int]:
    """Return the line and the column of an offset, both from 1."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def shown_line(text: str, at: int) -> str:
    """Return the line of an offset, indented, with a caret below the offset; long lines are cut around it."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    left = max(start, at - _WIDTH // 2)
    right = min(end, left + _WIDTH)
    before = _visible(text[left:at])
    if left > start:
        before = "..." + before
    after = _visible(text[at:right]) + ("..." if right < end else "")
    return f"  {before}{after}".rstrip() + f"\n  {' ' * len(before)}^"


def _visible(piece: str) -> str:
    return "".join(
        c if c >= " " else " " if c in "\t\r" else f"\\u{ord(c):04x}" for c in escape_invisible(piece)
    )
