"""`rheostat rollout`, and what ``--wait`` does: see how far a revision has got, and wait for it.

Waiting asks the server a few times a second, which asks the clients to report soon for as long as somebody waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.client import CLIENT_RECORD, client_record, print_clients, seconds_text
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.failure import ClientsBehindError
from rheostat.cli.option import Target, share_text, target_options, wait_option
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text
from rheostat.errors import DeadlineExceededError, PermissionDeniedError, UnavailableError
from rheostat.model.client import ClientReport
from rheostat.wire.client import client_report_from_proto
from rheostat.wire.instant import duration_from_proto, instant_from_proto

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["ROLLOUT_RECORD", "Rollout", "announce", "follow", "require", "rollout", "rollout_record"]

_POLL_SECONDS: Final = 0.25
"""Between two questions."""

_LINE_SECONDS: Final = 1.0
"""Between two lines of progress where there is no terminal."""

_MAX_LAGGARDS: Final = 1000
"""That a server names."""

ROLLOUT_RECORD = f"""environment, revision, generation, committed_at
reporting, reached, share   clients that report, those of them at the revision, and the quotient;
                            share is null when no client reports
diverged, silent            reporting clients whose state is not the server's; connected ones that
                            do not report, which count in no share
lag_seconds                 {{p50, p99, max}}, from the commit until a client had it; null when not known
complete                    whether the share that was waited for is reached; null without --wait
laggards                    [{CLIENT_RECORD}];
                            at most 1 000
more_laggards               how many are not in the list
"""
"""The keys of a rollout."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a revision has got in one environment.

    Attributes:
        environment: Slug.
        answer: The server's.
        share: What was waited for, from 0 to 1; None when nobody waits.
    """

    environment: str
    answer: admin.GetRolloutResponse
    share: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the share that was waited for is reached: that of no clients always is."""
        return self.share is None or self.answer.reached >= self.wanted

    @property
    def wanted(self) -> int:
        """How many clients make the share."""
        # 99 % of 200 are 198, whatever a float makes of it.
        return math.ceil((self.share or 0.0) * self.answer.reporting - 1e-9)

    @property
    def laggards(self) -> list[ClientReport]:
        """Those that the server named."""
        return [client_report_from_proto(each) for each in self.answer.laggards]

    @property
    def unnamed(self) -> int:
        """How many laggards the server did not name."""
        return max(0, self.answer.reporting - self.answer.reached - len(self.answer.laggards))


@command(
    "rollout",
    examples=[
        ("rheostat rollout -e production", "how far the last change has got"),
        ("rheostat rollout 42 --wait 100% --timeout 2m", "wait until every client has revision 42"),
    ],
    answer="project\n" + ROLLOUT_RECORD,
)
@click.argument("revision", type=click.IntRange(1), required=False)
@wait_option
@target_options()
def rollout(revision: int | None, wait: float | None, target: Target, output: Output) -> None:
    """Show how far a revision has got, or wait for it.

    Without REVISION it is the last that has changed the environment. Clients report about once a minute, and within seconds while somebody waits. With --wait the command ends with
    code 6, and the names of those that are behind, when the share is not reached within --timeout.
    """
    with Connection(target) as connection:
        project, environment = connection.project, connection.environment
        if wait is None:
            found = Rollout(environment, _ask(connection, environment, revision or 0, ask=False))
    if wait is not None:
        (found,), interrupted = follow(target, project, [environment], revision or 0, wait, output)
    if output.json:
        output.answer({"project": project, **rollout_record(found)})
    elif wait is None:
        output.place(project, environment, found.answer.revision)
        output.print(_text(found))
        _print_laggards(output, found)
    if wait is not None:
        require([found], output, interrupted=interrupted)


def announce(connection: Connection, environments: Collection[str] = ()) -> None:
    """Say that somebody is about to wait, so that the clients report as soon as the change has come.

    Args:
        connection: To the server.
        environments: Slugs; empty means all of the project.

    Raises:
        RheostatError: As `Connection.call`; nothing can be waited for then.
    """
    try:
        for environment in environments or _environments(connection):
            _ask(connection, environment, 0, ask=True)
    except PermissionDeniedError as error:
        if error.reason not in {"UNKNOWN_PROJECT", "UNKNOWN_ENVIRONMENT"}:
            raise
        # It is about to be made, and nobody follows it yet.


