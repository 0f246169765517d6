from __future__ import annotations

import dataclasses
import os
import threading
import time
import traceback
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.evaluation import reference
from rheostat.evaluation.bucket import murmur3_32_pure
from rheostat.evaluation.compile import Base, CompiledSnapshot, _unsupported
from rheostat.evaluation.compiled import source
from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.language import parse_condition
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
)
from rheostat.model.rule import TOTAL_WEIGHT, Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT
from tests.evaluation import strategy
from tests.evaluation.test_reference import BAD, deep
from tests.evaluation.test_spec import BUCKETS, CASES, context_of, decode, snapshot_of

EXAMPLES = int(os.environ.get("RHEOSTAT_COMPILE_EXAMPLES", "5000"))
"""How many generated (rules, context) pairs are tried; the nightly run tries 100 000."""

PAIRS_AN_EXAMPLE = 3 * 3
"""Settings of a generated snapshot times contexts."""

compared = settings(
    max_examples=max(EXAMPLES // (2 * PAIRS_AN_EXAMPLE), 1),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Few attributes and literals, so that rules meet, and with Python's confusable scalars among them.
LITERALS = ["", "a", "1", "true", True, False, 0, 1, 1.0, 0.0, 2**53, float(2**53), 2**53 + 1, -1]
PATHS = ["a", "b", "user.plan", "deep.er.still"]

equalities = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(PATHS).map(Attribute),
        st.just(Operator.EQUALS),
        st.sampled_from(LITERALS).map(Literal),
    ),
    st.builds(
        Comparison,
        st.sampled_from(PATHS).map(Attribute),
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.none(),
        st.lists(st.sampled_from(LITERALS), max_size=4).map(tuple),
    ),
)
percentages = st.builds(
    Percentage,
    st.sampled_from(["a", "user.plan"]),
    st.sampled_from(["s", "t"]),
    st.sampled_from([0, 0, 20_000]),
    st.sampled_from([50_000, 99_999, 100_000]),
    st.sampled_from(BucketAlgorithm),
)
parts = st.one_of(
    equalities, equalities, equalities, percentages, strategy.comparisons, st.just(SegmentReference("g1"))
)
conjunctions = st.lists(parts, min_size=1, max_size=3).map(
    lambda found: found[0] if len(found) == 1 else AllOf(tuple(found))
)
rule_outcomes = st.one_of(st.sampled_from(LITERALS).map(ValueOutcome), strategy.outcomes)


def on_one(path: str) -> st.SearchStrategy[list[Rule]]:
    """Rules in a row that all ask for the same attribute, most of them for nothing else."""
    equality = st.builds(
        lambda literal: Comparison(Attribute(path), Operator.EQUALS, Literal(literal)),
        st.sampled_from(LITERALS),
    )
    condition = st.one_of(equality, st.builds(lambda one, other: AllOf((one, other)), equality, parts))
    return st.lists(st.builds(Rule, st.just("run"), rule_outcomes, condition), min_size=3, max_size=8)


rule_lists = st.lists(
    st.one_of(
        st.lists(
            st.builds(Rule, st.just("any"), rule_outcomes, st.one_of(conjunctions, strategy.conditions)),
            max_size=3,
        ),
        st.sampled_from(PATHS).flatmap(on_one),
        st.builds(Rule, st.just("off"), rule_outcomes, conjunctions, enabled=st.just(False)).map(
            lambda rule: [rule]
        ),
    ),
    max_size=4,
).map(lambda lists: tuple(numbered(rule for rules in lists for rule in rules)))


def numbered(rules: Iterator[Rule]) -> Iterator[Rule]:
    for number, rule in enumerate(rules):
        yield dataclasses.replace(rule, id=f"{rule.id}{number}")


def json_setting(name: str, rules: tuple[Rule, ...], default: Any = "default") -> Setting:
    return Setting(name, name, JSON, default, rules=rules, revision=2)


