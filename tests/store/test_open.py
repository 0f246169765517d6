"""Opening a store by its URL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rheostat.errors import StoreError
from rheostat.store import migrate, open_store, redacted
from rheostat.store.memory import MemoryStore
from rheostat.store.tables import SCHEMA
from tests.store.contract import NOW, Clock, Randomness, put


def test_opens_a_store_in_memory() -> None:
    store = open_store("memory:", clock=Clock(), randomness=Randomness())
    assert isinstance(store, MemoryStore)
    assert put(store, "a").created_at == NOW


@pytest.mark.parametrize(
    "url", ["one.db", "sqlite:one.db", "sqlite:///one.db", "SQLite:one.db?synchronous=normal"]
)
def test_opens_an_sqlite_file_relative_to_the_working_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(url, clock=Clock())
    assert put(store, "a").created_at == NOW
    store.close()
    assert (tmp_path / "one.db").is_file()


def test_opens_an_sqlite_file_by_an_absolute_path(tmp_path: Path) -> None:
    for number, form in enumerate(("{}", "sqlite:{}", "sqlite:///{}")):
        path = tmp_path / f"with space ?#%{number}.db" if form == "{}" else tmp_path / f"{number}.db"
        open_store(form.format(path)).close()
        assert path.is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "redis://localhost",
            "unknown kind of store 'redis'; write 'memory:', 'sqlite:PATH', 'postgresql://…' or a path",
        ),
        ("postgres:rheostat", "begins with 'postgres://'"),
        ("sqlite:", "names no file"),
        ("", "names no file"),
        (":memory:", "write 'memory:'"),
        ("sqlite::memory:", "write 'memory:'"),
        ("sqlite://host/one.db", "names a host"),
        ("sqlite:one.db?synchronous=off", "unknown option 'synchronous=off'"),
        ("sqlite:one.db?cache=shared", "unknown option 'cache=shared'"),
        ("memory:one", "has something after 'memory:'"),
    ],
)
def test_refuses_what_it_does_not_know_and_names_the_choices(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s3cret@db/shop", "postgresql://ada:…@db/shop"),
        ("postgres://ada:s3:c@ret@db:5432,other/shop?x=1", "postgres://ada:…@db:5432,other/shop?x=1"),
        ("postgresql://ada@db/shop?password=s3cret&x=1", "postgresql://ada@db/shop?password=…&x=1"),
        ("postgresql://db/shop?x=1&sslpassword=s3cret", "postgresql://db/shop?x=1&sslpassword=…"),
        ("postgresql://ada@db:5432/shop", "postgresql://ada@db:5432/shop"),
        ("sqlite:/var/a:b@c.db", "sqlite:/var/a:b@c.db"),
        ("one.db", "one.db"),
        ("memory:", "memory:"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_migrates_and_tells_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert migrate(str(path)) == SCHEMA
    store = open_store(str(path))
    identity = store.identity()
    store.close()
    assert migrate(f"sqlite:{path}") == SCHEMA
    reopened = open_store(str(path))
    assert reopened.identity() == identity
    reopened.close()


def test_without_the_extra_sqlite_names_it_and_memory_works(tmp_path: Path) -> None:
    program = """
import sys
for missing in ("sqlalchemy", "alembic"):
    sys.modules[missing] = None
from rheostat.errors import MissingDependencyError
from rheostat.store import open_store
open_store("memory:").close()
try:
    open_store(sys.argv[1])
except MissingDependencyError as exc:
    print(exc)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store.db")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "rheostat[server]" in run.stdout
