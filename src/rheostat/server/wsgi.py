"""The WSGI application. A watch occupies its worker's thread or greenlet while it is open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.errors import ConnectError

from rheo.v1.admin_service_connect import AdminServiceWSGIApplication
from rheo.v1.config_service_connect import ConfigServiceWSGIApplication
from rheo.v1.draft_service_connect import DraftServiceWSGIApplication
from rheo.v1.event_service_connect import EventServiceWSGIApplication
from rheo.v1.webhook_service_connect import WebhookServiceWSGIApplication
from rheostat.bridges.ofrep import OfrepOptions
from rheostat.model.watch import Delta
from rheostat.server.call import PERMISSIONS, Entrance, refusal
from rheostat.server.codec import codecs, compressions
from rheostat.server.gate import Answer, Gate, Incoming
from rheostat.server.handler import Handlers
from rheostat.server.line import limit_buffers
from rheostat.server.method import python_name
from rheostat.server.mount import by_prefix
from rheostat.server.ofrep import Ofrep, Saying, WsgiOfrep, options_of
from rheostat.server.stall import PIECE_BYTES, STALLED_SECONDS
from rheostat.service import Service
from rheostat.service.admission import Admission

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from connectrpc.request import RequestContext

    from rheo.v1 import watch_pb2
    from rheostat.server.codec import Shared

__all__ = ["MAX_STREAMS", "wsgi_app"]

MAX_STREAMS: Final = 64
"""Open watches of a process, unless it is told otherwise: few enough for a server with a hundred threads."""

_WATCH: Final = "/rheo.v1.ConfigService/Watch"


def wsgi_app(
    service: Service,
    *,
    open: bool = False,
    allow_origins: Iterable[str] = (),
    max_streams: int = MAX_STREAMS,
    ofrep: bool | OfrepOptions = False,
) -> WSGIApplication:
    """Return a WSGI application that serves *service*; mount it at the root or under a prefix.

    Closed: every call needs a key of the store (``rheostat keys create``), unless *open* is true; then everybody on
    this machine may do everything, and calls from elsewhere are refused.

    Args:
        service: Started on first use, in each process; not closed by the application.
        open: No keys, loopback only.
        allow_origins: Origins of web pages that may call the services.
        max_streams: Open watches of this process, and event streams of OFREP, which may be a quarter of them; further
            ones are told to come back. Each occupies a thread or greenlet of the server, so keep it below their number,
            or other calls wait.
        ofrep: Serve OFREP below ``/ofrep/v1`` too.
    """
    return _Application(
        service,
        open_=open,
        allow_origins=tuple(allow_origins),
        max_streams=max_streams,
        ofrep=options_of(ofrep),
    )


class _Application:
    def __init__(
        self,
        service: Service,
        *,
        open_: bool,
        allow_origins: tuple[str, ...],
        max_streams: int,
        ofrep: OfrepOptions | None,
    ) -> None:
        self._gate = Gate(service, open_=open_, allow_origins=allow_origins)
        entrance = Entrance(service, open_=open_)
        # Its methods are made from the table of permissions, which type checkers cannot follow.
        streams = Admission(replace(service.limits, max_streams=max_streams))
        handlers = Handlers(service)
        adapter: Any = _Adapter(handlers, entrance, streams)
        shared: dict[str, Any] = {
            "interceptors": [entrance],
            "compressions": compressions(),
            "codecs": codecs(),
        }
        self._applications = by_prefix(
            (
                ConfigServiceWSGIApplication,
                AdminServiceWSGIApplication,
                DraftServiceWSGIApplication,
                WebhookServiceWSGIApplication,
                EventServiceWSGIApplication,
            ),
            lambda make, read_max_bytes: make(adapter, read_max_bytes=read_max_bytes, **shared),
            service.limits,
        )
        self._ofrep: WsgiOfrep | None = None
        if ofrep is not None:
            self._ofrep = WsgiOfrep(Ofrep(handlers, ofrep, open_=open_, max_streams=max_streams), streams)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        incoming = Incoming(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", "") or "/",
            peer=environ.get("REMOTE_ADDR", "") or "",
            scheme=environ.get("wsgi.url_scheme", "http"),
            headers=_headers(environ),
            query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
            trailers="wsgi.ext.http.send_trailers" in environ,
        )
        answer = self._gate.answer(incoming)
        if answer is not None:
            return _answered(answer, start_response)
        for prefix, application in self._applications.items():
            if incoming.path.startswith(prefix):
                answer = self._gate.screened(incoming)
                if answer is not None:
                    return _answered(answer, start_response)
                start = _with_headers(start_response, self._gate.cors(incoming))
                messages = application(environ, start)
                return _until_left(messages, environ) if incoming.path == _WATCH else messages
        if self._ofrep is not None and Ofrep.serves(incoming.path):
            start = _with_headers(start_response, self._gate.cors(incoming))
            answered = self._ofrep.answer(incoming, environ)
            if isinstance(answered, Answer):
                return _answered(answered, start)
            return _begun(answered, environ, start)
        start_response("404 Not Found", [("content-type", "text/plain; charset=utf-8")])
        return [b"not found\n"]


def _answered(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    status = HTTPStatus(answer.status)
    start_response(f"{status.value} {status.phrase}", list(answer.headers))
    return [answer.body]


def _begun(saying: Saying, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Begin the response of an event stream."""
    try:
        start_response("200 OK", list(saying.headers))
        return _Closed(_until_left(saying, environ), saying)
    except BaseException:
        saying.close()
        raise


