"""Hypothesis strategies for the model: values, conditions, rules, settings.

`conditions` makes everything that the contract can express, also what a server refuses at write, such as an
``in`` with an attribute on the right; `valid_conditions` makes only what it accepts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rheostat.model.condition import (
    BUCKETS,
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
)
from rheostat.model.rule import TOTAL_WEIGHT, Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.type import (
    BOOL,
    FLOAT,
    INT,
    JSON,
    STR,
    EnumType,
    FlagsType,
    MappingType,
    SequenceType,
    SettingType,
    parse_type,
)
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, FrozenMapping, Value

__all__ = [
    "conditions",
    "metadata",
    "outcomes",
    "paths",
    "rules",
    "scalars",
    "segments",
    "setting_names",
    "settings",
    "texts",
    "types",
    "valid_conditions",
    "values",
    "values_of",
]

_ODD_TEXTS = (
    "",
    " ",
    "null",
    "true",
    "on",
    "no",
    "1",
    "1.0",
    "1e3",
    "0o7",
    "~",
    "-",
    "a: b",
    "a #b",
    "'",
    '"',
    "\\",
    "`",
    "\\`",
    "\n",
    "\t",
    "\r\n",
    "\x00",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\uffff",
    "é",
    "日本",
    "😀",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "10.0.0.0/8",
    "v1.2.3",
    "[a]",
    "{a}",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "|",
    ">",
    "? a",
    "a:",
    ":",
    "---",
    "...",
    "<<",
    "=",
    "25%",
    "rest",
)
_ODD_NUMBERS = (0, -0.0, 0.0, 1, 1.0, -1, 1e300, 5e-324, 0.1, 1e22, INT64_MAX, INT64_MIN, float(2**53), 1e16)


def texts(max_size: int = 12) -> SearchStrategy[str]:
    """Texts that UTF-8 can carry, with those that trip parsers among them."""
    return st.one_of(
        st.text("abcdefgh", min_size=1, max_size=4),
        st.sampled_from(_ODD_TEXTS),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size),
    )


def scalars() -> SearchStrategy[Value]:
    """null, bools, numbers within range, texts."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(INT64_MIN, INT64_MAX),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(_ODD_NUMBERS),
        texts(),
    )


def values(max_leaves: int = 6) -> SearchStrategy[Value]:
    """Any value of the model."""

    def nested(inner: SearchStrategy[Value]) -> SearchStrategy[Value]:
        return st.one_of(
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(texts(6), inner, max_size=3).map(FrozenMapping),
        )

    return st.recursive(scalars(), nested, max_leaves=max_leaves)


def paths(*, any_text: bool = True) -> SearchStrategy[str]:
    """Attribute paths: plain, keywords, and with *any_text* whatever 1 to 200 characters may be."""
    plain = st.sampled_from(
        [
            "user.id",
            "user.plan",
            "region",
            "a",
            "a-b",
            "user.0",
            "in",
            "percent",
            "not",
            "and.or",
            "true",
            "_x",
        ]
    )
    return st.one_of(plain, texts().filter(bool)) if any_text else plain


def setting_names() -> SearchStrategy[str]:
    """Names of settings."""
    return st.sampled_from(
        ["a", "b.c", "checkout.timeout", "new-checkout", "0", "1.5", "true", "null", "_", "-"]
    )


def operands() -> SearchStrategy[Operand]:
    """Anything that may stand on a side of a comparison."""
    return st.one_of(paths().map(Attribute), values().map(Literal), setting_names().map(SettingReference))


def percentages(*, salted: bool = False) -> SearchStrategy[Percentage]:
    """Percentages, the empty and the whole one among them."""
    bounds = st.one_of(
        st.integers(0, BUCKETS), st.sampled_from([0, 1, 10, 500, 1000, 12_500, 50_000, BUCKETS])
    )
    salts = texts().filter(bool) if salted else texts()
    return st.builds(
        lambda path, salt, pair, algorithm: Percentage(path, salt, min(pair), max(pair), algorithm),
        paths(),
        salts,
        st.tuples(bounds, bounds),
        st.sampled_from(BucketAlgorithm),
    )


