"""Commits a second on SQLite, beside the floor of the bare library, and how soon another process sees them.

Through the service means that each change-set is planned, judged by what the clients have declared, and published.

Run: python benchmarks/store.py [--commits N] [--latencies N]. Writes build/bench/store.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rheostat.model.change import Change, ChangeSet, PutSetting, SetValue
from rheostat.model.setting import Setting
from rheostat.model.type import parse_type
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store.base import Store, Transaction
from rheostat.store.pool import Synchronous
from rheostat.store.sqlite import SqliteStore

WRITERS = 4
NODE_WRITERS = (1, 4, 16)
SETTINGS = 500
OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "store.json"


def write(transaction: Transaction) -> ChangeSet:
    revision = transaction.revision + 1
    name = f"checkout.setting-{revision % 500}"
    setting = Setting(
        id=f"id-{name}",
        name=name,
        type=parse_type("str"),
        default="a value of an ordinary length",
        description="What it does, in one sentence of an ordinary length.",
        revision=revision,
    )
    return ChangeSet(
        "shop",
        (Change("shop", "production", "setting", name, None, setting),),
        author="benchmark",
        message="a change",
        actor="benchmark",
        request_id=str(revision),
    )


def floor(path: Path, synchronous: Synchronous, commits: int) -> float:
    """One row of a change-set's size in each transaction, with nothing around it: commits a second."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE row (revision INTEGER PRIMARY KEY, body TEXT)")
    started = time.perf_counter()
    for revision in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO row VALUES (?, ?)", (revision, "x" * 500))
        connection.execute("COMMIT")
    taken = time.perf_counter() - started
    connection.close()
    return commits / taken


def one_writer(path: Path, synchronous: Synchronous, commits: int) -> float:
    store = SqliteStore(path, synchronous=synchronous)
    started = time.perf_counter()
    for _ in range(commits):
        store.commit(write)
    taken = time.perf_counter() - started
    store.close()
    return commits / taken


def _write_some(path: Path, synchronous: Synchronous, commits: int, pipe: Connection) -> None:
    store = SqliteStore(path, synchronous=synchronous, timeout=60)
    pipe.send("ready")
    pipe.recv()
    slowest = 0.0
    for _ in range(commits):
        started = time.perf_counter()
        store.commit(write)
        slowest = max(slowest, time.perf_counter() - started)
    pipe.send(slowest)
    store.close()


