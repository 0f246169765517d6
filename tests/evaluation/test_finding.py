"""The analysis of rules, held against the reference evaluator: what it reports is so, and its examples show it."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.evaluation.bucket import bucket
from rheostat.evaluation.context import Context
from rheostat.evaluation.finding import (
    Deadline,
    Finding,
    analyse,
    analyse_segment,
    compare_rollouts,
    compare_segment_rollouts,
)
from rheostat.evaluation.finding.box import Box, Element, Opaque, Space, TooComplexError
from rheostat.evaluation.finding.cover import Place
from rheostat.evaluation.finding.domain import Buckets, Domain
from rheostat.evaluation.reference import Evaluator, Run
from rheostat.evaluation.truth import Truth
from rheostat.language import parse_condition
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.rule import TOTAL_WEIGHT, Distribution, Outcome, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import BOOL, INT, SettingType, parse_type
from rheostat.model.value import FrozenMapping
from tests.evaluation import strategy

NIGHTLY = int(os.environ.get("RHEOSTAT_NIGHTLY_SETS", "0"))
"""How many rule sets are generated at night; CI makes `SETS`."""

SETS = 500


def setting_of(
    *rules: str | Rule | None | tuple[str | None, Outcome], name: str = "s", type_: SettingType = INT
) -> Setting:
    """A setting whose rules are called r1, r2 and so on and give 1, 2 and so on."""
    made = []
    for number, each in enumerate(rules, 1):
        if isinstance(each, Rule):
            made.append(each)
            continue
        text, outcome = each if isinstance(each, tuple) else (each, ValueOutcome(number))
        made.append(Rule(f"r{number}", outcome, None if text is None else parse_condition(text), number))
    return Setting(name, name, type_, 0, rules=tuple(made))


def found(
    *rules: str | Rule | None | tuple[str | None, Outcome],
    others: tuple[Setting, ...] = (),
    segments: tuple[Segment, ...] = (),
) -> list[Finding]:
    """The findings about a setting with these rules, each of them proved on the reference."""
    setting = setting_of(*rules)
    evaluator = Evaluator(Snapshot.of((setting, *others), segments))
    findings = list(analyse(evaluator, setting))
    for finding in findings:
        show(evaluator, setting, finding)
    return findings


def codes(findings: list[Finding]) -> list[tuple[str, ...]]:
    return [(finding.code, *finding.rules) for finding in findings]


def show(evaluator: Evaluator, setting: Setting, finding: Finding) -> None:
    """Check that the example of *finding* shows what it says."""
    if finding.example is None:
        return
    decided = evaluator.evaluate(setting.name, finding.example).rule_id
    if finding.code == "RULE_HIDDEN":
        ids = [rule.id for rule in setting.rules]
        hidden, *hiding = finding.rules
        assert decided in ids[: ids.index(hidden)]
        run = Run(evaluator, Context.of(finding.example))
        deciding = {rule.id for rule in setting.rules if run.decide(setting, rule) is not None}
        assert hidden in deciding and deciding & set(hiding)
    else:
        assert finding.code == "RULES_LEAVE_GAP"
        assert decided is None


def split(unit: str = "user.id", salt: str = "s", *weights: int) -> Distribution:
    shares = weights or (TOTAL_WEIGHT // 2, TOTAL_WEIGHT // 2)
    return Distribution(unit, salt, tuple(Variant(f"v{i}", share, i) for i, share in enumerate(shares)))


# What cells say is what the evaluator says.


def place_of(space: Space, run: Run) -> Place:
    """The cells that a context is in."""
    place = {}
    for at, operand in enumerate(space.operands):
        if isinstance(operand, Domain):
            cell = operand.cell_of(run.operand(space.names[at]))
        elif isinstance(operand, Buckets):
            cell = operand.cell_of(run.context.lookup(operand.attribute))
        elif isinstance(operand, Element):
            held = run.operand(space.names[operand.operand])
            cell = int(
                isinstance(held, tuple)
                and any(
                    isinstance(one, bool) == isinstance(operand.value, bool) and one == operand.value
                    for one in held
                )
            )
        else:
            assert isinstance(operand, Opaque)
            cell = [Truth.TRUE, Truth.FALSE, Truth.UNKNOWN].index(run.truth(operand.comparison))
        place[at] = next(i for i, members in enumerate(space.classes[at]) if members >> cell & 1)
    return place


def is_inside(space: Space, place: Place, box: Mapping[int, int]) -> bool:
    return all(mask >> place[at] & 1 for at, mask in box.items())


def spaces_of(evaluator: Evaluator) -> list[tuple[Setting, Space, dict[int, list[Box] | None]]]:
    """Each setting with its space, and the boxes of its rules by identity; None where they are too many."""
    made = []
    for setting in evaluator.snapshot.settings.values():
        space = Space(evaluator, Deadline(60))
        for rule in setting.rules:
            space.read_rule(rule)
        space.close()
        boxes: dict[int, list[Box] | None] = {}
        for rule in setting.rules:
            try:
                boxes[id(rule)] = space.rule_boxes(rule)
            except TooComplexError:
                boxes[id(rule)] = None
        made.append((setting, space, boxes))
    return made


def check_cells(evaluator: Evaluator, contexts: Iterable[Context]) -> None:
    """Check that each rule decides exactly in its boxes, and that links allow what is."""
    spaces = spaces_of(evaluator)
    for context, (setting, space, boxes) in itertools.product(contexts, spaces):
        run = Run(evaluator, context)
        place = place_of(space, run)
        for at, one in place.items():
            assert space.full[at] >> one & 1
        for link in itertools.chain.from_iterable(space.links.values()):
            assert link.allowed[place[link.attribute]] >> place[link.buckets] & 1
        for rule in setting.rules:
            its = boxes[id(rule)]
            if its is not None:
                decided = run.decide(setting, replace(rule, enabled=True)) is not None
                assert any(is_inside(space, place, box) for box in its) == decided, (rule, context)


@settings(max_examples=NIGHTLY or 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategy.snapshots, strategy.contexts)
def test_rules_decide_in_their_boxes_and_nowhere_else(
    snapshot: Snapshot, layers: list[dict[str, object]]
) -> None:
    check_cells(Evaluator(snapshot), [Context(*layers)])


@settings(max_examples=NIGHTLY or 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategy.snapshots, st.lists(strategy.contexts, min_size=1, max_size=5))
def test_what_is_said_never_to_decide_does_not_with_odd_rules_and_contexts(
    snapshot: Snapshot, several: list[list[dict[str, object]]]
) -> None:
    evaluator = Evaluator(snapshot)
    for setting in snapshot.settings.values():
        unreachable = {
            finding.rules[0]
            for finding in analyse(evaluator, setting)
            if finding.code in ("RULE_NEVER_MATCHES", "RULE_HIDDEN")
        }
        ids = [rule.id for rule in setting.rules]
        for layers in several:
            decided = evaluator.evaluate(setting.name, Context(*layers)).rule_id
            assert decided not in unreachable or ids.count(decided) > 1


# Generated sets: what is said to be unreachable is not reached.

PATHS = ("a", "b", "user.id")
TEXTS = ("", "a", "ab", "b", "1.2.0", "v1.3", "10.0.0.1", "10.0.0.0/8", "2026-01-01", "2026-06-01T00:00:00Z")
NUMBERS = (0, 1, 2, 3, -1, 0.5, 1.5, 2**53, 2.0**53, 1767225600)
PATTERNS = ("^a", "b$", "[0-9]")
VERSIONS = ("1.2", "1.3.0", "1.3.0-rc.1", "2")
NETWORKS = ("10.0.0.0/8", "10.0.0.1", "10.0.0.0/31", "::ffff:10.0.0.0/104", "fe80::/10")
INSTANTS = ("2026-01-01", "2026-06-01T00:00:00Z", 1767225600, 1767225600.5)
SALTS = ("s", "t")


class Maker:
    """Makes rule sets over few attributes and literals, so that rules meet, and contexts near the literals."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self, depth: int = 2) -> str:
        """A condition in the language."""
        chosen = self.random
        if depth and chosen.random() < 0.5:
            parts = [self.text(depth - 1) for _ in range(chosen.choice((2, 2, 3)))]
            joined = f" {chosen.choice(('and', 'and', 'or'))} ".join(f"({part})" for part in parts)
            return f"not ({joined})" if chosen.random() < 0.2 else joined
        leaf = self.leaf()
        return f"not ({leaf})" if chosen.random() < 0.2 else leaf

    def leaf(self) -> str:
        chosen = self.random
        path = chosen.choice(PATHS)
        number, text = chosen.choice(NUMBERS), f'"{chosen.choice(TEXTS)}"'
        either = chosen.choice((str(number), text, "true", "false"))
        low, high = sorted(chosen.choice((0, 10, 25, 50, 75, 100)) for _ in range(2))
        several = ", ".join({f'"{chosen.choice(TEXTS)}"', str(number), either})
        algorithm = chosen.choice(tuple(BucketAlgorithm)).name
        forms = (
            f"{path} == {either}",
            f"{path} == {either}",
            f"{path} != {either}",
            f"{path} {chosen.choice(('in', 'not in'))} [{several}]",
            f"{path} {chosen.choice(('<', '<=', '>', '>='))} {chosen.choice((number, text))}",
            f"{path} {chosen.choice(('<', '<=', '>', '>='))} {number}",
            f"{path} {chosen.choice(('starts_with', 'ends_with', 'contains'))} {text}",
            f'{path} matches "{chosen.choice(PATTERNS)}"',
            f'semver({path}) {chosen.choice(("==", "<", "<=", ">", ">="))} "{chosen.choice(VERSIONS)}"',
            f'{path} ip_in ["{chosen.choice(NETWORKS)}", "{chosen.choice(NETWORKS)}"]',
            f'{path} {chosen.choice(("before", "after"))} timestamp("{chosen.choice(INSTANTS[:2])}")'
            if chosen.random() < 0.5
            else f"{path} {chosen.choice(('before', 'after'))} {chosen.choice(INSTANTS[2:])}",
            f"{path} {chosen.choice(('has_any', 'has_all', 'has_none'))} [{several}]",
            f"exists({path})",
            f"missing({path})",
            f'{low} <= percent({path}, salt="{chosen.choice(SALTS)}", algorithm={algorithm}) < {high}',
            f'percent({path}, salt="s") < {chosen.choice((0, 10, 50, 100))}',
            f"{path} == attr({chosen.choice(PATHS)})",
            f'segment("{chosen.choice(("g", "h"))}")',
            f'setting("flag") == {chosen.choice(("true", "false"))}',
            f'setting("tier") == "{chosen.choice("xyz")}"',
        )
        return chosen.choice(forms)

    def snapshot(self) -> Snapshot:
        chosen = self.random
        outcomes = [
            (self.text(chosen.choice((0, 1, 1, 2))) if chosen.random() < 0.97 else None, self.outcome(i))
            for i in range(chosen.randrange(2, 8))
        ]
        flag = setting_of(("a == 1", ValueOutcome(True)), name="flag", type_=BOOL)
        tier = setting_of(('b == "a"', ValueOutcome("x")), name="tier", type_=parse_type('Enum["x","y","z"]'))
        return Snapshot.of(
            (setting_of(*outcomes), replace(flag, default=False), replace(tier, default="y")),
            [Segment(name, parse_condition(self.without_segments())) for name in ("g", "h")],
        )

    def without_segments(self) -> str:
        while True:
            text = self.text(1)
            if "segment" not in text:
                return text

    def outcome(self, number: int) -> Outcome:
        if self.random.random() < 0.2:
            return split(self.random.choice(PATHS), self.random.choice(SALTS))
        return ValueOutcome(number)

    def contexts(self, count: int) -> Iterator[FrozenMapping]:
        for _ in range(count):
            yield FrozenMapping({path: value for path in PATHS if (value := self.value()) is not None})

    def value(self) -> Any:
        """A value at, or just beside, a literal."""
        chosen = self.random
        text = chosen.choice((*TEXTS, *VERSIONS, *NETWORKS, *INSTANTS[:2], "user-1", "::ffff:10.0.0.1", "c"))
        number = chosen.choice(NUMBERS)
        near = (
            None,
            True,
            False,
            number,
            math.nextafter(number, math.inf),
            number - 1,
            math.nan,
            math.inf,
            text,
            text,
            text,
            f"{text}\x00",
            text[:-1],
            f"{text}a",
            f"{text}b",
            f"a{text}",
            f"{text}\ud800",
            f"user-{chosen.randrange(1000)}",
            chosen.randrange(1000),
            tuple(chosen.choice((*TEXTS, *NUMBERS, True)) for _ in range(chosen.randrange(4))),
            (math.nan, "a"),
            FrozenMapping(),
        )
        return chosen.choice(near)


