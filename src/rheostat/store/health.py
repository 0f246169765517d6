"""What is good and bad about a store, for `rheostat doctor`: nothing is changed by looking."""

from __future__ import annotations

import contextlib
import datetime
import enum
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rheostat.errors import RheostatError
from rheostat.store import extra_for, parse_url
from rheostat.store.generation import LOST, MOVED
from rheostat.store.look import Description, describe

if TYPE_CHECKING:
    import psycopg

__all__ = ["Finding", "Verdict", "examine_store"]

_LITTLE_SPACE: Final = 512 * 2**20
"""Bytes on the disk of a file below which a warning is due."""

_NEWS: Final = datetime.timedelta(days=7)
"""For so long a generation is worth a word."""

_LISTEN_SECONDS: Final = 5.0

_CHANNEL: Final = "rheostat_doctor"
"""Not the one that servers listen to, which would look in vain."""


class Verdict(enum.Enum):
    """How something stands."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should know."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an examination.

    Attributes:
        check: What was looked at, in one word.
        verdict: How it stands.
        message: What was found.
        fix: What to do about it; empty when nothing is to be done.
    """

    check: str
    verdict: Verdict
    message: str
    fix: str = ""


def examine_store(url: str, now: datetime.datetime) -> Iterator[Finding]:
    """Look at the store at *url*; yields what is found as it is found.

    Args:
        url: As of `rheostat.store.open_store`.
        now: Aware.
    """
    try:
        kind, path, _ = parse_url(url)
        found = describe(url)
    except RheostatError as exc:
        fix = "run `rheostat migrate`" if "`rheostat migrate`" in exc.message else ""
        yield Finding("store", Verdict.FAIL, exc.message, fix)
        return
    yield Finding(
        "store",
        Verdict.OK,
        f"schema {found.schema}, revision {found.revision}, {found.items} items; deltas since revision {found.floor}",
    )
    yield _generation(found, now)
    with extra_for(kind):
        yield from _database(url) if kind == "postgresql" else _file(Path(os.path.realpath(path)))


def _generation(found: Description, now: datetime.datetime) -> Finding:
    newest = found.beginnings[-1] if found.beginnings else None
    if newest is None or newest.generation != found.generation:
        return Finding("generation", Verdict.OK, f"generation {found.generation}")
    message = f"generation {found.generation} since {newest.began_at:%Y-%m-%d %H:%M} UTC: {newest.cause}"
    # Copies and `rheostat restore` are somebody's intention.
    if newest.cause in (LOST, MOVED) and now - newest.began_at < _NEWS:
        return Finding(
            "generation",
            Verdict.WARN,
            message,
            "nothing, when you know why; else look in `rheostat history` for changes that are missing",
        )
    return Finding("generation", Verdict.OK, message)


# SQLite.


def _file(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "file",
            Verdict.WARN,
            f"others of this machine may open the file (mode {mode:04o}), which has secrets of webhooks",
            f"chmod 600 {path.name}",
        )
    elif not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding(
            "file",
            Verdict.WARN,
            "this user may not write to the file, or to its directory",
            "look with the user of the server",
        )
    else:
        yield Finding("file", Verdict.OK, f"mode {mode:04o}, {path.stat().st_size / 2**20:.1f} MiB")
    free = shutil.disk_usage(path.parent).free
    if free < _LITTLE_SPACE:
        yield Finding("disk", Verdict.WARN, f"{free / 2**20:.0f} MiB are left on the disk", "make room")
    else:
        yield Finding("disk", Verdict.OK, f"{free / 2**30:.1f} GiB are left on the disk")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            ((journal,),) = connection.execute("PRAGMA journal_mode").fetchall()
            problems = [str(problem) for (problem,) in connection.execute("PRAGMA quick_check(3)").fetchall()]
    except sqlite3.Error as exc:
        yield Finding("integrity", Verdict.FAIL, f"the file cannot be read: {exc}", "restore a backup")
        return
    if journal == "wal":
        yield Finding("journal", Verdict.OK, "write-ahead logging")
    else:
        yield Finding("journal", Verdict.OK, f"{journal}: a copy that no server has opened yet")
    if problems == ["ok"]:
        yield Finding("integrity", Verdict.OK, "the file is sound")
    else:
        yield Finding("integrity", Verdict.FAIL, "; ".join(problems), "restore a backup")
    yield _library(sqlite3.sqlite_version_info)


def _library(version: tuple[int, ...]) -> Finding:
    shown = ".".join(map(str, version))
    # https://sqlite.org/wal.html#walresetbug
    fixed = (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51)
        or (3, 44, 6) <= version < (3, 45)
        or version < (3, 7)
    )
    if fixed:
        return Finding("sqlite", Verdict.OK, f"SQLite {shown}")
    return Finding(
        "sqlite",
        Verdict.OK,
        f"SQLite {shown} has the WAL-reset bug, which servers cannot run into; let no other program write to the file",
    )


# PostgreSQL.


def _database(url: str) -> Iterator[Finding]:
    import psycopg

    from rheostat.store.connection import Connections, translated
    from rheostat.store.origin import ORIGIN_KIND, origin_of, read_origin
    from rheostat.store.postgres import LOCK_TIMEOUT
    from rheostat.store.record import find

    connections = Connections(url, lock_timeout=LOCK_TIMEOUT, check=lambda _: None)
    try:
        with connections.lend() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
            yield Finding("database", Verdict.OK, f"PostgreSQL {version}")
            if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":
                yield Finding(
                    "durability",
                    Verdict.WARN,
                    "synchronous_commit is off: a crash of the database may undo acknowledged changes",
                    "switch it on, for the database or its user",
                )
            else:
                yield Finding(
                    "durability", Verdict.OK, "acknowledged changes survive a crash of the database"
                )
            origin = read_origin(connection)
            noted = find(connection, ORIGIN_KIND, "")
        if origin is None:
            yield Finding(
                "timeline",
                Verdict.WARN,
                "the database does not tell its timeline, so that a failover cannot be noticed by it",
                "after each failover or restore, run `rheostat restore`",
            )
        elif noted is not None and noted.body != origin_of(origin).body:
            yield Finding(
                "timeline",
                Verdict.WARN,
                "the database failed over, or was restored or copied, since a server last opened it",
                "nothing: the next server begins a generation",
            )
        else:
            yield Finding("timeline", Verdict.OK, "the one that was last written")
        with (
            contextlib.closing(connections.connect()) as listening,
            contextlib.closing(connections.connect()) as telling,
            translated(connections.name),
        ):
            yield _listening(listening, telling)
    except RheostatError as exc:
        yield Finding("database", Verdict.FAIL, exc.message)
    except psycopg.Error as exc:
        yield Finding("database", Verdict.FAIL, f"the database failed: {type(exc).__name__}")
    finally:
        connections.close()


def _listening(listening: psycopg.Connection, telling: psycopg.Connection) -> Finding:
    listening.execute(f"LISTEN {_CHANNEL}".encode())
    telling.execute(f"NOTIFY {_CHANNEL}".encode())
    for _ in listening.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
        return Finding("listen", Verdict.OK, "servers hear of each other's changes at once")
    return Finding(
        "listen",
        Verdict.WARN,
        "nothing is heard through LISTEN, so that changes of other servers arrive after a second",
        "connect directly, or through a pooler in session mode",
    )
