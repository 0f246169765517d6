"""A server that says what a test wants it to say, over a real socket, and the messages of a modelled store."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from rheo.v1.setting_pb2 import Setting
from rheo.v1.watch_pb2 import (
    WATCH_MODE_DELTA,
    WATCH_MODE_SNAPSHOT,
    WATCH_MODE_UP_TO_DATE,
    Bookmark,
    Delta,
    Hello,
    Item,
    Position,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    WatchRequest,
    WatchResponse,
)
from rheostat.model.position import digest_of
from rheostat.model.value import freeze
from rheostat.wire.value import value_to_proto

__all__ = ["FakeServer", "Refusal", "Store", "black_hole", "hello"]

HEARTBEAT: Final = 15.0


class Refusal(Exception):  # noqa: N818 - it is an answer
    """Answer with an HTTP status, a content type and a body instead of a stream."""

    def __init__(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.content_type = content_type


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromMilliseconds(round(seconds * 1000))
    return found


def hello(mode: Any = WATCH_MODE_SNAPSHOT, heartbeat: float = HEARTBEAT) -> WatchResponse:
    return WatchResponse(hello=Hello(mode=mode, heartbeat=_duration(heartbeat), node="fake"))


class Store:
    """A history of values, and what a correct server would say of it."""

    def __init__(self, store_id: bytes = b"s" * 16, generation: int = 1) -> None:
        self.store_id = store_id
        self.generation = generation
        self.revision = 0
        # name → (revision, value); a value of None is deleted.
        self.history: list[tuple[int, str, Any]] = []

    def set(self, values: Mapping[str, Any]) -> int:
        """Commit *values*; None deletes."""
        self.revision += 1
        self.history.extend((self.revision, name, value) for name, value in values.items())
        return self.revision

    def position(self, revision: int | None = None) -> Position:
        revision = self.revision if revision is None else revision
        return Position(
            store_id=self.store_id,
            generation=self.generation,
            nonce=bytes([self.generation]) * 8,
            revision=revision,
            scope=b"c" * 8,
            token=b"%d:%d" % (self.generation, revision),
        )

    def state(self, revision: int | None = None) -> dict[str, tuple[int, Any]]:
        upto = self.revision if revision is None else revision
        found = {name: (at, value) for at, name, value in self.history if at <= upto}
        return {name: (at, value) for name, (at, value) in found.items() if value is not None}

    def item(self, name: str, revision: int, value: Any) -> Item:
        if value is None:
            return Item(kind="setting", key=name, revision=revision, deleted=True)
        setting = Setting(id=f"id-{name}", name=name, type="Json", default=value_to_proto(freeze(value)))
        return Item(kind="setting", key=name, revision=revision, setting=setting)

    def items(self, revision: int | None = None) -> list[Item]:
        return [self.item(name, at, value) for name, (at, value) in self.state(revision).items()]

    def digest(self, revision: int | None = None) -> int:
        return digest_of(("setting", name, at) for name, (at, _) in self.state(revision).items())

    def snapshot(self, revision: int | None = None) -> list[WatchResponse]:
        items, position = self.items(revision), self.position(revision)
        return [
            WatchResponse(snapshot_begin=SnapshotBegin(position=position, item_count=len(items))),
            WatchResponse(snapshot_chunk=SnapshotChunk(index=0, items=items)),
            WatchResponse(
                snapshot_end=SnapshotEnd(
                    position=position, item_count=len(items), digest=self.digest(revision)
                )
            ),
        ]

    def delta(self, since: int, revision: int | None = None) -> WatchResponse:
        upto = self.revision if revision is None else revision
        last = {name: (at, value) for at, name, value in self.history if since < at <= upto}
        return WatchResponse(
            delta=Delta(
                from_revision=since,
                position=self.position(upto),
                items=[self.item(name, at, value) for name, (at, value) in last.items()],
                digest=self.digest(upto),
            )
        )

    def bookmark(self, revision: int | None = None) -> WatchResponse:
        return WatchResponse(
            bookmark=Bookmark(position=self.position(revision), digest=self.digest(revision))
        )

    def answer(self, request: WatchRequest, heartbeat: float = HEARTBEAT) -> list[WatchResponse]:
        """Return with what a correct server begins its stream."""
        generation, _, revision = request.resume.partition(b":")
        if not request.resume or request.resnapshot or int(generation) != self.generation:
            return [hello(WATCH_MODE_SNAPSHOT, heartbeat), *self.snapshot()]
        if int(revision) == self.revision:
            return [hello(WATCH_MODE_UP_TO_DATE, heartbeat), self.bookmark()]
        return [hello(WATCH_MODE_DELTA, heartbeat), self.delta(int(revision)), self.bookmark()]


Script = Callable[[WatchRequest], Iterable[WatchResponse | bytes | None]]


class FakeServer:
    """Serves `Watch` by a *script*: each stream is what it yields, bytes as they are, and then stays open.

    A script may raise `Refusal` instead. It ends the stream by yielding ``b""``, and cuts it by yielding None.

    Attributes:
        url: Where it is.
        requests: What it was asked.
        unary: Answers to unary calls, by method: given the request's bytes; may raise `Refusal`. There are no others.
    """

    def __init__(self, script: Script, unary: Mapping[str, Callable[[bytes], Message]] | None = None) -> None:
        self.script = script
        self.unary = unary or {}
        self.requests: list[WatchRequest] = []
        self._ended = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = outer.unary.get(self.path.rpartition("/")[2])
                if answer is not None:
                    zipped = self.headers["content-encoding"] == "gzip"
                    try:
                        self._answer(answer(gzip.decompress(body) if zipped else body))
                    except Refusal as refusal:
                        self._refuse(refusal)
                    return
                if not self.path.endswith("/Watch"):
                    self._refuse(Refusal(501, b'{"code":"unimplemented","message":"not here"}'))
                    return
                flags, size = struct.unpack(">BI", body[:5])
                message = body[5 : 5 + size]
                request = WatchRequest.FromString(gzip.decompress(message) if flags & 1 else message)
                outer.requests.append(request)
                self.close_connection = True
                try:
                    self._stream(outer.script(request))
                except Refusal as refusal:
                    self._refuse(refusal)
                except OSError:
                    pass

            def _stream(self, events: Iterable[WatchResponse | bytes | None]) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/connect+proto")
                self.send_header("connection", "close")
                self.end_headers()
                for event in events:
                    if event is None:
                        return
                    if event == b"":
                        self.wfile.write(struct.pack(">BI", 2, 2) + b"{}")
                        return
                    self._write(event)
                self.connection.settimeout(0.05)
                while not outer._ended.is_set():
                    try:
                        if not self.connection.recv(1):
                            return
                    except TimeoutError:
                        pass

            def _write(self, event: WatchResponse | bytes) -> None:
                if isinstance(event, bytes):
                    self.wfile.write(event)
                    return
                encoded = event.SerializeToString()
                self.wfile.write(struct.pack(">BI", 0, len(encoded)) + encoded)

            def _answer(self, message: Message) -> None:
                self._refuse(Refusal(200, message.SerializeToString(), "application/proto"))

            def _refuse(self, refusal: Refusal) -> None:
                self.send_response(refusal.status)
                self.send_header("content-type", refusal.content_type)
                self.send_header("content-length", str(len(refusal.body)))
                self.end_headers()
                self.wfile.write(refusal.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                # A client that has left.
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Yield the URL of a server that never accepts: its queue is full, so that opening a connection hangs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in (*fillers, listener):
            each.close()
