"""Loading subjects and events into SQLite and finding subjects, beside plain sqlite3 writing the same rows.

The floor writes what the store leaves in the file: each row once, in transactions of the same size, into tables of
the same form. It looks for nothing, decides nothing and writes no row twice.

Run: python benchmarks/subjects.py [--subjects N] [--events N] [--full]. Writes build/bench/subjects.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rheostat.model.subject import (
    Subject,
    SubjectEvent,
    SubjectLimits,
    SubjectPatch,
    SubjectReference,
    Track,
)
from rheostat.store.sqlite import SqliteStore

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "subjects.json"
BATCH = 1000
COMPANIES = 100
"""Users of each company."""
LOOKUPS = 2000
PLACE = ("shop", "production")
NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
LIMITS = SubjectLimits()
EVENTS = ("login", "api.call", "export", "report", "invite")
DAYS = 3


def draw_ids() -> Callable[[], bytes]:
    """Ids that begin with a time, as the service draws them."""
    rng = random.Random(1)
    count = 0

    def draw() -> bytes:
        nonlocal count
        count += 1
        return (1_770_000_000_000 + count // 10).to_bytes(6, "big") + rng.randbytes(10)

    return draw


def company(number: int) -> SubjectReference:
    return SubjectReference("company", {"id": f"company-{number}"})


def user(number: int) -> SubjectReference:
    return SubjectReference("user", {"id": f"user-{number:07}"})


def patches(subjects: int) -> Iterator[SubjectPatch]:
    companies = max(1, subjects // (COMPANIES + 1))
    for number in range(companies):
        yield SubjectPatch(company(number), {"plan": "pro", "seats": number % 50, "region": "eu"})
    for number in range(subjects - companies):
        reference = SubjectReference(
            "user", {**user(number).keys, "email": f"User.{number}@Company-{number % companies}.example.com"}
        )
        traits = {"name": f"User {number}", "plan": "pro", "signed_up": "2026-01-15", "logins": number % 90}
        yield SubjectPatch(reference, traits, member_of=[company(number % companies)])


def events(count: int, subjects: int) -> Iterator[SubjectEvent]:
    """Of users at random, and each of its company too; on the last days."""
    rng = random.Random(2)
    companies = max(1, subjects // (COMPANIES + 1))
    for number in range(count):
        who = rng.randrange(subjects - companies)
        at = NOW - datetime.timedelta(seconds=(count - number) * DAYS * 86400 / count)
        yield SubjectEvent(
            f"7d1c0a42-{number:012}", at, (user(who), company(who % companies)), Track(rng.choice(EVENTS))
        )


def batches(items: Iterator[Any]) -> Iterator[Sequence[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def memory() -> tuple[float, float]:
    """Resident memory now and at its peak, MiB."""
    status = Path("/proc/self/status").read_text()
    sizes = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    return int(sizes["VmRSS"]) / 1024, int(sizes["VmHWM"]) / 1024


def load(path: Path, subjects: int, count: int, pipe: Connection) -> None:
    """Load all into a store, in a process of its own, and look some of them up."""
    store = SqliteStore(path)
    results: dict[str, Any] = {"memory_before_mib": memory()[0]}
    draw_id = draw_ids()
    slowest = 0.0
    started, used = time.perf_counter(), time.process_time()
    for batch in batches(patches(subjects)):
        before = time.perf_counter()
        done = store.upsert_subjects(*PLACE, batch, actor="k1", now=NOW, limits=LIMITS, draw_id=draw_id)
        slowest = max(slowest, time.perf_counter() - before)
        assert all(isinstance(result, Subject) for result in done)
    results["subjects_seconds"] = time.perf_counter() - started
    results["subjects_cpu_seconds"] = time.process_time() - used
    results["subjects_slowest_batch_ms"] = slowest * 1000
    results["memory_after_subjects_mib"] = memory()[0]
    slowest = 0.0
    started, used = time.perf_counter(), time.process_time()
    for batch in batches(events(count, subjects)):
        before = time.perf_counter()
        taken = store.record_events(*PLACE, batch, actor="k1", now=NOW, limits=LIMITS, draw_id=draw_id)
        slowest = max(slowest, time.perf_counter() - before)
        assert not any(taken)
    results["events_seconds"] = time.perf_counter() - started
    results["events_cpu_seconds"] = time.process_time() - used
    results["events_slowest_batch_ms"] = slowest * 1000
    results["memory_after_events_mib"], results["memory_peak_mib"] = memory()
    assert sum(total.events for total in store.event_counts(*PLACE)) == count
    rng = random.Random(3)
    times = []
    companies = max(1, subjects // (COMPANIES + 1))
    for _ in range(LOOKUPS):
        name = user(rng.randrange(subjects - companies))
        before = time.perf_counter()
        (found,) = store.get_subjects(*PLACE, [name], now=NOW)
        times.append(time.perf_counter() - before)
        assert isinstance(found, Subject)
    results |= percentiles("lookup", times)
    store.close()
    pipe.send(results)


def purge(path: Path, pipe: Connection) -> None:
    store = SqliteStore(path)
    started = time.perf_counter()
    removed = store.purge_subject_records(NOW + datetime.timedelta(days=100))
    pipe.send({"purge_seconds": time.perf_counter() - started, "purged_rows": removed})
    store.close()


def rows_of(path: Path) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """The tables of subjects as the store has left them: how each is made, and its rows in the order of their keys."""
    connection = sqlite3.connect(path)
    tables = {}
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if name.startswith(("subject", "event_", "exposure_")):
            made = connection.execute(
                "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC",
                (name,),
            )
            statements = "; ".join(statement for (statement,) in made)
            tables[name] = (statements, connection.execute(f"SELECT * FROM {name}").fetchall())
    connection.close()
    return tables


def floor(source: Path, path: Path, transactions: int, pipe: Connection) -> None:
    """Write the same rows with plain sqlite3, spread over as many transactions."""
    tables = rows_of(source)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL")
    for made, _ in tables.values():
        connection.executescript(made)
    started = time.perf_counter()
    for number in range(transactions):
        connection.execute("BEGIN IMMEDIATE")
        for name, (_, rows) in tables.items():
            part = rows[len(rows) * number // transactions : len(rows) * (number + 1) // transactions]
            if part:
                marks = ", ".join("?" * len(part[0]))
                connection.executemany(f"INSERT INTO {name} VALUES ({marks})", part)
        connection.execute("COMMIT")
    taken = time.perf_counter() - started
    written = sum(len(rows) for _, rows in tables.values())
    times = []
    rng = random.Random(3)
    ((kind, name),) = connection.execute(
        "SELECT kind, name FROM subject_key WHERE kind = 'user' LIMIT 1"
    ).fetchall()
    users = [
        row[0]
        for row in connection.execute(
            "SELECT folded FROM subject_key WHERE kind = ? AND name = ?", (kind, name)
        )
    ]
    for folded in rng.choices(users, k=LOOKUPS):
        before = time.perf_counter()
        connection.execute(
            "SELECT subject.* FROM subject_key JOIN subject USING (scope, id) WHERE scope = 1"
            " AND subject_key.kind = ? AND name = ? AND folded = ?",
            (kind, name, folded),
        ).fetchall()
        times.append(time.perf_counter() - before)
    connection.close()
    pipe.send({"floor_seconds": taken, "floor_rows": written, **percentiles("floor_lookup", times)})


def percentiles(name: str, times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {f"{name}_p{share}_us": ordered[len(ordered) * share // 100] * 1e6 for share in (50, 99)}


def in_a_process(target: Callable[..., None], *arguments: object) -> dict[str, Any]:
    """Run something alone, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    results: dict[str, Any] = ours.recv()
    process.join()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--full", action="store_true", help="100 000 subjects and 1 000 000 events")
    options = parser.parse_args()
    subjects, count = (100_000, 1_000_000) if options.full else (options.subjects, options.events)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        results = {"sqlite": sqlite3.sqlite_version, "subjects": subjects, "events": count, "batch": BATCH}
        results |= in_a_process(load, path, subjects, count)
        results["file_mib"] = path.stat().st_size / 2**20
        transactions = -(-subjects // BATCH) - (-count // BATCH)
        results |= in_a_process(floor, path, Path(folder, "floor.db"), transactions)
        results |= in_a_process(purge, path)
    total = results["subjects_seconds"] + results["events_seconds"]
    table = Table("measure", "floor", "Rheostat")
    table.add_row(
        f"{subjects} subjects",
        "",
        f"{results['subjects_seconds']:.1f} s ({results['subjects_cpu_seconds'] * 1e6 / subjects:.0f} µs of CPU each)",
    )
    table.add_row(
        f"{count} events",
        "",
        f"{results['events_seconds']:.1f} s ({results['events_cpu_seconds'] * 1e6 / count:.0f} µs of CPU each)",
    )
    table.add_row(
        f"both, {results['floor_rows']} rows in {transactions} transactions",
        f"{results['floor_seconds']:.1f} s",
        f"{total:.1f} s ({total / results['floor_seconds']:.1f}-fold)",
    )
    for name in ("subjects", "events"):
        table.add_row(f"slowest batch of {BATCH} {name}", "", f"{results[f'{name}_slowest_batch_ms']:.0f} ms")
    table.add_row(
        "resident memory, at first and at most",
        "",
        f"{results['memory_before_mib']:.0f} → {results['memory_peak_mib']:.0f} MiB",
    )
    table.add_row("file", "", f"{results['file_mib']:.0f} MiB")
    for share in (50, 99):
        table.add_row(
            f"lookup by key, p{share} (floor: the row alone)",
            f"{results[f'floor_lookup_p{share}_us']:.0f} µs",
            f"{results[f'lookup_p{share}_us']:.0f} µs",
        )
    table.add_row(
        "purging all that may go after 100 days",
        "",
        f"{results['purged_rows']} rows in {results['purge_seconds']:.1f} s",
    )
    Console().print(table)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
