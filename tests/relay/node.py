"""Relays whose streams, clocks and randomness a test decides: the production code without threads or sockets."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError, UnavailableError
from rheostat.model.key import KeyKind
from rheostat.relay.branch import Branch
from rheostat.relay.cache import RelayCache
from rheostat.relay.relay import Relay
from rheostat.sdk.effect import CloseStream, OpenStream, Receive, Sleep
from rheostat.sdk.watch_loop import watch_loop
from rheostat.service.watch import WatchOptions
from rheostat.wire.event import EventEncoder
from tests.service.node import NOBODY, PROJECT, Node, Watch, World
from tests.service.replica import Replica

__all__ = ["RelayNode", "relay_key"]


def relay_key(node: Node, environments: tuple[str, ...] = ("production",)) -> str:
    """A key of the kind relay, as a text."""
    _, text, _ = node.service.create_key(
        NOBODY, kind=KeyKind.RELAY, project=PROJECT, environments=environments
    )
    return text


class Line:
    """The stream of a branch: its watch loop, and the session at the node or relay above."""

    url = "http://upstream"

    def __init__(self, branch: Branch, source: Any, clock: Any) -> None:
        self.branch = branch
        self.source = source
        self.clock = clock
        self.cut = False
        # The source knows something of settings that this version does not.
        self.newer = False
        # Called with each event before the branch gets it.
        self.spoil: Callable[[watch_pb2.WatchResponse], None] | None = None
        self.opened: list[watch_pb2.WatchRequest] = []
        self.hellos: list[watch_pb2.Hello] = []
        self.error: RheostatError | None = None
        self._loop = watch_loop(branch, clock=clock.monotonic, randomness=random.Random(1))
        self._effect: Any = None
        self._session: Any = None
        self._pending: deque[watch_pb2.WatchResponse] = deque()

    def pump(self) -> None:
        """Let everything arrive that has been sent by now; a pause between two streams is passed over once."""
        if self._effect is None:
            self._effect = next(self._loop)
        slept = False
        while True:
            match self._effect:
                case OpenStream(request):
                    self._open(request)
                    self._effect = self._loop.send(None)
                case Receive():
                    try:
                        event = self._receive()
                    except RheostatError as error:
                        self.error = error
                        self._effect = self._loop.throw(error)
                        continue
                    if event is None:
                        return
                    self._effect = self._loop.send(event)
                case CloseStream():
                    self._session = None
                    self._pending.clear()
                    self._effect = self._loop.send(None)
                case Sleep():
                    if slept:
                        return
                    slept = True
                    self._effect = self._loop.send(None)

    def _open(self, request: watch_pb2.WatchRequest) -> None:
        self.opened.append(request)
        if not self.cut:
            self._session = self.source.service.watch(
                WatchOptions(
                    project=request.project,
                    environment=request.environment,
                    resume=request.resume,
                    resnapshot=request.resnapshot,
                    relay=True,
                    subjects=request.subjects,
                )
            )

    def _receive(self) -> watch_pb2.WatchResponse | None:
        if self.cut or self._session is None:
            raise UnavailableError("cut off")
        if not self._pending:
            service = self.source.service
            step = self._session.step(self.clock.monotonic())
            encoder = EventEncoder(service.head.identity.token_key, lambda message: message)
            for event in step.events:
                self._pending.extend(encoder.encode(event, self._session.whole))
        if not self._pending:
            return None
        event = watch_pb2.WatchResponse.FromString(self._pending.popleft().SerializeToString())
        if self.newer:
            for item in event.delta.items:
                # A field that a later version may have.
                item.setting.MergeFromString(b"\xf8\x3f\x01")
        if self.spoil is not None:
            self.spoil(event)
        if event.HasField("hello"):
            self.hellos.append(event.hello)
        self.branch._note(event, self)  # type: ignore[arg-type]
        return event


class RelayNode(Node):
    """A relay that follows a node or another relay when it is told to."""

    def __init__(
        self,
        world: World,
        source: Any,
        key: str,
        *,
        environments: tuple[str, ...] = ("production",),
        cache: RelayCache | None = None,
        **options: Any,
    ) -> None:
        relay = Relay(
            ["http://upstream"],
            key,
            cache=cache,
            clock=world.clock.now,
            monotonic=world.clock.monotonic,
            randomness=world.randomness,
            **options,
        )
        super().__init__(world, relay)  # type: ignore[arg-type]
        self.relay = relay
        kept = {each.environment: each for each in relay._cached()}
        self.lines: dict[str, Line] = {}
        for slug in environments:
            branch = Branch(relay, PROJECT, slug, kept.get(slug))
            relay._branches[PROJECT, slug] = branch
            self.lines[slug] = Line(branch, source, world.clock)
        relay._complete = True
        # Applications would start its threads.
        relay._started = True
        if kept:
            relay.changed()

    def pump(self) -> RelayNode:
        """Receive what the source has by now."""
        for line in self.lines.values():
            line.pump()
        return self

    def cut(self, *, off: bool = True) -> None:
        """Take away the source, or give it back."""
        for line in self.lines.values():
            line.cut = off

    def follow(self, source: Any) -> None:
        """Go on at another node or relay."""
        self.cut()
        self.pump()
        self.cut(off=False)
        for line in self.lines.values():
            line.source = source
        self.pump()

    @property
    def branch(self) -> Branch:
        """The only environment, or production."""
        return self.relay.branch(PROJECT, "production")

    def moved(self, replica: Replica, **options: Any) -> Watch:
        """Let a client go on here."""
        return Watch(self, replica, **options)
