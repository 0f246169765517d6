"""Waiting for the hub on an event loop: one wake-up of the loop serves all its watches."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from rheostat.model.watch import Delta, WatchEvent
from rheostat.server.codec import Framing
from rheostat.service.publish import Hub

__all__ = ["Waiters", "Waiting"]

log = logging.getLogger("rheostat.server")

_TIMER_SECONDS: Final = 0.001
"""How much too early a loop's timer may fire."""

_AT_ONCE: Final = 64
"""Watches that are served in one turn of the loop: a change to thousands must not hold up all other calls, the answer
to its own commit among them."""


class Waiters:
    """The watches of one event loop that wait for the hub; one wake-up of the loop serves them all."""

    def __init__(
        self,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        note_delivery: Callable[[int, int, int], None] | None = None,
    ) -> None:
        """Make it; *note_delivery* is told how many frames were written, their bytes, and how many were deltas."""
        # Not a strong one: the hub outlives the loops, and the applications keep these by their loop.
        self._loop = weakref.ref(loop)
        self.hub = hub
        self.waiting: set[Waiting] = set()
        # Those that are told of subjects, whether they wait or not: an insertion-ordered set.
        self.told: dict[Waiting, None] = {}
        # What those that were served in this turn have to say. One write after the other finds the caches of the
        # kernel warm and its readers awake, which halves what each costs.
        self.outgoing: list[tuple[Callable[[bytes], None], bytes]] = []
        # How many of them bring a delta.
        self.deltas = 0
        self._note_delivery = note_delivery
        # What the newest events are on the connections of the watches that send them.
        self.made: dict[tuple[WatchEvent, Framing], bytes] = {}
        # Large deltas that a thread is encoding.
        self.preparing: dict[Delta, asyncio.Future[object]] = {}
        self._stop = hub.listen(self._rung, self._noted)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; whoever asks runs on it."""
        loop = self._loop()
        assert loop is not None
        return loop

    def _rung(self) -> None:
        self._call(self._wake)

    def _noted(self) -> None:
        if self.told:
            self._call(self._wake_told)

    def _call(self, function: Callable[[], None]) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed():
            self._stop()
            return
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:
            # Closed between the check and the call.
            self._stop()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, set()
        self._serve(deque(waiting))

    def _wake_told(self) -> None:
        self._serve(deque(self.told))

    def _serve(self, waiting: deque[Waiting]) -> None:
        now = self.loop.time()
        for _ in range(min(_AT_ONCE, len(waiting))):
            waiting.popleft().serve(now)
        if waiting:
            # After everything else that the loop has to do by now.
            self.loop.call_soon(self._serve, waiting)
        self.flush()

    def flush(self) -> None:
        """Write what there is to write."""
        outgoing, self.outgoing = self.outgoing, []
        deltas, self.deltas = self.deltas, 0
        if not outgoing:
            return
        size = 0
        for write, chunks in outgoing:
            size += len(chunks)
            try:
                write(chunks)
            except Exception:
                # A connection that has just ended: its own task is told, and the others are served.
                log.debug("a connection cannot be written to", exc_info=True)
        if self._note_delivery is not None:
            self._note_delivery(len(outgoing), size, deltas)


class Waiting:
    """The waits of one watch. One timer serves many: most waits end by the bell, long before they are due."""

    __slots__ = ("_due", "_fires", "_future", "_loop", "_timer", "parked", "waiters")

    def __init__(self, waiters: Waiters) -> None:
        """Make it for one task of the loop that *waiters* are of."""
        self.waiters = waiters
        self.parked = False
        self._loop = waiters.loop
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # On the loop's clock: when the wait is to end, and when the timer fires, which may be earlier.
        self._due = 0.0
        self._fires = math.inf

    async def wait(self, bell: int, timeout: float) -> None:
        """Return when the hub has rung after *bell*, or after *timeout* seconds."""
        waiters = self.waiters
        if waiters.hub.bell != bell or timeout <= 0:
            # Give way all the same: a watch that always has something to send must not starve the others.
            await asyncio.sleep(0)
            return
        self.until(self._loop.time() + timeout)
        # A ring between the check and here has scheduled _wake after this very step of the loop.
        future = self._future = self._loop.create_future()
        self.parked = True
        waiters.waiting.add(self)
        try:
            await future
        finally:
            self.parked = False
            waiters.waiting.discard(self)

    def serve(self, now: float) -> None:
        """Do what a ring, or the end of the wait, asks for at *now* on the loop's clock: wake the task."""
        if self.parked:
            self.wake()

    def wake(self) -> None:
        """Let the task go on."""
        self.parked = False
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def until(self, due: float) -> None:
        """Wait no longer than to *due*."""
        self._due = due
        if due < self._fires:
            self._arm()

    def close(self) -> None:
        """Drop the timer, which would keep the watch in memory."""
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._disarm()
        self._fires = self._due
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._fires = math.inf
        if not self.parked:
            return
        now = self._loop.time()
        if now < self._due - _TIMER_SECONDS:
            self._arm()
        else:
            self.serve(now)
            self.waiters.flush()
