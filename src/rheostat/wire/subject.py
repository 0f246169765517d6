"""Subjects and events as messages."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from rheo.v1 import event_service_pb2, subject_pb2
from rheostat.errors import InvalidArgumentError
from rheostat.model.subject import (
    EVENT_NAME,
    KEY_NAME,
    MAX_EVENT_AGE,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MEMBER_OF,
    RESERVED_KINDS,
    SUBJECT_KIND,
    TRAIT_NAME,
    USAGE,
    EventCount,
    Exposure,
    ExposureCount,
    Membership,
    Refusal,
    Subject,
    SubjectChange,
    SubjectEvent,
    SubjectOverride,
    SubjectPatch,
    SubjectReference,
    Track,
    UsageCounter,
    UsagePeriod,
)
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN
from rheostat.wire.instant import instant_from_proto, instant_to_proto
from rheostat.wire.value import (
    mapping_to_proto,
    value_from_proto,
    value_from_request,
    value_to_proto,
)

__all__ = [
    "event_count_to_proto",
    "event_from_request",
    "exposure_count_to_proto",
    "patch_from_request",
    "patch_to_proto",
    "reference_from_request",
    "reference_to_proto",
    "refusal_to_proto",
    "subject_change_to_proto",
    "subject_from_proto",
    "subject_to_proto",
]

_PERIODS: Final[Mapping[int, UsagePeriod]] = {
    subject_pb2.USAGE_PERIOD_DAY: UsagePeriod.DAY,
    subject_pb2.USAGE_PERIOD_WEEK: UsagePeriod.WEEK,
    subject_pb2.USAGE_PERIOD_MONTH: UsagePeriod.MONTH,
    subject_pb2.USAGE_PERIOD_ALL: UsagePeriod.ALL,
}
_PERIOD_NUMBERS: Final = {period: number for number, period in _PERIODS.items()}

_MAX_EVENT_SUBJECTS: Final = 20
_MAX_ID_CHARACTERS: Final = 200


def subject_to_proto(subject: Subject) -> subject_pb2.Subject:
    """Return *subject* as a message."""
    message = subject_pb2.Subject(
        id=subject.id,
        kind=subject.kind,
        keys=subject.keys,
        version=subject.version,
        created_at=instant_to_proto(subject.created_at),
        updated_at=instant_to_proto(subject.updated_at),
        month_day=subject.month_day,
        member_of=[
            subject_pb2.SubjectMembership(id=each.id, kind=each.kind, keys=each.keys)
            for each in subject.member_of
        ],
        overrides=[_override_to_proto(override) for override in subject.overrides],
    )
    mapping_to_proto(subject.traits, message.traits)
    for counter in subject.counters:
        message.counters.add(
            event=counter.event,
            period=_PERIOD_NUMBERS[counter.period],
            count=counter.count,
            period_end=None if counter.period_end is None else instant_to_proto(counter.period_end),
        )
    return message


def subject_from_proto(message: subject_pb2.Subject) -> Subject:
    """Return the subject of a peer's answer, without what this version does not know.

    Raises:
        TypeMismatchError: A value is of a kind that this version does not know.
        ValueError: An instant is out of range.
    """
    return Subject(
        id=message.id,
        kind=message.kind,
        keys=dict(message.keys),
        traits={
            name: value
            for name, entry in message.traits.items()
            if (value := value_from_proto(entry)) is not ABSENT
        },
        created_at=instant_from_proto(message.created_at),
        updated_at=instant_from_proto(message.updated_at),
        overrides=tuple(
            SubjectOverride(
                override.setting,
                value,
                instant_from_proto(override.expires_at) if override.HasField("expires_at") else None,
            )
            for override in message.overrides
            if (value := value_from_proto(override.value)) is not ABSENT
        ),
        counters=tuple(
            UsageCounter(
                counter.event,
                _PERIODS[counter.period],
                counter.count,
                instant_from_proto(counter.period_end) if counter.HasField("period_end") else None,
            )
            for counter in message.counters
            if counter.period in _PERIODS
        ),
        member_of=tuple(Membership(each.id, each.kind, dict(each.keys)) for each in message.member_of),
        month_day=message.month_day or 1,
        version=message.version,
    )


def reference_to_proto(reference: SubjectReference) -> subject_pb2.SubjectReference:
    """Return *reference* as a message."""
    return subject_pb2.SubjectReference(kind=reference.kind, keys=reference.keys)


def reference_from_request(message: subject_pb2.SubjectReference, field: str = "") -> SubjectReference:
    """Return the reference of a request.

    Args:
        message: What came.
        field: Its place in the request, for errors.

    Raises:
        InvalidArgumentError: The kind or a key is not acceptable; it is named.
    """
    place = f"{field}." if field else ""
    if SUBJECT_KIND.fullmatch(message.kind) is None:
        raise InvalidArgumentError(
            f"{place}kind is {message.kind[:100]!r}, and has to be 1 to 64 letters, digits, _ or -"
        )
    if message.kind in RESERVED_KINDS:
        raise InvalidArgumentError(
            f"{place}kind {message.kind!r} is taken: it is the attributes of the client"
        )
    if not 1 <= len(message.keys) <= MAX_KEYS:
        raise InvalidArgumentError(
            f"{place}keys holds {len(message.keys)} keys, and has to hold 1 to {MAX_KEYS}"
        )
    for name, value in message.keys.items():
        if KEY_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(
                f"{place}keys has the name {name[:100]!r}, and names are 1 to 64 letters, digits, _, - or dots"
            )
        if not 1 <= len(value) <= MAX_KEY_CHARACTERS:
            raise InvalidArgumentError(
                f"{place}keys.{name} has {len(value)} characters, and has to have 1 to {MAX_KEY_CHARACTERS}"
            )
    return SubjectReference(message.kind, dict(message.keys))


def patch_to_proto(patch: SubjectPatch) -> event_service_pb2.SubjectUpsert:
    """Return *patch* as a message."""
    message = event_service_pb2.SubjectUpsert(
        reference=reference_to_proto(patch.reference),
        remove_traits=patch.remove_traits,
        overrides=[_override_to_proto(override) for override in patch.overrides],
        remove_overrides=patch.remove_overrides,
        member_of=[reference_to_proto(each) for each in patch.member_of],
        remove_member_of=[reference_to_proto(each) for each in patch.remove_member_of],
        month_day=patch.month_day,
    )
    mapping_to_proto(patch.traits, message.traits)
    return message


def patch_from_request(message: event_service_pb2.SubjectUpsert) -> SubjectPatch:
    """Return the change of a subject that a request asks for. Overrides are not held against their settings.

    Raises:
        InvalidArgumentError: Something is not acceptable; it is named.
        TypeMismatchError: A value cannot be read.
    """
    for name in message.traits:
        if TRAIT_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(
                f"traits has the name {name[:100]!r}, and names are 1 to 64 letters, digits, _ or -"
            )
        if name in (USAGE, MEMBER_OF):
            raise InvalidArgumentError(f"traits has the name {name!r}, which joins the context by itself")
    if message.HasField("month_day") and not 1 <= message.month_day <= 31:
        raise InvalidArgumentError(f"month_day is {message.month_day}, and has to be 1 to 31")
    return SubjectPatch(
        reference=reference_from_request(message.reference, "reference"),
        traits={name: value_from_request(value, f"traits.{name}") for name, value in message.traits.items()},
        remove_traits=tuple(message.remove_traits),
        overrides=tuple(
            SubjectOverride(
                override.setting,
                value_from_request(override.value, f"overrides[{index}].value"),
                _instant(override, "expires_at", f"overrides[{index}]."),
            )
            for index, override in enumerate(message.overrides)
        ),
        remove_overrides=tuple(message.remove_overrides),
        member_of=tuple(
            reference_from_request(each, f"member_of[{index}]")
            for index, each in enumerate(message.member_of)
        ),
        remove_member_of=tuple(
            reference_from_request(each, f"remove_member_of[{index}]")
            for index, each in enumerate(message.remove_member_of)
        ),
        month_day=message.month_day if message.HasField("month_day") else None,
    )


def event_from_request(message: event_service_pb2.Event, now: datetime.datetime) -> SubjectEvent:
    """Return the event of a request; one without a time, or with one to come, has happened *now* (aware).

    Raises:
        InvalidArgumentError: Something is not acceptable; it is named.
        TypeMismatchError: A value cannot be read.
    """
    key = message.idempotency_key
    if not 1 <= len(key) <= _MAX_ID_CHARACTERS:
        raise InvalidArgumentError(
            f"idempotency_key has {len(key)} characters, and has to have 1 to {_MAX_ID_CHARACTERS}"
        )
    time = min(_instant(message, "time", "") or now, now)
    if now - time > MAX_EVENT_AGE:
        raise InvalidArgumentError(
            f"time is {time.isoformat()}, longer ago than {MAX_EVENT_AGE.days} days", reason="EVENT_TOO_OLD"
        )
    if len(message.subjects) > _MAX_EVENT_SUBJECTS:
        raise InvalidArgumentError(
            f"subjects holds {len(message.subjects)}, and may hold at most {_MAX_EVENT_SUBJECTS}"
        )
    subjects = tuple(
        reference_from_request(each, f"subjects[{index}]") for index, each in enumerate(message.subjects)
    )
    what: Track | Exposure
    match message.WhichOneof("kind"):
        case "track":
            track = message.track
            if EVENT_NAME.fullmatch(track.name) is None:
                raise InvalidArgumentError(
                    f"track.name is {track.name[:200]!r}, and has to be 1 to 200 letters, digits, _, - or dots"
                )
            what = Track(track.name, track.quantity if track.HasField("quantity") else 1)
        case "exposure":
            exposure = message.exposure
            for field, text, longest in (
                ("setting", exposure.setting, 200),
                ("rule_id", exposure.rule_id, 200),
                ("variant", exposure.variant, 200),
            ):
                if len(text) > longest or (field == "setting" and not text):
                    raise InvalidArgumentError(
                        f"exposure.{field} has {len(text)} characters, and has to have "
                        f"{1 if field == 'setting' else 0} to {longest}"
                    )
            count = exposure.count if exposure.HasField("count") else 1
            if not 1 <= count <= INT64_MAX or exposure.revision > INT64_MAX:
                raise InvalidArgumentError("exposure.count or exposure.revision is out of range")
            what = Exposure(
                setting=exposure.setting,
                rule_id=exposure.rule_id,
                variant=exposure.variant,
                value=value_from_request(exposure.value, "exposure.value")
                if exposure.HasField("value")
                else ABSENT,
                revision=exposure.revision,
                count=count,
            )
        case _:
            raise InvalidArgumentError("kind is neither a track nor an exposure")
    return SubjectEvent(key, time, subjects, what)


def refusal_to_proto(index: int, refusal: Refusal) -> event_service_pb2.RejectedEntry:
    """Return why the entry at *index* was not taken, as a message."""
    return event_service_pb2.RejectedEntry(index=index, reason=refusal.reason, message=refusal.message)


def subject_change_to_proto(change: SubjectChange) -> event_service_pb2.SubjectChange:
    """Return *change* as a message."""
    return event_service_pb2.SubjectChange(
        id=change.id,
        kind=change.kind,
        version=change.version,
        time=instant_to_proto(change.time),
        actor=change.actor,
        fields=change.fields,
    )


def exposure_count_to_proto(count: ExposureCount) -> event_service_pb2.ExposureCount:
    """Return *count* as a message."""
    return event_service_pb2.ExposureCount(
        setting=count.setting,
        rule_id=count.rule_id,
        variant=count.variant,
        revision=count.revision,
        value_json=count.value_json,
        count=count.count,
        first_at=instant_to_proto(count.first_at),
        last_at=instant_to_proto(count.last_at),
    )


def event_count_to_proto(count: EventCount) -> event_service_pb2.EventCount:
    """Return *count* as a message."""
    return event_service_pb2.EventCount(
        event=count.event,
        events=count.events,
        quantity=max(INT64_MIN, min(INT64_MAX, count.quantity)),
        last_at=instant_to_proto(count.last_at),
    )


def _override_to_proto(override: SubjectOverride) -> subject_pb2.SubjectOverride:
    return subject_pb2.SubjectOverride(
        setting=override.setting,
        value=value_to_proto(override.value),
        expires_at=None if override.expires_at is None else instant_to_proto(override.expires_at),
    )


def _instant(message: Any, field: str, place: str) -> datetime.datetime | None:
    if not message.HasField(field):
        return None
    try:
        return instant_from_proto(getattr(message, field))
    except ValueError:
        raise InvalidArgumentError(
            f"{place}{field} is not an instant from the year 1 to the year 9999"
        ) from None
