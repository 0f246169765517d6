from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from rheo.v1 import admin_service_pb2, change_pb2
from rheostat.errors import InvalidArgumentError
from rheostat.model.change import (
    SETTING_FIELDS,
    Change,
    ChangeSet,
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Environment,
    MoveRule,
    Mutation,
    PlanWarning,
    Project,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import SegmentReference
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.type import STR
from rheostat.model.value import ABSENT, FrozenMapping, Value
from rheostat.wire.change import (
    change_from_proto,
    change_set_from_proto,
    change_set_to_proto,
    change_to_proto,
    mutation_from_request,
    mutation_to_proto,
    mutations_from_request,
    warning_from_proto,
    warning_to_proto,
)
from tests.strategies import conditions, rules, setting_names, settings, texts, values

NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), strategy)


def setting_fields() -> st.SearchStrategy[dict[str, object]]:
    filled: dict[str, st.SearchStrategy[object]] = {
        "type": st.sampled_from(["str", "Json", "Sequence<int>"]),
        "default": values(3),
        "description": texts().filter(bool),
        "version": st.builds(Version, st.integers(0, 3), st.integers(0, 12)),
        "aliases": st.lists(setting_names(), min_size=1, max_size=2).map(tuple),
        "features": st.lists(st.sampled_from(["region", "user.id"]), max_size=2).map(tuple),
        "metadata": st.dictionaries(st.sampled_from(["a", "b"]), values(2), min_size=1).map(FrozenMapping),
        "owner": texts().filter(bool),
        "tags": st.lists(texts(4), min_size=1, max_size=2).map(tuple),
        "order": st.sampled_from(Order),
        "enabled": st.booleans(),
        "value": values(3),
        "off": values(3),
        "lifecycle": st.sampled_from(Lifecycle),
    }
    assert set(filled) == set(SETTING_FIELDS)
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(st.just(ABSENT), content) for name, content in filled.items()}
    )


def mutations() -> st.SearchStrategy[Mutation]:
    environments = st.sampled_from(["", "production"])
    places = st.sampled_from([("", ""), ("r1", ""), ("", "r2")])
    unnumbered = rules(conditions=conditions(4)).map(lambda rule: replace(rule, number=0))
    names = setting_names()
    return st.one_of(
        st.builds(PutProject, st.just("shop"), optional(texts()), optional(texts())),
        st.builds(
            PutEnvironment, st.just("staging"), optional(texts()), optional(texts()), optional(st.booleans())
        ),
        st.builds(PutSetting, names, setting_fields(), environments),
        st.builds(RenameSetting, names, names, environments),
        st.builds(DeleteSetting, names, environments),
        st.builds(SetValue, names, values(), environments),
        st.builds(UnsetValue, names, environments),
        st.builds(
            lambda name, rule, place, environment: PutRule(name, rule, *place, environment=environment),
            names,
            unnumbered,
            places,
            environments,
        ),
        st.builds(
            lambda name, rule: PutRule(name, replace(rule, enabled=True), keep_enabled=True),
            names,
            unnumbered,
        ),
        st.builds(
            lambda name, place, environment: MoveRule(name, "r", *place, environment=environment),
            names,
            places,
            environments,
        ),
        st.builds(DeleteRule, names, st.just("r"), environments),
        st.builds(lambda condition, text: PutSegment(Segment("s", condition, text)), conditions(4), texts()),
        st.builds(
            lambda condition: PutSegment(Segment("s", condition), keep_description=True), conditions(4)
        ),
        st.just(DeleteSegment("s")),
        st.lists(texts(4), max_size=3).map(tuple).map(SetFeatures),
    )


