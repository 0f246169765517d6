"""Starlette, and whatever else is an ASGI application: each request reads one revision, in a context of its own.

::

    app = Starlette(routes=..., middleware=[Middleware(RheostatMiddleware, client=client, context=context_of)])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rheostat.errors import FailedPreconditionError, MissingDependencyError
from rheostat.integrations.request import ContextOf, checked_client, context_from
from rheostat.sdk.ambient import ambient
from rheostat.sdk.reader import Reader

try:
    from starlette.requests import HTTPConnection
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[starlette]'"
    ) from exc

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["RheostatMiddleware", "get_client"]

_KEY: Final = "rheostat.client"


class RheostatMiddleware:
    """ASGI middleware: an HTTP request reads one revision from its first read to the last byte of its response.

    Endpoints may be coroutine functions or run in a thread; streaming responses and background tasks are within. A
    websocket has the context of its request, but follows the revisions, since it may last for days: pin what
    belongs together with ``with client.pinned():``.
    """

    def __init__(self, app: ASGIApp, client: Reader[Any], context: ContextOf | None = None) -> None:
        """Wrap *app*.

        Args:
            app: An ASGI application.
            client: An `AsyncClient`, which is started by the application's lifespan, else by its first read, or a
                `Client`.
            context: Called with the request, a `starlette.requests.HTTPConnection`, and returns its attributes.
                What it raises is logged, and the request goes on without. None: nothing about a request is used.

        Raises:
            InvalidArgumentError: *client* is none.
        """
        self._app = app
        self._client = checked_client(client, "the client of RheostatMiddleware")
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        context = {} if self._context is None else context_from(self._context, HTTPConnection(scope))
        scope[_KEY] = self._client
        lasting = scope["type"] == "websocket"
        with ambient(context) if lasting else self._client.pinned(context):
            await self._app(scope, receive, send)


def get_client(connection: HTTPConnection) -> Reader[Any]:
    """Return the client of the middleware, for a request or websocket.

    Raises:
        FailedPreconditionError: The application has no `RheostatMiddleware`.
    """
    found = connection.scope.get(_KEY)
    if not isinstance(found, Reader):
        raise FailedPreconditionError("the application has no RheostatMiddleware, which brings the client")
    return found
