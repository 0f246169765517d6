"""`rheostat watch`: changes as they are committed, over a plain generated client."""

from __future__ import annotations

import datetime
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

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
from rheostat.errors import RheostatError, UnavailableError
from rheostat.model.change import Change, Item, ItemKey
from rheostat.model.position import digest_of
from rheostat.sdk.transport import CancelScope
from rheostat.wire.instant import duration_from_proto
from rheostat.wire.watch import item_from_proto, position_from_proto

__all__ = ["Watcher", "watch"]

_BACKOFF: Final = (0.2, 10.0)
"""Seconds: the bound of the first random delay, and of the last; it doubles in between."""

_MAX_DOUBLINGS: Final = 16
"""Beyond these the bound is the last in any case, and the power need not grow."""

_DIVERGED_SECONDS: Final = (240.0, 300.0)
"""The bounds of the delay while the digest goes on to differ: each try costs the server a whole snapshot."""

_SILENT_HEARTBEATS: Final = 3
"""A stream without an event for so many heartbeats is dead; see `rheo.v1.Hello.heartbeat`."""


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


class _DivergedError(UnavailableError):
    """The digest of what was received is not the server's."""


class Watcher:
    """Follows one environment and goes on after every cut; for one thread.

    The state that it holds is that of its position: a snapshot replaces it, a delta of the same history steps it,
    and the digest in each of them and in every bookmark is compared before anything is taken over. When it
    differs, a snapshot is asked for; when it differs again, what is held stays, and minutes pass before the next
    try.
    """

    def __init__(
        self,
        connection: Connection,
        wanted: watch_pb2.Filter | None = None,
        *,
        on_change: Callable[[int, Iterable[Change], bool], bool],
        on_event: Callable[[Mapping[str, Any]], None],
        initial: bool = False,
        randomness: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to watch.

        Args:
            connection: To the server.
            wanted: The filter; None for everything.
            on_change: Called with revision, changes, and whether steps were merged; False ends the watch.
            on_event: Called with what else happens, as the JSON stream says it.
            initial: Also report what the first snapshot has.
            randomness: Draws a delay between two bounds, in seconds.
            sleep: Waits.
        """
        self._connection = connection
        self._wanted = wanted
        self._on_change = on_change
        self._on_event = on_event
        self._initial = initial
        self._randomness = randomness
        self._sleep = sleep
        self._revisions: dict[ItemKey, int] = {}
        self._items: dict[ItemKey, Item] = {}
        self._pending: list[watch_pb2.Item] = []
        self._position: watch_pb2.Position | None = None
        self._heartbeat = 15.0
        self._resnapshot = False
        self._attempt = 0
        self._differences = 0
        self._spread = 0.0
        self._environment = connection.target.environment

    def run(self) -> None:
        """Watch until `on_change` says to stop.

        Raises:
            RheostatError: The first connection failed, or going on is refused.
        """
        while True:
            diverged = False
            try:
                if not self._follow():
                    return
                reason = "the server ended the stream"
            except _DivergedError as error:
                diverged = self._differences > 1
                reason = error.message
            except RheostatError as error:
                if self._position is None or not isinstance(error, UnavailableError):
                    raise
                reason = error.message.partition("\n")[0]
            delay = self._delay(diverged=diverged)
            self._on_event({"event": "disconnected", "reason": reason, "retry_in": round(delay, 3)})
            self._sleep(delay)

    def _delay(self, *, diverged: bool) -> float:
        """Draw the seconds until the next attempt, and count it."""
        first, last = _BACKOFF
        bounds = 0.0, min(last, first * 2 ** min(self._attempt, _MAX_DOUBLINGS))
        if diverged:
            bounds = _DIVERGED_SECONDS
        elif self._spread:
            bounds = 0.0, self._spread
        self._attempt += 1
        self._spread = 0.0
        return self._randomness(*bounds)

    def _follow(self) -> bool:
        """Follow one stream to its end; False when nobody wants more."""
        target = self._connection.target
        request = watch_pb2.WatchRequest(
            project=target.project,
            environment=self._environment,
            resume=b"" if self._position is None else self._position.token,
            resnapshot=self._resnapshot,
            filter=self._wanted,
        )
        with CancelScope() as scope, _Watchdog(scope, target.timeout) as watchdog:
            try:
                for event in self._connection.config.watch(request, headers=self._connection.headers):
                    watchdog.feed(self._heartbeat * _SILENT_HEARTBEATS)
                    if not self._take(event):
                        return False
            except ConnectError as error:
                if watchdog.bit:
                    raise UnavailableError("the server has gone silent") from error
                raise self._connection.translated(error) from error
        return True

    def _take(self, event: watch_pb2.WatchResponse) -> bool:
        match event.WhichOneof("event"):
            case "hello":
                self._take_hello(event.hello)
            case "snapshot_begin":
                self._pending = []
            case "snapshot_chunk":
                self._pending.extend(event.snapshot_chunk.items)
            case "snapshot_end":
                return self._take_snapshot(event.snapshot_end)
            case "delta":
                return self._take_delta(event.delta)
            case "bookmark":
                self._take_bookmark(event.bookmark)
            case "go_away":
                self._spread = duration_from_proto(event.go_away.spread)
            case _:
                pass
        return True

    def _take_hello(self, hello: watch_pb2.Hello) -> None:
        # From here on the environment is known, also when the project gets a second one.
        self._environment = hello.environment
        self._heartbeat = duration_from_proto(hello.heartbeat) or self._heartbeat
        self._on_event(
            {
                "event": "hello",
                "project": hello.project,
                "environment": hello.environment,
                "node": hello.node,
                "mode": watch_pb2.WatchMode.Name(hello.mode).removeprefix("WATCH_MODE_"),
            }
        )

    def _take_snapshot(self, end: watch_pb2.SnapshotEnd) -> bool:
        first = self._position is None
        items, self._pending = self._pending, []
        revisions = _stepped({}, items)
        self._compare(revisions, end.digest)
        if not self._resnapshot:
            self._differences = 0
        # Else only a delta or bookmark shows that the snapshot has mended it: one that always differs would
        # otherwise be answered with a snapshot each time.
        self._resnapshot = False
        gone = sorted(set(self._revisions) - set(revisions))
        changes = self._apply(
            [*items, *(watch_pb2.Item(kind=kind, key=key, deleted=True) for kind, key in gone)]
        )
        self._position = end.position
        if first:
            counts = {
                plural: sum(kind == word for kind, _ in self._items)
                for word, plural in (("setting", "settings"), ("segment", "segments"))
            }
            self._on_event({"event": "snapshot", "revision": end.position.revision, **counts})
        if changes and (not first or self._initial):
            return self._on_change(end.position.revision, changes, not first)
        return True

    def _take_delta(self, delta: watch_pb2.Delta) -> bool:
        held = self._continued(delta.position)
        if not delta.from_revision <= held.revision:
            raise UnavailableError("a step of the stream is missing")
        if delta.position.revision <= held.revision:
            return True
        self._compare(_stepped(self._revisions, delta.items), delta.digest)
        self._differences = 0
        changes = self._apply(delta.items)
        self._position = delta.position
        return self._on_change(delta.position.revision, changes, delta.coalesced) if changes else True

    def _take_bookmark(self, bookmark: watch_pb2.Bookmark) -> None:
        held = self._continued(bookmark.position)
        if bookmark.position.revision < held.revision:
            raise UnavailableError("the stream has gone back")
        self._compare(self._revisions, bookmark.digest)
        self._differences = 0
        self._position = bookmark.position

    def _continued(self, position: watch_pb2.Position) -> watch_pb2.Position:
        """Return the held position, of which *position* must be the history.

        Raises:
            UnavailableError: It is of another history; the token tells the server which one is held.
        """
        held = self._position
        if held is None:
            raise UnavailableError("the stream has begun without a snapshot")
        if not position_from_proto(held).same_history(position_from_proto(position)):
            raise UnavailableError("the stream is of another history than what is held")
        return held

    def _compare(self, revisions: Mapping[ItemKey, int], digest: int) -> None:
        """Compare the digest of *revisions*; only when it agrees does the next delay begin anew.

        Raises:
            _DivergedError: What was received is not what the server has: a snapshot has to mend it.
        """
        if digest_of((kind, key, revision) for (kind, key), revision in revisions.items()) == digest:
            self._attempt = 0
            return
        self._resnapshot = True
        self._differences += 1
        message = "what was received is not what the server has; asking for all of it"
        if self._differences > 1:
            message = "what was received is again not what the server has; keeping what is held"
        raise _DivergedError(message)

    def _apply(self, items: Iterable[watch_pb2.Item]) -> list[Change]:
        changes: list[Change] = []
        for message in items:
            key = message.kind, message.key
            received = item_from_proto(message)
            before = self._items.pop(key, None)
            if received.item is not None:
                self._items[key] = received.item
            # In another history the same revision may be something else.
            same = self._revisions.get(key) == message.revision and before == received.item
            if message.deleted:
                self._revisions.pop(key, None)
            else:
                self._revisions[key] = message.revision
            if not same and (before is not None or received.item is not None):
                environment = self._environment if message.kind == "setting" else ""
                project = self._connection.target.project
                changes.append(Change(project, environment, message.kind, message.key, before, received.item))
        return changes


def _stepped(revisions: Mapping[ItemKey, int], items: Iterable[watch_pb2.Item]) -> dict[ItemKey, int]:
    """Return what is held after *items*, of which tombstones take others away."""
    after = dict(revisions)
    for item in items:
        if item.deleted:
            after.pop((item.kind, item.key), None)
        else:
            after[item.kind, item.key] = item.revision
    return after


class _Watchdog:
    """Cancels a scope when nobody has fed it in time; works from a thread of its own."""

    def __init__(self, scope: CancelScope, seconds: float) -> None:
        self.bit = False
        self._scope = scope
        self._changed = threading.Condition()
        self._deadline = time.monotonic() + seconds
        self._ended = False
        self._thread = threading.Thread(target=self._guard, name="rheostat-watchdog", daemon=True)

    def feed(self, seconds: float) -> None:
        """Be content for so many seconds."""
        with self._changed:
            self._deadline = time.monotonic() + seconds
            self._changed.notify()

    def _guard(self) -> None:
        with self._changed:
            while not self._ended:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self.bit = True
                    break
                self._changed.wait(left)
        if self.bit:
            self._scope.cancel()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()


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
