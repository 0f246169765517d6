"""Whatever is declared and edited in whatever order: values fit their types, and no name is lost."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rheostat.errors import RheostatError
from rheostat.evaluation import Context
from rheostat.model.change import (
    DeleteRule,
    DeleteSetting,
    Mutation,
    PutRule,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import segments_of, settings_of
from rheostat.model.declaration import Declaration, DeclarationOutcome, DifferenceLevel
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind
from rheostat.model.position import Filter
from rheostat.model.rule import Rule, ValueOutcome, outcome_values
from rheostat.model.setting import Lifecycle, Order, Setting, Version
from rheostat.model.type import normalise, parse_type
from rheostat.model.value import ABSENT, FrozenMapping, Value, freeze, same
from rheostat.service import Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.schema import validate_schema
from rheostat.service.service import DeclarationsOutcome
from tests.service.book import both, equals, in_segment, on, put_segment, split
from tests.service.node import PROJECT, Node, World
from tests.thorough import examples

ENVIRONMENT = "production"
NAMES = ("a", "b", "c", "d")
FEATURES = ("region", "tenant")
SILENT = Principal(Key("0123456789abcdef", KeyKind.SERVER, bytes(32), PROJECT, declare=False))

VALUES: dict[str, tuple[object, ...]] = {
    "bool": (False, True),
    "int": (0, 1, 5),
    "float": (0, 1, 2.5),
    "str": ("", "x", "y"),
    'Enum["x"]': ("x",),
    'Enum["x","y"]': ("x", "y"),
    "Enum[1,5]": (1, 5),
    'Flags["x","y"]': ([], ["x"], ["y", "x"]),
    "Sequence<int>": ([], [1], [1, 5]),
    "Sequence<float>": ([], [1, 2.5]),
    "Json": (None, 0, 1, True, "x", [1], {"k": 2.5}),
    'Json[{"maximum":1}]': (0, 1, "x"),
}
"""Types, and values of them: many are values of other types too."""

names = st.sampled_from(NAMES)
any_value: st.SearchStrategy[Value] = st.sampled_from(
    [freeze(value) for values in VALUES.values() for value in values]
)
features = st.sampled_from([None, (), ("region",), ("tenant",), ("region", "tenant")])
conditions = st.none() | st.one_of(
    st.builds(equals, st.sampled_from(FEATURES), st.sampled_from(["x", 1])),
    names.map(on),
    st.just(in_segment("s")),
    st.builds(both, names.map(on), st.builds(equals, st.sampled_from(FEATURES), st.just(1))),
)


@st.composite
def declarations(draw: st.DrawFn) -> Declaration:
    type_ = draw(st.sampled_from(list(VALUES)))
    name = draw(names)
    aliases = draw(st.lists(names.filter(lambda alias: alias != name), unique=True, max_size=1))
    return Declaration(
        name,
        parse_type(type_),
        freeze(draw(st.sampled_from(VALUES[type_]))),
        Version(draw(st.integers(1, 3)), draw(st.integers(0, 2))),
        tuple(aliases),
        draw(features),
        FrozenMapping(draw(st.sampled_from([{}, {"k": 1}, {"k": True}]))),
        draw(st.sampled_from(["", "said by code"])),
    )


def put_rule(name: str, id_: str, value: Value, condition: object, *, enabled: bool) -> PutRule:
    return PutRule(name, Rule(id_, ValueOutcome(value), condition, enabled=enabled))  # type: ignore[arg-type]


def put_split(name: str, first: Value, second: Value) -> PutRule:
    return PutRule(name, Rule("d", split(40_000, 60_000, unit="tenant", values=(first, second))))


edits: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(put_rule, names, st.sampled_from(["q", "r"]), any_value, conditions, enabled=st.booleans()),
    st.builds(put_split, names, any_value, any_value),
    st.builds(DeleteRule, names, st.sampled_from(["d", "q", "r"])),
    st.builds(SetValue, names, any_value),
    st.builds(UnsetValue, names),
    st.builds(lambda name, off: PutSetting(name, {"off": off}), names, any_value),
    st.builds(lambda name, order: PutSetting(name, {"order": order}), names, st.sampled_from(Order)),
    st.builds(lambda name, stage: PutSetting(name, {"lifecycle": stage}), names, st.sampled_from(Lifecycle)),
    st.builds(lambda name: PutSetting(name, {"type": "int", "default": 0}), names),
    st.builds(RenameSetting, names, names),
    st.builds(DeleteSetting, names),
    st.builds(put_segment, st.just("s"), conditions.filter(lambda found: found is not None)),
    st.builds(SetFeatures, st.sampled_from([FEATURES, ("region",), ("tenant", "region")])),
)

CHANGING = (DeclarationOutcome.CREATED, DeclarationOutcome.UPGRADED)


class Declaring(RuleBasedStateMachine):
    """An environment that code declares in, and operators write in."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.node: Node = self.world.node()
        self.requests = itertools.count()
        self.sent: list[tuple[str, list[Declaration], DeclarationsOutcome]] = []
        # By identity: every name that its clients have ever known.
        self.known: dict[str, set[str]] = {}

    def teardown(self) -> None:
        self.world.close()

    @initialize()
    def begin(self) -> None:
        self.node.commit(SetFeatures(FEATURES), put_segment("s", equals("region", "x")))

    def held(self) -> dict[str, Setting]:
        return dict(self.node.service.view(PROJECT, ENVIRONMENT).snapshot.settings)

    def found(self, name: str) -> Setting | None:
        return self.node.service.view(PROJECT, ENVIRONMENT).snapshot.setting(name)

    def declare(
        self, batch: list[Declaration], request_id: str = "", principal: Principal = OPEN
    ) -> DeclarationsOutcome:
        writer = Writer(principal, request_id=request_id, payload=request_id.encode())
        return self.node.service.declare(writer, PROJECT, ENVIRONMENT, batch)

    @rule(batch=st.lists(declarations(), min_size=1, max_size=4))
    def declare_batch(self, batch: list[Declaration]) -> None:
        before = {name: setting for setting in self.held().values() for name in setting.names}
        revision = self.node.revision
        forbidden = self.declare(batch, principal=SILENT)
        assert self.node.revision == revision
        request_id = f"r{next(self.requests)}"
        outcome = self.declare(batch, request_id)
        if outcome.revision > revision:
            self.sent.append((request_id, batch, outcome))
        for declaration, result, denied in zip(batch, outcome.results, forbidden.results, strict=True):
            # Without the permission the answer is the same, but for what would have changed.
            if result.outcome in CHANGING:
                assert denied.outcome is DeclarationOutcome.DENIED
                assert denied.differences == result.differences
            else:
                assert denied == result
            self.check_answer(declaration, result.outcome, before)
            if result.outcome is DeclarationOutcome.UPGRADED:
                assert result.stored_version is not None
                assert declaration.version > result.stored_version
                levels = {difference.level for difference in result.differences}
                assert DifferenceLevel.MISMATCH not in levels
                assert (
                    DifferenceLevel.MAJOR not in levels
                    or declaration.version.major > result.stored_version.major
                )
        changed = [result for result in outcome.results if result.outcome in CHANGING]
        if not changed and all(setting.declared for setting in before.values()):
            assert self.node.revision == revision

    def check_answer(
        self, declaration: Declaration, outcome: DeclarationOutcome, before: dict[str, Setting]
    ) -> None:
        now = self.found(declaration.name)
        if outcome in CHANGING:
            assert now is not None
            assert now.declared
            (again,) = self.declare([declaration]).results
            assert (again.outcome, again.differences) == (DeclarationOutcome.UP_TO_DATE, ())
            assert set(declaration.aliases) <= set(now.names)
        if outcome is DeclarationOutcome.CREATED:
            assert not {declaration.name, *declaration.aliases} & before.keys()
        if outcome is DeclarationOutcome.UPGRADED:
            assert now is not None
            assert now.name == declaration.name
            old = next(before[name] for name in (declaration.name, *declaration.aliases) if name in before)
            assert now.id == old.id
            assert set(now.names) >= set(old.names)
            # What is not declared is left alone, but for the form of values.
            assert [each.id for each in now.rules] == [each.id for each in old.rules]
            assert (now.value is ABSENT, now.off is ABSENT) == (old.value is ABSENT, old.off is ABSENT)
            assert (now.order, now.enabled, now.lifecycle) == (old.order, old.enabled, old.lifecycle)

    @rule(declaration=declarations())
    def declare_what_is_refused(self, declaration: Declaration) -> None:
        """Declare one alone; unless it is accepted, its setting stays as it was."""
        before = self.held()
        (result,) = self.declare([declaration]).results
        if result.outcome not in CHANGING:
            now = self.held()
            assert now.keys() == before.keys()
            for name, setting in now.items():
                kept = replace(setting, revision=0, declared=True, description="")
                was = replace(before[name], revision=0, declared=True, description="")
                assert encode_item(kept) == encode_item(was)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        request_id, batch, first = data.draw(st.sampled_from(self.sent))
        revision = self.node.revision
        assert self.declare(batch, request_id) == replace(first, replayed=True)
        assert self.node.revision == revision

    @rule(wanted=st.lists(edits, min_size=1, max_size=3))
    def edit(self, wanted: list[Mutation]) -> None:
        with contextlib.suppress(RheostatError):
            self.node.commit(*wanted)

    @invariant()
    def every_value_fits_its_type(self) -> None:
        for setting in self.held().values():
            values = [setting.default, setting.value, setting.off]
            values += [value for each in setting.rules for value in outcome_values(each.outcome)]
            for value in values:
                if value is not ABSENT:
                    assert same(normalise(setting.type, value), value)
                    validate_schema(setting.type, value)

    @invariant()
    def every_name_is_of_one_setting_and_no_reference_dangles(self) -> None:
        held = self.held()
        taken = [name for setting in held.values() for name in setting.names]
        assert len(set(taken)) == len(taken)
        segments = self.node.service.head.state.projects[PROJECT].segments
        conditions_ = [each.condition for setting in held.values() for each in setting.rules]
        for condition in conditions_:
            if condition is not None:
                assert settings_of(condition) <= set(taken)
                assert segments_of(condition) <= segments.keys()

    @invariant()
    def no_name_that_a_client_knows_is_lost(self) -> None:
        view = self.node.service.view(PROJECT, ENVIRONMENT)
        here = {setting.id: setting for setting in view.snapshot.settings.values()}
        for id_ in [id_ for id_ in self.known if id_ not in here]:
            # Deleted by an operator.
            del self.known[id_]
        for id_, setting in here.items():
            known = self.known.setdefault(id_, set())
            for name in known:
                found = view.snapshot.setting(name)
                assert found is not None
                assert found.id == id_
                context = Context({"region": "x", "tenant": 1})
                by_old = self.node.service.evaluate(PROJECT, ENVIRONMENT, name, context)
                by_new = self.node.service.evaluate(PROJECT, ENVIRONMENT, setting.name, context)
                assert same(by_old.value, by_new.value)
                # Also for a client that asked for nothing but the old name.
                scope = view.scope(Filter(names=(name,)))
                assert ("setting", setting.name) in {(e.kind, e.key) for e in scope.content.entries}
            known |= set(setting.names)


TestDeclaring = Declaring.TestCase
TestDeclaring.settings = settings(
    max_examples=examples(30),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
