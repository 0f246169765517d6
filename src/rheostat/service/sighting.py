"""When things were last seen: keys in use, settings that are read."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rheostat.store.base import Record, Store

__all__ = ["Seen", "Sightings"]

_ATTEMPTS: Final = 5
"""How often a record that other nodes write at the same time is read and written anew."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What has been seen of a group.

    Attributes:
        since: Since when it has been noted, aware, UTC; None when it has not been.
        at: When each was seen last, rounded down to the granularity.
    """

    since: datetime.datetime | None
    at: Mapping[str, datetime.datetime]


class Sightings:
    """Notes in memory what is seen, and writes it down when it is told to. Safe from any thread.

    What belongs together, a group, is one record, so that ten thousand names are written at once; it is written
    only when some name was not yet seen in the same stretch of time, by whichever node.
    """

    def __init__(
        self, store: Store, kind: str, *, granularity: int, clock: Callable[[], datetime.datetime]
    ) -> None:
        """Note nothing yet.

        Args:
            store: Where records are kept; not closed.
            kind: Of the records.
            granularity: Seconds; what is seen twice in one such stretch is written once.
            clock: The wall clock, aware UTC.
        """
        self._store = store
        self._kind = kind
        self._granularity = granularity
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[str, dict[str, int]] = {}
        self._unwritten: dict[str, dict[str, int]] = {}

    def note(self, group: str, names: Iterable[str]) -> None:
        """Note that *names* are seen now. Never waits for the store."""
        now = int(self._clock().timestamp()) // self._granularity
        with self._lock:
            noted = self._noted.setdefault(group, {})
            for name in names:
                if noted.get(name) != now:
                    noted[name] = now
                    self._unwritten.setdefault(group, {})[name] = now

    def flush(self, groups: Iterable[str] = (), *, known: Callable[[str, str], bool] | None = None) -> None:
        """Write down what has been noted since the last time.

        Args:
            groups: Those that have a record from now on, whether or not something was seen of them.
            known: Tells of a group and a name whether it still exists; what does not is dropped.

        Raises:
            UnavailableError: The store is away; it is written the next time.
        """
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
            begun = [group for group in groups if group not in self._noted]
        try:
            for group in begun:
                if self._merge(group, {}, known):
                    with self._lock:
                        self._noted.setdefault(group, {})
            for group in list(unwritten):
                if self._merge(group, unwritten[group], known):
                    del unwritten[group]
        finally:
            with self._lock:
                for group, noted in unwritten.items():
                    self._unwritten[group] = {**noted, **self._unwritten.get(group, {})}

    def seen(self, group: str) -> Seen:
        """Return what all nodes have written down of *group*, and what this one has noted since."""
        record = self._store.record(self._kind, group)
        since, at = (None, {}) if record is None else _read(record)
        with self._lock:
            unwritten = dict(self._unwritten.get(group, {}))
        for name, moment in unwritten.items():
            at[name] = max(moment, at.get(name, moment))
        return Seen(
            None if since is None else self._instant(since, 1),
            {name: self._instant(moment, self._granularity) for name, moment in at.items()},
        )

    def _merge(self, group: str, noted: Mapping[str, int], known: Callable[[str, str], bool] | None) -> bool:
        """Bring a group's record up to date; False when other nodes were always quicker."""
        for _ in range(_ATTEMPTS):
            record = self._store.record(self._kind, group)
            since, at = (int(self._clock().timestamp()), {}) if record is None else _read(record)
            newer = {name: moment for name, moment in noted.items() if at.get(name, -1) < moment}
            if not newer and record is not None:
                return True
            merged = {
                name: moment
                for name, moment in sorted({**at, **newer}.items())
                if known is None or known(group, name)
            }
            body = json.dumps({"since": since, "seen": merged}, separators=(",", ":"))
            version = 0 if record is None else record.version
            if self._store.put_record(Record(self._kind, group, body), expected_version=version) is not None:
                return True
        return False

    @staticmethod
    def _instant(moment: int, granularity: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(moment * granularity, datetime.UTC)


def _read(record: Record) -> tuple[int, dict[str, int]]:
    body = json.loads(record.body)
    return body["since"], body["seen"]
