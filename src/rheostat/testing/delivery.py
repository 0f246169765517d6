"""What stands in the place of a driver in a stub: changes are told by whoever makes them, before that returns."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from typing import Any, NoReturn

from rheostat.errors import FailedPreconditionError
from rheostat.sdk import ambient
from rheostat.sdk.core import Core
from rheostat.sdk.subscription import failed

__all__ = ["AsyncDelivery", "Delivery"]

_Calls = Iterator[tuple[Callable[..., object], tuple[Any, ...]]]


class Delivery:
    """The driver of a stub, and the lock of its replica, which delivers when it is left.

    So callbacks run when all of a change is visible, in the thread that has made it, and outside of the lock. What a
    callback changes is told after what was to be told already.
    """

    def __init__(self, core: Core) -> None:
        """Deliver what *core* has to tell."""
        self._core = core
        self._lock = threading.RLock()
        self._depth = 0
        self._owner = 0
        # Held while callbacks run, so that they run one after another.
        self._turn = threading.Lock()
        core.driver = self
        core.replica._locks[""] = self

    # The lock.

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        self._owner = threading.get_ident()

    def __exit__(self, *exc_info: object) -> None:
        self._depth -= 1
        outermost = self._depth == 0
        if outermost:
            self._owner = 0
        self._lock.release()
        if outermost:
            self._deliver()

    # The driver.

    @property
    def connection(self) -> NoReturn:
        """Nothing makes calls.

        Raises:
            FailedPreconditionError: Always.
        """
        raise _no_server()

    def wake(self) -> None:
        """See `Driver`."""
        if self._owner != threading.get_ident():
            self._deliver()

    def hurry(self) -> None:
        """See `Driver`."""

    def send(self) -> None:
        """See `Driver`."""

    def wait(self, timeout: float | None, *, settle: bool) -> bool:
        """Tell whether the client is ready; see `ThreadDriver.wait`."""
        return self._core.readiness()

    def run(self, work: Generator[Any, Any, object]) -> NoReturn:
        """Refuse to ask a server.

        Raises:
            FailedPreconditionError: Always.
        """
        work.close()
        raise _no_server()

    def close(self) -> None:
        """Close what ends with the client."""
        for each in tuple(self._core.ending):
            each.close()

    # Telling.

    def _deliver(self) -> None:
        # Looked at again after each turn: another thread may have come while this one was ending its own.
        while self._core.dispatcher and self._turn.acquire(blocking=False):
            try:
                for callback, arguments in self._core.dispatcher.calls():
                    self._call(callback, arguments)
            finally:
                self._turn.release()

    def _call(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> object:
        """Return what *callback* returns, called without the ambient context and the pins of whoever made a change."""
        context = copy_context()
        context.run(ambient.current.set, None)
        try:
            return context.run(callback, *arguments)
        except Exception as error:  # noqa: BLE001 - a callback is the caller's
            failed(callback, error)
            return None


class AsyncDelivery(Delivery):
    """Delivers to coroutine functions as well: these are awaited by a task, and all that follows waits for them."""

    def __init__(self, core: Core) -> None:
        """Deliver what *core* has to tell."""
        super().__init__(core)
        self._task: asyncio.Task[None] | None = None

    async def wait(self, timeout: float | None, *, settle: bool) -> bool:  # type: ignore[override]
        """Tell whether the client is ready; see `TaskDriver.wait`."""
        return self._core.readiness()

    async def run(self, work: Generator[Any, Any, object]) -> NoReturn:  # type: ignore[override]
        """Refuse to ask a server.

        Raises:
            FailedPreconditionError: Always.
        """
        super().run(work)

    async def close(self) -> None:  # type: ignore[override]
        """Wait for the callbacks and close what ends with the client."""
        await self.delivered()
        super().close()

    async def delivered(self) -> None:
        """Wait until everything has been told; returns at once inside a callback."""
        while self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait({self._task})

    def _deliver(self) -> None:
        while self._core.dispatcher and self._turn.acquire(blocking=False):
            calls = self._core.dispatcher.calls()
            pending: tuple[Any, Callable[..., object]] | None = None
            try:
                for callback, arguments in calls:
                    found = self._call(callback, arguments)
                    if inspect.isawaitable(found) and self._may_await(found, callback):
                        pending = found, callback
                        break
            finally:
                if pending is None:
                    self._turn.release()
            if pending is not None:
                # It has the turn until it ends.
                self._task = asyncio.get_running_loop().create_task(self._rest(*pending, calls))
                return

    @staticmethod
    def _may_await(found: Any, callback: Callable[..., object]) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            if inspect.iscoroutine(found):
                found.close()
            failed(callback, error)
            return False
        return True

    async def _rest(self, found: Any, callback: Callable[..., object], calls: _Calls) -> None:
        try:
            while True:
                if inspect.isawaitable(found):
                    try:
                        await found
                    except Exception as error:  # noqa: BLE001 - a callback is the caller's
                        failed(callback, error)
                try:
                    callback, arguments = next(calls)
                except StopIteration:
                    break
                found = self._call(callback, arguments)
        finally:
            self._task = None
            self._turn.release()
        self._deliver()


def _no_server() -> FailedPreconditionError:
    return FailedPreconditionError("a stub has no server to ask; use rheostat.testing.LocalServer")
