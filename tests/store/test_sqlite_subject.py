"""Subjects and events in an SQLite file: other processes, indexes, the log, and what stays behind."""

from __future__ import annotations

import datetime
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from rheostat.model.subject import (
    Exposure,
    Subject,
    SubjectEvent,
    SubjectLimits,
    SubjectOverride,
    SubjectPatch,
)
from rheostat.store import sqlite, subject_purge, subject_session
from rheostat.store.sqlite import SqliteStore
from rheostat.store.subject import TOTAL
from rheostat.store.subject_row import SqlShelf
from tests.store.contract import put as put_setting
from tests.store.subject_contract import (
    NOW,
    PLACE,
    counted,
    draw_id,
    feed,
    find,
    get,
    of,
    put,
    put_one,
    record,
    track,
    user,
)
from tests.store.worker import BATCH, RECORDED_AT, Worker, events, spin

KILLS = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def test_subjects_survive_reopening(path: Path) -> None:
    store = SqliteStore(path)
    company = of("company", id="c1")
    put_one(store, company)
    put_one(store, user(id="u1"), traits={"a": 1.0}, member_of=[company])
    record(store, track("1", user(id="u1"), company))
    before = store.list_subjects(*PLACE, now=NOW)
    store.close()
    reopened = SqliteStore(path)
    assert reopened.list_subjects(*PLACE, now=NOW) == before
    assert record(reopened, track("1", user(id="u1"))) == [""]
    assert counted(reopened, user(id="u1")) == (1, 1, 1, 1)
    assert len(feed(reopened)) == 4
    reopened.close()


def test_two_stores_on_one_file_share_subjects_and_their_feed(path: Path) -> None:
    one, other = SqliteStore(path), SqliteStore(path)
    hinted: list[bool] = []
    ready = threading.Event()

    def follow() -> None:
        other.wait_hint(0)
        # Until it has seen what was there before.
        while other.wait_hint(0):
            continue
        ready.set()
        hinted.append(other.wait_hint(60))

    follower = threading.Thread(target=follow)
    follower.start()
    assert ready.wait(60)
    subject = put_one(one, user(id="u1"))
    follower.join(60)
    assert hinted == [True]
    assert get(other, subject.id) == subject
    assert put_one(other, user(id="U1"), traits={"a": 1}).version == 2
    assert record(one, track("1", user(id="u1"))) == record(other, track("1", user(id="u1"))) == [""]
    assert counted(other, subject.id) == counted(one, subject.id) == (1, 1, 1, 1)
    assert feed(one) == feed(other) == [subject.id] * 3
    one.close()
    other.close()


def test_killing_a_recorder_loses_and_doubles_nothing(path: Path, worker: Worker) -> None:
    SqliteStore(path).close()
    chance = random.Random(20260301)
    company = of("company", id="c1")
    acknowledged = -1
    for kill in range(KILLS):
        start = {"path": str(path), "number": acknowledged + 1}
        if kill % 2:
            # Anywhere between two statements; a batch has a few dozen.
            job = worker.start("record_for_ever", die_before_statement=chance.randrange(30, 200), **start)
        else:
            job = worker.start("record_for_ever", **start)
            for _ in range(chance.randrange(1, 5)):
                acknowledged = worker.report()["acknowledged"]
            spin(chance.random() * 0.005)
            os.kill(job, signal.SIGKILL)
        status, reports = worker.reap(job)
        assert status == -signal.SIGKILL, reports
        acknowledged = max([acknowledged, *(report["acknowledged"] for report in reports)])
        store = SqliteStore(path)
        total = 0
        if find(store, company) is not None:
            total = counted(store, company)[-1]
            assert sum(event.events for event in store.event_counts(*PLACE)) == total
            assert sum(counted(store, user(id=f"u{n}"))[-1] for n in range(7)) == total
        # All that was acknowledged is there, and of what was not all of a batch or nothing.
        assert total - (acknowledged + 1) * BATCH in (0, BATCH)
        assert store.subject_feed_number() == len(store.subject_feed(0, limit=10**6))
        store.close()
    assert acknowledged > KILLS / 2
    # What a program does that heard nothing: it sends everything again.
    store = SqliteStore(path)
    for number in range(acknowledged + 2):
        assert record(store, *events(number), now=RECORDED_AT) == [""] * BATCH
    assert counted(store, company)[-1] == (acknowledged + 2) * BATCH
    store.close()


