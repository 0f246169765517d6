"""The stored form of mutations and drafts: nothing is lost, and nothing unknown is passed over."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import StoreError
from rheostat.model.change import (
    SETTING_FIELDS,
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    MoveRule,
    Mutation,
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
from rheostat.model.draft import Approval, Draft, DraftState
from rheostat.model.draft_encoding import (
    decode_draft,
    decode_mutation,
    decode_mutations,
    encode_draft,
    encode_mutation,
    encode_mutations,
)
from rheostat.model.setting import Lifecycle, Order, Segment, Version
from rheostat.model.value import ABSENT, FrozenMapping
from tests.strategies import conditions, metadata, rules, setting_names, texts, values

NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)

FILLED: dict[str, st.SearchStrategy[object]] = {
    "type": st.sampled_from(["str", "Json", "Sequence<int>"]),
    "default": values(3),
    "description": texts(),
    "version": st.builds(Version, st.integers(0, 3), st.integers(0, 12)),
    "aliases": st.lists(setting_names(), max_size=2).map(tuple),
    "features": st.one_of(st.none(), st.lists(texts(4), max_size=2).map(tuple)),
    "metadata": metadata(),
    "owner": texts(),
    "tags": st.lists(texts(4), max_size=2).map(tuple),
    "order": st.sampled_from(Order),
    "enabled": st.booleans(),
    "value": values(3),
    "off": values(3),
    "lifecycle": st.sampled_from(Lifecycle),
}


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), strategy)


ENVIRONMENTS = st.sampled_from(["", "production"])
IDS = st.sampled_from(["", "r1"])
NAMES = setting_names()
FIELDS = st.fixed_dictionaries(
    {}, optional={name: st.one_of(st.just(ABSENT), content) for name, content in FILLED.items()}
)

MUTATIONS: dict[type, st.SearchStrategy[Mutation]] = {
    PutProject: st.builds(PutProject, st.just("shop"), optional(texts()), optional(texts())),
    PutEnvironment: st.builds(
        PutEnvironment,
        st.just("staging"),
        optional(texts()),
        optional(texts()),
        optional(st.booleans()),
        optional(st.integers(0, 20)),
        optional(st.booleans()),
    ),
    PutSetting: st.builds(PutSetting, NAMES, FIELDS, ENVIRONMENTS),
    RenameSetting: st.builds(RenameSetting, NAMES, NAMES, ENVIRONMENTS),
    DeleteSetting: st.builds(DeleteSetting, NAMES, ENVIRONMENTS),
    SetValue: st.builds(SetValue, NAMES, values(), ENVIRONMENTS),
    UnsetValue: st.builds(UnsetValue, NAMES, ENVIRONMENTS),
    PutRule: st.builds(
        PutRule, NAMES, rules(conditions=conditions(4)), IDS, IDS, st.booleans(), st.booleans(), ENVIRONMENTS
    ),
    MoveRule: st.builds(MoveRule, NAMES, st.just("r"), IDS, IDS, ENVIRONMENTS),
    DeleteRule: st.builds(DeleteRule, NAMES, st.just("r"), ENVIRONMENTS),
    PutSegment: st.builds(
        PutSegment,
        st.builds(Segment, NAMES, conditions(4), texts(), st.integers(0, 9)),
        st.booleans(),
        st.booleans(),
    ),
    DeleteSegment: st.builds(DeleteSegment, NAMES),
    SetFeatures: st.builds(SetFeatures, st.lists(texts(4), max_size=3).map(tuple)),
}


def drafts() -> st.SearchStrategy[Draft]:
    instants = st.datetimes(timezones=st.just(datetime.UTC))
    slugs = st.lists(st.sampled_from(["dev", "production", "staging"]), unique=True).map(tuple)
    return st.builds(
        Draft,
        id=texts(),
        project=st.just("shop"),
        environment=ENVIRONMENTS,
        mutations=st.lists(st.one_of(list(MUTATIONS.values())), max_size=3).map(tuple),
        created_at=instants,
        updated_at=instants,
        base_revision=st.integers(0, 2**63 - 1),
        version=st.just(7),
        state=st.sampled_from(DraftState),
        message=texts(),
        author=texts(),
        actor=texts(),
        environments=slugs,
        named=slugs,
        approvals=st.lists(st.builds(Approval, slugs, texts(), texts(), instants, texts()), max_size=2).map(
            tuple
        ),
        force=st.booleans(),
        scheduled_at=st.one_of(st.none(), instants),
        publisher=texts(),
        revision=st.integers(0, 9),
        failure=texts(),
        content=texts(),
    )


def test_the_strategies_know_every_kind_of_mutation_and_every_field_of_a_setting():
    assert set(MUTATIONS) == set(get_args(Mutation))
    assert set(FILLED) == set(SETTING_FIELDS)


@pytest.mark.parametrize("kind", MUTATIONS, ids=lambda kind: kind.__name__)
def test_every_mutation_comes_back_the_same(kind: type):
    @given(MUTATIONS[kind])
    def check(mutation: Mutation) -> None:
        text = json.dumps(encode_mutation(mutation))
        back = decode_mutation(json.loads(text))
        assert back == mutation
        # 1, 1.0 and True are equal and are different values; their texts tell.
        assert json.dumps(encode_mutation(back)) == text

    check()


@given(drafts())
def test_every_draft_comes_back_the_same(draft: Draft):
    text = encode_draft(draft)
    assert decode_draft(text, 7) == replace(draft, mutations=())
    assert encode_draft(decode_draft(text, 7)) == text
    assert decode_mutations(encode_mutations(draft.mutations)) == draft.mutations


@pytest.mark.parametrize(("value", "kind"), [(1, int), (1.0, float), (True, bool)])
def test_numbers_and_booleans_that_are_equal_stay_apart(value: object, kind: type):
    back = decode_mutation(encode_mutation(SetValue("n", value)))
    assert isinstance(back, SetValue)
    assert type(back.value) is kind


def test_a_field_that_is_left_alone_and_one_that_is_cleared_stay_apart():
    put = PutSetting("n", {"value": ABSENT, "off": None, "features": None})
    assert decode_mutation(encode_mutation(put)) == put


@pytest.mark.parametrize(
    "raw",
    [
        {"set_value": {"name": "n", "value": 1, "reason": "new"}},
        {"put_setting": {"name": "n", "set": {"colour": 1}, "clear": []}},
        {"paint_setting": {"name": "n"}},
        {"set_value": {"name": "n", "value": 1}, "unset_value": {"name": "n"}},
        {},
        {"put_rule": {"setting": "n", "rule": {"id": "r", "number": 1, "colour": "red"}}},
        {"set_value": 3},
    ],
)
def test_what_a_newer_version_wrote_is_refused_and_never_dropped(raw: dict[str, object]):
    with pytest.raises(StoreError):
        decode_mutation(raw)


def test_a_draft_with_an_unknown_field_or_state_is_refused():
    draft = Draft("d", "shop", "", (SetValue("n", 1),), NOON, NOON, 1)
    raw = json.loads(encode_draft(draft))
    for change in ({"votes": 3}, {"state": "voted"}, {"created_at": "noon"}):
        with pytest.raises(StoreError):
            decode_draft(json.dumps({**raw, **change}), 1)
    assert decode_draft(json.dumps(raw), 1) == replace(draft, version=1, mutations=())


@pytest.mark.parametrize("text", ["[", "3", '[{"paint_setting": {}}]', "[3]"])
def test_mutations_that_cannot_be_read_are_refused(text: str):
    with pytest.raises(StoreError):
        decode_mutations(text)


def test_metadata_stays_a_mapping():
    put = PutSetting("n", {"metadata": FrozenMapping({"a": 1})})
    assert decode_mutation(encode_mutation(put)) == put
    with pytest.raises(StoreError):
        decode_mutation({"put_setting": {"name": "n", "set": {"metadata": [1]}, "clear": []}})
