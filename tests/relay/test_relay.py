"""What a relay's clients get: what a node's do, at the same positions."""

from __future__ import annotations

import ast
import contextlib
import datetime
import random
from dataclasses import replace
from pathlib import Path

import pytest

import rheostat.relay as relay_package
from rheo.v1 import watch_pb2
from rheostat.errors import (
    AuthenticationError,
    BehindError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from rheostat.model.change import DeleteSetting, SetValue
from rheostat.model.client import ClientReport
from rheostat.model.key import KeyKind
from rheostat.model.position import Filter, Position, scope_of
from rheostat.model.watch import GoAwayReason
from rheostat.relay.cache import DamagedRelayCacheError, RelayCache
from rheostat.relay.relay import Relay
from rheostat.service.access import Principal, authenticate
from rheostat.wire.client import client_report_from_proto
from tests.relay.node import RelayNode, relay_key
from tests.relay.stream import RelayReplica
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule
from tests.service.node import NOBODY, PROJECT, Node, Watch, World


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.add_environment("staging")
    made.commit(put("a"), put("b"), put("c"), put_segment("s", equals("plan", "pro")))
    made.commit(put_rule("a", rule("r", 2, in_segment("s"))))
    return made


@pytest.fixture
def key(node: Node) -> str:
    return relay_key(node)


@pytest.fixture
def relay(world: World, node: Node, key: str) -> RelayNode:
    return RelayNode(world, node, key).pump()


def position(node: Node, **changes: object) -> Position:
    made = node.service.head.position(scope_of(PROJECT, "production"))
    return replace(made, **changes)  # type: ignore[arg-type]


# The same as a node.


def test_a_relay_serves_what_its_node_does_at_the_same_position(node: Node, relay: RelayNode) -> None:
    here, there = relay.watch().opened(), node.watch().opened()
    here.check()
    assert here.replica.items == there.replica.items
    assert here.replica.token == there.replica.token
    node.commit(SetValue("a", 20))
    node.commit(DeleteSetting("c"))
    relay.pump()
    here.step(), there.step()
    here.check()
    assert here.replica.token == there.replica.token


@pytest.mark.parametrize(
    "filter_",
    [Filter(names=("a",)), Filter(prefixes=("b",)), Filter(tracked=(("plan", ("free",)),))],
    ids=["names", "prefixes", "tracked"],
)
def test_a_relay_filters_as_its_node_does(node: Node, relay: RelayNode, filter_: Filter) -> None:
    watch = relay.watch(filter_=filter_).opened()
    watch.check()
    node.commit(put_rule("b", rule("r2", 5, in_segment("s"))))
    node.commit(put_rule("a", rule("r3", 5, on("b"))))
    node.commit(put_segment("s", equals("plan", "max")))
    node.commit(DeleteSetting("c"))
    relay.pump()
    watch.step()
    watch.check()
    moved = node.watch(watch.replica, filter_=filter_).opened()
    assert moved.mode != "SNAPSHOT"


def test_a_client_moves_between_node_and_relay_both_ways_without_a_snapshot(
    node: Node, relay: RelayNode
) -> None:
    replica = node.watch().opened().replica
    modes = []
    for value, place in enumerate((relay, node, relay, node, relay), 100):
        node.commit(SetValue("a", value))
        relay.pump()
        watch = Watch(place, replica).opened()
        watch.check()
        modes.append(watch.mode)
        modes.append(Watch(place, replica).opened().mode)
    assert modes == ["DELTA", "UP_TO_DATE"] * 5


def test_many_changes_are_one_step_for_a_laggard(node: Node, relay: RelayNode) -> None:
    replica = relay.watch().opened().replica
    for value in range(5):
        node.commit(SetValue("a", 100 + value))
        node.commit(SetValue("b", 100 + value))
    node.commit(DeleteSetting("c"))
    relay.pump()
    watch = relay.watch(replica).opened()
    assert watch.mode == "DELTA"
    watch.check()
    assert replica.last_delta is not None and replica.last_delta.coalesced


def test_min_revision_holds_on_a_relay_for_what_does_not_touch_its_environment(
    world: World, node: Node, relay: RelayNode
) -> None:
    node.commit(put("a"), environment="staging")
    with pytest.raises(BehindError):
        relay.branch.wait_for(node.revision, 0.0)
    world.clock.seconds += 0.1
    relay.pump()
    watch = relay.watch(min_revision=node.revision).opened()
    assert watch.replica.at == (1, node.revision)


def test_a_stream_without_a_relay_key_never_gets_keys_from_a_relay(node: Node, relay: RelayNode) -> None:
    replica = RelayReplica()
    watch = relay.watch(replica).opened()
    node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    node.commit(SetValue("a", 9))
    relay.pump()
    watch.step()
    assert not replica.keys and not replica.token_key and not replica.tombstones


# The table of tokens.


def test_a_token_ahead_is_waited_for_and_then_continued(world: World, node: Node, relay: RelayNode) -> None:
    replica = node.watch().opened().replica
    node.commit(SetValue("a", 50))
    node.watch(replica).opened()
    watch = relay.watch(replica)
    step = watch.step()
    assert step.events == () and step.wake_at == world.clock.seconds + 3.0
    relay.pump()
    assert watch.opened().mode == "UP_TO_DATE"


@pytest.mark.parametrize("resnapshot", [False, True])
def test_a_token_that_stays_ahead_is_sent_away_and_never_gets_less(
    world: World, node: Node, relay: RelayNode, resnapshot: bool
) -> None:
    token = node.token(position(node, revision=node.revision + 1))
    watch = relay.watch(resume=token, resnapshot=resnapshot)
    assert watch.session.step(world.clock.seconds).events == ()
    world.clock.seconds += 3.0
    step = watch.session.step(world.clock.seconds)
    assert [event.reason for event in step.events] == [GoAwayReason.BEHIND]  # type: ignore[union-attr]
    assert step.done


def test_a_token_of_another_nonce_or_a_later_generation_is_sent_away(
    world: World, node: Node, relay: RelayNode
) -> None:
    step = relay.watch(resume=node.token(position(node, nonce=bytes(8)))).session.step(world.clock.seconds)
    assert [event.reason for event in step.events] == [GoAwayReason.BEHIND]  # type: ignore[union-attr]
    watch = relay.watch(resume=node.token(position(node, generation=2, revision=1)))
    assert watch.session.step(world.clock.seconds).events == ()
    world.clock.seconds += 3.0
    assert watch.session.step(world.clock.seconds).done
    assert node.service.head.identity.generation == 1, "only nodes begin generations"


def test_other_tokens_are_answered_as_by_a_node(node: Node, relay: RelayNode) -> None:
    for token, reason in (
        (b"", "NEW"),
        (b"damaged", "INVALID"),
        (node.token(position(node, store_id=bytes(16), revision=999)), "STORE"),
        (node.token(position(node, generation=0)), "GENERATION"),
        (node.token(position(node, scope=bytes(8))), "SCOPE"),
    ):
        watch = relay.watch(resume=token).opened()
        assert (watch.mode, watch.reason) == ("SNAPSHOT", reason)


# Generations, and moving to other upstreams.


def test_a_new_generation_resets_the_clients_of_a_relay(node: Node, relay: RelayNode) -> None:
    watch = relay.watch().opened()
    node.service.raise_generation(1)
    relay.pump()
    watch.step()
    assert "reset" in watch.replica.events
    assert watch.replica.at == (2, node.revision)
    watch.check()


def test_a_relay_goes_on_at_another_node_by_a_delta(world: World, node: Node, relay: RelayNode) -> None:
    watch = relay.watch().opened()
    node.commit(SetValue("a", 31))
    other = world.node()
    relay.follow(other)
    (line,) = relay.lines.values()
    assert [hello.mode for hello in line.hellos] == [1, 2], "a snapshot once, then a delta"
    watch.step()
    watch.check()


def test_a_relay_that_was_away_for_longer_than_history_goes_on_with_a_snapshot(
    node: Node, relay: RelayNode
) -> None:
    watch = relay.watch().opened()
    fresh = relay.watch().opened().replica
    relay.cut()
    relay.pump()
    node.commit(SetValue("a", 31))
    node.commit(DeleteSetting("b"))
    node.service.compact(node.revision)
    relay.follow(node)
    watch.step()
    watch.check()
    assert watch.replica.events[-1] == "snapshot_end"
    back = relay.watch(fresh).opened()
    assert (back.mode, back.reason) == ("SNAPSHOT", "COMPACTED")


def test_a_relay_lets_go_of_old_history(world: World, node: Node, key: str) -> None:
    relay = RelayNode(world, node, key, keep_revisions=2, keep_seconds=100.0).pump()
    old = relay.watch().opened().replica
    node.commit(SetValue("a", 60))
    relay.pump()
    kept = relay.watch().opened().replica
    relay.relay._compact(world.clock.seconds)
    for value in range(3):
        node.commit(SetValue("b", 60 + value))
    node.commit(DeleteSetting("c"))
    relay.pump()
    relay.relay._compact(world.clock.seconds + 99.0)
    assert relay.relay.head.floor < kept.at[1], "it is not old enough"
    relay.relay._compact(world.clock.seconds + 101.0)
    assert relay.relay.head.floor == kept.at[1]
    for replica, mode in ((old, "SNAPSHOT"), (kept, "DELTA")):
        watch = relay.watch(replica).opened()
        assert watch.mode == mode
        watch.check()


# Cut off.


def test_a_relay_that_is_cut_off_goes_on_with_bookmarks_that_grow_old(
    world: World, node: Node, relay: RelayNode
) -> None:
    replica = RelayReplica()
    watch = relay.watch(replica).opened()
    at = world.clock.now()
    relay.cut()
    for _ in range(4):
        world.clock.seconds += 15.0
        relay.pump()
        watch.step()
    assert len(replica.bookmarks) == 4
    origins = {bookmark.origin_time.ToDatetime(tzinfo=datetime.UTC) for bookmark in replica.bookmarks}
    assert origins == {at}
    assert relay.relay.stale_seconds == 60.0
    relay.cut(off=False)
    relay.pump()
    assert relay.relay.stale_seconds == 0.0


def test_a_relay_whose_state_differs_from_its_upstreams_does_not_look_fresh(
    world: World, node: Node, relay: RelayNode
) -> None:
    (line,) = relay.lines.values()

    def spoil(event: watch_pb2.WatchResponse) -> None:
        if event.HasField("bookmark"):
            event.bookmark.digest ^= 1
        if event.HasField("hello"):
            line.cut = True

    line.spoil = spoil
    world.clock.seconds += 15.0
    relay.pump()
    assert isinstance(line.error, UnavailableError) and len(line.hellos) == 2, (
        "it has asked for all of the state"
    )
    assert relay.relay.stale_seconds == 15.0
    line.spoil = None
    line.cut = False
    relay.pump()
    assert relay.relay.stale_seconds == 0.0


def test_a_chain_of_relays_tells_of_the_stores_own_time_and_of_its_length(
    world: World, node: Node, key: str
) -> None:
    chain: list[RelayNode] = []
    for _ in range(4):
        chain.append(RelayNode(world, chain[-1] if chain else node, key).pump())
    last = chain[-1].watch().opened()
    assert last.replica.hello is not None and last.replica.hello.hops == 4
    world.clock.seconds += 15.0
    node.commit(SetValue("a", 77))
    for each in chain:
        each.pump()
    last.step()
    last.check()
    world.clock.seconds += 15.0
    for _ in chain:
        for each in chain:
            each.pump()
        world.clock.seconds += 0.1
    assert chain[-1].relay.stale_seconds < 1.0, "each adds no heartbeat of its own"
    deeper = RelayNode(world, chain[-1], key).pump()
    (line,) = deeper.lines.values()
    assert isinstance(line.error, FailedPreconditionError) and line.error.reason == "RELAY_TOO_DEEP"
    assert not deeper.relay.has_state


def test_relays_that_watch_each_other_in_a_circle_are_refused(
    world: World, node: Node, relay: RelayNode, key: str
) -> None:
    below = RelayNode(world, relay, key).pump()
    assert below.branch.upstream == relay.relay.node
    with pytest.raises(FailedPreconditionError) as caught, below.relay.below((relay.relay.node,)):
        pass
    assert caught.value.reason == "WATCH_LOOP"
    with relay.relay.below((below.relay.node,)):
        assert relay.relay.via == (relay.relay.node, below.relay.node)
    assert relay.relay.via == (relay.relay.node,)


# Keys.


def test_a_relay_checks_keys_itself_and_ends_streams_of_those_that_are_revoked(
    world: World, node: Node, relay: RelayNode
) -> None:
    key, text, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    relay.pump()
    found = authenticate(relay.relay.head.state, f"Bearer {text}", world.clock.now())
    assert found.key is not None and found.key.selector == key.selector
    watch = relay.watch(may_go_on=lambda: relay.relay.key_in_force(found)).opened()
    node.service.revoke_key(NOBODY, key.selector)
    relay.pump()
    watch.step()
    assert watch.replica.went_away == "KEY_REVOKED"
    with pytest.raises(AuthenticationError):
        authenticate(relay.relay.head.state, f"Bearer {text}", world.clock.now())


def test_a_key_that_ends_does_so_at_a_relay_that_is_cut_off(
    world: World, node: Node, relay: RelayNode
) -> None:
    end = world.clock.now() + datetime.timedelta(minutes=5)
    key, *_ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT, expires_at=end)
    relay.pump()
    relay.cut()
    principal = Principal(relay.relay.head.state.keys[key.selector])
    assert relay.relay.key_in_force(principal)
    assert relay.relay.key_ends_at(principal) == pytest.approx(world.clock.seconds + 300.0)
    world.clock.seconds += 301.0
    assert not relay.relay.key_in_force(principal)