def test_an_error_in_the_middle_of_a_call_leaves_nothing(store: SqliteStore) -> None:
    drawn = [draw_id()]
    limits = SubjectLimits()
    patches = [SubjectPatch(user(id="u1")), SubjectPatch(user(id="u2"))]
    sent = [track("1", user(id="u1")), track("2", user(id="u2"))]
    with pytest.raises(IndexError):
        store.upsert_subjects(*PLACE, patches, actor="", now=NOW, limits=limits, draw_id=drawn.pop)
    with pytest.raises(IndexError):
        store.record_events(*PLACE, sent, actor="", now=NOW, limits=limits, draw_id=drawn.pop)
    assert store.list_subjects(*PLACE, now=NOW) == ()
    assert store.subject_feed_number() == 0
    assert record(store, *sent, actor="") == ["", ""]


def test_nothing_personal_is_left_of_a_removed_subject(path: Path) -> None:
    store = SqliteStore(path)
    company = of("company", id="kept-company")
    put_one(store, company)
    secrets = ["Secret-Id", "Secret.Mail", "secret-trait", "secret-override", "Secret-Moved"]
    put_one(
        store,
        user(id=secrets[0], email=secrets[1], name=secrets[4]),
        traits={"note": secrets[2]},
        overrides=[SubjectOverride("s", secrets[3])],
        member_of=[company],
    )
    put_one(store, user(id=secrets[0], name="other"))
    put_one(store, user(id="kept-user"), member_of=[user(id=secrets[0])])
    exposure = SubjectEvent("kept-key", NOW, [user(id=secrets[0])], Exposure("s", "r", "v", True, 1))
    record(store, track("1", user(id=secrets[0]), company), exposure)
    subject = get(store, user(id=secrets[0]))
    store.delete_subjects(*PLACE, [(subject.id, None)], actor="k1", now=NOW)
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("VACUUM")
    owners = ("subject", "subject_key", "subject_member", "subject_usage")
    for table in owners:
        count = f"SELECT count(*) FROM {table} WHERE id = ?"
        assert connection.execute(count, (subject.id,)).fetchall() == [(0,)]
    connection.close()
    left = path.read_bytes().lower()
    for secret in secrets:
        assert secret.lower().encode() not in left
    for kept in (b"kept-company", b"kept-user", b"kept-key", b"traits.note"):
        assert kept in left


def test_what_is_asked_of_subjects_is_answered_through_an_index(path: Path) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", recorded)
        store = SqliteStore(path)
        company = of("company", id="c1")
        put_one(store, company)
        put_one(store, user(id="u1"), member_of=[company])
        statements.clear()
        record(store, track("1", user(id="u1")))
        put_one(store, user(id="u1", email="e"), traits={"a": 1}, remove_member_of=[company])
        put_one(store, user(id="u1"), member_of=[company])
        put_one(store, of("company", id="c1", domain="d"))
        get(store, user(id="u1"))
        store.list_subjects(*PLACE, now=NOW)
        store.list_subjects(*PLACE, kind="user", after=b"1", now=NOW)
        store.subject_changes(*PLACE, id=b"1", before=5)
        store.subject_changes(*PLACE, before=5)
        store.exposures(*PLACE, setting="s")
        store.event_counts(*PLACE, after="a")
        store.subject_feed(1)
        store.delete_subjects(*PLACE, [(company, None)], actor="", now=NOW)
        store.purge_subject_records(NOW)
        store.close()
    connection = sqlite3.connect(path)
    looked = 0
    for statement in statements:
        if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
            continue
        for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall():
            detail = step[3]
            if "subject" in detail or "event_" in detail or "exposure" in detail:
                looked += 1
                # A single row, and the days of exposures and events, which purging walks over.
                harmless = ("subject_counter", "event_day", "exposure_day")
                assert not detail.startswith("SCAN") or any(word in statement for word in harmless), (
                    statement,
                    detail,
                )
                assert "AUTOMATIC" not in detail, statement
    assert looked > 40
    connection.close()


def test_events_do_not_let_the_log_grow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BESIDE_SIZE", 200_000)
    store = SqliteStore(path)
    sizes = []
    for number in range(40):
        record(store, *events(number % 10 + 100))
        record(store, *(track(f"{number}/{n}", user(id=f"u{n}")) for n in range(20)))
        sizes.append(Path(f"{path}-wal").stat().st_size)
    assert max(sizes[20:]) == max(sizes[:20])
    store.close()