class _Closed:
    """Chunks whose end closes what they are made of, even when the server takes none of them."""

    def __init__(self, chunks: Iterator[bytes], made_of: Saying) -> None:
        self._chunks = chunks
        self._made_of = made_of

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._made_of.close()


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return headers


def _with_headers(start_response: StartResponse, extra: tuple[tuple[str, str], ...]) -> StartResponse:
    if not extra:
        return start_response

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, *extra], exc_info)

    return start


def _until_left(messages: Iterable[bytes], environ: WSGIEnvironment) -> Iterator[bytes]:
    """Yield *messages* in pieces until the client has left.

    The first write to a client that has closed its connection succeeds; without a look before it, a stream would
    last a heartbeat longer.
    """
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        # A worker waits for a client that does not read for as long as the kernel lets it.
        with contextlib.suppress(OSError):
            limit_buffers(connection, STALLED_SECONDS)
    try:
        for message in messages:
            for at in range(0, len(message), PIECE_BYTES):
                if _has_left(environ):
                    return
                yield message[at : at + PIECE_BYTES]
    finally:
        close = getattr(messages, "close", None)
        if close is not None:
            close()


def _has_left(environ: WSGIEnvironment) -> bool:
    """Tell whether the client has closed its connection; False where the server does not let us know."""
    disconnected = environ.get("waitress.client_disconnected")
    if disconnected is not None:
        return bool(disconnected())
    connection = environ.get("gunicorn.socket")
    # gevent's own socket would wait in spite of the flag.
    connection = getattr(connection, "_sock", connection)
    if connection is None or connection.gettimeout():
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, ValueError):
        # Nothing to read; or TLS, which cannot peek.
        return False
    except OSError:
        return True


class _Adapter:
    """The handlers in the form that the generated applications call."""

    def __init__(self, handlers: Handlers, entrance: Entrance, streams: Admission) -> None:
        self._handlers = handlers
        self._entrance = entrance
        self._streams = streams
        for method in PERMISSIONS:
            name = python_name(method)
            if name != "watch":
                setattr(self, name, self._unary(name))

    def _unary(self, name: str) -> Callable[[Any, RequestContext[Any, Any]], Any]:
        def handle(request: Any, ctx: RequestContext[Any, Any], /) -> Any:
            call = self._entrance.call(ctx)
            try:
                return self._handlers.handle(name, request, call)
            except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the runtime
                raise refusal(exc, call.request_id, call.method) from None

        return handle

    def watch(self, request: watch_pb2.WatchRequest, ctx: RequestContext[Any, Any], /) -> Iterator[Shared]:
        """Drive a watch until it ends, the client leaves or its deadline passes."""
        call = self._entrance.call(ctx)
        service = self._handlers.service
        try:
            with (
                self._streams.watch(call.principal.actor, call.address),
                self._handlers.watching(request, call) as session,
            ):
                yield from self._drive(session, ctx, service)
        except Exception as exc:  # noqa: BLE001 - as above
            raise refusal(exc, call.request_id, call.method) from None

    def _drive(self, session: Any, ctx: RequestContext[Any, Any], service: Service) -> Iterator[Shared]:
        # Taken once: asking the service for it costs a system call, to notice a fork.
        hub = service.hub
        while True:
            bell, notes = hub.bell, hub.notes if session.told else None
            step = session.step(service.monotonic())
            messages = [message for event in step.events for message in self._handlers.encode(event, session)]
            self._handlers.note_events(step.events)
            with self._handlers.sending(messages):
                for message in messages:
                    yield message
                    if not session.may_go_on:
                        break
            if messages:
                # Of what the application server makes of them no application knows.
                size = sum(len(message.encoded(google_protobuf_binary_codec())) for message in messages)
                deltas = sum(isinstance(event, Delta) for event in step.events)
                self._handlers.note_delivery(len(messages), size, deltas)
            if step.done:
                return
            wait = step.wake_at - service.monotonic()
            left = ctx.timeout_ms
            if left is not None:
                # The runtime enforces deadlines on ASGI only.
                if left <= 0:
                    raise ConnectError(Code.DEADLINE_EXCEEDED, "the deadline has passed")
                wait = min(wait, left / 1000)
            # While it waits, it must not keep a snapshot in memory.
            del step, messages
            hub.wait(bell, max(wait, 0.0), notes)
