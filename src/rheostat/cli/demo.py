"""`rheostat demo`: a server, a document, and changes that arrive live."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.apply import apply_text
from rheostat.cli.command import command
from rheostat.cli.commit import commit_now
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.diff import change_lines
from rheostat.cli.foreground import READY
from rheostat.cli.option import Target, WriteOptions, json_option
from rheostat.cli.output import Output
from rheostat.cli.state import export_state
from rheostat.cli.watch import Watcher
from rheostat.errors import MissingDependencyError, RheostatError
from rheostat.example import PROJECT, document_text
from rheostat.model.change import Change, PutRule, SetValue
from rheostat.model.condition import AllOf, Condition, Percentage
from rheostat.model.rule import Rule
from rheostat.sdk.transport import CancelScope

__all__ = ["demo"]

_ENVIRONMENT: Final = "production"
_AUTHOR: Final = "demo"

_START_SECONDS: Final = 60.0
"""How long the server may take to accept connections: its libraries take a second or two to load, more when busy."""

_ARRIVAL_SECONDS: Final = 10.0
"""A change that takes longer is lost, and fails the demo; it takes milliseconds, which are shown."""

_USERS: Final = 1000
"""How many users the program asks for."""

_STOP_SECONDS: Final = 30.0
"""The server promises to end within 5 s of being asked, on a machine that is not busy."""

_PAUSE_SECONDS: Final = 0.7
"""Between steps on a terminal, so that people can read."""


@command(
    "demo",
    examples=[
        ("rheostat demo", "start a server, apply an example, watch changes arrive; ends by itself"),
        ("rheostat demo --keep", "leave the server running, to try the other commands on it"),
    ],
    answer="""
    url, project, environment
    started_ms, applied_ms    how long the server took to start, and the document to apply
    settings                  how many the document has
    steps                     [{action, revision, arrived_ms, timeout, new_flow_users}]; arrived_ms is from sending the
                              change to having it in the watcher, with a durable commit in between; the last two are
                              what a program with the SDK reads then: a value, and of how many users in 1 000 one is on
    """,
)
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C.")
@json_option
def demo(keep: bool, output: Output) -> None:
    """See a change arrive live, in ten seconds.

    Starts a real server on a temporary SQLite store and a free port, applies the configuration of an imaginary shop,
    watches it through a generated client and reads it through the SDK, then changes a value, moves a rollout and rolls
    back. Fails when a change takes more than a second to arrive.
    """
    show = _Show(output)
    with tempfile.TemporaryDirectory(prefix="rheostat-demo-") as folder:
        started = time.perf_counter()
        with _server(Path(folder)) as (url, process):
            show.result["url"] = url
            show.timed("started_ms", started, f"a server at {url}, on a new SQLite store")
            target = Target(url=url, project=PROJECT, environment=_ENVIRONMENT)
            _run(show, target)
            if output.json:
                output.answer(show.result)
            if keep:
                _keep(output, url, process)


def _run(show: _Show, target: Target) -> None:
    started = time.perf_counter()
    how = WriteOptions(message="The example shop", author=_AUTHOR)
    apply_text(document_text(), "shop.yaml", target, how)
    with Connection(target) as connection:
        state, _ = export_state(connection, PROJECT)
        count = len(state.environments[_ENVIRONMENT].settings)
        show.result |= {"project": PROJECT, "environment": _ENVIRONMENT, "settings": count}
        show.timed(
            "applied_ms",
            started,
            f"`rheostat apply shop.yaml`: {count} settings, {len(state.segments)} segments, "
            f"{len(state.environments)} environments in one change-set",
        )
        with _reading(target) as program, _watching(target) as arrivals:
            show.line(f"a watcher of {PROJECT}/{_ENVIRONMENT}, through the generated client")
            show.program = program
            show.line(f"a program with the SDK {program.told()}")
            _steps(show, connection, arrivals)


def _steps(show: _Show, connection: Connection, arrivals: queue.Queue[_Arrival]) -> None:
    def write(*mutations: Any, message: str) -> Callable[[], int]:
        how = WriteOptions(message=message, author=_AUTHOR)
        return lambda: commit_now(connection, mutations, how, environment=_ENVIRONMENT).revision

    name = "checkout.timeout"
    timeout, _ = connection.setting(name)
    raised = 4.5 if timeout.base_value != 4.5 else 5.5
    show.step(
        f"rheostat set {name} {raised}",
        write(SetValue(name, raised), message="The bank is slow today"),
        arrivals,
    )

    name = "checkout.new-flow"
    rollout = _rollout(connection, name)
    for percent in (25, 50):
        rule = replace(rollout, condition=_widened(rollout.condition, percent * 1000))
        revision = show.step(
            f"the rollout of {name} goes to {percent} % of the users",
            write(PutRule(name, rule), message=f"Roll out to {percent} %"),
            arrivals,
        )

    def undo() -> int:
        request = admin.RevertRequest(
            project=PROJECT,
            environment=_ENVIRONMENT,
            revision=revision,
            message="Too many calls to support",
            author=_AUTHOR,
            request_id=new_request_id(),
        )
        return connection.call(connection.admin.revert, request).revision

    show.step(f"rheostat revert {revision}", undo, arrivals)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A revision in the watcher, at a time of `time.perf_counter`."""

    at: float
    revision: int
    changes: tuple[Change, ...]


