"""What a node counts, for whoever watches over it. Nothing here waits, or knows how it is shown."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rheostat.model.change import ChangeSet

__all__ = ["Distribution", "Metrics", "Shape"]

LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
"""From a commit to its delivery: milliseconds on one node, up to a back-off after an outage."""

DURATION_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """A distribution at one moment.

    Attributes:
        bounds: The upper bounds of all ranges but the last, which has none; each belongs to its range.
        counts: How many fell into each range, one more than there are bounds.
        total: The sum of all.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Distribution:
    """Counts measured numbers by ranges. Safe from any thread."""

    __slots__ = ("_bounds", "_counts", "_lock", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count by ranges that end at *bounds*, which rise, and one more that does not end."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def note(self, measured: float, times: int = 1) -> None:
        """Count a number, below 0 as 0, as if it had been measured so many times."""
        measured = max(measured, 0.0)
        at = bisect.bisect_left(self._bounds, measured)
        with self._lock:
            self._counts[at] += times
            self._total += measured * times

    @property
    def shape(self) -> Shape:
        """What was counted so far, of one moment."""
        with self._lock:
            return Shape(self._bounds, tuple(self._counts), self._total)


class Metrics:
    """The counts of one node in one process. Safe from any thread.

    Attributes:
        lag: Seconds from a commit, by the clock of the node that made it, until its delta was handed to the
            connection of a watcher.
        commits: Seconds of writes that were committed, planning and the store's confirmation included.
        calls: Seconds of calls, by method; of watches until they ended.
        newest: The newest revision that watchers were told of, and when it was committed, in seconds since 1970;
            (0, 0.0) when that is not known.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.lag = Distribution(LAG_SECONDS)
        self.commits = Distribution(DURATION_SECONDS)
        self.calls: dict[str, Distribution] = {}
        self.newest = (0, 0.0)
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def count(self, what: str, *labels: str, times: int = 1) -> None:
        """Count something that has happened, such as ``snapshots``; *labels* say of which kind."""
        with self._lock:
            self._counts[what, *labels] += times

    def counted(self, what: str) -> dict[tuple[str, ...], int]:
        """Return how often something has happened so far, by its labels."""
        with self._lock:
            return {key[1:]: times for key, times in self._counts.items() if key[0] == what}

    def note_commits(self, change_sets: Sequence[ChangeSet]) -> None:
        """Remember when the newest of some change-sets was committed."""
        newest = change_sets[-1]
        if newest.created_at is not None:
            self.newest = (newest.revision, newest.created_at.timestamp())

    def delivered(self, frames: int, size: int) -> None:
        """Count frames that were handed to connections of watchers, and their bytes in sum."""
        with self._lock:
            self._counts["frames",] += frames
            self._counts["bytes",] += size

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended, with the name of its code; that of a success is ``ok``."""
        self.count("calls", method, code)
        distribution = self.calls.get(method)
        if distribution is None:
            with self._lock:
                distribution = self.calls.setdefault(method, Distribution(DURATION_SECONDS))
        distribution.note(seconds)
