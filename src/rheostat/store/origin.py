"""Where a PostgreSQL store was last written: the cluster, the database in it, and its timeline."""

from __future__ import annotations

import json
import logging
from typing import Final

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from rheostat.store.base import Record

__all__ = ["ORIGIN_KIND", "origin_of", "read_origin"]

ORIGIN_KIND: Final = "origin"
"""The kind of the one record that holds it."""

_ORIGIN: Final = """
SELECT (SELECT system_identifier FROM pg_control_system())
    || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
    || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
"""
"""The timeline is another one after each failover and each recovery."""

_logger = logging.getLogger(__name__)


def read_origin(connection: sqlalchemy.Connection) -> str | None:
    """Return where *connection* leads to, or None when the server does not tell.

    The transaction is rolled back then.
    """
    try:
        return str(connection.exec_driver_sql(_ORIGIN).scalar_one())
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise
        # Some hosted servers do not let anybody ask.
        connection.rollback()
        _logger.warning(
            "the server does not tell its timeline: after a failover or a restore, run `rheostat restore`"
        )
        return None


def origin_of(origin: str) -> Record:
    """Return the record that says so."""
    return Record(ORIGIN_KIND, "", json.dumps(origin))
