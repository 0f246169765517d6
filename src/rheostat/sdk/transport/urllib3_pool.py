"""Blocking calls over the caller's own `urllib3.PoolManager`."""

from __future__ import annotations

import copy
import time
from http.client import HTTPException
from typing import TYPE_CHECKING

from pyqwest import Headers, HTTPVersion, ReadError, SyncClient, SyncResponse, SyncTransport
from urllib3 import HTTPHeaderDict, Timeout, exceptions
from urllib3.util import parse_url

from rheostat.sdk.transport import body
from rheostat.sdk.transport.call import Call, CallRegister

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Self

    from pyqwest import SyncRequest
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager
    from urllib3._base_connection import BaseHTTPConnection

_POOL_WAIT_SECONDS = 0.1
"""How often a call that waits for a free connection looks whether it still may."""


class Urllib3Transport(SyncTransport):
    """A `pyqwest.SyncTransport` over a `urllib3.PoolManager`, which stays the caller's to close.

    The manager's proxies, TLS, pool sizes, default headers and connect time-out hold; its read time-out holds
    until a response begins, and for unary responses until it ends. Its retries and redirects are not used:
    whether a call may be repeated is not HTTP's to know. Deadlines are those of the Connect or gRPC-Web
    request header and hold for the whole call, however the bytes are spread.

    Safe to share between threads. A stream that is left before its end closes its connection, and its place
    in the pool is free again.
    """

    def __init__(
        self,
        pool: PoolManager,
        *,
        connect_timeout: float | None = 10.0,
        max_response_bytes: int = body.DEFAULT_MAX_RESPONSE_BYTES,
        stream_read_timeout: float | None = None,
    ) -> None:
        """Wrap `pool`.

        Args:
            pool: Where every call goes; never closed here.
            connect_timeout: Seconds for opening a connection, where `pool` sets no time-out for that itself.
            max_response_bytes: The largest unary response, in bytes after decompression; a larger one raises
                `ConnectError` with code RESOURCE_EXHAUSTED.
            stream_read_timeout: Seconds without a byte after which a stream is given up; None waits for ever. May
                be set anew at any time, and holds from the next read on.
        """
        self.stream_read_timeout = stream_read_timeout
        self._pool = pool
        self._connect_timeout = connect_timeout
        self._max_response_bytes = max_response_bytes
        self._calls = CallRegister()
        self._received_bytes = 0
        # Since when somebody waits for a message of the stream, and how much had arrived before.
        self._waiting: tuple[float, int] | None = None

    def await_message(self, seconds: float) -> None:
        """Give up the stream when its next message does not come; for a transport that has one stream only.

        Sets `stream_read_timeout`; and a message that takes longer than *seconds* has to arrive at
        `body.LEAST_BYTES_PER_SECOND`.
        """
        self.stream_read_timeout = seconds
        self._waiting = time.monotonic(), self._received_bytes

    def _note_received(self, count: int) -> None:
        self._received_bytes += count
        if self._waiting is None or self.stream_read_timeout is None:
            return
        since, before = self._waiting
        waited = time.monotonic() - since
        arrived = self._received_bytes - before
        if waited > self.stream_read_timeout and arrived < waited * body.LEAST_BYTES_PER_SECOND:
            msg = f"no message in {waited:.1f} s, although bytes arrive"
            raise TimeoutError(msg)

    def execute_sync(self, request: SyncRequest) -> SyncResponse:
        """Send a request and return its response once the headers are here.

        Raises:
            TimeoutError: The deadline or one of the manager's time-outs passed.
            ConnectionError: The server cannot be reached, its certificate is not trusted, or it hung up.
            ConnectError: CANCELED, by a scope, `cancel_all` or `close`.
        """
        call = Call(self._calls, _deadline(request.headers))
        call.begin()
        with call.using():
            try:
                return self._open(call, request)
            except (exceptions.HTTPError, HTTPException, OSError) as error:
                call.check()
                raise _opening_failure(error, request.url) from error

    def cancel_all(self) -> None:
        """End every call in flight, from any thread: they raise `ConnectError` with code CANCELED."""
        self._calls.cancel_all()

    def close(self) -> None:
        """End every call in flight and refuse new ones; the pool stays open."""
        self._calls.close()

    def disown(self) -> None:
        """Leave the calls in flight to the parent process, after a fork; takes no lock. The pool stays untouched."""
        self._calls.disown()

    @property
    def calls_in_flight(self) -> int:
        """How many calls have neither ended nor been abandoned."""
        return len(self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, call: Call, request: SyncRequest) -> SyncResponse:
        stream = body.is_stream(request.headers)
        content = request.content
        headers = HTTPHeaderDict(self._pool.headers)
        for name in request.headers:
            headers.discard(name)
        for name, value in request.headers.items():
            headers.add(name, value)
        if stream:
            # Each message is compressed by itself; a compressed body would hold messages back.
            headers.setdefault("accept-encoding", "identity")
        if isinstance(content, bytes) and (content or request.method == "POST"):
            headers["content-length"] = str(len(content))
        connect_timeout, read_timeout = self._timeouts()
        if stream:
            read_timeout = _sooner(read_timeout, self.stream_read_timeout)
        response = _tracked(self._pool, call).urlopen(
            request.method,
            request.url,
            body=None if content == b"" else _sending(call, content),
            headers=headers,
            redirect=False,
            retries=False,
            timeout=Timeout(
                connect=_sooner(connect_timeout, call.remaining()),
                read=_sooner(read_timeout, call.remaining()),
            ),
            preload_content=False,
            decode_content=False,
        )
        call.answered(response)
        response_headers = Headers(list(response.headers.items()))
        coding = body.coding(response_headers)
        unbounded = body.is_open_ended(request.headers, response.status)
        if unbounded and coding is not None:
            raise body.unexpected_coding(coding)
        return SyncResponse(
            status=response.status,
            http_version=HTTPVersion.HTTP1,
            headers=response_headers,
            content=_Content(
                call,
                response,
                coding=coding,
                limit=None if unbounded else self._max_response_bytes,
                read_timeout=(lambda: self.stream_read_timeout) if unbounded else (lambda: read_timeout),
                received=self._note_received,
            ),
        )

    def _timeouts(self) -> tuple[float | None, float | None]:
        chosen = self._pool.connection_pool_kw.get("timeout")
        timeout = chosen.clone() if isinstance(chosen, Timeout) else Timeout.from_float(chosen)
        timeout.start_connect()
        connect = Timeout.resolve_default_timeout(timeout.connect_timeout)
        read = Timeout.resolve_default_timeout(timeout.read_timeout)
        return self._connect_timeout if connect is None else connect, read


