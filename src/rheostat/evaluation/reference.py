"""The reference evaluator: slow and plain, it reads like docs/reference/evaluation.md.

It is the executable specification. Whatever computes the same faster is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping

from rheostat.evaluation.bucket import bucket, unit_text
from rheostat.evaluation.comparison import compare
from rheostat.evaluation.context import Context, ContextValue, normalise
from rheostat.evaluation.dependency import MAX_NESTING, Dependencies
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.evaluation.truth import Truth, all_of, any_of, negate
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Percentage,
    SegmentReference,
    SettingReference,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import ABSENT, Absent, Value

__all__ = ["Evaluator", "Run", "evaluate", "holds"]


def evaluate(
    snapshot: Snapshot,
    name: str,
    context: Context | Mapping[str, object] | None = None,
    default: Value | Absent = ABSENT,
) -> Evaluation:
    """Return the value of the setting *name* for *context*. Never raises, whatever the arguments hold.

    Args:
        snapshot: The settings and segments.
        name: The setting's name or one of its aliases.
        context: The attributes, in layers or as one mapping.
        default: The value when there is none otherwise (reason ERROR).
    """
    return Evaluator(snapshot).evaluate(name, context, default)


def holds(
    snapshot: Snapshot, condition: Condition, context: Context | Mapping[str, object] | None = None
) -> Truth:
    """Return what *condition* is for *context*. Never raises."""
    return Evaluator(snapshot).holds(condition, context)


class Evaluator:
    """Evaluates the settings of one snapshot, and remembers how they refer to each other.

    Safe from any thread.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Evaluate *snapshot*."""
        self.snapshot = snapshot
        self.dependencies = Dependencies(snapshot)

    def evaluate(
        self,
        name: str,
        context: Context | Mapping[str, object] | None = None,
        default: Value | Absent = ABSENT,
    ) -> Evaluation:
        """Return the value of the setting *name* for *context*; see the function `evaluate`."""
        try:
            setting = self.snapshot.setting(name)
            if setting is None:
                return self._error(default, ErrorCode.FLAG_NOT_FOUND, f"no setting is called {name!r}")
            try:
                run = Run(self, Context.of(context))
            except TypeError as exc:
                return self._error(default, ErrorCode.INVALID_CONTEXT, str(exc))
            return run.evaluate(setting)
        except Exception as exc:  # noqa: BLE001 - a read never raises
            return self._error(default, ErrorCode.GENERAL, f"the evaluation failed: {type(exc).__name__}")

    def holds(self, condition: Condition, context: Context | Mapping[str, object] | None = None) -> Truth:
        """Return what *condition* is for *context*. Never raises."""
        try:
            return Run(self, Context.of(context)).holds(condition)
        except Exception:  # noqa: BLE001 - what cannot be told is UNKNOWN
            return Truth.UNKNOWN

    def _error(self, default: Value | Absent, code: ErrorCode, message: str) -> Evaluation:
        return Evaluation(
            value=default,
            reason=Reason.ERROR,
            revision=self.snapshot.revision,
            error_code=code,
            error_message=message,
        )


class Run:
    """One evaluation: a snapshot, a context, and what was already found out about the two.

    For one thread. The public methods may raise RecursionError when the caller's stack is nearly used up.
    """

    def __init__(self, evaluator: Evaluator, context: Context) -> None:
        """Evaluate settings of *evaluator* for *context*."""
        self.context = context
        self._snapshot = evaluator.snapshot
        self._dependencies = evaluator.dependencies
        # Segments and settings have one value for one context, however often they are referred to.
        self._segments: dict[str, Truth] = {}
        self._settings: dict[str, ContextValue | Absent] = {}
        # How many references to settings are being followed.
        self._references = 0

    def evaluate(self, setting: Setting) -> Evaluation:
        """Return the value of *setting* and how it came about."""
        if not setting.enabled:
            off = setting.base_value if setting.off is ABSENT else setting.off
            return self._evaluation(setting, off, Reason.DISABLED)
        for rule in setting.rules:
            decided = self.decide(setting, rule)
            if decided is not None:
                return decided
        reason = Reason.DEFAULT if setting.rules else Reason.STATIC
        return self._evaluation(setting, setting.base_value, reason)

    def decide(self, setting: Setting, rule: Rule) -> Evaluation | None:
        """Return the evaluation when *rule* decides it, or None when the next rule is to be tried."""
        if not rule.enabled or self.rule_truth(rule) is not Truth.TRUE:
            return None
        match rule.outcome:
            case ValueOutcome(value):
                return self._evaluation(setting, value, Reason.TARGETING_MATCH, rule)
            case Distribution() as distribution:
                variant = self.variant(distribution)
                if variant is not None:
                    return self._evaluation(setting, variant.value, Reason.SPLIT, rule, variant)
            case _:
                pass
        return None

    def rule_truth(self, rule: Rule) -> Truth:
        """Return what the condition of *rule* is; TRUE without one. A condition that fails is UNKNOWN."""
        if rule.condition is None:
            return Truth.TRUE
        try:
            return self.holds(rule.condition)
        except RecursionError:
            # Of a setting that is referred to, nobody knows the value now: the rule that asks is UNKNOWN.
            if self._references:
                raise
            return Truth.UNKNOWN
        except Exception:  # noqa: BLE001 - a bad rule yields to the next one
            return Truth.UNKNOWN

    def variant(self, distribution: Distribution) -> Variant | None:
        """Return the variant for this context, or None when the unit is missing."""
        place = self.bucket(distribution.algorithm, distribution.salt, distribution.unit)
        if place is None:
            return None
        cumulative = 0
        for variant in distribution.variants:
            cumulative += variant.weight
            if place < cumulative:
                return variant
        return None

    def bucket(self, algorithm: BucketAlgorithm, salt: str, path: str) -> int | None:
        """Return the bucket of the unit at *path*, or None when it is missing or no unit."""
        unit = unit_text(self.context.lookup(path))
        if unit is None:
            return None
        try:
            return bucket(algorithm, salt, unit)
        except UnicodeEncodeError:
            return None

    def holds(self, condition: Condition) -> Truth:
        """Return what *condition* is; UNKNOWN when it nests deeper than `MAX_NESTING`."""
        if self._dependencies.nesting(condition) > MAX_NESTING:
            return Truth.UNKNOWN
        return self.truth(condition)

    def truth(self, condition: Condition) -> Truth:
        """Return what *condition* is, or is part of, when the nesting of the whole has been checked."""
        match condition:
            case AllOf(parts):
                return all_of([self.truth(part) for part in parts])
            case AnyOf(parts):
                return any_of([self.truth(part) for part in parts])
            case Not(part):
                return negate(self.truth(part))
            case Comparison(left, op, right, literals):
                return compare(
                    op,
                    self.operand(left),
                    ABSENT if right is None else self.operand(right),
                    None if literals is None else tuple(map(normalise, literals)),
                )
            case Percentage(attribute, salt, start, end, algorithm):
                place = self.bucket(algorithm, salt, attribute)
                return Truth.UNKNOWN if place is None else Truth.of(start <= place < end)
            case SegmentReference(name):
                return self._segment(name)
            case _:
                return Truth.UNKNOWN

    def operand(self, operand: Operand) -> ContextValue | Absent:
        """Return the value of *operand*, or ABSENT when it is missing."""
        match operand:
            case Attribute(path):
                return self.context.lookup(path)
            case Literal(value):
                return normalise(value)
            case SettingReference(name):
                return self._setting(name)
            case _:
                return ABSENT

    def _segment(self, name: str) -> Truth:
        segment = self._snapshot.segments.get(name)
        if segment is None or self._dependencies.cycle(("segment", name)):
            return Truth.UNKNOWN
        if name not in self._segments:
            self._segments[name] = self.truth(segment.condition)
        return self._segments[name]

    def _setting(self, name: str) -> ContextValue | Absent:
        setting = self._snapshot.setting(name)
        if setting is None or self._dependencies.cycle(("setting", setting.name)):
            return ABSENT
        if setting.name not in self._settings:
            self._references += 1
            try:
                self._settings[setting.name] = normalise(self.evaluate(setting).value)
            finally:
                self._references -= 1
        return self._settings[setting.name]

    def _evaluation(
        self,
        setting: Setting,
        value: Value,
        reason: Reason,
        rule: Rule | None = None,
        variant: Variant | None = None,
    ) -> Evaluation:
        return Evaluation(
            value=value,
            reason=reason,
            rule_id=None if rule is None else rule.id,
            variant=None if variant is None else variant.name,
            revision=self._snapshot.revision,
            setting_revision=setting.revision,
        )
