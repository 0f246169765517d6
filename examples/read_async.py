"""Read settings with the SDK in asyncio, and follow changes: python read_async.py [URL]

Serves "requests" in tasks of their own: each has its ambient context and reads one revision, whatever arrives
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Literal

from rheostat import AsyncClient, Setting

timeout = Setting("checkout.timeout", float, default=2.5, version="1.2", alias="payment.timeout")
provider = Setting(
    "payments.provider", Literal["adyen", "sandbox", "stripe"], default="sandbox", version="2.0"
)


async def pay(client: AsyncClient, session: str, plan: str) -> str:
    with client.pinned(region="eu", country="DE", user={"plan": plan}, session={"id": session}):
        first = timeout.get()
        await asyncio.sleep(0)  # other requests, and changes, come in between
        assert timeout.get() == first
        return f"{session} ({plan}): {provider.get()} within {first} s"


async def serve(client: AsyncClient) -> None:
    requests = [pay(client, f"s-{i}", "plus" if i % 2 else "free") for i in range(4)]
    print(*await asyncio.gather(*requests), sep="\n", flush=True)


async def main(url: str) -> None:
    async with AsyncClient(
        url, project="shop", environment="production", settings=[timeout, provider]
    ) as client:
        changes = client.changes()  # from here on, so that none is missed
        await serve(client)
        print("Ctrl-C ends", flush=True)
        async for change in changes:
            print(f"revision {change.revision}: {change.name} has changed", flush=True)
            await serve(client)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420"))
