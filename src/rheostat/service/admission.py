"""How many watches may be open, how many filters are served, and how many snapshots are sent at a time."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rheostat.errors import UnavailableError
from rheostat.model.position import Filter
from rheostat.service.limit import Limits

__all__ = ["Admission"]

_RECONNECTS_PER_SECOND: Final = 400
"""What a node takes of clients that come back; they are told how long to spread for this."""

_LEAST_SPREAD_SECONDS: Final = 5.0

_RETRY_SECONDS: Final = 5.0

_SNAPSHOT_RETRY_SECONDS: Final = (0.5, 2.0)
"""From and to: clients that were refused together shall not come back together."""


class Admission:
    """Counts what is open in this process. Safe from any thread; nothing here waits."""

    def __init__(
        self,
        limits: Limits,
        *,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        counted: str = "watches",
    ) -> None:
        """Admit up to *limits*; *randomness* makes random bytes, and errors say what is *counted*."""
        self._limits = limits
        self._counted = counted
        self._randomness = randomness
        self._lock = threading.Lock()
        self._open = 0
        self._by_key: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._filters: Counter[Filter] = Counter()
        self._snapshots = 0

    @property
    def open(self) -> int:
        """How many watches are open."""
        return self._open

    @property
    def drain_spread(self) -> float:
        """Seconds over which the clients of a node that drains are asked to spread their reconnects."""
        return max(_LEAST_SPREAD_SECONDS, self.open / _RECONNECTS_PER_SECOND)

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which the clients are to spread their reconnects if the node ends without a word."""
        # Half as much again: what comes at random times clumps, and those who came too early come again.
        return 1.5 * self.open / _RECONNECTS_PER_SECOND

    @property
    def actors(self) -> Sequence[str]:
        """The selectors of the keys with open watches; among them the empty one in open mode."""
        with self._lock:
            return list(self._by_key)

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

    @contextlib.contextmanager
    def filter(self, filter_: Filter) -> Iterator[bool]:
        """Keep a place for a filter while the context lasts: as long as the stream that uses it is open.

        Streams with equal filters share one place. Yields whether the filter is served: when all places are taken
        by other filters, it is not, and takes none. The empty filter needs no place.
        """
        served = not filter_ or self._take_place(filter_)
        try:
            yield served
        finally:
            if filter_ and served:
                self._give_place_back(filter_)

    def _take_place(self, filter_: Filter) -> bool:
        with self._lock:
            if filter_ not in self._filters and len(self._filters) >= self._limits.max_filters:
                return False
            self._filters[filter_] += 1
            return True

    def _give_place_back(self, filter_: Filter) -> None:
        with self._lock:
            self._filters[filter_] -= 1
            if not self._filters[filter_]:
                del self._filters[filter_]

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Count a snapshot that is being sent while the context lasts.

        Raises:
            UnavailableError: As many as may be are being sent; it says when to come back, to each caller another
                time.
        """
        allowed = self._limits.max_concurrent_snapshots
        with self._lock:
            busy = self._snapshots >= allowed
            if not busy:
                self._snapshots += 1
        if busy:
            first, last = _SNAPSHOT_RETRY_SECONDS
            share = int.from_bytes(self._randomness(4), "big") / 2**32
            raise UnavailableError(
                f"{allowed} snapshots are being sent already",
                reason="SNAPSHOTS_BUSY",
                metadata={"limit": "max_concurrent_snapshots"},
                retry_after=first + share * (last - first),
            )
        try:
            yield
        finally:
            with self._lock:
                self._snapshots -= 1

    def _count(self, actor: str, address: str, step: int) -> None:
        self._open += step
        for counter, key in ((self._by_key, actor), (self._by_address, address)):
            counter[key] += step
            if not counter[key]:
                del counter[key]

    def _check(self, limit: str, present: int, allowed: int) -> None:
        if present >= allowed:
            raise UnavailableError(
                f"{allowed} {self._counted} are open already",
                reason="TOO_MANY_STREAMS",
                metadata={"limit": limit},
                retry_after=_RETRY_SECONDS,
            )
