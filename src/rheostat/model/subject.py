"""Subjects: stored entities such as companies and users, what is counted of them, and what happens to them.

They are no part of change-sets: they take no revision, and each has a version of its own.
"""

from __future__ import annotations

import calendar
import datetime
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rheostat.model.value import Absent, Value

__all__ = [
    "EVENT_NAME",
    "KEY_NAME",
    "MAX_EVENT_AGE",
    "MAX_KEYS",
    "MAX_KEY_CHARACTERS",
    "MEMBER_OF",
    "RESERVED_KINDS",
    "SUBJECT_KIND",
    "TRAIT_NAME",
    "USAGE",
    "EventCount",
    "Exposure",
    "ExposureCount",
    "FeedEntry",
    "KeyConflict",
    "Membership",
    "Refusal",
    "Subject",
    "SubjectChange",
    "SubjectEvent",
    "SubjectLimits",
    "SubjectOverride",
    "SubjectPatch",
    "SubjectReference",
    "Track",
    "UsageCounter",
    "UsagePeriod",
    "fold",
    "period_end",
    "period_start",
]

SUBJECT_KIND: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
KEY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TRAIT_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Without dots, since ``company.address.city`` walks into the trait ``address``."""

EVENT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")

MAX_KEYS: Final = 20
"""Keys of one subject."""

MAX_KEY_CHARACTERS: Final = 500
"""Of the value of a key."""

USAGE: Final = "usage"
MEMBER_OF: Final = "member_of"
"""What joins the context beside traits; no trait has these names."""

RESERVED_KINDS: Final = frozenset({"client"})
"""``client.id`` is who evaluates."""

MAX_EVENT_AGE: Final = datetime.timedelta(days=32)
"""Longer ago than the longest period but all time: it could count nowhere else."""


def fold(key: str) -> str:
    """Return the form of a key's value in which keys are compared: letters without their case."""
    return key.casefold()


class UsagePeriod(enum.Enum):
    """The length of a counter's period; periods begin at midnight, UTC."""

    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    """From the subject's `Subject.month_day`."""
    ALL = "all"


def period_start(period: UsagePeriod, day: datetime.date, month_day: int = 1) -> datetime.date | None:
    """Return the first day of the period that *day* is in; None for all time.

    Args:
        period: Which one.
        day: In UTC.
        month_day: On which day of the month monthly periods begin, 1 to 31; in shorter months on the last.
    """
    match period:
        case UsagePeriod.DAY:
            return day
        case UsagePeriod.WEEK:
            return day - datetime.timedelta(days=day.weekday())
        case UsagePeriod.MONTH:
            start = _in_month(day.year, day.month, month_day)
            if start <= day:
                return start
            before = day.replace(day=1) - datetime.timedelta(days=1)
            return _in_month(before.year, before.month, month_day)
        case UsagePeriod.ALL:
            return None


def period_end(period: UsagePeriod, day: datetime.date, month_day: int = 1) -> datetime.datetime | None:
    """Return the instant, aware, at which the period that *day* is in has ended; None for all time."""
    start = period_start(period, day, month_day)
    if start is None:
        return None
    match period:
        case UsagePeriod.DAY:
            end = start + datetime.timedelta(days=1)
        case UsagePeriod.WEEK:
            end = start + datetime.timedelta(days=7)
        case _:
            after = start.replace(day=1) + datetime.timedelta(days=32)
            end = _in_month(after.year, after.month, month_day)
    return datetime.datetime.combine(end, datetime.time(), datetime.UTC)


def _in_month(year: int, month: int, day: int) -> datetime.date:
    return datetime.date(year, month, min(day, calendar.monthrange(year, month)[1]))


@dataclass(frozen=True, slots=True)
class SubjectReference:
    """A subject, named by any of its keys.

    Attributes:
        kind: Matches `SUBJECT_KIND`.
        keys: By name; at least one, and all of the same subject.
    """

    kind: str
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SubjectOverride:
    """The value of a setting for one subject, tried before the rules.

    Attributes:
        setting: Its name.
        value: Of the setting's type.
        expires_at: When it ends, aware; None means never.
    """

    setting: str
    value: Value
    expires_at: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageCounter:
    """How often an event of a subject has happened in a period.

    Attributes:
        event: Its name.
        period: Its length.
        count: The sum of the events' quantities.
        period_end: When it ends, aware; from then on the count is 0. None for all time.
    """

    event: str
    period: UsagePeriod
    count: int
    period_end: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """That a subject is a member of another one.

    Attributes:
        id: The other one's, 16 bytes.
        kind: The other one's.
        keys: The other one's, as they are now.
    """

    id: bytes
    kind: str
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """A stored entity, whose traits and counters join the context.

    Attributes:
        id: 16 random bytes.
        kind: The first word of its attributes' paths.
        keys: As they were written, by name. No two subjects of a kind share one after `fold`.
        traits: By name.
        overrides: By setting, sorted; those that have expired may be among them.
        counters: By event and period, those that are not 0.
        member_of: In the order in which it became one.
        month_day: On which day of the month its monthly counters begin, 1 to 31.
        version: Raised with every change, a counter's too, and never given twice, not even after a restore.
        created_at: Aware.
        updated_at: Aware.
    """

    id: bytes
    kind: str
    keys: Mapping[str, str]
    traits: Mapping[str, Value]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    overrides: Sequence[SubjectOverride] = ()
    counters: Sequence[UsageCounter] = ()
    member_of: Sequence[Membership] = ()
    month_day: int = 1
    version: int = 1


