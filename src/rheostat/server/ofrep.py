"""OFREP on ASGI and WSGI: who may ask, what is waited for, and how answers and event streams are sent.

What requests and answers say is in `rheostat.bridges.ofrep`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl

from rheo.v1.config_service_pb2 import EvaluateRequest
from rheostat.bridges.ofrep import (
    EVENTS,
    FLAGS,
    Change,
    Feed,
    OfrepOptions,
    Reply,
    attributes_of,
    context_of,
    entity_tag,
    evaluated,
    evaluated_all,
    matches,
    proves,
    refused,
    revision_of,
    stream_address,
)
from rheostat.errors import AuthenticationError, InvalidArgumentError, LimitExceededError, RheostatError
from rheostat.evaluation import Context
from rheostat.model.key import KeyKind
from rheostat.server.call import Call, not_let_in, refusal
from rheostat.server.gate import Answer, Incoming
from rheostat.server.handler import LARGE_BYTES
from rheostat.server.waiting import Waiters, Waiting
from rheostat.service import Service
from rheostat.service.access import OPEN, Permission, Principal, authenticate, in_force
from rheostat.service.admission import Admission
from rheostat.service.publish import Head, Hub
from rheostat.service.subject import NOBODY, Joined, Subjects
from rheostat.service.watch import WatchOptions, WatchSession
from rheostat.wire.error import from_connect, to_connect

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from asgiref.typing import ASGIReceiveCallable, HTTPScope
    from connectrpc.errors import ConnectError

    from rheostat.server.handler import Handlers
    from rheostat.server.stall import Guard

__all__ = ["AsgiOfrep", "Listening", "Ofrep", "Saying", "Visit", "WsgiOfrep", "options_of"]

_FLAG: Final = "ofrep.v1/EvaluateFlag"
_FLAGS: Final = "ofrep.v1/EvaluateFlags"
_EVENTS: Final = "ofrep.v1/Events"

_PROJECT: Final = "x-rheostat-project"
_ENVIRONMENT: Final = "x-rheostat-environment"

_ON_RELAY: Final = "a relay has no stored subjects, so none was joined"

_READ_BYTES: Final = 64 * 1024

_STREAMS_SHARE: Final = 4
"""One of so many places for streams may be an event stream's, and one of so many of those one visitor's."""

_STREAM_HEADERS: Final = (
    ("content-type", "text/event-stream"),
    # A proxy that compresses or collects would hold events back.
    ("x-accel-buffering", "no"),
)

Run: TypeAlias = Callable[..., Awaitable[Any]]


def options_of(ofrep: bool | OfrepOptions) -> OfrepOptions | None:
    """Return how OFREP is served; None when it is not."""
    if isinstance(ofrep, OfrepOptions):
        return ofrep
    return OfrepOptions() if ofrep else None


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that was let in, without its body.

    Attributes:
        call: As of an RPC.
        key: The flag that is asked for; None where all are.
        query: The first of each name.
        headers: Lower-case names.
        mount: The path below which the application is mounted.
    """

    call: Call
    key: str | None
    query: Mapping[str, str]
    headers: Mapping[str, str]
    mount: str

    @property
    def place(self) -> tuple[str, str]:
        """The project and environment that are named; empty for the key's own."""
        return (
            self.query.get("project") or self.headers.get(_PROJECT, ""),
            self.query.get("environment") or self.headers.get(_ENVIRONMENT, ""),
        )

    @property
    def by_proof(self) -> bool:
        """It shows no key, but the address of a stream that one was given."""
        keyless = "authorization" not in self.headers and "x-api-key" not in self.headers
        return keyless and "proof" in self.query and self.call.method == _EVENTS


