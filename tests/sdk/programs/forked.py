"""Programs that fork while they have a client. Each says on standard output, line by line, what its processes see."""

from __future__ import annotations

import sys

if "gevent" in sys.argv[1]:
    from gevent import monkey

    if "late" not in sys.argv[1]:
        monkey.patch_all()

import asyncio
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3

from rheostat import AsyncClient, Client
from tests.e2e.writing import SETTING

LAST = -1
"""The value at which every process ends."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Seen:
    """What a client of this program has been told."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.errors: list[str] = []
        self.streams = 0

    def hooks(self) -> dict[str, Any]:
        return {
            "on_status": lambda status: self.statuses.append(status.value),
            "on_update_error": lambda error: self.errors.append(f"{type(error).__name__}: {error}"),
        }

    def count(self, client: Any) -> None:
        connected = client._core.connected

        def counted(hello: Any) -> None:
            self.streams += 1
            say("stream", os.getpid(), hello.mode)
            connected(hello)

        client._core.connected = counted

    def report(self, who: str) -> None:
        say(who, "streams", self.streams, "statuses", self.statuses, "errors", self.errors)


def follow(who: str, client: Client[Any]) -> None:
    """Say each value that comes, until the last."""
    ended = threading.Event()

    def on_change(change: Any) -> None:
        say(who, "value", change.after, "read", client.get(SETTING))
        if change.after == LAST:
            ended.set()

    client.subscribe(SETTING, on_change)
    say(who, "follows", os.getpid(), client.client_id, client.get(SETTING))
    ended.wait(60)


def forked(who: str, work: Callable[[], object], leave: Callable[[int], object] = sys.exit) -> int:
    """Fork a child that does *work* and ends as programs do, with everything that the interpreter then does."""
    child = os.fork()
    if child == 0:
        work()
        say(who, "ends", time.monotonic())
        leave(0)
    return child


def reap(who: str, child: int) -> None:
    _, status = os.waitpid(child, 0)
    say(who, "exit", os.waitstatus_to_exitcode(status), time.monotonic())


def plain(url: str, *, start: bool = True, **options: Any) -> None:
    """A parent and a child."""
    seen = Seen()
    client = Client(url, **seen.hooks(), **options)
    seen.count(client)
    if start:
        client.start()
    child = forked("child", lambda: follow("child", client))
    follow("parent", client)
    reap("child", child)
    # The end of the child has not touched the parent's stream either: a reconnect would be seen by now.
    client.ping()
    seen.report("parent")
    client.close()


def unstarted(url: str) -> None:
    plain(url, start=False)


def given_id(url: str) -> None:
    plain(url, client_id="checkout-7")


def given_pool(url: str) -> None:
    pool = urllib3.PoolManager(num_pools=3, headers={"x-team": "checkout"}, maxsize=5)

    def work() -> None:
        follow("child", client)
        ours = client._core.driver.connection._pool
        alike = ours.headers == pool.headers and ours.connection_pool_kw == pool.connection_pool_kw
        say("child", "pool", ours is not pool, ours.pools is not pool.pools, ours.pools._maxsize, alike)

    seen = Seen()
    client: Any = Client(url, http_client=pool, **seen.hooks())
    seen.count(client)
    client.start()
    child = forked("child", work)
    follow("parent", client)
    reap("child", child)
    client.ping()
    seen.report("parent")
    client.close()


def pool_factory(url: str) -> None:
    made: list[int] = []

    def factory() -> urllib3.PoolManager:
        made.append(os.getpid())
        say("factory", os.getpid())
        return urllib3.PoolManager(maxsize=4)

    plain(url, http_client_factory=factory)


def own_pool_of_child(url: str) -> None:
    """A child of a program that has imported the SDK makes its own client, with its own pool."""

    def work() -> None:
        pool = urllib3.PoolManager()
        with Client(url, http_client=pool) as client:
            say("child", "pool", client._core.driver.connection._pool is pool)  # type: ignore[attr-defined]
            follow("child", client)

    reap("child", forked("child", work))


def closed(url: str) -> None:
    client = Client(url).start()
    before = client.get(SETTING)
    client.close()

    def work() -> None:
        say("child", "reads", client.get(SETTING) == before, client.status.value, threading.active_count())

    reap("child", forked("child", work))


