"""Asynchronous calls over the caller's own `aiohttp.ClientSession`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from pyqwest import Client, Headers, HTTPVersion, ReadError, Response, Transport
from yarl import URL

from rheostat.sdk.transport import body
from rheostat.sdk.transport.descriptor import disown

if TYPE_CHECKING:
    from typing import Self

    from pyqwest import Request


class AiohttpTransport(Transport):
    """A `pyqwest.Transport` over an `aiohttp.ClientSession`, which stays the caller's to close.

    The session's proxies, TLS, cookies, default headers, connector limits and traces hold. Of its time-outs,
    a stream keeps those for getting a connection only: a stream has no total time, and its silence is the
    caller's to judge. Redirects are not followed, and `raise_for_status` is not heeded, because an error's
    body is part of the protocol.

    Deadlines are set by the Connect client, which cancels the call. To be used on the session's event loop.
    """

    def __init__(
        self, session: aiohttp.ClientSession, *, max_response_bytes: int = body.DEFAULT_MAX_RESPONSE_BYTES
    ) -> None:
        """Wrap `session`.

        Args:
            session: Where every call goes; never closed here.
            max_response_bytes: The largest unary response, in bytes after decompression; a larger one raises
                `ConnectError` with code RESOURCE_EXHAUSTED.
        """
        self.received_bytes = 0
        """How many bytes of responses have arrived: a stream in which they still do is not dead."""
        self._session = session
        self._max_response_bytes = max_response_bytes
        self._responses: WeakSet[aiohttp.ClientResponse] = WeakSet()

    async def execute(self, request: Request) -> Response:
        """Send a request and return its response once the headers are here.

        Raises:
            TimeoutError: One of the session's time-outs passed.
            ConnectionError: The server cannot be reached, its certificate is not trusted, or it hung up.
        """
        stream = body.is_stream(request.headers)
        headers = CIMultiDict(request.headers.items())
        if stream:
            # Each message is compressed by itself; a compressed body would hold messages back.
            headers.setdefault("accept-encoding", "identity")
        url = URL(request.url, encoded=True)
        try:
            response = await self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.content or None,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                timeout=self._stream_timeout() if stream else self._session.timeout,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _opening_failure(error, url) from error
        self._responses.add(response)
        try:
            response_headers = Headers(response.headers.items())
            coding = body.coding(response_headers)
            unbounded = body.is_open_ended(request.headers, response.status)
            if unbounded and coding is not None:
                raise body.unexpected_coding(coding)
            return Response(
                status=response.status,
                http_version=HTTPVersion.HTTP1,
                headers=response_headers,
                content=_Content(
                    self, response, coding=coding, limit=None if unbounded else self._max_response_bytes
                ),
            )
        except BaseException:
            response.close()
            raise

    def disown(self) -> None:
        """Leave the calls that are answered to the parent process, after a fork."""
        for response in tuple(self._responses):
            connection = response.connection
            transport = None if connection is None else connection.transport
            opened = None if transport is None else transport.get_extra_info("socket")
            if opened is not None:
                disown(opened.fileno())

    def _stream_timeout(self) -> aiohttp.ClientTimeout:
        timeout = self._session.timeout
        return aiohttp.ClientTimeout(total=None, connect=timeout.connect, sock_connect=timeout.sock_connect)


class _Content:
    """The body of a response: whatever has arrived, as soon as it has."""

    def __init__(
        self,
        transport: AiohttpTransport,
        response: aiohttp.ClientResponse,
        *,
        coding: str | None,
        limit: int | None,
    ) -> None:
        self._transport = transport
        self._response = response
        self._coding = coding
        self._limit = limit
        self._received = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            chunk = await (self._read() if self._coding is None else self._read_decoded(self._coding))
        except BaseException:
            await self.aclose()
            raise
        if not chunk:
            await self.aclose()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._ended = True
        # Closes the connection unless the whole body was read, in which case aiohttp has taken it back
        # already: one with unread bytes on it must never carry another call.
        connection = self._response.connection
        transport = None if connection is None else connection.transport
        self._response.close()
        if transport is not None:
            # A TLS connection would wait for the server's goodbye, longer than the event loop may run.
            transport.abort()

    async def _read(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _reading_failure(error, self._response.url) from error
        self._received += len(chunk)
        self._transport.received_bytes += len(chunk)
        if self._limit is not None and self._received > self._limit:
            raise body.too_large(self._limit)
        return chunk

    async def _read_decoded(self, coding: str) -> bytes:
        encoded = bytearray()
        while chunk := await self._read():
            encoded += chunk
        if not encoded:
            return b""
        return body.decode(coding, encoded, self._limit or body.DEFAULT_MAX_RESPONSE_BYTES)


def async_http_client(session: aiohttp.ClientSession) -> Client:
    """Return the `http_client` that makes a generated asynchronous client use `session`."""
    return Client(AiohttpTransport(session))


def _opening_failure(error: Exception, url: URL) -> Exception:
    origin = url.origin()
    if isinstance(error, TimeoutError):
        return TimeoutError(f"no answer from {origin} in time: {error}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConnectionError(f"tls certificate of {origin} is not trusted: {error.certificate_error}")
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectionError(f"tls with {origin} failed: {error}")
    return ConnectionError(f"no answer from {origin}: {error or type(error).__name__}")


def _reading_failure(error: Exception, url: URL) -> Exception:
    if isinstance(error, TimeoutError):
        return TimeoutError(f"response from {url.origin()} stopped: {error}")
    return ReadError(f"response from {url.origin()} was cut off: {error or type(error).__name__}")
