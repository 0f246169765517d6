"""What is held of stored subjects, without a server: whose traits join, and for how long what was heard goes."""

from __future__ import annotations

import datetime
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from rheo.v1 import event_service_pb2 as event
from rheo.v1.subject_pb2 import Subject as Message
from rheostat import Client, ambient
from rheostat.errors import UnavailableError
from rheostat.model.subject import Subject, SubjectReference, Track, UsageCounter, UsagePeriod
from rheostat.sdk.event import Entry
from rheostat.sdk.subject import Joined, SubjectCache
from rheostat.testing import StubClient
from rheostat.wire.subject import subject_to_proto


class Who(StrEnum):
    """Texts that are not exactly str."""

    PRO = "u1"
    FREE = "u2"


@pytest.fixture
def stub() -> StubClient:
    made = StubClient({"beta": False, "grown": False})
    made.set_rules("beta", [('user.plan == "pro"', True)])
    made.set_rules("grown", [("user.age >= 18", True)])
    made.set_subject("user", {"id": "u1"}, {"plan": "pro"})
    made.set_subject("user", {"id": "u2"}, {"plan": "free"})
    made.set_subject("company", {"id": "acme"}, {})
    return made


@pytest.mark.parametrize(
    "name",
    [
        lambda who: {"id": who},
        lambda who: MappingProxyType({"id": who.value}),
        lambda who: {"id": who, "age": 7},
    ],
    ids=["a member of an enumeration", "a mapping that is no dict", "more than keys"],
)
def test_a_verdict_is_never_that_of_somebody_else(stub: StubClient, name: Callable[[Who], object]):
    company = {"id": "acme"}
    for _ in range(2):
        assert stub.check("beta", company=company, user=name(Who.PRO)) is True
        assert stub.check("beta", company=company, user=name(Who.FREE)) is False
        assert stub.check("beta", company=company) is False
        assert stub.get("beta", context={"company": company, "user": name(Who.PRO)}) is True
        assert stub.get("beta", context={"company": company, "user": name(Who.FREE)}) is False


def test_what_one_call_says_beyond_keys_is_not_said_of_the_next(stub: StubClient):
    for user in ({"id": "u1"}, {"id": "nobody"}):
        assert stub.check("grown", user={**user, "age": 30}) is True
        assert stub.check("grown", user=user) is False
        assert stub.check("grown", user={**user, "age": 7}) is False
    said = {"id": "nobody"}
    assert stub.check("beta", user=said) is False
    said["plan"] = "pro"
    assert stub.check("beta", user={"id": "nobody"}) is False


def test_a_kind_without_a_key_is_noted_beside_one_that_is_at_hand(stub: StubClient):
    assert stub.check_details("beta", company={"id": "acme"}).note == ""
    for user in ({"id": 5}, {}, MappingProxyType({})):
        assert "named by no key: user" in stub.check_details("beta", company={"id": "acme"}, user=user).note
    assert stub.check_details("beta", company={"id": "acme"}).note == ""


NOW = datetime.datetime(2026, 5, 4, 12, 0, tzinfo=datetime.UTC)


