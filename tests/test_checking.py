"""The rules that hold every run to its word can be broken."""

from __future__ import annotations

import pytest

from rheostat.model.change import Change, ChangeSet
from rheostat.model.position import Filter
from rheostat.model.setting import Setting
from rheostat.model.type import INT
from tests.checking import (
    ACKNOWLEDGED,
    GAPLESS,
    ORDER,
    STATE,
    History,
    Violation,
    Watched,
    check_acknowledged,
    check_followed,
    check_gapless,
)

LIFE = (b"s" * 16, 1, b"n" * 8)


def item(revision: int) -> Setting:
    return Setting(id="1", name="a", type=INT, default=revision, revision=revision)


def change_set(revision: int, request: str = "") -> ChangeSet:
    change = Change("shop", "production", "setting", "a", None, item(revision))
    return ChangeSet("shop", (change,), revision=revision, request_id=request, message=f"m{revision}")


def test_a_revision_that_is_missing_is_found() -> None:
    check_gapless([change_set(1), change_set(2)])
    with pytest.raises(Violation, match=GAPLESS):
        check_gapless([change_set(1), change_set(3)])


@pytest.mark.parametrize("written", [["x"], ["x", "r"], ["r", "r"]])
def test_an_acknowledged_request_that_is_gone_elsewhere_or_twice_is_found(written: list[str]) -> None:
    check_acknowledged({"r": 1}, [change_set(1, "r")])
    with pytest.raises(Violation, match=ACKNOWLEDGED):
        check_acknowledged({"r": 1}, [change_set(at, request) for at, request in enumerate(written, 1)])


@pytest.mark.parametrize("seen", [[(2, "m2")], [(1, "m1"), (1, "m1")], [(1, "m2")], [(1, "m1"), (3, "m3")]])
def test_what_a_follower_has_missed_or_seen_twice_is_found(seen: list[tuple[int, str]]) -> None:
    history = [change_set(1), change_set(2)]
    check_followed([(1, "m1")], history)
    check_followed([(1, "m1"), (2, "m2")], history)
    with pytest.raises(Violation, match=STATE):
        check_followed(seen, history)


@pytest.mark.parametrize(
    ("revision", "items", "rule"),
    [
        (2, {}, STATE),
        (2, {("setting", "a"): item(1)}, STATE),
        (2, {("setting", "a"): item(2), ("setting", "b"): item(2)}, STATE),
        (3, {("setting", "a"): item(2)}, STATE),
        (1, {("setting", "a"): item(1)}, ORDER),
    ],
)
def test_a_state_that_never_was_or_is_older_is_found(
    revision: int, items: dict[tuple[str, str], Setting], rule: str
) -> None:
    history = History()
    history.begin(LIFE, [change_set(1)])
    history.add(LIFE, change_set(2))
    watched = Watched(history, "w", "production", Filter())
    watched.saw(LIFE, 2, {("setting", "a"): item(2)})
    with pytest.raises(Violation, match=rule):
        watched.saw(LIFE, revision, items)
