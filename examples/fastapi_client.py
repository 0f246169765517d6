"""A FastAPI application that reads its settings from a server: uvicorn fastapi_client:app

Each request has a context of its own, which every read in it sees, and reads one revision from its beginning to its
end. The server is at RHEOSTAT_URL, http://127.0.0.1:7420 unless that is set.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from rheostat import AsyncClient, Setting
from rheostat.integrations.fastapi import RheostatMiddleware

timeout = Setting("checkout.timeout", float, default=2.5, version="1.2", alias="payment.timeout")
client: AsyncClient = AsyncClient(
    os.environ.get("RHEOSTAT_URL", "http://127.0.0.1:7420"),
    project="shop",
    environment="production",
    settings=[timeout],
)


def context_of(connection: HTTPConnection) -> dict[str, object]:
    headers = connection.headers
    return {"region": headers.get("x-region"), "user": {"plan": headers.get("x-plan", "free")}}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(RheostatMiddleware, client=client, context=context_of)


@app.get("/")
async def index() -> dict[str, object]:
    found = timeout.evaluate()
    return {"timeout": found.value, "reason": found.reason.name, "revision": found.revision}
