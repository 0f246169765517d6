"""The rows of "Delivery" in the performance page of the design, each beside its target and its floor of the same run."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.load import chunk, envelope, run_floor, run_load, watch_request
from benchmarks.postgres import WRITERS, together
from benchmarks.postgres import floor as postgres_floor
from benchmarks.process import answer, ask, child, percentile, served
from benchmarks.series import PAUSE, change, prepare
from benchmarks.store import floor as sqlite_floor
from benchmarks.store import through_service
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheostat.store.postgres import PostgresStore
from rheostat.store.sqlite import SqliteStore
from tests.postgres import Server

LARGE = 10_000
"""Settings of a large environment."""
WARM_UP = 10
"""Changes that are not counted, of one watcher."""

_SERVER_ONLY = (
    "alembic",
    "jsonschema_rs",
    "limits",
    "prometheus_client",
    "protovalidate",
    "sqlalchemy",
    "uvicorn",
)

_IMPORT = """
import sys, time
started = time.perf_counter()
{statement}
taken = time.perf_counter() - started
print(taken * 1000, *(name for name in {names!r} if name in sys.modules))
"""

_EMPTY_SERVER = """
import uvicorn

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", flush=True)

async def application(scope, receive, send):
    await receive()

Server(uvicorn.Config(application, port=0, log_level="critical", lifespan="off")).run()
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        measure: What was measured.
        target: What it is to be, in words.
        measured: What it was, in words.
        floor: What the bare thing took in the same run; empty without one.
        met: The target was met.
        figures: The numbers.
        wrong: What must not happen, and did.
    """

    measure: str
    target: str
    measured: str
    floor: str
    met: bool
    figures: Mapping[str, Any] = field(default_factory=dict)
    wrong: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        return asdict(self)


def rows_of_crowd(measured: Mapping[str, Any]) -> Iterator[Row]:
    """Judge what `delivery.py` has measured at one count of watchers."""
    watchers = measured["watchers"]
    last, floor = measured["measured"]["last_ms"]["p99"], measured["floor"]["last_ms"]["p99"]
    rate, memory = measured["rate_of_the_floor"], measured["measured"]["kib_per_stream"]
    if watchers == 1000:
        yield Row(
            "commit → last of 1 000 watchers, p99",
            "≤ 50 ms, ≤ twice the floor",
            f"{last:.1f} ms, {last / floor:.1f} times",
            f"{floor:.1f} ms",
            last <= 50 and last <= 2 * floor,
        )
        yield Row(
            "frames delivered to 1 000", "≥ 50 % of the floor's rate", f"{rate:.0%}", "100%", rate >= 0.5
        )
    if watchers == LARGE:
        yield Row(
            "commit → last of 10 000 watchers, p99",
            "≤ 300 ms",
            f"{last:.0f} ms",
            f"{floor:.0f} ms",
            last <= 300,
        )
        floor_memory = measured["floor"]["kib_per_stream"]
        yield Row(
            "memory a stream of 10 000",
            "≤ 32 KiB",
            f"{memory:.1f} KiB",
            f"{floor_memory:.1f} KiB",
            memory <= 32,
        )


def scenarios(scale: float) -> Iterator[Callable[[], Iterator[Row]]]:
    """Yield what measures the other rows; *scale* makes the numbers of repetitions smaller."""

    def times(count: int) -> int:
        return max(3, round(count * scale))

    yield lambda: large_environment(times(50), times(5))
    yield lambda: resume(1000, times(5))
    yield lambda: sqlite_processes(times(300))
    yield lambda: postgres(times(300), times(3200))
    yield lambda: sqlite_writes(times(3200))
    yield lambda: imports(times(9))


def large_environment(changes: int, starts: int) -> Iterator[Row]:
    """What one change of many settings costs a client, and how soon a server with them is ready."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:{folder}/store.db"
        with (
            served("asgi", store) as (url, _),
            child(run_load) as (load, _),
            AdminServiceClientSync(url) as client,
        ):
            prepare(client, LARGE)
            port = int(url.rpartition(":")[2])
            if error := ask(load, "open", "server", port, watch_request(port), 1):
                raise RuntimeError(error)
            sizes = []
            for number in range(changes):
                ask(load, "expect", "server")
                client.commit(change(number))
                _, frame = answer(load)
                sizes.append(len(chunk(envelope(frame))))
        yield Row(
            "bytes a client, one setting of 10 000 changed",
            "≤ 1 000 B",
            f"{max(sizes)} B",
            "",
            max(sizes) <= 1000,
            {"bytes": max(sizes)},
        )
        taken, empty = [], []
        for _ in range(starts):
            started = time.perf_counter()
            with served("asgi", store) as (url, _):
                with urllib.request.urlopen(f"{url}/readyz") as response:
                    assert response.status == 200
                taken.append(time.perf_counter() - started)
            empty.append(_starting_empty())
        yield Row(
            "start of `rheostat serve` with 10 000 settings to ready",
            "≤ 2 s",
            f"{statistics.median(taken):.2f} s, longest {max(taken):.2f} s",
            f"{statistics.median(empty):.2f} s (uvicorn)",
            statistics.median(taken) <= 2,
            {"seconds": taken, "floor_seconds": empty},
        )


