"""Streams of frames between clients and nodes: in order, after a while, until something is cut."""

from __future__ import annotations

import random
from collections import deque
from typing import Final, Protocol

from rheo.v1 import watch_pb2
from rheostat.errors import UnavailableError
from tests.simulation.clock import Clock

__all__ = ["Endpoint", "Network", "Receiver", "Sender", "Stream"]

WINDOW: Final = 4
"""Frames that a sender may have under way: what the buffers between it and its reader hold."""


class Receiver(Protocol):
    """The end of a stream that opened it: a client, or a relay."""

    def arrived(self, stream: Stream) -> None:
        """There is something in the inbox."""


class Sender(Protocol):
    """The end of a stream that answers it."""

    def pump(self) -> None:
        """There is room for frames again."""

    def left(self) -> None:
        """The other end has gone."""


class Endpoint(Protocol):
    """What listens at an address: a node, or a relay.

    Attributes:
        name: Its address.
    """

    name: str

    @property
    def up(self) -> bool:
        """Whether a connection can be made."""

    def accept(self, stream: Stream, request: watch_pb2.WatchRequest) -> None:
        """Answer a stream, by `Stream.send` and the like."""


class Stream:
    """One stream.

    Attributes:
        inbox: Frames that have arrived; then what ended the stream, None for its proper end.
        request: What was asked for.
        sender: The answering end, once it has accepted.
    """

    def __init__(
        self,
        network: Network,
        receiver: Receiver | None,
        endpoint: Endpoint,
        request: watch_pb2.WatchRequest,
    ) -> None:
        self.network = network
        self.receiver = receiver
        self.endpoint = endpoint
        self.request = request
        self.sender: Sender | None = None
        self.inbox: deque[bytes | Exception | None] = deque()
        self.ended = False
        self.dark = False
        self._under_way: deque[bytes] = deque()
        self._last_arrival = 0.0
        self._blocked = False

    # The answering end.

    @property
    def room(self) -> bool:
        """Whether another frame may be sent; if not, `Sender.pump` is called when it may."""
        self._blocked = len(self._under_way) + len(self.inbox) >= WINDOW
        return not self._blocked

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        if not self.ended:
            self._under_way.append(frame)
            self.network.clock.at(self._arrival(), self._arrive)

    def finish(self, error: Exception | None = None) -> None:
        """End the stream, after all that was sent."""
        if not self.ended:
            self.ended = True
            self.network.clock.at(self._arrival(), self._end, error)

    # The opening end.

    def taken(self) -> None:
        """Note that something was taken out of the inbox."""
        if self._blocked and self.sender is not None and not self.dark:
            self._blocked = False
            self.network.clock.after(self.network.latency(), self.sender.pump)

    def close(self) -> None:
        """Leave the stream."""
        self.receiver = None
        self._tell_sender()

    # What happens to it.

    def cut(self) -> None:
        """Break the connection: some of the bytes under way still arrive, and only whole frames count."""
        if self.ended:
            return
        self.ended = True
        whole = self.network.random.randint(0, sum(map(len, self._under_way)))
        arriving = 0
        for frame in self._under_way:
            whole -= len(frame)
            if whole < 0:
                break
            arriving += 1
        while len(self._under_way) > arriving:
            # Their arrivals find nothing.
            self._under_way.pop()
        self.network.clock.at(self._arrival(), self._end, UnavailableError("the connection was cut"))
        self._tell_sender()

    def darken(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self.dark = True

    def _arrival(self) -> float:
        network = self.network
        self._last_arrival = max(
            self._last_arrival, network.free_at(self), network.clock.now + network.latency()
        )
        return self._last_arrival

    def _arrive(self) -> None:
        if self.dark or not self._under_way:
            return
        self._deliver(self._under_way.popleft())

    def _end(self, error: Exception | None) -> None:
        if not self.dark:
            self._under_way.clear()
            self._deliver(error)

    def _deliver(self, found: bytes | Exception | None) -> None:
        if self.receiver is not None:
            self.inbox.append(found)
            self.receiver.arrived(self)

    def _tell_sender(self) -> None:
        if self.sender is not None and not self.dark:
            self.network.clock.at(self._arrival(), self.sender.left)


class Network:
    """All streams of a world.

    Attributes:
        slow_until: By receiver: nothing arrives before, as packets are lost and sent again until then.
    """

    def __init__(self, clock: Clock, randomness: random.Random) -> None:
        self.clock = clock
        self.random = randomness
        self.open: list[Stream] = []
        self.slow_until: dict[Receiver, float] = {}

    def latency(self) -> float:
        """Draw how long a message takes."""
        return self.random.uniform(0.001, 0.05)

    def free_at(self, stream: Stream) -> float:
        """Return when the way of a stream lets something through."""
        return self.slow_until.get(stream.receiver, 0.0) if stream.receiver is not None else 0.0

    def connect(
        self, receiver: Receiver, endpoint: Endpoint, request: watch_pb2.WatchRequest, *, dark: bool
    ) -> Stream:
        """Open a stream to an endpoint; whether that works shows in what arrives.

        Args:
            receiver: Who opens it.
            endpoint: To whom.
            request: What is asked for.
            dark: The request is lost, and nobody notices.
        """
        stream = Stream(self, receiver, endpoint, request)
        self.open = [each for each in self.open if not each.ended]
        self.open.append(stream)
        if dark:
            stream.darken()
        else:
            self.clock.at(stream._arrival(), _accept, stream)
        return stream

    def repeat(self, stream: Stream) -> None:
        """Send the request of a stream a second time, as proxies do; nobody reads the answer."""
        self.clock.after(self.latency(), _accept, Stream(self, None, stream.endpoint, stream.request))


def _accept(stream: Stream) -> None:
    if stream.ended:
        return
    if stream.endpoint.up:
        stream.endpoint.accept(stream, stream.request)
    else:
        stream.finish(UnavailableError("the connection was refused"))