@given(st.lists(mutations(), max_size=3))
def test_every_mutation_comes_back_the_same_in_binary_and_json(wanted: list[Mutation]) -> None:
    request = admin_service_pb2.CommitRequest(mutations=[mutation_to_proto(m) for m in wanted])
    binary = admin_service_pb2.CommitRequest.FromString(request.SerializeToString())
    from_json = json_format.Parse(json_format.MessageToJson(request), admin_service_pb2.CommitRequest())
    assert mutations_from_request(binary.mutations) == wanted
    assert mutations_from_request(from_json.mutations) == wanted


def put(text: str) -> Mutation:
    return mutation_from_request(
        json_format.Parse(text, change_pb2.Mutation()), "mutations[0]", project="shop"
    )


def test_without_a_mask_what_is_set_is_put() -> None:
    assert put(
        '{"putSetting": {"setting": {"id": "x", "name": "n", "type": "int", "default": {"intValue": "0"},'
        ' "enabled": false, "features": {}, "declared": true, "revision": "9"}}}'
    ) == PutSetting("n", {"type": "int", "default": 0, "features": (), "enabled": False})
    assert put('{"putSetting": {"setting": {"name": "n"}}}') == PutSetting("n", {})
    assert put('{"putProject": {"project": {"title": "T"}}}') == PutProject("shop", title="T")
    assert put('{"putEnvironment": {"environment": {"name": "e", "protected": true}}}') == PutEnvironment(
        "e", protected=True
    )
    segment = Segment("s", SegmentReference("t"))
    assert put(
        '{"putSegment": {"segment": {"name": "s", "condition": {"segment": {"name": "t"}}}}}'
    ) == PutSegment(segment, keep_description=True)
    assert put(
        '{"putSegment": {"segment": {"name": "s", "condition": {"segment": {"name": "t"}},'
        ' "description": "d"}}}'
    ) == PutSegment(replace(segment, description="d"))


def test_a_mask_puts_what_it_names_and_clears_what_is_absent() -> None:
    assert put(
        '{"putSetting": {"setting": {"name": "n", "owner": "team", "tags": ["t"]},'
        ' "updateMask": "description,features,value,default,owner,enabled"}}'
    ) == PutSetting(
        "n",
        {
            "description": ABSENT,
            "features": ABSENT,
            "value": ABSENT,
            "default": ABSENT,
            "owner": "team",
            "enabled": ABSENT,
        },
    )
    assert put(
        '{"putSetting": {"setting": {"name": "n", "value": {"nullValue": null}}, "updateMask": "value"}}'
    ) == PutSetting("n", {"value": None})
    assert put(
        '{"putEnvironment": {"environment": {"name": "e", "title": "T"},'
        ' "updateMask": "protected,description"}}'
    ) == PutEnvironment("e", description="", protected=False)
    assert put('{"putProject": {"project": {"name": "p"}, "updateMask": "title"}}') == PutProject(
        "p", title=""
    )


