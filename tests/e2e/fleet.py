"""Many clients in one process: ``python -m tests.e2e.fleet KIND URL PREFIX COUNT``, until standard input ends.

They are called PREFIX-0 and so on. Prints ``ready`` once all of them have a state.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from rheostat import AsyncClient, Client


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def on_a_loop(url: str, names: list[str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [AsyncClient(url, environment="production", name=name) for name in names]
        for client in clients:
            await stack.enter_async_context(client)
            await client.wait_ready(30)
        say_ready()
        await asyncio.to_thread(sys.stdin.read)


def on_threads(url: str, names: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(Client(url, environment="production", name=name)).wait_ready(30)
        say_ready()
        sys.stdin.read()


if __name__ == "__main__":
    _, kind, url, prefix, count = sys.argv
    names = [f"{prefix}-{number}" for number in range(int(count))]
    if kind == "async":
        asyncio.run(on_a_loop(url, names))
    else:
        on_threads(url, names)