def follow(
    target: Target,
    project: str,
    environments: Collection[str],
    revision: int,
    share: float,
    output: Output,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Rollout], bool]:
    """Show how a revision arrives, until enough clients have it or `Target.patience` is over.

    Args:
        target: The server.
        project: Slug.
        environments: Slugs; empty means all of the project.
        revision: 0 means the last one of each environment.
        share: How many of the reporting clients are enough, from 0 to 1.
        output: Where to show it.
        clock: Monotonic seconds.
        sleep: Waits.

    Returns:
        How far it has got in each environment, with the names of the laggards; and whether Ctrl-C has ended it.

    Raises:
        RheostatError: The server refuses to tell, or was away until the end.
    """
    until = clock() + target.patience
    found: dict[str, Rollout] = {}
    with Connection(replace(target, project=project)) as connection, _showing(output, clock) as show:
        try:
            wanted = tuple(environments) or _environments(connection)
            while True:
                problem = None
                try:
                    for environment in wanted:
                        answer = _ask(connection, environment, revision, ask=True, names=1)
                        found[environment] = Rollout(environment, answer, share)
                except (UnavailableError, DeadlineExceededError) as error:
                    problem = error
                show([found[name] for name in wanted if name in found], problem)
                over = clock() >= until
                if over and len(found) < len(wanted) and problem is not None:
                    raise problem
                if over or (problem is None and all(each.complete for each in found.values())):
                    break
                sleep(max(0.0, min(_POLL_SECONDS, until - clock())))
            return _named(connection, found, revision), False
        except KeyboardInterrupt:
            return list(found.values()), True


def require(
    found: Sequence[Rollout], output: Output, *, interrupted: bool = False, committed: int = 0
) -> None:
    """End the command as what was waited for came out, after printing it.

    Args:
        found: How far it has got, in each environment.
        output: Where to print.
        interrupted: Ctrl-C has ended the waiting.
        committed: The revision that the command has committed before; 0 when none.

    Raises:
        ClientsBehindError: The share was not reached.
        click.Abort: Ctrl-C has ended the waiting.
    """
    if interrupted:
        stays = f"revision {committed} stays committed; " if committed else ""
        click.echo(f"{stays}look again with: rheostat rollout {committed or ''}".rstrip(), err=True)
        raise click.Abort
    for each in found:
        if not output.json:
            output.print(_text(each))
            if not each.answer.reporting:
                output.note("  no client reports, so there is nobody to wait for")
            if not each.complete:
                _print_laggards(output, each)
    late = [each for each in found if not each.complete]
    if late:
        parts = [
            f"{each.answer.reporting - each.answer.reached} of {each.answer.reporting} clients of {each.environment}"
            for each in late
        ]
        wanted = share_text(late[0].share or 0.0)
        raise ClientsBehindError(
            f"{' and '.join(parts)} have not reached revision {late[0].answer.revision} in time, and {wanted} were to"
        )


def rollout_record(found: Rollout) -> dict[str, Any]:
    """Return a rollout as the JSON that commands answer."""
    answer = found.answer
    lags = None
    if answer.HasField("lag_p50"):
        lags = {
            "p50": duration_from_proto(answer.lag_p50),
            "p99": duration_from_proto(answer.lag_p99),
            "max": duration_from_proto(answer.lag_max),
        }
    return {
        "environment": found.environment,
        "revision": answer.revision,
        "generation": answer.generation,
        "committed_at": instant_text(instant_from_proto(answer.committed_at))
        if answer.HasField("committed_at")
        else None,
        "reporting": answer.reporting,
        "reached": answer.reached,
        "share": answer.reached / answer.reporting if answer.reporting else None,
        "diverged": answer.diverged,
        "silent": answer.silent,
        "lag_seconds": lags,
        "complete": None if found.share is None else found.complete,
        "laggards": [client_record(each, answer) for each in found.laggards],
        "more_laggards": found.unnamed,
    }