def _starting_empty() -> float:
    """Seconds until a bare uvicorn accepts connections."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", _EMPTY_SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = time.perf_counter() - started
        process.terminate()
    return taken


def resume(clients: int, rounds: int) -> Iterator[Row]:
    """Cut all clients at once, change something, and let all of them come back at once."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, _ = stack.enter_context(served("asgi", f"sqlite:{folder}/store.db"))
        load, _ = stack.enter_context(child(run_load))
        bare, _ = stack.enter_context(child(run_load))
        floor, _ = stack.enter_context(child(run_floor))
        floor_port, _ = answer(floor)
        client = stack.enter_context(AdminServiceClientSync(url))
        prepare(client)
        port = int(url.rpartition(":")[2])
        for pipe, name, at in ((load, "server", port), (bare, "floor", floor_port)):
            if error := ask(pipe, "open", name, at, watch_request(at), clients):
                raise RuntimeError(error)
        snapshots = _snapshots(url)
        taken, floors = [], []
        modes: dict[str, int] = {}
        wrong: list[str] = []
        for number in range(rounds):
            for pipe, name in ((load, "server"), (bare, "floor")):
                ask(pipe, "cut", name)
            for step in range(3):
                client.commit(change(3 * number + step))
            seconds, found, error = ask(load, "resume", "server", port, "production")
            taken.append(seconds)
            wrong += [error] if error else []
            for mode, count in found.items():
                modes[mode] = modes.get(mode, 0) + count
            seconds, _, error = ask(bare, "resume", "floor", floor_port, "production")
            floors.append(seconds)
        sent = _snapshots(url) - snapshots
        if sent or set(modes) != {"DELTA"}:
            wrong.append(f"{sent:.0f} snapshots were sent, and the streams began with {modes}")
        yield Row(
            f"{clients} clients resume after a cut",
            "all by a delta, no snapshot",
            f"{statistics.median(taken):.2f} s to the last, {modes.get('DELTA', 0)} deltas, {sent:.0f} snapshots",
            f"{statistics.median(floors):.2f} s (connections and a frame)",
            not wrong,
            {"seconds": taken, "floor_seconds": floors, "modes": modes, "snapshots": sent},
            wrong,
        )


