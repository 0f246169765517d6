"""From the call of a commit to its delta at 1, 100 and 1 000 watchers, beside a raw asyncio server.

Run: python benchmarks/delivery.py [--watchers 1,100,1000] [--changes N] [--servers asgi,wsgi-gevent]. Writes
build/bench/delivery.json, and exits with 1 when a watcher missed a revision or got one out of order.

The processes share the machine: the server, a load client that holds its streams, and this one, which commits. A
change at the server and the same bytes from the floor take turns, so that both meet the same noise. The floor is
uvloop, and writes one frame that is encoded already to as many sockets; it neither plans nor stores anything.

With --stalled N, so many more clients stop reading in the middle of a snapshot: what they cost the server, when it
ends them, and what the others notice. With --soak SECONDS and --rate CHANGES, the watchers stay open for so long, with
so many changes a second; they must see no revision twice or out of order, and all have the last one in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, PutEnvironment, PutSetting, SetValue
from rheo.v1.project_pb2 import Environment
from rheo.v1.setting_pb2 import Setting
from rheo.v1.value_pb2 import Value
from rheo.v1.watch_pb2 import SnapshotEnd, WatchRequest, WatchResponse

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "delivery.json"
PACKAGES = ("connectrpc", "gevent", "gunicorn", "httptools", "protobuf", "pyqwest", "uvicorn", "uvloop")
SETTINGS = 100
WARM_UP = 5
PATIENCE = 15.0
"""Seconds that one step may take; only a broken run waits so long."""
OPENING = 64
"""Streams that are opened at one time."""
CONNECTIONS = 5_000
"""What a gevent worker may hold."""
WIDTH = 150
ESTABLISHED = 1
"""The state of a connection that is open at both ends, as Linux counts them."""
SAMPLES = 20
"""Of the server's memory, in a soak."""
PAUSE = 0.01
"""Seconds between two changes, so that none begins while the one before is still being worked off."""

# Shared by the load client and the floor.


