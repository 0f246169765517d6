"""The events of a watch as messages: chunks of snapshots, and snapshots in the place of large deltas."""

from __future__ import annotations

import datetime
import weakref
from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import watch_pb2
from rheostat.model.watch import (
    Bookmark,
    Delta,
    Entry,
    GoAway,
    Hello,
    Reset,
    ResetReason,
    SnapshotEvent,
    WatchEvent,
)
from rheostat.wire.watch import filter_to_proto, item_to_proto, position_to_proto

__all__ = ["CHUNK_BYTES", "LARGE_DELTA_BYTES", "EventEncoder", "duration", "timestamp"]

CHUNK_BYTES: Final = 256 * 1024
"""Items of one SnapshotChunk in sum, unless a single one is larger."""

LARGE_DELTA_BYTES: Final = 1024 * 1024
"""A delta above this becomes a chunked snapshot, so that a revision stays whole."""


def duration(seconds: float) -> Duration:
    """Return *seconds* as a Duration, to the microsecond."""
    message = Duration()
    message.FromTimedelta(datetime.timedelta(seconds=seconds))
    return message


def timestamp(instant: datetime.datetime | None) -> Timestamp | None:
    """Return an aware *instant* as a Timestamp; None stays None."""
    if instant is None:
        return None
    message = Timestamp()
    message.FromDatetime(instant)
    return message


class EventEncoder:
    """Makes the messages of events, once for all watchers that share an event object. Safe from any thread."""

    def __init__(self, token_key: bytes) -> None:
        """Make an encoder whose positions carry tokens under *token_key*."""
        self._token_key = token_key
        self._shared: weakref.WeakKeyDictionary[
            SnapshotEvent | Delta, tuple[watch_pb2.WatchResponse, ...]
        ] = weakref.WeakKeyDictionary()

    def encode(self, event: WatchEvent) -> Sequence[watch_pb2.WatchResponse]:
        """Return the messages of *event*, in order; callers must not change them."""
        match event:
            case SnapshotEvent() | Delta():
                messages = self._shared.get(event)
                if messages is None:
                    made = self._snapshot(event) if isinstance(event, SnapshotEvent) else self._delta(event)
                    # Two threads may both have made them; all go on with the first.
                    messages = self._shared.setdefault(event, tuple(made))
                return messages
            case Hello():
                return (self._hello(event),)
            case Bookmark():
                return (
                    watch_pb2.WatchResponse(
                        bookmark=watch_pb2.Bookmark(
                            position=position_to_proto(event.position, self._token_key),
                            origin_time=timestamp(event.origin_time),
                            digest=event.digest,
                        )
                    ),
                )
            case Reset():
                return (_reset(event.reason),)
            case GoAway():
                return (
                    watch_pb2.WatchResponse(
                        go_away=watch_pb2.GoAway(
                            reason=f"GO_AWAY_REASON_{event.reason.name}",
                            spread=duration(event.spread),
                            grace=duration(event.grace),
                        )
                    ),
                )

    def _hello(self, hello: Hello) -> watch_pb2.WatchResponse:
        reason = "UNSPECIFIED" if hello.reason is None else hello.reason.name
        return watch_pb2.WatchResponse(
            hello=watch_pb2.Hello(
                mode=f"WATCH_MODE_{hello.mode.name}",
                reason=f"SNAPSHOT_REASON_{reason}",
                heartbeat=duration(hello.heartbeat),
                node=hello.node,
                hops=hello.hops,
                filter=filter_to_proto(hello.filter),
                filter_ignored=hello.filter_ignored,
                project=hello.project,
                environment=hello.environment,
            )
        )

    def _snapshot(self, event: SnapshotEvent) -> Iterator[watch_pb2.WatchResponse]:
        count = len(event.entries)
        # No token at the beginning, so that nobody resumes from half a snapshot.
        yield watch_pb2.WatchResponse(
            snapshot_begin=watch_pb2.SnapshotBegin(
                position=position_to_proto(event.position), item_count=count
            )
        )
        for index, items in enumerate(_chunks(event.entries)):
            yield watch_pb2.WatchResponse(snapshot_chunk=watch_pb2.SnapshotChunk(index=index, items=items))
        yield watch_pb2.WatchResponse(
            snapshot_end=watch_pb2.SnapshotEnd(
                position=position_to_proto(event.position, self._token_key),
                item_count=count,
                digest=event.digest,
            )
        )

    def _delta(self, event: Delta) -> Iterator[watch_pb2.WatchResponse]:
        message = watch_pb2.Delta(
            from_revision=event.from_revision,
            position=position_to_proto(event.position, self._token_key),
            items=[_item(entry) for entry in event.entries],
            coalesced=event.coalesced,
            digest=event.digest,
        )
        if message.ByteSize() > LARGE_DELTA_BYTES:
            yield _reset(ResetReason.LARGE)
            yield from self.encode(event.snapshot())
        else:
            yield watch_pb2.WatchResponse(delta=message)


def _item(entry: Entry) -> watch_pb2.Item:
    return item_to_proto(entry)


def _chunks(entries: Sequence[Entry]) -> Iterator[list[watch_pb2.Item]]:
    items: list[watch_pb2.Item] = []
    size = 0
    for entry in entries:
        item = _item(entry)
        item_size = item.ByteSize()
        if items and size + item_size > CHUNK_BYTES:
            yield items
            items, size = [], 0
        items.append(item)
        size += item_size
    if items:
        yield items


def _reset(reason: ResetReason) -> watch_pb2.WatchResponse:
    return watch_pb2.WatchResponse(reset=watch_pb2.Reset(reason=f"RESET_REASON_{reason.name}"))
