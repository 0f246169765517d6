"""Three-valued logic: Kleene's strong tables, in which UNKNOWN stands for "it cannot be told"."""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["Truth", "all_of", "any_of", "negate"]


class Truth(enum.Enum):
    """What a condition is for a context; only `TRUE` matches.

    A member has no truth value of its own, because ``if holds(...)`` would take UNKNOWN for a yes.
    """

    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def of(cls, known: bool) -> Truth:
        """Return TRUE or FALSE."""
        return cls.TRUE if known else cls.FALSE

    def __bool__(self) -> bool:
        raise TypeError("a Truth has three values; compare with 'is Truth.TRUE'")


def negate(truth: Truth) -> Truth:
    """Return the opposite; that of UNKNOWN is UNKNOWN."""
    if truth is Truth.UNKNOWN:
        return Truth.UNKNOWN
    return Truth.of(truth is Truth.FALSE)


def all_of(truths: Iterable[Truth]) -> Truth:
    """Return the conjunction: FALSE beats UNKNOWN beats TRUE; of nothing it is TRUE."""
    found = set(truths)
    for strongest in (Truth.FALSE, Truth.UNKNOWN):
        if strongest in found:
            return strongest
    return Truth.TRUE


def any_of(truths: Iterable[Truth]) -> Truth:
    """Return the disjunction: TRUE beats UNKNOWN beats FALSE; of nothing it is FALSE."""
    found = set(truths)
    for strongest in (Truth.TRUE, Truth.UNKNOWN):
        if strongest in found:
            return strongest
    return Truth.FALSE
