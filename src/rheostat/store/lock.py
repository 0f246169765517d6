"""The application lock of a SQLite store: one writer at a time, in all threads and processes."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rheostat.errors import StoreError, UnavailableError

try:
    import fcntl
except ImportError as exc:
    raise StoreError("the sqlite store needs file locks of the POSIX kind, which this system lacks") from exc

__all__ = ["WriterLock"]

_NEXT_POLL: Final = 0.0002
"""Seconds between looks of the one process that is next: well below what a durable commit takes."""

_QUEUE_POLL: Final = 0.001
"""Seconds between looks of those behind it."""


class WriterLock:
    """An exclusive lock with a time limit, on two files beside the database.

    ``flock`` alone is unfair: who has just released it takes it again before a waiting process wakes up. So a
    process takes the turn (``-turn``) first and holds it until it has the lock itself (``-lock``); meanwhile
    the last owner has to wait for the turn. The kernel releases both when a process ends, however it ends.

    The files are opened for each use: a forked child then has nothing of its parent's to close, unless the
    fork falls into a use.
    """

    def __init__(self, database: Path) -> None:
        """Make the lock for *database*; nothing is opened yet."""
        self._lock_path = Path(f"{database}-lock")
        self._turn_path = Path(f"{database}-turn")
        self._thread_lock = threading.Lock()
        self._held: set[int] = set()

    @contextlib.contextmanager
    def hold(self, timeout: float) -> Iterator[None]:
        """Hold the lock, after waiting at most *timeout* seconds for it. Not reentrant.

        Raises:
            UnavailableError: It was not free in time.
            StoreError: The lock files cannot be opened.
        """
        deadline = time.monotonic() + timeout
        thread_lock = self._thread_lock
        if not thread_lock.acquire(timeout=timeout):
            raise _busy()
        try:
            with contextlib.ExitStack() as turn, contextlib.ExitStack() as lock:
                turn.enter_context(self._flock(self._turn_path, deadline, _QUEUE_POLL))
                lock.enter_context(self._flock(self._lock_path, deadline, _NEXT_POLL))
                turn.close()
                yield
        finally:
            thread_lock.release()

    def after_fork_in_child(self) -> None:
        """Forget what the parent's threads were doing with the lock."""
        # Closed but not unlocked: an unlock would also end the parent's hold.
        for descriptor in self._held:
            os.close(descriptor)
        self._held = set()
        self._thread_lock = threading.Lock()

    @contextlib.contextmanager
    def _flock(self, path: Path, deadline: float, poll: float) -> Iterator[None]:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            message = f"the lock file {path.name!r} of the store cannot be opened: {exc.strerror}"
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise UnavailableError(message) from exc
            raise StoreError(message) from exc
        self._held.add(descriptor)
        try:
            while not _try_flock(descriptor):
                if time.monotonic() >= deadline:
                    raise _busy()
                time.sleep(poll)
            yield
        finally:
            # In a child forked by the write itself it is closed already, and the lock is the parent's.
            if descriptor in self._held:
                self._held.discard(descriptor)
                # Closing is not enough: a child forked meanwhile has the same lock open.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise StoreError(f"the file system of the store cannot lock files: {exc.strerror}") from exc
    return True


def _busy() -> UnavailableError:
    return UnavailableError("the store is busy with other writes", reason="STORE_BUSY", retry_after=1.0)
