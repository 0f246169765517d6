from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf import json_format
from hypothesis import given

from rheo.v1 import segment_pb2, setting_pb2
from rheostat.errors import InvalidArgumentError, InvalidTypeError, RheostatError
from rheostat.evaluation.reference import evaluate
from rheostat.evaluation.result import Reason
from rheostat.model.condition import SegmentReference, Unrecognized
from rheostat.model.encoding import encode_item
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON, STR
from rheostat.model.value import ABSENT, Value
from rheostat.wire.setting import (
    rule_from_proto,
    rule_from_request,
    rule_to_proto,
    segment_from_proto,
    segment_from_request,
    segment_to_proto,
    setting_from_proto,
    setting_from_request,
    setting_to_proto,
)
from tests.strategies import conditions, rules, segments, settings


@given(settings())
def test_every_setting_comes_back_the_same_in_binary_and_json(setting: Setting) -> None:
    setting = replace(setting, aliases=("old",), order=Order.SPECIFICITY, declared=True, revision=7)
    message = setting_to_proto(setting)
    binary = setting_pb2.Setting.FromString(message.SerializeToString())
    from_json = json_format.Parse(json_format.MessageToJson(message), setting_pb2.Setting())
    assert encode_item(setting_from_proto(binary)) == encode_item(setting)
    assert encode_item(setting_from_proto(from_json)) == encode_item(setting)
    # Numbers are the server's, so that a request's are not read.
    numberless = replace(setting, rules=tuple(replace(rule, number=0) for rule in setting.rules))
    assert encode_item(setting_from_request(binary, "f")) == encode_item(numberless)


@given(rules(conditions=conditions()))
def test_every_rule_comes_back_the_same(rule: Rule) -> None:
    message = setting_pb2.Rule.FromString(rule_to_proto(rule).SerializeToString())
    assert rule_from_proto(message) == rule
    assert rule_from_request(message, "f") == replace(rule, number=0)


@given(segments())
def test_every_segment_comes_back_the_same(segment: Segment) -> None:
    segment = replace(segment, revision=3)
    message = segment_pb2.Segment.FromString(segment_to_proto(segment).SerializeToString())
    assert segment_from_proto(message) == segment
    assert segment_from_request(message, "f") == replace(segment, revision=0)


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
def test_falsy_values_of_an_environment_are_present(value: Value) -> None:
    setting = Setting("i", "n", JSON, default=value, value=value, off=value)
    read = setting_from_proto(setting_to_proto(setting))
    assert read.value is not ABSENT
    assert encode_item(read) == encode_item(setting)
    assert setting_from_proto(setting_to_proto(replace(setting, value=ABSENT))).value is ABSENT


def test_no_features_differ_from_any_features() -> None:
    setting = Setting("i", "n", STR, default="")
    assert setting_from_proto(setting_to_proto(setting)).features is None
    assert setting_from_proto(setting_to_proto(replace(setting, features=()))).features == ()


def test_enabled_is_always_said_in_answers_and_true_where_it_is_not() -> None:
    message = setting_to_proto(
        Setting("i", "n", STR, default="", enabled=False, rules=(Rule("r", ValueOutcome(""), enabled=False),))
    )
    assert message.HasField("enabled")
    assert setting_from_proto(message).enabled is False
    message.ClearField("enabled")
    message.rules[0].ClearField("enabled")
    for read in (setting_from_proto(message), setting_from_request(message, "f")):
        assert read.enabled is True
        assert read.rules[0].enabled is True


def of_newer_peer(change: Callable[[setting_pb2.Rule], object]) -> setting_pb2.Rule:
    message = rule_to_proto(
        Rule("r", Distribution("u", "s", (Variant("a", 40_000, 1), Variant("b", 60_000, 2))))
    )
    change(message)
    return message


