"""Sends events in a thread of its own, which starts with the first one: no call for them holds up anything else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from rheostat.sdk.core import Core
from rheostat.sdk.effect import Effect

__all__ = ["EventThread"]


class EventThread:
    """See the module. Safe from any thread."""

    def __init__(
        self,
        core: Core,
        run: Callable[[Generator[Effect, Any, None]], None],
        start: Callable[[str, Callable[[], None]], threading.Thread],
    ) -> None:
        """Prepare to send what a client has buffered.

        Args:
            core: The client's.
            run: Runs work in the thread that calls it.
            start: Starts a daemon thread of a name.
        """
        self._buffer = core.events
        self._flush_timeout = core.options.flush_timeout
        self._run_work = run
        self._start = start
        # Guards what follows, and is what everybody waits for.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self._closing = False
        self._disowned = False
        self._ended = False
        self._stay: Callable[[], None] = lambda: None
        if self._buffer:
            self.wake()

    def wake(self) -> None:
        """Look at the buffer; starts the thread if need be."""
        with self._changed:
            self._changed.notify_all()
            if self._thread is None and not self._closing:
                self._stay = at_exit_of_child(self.close)
                self._thread = self._start("rheostat-events", self._run)

    def flush(self, timeout: float | None) -> bool:
        """Send all that is buffered now; tell whether that, and nothing less, has happened in *timeout* seconds, if any."""
        limit = None if timeout is None else time.monotonic() + timeout
        mark = self._buffer.mark()
        self._buffer.hasten()
        self.wake()
        with self._changed:
            self._waiting += 1
            try:
                while not self._buffer.passed(mark):
                    left = None if limit is None else limit - time.monotonic()
                    if self._closing or (left is not None and left <= 0):
                        return False
                    self._changed.wait(left)
            finally:
                self._waiting -= 1
        return True

    def close(self) -> None:
        """Send what is left, and end; returns within the time for that, and does nothing the second time."""
        with self._changed:
            if self._buffer and not self._closing and not self._disowned:
                self._buffer.hasten()
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._flush_timeout)
        self._ended = True
        # Not before: the end of the process waits for another thread that closes, too.
        self._stay()

    def disown(self) -> None:
        """Leave all to the parent process. Takes no lock, as a thread of the parent may have held it."""
        self._disowned = self._closing = True
        self._stay()

    def _run(self) -> None:
        buffer = self._buffer
        while True:
            with self._changed:
                while not self._closing:
                    # Before the buffer is looked at: what comes afterwards wakes.
                    buffer.asleep = True
                    due = buffer.due(wanted=self._waiting > 0)
                    buffer.asleep = due is None
                    if due is not None and due <= 0:
                        break
                    self._changed.wait(due)
                buffer.asleep = False
                closing = self._closing
            if self._disowned:
                # A greenlet of the parent process.
                return
            self._run_work(buffer.sending())
            with self._changed:
                self._changed.notify_all()
            if closing:
                self._run_rest()
                return

    def _run_rest(self) -> None:
        """Try again until all is sent or the time for closing is over: nobody will later."""
        limit = time.monotonic() + self._flush_timeout
        while not self._disowned and self._buffer and (left := limit - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(min(left, self._buffer.due(wanted=True) or 0.0))
            if not self._ended:
                self._run_work(self._buffer.sending())
            else:
                return


def at_exit_of_child(call: Callable[[], None]) -> Callable[[], None]:
    """Let a process that `multiprocessing` has forked call *call* before it ends, as it ends without `atexit`.

    Returns:
        What takes it back.
    """
    util: Any = sys.modules.get("multiprocessing.util")
    if util is None:
        return lambda: None
    finalizer = util.Finalize(None, call, exitpriority=0)
    return lambda: finalizer.cancel()  # noqa: PLW0108 - once called it has lost its own method