BATCHES = 20


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_reachable_rule_is_called_unreachable(batch: int) -> None:
    for seed in range(batch, NIGHTLY or SETS, BATCHES):
        made = Maker(seed)
        snapshot = made.snapshot()
        evaluator = Evaluator(snapshot)
        setting = snapshot.settings["s"]
        findings = analyse(evaluator, setting)
        unreachable = {
            finding.rules[0]: finding
            for finding in findings
            if finding.code in ("RULE_NEVER_MATCHES", "RULE_HIDDEN")
        }
        for finding in findings:
            show(evaluator, setting, finding)
        contexts = list(made.contexts(60))
        for context in contexts:
            decided = evaluator.evaluate("s", context).rule_id
            assert decided not in unreachable, (seed, unreachable[decided].message, context)
        if seed % 5 == 0:
            check_cells(evaluator, [Context.of(context) for context in contexts[:20]])


def test_generated_sets_have_findings_of_each_kind_with_examples() -> None:
    """Otherwise the test above would show nothing."""
    counted: dict[str, int] = {}
    for seed in range(120):
        snapshot = Maker(seed).snapshot()
        for finding in analyse(Evaluator(snapshot), snapshot.settings["s"]):
            counted[finding.code] = counted.get(finding.code, 0) + 1
            counted["example"] = counted.get("example", 0) + (finding.example is not None)
    assert counted["RULE_NEVER_MATCHES"] >= 10 and counted["RULE_HIDDEN"] >= 10
    assert counted["CONDITION_NEVER_HOLDS"] >= 3 and counted["example"] >= 10