def twice(url: str) -> None:
    """A child that forks again and ends, as daemons do."""
    client = Client(url).start()

    def grandchild() -> None:
        follow("grandchild", client)

    def work() -> None:
        child = forked("grandchild", grandchild)
        follow("child", client)
        reap("grandchild", child)

    child = forked("child", work)
    follow("parent", client)
    reap("child", child)
    client.close()


def prefork(url: str) -> None:
    """A parent of three workers that replaces the dead, as Celery does; each ends after two values."""
    seen = Seen()
    client = Client(url, **seen.hooks())
    seen.count(client)
    client.start()

    def work() -> None:
        known = client.get(SETTING)
        say("worker", os.getpid(), client.client_id, known)
        for _ in range(2):
            while client.get(SETTING) == known:
                time.sleep(0.002)
            known = client.get(SETTING)
        say("worker", os.getpid(), "done", known)

    children = {forked("worker", work) for _ in range(3)}
    started = 3
    while children:
        child, status = os.wait()
        children.discard(child)
        say("exit", child, os.waitstatus_to_exitcode(status))
        if started < 12:
            children.add(forked("worker", work))
            started += 1
    client.ping()
    seen.report("parent")
    client.close()


def storm(url: str) -> None:
    """Fork 50 times while changes arrive and other threads read, declare, override, freeze and subscribe."""
    from rheostat import Setting

    seen = Seen()
    client = Client(url, **seen.hooks())
    seen.count(client)
    client.start()
    ending = threading.Event()

    def busy(number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            client.get(SETTING)
            client.set_override(f"other.{number}", count)
            client.declare([Setting(f"declared.{number}.{count % 50}", int, default=0)])
            with client.frozen():
                client.get(SETTING)
            client.subscribe(SETTING, lambda change: None)()
            client.clear_override(f"other.{number}")
            time.sleep(0.001)

    threads = [threading.Thread(target=busy, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()

    def work() -> None:
        position = client.position
        client.set_override("mine", 1)
        assert client["mine"] == 1
        changed = threading.Event()
        client.subscribe(SETTING, lambda change: changed.set())
        held = client._core.held.items["setting", SETTING].item
        assert held is not None
        assert changed.wait(20), "no change has come"
        now = client.position
        assert position is not None and now is not None and now.revision > position.revision
        client.close()

    for number in range(50):
        child = forked(f"child-{number}", work)
        _, status = os.waitpid(child, 0)
        say("exit", os.waitstatus_to_exitcode(status))
    ending.set()
    for thread in threads:
        thread.join(10)
    client.ping()
    seen.report("parent")
    client.close()


def queued(url: str) -> None:
    """Fork while a callback of the parent is running, and others wait behind it."""
    client = Client(url).start()
    entered, leave = threading.Event(), threading.Event()
    here = os.getpid()

    def slow(change: Any) -> None:
        if os.getpid() == here and not entered.is_set():
            entered.set()
            leave.wait(20)

    def told(change: Any) -> None:
        say("parent" if os.getpid() == here else "child", "told", change.after)
        if change.after == LAST:
            ended.set()

    ended = threading.Event()
    client.subscribe(SETTING, slow)
    client.subscribe(SETTING, told)
    say("ready")
    entered.wait(20)
    say("entered")
    while client.get(SETTING) != 2:
        time.sleep(0.002)

    def work() -> None:
        ended.wait(20)

    child = forked("child", work)
    leave.set()
    ended.wait(20)
    reap("child", child)
    client.close()


def frozen(url: str) -> None:
    """Fork while another thread has frozen the view and a third iterates over changes."""
    client = Client(url).start()
    entered, leave = threading.Event(), threading.Event()

    def freeze() -> None:
        with client.frozen():
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=freeze, daemon=True)
    thread.start()
    entered.wait(20)
    changes = client.changes(SETTING)

    def work() -> None:
        leave.set()
        for change in changes:
            say("child", "value", change.after, "read", client.get(SETTING))
            if change.after == LAST:
                break
        client.close()
        say("child", "rest", list(changes))

    child = forked("child", work)
    say("parent", "frozen", client.get(SETTING))
    reap("child", child)
    leave.set()
    thread.join(20)
    say("parent", "thawed", client.get(SETTING))
    client.close()


def _spawned(url: str, setting: str) -> None:
    with Client(url) as client:
        follow("child", client)


def spawn(url: str) -> None:
    """`multiprocessing` with a fresh interpreter for each child."""
    with Client(url) as client:
        child = multiprocessing.get_context("spawn").Process(target=_spawned, args=(url, SETTING))
        child.start()
        follow("parent", client)
        child.join(20)
        say("child", "exit", child.exitcode, time.monotonic())


def multiprocess(url: str) -> None:
    """`multiprocessing` with its fork."""
    seen = Seen()
    client = Client(url, **seen.hooks())
    seen.count(client)
    client.start()
    child = multiprocessing.get_context("fork").Process(target=follow, args=("child", client))
    child.start()
    follow("parent", client)
    child.join(20)
    say("child", "exit", child.exitcode, time.monotonic())
    client.ping()
    seen.report("parent")
    client.close()


async def _follow(who: str, client: AsyncClient[Any]) -> None:
    changes = client.changes(SETTING)
    say(who, "follows", os.getpid(), client.client_id, client.get(SETTING))
    async for change in changes:
        say(who, "value", change.after, "read", client.get(SETTING))
        if change.after == LAST:
            return


async def _child(client: AsyncClient[Any]) -> None:
    await client.start()
    await _follow("child", client)
    await client.close()


def asynchronous(url: str) -> None:
    """A coroutine forks a child that has an event loop of its own, and ends as those of `multiprocessing` do."""
    seen = Seen()

    async def parent() -> None:
        client: AsyncClient[Any] = AsyncClient(url, **seen.hooks())
        seen.count(client)
        await client.start()

        def work() -> None:
            # The child stands inside the parent's loop, which is not to be touched.
            asyncio._set_running_loop(None)
            asyncio.run(_child(client))

        # Not `sys.exit`, which would let asyncio end the loop that both processes share.
        child = forked("child", work, os._exit)
        await _follow("parent", client)
        await asyncio.to_thread(reap, "child", child)
        await client.ping()
        seen.report("parent")
        await client.close()

    asyncio.run(parent())


def asynchronous_thread(url: str, **options: Any) -> None:
    """The event loop runs in a thread, and the main thread forks."""
    seen = Seen()
    client: AsyncClient[Any] = AsyncClient(url, **seen.hooks(), **options)
    seen.count(client)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    run(client.start())
    child = forked("child", lambda: asyncio.run(_child(client)))
    run(_follow("parent", client))
    reap("child", child)
    run(client.ping())
    seen.report("parent")
    run(client.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def asynchronous_pool(url: str) -> None:
    """A session that cannot be made anew: the child goes on with its last state."""
    import aiohttp

    async def parent() -> None:
        async with aiohttp.ClientSession() as session:
            client: AsyncClient[Any] = AsyncClient(url, http_client=session)
            await client.start()

            async def own() -> None:
                for _ in range(3):
                    say("child", "reads", client.get(SETTING))
                try:
                    await client.start()
                except Exception as error:  # noqa: BLE001 - its kind is what is asked for
                    say("child", "start", type(error).__name__)
                await client.close()

            def work() -> None:
                asyncio._set_running_loop(None)
                asyncio.run(own())

            await asyncio.to_thread(reap, "child", forked("child", work, os._exit))
            await client.ping()
            await client.close()

    asyncio.run(parent())


def tls(url: str) -> None:
    """The child of a TLS client says no goodbye in its parent's name."""
    plain(url, http_client=urllib3.PoolManager(maxsize=4, ca_certs=os.environ["RHEOSTAT_TEST_CA"]))


def asynchronous_tls(url: str) -> None:
    import ssl

    import aiohttp

    def session() -> aiohttp.ClientSession:
        trust = ssl.create_default_context(cafile=os.environ["RHEOSTAT_TEST_CA"])
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))

    asynchronous_thread(url, http_client_factory=session)


def gevent_early(url: str) -> None:
    """Everything is patched before the client is made."""
    plain(url)


def gevent_late(url: str) -> None:
    """Everything is patched after the client was made, and before it has started."""
    seen = Seen()
    client = Client(url, **seen.hooks())
    seen.count(client)
    monkey.patch_all()
    client.start()
    child = forked("child", lambda: follow("child", client))
    follow("parent", client)
    reap("child", child)
    client.ping()
    seen.report("parent")
    client.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="log %(process)d %(message)s")
    # Under development mode it warns of each step that a busy machine is slow with.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    globals()[sys.argv[1]](sys.argv[2])
