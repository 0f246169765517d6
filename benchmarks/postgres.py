"""Change-sets a second on PostgreSQL with 16 writers, beside the floor of the bare driver in the same run.

Run: python benchmarks/postgres.py [--commits N]. Starts a server of its own, with fsync. Writes
build/bench/postgres.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.store import through_service, write
from rheostat.store.postgres import PostgresStore
from tests.postgres import Server

WRITERS = 16
OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "postgres.json"


def floor(url: str, commits: int) -> None:
    """One row of a change-set's size in each transaction, with no order among them."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(commits):
            connection.execute("INSERT INTO floor (body) VALUES (%s)", ("x" * 500,))


def commit(store: PostgresStore, commits: int) -> None:
    for _ in range(commits):
        store.commit(write)


def together(threads: int, work: Callable[[], None]) -> None:
    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def _write_some(url: str, threads: int, commits: int, pipe: Connection) -> None:
    store = PostgresStore(url)
    pipe.send("ready")
    pipe.recv()
    together(threads, lambda: commit(store, commits))
    pipe.send("done")
    store.close()


def nodes(url: str, processes: int, commits: int) -> float:
    """16 writers spread over so many processes: change-sets a second."""
    threads = WRITERS // processes
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        context.Process(target=_write_some, args=(url, threads, commits // WRITERS, theirs)).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    started = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    for pipe in pipes:
        pipe.recv()
    return commits / (time.perf_counter() - started)


def timed(commits: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return commits / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=3200)
    commits = parser.parse_args().commits
    server = Server()
    try:
        server.execute("CREATE DATABASE bench")
        server.execute("CREATE DATABASE floor")
        url, floor_url = server.url("bench"), server.url("floor")
        server.execute("CREATE TABLE floor (id bigserial PRIMARY KEY, body text)", "floor")
        store = PostgresStore(url)
        commit(store, 100)
        share = commits // WRITERS
        results = {
            "floor, 1 connection": timed(share, lambda: floor(floor_url, share)),
            "floor, 16 connections": timed(
                commits, lambda: together(WRITERS, lambda: floor(floor_url, share))
            ),
            "1 writer": timed(share, lambda: commit(store, share)),
            "16 writers in 1 process": timed(
                commits, lambda: together(WRITERS, lambda: commit(store, share))
            ),
            "16 writers in 2 processes": nodes(url, 2, commits),
            "16 writers in 4 processes": nodes(url, 4, commits),
        }
        server.execute("CREATE DATABASE service")
        store.close()
        for count, (rate, used) in through_service(PostgresStore(server.url("service")), commits).items():
            writers = "1 writer" if count == 1 else f"{count} writers"
            results[f"through the service, {writers}"] = rate
            results[f"through the service, {writers}: µs of CPU for each"] = used * 1e6
    finally:
        server.close()
    table = Table("writers", "change-sets a second")
    for name, rate in results.items():
        table.add_row(name, f"{rate:.0f}")
    Console().print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
