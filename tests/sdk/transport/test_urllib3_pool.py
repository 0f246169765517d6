"""The generated synchronous client over the caller's own `urllib3.PoolManager`."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from connectrpc.client import ResponseMetadata
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import Headers
from pyqwest import Headers as HTTPHeaders
from pyqwest import SyncClient, SyncRequest, SyncTransport

from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.config_service_pb2 import PingRequest, PingResponse
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.sdk.transport import CancelScope, Urllib3Transport, sync_http_client

from .peers import END_OF_STREAM, PATIENCE, RawConnection, bookmark, envelope, gzipped, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .peers import RawServer, Served

    StartRawServer = Callable[[Callable[[RawConnection], None]], RawServer]


def client_of(url: str, pool: urllib3.PoolManager, **options: Any) -> ConfigServiceClientSync:
    return ConfigServiceClientSync(url, http_client=sync_http_client(pool), **options)


@pytest.fixture
def client(served: Served, pool: urllib3.PoolManager) -> ConfigServiceClientSync:
    return client_of(served.url, pool)


def free_places(pool: urllib3.PoolManager, url: str) -> int:
    connections = pool.connection_from_url(url).pool
    assert connections is not None
    return connections.qsize()


def open_connections(pool: urllib3.PoolManager, url: str) -> int:
    connections = pool.connection_from_url(url).pool
    assert connections is not None
    return sum(connection is not None and not connection.is_closed for connection in connections.queue)


class Watching:
    """A watch in a thread of its own, inside a scope, and how it ended."""

    def __init__(self, client: ConfigServiceClientSync, **options: Any) -> None:
        self.scope = CancelScope()
        self.revisions: list[int] = []
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self.opened = threading.Event()
        self._client = client
        self._options = options
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.scope:
                for event in self._client.watch(WatchRequest(), **self._options):
                    self.revisions.append(event.bookmark.position.revision)
                    self.opened.set()
        except BaseException as error:  # noqa: BLE001
            self.error = error
        self.ended_at = time.monotonic()

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def cancelled_after(self, cancel: Callable[[], None]) -> float:
        """Call `cancel` and return the seconds until the watch has ended with CANCELED."""
        began = time.monotonic()
        cancel()
        self.join()
        assert isinstance(self.error, ConnectError)
        assert self.error.code == Code.CANCELED
        return self.ended_at - began


# Calls


def test_is_a_transport_of_pyqwest(pool: urllib3.PoolManager) -> None:
    assert isinstance(Urllib3Transport(pool), SyncTransport)


def test_answers_a_unary_call(client: ConfigServiceClientSync) -> None:
    assert client.ping(PingRequest(), headers={"x-node": "here"}).node == "here"


def test_answers_a_call_made_by_get(client: ConfigServiceClientSync, served: Served) -> None:
    assert client.ping(PingRequest(), headers={"x-node": "here"}, use_get=True).node == "here"
    assert "content-length" not in served.service.requests[-1]


def test_decompresses_a_unary_response(client: ConfigServiceClientSync) -> None:
    with ResponseMetadata() as metadata:
        assert client.ping(PingRequest(), headers={"x-size": "100000"}).node == "n" * 100_000
    assert metadata.headers["content-encoding"] == "gzip"


def test_raises_the_error_of_the_server(client: ConfigServiceClientSync) -> None:
    with pytest.raises(ConnectError, match="not for you") as caught:
        client.ping(PingRequest(), headers={"x-fail": "1"})
    assert caught.value.code == Code.PERMISSION_DENIED


def test_delivers_a_whole_stream(client: ConfigServiceClientSync) -> None:
    events = list(client.watch(WatchRequest(), headers={"x-count": "500"}))
    assert [event.bookmark.position.revision for event in events[1:]] == list(range(1, 501))


def test_sends_and_receives_headers_with_several_values(
    client: ConfigServiceClientSync, served: Served
) -> None:
    headers = Headers()
    headers.add("x-echo", "one")
    headers.add("x-echo", "two")
    with ResponseMetadata() as metadata:
        client.ping(PingRequest(), headers=headers)
    assert served.service.requests[-1]["x-echo"] == ["one", "two"]
    assert metadata.headers.getall("x-echoed") == ["one", "two"]
    assert metadata.trailers["x-trailer"] == "last"


def test_receives_the_headers_and_trailers_of_a_stream(client: ConfigServiceClientSync) -> None:
    with ResponseMetadata() as metadata:
        list(client.watch(WatchRequest(), headers={"x-count": "1"}))
    assert metadata.headers["x-kind"] == "stream"
    assert metadata.trailers["x-trailer"] == "last"


def test_sends_the_headers_of_the_pool_unless_the_call_has_them(served: Served) -> None:
    with urllib3.PoolManager(headers={"X-Tenant": "a", "X-Echo": "pool"}) as pool:
        client_of(served.url, pool).ping(PingRequest(), headers={"x-echo": "call"})
    assert served.service.requests[-1]["x-tenant"] == ["a"]
    assert served.service.requests[-1]["x-echo"] == ["call"]


def test_goes_through_the_methods_of_a_derived_pool(served: Served) -> None:
    class CountingPool(urllib3.PoolManager):
        opened = 0

        def urlopen(self, *args: Any, **kwargs: Any) -> urllib3.BaseHTTPResponse:
            type(self).opened += 1
            return super().urlopen(*args, **kwargs)

    with CountingPool() as pool:
        client_of(served.url, pool).ping(PingRequest())
    assert CountingPool.opened == 1


def test_never_closes_the_pool(served: Served, pool: urllib3.PoolManager) -> None:
    with (
        Urllib3Transport(pool) as transport,
        ConfigServiceClientSync(served.url, http_client=SyncClient(transport)) as client,
    ):
        client.ping(PingRequest())
    assert pool.request("GET", served.url).status == 404
    assert len(served.service.connections) == 1


def test_calls_beside_a_stream_need_no_larger_pool(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with urllib3.PoolManager(maxsize=1) as small:
        client = client_of(served.url, small)
        watching = Watching(client)
        assert watching.opened.wait(PATIENCE)
        client.ping(PingRequest())
        watching.scope.cancel()
        watching.join()
        assert free_places(small, served.url) == 1
        client.ping(PingRequest())
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_threaded_program_does_not_load_aiohttp() -> None:
    program = (
        "import sys; from rheostat.sdk.transport import Urllib3Transport; sys.exit('aiohttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


# Promptness


def test_delivers_each_small_message_before_the_next_is_sent(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    received = threading.Semaphore(0)
    message = envelope(bookmark(1).SerializeToString() + b"\xfa\x01\x06filler")
    assert len(message) == 20

    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto")
        for _ in range(3):
            connection.chunk(message)
            assert received.acquire(timeout=PATIENCE), "the message was held back"
        connection.chunk(END_OF_STREAM)
        connection.send(b"0\r\n\r\n")

    count = 0
    for _ in client_of(raw_server(handle).url, pool).watch(WatchRequest()):
        count += 1
        received.release()
    assert count == 3


def test_delivers_what_the_server_publishes(client: ConfigServiceClientSync, served: Served) -> None:
    stream = client.watch(WatchRequest())
    assert next(stream).hello.node == "here"
    for revision in range(1, 20):
        served.service.publish(revision)
        assert next(stream).bookmark.position.revision == revision
    stream.close()


# Ending a call from another thread


def test_cancels_a_blocked_watch_from_another_thread(
    client: ConfigServiceClientSync, served: Served, pool: urllib3.PoolManager
) -> None:
    watching = Watching(client)
    assert watching.opened.wait(PATIENCE)
    assert watching.cancelled_after(watching.scope.cancel) < 1
    assert watching.revisions == [0]
    assert free_places(pool, served.url) == 2
    wait_until(lambda: served.service.watchers == 0)


def test_cancels_a_watch_that_has_no_answer_yet(client: ConfigServiceClientSync, served: Served) -> None:
    watching = Watching(client, headers={"x-silent": "1"})
    wait_until(lambda: served.service.hanging == 1)
    assert watching.cancelled_after(watching.scope.cancel) < 1
    wait_until(lambda: served.service.hanging == 0)


def test_cancels_a_unary_call(client: ConfigServiceClientSync, served: Served) -> None:
    scope = CancelScope()
    with ThreadPoolExecutor(1) as threads:

        def cancel() -> None:
            wait_until(lambda: served.service.hanging == 1)
            scope.cancel()

        cancelling = threads.submit(cancel)
        with scope, pytest.raises(ConnectError) as caught:
            client.ping(PingRequest(), headers={"x-hang": "1"})
        cancelling.result(PATIENCE)
    assert caught.value.code == Code.CANCELED


def test_cancels_a_watch_that_waits_for_a_connection(client: ConfigServiceClientSync) -> None:
    held = [client.watch(WatchRequest()) for _ in range(2)]
    for stream in held:
        next(stream)
    watching = Watching(client)
    assert not watching.opened.wait(0.3)
    assert watching.cancelled_after(watching.scope.cancel) < 1
    for stream in held:
        stream.close()
    assert client.ping(PingRequest()).node == "n"


def test_cancels_a_watch_on_a_connection_that_the_server_will_close(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    closed = threading.Event()

    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto", "connection: close", chunked=False)
        connection.send(envelope(bookmark(1).SerializeToString()))
        if connection.await_close():
            closed.set()

    watching = Watching(client_of(raw_server(handle).url, pool))
    assert watching.opened.wait(PATIENCE)
    assert watching.cancelled_after(watching.scope.cancel) < 1
    assert closed.wait(PATIENCE)


def test_cancels_a_watch_whose_consumer_is_busy(client: ConfigServiceClientSync, served: Served) -> None:
    with CancelScope() as scope:
        stream = client.watch(WatchRequest())
        next(stream)
        scope.cancel()
        wait_until(lambda: served.service.watchers == 0)
        with pytest.raises(ConnectError) as caught:
            next(stream)
    assert caught.value.code == Code.CANCELED


def test_refuses_calls_in_a_cancelled_scope(client: ConfigServiceClientSync, served: Served) -> None:
    scope = CancelScope()
    scope.cancel()
    with scope, pytest.raises(ConnectError) as caught:
        client.ping(PingRequest())
    assert caught.value.code == Code.CANCELED
    assert scope.cancelled
    assert served.service.requests == []
    assert client.ping(PingRequest()).node == "n"


def test_an_outer_scope_cancels_the_calls_of_an_inner_one(client: ConfigServiceClientSync) -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            stream = client.watch(WatchRequest())
            next(stream)
        outer.cancel()
        assert not inner.cancelled
        with pytest.raises(ConnectError):
            next(stream)


def test_a_cancelled_scope_leaves_other_calls_alone(client: ConfigServiceClientSync, served: Served) -> None:
    bystander = Watching(client)
    assert bystander.opened.wait(PATIENCE)
    with CancelScope() as scope:
        client.ping(PingRequest())
        scope.cancel()
    served.service.publish(7)
    wait_until(lambda: bystander.revisions == [0, 7])
    bystander.scope.cancel()
    bystander.join()


def test_cancelling_a_finished_call_leaves_its_connection_to_the_next(
    client: ConfigServiceClientSync, served: Served
) -> None:
    with CancelScope() as scope:
        stream = client.watch(WatchRequest(), headers={"x-count": "1"})
        list(stream)
    scope.cancel()
    client.ping(PingRequest())
    assert len(served.service.connections) == 1


def test_cancel_all_ends_every_call_and_allows_new_ones(served: Served, pool: urllib3.PoolManager) -> None:
    transport = Urllib3Transport(pool)
    client = ConfigServiceClientSync(served.url, http_client=SyncClient(transport))
    watching = [Watching(client) for _ in range(2)]
    for watch in watching:
        assert watch.opened.wait(PATIENCE)
    assert transport.calls_in_flight == 2
    transport.cancel_all()
    for watch in watching:
        assert watch.cancelled_after(lambda: None) < 1
    assert transport.calls_in_flight == 0
    assert client.ping(PingRequest()).node == "n"


def test_a_closed_transport_ends_its_calls_and_refuses_new_ones(
    served: Served, pool: urllib3.PoolManager
) -> None:
    transport = Urllib3Transport(pool)
    client = ConfigServiceClientSync(served.url, http_client=SyncClient(transport))
    watching = Watching(client)
    assert watching.opened.wait(PATIENCE)
    assert watching.cancelled_after(transport.close) < 1
    with pytest.raises(ConnectError, match="transport is closed") as caught:
        client.ping(PingRequest())
    assert caught.value.code == Code.CANCELED


def test_closing_the_response_under_a_blocked_reader_wakes_it(
    pool: urllib3.PoolManager, raw_server: StartRawServer
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto")
        connection.await_close()

    request = SyncRequest("POST", raw_server(handle).url, HTTPHeaders(), b"x")
    response = Urllib3Transport(pool).execute_sync(request)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(lambda: list(response.content))
        assert not reading.done()
        response.close()
        assert isinstance(reading.exception(PATIENCE), ConnectError)


# Deadlines


def assert_times_out(call: Callable[[], object], seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectError) as caught:
        call()
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    assert seconds * 0.9 <= time.monotonic() - began < seconds + 1


def test_a_deadline_ends_a_unary_call(client: ConfigServiceClientSync, served: Served) -> None:
    assert_times_out(lambda: client.ping(PingRequest(), headers={"x-hang": "1"}, timeout_ms=300), 0.3)
    assert served.service.requests[-1]["connect-timeout-ms"] == ["300"]
    assert client.ping(PingRequest(), timeout_ms=5000).node == "n"


def test_a_deadline_ends_a_stream_between_messages(client: ConfigServiceClientSync, served: Served) -> None:
    stream = client.watch(WatchRequest(), timeout_ms=300)
    next(stream)
    assert_times_out(lambda: next(stream), 0.25)
    wait_until(lambda: served.service.watchers == 0)


def test_a_deadline_ends_a_stream_whose_consumer_is_busy(
    client: ConfigServiceClientSync, served: Served
) -> None:
    stream = client.watch(WatchRequest(), timeout_ms=200)
    next(stream)
    wait_until(lambda: served.service.watchers == 0)
    with pytest.raises(ConnectError) as caught:
        next(stream)
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_a_deadline_holds_while_waiting_for_a_connection_of_the_pool(client: ConfigServiceClientSync) -> None:
    held = [client.watch(WatchRequest()) for _ in range(2)]
    for stream in held:
        next(stream)
    assert_times_out(lambda: client.ping(PingRequest(), timeout_ms=300), 0.3)
    for stream in held:
        stream.close()


def test_a_deadline_holds_while_connecting(black_hole: str, pool: urllib3.PoolManager) -> None:
    assert_times_out(lambda: client_of(black_hole, pool).ping(PingRequest(), timeout_ms=300), 0.3)


def test_the_connect_timeout_of_the_transport_holds_without_a_deadline(
    black_hole: str, pool: urllib3.PoolManager
) -> None:
    transport = Urllib3Transport(pool, connect_timeout=0.3)
    client = ConfigServiceClientSync(black_hole, http_client=SyncClient(transport))
    assert_times_out(lambda: client.ping(PingRequest()), 0.3)


def test_the_connect_timeout_of_the_pool_goes_first(black_hole: str) -> None:
    with urllib3.PoolManager(timeout=urllib3.Timeout(connect=0.3)) as pool:
        assert_times_out(lambda: client_of(black_hole, pool).ping(PingRequest()), 0.3)


def test_the_read_timeout_of_the_pool_holds_for_unary_calls_but_not_for_silent_streams(
    served: Served,
) -> None:
    with urllib3.PoolManager(timeout=urllib3.Timeout(read=0.3)) as pool:
        client = client_of(served.url, pool)
        assert_times_out(lambda: client.ping(PingRequest(), headers={"x-hang": "1"}), 0.3)
        watching = Watching(client)
        assert watching.opened.wait(PATIENCE)
        watching._thread.join(0.6)
        served.service.publish(5)
        wait_until(lambda: watching.revisions == [0, 5])
        watching.scope.cancel()
        watching.join()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx-slow: ",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["headers", "body", "chunk-size"],
)
def test_a_deadline_ends_a_call_to_a_server_that_drips(
    raw_server: StartRawServer, pool: urllib3.PoolManager, head: bytes
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.send(head)
        connection.drip(b"0")

    client = client_of(raw_server(handle).url, pool)
    assert_times_out(lambda: client.ping(PingRequest(), timeout_ms=400), 0.4)


# The pool


def test_a_thousand_calls_share_one_connection(client: ConfigServiceClientSync, served: Served) -> None:
    for _ in range(1000):
        client.ping(PingRequest(), timeout_ms=10_000)
    assert len(served.service.connections) == 1


def test_a_finished_stream_leaves_its_connection_to_the_next_call(
    client: ConfigServiceClientSync, served: Served
) -> None:
    for _ in range(5):
        list(client.watch(WatchRequest(), headers={"x-count": "3"}))
        client.ping(PingRequest())
    assert len(served.service.connections) == 1


def test_abandoned_streams_do_not_poison_the_pool(
    client: ConfigServiceClientSync, served: Served, pool: urllib3.PoolManager
) -> None:
    for attempt in range(50):
        for _ in client.watch(WatchRequest(), headers={"x-count": "2000"} if attempt % 2 else {}):
            break
        assert client.ping(PingRequest(), headers={"x-node": str(attempt)}, timeout_ms=5000).node == str(
            attempt
        )
    assert free_places(pool, served.url) == 2
    wait_until(lambda: served.service.watchers == 0)


def test_a_connection_with_unread_bytes_is_closed(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    closed = threading.Event()

    def handle(connection: RawConnection) -> None:
        connection.read_request()
        if connection.number == 1:
            connection.begin("application/connect+proto")
            connection.chunk(envelope(bookmark(1).SerializeToString()))
            connection.chunk(b"left over")
            if connection.await_close():
                closed.set()
        else:
            connection.answer_ping("second")

    server = raw_server(handle)
    client = client_of(server.url, pool)
    stream = client.watch(WatchRequest())
    next(stream)
    stream.close()
    assert closed.wait(PATIENCE)
    assert open_connections(pool, server.url) == 0
    assert client.ping(PingRequest(), timeout_ms=5000).node == "second"
    assert server.accepted == 2


def test_a_dropped_response_frees_its_place(served: Served, pool: urllib3.PoolManager) -> None:
    transport = Urllib3Transport(pool)
    for _ in range(5):
        transport.execute_sync(SyncRequest("GET", served.url, HTTPHeaders()))
        gc.collect()
    assert transport.calls_in_flight == 0
    assert free_places(pool, served.url) == 2


def test_many_threads_share_one_transport(served: Served) -> None:
    with urllib3.PoolManager(maxsize=4, block=True) as pool:
        client = client_of(served.url, pool)

        def work(worker: int) -> list[bool]:
            answers = []
            for turn in range(30):
                name = f"{worker}-{turn}"
                if turn % 10 == 0:
                    stream = client.watch(WatchRequest())
                    next(stream)
                    stream.close()
                answer = client.ping(PingRequest(), headers={"x-node": name}, timeout_ms=20_000)
                answers.append(answer.node == name)
            return answers

        with ThreadPoolExecutor(12) as threads:
            for answers in threads.map(work, range(12)):
                assert all(answers)
        assert free_places(pool, served.url) == 4


def test_cancelling_at_random_moments_never_hits_another_call(served: Served) -> None:
    with urllib3.PoolManager(maxsize=2, block=True) as pool:
        client = client_of(served.url, pool)
        scopes: list[CancelScope] = []
        done = threading.Event()

        def cancel() -> None:
            while not done.is_set():
                if scopes:
                    scopes.pop().cancel()
                done.wait(0.0005)

        def victim() -> int:
            cancelled = 0
            for _ in range(150):
                scope = CancelScope()
                scopes.append(scope)
                try:
                    with scope:
                        client.ping(PingRequest())
                except ConnectError as error:
                    assert error.code == Code.CANCELED, error  # noqa: PT017
                    cancelled += 1
            return cancelled

        def bystander() -> None:
            for _ in range(150):
                client.ping(PingRequest())

        with ThreadPoolExecutor(4) as threads:
            cancelling = threads.submit(cancel)
            working = [threads.submit(victim), threads.submit(victim), threads.submit(bystander)]
            try:
                for work in working:
                    work.result(60)
            finally:
                done.set()
            cancelling.result(PATIENCE)


# Failures


def test_a_refused_connection_is_unavailable(raw_server: StartRawServer, pool: urllib3.PoolManager) -> None:
    server = raw_server(RawConnection.read_request)
    server.stop()
    with pytest.raises(ConnectError, match=f"no answer from {server.url}.*refused") as caught:
        client_of(server.url, pool).ping(PingRequest())
    assert caught.value.code == Code.UNAVAILABLE


def test_an_unknown_host_is_unavailable(pool: urllib3.PoolManager) -> None:
    with pytest.raises(ConnectError, match=r"no answer from http://nowhere\.invalid") as caught:
        client_of("http://nowhere.invalid:80", pool).ping(PingRequest())
    assert caught.value.code == Code.UNAVAILABLE


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_connection_that_is_reset_is_unavailable(
    raw_server: StartRawServer, pool: urllib3.PoolManager, moment: str
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        if moment == "during":
            connection.begin("application/proto", "content-length: 100", chunked=False)
        connection.reset()

    with pytest.raises(ConnectError) as caught:
        client_of(raw_server(handle).url, pool).ping(PingRequest())
    assert caught.value.code == Code.UNAVAILABLE


@pytest.mark.parametrize("chunked", [True, False])
def test_a_truncated_response_is_unavailable(
    raw_server: StartRawServer, pool: urllib3.PoolManager, chunked: bool
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        length = () if chunked else ("content-length: 100",)
        connection.begin("application/proto", *length, chunked=chunked)
        connection.send(b"64\r\nshort" if chunked else b"short")

    with pytest.raises(ConnectError, match="cut off") as caught:
        client_of(raw_server(handle).url, pool).ping(PingRequest())
    assert caught.value.code == Code.UNAVAILABLE


def test_a_truncated_stream_is_unavailable_after_its_messages(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto")
        connection.chunk(envelope(bookmark(4).SerializeToString()))

    stream = client_of(raw_server(handle).url, pool).watch(WatchRequest())
    assert next(stream).bookmark.position.revision == 4
    with pytest.raises(ConnectError, match="cut off") as caught:
        next(stream)
    assert caught.value.code == Code.UNAVAILABLE


def test_a_redirect_is_not_followed(raw_server: StartRawServer, pool: urllib3.PoolManager) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
        connection.await_close()

    server = raw_server(handle)
    with pytest.raises(ConnectError, match="Temporary Redirect"):
        client_of(server.url, pool).ping(PingRequest(), timeout_ms=5000)
    assert server.accepted == 1


def test_an_untrusted_certificate_is_unavailable(
    pool: urllib3.PoolManager, served_with_tls: tuple[Served, str]
) -> None:
    served, _ = served_with_tls
    with pytest.raises(ConnectError, match=r"tls with https://127.*(?i:certificate verify failed)") as caught:
        client_of(served.url, pool).ping(PingRequest())
    assert caught.value.code == Code.UNAVAILABLE


def test_cancels_a_blocked_watch_over_tls(served_with_tls: tuple[Served, str]) -> None:
    served, certificate = served_with_tls
    with urllib3.PoolManager(ca_certs=certificate) as pool:
        watching = Watching(client_of(served.url, pool))
        assert watching.opened.wait(PATIENCE)
        assert watching.cancelled_after(watching.scope.cancel) < 1
        assert client_of(served.url, pool).ping(PingRequest(), timeout_ms=5000).node == "n"


# Limits


def pinging(body: bytes, *headers: str) -> Callable[[RawConnection], None]:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/proto", f"content-length: {len(body)}", *headers, chunked=False)
        connection.send(body)

    return handle


def test_a_gzip_bomb_is_refused_within_little_memory(
    raw_server: StartRawServer, pool: urllib3.PoolManager, gzip_bomb: bytes
) -> None:
    server = raw_server(pinging(gzip_bomb, "content-encoding: gzip"))
    transport = Urllib3Transport(pool, max_response_bytes=1024 * 1024)
    client = ConfigServiceClientSync(server.url, http_client=SyncClient(transport))
    tracemalloc.start()
    try:
        with pytest.raises(ConnectError) as caught:
            client.ping(PingRequest())
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert caught.value.code == Code.RESOURCE_EXHAUSTED


def test_a_gzip_bomb_in_a_stream_is_refused_by_a_client_with_a_limit(
    raw_server: StartRawServer, pool: urllib3.PoolManager, gzip_bomb: bytes
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto", "connect-content-encoding: gzip")
        connection.chunk(envelope(gzip_bomb, flags=1))
        connection.await_close()

    client = client_of(raw_server(handle).url, pool, read_max_bytes=1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(ConnectError) as caught:
            next(client.watch(WatchRequest(), timeout_ms=10_000))
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert caught.value.code == Code.RESOURCE_EXHAUSTED


def test_a_response_above_the_limit_is_refused(raw_server: StartRawServer, pool: urllib3.PoolManager) -> None:
    server = raw_server(pinging(PingResponse(node="n" * 2000).SerializeToString()))
    transport = Urllib3Transport(pool, max_response_bytes=1000)
    client = ConfigServiceClientSync(server.url, http_client=SyncClient(transport))
    with pytest.raises(ConnectError, match="larger than 1000 bytes") as caught:
        client.ping(PingRequest())
    assert caught.value.code == Code.RESOURCE_EXHAUSTED


def test_a_stream_may_be_longer_than_the_limit(served: Served, pool: urllib3.PoolManager) -> None:
    transport = Urllib3Transport(pool, max_response_bytes=100)
    client = ConfigServiceClientSync(served.url, http_client=SyncClient(transport))
    assert len(list(client.watch(WatchRequest(), headers={"x-count": "500"}))) == 501


@pytest.mark.parametrize("coding", ["gzip", "squash"])
def test_a_body_that_cannot_be_decoded_is_an_internal_error(
    raw_server: StartRawServer, pool: urllib3.PoolManager, coding: str
) -> None:
    server = raw_server(pinging(b"nonsense", f"content-encoding: {coding}"))
    with pytest.raises(ConnectError, match=coding) as caught:
        client_of(server.url, pool).ping(PingRequest())
    assert caught.value.code == Code.INTERNAL


def test_a_stream_that_is_compressed_as_a_whole_is_refused(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto", "content-encoding: gzip")
        connection.chunk(gzipped(END_OF_STREAM))
        connection.send(b"0\r\n\r\n")

    with pytest.raises(ConnectError, match="not asked for") as caught:
        list(client_of(raw_server(handle).url, pool).watch(WatchRequest()))
    assert caught.value.code == Code.INTERNAL


def test_streams_a_request_body_of_unknown_length(
    raw_server: StartRawServer, pool: urllib3.PoolManager
) -> None:
    seen: list[bytes] = []

    def handle(connection: RawConnection) -> None:
        seen.append(connection.read_chunked_request())
        connection.answer_ping("done")

    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    response = SyncClient(Urllib3Transport(pool)).post(raw_server(handle).url, content=pieces())
    assert response.status == 200
    assert seen == [b"onetwo"]
