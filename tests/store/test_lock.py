"""The writer lock: one at a time, in turn, and never for ever."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from rheostat.errors import StoreError, UnavailableError
from rheostat.store.lock import WriterLock


def test_one_holder_at_a_time_across_threads_and_objects(tmp_path: Path) -> None:
    locks = [WriterLock(tmp_path / "db") for _ in range(2)]
    inside = 0
    most = 0
    held = 0

    def work(lock: WriterLock) -> None:
        nonlocal inside, most, held
        for _ in range(20):
            with lock.hold(30):
                inside += 1
                most = max(most, inside)
                held += 1
                inside -= 1

    threads = [threading.Thread(target=work, args=(lock,)) for lock in locks for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, held) == (1, 80)


def test_who_comes_back_at_once_does_not_pass_who_waits(tmp_path: Path) -> None:
    greedy, patient = WriterLock(tmp_path / "db"), WriterLock(tmp_path / "db")
    order: list[str] = []
    queued = threading.Event()

    def wait() -> None:
        with patient.hold(30):
            order.append("patient")

    waiter = threading.Thread(target=wait)
    turn = os.open(tmp_path / "db-turn", os.O_RDWR | os.O_CREAT)
    with greedy.hold(30):
        waiter.start()
        # Once the waiting one has the turn, nobody else can be next.
        while not queued.is_set():
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(turn, fcntl.LOCK_UN)
            except BlockingIOError:
                queued.set()
    with greedy.hold(30):
        order.append("greedy")
    waiter.join(30)
    os.close(turn)
    assert order == ["patient", "greedy"]


def test_gives_up_in_time_whether_a_thread_or_a_process_holds_it(tmp_path: Path) -> None:
    lock, other = WriterLock(tmp_path / "db"), WriterLock(tmp_path / "db")
    with lock.hold(1):
        for waiting in (lock, other):
            with pytest.raises(UnavailableError, match="busy"), waiting.hold(0.01):
                pytest.fail("two hold the lock")
    with other.hold(1):
        pass


def test_is_free_again_after_an_exception(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "db")
    with pytest.raises(KeyError), lock.hold(1):
        raise KeyError
    with WriterLock(tmp_path / "db").hold(0.01):
        pass


def test_names_the_lock_file_that_cannot_be_opened_without_its_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="'db-turn'") as caught,
        WriterLock(tmp_path / "missing" / "db").hold(1),
    ):
        pytest.fail("there is no such folder")
    assert str(tmp_path) not in str(caught.value)
