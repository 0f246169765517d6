"""What is buffered is sent in order, once, and never holds up who tells it: without threads, clock or network."""

from __future__ import annotations

import logging
import random
import threading
import uuid
from collections.abc import Generator, Mapping
from typing import Any

import pytest

from rheo.v1.event_service_pb2 import RecordEventsResponse, RejectedEntry, UpsertSubjectsResponse
from rheostat.errors import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    RheostatError,
    UnavailableError,
)
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.sdk.call import Answer
from rheostat.sdk.effect import Fetch, Sleep
from rheostat.sdk.event import BATCH, EventBuffer
from tests.each import each

DAY = 24 * 3600.0


class Sender:
    """A buffer, the clock it reads, and a server that answers what it is told to."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_000.0
        self.requests: list[Any] = []
        self.answers: list[RheostatError | Any] = []
        self.woken = 0
        settings: dict[str, Any] = {
            "max_events": 10_000,
            "interval": 5.0,
            "timeout": 10.0,
            "retries": 0,
            **options,
        }
        self.buffer = EventBuffer(
            **settings,
            randomness=random.Random(7),
            clock=lambda: self.now,
            wall_clock=lambda: 1_700_000_000.0 + self.now,
        )

        def wake() -> None:
            self.woken += 1
            self.buffer.asleep = False

        self.buffer.wake = wake

    def track(self, event: str = "e", quantity: object = 1, **subjects: Mapping[str, str]) -> None:
        self.buffer.track(event, quantity, None, subjects)

    def send(self) -> None:
        """Run one pass, as a driver does."""
        work: Generator[Any, Any, None] = self.buffer.sending()
        try:
            effect = next(work)
            while True:
                if isinstance(effect, Sleep):
                    effect = work.send(None)
                    continue
                assert isinstance(effect, Fetch)
                self.requests.append(effect.request)
                answer = self.answers.pop(0) if self.answers else _accepted(effect.method)
                if isinstance(answer, RheostatError):
                    effect = work.throw(answer)
                else:
                    effect = work.send(Answer(answer))
        except StopIteration:
            pass

    @property
    def events(self) -> list[Any]:
        return [event for request in self.requests for event in getattr(request, "events", ())]

    @property
    def names(self) -> list[str]:
        return [event.track.name for event in self.events]


def _accepted(method: str) -> Any:
    return RecordEventsResponse() if method == "RecordEvents" else UpsertSubjectsResponse()


def _evaluation(value: Any = True, *, rule: str | None = "r1", revision: int = 3) -> Evaluation:
    return Evaluation(value=value, reason=Reason.TARGETING_MATCH, rule_id=rule, revision=revision)


def test_an_event_says_what_has_happened_to_whom_when_and_how_much():
    sender = Sender()
    sender.buffer.track(
        "api-call",
        3,
        {"path": "/", "sizes": [1, 2]},
        {"user": {"id": "U1"}, "company": {"id": "c1", "slug": "acme"}},
    )
    sender.send()
    (event,) = sender.events
    assert (event.track.name, event.track.quantity) == ("api-call", 3)
    assert [(s.kind, dict(s.keys)) for s in event.subjects] == [
        ("user", {"id": "U1"}),
        ("company", {"id": "c1", "slug": "acme"}),
    ]
    assert event.track.attributes["path"].string_value == "/"
    assert event.time.ToMilliseconds() == 1_700_001_000_000
    assert event.idempotency_key


def test_what_the_caller_changes_afterwards_is_not_sent():
    sender = Sender()
    keys, attributes = {"id": "u1"}, {"list": [1]}
    sender.buffer.track("e", 1, attributes, {"user": keys})
    keys["id"] = "u2"
    attributes["list"].append(2)
    sender.send()
    (event,) = sender.events
    assert dict(event.subjects[0].keys) == {"id": "u1"}
    assert len(event.track.attributes["list"].list_value.values) == 1


def test_an_event_is_sent_after_the_interval_and_a_hundred_at_once():
    sender = Sender()
    assert sender.buffer.due() is None
    sender.track()
    assert sender.woken == 1
    assert sender.buffer.due() == 5.0
    sender.now += 4
    assert sender.buffer.due() == 1.0
    for _ in range(BATCH - 2):
        sender.track()
    assert sender.woken == 1
    assert sender.buffer.due() == 1.0
    sender.track()
    assert sender.woken == 2
    assert sender.buffer.due() == 0.0
    sender.track()
    assert sender.woken == 2


def test_a_request_holds_at_most_a_hundred_events_and_half_a_megabyte():
    sender = Sender()
    for i in range(250):
        sender.track(f"e{i}")
    sender.send()
    assert [len(request.events) for request in sender.requests] == [100, 100, 50]
    assert sender.names == [f"e{i}" for i in range(250)]
    sender.requests.clear()
    for i in range(10):
        sender.buffer.track(f"e{i}", 1, {"text": "x" * 200_000}, {})
    sender.send()
    assert [len(request.events) for request in sender.requests] == [2, 2, 2, 2, 2]
    assert sender.names == [f"e{i}" for i in range(10)]


def test_a_patch_goes_out_before_the_events_that_came_after_it():
    sender = Sender()
    sender.track("before")
    sender.buffer.identify(
        "user", {"id": "u1"}, {"plan": "pro", "old": None}, {"company": [{"id": "c1"}, {"id": "c2"}]}
    )
    sender.buffer.identify("user", {"id": "u2"}, None, {"company": {"id": "c1"}})
    sender.track("after")
    sender.send()
    first, patches, last = sender.requests
    assert (first.events[0].track.name, last.events[0].track.name) == ("before", "after")
    one, two = patches.subjects
    assert (one.reference.kind, dict(one.reference.keys)) == ("user", {"id": "u1"})
    assert one.traits["plan"].string_value == "pro"
    assert list(one.remove_traits) == ["old"]
    assert [m.keys["id"] for m in one.member_of] == ["c1", "c2"]
    assert [m.keys["id"] for m in two.member_of] == ["c1"]


@each(
    "error",
    [
        UnavailableError("away"),
        DeadlineExceededError("late"),
        LimitExceededError("slow", limit="x", retry_after=1),
    ],
)
def test_what_fails_for_a_time_is_sent_again_with_the_same_keys_in_the_same_order(error: RheostatError):
    sender = Sender()
    for i in range(120):
        sender.track(f"e{i}")
    sender.answers = [error]
    sender.send()
    assert len(sender.requests) == 1
    wait = sender.buffer.due()
    assert wait is not None and wait > 0
    sender.track("later")
    sender.now += wait
    assert sender.buffer.due() == 0.0
    sender.send()
    again = sender.events[100:]
    assert [e.idempotency_key for e in again[:100]] == [e.idempotency_key for e in sender.events[:100]]
    assert [e.track.name for e in again] == [*(f"e{i}" for i in range(120)), "later"]
    assert not sender.buffer
    assert sender.buffer.dropped == 0


def test_a_failed_request_is_repeated_at_once_as_often_as_the_option_says():
    sender = Sender(retries=2)
    sender.track()
    sender.answers = [UnavailableError("away")] * 2
    sender.send()
    assert len({request.events[0].idempotency_key for request in sender.requests}) == 1
    assert len(sender.requests) == 3
    assert not sender.buffer


def test_a_server_that_asks_for_a_wait_gets_it_even_from_a_flush():
    sender = Sender()
    sender.track()
    sender.answers = [UnavailableError("busy", retry_after=40)]
    sender.send()
    sender.buffer.hasten()
    assert 40 <= (sender.buffer.due(wanted=True) or 0) <= 60


def test_a_flush_does_not_wait_for_the_end_of_a_delay():
    sender = Sender()
    sender.track()
    sender.answers = [UnavailableError("away")]
    sender.send()
    sender.buffer.hasten()
    assert sender.buffer.due(wanted=True) == 0.0


def test_delays_grow_and_begin_anew_after_a_success():
    sender = Sender()
    sender.track()
    bounds = []
    for _ in range(40):
        sender.answers = [UnavailableError("away")]
        sender.send()
        wait = sender.buffer.due()
        assert wait is not None
        bounds.append(wait)
        sender.now += wait
    assert 10 < max(bounds) <= 30
    sender.send()
    sender.track()
    sender.answers = [UnavailableError("away")]
    sender.send()
    assert (sender.buffer.due() or 0) <= 1


def test_a_refused_key_is_tried_again_after_minutes():
    sender = Sender()
    sender.track()
    sender.answers = [AuthenticationError("no such key")]
    sender.send()
    assert 150 <= (sender.buffer.due() or 0) <= 450
    sender.now += 450
    sender.send()
    assert not sender.buffer
    assert sender.buffer.dropped == 0


def test_a_request_that_is_refused_is_logged_counted_and_not_repeated(caplog: pytest.LogCaptureFixture):
    sender = Sender()
    for _ in range(3):
        sender.track()
    sender.answers = [InvalidArgumentError("it is wrong")]
    sender.send()
    sender.send()
    assert len(sender.requests) == 1
    assert sender.buffer.dropped == 3
    assert "it is wrong" in caplog.text


@each("error", [NotFoundError("no such environment"), LimitExceededError("slow down", limit="")])
def test_what_somebody_may_mend_is_kept(error: RheostatError):
    sender = Sender()
    for i in range(3):
        sender.track(f"e{i}")
    sender.answers = [error] * 8
    sender.send()
    sender.send()
    assert (sender.buffer.due() or 0) > 0
    assert sender.buffer.dropped == 0
    sender.answers.clear()
    sender.requests.clear()
    sender.now += 450
    sender.send()
    assert (sender.names, bool(sender.buffer)) == (["e0", "e1", "e2"], False)


def test_one_event_that_is_refused_for_an_hour_does_not_hold_up_the_rest():
    sender = Sender()
    sender.track("refused")
    sender.answers = [LimitExceededError("never", limit="strange")]
    sender.send()
    sender.now += 3600
    sender.answers = [LimitExceededError("never", limit="strange")]
    sender.track("fine")
    sender.answers *= 2
    sender.send()
    assert sender.names[-1] == "fine"
    assert sender.buffer.dropped == 1


def test_entries_that_are_rejected_are_logged_counted_and_not_repeated(caplog: pytest.LogCaptureFixture):
    sender = Sender()
    for _ in range(3):
        sender.track()
    rejected = [RejectedEntry(index=i, reason="KEY_CONFLICT", message="two subjects") for i in (0, 2)]
    sender.answers = [RecordEventsResponse(accepted=1, rejected=rejected)]
    sender.send()
    assert not sender.buffer
    assert sender.buffer.dropped == 2
    assert caplog.text.count("two subjects") == 1


def test_what_is_too_much_together_is_sent_in_smaller_parts():
    sender = Sender()
    for i in range(8):
        sender.track(f"e{i}")
    sender.answers = [LimitExceededError("too large", limit="max_body_bytes")] * 2
    sender.send()
    assert [len(request.events) for request in sender.requests] == [8, 4, 2, 6]
    assert sorted({event.track.name for event in sender.events}) == [f"e{i}" for i in range(8)]
    assert (bool(sender.buffer), sender.buffer.dropped) == (False, 0)
    sender.track("large")
    sender.answers = [LimitExceededError("too large", limit="max_body_bytes")]
    sender.send()
    assert (bool(sender.buffer), sender.buffer.dropped) == (False, 1)


def test_a_full_buffer_drops_the_oldest_and_counts_them(caplog: pytest.LogCaptureFixture):
    sender = Sender(max_events=10)
    for i in range(25):
        sender.track(f"e{i}")
    assert sender.buffer.dropped == 15
    assert caplog.text.count("full") == 1
    sender.answers = [UnavailableError("away")]
    sender.send()
    sender.track("last")
    assert sender.buffer.dropped == 16
    sender.requests.clear()
    sender.now += 60
    sender.send()
    assert sender.names == [*(f"e{i}" for i in range(16, 25)), "last"]


def test_exposures_of_a_long_outage_are_counted_together_and_crowd_out_nothing():
    sender = Sender(max_events=1000)
    for i in range(500):
        sender.track(f"e{i}")
    for _ in range(40):
        for flag in range(50):
            sender.buffer.expose(f"f{flag}", _evaluation())
        sender.answers = [UnavailableError("away")]
        sender.now += sender.buffer.due() or 0
        sender.send()
    assert sender.buffer.dropped == 0
    sender.requests.clear()
    sender.now += 60
    sender.send()
    shown = [event.exposure for event in sender.events if event.HasField("exposure")]
    assert len(sender.events) == 500 + len(shown)
    assert (len(shown) < 150, sum(each.count for each in shown)) == (True, 40 * 50)


def test_a_full_buffer_drops_exposures_before_what_was_told():
    sender = Sender(max_events=10)
    for i in range(7):
        sender.track(f"e{i}")
    for flag in range(6):
        sender.buffer.expose(f"f{flag}", _evaluation())
    sender.buffer.mark()
    assert sender.buffer.dropped == 5
    for i in range(7, 12):
        sender.track(f"e{i}")
    assert sender.buffer.dropped == 8
    sender.send()
    assert sender.names == [f"e{i}" for i in range(2, 12)]
    for _ in range(3):
        for flag in range(10):
            sender.buffer.expose(f"f{flag}", _evaluation())
        sender.buffer.mark()
    assert sender.buffer.dropped > 8
    assert len(sender.buffer._entries) <= 10


def test_what_could_not_be_sent_for_a_day_is_dropped():
    sender = Sender()
    sender.track("old")
    sender.now += DAY / 2
    sender.track("new")
    sender.now += DAY / 2 + 1
    sender.send()
    assert sender.names == ["new"]
    assert sender.buffer.dropped == 1


@each(
    "arguments",
    [
        ("", 1, None, {}),
        ("no spaces", 1, None, {}),
        (None, 1, None, {}),
        ("e", True, None, {}),
        ("e", 1.5, None, {}),
        ("e", 2**63, None, {}),
        ("e", "1", None, {}),
        ("e", 1, {"x": object()}, {}),
        ("e", 1, ["x"], {}),
        ("e", 1, {1: 2}, {}),
        ("e", 1, None, {"user": "u1"}),
        ("e", 1, None, {"user": {}}),
        ("e", 1, None, {"user": {"id": 7}}),
        ("e", 1, None, {"user": {"id": ""}}),
        ("e", 1, None, {"user": {"id": "x" * 501}}),
        ("e", 1, None, {"user": {"id": "\ud800"}}),
        ("e", 1, None, {"user": {"the id": "u1"}}),
        ("e", 1, None, {"client": {"id": "u1"}}),
        ("e", 1, None, {"a b": {"id": "u1"}}),
        ("e", 1, None, {f"k{i}": {"id": "u1"} for i in range(21)}),
    ],
)
def test_a_wrong_event_is_counted_and_raises_nothing(arguments: tuple[Any, Any, Any, Any]):
    sender = Sender()
    sender.buffer.track(*arguments)
    assert sender.buffer.dropped == 1
    assert not sender.buffer


@each(
    "arguments",
    [
        ("user", None, None, None),
        ("user", {"id": "u1"}, ["plan"], None),
        ("user", {"id": "u1"}, {"a.b": 1}, None),
        ("user", {"id": "u1"}, {"x": float("nan")}, None),
        ("user", {"id": "u1"}, None, ["c1"]),
        ("user", {"id": "u1"}, None, {"company": "c1"}),
        ("client", {"id": "u1"}, None, None),
    ],
)
def test_a_wrong_patch_is_counted_and_raises_nothing(arguments: tuple[Any, Any, Any, Any]):
    sender = Sender()
    sender.buffer.identify(*arguments)
    assert sender.buffer.dropped == 1
    assert not sender.buffer


def test_a_wrong_call_is_logged_once(caplog: pytest.LogCaptureFixture):
    sender = Sender()
    for _ in range(5):
        sender.track("no spaces")
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert sender.buffer.dropped == 5


def test_uuids_are_keys_and_whole_floats_are_quantities():
    sender = Sender()
    which = uuid.uuid4()
    sender.track("e", 2.0, user={"id": which})  # type: ignore[dict-item]
    sender.send()
    (event,) = sender.events
    assert dict(event.subjects[0].keys) == {"id": str(which)}
    assert event.track.quantity == 2


def test_exposures_are_counted_by_setting_rule_revision_and_value():
    sender = Sender()
    for _ in range(1500):
        sender.buffer.expose("a", _evaluation())
    sender.buffer.expose("a", _evaluation(value=False))
    sender.buffer.expose("a", _evaluation(revision=4))
    sender.buffer.expose("b", _evaluation(rule=None))
    assert sender.buffer
    sender.send()
    found = {(e.exposure.setting, e.exposure.rule_id, e.exposure.value.bool_value, e.exposure.revision): e.exposure.count
             for e in sender.events}  # fmt: skip
    assert found == {
        ("a", "r1", True, 3): 1500,
        ("a", "r1", False, 3): 1,
        ("a", "r1", True, 4): 1,
        ("b", "", True, 3): 1,
    }
    assert len({event.idempotency_key for event in sender.events}) == 4


def test_exposures_wait_for_the_interval():
    sender = Sender()
    sender.buffer.expose("a", _evaluation())
    sender.now += 2
    assert sender.buffer.due() == 3.0


def test_no_exposure_is_lost_or_counted_twice_by_threads():
    sender = Sender()
    found = _evaluation()
    start = threading.Barrier(5)

    def expose() -> None:
        start.wait()
        for _ in range(5_000):
            sender.buffer.expose("a", found)

    threads = [threading.Thread(target=expose) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        sender.send()
    sender.send()
    assert sum(event.exposure.count for event in sender.events) == 20_000


def test_no_event_is_lost_or_sent_twice_by_threads():
    sender = Sender()
    start = threading.Barrier(5)

    def track(name: str) -> None:
        start.wait()
        for i in range(500):
            sender.track(f"{name}.{i}")

    threads = [threading.Thread(target=track, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        sender.answers = [UnavailableError("away")]
        sender.send()
        sender.now += 60
        sender.answers = []
        sender.requests.clear() if len(sender.requests) > 10_000 else None
        sender.send()
    sender.send()
    by_key = {event.idempotency_key: event.track.name for event in sender.events}
    assert sorted(by_key.values()) == sorted(f"t{t}.{i}" for t in range(4) for i in range(500))
    assert sender.buffer.dropped == 0


def test_a_mark_is_passed_when_all_that_was_there_has_gone_out():
    sender = Sender()
    sender.track("before")
    sender.buffer.expose("a", _evaluation())
    mark = sender.buffer.mark()
    sender.track("after")
    assert not sender.buffer.passed(mark)
    sender.answers = [UnavailableError("away")]
    sender.send()
    assert not sender.buffer.passed(mark)
    sender.send()
    assert sender.buffer.passed(mark)
    sender.track("more")
    assert sender.buffer.passed(mark)


def test_a_child_process_begins_empty_with_other_keys():
    sender = Sender()
    sender.track("parent")
    sender.buffer.expose("a", _evaluation())
    sender.send()
    sender.track("left to the parent")
    sender.buffer.after_fork()
    assert not sender.buffer
    sender.track("child")
    sender.send()
    assert sender.names[-1] == "child"
    prefixes = {event.idempotency_key.partition("-")[0] for event in sender.events}
    assert len(prefixes) == 2


def test_what_is_under_way_when_the_client_closes_is_kept_and_then_counted(caplog: pytest.LogCaptureFixture):
    sender = Sender()
    sender.track()
    sender.answers = [ClientClosedError("closed")]
    sender.send()
    assert sender.buffer
    sender.buffer.give_up()
    assert not sender.buffer
    assert sender.buffer.dropped == 1
    assert "could not be sent" in caplog.text


def test_a_buffer_that_refuses_counts_unless_it_is_meant_to(caplog: pytest.LogCaptureFixture):
    sender = Sender()
    sender.buffer.refusing = "the client was closed"
    sender.track()
    sender.buffer.identify("user", {"id": "u1"}, None, None)
    sender.buffer.expose("a", _evaluation())
    assert sender.buffer.dropped == 2
    assert "the client was closed" in caplog.text
    sender.buffer.refusing = ""
    sender.track()
    assert sender.buffer.dropped == 2
    assert not sender.buffer
