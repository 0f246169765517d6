from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheostat.evaluation import narrow as module
from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING
from rheostat.evaluation.narrow import Narrower, narrow
from rheostat.evaluation.reference import Evaluator
from rheostat.evaluation.result import Reason
from rheostat.language import parse_condition
from rheostat.model.condition import AllOf, Condition, Not, SegmentReference, Unrecognized
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from tests.evaluation import strategy
from tests.evaluation.test_compile import dispatched
from tests.thorough import examples

TEXTS = ["", "a", "u1", "pro", "1.2.3", "v1", "10.0.0.1", "2026-01-01", "true", "1"]
NAMES = ["s1", "s2", "s3"]

values = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3, unique=True)
tracked_values = st.dictionaries(st.sampled_from(strategy.PATHS), values, min_size=1, max_size=3)


def outcome_of(evaluator: Evaluator, name: str, context: Context) -> tuple[object, ...]:
    found = evaluator.evaluate(name, context, "fallback")
    return (
        repr(found.value),
        found.reason,
        found.rule_id,
        found.variant,
        found.revision,
        found.setting_revision,
        found.error_code,
    )


def with_numbered_rules(snapshot: Snapshot) -> Snapshot:
    return replace_settings(
        snapshot,
        {
            name: replace(
                setting, rules=tuple(replace(rule, id=f"r{i}") for i, rule in enumerate(setting.rules))
            )
            for name, setting in snapshot.settings.items()
        },
    )


def replace_settings(snapshot: Snapshot, changed: Mapping[str, Setting]) -> Snapshot:
    return Snapshot(snapshot.revision, {**snapshot.settings, **changed}, snapshot.segments, snapshot.features)