def _combined(leaves: SearchStrategy[Condition], max_leaves: int) -> SearchStrategy[Condition]:
    def nested(inner: SearchStrategy[Condition]) -> SearchStrategy[Condition]:
        parts = st.lists(inner, max_size=3).map(tuple)
        return st.one_of(parts.map(AllOf), parts.map(AnyOf), inner.map(Not))

    return st.recursive(leaves, nested, max_leaves=max_leaves)


def conditions(max_leaves: int = 8) -> SearchStrategy[Condition]:
    """Everything that the contract can express as a condition."""
    comparisons = st.one_of(
        st.builds(Comparison, operands(), st.sampled_from(Operator), operands()),
        st.builds(
            Comparison,
            operands(),
            st.sampled_from(Operator),
            st.none(),
            st.lists(values(3), max_size=4).map(tuple),
        ),
        st.builds(Comparison, operands(), st.sampled_from(Operator)),
    )
    leaves: SearchStrategy[Condition] = st.one_of(
        comparisons, percentages(), setting_names().map(SegmentReference)
    )
    return _combined(leaves, max_leaves)


def valid_conditions(
    max_leaves: int = 6,
    *,
    segment_names: Sequence[str] = (),
    attributes: Sequence[str] = ("region", "user.id"),
) -> SearchStrategy[Condition]:
    """Conditions that a server accepts, over the given attributes, with the given segments."""
    left = st.sampled_from(list(attributes)).map(Attribute)
    number_or_text = st.one_of(st.integers(-5, 5), st.floats(-5, 5), texts()).map(Literal)
    leaves: list[SearchStrategy[Condition]] = [
        st.builds(Comparison, left, st.sampled_from([Operator.EQUALS, Operator.NOT_EQUALS]), number_or_text),
        st.builds(
            Comparison,
            left,
            st.sampled_from([Operator.IN, Operator.NOT_IN]),
            st.none(),
            st.lists(st.one_of(st.booleans(), st.integers(-5, 5), texts()), max_size=4).map(tuple),
        ),
        st.builds(Comparison, left, st.just(Operator.STARTS_WITH), texts().map(Literal)),
        st.builds(Comparison, left, st.just(Operator.EXISTS)),
        st.builds(
            lambda path, salt, pair, algorithm: Percentage(path, salt, min(pair), max(pair), algorithm),
            st.sampled_from(list(attributes)),
            st.one_of(st.just("salt"), texts().filter(bool)),
            st.tuples(st.integers(0, BUCKETS), st.integers(0, BUCKETS)),
            st.sampled_from(BucketAlgorithm),
        ),
    ]
    if segment_names:
        leaves.append(st.sampled_from(list(segment_names)).map(SegmentReference))
    return _combined(st.one_of(leaves), max_leaves)


def metadata() -> SearchStrategy[FrozenMapping]:
    """Metadata: keys of letters, any JSON."""
    keys = st.sampled_from(["note", "link", "on", "1", "_-", "x"])
    return st.dictionaries(keys, values(3), max_size=2).map(FrozenMapping)


def types() -> SearchStrategy[SettingType]:
    """Types of settings, without schemas of unlimited power."""
    options = st.lists(
        st.sampled_from(["a", "b", "on", "x: y", 3, 4.5, True]), min_size=1, max_size=3, unique_by=repr
    )
    plain: SearchStrategy[SettingType] = st.sampled_from(
        [BOOL, INT, FLOAT, STR, JSON, parse_type('Json[{"maximum":100,"type":["number","null","string"]}]')]
    )
    optioned = options.flatmap(
        lambda chosen: st.sampled_from(
            [parse_type(f"Enum{json.dumps(chosen)}"), parse_type(f"Flags{json.dumps(chosen)}")]
        )
    )
    return st.recursive(
        st.one_of(plain, optioned),
        lambda inner: st.one_of(inner.map(SequenceType), inner.map(MappingType)),
        max_leaves=2,
    )


