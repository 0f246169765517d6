"""Opening a store in PostgreSQL: schemas, refusals, and what errors do not tell."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from rheostat.errors import StoreError, UnavailableError
from rheostat.store import connection, migrate, migration, open_store, postgres
from rheostat.store.base import Record
from rheostat.store.migration import SCRIPTS
from rheostat.store.tables import SCHEMA, metadata
from tests.postgres import Template, execute
from tests.store.contract import NOW, Clock, Randomness, put

SECRET = "hunter2-s3cret"


@pytest.fixture
def server(postgres: Template) -> Template:
    return postgres


def test_opens_a_store_by_either_scheme_and_makes_it_in_an_empty_database(server: Template) -> None:
    url = server.empty()
    store = open_store(url, clock=Clock(), randomness=Randomness())
    assert put(store, "a").created_at == NOW
    store.close()
    other = open_store(url.replace("postgresql://", "postgres://"))
    assert other.revision() == 1
    other.close()


def test_migrates_an_empty_database_ahead_of_time(server: Template) -> None:
    url = server.empty()
    assert migrate(url) == SCHEMA
    assert migrate(url) == SCHEMA
    store = open_store(url)
    assert store.revision() == 0
    assert store.identity().generation == 1
    store.close()


def test_the_migrations_build_the_tables_that_the_code_uses(server: Template) -> None:
    parts = server.store().replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(parts, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connected:
        context = MigrationContext.configure(
            connected, opts={"compare_server_default": True, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA
    collations = "SELECT DISTINCT collation_name FROM information_schema.columns WHERE data_type = 'text'"
    assert execute(server.store(), f"{collations} AND table_schema = 'public'") == [("C",)]


def test_the_audit_history_refuses_changes(server: Template) -> None:
    url = server.store()
    store = open_store(url)
    put(store, "a")
    for statement in (
        "UPDATE change_set SET author = 'somebody else'",
        "DELETE FROM change_set",
        "UPDATE change SET after = NULL",
        "DELETE FROM change",
        "TRUNCATE change_set CASCADE",
        "TRUNCATE change",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            execute(url, statement)
    assert store.history(project="shop")
    store.close()


def newer_scripts(tmp_path: Path, patch: pytest.MonkeyPatch, statement: str) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    next_schema = f"{int(SCHEMA) + 1:04}"
    (scripts / "versions" / f"v{next_schema}_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '{next_schema}', '{SCHEMA}'\n"
        "def upgrade():\n"
        "    op.add_column('item', sa.Column('note', sa.Text))\n"
        f"    {statement}\n"
    )
    patch.setattr(migration, "SCRIPTS", scripts)
    patch.setattr(migration, "SCHEMA", next_schema)
    patch.setattr(postgres, "SCHEMA", next_schema)


def test_an_older_store_is_migrated_when_that_is_asked_for_only(server: Template, tmp_path: Path) -> None:
    url = server.store()
    running = open_store(url)
    put(running, "a")
    before = running.load()
    with pytest.MonkeyPatch.context() as newer:
        newer_scripts(tmp_path, newer, "pass")
        with pytest.raises(StoreError, match="`rheostat migrate`"):
            open_store(url)
        migrate(url)
        migrated = open_store(url)
        assert migrated.load() == before
        assert put(migrated, "b").revision == 2
        migrated.close()
    # An older node notices in its next write, and at its next start.
    with pytest.raises(StoreError, match="newer version of rheostat"):
        put(running, "c")
    with pytest.raises(StoreError, match="newer version of rheostat"):
        running.put_record(Record("draft", "a", "{}"))
    with pytest.raises(StoreError, match="newer version of rheostat"):
        running.expire_clients(NOW)
    assert running.revision() == 2
    running.close()
    with pytest.raises(StoreError, match="newer version of rheostat"):
        open_store(url)


def test_a_migration_that_fails_leaves_the_store_as_it_was(server: Template, tmp_path: Path) -> None:
    url = server.store()
    store = open_store(url)
    put(store, "a")
    with pytest.MonkeyPatch.context() as newer:
        newer_scripts(tmp_path, newer, "op.drop_table('nonsense')")
        with pytest.raises(StoreError, match="nonsense"):
            migrate(url)
    assert put(store, "b").revision == 2
    store.close()


def test_refuses_the_database_of_another_program(server: Template) -> None:
    url = server.empty()
    execute(url, "CREATE TABLE orders (id int)")
    with pytest.raises(StoreError, match="another program: it has the table 'orders'"):
        open_store(url)
    assert execute(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


def test_refuses_a_server_that_is_too_old(server: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MINIMUM_VERSION", 99)
    with pytest.raises(StoreError, match="needs PostgreSQL 99 or newer, and the server has"):
        open_store(server.store())


def test_warns_when_an_acknowledged_commit_may_be_lost(
    server: Template, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.store()
    open_store(url).close()
    assert "synchronous_commit" not in caplog.text
    open_store(f"{url}?options=-csynchronous_commit%3Doff").close()
    assert "synchronous_commit is off" in caplog.text


def refused_urls(server: Template) -> list[tuple[str, type[Exception], str]]:
    parts = urlsplit(server.store())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed_port = listening.getsockname()[1]
    host = f"{parts.hostname}:{parts.port}"
    return [
        (
            f"postgresql://locked:{SECRET}@{host}{parts.path}",
            UnavailableError,
            "password authentication failed",
        ),
        (
            f"postgresql://ada:{SECRET}@127.0.0.1:{closed_port}/shop",
            UnavailableError,
            "'shop' cannot be reached",
        ),
        (f"postgresql://{parts.username}:{SECRET}@{host}/absent", UnavailableError, "does not exist"),
        (f"postgresql://ada:{SECRET}%zz@{host}/shop", StoreError, "cannot be read"),
        (f"postgresql://ada@{host}/shop?passwort={SECRET}", StoreError, "cannot be read"),
        (f"postgresql:ada:{SECRET}@{host}/shop", StoreError, "begins with 'postgresql://'"),
    ]


def test_no_error_or_log_tells_the_password(server: Template, caplog: pytest.LogCaptureFixture) -> None:
    execute(server.url, "DROP ROLE IF EXISTS locked")
    execute(server.url, "CREATE ROLE locked LOGIN PASSWORD 'another'")
    with caplog.at_level(logging.DEBUG):
        for url, kind, message in refused_urls(server):
            with pytest.raises(kind, match=message) as caught:
                open_store(url)
            told = "".join(traceback.format_exception(caught.value))
            assert SECRET not in told
            assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    execute(server.url, "DROP ROLE locked")


def test_without_the_extra_it_is_named() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from rheostat.errors import MissingDependencyError
from rheostat.store import open_store
try:
    open_store("postgresql://localhost/x")
except MissingDependencyError as exc:
    print(exc)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "rheostat[server,postgres]" in run.stdout