def set_algorithm(message: setting_pb2.Rule) -> None:
    message.distribution.algorithm = 99  # type: ignore[assignment]  # what a newer peer may send


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (of_newer_peer(lambda rule: rule.ClearField("distribution")), ".outcome"),
        (of_newer_peer(lambda rule: rule.value.SetInParent()), ".value"),
        (
            of_newer_peer(lambda rule: rule.distribution.variants[1].value.Clear()),
            ".distribution.variants[1].value",
        ),
        (of_newer_peer(set_algorithm), ".distribution.algorithm"),
    ],
)
def test_an_unknown_outcome_never_matches_and_is_refused_in_a_request(
    message: setting_pb2.Rule, place: str
) -> None:
    rule = rule_from_proto(message)
    assert rule.outcome is None
    setting = Setting("i", "n", JSON, default="default", rules=(rule, Rule("next", ValueOutcome("next"))))
    evaluation = evaluate(Snapshot.of([setting]), "n", {"u": "1"})
    assert (evaluation.value, evaluation.rule_id) == ("next", "next")
    with pytest.raises(InvalidArgumentError) as caught:
        rule_from_request(message, "f")
    assert [v.field for v in caught.value.violations] == [f"f{place}"]


def test_a_rule_without_an_outcome_is_passed_on_without_one() -> None:
    assert rule_to_proto(Rule("r", None)).WhichOneof("outcome") is None


def test_an_old_client_keeps_a_setting_whose_details_are_newer() -> None:
    message = setting_to_proto(Setting("i", "n", STR, default="d", rules=(Rule("r", ValueOutcome("v")),)))
    message.order = 99  # type: ignore[assignment]  # what a newer peer may send
    message.lifecycle = 99  # type: ignore[assignment]  # likewise
    message.metadata["new"].SetInParent()
    message.rules[0].condition.SetInParent()
    message.MergeFromString(b"\x9a\x06\x00")
    read = setting_from_proto(message)
    assert (read.order, read.lifecycle) == (Order.STORED, Lifecycle.ACTIVE)
    assert isinstance(read.rules[0].condition, Unrecognized)
    assert evaluate(Snapshot.of([read]), "n").reason is Reason.DEFAULT


@pytest.mark.parametrize(
    ("field", "content"), [("type", "Date"), ("version", "1"), ("order", 99), ("lifecycle", 99)]
)
def test_a_request_is_told_which_field_of_a_setting_is_wrong(field: str, content: object) -> None:
    message = setting_to_proto(Setting("i", "n", STR, default="d"))
    setattr(message, field, content)
    with pytest.raises(InvalidArgumentError) as caught:
        setting_from_request(message, "settings[3]")
    assert [v.field for v in caught.value.violations] == [f"settings[3].{field}"]


def test_a_setting_without_default_or_of_an_unknown_type_cannot_be_read() -> None:
    message = setting_to_proto(Setting("i", "n", STR, default="d"))
    message.default.Clear()
    with pytest.raises(RheostatError, match=r"setting 'n'\.default: a value has no kind"):
        setting_from_proto(message)
    message.default.string_value = "d"
    message.type = "Date"
    with pytest.raises(InvalidTypeError, match=r"setting 'n'\.type: "):
        setting_from_proto(message)


def test_what_a_request_leaves_unsaid_has_its_default() -> None:
    message = setting_pb2.Setting(name="n", type=" Sequence < int > ")
    message.default.list_value.SetInParent()
    read = setting_from_request(message, "f")
    assert str(read.type) == "Sequence<int>"
    assert (read.version, read.order, read.lifecycle) == (Version(1, 0), Order.STORED, Lifecycle.ACTIVE)
    assert (read.value, read.off, read.features) == (ABSENT, ABSENT, None)


def test_a_segment_of_a_request_needs_a_condition() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        segment_from_request(segment_pb2.Segment(name="s"), "put_segment.segment")
    assert [v.field for v in caught.value.violations] == ["put_segment.segment.condition"]
    assert segment_from_proto(segment_to_proto(Segment("s", SegmentReference("t")))).condition == (
        SegmentReference("t")
    )
