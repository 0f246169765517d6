"""What a writer should know of the rules that a change-set leaves behind; nothing of it refuses the change-set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rheostat.evaluation.finding import (
    SECONDS,
    Deadline,
    Finding,
    analyse,
    analyse_segment,
    compare_rollouts,
    compare_segment_rollouts,
)
from rheostat.evaluation.reference import Evaluator
from rheostat.model.change import Change, Item, PlanWarning
from rheostat.model.setting import Lifecycle, Segment, Setting
from rheostat.model.snapshot import Snapshot

__all__ = ["MAX_FINDINGS", "PlaceOf", "review"]

MAX_FINDINGS: Final = 100
"""Findings that one change-set is told of: they are stored with it, and nobody reads more."""

PlaceOf = Callable[[str, str, str, str], int]
"""Returns the mutation, or -1, behind a rule or a whole item: by environment, kind, key and rule id."""


def review(
    changes: Sequence[Change],
    settings: Callable[[str], Mapping[str, Setting]],
    segments: Mapping[str, Segment],
    place_of: PlaceOf,
    clock: Callable[[], float] = time.monotonic,
) -> list[PlanWarning]:
    """Analyse the rules and segments that *changes* touch, for at most `SECONDS`.

    Args:
        changes: What the plan does.
        settings: All settings of an environment, as they will be.
        segments: All segments, as they will be.
        place_of: Which mutation is behind a rule.
        clock: Monotonic; it only ends the analysis, and says so.
    """
    found = list(_findings(changes, settings, segments, place_of, Deadline(SECONDS, clock)))
    if len(found) > MAX_FINDINGS:
        left_out = len(found) - MAX_FINDINGS
        found[MAX_FINDINGS:] = [
            PlanWarning("FINDINGS_OMITTED", f"the analysis found {left_out} more things than are listed here")
        ]
    return found


def _findings(
    changes: Sequence[Change],
    settings: Callable[[str], Mapping[str, Setting]],
    segments: Mapping[str, Segment],
    place_of: PlaceOf,
    deadline: Deadline,
) -> Iterator[PlanWarning]:
    evaluators: dict[str, Evaluator] = {}
    old = {
        (change.environment, change.before.id): change.before
        for change in changes
        if isinstance(change.before, Setting)
    }
    late = 0
    for change in changes:
        item = change.after
        before = change.before
        if isinstance(item, Setting):
            before = old.get((change.environment, item.id))
        if isinstance(item, Setting) and isinstance(before, Setting):
            yield from _on_its_way_out(before, item, change, place_of)
        if not _has_other_rules(before, item):
            continue
        if deadline.passed:
            late += 1
            continue
        evaluator = evaluators.get(change.environment)
        if evaluator is None:
            # A segment belongs to no environment, so what the settings it refers to may be is not known.
            known = settings(change.environment) if change.environment else {}
            evaluator = evaluators[change.environment] = Evaluator(Snapshot(0, known, segments))
        for finding in _of_item(before, item, evaluator, deadline):
            yield _warning(finding, change, place_of)
    if late:
        yield PlanWarning(
            "ANALYSIS_INCOMPLETE",
            f"the rules of {late} more {'item was' if late == 1 else 'items were'} not analysed: the change-set "
            "has too many",
        )


def _on_its_way_out(
    before: Setting, after: Setting, change: Change, place_of: PlaceOf
) -> Iterator[PlanWarning]:
    """Tell of a change of what is deprecated or archived, unless it is of that itself, or follows from others."""
    place = place_of(change.environment, change.kind, change.key, "")
    if after.lifecycle is Lifecycle.ACTIVE or after.lifecycle is not before.lifecycle or place < 0:
        return
    word = after.lifecycle.name.lower()
    owner = f"; its owner is {after.owner}" if after.owner else ""
    yield PlanWarning(
        f"SETTING_{after.lifecycle.name}",
        f"in {change.environment!r}, the setting {after.name!r} is {word}{owner}",
        place,
    )


def _has_other_rules(before: Item | None, after: Item | None) -> bool:
    """Tell whether there is something to analyse that was not there before: parts that did not change are shared."""
    match after:
        case Setting(rules=rules):
            return bool(rules) and not (isinstance(before, Setting) and before.rules is rules)
        case Segment(condition=condition):
            return not (isinstance(before, Segment) and before.condition is condition)
        case _:
            return False


def _of_item(
    before: Item | None, after: Item | None, evaluator: Evaluator, deadline: Deadline
) -> Iterator[Finding]:
    if isinstance(after, Segment):
        yield from analyse_segment(evaluator, after, deadline)
        if isinstance(before, Segment):
            yield from compare_segment_rollouts(before, after)
    elif isinstance(after, Setting):
        yield from analyse(evaluator, after, deadline)
        if isinstance(before, Setting):
            yield from compare_rollouts(before, after, evaluator, deadline)


def _warning(finding: Finding, change: Change, place_of: PlaceOf) -> PlanWarning:
    rule_id = finding.rules[0] if finding.rules else ""
    where = f"in {change.environment!r}, " if change.environment else ""
    return PlanWarning(
        finding.code,
        f"{where}{finding.message}",
        place_of(change.environment, change.kind, change.key, rule_id),
        finding.example,
    )
