from __future__ import annotations

import json
import math

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given

from rheo.v1 import admin_service_pb2, config_service_pb2, value_pb2
from rheostat.errors import TypeMismatchError
from rheostat.evaluation.context import Context
from rheostat.evaluation.reference import holds
from rheostat.model.condition import Attribute, Comparison, Literal, Operator
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import ABSENT, FrozenMapping, Value, freeze, same
from rheostat.wire.value import (
    MAX_VALUE_DEPTH,
    context_from_proto,
    context_from_request,
    context_to_proto,
    struct_from_proto,
    struct_from_request,
    value_from_proto,
    value_from_request,
    value_to_proto,
)
from tests.strategies import values


def over_the_wire(message: value_pb2.Value) -> value_pb2.Value:
    return value_pb2.Value.FromString(message.SerializeToString())


def nested(levels: int, *, mapping: bool) -> Value:
    value: Value = True
    for _ in range(levels):
        value = FrozenMapping({"k": value}) if mapping else (value,)
    return value


@given(values())
def test_every_value_comes_back_the_same_in_binary_and_json(value: Value) -> None:
    message = value_to_proto(value)
    binary = value_from_proto(over_the_wire(message))
    assert binary is not ABSENT
    assert same(binary, value)
    parsed = json_format.Parse(json_format.MessageToJson(message), value_pb2.Value())
    from_json = value_from_proto(parsed)
    assert from_json is not ABSENT
    assert same(from_json, value)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, -0.0, "", (), FrozenMapping()])
def test_what_is_falsy_is_a_value(value: Value) -> None:
    message = over_the_wire(value_to_proto(value))
    assert message.WhichOneof("kind") is not None
    read = value_from_proto(message)
    assert read is not ABSENT
    assert same(read, value)


def test_no_kind_is_absent_and_never_null() -> None:
    assert value_from_proto(value_pb2.Value()) is ABSENT
    assert value_to_proto(ABSENT).WhichOneof("kind") is None
    assert value_from_proto(value_to_proto(None)) is None


def test_bool_is_never_a_number_on_the_wire() -> None:
    assert value_to_proto(True).WhichOneof("kind") == "bool_value"
    assert value_to_proto(1).WhichOneof("kind") == "int_value"
    assert value_to_proto(1.0).WhichOneof("kind") == "double_value"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "nan is not a finite number"),
        (-math.inf, "-inf is not a finite number"),
        ((1, math.inf), "inf is not a finite number"),
        (2**63, "does not fit 64 bits"),
        ("\ud800", "lone surrogate"),
        (FrozenMapping({"\udfff": 1}), "lone surrogate"),
        ([1], "list"),
    ],
)
def test_what_the_contract_cannot_carry_is_refused(value: Value, told: str) -> None:
    with pytest.raises(TypeMismatchError, match=told):
        value_to_proto(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_field(number: float) -> None:
    message = value_pb2.Value()
    message.list_value.values.add().double_value = number
    with pytest.raises(TypeMismatchError):
        value_from_proto(message)
    with pytest.raises(TypeMismatchError, match=r"^set_value\.value: ") as caught:
        value_from_request(message, "set_value.value")
    assert [v.field for v in caught.value.violations] == ["set_value.value"]


def test_a_request_names_a_value_without_a_kind() -> None:
    with pytest.raises(TypeMismatchError, match=r"^f: a value has no kind"):
        value_from_request(value_pb2.Value(), "f")


def test_an_element_of_an_unknown_kind_is_not_taken_for_null() -> None:
    message = value_pb2.Value()
    message.map_value.entries["k"].SetInParent()
    with pytest.raises(TypeMismatchError, match="has no kind"):
        value_from_proto(message)


@pytest.mark.parametrize("mapping", [False, True])
def test_the_deepest_value_survives_where_it_nests_deepest(mapping: bool) -> None:
    value = nested(MAX_VALUE_DEPTH, mapping=mapping)
    answer = admin_service_pb2.GetRevisionResponse()
    rule = answer.change_set.changes.add().after.setting.rules.add()
    rule.distribution.variants.add().value.CopyFrom(value_to_proto(value))
    again = admin_service_pb2.GetRevisionResponse.FromString(answer.SerializeToString())
    variant = again.change_set.changes[0].after.setting.rules[0].distribution.variants[0]
    assert value_from_proto(variant.value) == value


@pytest.mark.parametrize("mapping", [False, True])
def test_deeper_values_are_refused_both_ways(mapping: bool) -> None:
    with pytest.raises(TypeMismatchError, match="nests more than 30 levels"):
        value_to_proto(nested(MAX_VALUE_DEPTH + 1, mapping=mapping))
    message = value_pb2.Value()
    inner = message
    for _ in range(10_000):
        inner = inner.map_value.entries["k"] if mapping else inner.list_value.values.add()
    inner.bool_value = True
    with pytest.raises(TypeMismatchError, match="nests more than 30 levels"):
        value_from_proto(message)


def test_a_context_keeps_its_attributes_and_leaves_out_those_without_a_kind() -> None:
    context = {"user": freeze({"id": "u1", "tags": ["a"]}), "age": 0, "gone": None}
    request = config_service_pb2.EvaluateRequest(context=context_to_proto(context))
    request.context["new"].SetInParent()
    assert context_from_proto(request.context) == FrozenMapping(context)
    with pytest.raises(TypeMismatchError) as caught:
        context_from_request(request.context, "context")
    assert [v.field for v in caught.value.violations] == ["context['new']"]


def test_attributes_are_plain_json_whose_numbers_compare_by_value() -> None:
    text = '{"user": {"id": 7, "on": false}, "tags": ["a", 1.5, null], "none": null}'
    attributes = struct_from_proto(json_format.Parse(text, Struct()))
    assert attributes == json.loads(text)
    assert type(attributes["user"]["id"]) is float
    seven = Comparison(Attribute("user.id"), Operator.EQUALS, Literal(7))
    assert holds(Snapshot(), seven, Context(attributes)).name == "TRUE"


def test_hostile_attributes_are_refused() -> None:
    struct = Struct()
    inner = struct
    for _ in range(5_000):
        inner = inner.fields["k"].struct_value
    inner.fields["k"].bool_value = True
    with pytest.raises(TypeMismatchError, match=r"^attributes: a value nests more") as caught:
        struct_from_request(struct, "attributes")
    assert [v.field for v in caught.value.violations] == ["attributes"]
    struct = Struct()
    struct.fields["k"].number_value = math.nan
    with pytest.raises(TypeMismatchError, match="not a finite"):
        struct_from_proto(struct)
