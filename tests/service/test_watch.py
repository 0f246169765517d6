from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rheo.v1 import watch_pb2
from rheostat.errors import BehindError, PermissionDeniedError, UnavailableError
from rheostat.evaluation.narrow import Narrower
from rheostat.model.change import (
    ChangeSet,
    DeleteSegment,
    DeleteSetting,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
)
from rheostat.model.encoding import decode_item
from rheostat.model.key import KeyKind
from rheostat.model.position import Filter, Position, parse_token, scope_of
from rheostat.model.setting import Setting
from rheostat.service.access import OPEN, Principal
from rheostat.store.base import Contents
from rheostat.wire.event import CHUNK_BYTES, LARGE_DELTA_BYTES
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule
from tests.service.node import NOBODY, PROJECT, Node, Watch, World
from tests.service.replica import digest

DEADLINE = 20.0
"""Seconds that a test waits for another thread at most."""


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.add_environment("staging")
    made.commit(put("a"), put("b"))
    made.commit(SetValue("a", 1))
    return made


def held(node: Node, token: bytes) -> Position:
    found = parse_token(token, node.service.head.identity.token_key)
    assert found is not None
    return found


def position(node: Node, environment: str = "production", **changes: object) -> Position:
    """The node's position, with some parts replaced."""
    made = node.service.head.position(scope_of(PROJECT, environment))
    return replace(made, **changes)  # type: ignore[arg-type]


# The table of tokens, row by row.


def test_no_token_gets_a_snapshot(node: Node) -> None:
    watch = node.watch().opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "NEW")
    assert watch.replica.events == ["hello", "snapshot_begin", "snapshot_chunk", "snapshot_end"]
    watch.check()
    assert watch.replica.at == (1, node.revision)


def test_an_empty_environment_gets_a_snapshot_without_chunks(node: Node) -> None:
    watch = node.watch(environment="staging").opened()
    assert watch.replica.events == ["hello", "snapshot_begin", "snapshot_end"]
    assert watch.replica.items == {}


def test_a_token_that_is_damaged_anywhere_counts_as_none(node: Node) -> None:
    token = node.watch().opened().replica.token
    for damaged in (
        token[:-1],
        token + b"\0",
        b"x",
        bytes([token[0] ^ 1]) + token[1:],
        token[:-1] + bytes([token[-1] ^ 128]),
        position(node).token(b"another key"),
    ):
        watch = node.watch(resume=damaged).opened()
        assert (watch.mode, watch.reason) == ("SNAPSHOT", "INVALID")


def test_a_token_of_another_store_gets_a_snapshot(node: Node) -> None:
    other = position(node, store_id=bytes(16), generation=9, revision=99)
    watch = node.watch(resume=node.token(other)).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "STORE")
    assert node.service.head.identity.generation == 1, "nothing was lost"


def test_a_token_of_an_older_generation_gets_a_snapshot(node: Node) -> None:
    token = node.watch().opened().replica.token
    node.service.raise_generation(1)
    watch = node.watch(resume=token).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "GENERATION")
    assert watch.replica.at == (2, node.revision)


def test_a_token_of_the_same_generation_under_another_nonce_raises_the_generation(node: Node) -> None:
    watch = node.watch(resume=node.token(position(node, nonce=bytes(8)))).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "GENERATION")
    assert watch.replica.at == (2, node.revision)


@pytest.mark.parametrize(
    ("generation", "beyond", "raised"),
    [(1, 1, 2), (5, 0, 6), (5, -1, 6)],
    ids=["revision", "generation", "both"],
)
def test_a_token_ahead_of_the_store_tells_that_history_was_lost(
    node: Node, caplog: pytest.LogCaptureFixture, generation: int, beyond: int, raised: int
) -> None:
    open_before = node.watch().opened()
    ahead = position(node, generation=generation, revision=node.revision + beyond)
    watch = node.watch(resume=node.token(ahead)).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "GENERATION")
    assert watch.replica.at == (raised, node.revision)
    assert "lost" in caplog.text
    watch.check()
    # Streams that are open get to know.
    open_before.step()
    assert open_before.replica.events[-4:] == ["reset", "snapshot_begin", "snapshot_chunk", "snapshot_end"]
    assert _reset(open_before) == "GENERATION"
    assert open_before.replica.at == (raised, node.revision)


def test_a_token_ahead_of_a_node_that_lags_behind_the_store_loses_nothing(world: World, node: Node) -> None:
    lagging = world.node()
    old = node.watch().opened().replica
    node.commit(SetValue("a", 2))
    for options, expected in (
        ({}, ("UP_TO_DATE", "UNSPECIFIED")),
        ({"resnapshot": True}, ("SNAPSHOT", "REQUESTED")),
        ({"environment": "staging"}, ("SNAPSHOT", "SCOPE")),
    ):
        replica = node.watch().opened().replica
        behind = world.node() if not options else lagging
        node.commit(SetValue("a", node.revision))
        node.watch(replica).opened()
        watch = behind.watch(replica, **options).opened()
        assert (watch.mode, watch.reason) == expected
        # The replica itself checks that its position never goes back.
        assert watch.replica.at == (1, node.revision)
        watch.check()
        assert behind.service.head.identity.generation == 1
    watch = lagging.watch(old).opened()
    assert watch.mode == "DELTA"
    watch.check()