def many_writers(path: Path, synchronous: Synchronous, commits: int) -> tuple[float, float]:
    """Several processes at once: commits a second of all together, and the longest that one waited, seconds."""
    children = [_child(_write_some, path, synchronous, commits // WRITERS) for _ in range(WRITERS)]
    for pipe, _ in children:
        pipe.recv()
    started = time.perf_counter()
    for pipe, _ in children:
        pipe.send("go")
    slowest = max(pipe.recv() for pipe, _ in children)
    taken = time.perf_counter() - started
    for _, process in children:
        process.join()
    return commits // WRITERS * WRITERS / taken, slowest


def through_service(
    store: Store, commits: int, writers: Sequence[int] = NODE_WRITERS
) -> dict[int, tuple[float, float]]:
    """By the number of writers of one node: change-sets a second, and CPU seconds of the process for each."""
    results = {}
    with Service(store, background=False) as service:
        names = [f"checkout.setting-{number}" for number in range(SETTINGS)]
        for start in range(0, SETTINGS, 100):
            fields = {"type": "str", "default": "", "description": "What it does, in one sentence."}
            put = [PutSetting(name, dict(fields)) for name in names[start : start + 100]]
            service.commit(Writer(OPEN), "default", "production", put)
        for count in writers:
            share = commits // count

            def write_some(writer: int, count: int = count, share: int = share) -> None:
                for number in range(share):
                    request = Writer(
                        OPEN,
                        "benchmark",
                        "a change",
                        request_id=f"{count}/{writer}/{number}",
                        payload=bytes(32),
                    )
                    value = f"a value of an ordinary length, {number}"
                    change = SetValue(names[(writer * share + number) % SETTINGS], value)
                    service.commit(request, "default", "production", [change])

            threads = [threading.Thread(target=write_some, args=(writer,)) for writer in range(count)]
            started, used = time.perf_counter(), time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            made = share * count
            results[count] = made / (time.perf_counter() - started), (time.process_time() - used) / made
    return results


def _follow(path: Path, commits: int, pipe: Connection) -> None:
    store = SqliteStore(path)
    seen = store.revision()
    store.wait_hint(0)
    pipe.send("ready")
    times: dict[int, float] = {}
    while len(times) < commits:
        if store.wait_hint(1):
            for change_set in store.read_since(seen):
                seen = change_set.revision
                times[seen] = time.monotonic()
    pipe.send(times)
    store.close()


def latency(path: Path, commits: int) -> list[float]:
    """From the call of a commit's acknowledgement to its change-set in another process, seconds, sorted.

    Both clocks are the machine's monotonic one. Commits come one each few milliseconds, as people make them.
    """
    store = SqliteStore(path)
    pipe, process = _child(_follow, path, commits)
    pipe.recv()
    acknowledged: dict[int, float] = {}
    for _ in range(commits):
        written = store.commit(write)
        now = time.monotonic()
        if written is not None:
            acknowledged[written.revision] = now
        time.sleep(0.004)
    seen: dict[int, float] = pipe.recv()
    process.join()
    store.close()
    return sorted(seen[revision] - then for revision, then in acknowledged.items())


def _child(
    target: Callable[..., None], *arguments: object
) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    return ours, process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--latencies", type=int, default=1000)
    options = parser.parse_args()
    results: dict[str, Any] = {"sqlite": sqlite3.sqlite_version}
    table = Table("measure", "floor", "Rheostat", "of the floor")
    modes: tuple[Synchronous, ...] = ("full", "normal")
    with tempfile.TemporaryDirectory() as folder:
        for mode in modes:
            bare = floor(Path(folder, f"floor-{mode}.db"), mode, options.commits)
            alone = one_writer(Path(folder, f"one-{mode}.db"), mode, options.commits)
            together, slowest = many_writers(Path(folder, f"many-{mode}.db"), mode, options.commits)
            results[mode] = {
                "floor_commits_per_second": bare,
                "commits_per_second": alone,
                "commits_per_second_of_4_processes": together,
                "slowest_commit_of_4_processes_ms": slowest * 1000,
            }
            table.add_row(f"commits/s, {mode}", f"{bare:.0f}", f"{alone:.0f}", f"{alone / bare:.0%}")
            table.add_row(
                f"commits/s, {mode}, {WRITERS} processes",
                f"{bare:.0f}",
                f"{together:.0f}",
                f"{together / bare:.0%}",
            )
            table.add_row(f"slowest commit, {mode}, {WRITERS} processes", "", f"{slowest * 1000:.1f} ms", "")
            store = SqliteStore(Path(folder, f"service-{mode}.db"), synchronous=mode)
            for count, (rate, used) in through_service(store, options.commits).items():
                results[mode][f"through_the_service_{count}_writers"] = {
                    "change_sets_per_second": rate,
                    "cpu_us_per_change_set": used * 1e6,
                }
                writers = "1 writer" if count == 1 else f"{count} writers"
                table.add_row(
                    f"through the service, {mode}, {writers}",
                    f"{bare:.0f}",
                    f"{rate:.0f} ({used * 1e6:.0f} µs of CPU)",
                    f"{rate / bare:.0%}",
                )
        delays = latency(Path(folder, "latency.db"), options.latencies)
    for share in (50, 99):
        value = delays[min(len(delays) - 1, len(delays) * share // 100)] * 1000
        results[f"seen_by_another_process_p{share}_ms"] = value
        table.add_row(f"commit → another process, p{share}", "", f"{value:.2f} ms", "")
    Console().print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
