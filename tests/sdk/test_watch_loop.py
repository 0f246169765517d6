"""What a client owes by the contract, effect by effect, against the messages of a real node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from rheo.v1 import watch_pb2
from rheo.v1.config_service_pb2 import GetSnapshotResponse
from rheostat.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    PermissionDeniedError,
    RheostatError,
    UnavailableError,
)
from rheostat.model.change import SetValue
from rheostat.sdk.backoff import Backoff
from rheostat.sdk.call import Answer
from rheostat.sdk.effect import CloseStream, Fetch, OpenStream, Sleep
from rheostat.sdk.watch_loop import poll_loop
from tests.sdk.line import Line, Looping, Seen, go_away
from tests.service.book import put
from tests.service.node import Node, World

HEARTBEAT = 15.0
REFUSED = (150.0, 450.0)
DIVERGED = (240.0, 300.0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a"), put("b"))
    return made


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def looping(seen: Seen) -> Looping:
    return Looping(seen)


def last(seen: Seen) -> tuple[str, ...]:
    """The last end of a stream, without its delay."""
    return next(each[:2] for each in reversed(seen.told) if each[0] != "advanced")


def test_the_first_stream_is_opened_without_a_token(looping: Looping) -> None:
    request = looping.opened()
    assert (request.resume, request.resnapshot) == (b"", False)


def test_a_stream_resumes_with_the_token_of_what_is_held(node: Node, seen: Seen, looping: Looping) -> None:
    looping.follow(node)
    assert seen.held.revision == node.revision
    looping.fail(UnavailableError("cut"))
    looping.left()
    token = seen.held.token
    node.commit(SetValue("a", 1))
    line = Line(node, request := looping.opened())
    assert (request.resume, request.resnapshot) == (token, False)
    looping.receive(*line.messages())
    assert [hello.mode for hello in seen.hellos] == [
        watch_pb2.WATCH_MODE_SNAPSHOT,
        watch_pb2.WATCH_MODE_DELTA,
    ]
    assert seen.held.revision == node.revision


def test_what_changed_meanwhile_arrives_and_nothing_else_is_touched(
    node: Node, seen: Seen, looping: Looping
) -> None:
    line = looping.follow(node)
    before = seen.held.items
    node.commit(SetValue("a", 1))
    looping.receive(*line.messages())
    assert seen.held.items["setting", "b"] is before["setting", "b"]
    assert seen.held.items["setting", "a"].item.value == 1  # type: ignore[union-attr]


def test_a_delta_that_comes_twice_is_dropped(node: Node, seen: Seen, looping: Looping) -> None:
    line = looping.follow(node)
    node.commit(SetValue("a", 1))
    messages = line.messages()
    looping.receive(*messages)
    told = list(seen.told)
    looping.receive(*messages, *messages)
    assert seen.told == told
    assert seen.held.revision == node.revision


def test_a_gap_makes_it_reconnect_with_its_token(node: Node, seen: Seen, looping: Looping) -> None:
    line = looping.follow(node)
    held = seen.held
    node.commit(SetValue("a", 1))
    line.messages()
    node.commit(SetValue("a", 2))
    looping.receive(*line.messages())
    assert seen.held is held, "nothing is applied over a gap"
    assert last(seen) == ("disconnected", "BrokenStreamError")
    assert looping.left() <= 1.0
    assert looping.opened().resume == held.token


@pytest.mark.parametrize("field", ["store_id", "generation", "nonce", "scope"])
@pytest.mark.parametrize("kind", ["delta", "bookmark"])
def test_a_step_of_another_history_is_never_applied(
    node: Node, seen: Seen, looping: Looping, kind: str, field: str
) -> None:
    line = looping.follow(node)
    held = seen.held
    if kind == "delta":
        node.commit(SetValue("a", 1))
    else:
        node.world.clock.seconds += HEARTBEAT
    message = line.messages()[-1]
    position = getattr(message, kind).position
    setattr(position, field, 7 if field == "generation" else bytes(len(getattr(position, field))))
    looping.receive(message)
    assert seen.held is held
    assert last(seen) == ("disconnected", "BrokenStreamError")
    looping.left()
    assert looping.opened().resume == held.token


def test_a_digest_that_differs_asks_for_a_snapshot_at_once_and_with_the_token(
    node: Node, seen: Seen, looping: Looping
) -> None:
    line = looping.follow(node)
    held = seen.held
    node.commit(SetValue("a", 1))
    message = line.messages()[-1]
    message.delta.digest ^= 1
    looping.receive(message)
    assert seen.held is held
    assert last(seen) == ("disconnected", "DivergedError")
    assert looping.left() == 0.0
    line = Line(node, request := looping.opened())
    assert (request.resume, request.resnapshot) == (held.token, True)
    looping.receive(*line.messages())
    assert seen.hellos[-1].reason == watch_pb2.SNAPSHOT_REASON_REQUESTED
    assert seen.held.revision == node.revision


def _bookmark(node: Node, line: Line) -> watch_pb2.WatchResponse:
    node.world.clock.seconds += HEARTBEAT
    return line.messages()[-1]


def test_a_digest_that_differs_twice_in_a_row_keeps_the_state_and_waits_minutes(
    node: Node, seen: Seen, looping: Looping
) -> None:
    delays = []
    line = looping.follow(node)
    for _ in range(5):
        wrong = _bookmark(node, line)
        wrong.bookmark.digest ^= 1
        looping.receive(wrong)
        revision = seen.held.revision
        delays.append(looping.left())
        line = looping.follow(node)
        assert seen.hellos[-1].reason == watch_pb2.SNAPSHOT_REASON_REQUESTED
        assert seen.held.revision == revision == node.revision
    assert delays[0] == 0.0
    assert all(DIVERGED[0] <= delay <= DIVERGED[1] for delay in delays[1:])
    # A bookmark that agrees ends it: the next difference counts as the first.
    looping.receive(right := _bookmark(node, line))
    assert seen.held.digest == right.bookmark.digest
    wrong = _bookmark(node, line)
    wrong.bookmark.digest ^= 1
    looping.receive(wrong)
    assert looping.left() == 0.0


def test_a_snapshot_whose_digest_is_wrong_is_never_shown(node: Node, seen: Seen, looping: Looping) -> None:
    messages = Line(node, looping.opened()).messages()
    messages[-1].snapshot_end.digest ^= 1
    looping.receive(*messages)
    assert seen.held.position is None
    assert looping.left() == 0.0
    messages = Line(node, looping.opened()).messages()
    messages[-1].snapshot_end.digest ^= 1
    looping.receive(*messages)
    assert seen.held.position is None
    assert DIVERGED[0] <= looping.left() <= DIVERGED[1]


@pytest.mark.parametrize(
    "error",
    [AuthenticationError("bad key"), PermissionDeniedError("no"), InvalidArgumentError("which environment")],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_is_tried_again_after_five_minutes_more_or_less(seen: Seen, error: RheostatError) -> None:
    delays = []
    for seed in range(40):
        looping = Looping(seen, seed)
        looping.opened()
        looping.fail(error)
        assert seen.told[-1][0] == "refused"
        delays.append(looping.left())
        assert isinstance(looping.effect, OpenStream), "it never stops trying"
    assert all(REFUSED[0] <= delay <= REFUSED[1] for delay in delays)
    assert min(delays) < 200 and max(delays) > 400, "spread over the whole interval"


def test_a_client_that_is_asked_to_leave_takes_its_place_in_the_spread(node: Node) -> None:
    delays = []
    for seed in range(40):
        seen = Seen()
        looping = Looping(seen, seed)
        looping.follow(node)
        looping.now += 100
        looping.receive(go_away(8.0))
        started = looping.now
        # Until then it follows the old stream; here the server ends that sooner.
        looping.now += min(looping.waits(), 3.0)
        looping.ends()
        looping.left()
        delays.append(looping.now - started)
        assert last(seen) == ("disconnected", "NoneType"), "that is no error"
        assert looping.opened().resume == seen.held.token
    assert all(delay <= 8.0 for delay in delays)
    assert min(delays) < 1.0 and max(delays) > 7.0


@pytest.mark.parametrize("fails", [True, False])
def test_clients_of_a_node_that_crashes_come_back_over_a_time_that_grows_with_their_number(
    node: Node, fails: bool
) -> None:
    delays = []
    with contextlib.ExitStack() as others:
        for number in range(1600):
            others.enter_context(node.service.admission.watch(f"key-{number}", ""))
        spread = node.service.reconnect_spread
        assert spread == 1600 / 400 * 1.5
        for seed in range(40):
            looping = Looping(Seen(), seed)
            looping.follow(node)
            if fails:
                looping.fail(UnavailableError("connection reset"))
            else:
                looping.ends()
            delays.append(looping.left())
    assert all(delay <= spread for delay in delays)
    assert min(delays) < 1.0 and max(delays) > 5.0


def test_changes_still_arrive_while_it_waits_for_its_turn_to_leave(node: Node, seen: Seen) -> None:
    looping = Looping(seen, 3)
    line = looping.follow(node)
    looping.now += 100
    looping.receive(go_away(8.0))
    before = looping.waits()
    assert 0 < before <= 8.0
    node.commit(SetValue("a", 1))
    looping.receive(*line.messages())
    assert seen.held.revision == node.revision
    looping.now += before
    # Its turn has come: the wait for the next event is over, and nothing is an error.
    looping.fail(DeadlineExceededError("nothing"))
    assert last(seen) == ("disconnected", "NoneType")
    assert looping.left() == 0.0
    assert isinstance(looping.effect, OpenStream)


def test_a_server_that_lets_go_at_once_is_not_asked_in_a_hot_loop(node: Node, seen: Seen) -> None:
    looping = Looping(seen, 1)
    started = looping.now
    for _ in range(20):
        looping.follow(node)
        looping.receive(go_away(0.0, "MAX_AGE"))
        looping.left()
    assert looping.now - started > 60, "the delays grow"


def test_a_stream_of_full_age_is_renewed_at_once_again_and_again(node: Node, seen: Seen) -> None:
    looping = Looping(seen)
    for _ in range(5):
        looping.follow(node)
        looping.now += 1800
        looping.receive(go_away(0.0, "MAX_AGE"))
        assert looping.left() == 0.0
    assert {hello.mode for hello in seen.hellos[1:]} == {watch_pb2.WATCH_MODE_UP_TO_DATE}


def test_a_stream_that_is_silent_for_three_heartbeats_is_dead(
    node: Node, seen: Seen, looping: Looping
) -> None:
    opened_within = Seen().target.open_timeout
    looping.opened()
    assert looping.waits() == opened_within, "before the first event"
    looping.receive(*Line(node, watch_pb2.WatchRequest()).messages())
    assert looping.waits() == 3 * HEARTBEAT
    looping.now += looping.waits()
    token = seen.held.token
    looping.fail(DeadlineExceededError("nothing"))
    assert last(seen) == ("disconnected", "DeadlineExceededError")
    assert looping.left() <= 1.0
    assert looping.opened().resume == token, "resuming, never from zero"


def _large(node: Node) -> None:
    """More than a chunk holds."""
    node.commit(*(put(f"large.{number}", "str", "x" * 60_000) for number in range(12)))


@pytest.mark.parametrize("fault", ["left out", "twice", "out of order"])
def test_a_snapshot_whose_chunks_are_not_whole_is_never_shown(
    node: Node, seen: Seen, looping: Looping, fault: str
) -> None:
    _large(node)
    messages = Line(node, looping.opened()).messages()
    chunks = [n for n, message in enumerate(messages) if message.WhichOneof("event") == "snapshot_chunk"]
    assert len(chunks) > 2
    first, second = chunks[:2]
    match fault:
        case "left out":
            del messages[first]
        case "twice":
            messages.insert(first, messages[first])
        case _:
            messages[first], messages[second] = messages[second], messages[first]
    for message in messages:
        looping.receive(message)
        if isinstance(looping.effect, CloseStream):
            break
    assert last(seen) == ("disconnected", "BrokenStreamError")
    assert seen.held.position is None


def test_a_snapshot_that_lacks_its_last_chunk_is_never_shown(
    node: Node, seen: Seen, looping: Looping
) -> None:
    _large(node)
    messages = Line(node, looping.opened()).messages()
    del messages[-2]
    looping.receive(*messages)
    assert last(seen) == ("disconnected", "BrokenStreamError")
    assert seen.held.position is None


def test_half_a_snapshot_of_a_stream_that_was_cut_does_not_leak_into_the_next(
    node: Node, seen: Seen, looping: Looping
) -> None:
    _large(node)
    looping.receive(*Line(node, looping.opened()).messages()[:4])
    looping.fail(UnavailableError("cut"))
    looping.left()
    assert looping.opened().resume == b""
    looping.receive(*Line(node, watch_pb2.WatchRequest()).messages())
    assert len(seen.held.items) == 14


def test_a_snapshot_that_is_older_than_what_is_held_is_refused(
    node: Node, seen: Seen, looping: Looping
) -> None:
    old = Line(node, watch_pb2.WatchRequest()).messages()
    node.commit(SetValue("a", 1))
    line = looping.follow(node)
    held = seen.held
    wrong = _bookmark(node, line)
    wrong.bookmark.digest ^= 1
    looping.receive(wrong)
    looping.left()
    looping.opened()
    looping.receive(*old)
    assert seen.held is held
    assert last(seen) == ("disconnected", "BrokenStreamError")
    looping.left()
    assert looping.opened().resnapshot, "it still needs one"


def test_a_snapshot_of_another_store_is_taken_whatever_its_revision(
    node: Node, seen: Seen, looping: Looping
) -> None:
    for value in range(5):
        node.commit(SetValue("a", value + 1))
    looping.follow(node)
    looping.fail(UnavailableError("cut"))
    looping.left()
    other = World()
    try:
        fresh = other.node()
        other.store._identity = type(other.store._identity)(
            **{
                **{f: getattr(other.store._identity, f) for f in other.store._identity.__dataclass_fields__},
                "store_id": b"another store ..",
            }
        )
        fresh.service._reload()
        fresh.commit(put("c"))
        assert fresh.revision < seen.held.revision
        looping.follow(fresh)
        assert seen.held.items.keys() == {("setting", "c")}
        assert seen.held.revision == fresh.revision
    finally:
        other.close()


def test_a_generation_that_rises_brings_a_snapshot_on_the_open_stream(
    node: Node, seen: Seen, looping: Looping
) -> None:
    line = looping.follow(node)
    node.service.raise_generation(1)
    looping.receive(*line.messages())
    assert seen.held.position is not None
    assert seen.held.position.generation == 2
    assert not [each for each in seen.told if each[0] == "disconnected"]


def test_a_server_that_says_when_to_come_back_is_obeyed_with_jitter_on_top(seen: Seen) -> None:
    delays = []
    for seed in range(40):
        for error in (UnavailableError("full"), LimitExceededError("full", limit="streams")):
            looping = Looping(seen, seed)
            looping.opened()
            error.retry_after = 7.0
            looping.fail(error)
            delays.append(looping.left())
    assert all(7.0 <= delay <= 10.5 for delay in delays)
    assert max(delays) - min(delays) > 2.0


def test_delays_double_up_to_half_a_minute_and_are_drawn_from_zero_on() -> None:
    bounds = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    drawn: list[list[float]] = [[] for _ in bounds]
    for seed in range(60):
        looping = Looping(Seen(), seed)
        for number in range(len(bounds)):
            looping.opened()
            looping.fail(UnavailableError("away"))
            drawn[number].append(looping.left())
    for bound, delays in zip(bounds, drawn, strict=True):
        assert max(delays) <= bound
        assert min(delays) < 0.2 * bound and max(delays) > 0.8 * bound


def test_delays_begin_anew_after_a_minute_of_health_and_not_before(node: Node) -> None:
    for health, expected in ((59.0, 16.0), (61.0, 1.0)):
        longest = 0.0
        for seed in range(40):
            looping = Looping(Seen(), seed)
            for _ in range(4):
                looping.opened()
                looping.fail(UnavailableError("away"))
                looping.left()
            looping.follow(node)
            looping.now += health
            looping.fail(UnavailableError("cut"))
            longest = max(longest, looping.left())
        assert 0.6 * expected < longest <= expected


def test_a_thousand_failures_do_not_overflow_the_delay() -> None:
    import random

    backoff = Backoff(1.0, 30.0, random.Random(0))
    assert all(backoff.delay() <= 30.0 for _ in range(1000))


@pytest.mark.parametrize("seconds", [0, -1, 10**12])
def test_a_heartbeat_out_of_range_is_not_believed(
    node: Node, seen: Seen, looping: Looping, seconds: int
) -> None:
    messages = Line(node, looping.opened()).messages()
    messages[0].hello.heartbeat.seconds = seconds
    messages[0].hello.heartbeat.nanos = 0
    looping.receive(messages[0])
    assert last(seen) == ("disconnected", "BrokenStreamError")


def test_neither_a_spread_nor_a_retry_of_a_thousand_years_keeps_it_away(node: Node, seen: Seen) -> None:
    looping = Looping(seen)
    looping.follow(node)
    looping.now += 100
    looping.receive(go_away(3e10))
    looping.ends()
    assert looping.left() <= 3600
    looping.opened()
    error = UnavailableError("full")
    error.retry_after = 3e10
    looping.fail(error)
    assert looping.left() <= 1.5 * 3600
    assert isinstance(looping.effect, OpenStream)


@pytest.mark.parametrize("first", ["snapshot_begin", "delta", "bookmark"])
def test_a_stream_without_a_hello_is_broken(seen: Seen, looping: Looping, first: str) -> None:
    looping.opened()
    message = watch_pb2.WatchResponse()
    getattr(message, first).SetInParent()
    looping.receive(message)
    assert last(seen) == ("disconnected", "BrokenStreamError")


def test_events_of_later_versions_are_passed_over(node: Node, seen: Seen, looping: Looping) -> None:
    line = looping.follow(node)
    looping.receive(watch_pb2.WatchResponse())
    node.commit(SetValue("a", 1))
    looping.receive(*line.messages())
    assert seen.held.revision == node.revision


# Polling.


def _page(node: Node, **changes: object) -> GetSnapshotResponse:
    messages = Line(node, watch_pb2.WatchRequest()).messages()
    end = messages[-1].snapshot_end
    page = GetSnapshotResponse(position=end.position, item_count=end.item_count, digest=end.digest)
    for message in messages:
        page.items.extend(message.snapshot_chunk.items)
    for name, value in changes.items():
        setattr(page, name, value)
    return page


def _fetch(looping: Looping) -> Fetch:
    assert isinstance(looping.effect, Fetch), looping.effect
    return looping.effect


def test_polls_ask_with_the_held_position_at_varied_intervals(node: Node) -> None:
    seen = Seen(poll_interval=30.0)
    looping = Looping(seen, loop=poll_loop)
    assert _fetch(looping).request.resume == b""  # type: ignore[attr-defined]
    looping.answer(Answer(_page(node)))
    assert seen.held.revision == node.revision
    intervals = []
    for _ in range(20):
        intervals.append(looping.slept())
        assert _fetch(looping).request.resume == seen.held.token  # type: ignore[attr-defined]
        looping.answer(Answer(GetSnapshotResponse(up_to_date=True, position=seen.held.position)))
    assert all(27.0 <= interval <= 33.0 for interval in intervals)
    assert max(intervals) - min(intervals) > 2.0


def test_a_poll_that_fails_backs_off_and_one_that_is_refused_waits_minutes(node: Node) -> None:
    seen = Seen()
    looping = Looping(seen, loop=poll_loop)
    looping.fail(UnavailableError("away"))
    assert looping.slept() <= 1.0
    looping.fail(AuthenticationError("bad key"))
    assert REFUSED[0] <= looping.slept() <= REFUSED[1]
    looping.answer(Answer(_page(node)))
    assert seen.held.revision == node.revision


def test_a_poll_takes_pages_of_one_position_only(node: Node) -> None:
    seen = Seen()
    looping = Looping(seen, loop=poll_loop)
    whole = _page(node)
    first, second = GetSnapshotResponse(), GetSnapshotResponse()
    for page, items in ((first, whole.items[:1]), (second, whole.items[1:])):
        page.CopyFrom(whole)
        del page.items[:]
        page.items.extend(items)
    first.next_page_token = "more"
    looping.answer(Answer(first))
    assert _fetch(looping).request.page_token == "more"  # type: ignore[attr-defined]
    looping.answer(Answer(second))
    assert seen.held.revision == node.revision
    assert len(seen.held.items) == 2


def test_a_poll_whose_digest_is_wrong_shows_nothing_and_is_forgiven_once_it_agrees(node: Node) -> None:
    seen = Seen()
    looping = Looping(seen, loop=poll_loop)
    wrong = _page(node, digest=1)
    for _ in range(2):
        looping.answer(Answer(wrong))
        assert seen.held.position is None
        assert looping.slept() == 0.0, "the first difference is tried again at once"
        looping.answer(Answer(_page(node)))
        assert seen.held.revision == node.revision
        looping.slept()
        seen.held = type(seen.held)()
    looping.answer(Answer(wrong))
    looping.slept()
    looping.answer(Answer(wrong))
    assert DIVERGED[0] <= looping.slept() <= DIVERGED[1]


def test_a_first_poll_that_says_that_nothing_has_changed_is_no_state(node: Node) -> None:
    seen = Seen()
    looping = Looping(seen, loop=poll_loop)
    looping.answer(Answer(GetSnapshotResponse(up_to_date=True)))
    assert seen.held.position is None
    assert last(seen) == ("disconnected", "BrokenStreamError")
    assert isinstance(looping.effect, Sleep)