dispatched = st.builds(
    lambda first, second, third, condition: Snapshot.of(
        [json_setting("s1", first, True), json_setting("s2", second, 1), json_setting("s3", third)],
        [Segment("g1", condition)],
        revision=3,
    ),
    rule_lists,
    rule_lists,
    st.one_of(st.just(()), rule_lists),
    st.one_of(equalities, conjunctions),
)
scalars = st.one_of(st.sampled_from(LITERALS), st.sampled_from(LITERALS), strategy.hostile)
met = st.dictionaries(
    st.sampled_from([*PATHS, "user", "deep", "user.id"]),
    st.one_of(
        scalars,
        scalars,
        st.dictionaries(
            st.sampled_from(["plan", "er", "id"]),
            st.one_of(scalars, st.dictionaries(st.just("still"), scalars)),
        ),
    ),
)
met_contexts = st.lists(
    st.one_of(st.lists(met, min_size=1, max_size=1), st.lists(met, max_size=3)), min_size=3, max_size=3
)


def shown(evaluation: Evaluation) -> tuple[object, ...]:
    """Return all of *evaluation*, with what tells 1, 1.0 and True apart."""
    return evaluation, repr(evaluation.value)


def assert_same(snapshot: Snapshot, names: list[str], contexts: list[list[dict[str, object]]]) -> None:
    compiled = CompiledSnapshot(snapshot)
    by_reference = reference.Evaluator(snapshot)
    for name in names:
        for layers in contexts:
            expected = by_reference.evaluate(name, Context(*layers), "fallback")
            forms: list[tuple[Any, Base | None]] = [
                (Context(*layers), None),
                (None, Base(*layers)),
                (MappingProxyType(layers[0]) if layers else {}, Base(*layers[1:])),
                (layers[0] if layers else None, Base(*layers[1:])),
            ]
            for context, base in forms:
                assert shown(compiled.evaluate(name, context, "fallback", base)) == shown(expected)
                assert repr(compiled.value(name, context, "fallback", base)) == repr(expected.value)
    # All of this is part of the model, so that nothing was left to the reference.
    assert _unsupported not in compiled._programs.values()


@compared
@given(strategy.snapshots, st.lists(strategy.contexts, min_size=3, max_size=3))
def test_equals_the_reference_on_any_rules_and_contexts(
    snapshot: Snapshot, contexts: list[list[dict[str, object]]]
) -> None:
    assert_same(snapshot, ["s1", "s2", "s3", "gone"], contexts)


