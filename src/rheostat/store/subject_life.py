"""How long a store keeps what it keeps of subjects and events."""

from __future__ import annotations

import datetime
from typing import Final

__all__ = [
    "AHEAD",
    "CHANGE_LIFE",
    "COUNT_LIFE",
    "FEED_JUMP",
    "FEED_LIFE",
    "KEY_LIFE",
    "USAGE_LIFE",
    "VERSION_JUMP",
]

AHEAD: Final = datetime.timedelta(days=1)
"""What is dated later than this from now was written by a clock that was wrong."""

FEED_LIFE: Final = datetime.timedelta(hours=1)
"""A node that was away for longer has all subjects read anew."""

FEED_JUMP: Final = 2**20
"""By how much the feed's number rises with a generation, and all entries go: more than can have been lost since a
backup, so that no number that somebody has seen is given to another entry."""

VERSION_JUMP: Final = 2**20
"""By how much the versions of all subjects rise with a generation, for the same reason."""

KEY_LIFE: Final = datetime.timedelta(days=2)
"""Of idempotency keys: twice as long as programs try to send an event."""

CHANGE_LIFE: Final = datetime.timedelta(days=90)

COUNT_LIFE: Final = datetime.timedelta(days=400)
"""Of exposures and events by day: a year, to be compared with the one before."""

USAGE_LIFE: Final = datetime.timedelta(days=62)
"""Of subjects' counters by day: twice the longest period that is added up of them."""
