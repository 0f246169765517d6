"""Why a setting has its value: rule by rule and condition by condition, as immutable values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rheostat.evaluation.bucket import format_percent
from rheostat.evaluation.comparison import kind
from rheostat.evaluation.context import Context, ContextValue, normalise
from rheostat.evaluation.dependency import MAX_NESTING, Node
from rheostat.evaluation.reference import Evaluator, Run
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.evaluation.truth import Truth, all_of, any_of, negate
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    Unrecognized,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import ABSENT, Absent, Value, freeze

__all__ = ["ConditionExplanation", "Explanation", "RuleExplanation", "explain"]

_SHOWN: Final = 80
"""Characters of a value in an explanation."""


@dataclass(frozen=True, slots=True)
class ConditionExplanation:
    """What became of one condition, or of one part of it.

    Attributes:
        condition: The part.
        truth: What it was.
        detail: Why, for people, such as ``user.plan is missing``.
        parts: The parts of the part: those of all of, any of and not, and a segment's own condition, which is
            spelled out only where the segment is met first.
        left: The value of the left operand or of the unit; ABSENT when it is missing, no value of a setting
            (a NaN), or there is none.
        right: The value of the right operand; ABSENT as for `left`.
        bucket: The bucket of the unit of a percentage, or None.
    """

    condition: Condition
    truth: Truth
    detail: str
    parts: tuple[ConditionExplanation, ...] = ()
    left: Value | Absent = ABSENT
    right: Value | Absent = ABSENT
    bucket: int | None = None


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """What became of one rule.

    Attributes:
        rule_id: The rule.
        number: Its store-wide number.
        truth: What its condition was (TRUE without one); None for a disabled rule.
        matched: It gave the value. A rule can be TRUE and passed over, when its unit is missing.
        detail: Why, for people.
        condition: The condition, part by part; None for a rule without one and a disabled rule.
        variant: The variant of the distribution that the unit fell into, or None.
        bucket: The bucket of the unit of the distribution, or None.
    """

    rule_id: str
    number: int
    truth: Truth | None
    matched: bool
    detail: str
    condition: ConditionExplanation | None = None
    variant: str | None = None
    bucket: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an evaluation came out as it did.

    Attributes:
        evaluation: What was evaluated; the same as `evaluate` gives.
        rules: The rules in the order in which they were tried, up to and including the one that matched.
        detail: The whole in one sentence, for people.
    """

    evaluation: Evaluation
    rules: tuple[RuleExplanation, ...]
    detail: str


def explain(
    snapshot: Snapshot,
    name: str,
    context: Context | Mapping[str, object] | None = None,
    default: Value | Absent = ABSENT,
    *,
    evaluator: Evaluator | None = None,
) -> Explanation:
    """Return why the setting *name* has its value for *context*. Never raises.

    Args:
        snapshot: The settings and segments.
        name: The setting's name or one of its aliases.
        context: The attributes, in layers or as one mapping.
        default: The value when there is none otherwise (reason ERROR).
        evaluator: One of the same snapshot, to use what it remembers.
    """
    evaluator = evaluator or Evaluator(snapshot)
    evaluation = evaluator.evaluate(name, context, default)
    if evaluation.reason is Reason.ERROR:
        return Explanation(evaluation, (), evaluation.error_message)
    try:
        setting = evaluator.snapshot.setting(name)
        explained = () if setting is None else _Explainer(evaluator, Context.of(context)).rules(setting)
    except Exception as exc:  # noqa: BLE001 - explaining a read never raises either
        return Explanation(evaluation, (), f"it cannot be explained: {type(exc).__name__}")
    return Explanation(evaluation, explained, _summary(evaluation, explained))


def _summary(evaluation: Evaluation, rules: tuple[RuleExplanation, ...]) -> str:
    match evaluation.reason:
        case Reason.DISABLED:
            return "the setting is disabled in this environment"
        case Reason.STATIC:
            return "the setting has no rules"
        case Reason.DEFAULT:
            return f"no rule of {len(rules)} matched"
        case Reason.SPLIT:
            return f"rule {evaluation.rule_id} matched, with variant {evaluation.variant}"
        case _:
            return f"rule {evaluation.rule_id} matched"