def test_a_node_that_has_not_seen_a_new_generation_does_not_raise_another(world: World, node: Node) -> None:
    lagging = world.node()
    node.service.raise_generation(1)
    replica = node.watch().opened().replica
    watch = lagging.watch(replica).opened()
    assert watch.mode == "UP_TO_DATE"
    assert lagging.service.head.identity == node.service.head.identity
    assert lagging.service.head.identity.generation == 2


def test_a_snapshot_that_is_asked_for_comes(node: Node) -> None:
    replica = node.watch().opened().replica
    watch = node.watch(replica, resnapshot=True).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "REQUESTED")


@pytest.mark.parametrize(
    "filter_", [Filter(names=("a",)), Filter(prefixes=("a",))], ids=["names", "prefixes"]
)
def test_a_token_of_another_scope_gets_a_snapshot(node: Node, filter_: Filter) -> None:
    replica = node.watch().opened().replica
    watch = node.watch(replica, filter_=filter_).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "SCOPE")
    assert set(replica.items) == {("setting", "a")}
    watch = node.watch(replica, environment="staging").opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "SCOPE")


def test_a_token_below_the_compaction_floor_gets_a_snapshot_and_one_at_it_a_delta(node: Node) -> None:
    below = node.watch().opened().replica
    node.commit(SetValue("a", 2))
    at = node.watch().opened().replica
    node.commit(SetValue("a", 3))
    assert node.service.compact(node.revision - 1) == node.revision - 1
    watch = node.watch(below).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "COMPACTED")
    watch = node.watch(at).opened()
    assert watch.mode == "DELTA"
    watch.check()


def test_a_token_after_which_nothing_changed_in_its_scope_is_up_to_date(node: Node) -> None:
    replica = node.watch().opened().replica
    node.commit(put("elsewhere"), environment="staging")
    watch = node.watch(replica).opened()
    assert watch.mode == "UP_TO_DATE"
    assert replica.events == ["hello", "bookmark"]
    assert replica.at == (1, node.revision)


def test_otherwise_a_token_gets_a_delta(node: Node) -> None:
    replica = node.watch().opened().replica
    start = node.revision
    node.commit(SetValue("b", 1))
    node.commit(DeleteSetting("b"), put("c"))
    node.commit(SetValue("c", 1))
    watch = node.watch(replica).opened()
    assert watch.mode == "DELTA"
    assert replica.events == ["hello", "delta"]
    delta = replica.last_delta
    assert delta is not None
    assert delta.coalesced
    assert delta.from_revision == start
    assert {(item.key, item.deleted) for item in delta.items} == {("b", True), ("c", False)}
    watch.check()


PRECEDENCE: list[tuple[str, Callable[[Node], Position], str]] = [
    ("STORE", lambda n: position(n, store_id=bytes(16), generation=0), "a foreign store before all else"),
    ("GENERATION", lambda n: position(n, "staging", generation=0, revision=0), "an older generation"),
    ("GENERATION", lambda n: position(n, "staging", nonce=bytes(8), revision=0), "a nonce before a scope"),
    ("GENERATION", lambda n: position(n, "staging", revision=99), "ahead, whatever the scope"),
    ("REQUESTED", lambda n: position(n, "staging", revision=0), "resnapshot before scope and floor"),
]


@pytest.mark.parametrize(("reason", "make", "why"), PRECEDENCE, ids=[row[2] for row in PRECEDENCE])
def test_the_first_row_that_fits_wins(
    node: Node, reason: str, make: Callable[[Node], Position], why: str
) -> None:
    node.service.compact(node.revision)
    watch = node.watch(resume=node.token(make(node)), resnapshot=True).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", reason)
    watch = node.watch(resume=node.token(position(node, "staging", revision=0))).opened()
    assert watch.reason == "SCOPE", "the scope before the floor"
    watch = node.watch(resume=b"bad", resnapshot=True).opened()
    assert watch.reason == "INVALID", "a bad token before resnapshot"
    watch = node.watch(resume=b"", resnapshot=True).opened()
    assert watch.reason == "NEW", "no token before resnapshot"


def test_a_token_outlives_the_node_that_made_it(world: World, node: Node) -> None:
    replica = node.watch().opened().replica
    assert world.node().watch(replica).opened().mode == "UP_TO_DATE"
    node.commit(SetValue("a", 5), DeleteSetting("b"))
    watch = world.node().watch(replica).opened()
    assert watch.mode == "DELTA"
    watch.check()


# Going on.


def test_changes_arrive_one_by_one_for_a_watcher_that_keeps_up(node: Node) -> None:
    watch = node.watch().opened()
    for value in range(5, 8):
        before = node.revision
        node.commit(SetValue("a", value))
        watch.step()
        delta = watch.replica.last_delta
        assert delta is not None
        assert (delta.from_revision, delta.position.revision) == (before, node.revision)
        assert not delta.coalesced
        watch.check()
    assert watch.replica.events[-3:] == ["delta"] * 3


