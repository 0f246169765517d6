"""Watchers that stay open for long, and clients that stop reading: what `--soak` and `--stalled` measure."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load import PATIENCE, run_load, watch_request
from benchmarks.process import answer, ask, child, percentile, processor_seconds, resident_kib, served
from benchmarks.series import PAUSE, Series, change, prepare
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, PutEnvironment, PutSetting
from rheo.v1.project_pb2 import Environment
from rheo.v1.setting_pb2 import Setting
from rheo.v1.value_pb2 import Value

ESTABLISHED = 1
"""The state of a connection that is open at both ends, as Linux counts them."""
SAMPLES = 20
"""Of the server's memory, in a soak."""


def soak(watchers: int, seconds: float, rate: float) -> dict[str, Any]:
    """Hold *watchers* open for *seconds*, with *rate* changes in each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served("asgi", f"sqlite:{folder}/store.db") as (url, pid),
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
        url, pid = stack.enter_context(served("asgi", f"sqlite:{folder}/store.db"))
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