@compared
@given(dispatched, met_contexts)
def test_equals_the_reference_where_many_rules_ask_for_the_same(
    snapshot: Snapshot, contexts: list[list[dict[str, object]]]
) -> None:
    assert_same(snapshot, ["s1", "s2", "s3"], contexts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_compiled_evaluator_gives_what_the_specification_says(case: dict[str, Any]) -> None:
    snapshot, context = snapshot_of(case), context_of(case)
    default = decode(case["default"]) if "default" in case else ABSENT

    evaluation = CompiledSnapshot(snapshot).evaluate(case["evaluate"], context, default)

    assert shown(evaluation) == shown(reference.evaluate(snapshot, case["evaluate"], context, default))


def in_bucket(algorithm: BucketAlgorithm, salt: str, at: int) -> CompiledSnapshot:
    """Settings that give 1 in one bucket: a percentage, one that does not begin at 0, and a split."""
    weights = (at, 1, TOTAL_WEIGHT - at - 1)
    variants = tuple(Variant(name, weight, name) for name, weight in zip("abc", weights, strict=True))
    rules = {
        "to": Percentage("u", salt, 0, at + 1, algorithm),
        "from": Percentage("u", salt, at, TOTAL_WEIGHT, algorithm),
    }
    return CompiledSnapshot(
        Snapshot.of(
            [
                *(json_setting(name, (rule("r", 1, condition),), 0) for name, condition in rules.items()),
                json_setting("split", (Rule("r", Distribution("u", salt, variants, algorithm)),), "none"),
            ]
        )
    )


@pytest.mark.parametrize("name", [algorithm.name for algorithm in BucketAlgorithm])
def test_the_compiled_evaluator_has_the_golden_buckets(name: str) -> None:
    for vector in BUCKETS[name]:
        context = {"u": decode(vector["unit"])}
        at = vector["bucket"]
        found = in_bucket(BucketAlgorithm(name), vector["salt"], at)

        assert [found.value(setting, context) for setting in ("to", "from", "split")] == [1, 1, "b"], vector
        if at:
            before = in_bucket(BucketAlgorithm(name), vector["salt"], at - 1)
            assert [before.value(setting, context) for setting in ("to", "from", "split")] == [0, 1, "c"]


@pytest.mark.parametrize("vector", BUCKETS["INVALID_UNITS"], ids=lambda vector: vector["why"])
@pytest.mark.parametrize("algorithm", BucketAlgorithm)
def test_what_is_no_unit_is_in_no_compiled_bucket(algorithm: BucketAlgorithm, vector: dict[str, Any]) -> None:
    context = {"u": decode(vector["unit"])}
    for at in (0, TOTAL_WEIGHT - 1):
        found = in_bucket(algorithm, "salt", at)
        assert [found.value(setting, context) for setting in ("to", "from", "split")] == [0, 0, "none"]


def eq(path: str, literal: Any) -> Comparison:
    return Comparison(Attribute(path), Operator.EQUALS, Literal(literal))


def rule(rule_id: str, value: Any, condition: Condition | None = None) -> Rule:
    return Rule(rule_id, ValueOutcome(value), condition)


def compiled(*rules: Rule, segments: tuple[Segment, ...] = (), **fields: Any) -> CompiledSnapshot:
    setting = Setting("s", "s", JSON, "default", rules=rules, **fields)
    return CompiledSnapshot(Snapshot.of([setting], segments, revision=5))


def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the sources that are compiled from now on."""
    seen: list[str] = []
    real = source._code.__wrapped__
    monkeypatch.setattr(source, "_code", lambda text: (seen.append(text), real(text))[1])
    return seen


HOSTILE_TEXTS = [
    '"); raise SystemExit("injected") #',
    "'''\n\"\"\"\\",
    "{v0} {0} %s {{",
    "\x00\r\n\u2028return 1",
    "__import__('os').abort()",
    "p0",
    "c",
    "\ud800",
    "",
    "." * 200,
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=repr)
def test_no_text_of_a_rule_becomes_code(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sources(monkeypatch)

    def snapshot(word: str) -> Snapshot:
        split = Distribution(word, word, (Variant(word, 40_000, word), Variant("b" + word, 60_000, 1)))
        rules = [
            rule(word, word, eq(word, word)),
            rule(word, word, Comparison(Attribute(word), Operator.STARTS_WITH, None, (word, "z"))),
            rule(
                word,
                word,
                AllOf((SegmentReference(word), Comparison(Attribute("x"), Operator.MATCHES, Literal("^a")))),
            ),
            rule(word, word, Comparison(SettingReference("t" + word), Operator.EQUALS, Literal(word))),
            *(rule(f"{word}{i}", word, eq(word, f"{word}{i}")) for i in range(6)),
            Rule(word, split, Percentage(word, word, 10_000, 90_000)),
        ]
        return Snapshot.of(
            [
                Setting(word, "s" + word, JSON, word, rules=tuple(rules)),
                Setting(word, "t" + word, JSON, word, rules=(rule("r", "other", eq("y", word)),)),
            ],
            [Segment(word, AllOf((eq("seg", word), eq("ment", 1))))],
        )

    for context in (
        {text: text},
        {text: text + "3"},
        {text: 7},
        {"seg": text, "ment": 1, "x": "ab"},
        {"y": text},
        {},
    ):
        expected = reference.evaluate(snapshot(text), "s" + text, context)
        assert CompiledSnapshot(snapshot(text)).evaluate("s" + text, context) == expected
    hostile, seen[:] = set(seen), []
    harmless = "harmless" + "." * text.count(".")
    CompiledSnapshot(snapshot(harmless)).value("s" + harmless, {})

    # The source is that of the same rules with a harmless word in the place of the text.
    assert seen
    if text != "\ud800":
        assert set(seen) <= hostile


def test_values_of_any_kind_are_given_back_as_they_are() -> None:
    value = {"__reduce__": ("os.system",), "n": (1, None, 2.5)}
    snapshot = compiled(rule("r", value, eq("a", 1)), rule("t", print, eq("a", 2)))

    assert snapshot.value("s", {"a": 1}) is value
    assert snapshot.value("s", {"a": 2}) is print


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_broken_rule_is_left_to_the_reference(bad: Any) -> None:
    rules = (rule("bad", True, AllOf((bad,))), rule("on", True, eq("region", "eu")))
    snapshot = Snapshot.of(
        [
            Setting("s", "s", JSON, False, rules=rules),
            json_setting(
                "t", (rule("r", 1, Comparison(SettingReference("s"), Operator.EQUALS, Literal(True))),)
            ),
        ]
    )

    for name in ("s", "t"):
        for context in ({"region": "eu"}, {}, {5: "eu"}):
            expected = reference.evaluate(snapshot, name, context)  # type: ignore[arg-type]
            assert CompiledSnapshot(snapshot).evaluate(name, context) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, 5, [], {}])
def test_a_name_that_is_no_string_gives_the_default(name: Any) -> None:
    snapshot = compiled()

    assert snapshot.value(name, {}, "mine") == "mine"
    assert snapshot.evaluate(name, {}, "mine") == reference.evaluate(snapshot.snapshot, name, {}, "mine")


@pytest.mark.parametrize("context", [5, "region", [("region", "eu")], object()])
@pytest.mark.parametrize("rules", [(), (rule("r", 1, eq("region", "eu")),)])
def test_a_context_that_is_no_mapping_gives_the_default(context: Any, rules: tuple[Rule, ...]) -> None:
    snapshot = compiled(*rules)
    snapshot.value("s", {})

    assert snapshot.value("s", context, "mine") == "mine"
    assert snapshot.evaluate("s", context, "mine").error_code is ErrorCode.INVALID_CONTEXT
    assert snapshot.value("s", context, "mine", Base({"region": "eu"})) == "mine"


def test_an_unknown_setting_gives_the_default_and_says_so() -> None:
    snapshot = compiled()

    assert snapshot.value("gone") is ABSENT
    assert snapshot.value("gone", None, None) is None
    assert snapshot.evaluate("gone").error_code is ErrorCode.FLAG_NOT_FOUND


class Strange(dict[str, object]):
    """A dict with a will of its own."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> object:
        return "eu"

    def get(self, key: str, default: object = None) -> object:
        raise RuntimeError


@pytest.mark.parametrize(
    "context",
    [
        Strange(),
        OrderedDict(region="eu"),
        MappingProxyType({"region": "eu"}),
        ChainMap({}, {"region": "eu"}),
        Context({}, Strange()),
        Context(Strange()),
        Context(MappingProxyType({"region": "eu"}), {"region": "us"}),
    ],
    ids=repr,
)
def test_any_mapping_is_a_context(context: Any) -> None:
    snapshot = compiled(rule("r", 1, eq("region", "eu")))

    assert snapshot.value("s", context) == 1
    assert snapshot.value("s", {"us": context}) == "default"


class Collision:
    """A key that hashes like the path that is looked up, and cannot be compared."""

    def __hash__(self) -> int:
        return hash("region")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


def test_a_key_that_cannot_be_compared_makes_the_attribute_missing() -> None:
    snapshot = compiled(
        rule("r", 1, eq("region", "eu")), rule("n", 2, Not(Comparison(Attribute("region"), Operator.EXISTS)))
    )

    assert snapshot.value("s", {Collision(): "eu"}) == 2  # type: ignore[dict-item]


def test_an_attribute_is_fetched_once_however_many_rules_read_it() -> None:
    fetched: list[str] = []

    class Counting(Mapping[str, object]):
        def __contains__(self, key: object) -> bool:
            return key in ("plan", "region", "id")

        def __getitem__(self, key: str) -> object:
            fetched.append(key)
            return {"plan": "pro", "region": "us", "id": "u1"}[key]

        def __iter__(self) -> Iterator[str]:
            return iter(("plan", "region", "id"))

        def __len__(self) -> int:
            return 3

    snapshot = compiled(
        rule("a", 1, AllOf((eq("plan", "free"), eq("region", "eu")))),
        rule("b", 2, AnyOf((AllOf((eq("region", "eu"), eq("plan", "pro"))), eq("region", "jp")))),
        *(rule(f"c{i}", 3, AllOf((eq("plan", f"p{i}"), eq("region", "eu")))) for i in range(8)),
        rule("d", 4, AllOf((eq("region", "us"), eq("plan", "pro"), Percentage("id", "s", 0, 100_000)))),
    )

    assert snapshot.value("s", Counting()) == 4
    assert sorted(fetched) == ["id", "plan", "region"]


def test_a_shared_condition_is_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sources(monkeypatch)
    segment = Segment(
        "g", AllOf((Comparison(Attribute("mail"), Operator.MATCHES, Literal("@example.com$")), eq("x", "1")))
    )
    snapshot = compiled(
        *(
            rule(
                f"r{i}",
                i,
                AllOf((SegmentReference("g"), Comparison(Attribute("n"), Operator.GREATER_THAN, Literal(i)))),
            )
            for i in (3, 2, 1)
        ),
        segments=(segment,),
    )

    assert snapshot.value("s", {"mail": "a@example.com", "x": "1", "n": 3}) == 2
    assert "".join(seen).count("found(") == 1


def test_conditions_that_double_at_each_level_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sources(monkeypatch)
    segments = [
        Segment(
            f"g{i}",
            AllOf((SegmentReference(f"g{i + 1}"), AnyOf((Not(SegmentReference(f"g{i + 1}")), eq("a", i))))),
        )
        for i in range(18)
    ]
    settings_ = [
        json_setting(
            f"s{i}",
            (
                rule(
                    "r",
                    True,
                    AllOf(
                        tuple(
                            Comparison(SettingReference(f"s{i + step}"), Operator.EQUALS, Literal(True))
                            for step in (1, 2)
                        )
                    ),
                ),
            ),
            False,
        )
        for i in range(20)
    ]
    last = [json_setting(f"s{i}", (rule("r", True, SegmentReference("g0")),), False) for i in (20, 21)]
    snapshot = Snapshot.of([*settings_, *last], [*segments, Segment("g18", eq("b", 1))])
    context = {"b": 1, "a": 17}
    started = time.process_time()

    assert CompiledSnapshot(snapshot).evaluate("s0", context) == reference.evaluate(snapshot, "s0", context)
    assert len("".join(seen)) < 100_000
    # Two to the 20th evaluations would take longer.
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "wrap", [Not, lambda part: AllOf((part, eq("a", 1))), lambda part: AnyOf((Not(part), eq("b", 1)))]
)
@pytest.mark.parametrize("levels", [MAX_NESTING - 2, MAX_NESTING, MAX_NESTING + 1, 50_000])
def test_a_condition_nests_as_deep_as_the_semantics_allow(
    wrap: Callable[[Condition], Condition], levels: int
) -> None:
    condition: Condition = AllOf((eq("c", 1), eq("a", 1)))
    for _ in range(levels - 2):
        condition = wrap(condition)
    snapshot = compiled(rule("r", 1, condition), rule("n", 2, Not(condition)))

    for context in ({"a": 1, "c": 1}, {"a": 2}, {"b": 1}, {}):
        assert snapshot.evaluate("s", context) == reference.evaluate(snapshot.snapshot, "s", context)


