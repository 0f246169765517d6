"""Programs that read only what a relay writes to Redis: real processes of all three, which are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from rheostat import AsyncClient, Client, RedisSource
from rheostat.errors import FailedPreconditionError, InvalidArgumentError, MissingDependencyError
from rheostat.model.change import PutSetting, SetValue
from rheostat.model.key import KeyKind
from rheostat.sdk.redis_source import _renewed
from rheostat.sdk.status import Status
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.e2e.process import Program, wait_until
from tests.redis import Server, running_server

WRITER = Writer(OPEN)
BACKOFF = (0.05, 0.5)


def cli(*arguments: str, key: str = "") -> Program:
    command = [sys.executable, "-m", "rheostat.cli", *arguments, "--port", "0", "--log-level", "error"]
    return Program(command, {"RHEOSTAT_KEY": key})


def url_of(program: Program) -> str:
    return program.line_like(r"ready at (http://\S+)")[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:{tmp_path_factory.mktemp('store') / 'store.db'}"


@pytest.fixture(scope="module")
def service(store: str) -> Iterator[Service]:
    with Service(open_store(store)) as made:
        made.commit(WRITER, "default", "production", [PutSetting("n", {"type": "int", "default": 0})])
        yield made


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    _, text, _ = service.create_key(
        WRITER, kind=KeyKind.RELAY, project="default", environments=("production",)
    )
    return text


@pytest.fixture(scope="module")
def upstream(store: str, key: str) -> Iterator[str]:
    # Made after the key, as it would be open without any.
    with cli("serve", "--store", store) as program:
        yield url_of(program)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as made:
        yield made


def set_n(service: Service, value: int) -> None:
    service.commit(WRITER, "default", "production", [SetValue("n", value)])


def client_of(server: Server, **options: Any) -> Client[Any]:
    return Client(source=RedisSource(server.url), backoff=BACKOFF, **options)


def test_a_change_reaches_every_kind_of_client(
    service: Service, upstream: str, key: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHEOSTAT_URL", "http://127.0.0.1:1")
    set_n(service, 1)
    own = server.client()

    async def follow(client: AsyncClient[Any], value: int) -> None:
        async for change in client.changes("n"):
            if change.after == value:
                return

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            theirs = redis.asyncio.Redis.from_url(server.url)
            stack.push_async_callback(theirs.aclose)
            asynchronous = [
                await stack.enter_async_context(AsyncClient(source=RedisSource(given), backoff=BACKOFF))
                for given in (server.url, theirs)
            ]
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for client in asynchronous:
                    await client.wait_ready()
                    group.create_task(follow(client, 2))
                await asyncio.to_thread(set_n, service, 2)
            assert (await asynchronous[0].reload()).revision >= 2
            with pytest.raises(FailedPreconditionError):
                await asynchronous[0].ping()
            await theirs.ping()

    with (
        cli("relay", "--upstream", upstream, "--redis", server.url, key=key) as relay,
        client_of(server) as client,
        Client(source=RedisSource(own), environment="production", mode="poll", poll_interval=0.05) as polling,
    ):
        relay_url = url_of(relay)
        client.wait_ready(60)
        ready = json.loads(urllib.request.urlopen(f"{relay_url}/readyz").read())
        assert ready["redis_seconds"] >= 0
        seen = []
        client.subscribe("n", lambda change: seen.append(change.after))
        polling.wait_ready(60)
        asyncio.run(run())
        wait_until(lambda: client["n"] == polling["n"] == 2 and seen[-1:] == [2])
        assert client.status is Status.LIVE
        assert client.reload() == client.position
        with pytest.raises(FailedPreconditionError, match="has no server"):
            client.ping()
        set_n(service, 3)
        wait_until(lambda: client["n"] == polling["n"] == 3)
        assert own.ping(), "what is given is not closed"
        with Client(upstream, key=key, source=RedisSource(server.url), backoff=BACKOFF) as both:
            both.wait_ready(60)
            assert both.ping().node != client._core.hello.node, "calls go to the server"  # type: ignore[union-attr]
            assert both.position == client.position
    own.close()


def test_all_that_can_be_lost_comes_back(service: Service, upstream: str, key: str, server: Server) -> None:
    server.flush()
    command = [sys.executable, "-m", "tests.e2e.replicating", upstream, server.url, "0.9"]
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Program(command, {"RHEOSTAT_KEY": key}))
        client = stack.enter_context(client_of(server))
        client.wait_ready(60)
        set_n(service, 10)
        wait_until(lambda: client["n"] == 10)

        relay.kill()
        wait_until(lambda: client.stale)
        assert client.status is Status.STALE and client["n"] == 10
        with client_of(server) as late:
            wait_until(lambda: late.get("n") == 10)
            assert late.stale and late.status is Status.STALE and late.ready
        set_n(service, 11)
        stack.enter_context(Program(command, {"RHEOSTAT_KEY": key}))
        wait_until(lambda: client["n"] == 11 and client.status is Status.LIVE)

        server.kill()
        wait_until(lambda: client.stale)
        set_n(service, 12)
        assert client["n"] == 11
        server.start()
        wait_until(lambda: client["n"] == 12 and client.status is Status.LIVE)


class OddPool(redis.ConnectionPool):
    """A pool that cannot be made as others are."""

    def __init__(self, address: str) -> None:
        super().__init__(connection_class=redis.UnixDomainSocketConnection, path=address)


def test_a_child_process_follows_by_itself(service: Service, upstream: str, key: str, server: Server) -> None:
    command = [sys.executable, "-m", "tests.e2e.replicating", upstream, server.url, "3"]
    pools = [
        redis.ConnectionPool.from_url(server.url),
        redis.BlockingConnectionPool.from_url(server.url, max_connections=3),
        OddPool(str(server.folder / "socket")),
    ]
    with Program(command, {"RHEOSTAT_KEY": key}), contextlib.ExitStack() as stack:
        for pool in pools:
            stack.callback(pool.disconnect)
        set_n(service, 19)
        *clients, odd = [
            stack.enter_context(Client(source=RedisSource(own), backoff=BACKOFF))
            for own in (stack.enter_context(redis.Redis(connection_pool=pool)) for pool in pools)
        ]
        for client in (*clients, odd):
            wait_until(lambda client=client: client.get("n") == 19)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            # In the child nothing of pytest may run.
            try:
                wait_until(lambda: all(client.get("n") == 20 for client in clients))
                os.write(writing, f"20, {odd.get('n')}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        set_n(service, 20)
        with os.fdopen(reading) as answer:
            assert answer.read() == "20, 19", "the last one goes on with its last state"
        os.waitpid(pid, 0)
        wait_until(lambda: all(client["n"] == 20 for client in (*clients, odd)))


def test_a_client_is_made_anew_with_its_options(server: Server) -> None:
    for library in (redis, redis.asyncio):
        options = {"max_connections": 3, "password": "secret", "socket_timeout": 7.0}
        made = [
            library.ConnectionPool(**options),
            library.BlockingConnectionPool(**options, timeout=2),
            library.sentinel.SentinelConnectionPool(
                "primary", library.sentinel.Sentinel([("localhost", 1)]), is_master=False, **options
            ),
        ]
        for pool in made:
            fresh = _renewed(library.Redis(connection_pool=pool)).connection_pool
            assert type(fresh) is type(pool) and fresh is not pool
            assert fresh.max_connections == 3 and fresh.connection_kwargs["password"] == "secret"
            assert fresh.connection_kwargs["socket_timeout"] == 7.0
            for name in ("timeout", "service_name", "sentinel_manager", "is_master"):
                assert getattr(fresh, name, None) == getattr(pool, name, None)
        assert made[2].connection_kwargs["connection_pool"] is not fresh.connection_kwargs["connection_pool"]
    with pytest.raises(
        FailedPreconditionError, match=r"last state \(TypeError\): give RedisSource a URL"
    ) as caught:
        _renewed(redis.Redis(connection_pool=OddPool("secret")))
    assert caught.value.__context__ is None


def test_a_client_that_names_no_environment_needs_there_to_be_one(server: Server) -> None:
    server.flush()
    client = client_of(server)
    with contextlib.closing(client), server.client() as own:
        client.start(wait=False)
        wait_until(lambda: client._core._failed)
        assert client.status is Status.CONNECTING
        own.zadd("rheostat:1:environments", {"default/production": 2e9, "default/staging": 2e9})
        with pytest.raises(InvalidArgumentError, match="default/production, default/staging"):
            client.wait_ready(60)
    server.flush()


def test_what_is_no_client_of_the_right_kind_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match="decode_responses"):
        RedisSource(redis.Redis(decode_responses=True))
    with pytest.raises(InvalidArgumentError, match="address of Redis"):
        RedisSource("http://localhost")
    with (
        pytest.raises(InvalidArgumentError, match="asyncio"),
        Client(source=RedisSource(redis.asyncio.Redis())),
    ):
        pass
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDependencyError, match=r"rheostat\[redis\]"):
        RedisSource(server.url)
