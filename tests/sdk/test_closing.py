"""Ends: of a client, whatever its stream does, of its event loop, and of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rheostat import AsyncClient, ClientClosedError, Status
from tests.e2e.process import ROOT, ServerProgram, wait_until
from tests.sdk.driving import Driven, Home
from tests.sdk.editor import Editor
from tests.sdk.fake import FakeServer, Store, black_hole, hello
from tests.sdk.proxy import Proxy

Make = Callable[..., Driven]

CLOSE_SECONDS = 1.0

SLACK = 0.5
"""For a machine that is busy with other tests; what is to be shown is that nothing waits for a time-out of 5 s."""


@pytest.fixture
def hole() -> Iterator[str]:
    with black_hole() as url:
        yield url


def _closes(client: Driven) -> None:
    assert client.close() < CLOSE_SECONDS + SLACK
    assert client.status is Status.CLOSED
    with pytest.raises(ClientClosedError):
        client.reload()


def test_closes_while_it_connects_to_nowhere(hole: str, make: Make):
    client = make(hole, start_timeout=0.1).start()
    _closes(client)


def test_closes_while_somebody_waits_for_it(hole: str, make: Make, home: Home):
    client = make(hole)
    raised: list[Exception] = []

    def wait() -> None:
        try:
            client.wait_ready(20.0)
        except Exception as error:  # noqa: BLE001 - whatever it is, is looked at below
            raised.append(error)

    client.start(wait=False)
    waiting = threading.Thread(target=wait)
    waiting.start()
    client.until(lambda c: c._core.driver is not None)
    _closes(client)
    waiting.join(10)
    assert [type(error) for error in raised] == [ClientClosedError]


def test_closes_while_the_stream_is_silent(make: Make):
    store = Store()
    store.set({"a": 1})
    with FakeServer(store.answer) as server:
        client = make(server.url).start()
        _closes(client)
        assert client["a"] == 1


def test_closes_in_the_middle_of_a_snapshot(make: Make):
    store = Store()
    store.set({"a": 1})
    with FakeServer(lambda request: [hello(), *store.snapshot()[:2], b"\0\0\0\1"]) as server:
        client = make(server.url, start_timeout=0.1).start()
        client.until(lambda c: bool(client.hellos))
        _closes(client)


def test_closes_while_the_connection_is_half_open(editor: Editor, make: Make, server: ServerProgram):
    editor.put("a", 1)
    with Proxy(server.port) as proxy:
        client = make(proxy.url, environment=editor.environment).start()
        proxy.fail("half-open")
        editor.set(a=2)
        _closes(client)


def test_closes_between_two_attempts(make: Make):
    client = make("http://127.0.0.1:1", start_timeout=0.1, backoff=(20.0, 30.0)).start()
    client.until(lambda c: bool(client.errors))
    _closes(client)


def test_closes_while_a_callback_does_not_return(editor: Editor, make: Make, home: Home):
    editor.put("a", 1)
    client = make(editor.url, environment=editor.environment).start()
    called, released = threading.Event(), threading.Event()

    def block(change: object) -> object:
        called.set()
        if home.kind == "sync":
            return released.wait(20)
        return asyncio.sleep(20)

    client.subscribe(block)
    editor.set(a=2)
    assert called.wait(20)
    _closes(client)
    released.set()


def test_closes_while_a_call_waits_for_its_answer(editor: Editor, make: Make, server: ServerProgram):
    with Proxy(server.port) as proxy:
        client = make(proxy.url, environment=editor.environment).start()
        proxy.fail("half-open")
        found: list[object] = []

        def call() -> None:
            try:
                found.append(client.ping())
            except Exception as error:  # noqa: BLE001 - whatever it is, is looked at below
                found.append(error)

        calling = threading.Thread(target=call)
        calling.start()
        wait_until(lambda: proxy.connections >= 2)
        _closes(client)
        calling.join(10)
        assert [isinstance(each, Exception) for each in found] == [True]


def test_a_callback_may_close_the_client(editor: Editor, make: Make):
    editor.put("a", 1)
    client = make(editor.url, environment=editor.environment).start()
    client.subscribe(lambda change: client.client.close())
    editor.set(a=2)
    client.until(lambda c: c.status is Status.CLOSED)
    _closes(client)


def test_a_closed_client_leaves_no_thread_and_no_task(editor: Editor, make: Make, home: Home):
    editor.put("a", 1)

    def running() -> set[object]:
        if home.kind == "sync":
            names = {"rheostat-notify", "rheostat-watch"}
            return {each for each in threading.enumerate() if each.name in names}
        return {each for each in asyncio.all_tasks(home.loop) if each.get_name() == "rheostat"}

    before = running()
    client = make(editor.url, environment=editor.environment).start()
    assert len(running() - before) == 2
    client.close()
    wait_until(lambda: not running() - before)


# The interpreter.


def _run(path: Path, code: str, *arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    path.write_text(code)
    started = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(path), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)},
    )
    return time.monotonic() - started, found


_CLOSED = {
    "sync": """
