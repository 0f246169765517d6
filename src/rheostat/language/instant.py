"""Which texts may stand in ``timestamp("…")``."""

from __future__ import annotations

import datetime
import re
from typing import Final

__all__ = ["is_instant"]

# RFC 3339, section 5.6, or its full-date alone. Stricter than evaluation, which also takes a time without an
# offset as UTC: who writes timestamp() wants to be told that the offset is missing.
_INSTANT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)


def is_instant(text: str) -> bool:
    """Tell whether *text* is an RFC 3339 instant with an offset, or a date."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return False
    try:
        datetime.date.fromisoformat(match[1])
    except ValueError:
        return False
    return True
