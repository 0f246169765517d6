"""Subjects at a node: copies that are never older than what was told, notices to watchers, and who may write what."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rheo.v1 import watch_pb2
from rheostat.errors import FailedPreconditionError
from rheostat.evaluation import Context
from rheostat.model.change import PutEnvironment
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.subject import (
    Exposure,
    Refusal,
    Subject,
    SubjectEvent,
    SubjectOverride,
    SubjectPatch,
    SubjectReference,
    Track,
)
from rheostat.model.watch import Bookmark, SubjectsChanged
from rheostat.service import Service
from rheostat.service.access import OPEN, Principal
from rheostat.service.notice import MAX_IDS, NOTICE_SECONDS, Board, Notices
from rheostat.service.subject import MAX_ASKED_KINDS, MAX_REFERENCES, PURGE_SECONDS, Joined
from rheostat.store import open_store
from rheostat.wire.event import EventEncoder
from tests.service.book import put, put_rule, rule
from tests.service.node import NOBODY, PRODUCTION, PROJECT, Node, Watch, World

PLACE = (PROJECT, PRODUCTION)
ACME = SubjectReference("company", {"id": "acme"})


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def upsert(
    node: Node, reference: SubjectReference = ACME, environment: str = PRODUCTION, **traits: Any
) -> Subject:
    patch = SubjectPatch(reference, traits)
    (made,) = node.service.subjects.upsert(OPEN, PROJECT, environment, [patch])
    assert isinstance(made, Subject)
    return made


def joined(node: Node, *references: SubjectReference) -> Joined:
    return node.service.subjects.joined(*PLACE, references or [ACME])


def plan_of(node: Node, *references: SubjectReference) -> object:
    return joined(node, *references).context({}).lookup("company.plan")


def counted(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many subjects each read of the store was about, from now on."""
    reads: list[int] = []
    read = node.service.store.get_subjects

    def get(project: str, environment: str, names: Sequence[Any], **options: Any) -> Any:
        reads.append(len(names))
        return read(project, environment, names, **options)

    monkeypatch.setattr(node.service.store, "get_subjects", get)
    return reads


# Copies.


def test_a_subject_that_is_asked_for_again_is_not_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(node, plan="pro")
    reads = counted(node, monkeypatch)
    for _ in range(3):
        assert plan_of(node) == "pro"
    assert plan_of(node, SubjectReference("company", {"id": "ACME"})) == "pro"
    assert reads == [1]