def test_a_rule_of_very_many_parts_is_compiled() -> None:
    many = AllOf(tuple(eq(f"a{i}", i) for i in range(300)))
    others = [rule(f"r{i}", i, AllOf((eq("a0", 0), eq("b", i), *many.conditions[:200]))) for i in range(6)]
    snapshot = compiled(
        rule("all", "all", many),
        *others,
        rule("any", "any", AnyOf(tuple(eq(f"c{i}", i) for i in range(3000)))),
    )
    full: dict[str, object] = {f"a{i}": i for i in range(300)}

    for context in (full, {**full, "a299": 0}, {**full, "a299": 0, "b": 4}, {"c2999": 2999}, {}):
        assert snapshot.evaluate("s", context) == reference.evaluate(snapshot.snapshot, "s", context)
    assert snapshot._programs["s"].__name__ == "decide"


def test_thousands_of_rules_that_have_nothing_in_common_are_compiled() -> None:
    rules = [
        rule(f"r{i}", i, Comparison(Attribute(f"n{i % 7}"), Operator.GREATER_THAN, Literal(i)))
        for i in range(3_000)
    ]
    snapshot = compiled(*rules, rule("last", "last", eq("a", 1)))

    assert snapshot.value("s", {"n3": 2999.5}) == 3
    assert snapshot.value("s", {"n3": 2, "n4": 1500}) == 4
    assert snapshot.value("s", {"a": 1}) == "last"
    assert snapshot._programs["s"].__name__ == "decide"


