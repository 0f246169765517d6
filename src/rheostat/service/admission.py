"""How many watches may be open, and how many filters are served."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from rheostat.errors import UnavailableError
from rheostat.model.position import Filter
from rheostat.service.limit import Limits

__all__ = ["Admission"]

_RETRY_SECONDS: Final = 5.0


class Admission:
    """Counts what is open in this process. Safe from any thread; nothing here waits."""

    def __init__(self, limits: Limits) -> None:
        """Admit up to *limits*."""
        self._limits = limits
        self._lock = threading.Lock()
        self._open = 0
        self._by_key: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._filters: set[Filter] = set()

    @property
    def open(self) -> int:
        """How many watches are open."""
        return self._open

    @contextlib.contextmanager
    def watch(self, actor: str, address: str) -> Iterator[None]:
        """Count an open watch while the context lasts.

        Args:
            actor: The selector of the key; empty in open mode.
            address: The caller's IP address; not counted when it is empty.

        Raises:
            UnavailableError: The process, the key or the address has as many open watches as it may have.
        """
        limits = self._limits
        with self._lock:
            self._check("max_streams", self._open, limits.max_streams)
            self._check("max_streams_per_key", self._by_key[actor], limits.max_streams_per_key)
            if address:
                self._check(
                    "max_streams_per_address", self._by_address[address], limits.max_streams_per_address
                )
            self._count(actor, address, 1)
        try:
            yield
        finally:
            with self._lock:
                self._count(actor, address, -1)

    def serves(self, filter_: Filter) -> bool:
        """Tell whether a filter is served: a limited number of distinct ones is, first come first served."""
        if not filter_:
            return True
        with self._lock:
            if filter_ not in self._filters and len(self._filters) >= self._limits.max_filters:
                return False
            self._filters.add(filter_)
            return True

    def _count(self, actor: str, address: str, step: int) -> None:
        self._open += step
        for counter, key in ((self._by_key, actor), (self._by_address, address)):
            counter[key] += step
            if not counter[key]:
                del counter[key]

    @staticmethod
    def _check(limit: str, present: int, allowed: int) -> None:
        if present >= allowed:
            raise UnavailableError(
                f"{allowed} watches are open already",
                reason="TOO_MANY_STREAMS",
                metadata={"limit": limit},
                retry_after=_RETRY_SECONDS,
            )
