"""Ending calls before they end by themselves: scopes for threads, true cancellation for asyncio."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

from connectrpc.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType
    from typing import Any, Self

    from connectrpc.request import RequestContext

Req = TypeVar("Req")
Res = TypeVar("Res")


class Cancellable(Protocol):
    """Something that a scope can end."""

    def cancel(self) -> None:
        """End it; may be called from any thread, and more than once."""


_entered: ContextVar[tuple[CancelScope, ...]] = ContextVar("rheostat_cancel_scopes", default=())


def entered_scopes() -> tuple[CancelScope, ...]:
    """Return the scopes that the current thread (or context) is in, outermost first."""
    return _entered.get()


class CancelScope:
    """A block of blocking calls that any thread can end.

    A call belongs to every scope that the thread was in when the call began; a generator that makes a call
    begins it at the first `next()`. `cancel()` ends these calls wherever they are, waiting for an answer or
    between two messages, and refuses further calls inside the scope. They raise `ConnectError` with code
    CANCELED, which leaves the `with` block like any other exception.

    Only calls over a `Urllib3Transport` take part: asyncio has its own cancellation. A thread that is still
    opening a TCP or TLS connection notices when that is done, at the latest after the transport's
    `connect_timeout`.

    Safe to share between threads, to enter more than once, and to nest.
    """

    def __init__(self) -> None:
        # Reentrant, because the garbage collector may end an abandoned call inside any of these blocks.
        self._lock = threading.RLock()
        self._calls: set[Cancellable] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the scope's calls and refuse new ones; returns at once, and does nothing the second time."""
        with self._lock:
            self._cancelled = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def enroll(self, call: Cancellable) -> None:
        """Let `call` end with the scope; at once if that was cancelled already."""
        with self._lock:
            self._calls.add(call)
            cancelled = self._cancelled
        if cancelled:
            call.cancel()

    def dismiss(self, call: Cancellable) -> None:
        """Forget a call that has ended."""
        with self._lock:
            self._calls.discard(call)

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scopes = list(_entered.get())
        # Not by token: one scope may be entered in several threads, and each leaves its own entry.
        for index in range(len(scopes) - 1, -1, -1):
            if scopes[index] is self:
                del scopes[index]
                break
        _entered.set(tuple(scopes))


class CancellationInterceptor:
    """Makes cancelling a task inside a call of an asyncio client raise `CancelledError`, as asyncio needs.

    connectrpc turns the cancellation into `ConnectError` with code CANCELED, on which `asyncio.timeout`,
    `wait_for` and `TaskGroup` do not work. Put it first among the `interceptors` of an asynchronous client,
    so that the others see what connectrpc raises. A CANCELED that the server sent stays a `ConnectError`.
    """

    async def intercept_unary(
        self,
        call_next: Callable[[Req, RequestContext[Any, Any]], Awaitable[Res]],
        request: Req,
        ctx: RequestContext[Any, Any],
    ) -> Res:
        """Pass a unary call on."""
        try:
            return await call_next(request, ctx)
        except ConnectError as error:
            _raise_cancellation(error)
            raise

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[Req], RequestContext[Any, Any]], Awaitable[Res]],
        request: AsyncIterator[Req],
        ctx: RequestContext[Any, Any],
    ) -> Res:
        """Pass a client-streaming call on."""
        try:
            return await call_next(request, ctx)
        except ConnectError as error:
            _raise_cancellation(error)
            raise

    async def intercept_server_stream(
        self,
        call_next: Callable[[Req, RequestContext[Any, Any]], AsyncIterator[Res]],
        request: Req,
        ctx: RequestContext[Any, Any],
    ) -> AsyncGenerator[Res, None]:
        """Pass a server-streaming call on."""
        responses = call_next(request, ctx)
        try:
            async for response in responses:
                yield response
        except ConnectError as error:
            _raise_cancellation(error)
            raise
        finally:
            await _close(responses)

    async def intercept_bidi_stream(
        self,
        call_next: Callable[[AsyncIterator[Req], RequestContext[Any, Any]], AsyncIterator[Res]],
        request: AsyncIterator[Req],
        ctx: RequestContext[Any, Any],
    ) -> AsyncGenerator[Res, None]:
        """Pass a call that streams both ways on."""
        responses = call_next(request, ctx)
        try:
            async for response in responses:
                yield response
        except ConnectError as error:
            _raise_cancellation(error)
            raise
        finally:
            await _close(responses)


def _raise_cancellation(error: ConnectError) -> None:
    if isinstance(error.__cause__, CancelledError):
        # The very exception that the task was sent: a new one would lose the message of `Task.cancel`.
        raise error.__cause__


async def _close(responses: AsyncIterator[object]) -> None:
    # Closing a generator does not close the one it reads from; the connection would wait for the garbage
    # collector.
    aclose = getattr(responses, "aclose", None)
    if aclose is not None:
        await aclose()