def test_a_relay_knows_the_keys_of_all_its_environments(world: World, node: Node) -> None:
    node.commit(put("a"), environment="staging")
    both = ("production", "staging")
    key = relay_key(node, both)
    shared, *_ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT, environments=both)
    own, *_ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT, environments=("staging",))
    relay = RelayNode(world, node, key, environments=both)
    relay.lines["production"].pump()
    with pytest.raises(UnavailableError, match="no state yet"):
        _ = relay.relay.head
    relay.pump()
    assert {shared.selector, own.selector} <= relay.relay.head.state.keys.keys()
    node.service.revoke_key(NOBODY, shared.selector)
    relay.lines["staging"].pump()
    assert shared.selector not in relay.relay.head.state.keys, "whichever environment has heard first"


def test_a_plain_stream_makes_no_relay(world: World, node: Node, key: str) -> None:
    relay = RelayNode(world, node, key)
    (line,) = relay.lines.values()
    opened = line._open
    line._open = lambda request: (
        opened(request)
        or setattr(  # type: ignore[func-returns-value,method-assign]
            line._session, "_options", replace(line._session._options, relay=False)
        )
    )
    relay.pump()
    assert not relay.relay.has_state
    assert line.error is None and relay.branch.problem == "PLAIN_STREAM"


def test_a_relay_needs_a_key_of_a_relay(node: Node) -> None:
    _, text, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    for key in (text, "", "rst_relay_mistyped"):
        with pytest.raises(InvalidArgumentError, match="kind relay"):
            Relay(["http://upstream"], key)


