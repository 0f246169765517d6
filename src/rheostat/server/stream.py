"""One watch on an event loop. One that keeps up is stepped and written without waking its task."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from rheostat.model.watch import Bookmark, Delta, SnapshotEvent, WatchEvent
from rheostat.server.codec import Framing, Shared
from rheostat.server.stall import PIECE_BYTES, Guard
from rheostat.server.waiting import Waiters, Waiting

if TYPE_CHECKING:
    from rheostat.server.handler import Handlers
    from rheostat.service.watch import Step, WatchSession

__all__ = ["Stream"]

Run: TypeAlias = Callable[..., Awaitable[deque[Shared]]]

_SMALL_DELTA: Final = 128
"""Items of a delta that are encoded on the loop: some milliseconds, once for all that send it."""

_REMEMBERED: Final = 64
"""Events whose chunks are at hand: the newest of some scopes."""


class Stream(Waiting):
    """The session of a watch and the ways to its client. Used by its task and its loop only."""

    __slots__ = ("_error", "_framing", "_guard", "_handlers", "_left", "_monotonic", "_outlet", "_session")

    def __init__(
        self, handlers: Handlers, session: WatchSession, guard: Guard | None, waiters: Waiters
    ) -> None:
        """Make it; without a guard that has a line, the task does everything."""
        super().__init__(waiters)
        self._handlers = handlers
        self._session = session
        self._guard = guard
        self._framing: Framing | None = None
        self._outlet = None if guard is None or guard.line is None else guard.line.outlet
        self._monotonic = handlers.service.monotonic
        self._left: tuple[Step, int] | None = None
        self._error: Exception | None = None
        if session.told:
            waiters.told[self] = None

    def close(self) -> None:
        """Wait for nothing more."""
        self.waiters.told.pop(self, None)
        super().close()

    def left(self) -> tuple[Step, int] | None:
        """Return a step whose events are still to be sent; None when it is time for the next one.

        With it comes the bell as it was before the step: what has rung since is still to be looked at.

        Raises:
            RheostatError: The session has raised it.
        """
        if self._error is not None:
            raise self._error
        left, self._left = self._left, None
        return left

    def takes_long(self, events: Sequence[WatchEvent]) -> bool:
        """Tell whether encoding *events* would hold up the loop."""
        return any(
            isinstance(event, SnapshotEvent)
            or (isinstance(event, Delta) and len(event.entries) > _SMALL_DELTA)
            for event in events
        )

    async def prepared(self, events: Sequence[WatchEvent], expected: Framing, run: Run) -> deque[Shared]:
        """Return the messages of *events*, made by *run* in a thread where that takes long.

        Args:
            events: Of a step.
            expected: As which they will most likely be sent.
            run: Runs a function in a thread.
        """
        if not self.takes_long(events):
            return self.encoded(events)
        delta = next((event for event in events if isinstance(event, Delta)), None)
        if delta is None:
            return await run(self.encoded, events, expected)
        # All watches have been woken for it: one makes what the others find made.
        preparing = self.waiters.preparing
        task = preparing.get(delta)
        if task is None:
            task = preparing[delta] = asyncio.ensure_future(run(self.encoded, events, expected))
            task.add_done_callback(functools.partial(_prepared, preparing, delta))
        # It goes on when the client of this watch leaves.
        await asyncio.wait([task])
        return self.encoded(events)

    def encoded(self, events: Sequence[WatchEvent], expected: Framing | None = None) -> deque[Shared]:
        """Return the messages of *events*, with the bytes made that are *expected* to be sent."""
        messages = deque(
            message for event in events for message in self._handlers.encode(event, self._session)
        )
        if expected is not None:
            for message in messages:
                message.framed(expected)
        return messages

    async def wait(self, bell: int, timeout: float) -> None:
        """Return when there is something to do for the task: see `left`, then step."""
        if self._guard is not None:
            self._framing = self._guard.framing
        # One that came while the task was sending woke nobody.
        await super().wait(bell, 0.0 if self._session.has_notice else timeout)

    def serve(self, now: float) -> None:
        """Step and write at *now* on the loop's clock; wake the task only where that could take a while."""
        if not self.parked:
            return
        outlet, framing = self._outlet, self._framing
        if outlet is None or framing is None or not outlet.open:
            self.wake()
            return
        waiters = self.waiters
        bell = waiters.hub.bell
        monotonic = self._monotonic()
        try:
            step = self._session.step(monotonic)
            events = step.events
            if events:
                chunks = waiters.made.get((events[0], framing)) if len(events) == 1 else None
                if chunks is None:
                    chunks = self._chunks(events, framing)
                if chunks is None or step.done:
                    self._left = (step, bell)
                    self.wake()
                    return
                waiters.outgoing.append((outlet.write, chunks))
                self._note(events)
            elif step.done:
                self._left = (step, bell)
                self.wake()
                return
        except Exception as exc:  # noqa: BLE001 - the task raises it
            self._error = exc
            self.wake()
            return
        waiters.waiting.add(self)
        self.until(now + step.wake_at - monotonic)

    def _note(self, events: Sequence[WatchEvent]) -> None:
        """Count what goes out, at little cost for a delta or a bookmark by itself."""
        first = events[0]
        if type(first) is Delta:
            self.waiters.deltas += 1
        if len(events) > 1 or not (type(first) is Bookmark or (type(first) is Delta and not first.coalesced)):
            self._handlers.note_events(events)

    def _chunks(self, events: Sequence[WatchEvent], framing: Framing) -> bytes | None:
        """Return what *events* are on the connection; None when that is much, or takes long to make."""
        if self.takes_long(events):
            return None
        made = self.waiters.made
        parts: list[bytes] = []
        for event in events:
            messages = self.encoded((event,))
            if len(messages) > 1:
                # A delta that is so large that a snapshot takes its place.
                return None
            chunks = messages[0].chunked(framing)
            if len(chunks) > PIECE_BYTES:
                return None
            if len(made) >= _REMEMBERED:
                made.clear()
            made[event, framing] = chunks
            parts.append(chunks)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _prepared(
    preparing: dict[Delta, asyncio.Future[object]], delta: Delta, task: asyncio.Future[object]
) -> None:
    preparing.pop(delta, None)
    if not task.cancelled():
        # Looked at, so that it is not reported as forgotten: each watch meets the same error by itself.
        task.exception()