def test_a_watcher_that_lags_gets_one_delta_with_the_tombstones(node: Node) -> None:
    watch = node.watch().opened()
    start = node.revision
    for value in range(5, 300):
        node.commit(SetValue("a", value))
    node.commit(DeleteSetting("b"))
    watch.step()
    delta = watch.replica.last_delta
    assert delta is not None
    assert watch.replica.events[-1] == "delta"
    assert watch.replica.events.count("delta") == 1
    assert delta.coalesced
    assert delta.from_revision == start
    assert [(item.key, item.deleted) for item in delta.items] == [("a", False), ("b", True)]
    watch.check()


def test_an_item_that_came_and_went_meanwhile_is_a_tombstone(node: Node) -> None:
    watch = node.watch().opened()
    node.commit(put("c"))
    node.commit(DeleteSetting("c"))
    watch.step()
    delta = watch.replica.last_delta
    assert delta is not None
    assert [(item.key, item.deleted, item.HasField("setting")) for item in delta.items] == [
        ("c", True, False)
    ]
    watch.check()


def test_a_segment_reaches_every_environment_of_its_project(node: Node) -> None:
    watches = [node.watch(environment=slug).opened() for slug in ("production", "staging")]
    node.commit(put_segment("s", equals("x", 1)))
    for watch in watches:
        watch.step()
        assert ("segment", "s") in watch.replica.items
        watch.check()
    node.commit(DeleteSegment("s"))
    for watch in watches:
        watch.step()
        watch.check()


def test_revisions_that_do_not_touch_the_scope_send_nothing_and_the_next_bookmark_passes_over_them(
    world: World, node: Node
) -> None:
    watch = node.watch().opened()
    node.commit(put("x"), environment="staging")
    node.commit(SetFeatures(("region",)))
    assert watch.step().events == ()
    world.clock.seconds += node.service.heartbeat
    watch.step()
    assert watch.replica.events[-1] == "bookmark"
    assert watch.replica.at == (1, node.revision)
    # The chain of the next delta reaches back to where a watcher without that bookmark stands.
    node.commit(SetValue("a", 7))
    watch.step()
    delta = watch.replica.last_delta
    assert delta is not None
    assert delta.from_revision == node.revision - 3
    watch.check()


def test_a_bookmark_comes_when_nothing_else_has_for_the_time_of_a_heartbeat(world: World) -> None:
    node = world.node(heartbeat=15.0)
    watch = node.watch()
    step = watch.step()
    start = world.clock.seconds
    assert watch.replica.hello is not None
    assert watch.replica.hello.heartbeat.ToTimedelta() == datetime.timedelta(seconds=15)
    assert step.wake_at == start + 15
    world.clock.seconds = start + 14.9
    assert watch.step().events == ()
    world.clock.seconds = start + 15
    step = watch.step()
    assert watch.replica.events[-1] == "bookmark"
    assert step.wake_at == start + 30
    # What is sent anyway puts the next one off.
    world.clock.seconds = start + 20
    node.commit(put("a"))
    assert watch.step().wake_at == start + 35
    bookmark = watch.messages[-2].bookmark
    assert bookmark.origin_time.ToDatetime(datetime.UTC) == world.clock.started + datetime.timedelta(
        seconds=start + 15
    )
    assert not bookmark.HasField("report_within"), "nobody waits for a rollout"


def test_a_stream_ends_within_its_age_and_gets_all_changes_until_then(world: World) -> None:
    node = world.node(max_stream_age=1800.0, heartbeat=15.0)
    watch = node.watch().opened()
    start = world.clock.seconds
    while not watch.replica.went_away:
        assert world.clock.seconds <= start + 1800 * 1.2 + 15
        world.clock.seconds = watch.step().wake_at
    assert watch.replica.went_away == "MAX_AGE"
    # The last step has moved the clock to the end of the grace.
    assert 1800 * 0.8 <= world.clock.seconds - 3 - start <= 1800 * 1.2
    assert not watch.done
    node.commit(put("late"))
    watch.step()
    watch.check()
    assert ("setting", "late") in watch.replica.items
    step = watch.step()
    assert watch.done
    assert step.done
    assert watch.step().events == ()


def test_the_ages_of_streams_differ_by_a_fifth_to_both_sides(world: World) -> None:
    service = world.node(max_stream_age=100.0).service
    ages = [service.stream_age() for _ in range(300)]
    assert 80 <= min(ages) < 85
    assert 115 < max(ages) <= 120


def test_a_draining_node_asks_its_watchers_to_leave_and_takes_no_more(world: World, node: Node) -> None:
    watch = node.watch().opened()
    node.commit(SetValue("a", 9))
    node.service.drain()
    assert node.service.draining
    assert not node.service.ready
    step = watch.step()
    assert watch.replica.events[-2:] == ["delta", "go_away"]
    assert watch.replica.went_away == "DRAIN"
    away = watch.messages[-1].go_away
    assert away.spread.ToTimedelta() == datetime.timedelta(seconds=5)
    assert away.grace.ToTimedelta() == datetime.timedelta(seconds=3)
    assert step.wake_at == world.clock.seconds + 3
    with pytest.raises(UnavailableError) as caught:
        node.watch().step()
    assert caught.value.reason == "DRAINING"
    world.clock.seconds += 3
    assert watch.step().done


