"""A relay that lets go of old history."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rheostat.model.change import SetValue
from rheostat.relay import branch as branches
from rheostat.relay.mirror import mirrored
from rheostat.service.publish import Head, KeyRing
from tests.relay.node import RelayNode, relay_key
from tests.service.book import put
from tests.service.node import World


def test_a_relay_that_lets_go_of_history_goes_on_with_its_stream_and_its_keys(world: World) -> None:
    node = world.node()
    node.commit(put("a"))
    relay = RelayNode(world, node, relay_key(node)).pump()
    watch = relay.watch().opened()
    keys: KeyRing = next(iter(relay.branch.hub.head.rings.values()))
    relay.branch.compact(node.revision)
    assert relay.branch.hub.head.floor == node.revision
    node.commit(SetValue("a", 7))
    relay.pump()
    watch.step()
    watch.check()
    assert watch.replica.events[-1] == "delta"
    assert keys.valid == next(iter(relay.branch.hub.head.rings.values())).valid != {}


def test_a_step_that_comes_while_history_is_let_go_is_lost_to_neither(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.node()
    node.commit(put("a"))
    relay = RelayNode(world, node, relay_key(node)).pump()
    watch = relay.watch().opened()
    floor = node.revision
    compaction = threading.Thread(target=relay.branch.compact, args=(floor,))

    def interrupted(*arguments: Any) -> Head:
        head = mirrored(*arguments)
        compaction.start()
        # Long enough to get in between, which it must not.
        compaction.join(0.3)
        return head

    node.commit(SetValue("a", 7))
    monkeypatch.setattr(branches, "mirrored", interrupted)
    relay.pump()
    compaction.join(60.0)
    head = relay.branch.hub.head
    assert (head.floor, head.revision) == (floor, node.revision)
    watch.step()
    watch.check()
    assert watch.replica.events[-1] == "delta"
