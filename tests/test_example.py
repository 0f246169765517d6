"""The example project: it is what the demo, the guide and the other tests stand on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.document.export import export_document
from rheostat.document.printer import format_document
from rheostat.evaluation import Context
from rheostat.evaluation.result import Reason
from rheostat.example import PROJECT, document_text
from rheostat.model.condition import (
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    walk,
)
from rheostat.model.rule import Distribution
from rheostat.model.setting import Lifecycle, Order, Setting
from rheostat.model.state import ProjectState
from rheostat.model.type import (
    EnumType,
    FlagsType,
    JsonType,
    MappingType,
    PrimitiveType,
    SequenceType,
    SettingType,
)
from rheostat.model.value import ABSENT, thaw
from rheostat.service import Outcome, Service, Writer
from rheostat.service.access import OPEN
from rheostat.store.memory import MemoryStore

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def applied() -> Iterator[tuple[Service, Outcome]]:
    with Service(MemoryStore()) as service:
        document = parse_document(document_text(), source="shop.yaml")
        yield service, service.commit(Writer(OPEN), PROJECT, "", plan_apply(document, None))


@pytest.fixture(scope="module")
def state(applied: tuple[Service, Outcome]) -> ProjectState:
    return applied[0].head.state.projects[PROJECT]


def settings_of(state: ProjectState) -> list[Setting]:
    return [
        setting for environment in state.environments.values() for setting in environment.settings.values()
    ]


def conditions_of(state: ProjectState) -> list[Condition]:
    rules = [rule for setting in settings_of(state) for rule in setting.rules]
    whole = [rule.condition for rule in rules if rule.condition is not None]
    whole += [segment.condition for segment in state.segments.values()]
    return [part for condition in whole for part in walk(condition)]


def test_the_file_in_examples_is_the_packaged_one() -> None:
    assert (ROOT / "examples" / "shop.yaml").read_text("utf-8") == document_text()


def test_applies_to_an_empty_store_in_one_revision_without_a_warning(
    applied: tuple[Service, Outcome],
) -> None:
    service, outcome = applied
    assert outcome.revision == service.head.revision == 2
    assert outcome.change_set.warnings == ()


def test_applying_it_twice_is_an_empty_plan(state: ProjectState) -> None:
    assert not plan_apply(parse_document(document_text()), state)


def test_its_export_is_canonical_and_says_the_same(state: ProjectState) -> None:
    exported = format_document(export_document(state))
    assert format_document(parse_document(exported)) == exported
    assert not plan_apply(parse_document(exported), state)
    with Service(MemoryStore()) as service:
        service.commit(Writer(OPEN), PROJECT, "", plan_apply(parse_document(exported), None))
        again = service.head.state.projects[PROJECT]
    assert format_document(export_document(again)) == exported


def test_has_three_environments_that_differ(state: ProjectState) -> None:
    assert set(state.environments) == {"development", "staging", "production"}
    by_environment = [
        {
            name: (setting.value, setting.enabled, setting.rules)
            for name, setting in environment.settings.items()
        }
        for environment in state.environments.values()
    ]
    assert all(
        any(one[name] != other[name] for name in one)
        for one in by_environment
        for other in by_environment
        if one is not other
    )


def test_has_at_least_40_described_and_owned_settings(state: ProjectState) -> None:
    settings = state.environments["production"].settings.values()
    assert len(settings) >= 40
    assert all(setting.description and setting.owner and setting.tags for setting in settings)
    assert any(setting.aliases for setting in settings)
    assert any(setting.metadata for setting in settings)
    assert any(str(setting.version) != "1.0" for setting in settings)
    assert any(setting.lifecycle is Lifecycle.DEPRECATED for setting in settings)
    assert any(setting.features == () for setting in settings)
    assert any(setting.features for setting in settings)
    assert sum(setting.order is Order.SPECIFICITY for setting in settings) >= 3
    assert any(not setting.enabled and setting.off is not ABSENT for setting in settings_of(state))
    assert any(not rule.enabled for setting in settings for rule in setting.rules)


def test_has_every_kind_of_type(state: ProjectState) -> None:
    def kinds(type_: SettingType) -> set[str]:
        match type_:
            case PrimitiveType(name):
                return {name}
            case SequenceType(element) | MappingType(element):
                nested = {"nested"} if isinstance(element, SequenceType | MappingType) else set()
                return {type(type_).__name__, *nested, *kinds(element)}
            case JsonType(schema):
                return {"Json" if schema is None else "Json with schema"}
            case EnumType() | FlagsType():
                return {type(type_).__name__}

    assert set().union(*(kinds(setting.type) for setting in settings_of(state))) == {
        "bool",
        "int",
        "float",
        "str",
        "EnumType",
        "FlagsType",
        "SequenceType",
        "MappingType",
        "nested",
        "Json",
        "Json with schema",
    }


def test_uses_every_operator_and_every_kind_of_condition(state: ProjectState) -> None:
    parts = conditions_of(state)
    comparisons = [part for part in parts if isinstance(part, Comparison)]
    assert {comparison.operator for comparison in comparisons} == set(Operator)
    assert any(isinstance(comparison.left, SettingReference) for comparison in comparisons)
    assert any(isinstance(comparison.right, Attribute) for comparison in comparisons)
    percentages = [part for part in parts if isinstance(part, Percentage)]
    assert {percentage.algorithm for percentage in percentages} >= {
        BucketAlgorithm.MURMUR3,
        BucketAlgorithm.REPLANE,
    }
    assert any(percentage.start > 0 for percentage in percentages)
    segments_in_segments = [
        part
        for segment in state.segments.values()
        for part in walk(segment.condition)
        if isinstance(part, SegmentReference)
    ]
    assert segments_in_segments
    splits = [
        rule.outcome
        for setting in settings_of(state)
        for rule in setting.rules
        if isinstance(rule.outcome, Distribution)
    ]
    assert any(len(split.variants) >= 4 for split in splits)


# Worked out from the file by hand; buckets by the formula of MURMUR3, which tests/spec/buckets.json pins.
EVALUATIONS = [
    # An alias, the environments' values, and rules in stored order.
    ("development", "checkout.timeout", {}, 30.0, "STATIC"),
    ("staging", "payment.timeout", {}, 2.5, "STATIC"),
    ("production", "checkout.timeout", {}, 3.0, "DEFAULT"),
    (
        "production",
        "checkout.timeout",
        {"region": "eu", "user": {"plan": "plus"}},
        4.0,
        "TARGETING_MATCH eu-paying",
    ),
    # Order by specificity: the later feature of the hierarchy wins, wherever the rule stands.
    ("production", "checkout.guest", {"region": "apac"}, False, "TARGETING_MATCH apac"),
    (
        "production",
        "checkout.guest",
        {"region": "apac", "country": "JP"},
        True,
        "TARGETING_MATCH apac-japan",
    ),
    (
        "production",
        "checkout.guest",
        {"region": "apac", "country": "JP", "product": {"category": "wine"}},
        False,
        "TARGETING_MATCH wine",
    ),
    (
        "production",
        "checkout.guest",
        {"country": "IT", "product.category": "wine"},
        True,
        "TARGETING_MATCH wine-italy",
    ),
    (
        "production",
        "limits.requests-per-minute",
        {"region": "apac", "user": {"plan": "business", "id": "u-3141"}},
        20000,
        "TARGETING_MATCH price-comparison",
    ),
    (
        "production",
        "limits.requests-per-minute",
        {"region": "apac", "user": {"plan": "business", "id": "u-1"}},
        1500,
        "TARGETING_MATCH business-apac",
    ),
    (
        "production",
        "promotions.discount-percent",
        {"country": "FI", "user": {"plan": "plus"}},
        2.5,
        "TARGETING_MATCH plus",
    ),
    # Not enabled: the off value.
    ("development", "recommendations.enabled", {}, False, "DISABLED"),
    ("staging", "legacy.catalog-api", {"user": {"id": "u-3141"}}, False, "DISABLED"),
    ("production", "legacy.catalog-api", {}, False, "TARGETING_MATCH everybody-else"),
    # Segments that refer to segments, networks, lists, versions, instants, patterns.
    ("production", "search.index-name", {"request": {"ip": "192.0.2.17"}}, "products-v42", "TARGETING_MATCH next-index"),
    ("production", "search.index-name", {"request": {"ip": "2001:db8:10::1"}}, "products-v42", "TARGETING_MATCH next-index"),
    ("production", "search.index-name", {"request": {"ip": "203.0.113.9"}}, "products-v41", "DEFAULT"),
    ("production", "payments.refund-limit", {"user": {"roles": ["support", "lead"]}}, 500.0, "TARGETING_MATCH lead"),
    ("production", "payments.refund-limit", {"user": {"roles": ["support"]}}, 100.0, "TARGETING_MATCH support"),
    ("production", "payments.refund-limit", {"user": {"roles": ["support", "trainee"]}}, 0.0, "DEFAULT"),
    ("production", "payments.refund-limit", {"user": {"roles": "support"}}, 0.0, "DEFAULT"),
    ("production", "app.update-required", {"app": {"platform": "android", "version": "v5.1"}}, True, "TARGETING_MATCH broken-build"),
    ("production", "app.update-required", {"app": {"platform": "ios", "version": "3.8.0-rc.1"}}, True, "TARGETING_MATCH too-old"),
    ("production", "app.update-required", {"app": {"platform": "ios", "version": "5.1.0"}}, False, "DEFAULT"),
    ("production", "catalog.cache-ttl", {"request": {"time": "2026-11-27T09:30:00+01:00"}}, 30, "TARGETING_MATCH sale"),
    ("production", "catalog.cache-seconds", {"request": {"time": "2026-12-01T00:00:00Z"}}, 300, "DEFAULT"),
    ("production", "limits.crawler-delay", {"request": {"agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}}, 0.2, "TARGETING_MATCH well-behaved"),
    ("production", "limits.crawler-delay", {"request": {"agent": "ACME-Spider"}}, 5.0, "TARGETING_MATCH others"),
    ("production", "shipping.same-day", {"country": "DE", "shipping": {"postal_code": "10117"}, "cart": {"items": 2}}, True, "TARGETING_MATCH berlin-hamburg"),
    ("production", "shipping.same-day", {"country": "DE", "shipping": {"postal_code": "10117"}, "cart": {"items": 10}}, False, "DEFAULT"),
    ("production", "payments.strong-authentication", {"country": "FR", "user": {"country": "DE"}, "cart": {"total": 101}}, "always", "TARGETING_MATCH gifts"),
    ("production", "payments.strong-authentication", {"user": {"orders": 12}, "cart": {"total": 19.9}}, "risk", "DEFAULT"),
    ("production", "payments.strong-authentication", {"user": {"orders": 12, "email": "a@example.com", "roles": []}, "cart": {"total": 19.9}}, "never", "TARGETING_MATCH small"),
    ("production", "payments.fraud-score-limit", {"user": {"registered_at": "2021-06-01"}}, 0.97, "TARGETING_MATCH founders"),
    ("production", "account.sign-up", {"user": {"email": "x@mailinator.example", "roles": []}}, "closed", "TARGETING_MATCH throw-away-addresses"),
    # A rule that is not enabled never matches.
    ("production", "ops.maintenance", {"request": {"time": "2026-02-08T02:00:00Z"}}, "open", "DEFAULT"),
    # Other settings' values.
    ("staging", "promotions.black-friday", {}, True, "STATIC"),
    ("production", "app.theme", {"request": {"time": "2026-11-25"}}, {"accent": "#111111", "dark": "always", "radius": 0}, "TARGETING_MATCH sale"),
    ("production", "checkout.express-button", {"channel": "web", "user": {"id": "u-1007"}}, "both", "TARGETING_MATCH web"),
    ("production", "checkout.express-button", {"channel": "web"}, "none", "TARGETING_MATCH needs-new-flow"),
    ("production", "promotions.banner", {"channel": "web"}, {"kind": "welcome", "text": "10 % off your first order", "link": "/welcome", "closable": True}, "TARGETING_MATCH welcome"),
    ("production", "promotions.banner", {"channel": "till"}, None, "DEFAULT"),
    # Composite values.
    ("production", "checkout.payment-methods", {"country": "DE", "user": {"plan": "free"}}, ["card", "paypal", "direct-debit", "gift-card"], "TARGETING_MATCH germany-free"),
    ("production", "checkout.free-shipping-from", {"user": {"plan": "plus"}}, {"CHF": 0.0, "EUR": 0.0, "GBP": 0.0, "USD": 25.0}, "TARGETING_MATCH plus"),
    ("production", "search.typo-tolerance", {"product": {"category": "spare-parts"}}, 0, "TARGETING_MATCH article-numbers"),
    ("staging", "ops.worker-features", {}, [1, 2, 4, 8], "STATIC"),
    ("development", "notifications.channels", {}, [], "STATIC"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "name", "context", "value", "why"), EVALUATIONS)
def test_evaluates_as_its_text_says(
    applied: tuple[Service, Outcome],
    environment: str,
    name: str,
    context: dict[str, object],
    value: object,
    why: str,
) -> None:
    evaluation = applied[0].evaluate(PROJECT, environment, name, Context(context))
    found = thaw(evaluation.value)
    assert (found, type(found)) == (value, type(value))
    assert f"{evaluation.reason.name} {evaluation.rule_id or ''}".strip() == why


@pytest.mark.parametrize(
    ("name", "unit", "shares"),
    [
        ("search.engine", "user.id", {"classic": 0.5, "hybrid": 0.375, "semantic": 0.125}),
        ("payments.provider", "session.id", {"adyen": 0.9, "stripe": 0.1}),
    ],
)
def test_splits_users_by_the_written_shares(
    applied: tuple[Service, Outcome], name: str, unit: str, shares: dict[str, float]
) -> None:
    units = 4000
    counts = dict.fromkeys(shares, 0)
    for i in range(units):
        evaluation = applied[0].evaluate(
            PROJECT, "production", name, Context({"country": "DE", unit: f"x{i}"})
        )
        assert evaluation.reason is Reason.SPLIT
        counts[str(evaluation.value)] += 1
    for value, share in shares.items():
        # The hash is fixed, so this is no matter of luck; 2 points are four standard deviations at most.
        assert abs(counts[value] / units - share) < 0.02


def test_the_rollout_gives_its_share_and_keeps_it_when_raised(applied: tuple[Service, Outcome]) -> None:
    def having(state: ProjectState, bound: str) -> set[int]:
        text = re.sub(r'(percent\(user\.id, salt="new-flow"\) <) [0-9.]+', rf"\1 {bound}", document_text())
        with Service(MemoryStore()) as service:
            service.commit(Writer(OPEN), PROJECT, "", plan_apply(parse_document(text), None))
            return {
                i
                for i in range(2000)
                if service.evaluate(
                    PROJECT, "production", "checkout.new-flow", Context({"region": "eu", "user": {"id": i}})
                ).value
                is True
            }

    state = applied[0].head.state.projects[PROJECT]
    few, many = having(state, "12.5"), having(state, "30")
    assert few < many
    # Two per cent of them are the holdout.
    assert abs(len(few) / 2000 - 0.125 * 0.98) < 0.02
    assert abs(len(many) / 2000 - 0.3 * 0.98) < 0.03