class Place:
    """A cache, and in the place of the server what is stored there.

    Attributes:
        stored: By id.
        asked: The lookups of each request.
        away: What a request raises instead.
    """

    def __init__(self, **options: Any) -> None:
        self.now = NOW.timestamp()
        self.stored: dict[bytes, Subject] = {}
        self.asked: list[list[event.SubjectLookup]] = []
        self.away: Exception | None = None
        self.later: list[Any] = []
        options = {"max_subjects": 100, **options}
        self.cache = SubjectCache(
            wall_clock=lambda: self.now,
            clock=lambda: self.now,
            later=self.later.append,
            **options,
        )

    def store(self, which: str, keys: Mapping[str, str], kind: str = "user", **more: Any) -> Subject:
        known = self.stored.get(which.encode() * 16)
        version = 1 if known is None else known.version + 1
        made = Subject(
            which.encode() * 16, kind, keys, more.pop("traits", {}), NOW, NOW, version=version, **more
        )
        self.stored[made.id] = made
        return made

    def join(self, **subjects: object) -> Joined:
        return self.run(self.cache.resolving(subjects, 2.0))

    def run(self, work: Any) -> Any:
        try:
            effect = next(work)
            while True:
                away = self.away
                effect = work.send(self._answer(effect)) if away is None else work.throw(away)
        except StopIteration as stop:
            return stop.value

    def _answer(self, effect: Any) -> Any:
        self.asked.append(list(effect.request.lookups))

        class Answer:
            message = event.GetSubjectsResponse(results=[self._result(each) for each in self.asked[-1]])

        return Answer

    def _result(self, lookup: event.SubjectLookup) -> event.SubjectResult:
        if lookup.WhichOneof("by") == "id":
            found = [each for each in self.stored.values() if each.id == lookup.id]
            if found and lookup.if_version == found[0].version:
                return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_UNCHANGED)
        else:
            named = lookup.reference.keys.items()
            found = [
                each
                for each in self.stored.values()
                if each.kind == lookup.reference.kind and any(item in each.keys.items() for item in named)
            ]
        if len(found) > 1:
            return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_CONFLICT)
        if not found:
            return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_MISSING)
        subject: Message = subject_to_proto(found[0])
        return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_FOUND, subject=subject)


@pytest.fixture
def place() -> Place:
    made = Place()
    made.cache.watched()
    return made


def test_a_conflict_of_copies_ends_when_one_of_them_is_gone(place: Place):
    place.store("a", {"id": "u1"}, traits={"plan": "pro"})
    other = place.store("b", {"email": "x@y"})
    place.join(user={"id": "u1"})
    place.join(user={"email": "x@y"})
    both = {"id": "u1", "email": "x@y"}
    assert place.join(user=both).conflict
    del place.stored[other.id]
    place.cache.changed([other.id], everything=False)
    found = place.join(user=both)
    assert (found.conflict, found.layer["user"]["plan"]) == ("", "pro")


def test_a_conflict_of_copies_that_are_both_current_is_told_without_asking(place: Place):
    place.store("a", {"id": "u1"})
    place.store("b", {"email": "x@y"})
    place.join(user={"id": "u1"})
    place.join(user={"email": "x@y"})
    asked = len(place.asked)
    assert "email, id" in place.join(user={"id": "u1", "email": "x@y"}).conflict
    assert len(place.asked) == asked
    place.cache.watched()
    assert "email, id" in place.join(user={"id": "u1", "email": "x@y"}).conflict
    assert len(place.asked) == asked + 1


def test_copies_that_contradict_each_other_join_nothing_while_the_server_is_away(place: Place):
    place.store("a", {"id": "u1"})
    place.store("b", {"email": "x@y"})
    place.join(user={"id": "u1"})
    place.join(user={"email": "x@y"})
    place.cache.watched()
    place.away = UnavailableError("it is away")
    found = place.join(user={"id": "u1", "email": "x@y"})
    assert (found.conflict, found.layer) == ("", {})
    assert "traits unavailable (it is away): user (email, id)" in found.note


def test_the_end_of_the_stream_does_not_mind_reads_that_note_what_they_use():
    stopped = threading.Event()
    place = Place(max_subjects=400)
    cache = place.cache
    for number in range(300):
        cache.put(Subject(str(number).encode(), "user", {"id": str(number)}, {}, NOW, NOW))
    cache.watched()

    def join_all() -> None:
        for number in range(300):
            place.run(cache.resolving({"user": {"id": str(number)}}, 1.0))

    def read() -> None:
        number = 0
        while not stopped.is_set():
            number = (number + 1) % 300
            cache.settled({"user": {"id": str(number)}})

    def end_and_begin() -> None:
        for _ in range(20):
            cache.unwatched()
            place.run(cache.revalidating())
            cache.watched()
            for copy in tuple(cache._copies.values()):
                copy.fresh = True
            join_all()

    place.away = UnavailableError("it is away")
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        end_and_begin()
    finally:
        stopped.set()
        reader.join()
        sys.setswitchinterval(switching)
    assert len(cache) == 300


