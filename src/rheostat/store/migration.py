"""Bringing a SQL store to the schema of this version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, select, update

from rheostat.errors import StoreError
from rheostat.store.tables import SCHEMA, store

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["SCRIPTS", "check_schema", "migrate", "require_schema", "stored_schema"]

SCRIPTS = Path(__file__).parent / "migrations"
"""Where the Alembic scripts are: inside the installed package."""


def stored_schema(connection: Connection) -> str | None:
    """Return the schema of the store behind *connection*, or None when there are no tables at all.

    Raises:
        StoreError: The tables are those of another program.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    if "store" not in names or "alembic_version" not in names:
        raise StoreError(f"the database belongs to another program: it has the table {names[0]!r}")
    schema = connection.execute(select(store.c.schema)).scalar_one_or_none()
    if schema is None:
        raise StoreError("the store is damaged: its identity is missing")
    return str(schema)


def check_schema(schema: str) -> None:
    """Refuse a store that a newer version has migrated.

    Raises:
        StoreError: *schema* is newer than this version knows.
    """
    if schema > SCHEMA:
        raise StoreError(
            f"the store has the schema {schema}, and this version knows none after {SCHEMA}; "
            "a newer version of rheostat must open it"
        )


def require_schema(connection: Connection) -> None:
    """Refuse all but a store of this version's schema.

    Raises:
        StoreError: There is no store, it belongs to another program, or its schema is older or newer.
    """
    schema = stored_schema(connection)
    if schema is None:
        raise StoreError("there is no store in the database: it is empty")
    check_schema(schema)
    if schema != SCHEMA:
        raise StoreError(
            f"the store has the schema {schema}, and this version needs {SCHEMA}; bring it there with "
            "`rheostat migrate` once no older server runs"
        )


def migrate(connection: Connection) -> bool:
    """Bring the store to `SCHEMA`, inside the transaction that the caller has begun and will commit.

    Returns:
        True when the tables are new, so that the caller must put in an identity.

    Raises:
        StoreError: The store is newer than this version, or belongs to another program.
    """
    schema = stored_schema(connection)
    if schema is not None:
        check_schema(schema)
        if schema == SCHEMA:
            return False
    _run_scripts(connection)
    if schema is None:
        return True
    connection.execute(update(store).values(schema=SCHEMA))
    return False


def _run_scripts(connection: Connection) -> None:
    # Imported late: Alembic takes longer to import than an up-to-date store takes to open.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(SCRIPTS))
    context = MigrationContext.configure(connection, opts={"transactional_ddl": True})
    pending = list(scripts.iterate_revisions("heads", context.get_current_revision() or "base"))
    with Operations.context(context):
        for script in reversed(pending):
            script.module.upgrade()
    context.stamp(scripts, "heads")