def _snapshots(url: str) -> float:
    """How many snapshots the server has sent."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    found = [
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("rheostat_watch_snapshots_total")
    ]
    assert found, "the server counts no snapshots"
    return sum(found)


def sqlite_processes(changes: int) -> Iterator[Row]:
    """From a commit at one process to a watcher of another one on the same file."""
    with tempfile.TemporaryDirectory() as folder:
        delays = across(f"sqlite:{folder}/store.db", changes)
        bare = _datagrams(Path(folder), changes)
    yield _across_row(
        "SQLite commit → watcher in another process, p99", 10, delays, bare, "fsync and a datagram"
    )


def postgres(changes: int, commits: int) -> Iterator[Row]:
    """From a commit at one node to a watcher of another one, and what 16 writers get done."""
    server = Server()
    try:
        for name in ("across", "service", "floor"):
            server.execute(f"CREATE DATABASE {name}")
        delays = across(server.url("across"), changes)
        bare = _notifications(server.url("floor"), changes)
        yield _across_row(
            "PostgreSQL commit on node A → watcher on node B, p99", 20, delays, bare, "LISTEN and NOTIFY"
        )
        server.execute("CREATE TABLE floor (id bigserial PRIMARY KEY, body text)", "floor")
        share = commits // WRITERS
        started = time.perf_counter()
        together(WRITERS, lambda: postgres_floor(server.url("floor"), share))
        inserts = share * WRITERS / (time.perf_counter() - started)
        yield _writes_row("PostgreSQL", PostgresStore(server.url("service")), commits, inserts)
    finally:
        server.close()


def sqlite_writes(commits: int) -> Iterator[Row]:
    """What 16 writers get done on SQLite, each acknowledgement durable."""
    with tempfile.TemporaryDirectory() as folder:
        bare = sqlite_floor(Path(folder, "floor.db"), "full", commits)
        yield _writes_row("SQLite", SqliteStore(Path(folder, "store.db"), synchronous="full"), commits, bare)


def _writes_row(name: str, store: Any, commits: int, bare: float) -> Row:
    rate, used = through_service(store, commits, (WRITERS,))[WRITERS]
    return Row(
        f"writes acknowledged on {name}, 16 writers",
        "≥ 1 000 change-sets/s",
        f"{rate:.0f}/s, {used * 1e6:.0f} µs of CPU each",
        f"{bare:.0f}/s (bare inserts)",
        rate >= 1000,
        {"per_second": rate, "cpu_us": used * 1e6, "floor_per_second": bare},
    )


@dataclass(slots=True)
class Delays:
    """Milliseconds from the call of a commit, change by change."""

    acknowledged: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)


def across(store: str, changes: int) -> Delays:
    """Commit at one server, and watch at another one of the same store, and then at the same one."""
    with contextlib.ExitStack() as stack:
        (own, _), (other, _) = [stack.enter_context(served("asgi", store)) for _ in range(2)]
        client = stack.enter_context(AdminServiceClientSync(own))
        prepare(client)
        delays = Delays()
        # One after the other: two watchers and two servers would wait for the same two processors.
        each = WARM_UP + changes
        delays.acknowledged, delays.there = _watched(client, other, range(each))
        # What sets a value that is set already is no change: no number comes twice.
        _, delays.here = _watched(client, own, range(each, 2 * each))
        return delays


def _watched(client: AdminServiceClientSync, url: str, numbers: range) -> tuple[list[float], list[float]]:
    """Commit some changes; returns the milliseconds to the answer and to the watcher of the server at *url*."""
    acknowledged: list[float] = []
    arrived: list[float] = []
    with child(run_load) as (pipe, _):
        port = int(url.rpartition(":")[2])
        if error := ask(pipe, "open", "server", port, watch_request(port), 1):
            raise RuntimeError(error)
        for number in numbers:
            time.sleep(PAUSE)
            ask(pipe, "expect", "server")
            started = time.monotonic_ns()
            client.commit(change(number))
            answered = time.monotonic_ns()
            arrivals, _ = answer(pipe)
            if not arrivals:
                raise RuntimeError(f"the watcher never saw change {number}")
            if number >= numbers.start + WARM_UP:
                acknowledged.append((answered - started) / 1e6)
                arrived.append((arrivals[0] - started) / 1e6)
    return acknowledged, arrived


def _across_row(measure: str, target: float, delays: Delays, bare: Sequence[float], what: str) -> Row:
    there = percentile(delays.there, 99)
    figures = {
        name: {share: percentile(values, share) for share in (50, 99)}
        for name, values in (
            ("acknowledged_ms", delays.acknowledged),
            ("here_ms", delays.here),
            ("there_ms", delays.there),
            ("floor_ms", bare),
        )
    }
    return Row(
        measure,
        f"≤ {target:.0f} ms",
        f"{there:.1f} ms (p50 {percentile(delays.there, 50):.1f}; at the same node {percentile(delays.here, 99):.1f}, "
        f"acknowledged {percentile(delays.acknowledged, 99):.1f})",
        f"{percentile(bare, 99):.1f} ms ({what})",
        there <= target,
        figures,
    )


def _notifications(url: str, changes: int) -> list[float]:
    """Milliseconds from an insert with NOTIFY to the notification on another connection."""
    taken = []
    with psycopg.connect(url, autocommit=True) as listening, psycopg.connect(url, autocommit=True) as writing:
        writing.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, body text)")
        listening.execute("LISTEN bare")
        for _ in range(changes):
            time.sleep(PAUSE)
            started = time.perf_counter()
            with writing.transaction():
                writing.execute("INSERT INTO bare (body) VALUES (%s)", ("x" * 500,))
                writing.execute("NOTIFY bare")
            next(listening.notifies(stop_after=1))
            taken.append((time.perf_counter() - started) * 1000)
    return taken


def _datagrams(folder: Path, changes: int) -> list[float]:
    """Milliseconds from a write with fsync to a datagram's arrival in another thread."""
    taken = []
    arrived: list[float] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending,
        (folder / "bare").open("wb", buffering=0) as file,
    ):
        receiving.bind(str(folder / "poke"))

        def receive() -> None:
            receiving.recv(16)
            arrived.append(time.perf_counter())

        for _ in range(changes):
            thread = threading.Thread(target=receive)
            thread.start()
            time.sleep(PAUSE)
            started = time.perf_counter()
            file.write(b"x" * 500)
            os.fsync(file.fileno())
            sending.sendto(b"x", str(folder / "poke"))
            thread.join()
            taken.append((arrived[-1] - started) * 1000)
    return taken


def imports(times: int) -> Iterator[Row]:
    """What the import of the SDK takes in a new interpreter, and what it brings with it."""

    def importing(statement: str) -> tuple[float, set[str]]:
        taken = []
        brought: set[str] = set()
        for _ in range(times):
            program = _IMPORT.format(statement=statement, names=_SERVER_ONLY)
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            first, *names = done.stdout.split()
            taken.append(float(first))
            brought.update(names)
        return statistics.median(taken), brought

    bare, _ = importing("import urllib3, google.protobuf.message")
    lazy, _ = importing("import rheostat")
    full, brought = importing("from rheostat import Client, Setting")
    yield Row(
        "import of `rheostat`",
        "≤ 150 ms, without the server's dependencies",
        f"{lazy:.1f} ms; {full:.0f} ms with Client and Setting"
        + (f", brings {sorted(brought)}" if brought else ""),
        f"{bare:.0f} ms (urllib3 and protobuf)",
        lazy <= 150 and not brought,
        {"ms": lazy, "with_client_ms": full, "floor_ms": bare, "brought": sorted(brought)},
    )
