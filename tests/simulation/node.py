"""A node: the production service over the shared store, and one driver for each stream, as the server has them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from rheo.v1 import watch_pb2
from rheostat.errors import BehindError, RheostatError, UnavailableError
from rheostat.model.change import Mutation
from rheostat.service import Outcome, Service, Writer
from rheostat.service.admission import Admission
from rheostat.service.publish import Hub
from rheostat.service.watch import WatchOptions, WatchSession
from rheostat.wire.error import to_connect
from rheostat.wire.event import EventEncoder
from rheostat.wire.watch import filter_from_proto
from tests.checking import PROTOCOL, Violation
from tests.simulation.clock import Timer
from tests.simulation.network import Stream
from tests.simulation.store import Access

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["GRACE_SECONDS", "HEARTBEAT", "PROJECT", "Host", "Node", "Serving", "options_of"]

PROJECT: Final = "default"

HEARTBEAT: Final = 4.0

POLL_SECONDS: Final = 1.0
"""How often a node reads the store without a hint."""

STALLED_SECONDS: Final = 30.0
"""As in `rheostat.server.stall`."""

GRACE_SECONDS: Final = 3.0


class SimulatedService(Service):
    """The service without the thread that follows the store: the node reads it by the clock of the world."""

    @property
    def hub(self) -> Hub:
        if self._hub is None:
            self._bootstrap()
            self._hub = Hub(self._load())
            self._pid = os.getpid()
        return self._hub


class Host:
    """A process that serves streams.

    Attributes:
        name: Its address.
        servings: The streams that are open.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.servings: dict[Serving, None] = {}
        self._encoders: dict[bytes, EventEncoder[bytes]] = {}

    def encoder(self, token_key: bytes) -> EventEncoder[bytes]:
        """Return what encodes events, each once for all streams."""
        found = self._encoders.get(token_key)
        if found is None:
            found = EventEncoder(token_key, watch_pb2.WatchResponse.SerializeToString)
            self._encoders[token_key] = found
        return found

    def begin_stream(self, serving: Serving) -> None:
        """Begin to answer."""
        self.servings[serving] = None
        serving.stream.sender = serving
        serving.step()

    def end_streams(self) -> None:
        """Break all connections."""
        for serving in tuple(self.servings):
            serving.end()
            serving.stream.cut()

    def rung(self) -> None:
        """Let all streams look whether there is something to send."""
        for serving in self.servings:
            serving.wake(self.world.random.uniform(0.0, 0.002))

    def when_running(self, action: Callable[..., None], *arguments: object) -> None:
        """Call *action*, now or once the process goes on."""
        action(*arguments)


def options_of(request: watch_pb2.WatchRequest) -> WatchOptions:
    """Return what a client asks for; a stream that has passed through a relay is that relay's."""
    return WatchOptions(
        project=request.project,
        environment=request.environment,
        resume=request.resume,
        resnapshot=request.resnapshot,
        min_revision=request.min_revision,
        filter=filter_from_proto(request.filter).canonical(),
        relay=bool(request.via),
    )


