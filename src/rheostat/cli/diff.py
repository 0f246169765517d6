"""Changes as people read them: what each thing was, and what it is now."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from rich.text import Text

from rheostat.cli.record import condition_text
from rheostat.language import format_percent
from rheostat.model.change import Change, Item
from rheostat.model.condition import BUCKETS, AllOf, Condition, Percentage
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome
from rheostat.model.setting import Setting
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, canonical_json

__all__ = ["change_lines", "cut", "describe_outcome", "moved_rules", "share_moved", "show_value", "summary"]

_SHOWN: Final = 120
"""Characters of a value in a diff; the JSON answer has all of it."""

_ADDED, _REMOVED, _CHANGED, _MOVED = "green", "red", "yellow", "cyan"

# Given by the server or told apart by the lines themselves.
_SILENT: Final = frozenset({"id", "name", "slug", "rules", "revision", "number", "verifier", "selector"})


def show_value(value: Value | Absent) -> str:
    """Return a value as JSON, cut when it is long; ``-`` when there is none."""
    if value is ABSENT:
        return "-"
    return cut(canonical_json(value))


def cut(text: str, length: int = _SHOWN) -> str:
    """Return *text*, cut when it is longer than *length* characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def describe_outcome(outcome: Outcome | None) -> str:
    """Return what a rule gives: a value, or the shares of a split."""
    match outcome:
        case ValueOutcome(value):
            return show_value(value)
        case Distribution(unit, _, variants, _):
            shares = ", ".join(
                f"{v.name} {format_percent(v.weight)} %: {show_value(v.value)}" for v in variants
            )
            return f"split by {unit} ({shares})"
        case None:
            return "an outcome that this version does not know"


def summary(changes: Sequence[Change]) -> str:
    """Return how many things were created, changed and deleted."""
    created = sum(change.before is None for change in changes)
    deleted = sum(change.after is None for change in changes)
    parts = [
        f"{count} {word}"
        for count, word in (
            (created, "created"),
            (len(changes) - created - deleted, "changed"),
            (deleted, "deleted"),
        )
        if count
    ]
    return ", ".join(parts) or "no changes"


def change_lines(change: Change) -> Iterator[Text]:
    """Yield the lines of one change: a heading, then what is different, indented."""
    where = f" in {change.environment}" if change.environment else ""
    before, after = change.before, change.after
    if before is None and after is None:
        yield Text(
            f"~ {change.kind} {change.key}{where}: of a kind that this version does not know", _CHANGED
        )
    elif before is None:
        yield Text(f"+ {change.kind} {change.key}{where}", f"bold {_ADDED}")
        yield from _item_lines(after, _ADDED)
    elif after is None:
        yield Text(f"- {change.kind} {change.key}{where}", f"bold {_REMOVED}")
    else:
        yield Text(f"~ {change.kind} {change.key}{where}", f"bold {_CHANGED}")
        yield from _difference(before, after)


def _item_lines(item: Item | None, style: str) -> Iterator[Text]:
    if item is None:
        return
    for name, shown in _shown_fields(item):
        if shown not in ("-", '""', "[]", "{}"):
            yield Text(f"    {name}: {shown}", style)
    if isinstance(item, Setting):
        for place, rule in enumerate(item.rules, 1):
            yield Text(f"    + rule {_rule_text(place, rule)}", style)


def _difference(before: Item, after: Item) -> Iterator[Text]:
    old = dict(_shown_fields(before, whole=True))
    for name, new in _shown_fields(after, whole=True):
        if old.get(name) != new:
            line = Text(f"    {name}: ")
            line.append(cut(old.get(name, "-")), _REMOVED)
            line.append(" → ")
            line.append(cut(new), _ADDED)
            yield line
    if isinstance(before, Setting) and isinstance(after, Setting):
        yield from _rule_lines(before, after)


_UNSAID: Final[dict[str, Any]] = {"enabled": True, "declared": False, "protected": False}


