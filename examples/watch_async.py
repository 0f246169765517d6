"""Follow an environment for good: python watch_async.py [URL]

Keeps the state, reconnects when the server has gone, and resumes where it was: what was changed meanwhile arrives
as one delta, and nothing arrives twice.
"""

from __future__ import annotations

import asyncio
import random
import sys

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigServiceClient
from rheo.v1.watch_pb2 import Item, SnapshotEnd, WatchMode, WatchRequest, WatchResponse


class State:
    """The items of one environment at one position."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.coming: dict[tuple[str, str], Item] = {}
        self.token = b""

    def apply(self, event: WatchResponse) -> None:
        match event.WhichOneof("event"):
            case "hello":
                print("connected:", WatchMode.Name(event.hello.mode), flush=True)
            case "snapshot_begin":
                self.coming = {}
            case "snapshot_chunk":
                self.coming.update(((item.kind, item.key), item) for item in event.snapshot_chunk.items)
            case "snapshot_end":
                # Only now: until the end of a snapshot, the old state counts.
                self.items = self.coming
                self.moved(event.snapshot_end)
                print(
                    f"{len(self.items)} items at revision {event.snapshot_end.position.revision}", flush=True
                )
            case "delta":
                for item in event.delta.items:
                    if item.deleted:
                        self.items.pop((item.kind, item.key), None)
                    else:
                        self.items[item.kind, item.key] = item
                    print(item.revision, item.key, "is gone" if item.deleted else "has changed", flush=True)
                self.token = event.delta.position.token
            case "bookmark":
                self.token = event.bookmark.position.token

    def moved(self, end: SnapshotEnd) -> None:
        self.token = end.position.token


async def follow(url: str, state: State) -> None:
    delay = 1.0
    while True:
        try:
            async with ConfigServiceClient(url) as client:
                request = WatchRequest(project="shop", environment="production", resume=state.token)
                async for event in client.watch(request):
                    state.apply(event)
                    delay = 1.0
        except ConnectError as error:
            if error.code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT):
                raise
            print("disconnected:", error.code.name, flush=True)
        # Full jitter, so that a fleet does not come back all at once.
        await asyncio.sleep(random.uniform(0, delay))
        delay = min(delay * 2, 30.0)


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420", State()))