def envelope(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


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
            group.frame = message
            if len(group.arrivals) == len(group.streams) and group.complete is not None:
                group.complete()
        elif event.HasField("snapshot_end"):
            self.held = event.snapshot_end.position.revision
            if not self.opened.done():
                self.opened.set_result(None)


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


def application(store: str) -> Any:
    """What gunicorn serves."""
    from rheostat.server import open_service, wsgi_app

    # A greenlet costs little, so that the limit for servers with a thread for each stream is not needed.
    return wsgi_app(open_service(store), open=True, max_streams=CONNECTIONS)


# The process that commits.


@contextlib.contextmanager
def child(target: Callable[[Connection], None]) -> Iterator[tuple[Connection, int]]:
    """Run *target* in a process of its own while the context lasts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield ours, process.pid
    finally:
        with contextlib.suppress(OSError):
            ours.send(("stop",))
        process.join(2)
        if process.is_alive():
            process.kill()


@contextlib.contextmanager
def served(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Run a server on a new SQLite file; yields its URL and process id."""
    store = f"sqlite:{folder / f'{kind}.db'}"
    if kind == "asgi":
        command = ["-m", "rheostat.cli", "serve", "--port", "0", "--store", store, "--log-level", "warning"]
    else:
        command = ["-m", "gunicorn", "--chdir", str(Path(__file__).parent), "--bind", "127.0.0.1:0"]
        command += ["--worker-class", "gevent", "--worker-connections", str(CONNECTIONS), "--backlog", "4096"]
        command += [f"delivery:application({store!r})"]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            _, found, address = line.partition("http://127.0.0.1:")
            if found:
                break
        else:
            raise RuntimeError(f"the {kind} server ended at its start")
        yield f"http://127.0.0.1:{int(address.split()[0])}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.stdout is not None
        process.stdout.close()


def tree(pid: int) -> Iterator[int]:
    """Yield the process and its descendants."""
    yield pid
    for line in Path(f"/proc/{pid}/task").glob("*/children"):
        for found in line.read_text().split():
            yield from tree(int(found))


def processor_seconds(pid: int) -> float:
    """What the process and its descendants have used so far."""
    ticks = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """What the process and its descendants hold in memory."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(slots=True)
class Series:
    """The changes of one server at one count of watchers, milliseconds."""

    acknowledged: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    spreading: list[float] = field(default_factory=list)
    processor_us_per_frame: float = 0.0
    kib_per_stream: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def add(self, started: int, acknowledged: int, arrivals: Sequence[int]) -> None:
        ordered = sorted(arrivals)
        self.acknowledged.append((acknowledged - started) / 1e6)
        self.first.append((ordered[0] - started) / 1e6)
        self.median.append((ordered[len(ordered) // 2] - started) / 1e6)
        self.last.append((ordered[-1] - started) / 1e6)
        self.spreading.append((ordered[-1] - ordered[0]) / 1e6)

    def summary(self) -> dict[str, Any]:
        named = {
            name: {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
            for name, values in (
                ("acknowledged_ms", self.acknowledged),
                ("first_ms", self.first),
                ("median_ms", self.median),
                ("last_ms", self.last),
                ("spreading_ms", self.spreading),
            )
        }
        return {
            **named,
            "processor_us_per_frame": self.processor_us_per_frame,
            "kib_per_stream": self.kib_per_stream,
        }


def percentile(values: Sequence[float], share: int) -> float:
    return sorted(values)[math.ceil(len(values) * share / 100) - 1]


def ask(pipe: Connection, *order: Any) -> Any:
    pipe.send(order)
    return answer(pipe)


def answer(pipe: Connection) -> Any:
    if not pipe.poll(10 * PATIENCE):
        raise RuntimeError("the load client does not answer")
    return pipe.recv()


class Measurement:
    """One server and the floor, with so many watchers each."""

    def __init__(self, loads: Mapping[str, Connection], watchers: int) -> None:
        self.loads = loads
        self.watchers = watchers
        self.frame_bytes = 0
        self.opening_seconds = 0.0

    def run(self, kind: str, changes: int) -> tuple[Series, Series]:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            url, pid = stack.enter_context(served(kind, Path(folder)))
            floor, floor_pid = stack.enter_context(child(run_floor))
            stream_port, control_port = answer(floor)
            client = stack.enter_context(AdminServiceClientSync(url))
            prepare(client)
            control = stack.enter_context(connect(control_port))
            series, floor_series = Series(), Series()
            started = time.monotonic()
            series.kib_per_stream = self._open("server", int(url.rpartition(":")[2]), pid)
            self.opening_seconds = time.monotonic() - started
            floor_series.kib_per_stream = self._open("floor", stream_port, floor_pid)

            def at_server(number: int) -> int:
                return client.commit(change(number)).revision

            def at_floor(_: int) -> int:
                frame = chunk(envelope(self._frame))
                control.sendall(len(frame).to_bytes(4, "big") + frame)
                assert control.recv(2) == b"ok"
                return self._revision

            revisions: list[int] = []
            for number in range(WARM_UP + changes):
                if number == WARM_UP:
                    used, floor_used = processor_seconds(pid), processor_seconds(floor_pid)
                kept = number >= WARM_UP
                self._revision = self._change("server", at_server, number, series if kept else None)
                revisions.append(self._revision)
                self._change("floor", at_floor, number, floor_series if kept else None)
            frames = changes * self.watchers
            series.processor_us_per_frame = (processor_seconds(pid) - used) / frames * 1e6
            floor_series.processor_us_per_frame = (processor_seconds(floor_pid) - floor_used) / frames * 1e6
            self.frame_bytes = len(chunk(envelope(self._frame)))
            series.wrong += ask(self.loads["server"], "end", "server", revisions)
            floor_series.wrong += ask(self.loads["floor"], "end", "floor", revisions)
        return series, floor_series

    def _open(self, name: str, port: int, pid: int) -> float:
        """Open the streams; returns the KiB that the server has grown by, for each."""
        before = resident_kib(pid)
        error = ask(self.loads[name], "open", name, port, watch_request(port), self.watchers)
        if error:
            raise RuntimeError(error)
        return (resident_kib(pid) - before) / self.watchers

    def _change(self, name: str, make: Callable[[int], int], number: int, series: Series | None) -> int:
        time.sleep(PAUSE)
        load = self.loads[name]
        ask(load, "expect", name)
        started = time.monotonic_ns()
        revision = make(number)
        acknowledged = time.monotonic_ns()
        arrivals, self._frame = answer(load)
        if len(arrivals) != self.watchers:
            raise RuntimeError(f"{name}: {len(arrivals)} of {self.watchers} watchers saw revision {revision}")
        if series is not None:
            series.add(started, acknowledged, arrivals)
        return revision


def watch_request(port: int, environment: str = "production") -> bytes:
    body = envelope(WatchRequest(environment=environment).SerializeToString())
    return (
        b"POST /rheo.v1.ConfigService/Watch HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n"
        b"content-type: application/connect+proto\r\nconnect-protocol-version: 1\r\n"
        b"content-length: %d\r\n\r\n%b" % (port, len(body), body)
    )


def soak(watchers: int, seconds: float, rate: float) -> dict[str, Any]:
    """Hold *watchers* open for *seconds*, with *rate* changes in each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served("asgi", Path(folder)) as (url, pid),
        child(run_load) as (load, _),
        AdminServiceClientSync(url) as client,
    ):
        prepare(client)
        port = int(url.rpartition(":")[2])
        empty = resident_kib(pid)
        if error := ask(load, "open", "server", port, watch_request(port), watchers):
            raise RuntimeError(error)
        ask(load, "soak", "server")
        resident = [resident_kib(pid)]
        started: dict[int, int] = {}
        begun, used, sampled, number = time.monotonic(), processor_seconds(pid), 0.0, 0
        while (passed := time.monotonic() - begun) < seconds:
            if passed >= sampled + seconds / SAMPLES:
                sampled = passed
                resident.append(resident_kib(pid))
            at = time.monotonic_ns()
            revision = client.commit(change(number)).revision
            started[revision] = at
            number += 1
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            converged, seen, wrong = ask(load, "soaked", "server", revision)
            if converged == watchers or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        resident.append(resident_kib(pid))
        last = [(entry[1] - started[found]) / 1e6 for found, entry in seen.items() if found in started]
        if converged != watchers:
            wrong.append(f"{watchers - converged} of {watchers} watchers do not have the last revision")
        frames = sum(entry[0] for entry in seen.values())
        return {
            "watchers": watchers,
            "seconds": time.monotonic() - begun,
            "changes": number,
            "frames": frames,
            "coalesced_away": 1 - frames / (number * watchers),
            "last_ms": {share: percentile(last, share) for share in (50, 99, 100)},
            "processor_us_per_frame": (processor_seconds(pid) - used) / frames * 1e6,
            "kib_per_stream": (resident[0] - empty) / watchers,
            "resident_mib": [round(kib / 1024, 1) for kib in resident],
            "wrong": wrong[:20],
        }