@dataclass(slots=True)
class _Show:
    """What the demo tells, and its JSON answer."""

    output: Output
    result: dict[str, Any] = field(default_factory=lambda: {"steps": []})
    program: _Program | None = None

    def line(self, text: str) -> None:
        if not self.output.json:
            self.output.print(Text("✓ ", "green") + Text(text))
            self.output.flush()

    def timed(self, key: str, started: float, text: str) -> None:
        taken = (time.perf_counter() - started) * 1000
        self.result[key] = round(taken, 1)
        self.line(f"{text} ({taken:.0f} ms)")

    def step(self, action: str, change: Callable[[], int], arrivals: queue.Queue[_Arrival]) -> int:
        """Make a change, and wait until the watcher has it.

        Raises:
            click.ClickException: It did not arrive in time.
        """
        if self.output.console.is_terminal and not self.output.json:
            time.sleep(_PAUSE_SECONDS)
        if not self.output.json:
            self.output.print()
            self.output.print(Text("→ ", "bold cyan") + Text(action, "bold"))
        sent = time.perf_counter()
        revision = change()
        arrival = _arrival(arrivals, revision, sent + _ARRIVAL_SECONDS)
        if arrival is None:
            raise click.ClickException(
                f"revision {revision} did not reach the watcher within {_ARRIVAL_SECONDS:g} s"
            )
        taken = (arrival.at - sent) * 1000
        step = {"action": action, "revision": revision, "arrived_ms": round(taken, 1)}
        self.result["steps"].append(step)
        if self.program is not None:
            self.program.await_revision(revision)
            step |= {"timeout": self.program.timeout, "new_flow_users": self.program.new_flow_users}
        if not self.output.json:
            for changed in arrival.changes:
                for line in change_lines(changed):
                    self.output.print(Text("  ") + line)
            self.output.print(
                Text("✓ ", "green")
                + Text(f"revision {revision} was in the watcher {taken:.1f} ms after it was sent")
            )
            if self.program is not None:
                self.output.print(Text("✓ ", "green") + Text(f"the program {self.program.told()}"))
            self.output.flush()
        return revision


def _arrival(arrivals: queue.Queue[_Arrival], revision: int, deadline: float) -> _Arrival | None:
    while True:
        try:
            arrival = arrivals.get(timeout=max(0.0, deadline - time.perf_counter()))
        except queue.Empty:
            return None
        if arrival.revision >= revision:
            return arrival if arrival.at <= deadline else None


class _Program:
    """What a program would be that reads its settings through the SDK."""

    def __init__(self, target: Target) -> None:
        # Here, because other commands have no use for it.
        from rheostat import Client, Setting

        self._timeout = Setting(
            "checkout.timeout", float, default=2.5, version="1.2", alias="payment.timeout"
        )
        self._new_flow = Setting("checkout.new-flow", bool, default=False, version="1.1")
        self._updates: queue.Queue[int] = queue.Queue()
        self._declared = threading.Event()
        self.client: Client = Client(
            target.url,
            key=target.key or "",
            project=PROJECT,
            environment=_ENVIRONMENT,
            settings=[self._timeout, self._new_flow],
            name="demo",
            on_update=lambda position: self._updates.put(position.revision),
            on_declaration=lambda _: self._declared.set(),
        )

    @property
    def timeout(self) -> float:
        return self._timeout.get(region="eu")

    @property
    def new_flow_users(self) -> int:
        """Of how many users in 1 000 the new flow is on."""
        return sum(self._new_flow.get(region="eu", user={"id": f"u-{i}"}) for i in range(_USERS))

    def told(self) -> str:
        return f"reads checkout.timeout = {self.timeout}, and the new flow for {self.new_flow_users} of {_USERS} users"

    def await_declaration(self) -> None:
        """Wait until the server has answered what is declared, which may take a revision."""
        self._declared.wait(_START_SECONDS)

    def await_revision(self, revision: int) -> None:
        """Wait until the program reads *revision*.

        Raises:
            click.ClickException: It does not in time.
        """
        deadline = time.perf_counter() + _ARRIVAL_SECONDS
        try:
            while self.client.revision < revision:
                self._updates.get(timeout=max(0.0, deadline - time.perf_counter()))
        except queue.Empty:
            raise click.ClickException(
                f"revision {revision} did not reach the program within {_ARRIVAL_SECONDS:g} s"
            ) from None


