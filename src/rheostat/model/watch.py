"""The events of a watch, as values: what a server says and a client applies."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rheostat.model.change import Item
from rheostat.model.position import Filter, Position

__all__ = [
    "Bookmark",
    "Content",
    "Delta",
    "Entry",
    "GoAway",
    "GoAwayReason",
    "Hello",
    "Mode",
    "Reset",
    "ResetReason",
    "SnapshotEvent",
    "SnapshotReason",
    "SubjectsChanged",
    "WatchEvent",
]


class Mode(enum.Enum):
    """What follows a Hello."""

    SNAPSHOT = "SNAPSHOT"
    DELTA = "DELTA"
    UP_TO_DATE = "UP_TO_DATE"


class SnapshotReason(enum.Enum):
    """Why a snapshot is sent."""

    NEW = "NEW"
    INVALID = "INVALID"
    STORE = "STORE"
    GENERATION = "GENERATION"
    REQUESTED = "REQUESTED"
    SCOPE = "SCOPE"
    COMPACTED = "COMPACTED"


class ResetReason(enum.Enum):
    """Why a snapshot follows on an open stream."""

    GENERATION = "GENERATION"
    LARGE = "LARGE"
    CLOSURE = "CLOSURE"
    COMPACTED = "COMPACTED"


class GoAwayReason(enum.Enum):
    """Why the server asks a client to leave."""

    DRAIN = "DRAIN"
    MAX_AGE = "MAX_AGE"
    SLOW = "SLOW"
    KEY_REVOKED = "KEY_REVOKED"
    BEHIND = "BEHIND"


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of a snapshot or delta.

    Attributes:
        kind: ``setting``, ``segment`` or, on a relay's stream, ``key``.
        key: Its key.
        revision: The newest revision of anything that its encoded form depends on.
        item: None for a tombstone.
    """

    kind: str
    key: str
    revision: int
    item: Item | None


@dataclass(frozen=True, slots=True)
class Hello:
    """The first event of every stream.

    Attributes:
        heartbeat: Seconds within which a bookmark or other event follows.
        filter: The filter that is applied.
        filter_ignored: A filter was asked for, and not applied.
        reconnect_spread: See `Bookmark`.
    """

    mode: Mode
    reason: SnapshotReason | None
    heartbeat: float
    node: str
    hops: int
    project: str
    environment: str
    filter: Filter
    filter_ignored: bool
    reconnect_spread: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Content:
    """All that a scope holds at one state; shared by every snapshot of it, at whatever position.

    Attributes:
        entries: The items, without tombstones.
        digest: Over them.
        tombstones: Of a relay's stream: what was removed above the floor.
        floor: Of a relay's stream: the compaction floor. None on other streams, which do not get to know the key
            of the store's tokens either.
    """

    entries: Sequence[Entry]
    digest: int
    tombstones: Sequence[Entry] = ()
    floor: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotEvent:
    """The whole state at a position; on the wire SnapshotBegin, chunks and SnapshotEnd."""

    position: Position
    content: Content

    @property
    def entries(self) -> Sequence[Entry]:
        """The items."""
        return self.content.entries

    @property
    def digest(self) -> int:
        """The digest over the items."""
        return self.content.digest


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Delta:
    """The step from any position in ``[from_revision, position.revision)`` to `position`.

    Attributes:
        coalesced: It merges several revisions, so that intermediate values are left out.
        digest: Over everything held after it.
    """

    from_revision: int
    position: Position
    entries: Sequence[Entry]
    coalesced: bool
    digest: int


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to the position has been delivered; also the heartbeat.

    Attributes:
        reconnect_spread: Seconds over which at least watchers are to come back whose stream ends without a word.
        report_within: Somebody waits for a rollout: seconds within which the client is to report, once and at a
            random time. None when nobody does.
    """

    position: Position
    origin_time: datetime.datetime
    digest: int
    reconnect_spread: float = 0.0
    report_within: float | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """A snapshot follows on this stream."""

    reason: ResetReason


@dataclass(frozen=True, slots=True)
class GoAway:
    """Please reconnect elsewhere or later.

    Attributes:
        spread: Seconds over which clients spread their reconnects.
        grace: Seconds until the server ends the stream.
    """

    reason: GoAwayReason
    spread: float
    grace: float


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SubjectsChanged:
    """Stored subjects have changed; outside of positions and digests.

    Attributes:
        ids: Theirs, 16 bytes each.
        all: Any may have changed.
    """

    ids: Sequence[bytes]
    all: bool = False


WatchEvent: TypeAlias = Hello | SnapshotEvent | Delta | Bookmark | Reset | GoAway | SubjectsChanged