# Where everything is finite, nothing that is unreachable is missed either: z3 says the same.


class Finite:
    """Makes rules of equalities, orders of numbers and presence, as text and for z3."""

    KINDS = ("missing", "bool", "number", "string", "other")

    def __init__(self, seed: int, z3: Any) -> None:
        self.random = random.Random(seed)
        self.z3 = z3
        self.kinds = {path: z3.Int(f"kind {path}") for path in PATHS}
        self.numbers = {path: z3.Real(f"number {path}") for path in PATHS}
        self.texts = {path: z3.Int(f"text {path}") for path in PATHS}
        self.bools = {path: z3.Bool(f"bool {path}") for path in PATHS}

    def world(self) -> list[Any]:
        return [self.z3.And(kind >= 0, kind < len(self.KINDS)) for kind in self.kinds.values()]

    def condition(self, depth: int = 2) -> tuple[str, Any, Any]:
        """A condition's text, and for z3 when it is TRUE and when it is FALSE."""
        z3, chosen = self.z3, self.random
        if depth and chosen.random() < 0.6:
            parts = [self.condition(depth - 1) for _ in range(chosen.choice((2, 2, 3)))]
            trues, falses = [part[1] for part in parts], [part[2] for part in parts]
            if chosen.random() < 0.5:
                return " and ".join(f"({part[0]})" for part in parts), z3.And(trues), z3.Or(falses)
            return " or ".join(f"({part[0]})" for part in parts), z3.Or(trues), z3.And(falses)
        text, true, false = self.leaf()
        return (f"not ({text})", false, true) if chosen.random() < 0.2 else (text, true, false)

    def leaf(self) -> tuple[str, Any, Any]:
        z3, chosen = self.z3, self.random
        path = chosen.choice(PATHS)
        kind = self.kinds[path]
        if chosen.random() < 0.15:
            return f"exists({path})", kind != 0, kind == 0
        if chosen.random() < 0.4:
            literal, op = chosen.randrange(4), chosen.choice(("<", "<=", ">", ">="))
            number = self.numbers[path]
            holds = {
                "<": number < literal,
                "<=": number <= literal,
                ">": number > literal,
                ">=": number >= literal,
            }
            return (
                f"{path} {op} {literal}",
                z3.And(kind == 2, holds[op]),
                z3.And(kind == 2, z3.Not(holds[op])),
            )
        literals = [
            chosen.choice((0, 1, 2, 3, "x", "y", True, False)) for _ in range(chosen.choice((1, 1, 2)))
        ]
        scalar = z3.And(kind >= 1, kind <= 3)
        equal = z3.Or([self.equal(path, literal) for literal in literals])
        written = ", ".join(self.written(literal) for literal in literals)
        if chosen.random() < 0.7:
            return f"{path} in [{written}]", z3.And(scalar, equal), z3.And(scalar, z3.Not(equal))
        return f"{path} not in [{written}]", z3.And(scalar, z3.Not(equal)), z3.And(scalar, equal)

    def equal(self, path: str, literal: bool | int | str) -> Any:
        kind = self.kinds[path]
        if isinstance(literal, bool):
            return self.z3.And(kind == 1, self.bools[path] == literal)
        if isinstance(literal, str):
            return self.z3.And(kind == 3, self.texts[path] == ord(literal))
        return self.z3.And(kind == 2, self.numbers[path] == literal)

    @staticmethod
    def written(literal: bool | int | str) -> str:
        return f'"{literal}"' if isinstance(literal, str) else str(literal).lower()


