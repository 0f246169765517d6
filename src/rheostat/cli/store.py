"""`rheostat store`: a store as a whole, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from rheostat.cli.command import Command
from rheostat.cli.migrate import STORE_OPTION
from rheostat.cli.option import json_option
from rheostat.cli.output import Output

__all__ = ["store"]

_QUIET_SECONDS: Final = 5.0
"""Between lines about the progress where there is no terminal."""


@click.group("store")
def store() -> None:
    """Copy, back up and look at a store, without a server."""


@store.command(
    "copy",
    cls=Command,
    examples=[
        (
            "rheostat store copy sqlite:rheostat.db postgresql://rheostat@db.internal/shop",
            "from one machine to several",
        ),
        (
            "rheostat store copy postgresql://rheostat@db.internal/shop sqlite:copy.db",
            "to look into it at home",
        ),
    ],
    answer="""
    source, destination
    revision, generation     of the copy
    change_sets, items, records, subjects   how many it has
    missed                   change-sets that came to the source meanwhile, which the copy does not have; null when
                             the source could not be asked any more
    seconds
    """,
)
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@json_option
def copy(source: str, destination: str, output: Output) -> None:
    """Copy a store with its whole history to another place.

    SOURCE and DESTINATION are URLs as of --store, or paths of SQLite files. The destination is a file that does not exist
    yet, or an empty database. The copy has everything: history, keys, drafts, webhooks and how far these have got. Only
    the connected clients are left out; they report again.

    Stop the servers of the source first, and start those of the copy afterwards: what is committed to the source after
    the beginning is not in the copy. The copy begins a generation, so that clients get a snapshot when they come to its
    servers, whatever they hold. It has the webhooks and the scheduled drafts of the source and goes on with them: where
    both are to be served, serve one of them with --no-background.

    The source stays as it is. When this is interrupted, nothing is left at the destination.
    """
    from rheostat.store import redacted
    from rheostat.store.copy import copy_store

    began = time.monotonic()
    with _showing(output) as show:
        copied = copy_store(source, destination, on_progress=show)
    seconds = time.monotonic() - began
    if output.json:
        output.answer(
            {
                "source": redacted(source),
                "destination": redacted(destination),
                "revision": copied.revision,
                "generation": copied.generation,
                "change_sets": copied.change_sets,
                "items": copied.items,
                "records": copied.records,
                "subjects": copied.subjects,
                "missed": copied.missed,
                "seconds": round(seconds, 3),
            }
        )
        return
    output.print(
        f"copied {redacted(source)} to {redacted(destination)}: revision {copied.revision}, "
        f"generation {copied.generation}"
    )
    output.note(_rate(copied.change_sets, seconds))
    if copied.subjects:
        output.note(f"{copied.subjects} subjects, with what is counted of them")
    if copied.missed is None:
        output.note("warning: the source could not be asked whether it has changed meanwhile", style="yellow")
    elif copied.missed:
        output.note(
            f"warning: {copied.missed} change-sets came to the source meanwhile and are not in the copy; "
            "stop its servers and copy again",
            style="yellow",
        )


@store.command(
    "backup",
    cls=Command,
    examples=[("rheostat store backup sqlite:rheostat.db backup.db", "while servers run")],
    answer="source, file, revision",
)
@click.argument("source", metavar="SOURCE")
@click.argument("file", metavar="FILE")
@json_option
def backup(source: str, file: str, output: Output) -> None:
    """Copy an SQLite store to a new file, to be put in its place one day.

    The servers of the store may run: the file shows one moment. It is the same history, in the same generation, and has
    keys and secrets. After it was put in the place of the store, `rheostat restore` says so before servers start.

    A database has its own tools: pg_basebackup, pg_dump.
    """
    from rheostat.store import redacted
    from rheostat.store.copy import back_up

    revision = back_up(source, file)
    if output.json:
        output.answer({"source": redacted(source), "file": redacted(file), "revision": revision})
    else:
        output.print(f"backed up {redacted(source)} to {redacted(file)}: revision {revision}")


@store.command(
    "show",
    cls=Command,
    examples=[
        ("rheostat store show --store sqlite:rheostat.db", "what is in it, whether or not a server runs")
    ],
    answer="""
    store, schema
    store_id      32 hexadecimal digits, the same in copies
    revision      the newest
    floor         below it, watchers get a snapshot
    items, records
    generation
    generations   [{generation, began_at, revision, cause}], all but the first one, oldest first
    """,
)
@STORE_OPTION
@json_option
def show(store: str, output: Output) -> None:
    """Show what a store is: schema, newest revision, and when its generations began, and why.

    It is read as it is, with or without servers, and nothing in it is changed.
    """
    from rheostat.store import redacted
    from rheostat.store.look import describe

    found = describe(store)
    place = redacted(store)
    if output.json:
        output.answer(
            {
                "store": place,
                "schema": found.schema,
                "store_id": found.store_id.hex(),
                "revision": found.revision,
                "floor": found.floor,
                "items": found.items,
                "records": found.records,
                "generation": found.generation,
                "generations": [
                    {
                        "generation": each.generation,
                        "began_at": each.began_at.isoformat(),
                        "revision": each.revision,
                        "cause": each.cause,
                    }
                    for each in found.beginnings
                ],
            }
        )
        return
    output.print(f"{place}: revision {found.revision}, generation {found.generation}, schema {found.schema}")
    output.print(f"{found.items} items, {found.records} records; deltas since revision {found.floor}")
    output.table(
        ("generation", "since", "revision", "because"),
        [
            (str(each.generation), f"{each.began_at:%Y-%m-%d %H:%M:%S}", str(each.revision), each.cause)
            for each in found.beginnings
        ],
    )


@contextmanager
def _showing(output: Output) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told of the progress: a bar on a terminal, else a line now and then; nothing under ``--json``."""
    began = time.monotonic()
    if output.json or not output.side.is_terminal:
        told = began

        def tell(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _QUIET_SECONDS:
                told = now
                output.note(f"{done} of {total}: {_rate(done, now - began)}")

        yield tell
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total}, {task.fields[rate]}"),
        TimeRemainingColumn(),
        console=output.side,
        transient=True,
    )
    with progress:
        bar = progress.add_task("copying", rate="")
        yield lambda done, total: progress.update(
            bar, completed=done, total=total, rate=_rate(done, time.monotonic() - began)
        )


def _rate(done: int, seconds: float) -> str:
    return f"{done} change-sets in {seconds:.1f} s, {done / max(seconds, 0.001):.0f} a second"