def test_an_empty_text_in_a_setting_clears_the_field() -> None:
    message = mutation_to_proto(PutSetting("n", {"description": "", "tags": (), "features": None}))
    assert mutation_from_request(message, "m") == PutSetting(
        "n", {"description": ABSENT, "features": ABSENT, "tags": ABSENT}
    )


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("{}", "", "has no kind"),
        ('{"setValue": {"name": "n"}}', ".set_value.value", "has no kind"),
        ('{"setValue": {"name": "n", "value": {"doubleValue": "NaN"}}}', ".set_value.value", "nan"),
        (
            '{"putSetting": {"setting": {"name": "n"}, "updateMask": "owner,name"}}',
            ".put_setting.update_mask.paths[1]",
            "rename_setting",
        ),
        (
            '{"putSetting": {"setting": {"name": "n"}, "updateMask": "rules"}}',
            ".put_setting.update_mask.paths[0]",
            "put_rule",
        ),
        (
            '{"putSetting": {"setting": {"name": "n"}, "updateMask": "metadata.a"}}',
            ".put_setting.update_mask.paths[0]",
            "'metadata.a' cannot be put",
        ),
        (
            '{"putSetting": {"setting": {"name": "n", "rules": [{"value": {"intValue": 1}}]}}}',
            ".put_setting.setting.rules",
            "put_rule",
        ),
        (
            '{"putSetting": {"setting": {"name": "n", "default": {}}}}',
            ".put_setting.setting.default",
            "has no kind",
        ),
        (
            '{"putSetting": {"setting": {"name": "n", "version": "one"}}}',
            ".put_setting.setting.version",
            "major.minor",
        ),
        (
            '{"putSetting": {"setting": {"name": "n", "metadata": {"a": {}}}}}',
            ".put_setting.setting.metadata['a']",
            "has no kind",
        ),
        (
            '{"putProject": {"project": {}, "updateMask": "features"}}',
            ".put_project.update_mask.paths[0]",
            "set_features",
        ),
        ('{"putProject": {"project": {"features": ["a"]}}}', ".put_project.project.features", "set_features"),
        (
            '{"putEnvironment": {"environment": {"name": "e"}, "updateMask": "name"}}',
            ".put_environment.update_mask.paths[0]",
            "cannot be put",
        ),
        ('{"putRule": {"setting": "n", "rule": {"id": "r"}}}', ".put_rule.rule.outcome", "a value or a"),
        (
            (
                '{"putRule": {"setting": "n", "rule": {"value": {"intValue": 1},'
                ' "condition": {"comparison": {"left": {"attribute": "a"}}}}}}'
            ),
            ".put_rule.rule.condition.comparison.op",
            "operator",
        ),
        (
            '{"putSegment": {"segment": {"name": "s"}, "updateMask": "condition"}}',
            ".put_segment.segment.condition",
            "without a condition",
        ),
    ],
)
def test_errors_name_the_place_in_the_request(text: str, field: str, told: str) -> None:
    message = json_format.Parse(text, change_pb2.Mutation())
    good = mutation_to_proto(DeleteSetting("n"))
    with pytest.raises(InvalidArgumentError) as caught:
        mutations_from_request([good, good, message])
    (violation,) = caught.value.violations
    assert violation.field == f"mutations[2]{field}"
    assert told in violation.description
    assert str(caught.value) == f"{violation.field}: {violation.description}"


def test_a_rule_that_does_not_say_whether_it_is_enabled_keeps_what_is_stored() -> None:
    rule = Rule("r", ValueOutcome(1))
    text = '{"putRule": {"setting": "n", "rule": {"id": "r", "number": 7, "value": {"intValue": 1}%s}}}'
    assert put(text % "") == PutRule("n", rule, keep_enabled=True)
    assert put(text % ', "enabled": true') == PutRule("n", rule)
    assert put(text % ', "enabled": false') == PutRule("n", replace(rule, enabled=False))


def test_a_rule_is_not_sent_to_two_places() -> None:
    with pytest.raises(InvalidArgumentError, match="both before 'a' and after 'b'"):
        mutation_to_proto(MoveRule("n", "r", before_id="a", after_id="b"))


def key() -> Key:
    return Key(
        "ab12",
        KeyKind.USER,
        b"v" * 32,
        project="shop",
        environments=("production",),
        role=Role.EDITOR,
        declare=False,
        subjects=True,
        description="ci",
        created_at=NOON,
        expires_at=NOON + datetime.timedelta(days=1),
        revoked_at=NOON + datetime.timedelta(hours=1),
        revision=4,
    )


@given(settings(), values())
def test_every_change_comes_back_the_same(setting: Setting, value: Value) -> None:
    for change in (
        Change("shop", "production", "setting", setting.name, setting, replace(setting, value=value)),
        Change("shop", "", "segment", "s", Segment("s", SegmentReference("t"), "d", 3), None),
        Change("shop", "", "project", "shop", None, Project("shop", "T", "d", ("region",), 2)),
        Change("shop", "", "environment", "e", None, Environment("e", "T", "d", True, 2)),
        Change("shop", "", "key", "ab12", replace(key(), verifier=b"", revoked_at=None), None),
    ):
        message = change_pb2.Change.FromString(change_to_proto(change).SerializeToString())
        again = change_from_proto(message)
        for ours, theirs in ((change.before, again.before), (change.after, again.after)):
            assert (ours is None) is (theirs is None)
            assert ours is None or theirs is None or encode_item(ours) == encode_item(theirs)
        assert replace(again, before=None, after=None) == replace(change, before=None, after=None)


