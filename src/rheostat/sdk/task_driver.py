"""Runs a client on an event loop, with two tasks; see `rheostat.sdk.thread_driver` for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, Final, TypeVar

from rheo.v1 import watch_pb2
from rheostat.errors import ClientClosedError, DeadlineExceededError, RheostatError
from rheostat.sdk import fork
from rheostat.sdk.async_connection import AnyConnection, connect
from rheostat.sdk.core import Core
from rheostat.sdk.effect import CloseStream, Effect, Fetch, OpenStream, Own, Receive, Sleep, run_awaiting
from rheostat.sdk.event_task import EventTask, at_exit
from rheostat.sdk.failure import translated
from rheostat.sdk.transport.body import LEAST_BYTES_PER_SECOND
from rheostat.sdk.watch_loop import Loop

__all__ = ["TaskDriver"]

T = TypeVar("T")

_CLOSE_SECONDS: Final = 0.8
"""How long `close` waits for the tasks before it cancels callbacks that go on."""

log = logging.getLogger("rheostat")


class TaskDriver:
    """See the module. For the event loop that runs when it is made; `wake` and `hurry` are safe from any thread."""

    def __init__(self, core: Core) -> None:
        """Prepare the tasks."""
        self.loop = asyncio.get_running_loop()
        self._core = core
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._hurried = False
        self._closing = False
        self._events: AsyncIterator[watch_pb2.WatchResponse] | None = None
        self._next: asyncio.Task[watch_pb2.WatchResponse | None] | None = None
        self._sleeping: asyncio.Event = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connection = None if core.options.offline else connect(core)
        self.events = EventTask(core, self.run)

    @property
    def connection(self) -> AnyConnection:
        """Makes calls; only of a client that is not offline."""
        assert self._connection is not None
        return self._connection

    def start(self) -> None:
        """Start the tasks and let the core know."""
        core = self._core
        core.driver = self
        core.dispatcher.wake = self.wake
        if self._connection is None:
            core.load_cache()
        work: list[Coroutine[Any, Any, None]] = [self._serve()]
        if self._connection is not None:
            work.append(self._watch())
        self._woken.set()  # What was queued before is to be delivered first.
        context = contextvars.Context()  # Not that of whoever starts the client.
        self._tasks = [self.loop.create_task(each, name="rheostat", context=context) for each in work]

    # What the core and the client ask for.

    def wake(self) -> None:
        """See `Driver`."""
        self._soon(self._wake)

    def hurry(self) -> None:
        """See `Driver`."""
        self._soon(self._hurry)

    def send(self) -> None:
        """See `Driver`."""
        # Now, as the loop may end before it comes to it.
        at_exit.add(self._core, self.loop)
        self._soon(self.events.wake)

    def _soon(self, what: Any) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            what()
            return
        with contextlib.suppress(RuntimeError):  # The loop may be closed already.
            self.loop.call_soon_threadsafe(what)

    def _wake(self) -> None:
        self._woken.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def _hurry(self) -> None:
        self._hurried = True
        self._sleeping.set()
        if self._next is not None:
            self._next.cancel()

    async def wait(self, timeout: float | None, *, settle: bool) -> bool:
        """Wait until the client is ready, with *settle* also with a state that is not the server's.

        Raises:
            RheostatError: It never will be; see `Core.readiness`.
        """
        core = self._core
        try:
            async with asyncio.timeout(timeout):
                while not (core.readiness() and (core.settled if settle else core.confirmed_ready)):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, work: Generator[Effect, Any, T]) -> T:
        """Run unary *work* and return its result.

        Raises:
            RheostatError: It failed, or the client was closed.
        """
        return await run_awaiting(work, self._unary)

    async def close(self) -> None:
        """Send what is left and end the tasks; returns within the time for that and a second."""
        if self._closing or self.loop.is_closed():
            return
        await self.events.close()
        self._closing = True
        self._wake()
        self._sleeping.set()
        for task in self._tasks[1:]:
            task.cancel()
        waited = [task for task in self._tasks if task is not asyncio.current_task()]
        if waited:
            _, late = await asyncio.wait(waited, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
        if self._connection is not None:
            await self._connection.close()
        self._core.events.give_up()
        for each in tuple(self._core.ending):
            each.close()

    def disown(self) -> None:
        """Leave all to the parent process: in its child not even the end of the event loop reaches its connections."""
        self._closing = True
        self.events.disown()
        # Referred to for good, or its finalizer would run.
        fork.keep(self._events)
        self._events = None
        if self._connection is not None:
            self._connection.disown()

    # The tasks.

    async def _watch(self) -> None:
        await asyncio.to_thread(self._core.load_cache)
        while not self._closing:
            loop = self._core.loop()
            try:
                await self._follow(loop)
            except GeneratorExit:
                # The event loop was closed without cancelling its tasks: nothing can be awaited any more.
                self._core.adrift(self)
                raise
            except asyncio.CancelledError:
                await self._leave()
                if not self._closing:
                    self._core.adrift(self)
                    await self.connection.close()
                raise
            except Exception:
                # A defect of ours must not end the watch for good.
                log.exception("the watch of the configuration has failed; it begins anew")
                await self._leave()
                await asyncio.sleep(self._core.options.backoff[1])
            finally:
                loop.close()
        await self._leave()

    async def _follow(self, loop: Loop) -> None:
        effect = next(loop)
        while not self._closing:
            try:
                result = await self._perform(effect)
            except RheostatError as error:
                if self._closing:
                    return
                effect = loop.throw(error)
            else:
                effect = loop.send(result)

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case OpenStream(request):
                await self._leave()
                self._events = self.connection.watch(request)
            case Receive(timeout):
                return await self._receive(timeout)
            case CloseStream():
                await self._leave()
            case Sleep():
                await self._unary(effect)
                self._hurried = False
                self._sleeping.clear()
            case _:
                return await self._unary(effect)
        return None

    async def _receive(self, timeout: float) -> watch_pb2.WatchResponse | None:
        assert self._events is not None
        if self._hurried:
            return None
        task = self._next = asyncio.ensure_future(anext(self._events, None))
        # What it raises after it was given up has been asked for, as far as asyncio is concerned.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            while True:
                received = self.connection.received_bytes
                done, _ = await asyncio.wait({task}, timeout=timeout)
                if done:
                    return task.result()
                if self.connection.received_bytes - received < timeout * LEAST_BYTES_PER_SECOND:
                    raise DeadlineExceededError(f"nothing from {self.connection.url} for {timeout:.1f} s")
        except asyncio.CancelledError:
            if task.cancelled() and self._hurried and not self._closing:
                return None
            raise
        except Exception as error:
            raise translated(error, self.connection.url) from error
        finally:
            self._next = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _leave(self) -> None:
        events, self._events = self._events, None
        close = getattr(events, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - it is being left, for whatever reason
                log.debug("leaving a stream: %s", error)

    async def _unary(self, effect: Effect) -> Any:
        if self._closing:
            raise ClientClosedError("the client was closed")
        match effect:
            case Fetch():
                return await self.connection.fetch(effect)
            case Sleep(seconds):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._sleeping.wait()
            case Own():
                return await effect.awaited()
        return None

    async def _serve(self) -> None:
        while True:
            due = self._core.tick()
            if not self._woken.is_set() and not self._closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due):
                        await self._woken.wait()
            self._woken.clear()
            closing = self._closing
            await self._core.dispatcher.deliver_async()
            while self._core.jobs and not closing:
                try:
                    await self.run(self._core.jobs.popleft())
                except Exception as error:
                    log.debug("a call of the client has failed: %s", error, exc_info=True)
            write = self._core.cache_due(closing=closing)
            if write is not None:
                await asyncio.to_thread(write)
            if closing:
                return
