"""What relays write to Redis for clients that read only that, and how a client follows it, without input or output.

For each environment there are five names, which begin with ``PREFIX:1:{PROJECT/ENVIRONMENT}:``. The braces let a
cluster keep them together.

===========  =====================================================================================================
``head``     a hash: the fields of `HEAD`, which say what the others hold
``items``    a hash: each item as a `rheo.v1.Item`, under its kind and key
``log``      a sorted set by revision: the newest steps as `rheo.v1.Delta`, each of which continues the one before
``beat``     a number that each relay changes at each heartbeat, and which expires when none does any more
``changed``  a channel: something has been written. It is a hint; the hash is the truth
===========  =====================================================================================================

All but the beat expires a week after a relay has last written it, and the environment leaves the index then.
Everything of one revision is written at once, and read at once. No keys are among it, nor what signs positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import watch_pb2
from rheo.v1.config_service_pb2 import GetSnapshotResponse
from rheostat.errors import InvalidArgumentError, UnavailableError
from rheostat.sdk.held import Held, whole
from rheostat.wire.watch import position_from_proto

__all__ = [
    "DEFAULT_PREFIX",
    "HEAD",
    "SILENT_BEATS",
    "SOCKET_SECONDS",
    "Follower",
    "Layout",
    "Written",
    "made_from",
    "snapshot_of",
]

DEFAULT_PREFIX: Final = "rheostat"

SILENT_BEATS: Final = 3
"""Heartbeats after which what no relay has refreshed is old; as of a stream."""

HEAD: Final = ("position", "digest", "count", "origin", "heartbeat", "node", "hops")
"""The fields of a head that clients read: `rheo.v1.Position`, hexadecimal, decimal, milliseconds since 1970 and of
the heartbeat, text and decimal. Relays compare further ones."""

_CHUNK_ITEMS: Final = 1000

SOCKET_SECONDS: Final = 5.0
"""How long a Redis that says nothing holds up the next attempt, when the client of Redis is ours."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one environment.

    Attributes:
        prefix: What all names begin with.
        project: Slug.
        environment: Slug.
    """

    prefix: str
    project: str
    environment: str

    def name(self, part: str) -> str:
        """Return the name of a *part*."""
        return f"{self.prefix}:1:{{{self.project}/{self.environment}}}:{part}"

    @staticmethod
    def index(prefix: str) -> str:
        """Return the name of the sorted set of all environments, ``PROJECT/ENVIRONMENT``, by when they expire."""
        return f"{prefix}:1:environments"


@dataclass(frozen=True, slots=True)
class Written:
    """A head as it was read.

    Attributes:
        position: Of the state.
        digest: Over its items.
        count: How many these are.
        origin: When the store's own node had last said that this is the state.
        heartbeat: Seconds between two beats of a relay.
        node: The relay that has written it.
        hops: How many relays the state has passed through.
    """

    position: watch_pb2.Position
    digest: int
    count: int
    origin: Timestamp
    heartbeat: float
    node: str
    hops: int

    @classmethod
    def of(cls, fields: Sequence[bytes | None]) -> Written | None:
        """Return the head whose fields `HEAD` have these values; None when there is none.

        Raises:
            UnavailableError: They are not what a relay writes.
        """
        if all(field is None for field in fields):
            return None
        try:
            position, digest, count, origin, heartbeat, node, hops = (field or b"" for field in fields)
            made = cls(
                watch_pb2.Position.FromString(position),
                int(digest, 16),
                int(count),
                Timestamp(seconds=int(origin) // 1000, nanos=int(origin) % 1000 * 1_000_000),
                int(heartbeat) / 1000,
                node.decode(),
                int(hops),
            )
        except (ValueError, DecodeError) as error:
            raise UnavailableError(
                f"what Redis holds was not written by a relay: {error}", reason="SOURCE_DAMAGED"
            ) from error
        return made

    def bookmark(self) -> watch_pb2.WatchResponse:
        """Return the bookmark of this state."""
        bookmark = watch_pb2.Bookmark(position=self.position, origin_time=self.origin, digest=self.digest)
        return watch_pb2.WatchResponse(bookmark=bookmark)

    def snapshot(self, items: Iterable[watch_pb2.Item]) -> list[watch_pb2.WatchResponse]:
        """Return the events of a snapshot made of *items*."""
        listed = list(items)
        begin = watch_pb2.SnapshotBegin(position=self.position, item_count=self.count)
        # So that nobody resumes from half a snapshot.
        begin.position.token = b""
        end = watch_pb2.SnapshotEnd(position=self.position, item_count=self.count, digest=self.digest)
        chunks = [
            watch_pb2.SnapshotChunk(index=index, items=listed[at : at + _CHUNK_ITEMS])
            for index, at in enumerate(range(0, len(listed), _CHUNK_ITEMS))
        ]
        return [
            watch_pb2.WatchResponse(snapshot_begin=begin),
            *(watch_pb2.WatchResponse(snapshot_chunk=chunk) for chunk in chunks),
            watch_pb2.WatchResponse(snapshot_end=end),
        ]


class Follower:
    """Makes the events of a watch of what is read, look after look.

    Each look is one transaction: `ask` queues its commands, `take` makes something of the answers.

    Attributes:
        again: The next look is to follow at once.
        old: A state that no relay refreshes any more; None unless the last look has found such a one.
    """

    def __init__(self, layout: Layout, request: watch_pb2.WatchRequest, held: Held) -> None:
        """Begin with what is held.

        Args:
            layout: What to read.
            request: Of the watch.
            held: What the client has.
        """
        self.again = False
        self.old: Held | None = None
        self._layout = layout
        self._request = request
        self._open = False
        self._position = held.position
        self._digest = held.digest
        self._beat: bytes | None = None
        self._reason = watch_pb2.SNAPSHOT_REASON_UNSPECIFIED
        if request.resnapshot:
            self._reason = watch_pb2.SNAPSHOT_REASON_REQUESTED
        elif held.position is None:
            self._reason = watch_pb2.SNAPSHOT_REASON_NEW

    def ask(self, pipeline: Any) -> None:
        """Queue the commands of the next look."""
        name = self._layout.name
        pipeline.hmget(name("head"), *HEAD)
        pipeline.get(name("beat"))
        if self._reason:
            pipeline.hgetall(name("items"))
        else:
            revision = 0 if self._position is None else self._position.revision
            pipeline.zrangebyscore(name("log"), f"({revision}", "+inf")

    def take(self, answers: Sequence[Any]) -> list[watch_pb2.WatchResponse]:
        """Return the events of a look; none when there is nothing new.

        Raises:
            UnavailableError: There is nothing to follow.
        """
        self.again = False
        fields, beat, content = answers
        written = Written.of(fields)
        if written is None:
            if self._open:
                # It comes back when a relay notices.
                return []
            raise UnavailableError(
                f"no relay has written {self._layout.project}/{self._layout.environment} to Redis",
                reason="SOURCE_EMPTY",
            )
        if not self._reason and not self._continues(written):
            return []
        if beat is None:
            return self._silent(written, content)
        if self._reason:
            return self._whole(written, beat, content)
        return self._steps(written, beat, content)

    def _continues(self, written: Written) -> bool:
        """Tell whether what was read may follow what is held by steps; else see to what is to be done.

        Raises:
            UnavailableError: It is older.
        """
        held, found = self._position, written.position
        assert held is not None
        if found.store_id != held.store_id:
            self._fetch(watch_pb2.SNAPSHOT_REASON_STORE)
        elif found.generation > held.generation:
            self._fetch(watch_pb2.SNAPSHOT_REASON_GENERATION)
        elif not position_from_proto(held).same_history(position_from_proto(found)) or (
            found.revision < held.revision
        ):
            if not self._open:
                raise UnavailableError(
                    "what Redis holds is older than what the client has", reason="SOURCE_BEHIND"
                )
            # Redis has lost some of it, and the relay has not noticed yet.
        else:
            return True
        return False

    def _fetch(self, reason: watch_pb2.SnapshotReason) -> None:
        self._reason = reason
        self.again = True

    def _silent(self, written: Written, content: Any) -> list[watch_pb2.WatchResponse]:
        """Take what nobody refreshes for what it is: a state that was true once.

        Raises:
            UnavailableError: Always, unless a watch goes on, or the state is still to be read.
        """
        if self._open:
            return []
        held = self._position
        if self._reason:
            items = _items(content)
            self.old = whole(Held(), written.position, items, written.count, written.digest).held
        elif held is not None and held.revision < written.position.revision:
            self._fetch(watch_pb2.SNAPSHOT_REASON_COMPACTED)
            return []
        raise UnavailableError(
            "no relay keeps what Redis holds up to date any more; it is as old as it says",
            reason="SOURCE_SILENT",
        )

    def _whole(self, written: Written, beat: bytes, content: Any) -> list[watch_pb2.WatchResponse]:
        events = []
        if self._open:
            reset = watch_pb2.Reset(
                reason=watch_pb2.RESET_REASON_COMPACTED
                if self._reason == watch_pb2.SNAPSHOT_REASON_COMPACTED
                else watch_pb2.RESET_REASON_GENERATION
            )
            events.append(watch_pb2.WatchResponse(reset=reset))
        else:
            events.append(self._hello(written, watch_pb2.WATCH_MODE_SNAPSHOT))
        events += written.snapshot(_items(content))
        return self._done(written, beat, events)

    def _steps(self, written: Written, beat: bytes, content: Any) -> list[watch_pb2.WatchResponse]:
        assert self._position is not None
        deltas = list(map(_delta, content))
        at, digest = self._position.revision, self._digest
        for delta in deltas:
            if delta.from_revision > at:
                break
            at, digest = delta.position.revision, delta.digest
        if digest != written.digest:
            # Not all steps from here are there any more.
            self._fetch(watch_pb2.SNAPSHOT_REASON_COMPACTED)
            return []
        if self._open and not deltas and beat == self._beat and at == written.position.revision:
            return []
        events = [watch_pb2.WatchResponse(delta=delta) for delta in deltas]
        if not self._open:
            mode = watch_pb2.WATCH_MODE_DELTA if deltas else watch_pb2.WATCH_MODE_UP_TO_DATE
            events.insert(0, self._hello(written, mode))
        return self._done(written, beat, events)

    def _done(
        self, written: Written, beat: bytes, events: list[watch_pb2.WatchResponse]
    ) -> list[watch_pb2.WatchResponse]:
        self._open = True
        self._reason = watch_pb2.SNAPSHOT_REASON_UNSPECIFIED
        self._position, self._digest, self._beat = written.position, written.digest, beat
        return [*events, written.bookmark()]

    def _hello(self, written: Written, mode: watch_pb2.WatchMode) -> watch_pb2.WatchResponse:
        heartbeat = Duration()
        heartbeat.FromMilliseconds(round(written.heartbeat * 1000))
        return watch_pb2.WatchResponse(
            hello=watch_pb2.Hello(
                mode=mode,
                reason=self._reason,
                heartbeat=heartbeat,
                node=written.node,
                hops=written.hops,
                # Relays write whole environments.
                filter_ignored=self._request.HasField("filter"),
                project=self._layout.project,
                environment=self._layout.environment,
            )
        )


def made_from(kind: Any, url: str) -> Any:
    """Return a client of Redis of a *kind*, `redis.Redis` or `redis.asyncio.Redis`, for *url*; nothing is opened.

    Raises:
        InvalidArgumentError: It is no URL of Redis. The text quotes none of it, as it may hold a password.
    """
    try:
        return kind.from_url(url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)
    except ValueError:
        # The text of the error, and of its cause, may quote what was taken for a port: a part of the password.
        pass
    raise InvalidArgumentError(
        "the address of Redis cannot be used: it is no redis://, rediss:// or unix:// URL; "
        "characters such as / # ? @ in a password are to be percent-encoded"
    )


def snapshot_of(events: Iterable[watch_pb2.WatchResponse]) -> GetSnapshotResponse:
    """Return what the first events of a watch say as the answer to a poll; they hold a snapshot, or no step."""
    answer = GetSnapshotResponse(up_to_date=True)
    for event in events:
        match event.WhichOneof("event"):
            case "snapshot_chunk":
                answer.items.extend(event.snapshot_chunk.items)
            case "snapshot_end":
                answer.up_to_date = False
                answer.item_count = event.snapshot_end.item_count
            case "bookmark":
                answer.position.CopyFrom(event.bookmark.position)
                answer.digest = event.bookmark.digest
            case _:
                pass
    return answer


def _items(content: Mapping[bytes, bytes]) -> list[watch_pb2.Item]:
    try:
        return [watch_pb2.Item.FromString(encoded) for encoded in content.values()]
    except DecodeError as error:
        raise UnavailableError("an item that Redis holds cannot be read", reason="SOURCE_DAMAGED") from error


def _delta(encoded: bytes) -> watch_pb2.Delta:
    try:
        return watch_pb2.Delta.FromString(encoded)
    except DecodeError as error:
        raise UnavailableError("a step that Redis holds cannot be read", reason="SOURCE_DAMAGED") from error