def test_the_spread_of_a_drain_grows_with_the_watchers(node: Node) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(node.service.admission), "open", property(lambda _: 4_000))
        assert node.service.drain_spread == 10.0


def test_a_revoked_key_ends_its_streams_at_once(node: Node) -> None:
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    principal, open_ = Principal(key), OPEN
    watch = node.watch(may_go_on=lambda: node.service.key_in_force(principal)).opened()
    other = node.watch(may_go_on=lambda: node.service.key_in_force(open_)).opened()
    bell = node.service.hub.bell
    assert not watch.step().done
    node.service.revoke_key(NOBODY, key.selector)
    assert node.service.hub.bell > bell, "the drivers step at once"
    step = watch.step()
    assert step.done
    assert watch.replica.went_away == "KEY_REVOKED"
    assert not other.step().done


def test_a_key_that_expires_ends_its_streams(world: World, node: Node) -> None:
    expires_at = world.clock.now() + datetime.timedelta(seconds=20)
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT, expires_at=expires_at)
    watch = node.watch(may_go_on=lambda: node.service.key_in_force(Principal(key))).opened()
    world.clock.seconds += 15
    assert not watch.step().done
    world.clock.seconds += 5
    assert watch.step().done


def test_a_key_that_is_rotated_wakes_its_streams_when_it_ends(world: World, node: Node) -> None:
    key, _, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    principal = Principal(key)
    watch = node.watch(
        may_go_on=lambda: node.service.key_in_force(principal),
        ends_by=lambda: node.service.key_ends_at(principal),
    ).opened()
    bell = node.service.hub.bell
    node.service.rotate_key(NOBODY, key.selector, overlap=datetime.timedelta(seconds=5))
    assert node.service.hub.bell > bell, "the drivers step at once"
    step = watch.step()
    assert (step.done, step.wake_at) == (False, world.clock.seconds + 5)
    world.clock.seconds += 5
    assert watch.step().done
    assert watch.replica.went_away == "KEY_REVOKED"


# Waiting.


def test_a_watch_with_a_minimum_revision_waits_for_it(world: World, node: Node) -> None:
    writer = world.node()
    watch = node.watch(min_revision=node.revision + 1)
    start = world.clock.seconds
    step = watch.step()
    assert (step.events, step.wake_at, step.done) == ((), start + 3, False)
    world.clock.seconds = start + 2.9
    assert watch.step().events == ()
    writer.commit(SetValue("a", 3))
    watch.step()
    assert watch.replica.at == (1, writer.revision)
    watch.check()


def test_a_minimum_revision_that_does_not_come_is_answered_with_behind(world: World, node: Node) -> None:
    watch = node.watch(min_revision=node.revision + 1)
    watch.step()
    world.clock.seconds += 3
    with pytest.raises(BehindError) as caught:
        watch.step()
    assert caught.value.reason == "BEHIND"
    assert caught.value.metadata["revision"] == str(node.revision)


def test_a_watch_that_waits_while_the_node_begins_to_drain_is_refused(node: Node) -> None:
    watch = node.watch(min_revision=node.revision + 1)
    watch.step()
    node.service.drain()
    with pytest.raises(UnavailableError):
        watch.step()


def test_an_unknown_environment_is_refused(node: Node) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        node.watch(environment="none").step()
    assert caught.value.reason == "UNKNOWN_ENVIRONMENT"


def test_an_environment_that_another_node_has_just_made_is_found(world: World, node: Node) -> None:
    world.node().add_environment("new")
    node.watch(environment="new").opened()


# Losing history.


def test_a_store_that_was_restored_by_hand_resets_all_streams(world: World, node: Node) -> None:
    backup = world.store.backup()
    watch = node.watch().opened()
    node.commit(SetValue("a", 50))
    node.commit(put("lost"))
    watch.step()
    world.store.restore(backup)
    node.service.catch_up()
    watch.step()
    assert _reset(watch) == "GENERATION"
    assert watch.replica.at == (2, node.revision)
    watch.check()
    node.commit(SetValue("b", 50))
    watch.step()
    watch.check()


def test_a_write_after_a_restore_by_hand_is_planned_on_what_the_store_holds(world: World, node: Node) -> None:
    backup = world.store.backup()
    node.commit(put("lost"))
    watch = node.watch().opened()
    world.store.restore(backup)
    made = node.commit(put("new"))
    assert (made.generation, made.revision) == (2, world.store.revision())
    assert "lost" not in node.service.view(PROJECT, "production").snapshot.settings
    watch.step()
    watch.check()


def test_an_older_file_with_a_lower_generation_gets_a_generation_above_all_that_was_served(
    world: World, node: Node
) -> None:
    backup = world.store.backup()
    node.service.raise_generation(6)
    watch = node.watch().opened()
    assert watch.replica.at[0] == 7
    world.store.restore(backup)
    node.service.catch_up()
    watch.step()
    assert watch.replica.at[0] == 8
    watch.check()


