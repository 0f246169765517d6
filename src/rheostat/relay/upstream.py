"""The servers that a relay can ask, over HTTP: streams that another thread can end, and forwarded calls."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import urllib3
from google.protobuf.message import Message
from pyqwest import SyncClient

from rheo.v1 import watch_pb2
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.event_service_connect import EventServiceClientSync
from rheostat.errors import RheostatError, UnavailableError
from rheostat.sdk.call import method_named
from rheostat.sdk.failure import translated
from rheostat.sdk.transport import CancelScope, Urllib3Transport
from rheostat.sdk.transport.body import DEFAULT_MAX_RESPONSE_BYTES

__all__ = ["Stream", "Upstreams"]

_CONNECT_SECONDS: Final = 5.0
"""Bounds how long a server that does not answer at all holds up the next one's turn."""

_CONNECTIONS: Final = 16


class Stream:
    """One open watch; read by one thread, and left by any."""

    def __init__(self, url: str, headers: dict[str, str], request: watch_pb2.WatchRequest) -> None:
        """Prepare it; the connection is opened by the first `receive`, in the thread that makes this."""
        self.url = url
        self._pool = urllib3.PoolManager(maxsize=1, timeout=urllib3.Timeout(connect=_CONNECT_SECONDS))
        # Its silence is bounded, so that no other call may use it.
        self._transport = Urllib3Transport(self._pool, connect_timeout=_CONNECT_SECONDS)
        client = ConfigServiceClientSync(
            url, http_client=SyncClient(self._transport), read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
        )
        self._scope = CancelScope()
        self._scope.__enter__()
        self._events: Iterator[watch_pb2.WatchResponse] = client.watch(request, headers=headers)

    def receive(self, timeout: float) -> watch_pb2.WatchResponse | None:
        """Return the next event, or None at the end.

        Raises:
            DeadlineExceededError: Nothing has come for *timeout* seconds.
            RheostatError: The stream has broken, or was refused.
        """
        self._transport.await_message(timeout)
        try:
            return next(self._events, None)
        except Exception as error:
            raise translated(error, self.url) from error

    def cancel(self) -> None:
        """End it; from any thread."""
        self._scope.cancel()

    def close(self) -> None:
        """End it and give its connection back; in the thread that reads it."""
        self._scope.cancel()
        self._scope.__exit__(None, None, None)
        with contextlib.suppress(Exception):
            # It is being left, for whatever reason.
            getattr(self._events, "close", lambda: None)()
        self._pool.clear()


class Upstreams:
    """The servers, in the order of preference. Safe from any thread.

    Attributes:
        urls: Their addresses.
    """

    def __init__(self, urls: Sequence[str], key: str) -> None:
        """Name the servers; nothing is opened yet.

        Args:
            urls: At least one.
            key: The relay's own.
        """
        self.urls = tuple(urls)
        self._headers = {"authorization": f"Bearer {key}"}
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS, timeout=urllib3.Timeout(connect=_CONNECT_SECONDS)
        )
        self._transport = Urllib3Transport(self._pool, connect_timeout=_CONNECT_SECONDS)
        client = SyncClient(self._transport)
        self._clients: dict[str, dict[str, Any]] = {
            url: {
                "ConfigService": ConfigServiceClientSync(
                    url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
                ),
                "EventService": EventServiceClientSync(
                    url, http_client=client, read_max_bytes=DEFAULT_MAX_RESPONSE_BYTES
                ),
            }
            for url in self.urls
        }
        self._lock = threading.Lock()
        self._preferred = self.urls[0]

    def watch(self, url: str, request: watch_pb2.WatchRequest) -> Stream:
        """Open a stream at one of the servers."""
        return Stream(url, self._headers, request)

    def prefer(self, url: str) -> None:
        """Send calls to this server first: it answers."""
        with self._lock:
            self._preferred = url

    def call(self, method: str, request: Message, timeout: float, *, authorization: str | None = None) -> Any:
        """Make one call, at another server when one is away and a repeat does no harm.

        Args:
            method: Such as ``ConfigService/DeclareSettings``.
            request: Its request.
            timeout: Seconds, for each attempt.
            authorization: The header of whoever the call is made for; the relay's own by default.

        Raises:
            RheostatError: What the last server has answered.
        """
        named = method_named(method)
        repeatable = named.repeatable or bool(getattr(request, "request_id", ""))
        headers = self._headers if authorization is None else {"authorization": authorization}
        with self._lock:
            ordered = sorted(self.urls, key=lambda url: url != self._preferred)
        last: RheostatError | None = None
        for url in ordered:
            function = getattr(self._clients[url][named.service], named.function)
            try:
                return function(request, headers=headers, timeout_ms=max(1, round(timeout * 1000)))
            except Exception as error:
                last = translated(error, url)
                if not repeatable or not isinstance(last, UnavailableError):
                    raise last from error
        assert last is not None
        raise last

    def close(self) -> None:
        """End all calls. Returns at once, from any thread."""
        self._transport.close()
        self._pool.clear()