class Node(Host):
    """See the module. An `Endpoint` of the network.

    Attributes:
        access: Its way to the store.
        service: None while the process does not run.
        paused_until: It stands still until then, and does not notice.
    """

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.access = Access(world.store)
        self.service: SimulatedService | None = None
        self.paused_until = 0.0

    @property
    def up(self) -> bool:
        return self.service is not None

    def start(self) -> None:
        """Begin a process; it ends at once when the store is away, and is started again later."""
        if self.service is not None:
            return
        world = self.world
        service = SimulatedService(
            self.access,
            node=self.name,
            heartbeat=HEARTBEAT,
            max_stream_age=world.max_stream_age,
            drain_grace=GRACE_SECONDS,
            keep_revisions=3,
            keep_seconds=5.0,
            clock=world.clock.wall,
            monotonic=world.clock.monotonic,
            randomness=world.random.randbytes,
            background=False,
        )
        try:
            service.start()
        except UnavailableError:
            world.clock.after(POLL_SECONDS, self.start)
            return
        world.note(self.name, f"starts at revision {service.head.revision}")
        self.service = service
        service.hub.listen(self.rung)
        world.clock.after(POLL_SECONDS, self._poll, service)

    def crash(self) -> None:
        """End the process at once; its connections break."""
        if self.service is None:
            return
        self.world.note(self.name, "crashes")
        self.service = None
        self.paused_until = 0.0
        self.end_streams()

    def drain(self) -> None:
        """End the process as a signal does."""
        service = self.service
        if service is None or service.draining:
            return
        self.world.note(self.name, "drains")
        service.drain()
        self.world.clock.after(GRACE_SECONDS + 1.0, self._drained, service)

    def _drained(self, service: Service) -> None:
        if self.service is service:
            self.crash()

    # The store.

    def hinted(self, revision: int) -> None:
        """Take a hint that *revision* was committed, which may be wrong, old, or late: the store tells."""
        service = self.service
        if service is not None:
            self.when_running(self._read, service)

    def _poll(self, service: Service) -> None:
        if self.service is service:
            self.when_running(self._read, service)
            self.world.clock.after(POLL_SECONDS, self._poll, service)

    def _read(self, service: Service) -> None:
        if self.service is service:
            # What `Service._follow` does at each turn; it tries again later, too.
            with contextlib.suppress(UnavailableError):
                service.catch_up()

    def has_seen_more(self, than: tuple[int, int]) -> bool:
        """Tell whether the node works, and stands after a generation and revision."""
        service = self.service
        if service is None or self.access.away or self.world.clock.now < self.paused_until:
            return False
        return (service.head.identity.generation, service.head.revision) > than

    def commit(self, writer: Writer, environment: str, mutations: Sequence[Mutation]) -> Outcome:
        """Write; only while the node runs.

        Raises:
            RheostatError: It was refused, or its outcome is not known.
        """
        if self.service is None or self.paused_until > self.world.clock.now:
            raise UnavailableError("the node does not answer")
        return self.service.commit(writer, PROJECT, environment, mutations)

    def compact(self, *, keep: int | None) -> None:
        """Let go of history but for the newest *keep* revisions; None leaves that to the rules for age."""
        service = self.service
        if service is None or self.access.away or self.paused_until > self.world.clock.now:
            return
        with contextlib.suppress(UnavailableError):
            floor = service.compact_old() if keep is None else service.compact(service.head.revision - keep)
            self.world.note(self.name, f"compacts to {floor}")

    # The streams.

    def accept(self, stream: Stream, request: watch_pb2.WatchRequest) -> None:
        self.when_running(self._accept, stream, request)

    def _accept(self, stream: Stream, request: watch_pb2.WatchRequest) -> None:
        service = self.service
        if service is None:
            stream.cut()
            return
        key = service.head.identity.token_key
        session = service.watch(options_of(request))
        self.begin_stream(Serving(self, service.hub, service.admission, stream, session, key))

    def when_running(self, action: Callable[..., None], *arguments: object) -> None:
        clock = self.world.clock
        if clock.now < self.paused_until:
            clock.at(self.paused_until, self.when_running, action, *arguments)
        else:
            action(*arguments)


class Serving:
    """The server's side of one stream: steps the session when the last step was sent, as the drivers do."""

    def __init__(
        self,
        host: Host,
        hub: Hub,
        admission: Admission,
        stream: Stream,
        session: WatchSession,
        token_key: bytes,
    ) -> None:
        self.host = host
        self.stream = stream
        self.session = session
        self._hub = hub
        self._encoder = host.encoder(token_key)
        self._clock = host.world.clock
        self._open = contextlib.ExitStack()
        self._open.enter_context(admission.watch("", ""))
        self._ended = False
        self._done = False
        self._queue: deque[bytes] = deque()
        self._bell = 0
        self._wake_at = self._due = 0.0
        self._timer: Timer | None = None
        self._sent_at = self._clock.now

    def wake(self, seconds: float) -> None:
        """Step in a moment, unless it is to happen sooner anyway."""
        self._plan(self._clock.now + seconds)

    def _plan(self, instant: float) -> None:
        timer = self._timer
        if timer is not None and timer.action is not None:
            if self._wake_at <= instant:
                return
            timer.cancel()
        self._wake_at = instant
        self._timer = self._clock.at(instant, self._wake)

    def _wake(self) -> None:
        self.host.when_running(self.step)

    def step(self) -> None:
        """Ask the session what to send, unless the last is not sent yet."""
        if self._ended or self._done:
            return
        if self._queue:
            if self._clock.now >= self._sent_at + STALLED_SECONDS:
                self.host.world.note(self.host.name, "ends a stalled stream")
                self.end()
                self.stream.cut()
            return
        self._bell = self._hub.bell
        try:
            step = self.session.step(self._clock.now)
            frames = [
                frame for event in step.events for frame in self._encoder.encode(event, self.session.whole)
            ]
        except (UnavailableError, BehindError) as error:
            self.end()
            self.stream.finish(to_connect(error))
            return
        except RheostatError as error:
            raise Violation(PROTOCOL, f"{self.host.name} ends a stream with {error!r}") from error
        self._queue.extend(frames)
        self._done = step.done
        self._due = step.wake_at
        self.pump()

    def pump(self) -> None:
        if self._ended:
            return
        stream, queue = self.stream, self._queue
        while queue and stream.room:
            stream.send(queue.popleft())
            self._sent_at = self._clock.now
        if queue:
            self._plan(self._sent_at + STALLED_SECONDS)
        elif self._done:
            self.end()
            stream.finish()
        elif self._bell != self._hub.bell:
            self.wake(0.0)
        else:
            self._plan(self._due)

    def left(self) -> None:
        self.end()

    def end(self) -> None:
        """Stop; says nothing to the client."""
        self._ended = True
        self._open.close()
        self.host.servings.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
