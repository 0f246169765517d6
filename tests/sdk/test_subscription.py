"""Who is told of what, in which order, and how often."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from rheostat.model.value import ABSENT
from rheostat.sdk.subscription import SettingChange
from tests.sdk.state import State, setting
from tests.service.book import equals, on, rule


def brief(changes: list[SettingChange[Any]]) -> list[tuple[object, ...]]:
    return [(change.name, change.before, change.after) for change in changes]


def test_each_change_is_told_once_in_order() -> None:
    state = State(setting("a"))
    state.subscribe("a")
    for value in (1, 2, 3):
        state.write(setting("a", value))
    assert brief(state.tell()) == [("a", 0, 1), ("a", 1, 2), ("a", 2, 3)]
    assert state.tell() == []


def test_what_was_before_the_subscription_is_not_told() -> None:
    state = State(setting("a"))
    state.write(setting("a", 1))
    state.subscribe("a")
    assert state.tell() == []


def test_subscribers_to_everything_are_told_of_each_setting_of_a_revision() -> None:
    state = State(setting("a"), setting("b"), setting("c"))
    state.subscribe()
    state.write(setting("a", 1), setting("b", 2))
    changes = state.tell()
    assert brief(changes) == [("a", 0, 1), ("b", 0, 2)]
    assert {change.revision for change in changes} == {2}


def test_a_new_and_a_deleted_setting_are_told_as_such() -> None:
    state = State()
    state.subscribe("a")
    state.write(setting("a", None, type_=setting("a").type))
    state.write(gone=["a"])
    new, gone = state.tell()
    assert (new.created, new.deleted, new.before) == (True, False, ABSENT)
    assert (gone.created, gone.deleted, gone.after) == (False, True, ABSENT)


def test_a_rename_is_told_to_neither_name() -> None:
    before = setting("a", 5)
    state = State(before)
    for name in ("a", "b", None):
        state.subscribe(name)
    state.rename(before, "b")
    assert state.tell() == []


def test_a_rename_with_another_value_is_told_once_to_each() -> None:
    before = setting("a", 5)
    state = State(before)
    for name in ("a", "b", None):
        state.subscribe(name)
    state.write(dataclasses.replace(before, name="b", aliases=("a",), value=6), gone=["a"])
    assert brief(state.tell()) == [("a", 5, 6), ("b", 5, 6), ("b", 5, 6)]


def test_a_name_that_becomes_an_alias_of_a_setting_is_told() -> None:
    state = State(setting("b", 5))
    for name in ("a", "b", None):
        state.subscribe(name)
    state.write(setting("b", 5, aliases=("a",)))
    assert brief(state.tell()) == [("a", ABSENT, 5)]


def test_subscribers_by_an_alias_are_told_under_that_name() -> None:
    state = State(setting("b", 5, aliases=("a",)))
    state.subscribe("a")
    state.write(setting("b", 6, aliases=("a",)))
    assert brief(state.tell()) == [("a", 5, 6)]


def test_what_other_contexts_get_is_told_with_equal_values() -> None:
    state = State(setting("a", 0))
    state.subscribe("a")
    state.write(setting("a", 0, rules=(rule("r", 1, equals("region", "eu")),)))
    assert brief(state.tell()) == [("a", 0, 0)]


def test_those_that_refer_to_a_setting_are_told_of_its_change() -> None:
    state = State(setting("a"), setting("b", rules=(rule("r", 7, on("a")),)))
    state.subscribe("b")
    state.write(setting("a", 1))
    assert brief(state.tell()) == [("b", 0, 7)]


def test_the_values_told_are_those_of_their_revision_and_not_of_the_newest() -> None:
    state = State(setting("a"))
    seen = []
    state.reader.subscribe("a", lambda change: seen.append((change.after, state.reader["a"])))
    state.write(setting("a", 1))
    state.write(setting("a", 2))
    state.tell()
    assert seen == [(1, 2), (2, 2)]


def test_an_ended_subscription_is_told_nothing_more_not_even_what_is_queued() -> None:
    state = State(setting("a"))
    stop = state.subscribe("a")
    state.write(setting("a", 1))
    stop()
    stop()
    assert state.tell() == []


def test_a_callback_may_end_itself_and_others() -> None:
    state = State(setting("a"))
    seen: list[str] = []
    stops: dict[str, Any] = {}

    def first(change: object) -> None:
        seen.append("first")
        stops["first"]()
        stops["second"]()

    stops["first"] = state.reader.subscribe("a", first)
    stops["second"] = state.reader.subscribe("a", lambda change: seen.append("second"))
    state.write(setting("a", 1))
    state.write(setting("a", 2))
    state.tell()
    assert seen == ["first"]


def test_overrides_and_their_end_are_told() -> None:
    state = State(setting("a", 1))
    state.subscribe("a")
    state.replica.override({"a": 5})
    state.replica.override({"a": 5})
    state.replica.clear_overrides()
    assert brief(state.tell()) == [("a", 1, 5), ("a", 5, 1)]


def test_a_deleted_setting_that_is_overridden_has_not_changed() -> None:
    state = State(setting("a", 1))
    state.replica.override({"a": 5})
    state.subscribe("a")
    state.write(gone=["a"])
    assert state.reader["a"] == 5
    assert brief(state.tell()) in ([], [("a", 5, 5)])
    state.replica.clear_overrides()
    assert brief(state.tell()) == [("a", 5, ABSENT)]


def test_a_frozen_view_is_told_as_one_step() -> None:
    state = State(setting("a"))
    state.subscribe("a")
    with state.replica.frozen():
        state.write(setting("a", 1))
        state.write(setting("a", 2))
        assert state.tell() == []
    assert brief(state.tell()) == [("a", 0, 2)]


def test_no_subscription_is_lost_where_many_threads_subscribe() -> None:
    state = State(setting("a"))
    seen: list[int] = []
    started = threading.Barrier(8)

    def subscribe(number: int) -> None:
        started.wait()
        for _ in range(200):
            state.reader.subscribe("a", lambda change: None)()
        state.reader.subscribe("a", lambda change: seen.append(number))

    threads = [threading.Thread(target=subscribe, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    state.write(setting("a", 1))
    state.tell()
    assert sorted(seen) == list(range(8))
