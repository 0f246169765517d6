"""What a watch is sent once it has begun: past the runtime, and on a server by itself past uvicorn too."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import gc
import itertools
import json
import socket
import threading
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from google.protobuf.json_format import Parse
from uvicorn.server import ServerState

from rheo.v1.watch_pb2 import Delta, WatchRequest, WatchResponse
from rheostat.model.change import DeleteSetting, PutSetting, SetValue
from rheostat.model.position import Filter, item_digest
from rheostat.model.watch import Bookmark
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.handling.config import ConfigHandlers
from rheostat.server.line import limit_buffers
from rheostat.server.punctual import protocol_of
from rheostat.server.stall import PIECE_BYTES, Guards
from rheostat.server.stream import Stream
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.watch import WatchOptions
from rheostat.store import open_store
from rheostat.wire import event
from tests.server.exchange import Wsgi, asked, enveloped

WRITER = Writer(OPEN)
PATIENCE = 50


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:"), drain_grace=0.1) as started:
        settings = [PutSetting(f"s.{number}", {"type": "str", "default": ""}) for number in range(20)]
        started.commit(WRITER, "default", "production", settings)
        yield started


def change(service: Service, name: str, value: str) -> int:
    return service.commit(WRITER, "default", "production", [SetValue(name, value)]).revision


@dataclass
class Kind:
    """How a client asks for a watch."""

    content_type: str
    accepts: tuple[str, str] | None = None

    def event(self, content: bytes, flags: int) -> WatchResponse:
        if flags & 1:
            content = zlib.decompress(content, wbits=31)
        if self.content_type.endswith("json"):
            return Parse(content, WatchResponse())
        return WatchResponse.FromString(content)

    def request(self) -> bytes:
        asked = WatchRequest(environment="production")
        body = enveloped(
            b'{"environment": "production"}'
            if self.content_type.endswith("json")
            else asked.SerializeToString()
        )
        headers = [
            b"POST /rheo.v1.ConfigService/Watch HTTP/1.1",
            b"host: localhost",
            b"content-type: " + self.content_type.encode(),
            b"content-length: %d" % len(body),
        ]
        if self.accepts is not None:
            headers.append(": ".join(self.accepts).encode())
        return b"\r\n".join([*headers, b"", body])


KINDS = {
    "connect": Kind("application/connect+proto"),
    "connect-gzip": Kind("application/connect+proto", ("connect-accept-encoding", "gzip")),
    "json": Kind("application/connect+json"),
    "json-gzip": Kind("application/connect+json", ("connect-accept-encoding", "gzip")),
    "grpc-web": Kind("application/grpc-web+proto"),
    "grpc-web-gzip": Kind("application/grpc-web+proto", ("grpc-accept-encoding", "gzip")),
}


@dataclass
class Watch:
    """A watch by a client that shows what it reads: whole messages, and their flags."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    kind: Kind
    compressed: set[bool] = field(default_factory=set)
    end: bytes | None = None
    _body: bytes = b""

    async def begin(self) -> None:
        self.writer.write(self.kind.request())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        while not (await self.event()).HasField("snapshot_end"):
            pass

    async def event(self) -> WatchResponse:
        found = await self.next()
        assert found is not None, f"the stream has ended: {self.end!r}"
        return found

    async def delta(self) -> Delta:
        """Return the next delta; bookmarks may come before it when the machine is slow."""
        while (found := await self.event()).HasField("bookmark"):
            pass
        assert found.HasField("delta")
        return found.delta

    async def next(self) -> WatchResponse | None:
        """Return the next event; None when the response has ended, as it should."""
        while len(self._body) < 5 or len(self._body) < 5 + int.from_bytes(self._body[1:5], "big"):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            self._body += (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                assert not self._body
                return None
        flags, end = self._body[0], 5 + int.from_bytes(self._body[1:5], "big")
        content, self._body = self._body[5:end], self._body[end:]
        if flags & ~1:
            self.end = zlib.decompress(content, wbits=31) if flags & 1 else content
            return await self.next()
        self.compressed.add(bool(flags & 1))
        return self.kind.event(content, flags)


@contextlib.asynccontextmanager
async def serving(app: Any, service: Service, *, small: bool = False) -> AsyncIterator[Callable[..., Any]]:
    """Serve as `rheostat serve` does; yields what opens a watch. Small ones have small buffers at the client."""
    config = uvicorn.Config(app, http=protocol_of(service.limits), ws="none", log_config=None)
    config.load()
    listening = socket.socket()
    limit_buffers(listening)
    listening.bind(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: protocol_of(service.limits)(config=config, server_state=ServerState(), app_state={}),
        sock=listening,
    )
    writers: list[asyncio.StreamWriter] = []

    async def watch(kind: str = "connect") -> Watch:
        connection = socket.socket()
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(listening.getsockname())
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024 if small else 2**16)
        writers.append(writer)
        opened = Watch(reader, writer, KINDS[kind])
        await opened.begin()
        return opened

    try:
        yield watch
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


