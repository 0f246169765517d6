"""Streams of a real node without a network, and a watch loop whose every effect the test carries out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from rheo.v1 import watch_pb2
from rheostat.errors import RheostatError
from rheostat.sdk.effect import CloseStream, Effect, OpenStream, Receive, Sleep
from rheostat.sdk.held import Held, Update
from rheostat.sdk.watch_loop import Loop, Target, watch_loop
from rheostat.service.watch import WatchOptions
from rheostat.wire.event import EventEncoder
from rheostat.wire.watch import filter_from_proto
from tests.service.node import PRODUCTION, PROJECT, Node

__all__ = ["Line", "Looping", "Seen", "go_away"]


class Line:
    """An open watch on a node: the messages that its server would send."""

    def __init__(self, node: Node, request: watch_pb2.WatchRequest) -> None:
        self.node = node
        options = WatchOptions(
            PROJECT,
            PRODUCTION,
            resume=request.resume,
            resnapshot=request.resnapshot,
            filter=filter_from_proto(request.filter),
        )
        self.session = node.service.watch(options)
        self.encoder = EventEncoder(node.service.head.identity.token_key, _kept)

    def messages(self) -> list[watch_pb2.WatchResponse]:
        """What is to be sent now."""
        step = self.session.step(self.node.world.clock.monotonic())
        # Over the wire and back: nothing is shared with the server.
        return [
            watch_pb2.WatchResponse.FromString(message.SerializeToString())
            for event in step.events
            for message in self.encoder.encode(event, self.session.whole)
        ]


def _kept(message: watch_pb2.WatchResponse) -> watch_pb2.WatchResponse:
    return message


class Seen:
    """An observer that notes all that it is told."""

    def __init__(self, **target: Any) -> None:
        self.target = Target(**target)
        self.held = Held()
        self.told: list[tuple[Any, ...]] = []
        self.hellos: list[watch_pb2.Hello] = []
        self.heards = 0
        self.asks: list[float] = []
        self.differences = 0

    def connected(self, hello: watch_pb2.Hello) -> None:
        self.hellos.append(hello)

    def advanced(self, update: Update) -> bool:
        self.told.append(("advanced", update.held.revision))
        self.held = update.held
        return True

    def confirmed(self, held: Held) -> None:
        self.held = held

    def heard(self) -> None:
        self.heards += 1

    def asked_to_report(self, within: float) -> None:
        self.asks.append(within)

    def differed(self, times: int) -> None:
        self.differences = times

    def disconnected(self, error: RheostatError | None, retry_in: float) -> None:
        self.told.append(("disconnected", type(error).__name__, retry_in))

    def refused(self, error: RheostatError, retry_in: float) -> None:
        self.told.append(("refused", type(error).__name__, retry_in))


class Looping:
    """A loop, the clock that it reads, and the effect that it waits for."""

    def __init__(
        self, observer: Any, seed: int = 0, loop: Callable[..., Loop] = watch_loop, clock: Any = None
    ) -> None:
        self.observer = observer
        self.now = 1000.0
        self.loop = loop(observer, clock=clock or (lambda: self.now), randomness=random.Random(seed))
        self.effect: Effect = next(self.loop)

    def answer(self, result: Any = None) -> Effect:
        self.effect = self.loop.send(result)
        return self.effect

    def fail(self, error: RheostatError) -> Effect:
        self.effect = self.loop.throw(error)
        return self.effect

    def opened(self) -> watch_pb2.WatchRequest:
        """Open the stream that the loop asks for; returns its request."""
        assert isinstance(self.effect, OpenStream), self.effect
        request = self.effect.request
        self.answer()
        return request

    def receive(self, *messages: watch_pb2.WatchResponse) -> Effect:
        """Let messages arrive; the loop has to wait for each."""
        for message in messages:
            assert isinstance(self.effect, Receive), self.effect
            self.answer(message)
        return self.effect

    def waits(self) -> float:
        """How long the loop will wait for the next event."""
        assert isinstance(self.effect, Receive), self.effect
        return self.effect.timeout

    def ends(self) -> None:
        """The server ends the stream."""
        assert isinstance(self.effect, Receive), self.effect
        self.answer(None)

    def left(self) -> float:
        """Carry out that the stream is left and the wait for the next one; returns its seconds."""
        assert isinstance(self.effect, CloseStream), self.effect
        self.answer()
        return self.slept()

    def slept(self) -> float:
        if not isinstance(self.effect, Sleep):
            return 0.0
        seconds = self.effect.seconds
        self.now += seconds
        self.answer()
        return seconds

    def follow(self, node: Node) -> Line:
        """Open a stream on *node* and let its first messages arrive."""
        line = Line(node, self.opened())
        self.receive(*line.messages())
        return line


def go_away(spread: float, reason: str = "DRAIN") -> watch_pb2.WatchResponse:
    whole = int(spread)
    return watch_pb2.WatchResponse(
        go_away=watch_pb2.GoAway(
            reason=f"GO_AWAY_REASON_{reason}",
            spread=Duration(seconds=whole, nanos=round((spread - whole) * 1e9)),
        )
    )
