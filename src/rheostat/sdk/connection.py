"""The generated clients of one server over one HTTP client, for threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import urllib3
from connectrpc.client import ResponseMetadata
from pyqwest import SyncClient

from rheo.v1 import watch_pb2
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.event_service_connect import EventServiceClientSync
from rheostat.sdk import fork
from rheostat.sdk.call import Answer, method_named
from rheostat.sdk.core import Core, Options
from rheostat.sdk.effect import Fetch
from rheostat.sdk.failure import translated
from rheostat.sdk.transport import Urllib3Transport
from rheostat.sdk.transport.body import DEFAULT_MAX_RESPONSE_BYTES

__all__ = ["Connection"]

_CONNECTIONS: Final = 4
"""Of a pool of our own: the stream, the calls of the core, and some of the caller's."""


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
        self._pool, self._own = _pool(options)
        self._transport = Urllib3Transport(self._pool, connect_timeout=options.timeout)
        client = SyncClient(self._transport)
        self.config = ConfigServiceClientSync(
            self.url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        admin = AdminServiceClientSync(
            self.url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        event = EventServiceClientSync(
            self.url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        self._services = {"ConfigService": self.config, "AdminService": admin, "EventService": event}

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
        """Open a stream, at the first `next`."""
        return self.config.watch(request, headers=self._core.call_headers())

    def wait_at_most(self, seconds: float) -> None:
        """Bound the silence of streams, from the next read on."""
        self._transport.stream_read_timeout = seconds

    def close(self) -> None:
        """End all calls and refuse new ones. Returns at once, from any thread."""
        self._transport.close()
        if self._own:
            self._pool.clear()


def _pool(options: Options) -> tuple[urllib3.PoolManager, bool]:
    """Return the pool to use, and whether it is ours to close."""
    given = options.http_client
    if fork.is_child and given is not None and options.http_client_factory is None:
        # The parent's own connections must not be used here: one with the same options instead.
        kwargs = dict(given.connection_pool_kw)
        return urllib3.PoolManager(len(given.pools), headers=given.headers, **kwargs), True
    if given is not None and not fork.is_child:
        return given, False
    if options.http_client_factory is not None:
        return options.http_client_factory(), True
    return urllib3.PoolManager(maxsize=_CONNECTIONS, timeout=urllib3.Timeout(connect=options.timeout)), True
