from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rheostat.document import export_document, format_document
from rheostat.errors import (
    AlreadyExistsError,
    BehindError,
    LimitExceededError,
    NotFoundError,
    RevisionConflictError,
    SettingNotFoundError,
    TypeMismatchError,
    UnavailableError,
)
from rheostat.evaluation import Context, evaluate
from rheostat.model.change import (
    DeleteSetting,
    Mutation,
    PutEnvironment,
    PutProject,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
)
from rheostat.model.key import KeyKind, key_selector, verify_secret
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.plan import Plan
from rheostat.store import open_store
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule
from tests.service.node import NOBODY, PROJECT, Node, World

DEADLINE = 20.0
"""Seconds that a test waits for another thread or process at most."""


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def export(node: Node) -> str:
    return format_document(export_document(node.service.head.state.projects[PROJECT]))


def reached(service: Service, revision: int) -> bool:
    """Wait until the node's own tail has read a revision."""
    while service.head.revision < revision:
        bell = service.hub.bell
        if service.head.revision >= revision:
            break
        service.hub.wait(bell, DEADLINE)
        if service.hub.bell == bell:
            return False
    return True


# Life.


def test_an_empty_store_gets_the_project_default_with_production(node: Node) -> None:
    assert node.revision == 1
    (project,) = node.service.head.state.projects.values()
    assert (project.project.slug, list(project.environments)) == ("default", ["production"])
    first = node.service.change_set(PROJECT, 1)
    assert first.author == "rheostat"


def test_a_store_is_made_once_however_many_nodes_start_on_it(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    barrier = threading.Barrier(4)

    def start() -> Service:
        store = open_store(path)
        barrier.wait(DEADLINE)
        return Service(store).start()

    with ThreadPoolExecutor(4) as pool:
        services = [future.result(DEADLINE) for future in [pool.submit(start) for _ in range(4)]]
    try:
        assert {service.head.revision for service in services} == {1}
        assert {service.head.identity.store_id for service in services} == {
            services[0].head.identity.store_id
        }
    finally:
        for service in services:
            service.close()


def test_a_node_that_is_closed_answers_nothing(world: World) -> None:
    service = Service(world.store, clock=world.clock.now)
    assert not service.ready
    service.close()
    service.close()
    with pytest.raises(UnavailableError):
        service.start()


def test_a_node_is_ready_from_its_start_to_its_drain(node: Node) -> None:
    assert node.service.ready
    node.service.drain()
    node.service.drain()
    assert not node.service.ready
    with pytest.raises(UnavailableError) as caught:
        node.commit(put("a"))
    assert caught.value.reason == "DRAINING"
    assert node.service.head.revision == 1, "reads go on"


# Writing.


def test_a_commit_is_audited_with_who_when_and_why(world: World, node: Node) -> None:
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.USER, project=PROJECT)
    writer = Writer(Principal(key), author="Ada", message="because", request_id="r", payload=b"p" * 32)
    made = node.service.commit(writer, PROJECT, "production", [put("a"), put_rule("a", rule("r"))])
    stored = node.service.change_set(PROJECT, made.revision)
    assert stored == made.change_set
    assert (stored.author, stored.message, stored.actor, stored.request_id) == (
        "Ada",
        "because",
        key.selector,
        "r",
    )
    assert stored.created_at == world.clock.now()
    (change,) = stored.changes
    assert (change.before, change.kind, change.key) == (None, "setting", "a")


def test_a_dry_run_tells_the_plan_and_writes_nothing(node: Node) -> None:
    before = export(node)
    made = node.commit(
        SetFeatures(("region",)), put("a"), put_rule("a", rule("r", 1, equals("x", 1))), dry_run=True
    )
    assert [change.kind for change in made.change_set.changes] == ["project", "setting"]
    assert [warning.code for warning in made.change_set.warnings] == ["UNDECLARED_ATTRIBUTE"]
    assert (made.revision, made.change_set.revision) == (1, 0)
    assert node.world.store.revision() == node.revision == 1
    assert export(node) == before
    with pytest.raises(TypeMismatchError):
        node.commit(put("a", "int", "x"), dry_run=True)


