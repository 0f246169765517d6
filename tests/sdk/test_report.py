"""What clients tell the server of themselves: when, and what."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.message import Message

from rheo.v1 import watch_pb2
from rheo.v1.client_pb2 import ClientReport
from rheo.v1.config_service_pb2 import (
    DeclareSettingsRequest,
    DeclareSettingsResponse,
    GetSnapshotResponse,
    ReportStatusRequest,
    ReportStatusResponse,
)
from rheostat import Setting
from rheostat.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    LimitExceededError,
    PermissionDeniedError,
    RheostatError,
    UnavailableError,
)
from rheostat.sdk.call import Answer
from rheostat.sdk.core import Core, Options
from rheostat.sdk.effect import Fetch, Sleep
from rheostat.sdk.reader import Reader
from rheostat.sdk.watch_loop import poll_loop
from rheostat.wire.instant import duration_from_proto, duration_to_proto
from tests.e2e.process import PATIENCE, wait_until
from tests.sdk.driving import Driven
from tests.sdk.fake import FakeServer, Refusal, Store
from tests.sdk.line import Looping

MINUTE = (48.0, 72.0)
"""A minute ± 20 %."""


class Reporting:
    """A client's core that watches a modelled store, on a clock of the test's; the test is its driver and server.

    Attributes:
        reports: What it has reported.
        wakes: How often it woke the driver.
        answers: What unary calls other than reports are answered with, by method.
    """

    def __init__(self, seed: int = 0, *, settings: tuple[Setting[Any], ...] = (), **options: Any) -> None:
        self.store = Store()
        self.store.set({"a": 1, "b": 2})
        self.core = Core(
            Options(url="http://127.0.0.1:1", client_id="c1", stale_after=1e9, **options),
            clock=self._clock,
            randomness=random.Random(seed),
        )
        self.core.driver = self
        self.reader: Reader[Any] = Reader()
        self.reader._read_from(self.core, self.core.replica, (), {})
        self.core.declare(settings)
        self.reports: list[ClientReport] = []
        self.declared: list[DeclareSettingsRequest] = []
        self.answers: list[Callable[[DeclareSettingsRequest], bytes]] = []
        self.declare_again: list[str] = []
        self.failure: RheostatError | None = None
        self.calls: list[Fetch] = []
        self.wakes = 0
        loops = {"loop": poll_loop} if options.get("mode") == "poll" else {}
        self.looping = Looping(self.core, seed, **loops, clock=self._clock)

    def _clock(self) -> float:
        # What is asked before there is a loop is asked at its beginning.
        return self.looping.now if hasattr(self, "looping") else 1000.0

    # The driver.

    def wake(self) -> None:
        self.wakes += 1

    def send(self) -> None:
        """No events in these tests."""

    def hurry(self) -> None:
        pass

    # The stream.

    def open(self) -> Reporting:
        self.looping.receive(*self.store.answer(self.looping.opened()))
        return self

    def set(self, *, report_within: float | None = None, **values: Any) -> None:
        """Let a change arrive."""
        before = self.store.revision
        self.store.set(values)
        delta = self.store.delta(before)
        if report_within is not None:
            delta.delta.report_within.CopyFrom(duration_to_proto(report_within))
        self.looping.receive(delta)

    def bookmark(self, report_within: float | None = None) -> None:
        message = self.store.bookmark()
        if report_within is not None:
            message.bookmark.report_within.CopyFrom(duration_to_proto(report_within))
        self.looping.receive(message)

    # Time, and calls.

    def work(self) -> float:
        """Do what the driver would do now; returns the seconds until there is more to do."""
        due = self.core.tick()
        while self.core.jobs:
            job = self.core.jobs.popleft()
            effect = next(job)
            try:
                while True:
                    effect = self._perform(job, effect)
            except StopIteration:
                pass
            due = self.core.tick()
        return due

    def _perform(self, job: Any, effect: Any) -> Any:
        if isinstance(effect, Sleep):
            return job.send(None)
        assert isinstance(effect, Fetch)
        self.calls.append(effect)
        # Over the wire and back.
        if effect.method == "DeclareSettings":
            declaring = DeclareSettingsRequest.FromString(effect.request.SerializeToString())
            self.declared.append(declaring)
            found = self.answers.pop(0)(declaring) if self.answers else b""
            return job.send(Answer(DeclareSettingsResponse(declared_types_hash=found)))
        assert effect.method == "ReportStatus"
        request = ReportStatusRequest.FromString(effect.request.SerializeToString())
        (report,) = request.reports
        if self.failure is not None:
            return job.throw(self.failure)
        self.reports.append(report)
        return job.send(Answer(ReportStatusResponse(declare_again=self.declare_again)))

    def run(self, seconds: float) -> list[ClientReport]:
        """Let time pass without a word of the server; returns what was reported meanwhile."""
        before = len(self.reports)
        end = self.looping.now + seconds
        while True:
            due = max(self.work(), 0.001)
            if self.looping.now + due > end:
                self.looping.now = end
                self.work()
                return self.reports[before:]
            self.looping.now += due


def read(reports: list[ClientReport]) -> list[str]:
    return [name for report in reports for name in report.settings_read]


# When.


def test_the_first_state_is_reported_at_once_and_says_who_and_where_the_client_is() -> None:
    client = Reporting(name="checkout@web-7")
    assert client.run(100) == [], "there is no state yet"
    client.open()
    (report,) = client.run(0)
    assert (report.client.id, report.client.name) == ("c1", "checkout@web-7")
    assert report.client.sdk.startswith("rheostat-python/")
    assert (report.generation, report.revision, report.node) == (1, 1, "fake")
    assert not report.HasField("age"), "a snapshot does not tell how fast changes arrive"
    assert not report.diverged and report.error == "" and report.declared_types_hash == b""
    assert not report.HasField("reported_at") and not report.HasField("lag"), "those are the server's to say"
    assert client.calls[-1].timeout <= 5


def test_reports_follow_each_other_by_a_minute_more_or_less() -> None:
    gaps = []
    for seed in range(30):
        client = Reporting(seed).open()
        client.run(0)
        last = client.looping.now
        for _ in range(3):
            while not client.run(0.5):
                pass
            gaps.append(client.looping.now - last)
            last = client.looping.now
    assert all(MINUTE[0] <= gap <= MINUTE[1] + 1 for gap in gaps)
    assert min(gaps) < 52 and max(gaps) > 68, "spread over the whole interval"


def test_who_is_asked_reports_once_at_a_random_time_within_what_was_asked() -> None:
    delays = []
    for seed in range(100):
        client = Reporting(seed).open()
        client.run(0)
        asked = client.looping.now
        client.bookmark(report_within=2.0)
        while not client.run(0.01):
            pass
        delays.append(client.looping.now - asked)
        assert client.run(40) == [], "once"
    assert max(delays) <= 2.02
    assert min(delays) < 0.2 and max(delays) > 1.8
    assert 0.7 < sum(delays) / len(delays) < 1.3, "uniformly"


def test_several_asks_are_one_report_of_the_newest_position() -> None:
    client = Reporting().open()
    client.run(0)
    client.set(a=2, report_within=1.0)
    client.bookmark(report_within=30.0)
    client.set(a=3, report_within=1.0)
    (report,) = client.run(40)
    assert report.revision == client.store.revision == 3


def test_who_is_asked_wakes_its_driver_even_when_nothing_else_happens() -> None:
    client = Reporting().open()
    assert client.work() > 5
    before = client.wakes
    client.bookmark(report_within=0.5)
    assert client.wakes > before
    assert client.work() <= 0.5


def test_an_ask_that_comes_with_a_duplicate_counts_too() -> None:
    client = Reporting().open()
    client.run(0)
    delta = client.store.delta(0)
    delta.delta.report_within.CopyFrom(duration_to_proto(1.0))
    client.looping.receive(delta)
    assert len(client.run(1.1)) == 1


def test_an_ask_of_a_thousand_years_does_not_put_off_what_is_due() -> None:
    client = Reporting().open()
    client.run(0)
    client.bookmark(report_within=1000 * 365 * 86400.0)
    assert len(client.run(MINUTE[1] + 1)) == 1


def test_a_client_that_comes_back_late_reports_soon_but_not_in_the_same_moment_as_all_others() -> None:
    delays = []
    for seed in range(30):
        client = Reporting(seed, backoff=(200.0, 200.0)).open()
        client.run(0)
        client.failure = UnavailableError("away")
        client.looping.fail(UnavailableError("cut"))
        client.looping.left()
        client.looping.now += 100
        client.work()
        client.failure = None
        client.open()
        back = client.looping.now
        while not client.run(0.1):
            pass
        delays.append(client.looping.now - back)
    assert max(delays) <= 10.2
    assert max(delays) > 6


@pytest.mark.parametrize(
    "error",
    [
        FailedPreconditionError("not yet", reason="NOT_SERVED"),
        PermissionDeniedError("the key may not report"),
    ],
    ids=["an earlier server", "no right"],
)
def test_a_server_that_takes_no_reports_is_not_asked_again_on_that_stream(
    error: RheostatError, caplog: pytest.LogCaptureFixture
) -> None:
    client = Reporting().open()
    client.failure = error
    with caplog.at_level(logging.INFO, "rheostat"):
        client.run(0)
        client.bookmark(report_within=1.0)
        client.run(1000)
        assert len(client.calls) == 1
        assert caplog.records == []
    client.failure = None
    client.looping.ends()
    client.looping.left()
    client.open()
    assert len(client.run(15)) == 1, "the next stream may be of another server"


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceededError("late"),
        UnavailableError("away"),
        LimitExceededError("slowly", limit="calls", retry_after=300.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_report_that_fails_is_not_sent_again_before_the_next_is_due(
    error: RheostatError, caplog: pytest.LogCaptureFixture
) -> None:
    client = Reporting().open()
    client.failure = error
    least = getattr(error, "retry_after", None) or MINUTE[0]
    with caplog.at_level(logging.INFO, "rheostat"):
        client.run(least - 1)
        assert len(client.calls) == 1
        client.run(MINUTE[1] - MINUTE[0] + 2)
        assert len(client.calls) == 2
        assert caplog.records == []


def test_a_client_that_is_refused_or_told_not_to_does_not_report() -> None:
    client = Reporting().open()
    client.run(0)
    client.looping.fail(PermissionDeniedError("revoked"))
    assert client.run(200) == []
    silent = Reporting(report=False).open()
    silent.bookmark(report_within=1.0)
    assert silent.run(200) == []
    assert silent.calls == []


def test_the_child_of_a_fork_reports_as_another_client() -> None:
    client = Reporting().open()
    client.core.options = Options(url="http://127.0.0.1:1")
    client.run(0)
    client.core.after_fork()
    client.core.driver = client
    client.looping.ends()
    client.looping.left()
    client.open()
    (report,) = client.run(0)
    assert report.client.id not in ("", "c1")
    assert report.client.id == client.core.client_id


def test_polls_report_each_minute_and_soon_after_a_change() -> None:
    client = Reporting(mode="poll")

    def poll() -> None:
        fetch = client.looping.effect
        assert isinstance(fetch, Fetch)
        held = fetch.request.resume  # type: ignore[attr-defined]
        position = client.store.position()
        if held == position.token:
            answer = GetSnapshotResponse(position=position, up_to_date=True)
        else:
            items = client.store.items()
            answer = GetSnapshotResponse(
                position=position, items=items, item_count=len(items), digest=client.store.digest()
            )
        client.looping.answer(Answer(answer))

    poll()
    assert [report.revision for report in client.run(0)] == [1]
    assert client.reports[-1].node == "", "it is connected to none"
    assert len(client.run(MINUTE[1] + 1)) == 1
    client.looping.slept()
    client.run(0)
    client.store.set({"a": 9})
    poll()
    (report,) = client.run(1)
    assert report.revision == 2
    assert not report.HasField("age")


# What.


def test_the_age_is_that_of_the_newest_change_and_not_of_a_snapshot() -> None:
    client = Reporting().open()
    client.run(0)
    client.set(a=2)
    client.looping.now += 7
    client.bookmark(report_within=0.0)
    (report,) = client.run(0)
    assert duration_from_proto(report.age) == pytest.approx(7)
    client.store.generation = 2
    client.looping.fail(UnavailableError("cut"))
    client.looping.left()
    client.open()
    client.bookmark(report_within=0.0)
    (report,) = client.run(0)
    assert report.generation == 2
    assert not report.HasField("age")


def test_what_is_reported_is_what_is_read() -> None:
    client = Reporting().open()
    client.run(0)
    client.set(a=2)
    with client.core.replica.frozen():
        client.set(a=3, report_within=0.0)
        (frozen,) = client.run(0)
    client.bookmark(report_within=0.0)
    (report,) = client.run(0)
    assert frozen.revision == 2
    assert not frozen.HasField("age"), "it would be that of another change"
    assert report.revision == 3
    assert report.HasField("age")


def test_a_client_that_is_not_connected_says_so_and_why_once() -> None:
    client = Reporting(backoff=(1000.0, 1000.0)).open()
    client.run(0)
    client.looping.fail(UnavailableError("the connection was cut " + "x" * 2000))
    client.looping.answer()
    (report,) = client.run(MINUTE[1])
    assert report.node == ""
    assert report.error.startswith("the connection was cut")
    assert len(report.error) == 1000
    assert [report.error for report in client.run(MINUTE[1])] == [""]


def test_an_error_is_kept_until_a_report_has_arrived() -> None:
    client = Reporting(backoff=(1000.0, 1000.0)).open()
    client.run(0)
    client.looping.fail(UnavailableError("cut"))
    client.looping.answer()
    client.failure = DeadlineExceededError("late")
    client.run(MINUTE[1])
    client.failure = None
    assert [report.error for report in client.run(MINUTE[1])] == ["cut"]


def test_a_value_that_does_not_fit_is_reported_without_the_value() -> None:
    client = Reporting(settings=(Setting("a", int, default=0),)).open()
    client.run(0)
    client.set(a="s3cret-value")
    client.bookmark(report_within=0.0)
    (report,) = client.run(0)
    assert "'a'" in report.error
    assert "s3cret" not in report.error


def test_a_digest_that_differs_twice_is_reported_until_it_is_mended() -> None:
    client = Reporting().open()
    client.run(0)

    def differs() -> list[bool]:
        wrong = client.store.bookmark()
        wrong.bookmark.digest ^= 1
        client.looping.receive(wrong)
        found = [report.diverged for report in client.run(MINUTE[1] + 1)]
        client.looping.left()
        client.open()
        return found

    assert differs() == [False], "once may be anything"
    assert differs() == [True]
    client.bookmark(report_within=0.0)
    assert [report.diverged for report in client.run(0)] == [False]


# Settings that were read.


def test_settings_that_were_read_are_named_once_in_twelve_hours() -> None:
    client = Reporting().open()
    assert read(client.run(0)) == []
    for _ in range(3):
        assert client.reader["a"] == 1
    assert read(client.run(100)) == ["a"]
    for _ in range(11):
        client.reader.get("a")
        assert read(client.run(3600)) == []
    client.reader.get("a")
    client.reader.get("b")
    assert read(client.run(100)) == ["b"]
    client.run(3600)
    client.reader.get("a")
    assert read(client.run(100)) == ["a"]


def test_all_ways_of_reading_count_and_asking_for_what_is_not_there_does_not() -> None:
    typed = Setting("typed", float, default=0.0)
    ways: Mapping[str, Callable[[Reader[Any]], object]] = {
        "get": lambda reader: reader.get("a", user="u"),
        "item": lambda reader: reader["a"],
        "mapping": lambda reader: reader.settings["a"],
        "evaluate": lambda reader: reader.evaluate("a"),
        "evaluate_all": lambda reader: reader.evaluate_all(),
        "typed": lambda reader: reader.int_value("a", 0),
        "scoped": lambda reader: reader.with_context(x="1").get("a"),
        "pinned": lambda reader: reader.pin().get("a"),
        "declared": lambda reader: reader.evaluate_setting(typed, 0.0, None, {}),
    }
    for name, way in ways.items():
        client = Reporting()
        client.store.set({"typed": 1.5})
        client.open()
        way(client.reader)
        client.reader.get("gone", "default")
        wanted = {"evaluate_all": {"a", "b", "typed"}, "declared": {"typed"}}.get(name, {"a"})
        assert set(read(client.run(0))) == wanted, name
    client = Reporting().open()
    "a" in client.reader  # noqa: B015 - looking is not reading
    list(client.reader)
    client.reader.explain("a")
    assert read(client.run(0)) == []


def test_a_change_of_a_setting_does_not_name_it_again() -> None:
    client = Reporting().open()
    client.reader.get("a")
    client.run(0)
    client.set(a=5)
    client.reader.get("a")
    assert read(client.run(200)) == []


def test_a_subscription_to_a_setting_counts_as_reading_it() -> None:
    client = Reporting().open()
    client.reader.subscribe("b", lambda change: None)
    client.reader.subscribe(lambda change: None)
    assert read(client.run(0)) == ["b"]


def test_names_follow_until_a_report_with_them_has_arrived_and_in_parts() -> None:
    client = Reporting()
    names = [f"s{number:04}" for number in range(2500)]
    client.store.set(dict.fromkeys(names, 1))
    client.open()
    for name in names:
        client.reader.get(name)
    client.failure = UnavailableError("away")
    client.run(0)
    client.failure = None
    found = [list(report.settings_read) for report in client.run(300)]
    assert [len(each) for each in found[:4]] == [1000, 1000, 500, 0]
    assert sorted(name for each in found for name in each) == names


def test_names_that_only_this_process_knows_stay_here() -> None:
    client = Reporting().open()
    client.core.replica.override({"no name at all": 1})
    client.reader.get("no name at all")
    assert read(client.run(0)) == []


# The hash of the declared types.


def test_batches_of_declarations_continue_each_other_and_reports_name_the_last() -> None:
    settings = tuple(Setting(f"d{n}", str, default="x" * 300_000) for n in range(3))
    client = Reporting(settings=settings)
    client.answers = [lambda _: b"one", lambda _: b"two", lambda _: b"three", lambda _: b"four"]
    client.open()
    (report,) = client.run(0)
    assert [request.declared_types_hash for request in client.declared] == [b"", b"one", b"two"]
    assert report.declared_types_hash == b"three"
    client.core.declare([Setting("later", int, default=0)])
    client.work()
    assert client.declared[-1].declared_types_hash == b"three"
    assert [each.name for each in client.declared[-1].declarations] == ["later"]


def test_declarations_begin_anew_once_when_the_server_does_not_know_what_they_continue() -> None:
    client = Reporting(settings=(Setting("a", int, default=0),))
    client.answers = [lambda _: b"one"]
    client.open()
    client.work()
    client.core.declare([Setting("b", int, default=0)])
    client.answers = [lambda _: b"", lambda _: b"both"]
    client.work()
    found = [
        (request.declared_types_hash, sorted(each.name for each in request.declarations))
        for request in client.declared
    ]
    assert found == [(b"", ["a"]), (b"one", ["b"]), (b"", ["a", "b"])]
    client.bookmark(report_within=0.0)
    assert [report.declared_types_hash for report in client.run(0)] == [b"both"]


def test_a_server_that_goes_on_to_forget_is_not_asked_for_ever() -> None:
    settings = tuple(Setting(f"d{n}", str, default="x" * 300_000) for n in range(2))
    client = Reporting(settings=settings)
    client.answers = [lambda request: b"" if request.declared_types_hash else b"first"] * 50
    client.open()
    client.work()
    assert len(client.declared) == 4


def test_a_server_without_hashes_is_continued_without_one() -> None:
    settings = tuple(Setting(f"d{n}", str, default="x" * 300_000) for n in range(2))
    client = Reporting(settings=settings).open()
    client.work()
    assert [request.declared_types_hash for request in client.declared] == [b"", b""]


def test_a_server_that_has_lost_the_declarations_gets_them_again_in_the_same_stream() -> None:
    client = Reporting(settings=(Setting("a", int, default=0),))
    client.answers = [lambda _: b"one", lambda _: b"again"]
    client.declare_again = ["somebody-else"]
    client.open()
    client.run(0)
    assert len(client.declared) == 1
    client.declare_again = ["somebody-else", "c1"]
    client.bookmark(report_within=0.0)
    client.run(0)
    client.declare_again = []
    client.work()
    assert [request.declared_types_hash for request in client.declared] == [b"", b""]
    client.bookmark(report_within=0.0)
    assert client.run(0)[-1].declared_types_hash == b"again"


# With threads and with an event loop.


class Reported:
    """A server that streams on demand and notes reports.

    Attributes:
        reports: What came.
        held: While it is not set, reports are not answered.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.store.set({"a": 1})
        self.reports: list[ClientReport] = []
        self.answering = threading.Event()
        self.answering.set()
        self.refusal: Refusal | None = None
        self._more = threading.Condition()
        self._messages: list[watch_pb2.WatchResponse] = []
        self._ended = False

    def script(self, request: watch_pb2.WatchRequest) -> Iterator[watch_pb2.WatchResponse | bytes | None]:
        sent = len(self._messages)
        yield from self.store.answer(request)
        while True:
            with self._more:
                if len(self._messages) == sent and not self._ended:
                    self._more.wait(PATIENCE)
                found, sent = self._messages[sent:], len(self._messages)
            if self._ended:
                return
            yield from found

    def send(self, message: watch_pb2.WatchResponse) -> None:
        with self._more:
            self._messages.append(message)
            self._more.notify_all()

    def end(self) -> None:
        with self._more:
            self._ended = True
            self._more.notify_all()
        self.answering.set()

    def report(self, body: bytes) -> Message:
        self.reports.extend(ReportStatusRequest.FromString(body).reports)
        self.answering.wait(PATIENCE)
        if self.refusal is not None:
            raise self.refusal
        return ReportStatusResponse()


