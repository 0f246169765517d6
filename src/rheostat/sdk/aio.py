"""`AsyncClient`: the SDK for asyncio, over `aiohttp`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Self

from google.protobuf.message import Message

from rheo.v1 import watch_pb2
from rheo.v1.config_service_pb2 import PingRequest, PingResponse
from rheostat.errors import ClientClosedError, DeadlineExceededError, RheostatError
from rheostat.model.position import Position
from rheostat.sdk import fork
from rheostat.sdk.call import Answer, CallResult, calling, method_named
from rheostat.sdk.checker import AsyncChecker
from rheostat.sdk.client import BaseClient
from rheostat.sdk.effect import Fetch
from rheostat.sdk.event_task import at_exit, send_rest
from rheostat.sdk.reader import S
from rheostat.sdk.stream import AsyncStream
from rheostat.sdk.subscription import SettingChange
from rheostat.sdk.task_driver import TaskDriver

__all__ = ["AsyncChanges", "AsyncClient", "AsyncStream"]


class AsyncClient(AsyncChecker[S], BaseClient[S]):
    """A live, local replica of one environment, for programs with an event loop.

    Reads are plain methods, which may be called from any thread or task; what is awaited belongs to one event loop
    at a time. A client whose loop was closed starts anew on the next one. See `BaseClient` for the options and
    `Reader` for reading.
    """

    _waits: ClassVar[bool] = False

    async def start(self, *, wait: bool = True, timeout: float | None = None) -> Self:
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
        if wait and not await driver.wait(waited, settle=True) and options.required:
            raise DeadlineExceededError(f"no state within {waited} s{self._core.excuse()}")
        return self

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Connect and wait until there is a state of the server with every required setting.

        Raises:
            DeadlineExceededError: Not within *timeout* seconds.
            RheostatError: As `start`.
        """
        if not await self._driver().wait(timeout, settle=False):
            raise DeadlineExceededError(f"not ready within {timeout} s{self._core.excuse()}")

    async def close(self) -> None:
        """Send events that wait, and end the stream, the tasks and what waits for changes; reads go on.

        Returns within 1 s, or `flush_timeout` more when there are events to send.
        """
        core = self._core
        # So that no read starts one that nobody closes.
        with core.replica.lock():
            driver: TaskDriver | None = core.driver  # type: ignore[assignment]
            core.replica.idle = core.restart = None
            core.close()
        at_exit.discard(core)
        if driver is not None:
            await driver.close()
        if core.events:
            # No loop has run since they were told, or it has ended before they were sent.
            core.events.hasten()
            await send_rest(core)
            core.events.give_up()

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def reload(self) -> Position:
        """Fetch the state now and return its position.

        Raises:
            RheostatError: It could not be fetched; the state is as it was.
        """
        self._core.check_open(reading=True)
        return await self._driver().run(self._core.reloading())

    async def ping(self) -> PingResponse:
        """Ask the server who it is.

        Raises:
            RheostatError: It does not answer.
        """
        found: CallResult[PingResponse] = await self.call("Ping", PingRequest())
        return found.unwrap()

    async def flush(self, timeout: float | None = 5.0) -> bool:
        """Send the events that are buffered now; tell whether all of them were, or given up, within *timeout* seconds.

        None waits until that has happened. Never raises; False also of a client that is closed or offline and has something to send.
        """
        if not self._core.events:
            return True
        try:
            return await self._driver().events.flush(timeout)
        except RheostatError:
            return False

    async def call(
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
            answer: Answer[Any] = await self._driver().run(work)
        except ClientClosedError:
            raise
        except RheostatError as error:
            return CallResult(None, error=error)
        return CallResult(answer.message, answer.headers, answer.trailers)

    @asynccontextmanager
    async def stream(
        self, request: watch_pb2.WatchRequest, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncStream]:
        """Open a watch of your own, beside the client's.

        Raises:
            ClientClosedError: The client was closed.
            FailedPreconditionError: It is offline.
        """
        self._core.check_open()
        connection = self._driver().connection
        events = connection.config.watch(request, headers={**self._core.call_headers(), **(headers or {})})
        try:
            yield AsyncStream(events, connection.url)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def changes(self, name: str | None = None) -> AsyncChanges:
        """Return an iterator over the changes from now on, of *name* or of all settings; it ends with the client."""
        self._driver()
        found = AsyncChanges()
        self._tell(found, name)
        return found

    def after_fork(self) -> None:
        """Become the client of a child process, which starts on its own event loop; called by itself."""
        core = self._core
        driver: TaskDriver | None = core.after_fork()  # type: ignore[assignment]
        if driver is not None:
            driver.disown()
            fork.keep(driver)
            if not core.closed:
                core.replica.idle = self._idle

    def _driver(self) -> TaskDriver:
        core = self._core
        with core.replica.lock():
            if core.closed:
                raise ClientClosedError("the client was closed")
            driver: TaskDriver | None = core.driver  # type: ignore[assignment]
            if driver is None or driver.loop.is_closed():
                driver = TaskDriver(core)
                core.restart = self._idle
                if not core.options.strict:
                    core.replica.idle = None
                try:
                    driver.start()
                except BaseException:
                    core.driver = None
                    self._failed_start = driver.loop.create_task(driver.close())
                    raise
        return driver

    def _start_idle(self) -> None:
        if self._core.driver is None and not self._core.closed:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                # The read is answered, and nothing starts.
                if self._core.events:
                    at_exit.add(self._core)
                return
            try:
                self._driver()
            except Exception as error:  # noqa: BLE001 - it is a read that has come here
                self._give_up(error)


class AsyncChanges(AsyncIterator[SettingChange[Any]]):
    """The changes of a subscription, in order, for one task. Iterating ends when it or the client is closed.

    An asynchronous context manager, which closes it at its end. One that nothing refers to any more is closed, too.
    """

    def __init__(self) -> None:
        """Wait for what `put` brings."""
        self.stop: Callable[[], object] = lambda: None
        self._found: deque[SettingChange[Any]] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, change: SettingChange[Any]) -> None:
        """Add a change."""
        self._found.append(change)
        self._changed.set()

    def close(self) -> None:
        """End it, after the changes that have come already; may be called twice."""
        self.stop()
        self._ended = True
        self._changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> SettingChange[Any]:
        while not self._found:
            if self._ended:
                raise StopAsyncIteration
            # A new one, which belongs to the event loop that runs now.
            self._changed = asyncio.Event()
            await self._changed.wait()
        return self._found.popleft()