def run(scenario: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario

    asyncio.run(bounded())


@pytest.mark.parametrize("kind", KINDS)
def test_changes_arrive_as_the_runtime_would_send_them(service: Service, kind: str):
    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service) as open_watch:
            watch = await open_watch(kind)
            for value in ("one", "two"):
                revision = await asyncio.to_thread(change, service, "s.1", value)
                delta = await watch.delta()
                assert delta.position.revision == revision
                assert [item.setting.value.string_value for item in delta.items] == [value]
            metrics = service.metrics
            assert sum(metrics.lag.shape.counts) >= 1
            assert metrics.counted("frames")[()] >= 2
            assert metrics.counted("bytes")[()] > 100
            # What is too large for one write, and what takes the place of a delta that is too large for one message.
            await asyncio.to_thread(change, service, "s.2", "x" * 2 * PIECE_BYTES)
            assert len((await watch.delta()).items[0].setting.value.string_value) == 2 * PIECE_BYTES
            large = [SetValue(f"s.{number}", "y" * 100_000) for number in range(15)]
            await asyncio.to_thread(service.commit, WRITER, "default", "production", large)
            assert (await watch.event()).HasField("reset")
            while not (await watch.event()).HasField("snapshot_end"):
                pass
            assert watch.compressed == {kind.endswith("gzip")}
            service.drain()
            assert (await watch.event()).HasField("go_away")
            assert await watch.next() is None
            assert watch.end is not None
            if not kind.startswith("grpc-web"):
                assert "error" not in json.loads(watch.end)

    run(scenario())


def test_a_large_delta_is_made_once_for_all_and_not_lost_when_one_of_them_leaves(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    made = 0
    encode_item = event.item_to_proto

    def counting(entry: Any) -> Any:
        nonlocal made
        made += 1
        return encode_item(entry)

    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service) as open_watch:
            watches = [await open_watch() for _ in range(10)]
            monkeypatch.setattr(event, "item_to_proto", counting)
            many = [PutSetting(f"m.{number}", {"type": "int", "default": 0}) for number in range(300)]
            written = asyncio.create_task(
                asyncio.to_thread(service.commit, WRITER, "default", "production", many)
            )
            watches.pop(0).writer.transport.abort()
            await written
            for watch in watches:
                assert len((await watch.delta()).items) == 300
            assert made == 300

    run(scenario())


def test_a_change_in_the_moment_after_a_large_one_is_not_missed(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    wake = Stream.wake
    late: list[int] = []

    def waking(stream: Stream) -> None:
        wake(stream)
        if stream._left is not None and not late:
            # Before the task has had its turn, which is the one to send the large one.
            commit = threading.Thread(target=lambda: late.append(change(service, "s.1", "last")))
            commit.start()
            commit.join()

    monkeypatch.setattr(Stream, "wake", waking)

    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service) as open_watch:
            watch = await open_watch()
            # So many are encoded in a thread, and the watch is not waiting when the bell rings meanwhile.
            many = [PutSetting(f"m.{number}", {"type": "int", "default": 0}) for number in range(300)]
            await asyncio.to_thread(service.commit, WRITER, "default", "production", many)
            while (await watch.delta()).position.revision != service.head.revision:
                pass
            assert late == [service.head.revision]

    run(scenario())


def test_a_client_that_leaves_is_no_watcher_any_more(service: Service):
    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service) as open_watch:
            watch = await open_watch()
            assert service.watchers == 1
            watch.writer.transport.abort()
            while service.watchers:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

    run(scenario())


def test_a_watch_that_waits_keeps_no_former_state_in_memory(service: Service):
    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service) as open_watch:
            watch = await open_watch()
            former = weakref.ref(service.view("default", "production").scope(Filter()).content)
            assert former() is not None
            await asyncio.to_thread(change, service, "s.1", "one")
            await watch.event()
            gc.collect()
            assert former() is None

    run(scenario())


