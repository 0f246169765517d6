"""The contract on SQLite, and what only SQLite has: a file, other processes, a disk."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import shutil
import signal
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from rheostat.errors import StoreError, UnavailableError
from rheostat.model.change import Change, ChangeSet
from rheostat.model.encoding import encode_item
from rheostat.store import migration, sqlite
from rheostat.store.base import Record, Transaction
from rheostat.store.hint import HintSocket
from rheostat.store.migration import SCRIPTS
from rheostat.store.sqlite import SqliteStore
from rheostat.store.tables import SCHEMA, metadata
from tests.store.client_contract import LIFE, ClientContract, reported, silent
from tests.store.contract import NOW, Clock, Randomness, StoreContract, put, remove, replayed, setting, texts
from tests.store.record_contract import RecordContract
from tests.store.subject_contract import SubjectContract
from tests.store.worker import Worker, content, spin

KILLS = 50
NEXT = f"{int(SCHEMA) + 1:04}"


class TestSqliteStore(StoreContract, RecordContract, ClientContract, SubjectContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._paths = (tmp_path / f"{number}.db" for number in itertools.count())

    def open(self, clock: Clock, randomness: Randomness) -> SqliteStore:
        return SqliteStore(next(self._paths), clock=clock, randomness=randomness, checkpoint_interval=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


def raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)


def assert_sound(path: Path) -> None:
    connection = raw(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def assert_written_by_workers(store: SqliteStore) -> None:
    """Every revision is there, holds what was written in it, and the items are what they lead to."""
    contents = store.load()
    history: list[ChangeSet] = []
    while found := store.read_since(len(history)):
        history.extend(found)
    assert [change_set.revision for change_set in history] == list(range(1, contents.revision + 1))
    assert all(change_set.message == content(change_set.revision) for change_set in history)
    assert texts(contents) == replayed(history)[0]


def test_everything_survives_reopening_byte_for_byte(path: Path) -> None:
    store = SqliteStore(path, clock=Clock(), randomness=Randomness())
    put(store, "a", -0.0, rule_numbers=2)
    put(store, "b", "ü\x00😀", actor="k", request_id="r")
    remove(store, "a")
    store.raise_generation(4)
    put(store, "c", [1, 1.0, True, None, {"z": 1, "a": 2}])
    before, written = store.load(), texts(store.load())
    history = store.read_since(0)
    store.close()
    reopened = SqliteStore(path)
    assert reopened.load() == before
    assert texts(reopened.load()) == written
    assert reopened.read_since(0) == history
    assert put(reopened, "d").revision == 5
    reopened.close()


def test_records_and_clients_survive_reopening(path: Path) -> None:
    store = SqliteStore(path)
    record = store.put_record(Record("draft", "a", '{"ü": "\x00😀"}', NOW))

    def write(transaction: Transaction) -> ChangeSet:
        transaction.put_record(Record("outbox", "a", "{}"))
        return ChangeSet("shop", ())

    store.commit(write)
    store.put_clients([reported("a"), silent("b")])
    store.close()
    reopened = SqliteStore(path)
    assert reopened.record("draft", "a") == record
    assert reopened.record("outbox", "a") == Record("outbox", "a", "{}", None, 1)
    assert reopened.clients("shop", "production", now=NOW) == (reported("a"), silent("b"))
    reopened.close()


def test_two_stores_on_one_file_share_records_and_clients(path: Path) -> None:
    one, other = SqliteStore(path), SqliteStore(path)
    first = one.put_record(Record("draft", "a", "1", NOW), expected_version=0)
    assert first is not None
    assert other.put_record(Record("draft", "a", "2"), expected_version=0) is None
    assert other.due_records("draft", NOW) == (first,)
    second = other.put_record(Record("draft", "a", "2"), expected_version=1)
    assert one.put_record(Record("draft", "a", "3"), expected_version=1) is None
    assert one.record("draft", "a") == second
    assert not one.delete_record("draft", "a", expected_version=1)
    assert one.delete_record("draft", "a", expected_version=2)
    assert other.record("draft", "a") is None
    one.put_clients([reported("a", 1)])
    other.put_clients([reported("b", 2), silent("a", node="other")])
    assert [row.node for row in one.clients("shop", "production", now=NOW)] == ["other", "node-1"]
    counts = [s.count_clients("shop", "production", now=NOW, generation=1, revision=2) for s in (one, other)]
    assert (counts[0].reporting, counts[0].reached) == (2, 1)
    assert counts[0] == counts[1]
    one.end_clients([("shop", "production", "b")], "node-1", NOW)
    assert other.expire_clients(NOW) == 1
    one.close()
    other.close()


def test_a_transaction_keeps_off_the_records_of_another_store(path: Path) -> None:
    one, other = SqliteStore(path), SqliteStore(path, timeout=0.02)

    def write(transaction: Transaction) -> ChangeSet:
        transaction.put_record(Record("draft", "a", "one"))
        with pytest.raises(UnavailableError, match="busy"):
            other.put_record(Record("draft", "a", "other"), expected_version=0)
        assert other.record("draft", "a") is None
        return ChangeSet("shop", ())

    one.commit(write)
    assert other.record("draft", "a") == Record("draft", "a", "one", None, 1)
    one.close()
    other.close()


def test_what_is_read_often_is_read_through_an_index(path: Path) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", recorded)
        store = SqliteStore(path)
        statements.clear()
        store.record("draft", "a")
        store.records("draft", prefix="shop/", after="shop/a")
        store.due_records("draft", NOW)
        store.clients("shop", "production", now=NOW, behind=(1, 1), types=b"x", after="a")
        store.count_clients("shop", "production", now=NOW, generation=1, revision=1)
        store.client_types("shop", now=NOW)
        store.delete_due_records("draft", NOW)
        store.expire_clients(NOW)
    connection = raw(path)
    plans = [
        connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        for statement in statements
        if "FROM record" in statement or "FROM client" in statement
    ]
    steps = [[step[3] for step in plan] for plan in plans]
    assert len(steps) == 9, statements
    assert all("USING" in plan[0] for plan in steps), steps
    # Only distinct sets of types need a place of their own to be sorted in.
    assert [plan for plan in steps if any("TEMP B-TREE" in step for step in plan)] == [steps[6]]
    assert "record_due" in steps[2][0]
    assert "client_expires_at" in steps[8][0]
    connection.close()
    store.close()


def test_leaves_one_file_and_its_locks_when_the_last_one_closes(path: Path) -> None:
    store, other = SqliteStore(path), SqliteStore(path)
    put(store, "a")
    store.wait_hint(0)
    other.wait_hint(0.001)
    store.close()
    assert other.revision() == 1
    other.close()
    assert sorted(found.name for found in path.parent.iterdir()) == [
        "store.db",
        "store.db-lock",
        "store.db-turn",
    ]


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    store = SqliteStore(path)
    put(store, "a")
    for suffix in ("", "-wal", "-lock"):
        assert stat.S_IMODE(Path(f"{path}{suffix}").stat().st_mode) == 0o600
    store.close()


def test_a_relative_path_stays_the_same_file_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("store.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(store, "a")
    store.close()
    reopened = SqliteStore(tmp_path / "store.db")
    assert reopened.revision() == 1
    reopened.close()


def test_the_audit_history_refuses_changes(path: Path) -> None:
    store = SqliteStore(path)
    put(store, "a")
    store.close()
    connection = raw(path)
    for statement in (
        "UPDATE change_set SET author = 'somebody else'",
        "DELETE FROM change_set",
        "UPDATE change SET after = NULL",
        "DELETE FROM change",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_the_migrations_build_the_tables_that_the_code_uses(path: Path) -> None:
    SqliteStore(path).close()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA
    assert ScriptDirectory(str(SCRIPTS)).get_heads() == [SCHEMA]


def test_an_older_store_is_migrated_when_it_is_opened(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(path)
    put(store, "a")
    before = store.load()
    store.close()
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / f"v{NEXT}_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '{NEXT}', '{SCHEMA}'\n"
        "def upgrade():\n"
        "    op.add_column('item', sa.Column('note', sa.Text))\n"
    )
    with monkeypatch.context() as newer:
        newer.setattr(migration, "SCRIPTS", scripts)
        newer.setattr(migration, "SCHEMA", NEXT)
        migrated = SqliteStore(path)
        assert migrated.load() == before
        assert put(migrated, "b").revision == 2
        migrated.close()
    connection = raw(path)
    assert connection.execute("SELECT schema FROM store").fetchall() == [(NEXT,)]
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEXT,)]
    assert connection.execute("SELECT note FROM item").fetchall() == [(None,), (None,)]
    connection.close()
    with pytest.raises(StoreError, match=f"schema {NEXT}"):
        SqliteStore(path)


def test_a_store_of_the_first_schema_keeps_everything(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    for later in ("v0002_record_client.py", "v0003_subject.py"):
        (scripts / "versions" / later).unlink()
    connection = sqlite3.connect(path, isolation_level=None)
    with monkeypatch.context() as older:
        older.setattr(migration, "SCRIPTS", scripts)
        older.setattr(migration, "SCHEMA", "0001")
        engine = sqlalchemy.create_engine(
            "sqlite://", creator=lambda: connection, poolclass=sqlalchemy.StaticPool
        )
        with engine.begin() as first:
            assert migration.migrate(first)
    # What the first version wrote.
    connection = raw(path)
    connection.execute(
        "INSERT INTO store VALUES (1, ?, 3, ?, ?, 2, 1, 4, '0001')", (bytes(16), bytes(8), bytes(32))
    )
    created_at = "2026-03-01T12:30:00.123456+00:00"
    for revision in (1, 2):
        connection.execute(
            "INSERT INTO change_set VALUES (?, 3, 'shop', 'Ada', 'm', 'k', ?, ?, 2, 0, '[]', ?)",
            (revision, f"r{revision}", bytes(32), created_at),
        )
    item = encode_item(setting("a", 1))
    connection.execute(
        "INSERT INTO change VALUES (1, 0, 'shop', 'production', 'setting', 'a', NULL, ?)", (item,)
    )
    connection.execute("INSERT INTO item VALUES ('shop', 'production', 'setting', 'a', 1, 0, ?)", (item,))
    connection.close()
    store = SqliteStore(path)
    contents = store.load()
    assert (contents.revision, contents.floor, contents.rule_number) == (2, 1, 4)
    assert contents.identity.generation == 3
    assert texts(contents) == {("shop", "production", "setting", "a"): item}
    newest, oldest = store.history(project="shop")
    assert oldest == ChangeSet(
        "shop",
        (Change("shop", "production", "setting", "a", None, setting("a", 1)),),
        author="Ada",
        message="m",
        actor="k",
        request_id="r1",
        payload_digest=bytes(32),
        rule_numbers=2,
        revision=1,
        generation=3,
        created_at=NOW,
    )
    assert newest == replace(oldest, changes=(), request_id="r2", revision=2)
    assert put(store, "b").revision == 3
    assert store.put_record(Record("draft", "a", "{}")) is not None
    store.put_clients([reported("a")])
    store.close()
    assert_sound(path)
    connection = raw(path)
    assert connection.execute("SELECT schema FROM store").fetchall() == [(SCHEMA,)]
    connection.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(path)
    put(store, "a")
    store.close()
    scripts = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / f"v{NEXT}_next.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = '{NEXT}', '{SCHEMA}'\n"
        "def upgrade():\n"
        "    op.drop_table('item')\n"
        "    op.drop_table('nonsense')\n"
    )
    with monkeypatch.context() as newer:
        newer.setattr(migration, "SCRIPTS", scripts)
        newer.setattr(migration, "SCHEMA", NEXT)
        with pytest.raises(StoreError, match="nonsense"):
            SqliteStore(path)
    reopened = SqliteStore(path)
    assert [stored.key for stored in reopened.load().items] == ["a"]
    reopened.close()


def test_refuses_a_store_of_a_newer_version(path: Path) -> None:
    store = SqliteStore(path)
    put(store, "a")
    # As a newer version does, while this one is running.
    connection = raw(path)
    connection.execute("UPDATE store SET schema = '0999'")
    connection.close()
    with pytest.raises(StoreError, match="schema 0999"):
        put(store, "b")
    store.close()
    with pytest.raises(StoreError, match="schema 0999"):
        SqliteStore(path)


def test_refuses_the_database_of_another_program_and_leaves_it_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customer (name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="'customer'"):
        SqliteStore(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customer",)]
    connection.close()


def test_refuses_a_file_that_is_no_database(path: Path) -> None:
    path.write_text("settings:\n" * 1000)
    with pytest.raises(StoreError, match=r"'store\.db' is not a store"):
        SqliteStore(path)
    assert path.read_text() == "settings:\n" * 1000


def test_a_path_that_cannot_be_opened_is_named_without_its_folder(tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing" / "store.db", tmp_path):
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            SqliteStore(wrong)
        assert str(tmp_path.parent) not in str(caught.value)


def test_a_damaged_file_is_an_error_and_never_served(path: Path) -> None:
    store = SqliteStore(path)
    for number in range(40):
        put(store, f"s{number}", "x" * 500)
    store.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = bytes(len(damaged) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"'store\.db'"):
        SqliteStore(path).load()


def test_a_commit_gives_up_when_another_process_writes_for_too_long(path: Path) -> None:
    store = SqliteStore(path, timeout=0.02)
    put(store, "a")
    descriptor = os.open(f"{path}-lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UnavailableError, match="busy") as caught:
        put(store, "b")
    assert caught.value.retry_after is not None
    assert store.load().revision == 1
    os.close(descriptor)
    assert put(store, "b").revision == 2
    store.close()


class TestCheckpoints:
    """What docs/decisions/0004-sqlite.md takes for granted, so that the WAL-reset bug cannot be reached."""

    @pytest.fixture
    def connections(self, monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
        opened: list[sqlite3.Connection] = []
        connect = sqlite3.connect

        def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
            opened.append(connect(*arguments, **options))
            return opened[-1]

        monkeypatch.setattr(sqlite3, "connect", recorded)
        return opened

    def test_no_connection_checkpoints_by_itself(
        self, path: Path, connections: list[sqlite3.Connection]
    ) -> None:
        store = SqliteStore(path)
        put(store, "a")
        store.load()
        store.wait_hint(0)
        settings = [c.execute("PRAGMA wal_autocheckpoint").fetchall() for c in connections]
        assert settings == [[(0,)]] * 3
        store.close()

    def test_commits_and_checkpoints_happen_only_under_the_writer_lock(
        self, path: Path, connections: list[sqlite3.Connection]
    ) -> None:
        store = SqliteStore(path, checkpoint_interval=2)
        seen: list[tuple[str, bool]] = []
        watcher = os.open(f"{path}-lock", os.O_RDWR)

        def trace(statement: str) -> None:
            try:
                fcntl.flock(watcher, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append((statement, True))
            else:
                fcntl.flock(watcher, fcntl.LOCK_UN)
                seen.append((statement, False))

        store.load()
        for connection in connections:
            connection.set_trace_callback(trace)
        for name in "abcd":
            put(store, name)
            store.load()
        store.raise_generation(1)
        store.compact(2)
        store.put_record(Record("draft", "a", "{}"))
        store.put_clients([reported("a")])
        commits = [locked for statement, locked in seen if statement == "COMMIT"]
        checkpoints = [locked for statement, locked in seen if "wal_checkpoint(FULL)" in statement]
        assert [statement for statement, locked in seen if locked and "BEGIN" in statement] == [
            "BEGIN IMMEDIATE"
        ] * 8
        assert commits == [True] * 8
        assert checkpoints == [True] * 2
        # Reads need no lock, so the watcher can tell the difference.
        assert False in {locked for _, locked in seen}
        os.close(watcher)
        store.close()

    def test_the_log_does_not_grow_for_ever(self, path: Path) -> None:
        store = SqliteStore(path, checkpoint_interval=4)
        sizes = []
        for number in range(40):
            put(store, f"s{number % 5}", "x" * 20_000)
            store.load()
            sizes.append(Path(f"{path}-wal").stat().st_size)
        assert max(sizes[8:]) == max(sizes[:8])
        store.close()

    def test_a_large_change_set_is_checkpointed_at_once(self, path: Path) -> None:
        store = SqliteStore(path)
        put(store, "a", "x" * 2_000_000)
        put(store, "b")
        connection = raw(path)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        ((_, frames, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert frames < 50
        connection.close()
        store.close()

    def test_clients_alone_do_not_let_the_log_grow(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "BESIDE_SIZE", 200_000)
        store = SqliteStore(path)
        rows = [reported(f"c{number}", error="x" * 2000) for number in range(20)]
        sizes = []
        for number in range(40):
            store.put_clients(rows)
            store.put_record(Record("draft", str(number % 3), "x" * 20_000))
            sizes.append(Path(f"{path}-wal").stat().st_size)
        assert max(sizes[8:]) == max(sizes[:8])
        store.close()

    def test_only_clients_do_not_wait_for_the_disk(
        self, path: Path, connections: list[sqlite3.Connection]
    ) -> None:
        store = SqliteStore(path)
        levels: list[tuple[str, int]] = []

        def trace(statement: str) -> None:
            if statement == "COMMIT":
                connections[0].set_trace_callback(None)
                ((level,),) = connections[0].execute("PRAGMA synchronous").fetchall()
                connections[0].set_trace_callback(trace)
                levels.append((statement, level))

        connections[0].set_trace_callback(trace)
        store.put_clients([reported("a")])
        with pytest.raises(ValueError, match="time zone"):
            store.expire_clients(NOW.replace(tzinfo=None))
        store.put_record(Record("draft", "a", "{}"))
        store.end_clients([("shop", "production", "a")], "node-1", NOW)
        store.delete_record("draft", "a")
        store.expire_clients(NOW + LIFE)
        put(store, "a")
        full, normal = 2, 1
        assert [level for _, level in levels] == [normal, full, normal, full, normal, full]
        store.close()

    def test_a_read_only_connection_cannot_checkpoint_not_even_as_the_last_one(self, path: Path) -> None:
        store = SqliteStore(path)
        put(store, "a")
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        reader.execute("SELECT * FROM item").fetchall()
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        log = Path(f"{path}-wal")
        before = log.read_bytes()
        # What a fork does: the writer first, the readers after it.
        store.before_fork()
        reader.close()
        assert log.read_bytes() == before != b""
        store.after_fork_in_parent()
        assert store.revision() == 1
        assert put(store, "b").revision == 2
        store.close()
        assert not log.exists()


def test_two_processes_see_each_others_commits(path: Path, worker: Worker) -> None:
    store = SqliteStore(path)
    follower = worker.start("follow", path=str(path), until=12)
    while "following" not in worker.report():
        pass
    for number in range(1, 9):
        written = put(store, f"s{number}")
        report = worker.report()
        assert (report["seen"], report["message"]) == (written.revision, written.message)
    seen = store.revision()
    writer = worker.start("commit_some", path=str(path), count=4, interval=2)
    while seen < 12:
        assert store.wait_hint(10)
        for change_set in store.read_since(seen):
            seen = change_set.revision
            assert change_set.message == content(seen)
    assert worker.reap(writer)[0] == 0
    assert worker.reap(follower)[0] == 0
    store.close()


def test_every_commit_and_generation_is_hinted_at_once(path: Path) -> None:
    store = SqliteStore(path)
    hints = HintSocket(Path(f"{path}-hints"))
    assert not hints.wait(0)
    put(store, "a")
    assert hints.wait(0)
    store.raise_generation(1)
    assert hints.wait(0)
    store.commit(lambda _: None)
    assert not hints.wait(0)
    store.put_record(Record("draft", "a", "{}"))
    assert hints.wait(0)
    store.put_record(Record("draft", "a", "{}"), expected_version=0)
    store.put_clients([reported("a")])
    store.end_clients([("shop", "production", "a")], "node-1", NOW)
    store.expire_clients(NOW)
    assert not hints.wait(0)
    hints.close()
    store.close()


def test_four_writing_processes_leave_no_gap(path: Path, worker: Worker) -> None:
    SqliteStore(path).close()
    jobs = [worker.start("commit_some", path=str(path), count=40, interval=8) for _ in range(4)]
    reports = [report for job in jobs for report in worker.reap(job)[1]]
    assert sorted(revision for report in reports for revision in report["revisions"]) == list(range(1, 161))
    store = SqliteStore(path)
    assert_written_by_workers(store)
    store.close()
    assert_sound(path)


def test_killing_the_writer_loses_no_acknowledged_commit(path: Path, worker: Worker) -> None:
    chance = random.Random(20260301)
    acknowledged = 0
    bystander: SqliteStore | None = None
    for kill in range(KILLS):
        if kill % 10 == 0:
            # Half of the time there is another process, which must go on; else a new one finds the file alone.
            bystander = SqliteStore(path, checkpoint_interval=4) if kill % 20 == 0 else None
        if kill % 2:
            # Anywhere between two statements, those that commit and checkpoint included.
            job = worker.start(
                "commit_for_ever", path=str(path), interval=4, die_before_statement=chance.randrange(20, 90)
            )
        else:
            # Anywhere at all.
            job = worker.start("commit_for_ever", path=str(path), interval=4)
            for _ in range(chance.randrange(1, 9)):
                acknowledged = worker.report()["acknowledged"]
            spin(chance.random() * 0.002)
            os.kill(job, signal.SIGKILL)
        status, reports = worker.reap(job)
        assert status == -signal.SIGKILL, reports
        acknowledged = max([acknowledged, *(report["acknowledged"] for report in reports)])
        store = bystander or SqliteStore(path, checkpoint_interval=4)
        # The last commit may have become durable without its acknowledgement.
        assert store.revision() in (acknowledged, acknowledged + 1)
        acknowledged = store.revision()
        if kill % 10 == 9:
            assert_written_by_workers(store)
            store.close()
            assert_sound(path)
        elif bystander is None:
            store.close()
    assert acknowledged > KILLS


def test_a_full_disk_stops_writes_only_and_leaves_no_gap(path: Path, worker: Worker) -> None:
    status, (report,) = worker.reap(worker.start("fill_the_disk", path=str(path)))
    assert status == 0, report
    assert [name for name, _ in report["errors"]] == ["UnavailableError"] * 3
    assert not any(str(path.parent) in message for _, message in report["errors"])
    assert report["loaded"] == report["acknowledged"] > 1
    assert report["history"] == list(range(1, report["acknowledged"] + 1))
    assert report["after"] == report["acknowledged"] + 1
    store = SqliteStore(path)
    assert_written_by_workers(store)
    store.close()
    assert_sound(path)


def test_parent_and_child_go_on_after_a_fork(path: Path, worker: Worker) -> None:
    status, reports = worker.reap(worker.start("fork_with_an_open_store", path=str(path)))
    assert (status, reports) == (
        0,
        [
            {"who": "child", "revision": 2, "hint": True},
            {"who": "parent", "child": 0, "revision": 3, "hint": True},
        ],
    )
    store = SqliteStore(path)
    assert_written_by_workers(store)
    store.close()
    assert_sound(path)


def test_a_child_of_a_fork_without_hooks_is_refused_and_does_no_harm(path: Path, worker: Worker) -> None:
    status, (child, parent) = worker.reap(worker.start("fork_without_hooks", path=str(path)))
    assert status == 0
    assert child["child"] == "StoreError"
    assert "open it again after the fork" in child["message"]
    assert parent == {"revision": 2}
    assert_sound(path)


def test_a_fork_inside_a_write_does_not_harm_the_write(path: Path, worker: Worker) -> None:
    status, reports = worker.reap(worker.start("fork_in_a_write", path=str(path)))
    assert (status, reports) == (0, [{"child": "StoreError"}, {"revision": 2}])
    assert_sound(path)
