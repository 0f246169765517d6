from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING
from rheostat.evaluation.explain import explain
from rheostat.evaluation.reference import Evaluator, evaluate, holds
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.evaluation.truth import Truth, negate
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
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
from rheostat.model.type import BOOL, INT
from rheostat.model.value import ABSENT
from tests.evaluation import strategy
from tests.thorough import examples

EMPTY = Snapshot()
IS_EU = Comparison(Attribute("region"), Operator.EQUALS, Literal("eu"))


def flag(name: str, *rules: Rule, **fields: Any) -> Setting:
    return Setting(name, name, BOOL, default=False, rules=rules, **fields)


def on(condition: Condition | None = None, rule_id: str = "on") -> Rule:
    return Rule(rule_id, ValueOutcome(True), condition)


def is_on(name: str) -> Comparison:
    return Comparison(SettingReference(name), Operator.EQUALS, Literal(True))


lenient = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@lenient
@given(strategy.snapshots, strategy.contexts, st.sampled_from(strategy.SETTINGS))
def test_never_raises_and_explains_the_same(
    snapshot: Snapshot, layers: list[dict[str, object]], name: str
) -> None:
    context = Context(*layers)

    evaluation = evaluate(snapshot, name, context, default="default")
    explanation = explain(snapshot, name, context, default="default")

    assert explanation.evaluation == evaluation
    assert (evaluation.error_code is not None) is (evaluation.reason is Reason.ERROR) is (name == "gone")
    assert (evaluation.rule_id is not None) is (evaluation.reason in (Reason.TARGETING_MATCH, Reason.SPLIT))
    assert (evaluation.variant is not None) is (evaluation.reason is Reason.SPLIT)
    assert [rule.rule_id for rule in explanation.rules if rule.matched] == [
        rule_id for rule_id in [evaluation.rule_id] if rule_id is not None
    ]


@lenient
@given(strategy.snapshots, strategy.conditions, strategy.contexts)
def test_the_laws_of_the_logic_hold_for_any_condition(
    snapshot: Snapshot, condition: Condition, layers: list[dict[str, object]]
) -> None:
    context = Context(*layers)
    truth = holds(snapshot, condition, context)

    def of(other: Condition) -> Truth:
        return holds(snapshot, other, context)

    always, never = AllOf(()), AnyOf(())
    assert of(Not(condition)) is negate(truth)
    assert of(Not(Not(condition))) is truth
    assert of(AllOf((condition, always))) is of(AnyOf((condition, never))) is truth
    assert of(AllOf((condition, never))) is Truth.FALSE
    assert of(AnyOf((condition, always))) is Truth.TRUE
    assert of(AllOf((condition, Not(condition)))) is not Truth.TRUE
    assert of(AnyOf((condition, Not(condition)))) is not Truth.FALSE


@lenient
@given(strategy.snapshots, strategy.contexts)
def test_one_evaluator_answers_as_a_fresh_one_does(
    snapshot: Snapshot, layers: list[dict[str, object]]
) -> None:
    evaluator = Evaluator(snapshot)

    for name in [*strategy.SETTINGS, *reversed(strategy.SETTINGS)]:
        assert evaluator.evaluate(name, Context(*layers)) == evaluate(snapshot, name, Context(*layers))


@lenient
@given(strategy.comparisons, strategy.contexts)
def test_only_exists_is_known_of_a_missing_attribute(
    comparison: Comparison, layers: list[dict[str, object]]
) -> None:
    comparison = dataclasses.replace(comparison, left=Attribute("not.there"))
    truth = holds(EMPTY, comparison, Context(*layers))

    assert truth is (Truth.FALSE if comparison.operator is Operator.EXISTS else Truth.UNKNOWN)


def test_the_whole_evaluation_is_reported() -> None:
    setting = flag("new", on(IS_EU), revision=4)

    assert evaluate(Snapshot.of([setting], revision=9), "new", {"region": "eu"}) == Evaluation(
        value=True,
        reason=Reason.TARGETING_MATCH,
        rule_id="on",
        variant=None,
        revision=9,
        setting_revision=4,
        stale=False,
        error_code=None,
        error_message="",
    )


