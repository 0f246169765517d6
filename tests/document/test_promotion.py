"""Promotion: one environment has what another one has, in the same buckets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.document import plan_apply, promotion
from rheostat.errors import NotFoundError
from rheostat.evaluation import Context
from rheostat.evaluation.compile import CompiledSnapshot
from rheostat.model.encoding import encode_item
from rheostat.model.rule import ValueOutcome
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import ProjectState
from rheostat.model.value import ABSENT
from tests.document.applied import Shop
from tests.document.test_property import SLOW, states

BASE = """
project: shop
environments: [staging, production]
features: [region, user.id]
segments:
  beta: user.id in ["u1"]
settings:
  timeout:
    type: float
    default: 2.5
    owner: payments
    environments:
      staging:
        value: 3.0
        rules:
          - id: eu
            where: region == "eu"
            value: 4.0
          - id: slow
            where: percent(user.id, salt="p", algorithm=REPLANE) < 30
            split:
              unit: user.id
              salt: s
              variants: [{name: a, weight: 50%, value: 1.0}, {name: b, weight: rest, value: 2.0}]
  flag: {type: bool, default: false}
"""

_RENAMED = """
environments: [{}]
settings:
  limit: {{type: float, default: 2.5, aliases: [timeout]}}
"""


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.apply(BASE)
    return made


def state(shop: Shop) -> ProjectState:
    assert shop.project is not None
    return shop.project


def promote(shop: Shop, source: str, target: str, *, prune: bool = False, **options: object) -> int:
    """Promote; returns how many mutations that took."""
    document = promotion(state(shop), source, target, **options)  # type: ignore[arg-type]
    return len(shop.apply(document, prune=prune))


def plain(setting: Setting, **changes: object) -> str:
    rules = tuple(replace(rule, number=0) for rule in setting.rules)
    return encode_item(replace(setting, id="", revision=0, rules=rules, **changes))  # type: ignore[arg-type]


def test_all_that_an_environment_has_comes_with_ids_salts_and_algorithms(shop: Shop) -> None:
    assert promote(shop, "staging", "production")
    assert plain(shop.setting("timeout")) == plain(shop.setting("timeout", "staging"))
    assert promote(shop, "staging", "production") == 0, "a second time nothing is left to do"


def test_an_environment_that_is_missing_is_made(shop: Shop) -> None:
    promote(shop, "staging", "copy")
    for name in ("timeout", "flag"):
        assert plain(shop.setting(name, "copy")) == plain(shop.setting(name, "staging"))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["definitions"], ("checkout", 1.5, ["eu"])),
        (["values"], ("payments", 3.0, ["eu"])),
        (["rules"], ("payments", 1.5, ["eu", "slow"])),
        (["values", "rules"], ("payments", 3.0, ["eu", "slow"])),
    ],
)
def test_only_the_chosen_parts_come(
    shop: Shop, parts: list[str], expected: tuple[str, float, list[str]]
) -> None:
    there = shop.setting("timeout", "staging")
    shop.change(replace(shop.setting("timeout"), value=1.5, rules=there.rules[:1]))
    shop.change(replace(there, owner="checkout"), "staging")
    promote(shop, "staging", "production", parts=parts)
    setting = shop.setting("timeout")
    assert (setting.owner, setting.value, [rule.id for rule in setting.rules]) == expected


def test_what_the_source_does_not_have_is_cleared_and_extra_settings_are_left_or_pruned(shop: Shop) -> None:
    shop.apply("{environments: [production], settings: {extra: {type: int, default: 1}}}")
    eu = replace(shop.setting("timeout", "staging").rules[0], outcome=ValueOutcome(True))
    shop.change(replace(shop.setting("flag"), tags=("x",), value=True, enabled=False, rules=(eu,)))
    promote(shop, "staging", "production")
    flag = shop.setting("flag")
    assert (flag.value, flag.enabled, flag.rules, flag.tags) == (ABSENT, True, (), ())
    assert "extra" in shop.names()
    promote(shop, "staging", "production", prune=True)
    assert shop.names() == {"timeout", "flag"}


def test_only_named_settings_come_by_name_or_alias(shop: Shop) -> None:
    shop.apply(_RENAMED.format("staging"))
    shop.apply("{environments: [staging], settings: {flag: {default: true}}}")
    promote(shop, "staging", "production", names=["timeout"], parts=["values"])
    assert shop.names() == {"timeout", "flag"}, "its name is part of its definition"
    assert (shop.setting("timeout").value, shop.setting("flag").default) == (3.0, False)
    promote(shop, "staging", "production", names=["limit", "timeout"])
    assert shop.names() == {"limit", "flag"}
    assert shop.setting("limit").aliases == ("timeout",)
    with pytest.raises(NotFoundError):
        promote(shop, "staging", "production", names=["nothing"])
    with pytest.raises(NotFoundError):
        promote(shop, "nowhere", "production")


def test_a_setting_that_only_the_target_has_renamed_keeps_its_name_and_its_alias(shop: Shop) -> None:
    shop.apply(_RENAMED.format("production"))
    promote(shop, "staging", "production")
    assert shop.names() == {"limit", "flag"}
    assert (shop.setting("limit").value, shop.setting("limit").aliases) == (3.0, ("timeout",))


def test_units_are_in_the_same_buckets_on_both_sides(shop: Shop) -> None:
    promote(shop, "staging", "production")
    compiled = [
        CompiledSnapshot(
            Snapshot.of(state(shop).environments[slug].settings.values(), state(shop).segments.values())
        )
        for slug in ("staging", "production")
    ]
    seen = set()
    for number in range(300):
        context = Context({"user": {"id": f"u{number}"}})
        first, second = (each.evaluate("timeout", context) for each in compiled)
        assert (first.value, first.variant) == (second.value, second.variant)
        seen.add(first.value)
    assert seen == {1.0, 2.0, 3.0}


@SLOW
@given(states(), st.data())
def test_whatever_they_hold_the_target_has_what_the_source_has(
    made: ProjectState, data: st.DataObject
) -> None:
    slugs = sorted(made.environments)
    source = data.draw(st.sampled_from(slugs))
    target = data.draw(st.sampled_from([slug for slug in (*slugs, "new") if slug != source]))
    shop = Shop(made)
    document = promotion(made, source, target)
    shop.commit(plan_apply(document, made, prune="declared"))
    here, there = (state(shop).environments[slug].settings for slug in (source, target))
    assert len(here) == len(there)
    for setting in here.values():
        found = next(other for other in there.values() if set(setting.names) <= set(other.names))
        changes = {"name": "", "aliases": (), "declared": False}
        assert plain(found, **changes) == plain(setting, **changes)
    assert not plan_apply(promotion(state(shop), source, target), state(shop), prune="declared")
