"""Sends events in a task of its own; see `rheostat.sdk.event_thread`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from rheostat.sdk.async_connection import AnyConnection, connect
from rheostat.sdk.core import Core
from rheostat.sdk.effect import Effect, Fetch, Sleep, run_awaiting

__all__ = ["EventTask", "at_exit", "send_rest"]

log = logging.getLogger("rheostat")


class _AtExit:
    """The clients whose events are to be sent when the process ends, should their event loop have ended before."""

    def __init__(self) -> None:
        self._loops: dict[Core, asyncio.AbstractEventLoop | None] = {}
        self._registered = False

    def add(self, core: Core, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Let what *core* has buffered be sent at the end of the process, unless it was closed or *loop* goes on."""
        if not self._registered:
            self._registered = True
            atexit.register(self._send)
        self._loops[core] = loop

    def discard(self, core: Core) -> None:
        """Take it back."""
        self._loops.pop(core, None)

    def _send(self) -> None:
        while self._loops:
            core, loop = self._loops.popitem()
            if core.closed or not core.events or (loop is not None and not loop.is_closed()):
                continue
            if core.options.http_client is not None and core.options.http_client_factory is None:
                # A session of a loop that is gone, and maybe the only one that passes a proxy.
                log.warning("events were not sent, as the client was not closed")
                continue
            core.events.hasten()
            asyncio.run(send_rest(core))


at_exit: Final = _AtExit()


async def send_rest(core: Core) -> None:
    """Send what a client without a driver has buffered, for as long as closing may take; raises nothing."""
    try:
        async with asyncio.timeout(core.options.flush_timeout):
            connection = connect(core)
            try:
                while core.events:
                    await asyncio.sleep(core.events.due(wanted=True) or 0.0)
                    await run_awaiting(core.events.sending(), functools.partial(_performed, connection))
            finally:
                await connection.close()
    except Exception as error:  # noqa: BLE001 - nobody can do anything about it any more
        log.warning("events were not sent before the client has ended: %s", str(error) or "there was no time")


async def _performed(connection: AnyConnection, effect: Effect) -> Any:
    match effect:
        case Fetch():
            return await connection.fetch(effect)
        case Sleep(seconds):
            await asyncio.sleep(seconds)
    return None


class EventTask:
    """See the module. For the event loop that runs when it is made."""

    def __init__(
        self, core: Core, run: Callable[[Generator[Effect, Any, None]], Coroutine[Any, Any, None]]
    ) -> None:
        """Prepare to send what *core* has buffered; *run* does work."""
        self._loop = asyncio.get_running_loop()
        self._core = core
        self._buffer = core.events
        self._run_work = run
        self._woken = asyncio.Event()
        self._passed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._closing = False
        if self._buffer:
            self.wake()

    def wake(self) -> None:
        """Look at the buffer; starts the task if need be."""
        self._woken.set()
        if self._task is None and not self._closing:
            self._task = self._loop.create_task(
                self._run(), name="rheostat-events", context=contextvars.Context()
            )

    async def flush(self, timeout: float | None) -> bool:
        """Send all that is buffered now; tell whether that, and nothing less, has happened in *timeout* seconds, if any."""
        mark = self._buffer.mark()
        self._buffer.hasten()
        self._waiting += 1
        self.wake()
        try:
            async with asyncio.timeout(timeout):
                while not self._buffer.passed(mark):
                    if self._closing:
                        return False
                    await self._passed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    async def close(self) -> None:
        """Send what is left, and end; returns within the time for that, and does nothing the second time."""
        timeout = self._core.options.flush_timeout
        at_exit.discard(self._core)
        self._buffer.hasten()
        self._closing = True
        self._woken.set()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            _, late = await asyncio.wait({task}, timeout=timeout)
            for each in late:
                each.cancel()
                await asyncio.wait(late, timeout=timeout)

    def disown(self) -> None:
        """Leave all to the parent process."""
        self._closing = True
        at_exit.discard(self._core)

    async def _run(self) -> None:
        buffer = self._buffer
        try:
            while True:
                while not self._closing:
                    self._woken.clear()
                    # Before the buffer is looked at: what comes afterwards wakes.
                    at_exit.discard(self._core)
                    buffer.asleep = True
                    due = buffer.due(wanted=self._waiting > 0)
                    buffer.asleep = due is None
                    if due is not None:
                        at_exit.add(self._core, self._loop)
                    if due is not None and due <= 0:
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(due):
                            await self._woken.wait()
                closing = self._closing
                buffer.asleep = False
                await self._run_work(buffer.sending())
                self._passed.set()
                self._passed = asyncio.Event()
                if closing:
                    break
            while buffer:
                # Until all is sent, or `close` cancels it: nobody will later.
                await asyncio.sleep(buffer.due(wanted=True) or 0.0)
                await self._run_work(buffer.sending())
        finally:
            buffer.asleep = True
            self._passed.set()
