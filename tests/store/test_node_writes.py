"""Writers of one node who share a commit: each plans on what the others have written, and nobody is told too soon."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from rheostat.document import export_document, format_document
from rheostat.errors import (
    AlreadyExistsError,
    LimitExceededError,
    RevisionConflictError,
    SettingNotFoundError,
    UnavailableError,
)
from rheostat.model.change import DeleteSetting, Mutation, PutSetting, SetValue
from rheostat.model.state import State
from rheostat.service import Limits, Outcome, Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.plan import Plan
from rheostat.service.watch import WatchOptions
from rheostat.store.base import Store
from rheostat.store.memory import MemoryStore
from rheostat.wire.event import EventEncoder
from tests.postgres import Template
from tests.service.replica import Replica
from tests.store.shared import PATIENCE, Shared, outcome

NOBODY = Writer(OPEN)


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Template, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shared]:
    made = Shared(request.param, tmp_path, postgres, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def node(shared: Shared) -> Iterator[Service]:
    with Service(shared.store, limits=Limits(max_snapshot_bytes=20_000), background=False) as started:
        yield started


def put(name: str, default: str = "") -> PutSetting:
    return PutSetting(name, {"type": "str", "default": default})


def commit(service: Service, *mutations: Mutation, writer: Writer = NOBODY, **options: object) -> Outcome:
    return service.commit(writer, "default", "production", mutations, **options)  # type: ignore[arg-type]


def names(service: Service) -> set[str]:
    return set(service.view("default", "production").snapshot.settings)


def assert_holds_what_is_stored(service: Service, store: Store) -> None:
    """The node has come by its head step by step; another one reads it at once."""
    head, read = service.head, Service(store)._load()
    assert (head.identity, head.revision, head.floor) == (read.identity, read.revision, read.floor)
    assert head.views.keys() == read.views.keys()
    assert {at: view.digest for at, view in head.views.items()} == {
        at: view.digest for at, view in read.views.items()
    }
    exported = [format_document(export_document(each.state.projects["default"])) for each in (head, read)]
    assert exported[0] == exported[1]


class Watcher:
    """A watch on a node, and the replica that checks each of its messages."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.replica = Replica()
        self._session = service.watch(WatchOptions(project="default", environment="production"))
        self.look()

    def look(self) -> int:
        """Apply what there is now; return the revision that it leads to."""
        encoder = EventEncoder(self._service.head.identity.token_key, lambda message: message)
        for event in self._session.step(time.monotonic()).events:
            for message in encoder.encode(event, self._session.whole):
                self.replica.feed(message.SerializeToString())
        return self.replica.at[1]

    @property
    def names(self) -> set[str]:
        return {key for kind, key in self.replica.items if kind == "setting"}


