"""Reads a second: the compiled evaluator beside rules compiled by hand and beside other SDKs.

Run: python benchmarks/evaluation.py [--peers-python PYTHON] [--passes N] [--only NAME ...].
Writes build/bench/evaluation.json.

Everybody answers the same three bool flags, in a process of its own, and is asked in its own natural way:

- static: on for everybody;
- one: with `plan == "pro"`, on for half of the users; else off;
- twenty: nineteen rules `plan == "plan-…"` that give off come before that rule.

All users are on the plan pro, so that the rule and the split are done. Before the timing it is checked that half of
the users are on. Times are CPU time of the whole process for one read, without that of the loop; each is the least
of several rounds, because the machine may be shared. "built" includes making the context from an id and a plan.

The peers may live in other environments; --peers-python names their interpreters. heksher needs pydantic 1 and
schematichq's engine needs pydantic 2, so that these two want one each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "evaluation.json"

FLAGS = ("static", "one", "twenty")
PLANS = [f"plan-{i}" for i in range(19)]
USERS = 1_000
CHECKED_USERS = 4_000
ROUND_SECONDS = 0.08
ROUNDS = 9
LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Subject:
    """How somebody is asked.

    `make` and `read` are expressions over `names`, `user` and `plan`; `read` also over `ctx`, which `make` gave.
    """

    make: str
    read: Callable[[str], str]
    names: dict[str, Any]
    rollout: bool = True
    note: str = ""
    more: dict[str, str] = field(default_factory=dict)
    """Further statements to time on `ctx`, by name."""
    measures: Callable[[], dict[str, float]] | None = None


# --- those who are asked -------------------------------------------------------------------------------------------


def floor() -> Subject:
    from mmh3 import mmh3_32_uintdigest as murmur3

    half = 1 << 31
    plans = dict.fromkeys(PLANS, False)

    def static(_: dict[str, Any]) -> bool:
        return True

    def one(ctx: dict[str, Any]) -> bool:
        user = ctx.get("user")
        if user is not None and user.get("plan") == "pro":
            return murmur3(("rollout:" + user["id"]).encode()) < half
        return False

    def twenty(ctx: dict[str, Any]) -> bool:
        user = ctx.get("user")
        if user is not None:
            plan = user.get("plan")
            if plan in plans:
                return plans[plan]
            if plan == "pro":
                return murmur3(("rollout:" + user["id"]).encode()) < half
        return False

    flags = {"static": static, "one": one, "twenty": twenty}

    def get(name: str, ctx: dict[str, Any]) -> bool:
        return flags[name](ctx)

    return Subject(
        make='{"user": {"id": user, "plan": plan}}',
        # By name, as settings are asked for everywhere; the bare function beside it.
        read=lambda flag: f"get({flag!r}, ctx)",
        names={"get": get, "one": one},
        more={"the function of one, without a name": "one(ctx)"},
    )


def rheostat() -> Subject:
    client = rheostat_client(rheostat_snapshot())
    return Subject(
        make='{"user": {"id": user, "plan": plan}}',
        read=lambda flag: f"get({flag!r}, False, ctx)",
        names={"client": client, "get": client.get, "evaluate": client.evaluate},
        more={
            "client[name], static": 'client["static"]',
            "get with context=, one": 'get("one", context=ctx)',
            "get with a keyword, one": 'get("one", user=ctx["user"])',
            "evaluate, one": 'evaluate("one", context=ctx)',
            "evaluate, twenty": 'evaluate("twenty", context=ctx)',
        },
        measures=rheostat_measures,
    )


def rheostat_evaluator() -> Subject:
    from rheostat.evaluation.compile import Base, CompiledSnapshot

    compiled = CompiledSnapshot(rheostat_snapshot())
    base = Base({"client": {"id": "c1"}, "region": "eu"})
    return Subject(
        make='{"user": {"id": user, "plan": plan}}',
        read=lambda flag: f"value({flag!r}, ctx)",
        names={"value": compiled.value, "evaluate": compiled.evaluate, "base": base},
        more={"one, behind it the client's context": 'value("one", ctx, None, base)'},
    )


def rheostat_client(snapshot: Any) -> Any:
    """Return a client that has *snapshot*, as if a server had sent it."""
    from rheo.v1.watch_pb2 import Item
    from rheostat import Client
    from rheostat.sdk.held import Held, HeldItem

    client: Any = Client(offline=True)
    items = {("setting", n): HeldItem(1, setting, Item()) for n, setting in snapshot.settings.items()}
    client._core.replica.advance(Held(None, items), items)
    return client.start()


def rheostat_reference() -> Subject:
    from rheostat.evaluation.reference import Evaluator

    evaluator = Evaluator(rheostat_snapshot())
    return Subject(
        make='{"user": {"id": user, "plan": plan}}',
        read=lambda flag: f"evaluate({flag!r}, ctx).value",
        names={"evaluate": evaluator.evaluate},
    )


def rheostat_snapshot() -> Any:
    from rheostat.language import parse_condition
    from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
    from rheostat.model.setting import Setting
    from rheostat.model.snapshot import Snapshot
    from rheostat.model.type import BOOL

    def plan(value: str) -> Any:
        return parse_condition(f'user.plan == "{value}"')

    half = Distribution("user.id", "rollout", (Variant("on", 50_000, True), Variant("off", 50_000, False)))
    rollout = Rule("rollout", half, plan("pro"))
    off = tuple(Rule(value, ValueOutcome(False), plan(value)) for value in PLANS)
    return Snapshot.of(
        [
            Setting("1", "static", BOOL, True),
            Setting("2", "one", BOOL, False, rules=(rollout,)),
            Setting("3", "twenty", BOOL, False, rules=(*off, rollout)),
        ]
    )


def replane() -> Subject:
    from replane.testing import InMemoryReplaneClient

    pro = {"operator": "equals", "property": "plan", "expected": "pro"}
    half = {
        "operator": "segmentation",
        "property": "id",
        "fromPercentage": 0,
        "toPercentage": 50,
        "seed": "rollout",
    }
    rollout = {"name": "rollout", "conditions": [pro, half], "value": True}
    off = [
        {
            "name": plan,
            "conditions": [{"operator": "equals", "property": "plan", "expected": plan}],
            "value": False,
        }
        for plan in PLANS
    ]
    client: Any = InMemoryReplaneClient({"static": True})
    client.set_config("one", False, overrides=[rollout])
    client.set_config("twenty", False, overrides=[*off, rollout])
    return Subject(
        make='client.with_context({"id": user, "plan": plan}).configs',
        read=lambda flag: f"ctx[{flag!r}]",
        names={"client": client},
        note="the in-memory client of its testing module",
    )


def heksher() -> Subject:
    from heksher import Setting
    from heksher.clients.stub import Rule, SyncStubHeksherClient

    client = SyncStubHeksherClient()
    client.set_as_main()
    client.set_defaults()
    settings = {flag: Setting(flag, bool, ["plan"], default_value=flag == "static") for flag in FLAGS}
    pro = Rule({"plan": "pro"}, True)
    client[settings["static"]].rules = True
    client[settings["one"]].rules = [pro]
    client[settings["twenty"]].rules = [*(Rule({"plan": plan}, False) for plan in PLANS), pro]
    return Subject(
        make='{"plan": plan}',
        read=lambda flag: f"{flag}.get(**ctx)",
        names=dict(settings),
        rollout=False,
        note="knows no percentage: rules alone; the stub client",
    )


def launchdarkly() -> Subject:
    import ldclient
    from ldclient.config import Config
    from ldclient.integrations import Files

    def clause(plan: str) -> dict[str, Any]:
        return {"attribute": "plan", "op": "in", "values": [plan], "negate": False}

    def flag(key: str, rules: list[dict[str, Any]], variation: int) -> dict[str, Any]:
        return {
            "key": key,
            "version": 1,
            "on": True,
            "variations": [True, False],
            "fallthrough": {"variation": variation},
            "offVariation": 1,
            "salt": "rollout",
            "rules": rules,
            "targets": [],
            "prerequisites": [],
        }

    half = {"variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]}
    rollout = {"id": "rollout", "clauses": [clause("pro")], "rollout": half}
    off = [{"id": plan, "clauses": [clause(plan)], "variation": 1} for plan in PLANS]
    flags = {
        "static": flag("static", [], 0),
        "one": flag("one", [rollout], 1),
        "twenty": flag("twenty", [*off, rollout], 1),
    }
    path = Path(tempfile.mkdtemp(), "flags.json")
    path.write_text(json.dumps({"flags": flags}))
    source = Files.new_data_source(paths=[str(path)])
    client = ldclient.LDClient(Config("sdk-key", update_processor_class=source, send_events=False))
    return Subject(
        make='builder(user).set("plan", plan).build()',
        read=lambda flag: f"variation({flag!r}, ctx, False)",
        names={"variation": client.variation, "builder": ldclient.Context.builder},
        note="events off; flags from a file",
    )


def unleash() -> Subject:
    from UnleashClient import UnleashClient
    from UnleashClient.cache import FileCache

    def constraint(plan: str) -> dict[str, Any]:
        return {"contextName": "plan", "operator": "IN", "values": [plan]}

    def strategy(plan: str, percentage: str) -> dict[str, Any]:
        parameters = {"rollout": percentage, "stickiness": "userId", "groupId": "rollout"}
        return {"name": "flexibleRollout", "parameters": parameters, "constraints": [constraint(plan)]}

    def feature(name: str, strategies: list[dict[str, Any]]) -> dict[str, Any]:
        return {"name": name, "enabled": True, "type": "release", "strategies": strategies, "variants": []}

    rollout = strategy("pro", "50")
    features = [
        feature("static", [{"name": "default", "parameters": {}}]),
        feature("one", [rollout]),
        feature("twenty", [*(strategy(plan, "0") for plan in PLANS), rollout]),
    ]
    cache = FileCache("benchmark", directory=tempfile.mkdtemp())
    cache.bootstrap_from_dict({"version": 2, "features": features})
    client = UnleashClient(
        "http://127.0.0.1:1/api",
        "benchmark",
        disable_metrics=True,
        disable_registration=True,
        refresh_interval=100_000,
        cache=cache,
    )
    client.initialize_client(fetch_toggles=False)
    return Subject(
        make='{"userId": user, "properties": {"plan": plan}}',
        read=lambda flag: f"is_enabled({flag!r}, ctx)",
        names={"is_enabled": client.is_enabled},
        note="metrics off; flags from its bootstrap",
    )


def openfeature_in_memory() -> Subject:
    from mmh3 import mmh3_32_uintdigest as murmur3
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagResolutionDetails
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    half = 1 << 31
    plans = dict.fromkeys(PLANS, False)

    def rollout(_: Any, context: Any) -> Any:
        on = False
        if context.attributes.get("plan") == "pro":
            on = murmur3(("rollout:" + context.targeting_key).encode()) < half
        return FlagResolutionDetails(value=on)

    def twenty(flag: Any, context: Any) -> Any:
        plan = context.attributes.get("plan")
        return FlagResolutionDetails(value=plans[plan]) if plan in plans else rollout(flag, context)

    variants = {"on": True, "off": False}
    flags: dict[str, Any] = {
        "static": InMemoryFlag("on", variants),
        "one": InMemoryFlag("off", variants, context_evaluator=rollout),
        "twenty": InMemoryFlag("off", variants, context_evaluator=twenty),
    }
    api.set_provider(InMemoryProvider(flags))
    return Subject(
        make='Context(user, {"plan": plan})',
        read=lambda flag: f"get({flag!r}, False, ctx)",
        names={"get": api.get_client().get_boolean_value, "Context": EvaluationContext},
        note="rules are Python functions written by hand: the price of the API",
    )


def flagd() -> Subject:
    from openfeature import api
    from openfeature.contrib.provider.flagd import FlagdProvider
    from openfeature.contrib.provider.flagd.config import ResolverType
    from openfeature.evaluation_context import EvaluationContext

    def plan(value: str) -> dict[str, Any]:
        return {"==": [{"var": "plan"}, value]}

    split = {"fractional": [["on", 50], ["off", 50]]}

    def flag(default: str, targeting: dict[str, Any]) -> dict[str, Any]:
        return {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": default,
            "targeting": targeting,
        }

    chain: list[Any] = [part for value in PLANS for part in (plan(value), "off")]
    flags = {
        "static": flag("on", {}),
        "one": flag("off", {"if": [plan("pro"), split, "off"]}),
        "twenty": flag("off", {"if": [*chain, plan("pro"), split, "off"]}),
    }
    path = Path(tempfile.mkdtemp(), "flags.json")
    path.write_text(json.dumps({"flags": flags}))
    api.set_provider(FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path)))
    client = api.get_client()
    until = time.monotonic() + 20
    while not client.get_boolean_value("static", False) and time.monotonic() < until:
        time.sleep(0.05)
    return Subject(
        make='Context(user, {"plan": plan})',
        read=lambda flag: f"get({flag!r}, False, ctx)",
        names={"get": client.get_boolean_value, "Context": EvaluationContext},
        note="its provider of flags from a file",
    )


def growthbook() -> Subject:
    from growthbook import GrowthBook

    rollout = {
        "condition": {"plan": "pro"},
        "force": True,
        "coverage": 0.5,
        "hashAttribute": "id",
        "seed": "rollout",
    }
    off = [{"condition": {"plan": plan}, "force": False} for plan in PLANS]
    features = {
        "static": {"defaultValue": True},
        "one": {"defaultValue": False, "rules": [rollout]},
        "twenty": {"defaultValue": False, "rules": [*off, rollout]},
    }
    return Subject(
        make='GrowthBook(attributes={"id": user, "plan": plan}, features=features)',
        read=lambda flag: f"ctx.is_on({flag!r})",
        names={"GrowthBook": GrowthBook, "features": features},
        note="an instance for each user, as its documentation says",
    )


def eppo() -> Subject:
    from eppo_client import AssignmentLogger, ClientConfig, Configuration, init

    def flag(key: str, allocations: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "key": key,
            "enabled": True,
            "variationType": "BOOLEAN",
            "variations": {"on": {"key": "on", "value": True}, "off": {"key": "off", "value": False}},
            "allocations": allocations,
            "totalShards": 10_000,
        }

    def allocation(key: str, plan: str | None, splits: list[dict[str, Any]]) -> dict[str, Any]:
        conditions = [{"attribute": "plan", "operator": "ONE_OF", "value": [plan]}]
        rules = [] if plan is None else [{"conditions": conditions}]
        return {"key": key, "rules": rules, "startAt": None, "endAt": None, "splits": splits, "doLog": False}

    def split(variation: str, shares: list[dict[str, Any]]) -> dict[str, Any]:
        return {"variationKey": variation, "shards": shares, "extraLogging": {}}

    def share(start: int, end: int) -> list[dict[str, Any]]:
        return [{"salt": "rollout", "ranges": [{"start": start, "end": end}]}]

    rollout = allocation("rollout", "pro", [split("on", share(0, 5_000)), split("off", share(5_000, 10_000))])
    off = [allocation(plan, plan, [split("off", [])]) for plan in PLANS]
    document = {
        "createdAt": "2026-01-01T00:00:00.000Z",
        "format": "SERVER",
        "environment": {"name": "benchmark"},
        "flags": {
            "static": flag("static", [allocation("all", None, [split("on", [])])]),
            "one": flag("one", [rollout]),
            "twenty": flag("twenty", [*off, rollout]),
        },
        "bandits": {},
    }
    client = init(
        ClientConfig(
            api_key="none",
            base_url="http://127.0.0.1:1",
            assignment_logger=AssignmentLogger(),
            poll_interval_seconds=None,
            initial_configuration=Configuration(flags_configuration=json.dumps(document).encode()),
        )
    )
    return Subject(
        make='{"plan": plan}',
        read=lambda flag: f"get({flag!r}, user, ctx, False)",
        names={"get": client.get_boolean_assignment},
        note="a Rust core; assignments are not logged",
    )


def statsig() -> Subject:
    from statsig_python_core import Statsig, StatsigOptions, StatsigUser
    from statsig_python_core.data_store import DataStore, DataStoreResponse

    def rule(name: str, condition: str, percentage: int, *, value: bool) -> dict[str, Any]:
        return {
            "name": name,
            "groupName": name,
            "passPercentage": percentage,
            "conditions": [condition],
            "returnValue": value,
            "id": name,
            "salt": "rollout",
            "idType": "userID",
        }

    def gate(rules: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "feature_gate",
            "salt": "rollout",
            "defaultValue": False,
            "enabled": True,
            "idType": "userID",
            "entity": "feature_gate",
            "version": 1,
            "rules": rules,
        }

    def condition(kind: str, plan: str | None) -> dict[str, Any]:
        return {
            "type": kind,
            "targetValue": None if plan is None else [plan],
            "operator": None if plan is None else "any",
            "field": None if plan is None else "plan",
            "additionalValues": {},
            "idType": "userID",
        }

    rollout = rule("rollout", "pro", 50, value=True)
    # A rule that matches decides even where its share leaves the user out.
    off = [rule(plan, plan, 0, value=True) for plan in PLANS]
    document = {
        "dynamic_configs": {},
        "feature_gates": {
            "static": gate([rule("all", "public", 100, value=True)]),
            "one": gate([rollout]),
            "twenty": gate([*off, rollout]),
        },
        "layer_configs": {},
        "has_updates": True,
        "time": 1_700_000_000_000,
        "condition_map": {
            "public": condition("public", None),
            **{plan: condition("user_field", plan) for plan in ("pro", *PLANS)},
        },
        "param_stores": {},
        "layers": {},
        "sdk_flags": {},
        "sdk_configs": {},
        "experiment_to_layer": {},
        "company_id": "none",
        "response_format": "dcs-v2",
        "checksum": "none",
        "app_id": "none",
    }

    class Store(DataStore):
        def get(self, key: str) -> Any:
            return DataStoreResponse(result=json.dumps(document), time=1_700_000_000_000)

    options = StatsigOptions(
        data_store=Store(),
        disable_network=True,
        disable_all_logging=True,
        output_log_level="none",
        disable_disk_access=True,
    )
    client = Statsig("secret-none", options)
    client.initialize().wait()
    return Subject(
        make='User(user_id=user, custom={"plan": plan})',
        read=lambda flag: f"check(ctx, {flag!r})",
        names={"check": client.check_gate, "User": StatsigUser},
        note="a Rust core; events and network off; exposures as they are",
    )


def schematic() -> Subject:
    from schematic.datastream.rules_engine import RulesEngineClient
    from schematic.types.rulesengine_flag import RulesengineFlag
    from schematic.types.rulesengine_user import RulesengineUser

    own = {"account_id": "a", "environment_id": "e"}
    trait = {"comparable_type": "string", "entity_type": "user", "id": "plan"}

    def rule(plan: str, priority: int, *, value: bool) -> dict[str, Any]:
        condition = {
            **own,
            "id": f"condition-{plan}",
            "condition_type": "trait",
            "operator": "eq",
            "resource_ids": [],
            "trait_definition": trait,
            "trait_value": plan,
        }
        return {
            **own,
            "id": plan,
            "name": plan,
            "priority": priority,
            "rule_type": "standard",
            "value": value,
            "conditions": [condition],
            "condition_groups": [],
        }

    def flag(key: str, rules: list[dict[str, Any]], *, default: bool) -> Any:
        return RulesengineFlag(**own, id=key, key=key, default_value=default, rules=rules)

    def user(name: str, plan: str) -> Any:
        return RulesengineUser(
            **own, id=name, keys={"id": name}, rules=[], traits=[{"trait_definition": trait, "value": plan}]
        )

    off = [rule(plan, i, value=False) for i, plan in enumerate(PLANS)]
    flags = {
        "static": flag("static", [], default=True),
        "one": flag("one", [rule("pro", 30, value=True)], default=False),
        "twenty": flag("twenty", [*off, rule("pro", 30, value=True)], default=False),
    }
    engine = RulesEngineClient()
    asyncio.run(engine.initialize())
    return Subject(
        make="make(user, plan)",
        read=lambda flag: f"check({flag}, None, ctx).value",
        names={"check": engine.check_flag, "make": user, **flags},
        rollout=False,
        note="knows no percentage: rules alone; its engine in WebAssembly",
    )


OURS: dict[str, Callable[[], Subject]] = {
    "floor": floor,
    "rheostat": rheostat,
    "rheostat, evaluator alone": rheostat_evaluator,
    "rheostat, reference": rheostat_reference,
}
# By the package to install.
PEERS: dict[str, tuple[str, Callable[[], Subject]]] = {
    "replane": ("replane", replane),
    "heksher": ("heksher", heksher),
    "launchdarkly": ("launchdarkly-server-sdk", launchdarkly),
    "unleash": ("UnleashClient", unleash),
    "openfeature in-memory": ("openfeature-sdk", openfeature_in_memory),
    "flagd": ("openfeature-provider-flagd", flagd),
    "growthbook": ("growthbook", growthbook),
    "eppo": ("eppo-server-sdk", eppo),
    "statsig": ("statsig-python-core", statsig),
    "schematic": ("schematichq[rulesengine]", schematic),
}


# --- measuring -----------------------------------------------------------------------------------------------------


def check(subject: Subject) -> None:
    """Fail unless *subject* answers as the flags are meant."""

    def share(flag: str, plan: str) -> float:
        names = dict(subject.names)
        on = 0
        for index in range(CHECKED_USERS):
            names.update(user=f"user-{index}", plan=plan)
            names["ctx"] = eval(subject.make, names)
            answer = eval(subject.read(flag), names)
            if answer is not True and answer is not False:
                raise SystemExit(f"the flag {flag} gives {answer!r}")
            on += answer
        return on / CHECKED_USERS

    expected = 0.5 if subject.rollout else 1.0
    for flag in FLAGS[1:]:
        if abs(share(flag, "pro") - expected) > 0.03:
            raise SystemExit(f"the flag {flag} is on for {share(flag, 'pro'):.1%} of the plan pro")
        for plan in (PLANS[7], "none"):
            if share(flag, plan):
                raise SystemExit(f"the flag {flag} is on with the plan {plan}")
    if share("static", "pro") != 1:
        raise SystemExit("the flag static is not on")


class Loop:
    """A statement that is timed, over and over, on `rows` of (user, plan, ctx)."""

    def __init__(self, statement: str, names: dict[str, Any]) -> None:
        found: dict[str, Any] = {}
        source = f"def run(turns):\n for _ in turns:\n  for user, plan, ctx in rows:\n   {statement}\n"
        exec(compile(source, "<loop>", "exec"), names, found)
        self._run = found["run"]
        self._reads = len(names["rows"])
        self._turns = 1
        while (taken := self._seconds()) < ROUND_SECONDS:
            factor = min(ROUND_SECONDS / max(taken, 1e-6) * 1.1, 20)
            self._turns = max(self._turns + 1, int(self._turns * factor))
        self.best = self._ns(taken)

    def round(self) -> None:
        self.best = min(self.best, self._ns(self._seconds()))

    def _seconds(self) -> float:
        started = time.process_time()
        self._run(range(self._turns))
        return time.process_time() - started

    def _ns(self, seconds: float) -> float:
        return seconds / self._turns / self._reads * 1e9


def timed(statements: list[str], names: dict[str, Any]) -> list[float]:
    """Return the least CPU time in ns of each statement, without that of the loop.

    They take turns, so that a moment in which the machine has other work spoils a round of each and not all of one.
    """
    loops = [Loop(statement, names) for statement in ("pass", *statements)]
    for _ in range(ROUNDS - 1):
        for loop in loops:
            loop.round()
    empty, *rest = loops
    return [loop.best - empty.best for loop in rest]


def measure(subject: Subject) -> dict[str, Any]:
    """Return all that is measured of *subject*, times in ns."""
    check(subject)
    names = dict(subject.names)
    rows = []
    for index in range(USERS):
        user = f"user-{index}"
        rows.append((user, "pro", eval(subject.make, {**names, "user": user, "plan": "pro"})))
    names["rows"] = rows
    statements = {
        **{("ready", flag): subject.read(flag) for flag in FLAGS},
        **{("built", flag): f"ctx = {subject.make}; {subject.read(flag)}" for flag in FLAGS},
        **{("more", name): statement for name, statement in subject.more.items()},
    }
    found: dict[str, Any] = {
        "ready": {},
        "built": {},
        "more": {},
        "note": subject.note,
        "rollout": subject.rollout,
    }
    for (part, name), ns in zip(statements, timed(list(statements.values()), names), strict=True):
        found[part][name] = ns
    found["measures"] = subject.measures() if subject.measures is not None else {}
    return found


def rheostat_measures() -> dict[str, float]:
    """Return what concerns Rheostat alone: large snapshots, changes, memory."""
    from rheostat.evaluation.compile import CompiledSnapshot
    from rheostat.evaluation.specificity import order_by_specificity
    from rheostat.model.condition import AllOf, Attribute, Comparison, Literal, Operator, Percentage
    from rheostat.model.rule import Rule, ValueOutcome
    from rheostat.model.setting import Order, Setting
    from rheostat.model.snapshot import Snapshot
    from rheostat.model.type import BOOL, INT

    found: dict[str, float] = {}
    dice = random.Random(7)

    def equal(path: str, value: str) -> Comparison:
        return Comparison(Attribute(path), Operator.EQUALS, Literal(value))

    def hierarchy(count: int) -> CompiledSnapshot:
        sizes = {"region": 5, "user.plan": 4, "account": max(count // 8, 1), "user.id": max(count // 2, 1)}
        seen: dict[tuple[tuple[str, str], ...], Rule] = {}
        while len(seen) < count:
            parts = {
                path: f"{path}-{dice.randrange(size)}" for path, size in sizes.items() if dice.random() < 0.5
            }
            key = tuple(parts.items())
            number = len(seen)
            conditions = tuple(equal(path, value) for path, value in key)
            seen.setdefault(key, Rule(f"r{number}", ValueOutcome(number), AllOf(conditions), number))
        rules = order_by_specificity(seen.values(), tuple(sizes))
        return CompiledSnapshot(
            Snapshot.of([Setting("h", "h", INT, 0, rules=rules, order=Order.SPECIFICITY)])
        )

    for count in (20, 2_000):
        compiled = hierarchy(count)
        started = time.process_time()
        compiled.prepare(["h"])
        found[f"{count} rules by hierarchy, compile, ms"] = (time.process_time() - started) * 1e3
        rows = [
            (
                "",
                "",
                {
                    "region": f"region-{dice.randrange(6)}",
                    "account": f"account-{dice.randrange(max(count // 8, 1))}",
                    "user": {
                        "id": f"user.id-{dice.randrange(count)}",
                        "plan": f"user.plan-{dice.randrange(5)}",
                    },
                },
            )
            for _ in range(USERS)
        ]
        names = {"rows": rows, "value": compiled.value}
        found[f"{count} rules by hierarchy, ns"] = timed(['value("h", ctx)'], names)[0]

    for count in (1, 20, 500):
        rules = tuple(Rule(f"r{i}", ValueOutcome(i), equal("country", f"c{i}")) for i in range(count))
        last = Rule("last", ValueOutcome(-1), Percentage("user.id", "s", 0, 50_000))
        compiled = CompiledSnapshot(Snapshot.of([Setting("c", "c", INT, 0, rules=(*rules, last))]))
        rows = [
            ("", "", {"country": f"c{dice.randrange(count)}", "user": {"id": str(i)}}) for i in range(USERS)
        ]
        names = {"rows": rows, "value": compiled.value}
        found[f"{count} equality rules, one matches, ns"] = timed(['value("c", ctx)'], names)[0]

    rest = Percentage("user.id", "rollout", 0, 50_000)
    settings = [
        Setting(
            f"id-{i}",
            f"team-{i % 40}.setting-{i}",
            BOOL,
            default=False,
            revision=i,
            rules=()
            if i % 2
            else (Rule("pro", ValueOutcome(True), AllOf((equal("user.plan", f"p{i}"), rest))),),
        )
        for i in range(10_000)
    ]
    names_of_all = [setting.name for setting in settings]
    snapshot = Snapshot.of(settings, revision=10_000)
    best: dict[str, float] = {}
    context = {"user": {"id": "u1", "plan": "p2"}}
    compiled = CompiledSnapshot(snapshot)
    for _ in range(5):
        started = time.process_time()
        compiled = CompiledSnapshot(Snapshot.of(settings, revision=10_000))
        built = time.process_time()
        compiled.prepare(names_of_all)
        prepared = time.process_time()
        for name in names_of_all:
            compiled.value(name, context)
        _least(best, "10 000 settings, build, ms", built - started)
        _least(best, "10 000 settings, compile all of them, ms", prepared - built)
    replica_measures(best, settings, context)
    found.update(best)

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    compiled = CompiledSnapshot(snapshot)
    compiled.prepare(names_of_all)
    found["10 000 settings compiled, half of them with rules, MiB"] = (
        tracemalloc.get_traced_memory()[0] - before
    ) / 2**20
    tracemalloc.stop()
    return found


def replica_measures(best: dict[str, float], settings: list[Any], context: dict[str, Any]) -> None:
    """Measure what a client does with a snapshot and with deltas, from their messages on."""
    from dataclasses import replace

    from rheo.v1.watch_pb2 import Delta, Position, SnapshotChunk
    from rheostat.model.position import digest_of, item_digest
    from rheostat.model.watch import Entry
    from rheostat.sdk.held import Held, step, whole
    from rheostat.sdk.replica import Replica
    from rheostat.wire.watch import item_to_proto

    def position(revision: int) -> Position:
        return Position(
            store_id=bytes(16), generation=1, nonce=bytes(8), revision=revision, scope=bytes(8), token=b"t"
        )

    entries = [Entry("setting", setting.name, setting.revision, setting) for setting in settings]
    chunk = SnapshotChunk(items=map(item_to_proto, entries)).SerializeToString()
    digest = digest_of(("setting", setting.name, setting.revision) for setting in settings)
    replica = Replica()
    for _ in range(3):
        replica = Replica()
        started = time.process_time()
        items = SnapshotChunk.FromString(chunk).items
        update = whole(Held(), position(10_000), items, len(settings), digest)
        replica.advance(update.held, update.changed)
        _least(best, "10 000 settings, replica from messages, ms", time.process_time() - started)
    for setting in settings:
        replica.view.value(setting.name, context)
    setting = settings[0]
    revision = setting.revision
    for following in range(10_001, 10_051):
        digest ^= item_digest("setting", setting.name, revision) ^ item_digest(
            "setting", setting.name, following
        )
        entry = Entry("setting", setting.name, following, replace(setting, revision=following))
        message = Delta(
            from_revision=following - 1,
            position=position(following),
            items=[item_to_proto(entry)],
            digest=digest,
        ).SerializeToString()
        revision = following
        started = time.process_time()
        stepped = step(replica.held, Delta.FromString(message))
        assert stepped is not None
        replica.advance(stepped.held, stepped.changed)
        replica.view.value(setting.name, context)
        _least(best, "10 000 settings, a delta of one and reading it, ms", time.process_time() - started)


def _least(best: dict[str, float], name: str, seconds: float) -> None:
    best[name] = min(best.get(name, float("inf")), seconds * 1e3)


def work(name: str) -> None:
    """Measure *name* and print it as JSON; the whole of a child process."""
    logging.disable(logging.CRITICAL)
    make = OURS.get(name) or PEERS[name][1]
    try:
        subject = make()
    except ImportError as exc:
        print(json.dumps({"missing": str(exc)}), flush=True)
        return
    print(json.dumps(measure(subject)), flush=True)


# --- asking everybody ----------------------------------------------------------------------------------------------


def ask(name: str, pythons: list[str]) -> dict[str, Any]:
    """Return what a child process of the first interpreter that has *name* measured."""
    found: dict[str, Any] = {}
    for python in pythons:
        found = ask_one(name, python)
        if "ready" in found:
            break
    return found


def ask_one(name: str, python: str) -> dict[str, Any]:
    command = [python, __file__, "--worker", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {LIMIT_SECONDS} s"}
    except OSError as exc:
        return {"missing": str(exc)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    return {
        "failed": (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
    }


def merge(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """Return the lesser of each time."""
    if one is None or "ready" not in one or "ready" not in other:
        return other if one is None or "ready" in other else one
    for part in ("ready", "built", "more", "measures"):
        for key, value in other[part].items():
            one[part][key] = min(one[part].get(key, value), value)
    return one


def report(results: dict[str, Any]) -> None:
    """Print tables of the times, as multiples of the floor and of Rheostat."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=130)
    base, ours = results["floor"], results["rheostat"]
    for part, title in (("ready", "context at hand"), ("built", "context built for each read")):
        table = Table(
            title=f"One read, {title}: ns, (times the floor), [times Rheostat]", title_justify="left"
        )
        table.add_column("who")
        for flag in FLAGS:
            table.add_column(flag, justify="right")
        table.add_column("note", overflow="fold")
        for name, found in results.items():
            if part not in found:
                missing = found.get("missing")
                table.add_row(
                    name,
                    "",
                    "",
                    "",
                    f"not installed: {PEERS[name][0]}" if missing else f"failed: {found.get('failed')}",
                )
                continue
            cells = [
                f"{found[part][flag]:.0f} ({found[part][flag] / base[part][flag]:.1f})"
                f" [{found[part][flag] / ours[part][flag]:.1f}]"
                for flag in FLAGS
            ]
            table.add_row(name, *cells, found["note"])
        console.print(table)
    table = Table(title="Rheostat alone", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for name, value in base["more"].items():
        table.add_row(f"floor: {name}, ns", f"{value:.0f}")
    for name, value in ours["more"].items():
        table.add_row(escape(f"{name}, ns"), f"{value:.0f}")
    for name, value in ours["measures"].items():
        table.add_row(name, f"{value:.1f}")
    console.print(table)
    table = Table(title="Targets", title_justify="left")
    for column in ("what", "target", "measured", ""):
        table.add_column(column)
    for name, target, value in targets(base, ours):
        table.add_row(escape(name), f"{target:g}", f"{value:.3g}", "met" if value <= target else "MISSED")
    behind = [
        f"{name} on {flag}"
        for name, found in results.items()
        if name in PEERS and "ready" in found
        for part in ("ready", "built")
        for flag in FLAGS
        if found[part][flag] <= ours[part][flag]
    ]
    console.print(table)
    console.print(
        f"behind: {', '.join(behind)}" if behind else "ahead of every peer that was asked, on every flag"
    )


def targets(base: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return what docs/reference/performance-evaluation.md promises: name, target, measured."""
    more, measures = ours["more"], ours["measures"]
    return [
        ("client[name], static setting, ns", 250, more["client[name], static"]),
        ("client.get, one rule and a percentage, ns", 500, more["get with context=, one"]),
        ("the same, times the floor", 2, more["get with context=, one"] / base["ready"]["one"]),
        ("client.get, twenty equality rules and a percentage, ns", 600, ours["ready"]["twenty"]),
        ("twenty against one rule, times", 1.3, ours["ready"]["twenty"] / ours["ready"]["one"]),
        ("client.evaluate, ns", 1_200, max(more["evaluate, one"], more["evaluate, twenty"])),
        ("2 000 rules by hierarchy, ns", 3_000, measures["2000 rules by hierarchy, ns"]),
        (
            "10 000 settings from the messages of a snapshot, ms",
            1_500,
            measures["10 000 settings, replica from messages, ms"],
        ),
        (
            "10 000 settings, a delta of one, ms",
            1,
            measures["10 000 settings, a delta of one and reading it, ms"],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers-python",
        action="append",
        metavar="PYTHON",
        help="an interpreter that has peers; several, where the peers' own dependencies exclude each other",
    )
    parser.add_argument(
        "--passes", type=int, default=2, help="how often everybody is asked; the least counts"
    )
    parser.add_argument("--only", nargs="*", choices=[*PEERS], help="the peers to ask; none, for none")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    asked = {name: [sys.executable] for name in OURS}
    peers = PEERS if options.only is None else options.only
    asked.update({name: options.peers_python or [sys.executable] for name in peers})
    results: dict[str, Any] = {}
    for turn in range(options.passes):
        for name, pythons in asked.items():
            print(f"\r\x1b[K{turn + 1}/{options.passes} {name}", end="", file=sys.stderr, flush=True)
            results[name] = merge(results.get(name), ask(name, pythons))
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    document = {"python": platform.python_version(), "unit": "ns", "subjects": results}
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")
    if "ready" not in results["floor"] or "ready" not in results["rheostat"]:
        raise SystemExit(json.dumps({name: results[name] for name in ("floor", "rheostat")}))
    report(results)


if __name__ == "__main__":
    main()
