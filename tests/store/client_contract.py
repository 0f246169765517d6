"""What every store must do with connected clients: subclass `ClientContract` beside `StoreContract`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rheostat.errors import StoreError
from rheostat.store.base import ClientCount, ClientRow, Store
from tests.store.contract import NOW

SECOND = datetime.timedelta(seconds=1)
LIFE = datetime.timedelta(minutes=3)


def reported(id: str, revision: int = 1, **values: object) -> ClientRow:
    """A client that has reported, with something in each field."""
    row = ClientRow(
        "shop",
        "production",
        id,
        NOW + LIFE,
        name="billing",
        sdk="rheostat-python/0.1.0",
        node="node-1",
        actor="abcd1234abcd1234",
        generation=1,
        revision=revision,
        types=b"\x00\xff" * 16,
        diverged=True,
        error="größer",
        reported_at=NOW,
        lag=0.25,
    )
    return replace(row, **values)  # type: ignore[arg-type]  # each test names fields of a row


def silent(id: str, **values: object) -> ClientRow:
    """A client that is connected and has not reported."""
    row = ClientRow(
        "shop", "production", id, NOW + LIFE, name="cron", sdk="other/2", node="node-2", actor="k"
    )
    return replace(row, **values)  # type: ignore[arg-type]  # each test names fields of a row


def ids(rows: Sequence[ClientRow]) -> list[str]:
    return [row.id for row in rows]


class ClientContract:
    """Tests of clients; each gets a new, empty store."""

    def test_clients_are_read_back_whole_by_id(self, store: Store) -> None:
        east = datetime.timezone(datetime.timedelta(hours=5))
        rows = [
            reported("b", reported_at=NOW.astimezone(east), expires_at=(NOW + LIFE).astimezone(east)),
            silent("c"),
            reported("a", 2**40, lag=None, types=b"", error="", diverged=False),
        ]
        store.put_clients(rows)
        assert store.clients("shop", "production", now=NOW) == (rows[2], rows[0], rows[1])

    def test_a_client_has_a_row_in_each_environment(self, store: Store) -> None:
        rows = [
            reported("a"),
            reported("a", environment="staging"),
            reported("a", project="blog"),
        ]
        store.put_clients(rows)
        for row in rows:
            assert store.clients(row.project, row.environment, now=NOW) == (row,)
        assert store.clients("blog", "staging", now=NOW) == ()
        assert store.clients("shop", "", now=NOW) == ()

    def test_to_write_no_rows_is_nothing(self, store: Store) -> None:
        store.put_clients([])
        assert store.clients("shop", "production", now=NOW) == ()

    def test_of_two_rows_of_a_client_in_one_go_the_last_stays(self, store: Store) -> None:
        store.put_clients([reported("a", 1), reported("a", 2)])
        assert store.clients("shop", "production", now=NOW) == (reported("a", 2),)
        store.put_clients([reported("a", 3), silent("a")])
        (row,) = store.clients("shop", "production", now=NOW)
        assert (row.revision, row.node) == (3, "node-2")

    def test_a_report_replaces_the_row_whole(self, store: Store) -> None:
        store.put_clients([reported("a")])
        later = ClientRow("shop", "production", "a", NOW + SECOND, reported_at=NOW + SECOND)
        store.put_clients([later])
        assert store.clients("shop", "production", now=NOW) == (later,)

    def test_a_silent_row_takes_nothing_away_from_a_report(self, store: Store) -> None:
        before = reported("a", 7)
        store.put_clients([before])
        # A silent client may say something all the same; what it reported before is what counts.
        store.put_clients([silent("a", revision=99, generation=9, lag=5.0, error="no")])
        assert store.clients("shop", "production", now=NOW) == (
            replace(before, name="cron", sdk="other/2", node="node-2", actor="k"),
        )

    def test_a_silent_row_only_lengthens_the_life_of_a_report(self, store: Store) -> None:
        store.put_clients([reported("a"), reported("b")])
        store.put_clients([silent("a", expires_at=NOW + SECOND), silent("b", expires_at=NOW + 2 * LIFE)])
        rows = store.clients("shop", "production", now=NOW)
        assert [row.expires_at for row in rows] == [NOW + LIFE, NOW + 2 * LIFE]

    def test_a_row_that_declares_nothing_leaves_the_types_unless_it_is_a_report(self, store: Store) -> None:
        for declared in (silent("a", types=b"t"), reported("a", types=b"u"), silent("a", types=b"v")):
            store.put_clients([declared])
            assert store.client_types("shop", now=NOW) == (("production", declared.types),)
            store.put_clients([silent("a")])
            assert store.client_types("shop", now=NOW) == (("production", declared.types),)
        store.put_clients([reported("a", types=b"")])
        assert store.client_types("shop", now=NOW) == ()

    def test_a_client_that_has_gone_to_another_node_lives_on(self, store: Store) -> None:
        store.put_clients([reported("a"), silent("a", node="node-2")])
        store.end_clients([("shop", "production", "a")], "node-1", NOW)
        assert ids(store.clients("shop", "production", now=NOW)) == ["a"]
        store.end_clients([("shop", "production", "a")], "node-2", NOW)
        assert ids(store.clients("shop", "production", now=NOW)) == []

    def test_a_silent_row_replaces_a_silent_one_and_a_report_follows_both(self, store: Store) -> None:
        store.put_clients([silent("a")])
        shorter = silent("a", expires_at=NOW + SECOND, types=b"t", node="node-3")
        store.put_clients([shorter])
        assert store.clients("shop", "production", now=NOW) == (shorter,)
        store.put_clients([reported("a")])
        assert store.clients("shop", "production", now=NOW) == (reported("a"),)

    def test_a_client_that_has_gone_lives_on_for_a_shorter_time_only(self, store: Store) -> None:
        store.put_clients([reported("a"), reported("b"), reported("a", environment="staging")])
        store.end_clients([("shop", "production", "a")], "node-1", NOW + SECOND)
        store.end_clients([("shop", "production", "b")], "node-1", NOW + 2 * LIFE)
        store.end_clients([("shop", "production", "absent")], "node-1", NOW + SECOND)
        assert store.clients("shop", "production", now=NOW) == (
            reported("a", expires_at=NOW + SECOND),
            reported("b"),
        )
        assert ids(store.clients("shop", "production", now=NOW + SECOND)) == ["b"]
        assert ids(store.clients("shop", "staging", now=NOW + SECOND)) == ["a"]

    def test_a_life_ends_at_its_instant_and_again_begins_with_a_row(self, store: Store) -> None:
        store.put_clients([reported("a", expires_at=NOW)])
        just_before = NOW - datetime.timedelta(microseconds=1)
        assert ids(store.clients("shop", "production", now=just_before)) == ["a"]
        assert store.clients("shop", "production", now=NOW) == ()
        store.put_clients([silent("a")])
        assert ids(store.clients("shop", "production", now=NOW)) == ["a"]

    def test_expiry_removes_those_whose_life_has_ended(self, store: Store) -> None:
        store.put_clients(
            [
                reported("past", expires_at=NOW - SECOND),
                silent("now", expires_at=NOW),
                reported("now", environment="staging", expires_at=NOW),
                reported("future"),
            ]
        )
        assert store.expire_clients(NOW) == 3
        assert store.expire_clients(NOW) == 0
        assert ids(store.clients("shop", "production", now=NOW - LIFE)) == ["future"]
        assert store.clients("shop", "staging", now=NOW - LIFE) == ()

    def test_finds_those_that_report_and_are_behind_a_position(self, store: Store) -> None:
        positions = {"a": (1, 4), "b": (1, 5), "c": (1, 6), "d": (2, 1), "e": (2, 5), "f": (3, 0)}
        store.put_clients(
            [reported(name, revision, generation=gen) for name, (gen, revision) in positions.items()]
        )
        store.put_clients([silent("silent"), reported("ended", 1, expires_at=NOW)])

        def behind(generation: int, revision: int) -> list[str]:
            return ids(store.clients("shop", "production", now=NOW, behind=(generation, revision)))

        assert behind(1, 5) == ["a"]
        assert behind(1, 6) == ["a", "b"]
        assert behind(2, 1) == ["a", "b", "c"]
        assert behind(2, 5) == ["a", "b", "c", "d"]
        assert behind(3, 1) == list("abcdef")
        assert behind(1, 0) == []

    def test_finds_those_that_declared_a_set_of_types(self, store: Store) -> None:
        store.put_clients(
            [reported("a", types=b"x"), silent("b", types=b"x"), reported("c", types=b"x\x00"), silent("d")]
        )
        assert ids(store.clients("shop", "production", now=NOW, types=b"x")) == ["a", "b"]
        assert ids(store.clients("shop", "production", now=NOW, types=b"")) == ["d"]
        assert ids(store.clients("shop", "production", now=NOW, types=b"x", behind=(1, 9))) == ["a"]

    def test_clients_come_in_pages_by_id(self, store: Store) -> None:
        names = ["%", "A", "_", "a", "a-1", "a-10", "a-2", "é", "\uffff", "😀"]
        assert names == sorted(names)
        store.put_clients([reported(name) for name in reversed(names)])
        found: list[str] = []
        while page := store.clients("shop", "production", now=NOW, after=found[-1] if found else "", limit=3):
            assert len(page) <= 3
            found.extend(ids(page))
        assert found == names
        assert store.clients("shop", "production", now=NOW, limit=0) == ()

    def test_counts_those_that_report_by_how_far_they_have_got(self, store: Store) -> None:
        def plain(id: str, revision: int, **values: object) -> ClientRow:
            return reported(id, revision, **{"diverged": False, "lag": None, **values})

        assert self._count(store, 1, 1) == ClientCount(0, 0, 0, 0)
        store.put_clients(
            [
                plain("behind", 4, lag=9.0),
                plain("there", 5, lag=1.0),
                plain("ahead", 6, diverged=True),
                plain("older", 9, generation=0, diverged=True, lag=8.0),
                plain("newer", 1, generation=2, lag=3.0),
                plain("ended", 5, expires_at=NOW, diverged=True, lag=7.0),
                plain("elsewhere", 5, environment="staging"),
                silent("silent", generation=1, revision=5, diverged=True, lag=6.0),
                silent("ended-too", expires_at=NOW),
            ]
        )
        assert self._count(store, 1, 5) == ClientCount(5, 3, 2, 1, (1.0, 3.0, 3.0))
        assert self._count(store, 1, 6) == ClientCount(5, 2, 2, 1, (3.0, 3.0, 3.0))
        assert self._count(store, 2, 2) == ClientCount(5, 0, 2, 1)

    @pytest.mark.parametrize(
        ("count", "expected"),
        [
            (1, (1, 1, 1)),
            (2, (1, 2, 2)),
            (3, (2, 3, 3)),
            (4, (2, 4, 4)),
            (99, (50, 99, 99)),
            (100, (50, 99, 100)),
            (101, (51, 100, 101)),
            (200, (100, 198, 200)),
        ],
    )
    def test_the_lags_are_percentiles_by_nearest_rank(
        self, store: Store, count: int, expected: tuple[float, float, float]
    ) -> None:
        # In another order than that of the ids.
        lags = [float((number * 7919) % count + 1) for number in range(count)]
        assert len(set(lags)) == count
        store.put_clients([reported(f"c{number}", lag=lag) for number, lag in enumerate(lags)])
        store.put_clients([reported("unknown", lag=None), reported("behind", 0, lag=1000.0)])
        assert self._count(store, 1, 1).lags == expected

    def test_tells_the_sets_of_types_in_use(self, store: Store) -> None:
        store.put_clients(
            [
                reported("a", types=b"x"),
                reported("b", types=b"x"),
                silent("c", types=b"y"),
                silent("d"),
                reported("e", types=b"ended", expires_at=NOW),
                reported("f", environment="staging", types=b"x"),
                reported("g", project="blog", types=b"z"),
            ]
        )
        assert sorted(store.client_types("shop", now=NOW)) == [
            ("production", b"x"),
            ("production", b"y"),
            ("staging", b"x"),
        ]
        assert store.client_types("none", now=NOW) == ()

    def test_concurrent_batches_lose_no_client(self, store: Store) -> None:
        def write(batch: int) -> None:
            store.put_clients([reported(f"{batch}-{number}") for number in range(20)])
            store.put_clients([silent("shared", node=str(batch))])
            store.end_clients([("shop", "production", f"{batch}-0")], "node-1", NOW)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(8)))
        assert self._count(store, 1, 1) == ClientCount(152, 152, 152, 1, (0.25, 0.25, 0.25))
        assert store.expire_clients(NOW) == 8

    def test_ten_thousand_clients_are_counted_and_the_laggards_named(self, store: Store) -> None:
        rows = [
            reported(f"c{number:05}", 5 - (number % 1000 == 0), lag=float(number), diverged=False)
            for number in range(10_000)
        ]
        store.put_clients(rows)
        assert self._count(store, 1, 5) == ClientCount(10_000, 9_990, 0, 0, (4999.0, 9900.0, 9999.0))
        laggards = store.clients("shop", "production", now=NOW, behind=(1, 5))
        assert ids(laggards) == [f"c{number:05}" for number in range(0, 10_000, 1000)]
        assert store.client_types("shop", now=NOW) == (("production", rows[0].types),)
        assert store.expire_clients(NOW + LIFE) == 10_000

    def test_clients_are_no_part_of_the_history(self, store: Store) -> None:
        before = store.load()
        store.put_clients([reported("a")])
        store.end_clients([("shop", "production", "a")], "node-1", NOW)
        store.expire_clients(NOW)
        assert store.load() == before

    def test_refuses_an_instant_of_a_client_without_a_time_zone(self, store: Store) -> None:
        naive = NOW.replace(tzinfo=None)
        calls: list[Callable[[], object]] = [
            lambda: store.put_clients([reported("a"), reported("b", expires_at=naive)]),
            lambda: store.put_clients([reported("a"), reported("b", reported_at=naive)]),
            lambda: store.end_clients([("shop", "production", "a")], "node-1", naive),
            lambda: store.clients("shop", "production", now=naive),
            lambda: store.count_clients("shop", "production", now=naive, generation=1, revision=1),
            lambda: store.client_types("shop", now=naive),
            lambda: store.expire_clients(naive),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="time zone"):
                call()
        assert store.clients("shop", "production", now=NOW) == ()

    def test_a_closed_store_refuses_clients(self, store: Store) -> None:
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.put_clients([reported("a")]),
            lambda: store.end_clients([("shop", "production", "a")], "node-1", NOW),
            lambda: store.clients("shop", "production", now=NOW),
            lambda: self._count(store, 1, 1),
            lambda: store.client_types("shop", now=NOW),
            lambda: store.expire_clients(NOW),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    def _count(self, store: Store, generation: int, revision: int) -> ClientCount:
        return store.count_clients("shop", "production", now=NOW, generation=generation, revision=revision)
