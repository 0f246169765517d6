from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rheostat.errors import StoreError
from rheostat.model.change import Environment, Item, Project
from rheostat.model.condition import (
    Comparison,
    Condition,
    Literal,
    Operator,
    SettingReference,
    Unrecognized,
)
from rheostat.model.encoding import condition_key, decode_item, encode_item, outcome_key
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.type import INT, JSON, parse_type
from rheostat.model.value import ABSENT, FrozenMapping, freeze
from tests.strategies import conditions, outcomes, segments, settings, texts, values

instants = st.none() | st.datetimes(timezones=st.just(datetime.UTC))

keys = st.builds(
    Key,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.sampled_from(KeyKind),
    st.binary(min_size=32, max_size=32),
    texts(),
    st.lists(texts(), max_size=2).map(tuple),
    st.none() | st.sampled_from(Role),
    st.booleans(),
    st.booleans(),
    texts(),
    instants,
    instants,
    instants,
    st.integers(0, 2**63 - 1),
    st.booleans(),
)

projects = st.builds(
    Project, texts(), texts(), texts(), st.lists(texts(), max_size=3).map(tuple), st.integers(0, 2**63 - 1)
)
environments = st.builds(Environment, texts(), texts(), texts(), st.booleans(), st.integers(0, 2**63 - 1))
declared = st.builds(
    lambda setting, declared, revision, aliases: replace(
        setting, declared=declared, revision=revision, aliases=aliases
    ),
    settings(segment_names=("beta",)),
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.lists(texts(), max_size=2).map(tuple),
)

FULL = Setting(
    id="i",
    name="n",
    type=INT,
    default=0,
    aliases=("old",),
    description="d",
    version=Version(2, 10),
    features=(),
    metadata=FrozenMapping({"k": None}),
    owner="o",
    tags=("t",),
    order=Order.SPECIFICITY,
    enabled=False,
    value=0,
    off=1,
    rules=(Rule("r", None, None, 3, enabled=False), Rule("q", ValueOutcome(1), number=4)),
    lifecycle=Lifecycle.ARCHIVED,
    declared=True,
    revision=9,
)


def kind_of(item: Item) -> str:
    return type(item).__name__.lower()


def strictly(item: object) -> str:
    """A text that tells 1, 1.0 and True apart anywhere inside."""
    return repr(item)


@hypothesis_settings(max_examples=60)
@given(st.one_of(declared, segments(), projects, environments, keys))
def test_an_item_is_read_back_as_it_was_written(item: Item) -> None:
    text = encode_item(item)
    again = decode_item(kind_of(item), text)
    assert again == item
    assert encode_item(again) == text


@given(values())
def test_values_keep_their_kinds(value: object) -> None:
    setting = Setting("i", "n", JSON, freeze(value), value=freeze(value), off=freeze(value))
    again = decode_item("setting", encode_item(setting))
    assert isinstance(again, Setting)
    # Mappings are sorted by writing them; nothing else may differ.
    assert strictly(again) == strictly(decode_item("setting", encode_item(again)))
    for field in ("default", "value", "off"):
        assert json.dumps(_sorted(getattr(again, field))) == json.dumps(_sorted(freeze(value)))


def _sorted(value: object) -> object:
    match value:
        case FrozenMapping():
            return {key: _sorted(value[key]) for key in sorted(value)}
        case tuple():
            return [_sorted(element) for element in value]
        case _:
            return [type(value).__name__, repr(value)]


@given(conditions())
def test_a_condition_is_read_back_as_it_was_written(condition: Condition) -> None:
    again = decode_item("segment", encode_item(Segment("s", condition)))
    assert isinstance(again, Segment)
    assert again.condition == condition
    assert condition_key(again.condition) == condition_key(condition)


