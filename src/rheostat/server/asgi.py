"""The ASGI application: thousands of watches on one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from rheo.v1.admin_service_connect import AdminServiceASGIApplication
from rheo.v1.config_service_connect import ConfigServiceASGIApplication
from rheo.v1.event_service_connect import EventServiceASGIApplication
from rheostat.server.call import COMMIT, PERMISSIONS, Entrance, refusal
from rheostat.server.codec import codecs, compressions
from rheostat.server.gate import Answer, Gate, Incoming
from rheostat.server.handler import Handlers
from rheostat.server.method import python_name
from rheostat.service import Service
from rheostat.service.publish import Hub

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        Scope,
    )
    from connectrpc.request import RequestContext

    from rheo.v1 import watch_pb2
    from rheostat.server.codec import Shared

__all__ = ["asgi_app"]


def asgi_app(service: Service, *, open: bool = False, allow_origins: Iterable[str] = ()) -> ASGI3Application:
    """Return an ASGI application that serves *service*; mount it at the root or under a prefix.

    Closed: every call needs a key of the store (``rheostat keys create``), unless *open* is true; then everybody on
    this machine may do everything, and calls from elsewhere are refused.

    Args:
        service: Started on first use, in each process; not closed by the application.
        open: No keys, loopback only.
        allow_origins: Origins of web pages that may call the services.
    """
    return _Application(service, open_=open, allow_origins=tuple(allow_origins))


class _Application:
    def __init__(self, service: Service, *, open_: bool, allow_origins: tuple[str, ...]) -> None:
        self._gate = Gate(service, open_=open_, allow_origins=allow_origins)
        entrance = Entrance(service, open_=open_)
        # Its methods are made from the table of permissions, which type checkers cannot follow.
        adapter: Any = _Adapter(Handlers(service), entrance)
        limits = service.limits
        shared: dict[str, Any] = {
            "interceptors": [entrance],
            "compressions": compressions(),
            "codecs": codecs(),
        }
        committing = AdminServiceASGIApplication(adapter, read_max_bytes=limits.max_commit_bytes, **shared)
        shared["read_max_bytes"] = limits.max_request_bytes
        applications = (
            ConfigServiceASGIApplication(adapter, **shared),
            AdminServiceASGIApplication(adapter, **shared),
            EventServiceASGIApplication(adapter, **shared),
        )
        # The first that fits: only commits may be large.
        self._applications = {
            f"/{COMMIT}": committing,
            **{f"{application.path}/": application for application in applications},
        }

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        match scope["type"]:
            case "lifespan":
                await _lifespan(receive, send)
            case "http":
                await self._http(scope, receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1000, "reason": "not a websocket"})

    async def _http(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        client = scope.get("client")
        incoming = Incoming(
            method=scope["method"],
            path=path,
            peer=client[0] if client else "",
            scheme=scope.get("scheme", "http"),
            headers=_headers(scope["headers"]),
            query=scope.get("query_string", b""),
            trailers="http.response.trailers" in (scope.get("extensions") or {}),
        )
        # Readiness may read the store the first time.
        answer = (
            await asyncio.to_thread(self._gate.answer, incoming)
            if path == "/readyz"
            else self._gate.answer(incoming)
        )
        if answer is not None:
            await _send(send, answer)
            return
        for prefix, application in self._applications.items():
            if path.startswith(prefix):
                answer = self._gate.screened(incoming)
                if answer is not None:
                    await _send(send, answer)
                    return
                extra = self._gate.cors(incoming)
                await application(scope, receive, _with_headers(send, extra) if extra else send)
                return
        await _send(send, Answer(404, b"not found\n", (("content-type", "text/plain; charset=utf-8"),)))


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers by name; one that came twice is joined, so that neither value hides the other."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def _lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _send(send: ASGISendCallable, answer: Answer) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                *((name.encode(), value.encode()) for name, value in answer.headers),
                (b"content-length", str(len(answer.body)).encode()),
            ],
            "trailers": False,
        }
    )
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _with_headers(send: ASGISendCallable, extra: tuple[tuple[str, str], ...]) -> ASGISendCallable:
    encoded = [(name.encode(), value.encode()) for name, value in extra]

    async def wrapped(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *encoded]}
        await send(message)

    return wrapped


class _Waiters:
    """The watches of one event loop that wait for the hub; one wake-up of the loop serves them all."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._hub = hub
        self._stop = hub.listen(self._rung)

    def _rung(self) -> None:
        if self._loop.is_closed():
            self._stop()
            return
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            # Closed between the check and the call.
            self._stop()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, bell: int, timeout: float) -> None:
        """Return when the hub has rung after *bell*, or after *timeout* seconds."""
        if self._hub.bell != bell or timeout <= 0:
            # Give way all the same: a watch that always has something to send must not starve the others.
            await asyncio.sleep(0)
            return
        future = self._loop.create_future()
        self._waiting.add(future)
        # A ring between the check and here has scheduled _wake after this very step of the loop.
        handle = self._loop.call_later(timeout, _expire, future)
        try:
            await future
        finally:
            handle.cancel()
            self._waiting.discard(future)


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Adapter:
    """The handlers in the form that the generated applications call."""

    def __init__(self, handlers: Handlers, entrance: Entrance) -> None:
        self._handlers = handlers
        self._entrance = entrance
        self._waiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiters] = (
            weakref.WeakKeyDictionary()
        )
        for method in PERMISSIONS:
            name = python_name(method)
            if name != "watch":
                setattr(self, name, self._unary(name))

    def _unary(self, name: str) -> Callable[[Any, RequestContext[Any, Any]], Awaitable[Any]]:
        async def handle(request: Any, ctx: RequestContext[Any, Any], /) -> Any:
            call = self._entrance.call(ctx)
            try:
                if self._handlers.blocks(call.method, request):
                    return await asyncio.to_thread(self._handlers.handle, name, request, call)
                return self._handlers.handle(name, request, call)
            except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the runtime
                raise refusal(exc, call.request_id, call.method) from None

        return handle

    async def watch(
        self, request: watch_pb2.WatchRequest, ctx: RequestContext[Any, Any], /
    ) -> AsyncIterator[Shared]:
        """Drive a watch until it ends or the client leaves; the runtime enforces deadlines."""
        call = self._entrance.call(ctx)
        service = self._handlers.service
        try:
            # The first step may read the store: a token or min_revision can be ahead of this node.
            session = await asyncio.to_thread(self._handlers.watch_session, request, call)
            with service.admission.watch(call.principal.actor, call.address):
                # Taken once: asking the service for it costs a system call, to notice a fork.
                hub = service.hub
                waiters = self._its_waiters(hub)
                opening = True
                while True:
                    bell = hub.bell
                    now = service.monotonic()
                    if opening:
                        step = await asyncio.to_thread(session.step, now)
                        opening = session.position is None
                    else:
                        step = session.step(now)
                    for event in step.events:
                        for message in self._handlers.encode(event):
                            yield message
                    if step.done:
                        return
                    await waiters.wait(bell, step.wake_at - service.monotonic())
        except Exception as exc:  # noqa: BLE001 - as above
            raise refusal(exc, call.request_id, call.method) from None

    def _its_waiters(self, hub: Hub) -> _Waiters:
        loop = asyncio.get_running_loop()
        found = self._waiters.get(loop)
        if found is None:
            found = self._waiters[loop] = _Waiters(hub, loop)
        return found
