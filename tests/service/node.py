"""Nodes over a store in memory whose clocks, randomness and losses a test decides."""

from __future__ import annotations

import copy
import datetime
import hashlib
import itertools
import threading
from collections.abc import Sequence
from typing import Any

from rheo.v1 import watch_pb2
from rheostat.evaluation.narrow import narrow
from rheostat.model.change import ChangeSet, Mutation, PutEnvironment
from rheostat.model.encoding import encode_item
from rheostat.model.position import Filter, Position
from rheostat.model.snapshot import Snapshot
from rheostat.model.watch import WatchEvent
from rheostat.service import Outcome, Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.watch import Step, WatchOptions, WatchSession
from rheostat.store.memory import MemoryStore
from rheostat.wire.event import EventEncoder
from tests.service.replica import Replica

__all__ = ["NOBODY", "Clock", "Node", "Randomness", "Watch", "World"]

NOBODY = Writer(OPEN)
"""Who writes when it does not matter."""

PROJECT = "default"
PRODUCTION = "production"


class Clock:
    """Both clocks of a node; only a test moves them."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.started = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return self.started + datetime.timedelta(seconds=self.seconds)


class Randomness:
    """Gives bytes that differ at each call and are the same in each run."""

    def __init__(self) -> None:
        self._calls = itertools.count()

    def __call__(self, size: int) -> bytes:
        return hashlib.shake_256(str(next(self._calls)).encode()).digest(size)


class SharedStore(MemoryStore):
    """A store that several nodes use as if each were a process of its own, and that can lose history.

    The tails of the nodes are never woken, so that a test decides when a node reads.
    """

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        super().__init__(clock=clock.now, randomness=randomness)
        self._ended = threading.Event()

    def wait_hint(self, timeout: float) -> bool:
        self._ended.wait()
        return False

    def close(self) -> None:
        """A node closes its store; the others go on with theirs."""

    def wake(self) -> None:
        """Let the tails go on, so that they can end."""
        self._ended.set()

    def backup(self) -> dict[str, Any]:
        """A copy of the file."""
        names = ("_identity", "_floor", "_rule_number", "_change_sets", "_items", "_requests")
        return {name: copy.copy(getattr(self, name)) for name in names}

    def restore(self, backup: dict[str, Any]) -> None:
        """Put a copy of the file in its place, by hand and behind everybody's back."""
        for name, content in backup.items():
            setattr(self, name, copy.copy(content))

    @property
    def change_sets(self) -> list[ChangeSet]:
        return list(self._change_sets)


