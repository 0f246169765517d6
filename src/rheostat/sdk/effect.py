"""What the loops of the SDK ask of a driver; the drivers carry it out and send back what came of it.

A driver answers an effect by sending its result, or by throwing a `RheostatError` into the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message

from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import RheostatError

__all__ = ["CloseStream", "Effect", "Fetch", "OpenStream", "Own", "Receive", "Sleep", "Wait", "run_awaiting"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a watch; it is the stream that `Receive` and `CloseStream` speak of. Sent None."""

    request: WatchRequest


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for the stream's next event. Sent a WatchResponse, or None at its end.

    Attributes:
        timeout: Seconds after which `DeadlineExceededError` is thrown.
    """

    timeout: float


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Leave the stream, if one is open. Sent None; never thrown an error."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Sent None; earlier when there is something new to do.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Make one unary call. Sent a `rheostat.sdk.call.Answer`.

    Attributes:
        method: The RPC, such as ``GetSnapshot``.
        request: Its request.
        timeout: Seconds.
        headers: Further headers.
    """

    method: str
    request: Message
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Own:
    """An effect that knows itself how to wait. Sent what it gives."""

    def blocking(self) -> object:
        """Carry it out in this thread."""
        raise NotImplementedError

    async def awaited(self) -> object:
        """Carry it out on this event loop."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Wait(Own):
    """Wait for what another thread or task does. Sent None; nothing of it is cancelled when the time is over.

    Attributes:
        future: What is waited for.
        timeout: Seconds.
    """

    future: concurrent.futures.Future[Any]
    timeout: float

    def blocking(self) -> None:
        """See `Own`."""
        concurrent.futures.wait((self.future,), self.timeout)

    async def awaited(self) -> None:
        """See `Own`."""
        await asyncio.wait({asyncio.wrap_future(self.future)}, timeout=self.timeout)


Effect: TypeAlias = "OpenStream | Receive | CloseStream | Sleep | Fetch | Own"


async def run_awaiting(work: Generator[Effect, Any, T], perform: Callable[[Effect], Awaitable[Any]]) -> T:
    """Run *work*, whose effects *perform* carries out, and return its result.

    Raises:
        RheostatError: It failed.
    """
    # What ends this need not be an error of ours, and work that is cut off has to let go of what it holds.
    with contextlib.closing(work):
        try:
            effect = next(work)
            while True:
                try:
                    result = await perform(effect)
                except RheostatError as error:
                    effect = work.throw(error)
                else:
                    effect = work.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