@pytest.mark.timeout(3600)
def test_z3_finds_the_same_rules_unreachable() -> None:
    z3 = pytest.importorskip("z3")
    unreachable = 0
    for seed in range(NIGHTLY or 60):
        made = Finite(seed, z3)
        conditions = [made.condition() for _ in range(6)]
        setting = setting_of(*(text for text, _, _ in conditions))
        told = {
            finding.rules[0]
            for finding in analyse(Evaluator(Snapshot.of((setting,))), setting)
            if finding.code in ("RULE_NEVER_MATCHES", "RULE_HIDDEN")
        }
        solver = z3.Solver()
        solver.add(*made.world())
        for rule, (text, true, _) in zip(setting.rules, conditions, strict=True):
            solver.push()
            solver.add(true)
            is_reached = solver.check() == z3.sat
            solver.pop()
            assert (rule.id not in told) == is_reached, (seed, rule.id, text)
            solver.add(z3.Not(true))
        unreachable += len(told)
    assert unreachable >= 20


# What is found.


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("a == 1 and a == 2", "`a == 1` and `a == 2` never hold together"),
        ("a < 3 and b == 1 and a > 5", "`a < 3` and `a > 5` never hold together"),
        ("a > 9223372036854775806 and a < 9223372036854775807", "never hold together"),
        ("a in []", "`a in []` never holds"),
        ('a == 1 and a starts_with "1"', "never hold together"),
        ('a starts_with "ab" and a starts_with "b"', "never hold together"),
        ('a ends_with "ab" and not a ends_with "b"', "never hold together"),
        ('a ends_with "xyz" and not a contains "y"', "never hold together"),
        ('a has_any ["x"] and a has_none ["x", "y"]', "never hold together"),
        ('a has_all ["x"] and a == "x"', "never hold together"),
        ("missing(a) and a != 1", "never hold together"),
        ('missing(a) and percent(a, salt="s") < 50', "never hold together"),
        ('semver(a) < "1.2" and semver(a) > "1.3"', "never hold together"),
        ('a ip_in ["10.0.0.0/8"] and a ip_in ["192.168.0.0/16"]', "never hold together"),
        ("a before 100 and a after 200", "never hold together"),
        ("a before 100 and a >= 100", "never hold together"),
        ('percent(a, salt="s") < 10 and percent(a, salt="s") >= 20', "never hold together"),
        ("not any_of(a == 1, not a == 1)", "never holds"),
        ('segment("g") and a == 2', '`segment("g")` and `a == 2` never hold together'),
        ('setting("flag") == "on"', '`setting("flag") == "on"` never holds'),
        ('setting("tier") == "z"', "never holds"),
        ("a == attr(b) and not a == attr(b)", "never hold together"),
    ],
)
def test_a_rule_that_cannot_match_is_found_with_the_parts_that_exclude_each_other(
    condition: str, why: str
) -> None:
    others = (
        replace(setting_of(name="flag", type_=BOOL), default=False),
        replace(setting_of(name="tier", type_=parse_type('Enum["x","y"]')), default="x"),
    )
    segment = Segment("g", parse_condition("a == 1 and exists(b)"))
    (finding,) = found("b == 7", condition, others=others, segments=(segment,))
    assert (finding.code, finding.rules, finding.example) == ("RULE_NEVER_MATCHES", ("r2",), None)
    assert finding.message.startswith("rule 2 ('r2') of the setting 's' never matches: ")
    assert why in finding.message