def test_a_member_s_company_is_not_read_again_either(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert(node, plan="pro")
    ada = SubjectReference("user", {"id": "u1"})
    node.service.subjects.upsert(OPEN, *PLACE, [SubjectPatch(ada, member_of=(ACME,))])
    reads = counted(node, monkeypatch)
    for _ in range(3):
        assert plan_of(node, ada) == "pro"
    assert reads == [1, 1]


def test_what_is_written_here_is_read_here_at_once_and_elsewhere_once_the_feed_is(
    world: World, node: Node
) -> None:
    other = world.node()
    upsert(node, plan="free")
    assert plan_of(node) == plan_of(other) == "free"
    upsert(node, plan="pro")
    assert plan_of(node) == "pro"
    assert plan_of(other) == "free"
    other.service.subjects.follow()
    assert plan_of(other) == "pro"


def test_what_was_read_before_a_change_is_not_kept_after_it(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(node, plan="free")
    read: Callable[..., Any] = node.service.store.get_subjects

    def overtaken(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        monkeypatch.setattr(node.service.store, "get_subjects", read)
        upsert(node, plan="pro")
        return found

    monkeypatch.setattr(node.service.store, "get_subjects", overtaken)
    assert plan_of(node) == "free"
    assert plan_of(node) == "pro"


def test_a_key_that_another_subject_gets_is_a_conflict_although_nothing_of_the_first_has_changed(
    node: Node,
) -> None:
    both = SubjectReference("company", {"id": "acme", "domain": "globex.example"})
    upsert(node, plan="pro")
    assert not joined(node, both).conflict
    upsert(node, SubjectReference("company", {"id": "globex", "domain": "globex.example"}))
    assert joined(node, both).conflict


def test_an_unknown_subject_is_known_as_soon_as_it_is_stored(world: World, node: Node) -> None:
    other = world.node()
    assert "company (id)" in joined(other).note
    upsert(node)
    assert not joined(other).note


def test_a_node_that_missed_too_much_of_the_feed_drops_all_copies(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(node, plan="pro")
    assert plan_of(node) == "pro"
    monkeypatch.setattr(node.service.store, "subject_feed_number", lambda: 0)
    reads = counted(node, monkeypatch)
    watch = node.watch(subjects=True).opened()
    node.service.subjects.follow()
    assert _told(watch) == [(0, True)]
    assert plan_of(node) == "pro"
    assert reads == [1], "the store was restored to a time before"


def test_ids_rise_although_the_clock_stands_still(node: Node) -> None:
    made = [upsert(node, SubjectReference("user", {"id": f"u{number}"})).id for number in range(50)]
    assert made == sorted(made)
    assert {len(id_) for id_ in made} == {16}


# Notices.


def _told(watch: Watch) -> list[tuple[int, bool]]:
    """What the watch is told of subjects now: how many ids, and whether any may have changed."""
    return [
        (len(event.ids), event.all)
        for event in watch.session.step(watch.node.world.clock.monotonic()).events
        if isinstance(event, SubjectsChanged)
    ]


def test_a_watch_is_told_of_the_subjects_of_its_environment_when_it_asked(world: World, node: Node) -> None:
    node.commit(PutEnvironment("staging"), environment="")
    asked = node.watch(subjects=True).opened()
    others = [node.watch().opened(), node.watch(environment="staging", subjects=True).opened()]
    position = asked.session.position
    made = upsert(node)
    (event,) = asked.session.step(world.clock.monotonic()).events
    assert isinstance(event, SubjectsChanged)
    assert (list(event.ids), event.all) == ([made.id], False)
    assert asked.session.position == position
    assert not asked.session.has_notice
    for other in others:
        assert not other.session.step(world.clock.monotonic()).events


def test_those_that_are_told_are_told_by_the_same_event(world: World, node: Node) -> None:
    watches = [node.watch(subjects=True).opened() for _ in range(2)]
    upsert(node)
    first, second = (watch.session.step(world.clock.monotonic()).events for watch in watches)
    assert first[0] is second[0]


def test_changes_within_100_ms_are_told_at_once_afterwards(world: World, node: Node) -> None:
    watch = node.watch(subjects=True).opened()
    upsert(node, plan="a")
    assert _told(watch) == [(1, False)]
    for number in range(3):
        upsert(node, SubjectReference("user", {"id": f"u{number}"}))
    assert _told(watch) == []
    world.clock.seconds += NOTICE_SECONDS
    node.service.notices.post_due()
    assert _told(watch) == [(3, False)]


def test_notices_do_not_stand_in_for_bookmarks(world: World, node: Node) -> None:
    watch = node.watch(subjects=True).opened()
    bookmarks = 0
    for number in range(40):
        world.clock.seconds += 1.0
        upsert(node, number=number)
        kinds = [type(each) for each in watch.session.step(world.clock.monotonic()).events]
        assert SubjectsChanged in kinds
        bookmarks += kinds.count(Bookmark)
    assert bookmarks == 40 // int(node.service.heartbeat)


def test_a_notice_is_encoded_once_as_the_contract_says() -> None:
    encoder = EventEncoder(b"key", lambda message: message)
    some, everything = SubjectsChanged((b"i" * 16,)), SubjectsChanged((), all=True)

    def encoded(event: SubjectsChanged) -> watch_pb2.WatchResponse:
        (message,) = encoder.encode(event, lambda: pytest.fail("nothing is whole"))
        return message

    assert encoded(some).subjects_changed == watch_pb2.SubjectsChanged(ids=[b"i" * 16])
    assert encoded(everything).subjects_changed == watch_pb2.SubjectsChanged(all=True)
    assert encoded(some) is encoded(some)


def test_a_slow_watch_is_told_once_of_all_that_it_missed() -> None:
    board = Board()
    slow = board.number
    for number in range(10):
        board.add([bytes([number])])
        board.post(float(number))
    last, notice = board.after(slow)
    assert notice is not None
    assert list(notice.ids) == [bytes([number]) for number in range(10)]
    assert board.after(slow)[1] is notice, "made once for all that missed as much"
    assert board.after(last) == (last, None)


def test_beyond_a_thousand_ids_any_may_have_changed() -> None:
    board = Board()
    ids = [number.to_bytes(2, "big") for number in range(MAX_IDS + 1)]
    board.add(ids[:-1])
    board.post(0.0)
    number, notice = board.after(0)
    assert notice is not None and len(notice.ids) == MAX_IDS
    board.add(ids[-1:])
    board.post(1.0)
    assert board.after(number)[1] is not None
    assert not board.after(number)[1].all  # type: ignore[union-attr]
    assert board.after(0)[1].all, "together they are more than a thousand"  # type: ignore[union-attr]
    board.add(ids)
    board.post(2.0)
    assert board.after(number)[1].all  # type: ignore[union-attr]


def test_what_waits_is_told_without_another_change() -> None:
    rung = threading.Event()
    notices = Notices(time.monotonic, rung.set)
    board = notices.board(PLACE)
    notices.note(PLACE, [b"a"])
    rung.clear()
    notices.note(PLACE, [b"b"])
    assert rung.wait(60.0)
    number, notice = board.after(1)
    assert (number, list(notice.ids if notice else ())) == (2, [b"b"])
    notices.close()


def test_a_change_that_another_process_made_is_told_here(tmp_path: Path) -> None:
    """Two services over one file are to it what two processes are."""
    path = str(tmp_path / "store.db")
    with Service(open_store(path)) as here, Service(open_store(path)) as there:
        board, hub = here.notices.board(PLACE), here.hub
        for number in range(3):
            told, notes = board.number, hub.notes
            patch = SubjectPatch(ACME, {"number": number})
            (made,) = there.subjects.upsert(OPEN, *PLACE, [patch])
            assert isinstance(made, Subject)
            while board.number == told:
                bell = hub.bell
                hub.wait(bell, 60.0, notes)
                assert hub.bell != bell or hub.notes != notes, "nothing came"
                notes = hub.notes
            _, notice = board.after(told)
            assert notice is not None and list(notice.ids) == [made.id]
            context = here.subjects.joined(*PLACE, [ACME]).context({})
            assert context.lookup("company.number") == number


# Who may write what.

KEY = Key("0123456789abcdef", KeyKind.SERVER, bytes(32), PROJECT)


def event(key: str, what: Track | Exposure) -> SubjectEvent:
    now = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    return SubjectEvent(key, now, (ACME,), what)


def test_a_public_key_tells_of_exposures_and_of_nobody(node: Node) -> None:
    node.commit(put("a"), put_rule("a", rule("r")))
    public = Principal(replace(KEY, kind=KeyKind.PUBLIC))
    seen = Exposure("a", "r", "", 5, 1_000)
    made_up = [
        replace(seen, setting="b"),
        replace(seen, rule_id="other"),
        replace(seen, variant="other"),
        Track("login"),
    ]
    events = [event(str(number), what) for number, what in enumerate([seen, *made_up])]
    result = node.service.subjects.record(public, *PLACE, events)
    reasons = [each and each.reason for each in result]
    assert reasons == [None, "UNKNOWN_SETTING", "RULE_NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED"]
    assert not node.service.store.list_subjects(*PLACE, now=node.service.clock())
    (counted,) = node.service.store.exposures(*PLACE)
    assert (counted.revision, counted.value_json, counted.count) == (node.revision, "", 1)
    assert not node.service.store.event_counts(*PLACE)


def test_no_event_of_a_public_key_fills_a_statistic(node: Node) -> None:
    node.commit(put("a"))
    public = Principal(replace(KEY, kind=KeyKind.PUBLIC))
    counts = [2**63 - 1, 10_001, 10_000]
    events = [event(str(count), Exposure("a", "", "", 5, 1, count)) for count in counts]
    result = node.service.subjects.record(public, *PLACE, events)
    assert [each and each.reason for each in result] == ["LIMIT_EXCEEDED", "LIMIT_EXCEEDED", None]
    assert [count.count for count in node.service.store.exposures(*PLACE)] == [10_000]
    (told,) = node.service.subjects.record(Principal(KEY), *PLACE, [replace(events[1], idempotency_key="x")])
    assert told is None, "a program on a server counts more"


def test_a_server_s_key_tells_of_whatever_happened_and_it_is_counted_in_the_metrics(node: Node) -> None:
    events = [event("1", Track("login")), event("2", Exposure("gone", "r", "v", 5, 1_000))]
    subjects = node.service.subjects
    assert list(subjects.record(Principal(KEY), *PLACE, [*events, Refusal("X", "y")]))[:2] == [None, None]
    assert node.service.metrics.counted("events") == {("recorded",): 2, ("rejected",): 1}
    assert [count.event for count in node.service.store.event_counts(*PLACE)] == ["login"]


def test_what_is_kept_no_longer_is_removed(world: World, node: Node) -> None:
    upsert(node)
    assert node.service.store.subject_changes(*PLACE)
    world.clock.seconds += 100 * 86_400.0
    assert node.service.subjects.purge()
    assert not node.service.store.subject_changes(*PLACE)
    assert not joined(node).note, "the subject itself stays"


class Purging:
    """The purge of a store, which waits until it may end."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.release = threading.Event(), threading.Event()
        self.times = 0
        monkeypatch.setattr(service.store, "purge_subject_records", self.purge)

    def purge(self, now: datetime.datetime) -> int:
        self.times += 1
        self.begun.set()
        assert self.release.wait(120.0)
        return 0


class Later:
    """Seconds, some of which a test may skip."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


def test_a_node_follows_the_store_while_it_removes_what_is_kept_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "store.db")
    later = Later()
    with (
        Service(open_store(path), monotonic=later) as here,
        Service(open_store(path), background=False) as there,
    ):
        purging = Purging(here, monkeypatch)
        try:
            later.skipped = PURGE_SECONDS
            assert purging.begun.wait(60.0)
            revision = there.commit(NOBODY, *PLACE, [put("a")]).revision
            while here.head.revision < revision:
                bell = here.hub.bell
                if here.head.revision < revision:
                    here.hub.wait(bell, 60.0)
                    assert here.hub.bell != bell, "nothing came"
            # Another turn does not begin before this one has ended.
            here.subjects.purge_beside()
            assert purging.times == 1
        finally:
            purging.release.set()


def test_of_several_nodes_one_removes_what_is_kept_no_longer(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    purging = Purging(node.service, monkeypatch)
    purging.release.set()
    other = world.node()

    def purged(*nodes: Node) -> int:
        for each in nodes:
            each.service.subjects.purge_beside()
            for thread in threading.enumerate():
                if thread.name == "rheostat-purge":
                    thread.join(60.0)
        return purging.times

    assert purged(node, other) == 1
    world.clock.seconds += PURGE_SECONDS
    assert purged(node, other) == 2
    world.clock.seconds -= 86_400.0
    assert purged(other, node) == 3, "a clock that was set back stops nothing"


EDITOR, APPROVER = (
    Principal(replace(KEY, kind=KeyKind.USER, role=role)) for role in (Role.EDITOR, Role.APPROVER)
)
"""People."""

DECLARER = Principal(replace(KEY, declare_protected=True))


def test_overrides_in_a_protected_environment_are_for_approvers_and_programs_that_may_declare_there(
    node: Node,
) -> None:
    node.commit(put("a", "int", 1))
    patch = SubjectPatch(ACME, overrides=(SubjectOverride("a", 2),))

    def write(principal: Principal) -> object:
        (result,) = node.service.subjects.upsert(principal, *PLACE, [patch])
        return result.reason if isinstance(result, Refusal) else "written"

    everybody = [EDITOR, APPROVER, Principal(KEY), Principal(replace(KEY, declare=False)), DECLARER, OPEN]
    assert {write(each) for each in everybody} == {"written"}
    node.commit(PutEnvironment(PRODUCTION, protected=True), environment="")
    no, yes = "APPROVAL_REQUIRED", "written"
    assert [write(each) for each in everybody] == [no, yes, no, no, yes, yes]
    patch = SubjectPatch(ACME, remove_overrides=("a",))
    assert [write(each) for each in everybody] == [no, yes, no, no, yes, yes]
    patch = SubjectPatch(ACME, {"plan": "pro"})
    assert {write(each) for each in everybody} == {"written"}


def test_who_may_not_remove_an_override_cannot_delete_the_subject_that_has_it_either(
    world: World, node: Node
) -> None:
    node.commit(put("a", "int", 1))
    node.commit(PutEnvironment(PRODUCTION, protected=True), environment="")
    subjects = node.service.subjects
    until = world.clock.now() + datetime.timedelta(hours=1)
    subjects.upsert(
        OPEN, *PLACE, [SubjectPatch(ACME, overrides=(SubjectOverride("a", 2, expires_at=until),))]
    )
    other = upsert(node, SubjectReference("user", {"id": "u1"}))
    with pytest.raises(FailedPreconditionError, match=r"lookups\[1\]") as caught:
        subjects.delete(EDITOR, *PLACE, [(other.id, None), (ACME, None)])
    assert caught.value.reason == "APPROVAL_REQUIRED"
    assert len(node.service.store.list_subjects(*PLACE, now=world.clock.now())) == 2, "nothing is removed"
    names: list[tuple[Any, int | None]] = [(other.id, other.version + 9), (other.id, None), (other.id, None)]
    nobody = SubjectReference("user", {"id": "u2"})
    kept, gone, *missing = subjects.delete(EDITOR, *PLACE, [*names, (nobody, None)])
    assert kept is True
    assert isinstance(gone, Subject)
    assert missing == [False, False]
    world.clock.seconds += 3_600.0
    (gone,) = subjects.delete(EDITOR, *PLACE, [(ACME, None)])
    assert isinstance(gone, Subject), "an override that has ended protects nothing"


def test_an_override_that_is_written_while_its_subject_is_deleted_is_kept_as_well(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.commit(put("a", "int", 1))
    node.commit(PutEnvironment(PRODUCTION, protected=True), environment="")
    subjects, store = node.service.subjects, node.service.store
    upsert(node)
    patches = [SubjectPatch(ACME, {"plan": "pro"}), SubjectPatch(ACME, overrides=(SubjectOverride("a", 2),))]
    delete = store.delete_subjects

    def meanwhile(*args: Any, **options: Any) -> Any:
        subjects.upsert(OPEN, *PLACE, [patches.pop(0)])
        return delete(*args, **options)

    monkeypatch.setattr(store, "delete_subjects", meanwhile)
    with pytest.raises(FailedPreconditionError):
        subjects.delete(EDITOR, *PLACE, [(ACME, None)])
    assert not patches


def test_an_override_is_kept_under_the_setting_s_name_and_removed_by_any(node: Node) -> None:
    node.commit(put("a", "int", 1, aliases=("former",)))
    subjects = node.service.subjects
    (made,) = subjects.upsert(OPEN, *PLACE, [SubjectPatch(ACME, overrides=(SubjectOverride("former", 2.0),))])
    assert isinstance(made, Subject)
    assert list(made.overrides) == [SubjectOverride("a", 2)]
    (made,) = subjects.upsert(OPEN, *PLACE, [SubjectPatch(ACME, remove_overrides=("former",))])
    assert isinstance(made, Subject)
    assert not made.overrides


@pytest.mark.parametrize("where", ["trait", "key", "override"])
def test_a_credential_is_refused_and_not_repeated(node: Node, where: str) -> None:
    node.commit(put("a", "str", "x"))
    secret = "AKIA" + "A" * 16
    patch = {
        "trait": SubjectPatch(ACME, {"plan": secret}),
        "key": SubjectPatch(SubjectReference("company", {"id": secret})),
        "override": SubjectPatch(ACME, overrides=(SubjectOverride("a", secret),)),
    }[where]
    (refused,) = node.service.subjects.upsert(OPEN, *PLACE, [patch])
    assert isinstance(refused, Refusal)
    assert refused.reason == "LOOKS_LIKE_CREDENTIAL"
    assert secret not in refused.message
    assert not node.service.store.list_subjects(*PLACE, now=node.service.clock())


# Contexts that name subjects.


def test_a_context_names_the_subjects_of_the_kinds_that_are_stored(node: Node) -> None:
    subjects = node.service.subjects
    upsert(node, SubjectReference("user", {"id": "u1", "email": "a@example.com"}), plan="pro")
    context = Context(
        {
            "user": {"email": "A@example.com", "age": 3, "plan?": "x"},
            "company": {"id": "acme"},
            "region": "eu",
        },
        {"user.id": "u1", "user.email": "weaker@example.com", "client.id": "c"},
    )
    (reference,) = subjects.references_of(*PLACE, context)
    assert reference == SubjectReference("user", {"email": "A@example.com", "id": "u1"})
    assert joined(node, reference).context(*context.layers).lookup("user.plan") == "pro"
    upsert(node)
    assert {each.kind for each in subjects.references_of(*PLACE, context)} == {"user", "company"}


def kinds_asked_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the kind is appended to of each further request to the store of *node*."""
    asked: list[str] = []
    list_subjects = node.service.store.list_subjects

    def listed(project: str, environment: str, **options: Any) -> Any:
        asked.append(options["kind"])
        return list_subjects(project, environment, **options)

    monkeypatch.setattr(node.service.store, "list_subjects", listed)
    return asked


def test_a_kind_of_which_nobody_is_stored_is_asked_for_once_until_that_may_have_changed(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.node()
    asked = kinds_asked_for(node, monkeypatch)

    def named(node: Node) -> list[str]:
        context = Context({"user.id": "u1", "company.id": "acme"})
        return [each.kind for each in node.service.subjects.references_of(*PLACE, context)]

    for _ in range(3):
        assert named(other) == []
    assert sorted(asked) == ["company", "user"]
    upsert(node)
    # Not told yet.
    assert named(other) == [] and len(asked) == 2
    other.service.subjects.follow()
    assert named(other) == named(other) == ["company"]
    assert sorted(asked[2:]) == ["company", "user"]
    # Should the feed stand still.
    world.clock.seconds += 5.0
    assert named(other) == named(other) == ["company"]
    assert asked[4:] == ["user"]


def test_a_context_has_the_store_asked_about_few_kinds_and_those_that_are_known_are_found_among_many(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kinds_asked_for(node, monkeypatch)
    upsert(node)
    company = {"company": {"id": "acme"}}
    many = {f"kind-{number}": {"id": "x"} for number in range(1_000)}

    def named(attributes: dict[str, Any]) -> list[str]:
        return [each.kind for each in node.service.subjects.references_of(*PLACE, Context(attributes))]

    assert named({**many, **company}) == [], "behind too many"
    assert len(asked) == MAX_ASKED_KINDS
    assert named({**company, **many}) == ["company"]
    assert len(asked) == 2 * MAX_ASKED_KINDS
    assert named({**many, **company}) == ["company"], "what is known needs no asking"
    # Nor is anybody asked for beyond those who can be joined.
    for number in range(MAX_REFERENCES):
        upsert(node, SubjectReference(f"known-{number}", {"id": "x"}))
    known = {f"known-{number}": {"id": "x"} for number in range(MAX_REFERENCES)}
    asked.clear()
    assert named({**known, **many, **company}) == asked == list(known)


def test_an_answer_that_is_older_than_a_change_is_not_remembered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_subjects = node.service.store.list_subjects

    def interrupted(project: str, environment: str, **options: Any) -> Any:
        monkeypatch.undo()
        found = list_subjects(project, environment, **options)
        upsert(node)
        return found

    monkeypatch.setattr(node.service.store, "list_subjects", interrupted)
    context = Context({"company.id": "acme"})
    assert node.service.subjects.references_of(*PLACE, context) == ()
    assert node.service.subjects.references_of(*PLACE, context) == (ACME,)
