"""The ASGI application: thousands of watches on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from rheo.v1.admin_service_connect import AdminServiceASGIApplication
from rheo.v1.config_service_connect import ConfigServiceASGIApplication
from rheo.v1.draft_service_connect import DraftServiceASGIApplication
from rheo.v1.event_service_connect import EventServiceASGIApplication
from rheo.v1.webhook_service_connect import WebhookServiceASGIApplication
from rheostat.bridges.ofrep import OfrepOptions
from rheostat.model.watch import Delta
from rheostat.server.call import PERMISSIONS, Call, Entrance, refusal
from rheostat.server.codec import Framing, codecs, compressions
from rheostat.server.gate import Answer, Gate, Incoming
from rheostat.server.handler import Handlers
from rheostat.server.line import EXTENSION, Line
from rheostat.server.method import python_name
from rheostat.server.mount import by_prefix
from rheostat.server.ofrep import AsgiOfrep, Ofrep, options_of
from rheostat.server.stall import GUARD, Guard, Guards, Stalled
from rheostat.server.stream import Stream
from rheostat.server.waiting import Waiters, Waiting
from rheostat.service import Service
from rheostat.service.publish import Hub
from rheostat.service.watch import CATCH_UP_SECONDS

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

__all__ = ["application_of", "asgi_app"]

T = TypeVar("T")

log = logging.getLogger("rheostat.server")

_THREADS: Final = 32
"""Writes that wait at the same time share a sync; more of them than this gain little by it."""


def asgi_app(
    service: Service,
    *,
    open: bool = False,
    allow_origins: Iterable[str] = (),
    ofrep: bool | OfrepOptions = False,
) -> ASGI3Application:
    """Return an ASGI application that serves *service*; mount it at the root or under a prefix.

    Closed: every call needs a key of the store (``rheostat keys create``), unless *open* is true; then everybody on
    this machine may do everything, and calls from elsewhere are refused.

    Args:
        service: Started on first use, in each process; not closed by the application.
        open: No keys, loopback only.
        allow_origins: Origins of web pages that may call the services.
        ofrep: Serve OFREP below ``/ofrep/v1`` too.
    """
    gate = Gate(service, open_=open, allow_origins=tuple(allow_origins))
    return application_of(service, Handlers(service), gate, open_=open, ofrep=options_of(ofrep))


def application_of(
    service: Service, handlers: Handlers, gate: Gate, *, open_: bool, ofrep: OfrepOptions | None = None
) -> ASGI3Application:
    """Return an ASGI application of parts that others may have made, as a relay's are.

    Args:
        service: What is served.
        handlers: Answer the calls.
        gate: Decides before them.
        open_: No keys are asked for.
        ofrep: How OFREP is served; None when it is not.
    """
    return _Application(service, handlers, gate, open_=open_, ofrep=ofrep)


class _Application:
    def __init__(
        self, service: Service, handlers: Handlers, gate: Gate, *, open_: bool, ofrep: OfrepOptions | None
    ) -> None:
        self._service = service
        self._gate = gate
        self._pool = _Pool()
        self._guards = Guards()
        entrance = Entrance(service, open_=open_)
        # Its methods are made from the table of permissions, which type checkers cannot follow.
        adapter: Any = _Adapter(handlers, entrance, self._pool)
        shared: dict[str, Any] = {
            "interceptors": [entrance],
            "compressions": compressions(),
            "codecs": codecs(),
        }
        self._applications = by_prefix(
            (
                ConfigServiceASGIApplication,
                AdminServiceASGIApplication,
                DraftServiceASGIApplication,
                WebhookServiceASGIApplication,
                EventServiceASGIApplication,
            ),
            lambda make, read_max_bytes: make(adapter, read_max_bytes=read_max_bytes, **shared),
            service.limits,
        )
        self._ofrep: AsgiOfrep | None = None
        if ofrep is not None:
            answering = Ofrep(handlers, ofrep, open_=open_)
            self._ofrep = AsgiOfrep(answering, self._pool.run, adapter.reached, adapter.its_waiters)

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
        extensions: dict[str, Any] = scope.get("extensions") or {}
        # Taken out: it refers back to the scope, and the collector of reference cycles runs seldom.
        line: Line | None = extensions.pop(EXTENSION, None)
        incoming = Incoming(
            method=scope["method"],
            path=path,
            peer=client[0] if client else "",
            scheme=scope.get("scheme", "http"),
            headers=_headers(scope["headers"]),
            query=scope.get("query_string", b""),
            trailers="http.response.trailers" in extensions,
        )
        if not self._service.started:
            # The first use reads the whole store.
            await self._start()
        answer = self._gate.answer(incoming)
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
                # A stream would keep it for its whole life.
                del incoming
                guard = self._guards.guard(_with_headers(send, extra) if extra else send, line)
                await self._call(application, scope, receive, guard)
                return
        if self._ofrep is not None and Ofrep.serves(path):
            extra = self._gate.cors(incoming)
            guard = self._guards.guard(_with_headers(send, extra) if extra else send, line)
            answering = functools.partial(self._ofrep, incoming)
            del incoming
            await self._call(answering, scope, receive, guard)
            return
        await _send(send, Answer(404, b"not found\n", (("content-type", "text/plain; charset=utf-8"),)))

    async def _start(self) -> None:
        # What is wrong is told by each call that needs the store, and by readiness.
        with contextlib.suppress(Exception):
            await self._pool.run(self._service.start)

    async def _call(
        self, application: Any, scope: HTTPScope, receive: ASGIReceiveCallable, guard: Guard
    ) -> None:
        token = GUARD.set(guard)
        try:
            await application(scope, receive, guard)
        except Stalled:
            log.info("a client has not taken what it was sent in time; its stream is ended")
            # Without the end of the response, the server closes the connection; but only once all is sent.
            if guard.line is not None:
                guard.line.cut()
        finally:
            GUARD.reset(token)


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


class _Pool:
    """Threads for what may wait for the store, apart from those of the application that this is mounted in."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="rheostat")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what *function* returns, run in a thread; its exceptions arrive as they are."""

        def run() -> tuple[T | None, Exception | None]:
            try:
                return function(*arguments), None
            except StopIteration as exc:
                # A coroutine cannot raise it, and the future of asyncio would never be done.
                error = RuntimeError("an iterator has ended")
                error.__cause__ = exc
                return None, error
            except Exception as exc:  # noqa: BLE001 - raised below; the future would replace a TimeoutError
                return None, exc

        result, error = await asyncio.get_running_loop().run_in_executor(self._executor, run)
        if error is not None:
            raise error
        return cast("T", result)