class _Content:
    """The body of a response: whatever has arrived, as soon as it has."""

    def __init__(
        self,
        call: Call,
        response: BaseHTTPResponse,
        *,
        coding: str | None,
        limit: int | None,
        read_timeout: Callable[[], float | None],
        received: Callable[[int], None],
    ) -> None:
        self._note_received = received
        self._call = call
        self._response = response
        self._coding = coding
        self._limit = limit
        self._read_timeout = read_timeout
        self._received = 0
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        chunk = self._read() if self._coding is None else self._read_decoded(self._coding)
        if not chunk:
            self._ended = True
            self._call.finish()
            raise StopIteration
        return chunk

    def close(self) -> None:
        if not self._ended:
            self._call.cancel()

    def __del__(self) -> None:
        # A response that is dropped rather than closed; a generator would not be told before its first step.
        self.close()

    def _read(self) -> bytes:
        with self._call.using():
            self._call.wait_at_most(self._read_timeout())
            try:
                # At most one read of the socket: `read` would wait until the whole amount is there.
                chunk = self._response.read1(body.READ_BYTES, decode_content=False)
            except (exceptions.HTTPError, HTTPException, OSError) as error:
                self._call.check()
                raise _reading_failure(error) from error
            self._received += len(chunk)
            self._note_received(len(chunk))
            if self._limit is not None and self._received > self._limit:
                raise body.too_large(self._limit)
            return chunk

    def _read_decoded(self, coding: str) -> bytes:
        encoded = bytearray()
        while chunk := self._read():
            encoded += chunk
        if not encoded:
            return b""
        return body.decode(coding, encoded, self._limit or body.DEFAULT_MAX_RESPONSE_BYTES)


