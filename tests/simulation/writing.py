"""What the writers of a world write: a few names, so that everything happens to each of them."""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Sequence
from typing import Any, Final

from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Mutation,
    PutEnvironment,
    PutSetting,
    RenameSetting,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import Condition
from rheostat.model.position import Filter
from rheostat.service import Writer
from rheostat.service.access import OPEN
from rheostat.store.memory import MemoryStore
from tests.service.book import both, equals, in_segment, on, put_rule, put_segment, rule
from tests.simulation.node import PROJECT, SimulatedService

__all__ = ["ENVIRONMENTS", "FILTERS", "base", "mutations"]

NAMES: Final = ("a", "ab", "b", "c", "d")
SEGMENTS: Final = ("s", "t")
ENVIRONMENTS: Final = ("production", "production", "production", "staging")
FILTERS: Final = (
    Filter(),
    Filter(),
    Filter(names=("a",)),
    Filter(names=("b", "missing")),
    Filter(prefixes=("a",)),
    Filter(tracked=(("region", ("us",)),)),
    Filter(names=("b",), tracked=(("region", ("eu",)),)),
)


@functools.cache
def base() -> dict[str, Any]:
    """Return the contents of a store with something in it; every world begins with a copy."""
    randomness = random.Random(0)
    store = MemoryStore(randomness=randomness.randbytes)
    service = SimulatedService(store, background=False, randomness=randomness.randbytes)
    writer = Writer(OPEN)
    service.commit(writer, PROJECT, "", [PutEnvironment("staging"), put_segment("s", equals("region", "eu"))])
    for environment in ("production", "staging"):
        made = [PutSetting(name, {"type": "int", "default": 0}, environment) for name in NAMES[:4]]
        ruled = put_rule("a", rule("r", 5, in_segment("s")), environment=environment)
        service.commit(writer, PROJECT, environment, [*made, ruled])
    names = ("_identity", "_floor", "_rule_number", "_change_sets", "_items", "_requests")
    return {name: getattr(store, name) for name in names}


def mutations(
    randomness: random.Random, present: Collection[tuple[str, str]]
) -> tuple[str, Sequence[Mutation]]:
    """Draw an environment and what to write in it; it may well be refused.

    Args:
        randomness: Where to draw from.
        present: Environments and names of the settings that there are; most is written about them.
    """
    environment = randomness.choice(ENVIRONMENTS)
    names = [name for place, name in present if place == environment] or NAMES
    count = randomness.choice((1, 1, 1, 2, 3))
    return environment, [_mutation(randomness, environment, names) for _ in range(count)]


def _mutation(randomness: random.Random, environment: str, names: Sequence[str]) -> Mutation:
    name = randomness.choice(names)
    other = randomness.choice(NAMES)
    number = randomness.randrange(100)
    match randomness.choices(range(10), (7, 1, 3, 2, 1, 3, 2, 2, 1, 1))[0]:
        case 0:
            return SetValue(name, number, environment)
        case 1:
            return UnsetValue(name, environment)
        case 2:
            return PutSetting(other, {"type": "int", "default": number}, environment)
        case 3:
            return put_rule(name, rule("r", number, _condition(randomness)), environment=environment)
        case 4:
            return DeleteRule(name, "r", environment)
        case 5:
            return DeleteSetting(name, environment)
        case 6:
            return RenameSetting(name, other, environment)
        case 7:
            return put_segment(randomness.choice(SEGMENTS), _condition(randomness) or equals("region", "us"))
        case 8:
            return DeleteSegment(randomness.choice(SEGMENTS))
        case _:
            return PutSetting(name, {"aliases": (other,)}, environment)


def _condition(randomness: random.Random) -> Condition | None:
    region = equals("region", randomness.choice(("eu", "us")))
    match randomness.randrange(4):
        case 0:
            return None
        case 1:
            return region
        case 2:
            return on(randomness.choice(NAMES), 5)
        case _:
            return both(region, in_segment(randomness.choice(SEGMENTS)))