# What cannot be passed on.


def test_what_this_version_does_not_know_is_not_served_in_part(node: Node, relay: RelayNode) -> None:
    watch = relay.watch().opened()
    before = dict(watch.replica.items)
    (line,) = relay.lines.values()
    line.newer = True
    node.commit(SetValue("a", 80))
    relay.pump()
    watch.step()
    assert watch.replica.items == before and relay.branch.problem == "RELAY_OUTDATED"
    line.newer = False
    relay.pump()
    watch.step()
    watch.check()
    assert relay.branch.problem == ""


# Reports.


def test_reports_of_clients_are_passed_on_together_with_the_time_that_they_came(
    world: World, node: Node, relay: RelayNode
) -> None:
    fleet = relay.relay.fleet
    first = ClientReport("c1", revision=3, settings_read=("a",), error="lost")
    at = world.clock.now()
    fleet.report(PROJECT, "production", [first, ClientReport("c2")], "actor")
    world.clock.seconds += 0.5
    fleet.report(PROJECT, "production", [ClientReport("c1", revision=4, settings_read=("b",))], "actor")
    below = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    fleet.report(PROJECT, "production", [ClientReport("c3", reported_at=below)], "actor", relayed=True)
    (request,) = fleet.reports.batches()
    assert (request.project, request.environment) == (PROJECT, "production")
    found = {report.client.id: client_report_from_proto(report) for report in request.reports}
    assert found.keys() == {"c1", "c2", "c3"}
    assert (found["c1"].revision, found["c1"].settings_read, found["c1"].error) == (4, ("a", "b"), "lost")
    assert (found["c1"].reported_at, found["c2"].reported_at) == (world.clock.now(), at)
    assert found["c3"].reported_at == below
    assert fleet.reports.batches() == []


