from __future__ import annotations

import pytest
from google.protobuf import json_format
from hypothesis import given

from rheo.v1 import condition_pb2
from rheostat.errors import InvalidConditionError, TypeMismatchError
from rheostat.evaluation.context import Context
from rheostat.evaluation.reference import holds
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    BucketAlgorithm,
    Condition,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    Unrecognized,
    walk,
)
from rheostat.model.encoding import condition_key
from rheostat.model.snapshot import Snapshot
from rheostat.wire.condition import condition_from_proto, condition_from_request, condition_to_proto
from tests.strategies import conditions


@given(conditions())
def test_every_condition_comes_back_the_same_in_binary_and_json(condition: Condition) -> None:
    message = condition_to_proto(condition)
    binary = condition_pb2.Condition.FromString(message.SerializeToString())
    from_json = json_format.Parse(json_format.MessageToJson(message), condition_pb2.Condition())
    for again in (binary, from_json):
        for read in (condition_from_proto(again), condition_from_request(again, "f")):
            assert condition_key(read) == condition_key(condition)


def test_every_operator_and_algorithm_has_its_number() -> None:
    numbers = {number for number in condition_pb2.Operator.values() if number}
    written = set()
    for operator in Operator:
        message = condition_pb2.Condition()
        message.comparison.left.attribute = "a"
        message.comparison.op = condition_pb2.Operator.Value(f"OPERATOR_{operator.name}")
        read = condition_from_proto(message)
        assert getattr(read, "operator", None) is operator
        written.add(condition_to_proto(read).comparison.op)
    assert written == numbers
    for algorithm in BucketAlgorithm:
        message = condition_to_proto(Percentage("a", "s", 0, 1, algorithm))
        assert message.percentage.algorithm == condition_pb2.BucketAlgorithm.Value(
            f"BUCKET_ALGORITHM_{algorithm.name}"
        )


def comparison(op: int = condition_pb2.OPERATOR_EQUALS) -> condition_pb2.Condition:
    message = condition_pb2.Condition()
    message.comparison.left.attribute = "a"
    message.comparison.op = op
    message.comparison.right.literal.int_value = 1
    return message


def unknown_kind() -> condition_pb2.Condition:
    # Field 99 of Condition, as a newer peer might send it.
    return condition_pb2.Condition.FromString(b"\x9a\x06\x00")


def unknown_operand(side: str) -> condition_pb2.Condition:
    message = comparison()
    getattr(message.comparison, side).Clear()
    getattr(message.comparison, side).MergeFromString(b"\x9a\x06\x00")
    return message


def unknown_literal() -> condition_pb2.Condition:
    message = comparison()
    message.comparison.right.literal.Clear()
    return message


def unknown_list_literal() -> condition_pb2.Condition:
    message = comparison(condition_pb2.OPERATOR_IN)
    message.comparison.list.values.add().int_value = 1
    message.comparison.list.values.add()
    return message


def percentage(algorithm: int) -> condition_pb2.Condition:
    message = condition_pb2.Condition()
    message.percentage.attribute = "a"
    message.percentage.to_bucket = 100_000
    message.percentage.algorithm = algorithm
    return message


UNKNOWN = [
    (unknown_kind(), ""),
    (comparison(99), ".comparison.op"),
    (comparison(0), ".comparison.op"),
    (unknown_operand("left"), ".comparison.left"),
    (unknown_operand("right"), ".comparison.right"),
    (unknown_literal(), ".comparison.right.literal"),
    (unknown_list_literal(), ".comparison.list.values[1]"),
    (percentage(99), ".percentage.algorithm"),
]


@pytest.mark.parametrize(("message", "_"), UNKNOWN)
def test_an_old_client_takes_what_it_does_not_know_as_unknown(
    message: condition_pb2.Condition, _: str
) -> None:
    whole = condition_pb2.Condition()
    whole.negation.condition.any_of.conditions.extend([message, message])
    read = condition_from_proto(whole)
    assert any(isinstance(part, Unrecognized) for part in walk(read))
    assert holds(Snapshot(), read, Context({"a": 1})) is Truth.UNKNOWN


@pytest.mark.parametrize(("message", "place"), UNKNOWN)
def test_a_request_is_told_where_the_unknown_part_is(message: condition_pb2.Condition, place: str) -> None:
    whole = condition_pb2.Condition()
    whole.all_of.conditions.add().segment.name = "known"
    whole.all_of.conditions.add().negation.condition.CopyFrom(message)
    with pytest.raises((InvalidConditionError, TypeMismatchError)) as caught:
        condition_from_request(whole, "rule.condition")
    (violation,) = caught.value.violations
    assert violation.field == f"rule.condition.all_of.conditions[1].negation.condition{place}"
    assert str(caught.value) == f"{violation.field}: {violation.description}"


def test_an_algorithm_that_is_not_said_is_murmur3_in_a_request_and_unknown_in_an_answer() -> None:
    message = percentage(condition_pb2.BUCKET_ALGORITHM_UNSPECIFIED)
    assert condition_from_request(message, "f") == Percentage("a", "", 0, 100_000, BucketAlgorithm.MURMUR3)
    assert isinstance(condition_from_proto(message), Unrecognized)


def test_a_condition_of_a_newer_peer_is_passed_on_as_one_that_nobody_knows() -> None:
    message = condition_to_proto(AllOf((Unrecognized("news"), SegmentReference("s"))))
    read = condition_from_proto(message)
    assert isinstance(read, AllOf)
    assert isinstance(read.conditions[0], Unrecognized)


@pytest.mark.parametrize("kind", ["negation", "all_of", "any_of"])
def test_hostile_depth_ends_neither_side(kind: str) -> None:
    message = condition_pb2.Condition()
    inner = message
    for _ in range(10_000):
        inner = inner.negation.condition if kind == "negation" else getattr(inner, kind).conditions.add()
    inner.segment.name = "s"
    assert isinstance(condition_from_proto(message), Unrecognized)
    with pytest.raises(InvalidConditionError, match="nests more than 64 levels") as caught:
        condition_from_request(message, "f")
    assert [v.field for v in caught.value.violations] == ["f"]


def test_a_deep_condition_is_not_written_either() -> None:
    deep: Condition = SegmentReference("s")
    for level in range(5_000):
        deep = Not(deep) if level % 2 else AnyOf((deep,))
    with pytest.raises(InvalidConditionError, match="nests more than 64 levels"):
        condition_to_proto(deep)
