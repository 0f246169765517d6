"""What a stream has delivered: items, their digest and the position, by the rules of the contract.

Nothing here is partial: a step that cannot be taken leaves the state as it was and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rheo.v1 import watch_pb2
from rheostat.errors import UnavailableError
from rheostat.model.change import ItemKey
from rheostat.model.position import digest_of, item_digest
from rheostat.model.setting import Segment, Setting
from rheostat.wire.watch import item_from_proto, position_from_proto

__all__ = ["BrokenStreamError", "DivergedError", "Held", "HeldItem", "Update"]


class BrokenStreamError(UnavailableError):
    """What the stream says does not follow from what is held; the token tells the next one where to go on."""

    default_reason = "STREAM_BROKEN"


class DivergedError(UnavailableError):
    """The digest of what was received is not the server's: a snapshot has to mend it."""

    default_reason = "DIVERGED"


@dataclass(frozen=True, slots=True)
class HeldItem:
    """One item of the stream.

    Attributes:
        revision: Counts in the digest.
        item: None where this version cannot read it.
        message: As it came, for the cache.
    """

    revision: int
    item: Setting | Segment | None
    message: watch_pb2.Item


@dataclass(frozen=True, slots=True)
class Held:
    """A state and its position. Immutable: the next one is a new object, so that a fork meets no half step.

    Attributes:
        position: As it came, with its token; None before anything was delivered.
        items: By kind and key.
        digest: Of the items.
    """

    position: watch_pb2.Position | None = None
    items: Mapping[ItemKey, HeldItem] = field(default_factory=dict)
    digest: int = 0

    @property
    def token(self) -> bytes:
        """What to resume with; empty when nothing is held."""
        return b"" if self.position is None else self.position.token

    @property
    def revision(self) -> int:
        """The revision of the position; 0 when nothing is held."""
        return 0 if self.position is None else self.position.revision


@dataclass(frozen=True, slots=True)
class Update:
    """A step from one held state to the next.

    Attributes:
        held: The state after it.
        changed: The kinds and keys that may differ.
        problems: What this version cannot read, and why.
        coalesced: It merges several revisions, so that values in between are not seen.
        base: The state before it, which `changed` speaks of.
        snapshot: It replaces the state, and so does not tell when its changes were made.
        tombstones: The revisions that removed what it says is gone. A snapshot says that to relays alone.
        begin: How a snapshot of a stream began, where it says what only relays are told.
    """

    held: Held
    changed: frozenset[ItemKey]
    problems: tuple[str, ...] = ()
    coalesced: bool = False
    base: Held | None = None
    snapshot: bool = False
    tombstones: Mapping[ItemKey, int] = field(default_factory=dict)
    begin: watch_pb2.SnapshotBegin | None = None


def whole(
    held: Held,
    position: watch_pb2.Position,
    messages: Iterable[watch_pb2.Item],
    count: int,
    digest: int,
    begin: watch_pb2.SnapshotBegin | None = None,
) -> Update:
    """Return the step to a snapshot.

    Raises:
        BrokenStreamError: Items are missing, or it is older than what is held of the same store.
        DivergedError: Its digest is another one.
    """
    before = held.position
    if (
        before is not None
        and before.store_id == position.store_id
        and (position.generation, position.revision) < (before.generation, before.revision)
    ):
        raise BrokenStreamError(
            f"the server answered with revision {position.revision} of generation {position.generation}, which is "
            f"older than the held revision {before.revision} of generation {before.generation}"
        )
    items: dict[ItemKey, HeldItem] = {}
    tombstones: dict[ItemKey, int] = {}
    problems: list[str] = []
    for message in messages:
        if message.deleted:
            tombstones[message.kind, message.key] = message.revision
        else:
            items[message.kind, message.key] = _received(
                held.items.get((message.kind, message.key)), message, problems, trusted=False
            )
    if len(items) != count:
        raise BrokenStreamError(f"a snapshot of {count} items has arrived with {len(items)}")
    found = digest_of((kind, key, item.revision) for (kind, key), item in items.items())
    if found != digest:
        raise DivergedError("the snapshot is not what its digest says; asking for another")
    changed = {key for key, item in items.items() if held.items.get(key) is not item}
    changed.update(key for key in held.items if key not in items)
    return Update(
        Held(position, items, found),
        frozenset(changed),
        tuple(problems),
        coalesced=before is not None,
        base=held,
        snapshot=True,
        tombstones=tombstones,
        begin=begin,
    )


def step(held: Held, delta: watch_pb2.Delta) -> Update | None:
    """Return the step that *delta* is; None when it is a duplicate.

    Raises:
        BrokenStreamError: It does not follow from what is held.
        DivergedError: Its digest is another one.
    """
    before = _continued(held, delta.position)
    if delta.position.revision <= before.revision:
        return None
    if delta.from_revision > before.revision:
        raise BrokenStreamError(
            f"a step of the stream is missing: it goes on from revision {delta.from_revision}, and revision "
            f"{before.revision} is held"
        )
    items = dict(held.items)
    digest = held.digest
    problems: list[str] = []
    for message in delta.items:
        key = message.kind, message.key
        former = items.pop(key, None)
        if former is not None:
            digest ^= item_digest(*key, former.revision)
        if not message.deleted:
            items[key] = _received(former, message, problems, trusted=True)
            digest ^= item_digest(*key, message.revision)
    if digest != delta.digest:
        raise DivergedError(
            f"the state after revision {delta.position.revision} is not what the server has; asking for all of it"
        )
    changed = frozenset((message.kind, message.key) for message in delta.items)
    return Update(
        Held(delta.position, items, digest),
        changed,
        tuple(problems),
        coalesced=delta.coalesced,
        base=held,
        tombstones={
            (message.kind, message.key): message.revision for message in delta.items if message.deleted
        },
    )


def bookmark(held: Held, message: watch_pb2.Bookmark) -> Held:
    """Return what is held at the position of a bookmark; *held* itself when it stands further on already.

    Raises:
        BrokenStreamError: It is of another history.
        DivergedError: The digest is another one.
    """
    before = _continued(held, message.position)
    if message.position.revision < before.revision:
        # What a fetch beside the stream has brought is ahead of the stream.
        return held
    if message.digest != held.digest:
        raise DivergedError(
            f"the state at revision {message.position.revision} is not what the server has; asking for all of it"
        )
    return Held(message.position, held.items, held.digest)


def _continued(held: Held, position: watch_pb2.Position) -> watch_pb2.Position:
    before = held.position
    if before is None:
        raise BrokenStreamError("the stream has begun without a snapshot")
    if not position_from_proto(before).same_history(position_from_proto(position)):
        raise BrokenStreamError("the stream is of another history than what is held")
    return before


def _received(
    former: HeldItem | None, message: watch_pb2.Item, problems: list[str], *, trusted: bool
) -> HeldItem:
    if former is not None and former.revision == message.revision and (trusted or former.message == message):
        # The same object, so that what was compiled of it stays.
        return former
    received = item_from_proto(message)
    if received.problem:
        problems.append(f"{message.kind} {message.key!r}: {received.problem}")
    item = received.item
    return HeldItem(message.revision, item if isinstance(item, (Setting, Segment)) else None, message)
