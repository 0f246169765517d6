"""How stored subjects join an evaluation: their traits and counters as a layer of the context, and their overrides."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rheostat.errors import TypeMismatchError
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.model.snapshot import Snapshot
from rheostat.model.subject import MEMBER_OF, USAGE, Subject, UsagePeriod
from rheostat.model.type import normalise
from rheostat.model.value import Value

__all__ = ["OVERRIDE", "Join", "implied", "join", "overridden"]

OVERRIDE: Final = "override"
"""The variant of a value that was set for one subject, or in one process."""

_ID: Final = "id"


@dataclass(frozen=True, slots=True)
class Join:
    """What subjects add to an evaluation. Safe from any thread.

    Attributes:
        layer: Their attributes, as a layer of the context, which comes after what the call says.
        overrides: Values by the names of settings; tried before the rules.
        until: Seconds since the epoch at which a counter's period or an override ends, and the subjects are to be
            joined anew; infinite when nothing ends.
    """

    layer: Mapping[str, object]
    overrides: Mapping[str, Value]
    until: float


def join(subjects: Sequence[Subject], now: datetime.datetime) -> Join:
    """Join *subjects*; of two of a kind, and of two overrides of a setting, the first one counts.

    A trait is ``<kind>.<name>``, and a key too where no trait has its name. A counter is
    ``<kind>.usage.<event>.<period>``; once its period has ended it is 0, and so is one that was never counted: a limit
    would hold nobody back, or everybody, until the first event. ``<kind>.member_of.<other kind>`` lists the
    keys ``id`` of the subjects that it is a member of, or their first keys by name.

    Args:
        subjects: As they are stored.
        now: Aware. The only clock: evaluation reads none.
    """
    layer: dict[str, object] = {}
    overrides: dict[str, Value] = {}
    until = float("inf")
    for subject in subjects:
        if subject.kind in layer:
            continue
        attributes: dict[str, object] = {**subject.keys, **subject.traits}
        memberships: dict[str, list[str]] = {}
        for membership in subject.member_of:
            keys = membership.keys
            key = keys.get(_ID) if _ID in keys else keys[min(keys)] if keys else None
            if key is not None:
                memberships.setdefault(membership.kind, []).append(key)
        attributes[MEMBER_OF] = {kind: tuple(keys) for kind, keys in memberships.items()}
        attributes[USAGE] = _NEVER
        layer[subject.kind] = attributes
        for name in subject.keys:
            if "." in name:
                layer[f"{subject.kind}.{name}"] = subject.keys[name]
        for counter in subject.counters:
            count, end = counter.count, counter.period_end
            if end is not None:
                if end <= now:
                    count = 0
                else:
                    until = min(until, end.timestamp())
            layer[f"{subject.kind}.{USAGE}.{counter.event}.{counter.period.value}"] = count
        for override in subject.overrides:
            if override.expires_at is not None:
                if override.expires_at <= now:
                    continue
                until = min(until, override.expires_at.timestamp())
            overrides.setdefault(override.setting, override.value)
    return Join(layer, overrides, until)


class _Never(Mapping[str, object]):
    """The counters that nothing was counted in, below any name of an event, with however many dots."""

    __slots__ = ()

    def __getitem__(self, name: str) -> object:
        return 0 if name in _PERIODS else self

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


_PERIODS: Final = frozenset(period.value for period in UsagePeriod)
_NEVER: Final = _Never()


def implied(subjects: Sequence[Subject]) -> tuple[bytes, ...]:
    """Return the ids of subjects that join though nobody named them.

    A user who is a member of one company brings that one, unless a company was named; a member of several brings
    none, as nobody said which is meant.
    """
    kinds = {subject.kind for subject in subjects}
    found: dict[str, set[bytes]] = {}
    for subject in subjects:
        for membership in subject.member_of:
            if membership.kind not in kinds:
                found.setdefault(membership.kind, set()).add(membership.id)
    return tuple(next(iter(ids)) for ids in found.values() if len(ids) == 1)


def overridden(snapshot: Snapshot, name: str, overrides: Mapping[str, Value]) -> Evaluation | None:
    """Return what an override makes of the setting *name*, or None when none applies.

    A setting that is not enabled stays so, an override that does not fit the setting's type (any more) is passed over,
    and references from other settings do not see it.
    """
    if not overrides:
        return None
    setting = snapshot.setting(name)
    if setting is None or not setting.enabled:
        return None
    for known in setting.names:
        if known in overrides:
            try:
                value = normalise(setting.type, overrides[known])
            except TypeMismatchError:
                continue
            return Evaluation(
                value=value,
                reason=Reason.TARGETING_MATCH,
                variant=OVERRIDE,
                revision=snapshot.revision,
                setting_revision=setting.revision,
            )
    return None