@contextlib.contextmanager
def _reading(target: Target) -> Iterator[_Program]:
    """Run a program that reads settings while the context lasts."""
    program = _Program(target)
    with program.client:
        program.await_declaration()
        yield program


@contextlib.contextmanager
def _watching(target: Target) -> Iterator[queue.Queue[_Arrival]]:
    """Watch in a thread while the context lasts; what arrives is put into the queue."""
    arrivals: queue.Queue[_Arrival] = queue.Queue()
    ready: queue.Queue[RheostatError | None] = queue.Queue()
    scope = CancelScope()

    def changed(revision: int, changes: Iterable[Change], _: bool) -> bool:
        arrivals.put(_Arrival(time.perf_counter(), revision, tuple(changes)))
        return True

    def follow() -> None:
        try:
            with scope, Connection(target) as connection:
                Watcher(
                    connection,
                    on_change=changed,
                    on_event=lambda event: ready.put(None) if event["event"] == "snapshot" else None,
                ).run()
        except RheostatError as error:
            ready.put(error)

    thread = threading.Thread(target=follow, name="demo-watcher", daemon=True)
    thread.start()
    try:
        try:
            failed = ready.get(timeout=_START_SECONDS)
        except queue.Empty:
            raise click.ClickException("the watcher got no snapshot") from None
        if failed is not None:
            raise failed
        yield arrivals
    finally:
        scope.cancel()
        thread.join(timeout=2.0)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server in a process of its own while the context lasts; yield its URL and the process."""
    for module in ("uvicorn", "sqlalchemy"):
        if find_spec(module) is None:
            raise MissingDependencyError(
                f"the server needs {module}, which is not installed: pip install 'rheostat[server]'"
            )
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(  # noqa: S603  # this very program, with arguments of its own
            [
                sys.executable,
                *("-m", "rheostat.cli", "serve", "--port", "0", "--open"),
                *("--store", f"sqlite:{folder / 'demo.db'}", "--log-level", "warning"),
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
        )
    impatience = threading.Timer(_START_SECONDS, process.kill)
    impatience.start()
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        impatience.cancel()
        if not line.startswith(READY):
            process.kill()
            process.wait()
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            raise click.ClickException(
                f"the server did not start:\n{said}" if said else "the server did not start"
            )
        yield line.removeprefix(READY).strip(), process
    finally:
        impatience.cancel()
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _keep(output: Output, url: str, process: subprocess.Popen[str]) -> None:
    output.note("")
    output.note(f"the server goes on until Ctrl-C; in another terminal:\n  export RHEOSTAT_URL={url}")
    output.note(f"  export RHEOSTAT_PROJECT={PROJECT} RHEOSTAT_ENVIRONMENT={_ENVIRONMENT}")
    output.note("  rheostat watch")
    with contextlib.suppress(KeyboardInterrupt):
        process.wait()


def _rollout(connection: Connection, name: str) -> Rule:
    """Return the setting's rule that a percentage limits."""
    setting, _ = connection.setting(name)
    for rule in setting.rules:
        if _widened(rule.condition, 0) != rule.condition:
            return rule
    raise click.ClickException(f"the example's {name} has no rollout")


def _widened(condition: Condition | None, end: int) -> Condition | None:
    """Return *condition* with its percentage going from 0 to *end*."""
    match condition:
        case Percentage():
            return replace(condition, start=0, end=end)
        case AllOf(conditions):
            return AllOf(
                tuple(replace(p, start=0, end=end) if isinstance(p, Percentage) else p for p in conditions)
            )
        case _:
            return condition