def sync_http_client(pool: PoolManager) -> SyncClient:
    """Return the `http_client` that makes a generated synchronous client use `pool`."""
    return SyncClient(Urllib3Transport(pool))


def _sending(call: Call, content: bytes | Iterator[bytes]) -> Iterator[bytes]:
    # urllib3 asks for the body as soon as it has a socket, which is nowhere else to be had before the
    # response.
    call.connected()
    if isinstance(content, bytes):
        yield content
    else:
        yield from content


def _tracked(manager: PoolManager, call: Call) -> PoolManager:
    """Return a view of `manager` with the same pools and options, which tells `call` about its connection.

    Cancelling a call that waits for response headers takes its socket, and urllib3 shows it to nobody.
    """
    view = copy.copy(manager)

    def connection_from_host(*args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return _tracked_pool(manager.connection_from_host(*args, **kwargs), call)

    vars(view)["connection_from_host"] = connection_from_host
    return view


def _tracked_pool(pool: HTTPConnectionPool, call: Call) -> HTTPConnectionPool:
    view = copy.copy(pool)

    # These two are urllib3's inner seam. Were they renamed, nothing would break but cancelling before the
    # response.
    def get_conn(timeout: float | None = None) -> BaseHTTPConnection:
        gives_up = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                connection: BaseHTTPConnection = pool._get_conn(timeout=_POOL_WAIT_SECONDS)
            except exceptions.EmptyPoolError:
                call.check()
                if gives_up is not None and time.monotonic() >= gives_up:
                    raise
            else:
                pool.num_requests += 1
                call.take(connection)
                return connection

    def put_conn(connection: BaseHTTPConnection | None) -> None:
        with call.giving_back():
            if connection is not None and not pool.block and pool.pool is not None and pool.pool.full():
                # urllib3 would discard it with a warning that its pool is too small; but calls beside a stream are
                # few, and a pool need not be larger for them.
                connection.close()
                return
            pool._put_conn(connection)

    vars(view).update(_get_conn=get_conn, _put_conn=put_conn)
    return view


def _deadline(headers: Headers) -> float | None:
    milliseconds = headers.get("connect-timeout-ms") or ""
    if milliseconds.isascii() and milliseconds.isdigit():
        return time.monotonic() + int(milliseconds) / 1000
    timeout = headers.get("grpc-timeout") or ""
    amount, unit = timeout[:-1], timeout[-1:]
    if amount.isascii() and amount.isdigit() and unit in _GRPC_SECONDS:
        return time.monotonic() + int(amount) * _GRPC_SECONDS[unit]
    return None


# The units of `grpc-timeout` in seconds, from the gRPC-over-HTTP/2 specification.
_GRPC_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _sooner(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _opening_failure(error: Exception, url: str) -> Exception:
    parsed = parse_url(url)
    origin = f"{parsed.scheme}://{parsed.netloc}"
    cause = error.original_error if isinstance(error, exceptions.ProxyError) else error
    # A refused connection is a kind of connect time-out in urllib3's tree, but not in anyone's mind.
    timed_out = isinstance(cause, (exceptions.TimeoutError, TimeoutError)) and not isinstance(
        cause, exceptions.NewConnectionError
    )
    if timed_out:
        return TimeoutError(f"no answer from {origin} in time: {cause}")
    if isinstance(cause, exceptions.SSLError):
        return ConnectionError(f"tls with {origin} failed: {cause}")
    return ConnectionError(f"no answer from {origin}: {error}")


def _reading_failure(error: Exception) -> Exception:
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return TimeoutError(f"response stopped: {error}")
    return ReadError(f"response was cut off: {error}")
