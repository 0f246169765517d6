"""How often one key may write, report and ask."""

from __future__ import annotations

import time
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
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


class Throttle:
    """Counts what each key does in each second, in this process. Safe from any thread."""

    def __init__(
        self, per_second: int, *, limit: str = "max_writes_per_second", what: str = "writes"
    ) -> None:
        """Allow so much in a second to each key; in open mode, to everybody together.

        Args:
            per_second: How many.
            limit: The name of this limit.
            what: What is counted, in words.
        """
        self._limit = RateLimitItemPerSecond(per_second)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
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
            retry_after=max(reset - time.time(), 0.0),
        )
