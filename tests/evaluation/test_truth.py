from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.evaluation.truth import Truth, all_of, any_of, negate

T, F, U = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN
truths = st.lists(st.sampled_from(Truth), max_size=6)


@pytest.mark.parametrize(
    ("left", "right", "conjunction", "disjunction"),
    [
        (T, T, T, T),
        (T, F, F, T),
        (T, U, U, T),
        (F, F, F, F),
        (F, U, F, U),
        (U, U, U, U),
    ],
)
def test_the_tables_are_kleenes(left: Truth, right: Truth, conjunction: Truth, disjunction: Truth) -> None:
    assert all_of([left, right]) is all_of([right, left]) is conjunction
    assert any_of([left, right]) is any_of([right, left]) is disjunction


def test_negation_leaves_unknown_alone() -> None:
    assert [negate(truth) for truth in (T, F, U)] == [F, T, U]


@given(truths)
def test_de_morgan_holds(parts: list[Truth]) -> None:
    assert negate(all_of(parts)) is any_of(map(negate, parts))
    assert negate(any_of(parts)) is all_of(map(negate, parts))


@given(truths, truths)
def test_grouping_does_not_matter(left: list[Truth], right: list[Truth]) -> None:
    assert all_of([all_of(left), all_of(right)]) is all_of(left + right)
    assert any_of([any_of(left), any_of(right)]) is any_of(left + right)


@given(truths)
def test_learning_more_never_turns_an_answer_round(parts: list[Truth]) -> None:
    """Whatever the unknown parts turn out to be, a known result stays."""
    for connective in (all_of, any_of):
        before = connective(parts)
        choices = [(T, F) if part is U else (part,) for part in parts]
        after = {connective(learned) for learned in itertools.product(*choices)}
        assert before is U or after == {before}


def test_a_truth_is_not_taken_for_a_bool() -> None:
    with pytest.raises(TypeError, match="three values"):
        bool(U)
