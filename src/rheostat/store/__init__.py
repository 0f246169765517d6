"""Stores: where change-sets are kept, durably and in order.

`open_store` opens one by its URL; `rheostat.store.base` is the protocol they all follow.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from rheostat.errors import MissingDependencyError, StoreError
from rheostat.store.stamp import utc_now

if TYPE_CHECKING:
    from rheostat.store.base import Store
    from rheostat.store.postgres import PostgresStore
    from rheostat.store.sqlite import SqliteStore

__all__ = ["extra_for", "migrate", "open_store", "parse_url", "redacted"]

_CHOICES: Final = "'memory:', 'sqlite:PATH', 'postgresql://…' or a path"

_EXTRAS: Final = {
    "sqlite": "the sqlite store needs the extra 'server': pip install 'rheostat[server]'",
    "postgresql": "the postgresql store needs the extras 'server' and 'postgres': "
    "pip install 'rheostat[server,postgres]'",
}

# At least two letters, so that a drive letter is part of a path.
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)


def open_store(
    url: str,
    *,
    clock: Callable[[], datetime.datetime] = utc_now,
    randomness: Callable[[int], bytes] = os.urandom,
) -> Store:
    """Open the store at *url*.

    An SQLite file is made when there is none, and migrated when it is older. In an empty PostgreSQL database the
    store is made; an older one is migrated by `migrate` only, because other nodes may be using it.

    Args:
        url: ``memory:``; ``sqlite:PATH``, with ``?synchronous=normal`` for speed over durability; or a path,
            which means SQLite. ``sqlite:///PATH`` is read as SQLAlchemy does: relative after three slashes,
            absolute after four. ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE`` (or ``postgres://``) is read as
            libpq does, with its parameters.
        clock: Gives the aware time of each commit.
        randomness: Gives so many random bytes.

    Raises:
        StoreError: No such kind of store, or it cannot be opened.
        UnavailableError: Another process is writing to it for too long, or the database cannot be reached.
        MissingDependencyError: The extra ``rheostat[server]`` or ``rheostat[postgres]`` is not installed.
    """
    kind, path, options = parse_url(url)
    if kind == "postgresql":
        return _open_postgres(path, clock, randomness)
    if kind == "memory":
        from rheostat.store.memory import MemoryStore

        return MemoryStore(clock=clock, randomness=randomness)
    return _open_sqlite(path, options, clock, randomness)


def migrate(url: str) -> str:
    """Bring the store at *url* to the schema of this version, and return that schema's name.

    Raises:
        StoreError: As from `open_store`; also when the store is of a newer version.
        UnavailableError: Another process is writing to it for too long, or the database cannot be reached.
        MissingDependencyError: The extra ``rheostat[server]`` or ``rheostat[postgres]`` is not installed.
    """
    kind, path, options = parse_url(url)
    if kind == "memory":
        return ""
    # To open is to migrate.
    store: Store
    if kind == "postgresql":
        store = _open_postgres(path, utc_now, os.urandom, upgrade=True)
    else:
        store = _open_sqlite(path, options, utc_now, os.urandom)
    store.close()
    from rheostat.store.tables import SCHEMA

    return SCHEMA


def redacted(url: str) -> str:
    """Return a store's URL as it may be shown: without a password."""
    if _URL.match(url) is None:
        return url
    shown = re.sub(r"^([a-z]+://[^/@]*?):[^/]*@", r"\1:…@", url, flags=re.IGNORECASE)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1…", shown)


def parse_url(url: str) -> tuple[str, str, dict[str, str]]:
    """Return the kind of a store (memory, sqlite, postgresql), what opens it, and its options.

    Raises:
        StoreError: No such kind of store, or it cannot be read.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return _checked(url, url, {})
    scheme, rest = match[1].lower(), match[2]
    if scheme == "memory":
        if rest:
            raise StoreError(f"the store url {url!r} has something after 'memory:'; write {_CHOICES}")
        return "memory", "", {}
    if scheme == "sqlite":
        path, _, query = rest.partition("?")
        if path.startswith("///"):
            path = path.removeprefix("///")
        elif path.startswith("//"):
            raise StoreError(f"the store url {url!r} names a host; write {_CHOICES}")
        options = dict(parse_qsl(query, keep_blank_values=True))
        return _checked(url, path, options)
    if scheme in ("postgresql", "postgres"):
        if not rest.startswith("//"):
            raise StoreError(f"a postgresql url begins with '{scheme}://'; write {_CHOICES}")
        return "postgresql", url, {}
    raise StoreError(f"unknown kind of store {scheme!r}; write {_CHOICES}")


@contextlib.contextmanager
def extra_for(kind: str) -> Iterator[None]:
    """Name the missing extra when an import inside fails for want of it.

    Args:
        kind: ``sqlite`` or ``postgresql``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        yield
    except ImportError as exc:
        # Psycopg without a libpq is an ImportError without a name.
        missing = exc.name or ("psycopg" if kind == "postgresql" else "")
        if missing.partition(".")[0] not in ("sqlalchemy", "alembic", "psycopg"):
            raise
        raise MissingDependencyError(_EXTRAS[kind]) from exc


def _checked(url: str, path: str, options: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    if path in ("", ":memory:"):
        raise StoreError(f"the store url {url!r} names no file; write {_CHOICES}")
    for name, value in options.items():
        if name != "synchronous" or value not in ("full", "normal"):
            raise StoreError(
                f"unknown option {name + '=' + value!r} of an sqlite store; write synchronous=full or =normal"
            )
    return "sqlite", path, options


def _open_sqlite(
    path: str,
    options: dict[str, str],
    clock: Callable[[], datetime.datetime],
    randomness: Callable[[int], bytes],
) -> SqliteStore:
    with extra_for("sqlite"):
        from rheostat.store.sqlite import SqliteStore
    return SqliteStore(
        path,
        clock=clock,
        randomness=randomness,
        synchronous="normal" if options.get("synchronous") == "normal" else "full",
    )


def _open_postgres(
    url: str,
    clock: Callable[[], datetime.datetime],
    randomness: Callable[[int], bytes],
    *,
    upgrade: bool = False,
) -> PostgresStore:
    with extra_for("postgresql"):
        from rheostat.store.postgres import PostgresStore
    return PostgresStore(url, clock=clock, randomness=randomness, upgrade=upgrade)
