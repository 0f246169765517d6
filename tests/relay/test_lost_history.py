"""History that the store has lost, and that only relays still have."""

from __future__ import annotations

from typing import Any

import pytest

from rheo.v1 import watch_pb2
from rheostat.model.change import SetValue
from rheostat.relay.relay import Relay
from tests.relay.node import Line, RelayNode, relay_key
from tests.service.book import put
from tests.service.node import Node, World


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a"))
    return made


def ask_through(monkeypatch: pytest.MonkeyPatch, relay: RelayNode) -> None:
    """Let a relay ask its source as it would over HTTP."""

    class Asking(Line):
        def receive(self, timeout: float) -> watch_pb2.WatchResponse | None:
            return self._receive()

        def close(self) -> None:
            pass

    def watch(url: str, request: watch_pb2.WatchRequest) -> Any:
        (line,) = relay.lines.values()
        asking = Asking(relay.branch, line.source, line.clock)
        asking.branch = _Deaf()  # type: ignore[assignment]
        asking._open(request)
        return asking

    monkeypatch.setattr(relay.relay.upstreams, "watch", watch)


class _Deaf:
    def _note(self, event: watch_pb2.WatchResponse, stream: object) -> None:
        pass


def tell(relay: RelayNode) -> None:
    made: Relay = relay.relay
    made._ask_about_doubted()


def test_a_chain_of_relays_leaves_a_history_that_the_store_has_lost(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = relay_key(node)
    backup = world.store.backup()
    world.store.raise_generation(0)
    node.service.catch_up()
    upper = RelayNode(world, node, key).pump()
    lower = RelayNode(world, upper, key).pump()
    lost = node.commit(SetValue("a", 66))
    upper.pump(), lower.pump()
    watch = lower.watch().opened()
    assert watch.replica.at == (2, lost.revision)
    # Restored again, while nothing but the lower relay runs: the same generation, with another nonce.
    world.store.restore(backup)
    world.store.raise_generation(0)
    later = world.node()
    later.commit(SetValue("a", 7))
    upper = RelayNode(world, later, key).pump()
    for relay in (upper, lower):
        ask_through(monkeypatch, relay)
    for line in lower.lines.values():
        line.source = upper
    lower.cut()
    lower.pump()
    lower.cut(off=False)
    lower.pump()
    assert lower.branch.hub.head.identity != later.service.head.identity
    tell(upper)
    for relay in (upper, lower):
        relay.pump()
    watch.step()
    assert watch.replica.at == (3, later.revision)
    watch.check()
