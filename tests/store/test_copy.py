"""Copies of stores: everything comes along, all of it or nothing, and the source stays as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import sqlite3
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from rheostat.errors import (
    FailedPreconditionError,
    RevisionCompactedError,
    StoreError,
    UnavailableError,
)
from rheostat.model.change import Change, ChangeSet, PlanWarning
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind
from rheostat.model.subject import Exposure, SubjectEvent, SubjectOverride
from rheostat.model.value import FrozenMapping
from rheostat.store import migrate, migration, open_store, tables
from rheostat.store.base import ClientRow, Record, Store, Transaction
from rheostat.store.copy import Copied, back_up, copy_store
from rheostat.store.generation import GENERATION_KIND, Beginning, beginnings_in
from rheostat.store.look import looking_at
from rheostat.store.origin import ORIGIN_KIND
from rheostat.store.pool import Pool
from rheostat.store.postgres import PostgresStore
from rheostat.store.tables import SCHEMA
from tests.postgres import Template, execute
from tests.store.contract import NOW, Clock, put, remove, setting
from tests.store.subject_contract import NUL, PLACE, counted, get, of, record, track, user
from tests.store.subject_contract import put_one as put_subject

DIRECTIONS = [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "sqlite")]

KINDS = ("draft", "webhook_cursor", "something that a later version made up")


class Places:
    """Makes places for stores."""

    def __init__(self, folder: Path, postgres: Template) -> None:
        self._folder = folder
        self._postgres = postgres

    def __call__(self, kind: str, name: str) -> str:
        return f"sqlite:{self._folder / name}.db" if kind == "sqlite" else self._postgres.empty()


@pytest.fixture
def place(tmp_path: Path, postgres: Template) -> Places:
    return Places(tmp_path, postgres)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A store of three revisions, in a file."""
    url = f"sqlite:{tmp_path / 'source.db'}"
    fill(url, 3)
    return url


def fill(url: str, count: int) -> None:
    store = open_store(url)
    for number in range(count):
        put(store, f"s{number}", number)
    store.close()


def fill_with_everything(store: Store) -> None:
    put(store, "a", 1, request_id="one", actor="k1", rule_numbers=3)
    put(store, "größer\x00\x01", 2, environment="staging", project="other")
    remove(store, "a")
    put(store, "gone")
    remove(store, "gone")
    store.raise_generation(4, "a test")

    def write(transaction: Transaction) -> ChangeSet:
        at = transaction.revision + 1
        key = Key("a" * 16, KeyKind.SERVER, bytes(range(32)), "shop", created_at=NOW, revision=at)
        transaction.put_record(Record("webhook_secret", "shop/w1", '{"current": "s\x00"}'))
        return ChangeSet(
            "shop",
            (
                Change("shop", "", "key", "a" * 16, None, key),
                Change("shop", "production", "setting", "a", None, setting("a", at, "ü\x00", "str")),
            ),
            author="ada",
            message="why\x01",
            actor="k1",
            request_id="two",
            payload_digest=bytes(32),
            rule_numbers=2,
            reverts=3,
            warnings=(PlanWarning("code", "text", 1, FrozenMapping({"user": 1})),),
            draft="d1",
            approved_by=("k2", "k3"),
            forced_clients=("c1",),
        )

    store.commit(write)
    store.compact(4)
    for kind in KINDS:
        store.put_record(Record(kind, "shop/1", "{}"))
        store.put_record(Record(kind, "shop/1", '{"n": 2}', NOW + datetime.timedelta(days=1)))
        store.put_record(Record(kind, "shop/größer\x00", "{}"))
    store.put_clients([ClientRow("shop", "production", "c1", NOW + datetime.timedelta(days=1))])


def history(store: Store) -> Sequence[ChangeSet]:
    found = [store.change_set(revision) for revision in range(1, store.revision() + 1)]
    assert None not in found
    return [change_set for change_set in found if change_set is not None]