def test_a_store_that_loses_history_while_a_node_reads_it_anew_is_noticed_at_the_next_look(
    world: World, node: Node
) -> None:
    backup = world.store.backup()
    node.commit(put("lost"))
    watch = node.watch().opened()
    world.store.restore(backup)
    with pytest.raises(UnavailableError, match="lost history"):
        # Somebody else seems to have raised it already, so that this reads the store without another look.
        node.service.raise_generation(0)
    node.service.catch_up()
    watch.step()
    assert _reset(watch) == "GENERATION"
    watch.check()


def _read_anew(world: World, node: Node, meanwhile: Callable[[], object]) -> None:
    """Let a node read the store from scratch and commit itself at once, and *meanwhile* before it looks for that."""
    load, read_since = world.store.load, world.store.read_since
    waiting = [meanwhile, lambda: node.commit(put("own"))]

    def load_and_commit() -> Contents:
        contents = load()
        if len(waiting) == 2:
            waiting.pop()()
        return contents

    def be_overtaken(revision: int) -> list[ChangeSet]:
        if waiting:
            waiting.pop()()
        return read_since(revision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "load", load_and_commit)
        patch.setattr(world.store, "read_since", be_overtaken)
        # Somebody else seems to have raised it already, so that this reads the store without another look.
        node.service.raise_generation(0)
    assert not waiting


def test_a_node_writes_while_it_waits_for_a_store_that_it_reads_anew(world: World, node: Node) -> None:
    watch = node.watch().opened()
    with ThreadPoolExecutor(1) as pool:
        _read_anew(world, node, lambda: pool.submit(node.commit, put("meanwhile")).result(DEADLINE))
    assert node.revision == world.store.revision()
    watch.step()
    watch.check()


def test_nothing_of_a_new_generation_is_shown_as_of_the_one_before(world: World, node: Node) -> None:
    other = world.node()
    watch = node.watch().opened()

    def begin() -> None:
        world.store.raise_generation(1)
        other.commit(put("newer"))

    _read_anew(world, node, begin)
    head = node.service.head
    assert (head.identity.generation, head.revision) == (1, world.store.revision() - 1)
    watch.step()
    assert watch.replica.at == (1, head.revision)
    node.service.catch_up()
    watch.step()
    assert _reset(watch) == "GENERATION"
    watch.check()


def test_a_stream_of_an_environment_that_was_lost_ends(world: World, node: Node) -> None:
    backup = world.store.backup()
    node.add_environment("short")
    watch = node.watch(environment="short").opened()
    world.store.restore(backup)
    node.service.catch_up()
    with pytest.raises(PermissionDeniedError):
        watch.step()
    with pytest.raises(PermissionDeniedError):
        node.watch(watch.replica, environment="short").step()
    node.add_environment("short")
    node.commit(put("x"), environment="short")
    again = node.watch(watch.replica, environment="short").opened()
    assert (again.mode, again.reason) == ("SNAPSHOT", "GENERATION")
    again.check()


# Compaction.


def test_a_watcher_that_keeps_up_notices_nothing_of_a_compaction(world: World, node: Node) -> None:
    watch = node.watch().opened()
    node.commit(DeleteSetting("b"))
    watch.step()
    node.service.compact(node.revision)
    assert watch.step().events == ()
    node.commit(SetValue("a", 8))
    watch.step()
    assert watch.replica.events[-1] == "delta"
    watch.check()
    assert world.store.load().tombstones == ()


def test_a_watcher_that_was_passed_over_revisions_still_gets_deltas_when_those_are_compacted(
    node: Node,
) -> None:
    watches = [
        node.watch().opened(),
        node.watch(filter_=Filter(names=("a",))).opened(),
        node.watch(filter_=Filter(names=("none",))).opened(),
    ]
    node.commit(put("x"), environment="staging")
    node.commit(SetFeatures(("region",)))
    for watch in watches:
        assert watch.step().events == ()
    node.service.compact(node.revision)
    node.commit(SetValue("a", 5), put("none"))
    for watch in watches:
        watch.step()
        assert watch.replica.events[-1] == "delta"
        watch.check()


def test_a_stream_that_lags_below_the_floor_is_reset(node: Node) -> None:
    watch = node.watch().opened()
    node.commit(DeleteSetting("b"))
    node.commit(SetValue("a", 8))
    node.service.compact(node.revision)
    watch.step()
    assert _reset(watch) == "COMPACTED"
    watch.check()


def test_a_node_that_history_was_compacted_past_reads_everything_afresh(world: World, node: Node) -> None:
    stopped = world.node()
    watch = stopped.watch().opened()
    node.commit(DeleteSetting("b"))
    node.commit(SetValue("a", 8))
    node.service.compact(node.revision)
    stopped.service.catch_up()
    watch.step()
    assert _reset(watch) == "COMPACTED"
    watch.check()
    node.commit(SetValue("a", 9))
    node.service.compact(node.revision)
    made = stopped.commit(SetValue("a", 10))
    assert made.revision == node.revision + 1
    watch.step()
    watch.check()


# Filters.


