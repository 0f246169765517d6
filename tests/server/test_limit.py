"""Limits of a node that are not about one request: open watches, and writes in a second."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest, ListEnvironmentsRequest
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import LimitExceededError, UnavailableError
from rheostat.model.position import Filter
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.throttle import Throttle
from rheostat.service import Limits, Service
from rheostat.service.admission import Admission
from rheostat.store import open_store
from rheostat.wire.error import from_connect, to_connect
from tests.server.exchange import WATCH, Answered, Asgi, Asked, Wsgi, asked

COMMIT = "rheo.v1.AdminService/Commit"
DRY_RUN = CommitRequest(dry_run=True)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(max_streams=2), "max_streams"),
        (Limits(max_streams_per_key=2), "max_streams_per_key"),
        (Limits(max_streams_per_address=2), "max_streams_per_address"),
    ],
)
def test_a_watch_beyond_a_cap_is_told_which_one_and_when_to_come_back(limits: Limits, name: str):
    admission = Admission(limits)
    with admission.watch("key", "127.0.0.1"):
        with admission.watch("key", "127.0.0.1"):
            with pytest.raises(UnavailableError) as caught, admission.watch("key", "127.0.0.1"):
                pass
            assert (caught.value.reason, caught.value.metadata) == ("TOO_MANY_STREAMS", {"limit": name})
            assert caught.value.retry_after
        with admission.watch("key", "127.0.0.1"):
            assert admission.open == 2
    assert admission.open == 0


def test_other_keys_and_addresses_are_not_held_up_by_a_full_one():
    admission = Admission(Limits(max_streams_per_key=1, max_streams_per_address=1))
    with admission.watch("a", "127.0.0.1"), admission.watch("b", "127.0.0.2"):
        assert admission.open == 2


def test_a_watch_that_fails_is_no_longer_counted():
    admission = Admission(Limits())
    with pytest.raises(ValueError, match="cut"), admission.watch("a", ""):
        raise ValueError("cut")
    assert admission.open == 0


def test_distinct_filters_beyond_the_cap_are_not_served_and_known_ones_still_are():
    admission = Admission(Limits(max_filters=2))
    a, b, c = (Filter(names=(name,)) for name in "abc")
    with (
        admission.filter(a) as first,
        admission.filter(b) as second,
        admission.filter(c) as third,
        admission.filter(a) as again,
        admission.filter(Filter()) as all_,
    ):
        assert (first, second, third, again, all_) == (True, True, False, True, True)


def test_a_filter_gives_its_place_back_when_its_last_stream_ends():
    admission = Admission(Limits(max_filters=1))
    a, b = Filter(names=("a",)), Filter(prefixes=("b",))

    def serves(filter_: Filter) -> bool:
        with admission.filter(filter_) as served:
            return served

    with admission.filter(a):
        with admission.filter(a):
            assert not serves(b)
        assert not serves(b), "one of two streams has ended"
        # One that is not served holds no place, and gives none back.
        assert not serves(b)
    with pytest.raises(ValueError, match="cut"), admission.filter(b):
        raise ValueError("cut")
    assert serves(a)
    # One key after the other cannot use the places up.
    assert all(serves(Filter(names=(f"n{number}",))) for number in range(100))


def test_snapshots_beyond_the_cap_are_asked_to_come_back_at_different_times():
    draws = iter([bytes(4), b"\xff" * 4, b"\x80\0\0\0"])
    admission = Admission(Limits(max_concurrent_snapshots=2), randomness=lambda size: next(draws)[:size])
    told = []
    with admission.snapshot(), admission.snapshot():
        for _ in range(3):
            with pytest.raises(UnavailableError) as caught, admission.snapshot():
                pass
            assert caught.value.reason == "SNAPSHOTS_BUSY"
            assert caught.value.metadata == {"limit": "max_concurrent_snapshots"}
            told.append(caught.value.retry_after)
    assert told == [0.5, pytest.approx(2.0, abs=1e-6), 1.25]
    with pytest.raises(ValueError, match="cut"), admission.snapshot():
        raise ValueError("cut")
    with admission.snapshot(), admission.snapshot():
        pass


def test_nobody_alone_can_take_all_watches_of_a_node_by_default():
    limits = Limits()
    assert limits.max_streams_per_key < limits.max_streams
    assert limits.max_streams_per_address < limits.max_streams


def test_a_key_that_writes_too_often_is_told_the_limit_and_others_go_on():
    throttle = Throttle(3)
    with pytest.raises(LimitExceededError) as caught:
        # A second may end in between, so that the fourth write alone proves nothing; within two seconds' worth
        # of writes one must be refused.
        for _ in range(8):
            throttle.check("rheo.v1.AdminService/Commit", "busy")
    assert caught.value.limit == "max_writes_per_second"
    assert caught.value.retry_after is not None
    assert 0 <= caught.value.retry_after <= 1.5
    throttle.check("rheo.v1.AdminService/Commit", "calm")
    throttle.check("rheo.v1.AdminService/ListSettings", "busy")
    error = to_connect(caught.value)
    assert error.code is Code.RESOURCE_EXHAUSTED
    again = from_connect(error)
    assert isinstance(again, LimitExceededError)
    assert again.limit == "max_writes_per_second"


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_server_refuses_writes_beyond_the_limit_and_serves_reads():
    with Service(open_store("memory:"), limits=Limits(max_writes_per_second=2)) as service:
        app = wsgi_app(service, open=True)
        with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            client = AdminServiceClientSync(f"http://127.0.0.1:{server.server_port}")
            try:
                with pytest.raises(ConnectError) as caught:
                    for _ in range(6):
                        client.commit(CommitRequest(dry_run=True))
                assert caught.value.code is Code.RESOURCE_EXHAUSTED
                assert (
                    client.list_environments(ListEnvironmentsRequest()).environments[0].name == "production"
                )
            finally:
                server.shutdown()
                thread.join()


# When to come back, as a header: what is between the client and the server reads no details.

Exchange = Callable[[Asked], Answered]


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as service:
        yield service


@pytest.fixture(params=["wsgi", "asgi"])
def mount(request: pytest.FixtureRequest) -> Callable[[Service], Exchange]:
    def make(service: Service) -> Exchange:
        if request.param == "wsgi":
            return Wsgi(wsgi_app(service, open=True))
        caller = Asgi(asgi_app(service, open=True))
        return lambda asked_: asyncio.run(caller(asked_))

    return make


def check_retry_after(answer: Answered, seconds: float | None = None) -> None:
    told = answer.retry_seconds
    assert told is not None
    assert seconds is None or told == seconds
    assert answer.headers["retry-after"] == str(max(1, math.ceil(told)))


@pytest.mark.parametrize("codec", ["proto", "json"])
def test_a_write_to_a_draining_node_says_when_to_retry(
    mount: Callable[[Service], Exchange], service: Service, codec: str
):
    exchange = mount(service)
    assert "retry-after" not in exchange(asked(COMMIT, DRY_RUN, codec)).headers
    service.drain()
    answer = exchange(asked(COMMIT, DRY_RUN, codec))
    assert (answer.status, answer.code, answer.reason) == (503, "unavailable", "DRAINING")
    check_retry_after(answer, 1.0)


def test_a_watch_of_a_draining_node_says_when_to_retry_in_whole_seconds(
    mount: Callable[[Service], Exchange], service: Service
):
    service.drain()
    answer = mount(service)(asked(WATCH, WatchRequest()))
    assert (answer.code, answer.reason) == ("unavailable", "DRAINING")
    check_retry_after(answer, 2.5)
    assert answer.headers["retry-after"] == "3"


def test_a_watch_beyond_the_cap_says_when_to_retry(mount: Callable[[Service], Exchange]):
    with Service(open_store("memory:"), limits=Limits(max_streams=1)) as service:
        exchange = mount(service)
        assert "retry-after" not in exchange(asked(WATCH, WatchRequest())).headers
        with service.admission.watch("", ""):
            answer = exchange(asked(WATCH, WatchRequest()))
        assert (answer.code, answer.reason) == ("unavailable", "TOO_MANY_STREAMS")
        check_retry_after(answer, 5.0)


def test_a_write_beyond_the_limit_says_when_to_retry(mount: Callable[[Service], Exchange]):
    with Service(open_store("memory:"), limits=Limits(max_writes_per_second=1)) as service:
        exchange = mount(service)
        # Five writes take less than five seconds, so that two are in the same one.
        refused = [answer for _ in range(5) if (answer := exchange(asked(COMMIT, DRY_RUN))).code != "ok"]
        assert (refused[0].status, refused[0].code) == (429, "resource_exhausted")
        check_retry_after(refused[0])


def test_an_error_that_is_not_about_now_names_no_time(mount: Callable[[Service], Exchange], service: Service):
    answer = mount(service)(asked(COMMIT, CommitRequest(project="none"), "proto"))
    assert answer.code == "permission_denied"
    assert "retry-after" not in answer.headers
