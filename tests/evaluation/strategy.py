"""Generated conditions, settings and contexts, small enough to meet each other often."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
from typing import Any

from hypothesis import strategies as st

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
    Unrecognized,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT

PATHS = ["a", "b", "user.id", "user.plan", ""]
SETTINGS = ["s1", "s2", "s3", "gone"]
SEGMENTS = ["g1", "g2", "lost"]


class Hostile:
    """Raises at whatever an evaluation could ask of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        return "Hostile()"


class Colour(enum.Enum):
    RED = "red"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, float(2**53), float(2**63), 1e300]),
    st.sampled_from(
        ["", "a", "u1", "pro", "1.2.3", "v1", "1.0.0-rc.1", "10.0.0.1", "10.0.0.0/8", "::1", "2026-01-01"]
    ),
    st.sampled_from(["2026-01-01T00:00:00Z", "^a", "(", "true", "1"]),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3).map(tuple))
literals = st.one_of(values, st.sampled_from([math.nan, math.inf]))
hostile = st.one_of(
    values,
    st.sampled_from([math.nan, math.inf, 2**64, b"x", "\ud800", 1j, Hostile, Colour.RED]),
    st.builds(Hostile),
    st.uuids(),
    st.decimals(allow_nan=True),
    st.just(decimal.Decimal("1E+999999")),
    st.datetimes(),
    st.dates(),
    st.just(datetime.timedelta(1)),
    st.recursive(st.text(max_size=2), lambda inner: st.lists(inner, max_size=2), max_leaves=3),
    st.sets(st.integers(0, 3), max_size=2),
)
layers = st.dictionaries(
    st.sampled_from([*PATHS, "user"]),
    st.one_of(hostile, st.dictionaries(st.sampled_from(["id", "plan"]), hostile, max_size=2)),
    max_size=4,
)
contexts = st.lists(layers, max_size=3)

operands = st.one_of(
    st.builds(Attribute, st.sampled_from(PATHS)),
    st.builds(Attribute, st.sampled_from(PATHS)),
    st.builds(Literal, literals),
    st.builds(SettingReference, st.sampled_from(SETTINGS)),
)
comparisons = st.builds(
    Comparison,
    operands,
    st.sampled_from(Operator),
    st.one_of(st.none(), operands),
    st.one_of(st.none(), st.lists(literals, max_size=3).map(tuple)),
)
percentages = st.builds(
    Percentage,
    st.sampled_from(PATHS),
    st.sampled_from(["", "salt", "\ud800"]),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.sampled_from(BucketAlgorithm),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(
        comparisons,
        comparisons,
        percentages,
        st.builds(SegmentReference, st.sampled_from(SEGMENTS)),
        st.just(Unrecognized("new")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=6,
)
variants = st.lists(st.integers(0, 60_000), min_size=1, max_size=3).map(
    lambda weights: tuple(Variant(f"v{i}", weight, i) for i, weight in enumerate(weights))
)
outcomes = st.one_of(
    st.none(),
    st.builds(ValueOutcome, values),
    st.builds(
        Distribution,
        st.sampled_from(PATHS),
        st.sampled_from(["", "salt"]),
        variants,
        st.sampled_from(BucketAlgorithm),
    ),
)
rules = st.builds(
    Rule,
    st.sampled_from(["r1", "r2", "r3"]),
    outcomes,
    st.one_of(st.none(), conditions, conditions),
    enabled=st.sampled_from([True, True, True, False]),
)


def _setting(name: str) -> st.SearchStrategy[Setting]:
    return st.builds(
        Setting,
        st.just(name),
        st.just(name),
        st.just(JSON),
        values,
        enabled=st.sampled_from([True, True, True, False]),
        value=st.one_of(st.just(ABSENT), values),
        off=st.one_of(st.just(ABSENT), values),
        rules=st.lists(rules, max_size=3).map(tuple),
    )


snapshots = st.builds(
    lambda settings, segments: Snapshot.of(settings, segments, revision=3),
    st.tuples(_setting("s1"), _setting("s2"), _setting("s3")),
    st.tuples(*(st.builds(Segment, st.just(name), conditions) for name in SEGMENTS[:2])),
)