def test_reports_that_cannot_be_passed_on_wait_for_the_next_second(relay: RelayNode) -> None:
    reports = relay.relay.fleet.reports
    place = (PROJECT, "production")
    reports.take(place, [ClientReport("c1", revision=1), ClientReport("c2", revision=1)])
    (request,) = reports.batches()
    reports.take(place, [ClientReport("c2", revision=2)])
    reports.failed(request)
    (request,) = reports.batches()
    assert {report.client.id: report.revision for report in request.reports} == {"c1": 1, "c2": 2}


def test_a_client_that_is_to_declare_again_is_told_with_its_next_report(relay: RelayNode) -> None:
    reports = relay.relay.fleet.reports
    place = (PROJECT, "production")
    assert reports.take(place, [ClientReport("c1")]) == []
    (request,) = reports.batches()
    reports.answered(request, ["c1"])
    assert reports.take(place, [ClientReport("c2"), ClientReport("c1")]) == ["c1"]
    assert reports.take(place, [ClientReport("c1")]) == []


def test_a_question_about_a_rollout_reaches_the_clients_of_relays_below(
    world: World, node: Node, relay: RelayNode, key: str
) -> None:
    below = RelayNode(world, relay, key).pump()
    replica = RelayReplica()
    watch = below.watch(replica).opened()
    node.service.fleet.rollout(PROJECT, "production", revision=0, ask=True, max_laggards=0)
    relay.pump()
    below.pump()
    watch.step()
    assert replica.bookmarks and replica.bookmarks[-1].HasField("report_within")
    world.clock.seconds += 60.0
    watch.step()
    assert not replica.bookmarks[-1].HasField("report_within"), "nobody waits any more"


