"""What the provider of OpenFeature costs: beside the providers of its SDK, and beside the client without it.

Run: python benchmarks/openfeature_provider.py [--rounds N]. Writes build/bench/openfeature.json.

Times are CPU time of one call, in µs, the least of many rounds in which all take turns, because the machine may be
shared. "Through the SDK" is `get_…_details` of its client, with its
merging of contexts, its hooks and its checks; "alone" is the provider's own method. The overhead of the provider is what
one call through the SDK takes longer than with the SDK's provider in memory, which evaluates nothing, and than the bare
evaluation. The target is 1 µs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from openfeature.provider.no_op_provider import NoOpProvider

from rheostat import Client, thaw
from rheostat.openfeature import RheostatProvider
from rheostat.testing import LocalServer

OUTPUT = Path(__file__).parent.parent / "build" / "bench" / "openfeature.json"

TARGET_US = 1.0
CALLS = 200
CONTEXT = EvaluationContext("user-1", {"plan": "pro", "region": "eu"})
ATTRIBUTES = {"plan": "pro", "region": "eu", "user.id": "user-1"}

RULE = {"id": "pro", "where": 'plan == "pro"', "value": True}
SPLIT = {
    "id": "half",
    "where": 'region == "eu"',
    "split": {
        "unit": "user.id",
        "salt": "s",
        "variants": [
            {"name": "on", "weight": "50%", "value": 1},
            {"name": "off", "weight": "50%", "value": 0},
        ],
    },
}

# By what is measured: the kind of flag, its setting, and a default of that kind.
FLAGS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "bool, no rules": ("boolean", {"type": "bool", "default": True}, False),
    "bool, one rule": ("boolean", {"type": "bool", "default": False, "rules": [RULE]}, False),
    "int, a rule and a split": ("integer", {"type": "int", "default": 0, "rules": [SPLIT]}, 0),
    "string, no rules": ("string", {"type": "str", "default": "hi"}, ""),
    "mapping of three, no rules": ("object", {"type": "Json", "default": {"a": 1, "b": [2], "c": "3"}}, {}),
}

Call = Callable[[], object]


def document() -> dict[str, Any]:
    settings = {}
    for i, (_, setting, _) in enumerate(FLAGS.values()):
        rest = {key: value for key, value in setting.items() if key != "rules"}
        if "rules" in setting:
            rest["environments"] = {"production": {"rules": setting["rules"]}}
        settings[f"flag-{i}"] = rest
    return {"settings": settings}


def timed(call: Call) -> float:
    """Return the CPU time of one call in µs."""
    times = repeat(None, CALLS)
    started = time.process_time()
    for _ in times:
        call()
    return (time.process_time() - started) / CALLS * 1e6


def timed_async(make: Callable[[], Any]) -> float:
    """Return the CPU time of one awaited call in µs."""

    async def run() -> float:
        times = repeat(None, CALLS)
        started = time.process_time()
        for _ in times:
            await make()
        return (time.process_time() - started) / CALLS * 1e6

    return asyncio.run(run())


def measure(client: Client[Any], rounds: int) -> dict[str, dict[str, float]]:
    provider = RheostatProvider(client)
    values = {f"flag-{i}": thaw(client.get(f"flag-{i}", context=ATTRIBUTES)) for i in range(len(FLAGS))}
    memory = InMemoryProvider({name: InMemoryFlag("on", {"on": value}) for name, value in values.items()})
    api.set_provider_and_wait(provider, "rheostat")
    api.set_provider_and_wait(memory, "memory")
    api.set_provider_and_wait(NoOpProvider(), "nothing")
    found: dict[str, dict[str, float]] = {}
    for i, (title, (kind, _, default)) in enumerate(FLAGS.items()):
        name, ask = f"flag-{i}", f"get_{kind}_details"
        sdk = {domain: getattr(api.get_client(domain), ask) for domain in ("rheostat", "memory", "nothing")}
        own, of_memory = (getattr(each, f"resolve_{kind}_details") for each in (provider, memory))
        awaited = {
            domain: getattr(api.get_client(domain), f"{ask}_async") for domain in ("rheostat", "memory")
        }
        calls: dict[str, Call] = {
            "through the SDK": lambda f=sdk["rheostat"], n=name, d=default: f(n, d, CONTEXT),
            "through the SDK, in memory": lambda f=sdk["memory"], n=name, d=default: f(n, d, CONTEXT),
            "through the SDK, no-op": lambda f=sdk["nothing"], n=name, d=default: f(n, d, CONTEXT),
            "alone": lambda f=own, n=name, d=default: f(n, d, CONTEXT),
            "alone, in memory": lambda f=of_memory, n=name, d=default: f(n, d, CONTEXT),
            "client.evaluate": lambda f=client.evaluate, n=name, d=default: f(n, d, ATTRIBUTES),
        }
        waits: dict[str, Callable[[], Any]] = {
            "awaited": lambda f=awaited["rheostat"], n=name, d=default: f(n, d, CONTEXT),
            "awaited, in memory": lambda f=awaited["memory"], n=name, d=default: f(n, d, CONTEXT),
        }
        taken: dict[str, list[float]] = {}
        for _ in range(rounds):
            for what, call in calls.items():
                taken.setdefault(what, []).append(timed(call))
            for what, make in waits.items():
                taken.setdefault(what, []).append(timed_async(make))
        best = {what: min(each) for what, each in taken.items()}
        above = best["through the SDK"] - best["through the SDK, in memory"]
        best["overhead"] = above - best["client.evaluate"]
        best["overhead, with the evaluation"] = above
        best["overhead, alone"] = best["alone"] - best["client.evaluate"]
        # Of calls that stood next to each other, with the collection of garbage.
        through, in_memory, bare = (
            taken[what] for what in ("through the SDK", "through the SDK, in memory", "client.evaluate")
        )
        best["overhead, median"] = median(a - b - c for a, b, c in zip(through, in_memory, bare, strict=True))
        best["ratio through the SDK"] = best["through the SDK"] / best["through the SDK, in memory"]
        best["ratio to client.evaluate"] = best["alone"] / best["client.evaluate"]
        found[title] = best
    api.shutdown()
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    rows = list(next(iter(found.values())))
    width = max(map(len, rows)) + 2
    head = "".join(f"{title:>28}" for title in found)
    lines = [f"{'µs':{width}}{head}"]
    lines += [f"{row:{width}}" + "".join(f"{best[row]:28.2f}" for best in found.values()) for row in rows]
    worst = max(best["overhead"] for best in found.values())
    lines.append(
        f"the most above the SDK's own provider and the evaluation: {worst:.2f} µs; the target is {TARGET_US} µs"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150)
    rounds = parser.parse_args().rounds
    with LocalServer() as server:
        server.apply(document())
        with Client(server.url) as client:
            client.wait_ready(60)
            found = measure(client, rounds)
    print(table(found))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "openfeature-sdk": version("openfeature-sdk")}
    report = {"versions": versions, "target_us": TARGET_US, "us": found}
    OUTPUT.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