import sys
from rheostat import Client
with Client(sys.argv[1], environment=sys.argv[2]) as client:
    assert client["a"] == 1
    client.reload()
    client.ping()
print("done")
""",
    "async": """
import asyncio, sys
from rheostat import AsyncClient
async def main():
    # What is imported at its first use is no news here.
    asyncio.get_running_loop().slow_callback_duration = 10
    async with AsyncClient(sys.argv[1], environment=sys.argv[2]) as client:
        assert client["a"] == 1
        await client.reload()
        await client.ping()
asyncio.run(main())
print("done")
""",
}

_LEFT = {
    "sync": """
import sys
from rheostat import Client
client = Client(sys.argv[1], environment=sys.argv[2]).start()
assert client["a"] == 1
changes = client.changes()
print("done")
""",
    "async": """
import asyncio, sys
from rheostat import AsyncClient
client = AsyncClient(sys.argv[1], environment=sys.argv[2])
async def main():
    asyncio.get_running_loop().slow_callback_duration = 10
    await client.start()
    assert client["a"] == 1
asyncio.run(main())
assert client["a"] == 1
print("done")
""",
}

_BLOCKED = """
import sys, threading
from rheostat import Client
client = Client(sys.argv[1], environment=sys.argv[2]).start()
called = threading.Event()
def block(change):
    called.set()
    threading.Event().wait()
client.subscribe(block)
client.set_override("a", 5)
called.wait()
print("done")
"""

_CONNECTING = """
import sys
from rheostat import Client
client = Client(sys.argv[1], start_timeout=0.2).start()
print("done")
"""


@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize("program", ["closed", "left"])
def test_nothing_keeps_the_interpreter_or_warns_at_its_end(
    driver: str, program: str, editor: Editor, tmp_path: Path
):
    editor.put("a", 1)
    code = (_CLOSED if program == "closed" else _LEFT)[driver]
    _, found = _run(tmp_path / "program.py", code, editor.url, editor.environment)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")


def test_a_blocked_callback_does_not_keep_the_interpreter(
    servers: Callable[[str], ServerProgram], tmp_path: Path
):
    editor = Editor(servers("serve").url)
    editor.put("a", 1)
    took, found = _run(tmp_path / "program.py", _BLOCKED, editor.url, editor.environment)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")
    assert took < 20


def test_a_connection_to_nowhere_does_not_keep_the_interpreter(hole: str, tmp_path: Path):
    took, found = _run(tmp_path / "program.py", _CONNECTING, hole)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")
    assert took < 20


# Event loops.


@pytest.mark.parametrize("where", ["start", "wait_ready", "reload", "changes", "call"])
def test_a_cancelled_task_raises_cancelled_error(where: str, hole: str):
    async def run() -> None:
        async with asyncio.timeout(20):
            client = AsyncClient(hole, environment="production", start_timeout=15.0)
            await client.start(wait=False)
            work = {
                "start": client.start,
                "wait_ready": client.wait_ready,
                "reload": client.reload,
                "changes": lambda: anext(client.changes()),
                "call": client.ping,
            }[where]

            async def one() -> object:
                return await work()

            task = asyncio.create_task(one())
            for _ in range(10):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await work()
            await client.close()

    asyncio.run(run())


def test_cancelling_a_reader_of_changes_loses_none(editor: Editor):
    editor.put("a", 0)

    async def run() -> object:
        async with asyncio.timeout(20), AsyncClient(editor.url, environment=editor.environment) as client:
            changes = client.changes()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(changes)
            await asyncio.to_thread(editor.set, a=1)
            return (await anext(changes)).after

    assert asyncio.run(run()) == 1


def test_a_client_whose_loop_was_closed_starts_anew_on_the_next_one(editor: Editor):
    editor.put("a", 0)
    client: AsyncClient = AsyncClient(editor.url, environment=editor.environment)

    async def first() -> None:
        await client.start()

    asyncio.run(first())
    assert client["a"] == 0
    # Nobody listens any more.
    assert client.stale
    assert client.status is Status.STALE
    editor.set(a=1)

    async def second() -> None:
        async with asyncio.timeout(20):
            # A read alone starts it.
            assert client["a"] in {0, 1}
            await asyncio.to_thread(wait_until, lambda: client["a"] == 1)
            assert client.status is Status.LIVE
            await asyncio.to_thread(editor.set, a=2)
            await asyncio.to_thread(wait_until, lambda: client["a"] == 2)
            await client.close()

    asyncio.run(second())
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_under_its_tasks_is_survived(editor: Editor):
    # Its tasks are destroyed while they are pending, about which asyncio and aiohttp complain rightly.
    editor.put("a", 0)
    client: AsyncClient = AsyncClient(editor.url, environment=editor.environment)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.start())
    loop.close()
    assert client["a"] == 0
    editor.set(a=1)

    async def second() -> None:
        async with asyncio.timeout(20):
            await client.start()
            await asyncio.to_thread(wait_until, lambda: client["a"] == 1)
            await client.close()

    asyncio.run(second())
    gc.collect()
