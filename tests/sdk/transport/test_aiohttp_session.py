"""The generated asynchronous client over the caller's own `aiohttp.ClientSession`."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from connectrpc.client import ResponseMetadata
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import Headers
from pyqwest import Client, Transport

from rheo.v1.config_service_connect import ConfigServiceClient
from rheo.v1.config_service_pb2 import PingRequest, PingResponse
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.sdk.transport import AiohttpTransport, CancellationInterceptor, async_http_client

from .peers import END_OF_STREAM, PATIENCE, RawConnection, bookmark, envelope, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from .peers import RawServer, Served

    Kind = Callable[[ConfigServiceClient], Coroutine[Any, Any, None]]
    StartRawServer = Callable[[Callable[[RawConnection], None]], RawServer]


def client_of(url: str, session: aiohttp.ClientSession, **options: Any) -> ConfigServiceClient:
    return ConfigServiceClient(
        url,
        http_client=async_http_client(session),
        interceptors=[CancellationInterceptor()],
        **options,
    )


def running(
    test: Callable[[aiohttp.ClientSession], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None = None,
    over: Callable[[], bool] = lambda: True,
    **options: Any,
) -> None:
    """Run `test` with the caller's own session: two connections, and whoever wants a third has to wait.

    The loop goes on until `over`: aiohttp leaves closing a TLS connection to the loop.
    """

    async def run() -> None:
        async with asyncio.timeout(40):
            connector = aiohttp.TCPConnector(limit=2, ssl=True if tls is None else tls)
            async with aiohttp.ClientSession(connector=connector, **options) as session:
                await test(session)
            await off_loop(over)

    asyncio.run(run())
    # Connections that nobody closed are reported when they are collected: here, not in some later test.
    gc.collect()


async def off_loop(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


# Calls


def test_answers_unary_calls_by_post_and_get(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        assert isinstance(AiohttpTransport(session), Transport)
        client = client_of(served.url, session)
        assert (await client.ping(PingRequest(), headers={"x-node": "here"})).node == "here"
        assert (await client.ping(PingRequest(), headers={"x-node": "got"}, use_get=True)).node == "got"

    running(test)


def test_decompresses_a_unary_response(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with ResponseMetadata() as metadata:
            answer = await client_of(served.url, session).ping(PingRequest(), headers={"x-size": "100000"})
        assert answer.node == "n" * 100_000
        assert metadata.headers["content-encoding"] == "gzip"

    running(test)


def test_raises_the_error_of_the_server_even_if_the_session_raises_for_status(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectError, match="not for you") as caught:
            await client_of(served.url, session).ping(PingRequest(), headers={"x-fail": "1"})
        assert caught.value.code == Code.PERMISSION_DENIED

    running(test, raise_for_status=True)


def test_delivers_a_whole_stream_with_its_headers_and_trailers(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with ResponseMetadata() as metadata:
            stream = client_of(served.url, session).watch(WatchRequest(), headers={"x-count": "500"})
            revisions = [event.bookmark.position.revision async for event in stream]
        assert revisions == list(range(501))
        assert metadata.headers["x-kind"] == "stream"
        assert metadata.trailers["x-trailer"] == "last"

    running(test)


def test_sends_and_receives_headers_with_several_values(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        headers = Headers()
        headers.add("x-echo", "one")
        headers.add("x-echo", "two")
        with ResponseMetadata() as metadata:
            await client_of(served.url, session).ping(PingRequest(), headers=headers)
        assert metadata.headers.getall("x-echoed") == ["one", "two"]
        assert metadata.trailers["x-trailer"] == "last"

    running(test, headers={"x-tenant": "a", "x-echo": "session"})
    assert served.service.requests[-1]["x-echo"] == ["one", "two"]
    assert served.service.requests[-1]["x-tenant"] == ["a"]


def test_never_closes_the_session(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async with client_of(served.url, session) as client:
            await client.ping(PingRequest())
        async with session.get(served.url) as response:
            assert response.status == 404

    running(test)
    assert len(served.service.connections) == 1


# Promptness


def test_delivers_each_small_message_before_the_next_is_sent(raw_server: StartRawServer) -> None:
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

    async def test(session: aiohttp.ClientSession) -> None:
        count = 0
        async for _ in client_of(server.url, session).watch(WatchRequest()):
            count += 1
            received.release()
        assert count == 3

    server = raw_server(handle)
    running(test)


def test_a_silent_stream_outlives_the_time_outs_of_the_session(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        stream = client_of(served.url, session).watch(WatchRequest())
        assert (await anext(stream)).hello.node == "here"
        following = asyncio.ensure_future(anext(stream))
        assert not (await asyncio.wait({following}, timeout=0.6))[0]
        served.service.publish(3)
        assert (await following).bookmark.position.revision == 3
        await stream.aclose()

    running(test, timeout=aiohttp.ClientTimeout(total=0.3, sock_read=0.2))


# Cancellation and deadlines


async def hanging(client: ConfigServiceClient) -> None:
    await client.ping(PingRequest(), headers={"x-hang": "1"})


async def watching(client: ConfigServiceClient) -> None:
    async for _ in client.watch(WatchRequest()):
        pass


async def waiting_for_hello(client: ConfigServiceClient) -> None:
    async for _ in client.watch(WatchRequest(), headers={"x-silent": "1"}):
        pass


KINDS = pytest.mark.parametrize("call", [hanging, watching, waiting_for_hello])


@KINDS
def test_asyncio_timeout_ends_a_call(served: Served, call: Kind) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async def call_in_time() -> None:
            async with asyncio.timeout(0.3):
                await call(client_of(served.url, session))

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await call_in_time()
        assert time.monotonic() - began < 1.3
        await off_loop(lambda: served.service.watchers + served.service.hanging == 0)

    running(test)


@KINDS
def test_wait_for_ends_a_call(served: Served, call: Kind) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(client_of(served.url, session)), 0.3)

    running(test)


@KINDS
def test_a_cancelled_task_is_cancelled_and_keeps_its_message(served: Served, call: Kind) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        task = asyncio.create_task(call(client_of(served.url, session)))
        await off_loop(lambda: served.service.watchers + served.service.hanging == 1)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert task.cancelled()

    running(test)


@KINDS
def test_a_task_group_raises_the_error_of_one_task_alone(served: Served, call: Kind) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async def fail() -> None:
            await off_loop(lambda: served.service.watchers + served.service.hanging == 1)
            msg = "on purpose"
            raise KeyError(msg)

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(call(client_of(served.url, session)))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [type(error) for error in caught.value.exceptions] == [KeyError]

    running(test)


def test_without_the_interceptor_connectrpc_hides_the_cancellation(served: Served) -> None:
    # The reason for the interceptor. When this fails, connectrpc has been mended and the interceptor can go.
    async def test(session: aiohttp.ClientSession) -> None:
        client = ConfigServiceClient(served.url, http_client=async_http_client(session))
        task = asyncio.create_task(hanging(client))
        await off_loop(lambda: served.service.hanging == 1)
        task.cancel()
        with pytest.raises(ConnectError):
            await task

    running(test)


def test_a_cancellation_that_the_server_answers_is_an_error(raw_server: StartRawServer) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        body = b'{"code":"canceled","message":"by the server"}'
        connection.send(b"HTTP/1.1 499 Gone\r\ncontent-type: application/json\r\n")
        connection.send(f"content-length: {len(body)}\r\n\r\n".encode(), body)

    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectError, match="by the server") as caught:
            await client_of(server.url, session).ping(PingRequest())
        assert caught.value.code == Code.CANCELED

    server = raw_server(handle)
    running(test)


def test_a_deadline_ends_unary_calls_and_streams(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(served.url, session)

        async def watch() -> None:
            async for _ in client.watch(WatchRequest(), timeout_ms=300):
                pass

        for call in (client.ping(PingRequest(), headers={"x-hang": "1"}, timeout_ms=300), watch()):
            began = time.monotonic()
            with pytest.raises(ConnectError) as caught:
                await call
            assert caught.value.code == Code.DEADLINE_EXCEEDED
            assert 0.27 <= time.monotonic() - began < 1.3
            assert served.service.requests[-1]["connect-timeout-ms"] == ["300"]
        assert (await client.ping(PingRequest(), timeout_ms=5000)).node == "n"

    running(test)


def test_a_deadline_holds_while_connecting_and_while_waiting_for_the_connector(
    served: Served, black_hole: str
) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectError) as caught:
            await client_of(black_hole, session).ping(PingRequest(), timeout_ms=300)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        client = client_of(served.url, session)
        held = [client.watch(WatchRequest()) for _ in range(2)]
        for stream in held:
            await anext(stream)
        with pytest.raises(ConnectError) as caught:
            await client.ping(PingRequest(), timeout_ms=300)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        for stream in held:
            await stream.aclose()

    running(test)


def test_a_time_out_of_the_session_ends_a_unary_call(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectError) as caught:
            await client_of(served.url, session).ping(PingRequest(), headers={"x-hang": "1"})
        assert caught.value.code == Code.DEADLINE_EXCEEDED

    running(test, timeout=aiohttp.ClientTimeout(total=0.3))


# The pool


def test_a_thousand_calls_share_one_connection(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(served.url, session)
        for turn in range(1000):
            await client.ping(PingRequest(), timeout_ms=10_000)
            if turn % 100 == 0:
                async for _ in client.watch(WatchRequest(), headers={"x-count": "3"}):
                    pass

    running(test)
    assert len(served.service.connections) == 1


@pytest.mark.parametrize("close", [True, False], ids=["closed", "dropped"])
def test_abandoned_streams_do_not_poison_the_pool(served: Served, close: bool) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(served.url, session)
        for attempt in range(50):
            stream = client.watch(WatchRequest(), headers={"x-count": "2000"} if attempt % 2 else {})
            async for _ in stream:
                break
            if close:
                await stream.aclose()
            del stream
            name = str(attempt)
            answer = await client.ping(PingRequest(), headers={"x-node": name}, timeout_ms=5000)
            assert answer.node == name
        await off_loop(lambda: served.service.watchers == 0)

    running(test)


def test_a_connection_with_unread_bytes_is_closed(raw_server: StartRawServer) -> None:
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

    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(server.url, session)
        stream = client.watch(WatchRequest())
        await anext(stream)
        await stream.aclose()
        await off_loop(closed.is_set)
        assert (await client.ping(PingRequest(), timeout_ms=5000)).node == "second"

    server = raw_server(handle)
    running(test)
    assert server.accepted == 2


def test_many_tasks_share_one_transport(served: Served) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(served.url, session)

        async def work(worker: int) -> None:
            for turn in range(20):
                name = f"{worker}-{turn}"
                if turn % 10 == 0:
                    stream = client.watch(WatchRequest())
                    await anext(stream)
                    await stream.aclose()
                assert (await client.ping(PingRequest(), headers={"x-node": name})).node == name

        async with asyncio.TaskGroup() as group:
            for worker in range(10):
                group.create_task(work(worker))

    running(test)


# Failures and limits


async def fails(call: Awaitable[object], code: Code, match: str) -> None:
    with pytest.raises(ConnectError, match=match) as caught:
        await call
    assert caught.value.code == code


def test_a_refused_connection_is_unavailable(raw_server: StartRawServer) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        client = client_of(server.url, session)
        await fails(client.ping(PingRequest()), Code.UNAVAILABLE, f"no answer from {server.url}")

    server = raw_server(RawConnection.read_request)
    server.stop()
    running(test)


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_connection_that_is_reset_is_unavailable(raw_server: StartRawServer, moment: str) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        if moment == "during":
            connection.begin("application/proto", "content-length: 100", chunked=False)
        connection.reset()

    async def test(session: aiohttp.ClientSession) -> None:
        await fails(client_of(server.url, session).ping(PingRequest()), Code.UNAVAILABLE, server.url)

    server = raw_server(handle)
    running(test)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_truncated_response_is_unavailable(raw_server: StartRawServer, chunked: bool) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        length = () if chunked else ("content-length: 100",)
        connection.begin("application/proto", *length, chunked=chunked)
        connection.send(b"64\r\nshort" if chunked else b"short")

    async def test(session: aiohttp.ClientSession) -> None:
        await fails(client_of(server.url, session).ping(PingRequest()), Code.UNAVAILABLE, "cut off")

    server = raw_server(handle)
    running(test)


def test_a_truncated_stream_is_unavailable_after_its_messages(raw_server: StartRawServer) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/connect+proto")
        connection.chunk(envelope(bookmark(4).SerializeToString()))

    async def test(session: aiohttp.ClientSession) -> None:
        stream = client_of(server.url, session).watch(WatchRequest())
        assert (await anext(stream)).bookmark.position.revision == 4
        await fails(anext(stream), Code.UNAVAILABLE, "cut off")

    server = raw_server(handle)
    running(test)


def test_a_redirect_is_not_followed(raw_server: StartRawServer) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
        connection.await_close()

    async def test(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ConnectError, match="Temporary Redirect"):
            await client_of(server.url, session).ping(PingRequest(), timeout_ms=5000)

    server = raw_server(handle)
    running(test)
    assert server.accepted == 1


def test_certificates_are_checked_as_the_session_says(served_with_tls: tuple[Served, str]) -> None:
    served, certificate = served_with_tls

    async def untrusting(session: aiohttp.ClientSession) -> None:
        call = client_of(served.url, session).ping(PingRequest())
        await fails(call, Code.UNAVAILABLE, r"tls certificate of https://127.*is not trusted")

    async def trusting(session: aiohttp.ClientSession) -> None:
        client = client_of(served.url, session)
        assert (await client.ping(PingRequest())).node == "n"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watching(client), 0.3)

    def closed() -> bool:
        return served.open_connections == 0

    running(untrusting, over=closed)
    running(trusting, over=closed, tls=ssl.create_default_context(cafile=certificate))


def test_a_gzip_bomb_is_refused_within_little_memory(raw_server: StartRawServer, gzip_bomb: bytes) -> None:
    def handle(connection: RawConnection) -> None:
        connection.read_request()
        length = f"content-length: {len(gzip_bomb)}"
        connection.begin("application/proto", "content-encoding: gzip", length, chunked=False)
        connection.send(gzip_bomb)

    async def test(session: aiohttp.ClientSession) -> None:
        transport = AiohttpTransport(session, max_response_bytes=1024 * 1024)
        client = ConfigServiceClient(server.url, http_client=Client(transport))
        tracemalloc.start()
        try:
            await fails(client.ping(PingRequest()), Code.RESOURCE_EXHAUSTED, "larger than")
            assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
        finally:
            tracemalloc.stop()

    server = raw_server(handle)
    running(test)


def test_a_response_above_the_limit_is_refused_but_not_a_longer_stream(
    served: Served, raw_server: StartRawServer
) -> None:
    payload = PingResponse(node="n" * 2000).SerializeToString()

    def handle(connection: RawConnection) -> None:
        connection.read_request()
        connection.begin("application/proto", f"content-length: {len(payload)}", chunked=False)
        connection.send(payload)

    async def test(session: aiohttp.ClientSession) -> None:
        http_client = Client(AiohttpTransport(session, max_response_bytes=1000))
        call = ConfigServiceClient(server.url, http_client=http_client).ping(PingRequest())
        await fails(call, Code.RESOURCE_EXHAUSTED, "larger than 1000 bytes")
        stream = ConfigServiceClient(served.url, http_client=http_client).watch(
            WatchRequest(), headers={"x-count": "500"}
        )
        assert len([event async for event in stream]) == 501

    server = raw_server(handle)
    running(test)


def test_streams_a_request_body_of_unknown_length(raw_server: StartRawServer) -> None:
    seen: list[bytes] = []

    def handle(connection: RawConnection) -> None:
        seen.append(connection.read_chunked_request())
        connection.answer_ping("done")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def test(session: aiohttp.ClientSession) -> None:
        response = await async_http_client(session).post(server.url, content=pieces())
        assert response.status == 200

    server = raw_server(handle)
    running(test)
    assert seen == [b"onetwo"]
