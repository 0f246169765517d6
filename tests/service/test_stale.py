"""Settings that look unused: nobody reads them, they have one value, or they are on their way out."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from rheostat.model.change import PutSetting, SetValue
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Lifecycle, Setting
from rheostat.model.type import parse_type
from rheostat.service.stale import StalePage, StaleReason, find_stale, has_one_value
from tests.service.book import equals, in_segment, on, put, put_rule, put_segment, rule, split
from tests.service.node import PROJECT, Node, World

DAY = datetime.timedelta(days=1)
UNREAD, ONE_VALUE, LIFECYCLE = StaleReason.UNREAD, StaleReason.ONE_VALUE, StaleReason.LIFECYCLE
INT = parse_type("int")


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a"), put("b"))
    # Two values, so that only reads count.
    for name in ("a", "b"):
        made.commit(put_rule(name, rule("r", 5, equals("region", "eu"))))
    made.service.usage.flush()
    return made


def read(node: Node, *names: str) -> None:
    node.service.usage.note_reads(PROJECT, "production", names)


def later(world: World, days: float) -> None:
    world.clock.seconds += days * 86_400


def page(node: Node, days: float = 30, **options: object) -> StalePage:
    unread_for = datetime.timedelta(days=days)
    return find_stale(node.service, PROJECT, "production", unread_for=unread_for, **options)  # type: ignore[arg-type]


def found(node: Node, days: float = 30, **options: object) -> dict[str, tuple[StaleReason, ...]]:
    return {stale.setting.name: stale.reasons for stale in page(node, days, **options).found}


def test_a_setting_that_nobody_has_read_for_long_is_listed_and_one_that_was_read_is_not(
    world: World, node: Node
) -> None:
    later(world, 20)
    read(node, "a")
    later(world, 11)
    assert found(node) == {"b": (UNREAD,)}
    later(world, 20)
    assert found(node) == {"a": (UNREAD,), "b": (UNREAD,)}
    read(node, "b")
    assert found(node) == {"a": (UNREAD,)}, "also what is not written down yet"


def test_before_reads_were_noted_for_so_long_nothing_is_known(world: World, node: Node) -> None:
    began = world.clock.now().replace(microsecond=0)
    later(world, 29)
    assert found(node) == {}
    assert page(node).noted_since == began
    assert found(node, days=28) == {"a": (UNREAD,), "b": (UNREAD,)}


def test_a_setting_that_was_made_since_is_not_unread_but_one_that_was_changed_is(
    world: World, node: Node
) -> None:
    later(world, 20)
    node.commit(put("new"), SetValue("b", 7))
    node.commit(put_rule("new", rule("r", 5, equals("region", "eu"))))
    later(world, 11)
    assert found(node) == {"a": (UNREAD,), "b": (UNREAD,)}


def test_a_read_by_a_former_name_is_one(world: World, node: Node) -> None:
    node.commit(PutSetting("a", {"aliases": ("old",)}))
    later(world, 20)
    read(node, "old")
    later(world, 11)
    assert set(found(node)) == {"b"}


def test_a_setting_is_read_with_those_whose_rules_refer_to_it(world: World, node: Node) -> None:
    node.commit(put("c"), put_segment("old", on("c")))
    node.commit(put_rule("b", rule("s", 7, in_segment("old"))))
    later(world, 20)
    read(node, "b")
    later(world, 11)
    assert {name for name, reasons in found(node).items() if UNREAD in reasons} == {"a"}


def test_all_nodes_know_what_each_has_noted(world: World, node: Node) -> None:
    later(world, 20)
    read(node, "a")
    node.service.usage.flush()
    later(world, 11)
    other = world.node()
    assert found(other) == {"b": (UNREAD,)}
    (stale,) = page(other, days=1, after="").found[:1]
    assert stale.last_read_at == world.clock.now().replace(minute=0, second=0, microsecond=0) - 11 * DAY


def test_one_value_for_long_and_a_lifecycle_are_reasons(world: World, node: Node) -> None:
    node.commit(put("plain"), put("gone", lifecycle=Lifecycle.DEPRECATED))
    changed_at = world.clock.now()
    later(world, 29)
    read(node, "a", "b", "plain", "gone")
    assert found(node) == {"gone": (LIFECYCLE,)}
    later(world, 2)
    assert found(node) == {"gone": (ONE_VALUE, LIFECYCLE), "plain": (ONE_VALUE,)}
    assert {stale.last_changed_at for stale in page(node).found} == {changed_at}
    node.commit(SetValue("plain", 3))
    assert set(found(node)) == {"gone"}


def test_pages_follow_each_other_by_name(world: World, node: Node) -> None:
    later(world, 31)
    first = page(node, limit=1)
    assert ([stale.setting.name for stale in first.found], first.more) == (["a"], True)
    second = page(node, limit=1, after="a")
    assert ([stale.setting.name for stale in second.found], second.more) == (["b"], False)


def test_clients_that_have_declared_a_setting_are_counted(world: World, node: Node) -> None:
    later(world, 31)
    declared = [Declaration("a", INT, default=0), Declaration("other", INT, default=0, aliases=("b",))]
    for client, declarations in (("c1", declared[:1]), ("c2", declared), ("c3", declared)):
        node.service.fleet.declare(
            PROJECT, "production", declarations, continued=b"", client=ClientReport(id=client), actor=""
        )
    assert {stale.setting.name: stale.declared_by for stale in page(node).found} == {"a": 3, "b": 2}


SETTING = Setting("i", "s", INT, default=1)
EU = equals("region", "eu")


@pytest.mark.parametrize(
    ("setting", "one"),
    [
        (SETTING, True),
        (replace(SETTING, value=2), True),
        (replace(SETTING, rules=(rule("r", 1, EU),)), True),
        (replace(SETTING, rules=(rule("r", 2, EU),)), False),
        (replace(SETTING, rules=(rule("r", 2, EU, enabled=False),)), True),
        (replace(SETTING, value=2, rules=(rule("r", 2, EU),)), True),
        (replace(SETTING, rules=(rule("r", 2, EU),), enabled=False), True),
        (replace(SETTING, rules=(rule("r", 2, EU), Rule("s", ValueOutcome(2)))), True),
        (replace(SETTING, rules=(Rule("s", ValueOutcome(2)), rule("r", 3, EU))), True),
        (replace(SETTING, rules=(Rule("s", split(50_000, 50_000, values=(1, 2))),)), False),
        (replace(SETTING, rules=(Rule("s", split(100_000, 0, values=(1, 2))),)), True),
        (replace(SETTING, rules=(Rule("s", None, EU),)), False),
        (Setting("i", "s", parse_type("Json"), default=1, rules=(rule("r", True, EU),)), False),
    ],
)
def test_a_setting_has_one_value_when_no_rule_can_give_another(setting: Setting, one: bool) -> None:
    assert has_one_value(setting) is one