def test_a_change_set_that_changes_nothing_takes_no_revision(node: Node) -> None:
    node.commit(put("a"))
    made = node.commit(put("a"))
    assert (made.revision, made.change_set.changes, made.replayed) == (2, (), False)
    assert node.world.store.revision() == 2


def test_a_check_may_refuse_a_plan(node: Node) -> None:
    def refuse(made: Plan) -> None:
        assert made.environments == ("production",)
        raise NotFoundError("refused")

    with pytest.raises(NotFoundError):
        node.commit(put("a"), check=refuse)
    assert node.world.store.revision() == 1


def test_only_what_is_touched_counts_for_the_expected_revision(world: World, node: Node) -> None:
    node.commit(put("a"), put("b"))
    read = node.revision
    world.node().commit(SetValue("b", 1))
    node.commit(SetValue("a", 1), expected_revision=read)
    with pytest.raises(RevisionConflictError):
        node.commit(SetValue("b", 2), expected_revision=read)
    node.commit(DeleteSetting("a"))
    with pytest.raises(RevisionConflictError) as caught:
        node.commit(put("a"), expected_revision=read)
    assert caught.value.actual == node.revision


def test_a_project_is_made_by_its_first_change_set(node: Node) -> None:
    node.service.commit(NOBODY, "shop", "live", [PutProject("shop"), PutEnvironment("live"), put("a")])
    assert ("shop", "live") in node.service.head.views
    assert node.service.view("shop", "live").snapshot.setting("a") is not None


def writer(request_id: str, payload: bytes = b"1", principal: Principal = OPEN) -> Writer:
    return Writer(principal, request_id=request_id, payload=payload)


def test_a_repeated_request_gets_its_first_answer(node: Node) -> None:
    service = node.service
    first = service.commit(writer("x"), PROJECT, "production", [put("a")])
    node.commit(SetValue("a", 5))
    again = service.commit(writer("x"), PROJECT, "production", [put("a")])
    assert again.replayed
    assert not first.replayed
    assert again.change_set == first.change_set
    assert (again.revision, again.generation) == (first.revision, first.generation)
    assert node.revision == 3
    with pytest.raises(AlreadyExistsError) as caught:
        service.commit(writer("x", b"2"), PROJECT, "production", [put("b")])
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert node.revision == 3


def test_a_request_id_belongs_to_its_key(node: Node) -> None:
    keys = [node.service.create_key(NOBODY, kind=KeyKind.USER, project=PROJECT)[0] for _ in range(2)]
    for value, principal in enumerate([OPEN, *(Principal(key) for key in keys)], 1):
        made = node.service.commit(
            writer("same", bytes(value), principal), PROJECT, "production", [put("a", default=value)]
        )
        assert not made.replayed


def test_a_repeated_request_gets_its_first_answer_after_a_restart_and_from_another_node(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "store.db")
    with Service(open_store(path)) as service, Service(open_store(path)) as other:
        first = service.commit(writer("x"), PROJECT, "production", [put("a")])
        again = other.commit(writer("x"), PROJECT, "production", [put("a")])
        assert (again.replayed, again.revision) == (True, first.revision)
    with Service(open_store(path)) as service:
        again = service.commit(writer("x"), PROJECT, "production", [put("a")])
        assert again.replayed
        assert again.change_set == first.change_set
        with pytest.raises(AlreadyExistsError):
            service.commit(writer("x", b"2"), PROJECT, "production", [put("a")])
        assert service.head.revision == first.revision


def test_a_snapshot_that_would_grow_too_large_is_refused_also_by_small_steps(world: World) -> None:
    node = world.node(limits=Limits(max_snapshot_bytes=4_000))
    node.commit(put_segment("s", equals("x", "y" * 500)))
    written = 0
    with pytest.raises(LimitExceededError) as caught:
        for written in range(20):
            node.commit(put(f"s{written}", description="d" * 300))
    assert caught.value.limit == "max_snapshot_bytes"
    assert 5 < written < 10
    assert node.service.view(PROJECT, "production").size <= 4_000
    with pytest.raises(LimitExceededError):
        node.commit(put_segment("t", equals("x", "y" * 500)))
    node.commit(DeleteSetting("s0"))
    node.commit(put(f"s{written}", description="d" * 300))
    fresh = world.node().service
    assert fresh.view(PROJECT, "production").size == node.service.view(PROJECT, "production").size


