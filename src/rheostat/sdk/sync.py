"""`Client`: the SDK for programs with threads, over `urllib3`."""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

from google.protobuf.message import Message

from rheo.v1 import watch_pb2
from rheo.v1.config_service_pb2 import PingRequest, PingResponse
from rheostat.errors import ClientClosedError, DeadlineExceededError, RheostatError
from rheostat.model.position import Position
from rheostat.sdk import fork
from rheostat.sdk.call import Answer, CallResult, calling, method_named
from rheostat.sdk.checker import Checker
from rheostat.sdk.client import BaseClient
from rheostat.sdk.effect import Fetch
from rheostat.sdk.reader import S
from rheostat.sdk.stream import Stream
from rheostat.sdk.subscription import SettingChange
from rheostat.sdk.thread_driver import ThreadDriver
from rheostat.sdk.transport import CancelScope

_EXEC_SECONDS: Final = 0.02
"""How long a child waits before it connects: it may run another program, or fork again and end."""

__all__ = ["Changes", "Client", "Stream"]


class Client(Checker[S], BaseClient[S]):
    """A live, local replica of one environment, for programs with threads. Safe from any thread.

    See `BaseClient` for the options and `Reader` for reading.
    """

    def start(self, *, wait: bool = True, timeout: float | None = None) -> Self:
        """Connect; does nothing when that was done.

        Args:
            wait: Wait until there is a state. When the server is away, the state of the cache ends the wait, and
                after *timeout* the program goes on with defaults; required settings have to be there.
            timeout: Seconds to wait at most; None is `start_timeout`.

        Raises:
            AuthenticationError: The key is refused.
            SettingNotFoundError: Required settings are not there.
            DeadlineExceededError: There are required settings, and no state in time.
            RheostatError: The server refuses the request otherwise.
        """
        options = self._core.options
        driver = self._driver()
        waited = options.start_timeout if timeout is None else timeout
        if wait and not driver.wait(waited, settle=True) and options.required:
            raise DeadlineExceededError(f"no state within {waited} s{self._core.excuse()}")
        return self

    def wait_ready(self, timeout: float | None = None) -> None:
        """Connect and wait until there is a state of the server with every required setting.

        Raises:
            DeadlineExceededError: Not within *timeout* seconds.
            RheostatError: As `start`.
        """
        if not self._driver().wait(timeout, settle=False):
            raise DeadlineExceededError(f"not ready within {timeout} s{self._core.excuse()}")

    def close(self) -> None:
        """Send events that wait, and end the stream, the threads and what waits for changes; reads go on.

        Returns within 1 s, or `flush_timeout` more when there are events to send.
        """
        core = self._core
        # So that no read starts one that nobody closes.
        with core.replica.lock():
            driver: ThreadDriver | None = core.driver  # type: ignore[assignment]
            core.replica.idle = None
            core.close()
        if driver is not None:
            driver.close()
        else:
            core.events.give_up()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def reload(self) -> Position:
        """Fetch the state now and return its position.

        Raises:
            RheostatError: It could not be fetched; the state is as it was.
        """
        self._core.check_open(reading=True)
        return self._driver().run(self._core.reloading())

    def ping(self) -> PingResponse:
        """Ask the server who it is.

        Raises:
            RheostatError: It does not answer.
        """
        found: CallResult[PingResponse] = self.call("Ping", PingRequest())
        return found.unwrap()

    def flush(self, timeout: float | None = 5.0) -> bool:
        """Send the events that are buffered now; tell whether all of them were, or given up, within *timeout* seconds.

        None waits until that has happened. Never raises; False also of a client that is closed or offline and has something to send.
        """
        if not self._core.events:
            return True
        try:
            return self._driver().events.flush(timeout)
        except RheostatError:
            return False

    def call(
        self,
        method: str,
        request: Message,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> CallResult[Any]:
        """Make any unary call of the contract, such as ``call("Commit", CommitRequest(...))``. Raises no RPC error.

        One that may be repeated, or has a request id, is, when that may help.

        Raises:
            ClientClosedError: The client was closed.
            FailedPreconditionError: It is offline.
            InvalidArgumentError: There is no such RPC.
        """
        core = self._core
        core.check_open()
        fetch = Fetch(method_named(method).name, request, timeout or core.options.timeout, headers or {})
        work = calling(fetch, retries=core.options.retries, randomness=core.randomness)
        try:
            answer: Answer[Any] = self._driver().run(work)
        except ClientClosedError:
            raise
        except RheostatError as error:
            return CallResult(None, error=error)
        return CallResult(answer.message, answer.headers, answer.trailers)

    @contextmanager
    def stream(
        self, request: watch_pb2.WatchRequest, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[Stream]:
        """Open a watch of your own, beside the client's.

        Raises:
            ClientClosedError: The client was closed.
            FailedPreconditionError: It is offline.
        """
        self._core.check_open()
        driver = self._driver()
        events = driver.connection.config.watch(
            request, headers={**self._core.call_headers(), **(headers or {})}
        )
        with CancelScope() as scope:
            try:
                yield Stream(events, driver.connection.url)
            finally:
                scope.cancel()

    def changes(self, name: str | None = None) -> Changes:
        """Return an iterator over the changes from now on, of *name* or of all settings; it ends with the client."""
        self._driver()
        found = Changes()
        self._tell(found, name)
        return found

    def after_fork(self) -> None:
        """Become the client of a child process; called by itself."""
        core = self._core
        driver: ThreadDriver | None = core.after_fork()  # type: ignore[assignment]
        for each in tuple(core.ending):
            each.after_fork()
        if driver is None:
            return
        driver.disown()
        fork.keep(driver)
        if not core.closed:
            core.replica.idle = self._idle
            if fork.runs_threads():
                # Not `Thread.start`, which waits for the thread: gevent cannot switch before it knows of the fork.
                _thread.start_new_thread(self._start_soon, ())

    def _driver(self) -> ThreadDriver:
        core = self._core
        with core.replica.lock():
            if core.closed:
                raise ClientClosedError("the client was closed")
            driver: ThreadDriver | None = core.driver  # type: ignore[assignment]
            if driver is None:
                driver = ThreadDriver(core)
                if not core.options.strict:
                    core.replica.idle = None
                try:
                    driver.start()
                except BaseException:
                    core.driver = None
                    with contextlib.suppress(RuntimeError):
                        # There may be a thread that was not started.
                        driver.close()
                    raise
                self._end_unreferred(driver)
        return driver

    def _start_soon(self) -> None:
        time.sleep(_EXEC_SECONDS)
        self._start_idle()

    def _start_idle(self) -> None:
        if self._core.driver is None and not self._core.closed:
            try:
                self._driver()
            except Exception as error:  # noqa: BLE001 - it is a read that has come here
                # At the end of the interpreter no thread can be started, and nobody wants to know.
                self._give_up(error, quietly=not threading.main_thread().is_alive())


class Changes(Iterator[SettingChange[Any]]):
    """The changes of a subscription, in order, for one thread. Iterating ends when it or the client is closed.

    A context manager, which closes it at its end. One that nothing refers to any more is closed, too.
    """

    def __init__(self) -> None:
        """Wait for what `put` brings."""
        self.stop: Callable[[], object] = lambda: None
        self._found: deque[SettingChange[Any]] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def after_fork(self) -> None:
        """Forget the lock, which a thread of the parent may have held."""
        self._changed = threading.Condition()

    def put(self, change: SettingChange[Any]) -> None:
        """Add a change."""
        with self._changed:
            self._found.append(change)
            self._changed.notify_all()

    def close(self) -> None:
        """End it, after the changes that have come already; may be called from any thread and twice."""
        self.stop()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> SettingChange[Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._found or self._ended)
            if not self._found:
                raise StopIteration
            return self._found.popleft()
