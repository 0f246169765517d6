"""From a text to the condition that it says."""

from __future__ import annotations

from typing import Final

from rheostat.language.fault import Fault
from rheostat.model.condition import Condition

__all__ = ["MAX_CONDITION_LENGTH", "parse_condition"]

MAX_CONDITION_LENGTH: Final = 524_288
"""Characters of a condition's text; the stored form of a condition that long would not fit an item."""


def parse_condition(text: str) -> Condition:
    """Return the condition that *text* says. Safe from any thread.

    A ``percent`` without a salt has the empty one, which the server fills in.

    Raises:
        InvalidConditionError: The text says none. The message names line and column and shows them; its
            ``metadata`` has ``line``, ``column``, ``problem`` and sometimes ``hint``.
    """
    try:
        return _parsed(text)
    except Fault as fault:
        raise fault.error(text) from None


def _parsed(text: str) -> Condition:
    if len(text) > MAX_CONDITION_LENGTH:
        raise Fault(0, f"the condition is longer than {MAX_CONDITION_LENGTH} characters")
    if not text.strip():
        raise Fault(0, "expected a condition, found nothing")
    # Late: few programs that print conditions parse any, and what reads the grammar takes long to load.
    from rheostat.language.grammar import parsed

    return parsed(text)
