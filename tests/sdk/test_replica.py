"""What this process reads of what was delivered: who is affected, overrides, declarations, frozen views."""

from __future__ import annotations

import dataclasses
import random
import threading

import pytest

from rheostat import Setting as Declared
from rheostat.errors import TypeMismatchError
from rheostat.evaluation.result import Reason
from rheostat.model.setting import Segment
from rheostat.model.type import JSON, STR
from rheostat.model.value import ABSENT
from tests.sdk.state import State, setting
from tests.service.book import equals, in_segment, on, rule

EU = Segment("eu", equals("region", "eu"))


def test_reads_that_run_a_program_never_run_one_of_an_earlier_state() -> None:
    """The programs that reads find without a call are the ones of the view, whatever changed meanwhile."""
    chosen = random.Random(7)
    state = State(
        *(setting(f"s{n}", n) for n in range(4)),
        *(setting(f"r{n}", rules=(rule("r", 9, on(f"s{n}", n)),)) for n in range(4)),
        setting("member", rules=(rule("r", 1, in_segment("seg")),)),
        Segment("seg", equals("plan", "pro")),
    )
    shown = state.replica.view.snapshot.settings
    names = [*shown, "other", "again"]
    for step in range(400):
        for name in chosen.sample(names, 4):
            state.reader.get(name, plan="pro")
        match chosen.randrange(4):
            case 0:
                state.write(setting(f"s{chosen.randrange(4)}", step))
            case 1:
                state.write(Segment("seg", equals("plan", chosen.choice(["pro", "free"]))))
            case 2:
                current = chosen.choice(sorted(state.replica.view.snapshot.settings))
                new = chosen.choice(["other", "again", "s1", "r2"])
                if new not in state.replica.view.snapshot.settings:
                    state.rename(state.replica.view.snapshot.settings[current], new)
            case _:
                state.replica.override({"s3": step})
        view = state.replica.view
        assert state.replica.programs is view.programs
        assert all(view._programs.get(name) is program for name, program in view.programs.items())
        if step % 50 == 0:
            state.replica.forget_read()
            assert not state.replica.programs


def test_a_setting_whose_value_changes_is_affected_and_no_other() -> None:
    state = State(setting("a"), setting("b"))
    assert state.write(setting("a", 1)) == {"a"}


def test_one_whose_description_changes_is_not_affected() -> None:
    state = State(setting("a"))
    assert state.write(setting("a", description="what it is for", owner="team")) == frozenset()


@pytest.mark.parametrize(
    "after",
    [
        setting("a", enabled=False),
        setting("a", off=3),
        setting("a", rules=(rule("r", 1, equals("region", "eu")),)),
        setting("a", True, type_=JSON),
        setting("a", 0.0, type_=JSON),
    ],
    ids=["disabled", "off value", "rule", "bool", "float"],
)
def test_whatever_can_change_its_value_affects_it(after: object) -> None:
    state = State(setting("a", 0, type_=JSON))
    assert state.write(after) == {"a"}  # type: ignore[arg-type]


def test_those_that_refer_to_it_are_affected_directly_and_through_others() -> None:
    state = State(
        setting("a"),
        setting("b", rules=(rule("r", 1, on("a")),)),
        setting("c", rules=(rule("r", 1, on("b")),)),
        setting("d"),
    )
    assert state.write(setting("a", 1)) == {"a", "b", "c"}
    # Who refers to it is asked anew after each change.
    state.write(setting("b"), setting("d", rules=(rule("r", 1, on("a")),)))
    assert state.write(setting("a", 2)) == {"a", "d"}


def test_a_segment_affects_those_that_are_in_it_also_through_other_segments() -> None:
    state = State(
        EU,
        Segment("beta", in_segment("eu")),
        setting("a", rules=(rule("r", 1, in_segment("eu")),)),
        setting("b", rules=(rule("r", 1, in_segment("beta")),)),
        setting("c"),
    )
    assert state.write(Segment("eu", equals("region", "us"))) == {"a", "b"}
    assert state.write(Segment("eu", equals("region", "us"), "said otherwise")) == frozenset()
    # What referred to it once is affected no more.
    state.write(setting("a"))
    assert state.write(EU) == {"b"}


def test_a_segment_that_refers_to_a_setting_passes_its_change_on() -> None:
    state = State(setting("a"), Segment("s", on("a")), setting("b", rules=(rule("r", 1, in_segment("s")),)))
    assert state.write(setting("a", 1)) == {"a", "b"}


def test_a_rename_affects_nobody_where_the_value_stays() -> None:
    before = setting("a", 5)
    state = State(before, setting("user", rules=(rule("r", 1, on("a")),)))
    affected = state.rename(before, "b")
    assert not affected & {"a", "b"}
    assert state.reader["a"] == state.reader["b"] == 5


def test_a_rename_with_another_value_affects_both_names() -> None:
    before = setting("a", 5)
    state = State(before)
    changed = dataclasses.replace(before, name="b", aliases=("a",), value=6)
    assert state.write(changed, gone=["a"]) >= {"a", "b"}


