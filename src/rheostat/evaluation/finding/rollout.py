"""What a change of rules does to the units of a rollout: which share of them gets something else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rheostat.evaluation.bucket import format_percent
from rheostat.evaluation.context import Context
from rheostat.evaluation.finding.box import Space, TooComplexError
from rheostat.evaluation.finding.cover import Cover
from rheostat.evaluation.finding.deadline import Deadline, ExhaustedError
from rheostat.evaluation.finding.example import contexts
from rheostat.evaluation.finding.report import SECONDS, Finding
from rheostat.evaluation.reference import Evaluator, Run
from rheostat.model.condition import BUCKETS, BucketAlgorithm, Condition, Percentage, walk
from rheostat.model.rule import Distribution, Rule
from rheostat.model.setting import Segment, Setting
from rheostat.model.value import Absent, FrozenMapping, Value, canonical_json

__all__ = ["Rollout", "compare_rollouts", "compare_segment_rollouts", "rollouts_of", "share_moved"]

_UNITS: Final = 500
"""Units that are tried to find one that moves."""

_Given: TypeAlias = str
"""What a unit gets, as text: two stretches that give the same are told by it."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How units are divided by their buckets.

    Attributes:
        unit: The attribute of the unit.
        salt: What separates it from others.
        algorithm: How units are hashed.
        stretches: Where each stretch of buckets ends, and what its units get.
    """

    unit: str
    salt: str
    algorithm: BucketAlgorithm
    stretches: tuple[tuple[int, _Given], ...]

    @property
    def hashing(self) -> tuple[str, str, BucketAlgorithm]:
        """Rollouts with the same hashing put a unit into the same bucket."""
        return self.unit, self.salt, self.algorithm

    def shares(self) -> dict[_Given, int]:
        """Return the buckets, of `BUCKETS`, that give each thing."""
        shares: dict[_Given, int] = {}
        start = 0
        for end, given in self.stretches:
            shares[given] = shares.get(given, 0) + self._width(start, end)
            start = end
        return shares

    def _width(self, start: int, end: int) -> int:
        if self.algorithm is not BucketAlgorithm.REPLANE_PYTHON:
            return end - start
        # Tens alone, so that a stretch has as many as tens are in it.
        return (-(-end // 10) + -start // 10) * 10

    def moved(self, other: Rollout) -> int:
        """Return the buckets that give something else in *other*, which has the same hashing."""
        ends = sorted({end for end, _ in (*self.stretches, *other.stretches)})
        return sum(
            self._width(start, end)
            for start, end in itertools.pairwise([0, *ends])
            if self._at(start) != other._at(start)
        )

    def _at(self, bucket: int) -> _Given:
        return next(given for end, given in self.stretches if bucket < end)


def share_moved(old: Rollout, new: Rollout) -> int:
    """Return the share of units that get something else, in thousandths of a per cent.

    Exact where the hashing is the same, as far as hashes spread evenly; otherwise expected, since where a unit
    is under one hashing says nothing of where it is under another.
    """
    if old.hashing == new.hashing:
        return old.moved(new)
    before, after = old.shares(), new.shares()
    same = sum(share * after.get(given, 0) for given, share in before.items())
    return round(BUCKETS - same / BUCKETS)


def _share_needed(old: Rollout, new: Rollout) -> int:
    """Return the least share that has to move for the shares of *old* to become those of *new*."""
    before, after = old.shares(), new.shares()
    return sum(max(after.get(given, 0) - before.get(given, 0), 0) for given in before.keys() | after.keys())


def rollouts_of(rule: Rule | Condition) -> list[Rollout]:
    """Return the rollouts of a rule or condition: its percentages in their order, and its split."""
    found = []
    condition = rule.condition if isinstance(rule, Rule) else rule
    for part in () if condition is None else walk(condition):
        if isinstance(part, Percentage):
            start, end = max(part.start, 0), min(part.end, BUCKETS)
            stretches = ((start, "out"), (max(start, end), "in"), (BUCKETS, "out"))
            found.append(Rollout(part.attribute, part.salt, part.algorithm, stretches))
    if isinstance(rule, Rule) and isinstance(rule.outcome, Distribution):
        split = rule.outcome
        ends = itertools.accumulate(variant.weight for variant in split.variants)
        given = [(end, _text(variant.value)) for end, variant in zip(ends, split.variants, strict=True)]
        found.append(Rollout(split.unit, split.salt, split.algorithm, (*given, (BUCKETS, "nothing"))))
    return found


def _text(value: Value) -> _Given:
    return f"value {canonical_json(value)}"


def compare_rollouts(
    before: Setting, after: Setting, evaluator: Evaluator, deadline: Deadline | None = None
) -> tuple[Finding, ...]:
    """Return which rules of *after* divide their units otherwise than the rules of the same ids in *before* did.

    A change of unit, salt or algorithm is always reported. Other changes are when they move more units than the
    new shares need, as a new order of variants does; that a share grows or shrinks is what a rollout is for.

    Args:
        before: The setting as it was.
        after: The setting as it will be.
        evaluator: Of the snapshot that will be.
        deadline: When to stop looking for examples.
    """
    deadline = deadline or Deadline(SECONDS)
    findings = []
    for place, rule in enumerate(after.rules, 1):
        old = before.rule(rule.id)
        if old is None or not rule.enabled or not old.enabled:
            continue
        for was, now in _pairs(rollouts_of(old), rollouts_of(rule)):
            why = _why(was, now)
            if why is None:
                continue
            share = share_moved(was, now)
            example = None if deadline.passed else _moving(before, after, rule, evaluator, deadline)
            findings.append(
                Finding(
                    "ROLLOUT_MOVES_UNITS",
                    f"rule {place} ({rule.id!r}) of the setting {after.name!r} {why}: "
                    f"{_percent(was, now, share)} of its units get something else",
                    (rule.id,),
                    example,
                )
            )
    return tuple(findings)


def compare_segment_rollouts(before: Segment, after: Segment) -> tuple[Finding, ...]:
    """Return how the percentages of a segment divide their units otherwise; see `compare_rollouts`."""
    return tuple(
        Finding(
            "ROLLOUT_MOVES_UNITS",
            f"the segment {after.name!r} {why}: {_percent(was, now, share_moved(was, now))} of its units "
            "come in or go out",
        )
        for was, now in _pairs(rollouts_of(before.condition), rollouts_of(after.condition))
        if (why := _why(was, now)) is not None
    )


def _pairs(old: Sequence[Rollout], new: Sequence[Rollout]) -> Iterator[tuple[Rollout, Rollout]]:
    """Yield the rollouts that stand for the same: those with the same hashing, then the others in their order."""
    left = list(old)
    others = []
    for now in new:
        was = next((each for each in left if each.hashing == now.hashing), None)
        if was is None:
            others.append(now)
        else:
            left.remove(was)
            yield was, now
    # Where there are more or fewer than before, nobody can tell which became which.
    if len(left) == len(others):
        yield from zip(left, others, strict=True)


def _why(was: Rollout, now: Rollout) -> str | None:
    parts = [
        f"{word} changes from {old!r} to {new!r}"
        for word, old, new in (
            ("unit", was.unit, now.unit),
            ("salt", was.salt, now.salt),
            ("algorithm", was.algorithm.name, now.algorithm.name),
        )
        if old != new
    ]
    if parts:
        return f"puts its units into other buckets, as the {' and the '.join(parts)}"
    if was.moved(now) > _share_needed(was, now):
        needed = format_percent(_share_needed(was, now))
        return f"moves more units than its new shares need, which is {needed} %"
    return None


def _percent(was: Rollout, now: Rollout, share: int) -> str:
    about = "" if was.hashing == now.hashing else "about "
    return f"{about}{format_percent(share)} %"


def _moving(
    before: Setting, after: Setting, rule: Rule, evaluator: Evaluator, deadline: Deadline
) -> FrozenMapping | None:
    """Return a context for which *rule* decides before or after, and gives something else then."""
    space = Space(evaluator, deadline)
    old = before.rule(rule.id)
    assert old is not None
    try:
        space.read_rule(rule)
        space.read_rule(old)
        space.close()
        cover = Cover(space, deadline)
        boxes = [*space.rule_boxes(rule), *space.rule_boxes(old)]
    except (ExhaustedError, TooComplexError):
        return None
    units = sorted({rollout.unit for each in (rule, old) for rollout in rollouts_of(each)})
    for box in boxes[:4]:
        place = cover.feasible(box)
        for context in () if place is None else itertools.islice(contexts(space, place), 1):
            for number in range(_UNITS):
                if number % 64 == 0 and deadline.passed:
                    return None
                # Different units, as one text would be in one bucket under both attributes.
                named = {unit: f"user-{number + _UNITS * at}" for at, unit in enumerate(units)}
                tried = FrozenMapping({**context, **named})
                run = Run(evaluator, Context.of(tried))
                was, now = (_given(run, setting) for setting in (before, after))
                if was != now and rule.id in (was[0], now[0]):
                    return tried
    return None


def _given(run: Run, setting: Setting) -> tuple[str | None, _Given]:
    decided = next(
        (found for rule in setting.rules if (found := run.decide(setting, rule)) is not None), None
    )
    if decided is None or isinstance(decided.value, Absent):
        return None, _text(setting.base_value)
    return decided.rule_id, _text(decided.value)
