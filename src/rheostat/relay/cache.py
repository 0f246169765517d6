"""What a relay serves, in a file: where it starts when all upstreams are away.

The file is a line of ASCII, ``rheostat-relay 1``, the SHA-256 of all that follows, and for each environment the
messages of a stream that would bring its state to another relay, each after its length in four bytes. It holds the
key of the store's tokens, and is readable by its owner only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.relay.mirror import mirrored
from rheostat.sdk.held import Held, whole
from rheostat.sdk.sealed import replace_by, sealed, unsealed
from rheostat.service.publish import Head
from rheostat.store.disk import sync_directory
from rheostat.wire.watch import item_to_proto

__all__ = ["DamagedRelayCacheError", "Kept", "RelayCache"]

_MAGIC: Final = b"rheostat-relay 1\n"
_LENGTH: Final = struct.Struct(">I")

_MESSAGES: Final = 5
"""Of each environment: Hello, SnapshotBegin, one chunk, SnapshotEnd and a bookmark."""


class DamagedRelayCacheError(RheostatError):
    """The file is cut, altered or of another version."""

    default_reason = "CACHE_DAMAGED"


@dataclass(frozen=True, slots=True)
class Kept:
    """One environment.

    Attributes:
        project: Slug.
        environment: Slug.
        held: What the stream has delivered.
        head: What is served of it.
        hops: How many relays stand between this one's clients and the store's own node.
        origin: When the store's own node has last said that this is the state; None when that is not known.
    """

    project: str
    environment: str
    held: Held
    head: Head
    hops: int
    origin: Timestamp | None


class RelayCache:
    """One file, of one process. Not for several threads at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; nothing is read or written yet."""
        self.path = Path(path)

    def read(self) -> list[Kept] | None:
        """Return the environments; None when there is no file.

        Raises:
            DamagedRelayCacheError: The file cannot be used; the text says why.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged(f"it cannot be read: {error.strerror}") from error
        return self.parse(content)

    def parse(self, content: bytes) -> list[Kept]:
        """Return the environments that the *content* of a file keeps.

        Raises:
            DamagedRelayCacheError: It is not what was written.
        """
        try:
            body = unsealed(_MAGIC, content)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        try:
            return list(map(_kept, _streams(list(_messages(body)))))
        except (DecodeError, struct.error, ValueError, RheostatError) as error:
            raise self._damaged(str(error)) from error

    def content(self, environments: Iterable[Kept]) -> bytes:
        """Return the content of a file that keeps *environments*."""
        messages = (message for kept in environments for message in _stream(kept))
        encoded = (message.SerializeToString() for message in messages)
        body = b"".join(part for each in encoded for part in (_LENGTH.pack(len(each)), each))
        return sealed(_MAGIC, body)

    def write(self, environments: Iterable[Kept]) -> None:
        """Replace the file: readers see the old one or the new one, never a part.

        Raises:
            OSError: It cannot be written, and the old one stays; or nobody knows whether the new one would outlast a
                loss of power.
        """
        content = self.content(environments)
        # Always of the same name, so that the next write removes what a kill has left: it is as secret as the file.
        draft = self.path.with_name(f".{self.path.name}.draft")
        draft.unlink(missing_ok=True)
        replace_by(self.path, content, draft=draft.name)
        sync_directory(self.path.parent)

    def _damaged(self, why: str) -> DamagedRelayCacheError:
        return DamagedRelayCacheError(f"the cache {self.path.name} is not used: {why}")


def _messages(body: bytes) -> Iterator[watch_pb2.WatchResponse]:
    at = 0
    while at < len(body):
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        yield watch_pb2.WatchResponse.FromString(body[at : at + length])
        at += length


def _stream(kept: Kept) -> Sequence[watch_pb2.WatchResponse]:
    """Return what would bring the state of one environment to another relay."""
    held, head = kept.held, kept.head
    view = head.relayed(kept.project, kept.environment)
    assert view is not None
    items = [item.message for item in held.items.values()]
    items += [item_to_proto(entry) for entry in view.tombstones]
    begin = watch_pb2.SnapshotBegin(
        position=held.position,
        item_count=len(held.items),
        floor=head.floor,
        token_key=head.identity.token_key,
    )
    end = watch_pb2.SnapshotEnd(position=held.position, item_count=len(held.items), digest=held.digest)
    return [
        watch_pb2.WatchResponse(
            hello=watch_pb2.Hello(project=kept.project, environment=kept.environment, hops=kept.hops)
        ),
        watch_pb2.WatchResponse(snapshot_begin=begin),
        watch_pb2.WatchResponse(snapshot_chunk=watch_pb2.SnapshotChunk(items=items)),
        watch_pb2.WatchResponse(snapshot_end=end),
        watch_pb2.WatchResponse(bookmark=watch_pb2.Bookmark(origin_time=kept.origin)),
    ]


def _streams(messages: Sequence[watch_pb2.WatchResponse]) -> Iterator[Sequence[watch_pb2.WatchResponse]]:
    if len(messages) % _MESSAGES:
        raise ValueError("a state in it is not whole")
    for at in range(0, len(messages), _MESSAGES):
        yield messages[at : at + _MESSAGES]


def _kept(stream: Sequence[watch_pb2.WatchResponse]) -> Kept:
    hello, begin = stream[0].hello, stream[1].snapshot_begin
    items, end, bookmark = stream[2].snapshot_chunk.items, stream[3].snapshot_end, stream[4].bookmark
    update = whole(Held(), end.position, items, end.item_count, end.digest, begin)
    return Kept(
        hello.project,
        hello.environment,
        update.held,
        mirrored(None, update, hello.project, hello.environment),
        hello.hops,
        bookmark.origin_time if bookmark.HasField("origin_time") else None,
    )
