"""Who is connected, as a node writes it down: in one go each second, so that thousands of reports cost one write."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from rheostat.errors import RheostatError
from rheostat.store.base import ClientRow, Store

__all__ = ["GRACE", "LIFE", "Register", "Roster"]

LIFE: Final = datetime.timedelta(minutes=3)
"""For how long a client is remembered that is not heard of again."""

GRACE: Final = datetime.timedelta(seconds=20)
"""For how long a client whose stream has ended is remembered: it may only be changing nodes."""

FLUSH_SECONDS: Final = 1.0

_HURRIED_SECONDS: Final = 0.1
"""How often rows are written while somebody waits for a rollout."""

_RENEWAL_SECONDS: Final = 90.0
"""How often a client with an open stream is written anew that does not report: half of its life."""

_HOUSEKEEPING_SECONDS: Final = 30.0

_CHUNK: Final = 1_000
"""Rows of one write: other writers wait for no more."""

_MAX_ROWS: Final = 100_000
"""Rows kept while the store is away; those that came first are dropped."""

log = logging.getLogger("rheostat.service")

_Key: TypeAlias = tuple[str, str, str]
"""Project, environment and client id."""


@dataclass(slots=True)
class _Open:
    """A client with open streams on this node."""

    row: ClientRow
    streams: int
    renew_at: float


class Register:
    """Tells which clients are known under a key, which may have so many of them. Safe from any thread.

    Of each node, and by what this process has heard: a client that is not heard of for `LIFE` makes room.
    """

    def __init__(self, limit: int, *, monotonic: Callable[[], float]) -> None:
        """Let each key have *limit* clients in each environment."""
        self._limit = limit
        self._monotonic = monotonic
        # By place and key: the clients, in the order in which they were heard of, with the instant of that.
        self._known: dict[tuple[str, str, str], OrderedDict[str, float]] = {}
        self._full: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()

    def admits(self, project: str, environment: str, actor: str, id_: str) -> bool:
        """Note that a client is heard of; False when its key has too many others."""
        place, now = (project, environment, actor), self._monotonic()
        with self._lock:
            known = self._known.setdefault(place, OrderedDict())
            if id_ not in known and len(known) >= self._limit:
                _drop_old(known, now)
                if len(known) >= self._limit:
                    news = place not in self._full
                    self._full.add(place)
                    if news:
                        log.warning(
                            "the key %r has more than %d clients in %s/%s (max_clients_per_key); further ones are "
                            "served, and appear in no list or rollout",
                            actor,
                            self._limit,
                            project,
                            environment,
                        )
                    return False
            known[id_] = now
            known.move_to_end(id_)
            return True

    def expire(self) -> None:
        """Forget clients that are not heard of any more."""
        now = self._monotonic()
        with self._lock:
            for place, known in list(self._known.items()):
                _drop_old(known, now)
                if len(known) < self._limit:
                    self._full.discard(place)
                if not known:
                    del self._known[place]


def _drop_old(known: OrderedDict[str, float], now: float) -> None:
    while known:
        id_, at = next(iter(known.items()))
        if at + LIFE.total_seconds() > now:
            return
        del known[id_]


class Roster:
    """Notes in memory who is connected and has reported, and writes it down. Safe from any thread.

    A thread writes; it is started by the first note and ended by `close`. What a process that was killed has not
    written, up to a second of notes, the clients' next reports bring.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        *,
        clock: Callable[[], datetime.datetime],
        monotonic: Callable[[], float],
        housekeeping: Callable[[datetime.datetime], None] = lambda _: None,
    ) -> None:
        """Make a roster of the clients of one node.

        Args:
            store: Where the rows go; not closed.
            node: Its name.
            clock: The wall clock, aware UTC.
            monotonic: Seconds.
            housekeeping: Called from time to time, from the thread that writes.
        """
        self._store = store
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self._housekeeping = housekeeping
        # Clients of the parent's streams are none of a child's.
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._writing = threading.Lock()
        # Reports and signs of life apart, since the store joins them; each in the order of its last note.
        self._rows: dict[tuple[_Key, bool], ClientRow] = {}
        self._ended: dict[_Key, None] = {}
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self._hurried_until = 0.0
        self._housekept_at = monotonic()
        self._thread: threading.Thread | None = None
        self._closed = False

    def note(self, row: ClientRow) -> None:
        """Note a report, or with ``reported_at`` None a sign of life."""
        with self._condition:
            self._note(row)

    def put(self, row: ClientRow) -> None:
        """Write a row at once, so that every node knows of it.

        Raises:
            UnavailableError: The store is away.
        """
        self._store.put_clients([row])
        with self._condition:
            self._start()

    @contextlib.contextmanager
    def connected(self, row: ClientRow) -> Iterator[None]:
        """Keep a client alive while the context, its stream, lasts, and for `GRACE` afterwards."""
        key = _key(row)
        with self._condition:
            held = self._open.get(key)
            if held is None:
                self._open[key] = _Open(row, 1, self._monotonic() + _RENEWAL_SECONDS)
            else:
                held.row, held.streams = row, held.streams + 1
            self._ended.pop(key, None)
            self._note(row)
        try:
            yield
        finally:
            if self._pid == os.getpid():
                self._left(key)

    def hurry(self, until: float) -> None:
        """Write more often until this instant of the monotonic clock: somebody waits for what is reported."""
        with self._condition:
            self._hurried_until = max(self._hurried_until, until)
            self._condition.notify_all()

    def flush(self) -> None:
        """Write what has been noted; also waits for a write that another thread has begun.

        Raises:
            UnavailableError: The store is away; nothing is lost.
        """
        with self._writing:
            with self._condition:
                self._renew()
                rows, self._rows = self._rows, {}
                ended, self._ended = self._ended, {}
            try:
                written = list(rows.values())
                for start in range(0, len(written), _CHUNK):
                    self._store.put_clients(written[start : start + _CHUNK])
                if ended:
                    self._store.end_clients(list(ended), self._node, self._clock() + GRACE)
            except BaseException:
                self._take_back(rows, ended)
                raise

    def close(self) -> None:
        """Write what is left, if the store is there, and end the thread. Idempotent."""
        with self._condition:
            self._closed = True
            thread, self._thread = self._thread, None
            self._condition.notify_all()
        if self._pid != os.getpid():
            return
        if thread is not None:
            thread.join(timeout=2.0)
            with contextlib.suppress(RheostatError):
                self.flush()

    # The condition is held in what follows, but for `_run` and `_left`.

    def _note(self, row: ClientRow) -> None:
        key = _key(row)
        at = (key, row.reported_at is None)
        # To the end: what was noted last is written last.
        self._rows.pop(at, None)
        self._rows[at] = row
        held = self._open.get(key)
        if held is not None:
            held.renew_at = self._monotonic() + _RENEWAL_SECONDS
            self._open.move_to_end(key)
        self._start()

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="rheostat-roster", daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        now = self._monotonic()
        expires_at = self._clock() + LIFE
        while self._open:
            key, held = next(iter(self._open.items()))
            if held.renew_at > now:
                return
            held.row = replace(held.row, expires_at=expires_at)
            held.renew_at = now + _RENEWAL_SECONDS
            self._open.move_to_end(key)
            self._rows[key, True] = held.row

    def _left(self, key: _Key) -> None:
        with self._condition:
            held = self._open[key]
            held.streams -= 1
            if not held.streams:
                del self._open[key]
                self._ended[key] = None

    def _take_back(self, rows: dict[tuple[_Key, bool], ClientRow], ended: dict[_Key, None]) -> None:
        with self._condition:
            self._rows = {**rows, **self._rows}
            self._ended = {**{key: None for key in ended if key not in self._open}, **self._ended}
            for key in list(self._rows)[: max(0, len(self._rows) - _MAX_ROWS)]:
                del self._rows[key]

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._closed:
                    return
                hurried = self._monotonic() < self._hurried_until
                self._condition.wait(_HURRIED_SECONDS if hurried else FLUSH_SECONDS)
                if self._closed:
                    return
            try:
                self.flush()
                if self._monotonic() >= self._housekept_at + _HOUSEKEEPING_SECONDS:
                    self._housekept_at = self._monotonic()
                    self._housekeeping(self._clock())
            except RheostatError as exc:
                log.warning("cannot write down who is connected: %s; trying again", exc)
            except Exception:
                # Whatever it is: a node whose thread has ended would forget all its clients.
                log.exception("cannot write down who is connected; trying again")


def _key(row: ClientRow) -> _Key:
    return row.project, row.environment, row.id
