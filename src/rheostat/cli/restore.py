"""`rheostat restore`: what a backup that was put in place needs."""

from __future__ import annotations

from typing import Final

import click

from rheostat.cli.command import command
from rheostat.cli.migrate import STORE_OPTION
from rheostat.cli.option import json_option
from rheostat.cli.output import Output

__all__ = ["restore"]

_CAUSE: Final = "rheostat restore: a backup was put in place"

_MOST: Final = 2**53
"""Beyond it, JSON of some languages no longer tells numbers apart; and nobody has so many."""


@command(
    "restore",
    examples=[
        (
            "rheostat restore --store sqlite:/var/lib/rheostat/rheostat.db",
            "after a backup was put in its place",
        ),
        (
            "rheostat restore --store postgresql://rheostat@db.internal/shop --above 4",
            "when servers or clients may have seen generation 4, and the backup is older",
        ),
    ],
    answer="""
    store, revision
    previous_generation   of the backup
    generation            the one that begins
    """,
)
@STORE_OPTION
@click.option(
    "--above",
    type=click.IntRange(0, _MOST),
    default=0,
    metavar="GENERATION",
    help="Begin one above this too: the last that servers had (`rheostat doctor` shows it) before the store was lost.",
)
@json_option
def restore(store: str, above: int, output: Output) -> None:
    """Begin a generation after a backup was put in the place of a store.

    What was committed after the backup is lost, and its revisions will be given again, with other content. A server that
    starts on the backup cannot know that; a client that stands at such a revision would keep what was lost. A new
    generation tells them all: each client gets a snapshot, and servers that still run read the store anew.

    Run it once, after the file or the database was put back and before servers are started. Servers and clients that
    have seen more than the backup has would notice by themselves, and PostgreSQL's recovery and failover are noticed by
    its timeline; with this command nothing depends on who comes first. To run it without need costs each client one
    snapshot.
    """
    from rheostat.store import open_store, redacted
    from rheostat.store.look import describe

    before = describe(store)
    opened = open_store(store)
    try:
        # To open a database that has moved begins a generation already.
        identity = opened.identity()
        if identity.generation <= max(before.generation, above):
            identity = opened.raise_generation(above, _CAUSE)
        revision = opened.revision()
    finally:
        opened.close()
    place = redacted(store)
    if output.json:
        output.answer(
            {
                "store": place,
                "revision": revision,
                "previous_generation": before.generation,
                "generation": identity.generation,
            }
        )
        return
    output.print(
        f"{place} is in generation {identity.generation} now, after {before.generation}; "
        f"its newest revision is {revision}"
    )
    output.note("start its servers: every client gets a snapshot")
