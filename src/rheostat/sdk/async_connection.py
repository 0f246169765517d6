"""The generated clients of one server over one HTTP client, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from connectrpc.client import ResponseMetadata
from pyqwest import Client

from rheo.v1 import watch_pb2
from rheo.v1.admin_service_connect import AdminServiceClient
from rheo.v1.config_service_connect import ConfigServiceClient
from rheo.v1.draft_service_connect import DraftServiceClient
from rheo.v1.event_service_connect import EventServiceClient
from rheo.v1.webhook_service_connect import WebhookServiceClient
from rheostat.errors import FailedPreconditionError
from rheostat.sdk.call import Answer, method_named
from rheostat.sdk.core import Core
from rheostat.sdk.effect import Fetch
from rheostat.sdk.failure import translated
from rheostat.sdk.transport import AiohttpTransport, CancellationInterceptor
from rheostat.sdk.transport.body import DEFAULT_MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from rheostat.sdk.redis_source import AsyncRedisConnection

__all__ = ["AnyConnection", "AsyncConnection", "connect"]

AnyConnection: TypeAlias = "AsyncConnection | AsyncRedisConnection"
"""To a server, or to what stands in its place."""


def connect(core: Core) -> AnyConnection:
    """Return what the client reads from and calls; nothing is opened yet."""
    source = core.options.source
    return AsyncConnection(core) if source is None else source.async_connection(core)


class AsyncConnection:
    """Calls to one server. For the event loop that runs when it is made.

    Attributes:
        url: The server's address.
        config: The generated client of the config service.
    """

    def __init__(self, core: Core) -> None:
        """Prepare calls; nothing is opened yet.

        Raises:
            FailedPreconditionError: The process was forked, and has no HTTP client of its own.
        """
        options = core.options
        assert options.url is not None
        self.url = options.url
        self._core = core
        given = options.http_client
        if core.inherited and given is not None and options.http_client_factory is None:
            # A session of other options might pass by a proxy, or trust other certificates.
            message = (
                "the http_client of the parent process cannot be used in this one, which goes on with its last "
                "state: pass http_client_factory="
            )
            raise FailedPreconditionError(message)
        if given is not None and not core.inherited:
            self._session, self._own = given, False
        elif options.http_client_factory is not None:
            self._session, self._own = options.http_client_factory(), True
        else:
            connect = aiohttp.ClientTimeout(total=None, connect=options.timeout)
            self._session, self._own = aiohttp.ClientSession(timeout=connect), True
        self._transport = AiohttpTransport(self._session)
        kwargs: dict[str, Any] = {
            "http_client": Client(self._transport),
            "interceptors": [CancellationInterceptor()],
            "read_max_bytes": DEFAULT_MAX_RESPONSE_BYTES,
        }
        self.config = ConfigServiceClient(self.url, **kwargs)
        self._services = {
            "ConfigService": self.config,
            "AdminService": AdminServiceClient(self.url, **kwargs),
            "DraftService": DraftServiceClient(self.url, **kwargs),
            "WebhookService": WebhookServiceClient(self.url, **kwargs),
            "EventService": EventServiceClient(self.url, **kwargs),
        }

    @property
    def received_bytes(self) -> int:
        """How many bytes have arrived in all."""
        return self._transport.received_bytes

    def watch(self, request: watch_pb2.WatchRequest) -> AsyncIterator[watch_pb2.WatchResponse]:
        """Open a stream, at the first `anext`."""
        return self.config.watch(request, headers=self._core.call_headers())

    async def fetch(self, fetch: Fetch) -> Answer[Any]:
        """Make one unary call.

        Raises:
            RheostatError: It failed.
        """
        method = method_named(fetch.method)
        function = getattr(self._services[method.service], method.function)
        headers = {**self._core.call_headers(), **fetch.headers}
        with ResponseMetadata() as metadata:
            try:
                message = await function(
                    fetch.request, headers=headers, timeout_ms=max(1, round(fetch.timeout * 1000))
                )
            except Exception as error:
                failure = translated(error, self.url)
                failure.request_id = metadata.headers.get("x-request-id")
                raise failure from error
        return Answer(message, dict(metadata.headers), dict(metadata.trailers))

    def disown(self) -> None:
        """Leave the calls in flight, and the session, to the parent process, after a fork."""
        self._own = False
        self._transport.disown()

    async def close(self) -> None:
        """Close the session, unless it is the caller's."""
        if self._own:
            await self._session.close()
