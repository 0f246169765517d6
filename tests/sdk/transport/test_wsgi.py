"""Both transports against the generated service on a threaded WSGI server, which frames its own way."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from connectrpc.client import ResponseMetadata
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigServiceClient, ConfigServiceClientSync
from rheo.v1.config_service_pb2 import PingRequest
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.sdk.transport import (
    CancellationInterceptor,
    CancelScope,
    async_http_client,
    sync_http_client,
)

from .peers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import urllib3


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The socket is open already, so that calls wait in its queue until the server is up.
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "wsgi_peer:application"),
                *("--chdir", str(Path(__file__).parent), "--bind", f"fd://{listener.fileno()}"),
                *("--worker-class", "gthread", "--threads", "8"),
                *("--graceful-timeout", "1", "--no-control-socket"),
            ],
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_the_synchronous_client_calls_and_watches(url: str, pool: urllib3.PoolManager) -> None:
    client = ConfigServiceClientSync(url, http_client=sync_http_client(pool))
    for turn in range(3):
        with ResponseMetadata() as metadata:
            assert client.ping(PingRequest(), headers={"x-echo": str(turn)}, timeout_ms=20_000).node == "wsgi"
        assert metadata.headers["x-echoed"] == str(turn)
        events = list(client.watch(WatchRequest(), headers={"x-count": "100"}, timeout_ms=20_000))
        assert [event.bookmark.position.revision for event in events] == list(range(101))


def test_a_blocked_synchronous_watch_is_cancelled_or_times_out(url: str, pool: urllib3.PoolManager) -> None:
    client = ConfigServiceClientSync(url, http_client=sync_http_client(pool))
    with CancelScope() as scope:
        stream = client.watch(WatchRequest())
        assert next(stream).hello.node == "wsgi"
        canceller = threading.Timer(0.2, scope.cancel)
        canceller.start()
        began = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            next(stream)
        assert time.monotonic() - began < 1.2
        assert caught.value.code == Code.CANCELED
        canceller.join()
    stream = client.watch(WatchRequest(), timeout_ms=500)
    assert next(stream).hello.node == "wsgi"
    with pytest.raises(ConnectError) as caught:
        next(stream)
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    assert client.ping(PingRequest(), timeout_ms=20_000).node == "wsgi"


def test_the_asynchronous_client_calls_watches_and_is_cancelled(url: str) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            client = ConfigServiceClient(
                url, http_client=async_http_client(session), interceptors=[CancellationInterceptor()]
            )
            assert (await client.ping(PingRequest(), timeout_ms=20_000)).node == "wsgi"
            events = [event async for event in client.watch(WatchRequest(), headers={"x-count": "100"})]
            assert [event.bookmark.position.revision for event in events] == list(range(101))
            stream = client.watch(WatchRequest())
            assert (await anext(stream)).hello.node == "wsgi"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.3)
            assert (await client.ping(PingRequest(), timeout_ms=20_000)).node == "wsgi"

    asyncio.run(run())