class World:
    """A store with its nodes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.randomness = Randomness()
        self.store = SharedStore(self.clock, self.randomness)
        self._nodes: list[Node] = []

    def node(self, **options: Any) -> Node:
        """Start another node."""
        service = Service(
            self.store,
            clock=self.clock.now,
            monotonic=self.clock.monotonic,
            randomness=self.randomness,
            **options,
        )
        node = Node(self, service.start())
        self._nodes.append(node)
        return node

    def close(self) -> None:
        self.store.wake()
        for node in self._nodes:
            node.service.close()

    def items(
        self, environment: str, filter_: Filter | None = None, change_sets: Sequence[ChangeSet] | None = None
    ) -> dict[tuple[str, str], str]:
        """What a watcher holds after *change_sets* (all, by default), from the history alone."""
        held: dict[tuple[str, str], Any] = {}
        for change_set in self.store.change_sets if change_sets is None else change_sets:
            for change in change_set.changes:
                if change.kind == "segment" or (change.kind, change.environment) == ("setting", environment):
                    held[change.kind, change.key] = change.after
        items = {key: item for key, item in held.items() if item is not None}
        filter_ = filter_ or Filter()
        if filter_.tracked:
            whole = Snapshot.of(
                (item for (kind, _), item in items.items() if kind == "setting"),
                (item for (kind, _), item in items.items() if kind == "segment"),
            )
            narrowed = narrow(whole, dict(filter_.tracked)).settings
        if filter_.names or filter_.prefixes:
            wanted = _closure(items, filter_)
            items = {key: item for key, item in items.items() if key[0] == "segment" or key[1] in wanted}
        if filter_.tracked:
            items = {key: narrowed[key[1]] if key[0] == "setting" else item for key, item in items.items()}
        return {key: encode_item(item) for key, item in items.items()}


def _closure(items: dict[tuple[str, str], Any], filter_: Filter) -> set[str]:
    """The settings that a filter lets through, found by repeating until nothing is added."""
    settings = {name: item for (kind, name), item in items.items() if kind == "setting"}
    current = {name: setting.name for setting in settings.values() for name in setting.names}
    names = {name for name in settings if name in filter_.names or name.startswith(filter_.prefixes)}
    names |= {current[name] for name in filter_.names if name in current}
    while True:
        texts = [encode_item(settings[name]) for name in names]
        segments: set[str] = set()
        while True:
            found = {
                name
                for (kind, name) in items
                if kind == "segment" and any(f'{{"segment":"{name}"}}' in text for text in texts)
            }
            if found <= segments:
                break
            segments |= found
            texts += [encode_item(items["segment", name]) for name in found]
        more = {current[name] for name in current if any(f'{{"setting":"{name}"}}' in text for text in texts)}
        if more <= names:
            return names
        names |= more


class Node:
    """One node."""

    def __init__(self, world: World, service: Service) -> None:
        self.world = world
        self.service = service

    def commit(self, *mutations: Mutation, environment: str = PRODUCTION, **options: Any) -> Outcome:
        return self.service.commit(NOBODY, PROJECT, environment, mutations, **options)

    def add_environment(self, slug: str) -> None:
        self.commit(PutEnvironment(slug), environment="")

    def watch(self, replica: Replica | None = None, **options: Any) -> Watch:
        return Watch(self, replica or Replica(), **options)

    @property
    def revision(self) -> int:
        return self.service.head.revision

    def token(self, position: Position) -> bytes:
        """A token that this store has made."""
        return position.token(self.service.head.identity.token_key)


class Watch:
    """An open watch: a session on a node, its messages, and the replica that they lead to."""

    def __init__(
        self,
        node: Node,
        replica: Replica,
        *,
        environment: str = PRODUCTION,
        filter_: Filter | None = None,
        resume: bytes | None = None,
        **options: Any,
    ) -> None:
        self.node = node
        self.replica = replica
        self.environment = environment
        self.filter = filter_ or Filter()
        replica.connect()
        self.session: WatchSession = node.service.watch(
            WatchOptions(
                project=PROJECT,
                environment=environment,
                resume=replica.token if resume is None else resume,
                filter=self.filter,
                **options,
            )
        )
        self.done = False
        self.messages: list[watch_pb2.WatchResponse] = []

    def step(self) -> Step:
        """Step once and let the replica apply what was sent."""
        step = self.session.step(self.node.world.clock.monotonic())
        encoder = EventEncoder(self.node.service.head.identity.token_key, lambda message: message)
        for event in step.events:
            self._send(encoder, event)
        self.done = step.done
        return step

    def _send(self, encoder: EventEncoder[watch_pb2.WatchResponse], event: WatchEvent) -> None:
        for message in encoder.encode(event, self.session.whole):
            self.messages.append(message)
            self.replica.feed(message.SerializeToString())

    def opened(self) -> Watch:
        """Step until the stream has begun, and return the watch."""
        self.step()
        assert self.replica.hello is not None
        return self

    @property
    def mode(self) -> str:
        assert self.replica.hello is not None
        return watch_pb2.WatchMode.Name(self.replica.hello.mode).removeprefix("WATCH_MODE_")

    @property
    def reason(self) -> str:
        assert self.replica.hello is not None
        return watch_pb2.SnapshotReason.Name(self.replica.hello.reason).removeprefix("SNAPSHOT_REASON_")

    def check(self) -> None:
        """Compare what the replica holds with what the history says."""
        _, revision = self.replica.at
        change_sets = self.node.world.store.change_sets[:revision]
        assert self.replica.items == self.node.world.items(self.environment, self.filter, change_sets)