@pytest.mark.parametrize(("kind", "other"), DIRECTIONS)
def test_a_copy_has_the_whole_history_and_what_is_beside_it(place: Places, kind: str, other: str) -> None:
    first, second = place(kind, "first"), place(other, "second")
    store = open_store(first, clock=Clock())
    fill_with_everything(store)
    clock = Clock()
    clock.now += datetime.timedelta(days=1)
    copied = copy_store(first, second, clock=clock)
    assert copied == Copied(
        revision=6, generation=6, change_sets=6, items=4, records=copied.records, missed=0
    )
    copy = open_store(second, clock=clock)
    left, right = store.load(), copy.load()
    assert dataclasses.replace(right, identity=left.identity) == left
    assert left.floor == 4
    assert left.rule_number == 5
    assert len(left.tombstones) == 1
    assert history(copy) == history(store)
    assert copy.history(project="shop", actor="k1") == store.history(project="shop", actor="k1")
    assert copy.read_since(4) == store.read_since(4)
    for found in (*KINDS, "webhook_secret"):
        assert copy.records(found) == store.records(found) != ()
        assert copy.due_records(found, clock.now) == store.due_records(found, clock.now)
    assert copy.clients("shop", "production", now=NOW) == ()
    # Tokens of the source stay tokens, of a generation that is over.
    assert right.identity.store_id == left.identity.store_id
    assert right.identity.token_key == left.identity.token_key
    assert right.identity.generation == left.identity.generation + 1
    assert right.identity.nonce != left.identity.nonce
    *before, last = beginnings_in(copy.records(GENERATION_KIND))
    assert before == list(beginnings_in(store.records(GENERATION_KIND)))
    assert last == Beginning(6, clock.now, 6, f"copied from {first}")

    def repeated(transaction: Transaction) -> None:
        assert transaction.find_request("k1", "one") == history(store)[0]

    copy.commit(repeated)  # type: ignore[arg-type]  # writes nothing
    written = put(copy, "next")
    assert (written.revision, written.generation) == (7, 6)
    assert store.revision() == 6
    copy.close()
    store.close()
    # To open it again is no reason for another generation.
    copy = open_store(second)
    assert copy.identity() == right.identity
    copy.close()


@pytest.mark.parametrize(("kind", "other"), [*DIRECTIONS, ("postgresql", "postgresql")])
def test_a_copy_has_the_subjects_and_their_counts(place: Places, kind: str, other: str) -> None:
    first, second = place(kind, "first"), place(other, "second")
    store = open_store(first)
    put_subject(store, of("company", id="c1"))
    subject = put_subject(
        store,
        user(id=NUL, email="Ada@b"),
        traits={"n": 1.0},
        overrides=[SubjectOverride("s", None, NOW)],
        member_of=[of("company", id="c1")],
        month_day=31,
    )
    exposure = SubjectEvent("x", NOW, (), Exposure("s", "r", "v", "\x00", 1))
    early = NOW - 3 * datetime.timedelta(days=1)
    record(store, track("old", user(id="u2"), time=early), now=early)
    record(store, track(NUL, user(id=NUL), quantity=5), exposure, actor=NUL)
    number = store.subject_feed_number()
    clock = Clock()
    assert copy_store(first, second, clock=clock).subjects == 3
    copy = open_store(second)
    copied, original = (each.list_subjects(*PLACE, now=NOW) for each in (copy, store))
    assert copied == tuple(
        dataclasses.replace(left, version=right.version) for left, right in zip(original, copied, strict=True)
    )
    # Whoever has seen what the copy has not takes nothing of it for the same.
    assert all(right.version > left.version + 10**6 for left, right in zip(original, copied, strict=True))
    assert get(copy, user(email="ADA@B")).id == subject.id
    assert counted(copy, user(id=NUL)) == (5, 5, 5, 5)
    assert copy.subject_changes(*PLACE) == store.subject_changes(*PLACE)
    assert copy.exposures(*PLACE) == store.exposures(*PLACE) != ()
    assert copy.event_counts(*PLACE) == store.event_counts(*PLACE) != ()
    # The feed begins anew: whoever has followed the other one finds out.
    newest = copy.subject_feed_number()
    assert newest > number + 10**6
    assert copy.subject_feed(newest) == ()
    for seen in (0, number, number + 100):
        with pytest.raises(RevisionCompactedError):
            copy.subject_feed(seen)
    record(copy, track(NUL, user(id=NUL)), actor=NUL)
    assert counted(copy, user(id=NUL)) == (5, 5, 5, 5)
    # What is forgotten by now is not carried along.
    record(copy, track("old", user(id="u2"), time=early), now=early)
    assert counted(copy, user(id="u2"), early) == (2, 2, 2, 2)
    assert put_subject(copy, of("company", id="c1", domain="d")).version == copied[0].version + 1
    assert [entry.number for entry in copy.subject_feed(newest)] == [newest + 1, newest + 2, newest + 3]
    copy.close()
    store.close()
    with pytest.raises(FailedPreconditionError):
        copy_store(first, second, clock=clock)


def test_a_copy_to_a_database_with_subjects_is_refused(source: str, postgres: Template) -> None:
    url = postgres.store()
    store = open_store(url)
    put_subject(store, user(id="u1"))
    assert store.revision() == 0
    with pytest.raises(FailedPreconditionError, match="subjects"):
        copy_store(source, url)
    assert isinstance(get(store, user(id="u1")).version, int)
    store.close()


def test_a_copy_to_an_empty_database_of_a_later_generation_has_the_subjects(
    source: str, postgres: Template
) -> None:
    url = postgres.store()
    destination = open_store(url)
    destination.raise_generation(3)
    destination.close()
    store = open_store(source)
    subject = put_subject(store, user(id="u1"))
    store.close()
    copy_store(source, url)
    copy = open_store(url)
    assert get(copy, user(id="u1")).id == subject.id
    copy.close()


def test_a_backup_has_the_subjects(source: str, tmp_path: Path) -> None:
    store = open_store(source)
    put_subject(store, user(id="u1"))
    record(store, track("1", user(id="u1")))
    back_up(source, str(tmp_path / "backup.db"))
    copy = open_store(str(tmp_path / "backup.db"))
    assert get(copy, user(id="u1")) == get(store, user(id="u1"))
    assert copy.subject_feed(0) == store.subject_feed(0) != ()
    copy.close()
    store.close()


def test_a_copy_from_one_database_to_another(place: Places) -> None:
    first, second = place("postgresql", ""), place("postgresql", "")
    fill(first, 3)
    assert copy_store(first, second).generation == 2
    store, copy = open_store(first), open_store(second)
    assert history(copy) == history(store)
    assert store.identity().generation == 1
    assert copy.identity().generation == 2
    assert copy.record(ORIGIN_KIND, "") != store.record(ORIGIN_KIND, "") is not None
    copy.close()
    store.close()


def test_a_copied_file_is_its_owners_alone_and_sound(source: str, tmp_path: Path) -> None:
    copy_store(source, str(tmp_path / "copy.db"))
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM change")
    connection.close()
    assert not list(tmp_path.glob("*.copying*"))


def test_a_database_in_which_a_store_was_made_ahead_of_time_is_empty_enough(
    source: str, postgres: Template
) -> None:
    url = postgres.empty()
    migrate(url)
    copy_store(source, url)
    copy = open_store(url)
    assert copy.revision() == 3
    assert copy.identity().generation == 2
    copy.close()


def make_history(path: Path, count: int, characters: int) -> None:
    """A store of so many revisions, made without the time that committing takes."""
    open_store(str(path)).close()
    pool = Pool(path, "normal")
    with pool.writer() as connection:
        for first in range(1, count + 1, 1000):
            revisions = range(first, first + 1000)
            change_sets = [
                {
                    "revision": revision,
                    "generation": 1,
                    "project": "shop",
                    "created_at": NOW.isoformat(timespec="microseconds"),
                    "payload_digest": b"",
                    "rule_numbers": 0,
                    "reverts": 0,
                    "warnings": "[]",
                    **dict.fromkeys(("author", "message", "actor", "request_id"), ""),
                }
                for revision in revisions
            ]
            address = {"project": "shop", "environment": "production", "kind": "setting"}
            changes = [
                {
                    **address,
                    "revision": revision,
                    "sequence": 0,
                    "key": f"s{revision % 100}",
                    "after": encode_item(setting(f"s{revision % 100}", revision, "x" * characters, "str")),
                }
                for revision in revisions
            ]
            connection.execute(insert(tables.change_set), change_sets)
            connection.execute(insert(tables.change), changes)
        connection.execute(update(tables.store).values(revision=count))
        connection.commit()
    pool.close(contextlib.nullcontext())


