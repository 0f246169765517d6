"""Many clients and a server on a simulated clock: the loops are the real ones, the network and the time are not."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from rheo.v1.watch_pb2 import GO_AWAY_REASON_DRAIN, GoAway, WatchRequest, WatchResponse
from rheostat.errors import DeadlineExceededError, RheostatError, UnavailableError
from rheostat.sdk.core import Core, Options
from rheostat.sdk.effect import CloseStream, Effect, OpenStream, Receive, Sleep
from tests.sdk.fake import HEARTBEAT, Store

__all__ = ["Crowd", "Server"]

_LATENCY_SECONDS = 0.001


class World:
    """A clock and what is to happen on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), what))

    def run_until(self, end: float) -> None:
        while self._due and self._due[0][0] <= end:
            self.now, _, what = heapq.heappop(self._due)
            what()
        self.now = end


class Server:
    """What the service does of admission and drains.

    Attributes:
        store: What it serves.
        up: It answers.
        opened: When streams were opened that it served.
        attempts: When it was asked, also in vain.
        snapshot_seconds: What sending a snapshot takes.
        max_snapshots: How many may be sent at one time; others are told to come back in 0.5 to 2 s.
    """

    def __init__(self, world: World, randomness: random.Random) -> None:
        self.store = Store()
        self.up = True
        self.opened: list[float] = []
        self.attempts: list[float] = []
        self.modes: list[int] = []
        self.snapshot_seconds = 0.04
        self.max_snapshots = 16
        self.most_snapshots = 0
        self._snapshots = 0
        self._world = world
        self._random = randomness
        self.members: list[Member] = []

    def open(self, member: Member, request: WatchRequest) -> None:
        world = self._world
        self.attempts.append(world.now)
        if not self.up:
            member.fail(UnavailableError("connection refused"))
            return
        events = self.store.answer(request)
        delay = 0.0
        if len(events) == 4:
            if self._snapshots >= self.max_snapshots:
                retry = self._random.uniform(0.5, 2.0)
                member.fail(UnavailableError("too many snapshots", retry_after=retry))
                return
            self._snapshots += 1
            self.most_snapshots = max(self.most_snapshots, self._snapshots)
            delay = self.snapshot_seconds
            world.after(delay, self._snapshot_sent)
        self.opened.append(world.now)
        self.modes.append(events[0].hello.mode)
        for event in events[:-1]:
            member.deliver(event)
        stream = member.stream
        world.after(delay, lambda: member.deliver(events[-1], stream))
        self._beat(member, stream)

    def commit(self, name: str, value: object) -> None:
        """Change a value, and tell whoever is connected."""
        before = self.store.revision
        self.store.set({name: value})
        if self.up:
            delta = self.store.delta(before)
            for member in self.members:
                member.deliver(delta)

    def _snapshot_sent(self) -> None:
        self._snapshots -= 1

    def _beat(self, member: Member, stream: int) -> None:
        def beat() -> None:
            if self.up and member.connected and member.stream == stream:
                member.deliver(self._bookmark(), stream)
                self._world.after(HEARTBEAT, beat)

        self._world.after(HEARTBEAT, beat)

    def _bookmark(self) -> WatchResponse:
        event = self.store.bookmark()
        watchers = sum(member.connected for member in self.members)
        # As `Service.reconnect_spread` has it.
        event.bookmark.reconnect_spread.FromMilliseconds(round(1.5 * watchers / 400 * 1000))
        return event

    def crash(self) -> None:
        """End at once: connections are reset."""
        self.up = False
        for member in self.members:
            member.fail(UnavailableError("connection reset"))

    def drain(self, spread: float, grace: float) -> None:
        """Ask all to leave, and cut them at the end of the grace; what answers afterwards is another node."""

        def duration(seconds: float) -> Duration:
            found = Duration()
            found.FromMilliseconds(round(seconds * 1000))
            return found

        event = WatchResponse(
            go_away=GoAway(reason=GO_AWAY_REASON_DRAIN, spread=duration(spread), grace=duration(grace))
        )
        streams = [(member, member.stream) for member in self.members if member.connected]
        for member, stream in streams:
            member.deliver(event, stream)

        def cut() -> None:
            for member, stream in streams:
                if member.stream == stream and member.connected:
                    member.fail(UnavailableError("connection reset"))

        self._world.after(grace, cut)


class Member:
    """A client: a real core and its real loop, carried out on the simulated clock."""

    def __init__(self, world: World, server: Server, seed: int) -> None:
        self._world = world
        self._server = server
        self.core = Core(
            Options("http://127.0.0.1:1"), clock=lambda: world.now, randomness=random.Random(seed)
        )
        self.connected = False
        self.stream = 0
        self._loop: Generator[Effect, Any, None] = self.core.loop()
        self._events: deque[WatchResponse | RheostatError] = deque()
        self._waiting = 0
        self._waits = itertools.count(1)

    def start(self) -> None:
        self._perform(next(self._loop))

    def deliver(self, event: WatchResponse, stream: int | None = None) -> None:
        if self.connected and stream in (None, self.stream):
            self._events.append(event)
            self._wake()

    def fail(self, error: RheostatError) -> None:
        if self.connected:
            self.connected = False
            self._events.append(error)
            self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting = 0
            self._world.after(_LATENCY_SECONDS, self._take)

    def _take(self) -> None:
        event = self._events.popleft()
        if isinstance(event, RheostatError):
            self._perform(self._loop.throw(event))
        else:
            self._perform(self._loop.send(event))

    def _perform(self, effect: Effect) -> None:
        while True:
            match effect:
                case OpenStream(request):
                    self.stream += 1
                    self.connected = True
                    self._events.clear()
                    self._server.open(self, request)
                case CloseStream():
                    self.connected = False
                    self._events.clear()
                case Sleep(seconds):
                    self._world.after(seconds, lambda: self._perform(self._loop.send(None)))
                    return
                case Receive(timeout):
                    self._receive(timeout)
                    return
                case _:
                    raise AssertionError(effect)
            effect = self._loop.send(None)

    def _receive(self, timeout: float) -> None:
        wait = next(self._waits)
        if self._events:
            self._world.after(_LATENCY_SECONDS, self._take)
            return
        self._waiting = wait

        def overdue() -> None:
            if self._waiting == wait:
                self._waiting = 0
                self._perform(self._loop.throw(DeadlineExceededError("nothing has come")))

        self._world.after(timeout, overdue)


class Crowd:
    """*count* clients of one server, all connected."""

    def __init__(self, count: int, seed: int) -> None:
        self.world = World()
        randomness = random.Random(seed)
        self.server = Server(self.world, randomness)
        self.server.store.set({"a": 1})
        self.members = [Member(self.world, self.server, randomness.randrange(2**32)) for _ in range(count)]
        self.server.members = self.members
        for number, member in enumerate(self.members):
            # Processes start at their own times.
            self.world.after(number * 0.05, member.start)
        self.world.run_until(count * 0.05 + 120.0)
        assert all(self.reads("a", 1))
        assert all(member.connected for member in self.members)
        self.server.opened.clear()
        self.server.attempts.clear()
        self.server.modes.clear()

    def reads(self, name: str, value: object) -> list[bool]:
        settings = (member.core.replica.view.snapshot.setting(name) for member in self.members)
        return [setting is not None and setting.default == value for setting in settings]


def peak(times: Sequence[float], window: float = 1.0) -> int:
    """Return the greatest number of *times* within *window* seconds."""
    ordered = sorted(times)
    first = most = 0
    for last, time in enumerate(ordered):
        while ordered[first] <= time - window:
            first += 1
        most = max(most, last - first + 1)
    return most
