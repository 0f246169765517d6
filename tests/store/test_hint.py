"""Hints between processes: a faster wake-up, whose absence costs nothing but time."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from rheostat.store.hint import HintSocket


def waiting(hints: HintSocket, outcome: list[bool]) -> threading.Thread:
    """Start a thread that waits for a hint. The socket is there when this returns."""
    hints.wait(0)
    thread = threading.Thread(target=lambda: outcome.append(hints.wait(30)))
    thread.start()
    return thread


def test_a_hint_wakes_the_others_and_not_the_sender(tmp_path: Path) -> None:
    first, second, third = (HintSocket(tmp_path / "hints") for _ in range(3))
    outcome: list[bool] = []
    threads = [waiting(second, outcome), waiting(third, outcome)]
    first.wait(0)
    first.send()
    for thread in threads:
        thread.join(30)
    assert outcome == [True, True]
    assert not first.wait(0)
    for hints in (first, second, third):
        hints.close()
    assert not (tmp_path / "hints").exists()


def test_many_hints_count_as_one(tmp_path: Path) -> None:
    sender, receiver = HintSocket(tmp_path / "hints"), HintSocket(tmp_path / "hints")
    receiver.wait(0)
    # More than the queue of a socket takes: sending never blocks.
    for _ in range(1000):
        sender.send()
    assert receiver.wait(0)
    assert not receiver.wait(0)
    sender.close()
    receiver.close()


def test_works_below_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120) / "hints"
    directory.parent.mkdir()
    sender, receiver = HintSocket(directory), HintSocket(directory)
    receiver.wait(0)
    assert len(list(directory.iterdir())) == 1
    sender.send()
    assert receiver.wait(0)
    sender.close()
    receiver.close()


def test_takes_away_the_socket_of_a_process_that_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "hints"
    receiver, sender = HintSocket(directory), HintSocket(directory)
    receiver.wait(0)
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(directory / "1-dead"))
    dead.close()
    assert len(list(directory.iterdir())) == 2
    sender.send()
    assert not (directory / "1-dead").exists()
    assert receiver.wait(0)
    sender.close()
    receiver.close()


def test_without_a_usable_directory_there_are_no_hints_and_no_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for directory in (tmp_path / "file", tmp_path / "missing" / "hints"):
        sender, receiver = HintSocket(directory), HintSocket(directory)
        sender.send()
        assert not receiver.wait(0.001)
        sender.send()
        assert not receiver.wait(0.001)
        sender.close()
        receiver.close()


def test_closing_wakes_every_waiting_thread(tmp_path: Path) -> None:
    hints = HintSocket(tmp_path / "hints")
    outcome: list[bool] = []
    threads = [waiting(hints, outcome) for _ in range(3)]
    hints.close()
    for thread in threads:
        thread.join(30)
    assert outcome == [False] * 3
    hints.send()
    assert not hints.wait(0)
