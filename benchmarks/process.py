"""Processes of the benchmarks: started, asked, measured and ended by their ids."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.load import PATIENCE, run_load

PACKAGES = ("connectrpc", "gevent", "gunicorn", "httptools", "protobuf", "pyqwest", "uvicorn", "uvloop")
ROOT = Path(__file__).parent.parent
CONNECTIONS = 5_000
"""What a gevent worker may hold."""


def application(store: str) -> Any:
    """What gunicorn serves."""
    from rheostat.server import open_service, wsgi_app

    # A greenlet costs little, so that the limit for servers with a thread for each stream is not needed.
    return wsgi_app(open_service(store), open=True, max_streams=CONNECTIONS)


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
def served(kind: str, store: str) -> Iterator[tuple[str, int]]:
    """Run a server on the store with this URL; yields its own URL and process id."""
    if kind == "asgi":
        command = ["-m", "rheostat.cli", "serve", "--port", "0", "--store", store, "--log-level", "warning"]
    else:
        command = ["-m", "gunicorn", "--bind", "127.0.0.1:0"]
        command += ["--worker-class", "gevent", "--worker-connections", str(CONNECTIONS), "--backlog", "4096"]
        command += [f"benchmarks.process:application({store!r})"]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
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


@contextlib.contextmanager
def loads() -> Iterator[dict[str, Connection]]:
    """Run a load client for the server and one for the floor: one alone may not open as many files."""
    with child(run_load) as (server, _), child(run_load) as (floor, _):
        yield {"server": server, "floor": floor}


def percentile(values: Sequence[float], share: int) -> float:
    return sorted(values)[math.ceil(len(values) * share / 100) - 1]


def ask(pipe: Connection, *order: Any) -> Any:
    pipe.send(order)
    return answer(pipe)


def answer(pipe: Connection) -> Any:
    if not pipe.poll(10 * PATIENCE):
        raise RuntimeError("the load client does not answer")
    return pipe.recv()


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
