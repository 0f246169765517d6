"""What an evaluation gives: the value and how it came about."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rheostat.model.value import Absent, Value

__all__ = ["ErrorCode", "Evaluation", "Reason"]


class Reason(enum.Enum):
    """Why a setting has its value; the words are OpenFeature's."""

    STATIC = "STATIC"
    """The setting has no rules."""
    DEFAULT = "DEFAULT"
    """It has rules, but none matched."""
    TARGETING_MATCH = "TARGETING_MATCH"
    """A rule matched, whose outcome is one value."""
    SPLIT = "SPLIT"
    """A rule matched, and the unit's bucket picked a variant."""
    DISABLED = "DISABLED"
    """The setting is off in this environment."""
    ERROR = "ERROR"
    """There is no value, and a default stands in its place."""


class ErrorCode(enum.Enum):
    """Why there is no value; the words are OpenFeature's."""

    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    PARSE_ERROR = "PARSE_ERROR"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    PROVIDER_NOT_READY = "PROVIDER_NOT_READY"
    GENERAL = "GENERAL"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The value of a setting for a context, and how it came about.

    Attributes:
        value: The value; with reason ERROR the caller's default, which may be ABSENT.
        reason: Why it is this value.
        rule_id: The rule that matched, or None.
        variant: The variant of the distribution that the unit fell into, or None.
        revision: The revision of the snapshot that was evaluated.
        setting_revision: The newest revision that changed the setting itself; 0 without one.
        stale: The snapshot may be out of date. A flag of the replica; never set by the evaluator.
        error_code: What went wrong; set exactly when the reason is ERROR.
        error_message: The same in words; empty without an error.
        note: What the value came about without, in words: stored subjects that are not known, or could not be had.
            Empty when nothing was missing. Never set by the evaluator.
    """

    value: Value | Absent
    reason: Reason
    rule_id: str | None = None
    variant: str | None = None
    revision: int = 0
    setting_revision: int = 0
    stale: bool = False
    error_code: ErrorCode | None = None
    error_message: str = ""
    note: str = ""
