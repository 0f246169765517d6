"""How long the analysis of 200 rules takes, for rule sets of several kinds.

Run: python benchmarks/analysis.py [--rules N]. Writes build/bench/analysis.json.

Times are CPU time of one analysis, in ms, the least of several rounds, because the machine may be shared. The target
of docs/reference/performance-evaluation.md is 100 ms for 200 rules, whatever is wrong with them. Kinds that are
called "many findings" are what nobody writes, but some program may: most of their rules are reported.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from rheostat.evaluation.finding import analyse
from rheostat.evaluation.reference import Evaluator
from rheostat.language import parse_condition
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import INT

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "analysis.json"

TARGET_MS = 100
ROUNDS = 7
PLANS = ("free", "basic", "pro", "team", "business", "enterprise")
COUNTRIES = tuple(f"{one}{other}" for one in "ABCDEFGHIJ" for other in "EKLNRST")

SEGMENTS = (
    Segment("staff", parse_condition('user.email ends_with "@example.com" or user.id in ["u1", "u2", "u3"]')),
    Segment("europe", parse_condition('country in ["DE", "FR", "ES", "IT"] and not (plan == "free")')),
)

HALF = Distribution("user.id", "half", (Variant("on", 50_000, 1), Variant("off", 50_000, 0)))

Texts = Iterator[str]


def equalities(dice: random.Random) -> Texts:
    number = 0
    while True:
        number += 1
        yield f'account == "account-{number}"'


def hierarchy(dice: random.Random) -> Texts:
    while True:
        parts = [
            f'user.id == "u{dice.randrange(400)}"',
            f'account == "a{dice.randrange(60)}"',
            f'plan == "{dice.choice(PLANS)}"',
            f'country == "{dice.choice(COUNTRIES)}"',
        ]
        yield " and ".join(dice.sample(parts, dice.randrange(2, 4)))


def targeting(dice: random.Random) -> Texts:
    """What a product's flags look like: a few attributes, of all kinds."""
    while True:
        parts = [
            f'country in ["{dice.choice(COUNTRIES)}", "{dice.choice(COUNTRIES)}"]',
            f'plan != "{dice.choice(PLANS)}"',
            f'semver(app.version) >= "{dice.randrange(1, 9)}.{dice.randrange(20)}"',
            f'percent(user.id, salt="s{dice.randrange(8)}") < {dice.randrange(1, 99)}',
            f"age >= {dice.randrange(10, 90)}",
            f'user.email ends_with "@{dice.choice(COUNTRIES).lower()}.example"',
            f'groups has_any ["g{dice.randrange(30)}", "g{dice.randrange(30)}"]',
            f'signed_up after timestamp("20{dice.randrange(10, 27)}-0{dice.randrange(1, 10)}-01")',
            'segment("staff")',
            'segment("europe")',
        ]
        yield " and ".join(dice.sample(parts, dice.randrange(1, 4)))


def rollouts(dice: random.Random) -> Texts:
    while True:
        yield (
            f'account == "account-{dice.randrange(10**6)}"'
            f' and percent(user.id, salt="s{dice.randrange(20)}") < {dice.randrange(1, 99)}'
        )


def lists(dice: random.Random) -> Texts:
    while True:
        names = ", ".join(f'"u{dice.randrange(5_000)}"' for _ in range(20))
        yield f'user.id in [{names}] or plan == "{dice.choice(PLANS)}" and age > {dice.randrange(99)}'


def networks(dice: random.Random) -> Texts:
    while True:
        yield f'ip in ["10.{dice.randrange(256)}.0.0/16", "192.168.{dice.randrange(256)}.0/24"]'


def patterns(dice: random.Random) -> Texts:
    while True:
        yield f'user.email matches "^[a-z]+{dice.randrange(900)}@" and plan == "{dice.choice(PLANS)}"'


def repeated(dice: random.Random) -> Texts:
    """Many findings: each rule stands several times."""
    while True:
        yield f'plan == "{dice.choice(PLANS)}" and country == "{dice.choice(COUNTRIES[:5])}"'


def contradictory(dice: random.Random) -> Texts:
    """Many findings: no rule ever matches."""
    while True:
        age = dice.randrange(10, 90)
        yield f'age < {age} and age > {age + 5} and plan == "{dice.choice(PLANS)}"'