@pytest.mark.parametrize(
    ("earlier", "hidden"),
    [
        ('region in ["eu", "us"]', 'region == "eu" and plan == "pro"'),
        ("a != 3", "a == 4"),
        ("a < 5", "a <= 3"),
        ('a starts_with "user-"', 'a == "user-1"'),
        ('a contains "b"', 'a starts_with "abc"'),
        ('a ends_with "example.com"', 'a ends_with "@example.com"'),
        ("exists(a)", 'a matches "x"'),
        ('a matches "^x"', 'a == "xy"'),
        ('tags has_any ["x", "y"]', 'tags has_all ["x", "z"]'),
        ('semver(v) < "2"', 'semver(v) < "2.0.0-rc.1"'),
        ('ip ip_in ["10.0.0.0/8"]', 'ip ip_in ["10.1.0.0/16", "::ffff:10.2.3.4"] and ip == "10.1.2.3"'),
        ('t before timestamp("2026-06-01T00:00:00Z")', 't before "2026-01-01"'),
        ('percent(user.id, salt="s") < 50', '10 <= percent(user.id, salt="s") < 20'),
        ('plan == "pro" or plan == "team"', 'plan in ["team"]'),
        ("not (a == 1 and b == 2)", "a == 3"),
    ],
)
def test_a_rule_hidden_by_one_before_it_is_found_with_a_context_that_both_match(
    earlier: str, hidden: str
) -> None:
    findings = found("other == 1", earlier, hidden, "exists(zzz)")
    assert codes(findings) == [("RULE_HIDDEN", "r3", "r2")]
    assert findings[0].example is not None
    assert findings[0].message == (
        "rule 3 ('r3') of the setting 's' never decides: rule 2 ('r2') matches all that it matches"
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ('region == "eu"', 'region in ["eu", "us"]'),
        ("a != 3", "exists(a)"),
        ("a < 5", "a <= 5"),
        ('a starts_with "user"', 'a starts_with "use"'),
        ('percent(user.id, salt="s") < 50', 'percent(user.id, salt="t") < 10'),
        ('percent(user.id, salt="s") < 100', "exists(user.id)"),
        ("exists(a)", "missing(a)"),
        ("a == attr(b)", "b == attr(a)"),
        ('tags has_any ["x"]', 'tags has_none ["y"]'),
        ("a == true", "a == 1"),
        ('a matches ""', 'a contains "x"'),
        ('ip ip_in ["10.0.0.0/8"]', 'ip ip_in ["10.0.0.0/7"]'),
    ],
)
def test_a_rule_that_something_reaches_is_left_alone(earlier: str, later: str) -> None:
    assert found(earlier, later) == []


