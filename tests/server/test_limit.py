"""Limits of a node that are not about one request: open watches, and writes in a second."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest, ListEnvironmentsRequest
from rheostat.errors import LimitExceededError, UnavailableError
from rheostat.model.position import Filter
from rheostat.server import wsgi_app
from rheostat.server.throttle import Throttle
from rheostat.service import Limits, Service
from rheostat.service.admission import Admission
from rheostat.store import open_store
from rheostat.wire.error import from_connect, to_connect


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
    assert [admission.serves(Filter(names=(name,))) for name in ("a", "b", "c", "a")] == [
        True,
        True,
        False,
        True,
    ]
    assert admission.serves(Filter())


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
