"""For any sequence of change-sets and any resume points, a watcher's state equals the store's."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rheostat.errors import PermissionDeniedError, RheostatError
from rheostat.evaluation.reference import Evaluator
from rheostat.model.change import (
    ChangeSet,
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Mutation,
    PutEnvironment,
    PutRule,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import Condition
from rheostat.model.encoding import decode_item
from rheostat.model.position import Filter
from rheostat.model.rule import Rule
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from tests.service.book import both, equals, in_segment, on, put_segment, split
from tests.service.book import rule as plain_rule
from tests.service.node import NOBODY, PROJECT, Node, Watch, World
from tests.service.replica import Replica
from tests.thorough import examples

NAMES = ("a", "b", "ab", "c", "d")
SEGMENTS = ("s", "t")
ENVIRONMENTS = ("production", "staging")
FILTERS = (
    Filter(),
    Filter(names=("a",)),
    Filter(names=("b", "missing")),
    Filter(prefixes=("a",)),
    Filter(names=("c",), prefixes=("d",)),
    Filter(tracked=(("region", ("us",)),)),
    Filter(names=("a",), tracked=(("region", ("ap", "eu")), ("user.id", ("1",)))),
)

names = st.sampled_from(NAMES)
environments = st.sampled_from(("production", "production", "staging", "other"))
conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(equals, st.sampled_from(["region", "user.id"]), st.sampled_from(["eu", 1])),
    names.map(on),
    st.sampled_from(SEGMENTS).map(in_segment),
    st.builds(lambda name, segment: both(on(name), in_segment(segment)), names, st.sampled_from(SEGMENTS)),
    st.builds(
        lambda region, segment: both(equals("region", region), in_segment(segment)),
        st.sampled_from(["eu", "us"]),
        st.sampled_from(SEGMENTS),
    ),
)


def put_setting(name: str, value: int, environment: str) -> PutSetting:
    return PutSetting(name, {"type": "int", "default": value}, environment)


def put_aliases(name: str, aliases: list[str], environment: str) -> PutSetting:
    return PutSetting(name, {"aliases": tuple(aliases)}, environment)


def put_rule(name: str, id_: str, condition: Condition | None, environment: str) -> PutRule:
    return PutRule(name, plain_rule(id_, 5, condition), environment=environment)


def put_split(name: str, environment: str) -> PutRule:
    return PutRule(name, Rule("d", split(40_000, 60_000)), environment=environment)


def delete_rule(name: str, environment: str) -> DeleteRule:
    return DeleteRule(name, "r", environment)


mutations: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(put_setting, names, st.integers(0, 3), environments),
    st.builds(put_aliases, names, st.lists(names, max_size=1), environments),
    st.builds(RenameSetting, names, names, environments),
    st.builds(DeleteSetting, names, environments),
    st.builds(SetValue, names, st.integers(0, 3), environments),
    st.builds(UnsetValue, names, environments),
    st.builds(put_rule, names, st.sampled_from(["", "r"]), st.none() | conditions, environments),
    st.builds(put_split, names, environments),
    st.builds(delete_rule, names, environments),
    st.builds(put_segment, st.sampled_from(SEGMENTS), conditions),
    st.builds(DeleteSegment, st.sampled_from(SEGMENTS)),
    st.builds(SetFeatures, st.sampled_from([(), ("region",)])),
    st.builds(PutEnvironment, st.sampled_from(["staging", "other"])),
)


rewirings = st.lists(
    st.one_of(
        st.builds(put_rule, names, st.just("r"), names.map(on), st.just("production")),
        st.builds(put_rule, names, st.just("r"), st.just(in_segment("s")), st.just("production")),
        st.builds(put_segment, st.just("s"), names.map(on)),
        st.builds(put_aliases, names, st.lists(names, max_size=1), st.just("production")),
        st.builds(RenameSetting, names, names, st.just("production")),
        st.builds(delete_rule, names, st.just("production")),
        st.builds(SetValue, names, st.integers(0, 3), st.just("production")),
    ),
    min_size=1,
    max_size=4,
)


def contexts_of(filter_: Filter) -> Iterator[dict[str, object]]:
    """Contexts in which each tracked attribute is one of its values."""
    for chosen in itertools.product(*(values for _, values in filter_.tracked)):
        known = {path: value for (path, _), value in zip(filter_.tracked, chosen, strict=True)}
        yield from ({"user.id": 1, **known}, known)


def evaluated(items: dict[tuple[str, str], str], context: dict[str, object]) -> dict[str, tuple[object, ...]]:
    """What each setting among *items* is, and why."""
    held = {key: decode_item(key[0], text) for key, text in items.items()}
    settings_ = [item for item in held.values() if isinstance(item, Setting)]
    evaluator = Evaluator(
        Snapshot.of(settings_, (item for item in held.values() if isinstance(item, Segment)))
    )
    results = {setting.name: evaluator.evaluate(setting.name, context) for setting in settings_}
    return {name: (r.value, r.reason, r.rule_id, r.variant) for name, r in results.items()}


@dataclass
class Client:
    """A watcher: what it holds, what it asks for, and its stream while it is connected."""

    environment: str
    filter: Filter
    replica: Replica = field(default_factory=Replica)
    watch: Watch | None = None


class Watching(RuleBasedStateMachine):
    """Two nodes of one store, and clients that come and go between them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.nodes = [self.world.node(), self.world.node()]
        # What the history was in each generation: a node may still serve one that was lost.
        self.lives: dict[int, list[ChangeSet]] = {}
        self.clients: list[Client] = []
        self.backup: dict[str, Any] | None = None

    def teardown(self) -> None:
        try:
            self.converge()
        finally:
            self.world.close()

    @initialize()
    def begin(self) -> None:
        self.nodes[0].add_environment("staging")
        for slug in ENVIRONMENTS:
            self.nodes[0].commit(*(put_setting(name, 0, slug) for name in NAMES[:3]))
        self.record()
        self.clients = [Client("production", filter_) for filter_ in FILTERS]
        self.clients.append(Client("staging", Filter()))
        for who in range(len(self.clients)):
            self.connect(who, who % 2, "")

    def record(self) -> None:
        self.lives[self.world.store.identity().generation] = self.world.store.change_sets

    @rule(node=st.integers(0, 1), wanted=st.lists(mutations, min_size=1, max_size=4))
    def commit(self, node: int, wanted: list[Mutation]) -> None:
        with contextlib.suppress(RheostatError):
            self.nodes[node].commit(*wanted)
        self.record()

    @rule(node=st.integers(0, 1), wanted=rewirings, followed=st.booleans())
    def rewire(self, node: int, wanted: list[Mutation], *, followed: bool) -> None:
        """Change what settings refer to, each on its own, with and without the watchers looking between."""
        for mutation in wanted:
            self.commit(node, [mutation])
            for client in self.clients if followed else ():
                self.step_of(client)

    @rule(node=st.integers(0, 1), back=st.integers(0, 6), alone=st.booleans())
    def revert(self, node: int, back: int, alone: bool) -> None:
        revision = max(2, self.world.store.revision() - back)
        with contextlib.suppress(RheostatError):
            self.nodes[node].service.revert(
                NOBODY, PROJECT, **{"revision" if alone else "to_revision": revision}
            )
        self.record()

    @rule(
        who=st.integers(0, 15),
        node=st.integers(0, 1),
        how=st.sampled_from(["", "", "", "resnapshot", "bad token"]),
    )
    def connect(self, who: int, node: int, how: str) -> None:
        client = self.clients[who % len(self.clients)]
        if how == "bad token":
            # Nothing but the token keeps a client from going back, so this one starts anew.
            client.replica = Replica()
        held = client.replica.position
        watch = client.watch = self.nodes[node].watch(
            client.replica,
            environment=client.environment,
            filter_=client.filter,
            resume=b"bad token" if how == "bad token" else None,
            resnapshot=how == "resnapshot",
        )
        self.step_of(client)
        if client.watch is not None and how:
            assert watch.mode == "SNAPSHOT"
        if client.watch is not None and not how:
            assert (watch.reason == "NEW") == (held is None)
        self.record()

    @rule(node=st.integers(0, 1))
    def return_(self, node: int) -> None:
        """All who are away come back at once."""
        for who, client in enumerate(self.clients):
            if client.watch is None:
                self.connect(who, node, "")

    @rule(who=st.integers(0, 15))
    def leave_a_copy_behind(self, who: int) -> None:
        """Another client that stands where this one does now, and comes back later."""
        client = self.clients[who % len(self.clients)]
        if len(self.clients) < 16:
            self.clients.append(Client(client.environment, client.filter, copy.deepcopy(client.replica)))

    @rule(who=st.integers(0, 15), seconds=st.sampled_from([0, 0, 1, 15, 2_000]))
    def step(self, who: int, seconds: float) -> None:
        self.world.clock.seconds += seconds
        self.step_of(self.clients[who % len(self.clients)])

    def step_of(self, client: Client) -> None:
        watch = client.watch
        if watch is None:
            return
        held = client.replica.position
        deltas = client.replica.events.count("delta")
        try:
            watch.step()
        except PermissionDeniedError:
            # The environment's making was reverted, or never was.
            client.watch = None
            return
        self.check(client)
        if client.replica.events.count("delta") > deltas and held is not None:
            self.check_chain(client, held.revision)
        if watch.done:
            client.watch = None

    @rule(node=st.integers(0, 1))
    def read(self, node: int) -> None:
        self.nodes[node].service.catch_up()

    @rule(node=st.integers(0, 1), back=st.integers(0, 8))
    def compact(self, node: int, back: int) -> None:
        self.nodes[node].service.compact(self.world.store.revision() - back)

    @rule(node=st.integers(0, 1))
    def restart(self, node: int) -> None:
        for client in self.clients:
            if client.watch is not None and client.watch.node is self.nodes[node]:
                client.watch = None
        self.nodes[node] = self.world.node()

    @rule()
    def back_up(self) -> None:
        self.backup = self.world.store.backup()

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        for node in self.nodes:
            node.service.catch_up()
        self.record()
        assert self.backup is not None
        self.world.store.restore(self.backup)
        for node in self.nodes:
            node.service.catch_up()
        self.record()

    @invariant()
    def revisions_are_gapless(self) -> None:
        revisions = [change_set.revision for change_set in self.world.store.change_sets]
        assert revisions == list(range(1, len(revisions) + 1))

    def check(self, client: Client) -> None:
        """Its state is that of the store at its position, as the history alone tells."""
        if client.replica.position is None:
            return
        generation, revision = client.replica.at
        expected = self.world.items(client.environment, client.filter, self.lives[generation][:revision])
        assert client.replica.items == expected
        if client.filter.tracked:
            whole = self.world.items(
                client.environment,
                replace(client.filter, tracked=()),
                self.lives[generation][:revision],
            )
            for context in contexts_of(client.filter):
                assert evaluated(client.replica.items, context) == evaluated(whole, context)

    def check_chain(self, client: Client, held: int) -> None:
        """The last delta begins at the scope's last change before the oldest one that it contains."""
        delta = client.replica.last_delta
        if client.filter or delta is None or client.replica.position is None:
            return
        if delta.position.token != client.replica.position.token:
            return
        history = self.lives[delta.position.generation]
        touching = [
            change_set.revision
            for change_set in history[: delta.position.revision]
            if any(
                change.kind == "segment"
                or (change.kind, change.environment) == ("setting", client.environment)
                for change in change_set.changes
            )
        ]
        made = max(
            change_set.revision
            for change_set in history
            if any(
                (c.kind, c.key, c.before) == ("environment", client.environment, None)
                for c in change_set.changes
            )
        )
        contained = [revision for revision in touching if revision > held]
        before = max((revision for revision in touching if revision < contained[0]), default=0)
        assert delta.coalesced == (len(contained) > 1)
        # A node goes on with the floor that it has read, also when a copy of the file with a lower one is put in place.
        floors = [node.service.head.floor for node in self.nodes]
        if before > max(self.world.store.load().floor, made, *floors):
            assert delta.from_revision == before

    def converge(self) -> None:
        """Whoever comes back to any node has the newest state; so have those who stayed."""
        for node in self.nodes:
            node.service.catch_up()
        self.record()
        self.nodes.append(self.world.node())
        for i, client in enumerate(self.clients):
            self.step_of(client)
            node: Node = self.nodes[i % 3]
            if (PROJECT, client.environment) not in node.service.head.views:
                continue
            for stay in (True, False):
                if not stay or client.watch is None:
                    client.watch = node.watch(
                        client.replica, environment=client.environment, filter_=client.filter
                    )
                    self.step_of(client)
                assert client.replica.items == self.world.items(client.environment, client.filter)


@pytest.mark.hypothesis
def test_a_watcher_s_state_always_equals_the_store_s() -> None:
    run_state_machine_as_test(
        Watching,
        settings=settings(
            max_examples=examples(25),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )
