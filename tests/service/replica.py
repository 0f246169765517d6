"""A plain watcher, written from the contract alone: it applies the messages of a stream and checks each claim."""

from __future__ import annotations

import hashlib

from rheo.v1 import watch_pb2
from rheostat.model.encoding import encode_item
from rheostat.wire.watch import item_from_proto

__all__ = ["Replica", "digest"]

ItemKey = tuple[str, str]


def digest(items: dict[ItemKey, int]) -> int:
    """The digest over held items, by kind and key, from the formula that the contract publishes."""
    result = 0
    for (kind, key), revision in items.items():
        hashed = hashlib.sha256(f"{kind}:{key}@{revision}".encode()).digest()
        result ^= int.from_bytes(hashed[:8], "big")
    return result


class Replica:
    """What a client holds, over any number of streams.

    Attributes:
        items: The stored form of each item that it holds, by kind and key.
        token: The newest resume token.
        events: The kinds of the messages of the present stream.
        seen: Each (generation, revision) at which its state was complete, in order.
    """

    def __init__(self) -> None:
        self.items: dict[ItemKey, str] = {}
        self.token = b""
        self.hello: watch_pb2.Hello | None = None
        self.position: watch_pb2.Position | None = None
        self.went_away = ""
        self.events: list[str] = []
        self.seen: list[tuple[int, int]] = []
        self.last_delta: watch_pb2.Delta | None = None
        self._revisions: dict[ItemKey, int] = {}
        self._wants_snapshot = False
        self._begun: watch_pb2.SnapshotBegin | None = None
        self._arriving: list[watch_pb2.Item] = []
        self._chunks = 0

    def connect(self) -> None:
        """Begin another stream."""
        self.hello = None
        self.went_away = ""
        self.events = []
        self._wants_snapshot = False
        self._begun = None

    def feed(self, raw: bytes) -> None:
        """Apply one message of the stream."""
        message = watch_pb2.WatchResponse.FromString(raw)
        event = message.WhichOneof("event")
        assert event is not None
        self.events.append(event)
        assert (event == "hello") == (self.hello is None), "Hello comes first, and once"
        if self._begun is not None:
            assert event in ("snapshot_chunk", "snapshot_end"), f"a snapshot is interrupted by {event}"
        elif self._wants_snapshot:
            assert event == "snapshot_begin", f"a snapshot was announced, not {event}"
        getattr(self, f"_{event}")(getattr(message, event))

    @property
    def at(self) -> tuple[int, int]:
        """Generation and revision of what it holds."""
        assert self.position is not None
        return self.position.generation, self.position.revision

    def _hello(self, hello: watch_pb2.Hello) -> None:
        self.hello = hello
        snapshot = hello.mode == watch_pb2.WATCH_MODE_SNAPSHOT
        assert bool(hello.reason) == snapshot, "a snapshot has a reason, nothing else has"
        self._wants_snapshot = snapshot
        assert snapshot or self.position is not None

    def _snapshot_begin(self, begin: watch_pb2.SnapshotBegin) -> None:
        assert not begin.position.token, "nobody resumes from half a snapshot"
        self._begun = begin
        self._arriving = []
        self._chunks = 0

    def _snapshot_chunk(self, chunk: watch_pb2.SnapshotChunk) -> None:
        assert chunk.index == self._chunks
        assert chunk.items
        self._chunks += 1
        self._arriving.extend(chunk.items)

    def _snapshot_end(self, end: watch_pb2.SnapshotEnd) -> None:
        begun = self._begun
        assert begun is not None
        assert _history(begun.position) == _history(end.position)
        assert begun.position.revision == end.position.revision
        assert begun.item_count == end.item_count == len(self._arriving)
        self._begun = None
        self._wants_snapshot = False
        self.items = {}
        self._revisions = {}
        for item in self._arriving:
            assert not item.deleted
            assert (item.kind, item.key) not in self.items
            self._put(item)
        self._reached(end.position, end.digest)

    def _delta(self, delta: watch_pb2.Delta) -> None:
        held = self.position
        assert held is not None
        assert _history(held) == _history(delta.position), "a delta of another history is never applied"
        assert delta.from_revision <= held.revision, "a gap"
        assert held.revision < delta.position.revision, "a duplicate"
        assert delta.items
        for item in delta.items:
            assert delta.from_revision < item.revision <= delta.position.revision
            if item.deleted:
                self.items.pop((item.kind, item.key), None)
                self._revisions.pop((item.kind, item.key), None)
            else:
                self._put(item)
        self.last_delta = delta
        self._reached(delta.position, delta.digest)

    def _bookmark(self, bookmark: watch_pb2.Bookmark) -> None:
        held = self.position
        assert held is not None
        assert _history(held) == _history(bookmark.position)
        assert bookmark.HasField("origin_time")
        self._reached(bookmark.position, bookmark.digest)

    def _reset(self, reset: watch_pb2.Reset) -> None:
        assert reset.reason
        self._wants_snapshot = True

    def _go_away(self, go_away: watch_pb2.GoAway) -> None:
        assert go_away.reason
        self.went_away = watch_pb2.GoAwayReason.Name(go_away.reason).removeprefix("GO_AWAY_REASON_")

    def _put(self, item: watch_pb2.Item) -> None:
        received = item_from_proto(item)
        assert not received.problem
        assert received.item is not None
        self.items[item.kind, item.key] = encode_item(received.item)
        self._revisions[item.kind, item.key] = item.revision

    def _reached(self, position: watch_pb2.Position, claimed: int) -> None:
        held = self.position
        if held is not None and held.store_id == position.store_id:
            before, after = self.at, (position.generation, position.revision)
            assert before <= after, f"went back from {before} to {after}"
        assert claimed == digest(self._revisions), "the digest differs"
        assert position.token
        self.position = position
        self.token = position.token
        self.seen.append(self.at)


def _history(position: watch_pb2.Position) -> tuple[bytes, int, bytes, bytes]:
    return position.store_id, position.generation, position.nonce, position.scope
