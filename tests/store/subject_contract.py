"""What every store must do with subjects and events: subclass `SubjectContract` beside `StoreContract`."""

from __future__ import annotations

import datetime
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rheostat.errors import RevisionCompactedError, StoreError
from rheostat.model.subject import (
    EventCount,
    Exposure,
    ExposureCount,
    FeedEntry,
    KeyConflict,
    Membership,
    Refusal,
    Subject,
    SubjectChange,
    SubjectEvent,
    SubjectLimits,
    SubjectOverride,
    SubjectPatch,
    SubjectReference,
    Track,
    UsageCounter,
    UsagePeriod,
)
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, FrozenMapping, Value
from rheostat.store.base import Store

Test = Callable[..., None]

UTC = datetime.UTC
# A Sunday.
NOW = datetime.datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
SECOND = datetime.timedelta(seconds=1)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
LIMITS = SubjectLimits()
PLACE = ("shop", "production")
NUL = "größer\x00\x01\x01\x02"

_numbers = itertools.count(1)


def draw_id() -> bytes:
    """As the service draws them: those that are drawn later are greater."""
    return next(_numbers).to_bytes(16, "big")


def of(kind: str, **keys: str) -> SubjectReference:
    return SubjectReference(kind, keys)


def user(**keys: str) -> SubjectReference:
    return of("user", **keys)


def put(
    store: Store,
    *patches: SubjectPatch,
    now: datetime.datetime = NOW,
    limits: SubjectLimits = LIMITS,
    place: tuple[str, str] = PLACE,
    actor: str = "k1",
) -> list[Subject | Refusal]:
    return list(store.upsert_subjects(*place, patches, actor=actor, now=now, limits=limits, draw_id=draw_id))


def put_one(store: Store, reference: SubjectReference, **changes: object) -> Subject:
    """Upsert one subject, which must be taken."""
    (result,) = put(store, SubjectPatch(reference, **changes))  # type: ignore[arg-type]
    assert isinstance(result, Subject), result
    return result


def refused(store: Store, *patches: SubjectPatch, limits: SubjectLimits = LIMITS) -> str:
    *_, result = put(store, *patches, limits=limits)
    assert isinstance(result, Refusal), result
    assert "  " not in result.message
    return result.reason


def get(store: Store, name: bytes | SubjectReference, now: datetime.datetime = NOW) -> Subject:
    (found,) = store.get_subjects(*PLACE, [name], now=now)
    assert isinstance(found, Subject), found
    return found


def find(store: Store, name: bytes | SubjectReference) -> Subject | KeyConflict | None:
    (found,) = store.get_subjects(*PLACE, [name], now=NOW)
    return found


def track(
    key: str,
    *subjects: SubjectReference,
    name: str = "login",
    quantity: int = 1,
    time: datetime.datetime = NOW,
) -> SubjectEvent:
    return SubjectEvent(key, time, subjects, Track(name, quantity))


def record(
    store: Store,
    *events: SubjectEvent,
    now: datetime.datetime = NOW,
    limits: SubjectLimits = LIMITS,
    actor: str = "k1",
    place: tuple[str, str] = PLACE,
) -> list[str]:
    """Record events, and return the reasons of refusal; empty for what was taken."""
    results = store.record_events(*place, events, actor=actor, now=now, limits=limits, draw_id=draw_id)
    return ["" if result is None else result.reason for result in results]


def counted(
    store: Store, name: bytes | SubjectReference, now: datetime.datetime = NOW, event: str = "login"
) -> tuple[int, int, int, int]:
    """The counters of an event: day, week, month, all time."""
    counts = {c.period: c.count for c in get(store, name, now).counters if c.event == event}
    day, week, month, total = (counts.get(period, 0) for period in UsagePeriod)
    return day, week, month, total


def feed(store: Store, after: int = 0) -> list[bytes]:
    entries = store.subject_feed(after)
    assert [entry.number for entry in entries] == list(range(after + 1, after + 1 + len(entries)))
    return [entry.id for entry in entries]


