"""The events of a watch as messages: chunks of snapshots, and snapshots in the place of large deltas."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from rheo.v1 import watch_pb2
from rheostat.model.watch import (
    Bookmark,
    Content,
    Delta,
    Entry,
    GoAway,
    Hello,
    Reset,
    ResetReason,
    SnapshotEvent,
    SubjectsChanged,
    WatchEvent,
)
from rheostat.wire.instant import duration_to_proto, instant_to_proto
from rheostat.wire.watch import filter_to_proto, item_to_proto, position_to_proto

__all__ = ["CHUNK_BYTES", "LARGE_DELTA_BYTES", "EventEncoder"]

W = TypeVar("W")

CHUNK_BYTES: Final = 256 * 1024
"""Items of one SnapshotChunk in sum, unless a single one is larger."""

LARGE_DELTA_BYTES: Final = 1024 * 1024
"""A delta above this becomes a chunked snapshot, so that a revision stays whole."""


class EventEncoder(Generic[W]):
    """Makes the messages of events; those that many watchers are sent, once. Safe from any thread."""

    def __init__(self, token_key: bytes, wrap: Callable[[watch_pb2.WatchResponse], W]) -> None:
        """Make an encoder.

        Args:
            token_key: The store's, under which the positions carry tokens.
            wrap: Makes of a message what is kept and returned; called once for a message that is shared.
        """
        self._token_key = token_key
        self._wrap = wrap
        self._chunked: weakref.WeakKeyDictionary[Content, tuple[W, ...]] = weakref.WeakKeyDictionary()
        self._deltas: weakref.WeakKeyDictionary[Delta, tuple[W, ...]] = weakref.WeakKeyDictionary()
        self._notices: weakref.WeakKeyDictionary[SubjectsChanged, tuple[W]] = weakref.WeakKeyDictionary()

    def encode(self, event: WatchEvent, whole: Callable[[], SnapshotEvent]) -> Sequence[W]:
        """Return the messages of *event*, in order; callers must not change them.

        Args:
            event: What to say.
            whole: Makes the snapshot at a delta's position, which is sent when the delta is too large.
        """
        match event:
            case SnapshotEvent():
                return self._snapshot(event)
            case Delta():
                return self._delta(event) or (self._reset(ResetReason.LARGE), *self._snapshot(whole()))
            case Hello():
                return (self._wrap(_hello(event)),)
            case Bookmark():
                bookmark = watch_pb2.Bookmark(
                    position=position_to_proto(event.position, self._token_key),
                    origin_time=instant_to_proto(event.origin_time),
                    digest=event.digest,
                    reconnect_spread=duration_to_proto(event.reconnect_spread)
                    if event.reconnect_spread
                    else None,
                    report_within=None
                    if event.report_within is None
                    else duration_to_proto(event.report_within),
                )
                return (self._wrap(watch_pb2.WatchResponse(bookmark=bookmark)),)
            case Reset():
                return (self._reset(event.reason),)
            case GoAway():
                go_away = watch_pb2.GoAway(
                    reason=f"GO_AWAY_REASON_{event.reason.name}",
                    spread=duration_to_proto(event.spread),
                    grace=duration_to_proto(event.grace),
                )
                return (self._wrap(watch_pb2.WatchResponse(go_away=go_away)),)
            case SubjectsChanged():
                found = self._notices.get(event)
                if found is None:
                    changed = watch_pb2.SubjectsChanged(ids=event.ids, all=event.all)
                    made = (self._wrap(watch_pb2.WatchResponse(subjects_changed=changed)),)
                    found = self._notices.setdefault(event, made)
                return found

    def _reset(self, reason: ResetReason) -> W:
        reset = watch_pb2.Reset(reason=f"RESET_REASON_{reason.name}")
        return self._wrap(watch_pb2.WatchResponse(reset=reset))

    def _snapshot(self, event: SnapshotEvent) -> Sequence[W]:
        count = len(event.entries)
        # No token at the beginning, so that nobody resumes from half a snapshot.
        begin = watch_pb2.SnapshotBegin(
            position=position_to_proto(event.position),
            item_count=sum(entry.kind != "key" for entry in event.entries),
        )
        if event.content.floor is not None:
            begin.floor = event.content.floor
            begin.token_key = self._token_key
        end = watch_pb2.SnapshotEnd(
            position=position_to_proto(event.position, self._token_key), item_count=count, digest=event.digest
        )
        return (
            self._wrap(watch_pb2.WatchResponse(snapshot_begin=begin)),
            *self._chunks(event.content),
            self._wrap(watch_pb2.WatchResponse(snapshot_end=end)),
        )

    def _chunks(self, content: Content) -> Sequence[W]:
        """Return the chunks of a content: the same ones at every position that it is sent at."""
        chunks = self._chunked.get(content)
        if chunks is None:
            messages = (
                watch_pb2.SnapshotChunk(index=index, items=items)
                for index, items in enumerate(_chunks((*content.entries, *content.tombstones)))
            )
            made = tuple(self._wrap(watch_pb2.WatchResponse(snapshot_chunk=chunk)) for chunk in messages)
            # Two threads may both have made them; all go on with the first.
            chunks = self._chunked.setdefault(content, made)
        return chunks

    def _delta(self, event: Delta) -> Sequence[W]:
        """Return the message of a delta; nothing when it is too large to send."""
        found = self._deltas.get(event)
        if found is not None:
            return found
        delta = watch_pb2.Delta(
            from_revision=event.from_revision,
            position=position_to_proto(event.position, self._token_key),
            items=[item_to_proto(entry) for entry in event.entries],
            coalesced=event.coalesced,
            digest=event.digest,
        )
        large = delta.ByteSize() > LARGE_DELTA_BYTES
        made = () if large else (self._wrap(watch_pb2.WatchResponse(delta=delta)),)
        return self._deltas.setdefault(event, made)


def _hello(hello: Hello) -> watch_pb2.WatchResponse:
    reason = "UNSPECIFIED" if hello.reason is None else hello.reason.name
    return watch_pb2.WatchResponse(
        hello=watch_pb2.Hello(
            mode=f"WATCH_MODE_{hello.mode.name}",
            reason=f"SNAPSHOT_REASON_{reason}",
            heartbeat=duration_to_proto(hello.heartbeat),
            node=hello.node,
            hops=hello.hops,
            filter=filter_to_proto(hello.filter),
            filter_ignored=hello.filter_ignored,
            project=hello.project,
            environment=hello.environment,
            reconnect_spread=duration_to_proto(hello.reconnect_spread) if hello.reconnect_spread else None,
        )
    )


def _chunks(entries: Sequence[Entry]) -> Iterator[list[watch_pb2.Item]]:
    items: list[watch_pb2.Item] = []
    size = 0
    for entry in entries:
        item = item_to_proto(entry)
        item_size = item.ByteSize()
        if items and size + item_size > CHUNK_BYTES:
            yield items
            items, size = [], 0
        items.append(item)
        size += item_size
    if items:
        yield items
