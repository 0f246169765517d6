"""How often one key may write, report and ask."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from rheostat.errors import LimitExceededError

__all__ = ["WRITES", "Throttle"]

WRITES: Final = frozenset(
    (
        "rheo.v1.ConfigService/DeclareSettings",
        *(
            f"rheo.v1.AdminService/{name}"
            for name in ("Commit", "Revert", "CreateKey", "RotateKey", "RevokeKey")
        ),
        *(
            f"rheo.v1.DraftService/{name}Draft"
            for name in ("Create", "Update", "Approve", "Publish", "Cancel")
        ),
        *(
            f"rheo.v1.WebhookService/{name}"
            for name in (
                "CreateWebhook",
                "UpdateWebhook",
                "DeleteWebhook",
                "RotateWebhookSecret",
                "TestWebhook",
                "Redeliver",
            )
        ),
        *(f"rheo.v1.EventService/{name}" for name in ("RecordEvents", "UpsertSubjects", "DeleteSubjects")),
    )
)
"""The methods that are counted as writes, dry runs included: planning is what costs."""


_SWEEP_SECONDS: Final = 10.0
"""How often windows that have ended are let go of, at most."""


class Throttle:
    """Counts what each key does in each second, in this process. Safe from any thread."""

    def __init__(
        self,
        per_second: int,
        *,
        limit: str = "max_writes_per_second",
        what: str = "writes",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow so much in a second to each key; in open mode, to everybody together.

        Args:
            per_second: How many.
            limit: The name of this limit.
            what: What is counted, in words.
            monotonic: Gives seconds.
        """
        self._limit = RateLimitItemPerSecond(per_second)
        self._limiter = FixedWindowRateLimiter(_Windows(monotonic))
        self._monotonic = monotonic
        self._name = limit
        self._what = what

    def check(self, method: str, actor: str) -> None:
        """Count a call of *method*, if it is one of those that are counted as writes.

        Raises:
            LimitExceededError: The key has written too often in this second; it says when to try again.
        """
        if method in WRITES:
            self.count(actor)

    def count(self, actor: str, times: int = 1) -> None:
        """Count something that a key does *times*; more than are allowed in a second count as those.

        Raises:
            LimitExceededError: It is too much in this second; it says when to try again.
        """
        # What comes in one request could never pass otherwise.
        if self._limiter.hit(self._limit, actor, cost=min(times, self._limit.amount)):
            return
        reset, _ = self._limiter.get_window_stats(self._limit, actor)
        raise LimitExceededError(
            f"more than {self._limit.amount} {self._what} in a second",
            limit=self._name,
            retry_after=max(reset - self._monotonic(), 0.0),
        )


class _Windows(Storage):
    """Counts in memory.

    The library's own storage starts a thread for each hit that finds none, which took longer than all else that lets
    a call in.
    """

    STORAGE_SCHEME = None

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._monotonic = monotonic
        self.begin()
        _all_windows.add(self)

    def begin(self) -> None:
        """Count from nothing."""
        self._lock = threading.Lock()
        # By key: when the window ends, and what was counted in it.
        self._windows: dict[str, tuple[float, int]] = {}
        self._sweep_at = 0.0

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = self._monotonic()
        with self._lock:
            ends_at, count = self._windows.get(key, (now, 0))
            if ends_at <= now:
                self._sweep(now)
                ends_at, count = now + expiry, 0
            self._windows[key] = ends_at, count + amount
        return count + amount

    def get(self, key: str) -> int:
        ends_at, count = self._windows.get(key, (0.0, 0))
        return count if ends_at > self._monotonic() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (0.0, 0))[0]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        with self._lock:
            held = len(self._windows)
            self._windows.clear()
        return held

    def clear(self, key: str) -> None:
        with self._lock:
            self._windows.pop(key, None)

    def _sweep(self, now: float) -> None:
        if now >= self._sweep_at:
            self._windows = {key: window for key, window in self._windows.items() if window[0] > now}
            self._sweep_at = now + _SWEEP_SECONDS


_all_windows: weakref.WeakSet[_Windows] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # Another thread of the parent may have held the lock. What is counted is counted in each process.
    for windows in tuple(_all_windows):
        windows.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
