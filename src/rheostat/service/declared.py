"""The sets of declared types that a store keeps, each once, for as long as clients that declared it are heard of."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rheostat.errors import LimitExceededError
from rheostat.service.limit import Limits
from rheostat.service.typeset import TypeSet
from rheostat.store.base import Record, Store

__all__ = ["DeclaredTypes"]

KIND: Final = "types"

KEPT: Final = datetime.timedelta(hours=1)
"""For how long a set is kept that clients have reported and report no longer. They report each minute."""

UNREPORTED: Final = datetime.timedelta(minutes=20)
"""For how long one is kept that none has reported: most are those that a client continues in its next call."""

_CACHED_CHARACTERS: Final = 32 * 1024 * 1024
"""Characters of the sets that a node holds in memory, if other nodes' clients do not use more of them at a time."""

_RETRY_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Held:
    """A set as this node holds it, and until when it need not look after the stored one (monotonic)."""

    types: TypeSet
    size: int
    fresh_until: float


@dataclass(slots=True)
class _Counted:
    """A set that counts for a key: how many characters it has, and until when it is kept (monotonic)."""

    size: int
    until: float


class DeclaredTypes:
    """Keeps sets of types under their hashes. Safe from any thread.

    What a key has its clients declare is counted for it alone, on each node: a key that goes beyond its limit is
    refused further sets, and takes nothing from others. Its sets stop to count when they expire.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        *,
        clock: Callable[[], datetime.datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Hold nothing yet; the store is not closed."""
        self._store = store
        self._limits = limits
        self._clock = clock
        self._monotonic = monotonic
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._characters = 0
        # By place and key, the sets by their hashes.
        self._counted: dict[tuple[str, str, str], dict[bytes, _Counted]] = {}
        self._lock = threading.Lock()

    def keep(self, project: str, environment: str, types: TypeSet, actor: str) -> None:
        """Store a set that clients of the key *actor* have declared, unless it is known to be there for a while.

        Raises:
            LimitExceededError: The key has others declare too many, or too large ones.
        """
        place = (project, environment, actor)
        self._check(place, types)
        key = _key(project, environment, types.hash)
        if not self._is_fresh(key):
            self._lengthen(key, self._store.record(KIND, key), types, UNREPORTED)
        self._count(place, types.hash, len(types.text), UNREPORTED)

    def find(self, project: str, environment: str, hash_: bytes) -> TypeSet | None:
        """Return the set with this hash, or None; for judging by it."""
        key = _key(project, environment, hash_)
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return held.types
        record = self._store.record(KIND, key)
        return None if record is None else self._hold(key, TypeSet.parse(record.body), len(record.body), 0.0)

    def renew(self, project: str, environment: str, hash_: bytes, actor: str) -> bool:
        """Keep the set with this hash for longer, since a client reports it; False when it is not there."""
        key = _key(project, environment, hash_)
        with self._lock:
            held = self._held.get(key)
        size = 0 if held is None else held.size
        if held is None or self._monotonic() >= held.fresh_until:
            record = self._store.record(KIND, key)
            if record is None:
                with self._lock:
                    self._forget(key)
                return False
            size = len(record.body)
            self._lengthen(key, record, TypeSet.parse(record.body) if held is None else held.types, KEPT)
        self._count((project, environment, actor), hash_, size, KEPT)
        return True

    def expire(self, now: datetime.datetime) -> None:
        """Remove the sets that nobody has reported for long."""
        self._store.delete_due_records(KIND, now)
        monotonic = self._monotonic()
        with self._lock:
            for place, counted in list(self._counted.items()):
                left = {hash_: each for hash_, each in counted.items() if each.until > monotonic}
                if left:
                    self._counted[place] = left
                else:
                    del self._counted[place]

    def _check(self, place: tuple[str, str, str], types: TypeSet) -> None:
        now = self._monotonic()
        with self._lock:
            counted = self._counted.get(place, {})
            if types.hash in counted:
                return
            for hash_ in [hash_ for hash_, each in counted.items() if each.until <= now]:
                del counted[hash_]
            sets, characters = len(counted), sum(each.size for each in counted.values())
        if sets >= self._limits.max_type_sets:
            limit, what = "max_type_sets", f"{self._limits.max_type_sets} different sets of types"
        elif characters + len(types.text) > self._limits.max_type_bytes:
            limit, what = "max_type_bytes", f"types of {self._limits.max_type_bytes} characters"
        else:
            return
        raise LimitExceededError(
            f"the clients of this key have declared {what} in {place[1]!r} already ({limit})",
            limit=limit,
            retry_after=_RETRY_SECONDS,
        )

    def _count(self, place: tuple[str, str, str], hash_: bytes, size: int, life: datetime.timedelta) -> None:
        until = self._monotonic() + life.total_seconds()
        with self._lock:
            counted = self._counted.setdefault(place, {})
            held = counted.get(hash_)
            if held is None:
                counted[hash_] = _Counted(size, until)
            else:
                held.until = max(held.until, until)

    def _is_fresh(self, key: str) -> bool:
        with self._lock:
            held = self._held.get(key)
            return held is not None and self._monotonic() < held.fresh_until

    def _lengthen(self, key: str, record: Record | None, types: TypeSet, life: datetime.timedelta) -> None:
        now = self._clock()
        size = len(types.text) if record is None else len(record.body)
        if record is None or record.due is None or record.due < now + life / 2:
            self._store.put_record(Record(KIND, key, types.text, now + life))
        # The stored one has at least half of its time before it, and is looked after in half of that.
        self._hold(key, types, size, self._monotonic() + life.total_seconds() / 4)

    def _hold(self, key: str, types: TypeSet, size: int, fresh_until: float) -> TypeSet:
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(types, size, fresh_until)
                self._characters += size
            held.fresh_until = max(held.fresh_until, fresh_until)
            self._held.move_to_end(key)
            while self._characters > _CACHED_CHARACTERS and len(self._held) > 1:
                self._forget(next(iter(self._held)))
            # The one object that has parsed its types already.
            return held.types

    def _forget(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._characters -= held.size


def _key(project: str, environment: str, hash_: bytes) -> str:
    return f"{project}/{environment}/{hash_.hex()}"
