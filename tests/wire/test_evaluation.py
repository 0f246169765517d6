from __future__ import annotations

import pytest
from hypothesis import given

from rheo.v1 import evaluation_pb2
from rheostat.evaluation.explain import explain
from rheostat.evaluation.reference import evaluate
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    Comparison,
    Literal,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    Unrecognized,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT, Value, parse_json, same
from rheostat.wire.evaluation import (
    evaluation_from_proto,
    evaluation_to_proto,
    explanation_from_proto,
    explanation_to_proto,
)
from tests.strategies import values


def over_the_wire(message: evaluation_pb2.Evaluation) -> evaluation_pb2.Evaluation:
    return evaluation_pb2.Evaluation.FromString(message.SerializeToString())


@given(values())
def test_every_value_comes_back_the_same_beside_its_json(value: Value) -> None:
    evaluation = Evaluation(value, Reason.SPLIT, "r", "v", 7, 5)
    message = over_the_wire(evaluation_to_proto("alias", evaluation))
    read = evaluation_from_proto(message)
    assert read.value is not ABSENT
    assert same(read.value, value)
    assert same(parse_json(message.value_json), value)
    assert (message.name, read.reason, read.rule_id, read.variant) == ("alias", Reason.SPLIT, "r", "v")
    assert (read.revision, read.setting_revision) == (7, 5)


@pytest.mark.parametrize(
    ("value", "text"), [(4.0, "4.0"), ("blue", '"blue"'), ((1, 2), "[1,2]"), (None, "null"), (False, "false")]
)
def test_the_json_is_canonical(value: Value, text: str) -> None:
    assert evaluation_to_proto("n", Evaluation(value, Reason.STATIC)).value_json == text


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_comes_back_the_same(reason: Reason) -> None:
    code = ErrorCode.GENERAL if reason is Reason.ERROR else None
    evaluation = Evaluation(1, reason, error_code=code)
    message = evaluation_to_proto("n", evaluation)
    assert message.reason == evaluation_pb2.EvaluationReason.Value(f"EVALUATION_REASON_{reason.name}")
    assert evaluation_from_proto(message) == evaluation


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_comes_back_without_a_value(code: ErrorCode) -> None:
    evaluation = Evaluation(ABSENT, Reason.ERROR, error_code=code, error_message="told")
    message = over_the_wire(evaluation_to_proto("n", evaluation))
    assert not message.HasField("value")
    assert message.value_json == ""
    assert evaluation_from_proto(message) == evaluation


def test_reasons_of_a_newer_peer_are_read_as_what_is_nearest() -> None:
    message = evaluation_to_proto("n", Evaluation(1, Reason.STATIC))
    message.reason = 99  # type: ignore[assignment]  # what a newer peer may send
    assert evaluation_from_proto(message) == Evaluation(1, Reason.DEFAULT)
    message.ClearField("value")
    message.error_code = 99  # type: ignore[assignment]  # likewise
    assert evaluation_from_proto(message) == Evaluation(ABSENT, Reason.ERROR, error_code=ErrorCode.GENERAL)


def snapshot() -> Snapshot:
    eu = Comparison(Attribute("region"), Operator.EQUALS, Literal("eu"))
    plans = Comparison(Attribute("user.plan"), Operator.IN, literals=("pro", "team"))
    return Snapshot.of(
        [
            Setting(
                "i",
                "n",
                JSON,
                default="d",
                rules=(
                    Rule("off", ValueOutcome(0), eu, number=1, enabled=False),
                    Rule("never", ValueOutcome(0), AllOf((eu, plans)), number=2),
                    Rule("new", ValueOutcome(0), Unrecognized("a kind of a newer server"), number=3),
                    Rule("share", ValueOutcome(0), Percentage("user.id", "s", 0, 0), number=4),
                    Rule(
                        "split",
                        Distribution("user.id", "s", (Variant("all", 100_000, 1),)),
                        AnyOf((Not(eu), SegmentReference("beta"))),
                        number=5,
                    ),
                ),
            )
        ],
        [Segment("beta", Comparison(Attribute("beta"), Operator.EXISTS))],
        revision=3,
    )


def test_an_explanation_comes_back_the_same() -> None:
    context = {"region": "us", "user": {"id": "u1"}}
    explanation = explain(snapshot(), "n", context)
    message = over_the_wire(evaluation_to_proto("n", explanation.evaluation, explanation))
    assert explanation_from_proto(message) == explanation
    assert evaluation_from_proto(message) == evaluate(snapshot(), "n", context)
    texts = {rule.rule_id: rule.condition.text for rule in message.explanation.rules}
    assert texts["never"] == 'region == "eu" and user.plan in ["pro", "team"]'
    assert texts["new"] == "a kind of a newer server"
    truths = [rule.truth for rule in explanation_from_proto(message).rules]
    assert truths == [None, Truth.FALSE, Truth.UNKNOWN, Truth.FALSE, Truth.TRUE]
    assert not message.explanation.rules[0].HasField("bucket")
    assert message.explanation.rules[4].HasField("bucket")


def test_the_text_of_a_long_condition_is_cut() -> None:
    many = Comparison(Attribute("a"), Operator.IN, literals=tuple(range(10_000)))
    rule = Rule("r", ValueOutcome(1), AllOf((many, many)))
    explanation = explain(Snapshot.of([Setting("i", "n", JSON, default=0, rules=(rule,))]), "n", {"a": 1})
    message = explanation_to_proto(explanation)
    text = message.rules[0].condition.text
    assert len(text) == 4_096
    assert text.endswith("…")
    read = explanation_from_proto(evaluation_pb2.Evaluation(explanation=message))
    assert read.rules[0].condition is not None
    assert read.rules[0].condition.condition == Unrecognized(text)


def test_no_explanation_is_an_empty_one() -> None:
    message = evaluation_to_proto("n", Evaluation(1, Reason.STATIC))
    assert not message.HasField("explanation")
    assert explanation_from_proto(message).rules == ()
