"""Percentiles by nearest rank: each is one of the values, never something between two."""

from __future__ import annotations

__all__ = ["nearest_rank"]


def nearest_rank(count: int, percent: int) -> int:
    """Return which of *count* values in ascending order, the first being 0, is the percentile.

    Args:
        count: At least 1.
        percent: From 1 to 100.
    """
    return -(-count * percent // 100) - 1
