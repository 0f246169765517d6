"""How many examples property tests try: few in each run of the suite, many in `just nightly`."""

from __future__ import annotations

import os

__all__ = ["examples"]

_FACTOR = int(os.environ.get("RHEOSTAT_THOROUGH", "1"))


def examples(count: int) -> int:
    """Return how many examples to try: *count*, times ``RHEOSTAT_THOROUGH`` when that is set."""
    return count * _FACTOR