def event_of(number: int, which: str = "u1") -> Entry:
    subjects = (SubjectReference("user", {"id": which}),)
    return Entry(number, NOW.timestamp(), 0.0, Track("call", 1), subjects)


def calls(place: Place, which: str = "u1") -> object:
    return place.join(user={"id": which}).layer["user.usage.call.all"]


def counted(number: int) -> dict[str, Any]:
    return {"counters": (UsageCounter("call", UsagePeriod.ALL, number, None),)}


def test_events_that_have_left_the_buffer_are_not_kept():
    place = Place(max_events=50)
    place.cache.watched()
    place.store("a", {"id": "u1"})
    place.join(user={"id": "u1"})
    copy = next(iter(place.cache._copies.values()))
    most = 0
    for number in range(5000):
        entry = event_of(number)
        entry.attempted = number % 2 == 0
        place.cache.count(entry)
        most = max(most, len(copy._pending))
    assert calls(place) == 5000
    assert most < 2000
    # Of those that were not sent the buffer has dropped all but the last.
    place.cache.changed([b"a" * 16], everything=False)
    place.store("a", {"id": "u1"}, **counted(2500))
    assert calls(place) == 2550


def test_a_forked_child_leaves_the_events_of_its_parent_to_that(place: Place):
    place.store("a", {"id": "u1"})
    place.join(user={"id": "u1"})
    for number in range(3):
        place.cache.count(event_of(number))
    place.cache.after_fork()
    assert calls(place) == 3
    place.cache.count(event_of(3))
    assert calls(place) == 4
    place.store("a", {"id": "u1"}, **counted(3))
    place.cache.changed([b"a" * 16], everything=False)
    assert calls(place) == 4


def test_no_event_is_lost_between_threads_that_count_and_read(place: Place):
    place.store("a", {"id": "u1"})
    place.join(user={"id": "u1"})
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            place.join(user={"id": "u1"})

    def count(first: int) -> None:
        for number in range(500):
            place.cache.count(event_of(first + number))

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=count, args=(first,)) for first in (0, 1000)]
    for thread in (reader, *writers):
        thread.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    sys.setswitchinterval(switching)
    assert calls(place) == 1000


def test_nothing_is_current_once_nobody_listens(place: Place):
    place.store("a", {"id": "u1"}, traits={"plan": "pro"})
    assert place.join(user={"id": "u1"}).note == ""
    place.cache.abandoned()
    assert place.cache.settled({"user": {"id": "u1"}}) is None
    place.away = UnavailableError("it is away")
    found = place.join(user={"id": "u1"})
    assert (found.layer["user"]["plan"], found.note) == (
        "pro",
        "traits may be out of date (it is away): user (id)",
    )


def test_a_conflict_that_a_change_overtook_is_asked_for_again(place: Place):
    place.store("a", {"id": "u1"})
    place.store("b", {"email": "x@y"})
    answer = place._answer

    def overtaken(effect: Any) -> Any:
        found = answer(effect)
        if len(place.asked) == 1:
            del place.stored[b"b" * 16]
            place.cache.changed([b"b" * 16], everything=False)
        return found

    place._answer = overtaken  # type: ignore[method-assign]
    found = place.join(user={"id": "u1", "email": "x@y"})
    assert (found.conflict, found.note) == ("", "")


@pytest.mark.parametrize("timeout", ["1", float("nan"), [], -1])
def test_a_check_with_a_wrong_time_out_does_not_raise(timeout: Any):
    client = Client(offline=True, bootstrap={"beta": True})
    try:
        assert client.check("beta", user={"id": "u1"}, timeout=timeout) is True
        assert client.check_details("beta", user={"id": "u1"}, timeout=timeout).value is True
        assert client.check_all(user={"id": "u1"}, timeout=timeout) == {"beta": True}
    finally:
        client.close()


