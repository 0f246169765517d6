"""What watchers are told of subjects: that some have changed, and they shall drop their copies.

It is no part of the state that a watch leads through: it has no revision, and a watcher that has missed some of it
drops all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from rheostat.model.watch import SubjectsChanged

__all__ = ["MAX_IDS", "NOTICE_SECONDS", "Board", "Notices"]

MAX_IDS: Final = 1_000
"""Subjects that are named one by one; beyond that a watcher is told that any may have changed."""

NOTICE_SECONDS: Final = 0.1
"""How often the watchers of an environment are told, at most. A subject whose events are counted changes all the
time."""

Address: TypeAlias = tuple[str, str]
"""A project and an environment."""

_ALL: Final = SubjectsChanged((), all=True)


class Board:
    """The notices of one environment. Readers keep the number of the last notice that they have read.

    What a slow reader is to be told is on the board, in the memory of nobody: at most `MAX_IDS` ids.
    """

    __slots__ = ("_all", "_count", "_lock", "_merged", "_notices", "_pending", "number", "sent_at")

    def __init__(self) -> None:
        """Begin without a notice."""
        self.number = 0
        # On the monotonic clock; the first change is told at once.
        self.sent_at = float("-inf")
        self._lock = threading.Lock()
        self._pending: set[bytes] = set()
        self._all = False
        # The newest notices, of `_count` ids in sum, the last of which has the number `number`.
        self._notices: deque[SubjectsChanged] = deque()
        self._count = 0
        # What those who have missed several are told, by how many: the same event for all.
        self._merged: dict[int, SubjectsChanged] = {}

    def add(self, ids: Collection[bytes]) -> None:
        """Note changed subjects for the next notice; without ids, that any may have changed."""
        with self._lock:
            if not ids:
                self._all = True
            elif not self._all:
                self._pending.update(ids)
                self._all = len(self._pending) > MAX_IDS
            if self._all:
                self._pending.clear()

    @property
    def waits(self) -> bool:
        """There is something for the next notice."""
        return self._all or bool(self._pending)

    def post(self, now: float) -> bool:
        """Make a notice of what has changed by *now*; return whether there was anything."""
        with self._lock:
            if not self.waits:
                return False
            notice = _ALL if self._all else SubjectsChanged(tuple(sorted(self._pending)))
            self._pending.clear()
            self._all = False
            self.sent_at = now
            self._merged.clear()
            if notice.all:
                self._notices.clear()
                self._count = 0
            self._notices.append(notice)
            self._count += len(notice.ids)
            while self._count > MAX_IDS:
                self._count -= len(self._notices.popleft().ids)
            self.number += 1
            return True

    def after(self, number: int) -> tuple[int, SubjectsChanged | None]:
        """Return the number of the newest notice, and what one who has read up to *number* is to be told."""
        if number == self.number:
            return number, None
        with self._lock:
            missed = self.number - number
            if missed > len(self._notices) or self._notices[-missed].all:
                return self.number, _ALL
            if missed == 1:
                return self.number, self._notices[-1]
            merged = self._merged.get(missed)
            if merged is None:
                newest = list(self._notices)[-missed:]
                merged = self._merged[missed] = SubjectsChanged(
                    tuple(sorted({id_ for notice in newest for id_ in notice.ids}))
                )
            return self.number, merged


class Notices:
    """The boards of all environments that somebody watches. Safe from any thread."""

    def __init__(self, monotonic: Callable[[], float], ring: Callable[[], None]) -> None:
        """Begin without a board.

        Args:
            monotonic: Seconds.
            ring: Wakes those who read boards; must not block.
        """
        self._monotonic = monotonic
        self._ring = ring
        self._boards: dict[Address, Board] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def board(self, address: Address) -> Board:
        """Return the board of an environment, which is kept from now on."""
        with self._changed:
            board = self._boards.get(address)
            if board is None:
                board = self._boards[address] = Board()
            return board

    def note(self, address: Address, ids: Collection[bytes]) -> None:
        """Tell the watchers of an environment, soon, of changed subjects; without ids, that any may have changed."""
        board = self._boards.get(address)
        if board is not None:
            board.add(ids)
            self._tell(board)

    def note_all(self) -> None:
        """Tell all watchers that any subject may have changed."""
        for board in tuple(self._boards.values()):
            board.add(())
            self._tell(board)

    def _tell(self, board: Board) -> None:
        now = self._monotonic()
        if now >= board.sent_at + NOTICE_SECONDS:
            if board.post(now):
                self._ring()
            return
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="rheostat-notices", daemon=True)
                self._thread.start()
            self._changed.notify()

    def post_due(self) -> float | None:
        """Post what is due now; return in how many seconds the next is, None when nothing waits."""
        now = self._monotonic()
        posted, soonest = False, None
        for board in tuple(self._boards.values()):
            if not board.waits:
                continue
            left = board.sent_at + NOTICE_SECONDS - now
            if left <= 0:
                posted |= board.post(now)
            else:
                soonest = left if soonest is None else min(left, soonest)
        if posted:
            self._ring()
        return soonest

    def close(self) -> None:
        """Tell nobody anything more. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while not self._closed:
            left = self.post_due()
            with self._changed:
                if self._closed:
                    return
                if left is None and any(board.waits for board in self._boards.values()):
                    continue
                self._changed.wait(left)
