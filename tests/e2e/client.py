"""A plain generated client as a program: ``client.py sync|async URL TOKEN KEY``.

Prints ``event`` and the message in base64 for each event, ``error`` and the code, or ``end``. The line ``stop`` on
standard input ends the stream while the program goes on; the end of standard input ends the program.
"""

from __future__ import annotations

import asyncio
import base64
import sys

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigServiceClient, ConfigServiceClientSync
from rheo.v1.watch_pb2 import WatchRequest, WatchResponse


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def show(event: WatchResponse) -> None:
    say("event", base64.b64encode(event.SerializeToString()).decode())


def watch(url: str, request: WatchRequest, headers: dict[str, str]) -> None:
    for event in ConfigServiceClientSync(url).watch(request, headers=headers):
        show(event)


async def watch_async(url: str, request: WatchRequest, headers: dict[str, str]) -> None:
    async def follow() -> None:
        async for event in ConfigServiceClient(url).watch(request, headers=headers):
            show(event)

    stream = asyncio.create_task(follow())
    told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait((stream, told), return_when=asyncio.FIRST_COMPLETED)
    stopped = told.done()
    if stopped:
        stream.cancel()
    try:
        await stream
    except asyncio.CancelledError:
        pass
    except ConnectError as error:
        # The runtime may report the cancellation so.
        if not (stopped and error.code is Code.CANCELED):
            say("error", error.code.value)
            return
    say("end")
    if stopped:
        # The process stays, so that it was not its end that closed the connection.
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    kind, url, token, key = sys.argv[1:]
    request = WatchRequest(environment="production", resume=base64.b64decode(token))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        if kind == "async":
            asyncio.run(watch_async(url, request, headers))
        else:
            watch(url, request, headers)
            say("end")
    except ConnectError as error:
        say("error", error.code.value)


if __name__ == "__main__":
    main()