def test_rules_that_hide_another_one_together_are_all_named() -> None:
    findings = found("x == 1", "exists(a)", 'plan == "pro"', "missing(a)", "b == 1")
    assert codes(findings) == [("RULE_HIDDEN", "r5", "r2", "r4")]
    assert findings[0].message.endswith("rule 2 ('r2') and rule 4 ('r4') together match all that it matches")


def test_nothing_comes_after_a_rule_without_a_condition() -> None:
    assert codes(found(None, "a == 1")) == [("RULE_HIDDEN", "r2", "r1")]


def test_a_split_hides_those_with_a_unit_alone() -> None:
    assert found((None, split()), "exists(user.id)", "missing(user.id)") == []
    assert codes(found((None, split()), 'user.id == "u1"')) == [("RULE_HIDDEN", "r2", "r1")]
    assert codes(found(("missing(user.id)", split()))) == [("RULE_NEVER_MATCHES", "r1")]


def test_the_bucket_of_a_named_unit_is_known() -> None:
    place = bucket(BucketAlgorithm.MURMUR3, "s", "u1") / 1000
    assert codes(found(f'user.id == "u1" and percent(user.id, salt="s") < {place:.3f}')) == [
        ("RULE_NEVER_MATCHES", "r1")
    ]
    assert found(f'user.id == "u1" and percent(user.id, salt="s") < {place + 0.001:.3f}') == []


def test_disabled_rules_neither_hide_nor_are_reported() -> None:
    rules = setting_of(None, "a == 1 and a == 2", "a == 1").rules
    setting = replace(
        setting_of(), rules=(replace(rules[0], enabled=False), replace(rules[1], enabled=False), rules[2])
    )
    assert analyse(Evaluator(Snapshot.of((setting,))), setting) == ()


def test_a_disabled_setting_is_analysed_as_if_it_were_enabled() -> None:
    setting = replace(setting_of(None, "a == 1"), enabled=False)
    (finding,) = analyse(Evaluator(Snapshot.of((setting,))), setting)
    assert (finding.code, finding.example) == ("RULE_HIDDEN", FrozenMapping({"a": 1}))