@pytest.mark.parametrize("engine", ["memory", "sqlite", "postgresql"])
def test_writers_who_come_at_once_all_get_their_own_revision_and_watchers_see_them_in_order(
    engine: str, tmp_path: Path, postgres: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = None if engine == "memory" else Shared(engine, tmp_path, postgres, monkeypatch)
    store: Store = MemoryStore() if made is None else made.store
    together = threading.Barrier(8)
    published: list[tuple[int, int]] = []
    with Service(store, background=False) as service:

        def note() -> None:
            # In this order: what is seen has to be durable already.
            seen = service.head.revision
            published.append((seen, store.revision()))

        service.hub.listen(note)
        watcher = Watcher(service)
        begun = service.head.revision

        def write(number: int) -> list[tuple[int, int]]:
            together.wait(PATIENCE)
            outcomes = [commit(service, put(f"w{number}.{step}")) for step in range(5)]
            seen = service.head.revision
            assert all(each.change_set.changes[0].key == f"w{number}.{n}" for n, each in enumerate(outcomes))
            return [(each.revision, seen) for each in outcomes]

        with ThreadPoolExecutor(8) as pool:
            written = [pair for pairs in pool.map(write, range(8)) for pair in pairs]
        # Nobody is answered before the node itself shows it.
        assert all(revision <= seen for revision, seen in written)
        assert sorted(revision for revision, _ in written) == list(range(begun + 1, begun + 41))
        seen = [revision for revision, _ in published]
        assert seen == sorted(seen)
        assert all(revision <= durable for revision, durable in published)
        assert watcher.look() == begun + 40
        assert watcher.names == names(service)
        assert_holds_what_is_stored(service, store)
    if made is not None:
        made.close()


def test_each_plans_on_what_those_of_its_commit_have_written_before_it(shared: Shared, node: Service) -> None:
    commits: list[None] = []

    def fail(state: State, revision: int) -> Plan:
        raise LookupError("a plan that failed")

    def count(commit: Callable[[], None]) -> None:
        commit()
        commits.append(None)

    def as_request(payload: bytes, *mutations: Mutation, request_id: str = "r") -> Outcome:
        return commit(node, *mutations, writer=Writer(OPEN, request_id=request_id, payload=payload))

    begun = as_request(b"0", put("old", "1"), request_id="before \x00").revision
    assert as_request(b"0", put("older"), request_id="before").revision == begun + 1
    begun += 1

    works: list[Callable[[], Outcome]] = [
        lambda: commit(node, put("a", "1")),
        lambda: commit(node, SetValue("a", "2")),
        lambda: node.write(NOBODY, fail),
        lambda: commit(node, SetValue("a", "3"), expected_revision=begun),
        lambda: commit(node, SetValue("a", "4"), expected_revision=begun + 2),
        lambda: as_request(b"1", put("b")),
        lambda: as_request(b"1", put("b")),
        lambda: as_request(b"2", put("c")),
        lambda: as_request(b"0", put("old", "1"), request_id="before \x00"),
        lambda: as_request(b"0", put("older"), request_id="before"),
        lambda: commit(node, DeleteSetting("old")),
        lambda: commit(node, SetValue("old", "2")),
        lambda: commit(node, put("old", "2"), expected_revision=begun),
        lambda: commit(node, SetValue("a", "4")),
        lambda: commit(node, put("large", "x" * 15_000)),
        lambda: commit(node, put("larger", "x" * 15_000)),
        lambda: node.revert(NOBODY, "default", to_revision=begun + 2),
        lambda: commit(node, put("last")),
    ]
    with shared.committing(count), ThreadPoolExecutor(len(works)) as pool:
        futures = shared.start_together(works, pool)
        outcomes = [outcome(future) for future in futures]
    assert len(commits) == 1
    assert [each.revision - begun if isinstance(each, Outcome) else each for each in outcomes] == [
        1,
        2,
        LookupError,
        RevisionConflictError,
        3,
        4,
        4,
        AlreadyExistsError,
        -1,
        0,
        5,
        SettingNotFoundError,
        # Its removal is newer than what it expects.
        RevisionConflictError,
        # It changes nothing, and is told the newest revision.
        8,
        6,
        LimitExceededError,
        7,
        8,
    ]
    assert [each.replayed for each in outcomes if isinstance(each, Outcome)].count(True) == 3
    assert names(node) == {"a", "old", "older", "last"}
    assert node.view("default", "production").snapshot.settings["a"].base_value == "2"
    assert [each.revision for each in shared.store.read_since(begun)] == list(range(begun + 1, begun + 9))
    assert_holds_what_is_stored(node, shared.store)


def test_nobody_is_shown_a_revision_before_it_is_durable(shared: Shared, node: Service) -> None:
    begun = node.head.revision
    watcher = Watcher(node)
    bell = node.hub.bell
    reached, go_on = threading.Event(), threading.Event()

    def hold(commit: Callable[[], None]) -> None:
        reached.set()
        assert go_on.wait(PATIENCE)
        commit()

    works = [lambda name=name: commit(node, put(name)) for name in "abc"]
    with shared.committing(hold), ThreadPoolExecutor(3) as pool:
        futures = shared.start_together(works, pool)
        assert reached.wait(PATIENCE)
        # Whoever reads is answered meanwhile.
        assert node.catch_up().revision == node.head.revision == begun
        assert node.wait_for(begun).revision == begun
        assert commit(node, put("d"), dry_run=True).revision == begun
        assert (watcher.look(), node.hub.bell) == (begun, bell)
        assert not any(future.done() for future in futures)
        go_on.set()
        assert [future.result(PATIENCE).revision for future in futures] == [begun + n for n in (1, 2, 3)]
    assert watcher.look() == node.head.revision == begun + 3
    assert watcher.names == {"a", "b", "c"}


def fail_together(shared: Shared, works: Sequence[Callable[[], object]]) -> None:
    def fail(commit: Callable[[], None]) -> None:
        raise shared.failure()

    with shared.committing(fail), ThreadPoolExecutor(len(works)) as pool:
        futures: list[Future[object]] = shared.start_together(works, pool)
        assert [outcome(future) for future in futures] == [UnavailableError] * len(works)


def test_a_commit_that_fails_is_forgotten_with_all_that_was_planned_on_it(
    shared: Shared, node: Service
) -> None:
    commit(node, put("kept"))
    begun = commit(node, put("removed")).revision
    watcher = Watcher(node)
    head, bell = node.head, node.hub.bell
    lost: list[Callable[[], object]] = [
        lambda: commit(node, put("lost")),
        lambda: commit(node, DeleteSetting("removed")),
        # One who only reads has seen what is lost, too.
        lambda: commit(node, SetValue("lost", "")),
    ]
    fail_together(shared, lost)
    assert (node.head, node.hub.bell, watcher.look()) == (head, bell, begun)
    # Those who come next make other revisions of the same numbers.
    made = commit(node, SetValue("kept", "2"))
    assert made.revision == begun + 1
    assert watcher.look() == begun + 1
    assert watcher.names == names(node) == {"kept", "removed"}
    assert_holds_what_is_stored(node, shared.store)
    fail_together(shared, lost)
    # The floor moves over logs that had been written too far.
    assert node.compact(begun) == begun
    for number in (2, 3, 4):
        assert commit(node, put(f"after{number}")).revision == begun + number
        assert watcher.look() == begun + number
        assert watcher.replica.last_delta is not None
        assert not watcher.replica.last_delta.coalesced
    assert watcher.names == names(node) == {"kept", "removed", "after2", "after3", "after4"}
    assert_holds_what_is_stored(node, shared.store)


def test_what_the_tail_or_another_node_was_faster_with_is_published_once(
    shared: Shared, node: Service
) -> None:
    with Service(shared.open(), background=False) as other:
        begun = node.head.revision
        watcher = Watcher(node)
        numbers = itertools.count()
        published: list[int] = []
        node.hub.listen(lambda: published.append(node.head.revision))

        def overtake(commit: Callable[[], None]) -> None:
            commit()
            # Durable, and none of its writers knows yet.
            node.catch_up()

        def both() -> None:
            commit(other, put(f"other{next(numbers)}"))
            commit(node, put(f"own{next(numbers)}"))

        with shared.committing(overtake):
            for _ in range(3):
                both()
                assert watcher.look() == node.head.revision
        both()
        assert published == sorted(set(published))
        assert node.compact(begun + 5) == begun + 5
        both()
        assert watcher.look() == begun + 10
        assert watcher.names == names(node)
        assert_holds_what_is_stored(node, shared.store)


def test_a_write_finds_that_its_node_is_on_a_history_that_was_left(shared: Shared, node: Service) -> None:
    begun = commit(node, put("a")).revision
    works: list[Callable[[], object]] = [
        lambda: commit(node, put("b")),
        # As another node does, and in the same transaction.
        lambda: shared.store.raise_generation(6),
        lambda: commit(node, put("c")),
    ]
    with ThreadPoolExecutor(len(works)) as pool:
        futures = shared.start_together(works, pool)
        first, _, second = (future.result(PATIENCE) for future in futures)
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.generation, first.revision) == (1, begun + 1)
    assert (second.generation, second.revision) == (7, begun + 2)
    assert names(node) == {"a", "b", "c"}
    assert_holds_what_is_stored(node, shared.store)