@settings(
    max_examples=examples(250),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(
    st.one_of(strategy.snapshots, dispatched).map(with_numbered_rules),
    tracked_values,
    st.lists(strategy.contexts, min_size=2, max_size=2),
    st.sets(st.sampled_from(NAMES)),
)
def test_every_context_of_the_tracked_values_evaluates_as_without_narrowing(
    snapshot: Snapshot,
    tracked: dict[str, list[str]],
    others: list[list[dict[str, object]]],
    narrowed_alone: set[str],
) -> None:
    narrowed = narrow(snapshot, tracked)
    # A watcher can also hold some of the settings narrowed and others not.
    mixed = replace_settings(snapshot, {name: narrowed.settings[name] for name in narrowed_alone})
    whole = Evaluator(snapshot)
    for other in (narrowed, mixed):
        evaluator = Evaluator(other)
        for chosen in itertools.product(*tracked.values()):
            for layers in others:
                context = Context(dict(zip(tracked, chosen, strict=True)), *layers)
                for name in NAMES:
                    assert outcome_of(evaluator, name, context) == outcome_of(whole, name, context)


# What goes and what stays.


def rule(id_: str, condition: str | Condition | None, *, enabled: bool = True) -> Rule:
    parsed = parse_condition(condition) if isinstance(condition, str) else condition
    return Rule(id_, ValueOutcome(id_), parsed, enabled=enabled)


def setting(*rules: Rule, name: str = "s") -> Setting:
    return Setting(name, name, JSON, "default", rules=rules)


def kept(
    condition: str | Condition,
    tracked: Mapping[str, Sequence[str]],
    *segments: Segment,
    also: Setting | None = None,
) -> bool:
    """Whether a rule with *condition* stays."""
    one = setting(rule("r", condition), rule("last", None))
    snapshot = Snapshot.of([one] if also is None else [one, also], segments)
    return narrow(snapshot, tracked).settings["s"].rule("r") is not None


EU = {"region": ["eu"]}
EU_US = {"region": ["eu", "us"]}
BOTH = {"region": ["eu", "us"], "plan": ["pro", "free"]}


@pytest.mark.parametrize(
    ("condition", "tracked"),
    [
        ('region == "us"', EU),
        ('region != "eu"', EU),
        ('region in ["us", "ap"]', EU),
        ('region not in ["us", "eu"]', EU_US),
        ("region in []", EU),
        ("region == 1", {"region": ["1"]}),
        ("region == true", {"region": ["true"]}),
        ("region < 5", {"region": ["1"]}),
        ('region starts_with "u"', EU),
        ('region matches "^u"', EU),
        ("missing(region)", EU),
        ('region has_any ["eu"]', EU),
        ('semver(version) >= "2"', {"version": ["1.9.0", "1.10.0", "no version"]}),
        ('since before "2026-01-01"', {"since": ["2026-01-01", "2027-01-01"]}),
        ('address ip_in ["10.0.0.0/8"]', {"address": ["192.0.2.1"]}),
        ('plan == "pro" and region == "us"', EU),
        ('setting("other") == true and region == "us"', EU),
        ('not (plan == "pro" or region == "eu")', EU),
        ('region == "us" or region == "ap"', EU),
        ('not (not (region == "us"))', EU),
        # Each part can be true, not both for one region.
        ('region == "eu" and region == "us"', EU_US),
        ('region != "eu" and region != "us"', EU_US),
        ('(region == "eu" and plan == "pro") and (region == "us" or plan == "free")', BOTH),
        ("region == attr(plan)", {"region": ["eu"], "plan": ["pro", "free"]}),
        ('segment("lost")', EU),
        ('not segment("lost")', EU),
        ('segment("us") and plan == "pro"', EU),
        ('segment("outer")', EU),
        ('segment("us") and region == "eu"', EU_US),
    ],
)
def test_a_rule_that_can_match_none_of_the_values_goes(condition: str, tracked: dict[str, list[str]]) -> None:
    segments = [
        Segment("us", parse_condition('region == "us"')),
        Segment("outer", AllOf((SegmentReference("us"), parse_condition('plan == "pro"')))),
    ]
    assert not kept(condition, tracked, *segments)


@pytest.mark.parametrize(
    ("condition", "tracked"),
    [
        ('region == "us"', EU_US),
        ('region == "eu"', EU),
        ('region != "eu"', EU_US),
        ('plan == "pro"', EU),
        ('plan != "pro"', EU),
        ("missing(plan)", EU),
        ('region == "us" or plan == "pro"', EU),
        ('not (region == "us" and plan == "pro")', EU),
        ('region == "us" or setting("other") == true', EU),
        ("region == attr(plan)", {"region": ["eu", "pro"], "plan": ["pro", "free"]}),
        ("region == attr(other)", EU),
        ('segment("us")', EU_US),
        ('not segment("us")', EU),
        ('semver(version) >= "2"', {"version": ["1.9.0", "2.0.0"]}),
        ('(region == "eu" and plan == "pro") or (region == "us" and plan == "free")', BOTH),
        ('percent(user.id, salt="x") < 50', EU),
        ("region == 1", {"region": []}),
    ],
)
def test_a_rule_that_can_match_stays(condition: str, tracked: dict[str, list[str]]) -> None:
    assert kept(condition, tracked, Segment("us", parse_condition('region == "us"')))


def test_what_a_newer_server_sent_stays_since_a_newer_watcher_may_know_it() -> None:
    unknown = Unrecognized("new")
    assert kept(unknown, EU)
    assert kept(Not(unknown), EU)
    assert not kept(AllOf((unknown, parse_condition('region == "us"'))), EU)


def test_the_share_of_a_tracked_unit_is_known() -> None:
    def share(bounds: str) -> bool:
        return kept(f'percent(tenant, salt="x") {bounds}', {"tenant": ["acme"]})

    assert share("< 100")
    # The bucket of one unit is in one half.
    assert share("< 50") != share(">= 50")


def test_a_disabled_rule_goes_and_one_without_a_condition_stays() -> None:
    one = setting(
        rule("off", 'region == "eu"', enabled=False), rule("all", None), rule("later", 'region == "eu"')
    )
    narrowed = narrow(Snapshot.of([one]), EU).settings["s"]
    assert [left.id for left in narrowed.rules] == ["all", "later"]


def test_the_rules_that_stay_are_the_same_and_in_order() -> None:
    variants = (Variant("a", 40_000, 1), Variant("b", 60_000, 2))
    split = Rule("split", Distribution("user.id", "s", variants), parse_condition('region == "eu"'))
    one = setting(
        rule("us", 'region == "us"'), split, rule("ap", 'region == "ap"'), rule("pro", 'plan == "pro"')
    )
    narrowed = narrow(Snapshot.of([one]), EU).settings["s"]
    assert narrowed == replace(one, rules=(split, one.rules[3]))


def test_a_setting_that_loses_nothing_is_the_same_object() -> None:
    one = setting(rule("eu", 'region == "eu"'), rule("pro", 'plan == "pro"'))
    assert narrow(Snapshot.of([one]), EU).settings["s"] is one
    assert narrow(Snapshot.of([one]), {}).settings["s"] is one


def test_a_setting_that_loses_every_rule_still_answers_with_the_reason_default() -> None:
    large = parse_condition('region in ["' + '","'.join(map(str, range(1_000))) + '"]')
    snapshot = Snapshot.of([setting(rule("us", large), rule("ap", 'region == "ap"')), setting(name="bare")])
    narrowed = narrow(snapshot, EU)
    evaluator = Evaluator(narrowed)
    assert evaluator.evaluate("s", {"region": "eu"}).reason is Reason.DEFAULT
    assert evaluator.evaluate("bare", {"region": "eu"}).reason is Reason.STATIC
    # Not even a context that was not tracked brings a rule to life of which nothing but its place is left.
    assert evaluator.evaluate("s", {"region": "7"}).value == "default"
    assert [(left.id, left.condition) for left in narrowed.settings["s"].rules] == [("us", None)]


def test_a_rule_that_nests_too_deep_does_not_come_to_life_when_what_it_refers_to_is_narrowed() -> None:
    def nested(condition: Condition) -> Condition:
        for _ in range(MAX_NESTING - 2):
            condition = Not(condition)
        return condition

    below = setting(rule("us", Not(Not(parse_condition('region == "us"')))), rule("all", None), name="below")
    above = setting(rule("deep", nested(parse_condition('setting("below") == "all"'))), rule("all", None))
    snapshot = Snapshot.of([below, above])
    narrowed = narrow(snapshot, EU)
    assert len(narrowed.settings["below"].rules) == 1
    for each in (snapshot, narrowed):
        assert Evaluator(each).evaluate("s", {"region": "eu"}).rule_id == "all"


def test_a_setting_on_a_cycle_keeps_the_rules_that_close_it() -> None:
    one = setting(rule("us", 'region == "us" and setting("two") == "all"'), rule("all", None), name="one")
    two = setting(rule("any", 'setting("one") == "all"'), rule("all", None), name="two")
    snapshot = Snapshot.of([one, two])
    narrowed = narrow(snapshot, EU)
    for each in (snapshot, narrowed):
        assert Evaluator(each).evaluate("two", {"region": "eu"}).rule_id == "all"


def test_many_values_cost_no_more_than_few_where_rules_ask_for_equality(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenants = [f"t{number}" for number in range(1_000)]
    monkeypatch.setattr(module, "Run", None)
    one = setting(*(rule(f"r{number}", f'tenant == "t{number}"') for number in range(900, 1_100)))
    narrowed = Narrower(Snapshot.of([one]), {"tenant": tenants}).narrow(one)
    assert [left.id for left in narrowed.rules] == [f"r{number}" for number in range(900, 1_000)]


def test_a_comparison_of_too_many_cases_may_be_anything() -> None:
    tenants = [f"t{number}" for number in range(1_000)]
    assert kept('tenant starts_with "u"', {"tenant": tenants})
    assert not kept('tenant starts_with "u"', {"tenant": tenants[:100]})