def stall(watchers: int, count: int, changes: int) -> dict[str, Any]:
    """Let *count* clients stop reading in the middle of a snapshot, beside *watchers* that go on."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, pid = stack.enter_context(served("asgi", Path(folder)))
        load, _ = stack.enter_context(child(run_load))
        client = stack.enter_context(AdminServiceClientSync(url))
        prepare(client)
        environment = Mutation(put_environment=PutEnvironment(environment=Environment(name="stalled")))
        client.commit(CommitRequest(mutations=[environment]))
        large = Value(string_value="x" * 50_000)
        settings = [
            Mutation(put_setting=PutSetting(setting=Setting(name=f"s.{number}", type="str", default=large)))
            for number in range(25)
        ]
        client.commit(CommitRequest(environment="stalled", mutations=settings))
        port = int(url.rpartition(":")[2])
        if error := ask(load, "open", "server", port, watch_request(port), watchers):
            raise RuntimeError(error)

        numbers = iter(range(10 * changes))

        def measured() -> Series:
            series = Series()
            for _ in range(changes):
                time.sleep(PAUSE)
                ask(load, "expect", "server")
                started = time.monotonic_ns()
                client.commit(change(next(numbers)))
                acknowledged = time.monotonic_ns()
                arrivals, _ = answer(load)
                series.add(started, acknowledged, arrivals)
            return series

        measured()
        before = measured()
        resident, kernel = resident_kib(pid), kernel_kib()
        stalled = [stack.enter_context(stalling(port)) for _ in range(count)]
        begun = time.monotonic()
        # Until all of them are past their buffers.
        time.sleep(2)
        cost = {
            "resident_mib": (resident_kib(pid) - resident) / 1024,
            "kernel_mib": (kernel_kib() - kernel) / 1024,
        }
        during = measured()
        open_ = sum(map(is_open, stalled))
        while any(map(is_open, stalled)) and time.monotonic() < begun + 4 * PATIENCE:
            time.sleep(0.1)
        ended = time.monotonic() - begun
        time.sleep(1)
        left = {
            "resident_mib": (resident_kib(pid) - resident) / 1024,
            "kernel_mib": (kernel_kib() - kernel) / 1024,
        }
        still = sum(map(is_open, stalled))
        wrong = [f"{still} stalled clients were not ended"] if still else []
        if open_ < count:
            wrong.append(f"{count - open_} stalled clients were ended before the measurement was over")
        return {
            "watchers": watchers,
            "stalled": count,
            "cost": cost,
            "left": left,
            "ended_after_seconds": ended,
            "before": before.summary()["last_ms"],
            "during": during.summary()["last_ms"],
            "wrong": wrong,
        }


@contextlib.contextmanager
def stalling(port: int) -> Iterator[socket.socket]:
    """Ask for a watch and never read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(watch_request(port, "stalled"))
        yield connection


