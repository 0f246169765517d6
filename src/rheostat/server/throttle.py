"""How often one key may write."""

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
    )
)
"""The methods that are counted as writes, dry runs included: planning is what costs."""


class Throttle:
    """Counts the writes of each key in each second, in this process. Safe from any thread."""

    def __init__(self, writes_per_second: int) -> None:
        """Allow so many writes in a second to each key; in open mode, to everybody together."""
        self._limit = RateLimitItemPerSecond(writes_per_second)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def check(self, method: str, actor: str) -> None:
        """Count a call of *method*.

        Raises:
            LimitExceededError: The key has written too often in this second; it says when to try again.
        """
        if method not in WRITES or self._limiter.hit(self._limit, actor):
            return
        reset, _ = self._limiter.get_window_stats(self._limit, actor)
        raise LimitExceededError(
            f"more than {self._limit.amount} writes in a second",
            limit="max_writes_per_second",
            retry_after=max(reset - time.time(), 0.0),
        )