def _ask(
    connection: Connection, environment: str, revision: int, *, ask: bool, names: int = _MAX_LAGGARDS
) -> admin.GetRolloutResponse:
    request = admin.GetRolloutRequest(
        project=connection.project,
        environment=environment,
        revision=revision,
        ask=ask,
        max_laggards=names,
    )
    return connection.call(connection.admin.get_rollout, request)


def _environments(connection: Connection) -> tuple[str, ...]:
    request = admin.ListEnvironmentsRequest(project=connection.project)
    return tuple(
        each.name
        for page in connection.pages(connection.admin.list_environments, request)
        for each in page.environments
    )


def _named(connection: Connection, found: dict[str, Rollout], revision: int) -> list[Rollout]:
    """Return the rollouts with the names of the laggards, of one moment."""
    named = []
    for name, each in found.items():
        answer = each.answer
        if answer.reached < answer.reporting:
            # What is known must do when the server is away now.
            with suppress(UnavailableError, DeadlineExceededError):
                answer = _ask(connection, name, revision, ask=True)
        named.append(Rollout(name, answer, each.share))
    return named


# Showing.


def _text(found: Rollout) -> str:
    answer = found.answer
    share = f" ({100 * answer.reached / answer.reporting:.3g} %)" if answer.reporting else ""
    parts = [f"{answer.reached} of {answer.reporting} reporting clients{share}"]
    if answer.HasField("lag_p50"):
        p50, p99 = (seconds_text(duration_from_proto(each)) for each in (answer.lag_p50, answer.lag_p99))
        parts.append(f"lag p50 {p50}, p99 {p99}")
    if answer.diverged:
        parts.append(f"{answer.diverged} diverged")
    if answer.silent:
        parts.append(f"{answer.silent} connected without reports")
    return f"{found.environment}: revision {answer.revision} has reached {'; '.join(parts)}"


def _print_laggards(output: Output, found: Rollout) -> None:
    print_clients(output, found.laggards, found.answer)
    if found.unnamed:
        output.print(f"and {found.unnamed} more")


@contextmanager
def _showing(
    output: Output, clock: Callable[[], float]
) -> Iterator[Callable[[list[Rollout], UnavailableError | DeadlineExceededError | None], None]]:
    """Yield what shows progress: as bars on a terminal, else as lines on standard error; nothing under ``--json``."""
    if output.json or not output.side.is_terminal:
        yield _lines(output, clock)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=output.side,
        transient=True,
    )
    with progress:
        yield _bars(progress)


def _bars(
    progress: Progress,
) -> Callable[[list[Rollout], UnavailableError | DeadlineExceededError | None], None]:
    tasks: dict[str, Any] = {}

    def show(found: list[Rollout], problem: UnavailableError | DeadlineExceededError | None) -> None:
        for each in found:
            if each.environment not in tasks:
                tasks[each.environment] = progress.add_task(each.environment, figures="")
            answer = each.answer
            figures = f"{answer.reached}/{answer.reporting}, {each.wanted} wanted"
            if answer.HasField("lag_p50"):
                p50, p99 = (duration_from_proto(lag) for lag in (answer.lag_p50, answer.lag_p99))
                figures += f", p50 {seconds_text(p50)}, p99 {seconds_text(p99)}"
            if answer.silent:
                figures += f", {answer.silent} silent"
            if problem is not None:
                figures += ", the server is away"
            progress.update(
                tasks[each.environment],
                total=max(1, answer.reporting),
                completed=answer.reached if answer.reporting else 1,
                figures=figures,
            )

    return show


def _lines(
    output: Output, clock: Callable[[], float]
) -> Callable[[list[Rollout], UnavailableError | DeadlineExceededError | None], None]:
    shown: list[str] = []
    next_at = clock()

    def show(found: list[Rollout], problem: UnavailableError | DeadlineExceededError | None) -> None:
        nonlocal shown, next_at
        texts = [_text(each) for each in found]
        if problem is not None:
            texts.append(f"asking again: {problem.message.partition(chr(10))[0]}")
        if texts != shown and clock() >= next_at:
            next_at = clock() + _LINE_SECONDS
            for text in texts:
                output.note(text)
            shown = texts

    return show