def test_a_filter_lets_through_what_it_names_and_all_segments(node: Node) -> None:
    node.commit(put("pay.a"), put("pay.b"), put("other"), put_segment("s", equals("x", 1)))
    watch = node.watch(filter_=Filter(names=("a", "not-yet"), prefixes=("pay.",))).opened()
    assert watch.replica.hello is not None
    assert list(watch.replica.hello.filter.names) == ["a", "not-yet"]
    assert list(watch.replica.hello.filter.prefixes) == ["pay."]
    assert {key for _, key in watch.replica.items} == {"a", "pay.a", "pay.b", "s"}
    node.commit(SetValue("other", 1))
    assert watch.step().events == ()
    for mutations in (
        [put("not-yet")],
        [put("pay.c"), SetValue("other", 2)],
        [DeleteSetting("pay.a"), DeleteSetting("a")],
        [put("a")],
    ):
        node.commit(*mutations)
        watch.step()
        assert watch.replica.events[-1] == "delta", mutations
        watch.check()


def test_a_filter_s_chain_passes_over_what_it_does_not_let_through(node: Node) -> None:
    watch = node.watch(filter_=Filter(names=("a",))).opened()
    start = node.revision
    node.commit(SetValue("b", 5))
    watch.step()
    node.commit(SetValue("a", 5))
    watch.step()
    delta = watch.replica.last_delta
    assert delta is not None
    assert delta.from_revision == start
    node.commit(SetValue("b", 6))
    node.commit(SetValue("b", 7))
    node.commit(SetValue("a", 6))
    watch.step()
    assert watch.replica.last_delta is not None
    assert watch.replica.last_delta.from_revision == start + 2
    assert not watch.replica.last_delta.coalesced
    watch.check()


def _closing(node: Node) -> None:
    node.commit(
        put("user"),
        put("direct"),
        put("behind"),
        put("second"),
        put("unrelated"),
        put_segment("inner", on("behind")),
        put_segment("outer", in_segment("inner")),
        put_rule("user", rule("r", 1, on("direct"))),
        put_rule("direct", rule("r", 1, in_segment("outer"))),
        put_rule("second", rule("r", 1, equals("x", 1))),
    )


USER = Filter(names=("user",))


def test_a_filter_is_closed_over_references_also_through_segments(node: Node) -> None:
    _closing(node)
    watch = node.watch(filter_=USER).opened()
    assert {key for kind, key in watch.replica.items if kind == "setting"} == {"user", "direct", "behind"}
    node.commit(SetValue("behind", 3), SetValue("unrelated", 3))
    watch.step()
    assert watch.replica.last_delta is not None
    assert [item.key for item in watch.replica.last_delta.items] == ["behind"]
    watch.check()


REWIRINGS = {
    "a rule refers to more": [put_rule("user", rule("s", 1, on("second")))],
    "a rule refers to less": [put_rule("user", rule("r", 1, equals("x", 1)))],
    "a rule further away": [put_rule("behind", rule("s", 1, on("second")))],
    "a segment refers elsewhere": [put_segment("inner", on("second"))],
    "a segment refers to less": [put_segment("outer", equals("x", 1))],
    "a rename of what is referred to": [RenameSetting("direct", "renamed")],
    "a rename of what is named": [RenameSetting("user", "renamed")],
    "an alias moves to another setting": [
        RenameSetting("user", "renamed"),
        PutSetting("renamed", {"aliases": ()}),
        PutSetting("second", {"aliases": ("user",)}),
    ],
}


@pytest.mark.parametrize("mutations", REWIRINGS.values(), ids=REWIRINGS)
@pytest.mark.parametrize("how", ["open", "resumed", "resumed after a restart"])
def test_a_change_of_the_closure_is_a_snapshot(
    world: World, node: Node, mutations: list[object], how: str
) -> None:
    _closing(node)
    watch = node.watch(filter_=USER).opened()
    node.commit(*mutations)  # type: ignore[arg-type]
    if how == "open":
        watch.step()
        assert _reset(watch) == "CLOSURE"
    else:
        restarted = node if how == "resumed" else world.node()
        watch = restarted.watch(watch.replica, filter_=USER).opened()
        assert (watch.mode, watch.reason) == ("SNAPSHOT", "SCOPE")
    watch.check()
    node.commit(SetValue("user", 9), SetValue("unrelated", 4))
    watch.step()
    watch.check()