@hypothesis_settings(max_examples=60)
@given(outcomes(values()))
def test_an_outcome_is_read_back_as_it_was_written(outcome: ValueOutcome | Distribution) -> None:
    setting = replace(FULL, rules=(Rule("r", outcome, number=1),))
    again = decode_item("setting", encode_item(setting))
    assert isinstance(again, Setting)
    assert again == setting
    assert outcome_key(again.rules[0].outcome) == outcome_key(outcome)


def test_one_one_point_zero_and_true_are_written_differently() -> None:
    literals = [1, 1.0, True, "1", None, (1,), (1.0,)]
    condition_texts = {
        condition_key(Comparison(SettingReference("a"), Operator.EQUALS, Literal(x))) for x in literals
    }
    outcome_texts = {outcome_key(ValueOutcome(x)) for x in literals}
    item_texts = {encode_item(replace(FULL, default=x)) for x in literals}
    assert len(condition_texts) == len(outcome_texts) == len(item_texts) == len(literals)
    assert condition_key(None) == outcome_key(None) == ""


def test_absent_null_and_falsy_values_are_written_differently() -> None:
    texts_ = {encode_item(replace(FULL, value=value)) for value in (ABSENT, None, 0, False, "", ())}
    assert len(texts_) == 6
    assert encode_item(replace(FULL, features=None)) != encode_item(FULL)


@pytest.mark.parametrize("field", [name for name in Setting.__dataclass_fields__ if name != "id"])
def test_every_field_of_a_setting_is_kept(field: str) -> None:
    plain = Setting("i", "x", JSON, None)
    changed = replace(plain, **{field: getattr(FULL, field)})
    assert getattr(decode_item("setting", encode_item(changed)), field) == getattr(FULL, field)
    assert encode_item(changed) != encode_item(plain)


def test_an_unrecognised_condition_stays_one() -> None:
    segment = Segment("s", Unrecognized("a newer operator"))
    assert decode_item("segment", encode_item(segment)) == segment


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("setting", "{}"),
        ("setting", "nonsense"),
        ("setting", "[]"),
        ("setting", encode_item(FULL)[:-1] + ',"colour":"red"}'),
        ("setting", encode_item(FULL).replace('"type":"int"', '"type":"complex"')),
        ("setting", encode_item(FULL).replace('"SPECIFICITY"', '"CHAOS"')),
        ("setting", encode_item(FULL).replace('"number":3', '"number":3,"weather":1')),
        ("segment", '{"name":"s","condition":{"segment":"t","also":1},"description":"","revision":1}'),
        ("segment", '{"name":"s","condition":{"left":{"planet":"x"},"op":"EXISTS"},"revision":1}'),
        ("segment", '{"name":"s","condition":{"left":{"attribute":"x"},"op":"SMELLS"},"revision":1}'),
        ("project", '{"slug":"a","revision":1,"mood":"good"}'),
        ("environment", '{"slug":"a","revision":1,"mood":"good"}'),
        ("key", '{"selector":"a"}'),
        ("planet", "{}"),
    ],
)
def test_what_a_newer_version_wrote_is_refused_and_never_dropped(kind: str, text: str) -> None:
    with pytest.raises(StoreError):
        decode_item(kind, text)


def test_the_stored_form_of_a_setting_never_changes_between_releases() -> None:
    setting = replace(
        FULL, type=parse_type("float"), default=1.0, rules=(Rule("q", ValueOutcome(2.5), number=4),)
    )
    assert json.loads(encode_item(setting)) == {
        "aliases": ["old"],
        "declared": True,
        "default": 1.0,
        "description": "d",
        "enabled": False,
        "features": [],
        "id": "i",
        "lifecycle": "ARCHIVED",
        "metadata": {"k": None},
        "name": "n",
        "off": 1,
        "order": "SPECIFICITY",
        "owner": "o",
        "revision": 9,
        "rules": [{"id": "q", "number": 4, "outcome": {"value": 2.5}}],
        "tags": ["t"],
        "type": "float",
        "value": 0,
        "version": "2.10",
    }