# Reverting.


def example(node: Node) -> None:
    node.add_environment("staging")
    node.add_environment("extra")
    node.commit(
        SetFeatures(("region",)),
        put_segment("s", equals("region", "eu")),
        *(
            mutation
            for slug in ("production", "staging")
            for mutation in (
                put("a", default=1, environment=slug),
                put("b", "Json", {"x": [1, 1.0, True]}, environment=slug),
                put_rule("b", rule("r", None, on("a")), environment=slug),
            )
        ),
    )


STEPS: list[list[Mutation]] = [
    [SetValue("a", 5), put_rule("a", rule("q", 3), environment="staging")],
    [RenameSetting("a", "c"), put("new")],
    [PutSetting("b", {"default": 1, "aliases": ("old-b",)}), put_segment("t", equals("region", "us"))],
    [put("only", environment="extra"), put_rule("only", rule("r"), environment="extra")],
    [put_segment("s", equals("region", "de")), DeleteSetting("b", "staging")],
]


def test_each_change_set_is_undone_by_its_revert(node: Node) -> None:
    example(node)
    for step in STEPS:
        before = export(node)
        done = node.commit(*step)
        assert export(node) != before
        undone = node.service.revert(NOBODY, PROJECT, revision=done.revision)
        assert export(node) == before
        assert undone.revision == done.revision + 1
        assert node.service.change_set(PROJECT, undone.revision).reverts == done.revision
        # And forth again.
        node.service.revert(NOBODY, PROJECT, revision=undone.revision)
        assert export(node) != before


def test_everything_after_a_revision_is_undone_at_once(world: World, node: Node) -> None:
    example(node)
    exports = {node.revision: export(node)}
    for step in STEPS:
        node.commit(*step)
        exports[node.revision] = export(node)
    for revision, text in sorted(exports.items(), reverse=True):
        node.service.revert(NOBODY, PROJECT, to_revision=revision)
        assert export(node) == text
        assert export(world.node()) == text, "a fresh node reads the same"
    latest = max(exports)
    node.service.revert(NOBODY, PROJECT, to_revision=latest)
    assert export(node) == exports[latest], "reverts are undone too"


def test_a_revert_of_what_changed_again_is_a_conflict(node: Node) -> None:
    node.commit(put("a"), put("b"))
    done = node.commit(SetValue("a", 1), SetValue("b", 1))
    node.commit(SetValue("b", 2))
    gone = node.commit(DeleteSetting("a"))
    with pytest.raises(RevisionConflictError) as caught:
        node.service.revert(NOBODY, PROJECT, revision=done.revision)
    assert {(c.key, c.revision) for c in caught.value.conflicts} == {("b", 4), ("a", gone.revision)}
    assert node.service.revert(NOBODY, PROJECT, to_revision=done.revision).change_set.changes


def test_a_revert_of_nothing_is_refused_or_empty(node: Node) -> None:
    node.commit(put("a"))
    for target in ({"revision": 99}, {"to_revision": 99}, {"revision": 0}):
        with pytest.raises(NotFoundError) as caught:
            node.service.revert(NOBODY, PROJECT, **target)
        assert caught.value.reason == "REVISION_NOT_FOUND"
    node.service.commit(NOBODY, "shop", "", [PutProject("shop")])
    with pytest.raises(NotFoundError):
        node.service.revert(NOBODY, "shop", revision=2)
    assert node.service.revert(NOBODY, PROJECT, to_revision=node.revision).change_set.changes == ()


def test_a_revert_leaves_keys_alone(node: Node) -> None:
    read = node.commit(put("a")).revision
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    node.commit(SetValue("a", 3))
    node.service.revert(NOBODY, PROJECT, to_revision=read)
    assert key.selector in node.service.head.state.keys


