"""What a node sends on the stream of a relay, and on no other."""

from __future__ import annotations

import datetime

import pytest

from rheostat.model.change import DeleteSetting, SetValue
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.position import Filter
from tests.relay.stream import RelayReplica
from tests.service.book import equals, put, put_segment
from tests.service.node import NOBODY, PROJECT, Node, Watch, World


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.add_environment("staging")
    made.commit(put("a"), put("b"), put_segment("s", equals("plan", "pro")))
    made.commit(put("a"), environment="staging")
    return made


def make(node: Node, **options: object) -> Key:
    given = {"kind": KeyKind.SERVER, "project": PROJECT, "environments": ("production",), **options}
    return node.service.create_key(NOBODY, **given)[0]  # type: ignore[arg-type]


def relay(node: Node, replica: RelayReplica | None = None, **options: object) -> tuple[Watch, RelayReplica]:
    replica = replica or RelayReplica()
    return node.watch(replica, relay=True, **options).opened(), replica


def plain(replica: RelayReplica) -> dict[tuple[str, str], str]:
    return {key: item for key, item in replica.items.items() if key[0] != "key"}


def test_a_relay_gets_the_keys_that_bear_on_its_environment_and_no_others(node: Node) -> None:
    server = make(node)
    everywhere = make(node, kind=KeyKind.USER, role=Role.ADMIN, environments=())
    store_wide = make(node, kind=KeyKind.USER, role=Role.ADMIN, project="", environments=())
    make(node, environments=("staging",))
    watch, replica = relay(node)
    assert replica.keys == {server.selector, everywhere.selector, store_wide.selector}
    assert plain(replica) == node.world.items("production")
    assert watch.mode == "SNAPSHOT"


def test_a_plain_stream_never_gets_keys_tombstones_or_the_token_key(node: Node) -> None:
    make(node)
    node.commit(DeleteSetting("b"))
    replica = RelayReplica()
    watch = node.watch(replica).opened()
    key = make(node)
    node.service.revoke_key(NOBODY, key.selector)
    node.commit(SetValue("a", 2))
    watch.step()
    assert not replica.keys
    assert (replica.floor, replica.token_key, replica.tombstones) == (0, b"", {})
    watch.check()


def test_a_snapshot_of_a_relay_has_the_floor_the_tombstones_above_it_and_the_token_key(node: Node) -> None:
    node.commit(DeleteSetting("a"))
    floor = node.service.compact(node.revision)
    node.commit(DeleteSetting("b"))
    removed = node.revision
    key = make(node)
    node.service.revoke_key(NOBODY, key.selector)
    _, replica = relay(node)
    assert replica.floor == floor
    assert replica.token_key == node.service.head.identity.token_key
    assert replica.tombstones == {("setting", "b"): removed, ("key", key.selector): node.revision}


def test_keys_that_are_made_changed_and_revoked_come_as_deltas(node: Node) -> None:
    watch, replica = relay(node)
    made = make(node)
    watch.step()
    assert replica.keys == {made.selector}
    successor, *_ = node.service.rotate_key(NOBODY, made.selector, overlap=datetime.timedelta(hours=1))
    watch.step()
    assert replica.keys == {made.selector, successor.selector}
    assert "expires_at" in replica.items["key", made.selector]
    node.service.revoke_key(NOBODY, made.selector)
    node.commit(SetValue("a", 3))
    watch.step()
    assert replica.keys == {successor.selector}
    assert plain(replica) == node.world.items("production")
    assert replica.last_delta is not None and replica.last_delta.coalesced


def test_a_relay_resumes_over_changes_of_keys_and_settings(node: Node) -> None:
    gone = make(node)
    _, replica = relay(node)
    made = make(node)
    node.commit(SetValue("a", 4))
    node.service.revoke_key(NOBODY, gone.selector)
    watch, _ = relay(node, replica)
    assert watch.mode == "DELTA"
    assert replica.keys == {made.selector}
    assert plain(replica) == node.world.items("production")
    watch, _ = relay(node, replica)
    assert watch.mode == "UP_TO_DATE"


def test_a_change_of_keys_alone_is_a_step_of_the_chain_of_relays(node: Node) -> None:
    make(node)
    changed = node.revision
    watch, replica = relay(node)
    node.commit(SetValue("a", 50), environment="staging")
    node.commit(SetValue("a", 50))
    watch.step()
    assert replica.last_delta is not None
    assert replica.last_delta.from_revision == changed


def test_two_relays_share_the_content_of_their_snapshots(node: Node) -> None:
    make(node)
    first = node.watch(RelayReplica(), relay=True).opened().session.whole()
    node.commit(SetValue("a", 70), environment="staging")
    second = node.watch(RelayReplica(), relay=True).opened().session.whole()
    assert first.content is second.content


def test_a_relay_may_filter_and_gets_all_keys_even_so(node: Node) -> None:
    made = make(node)
    watch, replica = relay(node, filter_=Filter(names=("b",)))
    assert plain(replica) == node.world.items("production", Filter(names=("b",)))
    second = make(node)
    watch.step()
    assert replica.keys == {made.selector, second.selector}


# Bookmarks.


def test_a_relay_is_told_of_a_revision_that_does_not_touch_it_within_100_ms(node: Node) -> None:
    watch, replica = relay(node)
    before = len(replica.bookmarks)
    node.world.clock.seconds += 1.0
    node.commit(SetValue("a", 6), environment="staging")
    watch.step()
    assert len(replica.bookmarks) == before + 1
    assert replica.at == (1, node.revision)


def test_a_relay_is_told_of_such_revisions_ten_times_a_second_at_most(node: Node) -> None:
    watch, replica = relay(node)
    before = len(replica.bookmarks)
    clock = node.world.clock
    for value in range(100):
        node.commit(SetValue("a", 1_000 + value), environment="staging")
        step = watch.step()
        assert step.events or step.wake_at <= clock.seconds + 0.1
        clock.seconds += 0.01
    assert 9 <= len(replica.bookmarks) - before <= 10


def test_a_relay_gets_a_bookmark_when_its_stream_opens_and_each_heartbeat_whatever_else_comes(
    node: Node,
) -> None:
    watch, replica = relay(node)
    assert replica.events[-1] == "bookmark"
    node.commit(SetValue("a", 1_000))
    relay(node, replica)
    assert replica.events == ["hello", "delta", "bookmark"]
    before = len(replica.bookmarks)
    clock = node.world.clock
    for value in range(2, 33):
        clock.seconds += 1.0
        node.commit(SetValue("a", value))
        watch.step()
    assert len(replica.bookmarks) - before == 2, "two heartbeats of 15 s have passed"


def test_other_watchers_are_not_told_of_revisions_that_do_not_touch_them(node: Node) -> None:
    watch = node.watch().opened()
    node.world.clock.seconds += 1.0
    node.commit(SetValue("a", 6), environment="staging")
    assert watch.step().events == ()


# Generations.


def test_a_relay_gets_a_new_generation_whole(node: Node) -> None:
    key = make(node)
    watch, replica = relay(node)
    node.service.raise_generation(1)
    watch.step()
    assert "reset" in replica.events
    assert replica.at == (2, node.revision)
    assert replica.keys == {key.selector}
