"""A relay that lets go of old history."""

from __future__ import annotations

from rheostat.model.change import SetValue
from rheostat.service.publish import KeyRing
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