def test_a_revert_never_removes_an_environment_but_empties_it(world: World, node: Node) -> None:
    read = node.revision
    made = node.commit(PutEnvironment("staging"), put("a", environment="staging"), put("b"))
    for target in ({"revision": made.revision}, {"to_revision": read}):
        node.service.revert(NOBODY, PROJECT, **target)
        for service in (node.service, world.node().service):
            environments = service.head.state.projects[PROJECT].environments
            assert {slug: list(entry.settings) for slug, entry in environments.items()} == {
                "production": [],
                "staging": [],
            }
        node.service.revert(NOBODY, PROJECT, revision=node.revision)
        assert list(node.service.view(PROJECT, "staging").snapshot.settings) == ["a"]


def test_a_revert_may_be_limited_to_an_environment(node: Node) -> None:
    example(node)
    done = node.commit(SetValue("a", 5), SetValue("a", 5, "staging"), put_segment("s", equals("region", "x")))
    node.service.revert(NOBODY, PROJECT, revision=done.revision, environment="staging")
    project = node.service.head.state.projects[PROJECT]
    assert project.environments["staging"].settings["a"].base_value == 1
    assert project.environments["production"].settings["a"].base_value == 5
    assert project.segments["s"].condition == equals("region", "x")


def test_a_revert_may_be_tried_first(node: Node) -> None:
    node.commit(put("a"))
    done = node.commit(SetValue("a", 3))
    made = node.service.revert(NOBODY, PROJECT, revision=done.revision, dry_run=True)
    assert [change.key for change in made.change_set.changes] == ["a"]
    assert node.revision == done.revision


def test_a_change_set_survives_in_the_audit_when_history_is_compacted(node: Node) -> None:
    done = node.commit(put("a"))
    node.commit(put("b"))
    node.service.compact(node.revision)
    assert node.service.change_set(PROJECT, done.revision) == done.change_set
    node.service.revert(NOBODY, PROJECT, revision=done.revision)
    assert node.service.view(PROJECT, "production").snapshot.setting("a") is None


# Keys.


def test_a_key_s_text_is_shown_once_and_never_kept(world: World, node: Node) -> None:
    expires_at = world.clock.now() + datetime.timedelta(days=1)
    request = writer("k")
    key, text, made = node.service.create_key(
        request,
        kind=KeyKind.SERVER,
        project=PROJECT,
        environments=("production",),
        declare=False,
        description="ci",
        expires_at=expires_at,
    )
    assert key_selector(text) == key.selector
    assert verify_secret(text, key.verifier)
    stored = node.service.head.state.keys[key.selector]
    assert stored == replace(key, revision=made.revision)
    assert (stored.environments, stored.declare, stored.expires_at) == (("production",), False, expires_at)
    secret = text.split("_")[3]
    assert secret not in repr(world.store.load())
    assert secret not in repr(world.store.change_sets)
    again, nothing, replay = node.service.create_key(request, kind=KeyKind.SERVER, project=PROJECT)
    assert (again.selector, nothing, replay.replayed) == (key.selector, "", True)


def test_a_key_is_revoked_for_good(world: World, node: Node) -> None:
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    assert node.service.key_in_force(Principal(key))
    revoked, made = node.service.revoke_key(NOBODY, key.selector)
    assert revoked.revoked_at == world.clock.now()
    assert not node.service.key_in_force(Principal(key))
    again, second = node.service.revoke_key(NOBODY, key.selector)
    assert (again, second.revision) == (revoked, made.revision)
    with pytest.raises(NotFoundError):
        node.service.revoke_key(NOBODY, "0" * 16)
    other = Principal(replace(key, project="other"))
    with pytest.raises(NotFoundError):
        node.service.revoke_key(Writer(other), key.selector)


def test_a_key_changes_no_environment(node: Node) -> None:
    view = node.service.view(PROJECT, "production")
    node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    assert node.service.view(PROJECT, "production") is view
    assert node.revision == 2


# Reading.


def test_evaluating_what_is_not_there_is_an_error(node: Node) -> None:
    node.commit(put("a", default=3, aliases=("old",)), put_rule("a", rule("r", 4, equals("x", 1))))
    for name in ("a", "old"):
        assert node.service.evaluate(PROJECT, "production", name, Context()).value == 3
        assert node.service.evaluate(PROJECT, "production", name, Context({"x": 1})).value == 4
        assert node.service.explain(PROJECT, "production", name, Context({"x": 1})).evaluation.value == 4
    for method in (node.service.evaluate, node.service.explain):
        with pytest.raises(SettingNotFoundError):
            method(PROJECT, "production", "none", Context())


