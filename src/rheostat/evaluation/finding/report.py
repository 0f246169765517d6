"""What is suspicious about the rules of a setting: those that never decide, and what they leave out."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rheostat.errors import InvalidConditionError
from rheostat.evaluation.finding.box import Box, Space, TooComplexError
from rheostat.evaluation.finding.cover import Cover
from rheostat.evaluation.finding.deadline import Deadline, ExhaustedError
from rheostat.evaluation.finding.domain import Buckets, Domain, bits
from rheostat.evaluation.finding.example import Tried, contexts
from rheostat.evaluation.reference import Evaluator
from rheostat.language import format_condition
from rheostat.model.condition import AllOf, AnyOf, Condition, SettingReference
from rheostat.model.rule import Distribution, Rule
from rheostat.model.setting import Segment, Setting
from rheostat.model.type import EnumType
from rheostat.model.value import FrozenMapping

__all__ = ["SECONDS", "WHOLE_RULES", "Finding", "analyse", "analyse_segment"]

SECONDS: Final = 1.0
"""How long the rules of a change-set are analysed at most."""

WHOLE_RULES: Final = 200
"""Rules that are always analysed together; more of them as far as time allows."""

_SHOWN: Final = 100
_EXPLAINED: Final = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """Something suspicious. It is true of the rules as they are; whether it is wrong, the writer knows.

    Attributes:
        code: Stable UPPER_SNAKE word; docs/reference/analysis.md lists them.
        message: For people, in lower case.
        rules: The ids of the rules that it is about, the one in question first.
        example: A context that shows it, or None where there is none.
    """

    code: str
    message: str
    rules: tuple[str, ...] = ()
    example: FrozenMapping | None = None


def analyse(evaluator: Evaluator, setting: Setting, deadline: Deadline | None = None) -> tuple[Finding, ...]:
    """Return what is suspicious about the rules of *setting*, as if it were enabled, rule by rule.

    Rules that are disabled are left out, as evaluation does. No rule is reported that some context reaches; some
    that none reaches may not be noticed.

    Args:
        evaluator: Of the snapshot that the references of the rules lead to; it need not hold *setting*.
        setting: What to look at.
        deadline: When to stop; ANALYSIS_INCOMPLETE then says so. By default `SECONDS` from now.
    """
    return tuple(_findings(evaluator, setting, deadline or Deadline(SECONDS)))


def analyse_segment(
    evaluator: Evaluator, segment: Segment, deadline: Deadline | None = None
) -> tuple[Finding, ...]:
    """Return what is suspicious about the condition of *segment*; see `analyse`."""
    deadline = deadline or Deadline(SECONDS)
    what = f"the segment {segment.name!r}"
    space = Space(evaluator, deadline)
    try:
        space.read(segment.condition)
        space.close()
        cover = Cover(space, deadline)
        if not _possible(space, cover, segment.condition):
            why = _why_not(space, cover, segment.condition)
            return (Finding("CONDITION_NEVER_HOLDS", f"{what} holds for nobody: {why}"),)
        dead = list(_dead_parts(space, cover, segment.condition, [{}]))
    except (ExhaustedError, TooComplexError):
        return (Finding("ANALYSIS_INCOMPLETE", f"{what} was not analysed: too many alternatives"),)
    return tuple(
        Finding("CONDITION_NEVER_HOLDS", f"in {what} the alternative {_shown(part)} never holds")
        for part in dead
    )


def _shown(condition: Condition) -> str:
    try:
        text = format_condition(condition)
    except (InvalidConditionError, ValueError):
        # It came from a newer peer, or from somewhere else than a server.
        return "a condition"
    return f"`{text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}`"


def _findings(evaluator: Evaluator, setting: Setting, deadline: Deadline) -> Iterator[Finding]:
    rules = [
        (place, rule)
        for place, rule in enumerate(setting.rules, 1)
        if rule.enabled and rule.outcome is not None
    ]
    checked = 0
    unchecked: dict[int, Rule] = {}
    analysis: _Analysis | None = None
    # What a rule is hidden by stands before it, so the first rules can be looked at without the others.
    for end in sorted({min(WHOLE_RULES, len(rules)), len(rules)}):
        try:
            longer = _Analysis(evaluator, setting, deadline, rules[:end])
            checked = yield from longer.findings(checked)
        except ExhaustedError:
            break
        analysis = longer
        unchecked.update(longer.unchecked)
    unchecked.update(rules[checked:])
    if analysis is not None and checked == len(rules):
        yield from analysis.gaps()
    if unchecked:
        place = min(unchecked)
        first = f"rule {place} ({unchecked[place].id!r})"
        which = first if len(unchecked) == 1 else f"{len(unchecked)} of {len(rules)} rules, {first} first,"
        yield Finding(
            "ANALYSIS_INCOMPLETE",
            f"{which} of the setting {setting.name!r} {'was' if len(unchecked) == 1 else 'were'} not analysed: "
            "too many rules or alternatives",
            tuple(unchecked[place].id for place in sorted(unchecked)),
        )


class _Analysis:
    """The analysis of some rules of a setting, each with its place from 1."""

    def __init__(
        self, evaluator: Evaluator, setting: Setting, deadline: Deadline, rules: Sequence[tuple[int, Rule]]
    ) -> None:
        self._evaluator = evaluator
        self._setting = setting
        self._deadline = deadline
        self._places = [place for place, _ in rules]
        self._rules = [rule for _, rule in rules]
        self._boxes: dict[int, list[Box]] = {}
        # The numbers of the boxes of each rule, as bits.
        self._numbers: dict[int, int] = {}
        self.unchecked: dict[int, Rule] = {}
        self._space = Space(evaluator, deadline)
        for rule in self._rules:
            self._space.read_rule(rule)
        self._space.close()
        self._cover = Cover(self._space, deadline)

    def findings(self, checked: int) -> Generator[Finding, None, int]:
        """Yield what is to be said of the rules behind the first *checked*, and return how many now are."""
        earlier = 0
        for at, rule in enumerate(self._rules):
            if self._deadline.passed:
                return max(at, checked)
            yield from self._of_rule(at, rule, earlier, is_checked=at < checked)
            earlier |= self._numbers.get(at, 0)
        return len(self._rules)

    def _text(self, at: int) -> str:
        return f"rule {self._places[at]} ({self._rules[at].id!r})"

    def _of_rule(self, at: int, rule: Rule, earlier: int, *, is_checked: bool) -> list[Finding]:
        what = f"{self._text(at)} of the setting {self._setting.name!r}"
        try:
            boxes = self._space.rule_boxes(rule)
        except TooComplexError:
            self.unchecked[self._places[at]] = rule
            return []
        boxes = [box for box in boxes if self._cover.feasible(box) is not None]
        self._boxes[at] = boxes
        if not boxes:
            if is_checked:
                return []
            return [Finding("RULE_NEVER_MATCHES", f"{what} never matches: {self._why(rule)}", (rule.id,))]
        findings: list[Finding] = []
        try:
            if is_checked:
                pass
            elif all(self._cover.outside(box, earlier) is None for box in boxes):
                findings.append(self._hidden(rule, boxes, earlier, what))
            elif rule.condition is not None:
                findings = [
                    Finding(
                        "CONDITION_NEVER_HOLDS",
                        f"in {what} the alternative {_shown(part)} never holds",
                        (rule.id,),
                    )
                    for part in _dead_parts(self._space, self._cover, rule.condition, [{}])
                ]
        except (ExhaustedError, TooComplexError):
            self.unchecked[self._places[at]] = rule
        self._numbers[at] = sum(1 << self._cover.add(box) for box in boxes)
        return findings

    def _why(self, rule: Rule) -> str:
        condition = rule.condition
        if condition is not None and not _possible(self._space, self._cover, condition):
            return _why_not(self._space, self._cover, condition)
        if isinstance(rule.outcome, Distribution):
            unit = rule.outcome.unit
            return f"its condition holds only where {unit!r} is no unit of its split"
        return "it has no outcome"

    def _hidden(self, rule: Rule, boxes: Sequence[Box], earlier: int, what: str) -> Finding:
        hiding = self._hiding(boxes, earlier)
        together = "matches" if len(hiding) == 1 else "together match"
        why = f"{self._listed(hiding)} {together} all that it matches"
        return Finding(
            "RULE_HIDDEN",
            f"{what} never decides: {why}",
            (rule.id, *(self._rules[other].id for other in hiding)),
            self._hidden_example(rule, boxes, hiding),
        )

    def _listed(self, rules: Sequence[int]) -> str:
        names = [self._text(at) for at in rules]
        if len(names) > _EXPLAINED:
            names = [*names[: _EXPLAINED - 1], "others"]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    def _hiding(self, boxes: Sequence[Box], earlier: int) -> list[int]:
        """Return rules that hide *boxes*, with boxes of *earlier*: one alone if it can be, else few that are needed."""
        met, held = 0, []
        for box in boxes:
            its = self._cover.meeting(box, earlier)
            met |= its
            held.append(self._cover.containing(box, its))
        touching = [other for other, numbers in self._numbers.items() if numbers & met]
        for other in touching:
            if all(numbers & self._numbers[other] for numbers in held):
                return [other]
        if len(touching) > _EXPLAINED:
            return touching
        for other in touching:
            if self._deadline.passed:
                return touching
            if self._hide([other], boxes):
                return [other]
        kept = touching
        # The later ones go first, so that what is named stands as far up as possible.
        for other in reversed(touching):
            fewer = [one for one in kept if one != other]
            if not self._deadline.passed and self._hide(fewer, boxes):
                kept = fewer
        return kept

    def _hide(self, others: Sequence[int], boxes: Sequence[Box]) -> bool:
        numbers = sum(self._numbers[other] for other in others)
        try:
            return all(self._cover.outside(box, numbers) is None for box in boxes)
        except ExhaustedError:
            return False

    def _hidden_example(
        self, rule: Rule, boxes: Sequence[Box], hiding: Sequence[int]
    ) -> FrozenMapping | None:
        """Return a context for which *rule* would decide, were it not for the rules before it."""
        pairs = ((box, its) for other in hiding for its in self._boxes[other] for box in boxes)
        for box, its in itertools.islice(pairs, _EXPLAINED):
            both = self._space.intersection(box, its)
            place = None if both is None else self._cover.feasible(both)
            if place is None or self._deadline.passed:
                continue
            for context in contexts(self._space, place):
                # Not all rules before it: that would take longer than all the rest.
                shown = (rule, *(self._rules[other] for other in hiding))
                tried = Tried(self._evaluator, self._setting, context)
                if tried.decides(shown[0]) and any(tried.decides(other) for other in shown[1:]):
                    return context
        return None

    def gaps(self) -> Iterator[Finding]:
        """Yield where rules about one thing leave out something in the middle of what they cover."""
        covered: dict[int, int] = {}
        makers: dict[int, dict[int, None]] = {}
        for maker, boxes in self._boxes.items():
            for box in boxes:
                if len(box) == 1:
                    ((at, mask),) = box.items()
                    covered[at] = covered.get(at, 0) | mask
                    makers.setdefault(at, {})[maker] = None
        numbers = sum(self._numbers.values())
        for at, classes in covered.items():
            if len(makers[at]) < 2:
                continue
            for hole in self._holes(at, classes, list(makers[at])):
                finding = self._gap(at, hole, list(makers[at]), numbers)
                if finding is not None:
                    yield finding
                    break

    def _gap(self, at: int, hole: int, makers: Sequence[int], numbers: int) -> Finding | None:
        try:
            place = self._cover.outside({at: hole}, numbers)
        except ExhaustedError:
            return None
        for context in () if place is None else contexts(self._space, place):
            if Tried(self._evaluator, self._setting, context).deciding_rule() is None:
                return Finding(
                    "RULES_LEAVE_GAP",
                    f"{self._listed(makers)} of the setting {self._setting.name!r} leave out "
                    f"something in the middle of {self._named(at)}, which gets the default",
                    tuple(self._rules[maker].id for maker in makers),
                    context,
                )
        return None

    def _named(self, at: int) -> str:
        operand = self._space.operands[at]
        if isinstance(operand, Buckets):
            return f"the percentages of {operand.attribute!r}"
        name = self._space.names[at]
        return f"the values of {name.name if isinstance(name, SettingReference) else name.path!r}"

    def _holes(self, at: int, classes: int, makers: Sequence[int]) -> Iterator[int]:
        """Yield the classes inside of a line whose both ends are among *classes*, and that are not.

        A rule that has both ends by itself (`a != 3`) leaves out on purpose what it does.
        """
        space, operand = self._space, self._space.operands[at]
        cells = self._cells(at, classes)
        alone = [
            self._cells(at, box[at]) for maker in makers for box in self._boxes[maker] if box.keys() == {at}
        ]
        if isinstance(operand, Buckets):
            lines = [[1 << cell for cell in bits(operand.full & ~1)]]
        elif isinstance(operand, Domain):
            lines = list(operand.lines())
            lines += self._options(at, operand, cells)
        else:
            lines = []
        for line in lines:
            if len(line) < 3 or line[0] & ~cells or line[-1] & ~cells:
                continue
            if any(not (line[0] | line[-1]) & ~its for its in alone):
                continue
            left_out = 0
            for mask in line:
                left_out |= mask & ~cells
            hole = sum(1 << one for one, members in enumerate(space.classes[at]) if members & left_out)
            if hole & space.full[at]:
                yield hole & space.full[at]

    def _cells(self, at: int, classes: int) -> int:
        cells = 0
        for one in bits(classes):
            cells |= self._space.classes[at][one]
        return cells

    def _options(self, at: int, domain: Domain, cells: int) -> list[list[int]]:
        """Return the options of a setting of an Enum type as a line with the one that is left out inside."""
        name = self._space.names.get(at)
        if not isinstance(name, SettingReference):
            return []
        setting = self._evaluator.snapshot.setting(name.name)
        if setting is None or not isinstance(setting.type, EnumType):
            return []
        options = [1 << domain.cell_of(option) for option in setting.type.options]  # type: ignore[arg-type]
        out = [option for option in options if option & ~cells]
        rest = [option for option in options if not option & ~cells]
        return [[rest[0], *out, *rest[1:]]] if len(out) == 1 and len(rest) >= 2 else []


def _possible(space: Space, cover: Cover, condition: Condition) -> bool:
    return any(cover.feasible(box) is not None for box in space.boxes(condition))


def _why_not(space: Space, cover: Cover, condition: Condition) -> str:
    """Say why *condition* holds for nothing, by as few of its parts as it takes."""
    parts = list(condition.conditions) if isinstance(condition, AllOf) else [condition]
    if len(parts) <= _EXPLAINED:
        for part in list(parts):
            fewer = [one for one in parts if one is not part]
            if fewer and not _possible(space, cover, AllOf(tuple(fewer))):
                parts = fewer
    if len(parts) == 1:
        return f"{_shown(parts[0])} never holds"
    texts = [_shown(part) for part in parts]
    return f"{', '.join(texts[:-1])} and {texts[-1]} never hold together"


def _dead_parts(space: Space, cover: Cover, condition: Condition, within: list[Box]) -> Iterator[Condition]:
    """Yield the alternatives in *condition* that never hold inside of *within*, outer ones first."""
    match condition:
        case AnyOf(parts) if len(parts) > 1:
            for part in parts:
                its = space.all_of([within, space.boxes(part)])
                if any(cover.feasible(box) is not None for box in its):
                    yield from _dead_parts(space, cover, part, within)
                else:
                    yield part
        case AllOf(parts) if any(isinstance(part, (AnyOf, AllOf)) for part in parts):
            for part in parts:
                if isinstance(part, (AnyOf, AllOf)):
                    others = [space.boxes(other) for other in parts if other is not part]
                    yield from _dead_parts(space, cover, part, space.all_of([within, *others]))
        case _:
            pass