def test_a_lookup_takes_the_place_of_a_chain_of_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sources(monkeypatch)
    rules = tuple(rule(f"r{i}", i, eq("country", f"c{i}")) for i in range(500))
    snapshot = compiled(*rules, rule("last", "last", eq("plan", "pro")))

    assert [snapshot.value("s", {"country": f"c{i}"}) for i in (0, 250, 499)] == [0, 250, 499]
    assert snapshot.value("s", {"country": "none", "plan": "pro"}) == "last"
    assert len("".join(seen).splitlines()) < 25


def test_settings_of_one_structure_are_compiled_once() -> None:
    first = compiled(rule("r", 1, AllOf((eq("a", "x"), Percentage("b", "s", 0, 10)))))
    first.value("s")
    before = source._code.cache_info()
    second = compiled(rule("other", "one", AllOf((eq("b", "y"), Percentage("c", "t", 0, 99_000)))))

    assert (first.value("s", {"a": "x", "b": 2}), second.value("s", {"b": "y", "c": 2})) == ("default", "one")
    assert source._code.cache_info().misses == before.misses
    assert source._code.cache_info().hits > before.hits


def test_what_is_always_the_same_needs_no_function() -> None:
    rules = (rule("never", 1, AnyOf(())), rule("always", 2, AllOf(())), rule("late", 3, eq("a", 1)))

    for snapshot in (
        compiled(),
        compiled(*rules),
        compiled(*rules, enabled=False, off=9),
        compiled(rules[0]),
    ):
        expected = reference.evaluate(snapshot.snapshot, "s", {"a": 1})
        assert snapshot.evaluate("s", {"a": 1}) == expected
        assert not callable(snapshot._programs["s"])


