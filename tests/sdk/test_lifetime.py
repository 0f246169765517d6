"""A client that cannot start, that is closed while it starts, or that is left without being closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest
import urllib3

from rheostat import AsyncClient, Client, ClientClosedError, SettingNotFoundError, Status
from rheostat.testing import AsyncStubClient, StubClient
from tests.e2e.process import wait_until

NOBODY = "http://127.0.0.1:1"


def _broken() -> Any:
    raise ZeroDivisionError("no pool today")


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name in {"rheostat-watch", "rheostat-notify"}]


@pytest.mark.parametrize("strict", [False, True])
def test_a_read_does_not_raise_what_starting_raises(strict: bool, caplog: pytest.LogCaptureFixture):
    made: list[int] = []

    def factory() -> Any:
        made.append(1)
        _broken()

    client = Client(NOBODY, http_client_factory=factory, strict=strict)
    assert [client.get("x", "default") for _ in range(3)] == ["default"] * 3
    assert client.with_context(a=1).evaluate("x", 2).value == 2
    assert made == [1]
    logged = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(logged) == 1
    assert "no pool today" in logged[0].getMessage()
    with pytest.raises(ZeroDivisionError):
        client.start()
    client.close()


def test_a_read_does_not_raise_because_of_the_cache_s_path(caplog: pytest.LogCaptureFixture):
    client = Client(NOBODY, cache_path="a\0b")
    assert client.get("x", "default") == "default"
    assert client.status is Status.CONNECTING
    wait_until(lambda: "cannot be read" in caplog.text)
    client.close()


def test_a_read_on_an_event_loop_does_not_raise_what_starting_raises(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        client = AsyncClient(NOBODY, http_client_factory=_broken)
        assert [client.get("x", "default") for _ in range(3)] == ["default"] * 3
        await asyncio.sleep(0)
        await client.close()

    asyncio.run(main())
    assert caplog.text.count("cannot start") == 1


def test_a_client_that_is_closed_while_a_read_starts_it_leaves_no_thread():
    before = set(_threads())
    making, go_on = threading.Event(), threading.Event()

    def slow() -> Any:
        making.set()
        go_on.wait(10.0)
        return urllib3.PoolManager()

    client = Client(NOBODY, http_client_factory=slow)
    reading = threading.Thread(target=client.get, args=("x",))
    reading.start()
    assert making.wait(10.0)
    closing = threading.Thread(target=client.close)
    closing.start()
    # Time for a `close` that does not wait for the start.
    closing.join(0.2)
    go_on.set()
    reading.join(10.0)
    closing.join(10.0)
    wait_until(lambda: set(_threads()) <= before)
    assert client.status is Status.CLOSED
    with pytest.raises(ClientClosedError):
        client.start()


def test_a_context_manager_that_cannot_start_closes_the_client():
    before = set(_threads())
    client = Client(offline=True, required=["nope"])
    with pytest.raises(SettingNotFoundError), client:
        pass
    assert client.status is Status.CLOSED
    wait_until(lambda: set(_threads()) <= before)

    async def main() -> None:
        awaited = AsyncClient(offline=True, required=["nope"])
        with pytest.raises(SettingNotFoundError):
            async with awaited:
                pass
        assert awaited.status is Status.CLOSED
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def _subscriptions(client: Any) -> int:
    return len(client._core.dispatcher._subscriptions)


def test_a_loop_over_changes_that_is_left_ends_its_subscription():
    stub = StubClient({"x": 1})

    def wait_for_one() -> object:
        changes = stub.changes("x")
        stub["x"] += 1
        return next(change.after for change in changes)

    assert [wait_for_one() for _ in range(3)] == [2, 3, 4]
    gc.collect()
    assert _subscriptions(stub) == 0


def test_a_task_that_iterates_over_changes_ends_its_subscription_when_it_is_cancelled():
    async def main() -> None:
        stub = AsyncStubClient({"x": 1})

        async def follow() -> None:
            async for _ in stub.changes():
                pass

        task = asyncio.create_task(follow())
        await asyncio.sleep(0)
        assert _subscriptions(stub) == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        assert _subscriptions(stub) == 0

    asyncio.run(main())


def test_changes_are_closed_at_the_end_of_their_block():
    stub = StubClient({"x": 1})
    with stub.changes() as changes:
        stub["x"] = 2
        assert next(changes).after == 2
        assert _subscriptions(stub) == 1
    assert _subscriptions(stub) == 0
    assert list(changes) == []

    async def main() -> None:
        awaited = AsyncStubClient({"x": 1})
        async with awaited.changes("x") as changes:
            awaited["x"] = 2
            assert (await anext(changes)).after == 2
            assert _subscriptions(awaited) == 1
        assert _subscriptions(awaited) == 0
        assert [each async for each in changes] == []

    asyncio.run(main())


def test_the_threads_of_a_client_that_nobody_refers_to_end():
    before = set(_threads())
    client = Client(offline=True, bootstrap={"x": 1}).start()
    scoped = client.with_context(region="eu")
    del client
    gc.collect()
    assert set(_threads()) > before, "somebody reads through it"
    assert scoped.get("x") == 1
    del scoped
    gc.collect()
    wait_until(lambda: set(_threads()) <= before)


def test_a_client_that_only_calls_back_goes_on_without_being_referred_to():
    before = set(_threads())
    told: list[object] = []
    client = Client(offline=True, on_status=told.append).start()
    core = client._core
    del client
    gc.collect()
    assert not core.closed
    driver: Any = core.driver
    core.close()
    driver.close()
    wait_until(lambda: set(_threads()) <= before)