# The cache.


def cached(tmp_path: Path, relay: RelayNode) -> RelayCache:
    cache = RelayCache(tmp_path / "state")
    kept = relay.branch.kept()
    assert kept is not None
    cache.write([kept])
    return cache


def test_a_relay_starts_from_its_cache_and_goes_on_by_a_delta(
    world: World, node: Node, relay: RelayNode, key: str, tmp_path: Path
) -> None:
    cache = cached(tmp_path, relay)
    assert cache.path.stat().st_mode & 0o777 == 0o600
    replica = relay.watch().opened().replica
    again = RelayNode(world, node, key, cache=cache)
    again.cut()
    again.pump()
    watch = again.watch(replica).opened()
    assert watch.mode == "UP_TO_DATE"
    assert again.relay.stale_seconds == relay.relay.stale_seconds
    node.commit(SetValue("b", 12))
    again.cut(off=False)
    again.pump()
    (line,) = again.lines.values()
    assert [hello.mode for hello in line.hellos] == [2]
    watch.step()
    watch.check()


def test_a_relay_that_starts_anew_continues_every_token_above_the_floor(
    world: World, node: Node, relay: RelayNode, key: str, tmp_path: Path
) -> None:
    below = relay.watch().opened().replica
    node.commit(SetValue("a", 40))
    node.service.compact(node.revision)
    relay.follow(node)
    above = node.watch().opened().replica
    node.commit(DeleteSetting("b"))
    node.commit(SetValue("a", 41))
    relay.pump()
    filtered = node.watch(filter_=Filter(names=("a",)), resume=b"").opened()
    untouched = node.watch(filter_=Filter(names=("c",)), resume=b"").opened()
    node.commit(SetValue("a", 42))
    fresh = RelayNode(world, node, key).pump()
    cut = RelayNode(world, node, key, cache=cached(tmp_path, fresh))
    cut.cut()
    for each in (fresh, cut):
        for replica, mode, reason in (
            (above, "DELTA", "UNSPECIFIED"),
            (below, "SNAPSHOT", "COMPACTED"),
        ):
            copy = RelayReplica()
            copy.__dict__.update({**replica.__dict__, "items": dict(replica.items)})
            copy._revisions = dict(replica._revisions)
            watch = each.watch(copy).opened()
            assert (watch.mode, watch.reason) == (mode, reason)
            watch.check()
        token = filtered.replica.token
        watch = Watch(each, RelayReplica(), filter_=Filter(names=("a",)), resume=token).opened()
        assert (watch.mode, watch.reason) == ("SNAPSHOT", "SCOPE")
        watch = each.watch(untouched.replica, filter_=Filter(names=("c",))).opened()
        assert watch.mode == "UP_TO_DATE"


