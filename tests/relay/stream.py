"""What reads the stream of a relay, from the contract alone."""

from __future__ import annotations

from rheo.v1 import watch_pb2
from tests.service.replica import Replica

__all__ = ["RelayReplica"]


class RelayReplica(Replica):
    """A replica with keys, which also keeps what snapshots of relays' streams say beside their items.

    Attributes:
        floor: Of the last snapshot.
        token_key: Of the last snapshot.
        tombstones: Of the last snapshot: the revisions that removed items, by kind and key.
        bookmarks: Those of all streams.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floor = 0
        self.token_key = b""
        self.tombstones: dict[tuple[str, str], int] = {}
        self.bookmarks: list[watch_pb2.Bookmark] = []

    def feed(self, raw: bytes) -> None:
        """Apply one message; a relay that is behind sends its client away before it says hello."""
        message = watch_pb2.WatchResponse.FromString(raw)
        if self.hello is None and message.HasField("go_away"):
            self._go_away(message.go_away)
        else:
            super().feed(raw)

    @property
    def keys(self) -> set[str]:
        """The selectors of the keys that it holds."""
        return {key for kind, key in self.items if kind == "key"}

    def _snapshot_begin(self, begin: watch_pb2.SnapshotBegin) -> None:
        self.floor = begin.floor
        self.token_key = begin.token_key
        super()._snapshot_begin(begin)

    def _snapshot_end(self, end: watch_pb2.SnapshotEnd) -> None:
        arriving = self._arriving
        self.tombstones = {(item.kind, item.key): item.revision for item in arriving if item.deleted}
        self._arriving = [item for item in arriving if not item.deleted]
        begun = self._begun
        assert begun is not None
        assert begun.item_count == sum(item.kind != "key" for item in self._arriving)
        assert end.item_count == len(self._arriving)
        # From here on it is as a plain one, which has no keys.
        begun.item_count = end.item_count
        super()._snapshot_end(end)

    def _bookmark(self, bookmark: watch_pb2.Bookmark) -> None:
        self.bookmarks.append(bookmark)
        super()._bookmark(bookmark)
