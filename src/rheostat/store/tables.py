"""The tables of the SQL stores.

What is here must equal what the scripts under ``migrations/versions`` build; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

__all__ = ["SCHEMA", "change", "change_set", "client", "item", "metadata", "record", "store"]

SCHEMA: Final = "0002"
"""The newest migration that this version knows. Four digits, so that texts compare as numbers do."""

# SQLite makes a column the table's own row number only when its type is INTEGER, which there has 64 bits.
_Number = BigInteger().with_variant(Integer(), "sqlite")

# Text that is compared by its code points, as SQLite and Python do, and not as a language sorts words.
_Ordered = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

store = Table(
    "store",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="store_single_row"), primary_key=True),
    Column("store_id", LargeBinary, nullable=False),
    Column("generation", _Number, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("token_key", LargeBinary, nullable=False),
    Column("revision", _Number, nullable=False),
    Column("floor", _Number, nullable=False),
    Column("rule_number", _Number, nullable=False),
    # Repeats Alembic's own table, so that each writing transaction sees for free whether a newer version has
    # migrated the store meanwhile.
    Column("schema", Text, nullable=False),
)
"""The one row that all writers update: the counter and the identity."""

change_set = Table(
    "change_set",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("generation", _Number, nullable=False),
    Column("project", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("payload_digest", LargeBinary, nullable=False),
    Column("rule_numbers", _Number, nullable=False),
    Column("reverts", _Number, nullable=False),
    Column("warnings", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    # With defaults for the rows of older schemas, which nothing may change.
    Column("draft", Text, nullable=False, server_default=text("''")),
    Column("approved_by", Text, nullable=False, server_default=text("'[]'")),
    Column("forced_clients", Text, nullable=False, server_default=text("'[]'")),
)
"""The audit history, append-only; ``created_at`` is ISO 8601 in UTC with microseconds."""

Index("change_set_project", change_set.c.project, change_set.c.revision)
Index(
    "change_set_request",
    change_set.c.actor,
    change_set.c.request_id,
    unique=True,
    sqlite_where=change_set.c.request_id != "",
    postgresql_where=change_set.c.request_id != "",
)

change = Table(
    "change",
    metadata,
    Column("revision", _Number, ForeignKey("change_set.revision"), primary_key=True, autoincrement=False),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("project", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
)
"""What each change-set did to each item, append-only; the items in the form of `rheostat.model.encoding`."""

Index("change_item", change.c.kind, change.c.key, change.c.revision)

item = Table(
    "item",
    metadata,
    Column("project", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("revision", _Number, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("body", Text),
)
"""The items as they are now, and tombstones, whose body is NULL."""

record = Table(
    "record",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", _Ordered, primary_key=True),
    Column("version", _Number, nullable=False),
    Column("due", _Ordered),
    Column("body", Text, nullable=False),
)
"""What is kept beside the history; ``due`` is ISO 8601 in UTC with microseconds, or NULL."""

Index(
    "record_due",
    record.c.kind,
    record.c.due,
    record.c.key,
    sqlite_where=record.c.due.is_not(None),
    postgresql_where=record.c.due.is_not(None),
)

client = Table(
    "client",
    metadata,
    Column("project", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("id", _Ordered, primary_key=True),
    Column("expires_at", _Ordered, nullable=False),
    Column("reported_at", _Ordered),
    Column("generation", _Number, nullable=False),
    Column("revision", _Number, nullable=False),
    Column("lag", Float),
    Column("diverged", Boolean, nullable=False),
    Column("types", LargeBinary, nullable=False),
    Column("node", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sdk", Text, nullable=False),
    Column("error", Text, nullable=False),
    # Rows in the order of the primary key: all clients of an environment are read from consecutive pages, and
    # a report rewrites one page. What is counted comes first in a row, what may be long last.
    sqlite_with_rowid=False,
)
"""Who is connected; the instants are ISO 8601 in UTC with microseconds, ``reported_at`` may be NULL."""

Index("client_expires_at", client.c.expires_at)
