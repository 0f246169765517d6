"""Waiting for the hub on an event loop: one wake-up of the loop serves all its watches."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Sequence
from typing import Final

from rheostat.service.publish import Hub

__all__ = ["Waiters", "Waiting"]

_TIMER_SECONDS: Final = 0.001
"""How much too early a loop's timer may fire."""

_AT_ONCE: Final = 64
"""Watches that are woken in one turn of the loop: a change to thousands must not hold up all other calls, the answer
to its own commit among them."""


class Waiters:
    """The watches of one event loop that wait for the hub; one wake-up of the loop serves them all."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        # Not a strong one: the hub outlives the loops, and the applications keep these by their loop.
        self._loop = weakref.ref(loop)
        self.hub = hub
        self.waiting: set[asyncio.Future[None]] = set()
        self._stop = hub.listen(self._rung)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; whoever asks runs on it."""
        loop = self._loop()
        assert loop is not None
        return loop

    def _rung(self) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed():
            self._stop()
            return
        try:
            loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            # Closed between the check and the call.
            self._stop()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, set()
        self._release(list(waiting))

    def _release(self, waiting: Sequence[asyncio.Future[None]]) -> None:
        for future in waiting[:_AT_ONCE]:
            if not future.done():
                future.set_result(None)
        if len(waiting) > _AT_ONCE:
            # After everything else that the loop has to do by now.
            self.loop.call_soon(self._release, waiting[_AT_ONCE:])


class Waiting:
    """The waits of one watch. One timer serves many: most waits end by the bell, long before they are due."""

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._loop = waiters.loop
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # On the loop's clock: when the wait is to end, and when the timer fires, which may be earlier.
        self._due = 0.0
        self._fires = math.inf

    async def wait(self, bell: int, timeout: float) -> None:
        """Return when the hub has rung after *bell*, or after *timeout* seconds."""
        waiters = self._waiters
        if waiters.hub.bell != bell or timeout <= 0:
            # Give way all the same: a watch that always has something to send must not starve the others.
            await asyncio.sleep(0)
            return
        self._due = self._loop.time() + timeout
        if self._due < self._fires:
            self._arm()
        # A ring between the check and here has scheduled _wake after this very step of the loop.
        future = self._future = self._loop.create_future()
        waiters.waiting.add(future)
        try:
            await future
        finally:
            waiters.waiting.discard(future)

    def close(self) -> None:
        """Drop the timer, which would keep the watch in memory."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self.close()
        self._fires = self._due
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._fires = math.inf
        future = self._future
        if future is None or future.done():
            return
        if self._loop.time() < self._due - _TIMER_SECONDS:
            self._arm()
        else:
            future.set_result(None)