REVISED = Comparison(SettingReference("former"), Operator.EQUALS, Literal(True))


def chain() -> Snapshot:
    """top asks middle by a former name, middle asks a segment; and one that asks nobody."""
    return Snapshot.of(
        [
            json_setting("top", (rule("r", "top on", REVISED),)),
            dataclasses.replace(
                json_setting("middle", (rule("r", True, SegmentReference("g")),), False), aliases=("former",)
            ),
            json_setting("alone", (rule("r", 1, eq("a", 1)),)),
            json_setting("static", ()),
        ],
        [Segment("g", eq("a", 1))],
        revision=1,
    )


NAMES = ["top", "middle", "former", "alone", "static", "new"]
middle = chain().settings["middle"]


@pytest.mark.parametrize(
    ("changed_settings", "changed_segments"),
    [
        ({}, {}),
        ({"alone": json_setting("alone", (rule("r", 2, eq("a", 1)),))}, {}),
        ({"static": json_setting("static", (), "changed")}, {}),
        ({"static": None}, {}),
        ({"new": json_setting("new", ())}, {}),
        ({"middle": dataclasses.replace(middle, rules=())}, {}),
        ({"middle": dataclasses.replace(middle, aliases=())}, {}),
        ({"middle": None, "new": dataclasses.replace(middle, name="new", aliases=("middle", "former"))}, {}),
        ({"former": json_setting("former", (rule("r", True),))}, {}),
        ({"middle": None}, {}),
        ({}, {"g": Segment("g", eq("a", 2))}),
        ({}, {"g": None}),
        (
            {},
            {
                "g": Segment("g", SegmentReference("h")),
                "h": Segment("h", Comparison(SettingReference("middle"), Operator.EXISTS)),
            },
        ),
    ],
)
@pytest.mark.parametrize("read_before", [NAMES, ["top"], []])
def test_the_next_snapshot_takes_over_what_has_not_changed(
    changed_settings: dict[str, Any], changed_segments: dict[str, Any], read_before: list[str]
) -> None:
    before = CompiledSnapshot(chain())
    for name in read_before:
        before.evaluate(name, {"a": 1})
    snapshot = chain().replace(2, settings=changed_settings, segments=changed_segments)

    after = CompiledSnapshot(snapshot, previous=before, settings=changed_settings, segments=changed_segments)

    for context in ({"a": 1}, {"a": 2}, {}):
        for name in NAMES:
            assert shown(after.evaluate(name, context)) == shown(reference.evaluate(snapshot, name, context))
            assert after.value(name, context) == reference.evaluate(snapshot, name, context).value
    if read_before is NAMES and "alone" not in changed_settings:
        assert after._programs["alone"] is before._programs["alone"]