def test_a_damaged_cache_is_refused_wherever_it_is_damaged(relay: RelayNode, tmp_path: Path) -> None:
    cache = cached(tmp_path, relay)
    whole = cache.path.read_bytes()
    step = max(1, len(whole) // 60)
    for at in range(0, len(whole), step):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            cache.path.write_bytes(content)
            with pytest.raises(DamagedRelayCacheError):
                cache.read()
    cache.path.write_bytes(whole)
    assert cache.read()


def test_a_cache_serves_no_relay_whose_key_it_does_not_know(
    world: World, node: Node, relay: RelayNode, key: str, tmp_path: Path
) -> None:
    cache = cached(tmp_path, relay)
    later = relay_key(node)
    assert not RelayNode(world, node, later, cache=cache).relay.has_state
    assert RelayNode(world, node, key, cache=cache).relay.has_state
    ((kept,),) = [cache.read()]
    revoked = node.service.head.state.keys
    assert kept.head.state.keys.keys() == revoked.keys() - {later.split("_")[2]}


# Whatever happens.


@pytest.mark.parametrize("seed", range(10))
def test_clients_that_roam_hold_what_the_history_says(world: World, node: Node, key: str, seed: int) -> None:
    chance = random.Random(seed)
    above = RelayNode(world, node, key).pump()
    below = RelayNode(world, above, key).pump()
    other = RelayNode(world, node, key).pump()
    places: list[Node] = [node, above, below, other]
    filters = [Filter(), Filter(), Filter(names=("a",)), Filter(tracked=(("plan", ("pro",)),))]
    watches = [node.watch(RelayReplica(), filter_=filter_).opened() for filter_ in filters]
    names = ["a", "b", "c", "d"]
    for _ in range(40):
        world.clock.seconds += chance.choice((0.05, 0.2, 2.0))
        name = chance.choice(names)
        known = node.service.head.views[PROJECT, "production"].snapshot.settings
        match chance.randrange(6):
            case 0 if name in known and name != "a":
                with contextlib.suppress(FailedPreconditionError):  # A rule refers to it.
                    node.commit(DeleteSetting(name))
            case 1 if "b" in known:
                node.commit(put_rule("a", rule(f"r{chance.randrange(10**6)}", 3, on("b"))))
            case 2:
                node.commit(put_segment("s", equals("plan", chance.choice(("pro", "max")))))
            case 3 if name in known:
                node.commit(SetValue(name, chance.randrange(10**6)))
            case 4 if name not in known:
                node.commit(put(name))
            case _:
                relay_key(node)
        for each in (above, other, below):
            if chance.random() < 0.6:
                each.pump()
        if chance.random() < 0.1:
            below.follow(chance.choice((above, other, node)))
        for at, watch in enumerate(watches):
            if chance.random() < 0.3:
                watch = Watch(chance.choice(places), watch.replica, filter_=watch.filter)
            watch.step()
            if watch.done:
                watch = Watch(node, watch.replica, filter_=watch.filter)
                watch.step()
            watches[at] = watch
    world.clock.seconds += 4.0
    for _ in range(3):
        for each in (above, other, below):
            each.pump()
    for watch in watches:
        end = Watch(below, watch.replica, filter_=watch.filter)
        end.step()
        end.check()
        assert end.replica.at == (1, node.revision)


# As a service.


def test_a_relay_offers_all_that_applications_use_of_a_service(relay: RelayNode) -> None:
    """They are typed by `Service`, so that no type checker sees what is missing."""
    package = Path(relay_package.__file__).parents[1] / "server"
    sources = [path for path in package.glob("*.py") if path.name not in ("wsgi.py", "screen.py")]
    sources += [package / "handling" / name for name in ("config.py", "report.py")]
    used: dict[str, str] = {}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("service"):
                used[node.attr] = path.name
    del used["declare"]  # Passed on.
    assert {"hub", "admission", "limits", "key_in_force"} <= used.keys()
    assert not {name: where for name, where in used.items() if not hasattr(relay.relay, name)}