def values_of(type_: SettingType) -> SearchStrategy[Value]:
    """Values that are legal for *type_*, in its normal form."""
    match type_:
        case EnumType(options):
            return st.sampled_from(options)
        case FlagsType(options):
            return st.lists(st.sampled_from(options), unique_by=repr, max_size=3).map(tuple)
        case SequenceType(element):
            return st.lists(values_of(element), max_size=3).map(tuple)
        case MappingType(element):
            return st.dictionaries(texts(4), values_of(element), max_size=3).map(FrozenMapping)
        case _ if type_ == BOOL:
            return st.booleans()
        case _ if type_ == INT:
            return st.one_of(st.integers(-3, 3), st.sampled_from([INT64_MIN, INT64_MAX]))
        case _ if type_ == FLOAT:
            return st.one_of(
                st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1e300])
            )
        case _ if type_ == STR:
            return texts()
        case _ if type_ == JSON:
            return values()
        case _:
            return st.one_of(st.none(), st.integers(-5, 100), texts())


def outcomes(
    of: SearchStrategy[Value], *, salted: bool = True
) -> SearchStrategy[ValueOutcome | Distribution]:
    """Outcomes with values *of* a type."""
    salts = texts().filter(bool) if salted else texts()

    def variants(count: int) -> SearchStrategy[tuple[Variant, ...]]:
        cuts = st.lists(st.integers(0, TOTAL_WEIGHT), min_size=count - 1, max_size=count - 1).map(sorted)
        names = st.lists(texts(4).filter(bool), min_size=count, max_size=count, unique=True)
        return st.builds(
            lambda cut, name, value: tuple(
                Variant(n, high - low, v)
                for n, low, high, v in zip(name, [0, *cut], [*cut, TOTAL_WEIGHT], value, strict=True)
            ),
            cuts,
            names,
            st.lists(of, min_size=count, max_size=count),
        )

    return st.one_of(
        of.map(ValueOutcome),
        st.builds(
            Distribution,
            st.sampled_from(["user.id", "region"]),
            salts,
            st.integers(1, 3).flatmap(variants),
            st.sampled_from(BucketAlgorithm),
        ),
    )


def rules(
    of: SearchStrategy[Value] | None = None, conditions: SearchStrategy[Condition] | None = None
) -> SearchStrategy[Rule]:
    """Rules as a store holds them: with an id; numbers are all 1."""
    return st.builds(
        Rule,
        st.text("abc0_-", min_size=1, max_size=4),
        outcomes(values() if of is None else of),
        st.one_of(st.none(), valid_conditions() if conditions is None else conditions),
        st.just(1),
        st.booleans(),
        texts(),
        metadata(),
    )


def segments(names: Sequence[str] = ("beta", "staff")) -> SearchStrategy[Segment]:
    """Segments that refer to no other."""
    return st.builds(Segment, st.sampled_from(list(names)), valid_conditions(), texts())


def settings(
    names: SearchStrategy[str] | None = None,
    *,
    type_: SettingType | None = None,
    segment_names: Sequence[str] = (),
    features: Sequence[str] = (),
) -> SearchStrategy[Setting]:
    """Settings as an environment holds them: values that fit, rules of unique ids in stored order."""

    def of(chosen: SettingType) -> SearchStrategy[Setting]:
        legal = values_of(chosen)
        optional = st.one_of(st.just(ABSENT), legal)
        return st.builds(
            lambda name, **fields: Setting(id=f"id-{name}", name=name, type=chosen, **fields),
            setting_names() if names is None else names,
            default=legal,
            description=texts(),
            version=st.builds(Version, st.integers(0, 3), st.integers(0, 12)),
            features=st.one_of(st.none(), st.just(tuple(features)) if features else st.none()),
            metadata=metadata(),
            owner=texts(),
            tags=st.lists(texts(4).filter(bool), unique=True, max_size=2).map(tuple),
            order=st.just(Order.STORED),
            enabled=st.booleans(),
            value=optional,
            off=optional,
            rules=st.lists(
                rules(legal, valid_conditions(3, segment_names=segment_names)),
                unique_by=lambda rule: rule.id,
                max_size=3,
            ).map(tuple),
            lifecycle=st.sampled_from(Lifecycle),
        )

    return types().flatmap(of) if type_ is None else of(type_)
