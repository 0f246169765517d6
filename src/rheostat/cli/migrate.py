"""`rheostat migrate`: a store's schema."""

from __future__ import annotations

import click

from rheostat.cli.command import command
from rheostat.cli.option import json_option
from rheostat.cli.output import Output

__all__ = ["STORE_OPTION", "migrate"]

STORE_OPTION = click.option(
    "--store",
    envvar="RHEOSTAT_STORE",
    show_envvar=True,
    default="sqlite:rheostat.db",
    show_default=True,
    metavar="URL",
    help="Where the state is kept: sqlite:PATH, postgresql://USER@HOST/DATABASE, or memory:.",
)


@command(
    "migrate",
    examples=[("rheostat migrate --store sqlite:/var/lib/rheostat/rheostat.db", "before an upgraded server")],
    answer="store, schema",
)
@STORE_OPTION
@json_option
def migrate(store: str, output: Output) -> None:
    """Bring a store to this version's schema.

    A server does the same with an SQLite file when it starts. A PostgreSQL database is migrated by this command alone,
    because other servers may be using it.
    """
    from rheostat.store import migrate as migrate_store
    from rheostat.store import redacted

    schema = migrate_store(store)
    store = redacted(store)
    if output.json:
        output.answer({"store": store, "schema": schema})
    else:
        output.print(f"{store} has the schema {schema}")