def test_watches_share_the_bookmarks_of_a_moment(service: Service):
    handlers = ConfigHandlers(service)
    session = service.watch(WatchOptions("default", "production"))
    session.step(0.0)
    assert session.position is not None
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    first = Bookmark(session.position, at, 7)
    soon = dataclasses.replace(first, origin_time=at + datetime.timedelta(seconds=0.4))
    assert handlers.encode(soon, session) is not handlers.encode(first, session)
    assert handlers.encode(soon, session) is handlers.encode(first, session)
    for other in (
        dataclasses.replace(first, origin_time=at + datetime.timedelta(seconds=1)),
        dataclasses.replace(first, origin_time=at - datetime.timedelta(seconds=1)),
        dataclasses.replace(first, digest=8),
        dataclasses.replace(first, report_within=1.0),
    ):
        handlers.encode(first, session)
        (message,) = handlers.encode(other, session)
        bookmark = message.message.bookmark
        assert bookmark.digest == other.digest
        assert bookmark.origin_time.ToDatetime(datetime.UTC) == other.origin_time
        assert bookmark.HasField("report_within") == (other.report_within is not None)


def test_a_laggard_gets_one_delta_with_tombstones(service: Service):
    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service, small=True) as open_watch:
            laggard, other = await open_watch(), await open_watch()

            def write() -> int:
                # More than all buffers hold.
                for number in range(300):
                    change(service, f"s.{number % 10}", f"{number:05}" * 600)
                gone = [DeleteSetting(f"s.{number}") for number in range(10, 15)]
                return service.commit(WRITER, "default", "production", gone).revision

            written = asyncio.create_task(asyncio.to_thread(write))
            while not any(item.deleted for item in (await other.delta()).items):
                pass
            revision = await written
            deltas = [await laggard.delta()]
            while deltas[-1].position.revision < revision:
                deltas.append(await laggard.delta())
            assert len(deltas) < 150
            last = deltas[-1]
            assert last.coalesced
            assert {item.key for item in last.items if item.deleted} == {f"s.{n}" for n in range(10, 15)}
            held = {f"s.{n}": 2 for n in range(20)}
            for before, after in itertools.pairwise(deltas):
                assert after.from_revision <= before.position.revision < after.position.revision
            for delta in deltas:
                for item in delta.items:
                    held[item.key] = 0 if item.deleted else item.revision
            digest = 0
            for name, revision in held.items():
                digest ^= item_digest("setting", name, revision) if revision else 0
            assert digest == last.digest

    run(scenario())


def test_a_client_that_stops_reading_is_told_so_and_its_stream_ends(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rheostat.server.asgi.Guards", functools.partial(Guards, stalled_seconds=0.0))
    monkeypatch.setattr("rheostat.server.line.LINGER_SECONDS", PATIENCE)

    async def scenario() -> None:
        async with serving(asgi_app(service, open=True), service, small=True) as open_watch:
            watch = await open_watch()
            number = 0
            while service.watchers:
                # Until the buffers are full, and then until somebody has looked.
                number += 1
                await asyncio.to_thread(change, service, "s.1", f"{number:05}" * 4_000)
                await asyncio.sleep(0)
            while not (last := await watch.event()).HasField("go_away"):
                pass
            assert last.go_away.reason == 3, "SLOW"
            assert service.metrics.counted("ended") == {("SLOW",): 1}
            assert await watch.next() is None
            assert watch.end is not None

    run(scenario())


def test_a_large_body_is_sent_in_pieces():
    sent: list[tuple[bytes, bool]] = []

    async def scenario() -> None:
        async def send(message: Any) -> None:
            sent.append((message["body"], message["more_body"]))

        guard = Guards().guard(send)
        for size in (0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES):
            sent.clear()
            body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            await guard({"type": "http.response.body", "body": body, "more_body": False})
            assert b"".join(piece for piece, _ in sent) == body
            assert max(len(piece) for piece, _ in sent) <= PIECE_BYTES
            assert [more for _, more in sent] == [True] * (len(sent) - 1) + [False]

    run(scenario())


def test_a_wsgi_watch_sends_pieces_and_bounds_the_buffers_of_its_connection(service: Service):
    large = [SetValue(f"s.{number}", "x" * 100_000) for number in range(5)]
    service.commit(WRITER, "default", "production", large)
    with socket.socket() as connection:
        before = connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * before)
        sizes: list[int] = []
        app = wsgi_app(service, open=True)

        def noting(environ: Any, start_response: Any) -> Iterator[bytes]:
            for piece in app(environ, start_response):
                sizes.append(len(piece))
                yield piece

        # gunicorn's sockets have a time-out, so that nobody peeks at one that is not connected.
        connection.settimeout(1)
        answer = Wsgi(noting, environ={"gunicorn.socket": connection})(
            asked("rheo.v1.ConfigService/Watch", WatchRequest())
        )
        assert max(sizes) <= PIECE_BYTES
        assert len([event for event in answer.events() if event.HasField("snapshot_chunk")]) == 3
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