def test_subjects_and_change_sets_are_committed_side_by_side(store: SqliteStore) -> None:
    def write_settings() -> None:
        for number in range(10):
            put_setting(store, f"s{number}")

    writer = threading.Thread(target=write_settings)
    writer.start()
    for number in range(10):
        put_one(store, user(id=str(number)))
        record(store, track(str(number), user(id=str(number))))
    writer.join(60)
    assert store.revision() == 10
    assert len(store.read_since(0)) == 10
    assert len(feed(store)) == 20


def test_a_subject_keeps_its_totals_when_its_days_are_purged(store: SqliteStore) -> None:
    name = user(id="u1")
    days = [NOW - datetime.timedelta(days=day) for day in range(0, 400, 7)]
    for number, day in enumerate(days):
        record(store, track(str(number), name, time=day), now=day)
    assert counted(store, name)[-1] == len(days)
    removed = store.purge_subject_records(NOW)
    assert removed > len(days)
    assert counted(store, name)[-1] == len(days)
    assert isinstance(find(store, name), Subject)
    assert put(store, SubjectPatch(name)) == [get(store, name)]


def test_of_a_subject_with_many_events_the_days_are_added_up_where_they_are(
    store: SqliteStore, path: Path
) -> None:
    names = [f"e{number}" for number in range(100)]
    for day in range(20):
        at = NOW - datetime.timedelta(days=day)
        record(store, *(track(f"{day}{name}", user(id="u1"), name=name, time=at) for name in names))
    who = get(store, user(id="u1")).id
    today = NOW.date().toordinal()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        counts = SqlShelf(connection, *PLACE).sums(
            [who], [(today, today + 1), (today - 6, today + 1), (today - 30, today + 1)]
        )[who]
    engine.dispose()
    # In all, on the day, in the rest of the week and in the rest of the month.
    assert len(counts) == 1 + 4 * len(names)
    assert sum(counts.values()) == counts[TOTAL, ""] + 2 * 20 * len(names)


def test_of_very_many_members_no_row_is_written_when_what_they_belong_to_gets_a_key(
    store: SqliteStore, path: Path
) -> None:
    company = of("company", id="c1")
    put_one(store, company)
    put(store, *(SubjectPatch(user(id=f"u{number}"), member_of=[company]) for number in range(1001)))
    put_one(store, of("company", id="c1", domain="d"))
    assert get(store, user(id="u7")).version == 2
    connection = sqlite3.connect(path)
    written = connection.execute("SELECT count(*) FROM subject WHERE version > 1").fetchone()
    connection.close()
    assert written == (1,)


def test_event_keys_are_purged_by_the_range_of_their_primary_key(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_purge, "_STEP", 10)
    record(store, *(track(str(number), user(id="u1")) for number in range(25)))
    plans: list[str] = []
    execute = sqlalchemy.engine.default.DefaultDialect.do_execute

    def explained(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if statement.startswith("DELETE FROM event_key"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in cursor.fetchall())
        execute(self, cursor, statement, parameters, context)

    monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_execute", explained)
    # Twenty-five keys, the entry of the feed and nothing else yet.
    assert store.purge_subject_records(NOW + datetime.timedelta(days=3)) == 26
    assert len(plans) == 3
    assert all("(day,scope,actor,key)<" in plan for plan in plans[:2]), plans


def test_others_write_between_the_turns_of_a_call_with_large_subjects(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_session, "_TURN_CHARACTERS", 1)
    names = [user(id=f"u{number}") for number in range(103)]
    put(store, *(SubjectPatch(name, {"n": 0}) for name in names))
    patches = [*(SubjectPatch(name, {"n": 1}) for name in names), SubjectPatch(user(id="new"))]
    seen: list[int] = []
    connection = sqlite3.connect(path)

    def look() -> bytes:
        seen.extend(connection.execute("SELECT count(*) FROM subject WHERE version > 1").fetchone())
        return draw_id()

    results = store.upsert_subjects(*PLACE, patches, actor="", now=NOW, limits=SubjectLimits(), draw_id=look)
    connection.close()
    # All that came before the last one are there already for everybody.
    assert seen == [103]
    assert [result.keys["id"] for result in results if isinstance(result, Subject)] == [
        patch.reference.keys["id"] for patch in patches
    ]
