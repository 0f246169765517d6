"""Keys that follow each other, and when they were last used."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from rheostat.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, UnavailableError
from rheostat.model.change import DeleteSetting
from rheostat.model.key import Key, KeyKind, Role, verify_secret
from rheostat.service import Writer
from rheostat.service.access import Principal
from rheostat.store.base import Record
from tests.service.book import put
from tests.service.node import NOBODY, PROJECT, Node, World

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def make(node: Node, **options: object) -> Key:
    given = {"kind": KeyKind.SERVER, "project": PROJECT, **options}
    return node.service.create_key(NOBODY, **given)[0]  # type: ignore[arg-type]


def in_force(node: Node, key: Key) -> bool:
    return node.service.key_in_force(Principal(key))


# Rotation.


@pytest.mark.parametrize(
    "access",
    [
        {"environments": ("production",), "declare": True, "description": "checkout"},
        {"kind": KeyKind.PUBLIC, "subjects": True},
        {"kind": KeyKind.USER, "role": Role.APPROVER},
        {"kind": KeyKind.USER, "role": Role.ADMIN, "project": ""},
    ],
)
def test_a_successor_has_the_access_of_the_key_it_replaces(
    world: World, node: Node, access: dict[str, object]
) -> None:
    old = make(node, **access)
    key, ending, text, made = node.service.rotate_key(NOBODY, old.selector, overlap=HOUR)
    own = {
        "selector": key.selector,
        "verifier": key.verifier,
        "created_at": world.clock.now(),
        "revision": made.revision,
        "lineage": old.selector,
    }
    assert key == replace(old, **own)  # type: ignore[arg-type]
    assert verify_secret(text, key.verifier)
    assert ending == replace(old, expires_at=world.clock.now() + HOUR, revision=made.revision)
    assert len(made.change_set.changes) == 2, "one change-set"


def test_both_keys_are_in_force_until_the_overlap_is_over(world: World, node: Node) -> None:
    old = make(node)
    key, *_ = node.service.rotate_key(NOBODY, old.selector, overlap=HOUR)
    world.clock.seconds += 3599
    assert in_force(node, old)
    assert in_force(node, key)
    world.clock.seconds += 1
    assert not in_force(node, old)
    assert in_force(node, key)


def test_a_rotation_never_lengthens_a_keys_life(world: World, node: Node) -> None:
    ends = world.clock.now() + HOUR
    old = make(node, expires_at=ends)
    later = ends + HOUR
    key, ending, _, made = node.service.rotate_key(NOBODY, old.selector, overlap=2 * HOUR, expires_at=later)
    assert (key.expires_at, ending.expires_at) == (later, ends)
    assert [change.key for change in made.change_set.changes] == [key.selector]


def test_a_successor_lives_as_long_as_the_old_key_was_made_for(world: World, node: Node) -> None:
    old = make(node, expires_at=world.clock.now() + 720 * HOUR)
    world.clock.seconds += 100 * 3600
    key, *_ = node.service.rotate_key(NOBODY, old.selector, overlap=HOUR)
    assert key.expires_at == world.clock.now() + 720 * HOUR
    # The old one was cut short meanwhile; that is not what it was made for.
    again, *_ = node.service.rotate_key(NOBODY, old.selector, overlap=HOUR)
    assert again.expires_at == world.clock.now() + 720 * HOUR
    forever = make(node)
    for _ in range(2):
        key, *_ = node.service.rotate_key(NOBODY, forever.selector, overlap=HOUR)
        assert key.expires_at is None


def test_all_successors_of_a_key_know_the_first_one(node: Node) -> None:
    first = make(node)
    second, *_ = node.service.rotate_key(NOBODY, first.selector, overlap=HOUR)
    third, *_ = node.service.rotate_key(NOBODY, second.selector, overlap=HOUR)
    fork, *_ = node.service.rotate_key(NOBODY, second.selector, overlap=HOUR)
    assert {Principal(key).lineage for key in (first, second, third, fork)} == {first.selector}
    assert Principal(make(node)).lineage != first.selector


def test_a_key_that_would_have_ended_before_it_began_is_refused(world: World, node: Node) -> None:
    old = make(node)
    for call in (
        lambda: make(node, expires_at=world.clock.now()),
        lambda: node.service.rotate_key(NOBODY, old.selector, overlap=HOUR, expires_at=world.clock.now()),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            call()
        assert [violation.field for violation in caught.value.violations] == ["expires_at"]


def test_a_repeated_rotation_answers_the_same_keys_without_the_secret(node: Node) -> None:
    old = make(node)
    writer = Writer(NOBODY.principal, request_id="r")
    key, ending, text, made = node.service.rotate_key(writer, old.selector, overlap=HOUR)
    again = node.service.rotate_key(writer, old.selector, overlap=HOUR)
    assert text
    assert again[:3] == (key, ending, "")
    assert (again[3].replayed, again[3].revision) == (True, made.revision)


def test_a_key_that_has_ended_is_not_rotated(world: World, node: Node) -> None:
    expired = make(node, expires_at=world.clock.now() + HOUR)
    revoked = make(node)
    node.service.revoke_key(NOBODY, revoked.selector)
    world.clock.seconds += 3600
    for key in (expired, revoked):
        with pytest.raises(FailedPreconditionError) as caught:
            node.service.rotate_key(NOBODY, key.selector, overlap=HOUR)
        assert caught.value.reason == "KEY_NOT_IN_FORCE"


def test_only_who_covers_a_key_rotates_it(node: Node) -> None:
    key = make(node, environments=("production",))
    node.add_environment("staging")
    bound = make(node, kind=KeyKind.USER, role=Role.ADMIN, environments=("staging",))
    for selector, principal in ((key.selector, Principal(bound)), ("0" * 16, NOBODY.principal)):
        with pytest.raises(NotFoundError):
            node.service.rotate_key(Writer(principal), selector, overlap=HOUR)


# When keys were last used.


def test_the_use_of_a_key_is_known_to_all_nodes_once_it_is_written_down(world: World, node: Node) -> None:
    other = world.node()
    key, unused = make(node), make(node)
    wide = make(node, kind=KeyKind.USER, role=Role.ADMIN, project="")
    for used in (key, wide):
        node.service.usage.note_key(used)
    minute = world.clock.now().replace(second=0)
    assert node.service.usage.keys_used_at(PROJECT) == {key.selector: minute, wide.selector: minute}
    assert other.service.usage.keys_used_at(PROJECT) == {}
    node.service.usage.flush()
    assert other.service.usage.keys_used_at(PROJECT) == {key.selector: minute, wide.selector: minute}
    assert unused.selector not in other.service.usage.keys_used_at(PROJECT)


def test_a_key_that_is_used_all_the_time_is_written_once_a_minute(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [make(node) for _ in range(50)]
    node.service.usage.flush()
    written: list[str] = []
    put = world.store.put_record

    def counting(record: Record, **options: int | None) -> Record | None:
        written.append(record.kind)
        return put(record, **options)

    monkeypatch.setattr(world.store, "put_record", counting)
    world.clock.seconds += 60
    for _ in range(5):
        for key in keys:
            node.service.usage.note_key(key)
        node.service.usage.flush()
        world.clock.seconds += 1
    assert written == ["key_use"], "one write, of all keys together"


def test_nodes_do_not_overwrite_each_others_notes(world: World, node: Node) -> None:
    other = world.node()
    first, second = make(node), make(node)
    other.service.catch_up()
    node.service.usage.note_key(first)
    world.clock.seconds += 60
    other.service.usage.note_key(second)
    other.service.usage.flush()
    # Older than what is stored by now.
    other.service.usage.note_key(first)
    other.service.usage.flush()
    node.service.usage.flush()
    now = world.clock.now().replace(second=0)
    assert world.node().service.usage.keys_used_at(PROJECT) == {first.selector: now, second.selector: now}


def test_an_open_stream_uses_its_key_all_the_time(world: World, node: Node) -> None:
    key = make(node)
    with node.service.admission.watch(key.selector, ""):
        world.clock.seconds += 600
        node.service.usage.flush()
    assert node.service.usage.keys_used_at(PROJECT)[key.selector] == world.clock.now().replace(second=0)


def test_nothing_that_was_noted_is_lost_while_the_store_is_away(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(node)
    node.service.usage.note_key(key)

    def away(*arguments: object, **options: object) -> None:
        raise UnavailableError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put_record", away)
        with pytest.raises(UnavailableError):
            node.service.usage.flush()
    node.service.usage.flush()
    assert key.selector in world.node().service.usage.keys_used_at(PROJECT)


# When settings were last read.


def test_reads_are_noted_of_settings_that_there_are(world: World, node: Node) -> None:
    node.commit(put("a"), put("b"))
    node.service.usage.flush()
    began = world.clock.now()
    world.clock.seconds += 7200
    node.service.usage.note_reads(PROJECT, "production", ["a", "b", "nothing"])
    node.service.usage.note_reads(PROJECT, "nowhere", ["a"])
    node.service.usage.flush()
    seen = world.node().service.usage.reads(PROJECT, "production")
    assert (seen.since, set(seen.at)) == (began, {"a", "b"})
    assert world.clock.now() - HOUR < seen.at["a"] <= world.clock.now()
    node.commit(DeleteSetting("b"))
    world.clock.seconds += 3600
    node.service.usage.note_reads(PROJECT, "production", ["a"])
    node.service.usage.flush()
    assert set(node.service.usage.reads(PROJECT, "production").at) == {"a"}, "what is gone is dropped"
