"""`rheostat watch`: changes as they are committed, over a plain generated client."""

from __future__ import annotations

import contextlib
import datetime
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import click
from connectrpc.errors import ConnectError
from rich.text import Text

from rheo.v1 import watch_pb2
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.diff import change_lines
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import change_record
from rheostat.cli.shell import complete_setting
from rheostat.errors import DeadlineExceededError, RheostatError, UnavailableError
from rheostat.model.change import Change
from rheostat.sdk.effect import Effect, OpenStream, Receive, Sleep
from rheostat.sdk.held import DivergedError, Held, Update
from rheostat.sdk.watch_loop import Target as LoopTarget
from rheostat.sdk.watch_loop import watch_loop

__all__ = ["Watcher", "watch"]

_BACKOFF: Final = (0.2, 10.0)
"""Seconds: the bound of the first random delay, and of the last; it doubles in between."""


@command(
    "watch",
    examples=[
        ("rheostat watch -e production", "all changes of an environment, until Ctrl-C"),
        ("rheostat watch checkout.timeout --count 1", "wait for the next change of a setting"),
        (
            "rheostat watch --json | jq -c 'select(.event == \"change\") | [.name, .after.value]'",
            "for a program",
        ),
    ],
    answer="""
    one object a line, each with `event`; more events may come:
    hello          project, environment, node, mode (SNAPSHOT, DELTA or UP_TO_DATE)
    snapshot       revision, settings and segments (how many there are)
    change         revision, coalesced, action, kind, name, environment, before, after; as in `rheostat apply`
    disconnected   reason, retry_in (seconds)
    """,
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_setting)
@click.option("--prefix", "prefixes", multiple=True, help="Only names that begin so; may be repeated.")
@click.option("--initial", is_flag=True, help="First print what there is, as if it had just been created.")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@target_options()
def watch(
    names: tuple[str, ...],
    prefixes: tuple[str, ...],
    initial: bool,
    count: int | None,
    target: Target,
    output: Output,
) -> None:
    """Print changes as they are committed: of all settings and segments, or of those named.

    When the connection is lost, the command goes on from where it was as soon as the server is back; what
    changed meanwhile is printed then. It ends on Ctrl-C, with code 0.
    """
    left = count

    def changed(revision: int, changes: Iterable[Change], coalesced: bool) -> bool:
        nonlocal left
        shown = list(changes) if left is None else list(changes)[:left]
        _print_changes(output, revision, shown, coalesced=coalesced)
        if left is not None:
            left -= len(shown)
        return left != 0

    with Connection(target) as connection:
        watcher = Watcher(
            connection,
            watch_pb2.Filter(names=names, prefixes=prefixes) if names or prefixes else None,
            on_change=changed,
            on_event=lambda event: _print_event(output, target, event),
            initial=initial,
        )
        try:
            watcher.run()
        except KeyboardInterrupt:
            output.note("")


