"""When an analysis ends."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Deadline", "ExhaustedError"]


class ExhaustedError(Exception):
    """The analysis took too many steps, or too long."""


class Deadline:
    """A time by which an analysis ends. For one thread."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """End *seconds* from now on *clock*, which is monotonic."""
        self._clock = clock
        self._end = clock() + seconds

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self._clock() >= self._end

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            ExhaustedError: It is over.
        """
        if self.passed:
            raise ExhaustedError
