"""Ending streams whose clients do not take what they are sent, and those whose key was revoked meanwhile.

A handler waits inside the application server's ``send`` while the client's buffers are full, where it can neither be
asked nor ask. One look a second at all sends under way ends those that have waited too long.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asgiref.typing import ASGISendCallable, ASGISendEvent

__all__ = ["GUARD", "Guard", "Guards", "Stalled"]

STALLED_SECONDS: Final = 30.0
"""A client that takes nothing for so long is too slow."""

_LOOK_SECONDS: Final = 1.0


class Stalled(Exception):  # noqa: N818 - never leaves the server; says what has happened
    """A send was given up."""


class Guard:
    """The ``send`` of one call, which can be given up. Used by the call's task and its loop only."""

    __slots__ = ("_loop", "_send", "_sending", "_task", "given_up", "may_go_on", "since")

    def __init__(self, send: ASGISendCallable, sending: _Sending) -> None:
        self._send = send
        self._sending = sending
        self._task: asyncio.Task[object] | None = None
        self._loop = asyncio.get_running_loop()
        self.given_up = False
        self.may_go_on: Callable[[], bool] | None = None
        self.since = 0.0

    async def __call__(self, message: ASGISendEvent) -> None:
        """Send, or raise `Stalled`."""
        if self.given_up:
            raise Stalled
        self.since = self._loop.time()
        self._task = asyncio.current_task()
        self._sending.begin(self)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if self.given_up and self._task is not None and self._task.uncancel() == 0:
                raise Stalled from None
            raise
        finally:
            self._sending.guards.discard(self)

    def give_up(self) -> None:
        """End the send that is under way."""
        self.given_up = True
        if self._task is not None:
            self._task.cancel()


class Guards:
    """All guarded sends of an application, by event loop."""

    def __init__(self, stalled_seconds: float = STALLED_SECONDS) -> None:
        """Give up sends that take longer than *stalled_seconds*, or whose call may not go on."""
        self._stalled_seconds = stalled_seconds
        self._sending: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sending] = (
            weakref.WeakKeyDictionary()
        )

    def guard(self, send: ASGISendCallable) -> Guard:
        """Return a guarded *send* of the running loop."""
        loop = asyncio.get_running_loop()
        sending = self._sending.get(loop)
        if sending is None:
            sending = self._sending[loop] = _Sending(self._stalled_seconds)
        return Guard(send, sending)


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
            refused = guard.may_go_on is not None and not guard.may_go_on()
            if not guard.given_up and (refused or now - guard.since > self._stalled_seconds):
                guard.give_up()
        loop.call_later(_LOOK_SECONDS, self._look)


GUARD: contextvars.ContextVar[Guard] = contextvars.ContextVar("rheostat_guard")
"""The guard of the running call."""
