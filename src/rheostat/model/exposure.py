"""Exposures: that a subject was given a value, for counts of experiments and for a warehouse."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from rheostat.model.value import Absent, Value

__all__ = ["ExposureRecord"]


@dataclass(frozen=True, slots=True)
class ExposureRecord:
    """That a setting was evaluated for subjects, and what it gave them.

    What `on_exposure` is called with, and what `rheostat.integrations.ndjson.NdjsonWriter` writes.

    Attributes:
        setting: The name that was asked for.
        value: What was given; ABSENT when there was neither a value nor a default.
        reason: Why; one of the words of `Reason`, such as ``SPLIT``.
        rule_id: The rule that matched, or None.
        variant: The variant of the distribution, or None.
        revision: The revision of the snapshot that was evaluated.
        subjects: By kind, the keys that each subject was named by, such as ``{"user": {"id": "u1"}}``.
        time: When it was evaluated, aware, UTC.
        error_code: What went wrong, as one of the words of `ErrorCode`; None when nothing did.
        context: Attributes of the context that are to be kept with it; by dotted path.
        setting_revision: The newest revision that changed the setting itself; 0 when that is not known.
    """

    setting: str
    value: Value | Absent
    reason: str
    rule_id: str | None
    variant: str | None
    revision: int
    subjects: Mapping[str, Mapping[str, str]]
    time: datetime.datetime
    error_code: str | None = None
    context: Mapping[str, object] = field(default_factory=dict)
    setting_revision: int = 0