def with_each(names: tuple[str, ...], inputs: Sequence[Sequence[object]]) -> Callable[[Test], Test]:
    """As `tests.each.each`, for the methods below, which get their store."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(self: object, store: Store) -> None:
            for given in inputs:
                arguments = dict(zip(names, given, strict=True))
                try:
                    test(self, store, **arguments)
                except BaseException as exc:
                    exc.add_note(f"with {arguments}")
                    raise

        run.__signature__ = inspect.signature(lambda self, store: None)  # type: ignore[attr-defined]
        return run

    return decorate


class SubjectContract:
    """Tests of subjects; each gets a new, empty store."""

    # Keeping them.

    def test_a_subject_is_read_back_whole_and_takes_no_revision(self, store: Store) -> None:
        company = put_one(store, of("company", id="c1"))
        value = FrozenMapping({"größe": (1, 1.0, -0.0, True, None, "\x00😀"), "a": FrozenMapping({})})
        traits: dict[str, Value] = {"whole": 1, "float": 1.0, "deep": value, "none": None, "text": "\x00"}
        overrides = [
            SubjectOverride("b", False),
            SubjectOverride("a", value, NOW + DAY),
        ]
        (stored,) = put(
            store,
            SubjectPatch(
                of("user", id="u1", email=NUL),
                traits=traits,
                overrides=overrides,
                member_of=[of("company", id="c1")],
                month_day=31,
            ),
        )
        assert isinstance(stored, Subject)
        assert stored == Subject(
            id=stored.id,
            kind="user",
            keys={"id": "u1", "email": NUL},
            traits=traits,
            created_at=NOW,
            updated_at=NOW,
            overrides=(overrides[1], overrides[0]),
            member_of=(Membership(company.id, "company", {"id": "c1"}),),
            month_day=31,
            version=1,
        )
        assert stored.created_at.tzinfo == UTC
        for name in (stored.id, user(id="u1"), user(email=NUL), user(email=NUL.upper(), id="U1")):
            assert get(store, name) == stored
        assert [type(get(store, stored.id).traits[name]) for name in ("whole", "float")] == [int, float]
        assert store.revision() == 0
        assert find(store, of("company", id="u1")) is None
        assert find(store, bytes(16)) is None
        for elsewhere in (("shop", "staging"), ("blog", "production")):
            assert store.get_subjects(*elsewhere, [user(id="u1"), stored.id], now=NOW) == (None, None)

    def test_keys_are_never_put_together(self, store: Store) -> None:
        references = [
            user(a="1;b=2"),
            user(a="1", b="2"),
            user(a="1;B=2", b="x"),
            of("users", a="1"),
            of("user", ab="1"),
            user(a="1\x00"),
            user(a="1\x01"),
            user(a="1 "),
            user(a=""),
        ]
        first = put_one(store, references[0])
        second = put_one(store, references[1])
        assert first.id != second.id
        # The same as the first after folding.
        assert put_one(store, references[2]).id == first.id
        assert len({put_one(store, reference).id for reference in references}) == len(references) - 1

    @with_each(
        ("left", "right"),
        [
            ("Ada@Example.com", "ada@example.COM"),
            ("STRASSE", "straße"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("İ", "i̇"),
            ("K", "k"),
        ],
    )
    def test_keys_are_found_whatever_the_case_of_their_letters(
        self, store: Store, left: str, right: str
    ) -> None:
        subject = put_one(store, user(email=left))
        assert get(store, user(email=right)) == subject
        # Nothing is changed by another spelling.
        assert put_one(store, user(email=right)) == subject

    def test_an_upsert_changes_what_it_names_and_leaves_the_rest(self, store: Store) -> None:
        put_one(
            store,
            user(id="u1"),
            traits={"plan": "pro", "seats": 5, "gone": 1},
            overrides=[SubjectOverride("a", 1), SubjectOverride("b", 2)],
            month_day=15,
        )
        (changed,) = put(
            store,
            SubjectPatch(
                user(id="u1", email="a@b"),
                traits={"seats": 6},
                remove_traits=["gone", "absent"],
                overrides=[SubjectOverride("a", 3), SubjectOverride("c", 4)],
                remove_overrides=["b", "absent"],
            ),
            now=NOW + SECOND,
        )
        assert isinstance(changed, Subject)
        assert changed.keys == {"id": "u1", "email": "a@b"}
        assert changed.traits == {"plan": "pro", "seats": 6}
        assert changed.overrides == (SubjectOverride("a", 3), SubjectOverride("c", 4))
        assert (changed.month_day, changed.version) == (15, 2)
        assert (changed.created_at, changed.updated_at) == (NOW, NOW + SECOND)
        assert get(store, user(email="a@b")) == changed

    def test_an_upsert_that_changes_nothing_writes_nothing(self, store: Store) -> None:
        company = of("company", id="c1")
        put_one(store, company)
        patch = SubjectPatch(
            user(id="u1", email="a@b"),
            traits={"n": 1, "m": FrozenMapping({"a": 1, "b": 2})},
            overrides=[SubjectOverride("s", 1, NOW + DAY)],
            member_of=[company],
            month_day=5,
        )
        (first,) = put(store, patch)
        number = store.subject_feed_number()
        for same in (
            patch,
            SubjectPatch(user(email="A@B")),
            replace(patch, traits={"m": FrozenMapping({"b": 2, "a": 1})}),
            replace(patch, overrides=[SubjectOverride("s", 1, (NOW + DAY).astimezone())]),
            replace(patch, remove_traits=["absent", "n"], remove_member_of=[of("company", id="no")]),
        ):
            assert put(store, same, now=NOW + HOUR) == [first]
        assert store.subject_feed_number() == number
        assert len(store.subject_changes(*PLACE, id=first.id)) == 1  # type: ignore[union-attr]
        for other in (1.0, True):
            (changed,) = put(store, replace(patch, traits={"n": other}))
            assert isinstance(changed, Subject)
        assert changed.version == 3

    def test_what_has_ended_among_overrides_goes_with_the_next_change(self, store: Store) -> None:
        ended, lasting = SubjectOverride("a", 1, NOW + SECOND), SubjectOverride("b", 1, NOW + DAY)
        put_one(store, user(id="u1"), overrides=[ended, lasting])
        later = NOW + 2 * SECOND
        assert put(store, SubjectPatch(user(id="u1")), now=later) == [get(store, user(id="u1"))]
        assert get(store, user(id="u1"), later).overrides == (ended, lasting)
        put(store, SubjectPatch(user(id="u1"), traits={"a": 1}), now=later)
        assert get(store, user(id="u1"), later).overrides == (lasting,)

    def test_another_value_of_a_key_takes_the_place_of_the_old_one(self, store: Store) -> None:
        first = put_one(store, user(id="u1", email="old@b"))
        moved = put_one(store, user(id="u1", email="new@b"))
        assert (moved.id, moved.version) == (first.id, 2)
        assert moved.keys == {"id": "u1", "email": "new@b"}
        assert find(store, user(email="old@b")) is None
        assert get(store, user(email="new@b")) == moved
        # The old value is free for somebody else.
        other = put_one(store, user(email="OLD@b"))
        assert other.id != first.id
        assert find(store, user(id="u1", email="old@b")) != moved

    def test_keys_of_two_subjects_are_a_conflict_for_everybody(self, store: Store) -> None:
        put_one(store, user(id="u1"))
        put_one(store, user(email="a@b"))
        both = user(id="U1", email="A@B", phone="1")
        found = find(store, both)
        assert isinstance(found, KeyConflict)
        assert "'id'" in found.message
        assert "'email'" in found.message
        assert refused(store, SubjectPatch(both, traits={"a": 1})) == "SUBJECT_CONFLICT"
        assert refused(store, SubjectPatch(user(id="u3"), member_of=[both])) == "SUBJECT_CONFLICT"
        assert record(store, track("e", both)) == ["SUBJECT_CONFLICT"]
        (removed,) = store.delete_subjects(*PLACE, [(both, None)], actor="", now=NOW)
        assert isinstance(removed, KeyConflict)
        assert [subject.keys for subject in store.list_subjects(*PLACE, now=NOW)] == [
            {"id": "u1"},
            {"email": "a@b"},
        ]
        assert find(store, user(phone="1")) is None
        # The same keys of another kind are nobody's.
        assert put_one(store, of("company", id="u1", email="a@b")).version == 1

    def test_a_patch_sees_what_those_before_it_did(self, store: Store) -> None:
        results = put(
            store,
            SubjectPatch(user(id="u1", email="a@b"), traits={"n": 1}),
            SubjectPatch(user(id="u1", email="c@d"), traits={"n": 2}),
            SubjectPatch(user(email="a@b", id="u2")),
            SubjectPatch(user(id="u1", phone="1"), traits={"n": 2}),
            SubjectPatch(user(id="u1"), traits={"n": 2}),
            SubjectPatch(user(id="u1", email="a@b")),
        )
        assert [result.version for result in results if isinstance(result, Subject)] == [1, 2, 1, 3, 3]
        assert isinstance(results[-1], Refusal)
        assert results[4] == get(store, user(phone="1"))
        assert get(store, user(email="a@b")).keys == {"id": "u2", "email": "a@b"}
        # One entry for each, however often it changed.
        assert len(feed(store)) == 2
        assert [change.version for change in store.subject_changes(*PLACE)] == [3, 1, 2, 1]

    def test_a_refused_patch_leaves_nothing_behind_and_stops_no_other(self, store: Store) -> None:
        results = put(
            store,
            SubjectPatch(user(id="u1")),
            SubjectPatch(user(id="u2"), member_of=[of("company", id="none")]),
            SubjectPatch(user(id="u3")),
            SubjectPatch(user(id="u2"), traits={"a": 1}),
        )
        assert [type(result) for result in results] == [Subject, Refusal, Subject, Subject]
        assert get(store, user(id="u2")).version == 1
        assert len(store.list_subjects(*PLACE, now=NOW)) == 3

    # Memberships.

    def test_members_follow_the_keys_of_what_they_are_members_of(self, store: Store) -> None:
        company = put_one(store, of("company", id="c1"))
        other = put_one(store, of("company", id="c2"))
        member = put_one(store, user(id="u1"), member_of=[of("company", id="C2"), of("company", id="c1")])
        assert [membership.id for membership in member.member_of] == [other.id, company.id]
        put_one(store, user(id="stranger"), member_of=[of("company", id="c2")])
        number = store.subject_feed_number()
        put_one(store, of("company", id="c1", domain="a.b"))
        assert feed(store, number) == [company.id, member.id]
        followed = get(store, member.id)
        assert followed.version == 2
        assert followed.member_of[1] == Membership(company.id, "company", {"id": "c1", "domain": "a.b"})
        # What else changes is none of the members' business.
        put_one(store, of("company", id="c1"), traits={"plan": "pro"})
        assert get(store, member.id) == followed
        assert len(store.subject_changes(*PLACE, id=member.id)) == 1

    def test_the_versions_that_are_answered_are_those_that_are_stored(self, store: Store) -> None:
        company = of("company", id="c1")
        put(
            store,
            SubjectPatch(company),
            *(SubjectPatch(user(id=f"u{n}"), member_of=[company]) for n in range(3)),
        )
        patches = [
            SubjectPatch(user(id="u0"), {"n": 1}),
            SubjectPatch(user(id="u1")),
            SubjectPatch(user(id="u3"), member_of=[company]),
            SubjectPatch(of("company", id="c1", domain="a")),
            SubjectPatch(user(id="u4"), member_of=[company]),
        ]
        results = put(store, *patches)
        assert results == [get(store, patch.reference) for patch in patches]
        assert [get(store, user(id=f"u{n}")).version for n in range(3)] == [2, 2, 2]
        # Who leaves with the same call does not follow, and has a new version for that.
        left = put(
            store,
            SubjectPatch(user(id="u0"), remove_member_of=[company]),
            SubjectPatch(of("company", id="c1", domain="b")),
        )
        assert left == [get(store, user(id="u0")), get(store, company)]
        assert left[0].version == 3  # type: ignore[union-attr]

    def test_members_lose_what_is_removed(self, store: Store) -> None:
        company = put_one(store, of("company", id="c1"))
        put_one(store, of("company", id="c2"))
        member = put_one(store, user(id="u1"), member_of=[of("company", id="c1"), of("company", id="c2")])
        number = store.subject_feed_number()
        store.delete_subjects(*PLACE, [(company.id, None)], actor="", now=NOW)
        assert feed(store, number) == [company.id, member.id]
        left = get(store, member.id)
        assert left.version == 2
        assert [membership.keys for membership in left.member_of] == [{"id": "c2"}]
        # A new one of the same keys has no members.
        put_one(store, of("company", id="c1"))
        assert get(store, member.id) == left

    def test_memberships_are_ended_and_kept_in_order(self, store: Store) -> None:
        companies = [of("company", id=f"c{number}") for number in range(4)]
        put(store, *map(SubjectPatch, companies))

        def ids(subject: Subject) -> list[str]:
            return [membership.keys["id"] for membership in subject.member_of]

        put_one(store, user(id="u1"), member_of=[companies[2], companies[0]])
        assert ids(put_one(store, user(id="u1"), member_of=[companies[1], companies[2]])) == [
            "c2",
            "c0",
            "c1",
        ]
        gone = put_one(store, user(id="u1"), remove_member_of=[companies[0], of("company", id="no")])
        assert ids(gone) == ["c2", "c1"]
        back = put_one(
            store, user(id="u1"), member_of=[companies[0], companies[2]], remove_member_of=[companies[2]]
        )
        assert ids(back) == ids(get(store, user(id="u1"))) == ["c1", "c0", "c2"]
        # In one call, of one that the call has made.
        results = put(
            store,
            SubjectPatch(of("company", id="new")),
            SubjectPatch(user(id="u2"), member_of=[of("company", id="new")]),
        )
        assert isinstance(results[1], Subject)
        assert ids(results[1]) == ["new"]

    def test_of_very_many_members_the_feed_tells_at_once(self, store: Store) -> None:
        company = put_one(store, of("company", id="c1"))
        member_of = [of("company", id="c1")]
        members = [SubjectPatch(user(id=f"u{number}"), member_of=member_of) for number in range(1001)]
        put(store, *members[:1000])
        number = store.subject_feed_number()
        put_one(store, of("company", id="c1", domain="a"))
        assert len(set(feed(store, number) + feed(store, number + 1000))) == 1001
        put(store, members[1000])
        number = store.subject_feed_number()
        renamed = put_one(store, of("company", id="c1", domain="b"))
        assert renamed == get(store, company.id)
        assert store.subject_changes(*PLACE)[0].version == renamed.version
        assert store.subject_feed(number) == (FeedEntry(number + 1, *PLACE, b""),)
        assert get(store, user(id="u0")).version == 3
        assert get(store, user(id="u1000")).version == 2
        number = store.subject_feed_number()
        store.delete_subjects(*PLACE, [(company.id, None)], actor="", now=NOW)
        assert feed(store, number) == [b""]
        assert get(store, user(id="u1000")).version == 3

    # Limits.

    @with_each(
        ("limits", "patch", "limit"),
        [
            (SubjectLimits(max_subject_keys=1), SubjectPatch(user(id="u", b="2")), "max_subject_keys"),
            (SubjectLimits(max_traits=1), SubjectPatch(user(id="u"), {"b": 2}), "max_traits"),
            (SubjectLimits(max_trait_bytes=4), SubjectPatch(user(id="u"), {"a": "üx"}), "max_trait_bytes"),
            (
                SubjectLimits(max_subject_bytes=60),
                SubjectPatch(user(id="u"), {"a": "x" * 50}),
                "max_subject_bytes",
            ),
            (
                SubjectLimits(max_overrides=1),
                SubjectPatch(user(id="u"), overrides=[SubjectOverride("t", 1)]),
                "max_overrides",
            ),
            (
                SubjectLimits(max_memberships=1),
                SubjectPatch(user(id="u"), member_of=[user(id="u")]),
                "max_memberships",
            ),
            (SubjectLimits(max_subjects=1), SubjectPatch(user(id="new")), "max_subjects"),
        ],
    )
    def test_what_passes_a_limit_is_refused_by_its_name(
        self, store: Store, limits: SubjectLimits, patch: SubjectPatch, limit: str
    ) -> None:
        overrides = [SubjectOverride("s", 1), SubjectOverride("old", 1, NOW + SECOND)]
        put_one(store, of("company", id="c1"))
        put_one(store, user(id="u"), traits={"a": 1}, overrides=overrides, member_of=[of("company", id="c1")])
        before = get(store, user(id="u"))
        (result,) = put(store, patch, limits=limits, now=NOW + 2 * SECOND)
        assert isinstance(result, Refusal)
        assert result.reason == "LIMIT_EXCEEDED"
        assert limit in result.message
        assert get(store, user(id="u")) == before
        # What is there already, and what becomes less, is no harm.
        for harmless in (SubjectPatch(user(id="u")), SubjectPatch(user(id="u"), remove_traits=["a"])):
            (result,) = put(store, harmless, limits=limits)
            assert isinstance(result, Subject)
        store.delete_subjects(
            *PLACE, [(of("company", id="c1"), None), (user(id="u"), None)], actor="", now=NOW
        )

    def test_subjects_that_were_removed_count_no_more_for_the_limit(self, store: Store) -> None:
        limits = SubjectLimits(max_subjects=2)
        assert refused(store, *(SubjectPatch(user(id=str(n))) for n in range(3)), limits=limits)
        assert record(store, track("a", user(id="5")), limits=limits) == ["LIMIT_EXCEEDED"]
        store.delete_subjects(*PLACE, [(user(id="0"), None)], actor="", now=NOW)
        assert record(store, track("a", user(id="5"))) == [""]
        assert refused(store, SubjectPatch(user(id="6")), limits=limits) == "LIMIT_EXCEEDED"
        other = put(store, SubjectPatch(user(id="6")), limits=limits, place=("shop", "staging"))
        assert isinstance(other[0], Subject)

    # Removing.

    def test_a_removal_tells_what_became_of_it(self, store: Store) -> None:
        subject = put_one(store, user(id="u1"), traits={"a": 1})
        record(store, track("e", user(id="u1")))
        counted_one = get(store, subject.id)
        assert counted_one.version == 2
        names: list[tuple[bytes | SubjectReference, int | None]] = [
            (user(id="none"), None),
            (bytes(16), 1),
            (subject.id, 1),
            (user(id="U1"), 2),
            (user(id="u1"), None),
        ]
        results = store.delete_subjects(*PLACE, names, actor="k2", now=NOW)
        assert results == (False, False, True, replace(counted_one, counters=()), False)
        assert find(store, subject.id) is None
        assert find(store, user(id="u1")) is None
        again = put_one(store, user(id="u1"))
        assert again.id != subject.id
        assert (again.version, again.counters, again.traits) == (1, (), {})

    def test_who_changed_subjects_is_told_without_values(self, store: Store) -> None:
        put_one(store, of("company", id="c1"))
        patch = SubjectPatch(
            user(id="u1", email="secret@b"),
            traits={"plan": "hush", "seats": 1},
            overrides=[SubjectOverride("new-checkout", 1)],
            member_of=[of("company", id="c1")],
            month_day=3,
        )
        (subject,) = put(store, patch, actor=NUL)
        assert isinstance(subject, Subject)
        put(store, SubjectPatch(user(id="u1"), {"plan": "pro"}, ["seats"]), actor="k2", now=NOW + SECOND)
        put(store, SubjectPatch(user(id="u1"), remove_overrides=["new-checkout"]), now=NOW + SECOND)
        record(store, track("e", user(id="u1"), user(id="u2")), actor="k3")
        store.delete_subjects(*PLACE, [(subject.id, None)], actor="k4", now=NOW + DAY)
        changes = store.subject_changes(*PLACE, id=subject.id)
        fields = (
            "keys.email",
            "keys.id",
            "member_of",
            "month_day",
            "overrides.new-checkout",
            "traits.plan",
            "traits.seats",
        )
        expected = [
            SubjectChange(subject.id, "user", 0, NOW + DAY, "k4", ("deleted",)),
            SubjectChange(subject.id, "user", 3, NOW + SECOND, "k1", ("overrides.new-checkout",)),
            SubjectChange(subject.id, "user", 2, NOW + SECOND, "k2", ("traits.plan", "traits.seats")),
            SubjectChange(subject.id, "user", 1, NOW, NUL, fields),
        ]
        assert [replace(change, number=0) for change in changes] == expected
        every = store.subject_changes(*PLACE)
        assert [change.number for change in every] == sorted((c.number for c in every), reverse=True)
        assert [(change.actor, change.fields) for change in every][1] == ("k3", ("keys.id",))
        pages = store.subject_changes(*PLACE, limit=2)
        assert pages == every[:2]
        assert store.subject_changes(*PLACE, before=pages[-1].number, limit=2) == every[2:4]
        assert store.subject_changes("shop", "staging") == ()

    # Listing.

    def test_subjects_come_in_pages_in_the_order_in_which_they_were_stored(self, store: Store) -> None:
        subjects = [put_one(store, of("ab"[n % 2], id=str(9 - n)), traits={"n": n}) for n in range(7)]
        put(store, SubjectPatch(user(id="elsewhere")), place=("shop", "staging"))
        record(store, track("e", of("a", id="9")))
        subjects[0] = get(store, subjects[0].id)
        assert subjects[0].counters
        assert store.list_subjects(*PLACE, now=NOW) == tuple(subjects)
        assert store.list_subjects(*PLACE, kind="b", now=NOW) == tuple(subjects[1::2])
        assert store.list_subjects(*PLACE, kind="none", now=NOW) == ()
        page = store.list_subjects(*PLACE, limit=2, now=NOW)
        assert page == tuple(subjects[:2])
        store.delete_subjects(*PLACE, [(page[-1].id, None)], actor="", now=NOW)
        page = store.list_subjects(*PLACE, after=page[-1].id, limit=2, now=NOW)
        assert page == tuple(subjects[2:4])
        assert store.list_subjects(*PLACE, kind="a", after=page[-1].id, now=NOW) == tuple(subjects[4::2])
        assert store.list_subjects(*PLACE, after=subjects[-1].id, now=NOW) == ()

    # Events.

    def test_an_event_counts_for_each_of_its_subjects(self, store: Store) -> None:
        put_one(store, of("company", id="c1"))
        events = [
            track("1", user(id="u1"), of("company", id="C1")),
            track("2", user(id="U1"), name="api.call", quantity=5),
            track("3", user(id="u1"), user(id="u1", email="a@b"), quantity=2),
            track("4", quantity=10),
        ]
        assert record(store, *events) == ["", "", "", ""]
        subject = get(store, user(id="u1"))
        monday = datetime.datetime(2026, 3, 2, tzinfo=UTC)
        april = datetime.datetime(2026, 4, 1, tzinfo=UTC)
        assert subject.counters == (
            UsageCounter("api.call", UsagePeriod.DAY, 5, monday),
            UsageCounter("api.call", UsagePeriod.WEEK, 5, monday),
            UsageCounter("api.call", UsagePeriod.MONTH, 5, april),
            UsageCounter("api.call", UsagePeriod.ALL, 5),
            UsageCounter("login", UsagePeriod.DAY, 3, monday),
            UsageCounter("login", UsagePeriod.WEEK, 3, monday),
            UsageCounter("login", UsagePeriod.MONTH, 3, april),
            UsageCounter("login", UsagePeriod.ALL, 3),
        )
        assert counted(store, of("company", id="c1")) == (1, 1, 1, 1)
        assert store.event_counts(*PLACE) == (
            EventCount("api.call", 1, 5, NOW),
            EventCount("login", 3, 13, NOW),
        )

    def test_an_unknown_subject_is_stored_and_a_known_one_left_as_it_is(self, store: Store) -> None:
        known = put_one(store, user(id="u1"), traits={"a": 1})
        record(store, track("1", user(id="u1", email="a@b")), track("2", of("company", id="c1", domain="d")))
        assert get(store, user(id="u1")) == replace(known, version=2, counters=get(store, known.id).counters)
        assert find(store, user(email="a@b")) is None
        new = get(store, of("company", domain="d"))
        assert (new.keys, new.version) == ({"id": "c1", "domain": "d"}, 1)

    def test_a_call_raises_each_version_once(self, store: Store) -> None:
        subject = put_one(store, user(id="u1"))
        number = store.subject_feed_number()
        record(store, *(track(str(n), user(id="u1"), of("company", id="c1")) for n in range(5)))
        assert get(store, subject.id).version == 2
        entries = feed(store, number)
        assert sorted(entries) == sorted([subject.id, get(store, of("company", id="c1")).id])
        record(store, track("again", user(id="u1")))
        assert get(store, subject.id).version == 3
        assert put_one(store, user(id="u1"), traits={"a": 1}).version == 4
        assert get(store, subject.id).version == 4
        assert store.subject_changes(*PLACE, id=subject.id)[0].version == 4
        # What is counted is no change by somebody.
        assert len(store.subject_changes(*PLACE, id=subject.id)) == 2
        assert get(store, subject.id).updated_at == NOW

    def test_an_event_counts_once_by_its_key(self, store: Store) -> None:
        key = NUL
        reference = user(id="u1")
        assert record(store, track(key, reference), track(key, reference), track("b", reference)) == [""] * 3
        number = store.subject_feed_number()
        version = get(store, reference).version
        # Whatever is sent with it the second time.
        again = [track(key, user(id="u2"), quantity=7), track("b", reference)]
        assert record(store, *again, now=NOW + 2 * DAY - SECOND) == ["", ""]
        assert (store.subject_feed_number(), get(store, reference).version) == (number, version)
        assert find(store, user(id="u2")) is None
        assert counted(store, reference) == (2, 2, 2, 2)
        # Keys are those of an environment and an actor.
        assert record(store, track(key, reference), actor="k2") == [""]
        assert record(store, track(key, reference), place=("shop", "staging")) == [""]
        assert counted(store, reference) == (3, 3, 3, 3)

    def test_what_is_refused_leaves_nothing_behind(self, store: Store) -> None:
        put_one(store, user(id="u1"))
        put_one(store, user(email="a@b"))
        conflict = user(id="u1", email="a@b")
        events = [
            track("1", user(id="new"), conflict),
            track("2", user(id="u1")),
            track("1", user(id="u1")),
            track("3", user(id="new"), of("company", id="c1"), conflict),
        ]
        assert record(store, *events) == ["SUBJECT_CONFLICT", "", "", "SUBJECT_CONFLICT"]
        assert find(store, user(id="new")) is None
        assert find(store, of("company", id="c1")) is None
        assert counted(store, user(id="u1")) == (2, 2, 2, 2)
        assert store.event_counts(*PLACE) == (EventCount("login", 2, 2, NOW),)
        # Nor does it count for the limit of subjects.
        events = [track("4", user(id="newer"), conflict), track("5", user(id="new"))]
        assert record(store, *events, limits=SubjectLimits(max_subjects=3)) == ["SUBJECT_CONFLICT", ""]
        assert record(store, track("3", user(id="new"))) == [""]

    @with_each(
        ("quantities", "reasons", "total"),
        [
            ((INT64_MAX, 1, -1, 1), ("", "COUNT_OVERFLOW", "", ""), INT64_MAX),
            ((INT64_MIN, -1, 1, 0), ("", "COUNT_OVERFLOW", "", ""), INT64_MIN + 1),
            ((5, -7), ("", ""), -2),
            ((0, 0), ("", ""), 0),
        ],
    )
    def test_counts_stay_within_64_bits(
        self, store: Store, quantities: Sequence[int], reasons: Sequence[str], total: int
    ) -> None:
        name = user(id=str(quantities))
        events = [track(f"{total}/{n}", name, quantity=each) for n, each in enumerate(quantities)]
        assert record(store, *events) == list(reasons)
        assert counted(store, name) == (total, total, total, total)
        one_by_one = user(id=f"one by one {quantities}")
        for number, quantity in enumerate(quantities):
            event = track(f"{total}//{number}", one_by_one, quantity=quantity)
            assert record(store, event) == [reasons[number]]
        assert counted(store, one_by_one) == (total, total, total, total)

    def test_the_counts_of_all_subjects_and_of_weeks_stop_at_64_bits(self, store: Store) -> None:
        for day in range(2):
            for number in range(3):
                at = NOW - day * DAY
                event = track(f"{day}/{number}", user(id=f"{number}"), quantity=INT64_MAX // 2, time=at)
                assert record(store, event) == [""]
        assert store.event_counts(*PLACE) == (EventCount("login", 6, INT64_MAX, NOW),)
        # A week with more than either of its days, after something long ago was taken back.
        name = user(id="w")
        for number, (quantity, days) in enumerate([(-INT64_MAX, 20), (INT64_MAX, 0), (INT64_MAX, 1)]):
            event = track(f"w{number}", name, name="w", quantity=quantity, time=NOW - days * DAY)
            assert record(store, event) == [""]
        assert counted(store, name, event="w") == (INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX)

    def test_a_subject_is_counted_for_so_many_names_of_events(self, store: Store) -> None:
        limits = SubjectLimits(max_subject_events=2)
        one, other = user(id="u1"), user(id="u2")
        events = [track(name, one, name=name) for name in "abc"]
        assert record(store, *events, limits=limits) == ["", "", "LIMIT_EXCEEDED"]
        event = track("c", other, one, user(id="new"), name="c")
        assert record(store, event, limits=limits) == ["LIMIT_EXCEEDED"]
        assert find(store, other) is None
        assert find(store, user(id="new")) is None
        assert record(store, track("again", one, name="b"), limits=limits) == [""]
        # Days are no names.
        late = [track(f"late{n}", one, name="b", time=NOW - n * DAY) for n in range(5)]
        assert record(store, *late, limits=limits) == [""] * 5
        assert record(store, track("c", one, name="c"), limits=replace(limits, max_subject_events=3)) == [""]

    # Periods.

    @with_each(
        ("month_day", "now", "events", "expected"),
        [
            # Sunday the 1st of March: the week began on the 23rd of February.
            (1, "2026-03-01T12:00", ["2026-03-01T00:00", "2026-02-28T23:59:59.999999"], (1, 2, 1, 2)),
            (1, "2026-03-01T00:00", ["2026-02-23T00:00", "2026-02-22T23:59:59"], (0, 1, 0, 2)),
            # The 31st, in months that have none: on their last day.
            (31, "2026-03-01T12:00", ["2026-02-28T00:00", "2026-02-27T23:59:59"], (0, 2, 1, 2)),
            (31, "2026-02-28T00:00", ["2026-02-28T00:00", "2026-02-27T23:59:59"], (1, 2, 1, 2)),
            (31, "2026-02-27T23:00", ["2026-01-31T00:00", "2026-01-30T23:59:59"], (0, 0, 1, 2)),
            (31, "2026-03-30T23:00", ["2026-02-28T00:00", "2026-02-27T23:59:59"], (0, 0, 1, 2)),
            (31, "2028-02-29T00:00", ["2028-02-29T00:00", "2028-02-28T23:00"], (1, 2, 1, 2)),
            (30, "2026-12-30T00:00", ["2026-12-29T23:59", "2026-12-30T00:00"], (1, 2, 1, 2)),
            (15, "2026-01-14T00:00", ["2025-12-15T00:00", "2025-12-14T23:59"], (0, 0, 1, 2)),
            # What is told of tomorrow counts from then on.
            (1, "2026-03-01T23:59", ["2026-03-02T00:00", "2026-02-28T00:00"], (0, 1, 1, 2)),
            # Midnight is that of UTC.
            (1, "2026-03-01T12:00", ["2026-03-01T00:30+02:00", "2026-02-28T22:30-02:00"], (1, 2, 1, 2)),
        ],
    )
    def test_counts_of_periods_are_sums_of_days(
        self, store: Store, month_day: int, now: str, events: list[str], expected: tuple[int, ...]
    ) -> None:
        def instant(text: str) -> datetime.datetime:
            parsed = datetime.datetime.fromisoformat(text)
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

        name = user(id=f"{month_day} {now} {events}")
        at = instant(now)
        put_one(store, name, month_day=month_day)
        sent = [
            track(f"{name.keys['id']}{number}", name, time=instant(text))
            for number, text in enumerate(events)
        ]
        assert record(store, *sent, now=at) == [""] * len(events)
        assert counted(store, name, at) == expected

    def test_months_of_several_beginnings_are_counted_side_by_side(self, store: Store) -> None:
        names = [user(id=str(number)) for number in range(3)]
        for name, month_day in zip(names, (1, 15, 31), strict=True):
            put_one(store, name, month_day=month_day)
        days = [datetime.timedelta(days=number) for number in range(-40, 20)]
        record(store, *(track(str(day), *names, time=NOW + day) for day in days))
        # A Sunday, the first of March: the months are of 31, 28 and 31 days.
        expected = [(1, 7, 20, 60), (1, 7, 28, 60), (1, 7, 21, 60)]
        assert [counted(store, name) for name in names] == expected
        assert len(get(store, names[0]).counters) == 4
        moved = put_one(store, names[0], month_day=15)
        assert moved == get(store, names[0])
        assert counted(store, names[0]) == expected[1]

    def test_a_period_that_is_over_counts_no_more_and_says_when_it_ends(self, store: Store) -> None:
        name = user(id="u1")
        put_one(store, name, month_day=31)
        record(store, track("1", name, time=NOW))
        ends = {counter.period: counter.period_end for counter in get(store, name).counters}
        assert ends == {
            UsagePeriod.DAY: datetime.datetime(2026, 3, 2, tzinfo=UTC),
            UsagePeriod.WEEK: datetime.datetime(2026, 3, 2, tzinfo=UTC),
            UsagePeriod.MONTH: datetime.datetime(2026, 3, 31, tzinfo=UTC),
            UsagePeriod.ALL: None,
        }
        assert counted(store, name, datetime.datetime(2026, 3, 2, tzinfo=UTC)) == (0, 0, 1, 1)
        month = datetime.datetime(2026, 3, 31, tzinfo=UTC)
        assert counted(store, name, month - SECOND) == (0, 0, 1, 1)
        assert counted(store, name, month) == (0, 0, 0, 1)
        # The day on which months begin may change, with everything counted already.
        put_one(store, name, month_day=1)
        assert counted(store, name, month - SECOND) == (0, 0, 1, 1)
        put_one(store, name, month_day=2)
        assert counted(store, name, datetime.datetime(2026, 3, 2, tzinfo=UTC)) == (0, 0, 0, 1)

    # Exposures.

    def test_exposures_are_counted_and_store_no_subject(self, store: Store) -> None:
        def shown(key: str, days: int = 0, **what: object) -> SubjectEvent:
            values: dict[str, object] = {
                "setting": "checkout",
                "rule_id": "r1",
                "variant": "on",
                "value": True,
                "revision": 7,
            }
            exposure = Exposure(**(values | what))  # type: ignore[arg-type]
            return SubjectEvent(key, NOW - days * DAY, [user(id="u1")], exposure)

        long = "x" * 500
        events = [
            shown("1"),
            shown("2", 1, count=4),
            shown("3", 2),
            shown("2"),
            shown("4", variant="", rule_id="", value=ABSENT),
            shown("5", revision=6),
            shown("6", setting="b", value=long),
            shown("7", setting="b", value=1.0),
            shown("8", setting="b", value=1),
            shown("9", setting="b", value=FrozenMapping({"ü": "\x00"}), count=INT64_MAX),
            shown("10", 1, setting="b", value=FrozenMapping({"ü": "\x00"}), count=INT64_MAX),
        ]
        number = store.subject_feed_number()
        assert record(store, *events) == [""] * len(events)
        assert store.subject_feed_number() == number
        assert find(store, user(id="u1")) is None
        counts = store.exposures(*PLACE)
        expected = [
            ExposureCount("b", 7, "r1", "on", f'"{"x" * 198}…', 1, NOW, NOW),
            ExposureCount("b", 7, "r1", "on", "1", 1, NOW, NOW),
            ExposureCount("b", 7, "r1", "on", "1.0", 1, NOW, NOW),
            ExposureCount("b", 7, "r1", "on", '{"ü":"\\u0000"}', INT64_MAX, NOW - DAY, NOW),
            ExposureCount("checkout", 6, "r1", "on", "true", 1, NOW, NOW),
            ExposureCount("checkout", 7, "", "", "", 1, NOW, NOW),
            ExposureCount("checkout", 7, "r1", "on", "true", 6, NOW - 2 * DAY, NOW),
        ]
        assert list(counts) == expected
        assert store.exposures(*PLACE, setting="checkout") == tuple(expected[4:])
        assert store.exposures(*PLACE, offset=2, limit=3) == tuple(expected[2:5])
        today = NOW.date()
        (older,) = store.exposures(*PLACE, setting="checkout", since=today - 2 * DAY, until=today)
        assert older == ExposureCount("checkout", 7, "r1", "on", "true", 5, NOW - 2 * DAY, NOW - DAY)
        assert store.exposures(*PLACE, since=today + DAY) == ()
        assert store.exposures("shop", "staging") == ()
        assert store.event_counts(*PLACE) == ()
        record(store, shown("11"))
        assert store.exposures(*PLACE)[-1].count == 7

    def test_events_are_counted_by_day_and_come_in_pages(self, store: Store) -> None:
        events = [
            track(f"{name}{day}", user(id="u"), name=name, quantity=2, time=NOW - day * DAY)
            for name in ("b", "a", "c")
            for day in range(3)
        ]
        record(store, *events)
        assert [found.event for found in store.event_counts(*PLACE)] == ["a", "b", "c"]
        assert store.event_counts(*PLACE, limit=1) == (EventCount("a", 3, 6, NOW),)
        assert [found.event for found in store.event_counts(*PLACE, after="a", limit=1)] == ["b"]
        today = NOW.date()
        between = store.event_counts(*PLACE, since=today - 2 * DAY, until=today - DAY, after="b")
        assert between == (EventCount("c", 1, 2, NOW - 2 * DAY),)
        assert store.event_counts("shop", "staging") == ()

    # The feed.

    def test_the_feed_is_gapless_and_tells_of_every_environment(self, store: Store) -> None:
        assert store.subject_feed_number() == 0
        assert store.subject_feed(0) == ()
        one = put_one(store, user(id="u1"))
        (other,) = put(store, SubjectPatch(user(id="u1")), place=("blog", "staging"))
        assert isinstance(other, Subject)
        put_one(store, user(id="u1"), traits={"a": 1})
        assert store.subject_feed(0) == (
            FeedEntry(1, *PLACE, one.id),
            FeedEntry(2, "blog", "staging", other.id),
            FeedEntry(3, *PLACE, one.id),
        )
        assert store.subject_feed(1, limit=1) == (FeedEntry(2, "blog", "staging", other.id),)
        assert store.subject_feed_number() == 3
        assert store.subject_feed(3) == ()
        # Who has seen more than there is has seen another feed.
        with pytest.raises(RevisionCompactedError):
            store.subject_feed(4)

    def test_with_a_generation_the_feed_begins_after_all_that_was_seen(self, store: Store) -> None:
        put_one(store, user(id="u1"))
        store.raise_generation(1)
        newest = store.subject_feed_number()
        assert store.subject_feed(newest) == ()
        # Also who has seen what was lost: this store is what was left.
        for seen in (0, 1, 2, 1000, newest + 1):
            with pytest.raises(RevisionCompactedError):
                store.subject_feed(seen)
        put_one(store, user(id="u1"), traits={"a": 1})
        assert [entry.number for entry in store.subject_feed(newest)] == [newest + 1]

    def test_no_version_of_a_history_that_was_lost_is_one_of_another(self, store: Store) -> None:
        before = [put_one(store, user(id="u1"), traits={"n": number}).version for number in range(3)]
        generation = store.raise_generation(1).generation
        kept = get(store, user(id="u1"))
        after = put_one(store, user(id="u1"), traits={"n": "another"})
        other = put_one(store, user(id="u2"))
        assert max(before) < kept.version < after.version == get(store, after.id).version
        assert other.version > max(before)
        assert [change.version for change in store.subject_changes(*PLACE)][:2] == [
            other.version,
            after.version,
        ]
        assert record(store, track("1", user(id="u1"))) == [""]
        counted_at = get(store, user(id="u1")).version
        assert counted_at > after.version
        # Removed only by the version that is seen.
        assert store.delete_subjects(*PLACE, [(other.id, 1)], actor="", now=NOW) == (True,)
        (removed,) = store.delete_subjects(*PLACE, [(other.id, other.version)], actor="", now=NOW)
        assert isinstance(removed, Subject)
        store.raise_generation(generation)
        # More than can have been lost since a backup.
        assert get(store, user(id="u1")).version > counted_at + 1_000_000

    def test_concurrent_subjects_leave_no_gap_and_lose_nothing(self, store: Store) -> None:
        together = threading.Barrier(4)

        def write(writer: int) -> None:
            together.wait(60)
            for number in range(6):
                put(
                    store,
                    SubjectPatch(user(id=f"{writer}/{number}")),
                    SubjectPatch(user(id="shared"), {f"t{writer}": number}),
                )
                record(
                    store,
                    track(f"{writer}/{number}", user(id="shared"), user(id=f"{writer}")),
                    # Of two who send it at the same time one is counted.
                    track(f"both/{number}", user(id="shared")),
                )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        shared = get(store, user(id="shared"))
        assert shared.traits == {f"t{writer}": 5 for writer in range(4)}
        assert counted(store, shared.id) == (30, 30, 30, 30)
        assert len(store.list_subjects(*PLACE, now=NOW)) == 29
        entries = feed(store)
        assert len(entries) == store.subject_feed_number()
        # Each change of a version is told of; its own creation came first.
        assert entries.count(shared.id) == shared.version
        changes = store.subject_changes(*PLACE, limit=1000)
        assert [change.number for change in changes] == list(range(len(changes), 0, -1))

    def test_a_hint_follows_a_change_of_a_subject(self, store: Store) -> None:
        hinted: list[bool] = []
        ready = threading.Event()

        def follow() -> None:
            # The first hint of a thread is spurious: it has seen nothing yet.
            store.wait_hint(0)
            ready.set()
            hinted.append(store.wait_hint(60))

        follower = threading.Thread(target=follow)
        follower.start()
        assert ready.wait(60)
        put_one(store, user(id="u1"))
        follower.join(60)
        assert hinted == [True]

    # Purging.

    def test_what_is_kept_no_longer_is_purged_and_nothing_else(self, store: Store) -> None:
        one, other = user(id="u1"), user(id="u2")
        put(store, SubjectPatch(one), SubjectPatch(other))
        exposure = SubjectEvent("x", NOW, (), Exposure("s", "", "", 1, 1))
        record(store, track("1", one, quantity=3), track("2", other), exposure)
        record(store, track("3", one), now=NOW + DAY)
        assert store.purge_subject_records(NOW) == 0
        assert len(store.subject_feed(0)) == 5
        assert store.purge_subject_records(NOW + HOUR + SECOND) == 4
        with pytest.raises(RevisionCompactedError):
            store.subject_feed(3)
        assert [entry.number for entry in store.subject_feed(4)] == [5]
        assert store.purge_subject_records(NOW + DAY + HOUR + SECOND) == 1
        assert (store.subject_feed_number(), store.subject_feed(5)) == (5, ())
        # Keys of events; those of the last two days stay.
        assert store.purge_subject_records(NOW + 3 * DAY) == 3
        assert record(store, track("3", one), now=NOW + 3 * DAY) == [""]
        assert counted(store, one, NOW) == (4, 4, 4, 4)
        assert record(store, track("1", one), now=NOW + 3 * DAY) == [""]
        assert counted(store, one, NOW) == (5, 5, 5, 5)
        store.purge_subject_records(NOW + 61 * DAY)
        # The days of the counters, and never their totals.
        assert store.purge_subject_records(NOW + 63 * DAY) == 2
        assert counted(store, one, NOW) == (0, 0, 0, 5)
        assert counted(store, one, NOW + 63 * DAY) == (0, 0, 0, 5)
        assert len(store.subject_changes(*PLACE)) == 2
        assert store.purge_subject_records(NOW + 91 * DAY) == 2
        assert store.subject_changes(*PLACE) == ()
        assert len(store.event_counts(*PLACE)) == len(store.exposures(*PLACE)) == 1
        assert store.purge_subject_records(NOW + 401 * DAY) == 2
        assert store.event_counts(*PLACE) == store.exposures(*PLACE) == ()
        assert len(store.list_subjects(*PLACE, now=NOW)) == 2
        # Numbers go on where they were.
        put_one(store, one, traits={"a": 1})
        assert [entry.number for entry in store.subject_feed(6)] == [7]

    def test_a_clock_that_was_ahead_for_a_while_ends_no_purge_and_doubles_nothing(self, store: Store) -> None:
        ahead = NOW + 3650 * DAY
        put(store, SubjectPatch(user(id="u1")), now=ahead)
        event = track("1", user(id="u1"))
        assert record(store, event, now=ahead) == [""]
        # Sent again once the clock is right.
        assert record(store, event) == [""]
        assert counted(store, user(id="u1")) == (1, 1, 1, 1)
        put(store, SubjectPatch(user(id="u2")), SubjectPatch(user(id="u3")))
        assert len(store.subject_feed(0)) == 4
        assert store.purge_subject_records(NOW + HOUR) == 0
        assert store.purge_subject_records(NOW + HOUR + SECOND) == 4
        assert store.subject_feed(4) == ()
        put(store, SubjectPatch(user(id="u4")), now=NOW + 60 * DAY)
        assert len(store.subject_changes(*PLACE)) == 4
        store.purge_subject_records(NOW + 91 * DAY)
        assert [change.version for change in store.subject_changes(*PLACE)] == [1]

    def test_purges_more_than_one_step_of_each(self, store: Store) -> None:
        names = [user(id=str(number)) for number in range(1100)]
        record(store, *(track(str(number), name) for number, name in enumerate(names)))
        # Subjects changed and counted are one entry of the feed each; days, keys and changes.
        record(store, *(track(f"later{number}", names[0]) for number in range(1500)), now=NOW + DAY)
        assert store.purge_subject_records(NOW + 3 * DAY) == 1100 * 2 + 1
        assert store.purge_subject_records(NOW + 100 * DAY) == 1100 * 2 + 1500
        assert store.purge_subject_records(NOW + 100 * DAY) == 0
        assert counted(store, names[-1]) == (0, 0, 0, 1)

    # Arguments.

    def test_empty_calls_do_nothing(self, store: Store) -> None:
        assert put(store) == []
        assert record(store) == []
        assert store.get_subjects(*PLACE, [], now=NOW) == ()
        assert store.delete_subjects(*PLACE, [], actor="", now=NOW) == ()
        assert store.list_subjects(*PLACE, now=NOW) == ()
        assert store.exposures(*PLACE) == store.event_counts(*PLACE) == ()
        assert store.subject_changes(*PLACE) == ()
        assert store.subject_feed_number() == 0

    def test_hundreds_of_names_are_read_at_once_and_in_their_order(self, store: Store) -> None:
        put(store, *(SubjectPatch(user(id=str(number), other=f"o{number}")) for number in range(700)))
        names = [user(id=str(number)) if number % 2 else user(other=f"O{number}") for number in range(720)]
        found = store.get_subjects(*PLACE, [*names, names[0]], now=NOW)
        keys = [subject.keys["id"] if isinstance(subject, Subject) else "" for subject in found]
        assert keys == [*map(str, range(700)), *[""] * 20, "0"]

    def test_refuses_an_instant_of_a_subject_without_a_time_zone(self, store: Store) -> None:
        naive = NOW.replace(tzinfo=None)
        calls: list[Callable[[], object]] = [
            lambda: put(store, SubjectPatch(user(id="u1")), now=naive),
            lambda: put(store, SubjectPatch(user(id="u1"), overrides=[SubjectOverride("s", 1, naive)])),
            lambda: store.get_subjects(*PLACE, [], now=naive),
            lambda: store.delete_subjects(*PLACE, [], actor="", now=naive),
            lambda: store.list_subjects(*PLACE, now=naive),
            lambda: record(store, now=naive),
            lambda: record(store, track("1", user(id="u1"), time=naive)),
            lambda: store.purge_subject_records(naive),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="time zone"):
                call()
        assert store.list_subjects(*PLACE, now=NOW) == ()

    def test_a_closed_store_refuses_subjects(self, store: Store) -> None:
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: put(store, SubjectPatch(user(id="u1"))),
            lambda: find(store, user(id="u1")),
            lambda: store.delete_subjects(*PLACE, [(user(id="u1"), None)], actor="", now=NOW),
            lambda: store.list_subjects(*PLACE, now=NOW),
            lambda: store.subject_changes(*PLACE),
            lambda: record(store, track("1", user(id="u1"))),
            lambda: store.exposures(*PLACE),
            lambda: store.event_counts(*PLACE),
            store.subject_feed_number,
            lambda: store.subject_feed(0),
            lambda: store.purge_subject_records(NOW),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()
