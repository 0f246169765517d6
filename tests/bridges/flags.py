"""The settings that the tests of bridges read, and requests to them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.model.key import Key, KeyKind
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from tests.server.exchange import Asked

__all__ = [
    "DOCUMENT",
    "FLAGS",
    "PATIENCE",
    "AsgiStream",
    "WsgiStream",
    "change",
    "fill",
    "get",
    "make_key",
    "post",
]

FLAGS = "/ofrep/v1/evaluate/flags"

PATIENCE = 100.0
"""Seconds after which a test gives up on what has to happen."""

DOCUMENT = """\
project: flags
environments: [production, staging]
settings:
  banner:
    type: bool
    default: false
    environments:
      production:
        rules:
          - {id: europe, where: region == "eu", value: true}
  color:
    type: str
    default: grey
    environments:
      production:
        rules:
          - where: exists(user.id)
            split:
              unit: user.id
              salt: color
              variants:
                - {name: warm, weight: 50%, value: red}
                - {name: cold, weight: rest, value: blue}
  paid:
    type: bool
    default: false
    environments:
      production:
        rules:
          - where: user.plan == "pro"
            value: true
  limit: {type: int, default: 9007199254740993}
  ratio: {type: float, default: 2.0}
  theme: {type: Json, default: {radius: 8, names: [a, b]}}
  tags: {type: Sequence<str>, default: [a, b]}
  nothing: {type: Json, default: null}
"""


def fill(service: Service) -> None:
    service.commit(Writer(OPEN), "flags", "", plan_apply(parse_document(DOCUMENT), None))


def change(service: Service, name: str, value: Any, environment: str = "production") -> int:
    from rheostat.model.change import SetValue
    from rheostat.model.value import freeze

    return service.commit(
        Writer(OPEN), "flags", environment, [SetValue(name, freeze(value), environment)]
    ).revision


def make_key(
    service: Service,
    kind: KeyKind = KeyKind.SERVER,
    environments: tuple[str, ...] = ("production",),
    **more: Any,
) -> tuple[Key, str]:
    key, text, _ = service.create_key(
        Writer(OPEN), kind=kind, project="flags", environments=environments, **more
    )
    return key, text


def post(path: str, content: Any = None, *headers: tuple[str, str], query: str = "") -> Asked:
    """Return a request for an evaluation; bytes are sent as they are, and a content-type replaces JSON's."""
    body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
    given = {"host": "localhost", "content-type": "application/json", **dict(headers)}
    encoded = tuple((name.encode(), value.encode()) for name, value in given.items())
    return Asked(path, body, encoded, "POST", query.encode())


def get(uri: str, *headers: tuple[str, str]) -> Asked:
    path, _, query = uri.partition("?")
    encoded = tuple((name.encode(), value.encode()) for name, value in (("host", "localhost"), *headers))
    return Asked(path, b"", encoded, "GET", query.encode())


class WsgiStream:
    """An event stream of a WSGI application, which is stepped by the test's own thread."""

    def __init__(self, app: Callable[..., Any], request: Asked, peer: str = "127.0.0.1") -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            self.status = int(status.partition(" ")[0])
            self.headers = {name.lower(): value for name, value in headers}

        environ = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query.decode(),
            "REMOTE_ADDR": peer,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            **{
                f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode()
                for name, value in request.headers
            },
        }
        self._body = app(environ, start_response)
        self._chunks = iter(self._body)

    def next(self) -> str | None:
        """Return what is said next; None at the end."""
        chunk = next(self._chunks, None)
        return None if chunk is None else chunk.decode()

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


class AsgiStream:
    """An event stream of an ASGI application, whose loop runs while the test waits for it."""

    def __init__(self, app: Callable[..., Any], request: Asked, peer: str = "127.0.0.1") -> None:
        self._runner = asyncio.Runner()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._left = asyncio.Event()
        self._asked = False

        async def receive() -> dict[str, Any]:
            if not self._asked:
                self._asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._left.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "root_path": "",
            "query_string": request.query,
            "headers": list(request.headers),
            "client": (peer, 50_000),
        }

        async def begin() -> dict[str, Any]:
            self._task = asyncio.ensure_future(app(scope, receive, self._said.put))
            return await asyncio.wait_for(self._said.get(), PATIENCE)

        start = self._runner.run(begin())
        self.status: int = start["status"]
        self.headers: Mapping[str, str] = {name.decode(): value.decode() for name, value in start["headers"]}
        self._ended = False

    def next(self) -> str | None:
        """Return what is said next; None at the end."""
        if self._ended:
            return None

        async def wait() -> dict[str, Any]:
            return await asyncio.wait_for(self._said.get(), PATIENCE)

        message = self._runner.run(wait())
        self._ended = not message["more_body"]
        return message["body"].decode() or (None if self._ended else "")

    def close(self) -> None:
        if self._left.is_set():
            return

        async def end() -> None:
            self._left.set()
            await asyncio.wait_for(self._task, PATIENCE)

        self._runner.run(end())
        self._runner.close()
