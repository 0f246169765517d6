"""A real server for the commands, and a way to run them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rheostat.cli.root import root

START_SECONDS = 120.0
STOP_SECONDS = 60.0

CLEAN = dict.fromkeys(
    (
        "RHEOSTAT_URL",
        "RHEOSTAT_KEY",
        "RHEOSTAT_PROJECT",
        "RHEOSTAT_ENVIRONMENT",
        "RHEOSTAT_AUTHOR",
        "RHEOSTAT_STORE",
        "FORCE_COLOR",
    )
)


class Process:
    """A command in a process of its own, ended by its id; its output is read line by line as it comes."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in CLEAN}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "rheostat.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**clean, **(env or {})},
            cwd=cwd,
        )
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._open = 2
        self._threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._lines
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        stream = getattr(self.popen, name)
        for line in stream:
            with self._changed:
                self._lines[name].append(line)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    @property
    def stdout(self) -> str:
        with self._changed:
            return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        with self._changed:
            return "".join(self._lines["stderr"])

    def wait_for(self, text: str, *, stream: str = "stdout", seconds: float = START_SECONDS) -> str:
        """Return the first line with *text*; fail when none comes."""

        def found() -> str | None:
            return next((line for line in self._lines[stream] if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or not self._open, seconds)
            line = found()
        assert line is not None, f"no {text!r} in {stream}:\n{self.stdout}\n{self.stderr}"
        return line

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit code; fail when it does not end."""
        code = self.popen.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        return code

    def end(self) -> int:
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            return self.wait()
        finally:
            if self.popen.poll() is None:
                self.popen.kill()
                self.wait()
            for stream in (self.popen.stdout, self.popen.stderr):
                assert stream is not None
                stream.close()


class Server:
    """`rheostat serve` on a store, which can be ended and started again at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.store = f"sqlite:{folder / 'store.db'}"
        self.options = options
        self.port = 0
        self.url = ""
        self.start()

    def start(self) -> None:
        ready = self.folder / "ready"
        self.process = Process(
            *("serve", "--store", self.store, "--port", str(self.port), "--log-level", "warning"),
            *("--ready-file", str(ready)),
            *self.options,
        )
        self.url = self.process.wait_for("ready at ").removeprefix("ready at ").strip()
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        return self.process.end()

    def kill(self) -> None:
        self.process.popen.kill()
        self.process.end()


class Cli:
    """Runs commands in this process against a server and a project of the test's own."""

    def __init__(self, url: str, project: str, folder: Path) -> None:
        self.url = url
        self.project = project
        self.folder = folder
        self.env: dict[str, str | None] = {
            **CLEAN,
            "RHEOSTAT_URL": url,
            "RHEOSTAT_PROJECT": project,
            "RHEOSTAT_AUTHOR": "ann",
        }

    def run(self, *arguments: str, code: int = 0, input: str | None = None, **env: str | None) -> Result:
        result = CliRunner().invoke(root, arguments, input=input, env={**self.env, **env})
        assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.output}"
        return result

    def json(self, *arguments: str, code: int = 0, input: str | None = None) -> Any:
        result = self.run(*arguments, "--json", code=code, input=input)
        return json.loads(result.stdout if code == 0 else result.stderr)

    def apply(self, text: str, *options: str, code: int = 0) -> Result:
        return self.run("apply", "-", *options, code=code, input=text)

    def revision(self) -> int:
        return int(self.json("version")["server"]["revision"])

    def process(self, *arguments: str) -> Process:
        env = {name: value for name, value in self.env.items() if value is not None}
        return Process(*arguments, env=env)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One open server for all tests that do not end it."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers that the test may end."""
    made: list[Server] = []

    def make(*options: str) -> Server:
        folder = tmp_path / f"server-{len(made)}"
        folder.mkdir()
        made.append(Server(folder, *options))
        return made[-1]

    yield make
    for running in made:
        running.stop()


_numbers = itertools.count(1)

DOCUMENT = """\
project: {project}
environments: [production]
features: [region, user.plan, user.id]
segments:
  beta: user.id in ["u1", "u7"]
settings:
  checkout.timeout:
    type: float
    default: 2.5
    owner: team-payments
    environments:
      production:
        value: 3.0
        rules:
          - id: first
            where: region == "eu"
            value: 4.0
          - id: second
            where: percent(user.id, salt="s") < 10
            value: 5.0
  new-checkout:
    type: bool
    default: false
  greeting:
    type: str
    default: hello
  theme:
    type: Enum["dark","light"]
    default: light
  limits:
    type: Json
    default: {{}}
  by-feature:
    type: int
    default: 1
    order: specificity
"""


@pytest.fixture
def empty(server: Server, tmp_path: Path) -> Cli:
    """Commands about a project that does not exist yet."""
    return Cli(server.url, f"p{next(_numbers)}", tmp_path)


@pytest.fixture
def cli(empty: Cli) -> Cli:
    """Commands about a project with a few settings in `production`."""
    empty.apply(DOCUMENT.format(project=empty.project))
    return empty


@pytest.fixture
def document(empty: Cli) -> str:
    """What `cli` has applied."""
    return DOCUMENT.format(project=empty.project)
