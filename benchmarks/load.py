"""The load client and the floor of the delivery benchmark: raw sockets on uvloop, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from rheo.v1.watch_pb2 import SnapshotEnd, WatchMode, WatchRequest, WatchResponse

PATIENCE = 15.0
"""Seconds that one step may take; only a broken run waits so long."""
OPENING = 64
"""Streams that are opened at one time."""


def envelope(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def watch_request(port: int, environment: str = "production", resume: bytes = b"") -> bytes:
    body = envelope(WatchRequest(environment=environment, resume=resume).SerializeToString())
    return (
        b"POST /rheo.v1.ConfigService/Watch HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n"
        b"content-type: application/connect+proto\r\nconnect-protocol-version: 1\r\n"
        b"content-length: %d\r\n\r\n%b" % (port, len(body), body)
    )


@dataclass(slots=True)
class Group:
    """The streams of one server, and what the change that is under way has brought them."""

    streams: list[Stream] = field(default_factory=list)
    ready: int = 0
    ended: int = 0
    arrivals: list[int] = field(default_factory=list)
    frame: bytes = b""
    complete: Callable[[], None] | None = None
    # Of each revision, how many have got it and when the last one did; None while revisions are kept by stream.
    soak: dict[int, list[int]] | None = None
    wrong: list[str] = field(default_factory=list)


class Stream(asyncio.Protocol):
    """One watch: reads Connect envelopes from a chunked response, and as little else as it can."""

    known: dict[bytes, WatchResponse] = {}  # noqa: RUF012 - all streams share it: equal bytes are decoded once

    def __init__(self, group: Group, request: bytes) -> None:
        self.group = group
        self.request = request
        self.revisions: list[int] = []
        self.held = 0
        self.token = b""
        self.mode = ""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_body = False
        self._raw = b""
        self._body = b""
        self._end = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.group.ended += 1
        if not self.opened.done():
            said = self._end or self._raw[:200]
            self.opened.set_exception(ConnectionError(f"the server closed a new stream: {said!r}"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        raw = self._raw + data if self._raw else data
        if not self._in_body:
            head, found, rest = raw.partition(b"\r\n\r\n")
            if not found:
                self._raw = raw
                return
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head.lower():
                self._raw = raw
                self.transport.close()
                return
            self._in_body, raw = True, rest
        at = 0
        while (line := raw.find(b"\r\n", at)) >= 0:
            end = line + 2 + int(raw[at:line], 16)
            if len(raw) < end + 2:
                break
            self._take(self._body + raw[line + 2 : end] if self._body else raw[line + 2 : end], now)
            at = end + 2
        self._raw = raw[at:]

    def _take(self, body: bytes, now: int) -> None:
        at = 0
        while len(body) >= at + 5:
            end = at + 5 + int.from_bytes(body[at + 1 : at + 5], "big")
            if len(body) < end:
                break
            if not body[at]:
                self._message(body[at + 5 : end], now)
            else:
                self._end = body[at + 5 : end]
                self.transport.close()
            at = end
        self._body = body[at:]

    def _message(self, message: bytes, now: int) -> None:
        event = self.known.get(message)
        if event is None:
            event = self.known[message] = WatchResponse.FromString(message)
        if event.HasField("delta"):
            group, delta = self.group, event.delta
            self.token = delta.position.token
            revision = delta.position.revision
            if self.held and not delta.from_revision <= self.held < revision:
                group.wrong.append(f"revision {revision} from {delta.from_revision} came after {self.held}")
            self.held = revision
            if group.soak is not None:
                entry = group.soak.setdefault(revision, [0, 0])
                entry[0] += 1
                entry[1] = now
                return
            self.revisions.append(revision)
            group.arrivals.append(now)
            if not self.opened.done():
                self.opened.set_result(None)
            group.frame = message
            if len(group.arrivals) == len(group.streams) and group.complete is not None:
                group.complete()
        elif event.HasField("snapshot_end"):
            self.held = event.snapshot_end.position.revision
            self.token = event.snapshot_end.position.token
            if not self.opened.done():
                self.opened.set_result(None)
        elif event.HasField("hello"):
            self.mode = WatchMode.Name(event.hello.mode).removeprefix("WATCH_MODE_")


class Load:
    """The load client: told by the pipe what to open and what to wait for."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._groups: dict[str, Group] = {}

    async def run(self) -> None:
        orders: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.fileno(), lambda: orders.put_nowait(self._pipe.recv()))
        # The loop has made it one that does not wait, and an answer can be long.
        os.set_blocking(self._pipe.fileno(), True)
        while True:
            match await orders.get():
                case "open", name, port, request, count:
                    self._pipe.send(await self._open(name, port, request, count))
                case "expect", name:
                    await self._expect(self._groups[name])
                case "cut", name:
                    self._cut(self._groups[name])
                    self._pipe.send("cut")
                case "resume", name, port, environment:
                    self._pipe.send(await self._resume(self._groups[name], port, environment))
                case "soak", name:
                    self._groups[name].soak = {}
                    self._pipe.send("ready")
                case "soaked", name, revision:
                    self._pipe.send(self._soaked(self._groups[name], revision))
                case "end", name, revisions:
                    self._pipe.send(self._end(self._groups.pop(name), revisions))
                case _:
                    return

    async def _open(self, name: str, port: int, request: bytes, count: int) -> str:
        group = self._groups[name] = Group()
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(OPENING)

        async def one() -> Stream:
            async with gate:
                _, stream = await loop.create_connection(lambda: Stream(group, request), "127.0.0.1", port)
                await stream.opened
                return stream

        try:
            async with asyncio.timeout(PATIENCE + count / 100):
                group.streams = list(await asyncio.gather(*(one() for _ in range(count))))
        except (OSError, TimeoutError) as exc:
            return f"not all of {count} streams were opened: {exc!r}"
        gc.collect()
        gc.freeze()
        return ""

    async def _expect(self, group: Group) -> None:
        """Answer when each stream has got one more delta, or when that takes too long."""
        done = asyncio.Event()
        group.arrivals = []
        group.complete = done.set
        self._pipe.send("ready")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE):
                await done.wait()
        group.complete = None
        self._pipe.send((group.arrivals, group.frame))

    @staticmethod
    def _cut(group: Group) -> None:
        for stream in group.streams:
            stream.transport.abort()

    async def _resume(self, group: Group, port: int, environment: str) -> tuple[float, dict[str, int], str]:
        """Open all streams again at once, each with its token; seconds to the last one's step, their modes, an error."""
        loop = asyncio.get_running_loop()
        group.ended = 0

        async def one(former: Stream) -> Stream:
            request = watch_request(port, environment, former.token)
            _, stream = await loop.create_connection(lambda: Stream(group, request), "127.0.0.1", port)
            stream.held = former.held
            await stream.opened
            return stream

        started = time.monotonic()
        try:
            async with asyncio.timeout(2 * PATIENCE):
                group.streams = list(await asyncio.gather(*map(one, group.streams)))
        except (OSError, TimeoutError) as exc:
            return 0.0, {}, f"not all streams were opened again: {exc!r}"
        return time.monotonic() - started, dict(Counter(stream.mode for stream in group.streams)), ""

    @staticmethod
    def _soaked(group: Group, revision: int) -> tuple[int, dict[int, list[int]], list[str]]:
        """Return how many streams have *revision*, when each one came, and what was wrong."""
        assert group.soak is not None
        wrong = list(group.wrong)
        if group.ended:
            wrong.append(f"{group.ended} streams ended")
        return sum(stream.held == revision for stream in group.streams), group.soak, wrong

    @staticmethod
    def _end(group: Group, revisions: list[int]) -> list[str]:
        """Close the streams, and say which of them did not get exactly *revisions*, in order."""
        wrong = [
            f"stream {index} got {len(stream.revisions)} deltas, not the {len(revisions)} in order"
            for index, stream in enumerate(group.streams)
            if stream.revisions != revisions
        ]
        wrong += group.wrong
        if group.ended:
            wrong.append(f"{group.ended} streams ended early")
        for stream in group.streams:
            stream.transport.abort()
        return wrong[:20]


