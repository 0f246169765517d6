"""The life of a watch on the client's side, without input or output: open, receive, resume, back off.

`watch_loop` and `poll_loop` are generators. They yield effects (`rheostat.sdk.effect`), which a driver carries out
with threads or on an event loop, and tell an `Observer` what has become of the state. No clock is read but the
given one and no randomness is drawn but from the given source, so that a test replays any run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from google.protobuf.duration_pb2 import Duration

from rheo.v1 import watch_pb2
from rheo.v1.client_pb2 import ClientIdentity
from rheo.v1.config_service_pb2 import GetSnapshotRequest, GetSnapshotResponse
from rheostat.errors import (
    AuthenticationError,
    InvalidArgumentError,
    LimitExceededError,
    PermissionDeniedError,
    RheostatError,
    UnavailableError,
)
from rheostat.sdk.backoff import HEALTHY_SECONDS, Backoff
from rheostat.sdk.effect import CloseStream, Effect, Fetch, OpenStream, Receive, Sleep
from rheostat.sdk.held import BrokenStreamError, DivergedError, Held, Update, bookmark, step, whole
from rheostat.wire.instant import duration_from_proto
from rheostat.wire.watch import position_from_proto

__all__ = ["Loop", "Observer", "Target", "fetch_snapshot", "poll_loop", "watch_loop"]

SILENT_HEARTBEATS: Final = 3
"""A stream without an event for so many heartbeats is dead; see `rheo.v1.Hello.heartbeat`."""

_REFUSED_SECONDS: Final = (150.0, 450.0)
"""5 minutes ± 50 %: a refused key is rarely mended in seconds, but a client must notice when it is."""

_DIVERGED_SECONDS: Final = (240.0, 300.0)
"""While the digest goes on to differ each try costs the server a whole snapshot."""

_LEAST_LIFE_SECONDS: Final = 1.0
"""A stream that was asked to leave sooner counts as a failure, lest two sides that disagree spin."""

_LONGEST_SECONDS: Final = 3600.0
"""What is longer is no heartbeat, spread or wait that a sound server means: the client would never come back."""

_PAGE_SIZE: Final = 1000

Loop: TypeAlias = Generator[Effect, Any, None]


@dataclass(frozen=True, slots=True)
class Target:
    """What to watch and how patiently.

    Attributes:
        project: Slug; empty for the server's choice.
        environment: Slug; empty for the server's choice.
        filter: What to see; None for everything.
        client: Who asks.
        via: Of a relay: itself and the nodes that its own clients' streams have passed through.
        first_backoff: Seconds, the bound of the first delay.
        last_backoff: Seconds, the bound that delays grow to.
        subjects: Whether to be told of changed subjects: `Observer.subjects_changed`, where there is such a method.
        open_timeout: Seconds until the first event of a stream, and of each page of a snapshot.
        poll_interval: Seconds between two polls.
    """

    project: str = ""
    environment: str = ""
    filter: watch_pb2.Filter | None = None
    client: ClientIdentity | None = None
    via: tuple[str, ...] = ()
    first_backoff: float = 1.0
    last_backoff: float = 30.0
    open_timeout: float = 15.0
    poll_interval: float = 30.0
    subjects: bool = False


class Observer(Protocol):
    """Holds the state and is told of everything. Its methods do not block and do not raise."""

    @property
    def target(self) -> Target:
        """What to watch; asked before each stream."""

    @property
    def held(self) -> Held:
        """The state that is held now; a fetch beside the stream may have brought it further."""

    def connected(self, hello: watch_pb2.Hello) -> None:
        """A stream has begun."""

    def advanced(self, update: Update) -> bool:
        """Take over an update; False when something newer is held already."""

    def confirmed(self, held: Held) -> None:
        """What is held is current at this position."""

    def heard(self) -> None:
        """Something has come from the server."""

    def disconnected(self, error: RheostatError | None, retry_in: float) -> None:
        """The stream has ended; None when that was the server's friendly wish."""

    def refused(self, error: RheostatError, retry_in: float) -> None:
        """The server refuses the request, and will until somebody does something."""

    def asked_to_report(self, within: float) -> None:
        """Somebody waits for a rollout: report at a random time within so many seconds."""

    def differed(self, times: int) -> None:
        """The digest has differed so many times in a row; 0 when it agrees."""


def watch_loop(observer: Observer, *, clock: Callable[[], float], randomness: random.Random) -> Loop:
    """Watch for ever; the driver ends it by closing the generator.

    Args:
        observer: Holds the state.
        clock: Monotonic seconds.
        randomness: Where delays are drawn from.
    """
    session = _Session(observer, clock, randomness)
    while True:
        try:
            yield from session.follow()
            delay = session.after_end()
            observer.disconnected(None, delay)
        except RheostatError as error:
            session.healthy()
            delay = session.after_error(error)
        yield CloseStream()
        if delay > 0:
            yield Sleep(delay)


