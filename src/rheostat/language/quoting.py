"""JSON texts that are safe to show: on one line, without invisible characters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from rheostat.errors import InvalidConditionError, TypeMismatchError
from rheostat.model.value import Value, freeze, thaw

__all__ = ["MAX_LITERAL_DEPTH", "deeper_than", "escape_invisible", "json_text"]

MAX_LITERAL_DEPTH: Final = 64
"""The deepest nesting of a literal; deeper than protobuf can carry."""

# What breaks lines, hides, or turns the direction of a text: C1 controls, zero-width and bidirectional
# characters, line separators, non-characters and unpaired surrogates. A fixed list, because the tables behind
# str.isprintable change with the Python version, and equal conditions shall have equal texts everywhere.
_INVISIBLE: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\uffff\ud800-\udfff]"
)


def escape_invisible(text: str) -> str:
    r"""Return *text* with each invisible character as ``\uXXXX``."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def json_text(value: Value) -> str:
    """Return *value* as JSON on one line: keys sorted, a space after each comma and colon.

    Raises:
        InvalidConditionError: The value is none that JSON and UTF-8 can carry, or nests too deep.
    """
    if deeper_than(value, MAX_LITERAL_DEPTH):
        raise InvalidConditionError(f"a literal nests more than {MAX_LITERAL_DEPTH} levels deep")
    try:
        frozen = freeze(value)
    except TypeMismatchError as exc:
        raise InvalidConditionError(f"a literal has no text form: {exc}") from None
    return escape_invisible(json.dumps(thaw(frozen), sort_keys=True, ensure_ascii=False, allow_nan=False))


def deeper_than(raw: object, limit: int) -> bool:
    """Tell whether lists and mappings nest more than *limit* levels; never recurses."""
    level = [raw]
    for _ in range(limit + 1):
        inner: list[object] = []
        for element in level:
            if isinstance(element, (list, tuple)):
                inner.extend(element)
            elif isinstance(element, Mapping):
                inner.extend(element.values())
        if not inner:
            return False
        level = inner
    return True