def test_a_deleted_setting_is_affected() -> None:
    state = State(setting("a", 5))
    assert state.write(gone=["a"]) == {"a"}
    assert "a" not in state.reader


def test_an_override_wins_over_rules_and_switches_until_it_is_cleared() -> None:
    state = State(setting("a", 1, rules=(rule("r", 2),), enabled=False, off=3))
    assert state.reader["a"] == 3
    state.replica.override({"a": 9})
    found = state.reader.evaluate("a")
    assert (found.value, found.reason, found.variant) == (9, Reason.STATIC, "override")
    state.write(setting("a", 4))
    assert state.reader["a"] == 9
    state.replica.clear_overrides(["a", "unknown"])
    assert state.reader["a"] == 4
    assert state.reader.evaluate("a").variant != "override"


def test_an_override_of_an_absent_setting_is_a_setting_for_this_process() -> None:
    state = State()
    state.replica.override({"new": "x"})
    assert state.reader["new"] == "x"
    state.replica.clear_overrides()
    assert "new" not in state.reader


def test_an_override_stays_with_a_setting_that_is_renamed_deleted_and_made_again() -> None:
    before = setting("a", 1)
    state = State(before)
    state.replica.override({"a": 9})
    state.rename(before, "b")
    assert state.reader["a"] == state.reader["b"] == 9
    state.write(gone=["b"])
    assert state.reader["a"] == 9, "the name that was given is overridden still"
    state.write(setting("a", 2))
    assert state.reader["a"] == 9
    state.replica.clear_overrides()
    assert state.reader["a"] == 2
    assert "b" not in state.reader


def test_an_override_by_an_alias_is_one_of_the_setting() -> None:
    state = State(setting("b", 1, aliases=("a",)))
    state.replica.override({"a": 9})
    assert state.reader["b"] == state.reader["a"] == 9
    state.replica.clear_overrides(["a"])
    assert state.reader["b"] == state.reader["a"] == 1


def test_an_override_that_is_no_value_changes_nothing() -> None:
    state = State(setting("a", 1))
    with pytest.raises(TypeMismatchError, match="the override of 'b'"):
        state.replica.override({"a": 2, "b": object()})
    assert state.reader["a"] == 1
    assert not state.replica.overrides


def test_an_override_is_a_copy_of_what_was_given() -> None:
    state = State()
    given = {"x": [1]}
    state.replica.override({"a": given})
    given["x"].append(2)
    assert state.reader["a"] == {"x": (1,)}


def test_a_declared_type_is_what_an_override_has_to_fit() -> None:
    state = State(setting("a", 1))
    state.core.declare([Declared("a", int, default=7)])
    with pytest.raises(TypeMismatchError, match="'a'"):
        state.replica.override({"a": "text"})
    assert state.reader["a"] == 1


def test_a_value_that_does_not_fit_its_declaration_gives_the_local_default() -> None:
    declared = Declared("a", int, default=7)
    state = State(setting("a", "text", type_=STR))
    assert state.reader["a"] == "text"
    state.core.declare([declared])
    assert state.reader.read_setting(declared, ABSENT, None, {}) == 7
    state.write(setting("a", 3))
    assert state.reader.read_setting(declared, ABSENT, None, {}) == 3
    state.write(gone=["a"])
    assert state.reader.read_setting(declared, ABSENT, None, {}) == 7


def test_a_declaration_by_an_alias_fits_the_setting_of_that_name() -> None:
    declared = Declared("b", int, default=7, alias="a")
    state = State(setting("a", "text", type_=STR))
    state.core.declare([declared])
    assert state.reader.get("a") == 7, "what does not fit is no value here"


def test_a_frozen_view_stays_and_nothing_is_lost() -> None:
    state = State(setting("a"), setting("b"), EU)
    with state.replica.frozen():
        published = len(state.publications)
        state.write(setting("a", 1))
        with state.replica.frozen():
            state.write(setting("a", 2), gone=["b"])
        state.write(setting("c", 3))
        assert (state.reader["a"], "b" in state.reader, "c" in state.reader) == (0, True, False)
        assert len(state.publications) == published
        assert state.replica.held.revision == state.revision, "the stream goes on"
    assert (state.reader["a"], "b" in state.reader, state.reader["c"]) == (2, False, 3)
    assert len(state.publications) == published + 1
    assert state.publications[-1].affected == {"a", "b", "c"}
    assert state.reader.revision == state.revision


def test_a_block_that_fails_thaws_the_view() -> None:
    state = State(setting("a"))
    with pytest.raises(ZeroDivisionError), state.replica.frozen():
        state.write(setting("a", 1))
        _ = 1 / 0
    assert state.reader["a"] == 1


def test_every_read_belongs_to_one_revision_while_changes_arrive() -> None:
    state = State(*(setting(name, 0) for name in "abcd"))
    ending = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not ending.is_set():
            pinned = state.reader.pin()
            found = {pinned[name] for name in "abcd"}
            if len(found) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for value in range(300):
        state.write(*(setting(name, value) for name in "abcd"))
    ending.set()
    for thread in threads:
        thread.join(10)
    assert not wrong