def test_a_change_never_shows_a_verifier() -> None:
    message = change_to_proto(Change("shop", "", "key", "ab12", None, key()))
    assert key().verifier not in message.SerializeToString()
    assert message.after.key.selector == "ab12"


def test_a_change_of_an_unknown_kind_is_still_told() -> None:
    message = change_pb2.Change(project="shop", kind="webhook", key="w")
    message.after.MergeFromString(b"\x9a\x06\x00")
    assert change_from_proto(message) == Change("shop", "", "webhook", "w", None, None)


def test_a_change_set_names_its_environments_sorted() -> None:
    setting = Setting("i", "n", STR, default="")
    changes = (
        *tuple(Change("shop", environment, "setting", "n", None, setting) for environment in ("b", "a", "b")),
        Change("shop", "", "segment", "s", Segment("s", SegmentReference("t")), None),
    )
    wanted = ChangeSet(
        "shop",
        changes,
        author="ann",
        message="why",
        actor="ab12",
        request_id="r1",
        payload_digest=b"never sent",
        reverts=3,
        revision=9,
        generation=2,
        created_at=NOON,
        draft="d1",
        approved_by=("cd34", "ef56"),
        forced_clients=("web-1",),
    )
    message = change_set_to_proto(wanted)
    assert list(message.environments) == ["a", "b"]
    assert b"never sent" not in message.SerializeToString()
    assert change_set_from_proto(message) == replace(wanted, payload_digest=b"")
    assert change_set_from_proto(change_pb2.ChangeSet()).created_at is None


@pytest.mark.parametrize(
    "warning",
    [
        PlanWarning("CODE", "told"),
        PlanWarning("CODE", "told", 0),
        PlanWarning("CODE", "told", 3, FrozenMapping({"region": "eu", "n": 0})),
    ],
)
def test_every_warning_comes_back_the_same(warning: PlanWarning) -> None:
    message = change_pb2.Warning.FromString(warning_to_proto(warning).SerializeToString())
    assert message.HasField("mutation_index") is (warning.mutation >= 0)
    assert warning_from_proto(message) == warning


def test_a_segment_put_without_a_condition_keeps_the_stored_one():
    message = json_format.Parse(
        '{"putSegment": {"segment": {"name": "s", "description": "d"}}}', change_pb2.Mutation()
    )
    (read,) = mutations_from_request([message])
    assert isinstance(read, PutSegment)
    assert read.keep_condition
    assert not read.keep_description
    assert mutations_from_request([mutation_to_proto(read)]) == [read]


@pytest.mark.parametrize(
    ("algorithm", "kept"), [("", True), (', "algorithm": "BUCKET_ALGORITHM_REPLANE"', False)]
)
def test_a_rule_that_names_no_algorithm_keeps_the_stored_one(algorithm: str, kept: bool):
    percentage = '{"percentage": {"attribute": "user.id", "fromBucket": 0, "toBucket": 5000%s}}' % algorithm
    message = json_format.Parse(
        '{"putRule": {"setting": "n", "rule": {"id": "r", "value": {"intValue": 1}, "condition": {"negation": '
        '{"condition": %s}}}}}' % percentage,
        change_pb2.Mutation(),
    )
    (read,) = mutations_from_request([message])
    assert isinstance(read, PutRule)
    assert read.keep_algorithms is kept
    assert mutations_from_request([mutation_to_proto(read)]) == [read]
