"""The sets of declared types that a store keeps, each once, for as long as clients that declared it are heard of."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rheostat.service.typeset import TypeSet
from rheostat.store.base import Record, Store

__all__ = ["DeclaredTypes"]

KIND: Final = "types"

KEPT: Final = datetime.timedelta(hours=1)
"""For how long a set is kept that no client reports. They report each minute."""

_CACHED: Final = 1_024


@dataclass(slots=True)
class _Held:
    """A set as this node holds it, and until when it need not look after the stored one (monotonic)."""

    types: TypeSet
    fresh_until: float


class DeclaredTypes:
    """Keeps sets of types under their hashes. Safe from any thread."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime.datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Hold nothing yet; the store is not closed."""
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, project: str, environment: str, types: TypeSet) -> None:
        """Store a set, unless it is known to be there for a while."""
        key = _key(project, environment, types.hash)
        if not self._is_fresh(key):
            self._lengthen(key, self._store.record(KIND, key), types)

    def find(self, project: str, environment: str, hash_: bytes) -> TypeSet | None:
        """Return the set with this hash, or None; for judging by it."""
        key = _key(project, environment, hash_)
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            return held.types
        record = self._store.record(KIND, key)
        return None if record is None else self._hold(key, TypeSet.parse(record.body), 0.0)

    def renew(self, project: str, environment: str, hash_: bytes) -> bool:
        """Keep the set with this hash for longer, since a client reports it; False when it is not there."""
        key = _key(project, environment, hash_)
        if self._is_fresh(key):
            return True
        record = self._store.record(KIND, key)
        if record is None:
            with self._lock:
                self._held.pop(key, None)
            return False
        self._lengthen(key, record, TypeSet.parse(record.body))
        return True

    def expire(self, now: datetime.datetime) -> None:
        """Remove the sets that nobody has reported for long."""
        self._store.delete_due_records(KIND, now)

    def _is_fresh(self, key: str) -> bool:
        with self._lock:
            held = self._held.get(key)
            return held is not None and self._monotonic() < held.fresh_until

    def _lengthen(self, key: str, record: Record | None, types: TypeSet) -> None:
        now = self._clock()
        if record is None or record.due is None or record.due < now + KEPT / 2:
            self._store.put_record(Record(KIND, key, types.text, now + KEPT))
        # The stored one has at least half of its time before it, and is looked after in half of that.
        self._hold(key, types, self._monotonic() + KEPT.total_seconds() / 4)

    def _hold(self, key: str, types: TypeSet, fresh_until: float) -> TypeSet:
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(types, fresh_until)
            held.fresh_until = max(held.fresh_until, fresh_until)
            self._held.move_to_end(key)
            while len(self._held) > _CACHED:
                self._held.popitem(last=False)
            # The one object that has parsed its types already.
            return held.types


def _key(project: str, environment: str, hash_: bytes) -> str:
    return f"{project}/{environment}/{hash_.hex()}"