def test_evaluates_what_was_committed_last_whatever_was_evaluated_before(node: Node) -> None:
    contexts = [Context(), Context({"x": 1}), Context({"x": 2})]
    commits: list[list[Mutation]] = [
        [put_segment("g", equals("x", 1))],
        [put("a"), put_rule("a", rule("r", 1, in_segment("g")))],
        [put("b"), put_rule("b", rule("r", 1, on("a", 1)))],
        [put("c"), put_rule("c", rule("r", 1, equals("x", 1)))],
        [put_segment("g", equals("x", 2))],
        [put_rule("a", rule("r", 2, in_segment("g")))],
        [RenameSetting("a", "d")],
        [put_rule("b", rule("r", 3, on("d", 2)))],
        [put("d", default=2)],
        [DeleteSetting("b")],
        [put("b", default=7)],
    ]
    for mutations in commits:
        node.commit(*mutations)
        view = node.service.view(PROJECT, "production")
        for name in (name for setting in view.snapshot.settings.values() for name in setting.names):
            for context in contexts:
                found = node.service.evaluate(PROJECT, "production", name, context)
                assert found == evaluate(view.snapshot, name, context), (mutations, name, context)


def test_a_view_stays_what_it_was(node: Node) -> None:
    node.commit(put("a"))
    head = node.service.head
    node.commit(SetValue("a", 1), put("b"))
    view = node.service.view(PROJECT, "production", head)
    assert list(view.snapshot.settings) == ["a"]
    assert view.snapshot.settings["a"].base_value == 0
    assert head.revision == 2


def test_reading_waits_for_the_minimum_revision(world: World, node: Node) -> None:
    other = world.node()
    assert node.service.wait_for(0) is node.service.head
    other.commit(put("a"))
    assert node.service.wait_for(2).revision == 2


