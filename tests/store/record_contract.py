"""What every store must do with records: subclass `RecordContract` beside `StoreContract`."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rheostat.errors import AlreadyExistsError, StoreError
from rheostat.model.change import ChangeSet
from rheostat.store.base import Record, Store, Transaction
from tests.store.contract import NOW, put

SECOND = datetime.timedelta(seconds=1)

LAST = "\U0010ffff"


def keys(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]


class RecordContract:
    """Tests of records; each gets a new, empty store."""

    def test_a_record_is_read_back_whole_and_takes_no_revision(self, store: Store) -> None:
        record = Record("draft", "shop/production/größer\x00", '{"a": "ü"}', NOW)
        written = store.put_record(record)
        assert written == replace(record, version=1)
        assert store.record("draft", record.key) == written
        assert store.record("draft", "shop") is None
        assert store.record("schedule", record.key) is None
        assert store.revision() == 0
        assert store.load().items == ()

    def test_the_version_of_a_record_rises_by_one_with_each_write(self, store: Store) -> None:
        for version in (1, 2, 3):
            written = store.put_record(Record("draft", "a", str(version), version=77))
            assert written == Record("draft", "a", str(version), None, version) == store.record("draft", "a")
        assert store.delete_record("draft", "a")
        assert store.put_record(Record("draft", "a", "new")) == Record("draft", "a", "new", None, 1)

    def test_a_write_that_expects_another_version_changes_nothing(self, store: Store) -> None:
        record = Record("draft", "a", "first", NOW)
        assert store.put_record(record, expected_version=1) is None
        assert store.record("draft", "a") is None
        first = store.put_record(record, expected_version=0)
        assert first == replace(record, version=1)
        for wrong in (0, 2):
            assert store.put_record(Record("draft", "a", "second"), expected_version=wrong) is None
        assert store.record("draft", "a") == first
        second = store.put_record(Record("draft", "a", "second"), expected_version=1)
        assert second == Record("draft", "a", "second", None, 2) == store.record("draft", "a")

    def test_a_removal_tells_whether_there_was_a_record_of_the_version(self, store: Store) -> None:
        for expected in (None, 0, 1):
            assert not store.delete_record("draft", "a", expected_version=expected)
        store.put_record(Record("draft", "a", "1"))
        store.put_record(Record("draft", "a", "2"))
        for expected in (0, 1, 3):
            assert not store.delete_record("draft", "a", expected_version=expected)
        assert store.record("draft", "a") is not None
        assert store.delete_record("draft", "a", expected_version=2)
        assert store.record("draft", "a") is None

    def test_of_many_concurrent_writes_that_expect_one_version_one_succeeds(self, store: Store) -> None:
        together = threading.Barrier(4)

        def write(writer: int) -> int:
            won = 0
            for version in range(8):
                together.wait(10)
                written = store.put_record(Record("draft", "a", str(writer)), expected_version=version)
                won += written is not None
            return won

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(write, range(4))) == 8
        stored = store.record("draft", "a")
        assert stored is not None
        assert stored.version == 8

    def test_concurrent_updates_by_version_lose_none(self, store: Store) -> None:
        store.put_record(Record("outbox", "a", "0"))

        def increment(_: int) -> None:
            written = None
            while written is None:
                stored = store.record("outbox", "a")
                assert stored is not None
                written = store.put_record(
                    replace(stored, body=str(int(stored.body) + 1)), expected_version=stored.version
                )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(24)))
        assert store.record("outbox", "a") == Record("outbox", "a", "24", None, 25)

    def test_finds_records_by_prefix_in_the_order_of_their_keys(self, store: Store) -> None:
        for key in ("shop/b", "shop/a", "shop", "shop/production/a", "shopping/a", "blog/a", "Shop/a"):
            store.put_record(Record("draft", key, "{}"))
        store.put_record(Record("schedule", "shop/c", "{}"))
        assert keys(store.records("draft", prefix="shop/")) == ["shop/a", "shop/b", "shop/production/a"]
        assert keys(store.records("draft", prefix="shop")) == [
            "shop",
            "shop/a",
            "shop/b",
            "shop/production/a",
            "shopping/a",
        ]
        assert keys(store.records("draft")) == [
            "Shop/a",
            "blog/a",
            "shop",
            "shop/a",
            "shop/b",
            "shop/production/a",
            "shopping/a",
        ]
        assert keys(store.records("draft", prefix="x")) == []
        assert keys(store.records("none")) == []

    @pytest.mark.parametrize(
        ("prefix", "inside", "outside"),
        [
            ("a%", ["a%", "a%b"], ["ab", "a"]),
            ("a_b", ["a_b", "a_bc"], ["axb"]),
            ("a\\", ["a\\", "a\\b"], ["a", "a]"]),
            ("a*", ["a*b"], ["ab"]),
            ("a[b]", ["a[b]"], ["ab"]),
            ("a'", ["a'b"], ["a"]),
            ("ß", ["ß", "ßa"], ["ss", "ẞ"]),
            ("é", ["é"], ["e\u0301", "E"]),
            ("a", ["a", "a" + LAST, "aé"], ["b", "A"]),
            ("a" + LAST, ["a" + LAST, "a" + LAST + "b"], ["a", "b"]),
            (LAST, [LAST, LAST + "a"], ["a", "\ufffd"]),
            ("\ud7ff", ["\ud7ff", "\ud7ffa"], ["\ud7fe", "\ue000"]),
            ("a\x00", ["a\x00", "a\x00b"], ["a", "a\x01"]),
        ],
    )
    def test_no_character_of_a_prefix_is_a_wildcard(
        self, store: Store, prefix: str, inside: list[str], outside: list[str]
    ) -> None:
        for key in (*inside, *outside):
            store.put_record(Record("draft", key, "{}"))
        assert keys(store.records("draft", prefix=prefix)) == sorted(inside)
        assert keys(store.records("draft")) == sorted(inside + outside)

    def test_records_come_in_pages(self, store: Store) -> None:
        names = ["a/1", "a/10", "a/2", "a/é", "a/\uffff", "a/😀"]
        for name in [*names, "b"]:
            store.put_record(Record("draft", name, "{}"))
        found: list[str] = []
        while page := store.records("draft", prefix="a/", after=found[-1] if found else "", limit=2):
            assert len(page) <= 2
            found.extend(keys(page))
        assert found == names
        assert keys(store.records("draft", prefix="a/", after="a")) == names
        assert keys(store.records("draft", after="a/😀")) == ["b"]
        assert store.records("draft", limit=0) == ()

    def test_finds_what_is_due_soonest_first(self, store: Store) -> None:
        east = datetime.timezone(datetime.timedelta(hours=5))
        dues = {
            "now": NOW.astimezone(east),
            "before": NOW - SECOND,
            "just-before": NOW - datetime.timedelta(microseconds=1),
            "just-after": NOW + datetime.timedelta(microseconds=1),
            "whole-second": NOW.replace(microsecond=0),
            "never": None,
            "long-ago": datetime.datetime(900, 1, 1, tzinfo=datetime.UTC),
            "far-away": datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC),
            "before-too": NOW - SECOND,
        }
        for key, due in dues.items():
            store.put_record(Record("schedule", key, "{}", due))
        store.put_record(Record("draft", "other", "{}", NOW - SECOND))
        order = ["long-ago", "before", "before-too", "whole-second", "just-before", "now"]
        assert keys(store.due_records("schedule", NOW)) == order
        assert keys(store.due_records("schedule", NOW.astimezone(east))) == order
        assert keys(store.due_records("schedule", NOW, limit=2)) == order[:2]
        assert [record.due for record in store.due_records("schedule", NOW)] == [dues[key] for key in order]
        assert store.due_records("none", NOW) == ()

    def test_a_record_is_due_when_its_last_write_says(self, store: Store) -> None:
        store.put_record(Record("schedule", "a", "{}", NOW + SECOND))
        assert store.due_records("schedule", NOW) == ()
        store.put_record(Record("schedule", "a", "{}", NOW))
        assert keys(store.due_records("schedule", NOW)) == ["a"]
        store.put_record(Record("schedule", "a", "{}"))
        assert store.due_records("schedule", NOW + SECOND) == ()

    def test_removes_what_is_due_and_nothing_else(self, store: Store) -> None:
        for key, due in (("a", NOW - SECOND), ("b", NOW), ("c", NOW + SECOND), ("d", None)):
            store.put_record(Record("used", key, "{}", due))
        store.put_record(Record("draft", "a", "{}", NOW))
        assert store.delete_due_records("used", NOW) == 2
        assert keys(store.records("used")) == ["c", "d"]
        assert keys(store.records("draft")) == ["a"]
        assert store.delete_due_records("used", NOW) == 0

    def test_refuses_an_instant_without_a_time_zone(self, store: Store) -> None:
        naive = NOW.replace(tzinfo=None)
        calls: list[Callable[[], object]] = [
            lambda: store.put_record(Record("draft", "a", "{}", naive)),
            lambda: store.due_records("draft", naive),
            lambda: store.delete_due_records("draft", naive),
            lambda: store.commit(lambda t: t.put_record(Record("draft", "a", "{}", naive)) and None),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="time zone"):
                call()
        assert store.record("draft", "a") is None

    def test_a_record_appears_with_the_change_set_of_its_transaction(self, store: Store) -> None:
        store.put_record(Record("draft", "changed", "1"))
        store.put_record(Record("draft", "removed", "1"))

        def write(transaction: Transaction) -> ChangeSet:
            assert transaction.record("outbox", "new") is None
            new = transaction.put_record(Record("outbox", "new", "1", NOW, version=9))
            assert new == Record("outbox", "new", "1", NOW, 1) == transaction.record("outbox", "new")
            changed = transaction.put_record(Record("draft", "changed", "2"))
            assert changed.version == 2
            transaction.delete_record("draft", "removed")
            assert transaction.record("draft", "removed") is None
            transaction.delete_record("draft", "absent")
            # Nobody else sees them yet.
            assert store.record("outbox", "new") is None
            assert store.record("draft", "changed") == Record("draft", "changed", "1", None, 1)
            return ChangeSet("shop", ())

        assert store.commit(write) is not None
        assert keys(store.records("draft")) == ["changed"]
        assert store.record("draft", "changed") == Record("draft", "changed", "2", None, 2)
        assert store.due_records("outbox", NOW) == (Record("outbox", "new", "1", NOW, 1),)

    def test_a_transaction_sees_its_own_records_change(self, store: Store) -> None:
        def write(transaction: Transaction) -> ChangeSet:
            assert [transaction.put_record(Record("a", "k", body)).version for body in "xyz"] == [1, 2, 3]
            transaction.delete_record("a", "k")
            assert transaction.put_record(Record("a", "k", "again")).version == 1
            return ChangeSet("shop", ())

        store.commit(write)
        assert store.record("a", "k") == Record("a", "k", "again", None, 1)

    def test_without_its_change_set_a_transaction_leaves_no_record(self, store: Store) -> None:
        put(store, "a", actor="k", request_id="r")
        store.put_record(Record("draft", "kept", "1"))

        def touch(transaction: Transaction) -> None:
            transaction.put_record(Record("draft", "new", "1"))
            transaction.put_record(Record("draft", "kept", "2"))
            transaction.delete_record("draft", "kept")

        def fail(transaction: Transaction) -> None:
            touch(transaction)
            raise LookupError("a plan that failed")

        def repeat(transaction: Transaction) -> ChangeSet:
            touch(transaction)
            return ChangeSet("shop", (), actor="k", request_id="r")

        assert store.commit(touch) is None
        with pytest.raises(LookupError):
            store.commit(fail)
        with pytest.raises(AlreadyExistsError):
            store.commit(repeat)
        assert store.records("draft") == (Record("draft", "kept", "1", None, 1),)
        assert store.revision() == 1
        assert store.put_record(Record("draft", "new", "1"), expected_version=0) is not None

    def test_a_record_does_not_change_under_a_transaction(self, store: Store) -> None:
        store.put_record(Record("counter", "a", "0"))

        def increment(transaction: Transaction) -> ChangeSet:
            stored = transaction.record("counter", "a")
            assert stored is not None
            transaction.put_record(replace(stored, body=str(int(stored.body) + 1)))
            return ChangeSet("shop", ())

        def touch() -> None:
            written = None
            while written is None:
                stored = store.record("counter", "a")
                assert stored is not None
                written = store.put_record(
                    replace(stored, body=str(int(stored.body) + 1)), expected_version=stored.version
                )

        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(store.commit, increment) if n % 2 else pool.submit(touch) for n in range(24)]
            for call in calls:
                call.result(30)
        stored = store.record("counter", "a")
        assert stored is not None
        assert (stored.body, stored.version, store.revision()) == ("24", 25, 12)

    def test_a_transaction_reaches_no_record_after_its_write(self, store: Store) -> None:
        kept: list[Transaction] = []
        store.commit(kept.append)
        calls: list[Callable[[], object]] = [
            lambda: kept[0].record("draft", "a"),
            lambda: kept[0].put_record(Record("draft", "a", "{}")),
            lambda: kept[0].delete_record("draft", "a"),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="has ended"):
                call()
        assert store.record("draft", "a") is None

    def test_a_hint_follows_a_record(self, store: Store) -> None:
        hinted: list[bool] = []
        ready = threading.Event()

        def follow() -> None:
            # The first hint of a thread is spurious: it has seen nothing yet.
            store.wait_hint(0)
            ready.set()
            hinted.append(store.wait_hint(10))

        follower = threading.Thread(target=follow)
        follower.start()
        assert ready.wait(10)
        store.put_record(Record("draft", "a", "{}"))
        follower.join(10)
        assert hinted == [True]

    def test_a_closed_store_refuses_records(self, store: Store) -> None:
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.record("draft", "a"),
            lambda: store.records("draft"),
            lambda: store.due_records("draft", NOW),
            lambda: store.put_record(Record("draft", "a", "{}")),
            lambda: store.delete_record("draft", "a"),
            lambda: store.delete_due_records("draft", NOW),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()
