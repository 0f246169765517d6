"""What every store must do: subclass `StoreContract` and say how to open one."""

from __future__ import annotations

import datetime
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from rheostat.errors import AlreadyExistsError, RevisionCompactedError, StoreError
from rheostat.model.change import Change, ChangeSet, Environment, Item, PlanWarning, Project
from rheostat.model.condition import Attribute as AttributeOperand
from rheostat.model.condition import Comparison, Literal, Operator
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind
from rheostat.model.rule import Distribution, Rule, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.type import parse_type
from rheostat.model.value import FrozenMapping, freeze
from rheostat.store.base import Contents, Store, Transaction
from rheostat.store.generation import GENERATION_KIND, LOST, Beginning, beginnings_in

NOW = datetime.datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=datetime.UTC)

Address = tuple[str, str, str, str]


class Clock:
    """Gives a time that only a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime.datetime:
        return self.now


class Randomness:
    """Gives bytes that differ at each call and are the same in each run."""

    def __init__(self) -> None:
        self._calls = itertools.count()

    def __call__(self, size: int) -> bytes:
        return hashlib.shake_256(str(next(self._calls)).encode()).digest(size)


def setting(name: str, revision: int, default: object = 1, type_: str = "int") -> Setting:
    return Setting(
        id=f"id-{name}", name=name, type=parse_type(type_), default=freeze(default), revision=revision
    )


def put(
    store: Store,
    name: str,
    default: object = 1,
    *,
    environment: str = "production",
    project: str = "shop",
    request_id: str = "",
    actor: str = "",
    rule_numbers: int = 0,
) -> ChangeSet:
    """Commit one setting."""

    def write(transaction: Transaction) -> ChangeSet:
        item = setting(name, transaction.revision + 1, default)
        return ChangeSet(
            project,
            (Change(project, environment, "setting", name, None, item),),
            message=f"put {name}",
            actor=actor,
            request_id=request_id,
            rule_numbers=rule_numbers,
        )

    written = store.commit(write)
    assert written is not None
    return written


def remove(store: Store, name: str, *, environment: str = "production", project: str = "shop") -> ChangeSet:
    """Commit the removal of one setting."""

    def write(transaction: Transaction) -> ChangeSet:
        before = setting(name, transaction.revision)
        return ChangeSet(project, (Change(project, environment, "setting", name, before, None),))

    written = store.commit(write)
    assert written is not None
    return written


def texts(contents: Contents) -> dict[Address, str]:
    """The stored form of all items."""
    return {
        (stored.project, stored.environment, stored.kind, stored.key): encode_item(stored.item)
        for stored in contents.items
    }


def replayed(change_sets: Sequence[ChangeSet]) -> tuple[dict[Address, str], dict[Address, int]]:
    """The items and the tombstones that *change_sets* lead to, from nothing."""
    items: dict[Address, str] = {}
    tombstones: dict[Address, int] = {}
    for change_set in change_sets:
        for change in change_set.changes:
            address = (change.project, change.environment, change.kind, change.key)
            if change.after is None:
                items.pop(address, None)
                tombstones[address] = change_set.revision
            else:
                items[address] = encode_item(change.after)
                tombstones.pop(address, None)
    return items, tombstones


class StoreContract:
    """Tests of the protocol; each gets a new, empty store."""

    def open(self, clock: Clock, randomness: Randomness) -> Store:
        """Open a new store."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[Store]:
        opened = self.open(clock, Randomness())
        yield opened
        opened.close()

    def test_a_new_store_is_empty_and_has_a_random_identity(self, store: Store) -> None:
        contents = store.load()
        assert (contents.revision, contents.floor, contents.rule_number) == (0, 0, 0)
        assert (contents.items, contents.tombstones, contents.touched) == ((), (), ())
        identity = contents.identity
        assert identity.generation == 1
        lengths = (len(identity.store_id), len(identity.nonce), len(identity.token_key))
        assert lengths == (16, 8, 32)
        assert len({identity.store_id[:8], identity.nonce, identity.token_key[:8]}) == 3
        assert store.identity() == identity
        assert store.revision() == 0
        assert store.read_since(0) == ()

    def test_a_change_set_gets_its_revision_generation_and_time_and_is_read_back_whole(
        self, store: Store, clock: Clock
    ) -> None:
        put(store, "first")
        clock.now = NOW.astimezone(datetime.timezone(datetime.timedelta(hours=5)))
        context = freeze({"user": {"id": "u1"}, "n": 1.5})
        assert isinstance(context, FrozenMapping)

        def write(transaction: Transaction) -> ChangeSet:
            assert transaction.revision == 1
            assert transaction.identity == store.identity()
            return ChangeSet(
                "shop",
                (
                    Change("shop", "", "project", "shop", None, Project("shop", "Shop", revision=2)),
                    Change("shop", "production", "setting", "first", setting("first", 1), None),
                ),
                author="Ada",
                message="größer\nand \x00 better",
                actor="abcd1234abcd1234",
                request_id="r-1",
                payload_digest=bytes(range(32)),
                rule_numbers=3,
                reverts=1,
                warnings=(
                    PlanWarning("UNREACHABLE_RULE", "the rule is never reached", 2, context),
                    PlanWarning("OTHER", "else"),
                ),
                draft="d-1",
                approved_by=("abcd1234abcd1234", "0000000000000000"),
                forced_clients=("größer", 'a"b', ""),
            )

        written = store.commit(write)
        assert written is not None
        assert (written.revision, written.generation, written.created_at) == (2, 1, NOW)
        assert store.change_set(2) == written
        assert store.read_since(1) == (written,)
        assert store.newest() == (store.identity(), 2)
        assert store.history(project="shop")[0] == written
        assert store.change_set(3) is None
        assert store.change_set(0) is None
        assert store.load().rule_number == 3

    def test_a_write_that_returns_none_takes_no_revision(self, store: Store) -> None:
        put(store, "a")
        assert store.commit(lambda _: None) is None
        assert store.revision() == 1
        assert put(store, "b").revision == 2

    def test_an_exception_in_a_write_leaves_nothing_and_reaches_the_caller(self, store: Store) -> None:
        put(store, "a")
        before = store.load()

        def write(transaction: Transaction) -> ChangeSet:
            transaction.since(0)
            raise LookupError("a plan that failed")

        with pytest.raises(LookupError, match="a plan that failed"):
            store.commit(write)
        assert store.load() == before
        assert put(store, "b").revision == 2

    def test_a_write_may_read_the_store(self, store: Store) -> None:
        put(store, "a")

        def write(transaction: Transaction) -> ChangeSet:
            assert store.load().revision == transaction.revision == store.revision()
            return ChangeSet("shop", ())

        written = store.commit(write)
        assert written is not None
        assert written.revision == 2

    def test_refuses_items_that_carry_another_revision(self, store: Store) -> None:
        stale = ChangeSet("shop", (Change("shop", "production", "setting", "a", None, setting("a", 7)),))
        with pytest.raises(ValueError, match="'a' carries revision 7"):
            store.commit(lambda _: stale)
        assert store.revision() == 0

    def test_a_transaction_is_useless_after_its_write(self, store: Store) -> None:
        kept: list[Transaction] = []
        store.commit(kept.append)
        with pytest.raises(StoreError, match="has ended"):
            kept[0].since(0)

    def test_finds_a_change_set_by_its_actor_and_request_id(self, store: Store) -> None:
        written = put(store, "a", actor="k1", request_id="r1")
        put(store, "b", actor="k2", request_id="r1")
        put(store, "c")
        found: list[ChangeSet | None] = []

        def write(transaction: Transaction) -> None:
            requests = [("k1", "r1"), ("k1", "r2"), ("", "r1"), ("", "")]
            found.extend(transaction.find_request(actor, request) for actor, request in requests)

        store.commit(write)
        assert found == [written, None, None, None]

    def test_refuses_a_request_id_that_its_actor_has_used(self, store: Store) -> None:
        put(store, "a", actor="k1", request_id="r1")
        with pytest.raises(AlreadyExistsError, match="'r1'"):
            put(store, "b", actor="k1", request_id="r1")
        assert store.revision() == 1
        assert [stored.key for stored in store.load().items] == ["a"]
        assert put(store, "b", actor="k1", request_id="r2").revision == 2

    def test_change_sets_without_a_request_id_never_collide(self, store: Store) -> None:
        assert [put(store, name, actor="k1").revision for name in "abc"] == [1, 2, 3]

    def test_rule_numbers_add_up(self, store: Store) -> None:
        put(store, "a", rule_numbers=2)
        put(store, "b")
        put(store, "c", rule_numbers=3)
        seen: list[int] = []
        store.commit(lambda transaction: seen.append(transaction.rule_number))
        assert seen == [5]

    def test_reads_since_a_revision_oldest_first_and_at_most_the_limit(self, store: Store) -> None:
        written = [put(store, f"s{number}") for number in range(5)]
        assert store.read_since(0) == tuple(written)
        assert store.read_since(2) == tuple(written[2:])
        assert store.read_since(1, limit=2) == tuple(written[1:3])
        assert store.read_since(5) == ()
        assert store.read_since(99) == ()

    def test_a_transaction_reads_all_of_the_committed_history(self, store: Store) -> None:
        written = [put(store, f"s{number}") for number in range(3)]
        seen: list[Sequence[ChangeSet]] = []
        store.commit(lambda transaction: seen.extend([transaction.since(0), transaction.since(2)]))
        assert seen == [tuple(written), tuple(written[2:])]

    def test_concurrent_writers_leave_no_gap_and_lose_nothing(self, store: Store) -> None:
        def write(writer: int) -> list[int]:
            return [put(store, f"w{writer}.{number}").revision for number in range(12)]

        with ThreadPoolExecutor(4) as pool:
            revisions = [revision for made in pool.map(write, range(4)) for revision in made]
        assert sorted(revisions) == list(range(1, 49))
        assert [change_set.revision for change_set in store.read_since(0)] == list(range(1, 49))
        assert len(store.load().items) == 48

    def test_a_compare_and_set_in_the_transaction_loses_no_update(self, store: Store) -> None:
        put(store, "counter", 0)

        def increment(transaction: Transaction) -> ChangeSet:
            (*_, newest) = transaction.since(0)
            before = newest.changes[0].after
            assert isinstance(before, Setting)
            assert isinstance(before.default, int)
            after = replace(before, default=before.default + 1, revision=transaction.revision + 1)
            return ChangeSet("shop", (Change("shop", "production", "setting", "counter", before, after),))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.commit(increment), range(24)))
        (stored,) = store.load().items
        assert isinstance(stored.item, Setting)
        assert stored.item.default == 24

    def test_readers_see_whole_change_sets_while_others_write(self, store: Store) -> None:
        done = threading.Event()

        def write_pairs() -> None:
            for number in range(40):

                def write(transaction: Transaction, number: int = number) -> ChangeSet:
                    revision = transaction.revision + 1
                    return ChangeSet(
                        "shop",
                        tuple(
                            Change("shop", "production", "setting", k, None, setting(k, revision, number))
                            for k in ("left", "right")
                        ),
                    )

                store.commit(write)
            done.set()

        writer = threading.Thread(target=write_pairs)
        writer.start()
        finished = False
        while not finished:
            # Asked before the read, so that there is at least one read of the end.
            finished = done.is_set()
            contents = store.load()
            defaults = {stored.item.default for stored in contents.items if isinstance(stored.item, Setting)}
            assert len(defaults) <= 1
            assert all(stored.item.revision == contents.revision for stored in contents.items)
        writer.join()
        assert contents.revision == 40

    def test_an_item_that_is_removed_leaves_a_tombstone_until_it_is_made_again(self, store: Store) -> None:
        put(store, "a")
        remove(store, "a")
        contents = store.load()
        assert contents.items == ()
        (tombstone,) = contents.tombstones
        assert (tombstone.key, tombstone.environment, tombstone.revision) == ("a", "production", 2)
        put(store, "a")
        contents = store.load()
        assert contents.tombstones == ()
        assert [stored.key for stored in contents.items] == ["a"]

    def test_the_same_key_in_another_environment_is_another_item(self, store: Store) -> None:
        put(store, "a", 1)
        put(store, "a", 2, environment="staging")
        put(store, "a", 3, project="blog")
        remove(store, "a")
        assert {(s.project, s.environment) for s in store.load().items} == {
            ("shop", "staging"),
            ("blog", "production"),
        }

    def test_compaction_raises_the_floor_and_drops_the_tombstones_below(self, store: Store) -> None:
        for name in ("a", "b"):
            put(store, name)
        remove(store, "a")
        remove(store, "b")
        put(store, "c")
        assert store.compact(3) == 3
        contents = store.load()
        assert contents.floor == 3
        assert [tombstone.key for tombstone in contents.tombstones] == ["b"]
        assert contents.touched == (
            (4, (("shop", "production", "setting", "b"),)),
            (5, (("shop", "production", "setting", "c"),)),
        )
        assert [change_set.revision for change_set in store.read_since(3)] == [4, 5]
        with pytest.raises(RevisionCompactedError) as caught:
            store.read_since(2)
        assert caught.value.floor == 3

        def write(transaction: Transaction) -> None:
            transaction.since(2)

        with pytest.raises(RevisionCompactedError):
            store.commit(write)

    def test_the_floor_never_falls_and_never_passes_the_newest_revision(self, store: Store) -> None:
        for name in "abc":
            put(store, name)
        assert store.compact(2) == 2
        assert store.compact(1) == 2
        assert store.compact(99) == 3
        assert store.load().touched == ()
        assert store.read_since(3) == ()
        assert put(store, "d").revision == 4
        assert [change_set.revision for change_set in store.read_since(3)] == [4]

    def test_compaction_leaves_the_audit_history_alone(self, store: Store) -> None:
        written = [put(store, name, actor="k", request_id=name) for name in "abc"]
        store.compact(3)
        assert store.history(project="shop") == tuple(reversed(written))
        assert store.change_set(1) == written[0]
        found: list[ChangeSet | None] = []
        store.commit(lambda transaction: found.append(transaction.find_request("k", "a")))
        assert found == [written[0]]

    def test_history_is_newest_first_and_filtered(self, store: Store) -> None:
        put(store, "a")  # 1
        put(store, "a", environment="staging")  # 2
        put(store, "b")  # 3
        put(store, "a", 2)  # 4
        put(store, "a", project="blog")  # 5

        def write(transaction: Transaction) -> ChangeSet:
            segment = Segment(
                "beta",
                Comparison(AttributeOperand("user.beta"), Operator.EQUALS, Literal(True)),
                revision=transaction.revision + 1,
            )
            return ChangeSet("shop", (Change("shop", "", "segment", "beta", None, segment),))

        store.commit(write)  # 6
        found = functools.partial(_revisions, store)
        assert found(project="shop") == [6, 4, 3, 2, 1]
        assert found(project="blog") == [5]
        assert found(project="none") == []
        assert found(project="shop", limit=2) == [6, 4]
        assert found(project="shop", before=4) == [3, 2, 1]
        assert found(project="shop", before=4, limit=1) == [3]
        assert found(project="shop", environment="production") == [6, 4, 3, 1]
        assert found(project="shop", environment="staging") == [6, 2]
        assert found(project="shop", kind="setting", key="a") == [4, 2, 1]
        assert found(project="shop", kind="setting", key="a", environment="production") == [4, 1]
        assert found(project="shop", kind="setting", key="a", before=4) == [2, 1]
        assert found(project="shop", kind="segment", key="beta", environment="staging") == [6]
        assert found(project="shop", kind="segment", key="a") == []
        assert found(project="shop", kind="segment") == [6]
        assert found(project="shop", kind="setting", environment="staging") == [2]
        assert found(project="shop", kind="setting", limit=2) == [4, 3]

    def test_history_is_filtered_by_who_wrote_and_when(self, store: Store) -> None:
        written = [put(store, "a", value, actor=actor) for value, actor in enumerate(["k", "l", "k", ""])]
        found = functools.partial(_revisions, store, project="shop")
        assert found(actor="k") == [3, 1]
        assert found(actor="") == [4]
        assert found(actor="k", before=3) == [1]
        assert found(actor="m") == []
        store.commit(lambda transaction: _authored(transaction, "Ada"))
        store.commit(lambda transaction: _authored(transaction, "ada"))
        assert found(author="Ada") == [5]
        assert found(author="Ada", kind="setting", key="a") == [5]
        assert found(author="Ada", actor="k") == []
        instants = [change_set.created_at for change_set in written]
        for since in (None, *instants):
            for until in (None, *instants):
                kept = [
                    change_set.revision
                    for change_set in reversed(store.history(project="shop"))
                    if (since is None or change_set.created_at >= since)  # type: ignore[operator]
                    and (until is None or change_set.created_at < until)  # type: ignore[operator]
                ]
                assert found(since=since, until=until) == kept[::-1]
        # Another zone's form of the same instant is the same.
        second = instants[1]
        assert second is not None
        zone = datetime.timezone(datetime.timedelta(hours=-5))
        assert found(since=second.astimezone(zone)) == found(since=second)
        with pytest.raises(ValueError, match="no time zone"):
            store.history(project="shop", since=datetime.datetime(2026, 1, 1))  # noqa: DTZ001 - refused

    def test_a_raised_generation_is_above_both_and_has_a_new_nonce(self, store: Store, clock: Clock) -> None:
        first = store.identity()
        second = store.raise_generation(0)
        assert second.generation == 2
        assert second.nonce != first.nonce
        assert (second.store_id, second.token_key) == (first.store_id, first.token_key)
        put(store, "a")
        clock.now += datetime.timedelta(hours=1)
        third = store.raise_generation(9, "because")
        assert third.generation == 10
        assert third.nonce != second.nonce
        assert store.identity() == third == store.load().identity
        assert store.newest() == (third, 1)
        assert put(store, "b").generation == 10
        assert beginnings_in(store.records(GENERATION_KIND)) == (
            Beginning(2, NOW, 0, LOST),
            Beginning(10, clock.now, 1, "because"),
        )

    def test_every_kind_of_item_is_read_back_equal(self, store: Store) -> None:
        items: list[tuple[str, str, str, Item]] = [
            ("", "project", "shop", Project("shop", "Shop", "d", ("region", "user.plan"), 1)),
            ("", "environment", "production", Environment("production", "P", "", True, 1)),
            (
                "",
                "segment",
                "beta",
                Segment("beta", Comparison(AttributeOperand("n"), Operator.LESS_THAN, Literal(1.0)), "x", 1),
            ),
            (
                "",
                "key",
                "a" * 16,
                Key("a" * 16, KeyKind.SERVER, bytes(32), "shop", created_at=NOW, revision=1),
            ),
            (
                "production",
                "setting",
                "json",
                setting("json", 1, {"b": [1, 1.0, None], "a": "ü\x00"}, "Json"),
            ),
            (
                "production",
                "setting",
                "split",
                replace(
                    setting("split", 1, 1.0, "float"),
                    value=2.5,
                    rules=(
                        Rule(
                            "r1",
                            Distribution(
                                "user.id", "s", (Variant("a", 40_000, 0.0), Variant("b", 60_000, 1.0))
                            ),
                            number=1,
                        ),
                    ),
                ),
            ),
        ]
        changes = tuple(Change("shop", env, kind, key, None, item) for env, kind, key, item in items)
        store.commit(lambda _: ChangeSet("shop", changes, rule_numbers=1))
        loaded = texts(store.load())
        assert loaded == {("shop", env, kind, key): encode_item(item) for env, kind, key, item in items}
        assert {change.key: change.after for change in store.read_since(0)[0].changes} == {
            key: item for _, _, key, item in items
        }

    def test_a_hint_follows_a_commit(self, store: Store) -> None:
        while store.wait_hint(0):
            pass
        assert not store.wait_hint(0.02)
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
        put(store, "a")
        follower.join(10)
        assert hinted == [True]

    def test_closing_wakes_a_waiting_thread(self, store: Store) -> None:
        woken: list[bool] = []
        ready = threading.Event()

        def follow() -> None:
            store.wait_hint(0)
            ready.set()
            woken.append(store.wait_hint(60))

        follower = threading.Thread(target=follow)
        follower.start()
        assert ready.wait(10)
        store.close()
        follower.join(10)
        assert woken == [False]

    def test_a_closed_store_refuses_everything(self, store: Store) -> None:
        put(store, "a")
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            store.load,
            store.identity,
            store.revision,
            store.newest,
            lambda: store.commit(lambda _: None),
            lambda: store.read_since(0),
            lambda: store.change_set(1),
            lambda: store.history(project="shop"),
            lambda: store.raise_generation(1),
            lambda: store.compact(1),
            lambda: store.wait_hint(0),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    def test_what_is_loaded_is_the_replay_of_the_history(self) -> None:
        opened: list[Store] = []

        def machine() -> _Replay:
            opened.append(self.open(Clock(), Randomness()))
            return _Replay(opened[-1])

        run_state_machine_as_test(
            machine,  # type: ignore[arg-type]  # any maker of machines will do, says its documentation
            settings=settings(
                max_examples=15,
                stateful_step_count=12,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
        assert opened


def _authored(transaction: Transaction, author: str) -> ChangeSet:
    item = setting("a", transaction.revision + 1, transaction.revision)
    return ChangeSet("shop", (Change("shop", "production", "setting", "a", None, item),), author=author)


def _revisions(store: Store, **filters: object) -> list[int]:
    return [change_set.revision for change_set in store.history(**filters)]  # type: ignore[arg-type]


_addresses = st.tuples(st.sampled_from(["", "production", "staging"]), st.sampled_from(["a", "b", "c"]))
_defaults = st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=4), st.lists(st.booleans(), max_size=2))