class Ticking:
    """A monotonic clock that goes on by a second at each reading."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return float(self.readings)


@pytest.mark.parametrize(("timeout", "readings"), [(None, 4), (10.0, 4), (1.0, 2), (0.0, 2)])
def test_reading_waits_three_seconds_at_most(world: World, timeout: float | None, readings: int) -> None:
    clock = Ticking()
    with pytest.MonkeyPatch.context() as patch:
        service = Service(world.store, clock=world.clock.now, monotonic=clock).start()
        patch.setattr(service.hub, "wait", lambda bell, seconds: None)
        start = clock.readings
        with pytest.raises(BehindError) as caught:
            service.wait_for(9, timeout)
    assert caught.value.metadata["revision"] == "1"
    assert clock.readings - start == readings
    world.store.wake()
    service.close()


# Several nodes.


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    path = str(tmp_path / "store.db")
    with Service(open_store(path)) as left, Service(open_store(path)) as right:
        yield left, right


def test_nodes_of_one_file_see_each_other_s_commits(pair: tuple[Service, Service]) -> None:
    for i in range(6):
        one, other = pair[i % 2], pair[1 - i % 2]
        made = one.commit(NOBODY, PROJECT, "production", [put(f"s{i}")])
        assert reached(other, made.revision)
        assert other.view(PROJECT, "production").snapshot.setting(f"s{i}") is not None


def test_concurrent_writers_of_two_nodes_lose_nothing(pair: tuple[Service, Service]) -> None:
    pair[0].commit(NOBODY, PROJECT, "production", [put("counter")])

    def count(service: Service) -> None:
        done = 0
        while done < 15:
            head = service.catch_up()
            setting = service.view(PROJECT, "production", head).snapshot.settings["counter"]
            value = setting.base_value
            assert isinstance(value, int)
            try:
                service.commit(
                    NOBODY,
                    PROJECT,
                    "production",
                    [SetValue("counter", value + 1)],
                    expected_revision=head.revision,
                )
                done += 1
            except RevisionConflictError:
                continue

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(count, service) for service in pair * 2]:
            future.result(60)
    head = pair[0].catch_up()
    assert pair[0].view(PROJECT, "production", head).snapshot.settings["counter"].base_value == 60
    assert head.revision == 62


def test_a_new_generation_reaches_the_other_nodes(pair: tuple[Service, Service]) -> None:
    left, right = pair
    left.raise_generation(4)
    assert left.head.identity.generation == 5
    right.catch_up()
    assert right.head.identity == left.head.identity
    made = right.commit(NOBODY, PROJECT, "production", [put("a")])
    assert made.generation == 5
    assert reached(left, made.revision)


def test_a_node_works_in_the_children_of_its_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.forking", str(tmp_path / "store.db")],
        cwd=Path(__file__).parents[2],
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_tail_goes_on_after_an_error_that_nobody_expected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "store.db")
    with Service(open_store(path)) as service, Service(open_store(path)) as other:
        failed = threading.Event()
        working = service.catch_up

        def broken() -> object:
            monkeypatch.setattr(service, "catch_up", working)
            failed.set()
            raise KeyError("surprise")

        monkeypatch.setattr(service, "catch_up", broken)
        made = other.commit(NOBODY, PROJECT, "production", [put("a")])
        assert failed.wait(DEADLINE)
        assert reached(service, made.revision)
    assert "trying again" in caplog.text


# Compaction.


def test_history_is_kept_for_a_day_and_for_ten_thousand_revisions(world: World) -> None:
    service = world.node().service
    assert (service.keep_revisions, service.keep_seconds) == (10_000, 24 * 3600)


def test_only_what_is_both_old_and_far_back_is_compacted(world: World) -> None:
    node = world.node(keep_revisions=10, keep_seconds=3600.0)
    times = {}
    for i in range(30):
        world.clock.seconds += 60
        times[node.commit(put("a", default=i)).revision] = world.clock.seconds
    newest = node.revision
    assert node.service.compact_old() == 0, "nothing is an hour old"
    world.clock.seconds = times[8] + 3600
    assert node.service.compact_old() == 8, "those after it are younger"
    assert node.service.head.floor == node.service.view(PROJECT, "production").floor == 8
    world.clock.seconds = times[8] + 10 * 365 * 86_400
    assert node.service.compact_old() == newest - 10, "whatever the clock says, so many are kept"
    assert node.service.compact_old() == newest - 10
    # Another process has done it already.
    fresh = world.node(keep_revisions=5, keep_seconds=3600.0)
    assert fresh.service.compact_old() == newest - 5
    assert node.service.head.floor == newest - 10
    assert node.service.compact(newest - 8) == newest - 5
    assert node.service.head.floor == newest - 5
    world.clock.seconds -= 20 * 365 * 86_400
    node.commit(put("a", default=99))
    assert fresh.service.compact_old() == newest - 5, "a clock that goes back compacts nothing"


def test_compaction_never_passes_the_newest_revision(node: Node) -> None:
    node.commit(put("a"))
    assert node.service.compact(99) == 2
    assert node.service.compact(1) == 2
    assert node.service.compact(-5) == 2


class Jumping:
    """A monotonic clock that a test moves, and that tells when it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self._read = threading.Condition()
        self._count = 0

    def __call__(self) -> float:
        with self._read:
            self._count += 1
            self._read.notify_all()
            return self.now


def test_the_tail_compacts_from_time_to_time(tmp_path: Path) -> None:
    now = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    clock = Jumping()
    wall = [now]
    path = str(tmp_path / "store.db")
    store = open_store(path, clock=lambda: wall[0])
    with Service(store, clock=lambda: wall[0], monotonic=clock, keep_revisions=2) as service:
        for i in range(6):
            service.commit(NOBODY, PROJECT, "production", [put("a", default=i)])
        wall[0] += datetime.timedelta(days=2)
        bell = service.hub.bell
        clock.now = 601.0
        # The tail looks at the store every second at least; then it publishes the head with the new floor.
        while service.head.floor == 0:
            service.hub.wait(bell, DEADLINE)
            assert service.hub.bell != bell
            bell = service.hub.bell
        assert service.head.floor == 5
        assert store.load().floor == 5