def poll_loop(observer: Observer, *, clock: Callable[[], float], randomness: random.Random) -> Loop:
    """Fetch the state again and again; see `watch_loop`. The interval varies by 10 %, so that clients spread out."""
    session = _Session(observer, clock, randomness)
    while True:
        try:
            yield from fetch_snapshot(observer)
            session.recovered()
            interval = observer.target.poll_interval
            delay = interval * randomness.uniform(0.9, 1.1)
        except RheostatError as error:
            delay = session.after_error(error)
        yield Sleep(delay)


def fetch_snapshot(
    observer: Observer, *, resnapshot: bool = False, timeout: float | None = None
) -> Generator[Effect, Any, None]:
    """Fetch the state beside any stream and take it over where it is newer.

    Raises:
        RheostatError: A page could not be fetched, or what came is wrong; the held state is as it was.
    """
    target = observer.target
    held = observer.held
    request = GetSnapshotRequest(
        project=target.project,
        environment=target.environment,
        resume=b"" if resnapshot else held.token,
        filter=target.filter,
        client=target.client,
        page_size=_PAGE_SIZE,
    )
    items: list[watch_pb2.Item] = []
    while True:
        answer = yield Fetch("GetSnapshot", request, timeout or target.open_timeout)
        page: GetSnapshotResponse = answer.message
        observer.heard()
        if page.up_to_date:
            observer.confirmed(_moved(observer.held, page.position))
            return
        items.extend(page.items)
        if not page.next_page_token:
            break
        if len(items) > page.item_count or not page.items:
            raise BrokenStreamError(f"a snapshot of {page.item_count} items goes on after {len(items)}")
        request.page_token = page.next_page_token
    held = observer.held
    if _is_behind(page.position, held):
        observer.confirmed(held)
        return
    observer.advanced(whole(held, page.position, items, page.item_count, page.digest))


def _moved(held: Held, position: watch_pb2.Position) -> Held:
    """Return *held* at a *position* before which nothing has changed, unless it stands further on already."""
    if held.position is None:
        raise BrokenStreamError("the server says that nothing has changed, but nothing is held")
    ahead = position_from_proto(held.position).same_history(position_from_proto(position))
    return Held(position, held.items, held.digest) if ahead and position.revision > held.revision else held


def _is_behind(position: watch_pb2.Position, held: Held) -> bool:
    """Tell whether the stream has brought *held* past *position* while pages were fetched."""
    return (
        held.position is not None
        and position_from_proto(held.position).same_history(position_from_proto(position))
        and position.revision < held.revision
    )


def _bounded(duration: Duration) -> float:
    """Return a duration that a server asks for, in seconds, within reason."""
    return min(max(0.0, duration_from_proto(duration)), _LONGEST_SECONDS)


