"""The words of the language, and what bounds its texts. Loads no parser: whoever only prints needs none."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["KEYWORDS", "MAX_NESTING", "PLAIN_PATH"]

MAX_NESTING: Final = 100
"""The deepest nesting of parentheses, and of a condition with a text; deeper than protobuf can carry."""

PLAIN_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*")
"""A path that needs no backticks, unless it is one of `KEYWORDS`."""

# A terminal with an underscore carries nothing that the grammar's actions need.
KEYWORDS: Final = {
    word: prefix + word.upper()
    for prefix, words in (
        ("_", "and or not semver exists missing segment percent setting attr literal timestamp compare"),
        ("_", "all_of any_of"),
        ("", "in starts_with ends_with contains matches before after ip_in has_any has_all has_none"),
        ("", "true false null"),
    )
    for word in words.split()
}
"""The reserved words and their terminals."""