def test_a_change_of_one_setting_in_ten_thousand_costs_little() -> None:
    """The time of the copies, measured at leisure; `benchmarks/evaluation.py` has the figures."""
    many = [json_setting(f"s{i}", (rule("r", i, eq("a", 1)),) if i % 3 else ()) for i in range(10_000)]
    before = CompiledSnapshot(Snapshot.of(many, revision=1))
    before.prepare(setting.name for setting in many)
    changed = {"s7": json_setting("s7", (rule("r", "new", eq("a", 1)),))}
    snapshot = before.snapshot.replace(2, settings=changed)
    started = time.process_time()

    after = CompiledSnapshot(snapshot, previous=before, settings=changed)

    assert time.process_time() - started < 0.1
    assert after.value("s7", {"a": 1}) == "new"
    assert after.value("s8", {"a": 1}) == 8
    assert after.evaluate("s8", {"a": 1}).revision == 2


def test_preparing_compiles_before_the_first_read() -> None:
    snapshot = compiled(rule("r", 1, eq("a", 1)))

    snapshot.prepare(["s", "gone", None])  # type: ignore[list-item]

    assert "s" in snapshot._programs


def test_a_full_stack_of_the_caller_never_raises() -> None:
    setting = json_setting(
        "s", (rule("r", True, deep(MAX_NESTING, lambda part: AllOf((part, eq("a", 1))))),), False
    )
    snapshot = Snapshot.of([setting])

    def free() -> int:
        """About how many calls the stack has room for, whatever of it lies below this test."""
        try:
            return 1 + free()
        except RecursionError:
            return 0

    def bounded(levels: int, read: Callable[..., Any]) -> Any:
        return bounded(levels - 1, read) if levels else read("s", {"a": 1}, "mine")

    def answer(levels: int, read: Callable[..., Any]) -> Any:
        try:
            return bounded(levels, read)
        except RecursionError as exc:
            *_, last = traceback.walk_tb(exc.__traceback__)
            # Where not even the frame of the method has room, CPython raises in its caller.
            return (
                "not entered" if last[0].f_code is bounded.__code__ else f"raised in {last[0].f_code.co_name}"
            )

    capacity = free()
    found = []
    for room in (*range(400, 40, -3), *range(40, -20, -1)):
        for prepared in ((), ("s",)):
            fresh = CompiledSnapshot(snapshot)
            fresh.prepare(prepared)
            value = answer(capacity - room, fresh.value)
            evaluation = answer(capacity - room, fresh.evaluate)
            found.append((value, evaluation))
            # Nothing of it is remembered.
            assert fresh.value("s", {"a": 1}) is True
    for value, evaluation in found:
        assert value in (True, False, "mine", "not entered")
        if evaluation != "not entered":
            # Without room to make anything, one that was made before stands in, which has no default.
            assert evaluation.value in (True, False, "mine", ABSENT)
            assert (evaluation.reason is Reason.ERROR) == (evaluation.value in ("mine", ABSENT))
            assert (evaluation.error_code is ErrorCode.GENERAL) == (evaluation.reason is Reason.ERROR)
    # All of it was seen, from enough room to none.
    assert found[0] == (True, fresh.evaluate("s", {"a": 1}))
    assert found[-1] == ("not entered", "not entered")
    assert "mine" in {value for value, _ in found}
    values = [each.value for _, each in found if each != "not entered"]
    assert "mine" in values
    # What has no default are the last few calls.
    assert 0 < sum(value is ABSENT for value in values) <= 2 * 6