@pytest.fixture
def reported() -> Iterator[Reported]:
    found = Reported()
    yield found
    found.end()


@pytest.fixture
def serving(reported: Reported) -> Iterator[FakeServer]:
    with FakeServer(reported.script, {"ReportStatus": reported.report}) as server:
        yield server
        reported.end()


def _asking(reported: Reported, **values: Any) -> watch_pb2.WatchResponse:
    before = reported.store.revision
    reported.store.set(values)
    delta = reported.store.delta(before)
    delta.delta.report_within.CopyFrom(duration_to_proto(0.05))
    return delta


def test_a_client_reports_beside_its_stream(
    reported: Reported, serving: FakeServer, make: Callable[..., Driven]
) -> None:
    client = make(serving.url, client_id="c7", name="me").start()
    wait_until(lambda: reported.reports)
    assert reported.reports[0].client.id == "c7"
    assert reported.reports[0].revision == 1
    assert client["a"] == 1
    reported.send(_asking(reported, a=2))
    wait_until(lambda: len(reported.reports) > 1)
    report = reported.reports[1]
    assert (report.revision, list(report.settings_read)) == (2, ["a"])
    assert 0 <= duration_from_proto(report.age) < PATIENCE
    assert len(serving.requests) == 1, "on the same stream"


def test_a_report_that_hangs_holds_up_neither_the_stream_nor_reads_nor_the_end(
    reported: Reported, serving: FakeServer, make: Callable[..., Driven]
) -> None:
    reported.answering.clear()
    client = make(serving.url).start()
    wait_until(lambda: reported.reports)
    reported.send(_asking(reported, a=2))
    wait_until(lambda: client["a"] == 2)
    client.close()
    assert len(reported.reports) == 1


def test_a_refused_report_leaves_the_client_as_it_is(
    reported: Reported,
    serving: FakeServer,
    make: Callable[..., Driven],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported.refusal = Refusal(400, b'{"code":"failed_precondition","message":"not served"}')
    with caplog.at_level(logging.INFO, "rheostat"):
        client = make(serving.url).start()
        wait_until(lambda: reported.reports)
        reported.send(_asking(reported, a=2))
        wait_until(lambda: client["a"] == 2)
        wait_until(lambda: not client._core._reporter.under_way)
        reported.send(_asking(reported, a=3))
        wait_until(lambda: client["a"] == 3)
    assert client.errors == []
    assert caplog.records == []
    assert len(reported.reports) == 1


def test_reporting_can_be_switched_off(
    reported: Reported, serving: FakeServer, make: Callable[..., Driven]
) -> None:
    client = make(serving.url, report=False).start()
    reported.send(_asking(reported, a=2))
    wait_until(lambda: client["a"] == 2)
    client.close()
    assert reported.reports == []
