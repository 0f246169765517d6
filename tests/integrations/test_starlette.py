from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import reload
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from rheostat import AsyncClient, Reader
from rheostat.errors import FailedPreconditionError, InvalidArgumentError, MissingDependencyError
from rheostat.integrations.fastapi import RheostatMiddleware, get_client
from rheostat.sdk.ambient import current
from rheostat.testing import AsyncStubClient, LocalServer

Found = Annotated[Reader, Depends(get_client)]


def scope(kind: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def get(app: Any, path: str, **headers: str) -> str:
    """Return the body of the response."""
    parts: list[bytes] = []
    sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    await asyncio.wait_for(app(scope("http", path, headers), receive, send), 20)
    return b"".join(parts).decode()


@pytest.fixture
def stub() -> AsyncStubClient:
    stub = AsyncStubClient({"x": 1})
    stub.set_rules("plan", [('user.plan == "pro"', "paying")], default="free")
    return stub


@pytest.fixture
def app(stub: AsyncStubClient) -> FastAPI:
    app = FastAPI()
    numbers = itertools.count(2)
    app.add_middleware(
        RheostatMiddleware,
        client=stub,
        context=lambda connection: {"user": {"plan": connection.headers.get("plan")}},
    )

    def change() -> None:
        # What is read here is pinned.
        stub["x"] = next(numbers)

    @app.get("/twice")
    async def twice(client: Found) -> list[int]:
        before = client["x"]
        change()
        return [before, client["x"], stub["x"], await asyncio.to_thread(lambda: stub["x"])]

    @app.get("/thread")
    def thread(client: Found) -> list[Any]:
        change()
        return [client["x"], client["plan"]]

    @app.get("/plan")
    async def plan() -> str:
        await asyncio.sleep(0)
        return stub["plan"]

    @app.get("/fail")
    async def fail() -> str:
        raise ValueError(stub["plan"])

    @app.get("/stream/{kind}")
    def stream(kind: str) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{stub['x']} {stub['plan']} "
                change()

        def plain() -> Iterator[str]:
            for _ in range(3):
                yield f"{stub['x']} {stub['plan']} "
                change()

        return StreamingResponse(parts() if kind == "async" else plain())

    @app.get("/background")
    def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: stub["plan"])
        return "later"

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, client: Found) -> None:
        await websocket.accept()
        while True:
            await websocket.receive_text()
            await websocket.send_text(f"{client['x']} {client['plan']}")

    return app


def test_all_of_a_request_reads_one_revision_while_a_change_arrives(
    app: FastAPI, stub: AsyncStubClient
) -> None:
    async def main() -> None:
        assert await get(app, "/twice") == "[1,1,1,1]"
        assert await get(app, "/twice") == "[2,2,2,2]"
        assert await get(app, "/thread", plan="pro") == '[3,"paying"]'
        assert stub["x"] == 4

    asyncio.run(main())


def test_a_change_of_a_real_server_is_read_by_the_next_request() -> None:
    async def main() -> None:
        with LocalServer() as server:
            server.set("x", 1)
            async with AsyncClient(server.url) as client:
                arrived = asyncio.Event()
                client.subscribe("x", lambda change: arrived.set())

                async def index(request: object) -> PlainTextResponse:
                    before = client["x"]
                    await asyncio.to_thread(server.set, "x", before + 1)
                    async with asyncio.timeout(20):
                        await arrived.wait()
                    return PlainTextResponse(f"{before} {client['x']}")

                app = Starlette(
                    routes=[Route("/", index)], middleware=[Middleware(RheostatMiddleware, client=client)]
                )
                assert await get(app, "/") == "1 1"
                assert client["x"] == 2

    asyncio.run(main())


def test_requests_at_the_same_time_have_their_own_contexts(app: FastAPI, stub: AsyncStubClient) -> None:
    async def main() -> None:
        plans = ["pro", "none"] * 10
        answers = await asyncio.gather(*(get(app, "/plan", plan=plan) for plan in plans))
        assert answers == ['"paying"', '"free"'] * 10
        assert current.get() is None
        assert stub["plan"] == "free"

    asyncio.run(main())


def test_a_request_that_fails_leaves_no_context(app: FastAPI) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="paying"):
            await get(app, "/fail", plan="pro")
        assert current.get() is None

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_streaming_response_stays_in_its_request(app: FastAPI, stub: AsyncStubClient, kind: str) -> None:
    assert asyncio.run(get(app, f"/stream/{kind}", plan="pro")) == "1 paying " * 3
    assert stub["x"] == 4


def test_background_tasks_are_within_their_request(app: FastAPI, stub: AsyncStubClient) -> None:
    asyncio.run(get(app, "/background", plan="pro"))
    assert [read.value for read in stub.evaluations] == ["paying"]


def test_a_websocket_has_its_context_and_follows_the_revisions(app: FastAPI, stub: AsyncStubClient) -> None:
    async def main() -> None:
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        served = asyncio.create_task(
            app(
                {**scope("websocket", "/socket", {"plan": "pro"}), "subprotocols": []},
                incoming.get,
                outgoing.put,
            )
        )
        async with asyncio.timeout(20):
            await incoming.put({"type": "websocket.connect"})
            assert (await outgoing.get())["type"] == "websocket.accept"
            for expected in ("1 paying", "2 paying"):
                await incoming.put({"type": "websocket.receive", "text": "?"})
                assert (await outgoing.get())["text"] == expected
                stub["x"] += 1
            await incoming.put({"type": "websocket.disconnect", "code": 1000})
            await asyncio.wait({served})
        served.exception()

    asyncio.run(main())


@pytest.mark.parametrize("answer", ["raises", "coroutine", "text"])
def test_a_context_that_cannot_be_made_is_logged_and_the_request_goes_on(
    stub: AsyncStubClient, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    def context_of(connection: object) -> Any:
        if answer == "raises":
            raise ValueError
        return asyncio.sleep(0) if answer == "coroutine" else answer

    async def index(request: object) -> PlainTextResponse:
        return PlainTextResponse(stub["plan"])

    app = RheostatMiddleware(Starlette(routes=[Route("/", index)]), stub, context_of)
    assert asyncio.run(get(app, "/")) == "free"
    assert "context_of" in caplog.text


def test_the_lifespan_of_an_application_passes_through(stub: AsyncStubClient) -> None:
    async def main() -> None:
        seen: list[str] = []

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        await RheostatMiddleware(inner, stub)({"type": "lifespan"}, None, None)
        assert seen == ["lifespan"]

    asyncio.run(main())


def test_the_dependency_needs_the_middleware(stub: AsyncStubClient) -> None:
    app = FastAPI()

    @app.get("/")
    async def index(client: Found) -> int:
        return client["x"]

    with pytest.raises(FailedPreconditionError, match="RheostatMiddleware"):
        asyncio.run(get(app, "/"))
    with pytest.raises(InvalidArgumentError, match="42"):
        RheostatMiddleware(app, 42)


@pytest.mark.parametrize("framework", ["django", "fastapi", "flask", "starlette"])
def test_a_framework_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    module = sys.modules.get(f"rheostat.integrations.{framework}")
    if module is None:
        module = __import__(f"rheostat.integrations.{framework}", fromlist=["_"])
    for name in [name for name in sys.modules if name.partition(".")[0] == framework]:
        monkeypatch.setitem(sys.modules, name, None)
    # The module itself is left as it was: the reload fails before it has changed anything that tests use.
    with pytest.raises(MissingDependencyError, match=rf"rheostat\[{framework}\]"):
        reload(module)
