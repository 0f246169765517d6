"""What a plan warns of: the analysis of the rules that it touches, at the mutations that put them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from rheostat.errors import InvalidConditionError
from rheostat.language import parse_condition
from rheostat.model.change import DeleteRule, MoveRule, PlanWarning, SetValue
from rheostat.model.value import FrozenMapping
from rheostat.service.plan import Plan, plan
from rheostat.service.review import MAX_FINDINGS
from tests.service.book import Book, put, put_rule, put_segment, rule, split


def warned(made: Plan) -> list[tuple[str, int]]:
    return [(warning.code, warning.mutation) for warning in made.warnings]


def a_book(*conditions: str, environments: tuple[str, ...] = ("production",)) -> Book:
    """A setting `s` with rules r1, r2 and so on."""
    book = Book(*environments)
    for slug in environments:
        book.do(put("s", environment=slug))
        for number, text in enumerate(conditions, 1):
            book.do(put_rule("s", rule(f"r{number}", number, parse_condition(text)), environment=slug))
    return book


def test_a_rule_that_never_matches_is_a_warning_at_the_mutation_that_puts_it() -> None:
    book = a_book()
    made = book.plan(
        put_rule("s", rule("fine", 1, parse_condition("a == 1"))),
        put_rule("s", rule("dead", 2, parse_condition("a == 1 and a == 2"))),
        put_rule("s", rule("late", 3, parse_condition("b == 1"))),
    )
    assert made.warnings == (
        PlanWarning(
            "RULE_NEVER_MATCHES",
            "in 'production', rule 2 ('dead') of the setting 's' never matches: `a == 1` and `a == 2` never hold "
            "together",
            1,
        ),
    )
    assert book.apply(made).changes


def test_a_hidden_rule_comes_with_a_context_that_shows_it() -> None:
    made = a_book("exists(a)").plan(put_rule("s", rule("r2", 2, parse_condition("a == 1"))))
    (warning,) = made.warnings
    assert (warning.code, warning.mutation) == ("RULE_HIDDEN", 0)
    assert warning.context == FrozenMapping({"a": 1})


def test_a_rule_that_a_move_hides_is_found() -> None:
    book = a_book("a == 1", "exists(a)")
    assert warned(book.plan(MoveRule("s", "r2", before_id="r1"))) == [("RULE_HIDDEN", 0)]
    assert warned(book.plan(DeleteRule("s", "r1"))) == []


def test_what_does_not_touch_the_rules_is_not_analysed_again() -> None:
    book = a_book("exists(a)", "a == 1")
    assert warned(book.plan(SetValue("s", 7))) == []
    assert warned(book.plan(put("other"))) == []


def test_a_split_with_another_salt_tells_the_share_of_units_that_move() -> None:
    book = a_book()
    book.do(put_rule("s", replace(rule("r1"), outcome=split(50_000, 50_000))))
    changed = replace(rule("r1"), outcome=split(50_000, 50_000, salt="other"))
    (warning,) = book.plan(put_rule("s", changed)).warnings
    assert warning.code == "ROLLOUT_MOVES_UNITS" and "about 50 % of its units" in warning.message
    assert warning.context is not None and "user.id" in warning.context


def test_each_environment_has_its_own_warnings() -> None:
    book = a_book("exists(a)", environments=("production", "staging"))
    made = book.plan(
        put_rule("s", rule("r2", 2, parse_condition("a == 1")), environment="staging"),
        put_rule("s", rule("r2", 2, parse_condition("b == 1")), environment="production"),
    )
    assert warned(made) == [("RULE_HIDDEN", 0)]
    assert made.warnings[0].message.startswith("in 'staging', rule 2 ('r2') ")


def test_segments_are_analysed_where_they_are_put() -> None:
    book = a_book()
    made = book.plan(put_segment("g", parse_condition("a == 1 and a == 2")))
    assert [(w.code, w.mutation, w.message) for w in made.warnings] == [
        (
            "CONDITION_NEVER_HOLDS",
            0,
            "the segment 'g' holds for nobody: `a == 1` and `a == 2` never hold together",
        )
    ]
    book.do(put_segment("g", parse_condition('percent(user.id, salt="s") < 50')))
    made = book.plan(put_segment("g", parse_condition('percent(user.id, salt="t") < 50')))
    assert warned(made) == [("ROLLOUT_MOVES_UNITS", 0)]


def test_a_rule_is_judged_with_the_segments_of_the_same_change_set() -> None:
    made = a_book().plan(
        put_rule("s", rule("r1", 1, parse_condition('segment("g") and a == 2'))),
        put_segment("g", parse_condition("a == 1")),
    )
    assert warned(made) == [("RULE_NEVER_MATCHES", 0)]


def test_a_way_back_is_analysed_too_and_names_no_mutation() -> None:
    book = a_book("exists(a)")
    book.do(put_rule("s", rule("r2", 2, parse_condition("a == 1"))))
    gone = book.do(DeleteRule("s", "r2"))
    assert warned(book.revert(gone)) == [("RULE_HIDDEN", -1)]


def test_a_plan_that_takes_too_long_says_what_was_not_analysed() -> None:
    book = a_book()
    ticks = itertools.count(0.0, 0.3)
    made = plan(
        book.state,
        "shop",
        "production",
        [
            mutation
            for number in range(9)
            for mutation in (
                put(f"s{number}"),
                put_rule(f"s{number}", rule("r1", 1, parse_condition("a in []"))),
            )
        ],
        revision=book.revision + 1,
        new_id=book.new_id,
        clock=lambda: next(ticks),
    )
    assert [change.key for change in made.changes] == [f"s{number}" for number in range(9)]
    assert made.warnings[-1].code == "ANALYSIS_INCOMPLETE"
    assert made.warnings[-1].message.endswith("were not analysed: the change-set has too many")


def test_no_more_findings_are_listed_than_anybody_reads() -> None:
    book = a_book()
    made = book.plan(
        *(put_rule("s", rule(f"r{i}", i, parse_condition("a in []"))) for i in range(MAX_FINDINGS + 5))
    )
    assert len(made.warnings) == MAX_FINDINGS + 1
    assert made.warnings[-1].code == "FINDINGS_OMITTED"
    assert made.warnings[-1].message == "the analysis found 5 more things than are listed here"


def test_what_refuses_a_rule_is_placed_at_the_mutation_that_puts_it() -> None:
    book = a_book()
    with pytest.raises(InvalidConditionError) as raised:
        book.plan(
            put_rule("s", rule("r1", 1, parse_condition('segment("gone")'))),
            put_rule("s", rule("r2", 2, parse_condition("a == 1"))),
        )
    assert [violation.field for violation in raised.value.violations] == ["mutations[0]"]
    with pytest.raises(InvalidConditionError) as raised:
        book.plan(
            put_rule("s", rule("r1", 1, parse_condition('setting("gone") == 1'))),
            put_rule("s", rule("r2", 2, parse_condition("a == 1"))),
        )
    assert raised.value.metadata["field"] == "mutations[0]"