class Watcher:
    """Follows one environment with the SDK's own loop and goes on after every cut; for one thread."""

    def __init__(
        self,
        connection: Connection,
        wanted: watch_pb2.Filter | None = None,
        *,
        on_change: Callable[[int, Iterable[Change], bool], bool],
        on_event: Callable[[Mapping[str, Any]], None],
        initial: bool = False,
        randomness: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to watch.

        Args:
            connection: To the server.
            wanted: The filter; None for everything.
            on_change: Called with revision, changes, and whether steps were merged; False ends the watch.
            on_event: Called with what else happens, as the JSON stream says it.
            initial: Also report what the first snapshot has.
            randomness: Where delays are drawn from.
            clock: Monotonic seconds.
            sleep: Waits.
        """
        self._connection = connection
        self._on_change = on_change
        self._on_event = on_event
        self._initial = initial
        self._randomness = randomness or random.Random()  # noqa: S311 - it spreads load, and guards nothing
        self._clock = clock
        self._sleep = sleep
        self._events: Iterator[watch_pb2.WatchResponse] | None = None
        self._wanted_more = True
        first, last = _BACKOFF
        target = connection.target
        self.held = Held()
        self.target = LoopTarget(
            project=target.project,
            environment=target.environment,
            filter=wanted,
            first_backoff=first,
            last_backoff=last,
            open_timeout=target.timeout,
        )

    def run(self) -> None:
        """Watch until `on_change` says to stop.

        Raises:
            RheostatError: The first connection failed, or going on is refused.
        """
        loop = watch_loop(self, clock=self._clock, randomness=self._randomness)
        with contextlib.closing(loop):
            try:
                effect = next(loop)
                while self._wanted_more:
                    try:
                        result = self._perform(effect)
                    except RheostatError as error:
                        effect = loop.throw(error)
                    else:
                        effect = loop.send(result)
            finally:
                self._leave()

    def _perform(self, effect: Effect) -> watch_pb2.WatchResponse | None:
        match effect:
            case OpenStream(request):
                self._events = iter(self._connection.config.watch(request, headers=self._connection.headers))
            case Receive(timeout):
                assert self._events is not None
                self._connection.wait_at_most(timeout)
                try:
                    return next(self._events, None)
                except ConnectError as error:
                    raise self._connection.translated(error) from error
            case Sleep(seconds):
                self._sleep(seconds)
            case _:
                self._leave()
        return None

    def _leave(self) -> None:
        events, self._events = self._events, None
        close = getattr(events, "close", None)
        if close is not None:
            close()

    # What the loop tells; see `rheostat.sdk.watch_loop.Observer`.

    def connected(self, hello: watch_pb2.Hello) -> None:
        """Say so."""
        # From here on the environment is known, also when the project gets a second one.
        self.target = replace(self.target, environment=hello.environment)
        self._on_event(
            {
                "event": "hello",
                "project": hello.project,
                "environment": hello.environment,
                "node": hello.node,
                "mode": watch_pb2.WatchMode.Name(hello.mode).removeprefix("WATCH_MODE_"),
            }
        )

    def advanced(self, update: Update) -> bool:
        """Report the changes of a step."""
        before, self.held = self.held, update.held
        first = before.position is None
        if first:
            kinds = [kind for (kind, _), held in update.held.items.items() if held.item is not None]
            counts = {"settings": kinds.count("setting"), "segments": kinds.count("segment")}
            self._on_event({"event": "snapshot", "revision": update.held.revision, **counts})
        changes = self._changes(before, update)
        if changes and (not first or self._initial):
            self._wanted_more = self._on_change(update.held.revision, changes, update.coalesced)
        return True

    def confirmed(self, held: Held) -> None:
        """Take the position over."""
        self.held = held

    def heard(self) -> None:
        """Nothing is made of it."""

    def disconnected(self, error: RheostatError | None, retry_in: float) -> None:
        """Say so; what fails before there is a state, and not only for a moment, ends the watch."""
        if error is not None and not isinstance(error, UnavailableError | DeadlineExceededError):
            raise error
        if error is not None and self.held.position is None and not isinstance(error, DivergedError):
            raise error
        reason = "the server ended the stream" if error is None else error.message.partition("\n")[0]
        self._on_event({"event": "disconnected", "reason": reason, "retry_in": round(max(0.0, retry_in), 3)})

    def refused(self, error: RheostatError, retry_in: float) -> None:
        """End the watch: somebody is there to do something about it."""
        raise error

    def asked_to_report(self, within: float) -> None:
        """Nothing is reported: this is no program that reads settings."""

    def differed(self, times: int) -> None:
        """Nothing is made of it: `disconnected` is told why."""

    def _changes(self, before: Held, update: Update) -> list[Change]:
        changes: list[Change] = []
        for kind, key in sorted(update.changed):
            old, new = before.items.get((kind, key)), update.held.items.get((kind, key))
            left = None if old is None else old.item
            right = None if new is None else new.item
            # In another history the same revision may be something else.
            same = old is not None and new is not None and old.revision == new.revision and left == right
            if not same and (left is not None or right is not None):
                environment = self.target.environment if kind == "setting" else ""
                changes.append(Change(self.target.project, environment, kind, key, left, right))
        return changes


def _print_changes(output: Output, revision: int, changes: Iterable[Change], *, coalesced: bool) -> None:
    if output.json:
        for change in changes:
            record = change_record(change)
            output.line({"event": "change", "revision": revision, "coalesced": coalesced, **record})
        return
    heading = Text(f"revision {revision}", "bold")
    heading.append(f"  {datetime.datetime.now().astimezone():%H:%M:%S.%f}"[:-3], "not bold dim")
    if coalesced:
        heading.append("  (several steps at once)", "not bold dim")
    output.print(heading)
    for change in changes:
        for line in change_lines(change):
            output.print(Text("  ") + line)
    output.flush()


def _print_event(output: Output, target: Target, event: Mapping[str, Any]) -> None:
    if output.json:
        output.line(event)
        return
    match event["event"]:
        case "hello" if event["mode"] == "SNAPSHOT":
            output.place(event["project"], event["environment"])
        case "hello":
            output.note(f"connected again to {target.url}")
        case "snapshot":
            output.note(
                f"watching {event['settings']} settings and {event['segments']} segments "
                f"from revision {event['revision']} on; Ctrl-C ends"
            )
        case "disconnected":
            output.note(f"{event['reason']}; again in {event['retry_in']:.1f} s", style="yellow")
        case _:
            pass
