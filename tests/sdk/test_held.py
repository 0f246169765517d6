"""Steps from one held state to the next, where they are not those of a server of this version."""

from __future__ import annotations

import pytest

from rheo.v1 import watch_pb2
from rheostat.model.position import digest_of
from rheostat.sdk.held import BrokenStreamError, DivergedError, Held, bookmark, step, whole
from rheostat.wire.setting import fill_setting
from tests.sdk.state import setting


def position(revision: int, generation: int = 1) -> watch_pb2.Position:
    return watch_pb2.Position(
        store_id=bytes(16), generation=generation, revision=revision, token=b"t%d" % revision
    )


def item(name: str, revision: int, kind: str = "setting") -> watch_pb2.Item:
    message = watch_pb2.Item(kind=kind, key=name, revision=revision)
    if kind == "setting":
        fill_setting(message.setting, setting(name, revision))
    return message


def snapshot(*items: watch_pb2.Item, at: int = 5, held: Held | None = None) -> Held:
    digest = digest_of((each.kind, each.key, each.revision) for each in items)
    return whole(held or Held(), position(at), items, len(items), digest).held


def delta(held: Held, *items: watch_pb2.Item, at: int, since: int | None = None) -> watch_pb2.Delta:
    state = {key: each.revision for key, each in held.items.items()}
    for each in items:
        state.pop((each.kind, each.key), None)
        if not each.deleted:
            state[each.kind, each.key] = each.revision
    return watch_pb2.Delta(
        from_revision=held.revision if since is None else since,
        position=position(at),
        items=items,
        digest=digest_of((kind, key, revision) for (kind, key), revision in state.items()),
    )


def test_a_step_leaves_the_state_before_as_it_was() -> None:
    before = snapshot(item("a", 1), item("b", 2))
    items = dict(before.items)
    found = step(before, delta(before, item("a", 6), at=6))
    assert found is not None
    assert (before.items, before.revision, found.held.revision) == (items, 5, 6)
    assert found.changed == {("setting", "a")}
    assert found.held.items["setting", "b"] is before.items["setting", "b"]


def test_a_tombstone_takes_an_item_away_and_one_of_an_unknown_item_does_nothing() -> None:
    before = snapshot(item("a", 1), item("b", 2))
    gone = [watch_pb2.Item(kind="setting", key=name, revision=6, deleted=True) for name in ("a", "never")]
    found = step(before, delta(before, *gone, at=6))
    assert found is not None
    assert found.held.items.keys() == {("setting", "b")}
    assert found.held.digest == digest_of([("setting", "b", 2)])


def test_kinds_of_later_versions_count_in_the_digest_and_are_no_problem() -> None:
    before = snapshot(item("x", 3, "later"), item("a", 1))
    assert before.items["later", "x"].item is None
    found = step(before, delta(before, item("x", 6, "later"), at=6))
    assert found is not None and not found.problems


def test_an_item_that_cannot_be_read_is_said_and_the_rest_is_taken() -> None:
    broken = item("a", 1)
    broken.setting.type = "Nonsense["
    digest = digest_of([("setting", "a", 1), ("setting", "b", 2)])
    found = whole(Held(), position(5), [broken, item("b", 2)], 2, digest)
    assert found.held.items["setting", "a"].item is None
    assert found.held.items["setting", "b"].item is not None
    assert len(found.problems) == 1 and "'a'" in found.problems[0]


def test_a_delta_that_begins_before_what_is_held_is_applied_over_it() -> None:
    before = snapshot(item("a", 5))
    found = step(before, delta(before, item("a", 5), item("b", 7), at=7, since=2))
    assert found is not None
    assert found.held.items["setting", "a"] is before.items["setting", "a"]


def test_a_delta_up_to_what_is_held_is_a_duplicate() -> None:
    before = snapshot(item("a", 5))
    assert step(before, delta(before, item("a", 5), at=5, since=4)) is None


@pytest.mark.parametrize("since", [6, 9])
def test_a_delta_that_begins_after_what_is_held_leaves_a_gap(since: int) -> None:
    before = snapshot(item("a", 5))
    with pytest.raises(BrokenStreamError, match=f"from revision {since}"):
        step(before, delta(before, item("a", 10), at=10, since=since))


def test_nothing_follows_from_nothing() -> None:
    with pytest.raises(BrokenStreamError, match="without a snapshot"):
        step(Held(), delta(Held(), item("a", 1), at=1))
    with pytest.raises(BrokenStreamError, match="without a snapshot"):
        bookmark(Held(), watch_pb2.Bookmark(position=position(1)))


def test_a_bookmark_moves_the_position_and_no_item() -> None:
    before = snapshot(item("a", 5))
    after = bookmark(before, watch_pb2.Bookmark(position=position(9), digest=before.digest))
    assert (after.revision, after.token, after.items) == (9, b"t9", before.items)
    with pytest.raises(DivergedError):
        bookmark(before, watch_pb2.Bookmark(position=position(9), digest=before.digest ^ 1))


def test_a_bookmark_behind_what_a_fetch_has_brought_changes_nothing() -> None:
    before = snapshot(item("a", 5), at=8)
    assert bookmark(before, watch_pb2.Bookmark(position=position(6), digest=1)) is before


def test_a_snapshot_says_what_differs_from_what_was_held() -> None:
    before = snapshot(item("a", 1), item("b", 2), item("c", 3))
    items = [item("a", 1), item("b", 6), item("d", 7)]
    digest = digest_of((each.kind, each.key, each.revision) for each in items)
    found = whole(before, position(7), items, 3, digest)
    assert found.changed == {("setting", name) for name in "bcd"}
    assert found.held.items["setting", "a"] is before.items["setting", "a"]


def test_an_item_that_comes_twice_in_a_snapshot_does_not_fill_the_place_of_another() -> None:
    with pytest.raises(BrokenStreamError, match="2 items has arrived with 1"):
        whole(Held(), position(5), [item("a", 1), item("a", 1)], 2, digest_of([("setting", "a", 1)]))


@pytest.mark.parametrize(("revision", "generation"), [(4, 1), (9, 0)])
def test_a_snapshot_before_what_is_held_is_refused_by_generation_and_revision(
    revision: int, generation: int
) -> None:
    before = snapshot(item("a", 1))
    with pytest.raises(BrokenStreamError, match="older"):
        whole(before, position(revision, generation), [], 0, 0)


def test_a_lower_revision_of_a_higher_generation_is_newer() -> None:
    before = snapshot(item("a", 1))
    assert whole(before, position(2, 2), [], 0, 0).held.items == {}
