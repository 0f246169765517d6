"""Writers of one process that take turns in one transaction, so that one wait for the disk serves them all.

Each works alone, in its own thread, and sees what those before it have written. None hears what became of its
work before the transaction has ended. See docs/decisions/0004-sqlite.md and docs/decisions/0009-postgresql.md.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from rheostat.errors import RheostatError, UnavailableError
from rheostat.store.base import Group

__all__ = ["Batches", "Flush", "Session"]

T = TypeVar("T")
S = TypeVar("S", bound="Session")

_LONGEST: Final = 0.1
"""Seconds after which nobody joins a transaction any more: other processes wait for it."""

_LARGEST: Final = 64

Flush = Callable[[], T]
"""Writes what a writer has decided on, and returns its result. Called once, when its turn ends."""


class Session(Protocol):
    """A writing transaction. Used by one thread at a time."""

    @property
    def group(self) -> Group:
        """What is committed with it."""

    def keep(self, flush: Flush[T]) -> T:
        """Write, so that what a later writer does can be undone without it. An error leaves `undo` to be called."""

    def commit(self, flush: Flush[T] | None) -> T | None:
        """Write, and commit everything that was kept with it."""

    def undo(self) -> bool:
        """Take back what came after the last `keep`; return whether what was kept is still there."""

    def close(self) -> None:
        """End it; what was not committed is rolled back. What was is answered already: it raises nothing."""


@dataclasses.dataclass(eq=False, slots=True)
class _Batch(Generic[S]):
    session: S
    began: float
    kept: int = 0
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclasses.dataclass(eq=False, slots=True)
class _Turn(Generic[S]):
    wish: object
    called: threading.Event = dataclasses.field(default_factory=threading.Event)
    batch: _Batch[S] | None = None


class Batches(Generic[S]):
    """Lets writers in one after the other, first come, first served. Safe from any thread."""

    def __init__(
        self, begin: Callable[[], S], *, timeout: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Make it.

        Args:
            begin: Begins a transaction, alone among the writers of all processes.
            timeout: Seconds that a writer waits for its turn.
            monotonic: Gives seconds.
        """
        self._begin = begin
        self._timeout = timeout
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._busy = False
        self._queue: collections.deque[_Turn[S]] = collections.deque()
        # Of the newest batch. Only who begins one looks at it, and that is one thread at a time.
        self._ended = threading.Event()
        self._ended.set()

    def wishes(self) -> list[object]:
        """Return what those who wait will want to know."""
        with self._lock:
            return [turn.wish for turn in self._queue if turn.wish is not None]

    def run(self, work: Callable[[S], Flush[T] | None], *, wish: object = None) -> T | None:
        """Do *work* in its turn, and return what its flush returned once that is committed.

        Args:
            work: Returns None when there is nothing to write. What it raises reaches the caller.
            wish: What it will want to know; see `wishes`.

        Raises:
            UnavailableError: The turn did not come in time, or the transaction was lost.
        """
        batch = self._enter(wish)
        if batch is None:
            try:
                batch = _Batch(self._begin(), self._monotonic())
                try:
                    # It has let go of the lock, and its own thread may not know yet what has become of it.
                    self._ended.wait()
                except BaseException:
                    batch.session.close()
                    raise
            except BaseException:
                self._leave()
                raise
            self._ended = batch.ended
        try:
            flush = work(batch.session)
            if flush is not None:
                if not self._goes_on(batch):
                    return self._commit(batch, flush)
                result = batch.session.keep(flush)
                batch.kept += 1
        except BaseException:
            self._end_without(batch)
            raise
        if flush is None:
            self._end_without(batch)
            return None
        if not self._pass_on(batch):
            self._commit(batch, None)
        self._await(batch)
        return result

    def _end_without(self, batch: _Batch[S]) -> None:
        """End a turn that adds nothing; returns when it is decided what becomes of the turns before it."""
        if batch.ended.is_set():
            return
        if not batch.kept:
            # What the turn has written, if it came so far, ends here.
            self._end_and_leave(batch, None, lost=bool(batch.session.group.written))
            return
        self._skip(batch)
        # What it has seen may be what an unfinished turn has written.
        self._await(batch)

    def _skip(self, batch: _Batch[S]) -> None:
        """End a turn that adds nothing to what was kept before it."""
        if not batch.session.undo():
            self._end_and_leave(batch, UnavailableError("the transaction was lost", reason="STORE_AWAY"))
        elif not (self._goes_on(batch) and self._pass_on(batch)):
            self._commit(batch, None)

    def _end_and_leave(self, batch: _Batch[S], error: BaseException | None, *, lost: bool = False) -> None:
        try:
            self._end(batch, error, lost=lost)
        finally:
            self._leave()

    def _commit(self, batch: _Batch[S], flush: Flush[T] | None) -> T | None:
        # The next one may begin; it waits for the database's lock meanwhile.
        self._leave()
        error: BaseException | None = None
        try:
            try:
                return batch.session.commit(flush)
            except BaseException as exc:
                if flush is None or not batch.kept or not batch.session.undo():
                    error = exc
                    raise
                try:
                    batch.session.commit(None)
                except BaseException as later:
                    error = later
                    raise
                raise
        finally:
            self._end(batch, error)

    @staticmethod
    def _end(batch: _Batch[S], error: BaseException | None, *, lost: bool = False) -> None:
        batch.error = error
        batch.session.group.lost = lost or error is not None
        # Before the closing: nobody has to wait for that, and the next one still has to wait for the lock.
        batch.ended.set()
        batch.session.close()

    @staticmethod
    def _await(batch: _Batch[S]) -> None:
        batch.ended.wait()
        if batch.error is not None:
            # Any other error may tell of what the other one wrote.
            why = f": {batch.error}" if isinstance(batch.error, RheostatError) else ""
            raise UnavailableError(
                f"the transaction was lost with that of another writer{why}",
                reason="STORE_AWAY",
                retry_after=1.0,
            ) from batch.error

    def _enter(self, wish: object) -> _Batch[S] | None:
        with self._lock:
            if not self._busy:
                self._busy = True
                return None
            turn: _Turn[S] = _Turn(wish)
            self._queue.append(turn)
        try:
            called = turn.called.wait(self._timeout)
        except BaseException:
            # A signal, or what gevent throws into who waits. Nobody else would take this turn.
            self._withdraw(turn)
            raise
        if not called:
            with self._lock:
                if not turn.called.is_set():
                    self._queue.remove(turn)
                    raise UnavailableError(
                        "the store is busy with other writes", reason="STORE_BUSY", retry_after=1.0
                    )
        return turn.batch

    def _withdraw(self, turn: _Turn[S]) -> None:
        with self._lock:
            if not turn.called.is_set():
                self._queue.remove(turn)
                return
        if turn.batch is None:
            self._leave()
            return
        # What becomes of the others' work is told to them.
        with contextlib.suppress(Exception):
            self._skip(turn.batch)

    def _goes_on(self, batch: _Batch[S]) -> bool:
        """Whether somebody waits and may still join."""
        return bool(self._queue) and batch.kept < _LARGEST and self._monotonic() < batch.began + _LONGEST

    def _pass_on(self, batch: _Batch[S]) -> bool:
        """Let the next one join; return whether there was one."""
        with self._lock:
            if not self._queue:
                return False
            turn = self._queue.popleft()
            turn.batch = batch
            turn.called.set()
            return True

    def _leave(self) -> None:
        """Let the next one begin a transaction of its own."""
        with self._lock:
            if self._queue:
                self._queue.popleft().called.set()
            else:
                self._busy = False