class FloorStream(asyncio.Protocol):
    """One connection of the floor: any request is answered by the head of a response and a greeting."""

    def __init__(self, transports: set[Any]) -> None:
        self._transports = transports

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        greeting = WatchResponse(snapshot_end=SnapshotEnd()).SerializeToString()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(envelope(greeting))
        )
        self._transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transports.discard(self._transport)


class FloorControl(asyncio.Protocol):
    """The connection by which the floor is given a frame: four bytes of length, then what to write as it is."""

    def __init__(self, transports: set[Any]) -> None:
        self._transports = transports
        self._raw = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) < 4 or len(self._raw) < 4 + int.from_bytes(self._raw[:4], "big"):
            return
        frame, self._raw = self._raw[4:], b""
        for transport in self._transports:
            transport.write(frame)
        self._transport.write(b"ok")


def run_load(pipe: Connection) -> None:
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Load(pipe).run())


def run_floor(pipe: Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        transports: set[Any] = set()
        asked = asyncio.Event()
        streams = await loop.create_server(lambda: FloorStream(transports), "127.0.0.1", 0, backlog=4096)
        control = await loop.create_server(lambda: FloorControl(transports), "127.0.0.1", 0)
        pipe.send([server.sockets[0].getsockname()[1] for server in (streams, control)])
        loop.add_reader(pipe.fileno(), asked.set)
        await asked.wait()

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
