"""The values that a setting holds, and how messages quote them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rheostat.model.rule import outcome_values
from rheostat.model.setting import Setting
from rheostat.model.value import ABSENT, Value

__all__ = ["shortened", "stored_values"]

_SHOWN: Final = 120
"""Characters of a type, value or list that a message quotes: the answer to many declarations shall stay short."""


def shortened(text: str) -> str:
    """Return *text* as a message quotes it."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def stored_values(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Yield every value but the default, with its place in words.

    Also those of disabled rules, which a later change may enable without looking at values.
    """
    if setting.value is not ABSENT:
        yield "the environment's value", setting.value
    if setting.off is not ABSENT:
        yield "the value when off", setting.off
    for rule in setting.rules:
        for value in outcome_values(rule.outcome):
            yield f"rule {rule.id!r}", value
