"""Runs a client on two daemon threads.

One runs the watch loop and waits for the stream. The other delivers callbacks, keeps the timers, writes the cache and
makes the calls that the core wants, so that none of these holds up the stream.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeVar

from rheo.v1 import watch_pb2
from rheostat.errors import ClientClosedError, RheostatError
from rheostat.sdk.connection import AnyConnection, connect
from rheostat.sdk.core import Core
from rheostat.sdk.effect import CloseStream, Effect, Fetch, OpenStream, Own, Receive, Sleep
from rheostat.sdk.event_thread import EventThread
from rheostat.sdk.failure import translated
from rheostat.sdk.transport import CancelScope
from rheostat.sdk.watch_loop import Loop

__all__ = ["ThreadDriver"]

T = TypeVar("T")

_CLOSE_SECONDS: Final = 0.9
"""How long `close` waits for the threads; one that is still opening a connection ends by itself later."""

log = logging.getLogger("rheostat")


class ThreadDriver:
    """See the module. Made when the client starts, so that `threading` may be patched until then."""

    def __init__(self, core: Core) -> None:
        """Prepare the threads."""
        self._core = core
        self._connection = None if core.options.offline else connect(core)
        # Guards what follows, and is what everybody waits for.
        self._changed = threading.Condition()
        # What was queued before is to be delivered first.
        self._woken = True
        self._hurried = False
        self._closing = False
        self._parked: _thread.LockType | None = None
        self._scope: CancelScope | None = None
        self._events: Iterator[watch_pb2.WatchResponse] | None = None
        self._threads: list[threading.Thread] = []
        self.events = EventThread(core, self.run, self._run_thread)

    @property
    def connection(self) -> AnyConnection:
        """Makes calls; only of a client that is not offline."""
        assert self._connection is not None
        return self._connection

    def start(self) -> None:
        """Start the threads and let the core know."""
        core = self._core
        core.driver = self
        core.dispatcher.wake = self.wake
        if self._connection is None:
            core.load_cache()
        self._run_thread("rheostat-notify", self._serve)
        if self._connection is not None:
            self._run_thread("rheostat-watch", self._watch)
        atexit.register(self.close)

    def _run_thread(self, name: str, target: Any) -> threading.Thread:
        # Not in the context of whoever happens to start the client, which some threads inherit.
        run = contextvars.Context().run

        def work() -> None:
            run(target)
            if self._parked is not None:
                # A greenlet of the parent process: the end of a thread that is none here is not foreseen.
                self._parked.acquire()

        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    # What the core and the client ask for.

    def wake(self) -> None:
        """See `Driver`."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """See `Driver`."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            scope = self._scope
        if scope is not None:
            scope.cancel()

    def send(self) -> None:
        """See `Driver`."""
        self.events.wake()

    def wait(self, timeout: float | None, *, settle: bool) -> bool:
        """Wait until the client is ready, with *settle* also with a state that is not the server's.

        Raises:
            RheostatError: It never will be; see `Core.readiness`.
        """
        core = self._core
        limit = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if core.readiness() and (core.settled if settle else core.confirmed_ready):
                    return True
                left = None if limit is None else limit - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)

    def run(self, work: Generator[Effect, Any, T]) -> T:
        """Run unary *work* in this thread and return its result.

        Raises:
            RheostatError: It failed, or the client was closed.
        """
        # What ends this need not be an error of ours, and work that is cut off has to let go of what it holds.
        with contextlib.closing(work):
            try:
                effect = next(work)
                while True:
                    try:
                        result = self._unary(effect)
                    except RheostatError as error:
                        effect = work.throw(error)
                    else:
                        effect = work.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    def close(self) -> None:
        """Send what is left and end the threads; returns within the time for that and `_CLOSE_SECONDS`."""
        self.events.close()
        with self._changed:
            again, self._closing = self._closing, True
            self._changed.notify_all()
        if self._connection is not None and not again:
            self._connection.close()
        limit = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))
        # Not before: the end of the program waits for another thread that closes, too.
        atexit.unregister(self.close)
        self._core.events.give_up()
        for each in tuple(self._core.ending):
            each.close()

    def disown(self) -> None:
        """Leave all to the parent process. Takes no lock, as a thread of the parent may have held any.

        Greenlets do survive a fork, and stand still then.
        """
        self._parked = _thread.allocate_lock()
        self._parked.acquire()
        self._closing = True
        atexit.unregister(self.close)
        self.events.disown()
        if self._connection is not None:
            self._connection.disown()

    # The threads.

    def _watch(self) -> None:
        self._core.load_cache()
        while not self._closing:
            loop = self._core.loop()
            try:
                self._follow(loop)
            except ClientClosedError:
                break
            except Exception:
                # A defect of ours must not end the watch for good.
                log.exception("the watch of the configuration has failed; it begins anew")
                with contextlib.suppress(ClientClosedError):
                    self._unary(Sleep(self._core.options.backoff[1]))
            finally:
                self._leave()
                loop.close()

    def _follow(self, loop: Loop) -> None:
        effect = next(loop)
        while not self._closing:
            try:
                result = self._perform(effect)
            except ClientClosedError:
                raise
            except RheostatError as error:
                effect = loop.throw(error)
            else:
                effect = loop.send(result)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case OpenStream(request):
                self._leave()
                with self._changed:
                    self._scope = CancelScope()
                self._scope.__enter__()
                self._events = self.connection.watch(request)
            case Receive(timeout):
                return self._receive(timeout)
            case CloseStream():
                self._leave()
            case Sleep():
                self._unary(effect, watching=True)
                self._hurried = False
            case _:
                return self._unary(effect)
        return None

    def _receive(self, timeout: float) -> watch_pb2.WatchResponse | None:
        assert self._events is not None
        if self._hurried:
            return None
        self.connection.wait_at_most(timeout)
        try:
            return next(self._events, None)
        except Exception as error:
            if self._closing:
                raise ClientClosedError("the client was closed") from error
            if self._hurried:
                return None
            raise translated(error, self.connection.url) from error

    def _leave(self) -> None:
        events, self._events = self._events, None
        with self._changed:
            scope, self._scope = self._scope, None
        if scope is not None:
            scope.cancel()
            scope.__exit__(None, None, None)
        close = getattr(events, "close", None)
        if close is not None:
            try:
                close()
            except Exception as error:  # noqa: BLE001 - it is being left, for whatever reason
                log.debug("leaving a stream: %s", error)

    def _unary(self, effect: Effect, *, watching: bool = False) -> Any:
        if self._closing:
            raise ClientClosedError("the client was closed")
        match effect:
            case Fetch():
                try:
                    return self.connection.fetch(effect)
                except RheostatError:
                    if self._closing:
                        raise ClientClosedError("the client was closed") from None
                    raise
            case Sleep(seconds):
                limit = time.monotonic() + seconds
                with self._changed:
                    while (left := limit - time.monotonic()) > 0:
                        if self._closing or (watching and self._hurried):
                            break
                        self._changed.wait(left)
            case Own():
                return effect.blocking()
        return None

    def _serve(self) -> None:
        while True:
            due = self._core.tick()
            with self._changed:
                if not self._woken and not self._closing:
                    self._changed.wait(due)
                self._woken = False
                closing = self._closing
            if self._parked is not None:
                return
            self._core.dispatcher.deliver()
            while self._core.jobs and not closing:
                try:
                    self.run(self._core.jobs.popleft())
                except Exception as error:
                    log.debug("a call of the client has failed: %s", error, exc_info=True)
            write = self._core.cache_due(closing=closing)
            if write is not None:
                write()
            if closing:
                return
