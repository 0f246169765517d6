from __future__ import annotations

import os
import signal
import threading

import pytest

from rheostat.errors import LimitExceededError
from rheostat.server.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_that_does_too_much_is_told_when_its_second_is_over():
    clock = Clock()
    throttle = Throttle(3, limit="max_asks", what="questions", monotonic=clock)
    for _ in range(3):
        throttle.count("ada")
    clock.now += 0.25
    with pytest.raises(LimitExceededError, match="more than 3 questions in a second") as caught:
        throttle.count("ada")
    assert (caught.value.limit, caught.value.retry_after) == ("max_asks", 0.75)
    throttle.count("bob")
    clock.now += 0.75
    throttle.count("ada")


def test_what_comes_at_once_counts_as_no_more_than_is_allowed():
    clock = Clock()
    throttle = Throttle(3, monotonic=clock)
    throttle.count("ada", 100)
    with pytest.raises(LimitExceededError):
        throttle.count("ada")
    clock.now += 1
    throttle.count("ada", 100)


def test_counting_takes_no_threads_and_keeps_nobody_who_has_gone():
    clock = Clock()
    throttle = Throttle(3, monotonic=clock)
    before = threading.active_count()
    for number in range(100):
        throttle.count(f"key {number}")
    assert threading.active_count() == before
    clock.now += 60
    throttle.count("ada")
    assert len(throttle._limiter.storage._windows) == 1


def test_a_child_that_was_forked_while_another_thread_counted_counts_from_nothing():
    throttle = Throttle(3, monotonic=Clock())
    throttle.count("ada", 3)
    with throttle._limiter.storage._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            throttle.count("ada", 3)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