def test_a_compiled_snapshot_serves_many_threads() -> None:
    snapshot = Snapshot.of(
        [
            json_setting(
                f"s{i}",
                (rule("r", i, Comparison(SettingReference(f"s{i + 1}"), Operator.EQUALS, Literal(i + 1))),),
                -1,
            )
            for i in range(30)
        ]
        + [json_setting("s30", (rule("r", 30, eq("region", "eu")),), -1)]
    )
    shared = CompiledSnapshot(snapshot)
    wrong: list[object] = []
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        for i in range(31):
            for region, expected in (("eu", i), ("us", -1)):
                found = (
                    shared.evaluate(f"s{i}", {"region": region}).value,
                    shared.value(f"s{i}", {"region": region}),
                )
                if found != (expected, expected):
                    wrong.append((i, region, found))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_without_the_extension_buckets_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    half = rule("r", 1, Percentage("id", "salt", 0, 50_000))
    contexts: list[dict[str, object]] = [{"id": unit} for unit in ("u1", "ü2", 3, 4.0, "", None, 2**70)]
    before = [compiled(half).value("s", context) for context in contexts]

    monkeypatch.setitem(source.GLOBALS, "murmur3", murmur3_32_pure)

    assert [compiled(half).value("s", context) for context in contexts] == before


def test_a_language_expression_is_compiled_to_the_same() -> None:
    text = 'region in ["eu", "us"] and not (plan == "free") and semver(version) >= "1.2" and ip ip_in "10.0.0.0/8"'
    snapshot = compiled(rule("r", 1, parse_condition(text)))
    good = {"region": "eu", "plan": "pro", "version": "1.3.0", "ip": "10.1.1.1"}

    assert snapshot.value("s", good) == 1
    for missing in good:
        assert snapshot.value("s", {key: value for key, value in good.items() if key != missing}) == "default"
    assert snapshot.evaluate("s", good).reason is Reason.TARGETING_MATCH