def test_an_alternative_that_never_holds_is_found_in_a_rule_that_matches() -> None:
    (finding,) = found("a == 1 and (a == 2 or b == 3)")
    assert (finding.code, finding.rules) == ("CONDITION_NEVER_HOLDS", ("r1",))
    assert finding.message == "in rule 1 ('r1') of the setting 's' the alternative `a == 2` never holds"


def test_segments_are_analysed_on_their_own() -> None:
    evaluator = Evaluator(Snapshot.of())
    (whole,) = analyse_segment(evaluator, Segment("g", parse_condition("a == 1 and a == 2")))
    assert whole.message == "the segment 'g' holds for nobody: `a == 1` and `a == 2` never hold together"
    (part,) = analyse_segment(evaluator, Segment("g", parse_condition("b == 1 or a in []")))
    assert part.message == "in the segment 'g' the alternative `a in []` never holds"
    assert analyse_segment(evaluator, Segment("g", parse_condition("a == 1 or b == 2"))) == ()


@pytest.mark.parametrize(
    ("rules", "example"),
    [
        (("a < 3", "a > 3"), {"a": 3}),
        (("a <= 3", "a >= 5"), {"a": 4}),
        (('semver(v) < "2"', 'semver(v) > "2"'), None),
        (('percent(u, salt="s") < 50', 'percent(u, salt="s") >= 51'), None),
        (('setting("tier") == "x"', 'setting("tier") == "y"'), {}),
    ],
)
def test_what_rules_leave_out_in_the_middle_is_found(
    rules: tuple[str, ...], example: dict[str, object] | None
) -> None:
    tier = replace(setting_of(name="tier", type_=parse_type('Enum["x","y","z"]')), default="z")
    (finding,) = found(*rules, others=(tier,))
    assert (finding.code, finding.rules) == ("RULES_LEAVE_GAP", ("r1", "r2"))
    assert finding.example is not None and (example is None or dict(finding.example) == example)


@pytest.mark.parametrize(
    "rules",
    [
        ("a < 3", "a >= 3"),
        ("a < 3", "a > 3", "a == 3"),
        ("a < 3", "a > 3", None),
        ("a < 3", "a == 7"),
        ('percent(u, salt="s") < 10', '20 <= percent(u, salt="s") < 30'),
        ("a == true", "a == false"),
    ],
)
def test_rules_that_leave_out_nothing_in_the_middle_have_no_gap(rules: tuple[str | None, ...]) -> None:
    assert found(*rules) == []


# How long it takes.