@dataclass(frozen=True, slots=True)
class SubjectPatch:
    """How a subject is created or changed. What is not named stays.

    A key of a name that the subject has with another value takes that one's place, and the old one finds it no more.

    Attributes:
        reference: It is found by any of these keys, and has all of them afterwards.
        traits: To set.
        remove_traits: Names.
        overrides: To set, by setting.
        remove_overrides: Names of settings.
        member_of: To become a member of.
        remove_member_of: To be a member of no more.
        month_day: 1 to 31; None leaves it.
    """

    reference: SubjectReference
    traits: Mapping[str, Value] = field(default_factory=dict)
    remove_traits: Sequence[str] = ()
    overrides: Sequence[SubjectOverride] = ()
    remove_overrides: Sequence[str] = ()
    member_of: Sequence[SubjectReference] = ()
    remove_member_of: Sequence[SubjectReference] = ()
    month_day: int | None = None


@dataclass(frozen=True, slots=True)
class SubjectChange:
    """That a subject was stored, changed or removed, without any value of it.

    Attributes:
        id: The subject's.
        kind: The subject's.
        version: That it got; 0 when it was removed.
        time: Aware.
        actor: The selector of the key that was used; empty in open mode.
        fields: What was written, sorted: ``keys.email``, ``traits.plan``, ``overrides.new-checkout``, ``member_of``,
            ``month_day``; ``deleted``.
        number: Its place in the order of all changes of all subjects; rises.
    """

    id: bytes
    kind: str
    version: int
    time: datetime.datetime
    actor: str
    fields: Sequence[str]
    number: int = 0


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """That a subject is another one than before, for those who hold a copy.

    Attributes:
        number: Gapless over the whole store.
        project: The subject's.
        environment: The subject's.
        id: The subject's; empty when any of the environment may have changed.
    """

    number: int
    project: str
    environment: str
    id: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry of a batch was not taken.

    Attributes:
        reason: UPPER_SNAKE, as of an error.
        message: For people.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class KeyConflict:
    """That keys which should name one subject belong to several.

    Attributes:
        message: Which, for people.
    """

    message: str


@dataclass(frozen=True, slots=True)
class SubjectLimits:
    """How much is kept of subjects; the names are those of the limits in errors.

    Attributes:
        max_subjects: In an environment.
        max_subject_keys: Of a subject.
        max_traits: Of a subject.
        max_trait_bytes: Of one trait, as canonical JSON.
        max_subject_bytes: Of a subject's keys, traits and overrides, as canonical JSON.
        max_overrides: Of a subject.
        max_memberships: Of a subject.
        max_subject_events: Names of events that are counted of one subject; further ones are refused.
    """

    max_subjects: int = 2_000_000
    max_subject_keys: int = 20
    max_traits: int = 100
    max_trait_bytes: int = 4 * 1024
    max_subject_bytes: int = 64 * 1024
    max_overrides: int = 100
    max_memberships: int = 100
    max_subject_events: int = 200


@dataclass(frozen=True, slots=True)
class Track:
    """Something that an application tracks.

    Attributes:
        name: Matches `EVENT_NAME`.
        quantity: How much of it; a negative one takes back.
    """

    name: str
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """That somebody was given the value of a setting.

    Attributes:
        setting: Its name.
        rule_id: The rule that matched; empty when none did.
        variant: Empty without a distribution.
        value: The value; ABSENT when it was not told.
        revision: Of the state that was evaluated.
        count: How often.
    """

    setting: str
    rule_id: str
    variant: str
    value: Value | Absent
    revision: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class SubjectEvent:
    """Something that has happened.

    Attributes:
        idempotency_key: Not empty; unique to the event, within its environment and actor.
        time: Aware; not to come, and not longer than `MAX_EVENT_AGE` ago.
        subjects: To whom; their counters go up.
        what: What happened.
    """

    idempotency_key: str
    time: datetime.datetime
    subjects: Sequence[SubjectReference]
    what: Track | Exposure


@dataclass(frozen=True, slots=True)
class ExposureCount:
    """How often a value of a setting was given.

    Attributes:
        setting: Its name.
        revision: Of the state that was evaluated.
        rule_id: The rule that matched; empty when none did.
        variant: Empty without a distribution.
        value_json: The value, as canonical JSON of at most 200 characters.
        count: How often.
        first_at: Aware.
        last_at: Aware.
    """

    setting: str
    revision: int
    rule_id: str
    variant: str
    value_json: str
    count: int
    first_at: datetime.datetime
    last_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class EventCount:
    """How often an event has happened.

    Attributes:
        event: Its name.
        events: How many were recorded.
        quantity: The sum of their quantities.
        last_at: Aware.
    """

    event: str
    events: int
    quantity: int
    last_at: datetime.datetime