class _Explainer:
    """Explains the rules of one setting for one context."""

    def __init__(self, evaluator: Evaluator, context: Context) -> None:
        self._evaluator = evaluator
        self._run = Run(evaluator, context)
        self._spelled_out: set[str] = set()

    def rules(self, setting: Setting) -> tuple[RuleExplanation, ...]:
        explained: list[RuleExplanation] = []
        for rule in setting.rules if setting.enabled else ():
            explained.append(self._rule(setting, rule))
            if explained[-1].matched:
                break
        return tuple(explained)

    def _rule(self, setting: Setting, rule: Rule) -> RuleExplanation:
        if not rule.enabled:
            return RuleExplanation(rule.id, rule.number, None, matched=False, detail="not enabled")
        truth = self._run.rule_truth(rule)
        decided = self._run.decide(setting, rule)
        condition = None if rule.condition is None else self._whole(rule.condition, truth)
        detail = "it has no condition" if condition is None else condition.detail
        place = None
        if isinstance(rule.outcome, Distribution):
            split = rule.outcome
            place = self._run.bucket(split.algorithm, split.salt, split.unit)
            if truth is Truth.TRUE and decided is None:
                detail = (
                    f"its condition holds, but {self._why_no_unit(split.unit)}"
                    if place is None
                    else f"its condition holds, but no variant has bucket {place}"
                )
        elif truth is Truth.TRUE and not isinstance(rule.outcome, ValueOutcome):
            detail = "its condition holds, but its outcome is unknown to this version"
        return RuleExplanation(
            rule_id=rule.id,
            number=rule.number,
            truth=truth,
            matched=decided is not None,
            detail=detail,
            condition=condition,
            variant=None if decided is None else decided.variant,
            bucket=place,
        )

    def _whole(self, condition: Condition, truth: Truth) -> ConditionExplanation:
        try:
            if self._evaluator.dependencies.nesting(condition) > MAX_NESTING:
                return ConditionExplanation(
                    condition, truth, f"it nests more than {MAX_NESTING} levels, counting references"
                )
            return self._condition(condition)
        except Exception as exc:  # noqa: BLE001 - as the evaluator, which took the condition for UNKNOWN
            return ConditionExplanation(condition, truth, f"it cannot be evaluated: {type(exc).__name__}")

    def _condition(self, condition: Condition) -> ConditionExplanation:
        match condition:
            case AllOf(conditions):
                parts = tuple([self._condition(part) for part in conditions])
                truth = all_of(part.truth for part in parts)
                return ConditionExplanation(condition, truth, _joint(parts, truth, Truth.TRUE), parts)
            case AnyOf(conditions):
                parts = tuple([self._condition(part) for part in conditions])
                truth = any_of(part.truth for part in parts)
                return ConditionExplanation(condition, truth, _joint(parts, truth, Truth.FALSE), parts)
            case Not(inner):
                part = self._condition(inner)
                return ConditionExplanation(condition, negate(part.truth), part.detail, (part,))
            case Comparison():
                return self._comparison(condition)
            case Percentage():
                return self._percentage(condition)
            case SegmentReference():
                return self._segment(condition)
            case Unrecognized(reason):
                return ConditionExplanation(condition, Truth.UNKNOWN, f"unknown to this version: {reason}")

    def _segment(self, reference: SegmentReference) -> ConditionExplanation:
        name = reference.name
        truth = self._run.truth(reference)
        segment = self._evaluator.snapshot.segments.get(name)
        cycle = self._evaluator.dependencies.cycle(("segment", name))
        if segment is None:
            detail = f'segment "{name}" does not exist'
        elif cycle:
            detail = f'segment "{name}" refers to itself: {_chain(cycle)}'
        elif name in self._spelled_out:
            detail = f'segment "{name}" is {truth.value}, as above'
        else:
            self._spelled_out.add(name)
            part = self._condition(segment.condition)
            return ConditionExplanation(reference, truth, f'segment "{name}": {part.detail}', (part,))
        return ConditionExplanation(reference, truth, detail)

    def _percentage(self, percentage: Percentage) -> ConditionExplanation:
        truth = self._run.truth(percentage)
        path = percentage.attribute
        place = self._run.bucket(percentage.algorithm, percentage.salt, path)
        unit = self._run.context.lookup(path)
        if place is None:
            detail = self._why_no_unit(path)
        else:
            where = "inside" if truth is Truth.TRUE else "outside"
            bounds = f"{format_percent(percentage.start)} to {format_percent(percentage.end)} %"
            detail = f"{path} is {_shown(unit)}, at {format_percent(place)} %, {where} {bounds}"
        return ConditionExplanation(percentage, truth, detail, left=_frozen(unit), bucket=place)

    def _why_no_unit(self, path: str) -> str:
        unit = self._run.context.lookup(path)
        if isinstance(unit, Absent):
            return self._why_missing(Attribute(path))
        return f"{path} is {_shown(unit)}, which is no unit"

    def _comparison(self, comparison: Comparison) -> ConditionExplanation:
        truth = self._run.truth(comparison)
        left = self._run.operand(comparison.left)
        right = ABSENT if comparison.right is None else self._run.operand(comparison.right)
        return ConditionExplanation(
            comparison,
            truth,
            self._why(comparison, truth, left, right),
            left=_frozen(left),
            right=_frozen(right if comparison.literals is None else comparison.literals),
        )

    def _why(
        self,
        comparison: Comparison,
        truth: Truth,
        left: ContextValue | Absent,
        right: ContextValue | Absent,
    ) -> str:
        op, literals = comparison.operator, comparison.literals
        if isinstance(left, Absent):
            return self._why_missing(comparison.left)
        subject = f"{_name(comparison.left)} is {_shown(left)}"
        if op is Operator.EXISTS:
            return subject
        if literals is None and isinstance(right, Absent):
            missing = self._why_missing(comparison.right) if comparison.right else "there is no right side"
            return f"{subject}, but {missing}"
        other = _shown(right) if literals is None else _shown(literals)
        if comparison.right is not None and not isinstance(comparison.right, Literal):
            other = f"{_name(comparison.right)}, which is {other}"
        if truth is Truth.UNKNOWN:
            return f"{subject}, a {kind(left)}: {op.value} cannot be told for it and {other}"
        if op in (Operator.EQUALS, Operator.NOT_EQUALS):
            are_equal = (truth is Truth.TRUE) is (op is Operator.EQUALS)
            return subject if are_equal else f"{subject}, not {other}"
        return f"{subject}, which {_VERBS[op][truth is Truth.FALSE]} {other}"

    def _why_missing(self, operand: Operand) -> str:
        name = _name(operand)
        match operand:
            case SettingReference(setting_name):
                setting = self._evaluator.snapshot.setting(setting_name)
                if setting is None:
                    return f"{name} does not exist"
                cycle = self._evaluator.dependencies.cycle(("setting", setting.name))
                if cycle:
                    return f"{name} refers to itself: {_chain(cycle)}"
            case Attribute(path):
                located = self._run.context.locate(path)
                if located is None:
                    return f"{name} is missing"
                if located[1] is not None:
                    return f"{name} is missing: a {type(located[1]).__name__} that conditions do not know"
            case _:
                pass
        return f"{name} is null, which counts as missing"


