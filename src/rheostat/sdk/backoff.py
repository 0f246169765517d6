"""How long to wait before trying again: full jitter, so that clients that lost one server come back spread out."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["HEALTHY_SECONDS", "Backoff"]

HEALTHY_SECONDS: Final = 60.0
"""A stream that has lasted so long makes the next delay begin anew; one that fails at once does not."""

_MAX_DOUBLINGS: Final = 16
"""Beyond these the bound is the last in any case, and the power need not grow."""


class Backoff:
    """Draws delays between zero and a bound that doubles with each; for one thread or task."""

    __slots__ = ("_attempt", "_first", "_last", "_random")

    def __init__(self, first: float, last: float, randomness: random.Random) -> None:
        """Begin with the first bound.

        Args:
            first: Seconds, the bound of the first delay.
            last: Seconds, what the bound grows to.
            randomness: Where delays are drawn from.
        """
        self._first = first
        self._last = last
        self._random = randomness
        self._attempt = 0

    def delay(self, least_bound: float = 0.0) -> float:
        """Draw the seconds until the next attempt, and count it.

        Args:
            least_bound: Seconds, what the bound is at least.
        """
        bound = max(least_bound, min(self._last, self._first * 2 ** min(self._attempt, _MAX_DOUBLINGS)))
        self._attempt += 1
        return self._random.uniform(0.0, bound)

    def reset(self) -> None:
        """Begin anew."""
        self._attempt = 0
