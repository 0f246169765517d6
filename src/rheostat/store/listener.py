"""Listening to what other processes tell of their commits.

A hint is never more than a reason to look: the tables are the truth, and who waits looks each second anyway.
"""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from rheostat.errors import RheostatError

__all__ = ["CHANNEL", "Listener"]

CHANNEL: Final = "rheostat"

_SILENCE: Final = 5.0
"""Seconds without a word after which the server is asked whether it is there, and again that it has to answer."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_START: Final = 2.0
"""Seconds that the first one who waits gives the connection to come up, so that it misses nothing after."""

_logger = logging.getLogger(__name__)


class Listener:
    """Counts hints, on a connection and a thread of its own. Safe from any thread."""

    def __init__(self, connect: Callable[[], psycopg.Connection], *, own: Callable[[int], bool]) -> None:
        """Make it; nothing is opened before somebody waits.

        Args:
            connect: Opens a connection that commits each statement by itself.
            own: Tells whether a session of the server is this process's, whose hints say nothing new.
        """
        self._own = own
        self._connect = connect
        self._condition = threading.Condition()
        self._count = 0
        self._thread: threading.Thread | None = None
        self._tried = threading.Event()
        self._closed = False
        self._failing = False
        self._woken, self._waker = socket.socketpair()

    def start(self) -> int:
        """Start to listen, if need be, and return the count so far."""
        with self._condition:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="rheostat-listener", daemon=True)
                self._thread.start()
        self._tried.wait(_START)
        return self._count

    def wait(self, seen: int, timeout: float) -> int:
        """Return the count as soon as it differs from *seen*, or after *timeout* seconds, or when it is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._count != seen, timeout)
            return self._count

    def close(self) -> None:
        """End the thread and wake those who wait. Idempotent."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        self._tried.set()
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        if thread is not None and thread is not threading.current_thread():
            # Longer than it takes to give up a connection that is being opened.
            thread.join(10.0)
        self._waker.close()
        if thread is None or not thread.is_alive():
            self._woken.close()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
            connection: psycopg.Connection | None = None
            try:
                connection = self._connect()
                connection.execute(f"LISTEN {CHANNEL}".encode())
                if self._failing:
                    _logger.info("listens to the store again")
                self._failing = False
                pause = _FIRST_PAUSE
                # What was committed before it listened was told to nobody.
                self._ring()
                self._tried.set()
                self._listen(connection)
            except (RheostatError, psycopg.Error, OSError) as exc:
                if not self._failing and not self._closed:
                    _logger.warning("cannot listen to the store, and looks each second instead: %s", exc)
                self._failing = True
                self._tried.set()
            finally:
                if connection is not None:
                    connection.close()
            if not self._closed:
                # Nothing depends on the exact time; many nodes must not come back at once.
                self._ready(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _listen(self, connection: psycopg.Connection) -> None:
        pgconn = connection.pgconn
        heard = time.monotonic()
        asked = False
        while not self._closed:
            left = heard + _SILENCE - time.monotonic()
            if left > 0:
                if not self._ready(left, pgconn.socket):
                    continue
                pgconn.consume_input()
                heard = time.monotonic()
                while asked and not pgconn.is_busy():
                    asked = pgconn.get_result() is not None
                rung = False
                # What it says is not read: anybody who may connect to the database can say anything.
                while (hint := pgconn.notifies()) is not None:
                    rung = rung or not self._own(hint.be_pid)
                if rung:
                    self._ring()
            elif asked:
                raise TimeoutError("the server does not answer")
            else:
                pgconn.send_query(b"")
                asked = True
                heard = time.monotonic()

    def _ready(self, timeout: float, descriptor: int | None = None) -> bool:
        """Wait for *descriptor*, *timeout* seconds or `close`; return whether the descriptor has something."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ)
            return any(key.fd == descriptor for key, _ in selector.select(timeout))

    def _ring(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()