def test_a_missing_setting_gives_the_callers_default_and_says_why() -> None:
    evaluation = evaluate(Snapshot.of(revision=9), "nwe", default=False)

    assert evaluation.value is False
    assert evaluation.error_code is ErrorCode.FLAG_NOT_FOUND
    assert "'nwe'" in evaluation.error_message
    assert evaluation.revision == 9
    assert evaluate(EMPTY, "nwe").value is ABSENT


@pytest.mark.parametrize("context", [5, "region", [("region", "eu")], object()])
def test_a_context_that_is_no_mapping_is_an_invalid_one(context: Any) -> None:
    evaluation = evaluate(Snapshot.of([flag("new")]), "new", context, default=True)

    assert evaluation.value is True
    assert evaluation.error_code is ErrorCode.INVALID_CONTEXT
    assert holds(EMPTY, IS_EU, context) is Truth.UNKNOWN


@pytest.mark.parametrize("layer", [None, 5, object()])
def test_a_layer_that_is_no_mapping_is_missing(layer: Any) -> None:
    snapshot = Snapshot.of([flag("new", on(IS_EU))])

    assert evaluate(snapshot, "new", Context(layer, {"region": "eu"})).reason is Reason.DEFAULT


@pytest.mark.parametrize("name", [None, 5, [], {}])
def test_a_name_that_is_no_string_is_an_error_not_an_exception(name: Any) -> None:
    assert evaluate(Snapshot.of([flag("new")]), name, default=1).reason is Reason.ERROR