def _shown_fields(item: Item, *, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Yield name and text of each field; unless *whole*, without those that say nothing unusual."""
    for field in fields(item):
        if field.name in _SILENT:
            continue
        content = getattr(item, field.name)
        if not whole and (
            (field.name in _UNSAID and content == _UNSAID[field.name])
            or (field.name in ("version", "order", "lifecycle", "declared") and content == field.default)
        ):
            continue
        yield field.name, _field_text(field.name, content, whole=whole)


def _field_text(name: str, content: Any, *, whole: bool) -> str:
    if name in ("default", "value", "off"):
        if content is ABSENT:
            return "-"
        return canonical_json(content) if whole else show_value(content)
    match content:
        case None:
            return "-"
        case FrozenMapping():
            return canonical_json(content)
        case bool():
            return "true" if content else "false"
        case tuple():
            return "[" + ", ".join(str(element) for element in content) + "]"
        case str():
            return canonical_json(content)
        case _ if name == "condition":
            return condition_text(content) or "-"
        case _:
            return str(getattr(content, "name", content) if name in ("order", "lifecycle") else content)


def _rule_text(place: int, rule: Rule) -> str:
    text = f"{place} ({rule.id}): " if rule.id else f"{place}: "
    condition = condition_text(rule.condition)
    text += f"where {condition}" if condition is not None else "always"
    text += f" → {describe_outcome(rule.outcome)}"
    return text if rule.enabled else f"{text}, not enabled"


def _rule_lines(before: Setting, after: Setting) -> Iterator[Text]:
    old = {rule.id: (place, rule) for place, rule in enumerate(before.rules, 1)}
    new = {rule.id: (place, rule) for place, rule in enumerate(after.rules, 1)}
    for rule_id, (place, rule) in old.items():
        if rule_id not in new:
            yield Text(f"    - rule {_rule_text(place, rule)}", _REMOVED)
    moved = moved_rules(before.rules, after.rules)
    for rule_id, (place, rule) in new.items():
        if rule_id not in old:
            yield Text(f"    + rule {_rule_text(place, rule)}", _ADDED)
            continue
        old_place, old_rule = old[rule_id]
        if rule_id in moved:
            yield Text(f"    > rule {rule_id} moved from place {old_place} to {place}", _MOVED)
        yield from _rule_difference(place, old_rule, rule)


def _rule_difference(place: int, old: Rule, new: Rule) -> Iterator[Text]:
    pairs = [
        ("where", condition_text(old.condition) or "always", condition_text(new.condition) or "always"),
        ("outcome", describe_outcome(old.outcome), describe_outcome(new.outcome)),
        ("salt", *(_salts(rule) for rule in (old, new))),
        ("enabled", *("true" if rule.enabled else "false" for rule in (old, new))),
        ("description", old.description, new.description),
        ("metadata", canonical_json(old.metadata), canonical_json(new.metadata)),
    ]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    if not different:
        return
    yield Text(f"    ~ rule {new.id} at place {place}", _CHANGED)
    for name, was, is_now in different:
        line = Text(f"        {name}: ")
        line.append(cut(was), _REMOVED)
        line.append(" → ")
        line.append(cut(is_now), _ADDED)
        yield line
    share = share_moved(old, new)
    if share is not None:
        yield Text(f"        {format_percent(share)} % of its units get something else", _CHANGED)


def _salts(rule: Rule) -> str:
    if isinstance(rule.outcome, Distribution):
        return f"{rule.outcome.salt} {rule.outcome.algorithm.name}"
    return ""


def moved_rules(before: Sequence[Rule], after: Sequence[Rule]) -> set[str]:
    """Return the ids of the rules that changed places among those that stayed: as few as explain the order."""
    place = {rule.id: i for i, rule in enumerate(before)}
    kept = [rule.id for rule in after if rule.id in place]
    # The longest increasing run of old places has not moved (patience sorting).
    ends: list[int] = []
    best: list[int] = []
    previous: list[int] = []
    for i, rule_id in enumerate(kept):
        at = bisect.bisect_left(ends, place[rule_id])
        previous.append(best[at - 1] if at else -1)
        if at == len(ends):
            ends.append(place[rule_id])
            best.append(i)
        else:
            ends[at] = place[rule_id]
            best[at] = i
    still: set[str] = set()
    i = best[-1] if best else -1
    while i >= 0:
        still.add(kept[i])
        i = previous[i]
    return set(kept) - still


@dataclass(frozen=True, slots=True)
class _Shares:
    """What units get by their bucket: the value of each stretch, None where the rule does not match.

    Attributes:
        hashing: Units with equal hashing fall into the same buckets.
        ends: One past the last bucket of each stretch.
        values: The text of what the stretch gives.
    """

    hashing: tuple[str, str, str]
    ends: tuple[int, ...]
    values: tuple[str | None, ...]

    def at(self, bucket: int) -> str | None:
        return self.values[bisect.bisect_right(self.ends, bucket)]

    def weights(self) -> dict[str | None, int]:
        summed: dict[str | None, int] = {}
        for start, end, value in zip((0, *self.ends), self.ends, self.values, strict=False):
            summed[value] = summed.get(value, 0) + end - start
        return summed


def share_moved(old: Rule, new: Rule) -> int | None:
    """Return the share of units that get something else, in thousandths of a per cent.

    None when neither rule divides units, or they divide them in ways that cannot be compared: the conditions
    beside one percentage differ, or the units are different attributes. Where the hashing differs, buckets are
    taken as independent of each other.
    """
    before, after = _shares(old), _shares(new)
    if before is None or after is None or before == after:
        return None
    if _rest(old.condition) != _rest(new.condition) or before.hashing[0] != after.hashing[0]:
        return None
    if before.hashing == after.hashing:
        ends = sorted({*before.ends, *after.ends})
        return sum(
            end - start
            for start, end in itertools.pairwise([0, *ends])
            if before.at(start) != after.at(start)
        )
    same = sum(weight * after.weights().get(value, 0) / BUCKETS for value, weight in before.weights().items())
    return round(BUCKETS - same)


def _shares(rule: Rule) -> _Shares | None:
    percentages = [part for part in _parts(rule.condition) if isinstance(part, Percentage)]
    if isinstance(rule.outcome, Distribution):
        if percentages:
            return None
        split = rule.outcome
        ends = tuple(itertools.accumulate(variant.weight for variant in split.variants))
        if not ends or ends[-1] != BUCKETS:
            return None
        return _Shares(
            (split.unit, split.salt, split.algorithm.name),
            ends,
            tuple(canonical_json(variant.value) for variant in split.variants),
        )
    if len(percentages) != 1:
        return None
    part = percentages[0]
    return _Shares(
        (part.attribute, part.salt, part.algorithm.name),
        (part.start, part.end, BUCKETS),
        (None, describe_outcome(rule.outcome), None),
    )


def _parts(condition: Condition | None) -> Iterable[Condition]:
    if condition is None:
        return ()
    return condition.conditions if isinstance(condition, AllOf) else (condition,)


def _rest(condition: Condition | None) -> tuple[str | None, ...]:
    return tuple(condition_text(part) for part in _parts(condition) if not isinstance(part, Percentage))