def test_ten_thousand_revisions_are_copied_to_a_database_and_back(tmp_path: Path, postgres: Template) -> None:
    made, url, back = str(tmp_path / "made.db"), postgres.empty(), str(tmp_path / "back.db")
    make_history(tmp_path / "made.db", 10_000, 20)
    told: list[tuple[int, int]] = []
    copied = copy_store(made, url, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 10_000) for done in range(0, 10_001, 500)]
    assert (copied.change_sets, copied.generation) == (10_000, 2)
    assert copy_store(url, back).generation == 3
    with contextlib.closing(sqlite3.connect(back)) as connection:
        connection.execute("ATTACH ? AS made", [made])
        for table in ("change_set", "change", "item"):
            (counted,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert counted == (0 if table == "item" else 10_000)
            for one, other in (("main", "made"), ("made", "main")):
                query = f"SELECT * FROM {one}.{table} EXCEPT SELECT * FROM {other}.{table}"
                assert connection.execute(query).fetchall() == []


def test_memory_does_not_grow_with_the_history(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.db", tmp_path / "copy.db"
    make_history(source, 1_000, 16_000)
    # The first copy imports what it needs.
    copy_store(str(source), str(tmp_path / "first.db"))
    tracemalloc.start()
    try:
        copy_store(str(source), str(copy))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert copy.stat().st_size > 16_000_000
    assert peak < 8_000_000


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_copy_shows_one_moment_of_a_store_that_is_written_to(place: Places, kind: str) -> None:
    first, second = place(kind, "first"), place("sqlite", "second")
    store = open_store(first)
    put(store, "a", 1)

    def write_meanwhile(done: int, total: int) -> None:
        assert total == 1
        put(store, "a", 2)
        store.put_record(Record("draft", f"shop/{done}", "{}"))

    copied = copy_store(first, second, on_progress=write_meanwhile)
    assert (copied.revision, copied.missed) == (1, 2)
    copy = open_store(second)
    assert copy.revision() == 1
    (item,) = copy.load().items
    assert item.item == setting("a", 1, 1)
    assert copy.records("draft") == ()
    assert store.revision() == 3
    copy.close()
    store.close()


@dataclasses.dataclass(frozen=True)
class Killed:
    """What processes have left that were killed while they wrote a store, or copied one."""

    source: str
    stored: Path
    copied: dict[str, str]
    placed: tuple[str, str]
    """Copies that had their name already, but also still the one that they were made under."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, postgres: Template) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    left = Killed(
        str(folder / "source.db"),
        folder / "stored.db",
        {"sqlite": str(folder / "copy.db"), "postgresql": postgres.empty()},
        (str(folder / "placed.db"), str(folder / "saved.db")),
    )
    fill(left.source, 3)
    program = """
import os, signal, sys
from rheostat.store import open_store
from rheostat.store.base import Record
from rheostat.store.copy import back_up, copy_store
source, stored, placed, saved, *copies = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def store():
    open_store(stored).put_record(Record("draft", "d", "{}"))
    die()
def copy(place):
    copy_store(source, place, on_progress=lambda done, total: die() if done else None)
def place(make, path, link=os.link):
    os.link = lambda *names: (link(*names), die())
    make(source, path)
jobs = [store, lambda: place(copy_store, placed), lambda: place(back_up, saved)]
for job in (*jobs, *((lambda place=place: copy(place)) for place in copies)):
    pid = os.fork()
    if not pid:
        try:
            job()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
"""
    arguments = (left.source, left.stored, *left.placed, *left.copied.values())
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)
    return left


def test_a_server_that_was_killed_leaves_a_store_that_can_be_copied(killed: Killed, tmp_path: Path) -> None:
    # What it has committed is in the log only.
    assert Path(f"{killed.stored}-wal").stat().st_size > 0
    copy_store(str(killed.stored), str(tmp_path / "copy.db"))
    copy = open_store(str(tmp_path / "copy.db"))
    assert copy.record("draft", "d") is not None
    copy.close()


# What is refused, and changes nothing.


def refusals(tmp_path: Path, source: str, postgres: Template) -> list[tuple[str, str, type[Exception], str]]:
    used, foreign = postgres.store(), postgres.empty()
    fill(used, 1)
    execute(foreign, "CREATE TABLE orders (id int)")
    made, text = tmp_path / "made.db", tmp_path / "text.db"
    open_store(str(made)).close()
    text.write_text("no store, but something that somebody needs")
    (tmp_path / "half.db-wal").write_bytes(b"")
    fresh = str(tmp_path / "fresh.db")
    return [
        (source, source, FailedPreconditionError, "'source.db'"),
        (source, str(made), FailedPreconditionError, "has the file 'made.db'"),
        (source, str(text), FailedPreconditionError, "has the file 'text.db'"),
        (source, str(tmp_path / "half.db"), FailedPreconditionError, "has the file 'half.db-wal'"),
        (source, str(tmp_path / "absent" / "x.db"), StoreError, "cannot be made"),
        (source, "memory:", StoreError, "ends with this command"),
        (source, used, FailedPreconditionError, "history, up to revision 1"),
        (source, foreign, StoreError, "another program: it has the table 'orders'"),
        ("memory:", fresh, StoreError, "no other can reach it"),
        (str(tmp_path / "absent.db"), fresh, StoreError, "there is no store"),
        (str(text), fresh, StoreError, "is not a store"),
        (foreign, fresh, StoreError, "another program"),
        (postgres.empty(), fresh, StoreError, "there is no store in the database"),
        ("mysql://localhost/x", fresh, StoreError, "unknown kind of store 'mysql'"),
    ]


def test_refuses_places_that_are_taken_and_sources_that_are_none(
    tmp_path: Path, source: str, postgres: Template
) -> None:
    cases = refusals(tmp_path, source, postgres)
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    for from_, to, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            copy_store(from_, to)
        if kind is FailedPreconditionError:
            assert caught.value.reason == "STORE_NOT_EMPTY"  # type: ignore[attr-defined]
    after = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    # To read a file leaves its empty log and its index of the log.
    assert {name for name in after if not name.endswith(("-wal", "-shm"))} <= before.keys()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_refuses_a_source_of_another_schema(
    place: Places, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = place(kind, "source")
    open_store(url).close()
    destination = f"sqlite:{tmp_path / 'copy.db'}"
    with monkeypatch.context() as newer:
        newer.setattr(migration, "SCHEMA", f"{int(SCHEMA) + 1:04}")
        with pytest.raises(StoreError, match="`rheostat migrate`"):
            copy_store(url, destination)
    with monkeypatch.context() as older:
        older.setattr(migration, "SCHEMA", "0001")
        with pytest.raises(StoreError, match="newer version of rheostat"):
            copy_store(url, destination)
    assert not (tmp_path / "copy.db").exists()


def test_refuses_a_source_whose_history_has_gaps(source: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.execute("UPDATE store SET revision = 4")
    connection.close()
    with pytest.raises(StoreError, match="3 change-sets up to revision 3, and its counter says 4"):
        copy_store(source, str(tmp_path / "copy.db"))
    assert not list(tmp_path.glob("copy*"))


# Backups.


def test_a_backup_is_the_same_history_also_of_a_store_that_an_older_version_has_left(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = str(tmp_path / "backup.db")
    with monkeypatch.context() as newer:
        newer.setattr(migration, "SCHEMA", f"{int(SCHEMA) + 1:04}")
        assert back_up(source, saved) == 3
    store, copy = open_store(source), open_store(saved)
    assert copy.load() == store.load()
    assert history(copy) == history(store)
    copy.close()
    store.close()


def test_refuses_to_back_up_what_is_no_file_and_over_what_is_one(
    source: str, tmp_path: Path, postgres: Template
) -> None:
    saved = tmp_path / "backup.db"
    saved.write_text("last week's")
    cases = [
        (source, str(saved), FailedPreconditionError, "has the file 'backup.db'"),
        (postgres.store(), str(tmp_path / "x.db"), StoreError, "use pg_basebackup or pg_dump"),
        (source, "memory:", StoreError, "this is memory"),
        (str(saved), str(tmp_path / "x.db"), StoreError, "is not a store"),
        (str(tmp_path / "absent.db"), str(tmp_path / "x.db"), StoreError, "there is no store"),
    ]
    for from_, to, kind, message in cases:
        with pytest.raises(kind, match=message):
            back_up(from_, to)
    assert saved.read_text() == "last week's"
    assert not list(tmp_path.glob("x.db*"))
    assert not list(tmp_path.glob("*.copying"))


# A copy that does not come to its end.


class Interrupted(BaseException):
    """As Ctrl-C is."""


def interrupt_after(revision: int) -> Callable[[int, int], None]:
    def interrupt(done: int, total: int) -> None:
        if done >= revision:
            raise Interrupted

    return interrupt


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_left_of_a_copy_that_was_interrupted(
    source: str, place: Places, kind: str, tmp_path: Path
) -> None:
    destination = place(kind, "copy")
    with pytest.raises(Interrupted):
        copy_store(source, destination, on_progress=interrupt_after(3))
    assert not list(tmp_path.glob("copy*"))
    if kind == "postgresql":
        assert execute(destination, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert copy_store(source, destination).revision == 3


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_copy_whose_process_was_killed_is_no_store_and_the_next_one_succeeds(
    killed: Killed, kind: str, tmp_path: Path
) -> None:
    destination = killed.copied[kind]
    if kind == "sqlite":
        assert not Path(destination).exists()
        # Not even when somebody takes the half file for one.
        left = Path(f"{destination}.copying")
        assert left.exists()
        left.rename(tmp_path / "half.db")
        with pytest.raises(StoreError), looking_at(str(tmp_path / "half.db")):
            pass
        left.write_bytes(b"left by a copy that was killed")
    assert copy_store(killed.source, destination).revision == 3
    assert not Path(f"{destination}.copying").exists()


@pytest.mark.parametrize("make", [copy_store, back_up])
def test_a_copy_whose_process_was_killed_after_it_was_put_in_its_place_is_never_emptied(
    killed: Killed, make: Callable[[str, str], object], tmp_path: Path
) -> None:
    for path in map(Path, killed.placed):
        # As the kill has left it, for each of the two that come after it.
        placed, part = tmp_path / path.name, tmp_path / f"{path.name}.copying"
        assert path.samefile(f"{path}.copying")
        placed.hardlink_to(path)
        part.hardlink_to(path)
        content = path.read_bytes()
        with pytest.raises(FailedPreconditionError, match=f"has the file '{path.name}'"):
            make(killed.source, str(placed))
        assert placed.read_bytes() == content
        assert not part.exists()
        # Nor is it when it has moved meanwhile, and the next copy gets its name.
        part.hardlink_to(path)
        placed.rename(tmp_path / "moved.db")
        make(killed.source, str(placed))
        assert path.read_bytes() == content
        assert not placed.samefile(path)
        assert not part.exists()
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT revision FROM store").fetchall() == [(3,)]
        connection.close()


def test_nobody_opens_a_database_while_a_copy_is_made_in_it(source: str, postgres: Template) -> None:
    url = postgres.empty()
    refused: list[UnavailableError] = []

    def open_meanwhile(done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(UnavailableError) as caught:
                PostgresStore(url, timeout=0.05)
            refused.append(caught.value)

    copy_store(source, url, on_progress=open_meanwhile)
    assert [error.reason for error in refused] == ["STORE_BUSY"]
    store = PostgresStore(url)
    assert store.revision() == 3
    store.close()


def test_two_copies_to_one_file_do_not_mix(source: str, tmp_path: Path) -> None:
    destination = str(tmp_path / "copy.db")

    def copy_meanwhile(done: int, total: int) -> None:
        with pytest.raises(UnavailableError, match=r"making 'copy\.db\.copying'"):
            copy_store(source, destination)

    assert copy_store(source, destination, on_progress=copy_meanwhile).revision == 3


def test_a_copy_never_takes_the_place_of_a_file_that_was_made_meanwhile(source: str, tmp_path: Path) -> None:
    destination = tmp_path / "copy.db"
    with pytest.raises(StoreError, match=r"'copy\.db' cannot be put in its place"):
        copy_store(source, str(destination), on_progress=lambda _, __: destination.write_text("mine"))
    assert destination.read_text() == "mine"
    assert not (tmp_path / "copy.db.copying").exists()


@pytest.mark.parametrize("make", [copy_store, back_up])
def test_a_copy_that_waited_for_the_end_of_another_leaves_it_alone(
    source: str, make: Callable[[str, str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "copy.db"
    lock = fcntl.flock

    def finish_another_first(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        make(source, str(destination))
        lock(descriptor, operation)

    # The other is made between the opening of the file and its lock.
    monkeypatch.setattr(fcntl, "flock", finish_another_first)
    with pytest.raises(UnavailableError, match=r"making 'copy\.db\.copying'") as caught:
        make(source, str(destination))
    assert caught.value.reason == "STORE_BUSY"
    store = open_store(str(destination))
    assert store.revision() == 3
    store.close()
    assert not (tmp_path / "copy.db.copying").exists()


def test_a_copy_whose_file_was_removed_neither_places_nor_removes_what_another_makes(
    source: str, tmp_path: Path
) -> None:
    part = tmp_path / "copy.db.copying"

    def begin_another(done: int, total: int) -> None:
        part.unlink()
        part.write_text("half of another")

    with pytest.raises(StoreError, match=r"'copy\.db\.copying' was removed"):
        copy_store(source, str(tmp_path / "copy.db"), on_progress=begin_another)
    assert not (tmp_path / "copy.db").exists()
    assert part.read_text() == "half of another"


def test_a_copy_is_not_made_where_a_link_leads(source: str, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "copy.db.copying").symlink_to(tmp_path / "notes")
    with pytest.raises(StoreError, match=r"'copy\.db\.copying' cannot be made"):
        copy_store(source, str(tmp_path / "copy.db"))
    assert (tmp_path / "notes").read_text() == "mine"
