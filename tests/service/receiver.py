"""A receiver of webhooks on this machine, which answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["PATIENCE", "Received", "Receiver"]

PATIENCE = 60.0
"""Seconds that a test waits for what has to come."""


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def revision(self) -> int:
        return self.message["data"].get("revision", 0)


class Receiver:
    """Keeps what it is sent. ``answer`` is called with each request, in its thread, and returns the status.

    Args:
        answer: By default everything is taken.
        host: What the URL names.
    """

    def __init__(self, answer: Callable[[Received], int] = lambda _: 204, *, port: int = 0) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.headers: dict[str, str] = {}
        self.at_once = 0
        self.most_at_once = 0
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A sender that was killed hangs up."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        found = Received(handler.path, {name.lower(): text for name, text in handler.headers.items()}, body)
        with self._changed:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.received.append(found)
            self._changed.notify_all()
        try:
            status = self.answer(found)
        finally:
            with self._changed:
                self.at_once -= 1
        handler.send_response(status)
        for name, text in self.headers.items():
            handler.send_header(name, text)
        handler.send_header("content-length", "0")
        handler.end_headers()

    @property
    def revisions(self) -> list[int]:
        """The revisions that it was told of, repeats included."""
        with self._changed:
            return [each.revision for each in self.received]

    def wait(self, count: int, patience: float = PATIENCE) -> list[Received]:
        """Wait until *count* requests have come, and return all."""
        return self.wait_until(lambda: len(self.received) >= count, patience)

    def wait_until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> list[Received]:
        """Wait until what has come fulfils *condition*, and return it."""
        with self._changed:
            assert self._changed.wait_for(condition, patience), f"only {[r.id for r in self.received]} came"
            return list(self.received)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)