BAD: list[Any] = [
    None,
    "region",
    Comparison(Attribute("region"), "==", Literal("eu")),  # type: ignore[arg-type]
    Comparison(Attribute(5), Operator.EQUALS, Literal("eu")),  # type: ignore[arg-type]
    Comparison(Attribute("region"), Operator.IN, None, 5),  # type: ignore[arg-type]
    Comparison(SettingReference([]), Operator.EQUALS, Literal("eu")),  # type: ignore[arg-type]
    SegmentReference([]),  # type: ignore[arg-type]
    Percentage("region", "s", "0", None),  # type: ignore[arg-type]
    Percentage("region", None, 0, 100_000, None),  # type: ignore[arg-type]
    AllOf(5),  # type: ignore[arg-type]
    AnyOf((None,)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_rule_that_is_broken_yields_to_the_next(bad: Any) -> None:
    rules = (Rule("bad", ValueOutcome(True), AllOf((bad,))), on(IS_EU))

    evaluation = evaluate(Snapshot.of([flag("new", *rules)]), "new", {"region": "eu"})

    assert evaluation.rule_id == "on"
    assert explain(Snapshot.of([flag("new", *rules)]), "new", {"region": "eu"}).evaluation == evaluation


def deep(levels: int, wrap: Callable[[Condition], Condition] = Not) -> Condition:
    condition: Condition = AllOf(())
    for _ in range(levels - 1):
        condition = wrap(condition)
    return condition


@pytest.mark.parametrize("wrap", [Not, lambda part: AllOf((part,)), lambda part: AnyOf((part,))])
def test_a_condition_beyond_any_stack_is_unknown(wrap: Callable[[Condition], Condition]) -> None:
    assert holds(EMPTY, deep(MAX_NESTING, wrap), {}) is not Truth.UNKNOWN
    assert holds(EMPTY, deep(MAX_NESTING + 1, wrap), {}) is Truth.UNKNOWN
    assert holds(EMPTY, deep(100_000, wrap), {}) is Truth.UNKNOWN
    assert holds(EMPTY, AnyOf((AllOf(()), deep(100_000, wrap))), {}) is Truth.UNKNOWN


def test_a_long_chain_of_settings_is_unknown_not_an_exception() -> None:
    chain = [flag(f"s{i}", on(is_on(f"s{i + 1}"))) for i in range(5_000)] + [flag("s5000", on())]
    snapshot = Snapshot.of(chain)

    assert evaluate(snapshot, "s0").reason is Reason.DEFAULT
    assert evaluate(snapshot, f"s{5_000 - MAX_NESTING}").value is True
    assert evaluate(snapshot, f"s{5_000 - MAX_NESTING - 1}").value is False


def test_references_that_double_at_each_level_are_evaluated_once_each() -> None:
    doubled = [Segment(f"g{i}", AllOf((SegmentReference(f"g{i + 1}"),) * 2)) for i in range(30)]
    snapshot = Snapshot.of([flag("new", on(SegmentReference("g0")))], [*doubled, Segment("g30", AllOf(()))])
    started = time.process_time()

    assert evaluate(snapshot, "new").value is True
    assert explain(snapshot, "new").rules[0].truth is Truth.TRUE
    # 2^30 evaluations would take minutes.
    assert time.process_time() - started < 5


def test_a_full_stack_of_the_caller_costs_the_rule_not_the_read() -> None:
    snapshot = Snapshot.of([flag("new", on(deep(MAX_NESTING, lambda part: AllOf((part,)))))])

    def bounded(levels: int) -> Evaluation:
        return bounded(levels - 1) if levels else evaluate(snapshot, "new", {}, default=False)

    outcomes = set()
    # From ample room down to a stack that has not even room for looking at the rule.
    used = sum(1 for _ in _frames())
    for room in range(400, 25, -1):
        outcomes.add(bounded(sys.getrecursionlimit() - used - room).value)
    assert outcomes == {True, False}


def _frames() -> Any:
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_a_setting_on_a_cycle_is_unknown_whoever_asks() -> None:
    ring = [flag("a", on(is_on("b"))), flag("b", on(is_on("a")), on(None, "always"))]
    snapshot = Snapshot.of([*ring, flag("c", on(is_on("b")))])

    assert evaluate(snapshot, "a").value is False
    assert evaluate(snapshot, "b").rule_id == "always"
    assert evaluate(snapshot, "c").value is False


def test_a_disabled_rule_still_counts_for_a_cycle() -> None:
    """Else enabling it would change what other settings are."""
    back = dataclasses.replace(on(is_on("a")), enabled=False)
    snapshot = Snapshot.of([flag("a", on(is_on("b"))), flag("b", back, on(None, "always"))])

    assert evaluate(snapshot, "a").value is False


def test_a_cycle_through_an_alias_is_one() -> None:
    snapshot = Snapshot.of([flag("a", on(is_on("former")), aliases=("former",))])

    assert evaluate(snapshot, "former").reason is Reason.DEFAULT


def test_a_stored_surrogate_in_a_salt_falls_through() -> None:
    split = Distribution("id", "\ud800", (Variant("all", 100_000, 1),))
    setting = Setting("s", "s", INT, 0, rules=(Rule("split", split),))

    assert evaluate(Snapshot.of([setting]), "s", {"id": "u1"}).reason is Reason.DEFAULT


def test_a_lone_surrogate_equals_itself_and_matches_no_pattern() -> None:
    context = {"x": "\ud800"}

    assert holds(EMPTY, Comparison(Attribute("x"), Operator.EQUALS, Literal("\ud800")), context) is Truth.TRUE
    assert holds(EMPTY, Comparison(Attribute("x"), Operator.MATCHES, Literal(".*")), context) is Truth.UNKNOWN
    assert holds(EMPTY, Percentage("x", "s", 0, 100_000), context) is Truth.UNKNOWN


def test_a_pattern_that_would_stop_a_backtracking_engine_ends_at_once() -> None:
    evil = Comparison(Attribute("x"), Operator.MATCHES, Literal("^(a+)+$"))
    started = time.process_time()

    assert holds(EMPTY, evil, {"x": "a" * 10_000 + "!"}) is Truth.FALSE
    assert time.process_time() - started < 5


def test_a_pattern_that_does_not_compile_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    bad = Comparison(Attribute("x"), Operator.MATCHES, Literal("(unclosed"))

    assert holds(EMPTY, bad, {"x": "a"}) is Truth.UNKNOWN
    assert capfd.readouterr().err == ""


def test_an_evaluator_serves_many_threads() -> None:
    chain = [flag(f"s{i}", on(is_on(f"s{i + 1}"))) for i in range(30)] + [flag("s30", on(IS_EU))]
    evaluator = Evaluator(Snapshot.of(chain))
    wrong: list[object] = []
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        for i in range(30):
            for region in ("eu", "us"):
                value = evaluator.evaluate(f"s{i}", {"region": region}).value
                if value is not (region == "eu"):
                    wrong.append((i, region, value))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
