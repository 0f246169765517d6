"""What moved, and for how many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rheostat.cli.diff import change_lines, moved_rules, share_moved
from rheostat.evaluation import bucket
from rheostat.language import parse_condition
from rheostat.model.change import Change
from rheostat.model.condition import BUCKETS, BucketAlgorithm
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Setting
from rheostat.model.type import FLOAT


def rules(*ids):
    return [Rule(id_, ValueOutcome(1.0)) for id_ in ids]


def lines(before, after):
    return "\n".join(str(line) for line in change_lines(Change("p", "e", "setting", "s", before, after)))


def split(*weights, salt="s"):
    variants = tuple(Variant(f"v{i}", weight * 1000, float(i)) for i, weight in enumerate(weights))
    return Rule("r", Distribution("user.id", salt, variants))


def percent(text, value=1.0):
    return Rule("r", ValueOutcome(value), parse_condition(text))


@given(st.permutations(list("abcdefg")))
def test_the_fewest_rules_that_explain_the_order_have_moved(order):
    moved = moved_rules(rules(*"abcdefg"), rules(*order))
    still = [rule_id for rule_id in order if rule_id not in moved]
    assert still == sorted(still)
    longest = [1] * len(order)
    for i, rule_id in enumerate(order):
        longest[i] += max((longest[j] for j in range(i) if order[j] < rule_id), default=0)
    assert len(still) == max(longest)


def test_one_rule_to_the_end_is_one_move():
    assert moved_rules(rules("a", "b", "c"), rules("b", "c", "a")) == {"a"}


def test_widening_a_rollout_moves_what_it_adds():
    assert share_moved(percent('percent(u, salt="s") < 10'), percent('percent(u, salt="s") < 25')) == 15_000
    assert (
        share_moved(
            percent('a == 1 and percent(u, salt="s") < 10'), percent('a == 1 and percent(u, salt="s") < 5')
        )
        == 5_000
    )


def test_another_value_moves_the_whole_share():
    assert share_moved(percent("percent(u) < 10"), percent("percent(u) < 10", 2.0)) == 10_000


def test_a_split_moves_the_buckets_whose_variant_differs():
    assert share_moved(split(50, 50), split(25, 75)) == 25_000
    assert share_moved(split(50, 50), split(50, 50)) is None


def test_another_salt_mixes_all_buckets_anew():
    share = share_moved(split(25, 75), split(25, 75, salt="t"))
    units = [f"u{i}" for i in range(4_000)]
    edges = [
        [bucket(BucketAlgorithm.MURMUR3, salt, unit) < BUCKETS // 4 for unit in units] for salt in ("s", "t")
    ]
    measured = sum(a != b for a, b in zip(*edges, strict=True)) / len(units) * BUCKETS
    assert abs(share - measured) < BUCKETS * 0.03


def test_what_cannot_be_compared_has_no_share():
    assert share_moved(percent("a == 1 and percent(u) < 10"), percent("a == 2 and percent(u) < 20")) is None
    assert share_moved(percent("percent(u) < 10"), percent("percent(v) < 10")) is None
    assert share_moved(rules("a")[0], percent("percent(u) < 10")) is None


def test_lines_say_what_was_and_what_is():
    before = Setting("i", "s", FLOAT, 1.0, rules=tuple(rules("a", "b")))
    after = Setting(
        "i", "s", FLOAT, 1.0, value=2.0, enabled=False, rules=(rules("b")[0], percent("percent(u) < 5"))
    )
    text = lines(before, after)
    assert "value: - → 2.0" in text
    assert "enabled: true → false" in text
    assert "- rule 1 (a): always → 1.0" in text
    assert "+ rule 2 (r): where percent(u) < 5 → 1.0" in text
    assert "moved" not in text


def test_a_new_setting_shows_what_it_has_and_a_deleted_one_only_its_name():
    setting = Setting("i", "s", FLOAT, 1.0, owner="ann")
    assert lines(None, setting).splitlines()[0] == "+ setting s in e"
    assert 'owner: "ann"' in lines(None, setting) and "tags" not in lines(None, setting)
    assert lines(setting, None) == "- setting s in e"


def test_long_values_are_cut_but_differences_are_seen():
    before, after = (Setting("i", "s", FLOAT, 1.0, description="x" * 300 + end) for end in "ab")
    assert "description: " in lines(before, after)
    assert max(map(len, lines(before, after).splitlines())) < 300
