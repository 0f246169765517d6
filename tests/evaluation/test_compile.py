from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections import ChainMap, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.evaluation import reference
from rheostat.evaluation.compile import Base, CompiledSnapshot
from rheostat.evaluation.compiled import source
from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.language import parse_condition
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT
from tests.evaluation import strategy
from tests.evaluation.test_reference import BAD, deep
from tests.evaluation.test_spec import CASES, context_of, decode, snapshot_of

EXAMPLES = int(os.environ.get("RHEOSTAT_COMPILE_EXAMPLES", "5000"))
"""How many generated (rules, context) pairs are tried; the nightly run tries 100 000."""

PAIRS_AN_EXAMPLE = 3 * 3
"""Settings of a generated snapshot times contexts."""

compared = settings(
    max_examples=max(EXAMPLES // (2 * PAIRS_AN_EXAMPLE), 1),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Few attributes and literals, so that rules meet, and with Python's confusable scalars among them.
LITERALS = ["", "a", "1", "true", True, False, 0, 1, 1.0, 0.0, 2**53, float(2**53), 2**53 + 1, -1]
PATHS = ["a", "b", "user.plan", "deep.er.still"]

equalities = st.one_of(
    st.builds(
        Comparison, st.sampled_from(PATHS).map(Attribute), st.just(Operator.EQUALS), st.sampled_from(LITERALS).map(Literal)
    ),
    st.builds(
        Comparison,
        st.sampled_from(PATHS).map(Attribute),
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.none(),
        st.lists(st.sampled_from(LITERALS), max_size=4).map(tuple),
    ),
)
percentages = st.builds(
    Percentage,
    st.sampled_from(["a", "user.plan"]),
    st.sampled_from(["s", "t"]),
    st.sampled_from([0, 0, 20_000]),
    st.sampled_from([50_000, 99_999, 100_000]),
    st.sampled_from(BucketAlgorithm),
)
parts = st.one_of(
    equalities, equalities, equalities, percentages, strategy.comparisons, st.just(SegmentReference("g1"))
)
conjunctions = st.lists(parts, min_size=1, max_size=3).map(
    lambda found: found[0] if len(found) == 1 else AllOf(tuple(found))
)
rule_outcomes = st.one_of(st.sampled_from(LITERALS).map(ValueOutcome), strategy.outcomes)


def on_one(path: str) -> st.SearchStrategy[list[Rule]]:
    """Rules in a row that all ask for the same attribute, most of them for nothing else."""
    equality = st.builds(
        lambda literal: Comparison(Attribute(path), Operator.EQUALS, Literal(literal)), st.sampled_from(LITERALS)
    )
    condition = st.one_of(equality, st.builds(lambda one, other: AllOf((one, other)), equality, parts))
    return st.lists(st.builds(Rule, st.just("run"), rule_outcomes, condition), min_size=3, max_size=8)


rule_lists = st.lists(
    st.one_of(
        st.lists(st.builds(Rule, st.just("any"), rule_outcomes, st.one_of(conjunctions, strategy.conditions)), max_size=3),
        st.sampled_from(PATHS).flatmap(on_one),
        st.builds(Rule, st.just("off"), rule_outcomes, conjunctions, enabled=st.just(False)).map(lambda rule: [rule]),
    ),
    max_size=4,
).map(lambda lists: tuple(numbered(rule for rules in lists for rule in rules)))


def numbered(rules: Iterator[Rule]) -> Iterator[Rule]:
    for number, rule in enumerate(rules):
        yield dataclasses.replace(rule, id=f"{rule.id}{number}")


def json_setting(name: str, rules: tuple[Rule, ...], default: Any = "default") -> Setting:
    return Setting(name, name, JSON, default, rules=rules, revision=2)


dispatched = st.builds(
    lambda first, second, third, condition: Snapshot.of(
        [json_setting("s1", first, True), json_setting("s2", second, 1), json_setting("s3", third)],
        [Segment("g1", condition)],
        revision=3,
    ),
    rule_lists,
    rule_lists,
    st.one_of(st.just(()), rule_lists),
    st.one_of(equalities, conjunctions),
)
scalars = st.one_of(st.sampled_from(LITERALS), st.sampled_from(LITERALS), strategy.hostile)
met = st.dictionaries(
    st.sampled_from([*PATHS, "user", "deep", "user.id"]),
    st.one_of(
        scalars,
        scalars,
        st.dictionaries(
            st.sampled_from(["plan", "er", "id"]),
            st.one_of(scalars, st.dictionaries(st.just("still"), scalars)),
        ),
    ),
)
met_contexts = st.lists(st.one_of(st.lists(met, min_size=1, max_size=1), st.lists(met, max_size=3)), min_size=3, max_size=3)


def shown(evaluation: Evaluation) -> tuple[object, ...]:
    """Return all of *evaluation*, with what tells 1, 1.0 and True apart."""
    return evaluation, repr(evaluation.value)


def assert_same(snapshot: Snapshot, names: list[str], contexts: list[list[dict[str, object]]]) -> None:
    compiled = CompiledSnapshot(snapshot)
    by_reference = reference.Evaluator(snapshot)
    for name in names:
        for layers in contexts:
            expected = by_reference.evaluate(name, Context(*layers), "fallback")
            forms: list[tuple[Any, Base | None]] = [
                (Context(*layers), None),
                (None, Base(*layers)),
                (MappingProxyType(layers[0]) if layers else {}, Base(*layers[1:])),
                (layers[0] if layers else None, Base(*layers[1:])),
            ]
            for context, base in forms:
                assert shown(compiled.evaluate(name, context, "fallback", base)) == shown(expected)
                assert repr(compiled.value(name, context, "fallback", base)) == repr(expected.value)


@compared
@given(strategy.snapshots, st.lists(strategy.contexts, min_size=3, max_size=3))
def test_equals_the_reference_on_any_rules_and_contexts(
    snapshot: Snapshot, contexts: list[list[dict[str, object]]]
) -> None:
    assert_same(snapshot, ["s1", "s2", "s3", "gone"], contexts)


@compared
@given(dispatched, met_contexts)
def test_equals_the_reference_where_many_rules_ask_for_the_same(
    snapshot: Snapshot, contexts: list[list[dict[str, object]]]
) -> None:
    assert_same(snapshot, ["s1", "s2", "s3"], contexts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_compiled_evaluator_gives_what_the_specification_says(case: dict[str, Any]) -> None:
    snapshot, context = snapshot_of(case), context_of(case)
    default = decode(case["default"]) if "default" in case else ABSENT

    evaluation = CompiledSnapshot(snapshot).evaluate(case["evaluate"], context, default)

    assert shown(evaluation) == shown(reference.evaluate(snapshot, case["evaluate"], context, default))