@pytest.mark.parametrize(
    "mutations",
    [
        [PutSetting("owner", {"aliases": ()})],
        [DeleteSetting("owner")],
        [PutSetting("owner", {"aliases": ()}), PutSetting("a", {"aliases": ("old",)})],
        [RenameSetting("owner", "owner2")],
    ],
    ids=["alias dropped", "setting deleted", "alias moved", "setting renamed"],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_setting_that_a_filter_names_by_an_alias_leaves_and_enters_the_scope(
    world: World, node: Node, mutations: list[object], restarted: bool
) -> None:
    filter_ = Filter(names=("old",))
    node.commit(put("owner", aliases=("old",)), put("target"))
    open_ = node.watch(filter_=filter_).opened()
    away = node.watch(filter_=filter_).opened().replica
    assert set(away.items) == {("setting", "owner")}
    node.commit(*mutations)  # type: ignore[arg-type]
    open_.step()
    open_.check()
    back = (world.node() if restarted else node).watch(away, filter_=filter_).opened()
    back.check()


def test_changes_inside_an_unchanged_closure_are_deltas_also_when_resumed(world: World, node: Node) -> None:
    _closing(node)
    replica = node.watch(filter_=USER).opened().replica
    node.commit(SetValue("behind", 3))
    node.commit(SetValue("unrelated", 3))
    watch = node.watch(replica, filter_=USER).opened()
    assert watch.mode == "DELTA"
    watch.check()


def test_filters_beyond_the_limit_are_ignored_and_hello_says_so(world: World) -> None:
    node = world.node(limits=replace(world.node().service.limits, max_filters=2))
    admission = node.service.admission
    first, second, third = (Filter(names=(name,)) for name in "abc")
    with (
        admission.filter(first) as one,
        admission.filter(second) as two,
        admission.filter(third) as three,
        admission.filter(first) as again,
        admission.filter(Filter()) as none,
    ):
        assert (one, two, three, again, none) == (True, True, False, True, True)
    node.commit(put("a"), put("z"))
    watch = node.watch(filter_refused=True).opened()
    assert watch.replica.hello is not None
    assert watch.replica.hello.filter_ignored
    assert not watch.replica.hello.HasField("filter")
    assert {key for _, key in watch.replica.items} == {"a", "z"}


# Tracked values.

EU = Filter(tracked=(("region", ("eu",)),))


def _rules(watch: Watch, name: str) -> list[str]:
    """The ids of the rules that a watcher holds of a setting."""
    setting = decode_item("setting", watch.replica.items["setting", name])
    assert isinstance(setting, Setting)
    return [held_rule.id for held_rule in setting.rules]


def _tracking(node: Node) -> None:
    """Three settings: one of plain rules, one that needs a segment through another, one without rules."""
    node.commit(
        put_segment("inner", equals("region", "us")),
        put_segment("outer", in_segment("inner")),
        put_segment("unused", equals("region", "us")),
        put("plain"),
        put("deep"),
        *(put_rule("plain", rule(region, 1, equals("region", region))) for region in ("eu", "us")),
        put_rule("deep", rule("in", 1, in_segment("outer"))),
        put_rule("deep", rule("all", 2)),
    )


def _delta(watch: Watch) -> watch_pb2.Delta:
    watch.step()
    assert watch.replica.events[-1] == "delta"
    watch.check()
    assert watch.replica.last_delta is not None
    return watch.replica.last_delta


def test_rules_that_can_match_no_tracked_value_are_left_out_and_hello_says_what_is_tracked(
    node: Node,
) -> None:
    _tracking(node)
    watch = node.watch(filter_=EU).opened()
    hello = watch.replica.hello
    assert hello is not None
    assert not hello.filter_ignored
    assert {path: list(values.values) for path, values in hello.filter.tracked.items()} == {"region": ["eu"]}
    assert (_rules(watch, "plain"), _rules(watch, "deep")) == (["eu"], ["all"])
    assert {name for kind, name in watch.replica.items if kind == "segment"} == {"inner", "outer", "unused"}
    watch.check()
    node.commit(put_rule("plain", rule("us2", 1, equals("region", "us"))), put_rule("a", rule("any", 1)))
    _delta(watch)
    assert (_rules(watch, "plain"), _rules(watch, "a")) == (["eu"], ["any"])


@pytest.mark.parametrize("how", ["open", "resumed", "resumed after a restart"])
def test_a_change_of_a_segment_brings_back_the_rules_that_it_revives(
    world: World, node: Node, how: str
) -> None:
    _tracking(node)
    watch = node.watch(filter_=EU).opened()
    before = node.revision
    node.commit(put_segment("inner", equals("region", "eu")))
    if how != "open":
        watch = (node if how == "resumed" else world.node()).watch(watch.replica, filter_=EU)
    delta = _delta(watch)
    assert _rules(watch, "deep") == ["in", "all"]
    assert (delta.from_revision, delta.coalesced) == (before, False)
    assert {(item.kind, item.key, item.revision) for item in delta.items} == {
        ("segment", "inner", before + 1),
        ("setting", "deep", before + 1),
    }
    watch.node.commit(put_segment("outer", equals("region", "ap")))
    watch.node.commit(put_segment("inner", equals("region", "ap")))
    assert {(item.key, item.revision) for item in _delta(watch).items} == {
        ("outer", before + 2),
        ("inner", before + 3),
        # It refers to the inner one no more.
        ("deep", before + 2),
    }
    assert _rules(watch, "deep") == ["all"]


def test_a_narrowed_setting_has_the_highest_revision_of_itself_and_its_segments(node: Node) -> None:
    _tracking(node)
    made = node.revision
    # Opened first, so that the node keeps the digest up from revision to revision.
    watch = node.watch(filter_=EU).opened()
    # Nothing of it is left out, and it counts all the same.
    node.commit(put("whole"), put_rule("whole", rule("r", 1, in_segment("unused"))))
    node.commit(put_segment("unused", equals("plan", "pro")))
    node.commit(put_segment("inner", equals("region", "ap")))
    node.commit(SetValue("whole", 3))
    revisions = {
        ("segment", "inner"): made + 3,
        ("segment", "outer"): made,
        ("segment", "unused"): made + 2,
        ("setting", "a"): made - 1,
        ("setting", "b"): made - 2,
        ("setting", "plain"): made,
        ("setting", "deep"): made + 3,
        ("setting", "whole"): made + 4,
    }
    assert _delta(watch).digest == digest(revisions)
    for filter_ in (EU, Filter(prefixes=("a", "b", "p", "d", "w"), tracked=EU.tracked)):
        end = node.watch(filter_=filter_).opened().messages[-1].snapshot_end
        assert end.digest == digest(revisions)


def test_a_change_of_a_segment_is_a_change_of_the_settings_that_a_filter_names_only(node: Node) -> None:
    _tracking(node)
    other = node.watch(filter_=Filter(names=("plain",), tracked=EU.tracked)).opened()
    both_ = node.watch(filter_=Filter(names=("plain", "deep"), tracked=EU.tracked)).opened()
    node.commit(put_segment("inner", equals("region", "eu")))
    assert {item.key for item in _delta(other).items} == {"inner"}
    assert {item.key for item in _delta(both_).items} == {"inner", "deep"}


def test_a_token_of_other_tracked_values_gets_a_snapshot(node: Node) -> None:
    _tracking(node)
    replica = node.watch(filter_=EU).opened().replica
    watch = node.watch(replica, filter_=Filter(tracked=(("region", ("us",)),))).opened()
    assert (watch.mode, watch.reason) == ("SNAPSHOT", "SCOPE")
    assert _rules(watch, "plain") == ["us"]


def test_settings_are_narrowed_once_however_many_watch_and_commit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tracking(node)
    narrowed = []
    real = Narrower.narrow
    monkeypatch.setattr(
        Narrower, "narrow", lambda self, setting: (narrowed.append(setting.name), real(self, setting))[1]
    )
    watches = [node.watch(filter_=EU).opened() for _ in range(3)]
    assert sorted(narrowed) == ["a", "b", "deep", "plain"]
    node.commit(SetValue("a", 5))
    node.service.compact(node.revision - 1)
    node.commit(put_segment("inner", equals("region", "ap")))
    watches.append(node.watch(filter_=EU).opened())
    for watch in watches:
        watch.step()
    assert sorted(narrowed[4:]) == ["a", "deep"]
    for watch in watches:
        watch.check()


# Sizes.


def test_a_snapshot_comes_in_chunks_of_256_kib_or_one_larger_item(world: World) -> None:
    node = world.node()
    node.commit(*(put(f"s{i}", "str", "x" * 60_000) for i in range(30)))
    node.commit(put("large", "Sequence<str>", ["x" * 1000] * 200, off=("x" * 1000,) * 200))
    watch = node.watch().opened()
    sizes = [
        (len(message.snapshot_chunk.items), sum(item.ByteSize() for item in message.snapshot_chunk.items))
        for message in watch.messages
        if message.HasField("snapshot_chunk")
    ]
    assert len(sizes) > 7
    assert all(size <= CHUNK_BYTES or count == 1 for count, size in sizes)
    assert any(size > CHUNK_BYTES for _, size in sizes)
    watch.check()


def test_a_large_delta_becomes_a_snapshot_so_that_its_revision_stays_whole(world: World) -> None:
    node = world.node()
    watch = node.watch().opened()
    resumed = node.watch().opened().replica
    node.commit(*(put(f"s{i}", "str", "x" * 100_000) for i in range(9)))
    watch.step()
    assert watch.replica.events[-1] == "delta"
    node.commit(*(PutSetting(f"s{i}", {"default": "y" * 120_000}) for i in range(9)))
    assert LARGE_DELTA_BYTES < 9 * 120_000
    watch.step()
    assert _reset(watch) == "LARGE"
    assert watch.replica.at == (1, node.revision)
    watch.check()
    again = node.watch(resumed).opened()
    assert again.mode == "DELTA"
    assert "reset" in again.replica.events
    again.check()
    node.commit(SetValue("s1", "z"))
    for stream in (watch, again):
        stream.step()
        assert stream.replica.events[-1] == "delta"
        stream.check()


def test_watchers_of_one_scope_share_their_events(node: Node) -> None:
    first, second = node.watch().opened(), node.watch().opened()
    node.commit(SetValue("a", 5))
    (left,), (right,) = first.step().events, second.step().events
    assert left is right


# Random sequences of the plain kind: the stateful test does the rest.


def test_many_watchers_at_random_places_converge(world: World, node: Node) -> None:
    draw = random.Random(7)
    replicas = [node.watch().opened().replica for _ in range(5)]
    names = [f"n{i}" for i in range(6)]
    for _ in range(120):
        name = draw.choice(names)
        settings = node.service.view(PROJECT, "production").snapshot.settings
        node.commit(
            DeleteSetting(name)
            if name in settings and draw.random() < 0.4
            else put(name, default=draw.randrange(9))
        )
        replica = draw.choice(replicas)
        Watch(node, replica).opened().check()
    for replica in replicas:
        watch = node.watch(replica).opened()
        assert watch.mode in ("DELTA", "UP_TO_DATE")
        watch.check()


def _reset(watch: Watch) -> str:
    """The reason of the last Reset."""
    reset = [message.reset for message in watch.messages if message.HasField("reset")][-1]
    return watch_pb2.ResetReason.Name(reset.reason).removeprefix("RESET_REASON_")