class Ofrep:
    """Lets requests in and answers them, the same on ASGI and WSGI. Safe from any thread."""

    def __init__(
        self, handlers: Handlers, options: OfrepOptions, *, open_: bool, max_streams: int | None = None
    ) -> None:
        """Make it.

        Args:
            handlers: What they serve is answered for.
            options: How.
            open_: Everybody is let in who has come past the gate.
            max_streams: Streams of this application, watches among them; None for those of the node's limits.
        """
        self._handlers = handlers
        self._options = options
        self._open = open_
        limits = handlers.service.limits
        streams = limits.max_streams if max_streams is None else min(max_streams, limits.max_streams)
        # Whoever has seen a page can open event streams: they must leave room for watches, and for one another.
        allowed = max(1, streams // _STREAMS_SHARE)
        self._streams = Admission(
            replace(
                limits,
                max_streams=allowed,
                max_streams_per_key=allowed,
                max_streams_per_address=max(1, allowed // _STREAMS_SHARE),
            ),
            counted="event streams",
        )

    @property
    def service(self) -> Service:
        """What is served."""
        return self._handlers.service

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path below the mount is one of the protocol's."""
        return path in (FLAGS, EVENTS) or path.startswith(f"{FLAGS}/")

    def admit(self, incoming: Incoming, mount: str) -> Visit | Answer:
        """Let a request in before its body is read, or return what refuses it."""
        service = self.service
        key = incoming.path.removeprefix(f"{FLAGS}/") if incoming.path.startswith(f"{FLAGS}/") else None
        method = _EVENTS if incoming.path == EVENTS else _FLAGS if key is None else _FLAG
        allowed = "GET" if method == _EVENTS else "POST"
        request_id = service.randomness(8).hex()
        if incoming.method != allowed:
            error = InvalidArgumentError(f"this is called by {allowed}", reason="HTTP_METHOD_NOT_ALLOWED")
            reply = refused(error, key)
            return _answer(Reply(405, reply.body, (*reply.headers, ("allow", allowed))), request_id)
        query = dict(reversed(parse_qsl(incoming.query.decode("utf-8", "replace"), keep_blank_values=True)))
        call = Call(OPEN, request_id, method, address=incoming.peer, began=service.monotonic())
        visit = Visit(call, key, query, incoming.headers, mount)
        try:
            principal = OPEN if self._open else self._principal(visit)
            principal.require(Permission.EVALUATE)
            if principal.key is not None:
                service.usage.note_key(principal.key)
            _check_form(incoming)
        except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the server
            return self._told(visit, not_let_in(service, exc, request_id, method))
        return replace(visit, call=replace(call, principal=principal))

    def _principal(self, visit: Visit) -> Principal:
        service = self.service
        state, now = service.head.state, service.clock()
        header = visit.headers.get("authorization")
        named = visit.headers.get("x-api-key")
        if header is None and named is not None:
            header = f"Bearer {named}"
        if visit.by_proof:
            proof = visit.query["proof"]
            key = state.keys.get(visit.query.get("key", ""))
            place = (visit.query.get("project", ""), visit.query.get("environment", ""))
            if key is None or not proves(proof, key, *place) or not in_force(key, now):
                raise AuthenticationError(
                    "the address of the stream is not one that a key in force was given", reason="BAD_KEY"
                )
            return Principal(key)
        return authenticate(state, header, now)

    def needed(self, visit: Visit) -> int:
        """Return the revision that the answer needs, which the caller waits for on an event loop."""
        tag = visit.query.get("flagConfigEtag", "")
        return revision_of(tag, self.service.head) if tag and visit.call.method == _FLAGS else 0

    def blocks(self, visit: Visit, body: bytes) -> bool:
        """Tell whether the answer takes long, or the store, so that an event loop must not make it."""
        return visit.key is None or len(body) > LARGE_BYTES or visit.call.principal.may_name_subjects

    def answer(self, visit: Visit, body: bytes, call: Call | None = None) -> Answer:
        """Return the answer to a request.

        Args:
            visit: The request.
            body: Its body.
            call: The same call when the revision that it needs has been waited for.
        """
        call = call or visit.call
        try:
            reply = self._answered(visit, body, call)
        except Exception as exc:  # noqa: BLE001 - as above
            return self.refused(visit, exc)
        self._note_end(visit, "ok")
        return _answer(reply, call.request_id)

    def _answered(self, visit: Visit, body: bytes, call: Call) -> Reply:
        service, options = self.service, self._options
        attributes = context_of(attributes_of(body), options)
        head, project, environment = self._located(visit, call)
        joined = self._joined(call.principal, project, environment, attributes)
        context = joined.context(attributes)
        view = service.view(project, environment, head)
        if visit.key is not None:
            reply = evaluated(view, visit.key, joined, context)
            service.usage.note_reads(project, environment, (visit.key,))
            return reply
        stream = ""
        if options.event_streams:
            stream = stream_address(visit.mount, project, environment, call.principal.key)
        tag = entity_tag(view, head, joined, context, stream)
        if matches(visit.headers.get("if-none-match", ""), tag):
            return Reply(304, b"", (("etag", tag),))
        limit = service.limits.max_snapshot_bytes
        return evaluated_all(view, joined, context, limit=limit, stream=stream, tag=tag)

    def _joined(
        self, principal: Principal, project: str, environment: str, attributes: Mapping[str, object]
    ) -> Joined:
        """Return the stored subjects that *attributes* name."""
        if not principal.may_name_subjects:
            # The context of a public key is anybody's, so its attributes are all that it says.
            return NOBODY
        subjects = self.service.subjects
        if not isinstance(subjects, Subjects):
            # A relay, which is sent none.
            named = any("." in name or isinstance(each, Mapping) for name, each in attributes.items())
            return replace(NOBODY, note=_ON_RELAY) if named else NOBODY
        references = subjects.references_of(project, environment, Context(attributes))
        return subjects.joined(project, environment, references)

    def _located(self, visit: Visit, call: Call) -> tuple[Head, str, str]:
        project, environment = visit.place
        request = EvaluateRequest(project=project, environment=environment, min_revision=self.needed(visit))
        return self._handlers._located(request, call)

    def refused(self, visit: Visit, exc: BaseException, *, opened: bool = False) -> Answer:
        """Return the answer to a call that has failed, and count its end, unless it is that of an *opened* stream."""
        error = refusal(exc, visit.call.request_id, visit.call.method)
        if not opened:
            self._note_end(visit, error.code.value)
        self.service.metrics.count("errors", from_connect(error).reason)
        return self._told(visit, error)

    def _told(self, visit: Visit, error: ConnectError) -> Answer:
        told = from_connect(error)
        if told.reason == "ENVIRONMENT_REQUIRED":
            told.message += f"; say it as ?environment= or in the header {_ENVIRONMENT}"
        return _answer(refused(told, visit.key), visit.call.request_id)

    def _note_end(self, visit: Visit, code: str) -> None:
        service = self.service
        service.metrics.called(visit.call.method, code, service.monotonic() - visit.call.began)

    def listen(self, visit: Visit, *admissions: Admission) -> Listening:
        """Open an event stream; `Listening.close` ends it.

        Raises:
            RheostatError: It may not be opened.
        """
        service = self.service
        _, project, environment = self._located(visit, visit.call)
        principal = visit.call.principal
        with ExitStack() as stack:
            key = principal.key
            anybody = visit.by_proof or (key is not None and key.kind is KeyKind.PUBLIC)
            address = visit.call.address if anybody else ""
            stack.enter_context(self._streams.watch(principal.actor, address))
            for admission in (*admissions, service.admission):
                stack.enter_context(admission.watch(principal.actor, visit.call.address))
            session = service.watch(
                WatchOptions(
                    project=project,
                    environment=environment,
                    resume=_resumed(visit),
                    may_go_on=lambda: service.key_in_force(principal),
                    ends_by=lambda: service.key_ends_at(principal),
                )
            )
            listening = Listening(service, session, stack.pop_all())
            listening.when_closed(lambda code: self._note_end(visit, code))
            return listening

    @staticmethod
    def stream_headers(visit: Visit) -> tuple[tuple[str, str], ...]:
        """Return the headers of an event stream."""
        return (
            *_STREAM_HEADERS,
            ("cache-control", "private, no-store, no-transform"),
            ("x-request-id", visit.call.request_id),
        )


class Listening:
    """An open event stream, stepped by one driver at a time.

    Attributes:
        hub: Rings when there may be something to say.
    """

    def __init__(self, service: Service, session: WatchSession, stack: ExitStack) -> None:
        self._service = service
        self._session = session
        self._stack = stack
        self._feed = Feed(self._token, self._share)
        self._code = "ok"
        # Taken once: asking the service for it costs a system call, to notice a fork.
        self.hub: Hub = service.hub

    @property
    def opening(self) -> bool:
        """The next step is the first one, which may read the store."""
        return self._session.position is None

    @property
    def may_go_on(self) -> bool:
        """The key is still in force."""
        return self._session.may_go_on

    def step(self) -> tuple[Change, float]:
        """Return what to say now, and for how many seconds at most to wait for the hub afterwards."""
        now = self._service.monotonic()
        try:
            step = self._session.step(now)
        except Exception as exc:
            self._code = to_connect(exc).code.value
            raise
        change = self._feed.change(step.events)
        if step.done:
            change = Change(change.text, ends=True)
        return change, max(step.wake_at - self._service.monotonic(), 0.0)

    def when_closed(self, note: Callable[[str], None]) -> None:
        """Have *note* told the name of the code that the stream ends with."""
        self._stack.callback(lambda: note(self._code))

    def close(self) -> None:
        """Count it as closed. Idempotent."""
        self._stack.close()

    def _token(self) -> bytes | None:
        position = self._session.position
        return None if position is None else position.token(self.hub.head.identity.token_key)

    def _share(self) -> float:
        return int.from_bytes(self._service.randomness(4), "big") / 2**32


class AsgiOfrep:
    """Answers OFREP on an event loop."""

    def __init__(
        self,
        ofrep: Ofrep,
        run: Run,
        reached: Callable[[int, Call], Awaitable[Call]],
        waiters: Callable[[Hub], Waiters],
    ) -> None:
        """Make it.

        Args:
            ofrep: Lets in and answers.
            run: Runs a function in a thread.
            reached: Waits for a revision on the loop.
            waiters: Returns those of the running loop.
        """
        self._ofrep = ofrep
        self._run = run
        self._reached = reached
        self._waiters = waiters

    async def __call__(
        self, incoming: Incoming, scope: HTTPScope, receive: ASGIReceiveCallable, send: Guard
    ) -> None:
        """Answer a request of one of the protocol's paths."""
        visit = self._ofrep.admit(incoming, scope.get("root_path", ""))
        if isinstance(visit, Answer):
            await _send(send, visit)
        elif visit.call.method == _EVENTS:
            await self._stream(visit, receive, send)
        else:
            await self._evaluate(visit, receive, send)

    async def _evaluate(self, visit: Visit, receive: ASGIReceiveCallable, send: Guard) -> None:
        ofrep = self._ofrep
        try:
            body = await _received(visit, receive, ofrep.service.limits.max_request_bytes)
            if body is None:
                return
            call = await self._reached(ofrep.needed(visit), visit.call)
        except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the server
            answer = ofrep.refused(visit, exc)
        else:
            if ofrep.blocks(visit, body):
                answer = await self._run(ofrep.answer, visit, body, call)
            else:
                answer = ofrep.answer(visit, body, call)
        await _send(send, answer)

    async def _stream(self, visit: Visit, receive: ASGIReceiveCallable, send: Guard) -> None:
        try:
            listening = self._ofrep.listen(visit)
        except Exception as exc:  # noqa: BLE001 - as above
            await _send(send, self._ofrep.refused(visit, exc))
            return
        with closing(listening):
            telling = asyncio.ensure_future(self._tell(visit, listening, send))
            # Between two heartbeats nothing else would notice.
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                telling.cancel()
                # Before it is closed, the stream must have ceased to be stepped.
                await asyncio.wait((telling, leaving))
            if not telling.cancelled():
                telling.result()

    async def _tell(self, visit: Visit, listening: Listening, send: Guard) -> None:
        begun = False
        with closing(Waiting(self._waiters(listening.hub))) as waiting:
            while True:
                bell = listening.hub.bell
                try:
                    opening = listening.opening
                    change, wait = await self._run(listening.step) if opening else listening.step()
                except Exception as exc:  # noqa: BLE001 - as above
                    answer = self._ofrep.refused(visit, exc, opened=True)
                    await (_send(send, answer) if not begun else _body(send, b"", more=False))
                    return
                if not begun and change.text:
                    begun = True
                    send.may_go_on = lambda: listening.may_go_on
                    await _start(send, 200, self._ofrep.stream_headers(visit))
                if change.text or change.ends:
                    await _body(send, change.text, more=not change.ends)
                if change.ends:
                    return
                await waiting.wait(bell, wait)


async def _received(visit: Visit, receive: ASGIReceiveCallable, limit: int) -> bytes | None:
    """Return the body; None when the caller has left before its end."""
    _check_length(visit.headers.get("content-length", ""), limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _left(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Guard, answer: Answer) -> None:
    headers = answer.headers
    if answer.status != HTTPStatus.NOT_MODIFIED:
        headers = (*headers, ("content-length", str(len(answer.body))))
    await _start(send, answer.status, headers)
    await _body(send, answer.body, more=False)


async def _start(send: Guard, status: int, headers: tuple[tuple[str, str], ...]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded, "trailers": False})


async def _body(send: Guard, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


class WsgiOfrep:
    """Answers OFREP in a thread or greenlet."""

    def __init__(self, ofrep: Ofrep, streams: Admission) -> None:
        """Make it; *streams* counts those of this application, watches among them."""
        self._ofrep = ofrep
        self._streams = streams

    def answer(self, incoming: Incoming, environ: WSGIEnvironment) -> Answer | Saying:
        """Return the answer to a request of one of the protocol's paths, or an event stream that is open."""
        path = incoming.path.encode("latin-1", "replace").decode("utf-8", "replace")
        visit = self._ofrep.admit(replace(incoming, path=path), environ.get("SCRIPT_NAME", ""))
        if isinstance(visit, Answer):
            return visit
        opened = False
        try:
            if visit.call.method == _EVENTS:
                listening = self._ofrep.listen(visit, self._streams)
                opened = True
                return Saying(listening, self._ofrep.stream_headers(visit))
            body = _read(environ, self._ofrep.service.limits.max_request_bytes)
        except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the server
            return self._ofrep.refused(visit, exc, opened=opened)
        return self._ofrep.answer(visit, body)


class Saying:
    """The body of an event stream. Whoever takes it closes it, though it may never have been begun.

    Attributes:
        headers: Of the response.
    """

    def __init__(self, listening: Listening, headers: tuple[tuple[str, str], ...]) -> None:
        """Take the first step, so that what it says against the stream becomes the whole answer.

        Raises:
            RheostatError: As the step does; the stream is then closed.
        """
        self.headers = headers
        self._listening = listening
        self._bell = listening.hub.bell
        try:
            self._change, self._wait = listening.step()
            while not (self._change.text or self._change.ends):
                self._go_on()
        except BaseException:
            listening.close()
            raise
        self._said = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._said:
            if self._change.ends:
                raise StopIteration
            try:
                self._go_on()
                while not (self._change.text or self._change.ends):
                    self._go_on()
            except RheostatError:
                # The environment is gone; there is nobody left who could be told.
                raise StopIteration from None
        self._said = True
        return self._change.text

    def _go_on(self) -> None:
        hub = self._listening.hub
        hub.wait(self._bell, self._wait)
        self._bell = hub.bell
        self._change, self._wait = self._listening.step()

    def close(self) -> None:
        """End the stream."""
        self._listening.close()


def _read(environ: WSGIEnvironment, limit: int) -> bytes:
    length = environ.get("CONTENT_LENGTH", "") or ""
    _check_length(length, limit)
    if length:
        left = int(length)
    elif environ.get("wsgi.input_terminated"):
        left = limit + 1
    else:
        return b""
    parts: list[bytes] = []
    size = 0
    while left > 0 and (part := environ["wsgi.input"].read(min(left, _READ_BYTES))):
        parts.append(part)
        size += len(part)
        left -= len(part)
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


def _check_length(length: str, limit: int) -> None:
    if not length:
        return
    if not (length.isascii() and length.isdecimal()):
        raise InvalidArgumentError("the header content-length is no number", reason="MALFORMED_REQUEST")
    if len(length) > 18 or int(length) > limit:
        raise _too_large(limit)


def _check_form(incoming: Incoming) -> None:
    """Refuse what is not JSON before it is read: a form of a web page is sent without asking first."""
    if incoming.method != "POST":
        return
    content_type = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise InvalidArgumentError(
            "the content type is not application/json", reason="UNSUPPORTED_MEDIA_TYPE"
        )
    if incoming.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise InvalidArgumentError("the body is compressed", reason="UNSUPPORTED_MEDIA_TYPE")


def _too_large(limit: int) -> LimitExceededError:
    return LimitExceededError(
        f"the request is larger than {limit} bytes (max_request_bytes)", limit="max_request_bytes"
    )


def _resumed(visit: Visit) -> bytes:
    """Return the token of the last event that the listener had before; empty for none."""
    text = visit.headers.get("last-event-id", "")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _answer(reply: Reply, request_id: str) -> Answer:
    common = (("cache-control", "private, no-store"), ("x-request-id", request_id))
    return Answer(reply.status, reply.body, (*reply.headers, *common))
