"""Sending to clients that may be slow: in small pieces, and not for ever.

A handler waits inside the application server's ``send`` while the client's buffers are full, where it can neither be
asked nor ask. One look a second at all sends under way ends those that have waited too long, and those whose key was
revoked meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rheostat.server.codec import Framing, Shared

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGISendCallable,
        ASGISendEvent,
        HTTPResponseBodyEvent,
    )

    from rheostat.server.line import Line

__all__ = ["GUARD", "PIECE_BYTES", "STALLED_SECONDS", "Guard", "Guards", "Stalled"]

STALLED_SECONDS: Final = 30.0
"""A client that takes nothing for so long is too slow."""

PIECE_BYTES: Final = 32 * 1024
"""A body is sent in pieces of so much, since a server may buffer a whole one for each client that does not read."""

_LOOK_SECONDS: Final = 1.0


class Stalled(Exception):  # noqa: N818 - never leaves the server; says what has happened
    """A send was given up."""


class Guard:
    """The ``send`` of one call, which can be given up. Used by the call's task and its loop only.

    Attributes:
        framing: How the messages of the response are framed; None before its start, and where it is no stream.
        line: The connection, where the server gives it.
        may_go_on: Whether the stream may go on although nothing was sent for a while.
        refused: It may not, and was ended for that.
    """

    __slots__ = (
        "_given_up",
        "_inside",
        "_leaving",
        "_loop",
        "_send",
        "_sending",
        "_task",
        "framing",
        "line",
        "may_go_on",
        "refused",
        "since",
    )

    def __init__(self, send: ASGISendCallable, sending: _Sending, line: Line | None = None) -> None:
        self._send = send
        self._sending = sending
        self._task: asyncio.Task[object] | None = None
        self._loop = asyncio.get_running_loop()
        self._given_up = False
        # In the middle of a message, where nothing but its rest may follow.
        self._inside = False
        self._leaving = False
        self.framing: Framing | None = None
        self.line = line
        self.may_go_on: Callable[[], bool] | None = None
        self.refused = False
        self.since = 0.0

    @property
    def given_up(self) -> bool:
        """A send was given up; there will be no others."""
        return self._given_up

    async def __call__(self, message: ASGISendEvent) -> None:
        """Send, or raise `Stalled`."""
        match message["type"]:
            case "http.response.body":
                await self._body(message)
            case "http.response.start":
                self.framing = Framing.of(message["headers"])
                await self._sent(message)
            case _:
                await self._sent(message)

    async def frame(self, message: Shared) -> None:
        """Send a message of a stream whose response has begun, as the runtime would, or raise `Stalled`."""
        assert self.framing is not None
        await self._body(
            {"type": "http.response.body", "body": message.framed(self.framing), "more_body": True}
        )

    def take_leave(self, message: Shared) -> bool:
        """Say a last word to a client that does not read, in case that it does so soon.

        The end of the response may be sent after it.

        Returns:
            Whether that can be: it cannot in the middle of another message, or without the connection.
        """
        line, framing = self.line, self.framing
        if not self._given_up or self._inside or line is None or framing is None:
            return False
        line.outlet.write(message.chunked(framing))
        self._leaving = True
        return True

    def give_up(self) -> None:
        """End the send that is under way."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

    async def _body(self, message: HTTPResponseBodyEvent) -> None:
        body = message["body"]
        if self._leaving and self.line is not None:
            self.line.finish(body)
            return
        if len(body) > PIECE_BYTES:
            for at in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
                await self._sent(
                    {"type": "http.response.body", "body": body[at : at + PIECE_BYTES], "more_body": True}
                )
                self._inside = True
            at += PIECE_BYTES
            message = {"type": "http.response.body", "body": body[at:], "more_body": message["more_body"]}
        await self._sent(message)
        self._inside = False

    async def _sent(self, message: ASGISendEvent) -> None:
        if self._given_up:
            raise Stalled
        self.since = self._loop.time()
        self._task = asyncio.current_task()
        self._sending.begin(self)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if self._given_up and self._task is not None and self._task.uncancel() == 0:
                raise Stalled from None
            raise
        finally:
            self._sending.guards.discard(self)


class Guards:
    """All guarded sends of an application, by event loop."""

    def __init__(self, stalled_seconds: float = STALLED_SECONDS) -> None:
        """Give up sends that take longer than *stalled_seconds*, or whose call may not go on."""
        self._stalled_seconds = stalled_seconds
        self._sending: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sending] = (
            weakref.WeakKeyDictionary()
        )

    def guard(self, send: ASGISendCallable, line: Line | None = None) -> Guard:
        """Return a guarded *send* of the running loop."""
        loop = asyncio.get_running_loop()
        sending = self._sending.get(loop)
        if sending is None:
            sending = self._sending[loop] = _Sending(self._stalled_seconds)
        return Guard(send, sending, line)


class _Sending:
    """The sends under way on one loop, and whether the next look at them is due."""

    __slots__ = ("_looking", "_stalled_seconds", "guards")

    def __init__(self, stalled_seconds: float) -> None:
        self.guards: set[Guard] = set()
        self._stalled_seconds = stalled_seconds
        self._looking = False

    def begin(self, guard: Guard) -> None:
        """Watch a send. The caller discards it from the guards when it has ended."""
        self.guards.add(guard)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = bool(self.guards)
        if not self._looking:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for guard in tuple(self.guards):
            if guard.given_up:
                continue
            if guard.may_go_on is not None and not guard.may_go_on():
                guard.refused = True
                guard.give_up()
            elif now - guard.since > self._stalled_seconds:
                guard.give_up()
        loop.call_later(_LOOK_SECONDS, self._look)


GUARD: contextvars.ContextVar[Guard] = contextvars.ContextVar("rheostat_guard")
"""The guard of the running call."""
