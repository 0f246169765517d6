"""The compiled evaluator: each setting's rules as one Python function, equal to the reference and far faster.

docs/decisions/0006-compiled-evaluation.md says how it works, docs/reference/performance-evaluation.md how fast it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any, Final, NoReturn, TypeVar

from rheostat.evaluation.compiled.logic import FALSE, TRUE, Graph, UnsupportedRuleError
from rheostat.evaluation.compiled.logic import Node as GraphNode
from rheostat.evaluation.compiled.operand import Base, LiveBase, Term, Terms, term
from rheostat.evaluation.compiled.source import Choice, Outcome, Share, compile_rules
from rheostat.evaluation.compiled.variable import SettingVariable
from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING, Dependencies, Node
from rheostat.evaluation.reference import Evaluator
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.model.condition import settings_of
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import ABSENT, Absent, Value

__all__ = ["Base", "CompiledSnapshot"]

D = TypeVar("D")

_NO_ATTRIBUTES: Final[dict[str, object]] = {}


class CompiledSnapshot:
    """Evaluates the settings of one snapshot, each compiled when it is first read.

    Gives exactly what `rheostat.evaluation.reference` gives. No method but the constructor raises. Safe from any
    thread: two that read a setting for the first time may both compile it, to the same.

    Attributes:
        snapshot: What is evaluated.
    """

    __slots__ = (
        "_dependencies",
        "_evaluations",
        "_failure",
        "_programs",
        "_reference",
        "_references",
        "snapshot",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        previous: CompiledSnapshot | None = None,
        settings: Iterable[str] = (),
        segments: Iterable[str] = (),
    ) -> None:
        """Evaluate *snapshot*.

        Args:
            snapshot: The settings and segments.
            previous: A compiled snapshot of an earlier revision, whose functions are taken over where nothing
                that they depend on has changed. None compiles everything anew.
            settings: With *previous*, the current and former names of all settings that were changed, added or
                removed since.
            segments: With *previous*, the names of all segments that were changed, added or removed since.
        """
        self.snapshot = snapshot
        # By name: the function of a setting, or its outcome where that is always the same.
        self._programs: dict[str, Any] = {}
        # What compiled settings depend on, of those that refer to anything.
        self._references: dict[str, frozenset[Node]] = {}
        self._evaluations: dict[Outcome, Evaluation] = {}
        self._dependencies = Dependencies(snapshot)
        self._reference: Evaluator | None = None
        # Made now: where it is needed, nothing can be made.
        self._failure = _failed(ABSENT, snapshot.revision)
        if previous is not None:
            self._take_over(previous, settings, segments)

    def value(
        self,
        name: str,
        context: Context | Mapping[str, object] | None = None,
        default: D | Absent = ABSENT,
        base: Base | None = None,
    ) -> Value | D | Absent:
        """Return the value of the setting *name*, or *default* when there is none. Never raises.

        Args:
            name: The setting's name or one of its aliases.
            context: The attributes; a plain dict is the fastest.
            default: What an unknown name or a context that is no mapping gives.
            base: Further layers, behind those of *context*.
        """
        try:
            # No cast and no helper: each costs a good part of the time of a read.
            program: Any = self._programs[name]
            if type(context) is dict:
                return (program(context, base) if type(program) is FunctionType else program).value  # type: ignore[no-any-return]
            if context is None:
                return (program(_NO_ATTRIBUTES, base) if type(program) is FunctionType else program).value  # type: ignore[no-any-return]
        except Exception:  # noqa: BLE001, S110 - the slow way knows what to do
            pass
        try:
            outcome = self._outcome(name, context, base)
            return default if outcome is None else outcome.value
        except Exception:  # noqa: BLE001 - the reference evaluator answers whatever the arguments hold
            try:
                return self._by_reference(name, context, default, base).value
            except Exception:  # noqa: BLE001 - the caller's stack is used up
                return default

    def evaluate(
        self,
        name: str,
        context: Context | Mapping[str, object] | None = None,
        default: Value | Absent = ABSENT,
        base: Base | None = None,
    ) -> Evaluation:
        """Return the value of the setting *name* and how it came about. Never raises.

        Args:
            name: The setting's name or one of its aliases.
            context: The attributes; a plain dict is the fastest.
            default: The value when there is none otherwise (reason ERROR). Where the caller's stack has no room left
                to make an `Evaluation`, ABSENT stands in its place.
            base: Further layers, behind those of *context*.
        """
        try:
            program = self._programs[name]
            if type(context) is dict:
                return self._evaluations[program(context, base) if type(program) is FunctionType else program]
            if context is None and type(program) is not FunctionType:
                return self._evaluations[program]
        except Exception:  # noqa: BLE001, S110 - the slow way knows what to do
            pass
        try:
            found = self._outcome(name, context, base)
            if found is not None:
                return self._evaluation(found)
        except Exception:  # noqa: BLE001, S110 - the reference evaluator answers whatever the arguments hold
            pass
        try:
            return self._by_reference(name, context, default, base)
        except Exception:  # noqa: BLE001 - the caller's stack is used up
            try:
                return _failed(default, self.snapshot.revision)
            except Exception:  # noqa: BLE001 - so far that nothing can be called any more
                return self._failure

    def prepare(self, names: Iterable[str]) -> None:
        """Compile the settings *names* now, so that no read has to. Never raises; unknown names are skipped."""
        for name in names:
            # Whoever reads what cannot be compiled now is told why.
            with suppress(Exception):
                setting = self.snapshot.setting(name)
                if setting is not None:
                    self._load(setting)

    def _outcome(
        self, name: str, context: Context | Mapping[str, object] | None, base: Base | None
    ) -> Outcome | None:
        """Return what *name* gives, compiling it at need; None when there is no such setting.

        Raises:
            Exception: Anything. The reference evaluator is to be asked.
        """
        own, further = _layers(context, base)
        program = self._programs.get(name)
        if program is None:
            setting = self.snapshot.setting(name)
            if setting is None:
                return None
            program = self._load(setting)
            # Under an alias as well.
            self._programs[name] = program
        outcome: Outcome = program(own, further) if type(program) is FunctionType else program
        return outcome

    def _evaluation(self, outcome: Outcome) -> Evaluation:
        found = self._evaluations.get(outcome)
        if found is None:
            found = self._evaluations[outcome] = Evaluation(
                value=outcome.value,
                reason=outcome.reason,
                rule_id=outcome.rule_id,
                variant=outcome.variant,
                revision=self.snapshot.revision,
                setting_revision=outcome.setting_revision,
            )
        return found

    def _by_reference(
        self,
        name: str,
        context: Context | Mapping[str, object] | None,
        default: Any,
        base: Base | None,
    ) -> Evaluation:
        if self._reference is None:
            self._reference = Evaluator(self.snapshot)
        if base is not None and (context is None or isinstance(context, (Context, Mapping))):
            context = Context(*Context.of(context).layers, *base.layers)
        return self._reference.evaluate(name, context, default)

    def _load(self, setting: Setting) -> Any:
        """Compile *setting*, unless it is, and return its function or its constant outcome."""
        program = self._programs.get(setting.name)
        if program is not None:
            return program
        try:
            references = self._references_of(setting)
            program = self._compiled(setting)
        except RecursionError:
            # Of the caller's making, and so not to be remembered.
            raise
        except Exception:  # noqa: BLE001 - it holds what is no part of the model
            references, program = frozenset(), _unsupported
        if references:
            self._references[setting.name] = references
        # After its references: `_take_over` reads them the other way round.
        self._programs[setting.name] = program
        return program

    def _references_of(self, setting: Setting) -> frozenset[Node]:
        """Return all that *setting* depends on: by the names that are written, too, which others may get."""
        found = self._dependencies.reachable(self._dependencies.direct(("setting", setting.name)))
        if not found:
            return frozenset()
        written: set[Node] = {
            ("setting", name)
            for node in (*found, ("setting", setting.name))
            for condition in self._dependencies.conditions(node)
            for name in settings_of(condition)
        }
        return frozenset(found | written)

    def _compiled(self, setting: Setting) -> Any:
        if not setting.enabled:
            off = setting.base_value if setting.off is ABSENT else setting.off
            return Outcome(off, Reason.DISABLED, setting.revision)
        otherwise = Outcome(
            setting.base_value, Reason.DEFAULT if setting.rules else Reason.STATIC, setting.revision
        )
        graph = Graph(self.snapshot, self._dependencies, self._reference_to)
        choices: list[Choice] = []
        for rule in setting.rules:
            choice = self._choice(graph, setting, rule) if rule.enabled else None
            if choice is not None:
                choices.append(choice)
                if choice.decides_always:
                    break
        if not choices:
            return otherwise
        if choices[0].decides_always:
            return choices[0].outcome
        return compile_rules(graph, choices, otherwise)

    def _choice(self, graph: Graph, setting: Setting, rule: Rule) -> Choice | None:
        """Return *rule* as nodes, or None when it never decides."""
        condition: GraphNode = TRUE
        if rule.condition is not None:
            if self._dependencies.nesting(rule.condition) > MAX_NESTING:
                return None
            condition = graph.rails(rule.condition)[0]
        if condition is FALSE:
            return None
        conditions = () if condition is TRUE else (condition,)
        match rule.outcome:
            case ValueOutcome(value):
                found: Outcome | Share = Outcome(value, Reason.TARGETING_MATCH, setting.revision, rule.id)
            case Distribution() as distribution:
                share = _share(graph, setting, rule, distribution)
                if share is None:
                    return None
                found = share
            case _:
                return None
        return Choice(conditions, found)

    def _reference_to(self, name: str) -> SettingVariable | Term:
        """Return what `setting(name)` is in a condition."""
        setting = self.snapshot.setting(name)
        if setting is None or self._dependencies.cycle(("setting", setting.name)):
            return None
        program = self._load(setting)
        if type(program) is not FunctionType:
            return term(program.value)
        return SettingVariable(setting.name, program, memo=setting.name in self._references)

    def _take_over(
        self, previous: CompiledSnapshot, settings: Iterable[str], segments: Iterable[str]
    ) -> None:
        names: set[str] = set()
        for name in settings:
            names.add(name)
            for snapshot in (previous.snapshot, self.snapshot):
                setting = snapshot.settings.get(name)
                if setting is not None:
                    names.update(setting.names)
        changed = {("setting", name) for name in names} | {("segment", name) for name in segments}
        # Copies, because another thread may be compiling into them; in this order, so that nothing is taken over
        # without what it refers to.
        programs = previous._programs.copy()
        references = previous._references.copy()
        dropped = {name for name, nodes in references.items() if not nodes.isdisjoint(changed)}
        for name in dropped:
            setting = previous.snapshot.settings.get(name)
            if setting is not None:
                names.update(setting.names)
        for name in names:
            references.pop(name, None)
            programs.pop(name, None)
        self._references = references
        self._programs = programs


def _share(graph: Graph, setting: Setting, rule: Rule, distribution: Distribution) -> Share | None:
    unit = graph.unit(distribution.algorithm, distribution.salt, distribution.unit)
    if unit is None:
        return None
    bounds: list[int] = []
    outcomes: list[Outcome] = []
    cumulative = 0
    for variant in distribution.variants:
        if not isinstance(variant, Variant) or type(variant.weight) is not int or variant.weight < 0:
            raise UnsupportedRuleError
        cumulative += variant.weight
        if variant.weight:
            bounds.append(unit.bound(cumulative))
            outcomes.append(Outcome(variant.value, Reason.SPLIT, setting.revision, rule.id, variant.name))
    # Without any weight no place is in a share.
    return Share(unit, tuple(bounds), tuple(outcomes)) if bounds else None


def _layers(
    context: Context | Mapping[str, object] | None, base: Base | None
) -> tuple[dict[str, object], Terms | None]:
    """Return the call's own layer as a dict and what stands for the layers behind it."""
    if type(context) is dict:
        return context, base
    if context is None:
        return _NO_ATTRIBUTES, base
    layers = Context.of(context).layers
    if base is not None:
        layers = (*layers, *base.layers)
    first: Any = layers[0] if layers else None
    if type(first) is dict:
        return first, LiveBase(Context(*layers[1:])) if len(layers) > 1 else None
    return _NO_ATTRIBUTES, LiveBase(Context(*layers))


def _unsupported(*_: object) -> NoReturn:
    """Stand for a setting that holds what is no part of the model."""
    raise UnsupportedRuleError


def _failed(default: Value | Absent, revision: int) -> Evaluation:
    return Evaluation(
        value=default,
        reason=Reason.ERROR,
        revision=revision,
        error_code=ErrorCode.GENERAL,
        error_message="the evaluation failed",
    )
