"""Whatever a server does and a network loses, the client equals the store: both sides are production code."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rheo.v1 import watch_pb2
from rheostat import Setting
from rheostat.errors import RheostatError, UnavailableError
from rheostat.evaluation.compile import CompiledSnapshot
from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Mutation,
    RenameSetting,
    SetValue,
    UnsetValue,
)
from rheostat.model.encoding import encode_item
from rheostat.model.value import ABSENT
from rheostat.sdk.core import Core, Hooks, Options
from rheostat.sdk.effect import CloseStream, OpenStream, Receive, Sleep
from rheostat.sdk.reader import Reader
from rheostat.sdk.subscription import SettingChange, Subscription
from tests.sdk.line import Line, Looping
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule
from tests.service.node import Node, World
from tests.thorough import examples

NAMES = ("a", "b", "c", "d")
SEGMENTS = ("beta", "staff")

names = st.sampled_from(NAMES)
numbers = st.integers(0, 3)
conditions = st.one_of(
    st.just(None),
    st.sampled_from(SEGMENTS).map(in_segment),
    st.builds(on, names, numbers),
    st.builds(equals, st.just("region"), st.sampled_from(["eu", "us"])),
)
mutations: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(put, names, st.just("int"), numbers),
    st.builds(SetValue, names, numbers),
    st.builds(UnsetValue, names),
    st.builds(DeleteSetting, names),
    st.builds(RenameSetting, names, names),
    st.builds(
        lambda name, id_, value, condition: put_rule(name, rule(id_, value, condition)),
        names,
        st.sampled_from(["r1", "r2"]),
        numbers,
        conditions,
    ),
    st.builds(DeleteRule, names, st.sampled_from(["r1", "r2"])),
    st.builds(put_segment, st.sampled_from(SEGMENTS), conditions.filter(lambda found: found is not None)),
    st.builds(DeleteSegment, st.sampled_from(SEGMENTS)),
)
commits = st.tuples(st.just("commit"), st.lists(mutations, min_size=1, max_size=2))
deliveries = st.tuples(st.just("deliver"), st.integers(1, 6))
faults = st.sampled_from(
    ["duplicate", "drop", "swap", "flip digest", "cut", "end", "beat", "compact", "generation", "go away"]
).map(lambda name: (name, 0))
local = st.one_of(
    st.tuples(st.sampled_from(["freeze", "thaw"]), st.just(0)),
    st.tuples(st.just("override"), names),
    st.tuples(st.just("clear"), names),
    st.tuples(st.just("declare"), names),
    st.just(("tell", 0)),
)
steps = st.lists(
    st.one_of(commits, commits, deliveries, deliveries, deliveries, faults, local), min_size=15, max_size=60
)

BETA = equals("region", "eu")
CONTEXTS: Sequence[dict[str, object]] = ({}, {"region": "eu"}, {"region": "us"})


class Run:
    """A node, a client's core, the messages between them, and what a subscriber of each name believes."""

    def __init__(self) -> None:
        self.world = World()
        self.node: Node = self.world.node()
        self.node.commit(*(put(name) for name in NAMES), *(put_segment(name, BETA) for name in SEGMENTS))
        self.errors: list[RheostatError] = []
        options = Options(url="http://127.0.0.1:1", hooks=Hooks(on_update_error=self.errors.append))
        self.core = Core(options, clock=self.world.clock.monotonic, randomness=random.Random(0))
        self.reader: Reader[Any] = Reader()
        self.reader._read_from(self.core, self.core.replica, (), {})
        self.believed: dict[str, object] = dict.fromkeys(NAMES, ABSENT)
        self.everything: dict[str, object] = {}
        for name in NAMES:
            self.core.subscribe(Subscription(self.reader, self._told, name))
        self.loop = self._looping()
        self.line: Line | None = None
        self.queue: list[watch_pb2.WatchResponse] = []
        self.frozen: list[Any] = []
        self.position = (0, 0)
        self.generations = 1

    def _looping(self) -> Looping:
        found = Looping.__new__(Looping)
        found.observer = self.core
        found.loop = self.core.loop()
        found.now = 0.0
        found.effect = next(found.loop)
        return found

    def close(self) -> None:
        self.world.close()

    def _told(self, change: SettingChange[Any]) -> None:
        assert change.before == self.believed[change.name] or (
            change.before is ABSENT or self.believed[change.name] is ABSENT
        ), f"{change} does not go on from {self.believed[change.name]}"
        self.believed[change.name] = change.after

    def connect(self) -> None:
        while not isinstance(self.loop.effect, Receive):
            match self.loop.effect:
                case OpenStream(request):
                    self.line = Line(self.node, request)
                    self.queue = []
                    self.loop.answer()
                case Sleep(seconds):
                    self.world.clock.seconds += seconds
                    self.loop.answer()
                case CloseStream():
                    self.line = None
                    self.queue = []
                    self.loop.answer()

    def pump(self) -> None:
        """Let the server say what it has to."""
        self.connect()
        assert self.line is not None
        self.queue.extend(self.line.messages())

    def deliver(self, count: int) -> None:
        self.pump()
        for _ in range(count):
            if not self.queue or not isinstance(self.loop.effect, Receive):
                return
            self.loop.answer(self.queue.pop(0))
            self.check()

    def check(self) -> None:
        """The state is that of the store at the client's position, which never goes back."""
        held = self.core.held
        if held.position is None:
            return
        position = (held.position.generation, held.position.revision)
        assert position >= self.position
        self.position = position
        change_sets = self.world.store.change_sets[: held.revision]
        expected = self.world.items("production", change_sets=change_sets)
        found = {key: encode_item(each.item) for key, each in held.items.items() if each.item is not None}
        assert found == expected

    def do(self, step: tuple[str, Any]) -> None:
        kind, argument = step
        replica = self.core.replica
        match kind:
            case "commit":
                with contextlib.suppress(RheostatError):
                    self.node.commit(*argument)
            case "deliver":
                self.deliver(argument)
            case "duplicate" if self.queue:
                self.queue.insert(0, self.queue[0])
            case "drop" if self.queue:
                del self.queue[0]
            case "swap" if len(self.queue) > 1:
                self.queue[0], self.queue[1] = self.queue[1], self.queue[0]
            case "flip digest" if self.queue:
                message = self.queue[0]
                which = message.WhichOneof("event")
                if which in {"delta", "bookmark", "snapshot_end"}:
                    getattr(message, which).digest ^= 1 << 63
            case "cut" if isinstance(self.loop.effect, Receive):
                self.loop.fail(UnavailableError("cut"))
            case "end" if isinstance(self.loop.effect, Receive):
                self.loop.answer(None)
            case "beat":
                self.world.clock.seconds += 15.0
                self.pump()
            case "go away":
                self.world.clock.seconds += 3600.0
                self.pump()
            case "compact":
                self.node.service.compact(self.node.revision)
            case "generation" if self.generations < 3:
                self.generations += 1
                self.node.service.raise_generation(self.node.service.head.identity.generation)
            case "freeze" if not self.frozen:
                self.frozen.append(block := replica.frozen())
                block.__enter__()
            case "thaw" if self.frozen:
                self.frozen.pop().__exit__(None, None, None)
            case "override":
                replica.override({argument: 99})
            case "clear":
                replica.clear_overrides([argument])
            case "declare":
                self.core.declare([Setting(argument, int, default=7)])
            case "tell":
                self.tell()

    def tell(self) -> None:
        for callback, arguments in self.core.dispatcher.calls():
            callback(*arguments)
        for name in NAMES:
            assert self.believed[name] == self.reader.value_in(self.core.replica.view, name), name

    def heal(self) -> None:
        """Without further faults it catches up, with what was promised for a digest that differed twice."""
        for _ in range(20):
            self.deliver(1000)
            if not self.queue and isinstance(self.loop.effect, Receive):
                self.world.clock.seconds += 15.0
                self.pump()
                if not self.queue:
                    break
        self.deliver(1000)
        assert (self.core.held.revision, self.core.held.position is None) == (self.node.revision, False)


@settings(max_examples=examples(100))
@given(steps)
def test_a_replica_equals_the_store_whatever_was_lost_doubled_or_wrong(
    sequence: list[tuple[str, Any]],
) -> None:
    run = Run()
    try:
        for step in sequence:
            run.do(step)
        for block in run.frozen:
            block.__exit__(None, None, None)
        run.heal()
        run.tell()
        run.core.replica.clear_overrides()
        run.tell()
        # What is read is what the server itself would answer, in every context.
        server = CompiledSnapshot(run.node.service.view("default", "production").snapshot)
        for name in NAMES:
            for context in CONTEXTS:
                assert run.reader.get(name, None, context) == server.value(name, context, None)
    finally:
        run.close()