def covered(dice: random.Random) -> Texts:
    """Many findings: most rules are hidden by several before them together."""
    for plan in PLANS:
        yield f'plan == "{plan}" and age < 40'
        yield f'plan == "{plan}" and age >= 40'
    while True:
        yield (
            f'plan in ["{dice.choice(PLANS)}", "{dice.choice(PLANS)}"] and age < {dice.randrange(90)}'
            f' and country == "{dice.choice(COUNTRIES)}"'
        )


def excluding(dice: random.Random) -> Texts:
    """Many findings: what all rules leave out is small, so that most of them are hidden."""
    number = 0
    while True:
        yield f'country == "C{number % 9}" and plan == "p{number % 7}" and user.id != "u{number}"'
        number += 1


def halves(dice: random.Random) -> Texts:
    """Many findings: overlapping ranges of a number and of percentages."""
    while True:
        low = dice.randrange(90)
        ages = f"age >= {low} and age < {low + dice.randrange(1, 20)}"
        yield f'{ages} or percent(user.id, salt="s") < {low / 9:.2f}'


def negations(dice: random.Random) -> Texts:
    while True:
        yield (
            f'not (country == "C{dice.randrange(9)}" or plan in ["p{dice.randrange(9)}", "p{dice.randrange(9)}"])'
            f" and score < {dice.randrange(100)}"
        )


def switches(dice: random.Random) -> Texts:
    """Many findings: few bools in many combinations."""
    while True:
        yield (
            f"a == {dice.choice(['true', 'false'])} and f{dice.randrange(2, 12)} == true"
            f" and f{dice.randrange(2, 12)} == false"
        )


def tags(dice: random.Random) -> Texts:
    while True:
        names = ", ".join(f'"t{dice.randrange(20)}"' for _ in range(3))
        yield f'tags has_any [{names}] and region == "r{dice.randrange(5)}"'


def many_tags(dice: random.Random) -> Texts:
    """Many findings: two thousand alternatives, as each of ten tags in a rule is one."""
    while True:
        names = ", ".join(f'"t{dice.randrange(100)}"' for _ in range(10))
        yield f'tags has_any [{names}] and plan != "{dice.choice(PLANS)}"'


def exclusions(dice: random.Random) -> Texts:
    """Many findings: rules that exclude a few values of four attributes each, and so hide each other."""
    number = 0
    while True:
        parts = [f"{name} not in [{dice.randrange(5)}, {dice.randrange(5)}]" for name in "abc"]
        yield f"{' and '.join(parts)} and d != {number}"
        number += 1


KINDS: dict[str, Callable[[random.Random], Texts]] = {
    "equalities on one attribute": equalities,
    "a hierarchy of features": hierarchy,
    "targeting of all kinds": targeting,
    "rollouts by account": rollouts,
    "lists of users": lists,
    "networks": networks,
    "patterns": patterns,
    "tags": tags,
    "switches": switches,
    "negations": negations,
    "many findings: repeated rules": repeated,
    "many findings: contradictions": contradictory,
    "many findings: covered by several": covered,
    "many findings: all but one user": excluding,
    "many findings: overlapping ranges": halves,
    "many findings: ten tags in a rule": many_tags,
    "many findings: exclusions": exclusions,
}


def setting_of(kind: str, count: int) -> Setting:
    texts = islice(KINDS[kind](random.Random(kind)), count)
    rules = tuple(
        Rule(f"r{number}", HALF if number % 10 == 9 else ValueOutcome(number), parse_condition(text), number)
        for number, text in enumerate(texts)
    )
    return Setting("id", "setting", INT, 0, rules=rules)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", type=int, default=200)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    width = max(map(len, KINDS))
    print(f"{options.rules} rules: {'':{width - 9}} ms  findings  not analysed")
    for kind in KINDS:
        setting = setting_of(kind, options.rules)
        best = float("inf")
        for _ in range(ROUNDS):
            evaluator = Evaluator(Snapshot.of([setting], SEGMENTS))
            started = time.process_time()
            findings = analyse(evaluator, setting)
            best = min(best, time.process_time() - started)
        left = sum(len(each.rules) for each in findings if each.code == "ANALYSIS_INCOMPLETE")
        found[kind] = {"ms": best * 1e3, "findings": len(findings), "not_analysed": left}
        late = "  MISSED" if best * 1e3 > TARGET_MS or left else ""
        print(f"{kind:{width}} {best * 1e3:6.1f}  {len(findings):8}  {left:12}{late}", flush=True)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    document = {"python": platform.python_version(), "rules": options.rules, "kinds": found}
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
