"""One request and its answer, by calling an application directly: sockets are tested elsewhere."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from rheo.v1.watch_pb2 import WatchResponse

WATCH = "rheo.v1.ConfigService/Watch"

_LAST = frozenset({"snapshot_end", "bookmark", "delta", "go_away"})
"""The event with which a watch has said all that there is to say now."""


@dataclass(frozen=True)
class Asked:
    """A request as it is on the wire; header names are lower-case."""

    path: str
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    method: str = "POST"
    query: bytes = b""

    @property
    def streams(self) -> bool:
        return self.path == f"/{WATCH}"


@dataclass
class Answered:
    """An answer as it is on the wire.

    Attributes:
        status: Of HTTP.
        headers: Lower-case names.
        body: All of it; of a watch, up to the event after which the caller left.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    written: str = ""
    """What a WSGI application has written to the server's error stream."""

    @property
    def error(self) -> dict[str, Any] | None:
        """The error as JSON, whether it came as the whole body or at the end of a stream; None for none."""
        if self.headers.get("content-type", "").startswith("application/connect+"):
            ends = [json.loads(content) for flags, content in envelopes(self.body) if flags & 2]
            return ends[0].get("error") if ends else None
        if self.status == 200:
            return None
        return json.loads(self.body)

    @property
    def code(self) -> str:
        error = self.error
        return "ok" if error is None else error["code"]

    @property
    def reason(self) -> str:
        info = self.detail(ErrorInfo)
        return "" if info is None else info.reason

    @property
    def message(self) -> str:
        return "" if self.error is None else self.error["message"]

    @property
    def fields(self) -> list[str]:
        """The paths of the fields that are at fault."""
        request = self.detail(BadRequest)
        return [] if request is None else [violation.field for violation in request.field_violations]

    @property
    def retry_seconds(self) -> float | None:
        info = self.detail(RetryInfo)
        return None if info is None else info.retry_delay.ToTimedelta().total_seconds()

    def detail(self, class_: type[Any]) -> Any:
        for detail in (self.error or {}).get("details", ()):
            if detail["type"] == class_.DESCRIPTOR.full_name:
                return class_.FromString(base64.b64decode(detail["value"] + "==="))
        return None

    def events(self) -> list[WatchResponse]:
        return [WatchResponse.FromString(content) for flags, content in envelopes(self.body) if not flags & 2]


def envelopes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the flags and content of each whole message of a stream; compressed ones are decompressed."""
    at = 0
    while at + 5 <= len(body):
        flags, size = struct.unpack_from(">BI", body, at)
        if at + 5 + size > len(body):
            return
        content = body[at + 5 : at + 5 + size]
        yield flags, gzip.decompress(content) if flags & 1 else content
        at += 5 + size


def enveloped(content: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(content)) + content


def asked(
    method: str, content: Message | bytes | str, codec: str = "proto", *headers: tuple[str, str]
) -> Asked:
    """Return the POST that a client sends: *content* as it is, or a message in the codec."""
    if isinstance(content, Message):
        content = MessageToJson(content) if codec == "json" else content.SerializeToString()
    if isinstance(content, str):
        content = content.encode()
    streams = method == WATCH
    return Asked(
        f"/{method}",
        enveloped(content) if streams else content,
        (
            (b"host", b"localhost"),
            (b"content-type", f"application/{'connect+' if streams else ''}{codec}".encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in headers),
        ),
    )


def asked_by_get(method: str, content: bytes, codec: str, *, in_base64: bool = True, **more: str) -> Asked:
    """Return the GET that a client sends for a method without side effects."""
    message = base64.urlsafe_b64encode(content).decode().rstrip("=") if in_base64 else quote(content)
    parameters = {"connect": "v1", "encoding": codec, "base64": "1" if in_base64 else "0", **more}
    query = "&".join(
        [f"message={message}", *(f"{name}={quote(value)}" for name, value in parameters.items())]
    )
    return Asked(f"/{method}", b"", ((b"host", b"localhost"),), "GET", query.encode())


def _has_said_all(body: bytes, content_type: str) -> bool:
    for flags, content in envelopes(body):
        if flags & 2:
            return True
        if content_type.endswith("json"):
            kind = next(iter(json.loads(content)), "")
            if kind in {"snapshotEnd", "bookmark", "delta", "goAway"}:
                return True
        elif WatchResponse.FromString(content).WhichOneof("event") in _LAST:
            return True
    return False


@dataclass
class Asgi:
    """Calls an ASGI application; a call that the application ends with an exception raises it."""

    app: Callable[..., Any]
    peer: str = "127.0.0.1"

    async def __call__(self, request: Asked) -> Answered:
        left = asyncio.Event()
        bodies = iter([request.body])
        answer = Answered(0, {}, b"")

        async def receive() -> dict[str, Any]:
            for body in bodies:
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if left.is_set():
                return
            if message["type"] == "http.response.start":
                assert not answer.status, "the answer began twice"
                answer.status = message["status"]
                answer.headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in message["headers"]
                }
                return
            assert answer.status, "a body before the answer's start"
            answer.body += message.get("body", b"")
            if not message.get("more_body", False) or (
                request.streams and _has_said_all(answer.body, answer.headers.get("content-type", ""))
            ):
                left.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "root_path": "",
            "query_string": request.query,
            "headers": list(request.headers),
            "client": (self.peer, 50_000),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }
        await self.app(scope, receive, send)
        assert answer.status, "no answer"
        return answer


@dataclass
class Wsgi:
    """Calls a WSGI application; a call that the application ends with an exception raises it."""

    app: Callable[..., Iterable[bytes]]
    peer: str = "127.0.0.1"
    environ: dict[str, Any] = field(default_factory=dict)

    def __call__(self, request: Asked) -> Answered:
        answer = Answered(0, {}, b"")

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            answer.status = int(status.partition(" ")[0])
            answer.headers = {name.lower(): value for name, value in headers}

        written = io.StringIO()
        environ = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query.decode("latin-1"),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.peer,
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.errors": written,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **self.environ,
        }
        for name, value in request.headers:
            key = name.decode("latin-1").upper().replace("-", "_")
            environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value.decode(
                "latin-1"
            )
        chunks = self.app(environ, start_response)
        try:
            for chunk in chunks:
                answer.body += chunk
                if request.streams and _has_said_all(answer.body, answer.headers.get("content-type", "")):
                    break
        except Exception:
            sys.stderr.write(written.getvalue())
            raise
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        answer.written = written.getvalue()
        assert answer.status, "no answer"
        return answer