def test_checks_of_what_is_no_name_do_not_raise():
    client = Client(offline=True, bootstrap={"beta": True})
    wrong: Any
    try:
        for wrong in (5, [[]], [None], {"beta"}, ["beta", {}]):
            assert client.check_all(wrong, user={"id": "u1"}).get("beta", True) is True
        for wrong in (5, [], None):
            assert client.check(wrong, user={"id": "u1"}) is False
            assert client.check(wrong, context=wrong, plus=wrong, user={"id": "u1"}) is False
    finally:
        client.close()


def test_a_mapping_that_fails_fails_no_check():
    class Broken(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("broken")

    client = Client(offline=True, bootstrap={"beta": True})
    try:
        assert client.check("beta", user=Broken(id="u1")) is True
        assert "traits unavailable (broken): user" in client.check_details("beta", user=Broken(id="u1")).note
        assert client.check_all(user=Broken(id="u1")) == {"beta": True}
    finally:
        client.close()


def test_reads_look_for_subjects_of_held_kinds_only():
    client = Client(offline=True, bootstrap={"beta": False})
    subjects = client._core.subjects
    asked: list[object] = []
    look = subjects.at_hand

    def noted(*layers: Any, **options: Any) -> Joined | None:
        asked.append(layers)
        return look(*layers, **options)

    subjects.at_hand = noted  # type: ignore[method-assign]

    def sought(read: Callable[[], object]) -> bool:
        read()
        before = len(asked)
        assert read() is False
        return len(asked) > before

    reader, pinned = client.with_context(user={"id": "u1"}), client.pin()
    plain: tuple[Callable[[], object], ...] = (
        lambda: client["beta"],
        lambda: client.get("beta", plan="pro"),
        lambda: client.get("beta", context={"device": {"id": "u1"}}),
        lambda: pinned["beta"],
    )
    naming: tuple[Callable[[], object], ...] = (
        lambda: reader["beta"],
        lambda: reader.get("beta", plan="pro"),
        lambda: client.get("beta", user={"id": "u1"}),
        lambda: client.get("beta", context={"user": {"id": "u1"}}),
        lambda: pinned.get("beta", user={"id": "u1"}),
    )
    try:
        assert [sought(read) for read in (*plain, *naming)] == [False] * 9
        subjects.put(Subject(b"u" * 16, "user", {"id": "u1"}, {}, NOW, NOW))
        assert [sought(read) for read in plain] == [False] * 4
        assert [sought(read) for read in naming] == [True] * 5
        subjects.clear()
        assert [sought(read) for read in (*plain, *naming)] == [False] * 9
    finally:
        client.close()


def test_the_context_of_a_request_is_not_kept_after_it(stub: StubClient):
    class Request(dict[str, object]):
        """Can be referred to weakly."""

    kept: list[weakref.ref[Request]] = []
    for number in range(3):
        request = Request(number=number)
        kept.append(weakref.ref(request))
        reader = stub.with_context(request=request)
        assert reader.check("beta", user={"id": "u1"}) is True
        assert reader.get("beta", user={"id": "u1"}) is True
        with ambient(request=request):
            assert stub.check("beta", user={"id": "u1"}) is True
            assert stub.get("beta", user={"id": "u1"}) is True
        del reader, request
    gc.collect()
    assert [each() for each in kept] == [None, None, None]


def test_a_check_does_not_wait_for_an_answer_about_all_that_is_held(place: Place):
    place.store("a", {"id": "u1"}, traits={"plan": "pro"})
    place.join(user={"id": "u1"})
    place.cache.watched()
    slow = place.cache.revalidating()
    effect: Any = next(slow)
    asked = len(place.asked)
    assert place.join(user={"id": "u1"}).note == ""
    assert len(place.asked) == asked + 1
    # It comes all the same.
    with pytest.raises(StopIteration):
        slow.send(place._answer(effect))
    assert place.cache.settled({"user": {"id": "u1"}}) is not None
