"""Both clients through one interface that waits: the asynchronous one lives on an event loop in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from rheostat import AsyncClient, Client, Status
from tests.e2e.process import PATIENCE, wait_until

__all__ = ["DRIVERS", "Driven", "Home"]

DRIVERS: Final = ("sync", "async")


class Home:
    """Where clients of one kind live: a few threads, or an event loop in a thread."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="test")
        self._thread = threading.Thread(target=self._live, name="test-loop", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, function: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Call *function* where the clients live, await what it gives if that is to be awaited, and return it."""
        if self.kind == "sync":
            return self._threads.submit(function).result(patience)

        async def awaited() -> Any:
            found = function()
            return await found if inspect.isawaitable(found) else found

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(patience)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)
        # What is still on its way to be closed gets the time for it.
        asyncio.run_coroutine_threadsafe(_settled(), self.loop).result(PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


async def _settled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()


class Driven:
    """A client. What has to be awaited on `AsyncClient` waits here; all else is the client's own.

    Attributes:
        statuses: Those that `on_status` was called with.
        hellos: With which each stream began.
        errors: Those that `on_update_error` was called with.
    """

    def __init__(self, home: Home, *args: Any, **options: Any) -> None:
        self.home = home
        self.statuses: list[Status] = []
        self.errors: list[Exception] = []
        self.hellos: list[Any] = []
        made: type[Client | AsyncClient] = Client if home.kind == "sync" else AsyncClient
        options.setdefault("on_status", self.statuses.append)
        options.setdefault("on_update_error", self.errors.append)
        self.client: Any = made(*args, **options)
        core = self.client._core
        connected = core.connected

        def noted(hello: Any) -> None:
            self.hellos.append(hello)
            connected(hello)

        core.connected = noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def __getitem__(self, name: str) -> Any:
        return self.client[name]

    def __contains__(self, name: str) -> bool:
        return name in self.client

    def __iter__(self) -> Iterator[str]:
        return iter(self.client)

    def __len__(self) -> int:
        return len(self.client)

    def run(self, function: Callable[[Any], Any], patience: float = PATIENCE) -> Any:
        """Call *function* with the client where that lives."""
        return self.home.run(lambda: function(self.client), patience)

    def start(self, **options: Any) -> Driven:
        self.run(lambda client: client.start(**options))
        return self

    def wait_ready(self, timeout: float | None = PATIENCE) -> None:
        self.run(lambda client: client.wait_ready(timeout))

    def reload(self) -> Any:
        return self.run(lambda client: client.reload())

    def ping(self) -> Any:
        return self.run(lambda client: client.ping())

    def call(self, *args: Any, **options: Any) -> Any:
        return self.run(lambda client: client.call(*args, **options))

    def close(self) -> float:
        """Close it; returns the seconds that took."""
        started = time.monotonic()
        self.run(lambda client: client.close())
        return time.monotonic() - started

    def changes(self, name: str | None = None) -> Changes:
        return Changes(self.home, self.run(lambda client: client.changes(name)))

    @contextmanager
    def stream(self, request: Any, **options: Any) -> Iterator[Changes]:
        """Open a stream; it is read as changes are."""
        manager = self.client.stream(request, **options)
        if self.home.kind == "sync":
            # Its scope is of the thread that enters it, and so everything happens in that one.
            with manager as stream:
                yield Changes(self.home, stream, here=True)
            return
        found = Changes(self.home, self.home.run(manager.__aenter__))
        try:
            yield found
        finally:
            self.home.run(lambda: manager.__aexit__(None, None, None))

    def until(self, condition: Callable[[Any], bool], patience: float = PATIENCE) -> float:
        """Wait until *condition* is true of the client; returns the seconds that took."""
        return wait_until(lambda: condition(self.client), patience)

    def until_value(self, name: str, value: object, patience: float = PATIENCE) -> float:
        """Wait until the setting has the *value*; returns the seconds that took."""
        started = time.monotonic()
        pause = threading.Event()
        while (found := self.client.get(name)) != value:
            assert time.monotonic() < started + patience, (
                f"{name} is {found!r} for {patience} s, not {value!r}"
            )
            pause.wait(0.01)
        return time.monotonic() - started


class Changes:
    """An iterator of either kind, read with patience."""

    def __init__(self, home: Home, iterator: Any, *, here: bool = False) -> None:
        self.iterator = iterator
        self._home = home
        self._here = here

    def next(self, patience: float = PATIENCE) -> Any:
        """Return the next one; None at the end."""
        return self._next() if self._here else self._home.run(self._next, patience)

    def _next(self) -> Any | Awaitable[Any]:
        return next(self.iterator, None) if self._home.kind == "sync" else anext(self.iterator, None)
