"""What a writer leaves unsaid in a rule or segment stays as it is stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rheostat.model.change import PutRule, PutSegment, PutSetting
from rheostat.model.condition import AllOf, BucketAlgorithm, Percentage
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as started:
        started.commit(
            Writer(OPEN), "default", "production", [PutSetting("n", {"type": "int", "default": 0})]
        )
        yield started


def stored_rule(service: Service) -> Rule:
    rule = service.view("default", "production").snapshot.settings["n"].rule("r")
    assert rule is not None
    return rule


def put(service: Service, rule: Rule, **options: bool) -> None:
    service.commit(Writer(OPEN), "default", "production", [PutRule("n", rule, **options)])


def test_a_replaced_rule_keeps_the_algorithm_and_salt_that_the_writer_did_not_name(service: Service):
    def rule(algorithm: BucketAlgorithm, salt: str, end: int) -> Rule:
        split = Distribution("user.id", salt, (Variant("a", 100_000, 1),), algorithm)
        return Rule("r", split, Percentage("user.id", salt, 0, end, algorithm))

    put(service, rule(BucketAlgorithm.REPLANE, "seed", 10_000))
    put(service, rule(BucketAlgorithm.MURMUR3, "", 20_000), keep_algorithms=True)
    stored = stored_rule(service)
    assert stored == Rule(
        "r",
        rule(BucketAlgorithm.REPLANE, "seed", 20_000).outcome,
        Percentage("user.id", "seed", 0, 20_000, BucketAlgorithm.REPLANE),
        number=stored.number,
    )


def test_a_replaced_rule_takes_the_algorithm_that_the_writer_names(service: Service):
    put(service, Rule("r", ValueOutcome(1), Percentage("u", "s", 0, 1, BucketAlgorithm.REPLANE)))
    put(service, Rule("r", ValueOutcome(1), Percentage("u", "s", 0, 1, BucketAlgorithm.MURMUR3)))
    assert stored_rule(service).condition == Percentage("u", "s", 0, 1, BucketAlgorithm.MURMUR3)


def test_a_segment_put_with_a_description_alone_keeps_its_condition(service: Service):
    condition = Percentage("u", "s", 0, 1)
    service.commit(Writer(OPEN), "default", "", [PutSegment(Segment("beta", condition, "old"))])
    mutation = PutSegment(Segment("beta", AllOf(()), "new"), keep_condition=True)
    service.commit(Writer(OPEN), "default", "", [mutation])
    stored = service.head.state.projects["default"].segments["beta"]
    assert (stored.condition, stored.description) == (condition, "new")
