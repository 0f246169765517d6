"""What follows a stream: drives a watch loop of the SDK by the clock of the world, as its drivers do by threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rheo.v1 import watch_pb2
from rheostat.errors import DeadlineExceededError, RheostatError
from rheostat.model.position import parse_token
from rheostat.sdk.effect import CloseStream, Effect, OpenStream, Receive, Sleep
from rheostat.sdk.failure import translated
from rheostat.sdk.held import Held
from rheostat.sdk.watch_loop import Loop
from tests.checking import ORDER, STATE, Violation
from tests.simulation.clock import Timer
from tests.simulation.network import Endpoint, Stream

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Follower"]


class Follower:
    """One loop with its stream. A `Receiver` of the network.

    Attributes:
        name: For the trace.
        stream: The one that is open.
        slow: It takes nothing from its stream.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.stream: Stream | None = None
        self.slow = False
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._receiving = False
        # The position below which the present stream must not say anything.
        self._told: tuple[bytes, int, int] | None = None

    def pause(self, seconds: float) -> None:
        """Take nothing from the stream for a while."""
        self.slow = True
        self.world.clock.after(seconds, self.resume)

    def resume(self) -> None:
        """Read on."""
        if self.slow:
            self.slow = False
            if self.stream is not None:
                self.arrived(self.stream)

    def follow(self, loop: Loop) -> None:
        """Begin a loop."""
        self._loop = loop
        self._drive(next(loop))

    def stop(self) -> None:
        """End the loop at once, as the end of the process does."""
        self._stop_waiting()
        if self.stream is not None:
            self.stream.close()
        self._loop = self.stream = None
        self.slow = False

    # What differs.

    def held(self) -> Held:
        """What is held now."""
        raise NotImplementedError

    def endpoint(self) -> Endpoint:
        """Where the next stream is to lead."""
        return self.world.endpoint()

    def heard(self, event: watch_pb2.WatchResponse) -> None:
        """Take note of an event before the loop does."""

    def perform(self, effect: OpenStream | CloseStream) -> None:
        """Take note of an effect."""

    def nap(self, effect: Sleep) -> float:
        """Return how long to sleep."""
        return effect.seconds

    def moved(self) -> None:
        """The loop has taken what came."""

    # The loop.

    def _drive(self, effect: Effect) -> None:
        assert self._loop is not None
        while True:
            match effect:
                case OpenStream(request):
                    self.perform(effect)
                    self._open(request)
                    effect = self._loop.send(None)
                case CloseStream():
                    if self.stream is not None:
                        self.stream.close()
                        self.stream = None
                    self.perform(effect)
                    effect = self._loop.send(None)
                case Receive(timeout):
                    self._receiving = True
                    self._timer = self.world.clock.after(timeout, self._timed_out)
                    if self.stream is not None and self.stream.inbox:
                        # In a turn of its own, so that a long answer is no recursion.
                        self.world.clock.after(0.0, self.arrived, self.stream)
                    return
                case Sleep():
                    self._timer = self.world.clock.after(self.nap(effect), self._go_on)
                    return
                case _:
                    raise TypeError(f"{effect!r} is not foreseen")

    def _open(self, request: watch_pb2.WatchRequest) -> None:
        world = self.world
        endpoint = self.endpoint()
        dark = self in world.dark
        held = self._told = self._position()
        at = "nothing" if held is None else f"{held[1:]}"
        world.note(self.name, f"opens {endpoint.name} with {at}{' in the dark' * dark}")
        token = parse_token(request.resume, world.store.identity().token_key) if request.resume else None
        if held is not None and (token is None or (token.store_id, token.generation, token.revision) != held):
            raise Violation(STATE, f"{self.name} holds {held} and resumes with {token}")
        sent = watch_pb2.WatchRequest.FromString(request.SerializeToString())
        self.stream = world.network.connect(self, endpoint, sent, dark=dark)

    def _position(self) -> tuple[bytes, int, int] | None:
        position = self.held().position
        return None if position is None else (position.store_id, position.generation, position.revision)

    def _go_on(self) -> None:
        assert self._loop is not None
        self._drive(self._loop.send(None))

    def _timed_out(self) -> None:
        self.world.note(self.name, "hears nothing")
        self._throw(DeadlineExceededError("no answer in time"))

    def _throw(self, error: RheostatError) -> None:
        assert self._loop is not None
        self._receiving = False
        self._drive(self._loop.throw(error))

    def _stop_waiting(self) -> None:
        self._receiving = False
        if self._timer is not None:
            self._timer.cancel()

    def arrived(self, stream: Stream) -> None:
        if stream is not self.stream or self.slow or not self._receiving or not stream.inbox:
            return
        assert self._loop is not None
        found = stream.inbox.popleft()
        stream.taken()
        self._stop_waiting()
        if isinstance(found, Exception):
            self.world.note(self.name, f"loses its stream: {found}")
            self._throw(translated(found, "http://simulated"))
            return
        event = None if found is None else watch_pb2.WatchResponse.FromString(found)
        self._listen(event)
        if event is not None:
            try:
                self.heard(event)
            except RheostatError as error:
                self._throw(error)
                return
        effect = self._loop.send(event)
        self.moved()
        self._drive(effect)

    def _listen(self, event: watch_pb2.WatchResponse | None) -> None:
        """What the stream says never goes back behind the token, nor behind what it said before."""
        kind = None if event is None else event.WhichOneof("event")
        if event is None or kind not in {"snapshot_end", "delta", "bookmark"}:
            self.world.note(self.name, f"hears {kind or 'the end'}")
            return
        position = getattr(event, kind).position
        said = (position.store_id, position.generation, position.revision)
        self.world.note(self.name, f"hears {kind} at {said[1:]}")
        if self._told is not None and said[0] == self._told[0] and said < self._told:
            raise Violation(ORDER, f"{self.name} stands at {self._told[1:]} and is sent {kind} {said[1:]}")
        self._told = said
