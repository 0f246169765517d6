"""One request of a web framework: its ambient context and the revision that all of it reads."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from typing import Any, TypeAlias

from rheostat.errors import InvalidArgumentError
from rheostat.sdk import ambient
from rheostat.sdk.ambient import Ambient
from rheostat.sdk.reader import Reader

__all__ = ["ContextOf", "Request", "checked_client", "context_from"]

log = logging.getLogger("rheostat")

ContextOf: TypeAlias = Callable[[Any], Mapping[str, object] | None]
"""Returns the attributes of a framework's request, such as ``{"user": {"plan": "pro"}}``; not a coroutine."""


def context_from(context_of: ContextOf | None, request: object) -> Mapping[str, object]:
    """Return the attributes of *request*; none where the caller's function fails, which is logged. Never raises."""
    if context_of is None:
        return {}
    try:
        found: object = context_of(request)
        if found is None:
            return {}
        if isinstance(found, Mapping):
            # Read now, so that one that fails does so here.
            return dict(found)
    except Exception:
        log.exception("the context of a request cannot be made by %s; it goes on without", _name(context_of))
        return {}
    if inspect.iscoroutine(found):
        found.close()
    log.error(
        "the context of a request is a %s and no mapping, from %s; it goes on without",
        type(found).__name__,
        _name(context_of),
    )
    return {}


def checked_client(client: object, where: str) -> Reader[Any]:
    """Return *client*, which is to be a client, or a reader of one.

    Raises:
        InvalidArgumentError: It is something else; the message begins with *where*.
    """
    if not isinstance(client, Reader):
        raise InvalidArgumentError(f"{where} is {client!r}, and no rheostat.Client or AsyncClient")
    return client


class Request:
    """What is ambient in one request, entered for as long as its code runs: in pieces, where a response streams.

    For one thread or task at a time, which may be another one for each piece.
    """

    __slots__ = ("_ambient", "_token")

    def __init__(self, client: Reader[Any], context: Mapping[str, object]) -> None:
        """Pin *client* to what it reads now, with *context* as ambient context. Raises nothing of the server's."""
        with client.pinned(context):
            self._ambient: Ambient | None = ambient.current.get()
        self._token: Token[Ambient | None] | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the block within the request."""
        token = ambient.current.set(self._ambient)
        try:
            yield
        finally:
            # A generator may be inside a context of its own, and is to find it there again.
            self._ambient = ambient.current.get()
            ambient.current.reset(token)

    def enter(self) -> None:
        """Run what follows in this thread or task within the request, until `leave`."""
        self._token = ambient.current.set(self._ambient)

    def leave(self) -> None:
        """Go back to what was ambient before `enter`; does nothing without it."""
        token, self._token = self._token, None
        if token is not None:
            ambient.current.reset(token)

    def streamed(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Yield *parts*, which are made within the request."""
        return _Streamed(self, parts)

    def streamed_async(self, parts: Any) -> AsyncIterator[Any]:
        """Yield *parts*, which are made within the request."""
        return _AsyncStreamed(self, parts)


class _Streamed(Iterator[Any]):
    """Not a generator: what it iterates over is closed with it, also before its first part."""

    def __init__(self, request: Request, parts: Iterable[Any]) -> None:
        self._request = request
        self._parts = parts
        self._iterator: Iterator[Any] | None = None

    def __next__(self) -> Any:
        with self._request.entered():
            if self._iterator is None:
                self._iterator = iter(self._parts)
            return next(self._iterator)

    def close(self) -> None:
        """Close what is iterated over, within the request."""
        close = getattr(self._parts, "close", None)
        if close is not None:
            with self._request.entered():
                close()


class _AsyncStreamed(AsyncIterator[Any]):
    def __init__(self, request: Request, parts: Any) -> None:
        self._request = request
        self._parts = parts
        self._iterator: Any = None

    async def __anext__(self) -> Any:
        with self._request.entered():
            if self._iterator is None:
                self._iterator = aiter(self._parts)
            return await anext(self._iterator)


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