def is_open(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED


def kernel_kib() -> int:
    """What all TCP sockets of the machine hold in the kernel."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.rpartition("mem ")[2]) * os.sysconf("SC_PAGE_SIZE") // 1024
    raise RuntimeError("/proc/net/sockstat has no TCP")


def prepare(client: AdminServiceClientSync) -> None:
    """Make the settings of an ordinary environment."""
    mutations = [
        Mutation(
            put_setting=PutSetting(
                setting=Setting(
                    name=name_of(number),
                    type="str",
                    default=Value(string_value="a value of an ordinary length"),
                    description="What it does, in one sentence of an ordinary length.",
                )
            )
        )
        for number in range(SETTINGS)
    ]
    client.commit(CommitRequest(environment="production", mutations=mutations))


def name_of(number: int) -> str:
    return f"checkout.setting-{number % SETTINGS:03}"


def change(number: int) -> CommitRequest:
    value = Value(string_value=f"value {number:06} of an ordinary length")
    return CommitRequest(
        environment="production",
        mutations=[Mutation(set_value=SetValue(name=name_of(number), value=value))],
        message="a change",
    )


@contextlib.contextmanager
def loads() -> Iterator[dict[str, Connection]]:
    """Run a load client for the server and one for the floor: one alone may not open as many files."""
    with child(run_load) as (server, _), child(run_load) as (floor, _):
        yield {"server": server, "floor": floor}


@contextlib.contextmanager
def connect(port: int) -> Iterator[Any]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def facts() -> dict[str, Any]:
    versions = {}
    for name in ("rheostat", *PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": versions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", default="1,100,1000", help="counts, separated by commas")
    parser.add_argument("--changes", type=int, default=100, help="measured changes for each count")
    parser.add_argument("--servers", default="asgi", help="asgi, wsgi-gevent, or both separated by a comma")
    parser.add_argument("--stalled", type=int, help="clients that stop reading, beside the watchers")
    parser.add_argument("--soak", type=float, help="seconds for which the watchers stay open")
    parser.add_argument("--rate", type=float, default=5.0, help="changes a second of a soak")
    options = parser.parse_args()
    servers = options.servers.split(",")
    if unknown := set(servers) - {"asgi", "wsgi-gevent"}:
        parser.error(f"there is no server {unknown.pop()!r}")
    # The load client holds the streams of the server and of the floor; the children inherit the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    counts = [int(count) for count in options.watchers.split(",")]
    if options.soak is not None:
        return report("soak", [soak(count, options.soak, options.rate) for count in counts])
    if options.stalled is not None:
        return report("stalled", [stall(count, options.stalled, options.changes) for count in counts])
    table = Table(
        "server",
        "watchers",
        "acknowledged",
        "first",
        "median",
        "last",
        "floor's last",
        "of the floor",
        "its rate",
    )
    table.add_column("CPU µs a frame")
    table.add_column("KiB a stream")
    table.caption = "ms after the call of the commit, p50 / p99"
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    for kind in servers:
        for watchers in counts:
            with loads() as pipes:
                measurement = Measurement(pipes, watchers)
                series, floor = measurement.run(kind, options.changes)
            ratios = {
                f"p{share}": percentile(series.last, share) / percentile(floor.last, share)
                for share in (50, 99)
            }
            # A single watcher is first and last.
            rate = (
                percentile(floor.spreading, 50) / percentile(series.spreading, 50) if watchers > 1 else None
            )
            rows.append(
                {
                    "server": kind,
                    "watchers": watchers,
                    "changes": options.changes,
                    "frame_bytes": measurement.frame_bytes,
                    "opening_seconds": measurement.opening_seconds,
                    "measured": series.summary(),
                    "floor": floor.summary(),
                    "last_of_the_floor": ratios,
                    "rate_of_the_floor": rate,
                    "wrong": series.wrong + floor.wrong,
                }
            )
            wrong += [f"{kind}, {watchers} watchers: {text}" for text in series.wrong + floor.wrong]
            table.add_row(
                kind,
                str(watchers),
                *(
                    pair(v)
                    for v in (series.acknowledged, series.first, series.median, series.last, floor.last)
                ),
                f"{ratios['p50']:.1f} / {ratios['p99']:.1f}",
                f"{rate:.0%}" if rate is not None else "",
                f"{series.processor_us_per_frame:.0f} (floor {floor.processor_us_per_frame:.0f})",
                f"{series.kib_per_stream:.0f} (floor {floor.kib_per_stream:.1f})" if watchers >= 100 else "",
            )
    console = Console()
    # A pipe has no width, and a row is of no use in pieces.
    (console if console.width >= WIDTH else Console(width=WIDTH)).print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"machine": facts(), "rows": rows}, indent=2) + "\n")
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


def report(name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Print and keep the figures of another measurement."""
    output = OUTPUT.with_name(f"delivery-{name}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": facts(), "rows": rows}, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row, indent=2))
    return 1 if any(row["wrong"] for row in rows) else 0


def pair(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):.1f} / {percentile(values, 99):.1f}"


if __name__ == "__main__":
    sys.exit(main())
