"""The generated clients of one server over one HTTP client, for threads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import urllib3
from connectrpc.client import ResponseMetadata
from pyqwest import SyncClient

from rheo.v1 import watch_pb2
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.draft_service_connect import DraftServiceClientSync
from rheo.v1.event_service_connect import EventServiceClientSync
from rheo.v1.webhook_service_connect import WebhookServiceClientSync
from rheostat.sdk.call import Answer, method_named
from rheostat.sdk.core import Core
from rheostat.sdk.effect import Fetch
from rheostat.sdk.failure import translated
from rheostat.sdk.transport import Urllib3Transport
from rheostat.sdk.transport.body import DEFAULT_MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from rheostat.sdk.redis_source import RedisConnection

__all__ = ["AnyConnection", "Connection", "connect"]

AnyConnection: TypeAlias = "Connection | RedisConnection"
"""To a server, or to what stands in its place."""

_CONNECTIONS: Final = 4
"""Of a pool of our own: the stream, the calls of the core, and some of the caller's."""


def connect(core: Core) -> AnyConnection:
    """Return what the client reads from and calls; nothing is opened yet."""
    source = core.options.source
    return Connection(core) if source is None else source.connection(core)


class Connection:
    """Calls to one server. Safe from any thread.

    Attributes:
        url: The server's address.
        config: The generated client of the config service.
    """

    def __init__(self, core: Core) -> None:
        """Prepare calls; nothing is opened yet."""
        options = core.options
        assert options.url is not None
        self.url = options.url
        self._core = core
        self._pool, self._own = _pool(core)
        self._transport = Urllib3Transport(self._pool, connect_timeout=options.timeout)
        # The core's stream has one of its own, because only its silence is bounded.
        self._watching = Urllib3Transport(self._pool, connect_timeout=options.timeout)
        client = SyncClient(self._transport)
        self._watched = ConfigServiceClientSync(
            self.url, http_client=SyncClient(self._watching), read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        self.config = ConfigServiceClientSync(
            self.url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        kwargs: dict[str, Any] = {"http_client": client, "read_max_bytes": DEFAULT_MAX_RESPONSE_BYTES}
        self._services = {
            "ConfigService": self.config,
            "AdminService": AdminServiceClientSync(self.url, **kwargs),
            "DraftService": DraftServiceClientSync(self.url, **kwargs),
            "WebhookService": WebhookServiceClientSync(self.url, **kwargs),
            "EventService": EventServiceClientSync(self.url, **kwargs),
        }

    def fetch(self, fetch: Fetch) -> Answer[Any]:
        """Make one unary call.

        Raises:
            RheostatError: It failed.
        """
        method = method_named(fetch.method)
        function = getattr(self._services[method.service], method.function)
        headers = {**self._core.call_headers(), **fetch.headers}
        with ResponseMetadata() as metadata:
            try:
                message = function(
                    fetch.request, headers=headers, timeout_ms=max(1, round(fetch.timeout * 1000))
                )
            except Exception as error:
                failure = translated(error, self.url)
                failure.request_id = metadata.headers.get("x-request-id")
                raise failure from error
        return Answer(message, dict(metadata.headers), dict(metadata.trailers))

    def watch(self, request: watch_pb2.WatchRequest) -> Iterator[watch_pb2.WatchResponse]:
        """Open the stream of the core, at the first `next`."""
        return self._watched.watch(request, headers=self._core.call_headers())

    def wait_at_most(self, seconds: float) -> None:
        """Bound the silence of the core's stream, from the next read on."""
        self._watching.await_message(seconds)

    def disown(self) -> None:
        """Leave the calls in flight to the parent process, after a fork."""
        self._watching.disown()
        self._transport.disown()

    def close(self) -> None:
        """End all calls and refuse new ones. Returns at once, from any thread."""
        self._watching.close()
        self._transport.close()
        if self._own:
            self._pool.clear()


def _pool(core: Core) -> tuple[urllib3.PoolManager, bool]:
    """Return the pool to use, and whether it is ours to close."""
    options = core.options
    given = options.http_client
    if given is not None and not core.inherited:
        return given, False
    if options.http_client_factory is not None:
        return options.http_client_factory(), True
    if given is not None:
        return _renewed(given), True
    return urllib3.PoolManager(maxsize=_CONNECTIONS, timeout=urllib3.Timeout(connect=options.timeout)), True


def _renewed(given: urllib3.PoolManager) -> urllib3.PoolManager:
    """Return a pool of the same kind and options without the connections, which are those of the parent process."""
    fresh = copy.copy(given)
    fresh.pools = type(given.pools)(given.pools._maxsize)
    return fresh