class _Adapter:
    """The handlers in the form that the generated applications call."""

    def __init__(self, handlers: Handlers, entrance: Entrance, pool: _Pool) -> None:
        self._handlers = handlers
        self._entrance = entrance
        self._pool = pool
        self._waiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waiters] = (
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
                    call = await self.reached(getattr(request, "min_revision", 0), call)
                    return await self._pool.run(self._handlers.handle, name, request, call)
                return self._handlers.handle(name, request, call)
            except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the runtime
                raise refusal(exc, call.request_id, call.method) from None

        return handle

    async def reached(self, revision: int, call: Call) -> Call:
        """Wait for a revision on the loop, since many may wait and threads are few.

        Returns:
            The call, which the handlers then do not let wait again.
        """
        service = self._handlers.service
        hub = service.hub
        if hub.head.revision >= revision:
            return call
        await self._pool.run(service.catch_up)
        deadline = service.monotonic() + CATCH_UP_SECONDS
        if call.deadline is not None:
            deadline = min(deadline, call.deadline)
        with closing(Waiting(self.its_waiters(hub))) as waiting:
            while True:
                bell = hub.bell
                left = deadline - service.monotonic()
                if hub.head.revision >= revision or left <= 0:
                    return replace(call, waited=True)
                await waiting.wait(bell, left)

    async def watch(
        self, request: watch_pb2.WatchRequest, ctx: RequestContext[Any, Any], /
    ) -> AsyncIterator[Shared]:
        """Drive a watch until it ends or the client leaves; the runtime enforces deadlines.

        Only the messages up to the response's start, and the end, pass through the runtime; the others are framed
        as it would, once for all streams, and go to the application server directly.
        """
        call = self._entrance.call(ctx)
        service = self._handlers.service
        try:
            call = await self.reached(request.min_revision, call)
            # Taken once: asking the service for it costs a system call, to notice a fork.
            hub = service.hub
            guard = GUARD.get(None)
            expected = Framing.expected(ctx.request_headers)
            with (
                self._handlers.watching(request, call) as session,
                closing(Stream(self._handlers, session, guard, self.its_waiters(hub))) as stream,
            ):
                if guard is not None:
                    guard.may_go_on = lambda: session.may_go_on
                while True:
                    left = stream.left()
                    if left is not None:
                        step, bell = left
                    else:
                        bell = hub.bell
                        now = service.monotonic()
                        # The first step may read the store: a token can be ahead of this node.
                        opening = session.position is None
                        step = await self._pool.run(session.step, now) if opening else session.step(now)
                    wake_at, done = step.wake_at, step.done
                    if step.events:
                        messages = await stream.prepared(step.events, expected, self._pool.run)
                        self._handlers.note_events(step.events)
                        deltas = sum(isinstance(event, Delta) for event in step.events)
                        with self._handlers.sending(messages):
                            frames, size = 0, 0
                            while messages:
                                message = messages.popleft()
                                if guard is None or guard.framing is None:
                                    yield message
                                else:
                                    await guard.frame(message)
                                    size += len(message.framed(guard.framing))
                                frames += 1
                                del message
                                if not session.may_go_on:
                                    break
                        self._handlers.note_delivery(frames, size, deltas)
                    if done:
                        return
                    # While it waits, which can be for its whole life, it must not keep a snapshot in memory.
                    del step, left
                    await stream.wait(bell, wake_at - service.monotonic())
        except Stalled:
            if guard is not None and not guard.refused and guard.take_leave(self._handlers.slow()):
                return
            raise
        except Exception as exc:  # noqa: BLE001 - as above
            raise refusal(exc, call.request_id, call.method) from None

    def its_waiters(self, hub: Hub) -> Waiters:
        loop = asyncio.get_running_loop()
        found = self._waiters.get(loop)
        if found is None or found.hub is not hub:
            found = self._waiters[loop] = Waiters(hub, loop, self._handlers.note_delivery)
        return found