class Clock:
    """A clock that goes on by a step whenever it is asked."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_an_analysis_that_takes_too_long_says_what_it_has_not_looked_at() -> None:
    setting = setting_of(*(f"a == {number}" for number in range(500)), "a == 1")
    evaluator = Evaluator(Snapshot.of((setting,)))
    (finding,) = analyse(evaluator, setting, Deadline(1.0, Clock(0.002)))
    assert finding.code == "ANALYSIS_INCOMPLETE" and finding.rules[-1] == "r501"
    assert finding.message.endswith("were not analysed: too many rules or alternatives")
    (finding,) = analyse(evaluator, setting, Deadline(1.0, Clock(0.0)))
    assert (finding.code, finding.rules) == ("RULE_HIDDEN", ("r501", "r2"))


def test_the_first_rules_are_analysed_even_where_all_are_too_many() -> None:
    setting = setting_of("a == 1", "a == 1", *(f"b == {number}" for number in range(2000)))
    findings = analyse(Evaluator(Snapshot.of((setting,))), setting, Deadline(1.0, Clock(0.002)))
    assert [finding.code for finding in findings] == ["RULE_HIDDEN", "ANALYSIS_INCOMPLETE"]


def test_a_condition_of_too_many_alternatives_is_not_analysed_and_the_rest_is() -> None:
    wide = " and ".join(f"(a{i} == 1 or b{i} == 2)" for i in range(12))
    assert codes(found("x == 1", wide, "x == 1")) == [
        ("RULE_HIDDEN", "r3", "r1"),
        ("ANALYSIS_INCOMPLETE", "r2"),
    ]


def test_two_hundred_rules_take_few_steps() -> None:
    """Counted rather than timed: how often the analysis asks the clock is how much it searches."""
    setting = setting_of(
        *(f'region == "r{i % 9}" and plan == "p{i % 7}" and user.id != "u{i}"' for i in range(200))
    )
    clock = Clock(1.0)
    assert not any(
        finding.code == "ANALYSIS_INCOMPLETE"
        for finding in analyse(Evaluator(Snapshot.of((setting,))), setting, Deadline(2000.0, clock))
    )


# Rollouts.


def moved(before: Setting, after: Setting) -> list[Finding]:
    evaluator = Evaluator(Snapshot.of((after,)))
    findings = list(compare_rollouts(before, after, evaluator))
    for finding in findings:
        assert finding.code == "ROLLOUT_MOVES_UNITS" and finding.example is not None
        was = Evaluator(Snapshot.of((before,))).evaluate("s", finding.example)
        now = evaluator.evaluate("s", finding.example)
        assert (was.value, was.rule_id) != (now.value, now.rule_id)
    return findings


def share_counted(before: Setting, after: Setting, units: int = 4000) -> float:
    """The share of many units that get something else, in per cent."""
    old, new = Evaluator(Snapshot.of((before,))), Evaluator(Snapshot.of((after,)))
    contexts = [{"user.id": f"u{i}", "account.id": f"a{i}"} for i in range(units)]
    return (
        100
        / units
        * sum(old.evaluate("s", context).value != new.evaluate("s", context).value for context in contexts)
    )


@pytest.mark.parametrize(
    ("before", "after", "said", "share"),
    [
        (split(salt="s"), split(salt="t"), "salt changes from 's' to 't': about 50 %", 50),
        (
            split("user.id"),
            split("account.id"),
            "unit changes from 'user.id' to 'account.id': about 50 %",
            50,
        ),
        (split("user.id", "s", 90_000, 10_000), split("user.id", "t", 90_000, 10_000), "about 18 %", 18),
        (split("user.id", "s", 50_000, 50_000), split("user.id", "s", 0, 100_000), None, 50),
        (
            replace(split("user.id", "s", 20_000, 80_000)),
            replace(
                split("user.id", "s", 20_000, 80_000),
                variants=tuple(reversed(split("user.id", "s", 20_000, 80_000).variants)),
            ),
            "its new shares need, which is 0 %: 40 % of its units",
            40,
        ),
        (
            split(),
            replace(split(), algorithm=BucketAlgorithm.REPLANE),
            "algorithm changes from 'MURMUR3' to 'REPLANE': about 50 %",
            50,
        ),
    ],
)
def test_the_share_of_units_that_a_changed_split_moves_is_told(
    before: Distribution, after: Distribution, said: str | None, share: float
) -> None:
    old, new = setting_of((None, before)), setting_of((None, after))
    findings = moved(old, new)
    assert len(findings) == (said is not None)
    if said is not None:
        assert said in findings[0].message
        assert share_counted(old, new) == pytest.approx(share, abs=4)


def test_a_percentage_that_grows_is_no_finding_and_one_that_slides_is() -> None:
    def rolled(text: str) -> Setting:
        return setting_of(f'region == "eu" and {text}')

    ten = rolled('percent(user.id, salt="s") < 10')
    assert moved(ten, rolled('percent(user.id, salt="s") < 25')) == []
    assert moved(ten, rolled('percent(user.id, salt="s") < 5')) == []
    (slid,) = moved(ten, rolled('20 <= percent(user.id, salt="s") < 30'))
    assert "need, which is 0 %: 20 % of its units get something else" in slid.message
    assert slid.example is not None and slid.example["region"] == "eu"
    (salted,) = moved(ten, rolled('percent(user.id, salt="t") < 10'))
    assert (
        "puts its units into other buckets, as the salt changes from 's' to 't': about 18 %" in salted.message
    )


def test_an_algorithm_of_tens_moves_whole_tens() -> None:
    def tens(low: str, high: str) -> Setting:
        return setting_of(f'{low} <= percent(user.id, salt="s", algorithm=REPLANE_PYTHON) < {high}')

    (finding,) = moved(tens("0.001", "10"), tens("10.001", "20"))
    # 10 to 9 990, against 10 010 to 19 990.
    assert ": 19.98 % of its units" in finding.message


def test_segments_tell_what_their_percentages_move() -> None:
    before = Segment("g", parse_condition('percent(user.id, salt="s") < 50'))
    after = Segment("g", parse_condition('percent(user.id, salt="t") < 50'))
    (finding,) = compare_segment_rollouts(before, after)
    assert finding.message == (
        "the segment 'g' puts its units into other buckets, as the salt changes from 's' to 't': "
        "about 50 % of its units come in or go out"
    )
    assert compare_segment_rollouts(before, before) == ()
