"""Ten bugs that systems like this one have had, each as a switch: a context in which production code has it.

The simulation has to catch each of them; see ``test_bugs.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest import mock

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.model.change import ChangeSet
from rheostat.model.watch import Bookmark, Delta, SnapshotReason
from rheostat.sdk.cache import Cache
from rheostat.sdk.held import Held, HeldItem, Update
from rheostat.sdk.watch_loop import _Session
from rheostat.service import watch
from rheostat.service.publish import Head, ScopedView, View, next_head
from rheostat.service.service import Service
from rheostat.service.watch import WatchSession
from rheostat.store.base import Identity
from rheostat.wire.watch import item_from_proto
from tests.simulation.node import Node
from tests.simulation.store import SharedStore

__all__ = ["BUGS"]


@contextlib.contextmanager
def no_generation() -> Iterator[None]:
    """A standby or a backup takes over under the same identity: revisions are given again, to other content."""

    def stay(self: SharedStore, above: int, cause: str = "") -> Identity:
        self.history.begin(self.life, self.change_sets)
        return self.identity()

    with mock.patch.object(SharedStore, "raise_generation", stay):
        yield


@contextlib.contextmanager
def unordered_generation() -> Iterator[None]:
    """A generation is a random number, which tells that history was lost, but not which one is newer."""
    raised = SharedStore.raise_generation

    def draw(self: SharedStore, above: int, cause: str = "") -> Identity:
        raised(self, above, cause)
        number = 1 + int.from_bytes(self._randomness(2), "big") % 1000
        self._identity = dataclasses.replace(self._identity, generation=number)
        self.history.begin(self.life, self.change_sets)
        return self._identity

    with mock.patch.object(SharedStore, "raise_generation", draw):
        yield


@contextlib.contextmanager
def stale_node_serves_a_snapshot() -> Iterator[None]:
    """A node that has not read as far as the token sends what it has."""
    why = WatchSession._why_snapshot
    is_ahead = watch._is_ahead

    def at_once(self: WatchSession, head: Head, scope: ScopedView, token: Any) -> SnapshotReason | None:
        if token is not None and is_ahead(token, head):
            return SnapshotReason.INVALID
        return why(self, head, scope, token)

    def never(token: Any, head: Head) -> bool:
        return False

    with (
        mock.patch.object(watch, "_is_ahead", never),
        mock.patch.object(WatchSession, "_why_snapshot", at_once),
    ):
        yield


@contextlib.contextmanager
def ignored_compaction() -> Iterator[None]:
    """A position below the floor gets what is left of the changes since."""
    with mock.patch.object(View, "floor", 0):
        yield


@contextlib.contextmanager
def split_revision() -> Iterator[None]:
    """A node shows the first changes of a revision, and the others the next time it reads the store."""
    advance, catch_up = Service._advance, Service.catch_up

    def complete(self: Service) -> None:
        rest: ChangeSet | None = self.__dict__.pop("rest", None)
        if rest is not None and rest.revision == self.hub.head.revision:
            self.hub.publish(next_head(self.hub.head, rest))

    def half(self: Service, change_sets: Sequence[ChangeSet]) -> Head:
        complete(self)
        *whole, last = change_sets
        if len(last.changes) < 2:
            return advance(self, change_sets)
        self.__dict__["rest"] = dataclasses.replace(last, changes=last.changes[1:])
        return advance(self, [*whole, dataclasses.replace(last, changes=last.changes[:1])])

    def both(self: Service) -> Head:
        complete(self)
        return catch_up(self)

    with mock.patch.object(Service, "_advance", half), mock.patch.object(Service, "catch_up", both):
        yield


@contextlib.contextmanager
def coalescing_without_tombstones() -> Iterator[None]:
    """A delta over several revisions holds what there is after them, and not what is gone."""
    made = ScopedView._delta

    def merged(self: ScopedView, held: int, position: Any) -> Delta | None:
        delta = made(self, held, position)
        if delta is None or not delta.coalesced:
            return delta
        return dataclasses.replace(
            delta, entries=tuple(each for each in delta.entries if each.item is not None)
        )

    with mock.patch.object(ScopedView, "_delta", merged):
        yield


@contextlib.contextmanager
def partial_snapshot_visible() -> Iterator[None]:
    """A client shows the chunks of a snapshot as they come."""
    take = _Session._take

    def at_once(self: _Session, kind: str | None, event: watch_pb2.WatchResponse) -> None:
        take(self, kind, event)
        held = self._observer.held
        if kind == "snapshot_chunk" and held.position is not None:
            items = dict(held.items)
            for message in event.snapshot_chunk.items:
                received: Any = item_from_proto(message).item
                items[message.kind, message.key] = HeldItem(message.revision, received, message)
            self._observer.advanced(
                Update(Held(held.position, items, held.digest), frozenset(items), base=held)
            )

    with mock.patch.object(_Session, "_take", at_once):
        yield


@contextlib.contextmanager
def trusted_notify_payload() -> Iterator[None]:
    """A node that is told of a revision applies that one, without looking whether it has those before."""

    def apply(self: Node, revision: int) -> None:
        service = self.service
        if service is None or revision <= service.head.revision:
            return
        with contextlib.suppress(RheostatError):
            change_set = self.access.change_set(revision)
            if change_set is not None:
                service.hub.publish(next_head(service.head, change_set))

    with mock.patch.object(Node, "hinted", apply):
        yield


@contextlib.contextmanager
def early_bookmark() -> Iterator[None]:
    """A bookmark tells of the newest revision of the store, not of the newest that was sent."""
    made = WatchSession._bookmark

    def newest(self: WatchSession, now: float) -> Bookmark:
        bookmark = made(self, now)
        if not isinstance(self._service, Service):
            return bookmark
        with contextlib.suppress(RheostatError):
            revision = max(self._service.store.revision(), bookmark.position.revision)
            return dataclasses.replace(
                bookmark, position=dataclasses.replace(bookmark.position, revision=revision)
            )
        return bookmark

    with mock.patch.object(WatchSession, "_bookmark", newest):
        yield


@contextlib.contextmanager
def token_saved_before_state() -> Iterator[None]:
    """A client writes down a position, and the state that belongs to it only with the next one."""
    content = Cache.content
    former: dict[str, Held] = {}

    def mixed(self: Cache, held: Held) -> bytes:
        before = former.get(self._about.hex(), held)
        former[self._about.hex()] = held
        return content(self, Held(held.position, before.items, before.digest))

    with mock.patch.object(Cache, "content", mixed):
        yield


BUGS: Final[Mapping[str, Callable[[], AbstractContextManager[None]]]] = {
    bug.__name__.replace("_", "-"): bug
    for bug in (
        no_generation,
        unordered_generation,
        stale_node_serves_a_snapshot,
        ignored_compaction,
        split_revision,
        coalescing_without_tombstones,
        partial_snapshot_visible,
        trusted_notify_payload,
        early_bookmark,
        token_saved_before_state,
    )
}
