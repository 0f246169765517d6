"""Time that passes only when nothing is left to do now: a heap of events, and two clocks that read it."""

from __future__ import annotations

import datetime
import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Clock", "Timer"]

_BEGAN: Final = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


class Timer:
    """Something that is to happen; it can be called off."""

    __slots__ = ("action", "arguments")

    def __init__(self, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.action: Callable[..., object] | None = action
        self.arguments = arguments

    def cancel(self) -> None:
        """Let it not happen."""
        self.action = None


class Clock:
    """Both clocks of a world.

    Attributes:
        now: Seconds of the monotonic clock.
        offset: How far the wall clock was set forward.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = datetime.timedelta()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Timer]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime.datetime:
        return _BEGAN + datetime.timedelta(seconds=self.now) + self.offset

    def at(self, instant: float, action: Callable[..., object], *arguments: Any) -> Timer:
        """Call *action* at *instant*, after all that was planned for it before."""
        timer = Timer(action, arguments)
        heapq.heappush(self._events, (max(instant, self.now), next(self._order), timer))
        return timer

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> Timer:
        """Call *action* in so many seconds."""
        return self.at(self.now + seconds, action, *arguments)

    def run_until(self, instant: float) -> None:
        """Let everything happen that is planned up to *instant*, and what comes of it."""
        events = self._events
        while events and events[0][0] <= instant:
            self.now, _, timer = heapq.heappop(events)
            action, timer.action = timer.action, None
            if action is not None:
                action(*timer.arguments)
        self.now = instant
