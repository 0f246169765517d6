"""A FastAPI application with Rheostat mounted under /config: uvicorn fastapi_app:app

Open for this machine, since it is an example. In production leave out `open=True` and give each caller a key.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rheostat.evaluation import Context
from rheostat.server import asgi_app, open_service

service = open_service(os.environ.get("SHOP_STORE", "sqlite:shop.db"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with service:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/config", asgi_app(service, open=True))


@app.get("/")
async def index(region: str = "eu") -> dict[str, object]:
    timeout = service.evaluate("shop", "production", "checkout.timeout", Context({"region": region}))
    return {"timeout": timeout.value, "reason": timeout.reason.name}