class _Session:
    """What is remembered from one stream to the next."""

    def __init__(self, observer: Observer, clock: Callable[[], float], randomness: random.Random) -> None:
        self._observer = observer
        self._clock = clock
        self._random = randomness
        target = observer.target
        self._backoff = Backoff(target.first_backoff, target.last_backoff, randomness)
        self._resnapshot = False
        self._differences = 0
        self._began = clock()
        # On the clock: when to reconnect after a GoAway; None without one.
        self._leave_at: float | None = None
        self._heartbeat = 0.0
        # How long the node's watchers are to spread their return, if it ends without a word.
        self._spread = 0.0
        self._begin = watch_pb2.SnapshotBegin()
        self._chunks: list[watch_pb2.SnapshotChunk] = []
        # How many items of the snapshot have not come yet.
        self._expected = 0

    # One stream.

    def follow(self) -> Generator[Effect, Any, None]:
        """Follow one stream to its end.

        Raises:
            RheostatError: It could not be opened, broke, or said what does not fit.
        """
        observer = self._observer
        target = observer.target
        held = observer.held
        self._began = self._clock()
        self._leave_at = None
        self._heartbeat = 0.0
        self._chunks = []
        yield OpenStream(
            watch_pb2.WatchRequest(
                project=target.project,
                environment=target.environment,
                resume=held.token,
                resnapshot=self._resnapshot,
                filter=target.filter,
                client=target.client,
                via=target.via,
                subjects=target.subjects,
            )
        )
        while True:
            timeout = self._heartbeat * SILENT_HEARTBEATS or target.open_timeout
            if self._leave_at is not None:
                timeout = min(timeout, self._leave_at - self._clock())
                if timeout <= 0:
                    return
            try:
                event: watch_pb2.WatchResponse | None = yield Receive(timeout)
            except RheostatError:
                if self._leave_at is not None:
                    # It was about to end, and a connection that is cut now is not news.
                    return
                raise
            if event is None:
                return
            observer.heard()
            kind = event.WhichOneof("event")
            if self._heartbeat == 0.0 and kind not in {"hello", "go_away"}:
                raise BrokenStreamError("the stream has begun without a hello")
            self._take(kind, event)

    def _take(self, kind: str | None, event: watch_pb2.WatchResponse) -> None:
        observer = self._observer
        match kind:
            case "hello":
                self._heartbeat = duration_from_proto(event.hello.heartbeat)
                if not 0 < self._heartbeat <= _LONGEST_SECONDS:
                    raise BrokenStreamError(f"the server's heartbeat is {self._heartbeat} s")
                self._spread = _bounded(event.hello.reconnect_spread)
                observer.connected(event.hello)
                if event.hello.mode == watch_pb2.WATCH_MODE_UP_TO_DATE:
                    self.agreed(observer.held)
            case "snapshot_begin":
                self._begin = event.snapshot_begin
                self._chunks = []
                self._expected = event.snapshot_begin.item_count
            case "snapshot_chunk":
                if event.snapshot_chunk.index != len(self._chunks):
                    raise BrokenStreamError("a chunk of the snapshot is missing")
                self._expected -= self._counted(event.snapshot_chunk)
                if self._expected < 0:
                    raise BrokenStreamError("the snapshot has more items than it said")
                self._chunks.append(event.snapshot_chunk)
            case "snapshot_end":
                self._take_snapshot(event.snapshot_end)
            case "delta":
                update = step(observer.held, event.delta)
                if update is not None:
                    observer.advanced(update)
                    self.agreed(update.held, mended=True)
                self._asked(event.delta)
            case "bookmark":
                self._spread = _bounded(event.bookmark.reconnect_spread)
                held = bookmark(observer.held, event.bookmark)
                self.agreed(held, mended=True)
                self._asked(event.bookmark)
            case "subjects_changed":
                told = getattr(observer, "subjects_changed", None)
                if told is not None:
                    told(event.subjects_changed)
            case "go_away":
                spread = _bounded(event.go_away.spread)
                self._leave_at = self._clock() + self._random.uniform(0.0, spread)
            case _:
                # Resets need nothing: a snapshot follows. Others may come.
                pass

    def _counted(self, chunk: watch_pb2.SnapshotChunk) -> int:
        """Return how many of the items that the snapshot has said come with a chunk."""
        if not self._observer.target.via:
            return len(chunk.items)
        return sum(not item.deleted and item.kind != "key" for item in chunk.items)

    def _asked(self, message: watch_pb2.Delta | watch_pb2.Bookmark) -> None:
        """Pass on that a report is wanted; after the step, so that the report has it."""
        if message.HasField("report_within"):
            self._observer.asked_to_report(_bounded(message.report_within))

    def _take_snapshot(self, end: watch_pb2.SnapshotEnd) -> None:
        chunks, self._chunks = self._chunks, []
        held = self._observer.held
        if _is_behind(end.position, held) and not self._resnapshot:
            return
        messages = (item for chunk in chunks for item in chunk.items)
        update = whole(held, end.position, messages, end.item_count, end.digest, self._begin)
        mended = not self._resnapshot
        self._resnapshot = False
        self._observer.advanced(update)
        # After a difference only a delta or bookmark shows that it is mended: a server whose digests are always
        # wrong would otherwise be asked for snapshots without end.
        self.agreed(update.held, mended=mended)

    def agreed(self, held: Held, *, mended: bool = False) -> None:
        """Note that what is held is what the server has."""
        if mended:
            self._agrees()
        self.healthy()
        self._observer.confirmed(held)

    def _agrees(self) -> None:
        self._differences = 0
        self._observer.differed(0)

    # Between two streams.

    def healthy(self) -> None:
        """Begin the delays anew once the stream has proved itself."""
        if self._clock() - self._began >= HEALTHY_SECONDS:
            self._backoff.reset()

    def recovered(self) -> None:
        """Begin the delays anew after a poll that succeeded: whatever differed is mended."""
        self._agrees()
        self._backoff.reset()

    def after_end(self) -> float:
        """Return the seconds until the next stream, after one that ended without an error."""
        self.healthy()
        now = self._clock()
        if self._leave_at is None:
            return self._backoff.delay(self._spread)
        if now - self._began < _LEAST_LIFE_SECONDS:
            return max(self._leave_at - now, self._backoff.delay())
        return self._leave_at - now

    def after_error(self, error: RheostatError) -> float:
        """Return the seconds until the next attempt after *error*, and tell the observer."""
        if isinstance(error, (AuthenticationError, PermissionDeniedError, InvalidArgumentError)):
            delay = self._random.uniform(*_REFUSED_SECONDS)
            self._observer.refused(error, delay)
            return delay
        if isinstance(error, DivergedError):
            self._resnapshot = True
            self._differences += 1
            self._observer.differed(self._differences)
            delay = 0.0 if self._differences == 1 else self._random.uniform(*_DIVERGED_SECONDS)
        else:
            delay = self._backoff.delay(self._spread)
            if isinstance(error, (UnavailableError, LimitExceededError)) and error.retry_after:
                # What the server asks for is a least; the jitter on top keeps clients apart.
                asked = min(error.retry_after, _LONGEST_SECONDS)
                delay = max(delay, asked * self._random.uniform(1.0, 1.5))
        self._observer.disconnected(error, delay)
        return delay
