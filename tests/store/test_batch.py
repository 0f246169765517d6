"""Writers of one process who share a transaction: in turn, on each engine, and not for too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rheostat.errors import AlreadyExistsError, UnavailableError
from rheostat.model.change import Change, ChangeSet
from rheostat.store import batch
from rheostat.store.base import Group, Record, Transaction
from rheostat.store.batch import Batches, Flush
from tests.postgres import Template
from tests.store.contract import put, replayed, setting, texts
from tests.store.shared import PATIENCE, Shared, eventually, outcome


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Template, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shared]:
    made = Shared(request.param, tmp_path, postgres, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def commits(shared: Shared) -> Iterator[list[None]]:
    """One for each transaction that was made durable."""
    counted: list[None] = []

    def count(commit: Callable[[], None]) -> None:
        commit()
        counted.append(None)

    with shared.committing(count):
        yield counted


def test_writers_who_wait_share_a_transaction_and_see_each_other(shared: Shared, commits: list[None]) -> None:
    store = shared.store
    works = [lambda number=number: put(store, f"s{number % 5}").revision for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        futures = shared.start_together(works, pool)
        # First come, first served.
        assert [outcome(future) for future in futures] == list(range(1, 13))
    assert len(commits) == 1
    history = store.read_since(0)
    assert [change_set.revision for change_set in history] == list(range(1, 13))
    assert texts(store.load()) == replayed(history)[0]


def test_in_a_shared_transaction_each_fails_alone(shared: Shared, commits: list[None]) -> None:
    store = shared.store
    put(store, "first", request_id="used", actor="k")

    def fail(transaction: Transaction) -> ChangeSet:
        transaction.put_record(Record("draft", "failed", "{}"))
        raise LookupError("a plan that failed")

    def nothing(transaction: Transaction) -> None:
        transaction.put_record(Record("draft", "nothing", "{}"))

    def wrong(transaction: Transaction) -> ChangeSet:
        return ChangeSet("shop", (Change("shop", "e", "setting", "a", None, setting("a", 99)),))

    def unspeakable(transaction: Transaction) -> ChangeSet:
        return ChangeSet("shop", (), message="\ud800")

    def with_record(transaction: Transaction) -> ChangeSet:
        transaction.put_record(Record("draft", "kept", "{}"))
        return ChangeSet("shop", ())

    def replay(transaction: Transaction) -> None:
        found = transaction.find_request("k", "new")
        assert found is not None
        assert found.revision == transaction.revision == 3
        assert transaction.since(0)[1:] == tuple(transaction.group.written)

    works: list[Callable[[], object]] = [
        lambda: put(store, "a").revision,
        lambda: store.commit(fail),
        lambda: put(store, "new", request_id="new", actor="k").revision,
        lambda: store.commit(replay),
        lambda: put(store, "again", request_id="used", actor="k"),
        lambda: put(store, "again", request_id="new", actor="k"),
        lambda: store.commit(nothing),
        lambda: store.commit(wrong),
        lambda: store.commit(unspeakable),
        lambda: store.put_record(Record("draft", "put", "{}"), expected_version=1),
        lambda: store.put_record(Record("draft", "put", "{}"), expected_version=0),
        lambda: store.delete_record("draft", "absent"),
        lambda: store.raise_generation(4).generation,
        lambda: store.commit(with_record),
        lambda: put(store, "b \x00\x01").generation,
        lambda: store.compact(2),
        lambda: put(store, "again", request_id="new", actor="k"),
    ]
    with ThreadPoolExecutor(len(works)) as pool:
        futures = shared.start_together(works, pool)
        outcomes = [outcome(future) for future in futures]
    with_its_record = outcomes.pop(13)
    assert isinstance(with_its_record, ChangeSet)
    assert (with_its_record.revision, with_its_record.generation) == (4, 5)
    assert outcomes == [
        2,
        LookupError,
        3,
        None,
        AlreadyExistsError,
        AlreadyExistsError,
        None,
        ValueError,
        UnicodeEncodeError,
        None,
        Record("draft", "put", "{}", None, 1),
        False,
        5,
        5,
        2,
        AlreadyExistsError,
    ]
    assert len(commits) == 2
    assert [record.key for record in store.records("draft")] == ["kept", "put"]
    assert {stored.key: stored.item.revision for stored in store.load().items} == {
        "first": 1,
        "a": 2,
        "new": 3,
        "b \x00\x01": 5,
    }
    assert [change_set.revision for change_set in store.read_since(2)] == [3, 4, 5]


def test_nobody_hears_of_success_before_the_commit(shared: Shared) -> None:
    store = shared.store
    seen: list[object] = []

    def look(commit: Callable[[], None]) -> None:
        seen.extend([store.revision(), *(future.done() for future in futures)])
        commit()

    with shared.committing(look), ThreadPoolExecutor(3) as pool:
        with shared.held_off():
            futures = [pool.submit(lambda name=name: put(store, name).revision) for name in "abc"]
            eventually(lambda: len(store._batches._queue) == 2)
        assert {future.result(PATIENCE) for future in futures} == {1, 2, 3}
    assert seen == [0, False, False, False]


def test_a_commit_that_fails_loses_all_of_its_writers_and_the_next_one_works(shared: Shared) -> None:
    store = shared.store
    put(store, "before")
    groups: list[Group] = []

    def write(transaction: Transaction) -> ChangeSet:
        groups.append(transaction.group)
        return ChangeSet("shop", ())

    def fail(commit: Callable[[], None]) -> None:
        raise shared.failure()

    works = [lambda: store.commit(write), lambda: store.put_record(Record("draft", "a", "{}"))]
    with shared.committing(fail), ThreadPoolExecutor(2) as pool:
        futures = shared.start_together(works, pool)
        assert [outcome(future) for future in futures] == [UnavailableError] * 2
    assert [change_set.message for change_set in store.read_since(0)] == ["put before"]
    assert store.record("draft", "a") is None
    assert put(store, "after").revision == 2
    store.commit(write)
    lost, kept = groups
    assert lost.lost
    assert (kept.lost, [change_set.revision for change_set in kept.written]) == (False, [3])


class Counted:
    """A transaction that only keeps what was written in it."""

    def __init__(self) -> None:
        self.group = Group()
        self.written: list[int] = []

    def keep(self, flush: Flush[int]) -> int:
        result = flush()
        self.written.append(result)
        return result

    def commit(self, flush: Flush[int] | None) -> int | None:
        return None if flush is None else self.keep(flush)

    def undo(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.mark.parametrize("before", [0, 1])
def test_what_breaks_while_it_is_kept_is_known_to_be_lost(shared: Shared, before: int) -> None:
    store = shared.store
    groups: list[Group] = []

    def write(transaction: Transaction) -> ChangeSet:
        groups.append(transaction.group)
        transaction.put_record(Record("draft", "a", "{}"))
        return ChangeSet("shop", ())

    works: list[Callable[[], object]] = [
        lambda: store.commit(lambda transaction: ChangeSet("shop", ()))
    ] * before
    works += [lambda: store.commit(write), lambda: put(store, "later").revision]
    with shared.executing("RELEASE"), ThreadPoolExecutor(3) as pool:
        outcomes = [outcome(future) for future in shared.start_together(works, pool)]
    assert outcomes == [UnavailableError] * (before + 1) + [1]
    assert (groups[0].lost, len(groups[0].written)) == (True, before + 1)
    assert store.record("draft", "a") is None
    assert [change_set.message for change_set in store.read_since(0)] == ["put later"]


def test_a_process_lets_others_in_after_a_tenth_of_a_second() -> None:
    sessions: list[Counted] = []
    now = 0.0
    held = threading.Event()

    def begin() -> Counted:
        assert held.wait(PATIENCE)
        sessions.append(Counted())
        return sessions[-1]

    batches: Batches[Counted] = Batches(begin, timeout=PATIENCE, monotonic=lambda: now)

    def work(number: int) -> Callable[[Counted], Flush[int]]:
        def written(session: Counted) -> Flush[int]:
            nonlocal now
            now += 0.03
            return lambda: number

        return written

    with ThreadPoolExecutor(10) as pool:
        futures = []
        for number in range(10):
            futures.append(pool.submit(batches.run, work(number)))
            eventually(lambda number=number: batches._busy and len(batches._queue) == number)
        held.set()
        assert [future.result(PATIENCE) for future in futures] == list(range(10))
    assert [session.written for session in sessions] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_transaction_takes_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_LONGEST", PATIENCE)
    sessions: list[Counted] = []
    held = threading.Event()

    def begin() -> Counted:
        assert held.wait(PATIENCE)
        sessions.append(Counted())
        return sessions[-1]

    batches: Batches[Counted] = Batches(begin, timeout=PATIENCE)
    monkeypatch.setattr(batch, "_LARGEST", 3)
    with ThreadPoolExecutor(8) as pool:
        futures = []
        for number in range(8):
            futures.append(pool.submit(batches.run, lambda session, number=number: lambda: number))
            eventually(lambda number=number: batches._busy and len(batches._queue) == number)
        held.set()
        assert [future.result(PATIENCE) for future in futures] == list(range(8))
    assert [len(session.written) for session in sessions] == [4, 4]


class Kill(BaseException):
    """What stops a thread that waits: a KeyboardInterrupt, or a GreenletExit of gevent."""


class Killing(threading.Event):
    """Who waits for it is killed, at once or when it is set."""

    at_once = True

    def wait(self, timeout: float | None = None) -> bool:
        assert self.at_once or super().wait(timeout)
        raise Kill


@pytest.mark.parametrize("third_waits", [True, False])
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_who_is_killed_while_it_waits_for_its_turn_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, at_once: bool, joins: bool, third_waits: bool
) -> None:
    monkeypatch.setattr(batch, "_LONGEST", PATIENCE if joins else 0.0)
    sessions: list[Counted] = []
    write = threading.Event()

    def begin() -> Counted:
        sessions.append(Counted())
        return sessions[-1]

    def first(session: Counted) -> Flush[int]:
        assert write.wait(PATIENCE)
        return lambda: 1

    def third() -> int | None:
        return batches.run(lambda session: lambda: 3)

    batches: Batches[Counted] = Batches(begin, timeout=PATIENCE)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(batches.run, first)]
        eventually(lambda: batches._busy)
        with monkeypatch.context() as patch:
            turn, killing = batch._Turn, Killing()
            killing.at_once = at_once
            patch.setattr(batch, "_Turn", lambda wish: turn(wish, killing))
            killed = pool.submit(batches.run, lambda session: lambda: 2)
            eventually(lambda: killed.done() if at_once else len(batches._queue) == 1)
        waiting = len(batches._queue)
        if third_waits:
            futures.append(pool.submit(third))
            eventually(lambda: len(batches._queue) == waiting + 1)
        write.set()
        with pytest.raises(Kill):
            killed.result(PATIENCE)
        assert [future.result(PATIENCE) for future in futures] == [1, 3][: len(futures)]
        if not third_waits:
            assert pool.submit(third).result(PATIENCE) == 3
    assert [number for session in sessions for number in session.written] == [1, 3]
    assert (batches._busy, list(batches._queue)) == (False, [])


def test_who_is_killed_before_its_transaction_begins_holds_nobody_up() -> None:
    closed: list[Counted] = []

    class Closing(Counted):
        def close(self) -> None:
            closed.append(self)

    batches: Batches[Counted] = Batches(Closing, timeout=PATIENCE)
    former, batches._ended = batches._ended, Killing()
    with pytest.raises(Kill):
        batches.run(lambda session: lambda: 1)
    assert len(closed) == 1
    batches._ended = former
    assert (batches.run(lambda session: lambda: 2), batches._busy) == (2, False)


@pytest.mark.parametrize("error", [Kill, LookupError])
def test_a_transaction_that_cannot_be_closed_holds_nobody_up(error: type[BaseException]) -> None:
    class Stuck(Counted):
        def close(self) -> None:
            raise error

    batches: Batches[Counted] = Batches(Stuck, timeout=PATIENCE)
    for _ in range(2):
        with pytest.raises(error):
            batches.run(lambda session: None)
        assert not batches._busy


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LookupError("its secret"), "the transaction was lost with that of another writer"),
        (
            UnavailableError("the disk is full"),
            "the transaction was lost with that of another writer: the disk is full",
        ),
    ],
)
def test_nobody_is_told_of_an_unexpected_error_of_another_writer(error: Exception, told: str) -> None:
    write = threading.Event()

    class Failing(Counted):
        def commit(self, flush: Flush[int] | None) -> int | None:
            raise error

    def first(session: Counted) -> Flush[int]:
        assert write.wait(PATIENCE)
        return lambda: 1

    batches: Batches[Counted] = Batches(Failing, timeout=PATIENCE, monotonic=lambda: 0.0)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(batches.run, first)
        eventually(lambda: batches._busy)
        two = pool.submit(batches.run, lambda session: lambda: 2)
        eventually(lambda: len(batches._queue) == 1)
        write.set()
        with pytest.raises(UnavailableError) as caught:
            one.result(PATIENCE)
        assert str(caught.value) == told
        assert type(two.exception(PATIENCE)) is type(error)