class _Replay(RuleBasedStateMachine):
    """Random change-sets, compactions and failures, against the plain replay of what was acknowledged."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.acknowledged: list[ChangeSet] = []
        self.floor = 0

    @rule(edits=st.dictionaries(_addresses, st.one_of(st.none(), _defaults.map(lambda d: (d,))), max_size=4))
    def commit(self, edits: dict[tuple[str, str], tuple[object] | None]) -> None:
        def write(transaction: Transaction) -> ChangeSet:
            assert transaction.revision == len(self.acknowledged)
            revision = transaction.revision + 1
            changes = tuple(
                Change(
                    "shop",
                    environment,
                    "setting",
                    key,
                    None,
                    None if edit is None else setting(key, revision, edit[0], "Json"),
                )
                for (environment, key), edit in edits.items()
            )
            return ChangeSet("shop", changes, rule_numbers=len(edits))

        written = self.store.commit(write)
        assert written is not None
        assert written.revision == len(self.acknowledged) + 1
        self.acknowledged.append(written)

    @rule()
    def fail(self) -> None:
        def write(_: Transaction) -> ChangeSet:
            raise KeyError("no")

        with pytest.raises(KeyError):
            self.store.commit(write)

    @rule(back=st.integers(0, 4))
    def compact(self, back: int) -> None:
        self.floor = max(self.floor, len(self.acknowledged) - back)
        assert self.store.compact(self.floor) == self.floor

    @invariant()
    def agrees(self) -> None:
        contents = self.store.load()
        items, tombstones = replayed(self.acknowledged)
        assert texts(contents) == items
        assert {(t.project, t.environment, t.kind, t.key): t.revision for t in contents.tombstones} == {
            address: revision for address, revision in tombstones.items() if revision > self.floor
        }
        assert contents.revision == len(self.acknowledged)
        assert contents.rule_number == sum(c.rule_numbers for c in self.acknowledged)
        assert self.store.read_since(self.floor) == tuple(self.acknowledged[self.floor :])
        assert [revision for revision, _ in contents.touched] == list(
            range(self.floor + 1, len(self.acknowledged) + 1)
        )
        assert self.store.history(project="shop") == tuple(reversed(self.acknowledged))

    def teardown(self) -> None:
        self.store.close()
