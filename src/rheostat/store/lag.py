"""Percentiles of lags by nearest rank: each is a lag that some client had, never something between two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["percentiles"]


def percentiles(lags: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Return the median, the 99th percentile and the greatest of those known; None when none is."""
    known = sorted(lag for lag in lags if lag is not None)
    return (_ranked(known, 50), _ranked(known, 99), known[-1]) if known else None


def _ranked(ascending: Sequence[float], percent: int) -> float:
    # The smallest that at least so many percent do not exceed: the quotient is rounded up.
    return ascending[-(-len(ascending) * percent // 100) - 1]
