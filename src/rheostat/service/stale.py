"""Settings that look as if nobody needed them any more."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rheostat.evaluation.dependency import Dependencies
from rheostat.model.rule import Distribution
from rheostat.model.setting import Lifecycle, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import same
from rheostat.service.usage import READ_GRANULARITY

if TYPE_CHECKING:
    from rheostat.service.service import Service

__all__ = ["Stale", "StalePage", "StaleReason", "find_stale", "has_one_value"]


class StaleReason(enum.Enum):
    """Why a setting looks unused."""

    UNREAD = "UNREAD"
    ONE_VALUE = "ONE_VALUE"
    LIFECYCLE = "LIFECYCLE"


@dataclass(frozen=True, slots=True)
class Stale:
    """A setting that looks unused.

    Attributes:
        setting: It.
        reasons: Why; at least one.
        last_read_at: Aware, to the hour; None when no read is known.
        last_changed_at: Aware; None when the history was pruned.
        declared_by: How many connected clients have declared it.
    """

    setting: Setting
    reasons: tuple[StaleReason, ...]
    last_read_at: datetime.datetime | None
    last_changed_at: datetime.datetime | None
    declared_by: int


@dataclass(frozen=True, slots=True)
class StalePage:
    """Some of the settings that look unused, by name.

    Attributes:
        found: The settings.
        more: There are further ones.
        noted_since: Since when reads are noted; None when they are not yet.
    """

    found: tuple[Stale, ...]
    more: bool
    noted_since: datetime.datetime | None


def has_one_value(setting: Setting) -> bool:
    """Tell whether the setting has the same value in whatever context.

    What its rules ask for is not looked into: only whether one of them could give another value than the rest.
    """
    if not setting.enabled:
        return True
    values = []
    decided = False
    for rule in setting.rules:
        if not rule.enabled:
            continue
        match rule.outcome:
            case None:
                # Of a newer version, which alone knows what it gives.
                return False
            case Distribution(variants=variants):
                values += [variant.value for variant in variants if variant.weight]
            case outcome:
                values.append(outcome.value)
                if rule.condition is None:
                    decided = True
                    break
    if not decided:
        values.append(setting.base_value)
    return all(same(value, values[0]) for value in values[1:])


def find_stale(
    service: Service,
    project: str,
    environment: str,
    *,
    unread_for: datetime.timedelta,
    after: str = "",
    limit: int = 100,
) -> StalePage:
    """Return settings of an environment that look unused, by name.

    Args:
        service: The node.
        project: Slug; it exists.
        environment: Slug; it exists.
        unread_for: For how long nobody must have read a setting, or it must have had one value.
        after: Only names that follow it.
        limit: At most so many.
    """
    head = service.head
    snapshot = service.view(project, environment, head).snapshot
    cutoff = service.clock() - unread_for
    quiet = service.revision_at(cutoff, head.revision)
    seen = service.usage.reads(project, environment)
    noted = seen.since is not None and seen.since <= cutoff
    last_read = _last_read(snapshot, seen.at)
    granularity = datetime.timedelta(seconds=READ_GRANULARITY)

    def was_there(setting: Setting) -> bool:
        return setting.revision <= quiet or bool(
            service.store.history(
                project=project,
                environment=environment,
                kind="setting",
                key=setting.name,
                before=quiet + 1,
                limit=1,
            )
        )

    found: list[tuple[Setting, tuple[StaleReason, ...], datetime.datetime | None]] = []
    for name in sorted(name for name in snapshot.settings if name > after):
        setting = snapshot.settings[name]
        read_at = last_read.get(name)
        reasons = []
        if noted and (read_at is None or read_at + granularity <= cutoff) and was_there(setting):
            reasons.append(StaleReason.UNREAD)
        if setting.revision <= quiet and has_one_value(setting):
            reasons.append(StaleReason.ONE_VALUE)
        if setting.lifecycle is not Lifecycle.ACTIVE:
            reasons.append(StaleReason.LIFECYCLE)
        if reasons:
            found.append((setting, tuple(reasons), read_at))
            if len(found) > limit:
                break
    page = found[:limit]
    changed_at = _instants(service)
    declared_by = service.fleet.declarers(project, environment) if page else {}
    return StalePage(
        tuple(
            Stale(
                setting,
                reasons,
                read_at,
                changed_at(setting.revision),
                # A client that knows it by a former name has declared it too; by two of its names, but once.
                max(declared_by.get(name, 0) for name in setting.names),
            )
            for setting, reasons, read_at in page
        ),
        len(found) > limit,
        seen.since,
    )


def _last_read(snapshot: Snapshot, at: Mapping[str, datetime.datetime]) -> dict[str, datetime.datetime]:
    """Return when settings were read last, by current name: themselves, or with one whose rules refer to them."""
    references = Dependencies(snapshot)
    last: dict[str, datetime.datetime] = {}
    for name, instant in at.items():
        setting = snapshot.setting(name)
        if setting is None:
            continue
        for kind, reached in references.reachable([("setting", setting.name)]):
            if kind == "setting":
                last[reached] = max(last.get(reached, instant), instant)
    return last


def _instants(service: Service) -> Callable[[int], datetime.datetime | None]:
    known: dict[int, datetime.datetime | None] = {}

    def changed_at(revision: int) -> datetime.datetime | None:
        if revision not in known:
            change_set = service.store.change_set(revision)
            known[revision] = None if change_set is None else change_set.created_at
        return known[revision]

    return changed_at
