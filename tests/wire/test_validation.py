"""The request rules of the contract, as the server checks them."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message

from rheo.v1 import (
    admin_service_pb2,
    condition_pb2,
    config_service_pb2,
    event_service_pb2,
    value_pb2,
    watch_pb2,
)
from rheostat.wire.validation import violations


def _fields(message: Message) -> list[str]:
    return [violation.field for violation in violations(message)]


def _commit() -> admin_service_pb2.CommitRequest:
    request = admin_service_pb2.CommitRequest(project="shop", environment="production", message="why")
    mutation = request.mutations.add().set_value
    mutation.name = "checkout.timeout"
    mutation.value.double_value = 4
    return request


def test_a_request_that_keeps_the_rules_has_no_violations() -> None:
    assert violations(_commit()) == []


def test_names_the_field_by_its_path_in_the_request() -> None:
    request = _commit()
    request.mutations.add().put_setting.setting.name = "x" * 300
    (violation,) = violations(request)
    assert violation.field == "mutations[1].put_setting.setting.name"
    assert "does not match" in violation.description


def test_reports_every_violation_of_a_request() -> None:
    request = _commit()
    request.project = "Not A Slug"
    request.mutations.add()
    rule = request.mutations.add().put_rule
    rule.setting = "checkout.timeout"
    rule.rule.condition.comparison.left.attribute = "region"
    rule.rule.condition.comparison.op = 99  # type: ignore[assignment]
    assert _fields(request) == [
        "project",
        "mutations[1].kind",
        "mutations[2].put_rule.rule.outcome",
        "mutations[2].put_rule.rule.condition.comparison.op",
    ]


def test_a_large_request_is_searched_up_to_its_first_violation() -> None:
    request = config_service_pb2.EvaluateAllRequest(project="Not A Slug", names=[""] * 3_000)
    assert len(_fields(request)) == 1
    del request.names[1_000:]
    assert len(_fields(request)) == 1_001


def test_counts_elements_before_it_looks_at_them() -> None:
    request = config_service_pb2.EvaluateAllRequest(project="Not A Slug", names=[""] * 10_001)
    (violation,) = violations(request)
    assert (violation.field, violation.description) == ("names", "must contain no more than 10000 item(s)")
    filtered = watch_pb2.Filter()
    for number in range(101):
        filtered.tracked[str(number)].values.append("a")
    assert _fields(filtered) == ["tracked"]


def test_a_tracked_attribute_has_some_values_and_not_too_many() -> None:
    for count, refused in ((0, True), (1, False), (1_000, False), (1_001, True)):
        filtered = watch_pb2.Filter()
        filtered.tracked["region"].values.extend(map(str, range(count)))
        assert _fields(filtered) == (['tracked["region"]'] if refused else [])


def test_a_large_value_costs_nothing() -> None:
    request = _commit()
    elements = request.mutations[0].set_value.value.list_value.values
    elements.extend([value_pb2.Value(bool_value=True)] * 500_000)
    violations(_commit())
    started = time.process_time()
    assert violations(request) == []
    # Looking at each element took eight seconds.
    assert time.process_time() - started < 2


def test_a_value_that_is_required_is_missed_and_one_without_a_kind_is_not() -> None:
    request = _commit()
    request.mutations[0].set_value.ClearField("value")
    assert _fields(request) == ["mutations[0].set_value.value"]
    request.mutations[0].set_value.value.SetInParent()
    assert violations(request) == []


def test_names_the_key_of_a_wrong_map_entry() -> None:
    request = _commit()
    setting = request.mutations.add().put_setting.setting
    setting.name = "a"
    setting.metadata["not a key"].int_value = 1
    assert _fields(request) == ['mutations[1].put_setting.setting.metadata["not a key"]']


@pytest.mark.parametrize(
    ("slug", "good"),
    [
        ("", True),
        ("a", True),
        ("0-a", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("-a", False),
        ("A", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_slugs(slug: str, good: bool) -> None:
    assert _fields(watch_pb2.WatchRequest(environment=slug)) == ([] if good else ["environment"])


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("A.b_c-9", True),
        ("a" * 200, True),
        ("", False),
        ("a" * 201, False),
        ("a b", False),
        ("é", False),
    ],
)
def test_names_of_settings(name: str, good: bool) -> None:
    request = admin_service_pb2.CommitRequest()
    request.mutations.add().delete_setting.name = name
    assert _fields(request) == ([] if good else ["mutations[0].delete_setting.name"])


def test_pages_hold_at_most_a_thousand() -> None:
    assert _fields(admin_service_pb2.ListSettingsRequest(page_size=1000)) == []
    assert _fields(admin_service_pb2.ListSettingsRequest(page_size=1001)) == ["page_size"]


def test_an_evaluation_takes_either_form_of_the_context() -> None:
    request = config_service_pb2.EvaluateRequest(name="a")
    request.attributes.update({"region": "eu"})
    assert violations(request) == []
    request.context["region"].string_value = "eu"
    assert [v.description for v in violations(request)] == ["context and attributes cannot both be given"]


def test_an_evaluation_needs_a_name() -> None:
    assert _fields(config_service_pb2.EvaluateRequest()) == ["name"]


def test_a_distribution_needs_variants_with_weights_of_at_most_the_whole() -> None:
    request = admin_service_pb2.CommitRequest()
    put = request.mutations.add().put_rule
    put.setting = "a"
    put.rule.distribution.unit = "user.id"
    assert _fields(request) == ["mutations[0].put_rule.rule.distribution.variants"]
    variant = put.rule.distribution.variants.add(name="all", weight=100_001)
    variant.value.bool_value = True
    assert _fields(request) == ["mutations[0].put_rule.rule.distribution.variants[0].weight"]
    variant.weight = 100_000
    assert violations(request) == []


def test_moving_a_rule_needs_a_place() -> None:
    request = admin_service_pb2.CommitRequest()
    move = request.mutations.add().move_rule
    move.setting = "a"
    move.rule_id = "r"
    assert _fields(request) == ["mutations[0].move_rule.place"]


def test_a_wrong_entry_of_a_batch_is_left_to_its_own_answer() -> None:
    declare = config_service_pb2.DeclareSettingsRequest()
    declare.declarations.add(name="not a name", type="nonsense", version="x")
    record = event_service_pb2.RecordEventsRequest()
    record.events.add().subjects.add(kind="not a kind")
    upsert = event_service_pb2.UpsertSubjectsRequest()
    upsert.subjects.add().reference.kind = "not a kind"
    assert [violations(request) for request in (declare, record, upsert)] == [[], [], []]


def test_ids_of_subjects_are_16_bytes() -> None:
    request = event_service_pb2.GetSubjectsRequest()
    request.lookups.add(id=b"short")
    assert _fields(request) == ["lookups[0].id"]


def test_the_deepest_message_that_a_request_can_hold_is_checked_to_its_end() -> None:
    request = admin_service_pb2.CommitRequest()
    put = request.mutations.add().put_rule
    put.setting = "a"
    put.rule.value.bool_value = True
    condition = put.rule.condition
    for _ in range(47):
        condition = condition.negation.condition
    condition.segment.name = "not a name"
    assert len(violations(admin_service_pb2.CommitRequest.FromString(request.SerializeToString()))) == 1


def test_a_message_too_deep_to_be_checked_is_a_violation() -> None:
    condition = condition_pb2.Condition()
    inner = condition
    for _ in range(120):
        inner = inner.negation.condition
    inner.segment.name = "a"
    (violation,) = violations(condition)
    assert violation.description == "the message nests too deeply"


def test_a_request_parsed_from_json_is_checked_alike() -> None:
    text = '{"mutations": [{"deleteRule": {"setting": "a"}}]}'
    request = json_format.Parse(text, admin_service_pb2.CommitRequest())
    assert _fields(request) == ["mutations[0].delete_rule.rule_id"]


def test_refuses_messages_that_are_not_of_the_contract() -> None:
    with pytest.raises(LookupError, match=r"google\.protobuf\.Any"):
        violations(any_pb2.Any())


def test_is_safe_from_many_threads() -> None:
    good, bad = _commit(), _commit()
    bad.project = "Not A Slug"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_fields, [good, bad] * 400))
    assert found == [[], ["project"]] * 400


_FIRST_CALLS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from rheo.v1 import admin_service_pb2, config_service_pb2
from rheostat.wire.validation import violations
types = [
    made
    for module in (admin_service_pb2, config_service_pb2)
    for name, made in vars(module).items()
    if name.endswith("Request")
]
assert len(types) > 20
sys.setswitchinterval(1e-6)
start = threading.Barrier(32)
def check(_):
    start.wait()
    for made in types:
        violations(made())
with ThreadPoolExecutor(32) as pool:
    list(pool.map(check, range(32)))
"""


@pytest.mark.parametrize("attempt", range(4))
def test_the_first_calls_of_a_process_may_come_all_at_once(attempt: int) -> None:
    # As after a restart, when all clients come back. What it guards against broke half of the attempts.
    subprocess.run([sys.executable, "-c", _FIRST_CALLS], check=True, timeout=60)
