"""Real servers for the transports: the generated service, and raw sockets for what no server does."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigService, ConfigServiceASGIApplication
from rheo.v1.config_service_pb2 import PingResponse
from rheo.v1.watch_pb2 import Bookmark, Hello, Position, WatchResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PATIENCE = 10.0
"""Seconds after which a test gives up waiting for something that has to happen."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or the kernel to bring `condition` about."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true"
        pause.wait(0.005)


def bookmark(revision: int) -> WatchResponse:
    return WatchResponse(bookmark=Bookmark(position=Position(revision=revision)))


def envelope(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


END_OF_STREAM = envelope(b"{}", flags=2)


class Service(ConfigService):
    """A configuration service that does what the request's headers tell it to.

    Ping: `x-fail` raises, `x-hang` never answers. Watch: `x-count: n` sends n bookmarks and ends, `x-silent`
    sends nothing at all, otherwise Hello and then whatever `publish` says.
    """

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.requests: list[dict[str, list[str]]] = []
        self.watchers = 0
        self.hanging = 0
        self._queues: list[asyncio.Queue[WatchResponse]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ping(self, request: Any, ctx: Any) -> PingResponse:
        headers = ctx.request_headers
        if "x-fail" in headers:
            raise ConnectError(Code.PERMISSION_DENIED, "not for you")
        if "x-hang" in headers:
            await self._hang()
        for value in headers.getall("x-echo"):
            ctx.response_headers.add("x-echoed", value)
        ctx.response_trailers["x-trailer"] = "last"
        return PingResponse(node=headers.get("x-node", "n" * int(headers.get("x-size", "1"))))

    async def watch(self, request: Any, ctx: Any) -> AsyncIterator[WatchResponse]:
        headers = ctx.request_headers
        if "x-silent" in headers:
            await self._hang()
        ctx.response_headers["x-kind"] = "stream"
        ctx.response_trailers["x-trailer"] = "last"
        queue: asyncio.Queue[WatchResponse] = asyncio.Queue()
        self._queues.append(queue)
        self.watchers += 1
        try:
            yield WatchResponse(hello=Hello(node="here"))
            if "x-count" in headers:
                for revision in range(1, int(headers["x-count"]) + 1):
                    yield bookmark(revision)
                return
            while True:
                yield await queue.get()
        finally:
            self.watchers -= 1
            self._queues.remove(queue)

    def publish(self, revision: int) -> None:
        assert self._loop is not None
        for queue in list(self._queues):
            self._loop.call_soon_threadsafe(queue.put_nowait, bookmark(revision))

    async def _hang(self) -> None:
        self.hanging += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.hanging -= 1

    def application(self) -> Any:
        inner = ConfigServiceASGIApplication(self)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            self._loop = asyncio.get_running_loop()
            if scope["type"] == "http":
                self.connections.add(tuple(scope["client"]))
                seen: dict[str, list[str]] = {}
                for name, value in scope["headers"]:
                    seen.setdefault(name.decode(), []).append(value.decode())
                self.requests.append(seen)
            await inner(scope, receive, send)

        return application


class Served:
    """A `Service` and where it is."""

    def __init__(self, service: Service, server: uvicorn.Server, url: str) -> None:
        self.service = service
        self.url = url
        self._server = server

    @property
    def open_connections(self) -> int:
        return len(self._server.server_state.connections)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Served]:
    service = Service()
    # asyncio switches Nagle's algorithm off only where the protocol is named, which `create_server` does not
    # do.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    scheme = "https" if "ssl_certfile" in options else "http"
    config = uvicorn.Config(
        service.application(),
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=60,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Served(service, server, f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
        assert not thread.is_alive()


class RawConnection:
    """One accepted connection of a `RawServer`."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.number = number
        self.stopping = server.stopping
        self._sock = sock
        self._reader = sock.makefile("rb")

    def read_request(self) -> bytes:
        """Read one request and return its body; raises EOFError when the client has closed."""
        length = 0
        line = self._reader.readline()
        if not line:
            raise EOFError
        while line not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            line = self._reader.readline()
        return self._reader.read(length)

    def read_chunked_request(self) -> bytes:
        """Read one request in chunked transfer-encoding and return its body."""
        self.read_request()
        body = b""
        while size := int(self._reader.readline(), 16):
            body += self._reader.read(size)
            self._reader.readline()
        self._reader.readline()
        return body

    def send(self, *pieces: bytes) -> None:
        self._sock.sendall(b"".join(pieces))

    def begin(self, content_type: str, *lines: str, chunked: bool = True) -> None:
        head = ["HTTP/1.1 200 OK", f"content-type: {content_type}", *lines]
        if chunked:
            head.append("transfer-encoding: chunked")
        self.send("\r\n".join(head).encode() + b"\r\n\r\n")

    def chunk(self, payload: bytes) -> None:
        self.send(f"{len(payload):x}\r\n".encode(), payload, b"\r\n")

    def answer_ping(self, node: str) -> None:
        payload = PingResponse(node=node).SerializeToString()
        self.begin("application/proto", f"content-length: {len(payload)}", chunked=False)
        self.send(payload)

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._reader.close()
        self._sock.close()

    def await_close(self) -> bool:
        """Wait until the client has closed; False if the server stops first or patience runs out."""
        try:
            return self._reader.read(1) == b""
        except OSError:
            return True

    def drip(self, piece: bytes) -> None:
        """Send a byte every 50 ms until the client or the server has had enough."""
        with contextlib.suppress(OSError):
            while not self.stopping.wait(0.05):
                self._sock.sendall(piece)


class RawServer:
    """Hands each connection to `handle`, in a thread of its own."""

    def __init__(self, handle: Callable[[RawConnection], None]) -> None:
        self.stopping = threading.Event()
        self.accepted = 0
        self.failures: list[BaseException] = []
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self.failures:
            raise self.failures[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            self.accepted += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.accepted), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        connection = RawConnection(self, sock, number)
        try:
            self._handle(connection)
        except (EOFError, OSError):
            pass
        except BaseException as error:  # noqa: BLE001
            self.failures.append(error)
        finally:
            connection._reader.close()
            sock.close()


def gzipped(payload: bytes) -> bytes:
    return gzip.compress(payload)
