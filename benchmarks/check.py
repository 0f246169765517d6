"""Checks a second for a company and a user that are at hand, beside schematichq's own engine; and what tracking costs.

Run: python benchmarks/check.py [--peers-python PYTHON]. Writes build/bench/check.json.

Everybody answers the same flag with ten rules, of which the last matches: `company.plan == "pro"` and
`user.role == "admin"`. Rheostat is asked by keys, finds both copies and joins them; schematichq's engine is given both
objects. Times are CPU time of the process for one check, without that of the loop, the least of several rounds. Tracking
is measured in wall-clock time, call by call, with a server that is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "check.json"

RULES = 10
ROUNDS = 9
ROUND_SECONDS = 0.1
TRACKS = 20_000
TARGET_MICROSECONDS = 3.0
TRACK_TARGET_MICROSECONDS = 50.0


def rheostat() -> dict[str, float]:
    import datetime

    from rheo.v1.watch_pb2 import Item
    from rheostat import Client
    from rheostat.language import parse_condition
    from rheostat.model.rule import Rule, ValueOutcome
    from rheostat.model.setting import Setting
    from rheostat.model.subject import Subject
    from rheostat.model.type import BOOL
    from rheostat.sdk.held import Held, HeldItem

    def rule(number: int, plan: str, role: str, *, value: bool) -> Rule:
        condition = parse_condition(f'company.plan == "{plan}" and user.role == "{role}"')
        return Rule(f"rule-{number}", ValueOutcome(value), condition)

    rules = [rule(i, f"plan-{i}", f"role-{i}", value=False) for i in range(RULES - 1)]
    flag = Setting("1", "flag", BOOL, False, rules=(*rules, rule(RULES, "pro", "admin", value=True)))
    # Exposures are counted, as they are by default; nobody answers.
    client: Any = Client("http://127.0.0.1:9", event_interval=3600.0, backoff=(600.0, 600.0))
    items = {("setting", "flag"): HeldItem(1, flag, Item())}
    client._core.replica.advance(Held(None, items), items)
    now = datetime.datetime.now(datetime.UTC)
    subjects = client._core.subjects
    subjects._watching = True
    subjects.put(Subject(b"c" * 16, "company", {"id": "acme"}, {"plan": "pro"}, now, now))
    subjects.put(Subject(b"u" * 16, "user", {"id": "u1"}, {"role": "admin"}, now, now))
    client.start(wait=False)
    subjects._watching = True

    def check() -> bool:
        return client.check("flag", company={"id": "acme"}, user={"id": "u1"})  # type: ignore[no-any-return]

    assert check() is True
    found = {"check": timed(check)}
    client.close()
    return found


def tracking() -> dict[str, float]:
    from rheostat import Client

    client = Client("http://127.0.0.1:9", flush_timeout=0.01)
    client.track("warm-up", company={"id": "acme"})
    took = []
    for _ in range(TRACKS):
        before = time.perf_counter_ns()
        client.track("api-call", company={"id": "acme"}, user={"id": "u1"})
        took.append(time.perf_counter_ns() - before)
        # As a program that has other work, in which the client's threads have their turn.
        if len(took) % 100 == 0:
            time.sleep(0.001)
    client.close()
    took.sort()
    return {"track, p50": took[TRACKS // 2] / 1000, "track, p99": took[TRACKS * 99 // 100] / 1000}


def schematic() -> dict[str, float]:
    from schematic.datastream.rules_engine import RulesEngineClient
    from schematic.types.rulesengine_company import RulesengineCompany
    from schematic.types.rulesengine_flag import RulesengineFlag
    from schematic.types.rulesengine_user import RulesengineUser

    own = {"account_id": "a", "environment_id": "e"}

    def trait(kind: str, name: str) -> dict[str, Any]:
        return {"comparable_type": "string", "entity_type": kind, "id": name}

    def condition(number: int, kind: str, name: str, value: str) -> dict[str, Any]:
        return {
            **own,
            "id": f"{kind}-{number}",
            "condition_type": "trait",
            "operator": "eq",
            "resource_ids": [],
            "trait_definition": trait(kind, name),
            "trait_value": value,
        }

    def rule(number: int, plan: str, role: str, *, value: bool) -> dict[str, Any]:
        return {
            **own,
            "id": f"rule-{number}",
            "name": f"rule-{number}",
            "priority": number,
            "rule_type": "standard",
            "value": value,
            "conditions": [
                condition(number, "company", "plan", plan),
                condition(number, "user", "role", role),
            ],
            "condition_groups": [],
        }

    rules = [rule(i, f"plan-{i}", f"role-{i}", value=False) for i in range(RULES - 1)]
    rules.append(rule(RULES, "pro", "admin", value=True))
    flag = RulesengineFlag(**own, id="flag", key="flag", default_value=False, rules=rules)
    company = RulesengineCompany(
        **own,
        id="acme",
        keys={"id": "acme"},
        rules=[],
        traits=[{"trait_definition": trait("company", "plan"), "value": "pro"}],
        billing_product_ids=[],
        credit_balances={},
        metrics=[],
        plan_ids=[],
        plan_version_ids=[],
    )
    user = RulesengineUser(
        **own,
        id="u1",
        keys={"id": "u1"},
        rules=[],
        traits=[{"trait_definition": trait("user", "role"), "value": "admin"}],
    )
    engine = RulesEngineClient()
    asyncio.run(engine.initialize())

    def check() -> bool:
        return engine.check_flag(flag, company, user).value  # type: ignore[no-any-return]

    assert check() is True
    return {"check": timed(check)}


def timed(call: Callable[[], object]) -> float:
    """Return the microseconds of CPU time that one call takes, without those of the loop."""

    def nothing() -> None:
        return None

    def once(function: Callable[[], object], count: int) -> float:
        before = time.process_time()
        for _ in range(count):
            function()
        return time.process_time() - before

    count = 1
    while once(call, count) < ROUND_SECONDS:
        count *= 2
    return (
        (min(once(call, count) for _ in range(ROUNDS)) - min(once(nothing, count) for _ in range(ROUNDS)))
        / count
        * 1e6
    )


SUBJECTS: dict[str, Callable[[], dict[str, float]]] = {
    "rheostat": rheostat,
    "rheostat, tracking": tracking,
    "schematichq": schematic,
}


def measured(name: str, python: str) -> dict[str, float] | str:
    """Measure one in a process of its own; return why not where that cannot be done."""
    command = [python, __file__, "--measure", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it has failed"])[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description="Checks of flags for subjects, beside schematichq's engine.")
    parser.add_argument("--peers-python", default=sys.executable, help="the interpreter that has schematichq")
    parser.add_argument("--measure", choices=SUBJECTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        logging.disable()
        print(json.dumps(SUBJECTS[arguments.measure]()))
        return
    found: dict[str, Any] = {
        name: measured(name, arguments.peers_python if name == "schematichq" else sys.executable)
        for name in SUBJECTS
    }
    print(f"{RULES} rules, a company and a user at hand; microseconds")
    for name, result in found.items():
        if isinstance(result, str):
            print(f"  {name:30} not measured: {result}")
        else:
            for what, took in result.items():
                print(f"  {name + ', ' + what:40} {took:10.2f}")
    print(f"targets: check {TARGET_MICROSECONDS}, track p99 {TRACK_TARGET_MICROSECONDS}")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(
        json.dumps({"python": platform.python_version(), "microseconds": found}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
