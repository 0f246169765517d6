"""Applying documents: what changes, what is left alone, and how rules are found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.document import parse_document, plan_apply
from rheostat.document.rule_match import in_order
from rheostat.errors import InvalidDocumentError
from rheostat.language import format_condition
from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    MoveRule,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSetting,
    RenameSetting,
    SetFeatures,
)
from rheostat.model.condition import Percentage
from rheostat.model.rule import Distribution, ValueOutcome
from rheostat.model.setting import Lifecycle, Order, Version
from rheostat.model.type import STR
from rheostat.model.value import ABSENT, FrozenMapping
from tests.document.applied import Shop

HEAD = "project: shop\nenvironments: [production]\n"


def setting(rules: str = "", fields: str = "", head: str = HEAD) -> str:
    """A document with the int setting `a`, and in production these rules."""
    return (
        head
        + "settings:\n  a:\n    type: int\n    default: 0\n"
        + "".join(f"    {line}\n" for line in fields.splitlines())
        + ("    environments:\n      production:\n        rules:\n" if rules else "")
        + "".join(f"          {line}\n" for line in rules.splitlines())
    )


def listed(shop: Shop) -> list[tuple[str, str, object]]:
    """The rules of `a`: id, condition, value."""
    return [
        (
            rule.id,
            "" if rule.condition is None else format_condition(rule.condition),
            rule.outcome.value if isinstance(rule.outcome, ValueOutcome) else "split",
        )
        for rule in shop.setting("a").rules
    ]


def shop_with(rules: str, fields: str = "") -> Shop:
    shop = Shop()
    shop.apply(setting(rules, fields))
    return shop


def apply_twice(shop: Shop, document: str, **options: bool | str) -> Sequence[object]:
    mutations = shop.apply(document, **options)  # type: ignore[arg-type]
    assert list(shop.planned(document, **options)) == []  # type: ignore[arg-type]
    return mutations


def test_a_new_project_gets_its_environments_and_everything_else() -> None:
    shop = Shop()
    mutations = apply_twice(
        shop, "project: shop\nenvironments: [b, a]\nfeatures: [x]\nsettings:\n  s: {type: int, default: 1}\n"
    )
    assert mutations[:4] == [
        PutProject("shop"),
        PutEnvironment("b"),
        PutEnvironment("a"),
        SetFeatures(("x",)),
    ]
    assert shop.setting("s", "a").default == shop.setting("s", "b").default == 1
    assert shop.setting("s", "a").id == shop.setting("s", "b").id


def test_what_is_absent_is_left_alone() -> None:
    shop = shop_with(
        "- {id: r, where: x == 1, value: 1, description: d, metadata: {k: 1}}", "owner: me\ntags: [t]"
    )
    before = shop.setting("a")
    apply_twice(shop, HEAD + "settings:\n  a: {description: new}\n")
    assert shop.setting("a") == replace(before, description="new", revision=2)
    apply_twice(shop, HEAD + "settings: {}\n")
    apply_twice(shop, "project: shop\n")
    apply_twice(shop, "settings: {a: {environments: {production: {rules: [{id: r}]}}}}")
    assert shop.setting("a").rules == before.rules
    apply_twice(shop, "settings: {a: {environments: {production: {rules: [{id: r, value: 2}]}}}}")
    assert shop.setting("a").rules == (replace(before.rules[0], outcome=ValueOutcome(2)),)


def test_unset_clears_fields() -> None:
    shop = shop_with(
        "- {id: r, where: x == 1, value: 1, description: d, metadata: {k: 1}}",
        "owner: me\ntags: [t]\nmetadata: {k: 1}\nlifecycle: deprecated",
    )
    apply_twice(shop, "settings: {a: {environments: {production: {value: 3, off: 4, enabled: false}}}}")
    assert shop.setting("a").value == 3
    apply_twice(
        shop,
        "settings: {a: {unset: [owner, tags, metadata, lifecycle, enabled], environments: {production: "
        "{unset: [value, off], rules: [{id: r, unset: [where, description, metadata]}]}}}}",
    )
    cleared = shop.setting("a")
    assert (cleared.owner, cleared.tags, cleared.metadata) == ("", (), FrozenMapping())
    assert (cleared.value, cleared.off, cleared.enabled) == (ABSENT, ABSENT, True)
    assert cleared.lifecycle is Lifecycle.ACTIVE
    assert cleared.rules[0].condition is None
    assert (cleared.rules[0].description, cleared.rules[0].metadata) == ("", FrozenMapping())


def test_falsy_values_take_effect() -> None:
    shop = Shop()
    text = HEAD + "settings:\n  b: {type: Json, default: 1, environments: {production: {value: 1, off: 1}}}\n"
    shop.apply(text)
    for value in ("0", "false", '""', "null", "[]", "{}", "-0.0"):
        apply_twice(shop, text.replace("1", value))
        assert shop.setting("b").value == shop.setting("b").off == shop.setting("b").default


def test_values_are_compared_in_the_form_of_their_type() -> None:
    shop = Shop()
    text = HEAD + (
        "settings:\n  f: {type: float, default: 1, environments: {production: "
        "{value: 2, rules: [{value: 3}, "
        "{split: {unit: u, variants: [{name: v, weight: 100%, value: 4}]}}]}}}\n"
    )
    apply_twice(shop, text)
    assert repr(shop.setting("f").value) == "2.0"


def test_a_section_wins_over_the_top_and_the_top_over_nothing() -> None:
    shop = Shop()
    apply_twice(
        shop,
        "project: shop\nenvironments: [production, staging, dev]\nsettings:\n  a:\n    type: int\n"
        "    default: 1\n    owner: me\n    environments:\n      staging: {default: 2, unset: [owner]}\n"
        "      dev: {type: str, default: x}\n",
    )
    assert [shop.setting("a", e).default for e in ("production", "staging", "dev")] == [1, 2, "x"]
    assert [shop.setting("a", e).owner for e in ("production", "staging")] == ["me", ""]
    assert shop.setting("a", "dev").type == STR


def test_a_setting_with_nothing_but_sections_is_about_those_environments() -> None:
    shop = Shop()
    apply_twice(
        shop,
        "project: shop\nenvironments: [production, staging]\nsettings:\n  a:\n    environments:\n"
        "      staging: {type: int, default: 1}\n",
    )
    assert (shop.names("production"), shop.names("staging")) == (set(), {"a"})


def test_only_the_environments_asked_for_are_touched() -> None:
    shop = Shop()
    text = "project: shop\nenvironments: [production, staging]\nsettings:\n  a: {type: int, default: 1}\n"
    shop.apply(text, environments=["staging"])
    assert shop.project is not None
    assert set(shop.project.environments) == {"staging"}
    assert PutEnvironment("production") in shop.planned(text)
    with pytest.raises(InvalidDocumentError, match="'dev' is not among the document's"):
        shop.planned(text, environments=["dev"])


PRODUCTION = "settings: {{a: {{environments: {{production: {{{}}}}}}}}}"
MISFITS = [
    ("project: other\n", "about 'other', not 'shop'"),
    ("settings: {b: {type: int}}", "settings.b: the setting does not exist in 'production'; to create"),
    ("settings: {b: {environments: {production: {value: 1}}}}", "give its type"),
    ("settings: {a: {environments: {dev: {value: 1}}}}", "'dev' is unknown; known are production"),
    (PRODUCTION.format("value: x"), 'settings.a.environments.production.value: "x"'),
    (PRODUCTION.format("rules: [{value: x}]"), 'production.rules[0]: "x"'),
    (PRODUCTION.format("rules: [{id: x}]"), "'x' is new: it needs value or split"),
    ("segments: {s: {description: x}}", "segments.s: the segment is new and needs `where`"),
]


@pytest.mark.parametrize(("text", "says"), MISFITS, ids=[m[1] for m in MISFITS])
def test_a_document_that_does_not_fit_is_refused_with_its_place(text: str, says: str) -> None:
    shop = shop_with("- {value: 1}")
    with pytest.raises(InvalidDocumentError) as caught:
        plan_apply(parse_document(text, source="f.yaml"), shop.project)
    assert says in str(caught.value)
    assert str(caught.value).startswith("f.yaml:1:")
    assert caught.value.line == 1


def test_a_project_without_environments_is_refused() -> None:
    with pytest.raises(InvalidDocumentError, match="list them under environments"):
        Shop().planned("project: shop\nsettings:\n  a: {type: int, default: 1}\n")
    with pytest.raises(InvalidDocumentError, match="does not name a project"):
        Shop().planned("environments: [a]\n")


# Finding rules again.


def test_rules_without_an_id_are_found_by_their_contents() -> None:
    shop = shop_with("- {where: x == 1, value: 1}\n- {where: x == 2, value: 2}\n- {where: x == 3, value: 3}")
    first, second, third = (rule.id for rule in shop.setting("a").rules)
    # Moved, as it was.
    mutations = apply_twice(
        shop, setting("- {where: x == 3, value: 3}\n- {where: x == 1, value: 1}\n- {where: x == 2, value: 2}")
    )
    assert mutations == [MoveRule("a", third, before_id=first, environment="production")]
    # The same condition with another value; a condition and a value that are new.
    apply_twice(
        shop,
        setting("- {where: x == 1, value: 10}\n- {where: x == 4, value: 4}\n- {where: x == 3, value: 3}"),
    )
    assert [(i, c) for i, c, _ in listed(shop)] == [
        (first, "x == 1"),
        ("new5", "x == 4"),
        (third, "x == 3"),
    ]
    assert second not in [rule.id for rule in shop.setting("a").rules]


def test_an_equal_outcome_at_the_same_place_is_the_same_rule() -> None:
    shop = shop_with("- {where: x == 1, value: 1}\n- {where: x == 2, value: 2}")
    first, second = (rule.id for rule in shop.setting("a").rules)
    apply_twice(shop, setting("- {where: y == 1, value: 1}\n- {where: y == 2, value: 3}"))
    assert listed(shop)[0] == (first, "y == 1", 1)
    assert listed(shop)[1][0] != second


def test_duplicates_match_in_order() -> None:
    shop = shop_with("- {where: x == 1, value: 1}\n- {where: y == 1, value: 9}\n- {where: x == 1, value: 1}")
    first, other, second = (rule.id for rule in shop.setting("a").rules)
    apply_twice(
        shop, setting("- {where: y == 1, value: 9}\n- {where: x == 1, value: 1}\n- {where: x == 1, value: 1}")
    )
    assert [rule.id for rule in shop.setting("a").rules] == [other, first, second]


def test_rules_with_an_id_claim_theirs_first() -> None:
    shop = shop_with("- {id: one, where: x == 1, value: 1}\n- {id: two, where: x == 1, value: 1}")
    apply_twice(shop, setting("- {where: x == 1, value: 1}\n- {id: one, where: x == 1, value: 1}"))
    assert [rule.id for rule in shop.setting("a").rules] == ["two", "one"]


def test_stored_rules_that_match_nothing_are_removed_without_pruning() -> None:
    shop = shop_with("- {id: one, where: x == 1, value: 1}\n- {id: two, where: x == 2, value: 2}")
    assert apply_twice(shop, setting("- {id: two}")) == [DeleteRule("a", "one", "production")]
    assert apply_twice(shop, "settings: {a: {environments: {production: {rules: []}}}}") == [
        DeleteRule("a", "two", "production")
    ]


def test_absent_salts_algorithms_and_enabled_keep_what_is_stored() -> None:
    shop = shop_with(
        "- {id: p, where: 'percent(u, salt=\"s\", algorithm=REPLANE) < 10', value: 1, enabled: false}\n"
        "- {id: q, split: {unit: u, salt: t, algorithm: REPLANE, "
        "variants: [{name: v, weight: 100%, value: 1}]}}"
    )
    same_file = setting(
        "- {where: percent(u) < 10, value: 1}\n"
        "- {split: {unit: u, variants: [{name: v, weight: 100%, value: 1}]}}"
    )
    assert list(shop.planned(same_file)) == []
    # A rollout that grows keeps its units, found by its outcome at the same place.
    apply_twice(shop, same_file.replace("< 10", "< 25").replace("value: 1}]", "value: 2}]"))
    grown, split = shop.setting("a").rules
    assert isinstance(grown.condition, Percentage)
    assert (grown.id, grown.condition.salt, grown.condition.algorithm.name) == ("p", "s", "REPLANE")
    assert grown.condition.end == 25_000
    assert not grown.enabled
    assert isinstance(split.outcome, Distribution)
    assert (split.outcome.salt, split.outcome.algorithm.name) == ("t", "REPLANE")


def test_an_absent_salt_becomes_the_name_of_the_setting() -> None:
    shop = shop_with("- {where: percent(u) < 10, value: 1}")
    assert listed(shop)[0][1] == 'percent(u, salt="a") < 10'
    assert list(shop.planned(setting("- {where: percent(u) < 10, value: 1}"))) == []


def test_rules_that_leave_nothing_open_choose_first() -> None:
    shop = shop_with("- {id: s, where: 'percent(u, salt=\"s\", algorithm=MURMUR3) < 10', value: 1}")
    apply_twice(
        shop,
        setting(
            "- {where: percent(u) < 10, value: 1}\n"
            "- {where: 'percent(u, salt=\"s\", algorithm=MURMUR3) < 10', value: 1}"
        ),
    )
    assert listed(shop) == [
        ("new2", 'percent(u, salt="a") < 10', 1),
        ("s", 'percent(u, salt="s") < 10', 1),
    ]


def test_new_rules_with_and_without_an_id_come_to_their_places() -> None:
    shop = shop_with("- {id: k, where: x == 0, value: 0}\n- {id: l, where: x == 9, value: 9}")
    apply_twice(
        shop,
        setting(
            "- {where: x == 1, value: 1}\n- {id: n, where: x == 2, value: 2}\n- {where: x == 3, value: 3}\n"
            "- {id: l}\n- {where: x == 4, value: 4}\n- {id: k}\n- {id: m, where: x == 5, value: 5}\n"
            "- {where: x == 6, value: 6}\n- {where: x == 7, value: 7}"
        ),
    )
    assert [value for _, _, value in listed(shop)] == [1, 2, 3, 9, 4, 0, 5, 6, 7]


def test_rules_of_a_new_type_replace_those_that_it_refuses() -> None:
    shop = shop_with("- {id: r, where: x == 1, value: 1}\n- {id: s, where: x == 2, value: 2}")
    apply_twice(
        shop,
        HEAD
        + "settings:\n  a:\n    type: str\n    default: x\n    environments:\n      production:\n"
        + "        rules: [{id: s, where: x == 2, value: two}, {id: r, where: x == 1, value: one}]\n",
    )
    assert listed(shop) == [("s", "x == 2", "two"), ("r", "x == 1", "one")]


def test_a_widened_type_keeps_its_rules() -> None:
    shop = shop_with("- {where: x == 1, value: 1}")
    apply_twice(shop, setting("- {where: x == 1, value: 1}").replace("int", "float"))
    assert repr(listed(shop)) == "[('new2', 'x == 1', 1.0)]"


def test_rules_ordered_by_specificity_are_never_placed() -> None:
    shop = Shop()
    rules = "- {where: a == 1, value: 1}\n- {where: b == 1, value: 2}\n- {value: 3}"
    head = HEAD + "features: [a, b]\n"
    mutations = apply_twice(shop, setting(rules, "order: specificity", head))
    assert all(not m.before_id for m in mutations if isinstance(m, PutRule))
    assert [value for _, _, value in listed(shop)] == [2, 1, 3]
    assert list(shop.planned(setting("\n".join(reversed(rules.splitlines())), "", head))) == []
    # Back to the order of the document.
    apply_twice(shop, setting(rules, "order: stored", head))
    assert shop.setting("a").order is Order.STORED
    assert [value for _, _, value in listed(shop)] == [1, 2, 3]


@given(st.permutations(list("abcdefg")))
def test_moves_bring_any_order_into_another_and_are_few(wanted: list[str]) -> None:
    order = list("abcdefg")
    moves = in_order(order, wanted)
    for move in moves:
        order.remove(move.id)
        order.insert(order.index(move.before) if move.before else order.index(move.after) + 1, move.id)
    assert order == list(wanted)
    rising = [1] * 7
    for i in range(7):
        rising[i] += max((rising[j] for j in range(i) if wanted[j] < wanted[i]), default=0)
    assert len(moves) == 7 - max(rising)


# Names.


def test_a_setting_is_found_by_its_alias_and_keeps_its_name() -> None:
    shop = shop_with("", "aliases: [old]")
    apply_twice(shop, "settings: {old: {owner: me}}")
    assert shop.names() == {"a"}
    assert shop.setting("a").owner == "me"


def test_a_former_name_among_the_aliases_renames() -> None:
    shop = shop_with("", "aliases: [older]")
    mutations = apply_twice(shop, HEAD + "settings:\n  b: {aliases: [a], version: '2.0'}\n")
    assert mutations[0] == RenameSetting("a", "b", "production")
    assert shop.names() == {"b"}
    assert shop.setting("b").aliases == ("a",)
    assert shop.setting("b").version == Version(2, 0)


def test_renaming_back_is_a_renaming_too() -> None:
    shop = shop_with("", "aliases: [b]")
    apply_twice(shop, HEAD + "settings:\n  b: {aliases: [a]}\n")
    assert (shop.setting("b").name, shop.setting("b").aliases) == ("b", ("a",))


@pytest.mark.parametrize("reference", ["a", "b"])
def test_rules_that_refer_to_a_renamed_setting_stay_the_same(reference: str) -> None:
    shop = shop_with("")
    user = (
        "  z: {type: int, default: 0, environments: {production: "
        '{rules: [{where: setting("a") == 1, value: 1}]}}}\n'
    )
    shop.apply(HEAD + "settings:\n" + user)
    rule = shop.setting("z").rules[0].id
    apply_twice(shop, HEAD + "settings:\n  b: {aliases: [a]}\n" + user.replace('"a"', f'"{reference}"'))
    (found,) = shop.setting("z").rules
    assert found.condition is not None
    assert format_condition(found.condition) == f'setting("{reference}") == 1'
    if reference == "b":
        assert found.id == rule


def test_two_entries_for_one_setting_are_refused() -> None:
    shop = shop_with("", "aliases: [b]")
    with pytest.raises(InvalidDocumentError, match="the setting of 'a' too"):
        shop.planned("settings: {a: {owner: x}, b: {owner: y}}")


# Segments, features and pruning.


def test_segments_come_before_and_go_after_the_rules_that_use_them() -> None:
    shop = Shop()
    text = setting(
        '- {where: segment("s") and segment("t"), value: 1}',
        "",
        HEAD + 'segments: {s: x == 1, t: {where: segment("s"), description: d}}\n',
    )
    apply_twice(shop, text)
    mutations = apply_twice(
        shop,
        setting("- {value: 1}", "", HEAD + "segments: {s: percent(u) < 1}\n"),
        prune=True,
    )
    assert mutations[-1] == DeleteSegment("t")
    assert shop.project is not None
    assert format_condition(shop.project.segments["s"].condition) == 'percent(u, salt="s") < 1'


def test_features_that_a_list_leaves_out_keep_their_places_until_pruned() -> None:
    shop = Shop()
    shop.apply(HEAD + "features: [a, b, c, d]\n")
    apply_twice(shop, "features: [d, a]")
    assert shop.features() == ("d", "a", "b", "c")
    apply_twice(shop, "features: [e, a]")
    assert shop.features() == ("d", "e", "a", "b", "c")
    apply_twice(shop, "features: [c, a]", prune=True)
    assert shop.features() == ("c", "a")


def test_pruning_deletes_what_the_listed_sections_leave_out() -> None:
    shop = Shop()
    shop.apply(
        "project: shop\nenvironments: [production, staging]\nfeatures: [f]\nsegments: {s: x == 1}\n"
        "settings:\n  a: {type: int, default: 1}\n  b: {type: int, default: 1}\n"
    )
    assert list(shop.planned("project: shop\n", prune=True)) == []
    keep = "project: shop\nenvironments: [production]\nsettings:\n  a: {owner: x}\n"
    mutations = apply_twice(shop, keep, prune=True)
    assert DeleteSetting("b", "production") in mutations
    assert (shop.names("production"), shop.names("staging")) == ({"a"}, {"a", "b"})
    assert shop.project is not None
    assert set(shop.project.segments) == {"s"}
    apply_twice(shop, "settings: {}\nsegments: {}\nfeatures: []", prune=True)
    assert (shop.names("production"), shop.names("staging")) == (set(), set())
    assert set(shop.project.environments) == {"production", "staging"}
    assert (shop.project.segments, shop.features()) == ({}, ())


def test_pruning_keeps_what_code_declared_unless_told() -> None:
    shop = shop_with("")
    shop.change(replace(shop.setting("a"), declared=True))
    assert list(shop.planned("settings: {}", prune=True)) == []
    assert shop.project is not None
    document = parse_document("settings: {}")
    assert plan_apply(document, shop.project, prune=True, is_recent=lambda _, s: s.name != "a") == [
        DeleteSetting("a", "production")
    ]
    assert list(shop.planned("settings: {}", prune="declared")) == [DeleteSetting("a", "production")]


def test_a_pruned_setting_gives_its_name_to_another() -> None:
    shop = shop_with("")
    shop.apply(HEAD + "settings:\n  b: {type: int, default: 1}\n")
    apply_twice(shop, HEAD + "settings:\n  b: {aliases: [a]}\n", prune=True)
    assert shop.names() == {"b"}


def test_a_version_and_a_type_change_together_are_one_mutation() -> None:
    shop = shop_with("")
    mutations = apply_twice(
        shop, setting("", "version: '1.1'").replace("int", "str").replace("default: 0", "default: x")
    )
    assert mutations == [
        PutSetting("a", {"type": "str", "default": "x", "version": Version(1, 1)}, "production")
    ]