_VERBS: Final[Mapping[Operator, tuple[str, str]]] = {
    Operator.IN: ("is in", "is not in"),
    Operator.NOT_IN: ("is not in", "is in"),
    Operator.LESS_THAN: ("is less than", "is not less than"),
    Operator.LESS_THAN_OR_EQUAL: ("is at most", "is more than"),
    Operator.GREATER_THAN: ("is more than", "is not more than"),
    Operator.GREATER_THAN_OR_EQUAL: ("is at least", "is less than"),
    Operator.STARTS_WITH: ("starts with", "does not start with"),
    Operator.ENDS_WITH: ("ends with", "does not end with"),
    Operator.CONTAINS: ("contains", "does not contain"),
    Operator.MATCHES: ("matches", "does not match"),
    Operator.HAS_ANY: ("has any of", "has none of"),
    Operator.HAS_ALL: ("has all of", "lacks some of"),
    Operator.HAS_NONE: ("has none of", "has some of"),
    Operator.BEFORE: ("is before", "is not before"),
    Operator.AFTER: ("is after", "is not after"),
    Operator.SEMVER_EQUALS: ("is the same version as", "is another version than"),
    Operator.SEMVER_LESS_THAN: ("is an older version than", "is no older version than"),
    Operator.SEMVER_LESS_THAN_OR_EQUAL: ("is no newer version than", "is a newer version than"),
    Operator.SEMVER_GREATER_THAN: ("is a newer version than", "is no newer version than"),
    Operator.SEMVER_GREATER_THAN_OR_EQUAL: ("is no older version than", "is an older version than"),
    Operator.IP_IN: ("is inside", "is outside"),
}


def _joint(parts: tuple[ConditionExplanation, ...], truth: Truth, neutral: Truth) -> str:
    """Say why a conjunction (neutral TRUE) or a disjunction (neutral FALSE) of *parts* is *truth*."""
    if not parts:
        return "it has no parts"
    if truth is neutral:
        if len(parts) == 1:
            return parts[0].detail
        return "all parts hold" if neutral is Truth.TRUE else "no part holds"
    return next(part.detail for part in parts if part.truth is truth)


def _name(operand: Operand) -> str:
    match operand:
        case Attribute(path):
            return path
        case SettingReference(name):
            return f'setting("{name}")'
        case Literal(value):
            return _shown(value)


def _chain(cycle: tuple[Node, ...]) -> str:
    return " → ".join(f'{node_kind}("{name}")' for node_kind, name in cycle)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _frozen(value: object) -> Value | Absent:
    normalised = normalise(value)
    if isinstance(normalised, Absent):
        return ABSENT
    try:
        return freeze(normalised)
    except Exception:  # noqa: BLE001 - a mapping of the caller's may raise anything, or contain itself
        return ABSENT
