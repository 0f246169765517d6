"""Connect calls over an HTTP client that the caller already has.

The generated clients send HTTP through a `pyqwest` client. The two transports of this package are such
clients' engines on top of an `aiohttp.ClientSession` or a `urllib3.PoolManager`, so that proxies,
certificates, pool sizes and instrumentation are configured in one place, the caller's. Neither ever closes
what it was given.

    async with aiohttp.ClientSession() as session:
        client = ConfigServiceClient(
            url, http_client=async_http_client(session), interceptors=[CancellationInterceptor()]
        )

    with urllib3.PoolManager() as pool:
        client = ConfigServiceClientSync(url, http_client=sync_http_client(pool))
        with CancelScope() as scope:            # hand `scope` to another thread
            for event in client.watch(request):  # `scope.cancel()` there ends this loop with CANCELED
                ...

A stream's messages are decompressed by the Connect client itself: give it `read_max_bytes`, or it
decompresses without a bound.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rheostat.sdk.transport.body import DEFAULT_MAX_RESPONSE_BYTES
from rheostat.sdk.transport.cancellation import CancellationInterceptor, CancelScope

if TYPE_CHECKING:
    from rheostat.sdk.transport.aiohttp_session import AiohttpTransport, async_http_client
    from rheostat.sdk.transport.urllib3_pool import Urllib3Transport, sync_http_client

__all__ = [
    "DEFAULT_MAX_RESPONSE_BYTES",
    "AiohttpTransport",
    "CancelScope",
    "CancellationInterceptor",
    "Urllib3Transport",
    "async_http_client",
    "sync_http_client",
]


def __getattr__(name: str) -> object:
    # Each side loads its HTTP library on first use: a threaded program never pays for importing aiohttp.
    if name in {"AiohttpTransport", "async_http_client"}:
        return getattr(import_module("rheostat.sdk.transport.aiohttp_session"), name)
    if name in {"Urllib3Transport", "sync_http_client"}:
        return getattr(import_module("rheostat.sdk.transport.urllib3_pool"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
