"""The tables of the SQL stores.

What is here must equal what the scripts under ``migrations/versions`` build; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Final

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
    TypeDecorator,
    text,
)

__all__ = ["SCHEMA", "change", "change_set", "client", "item", "metadata", "record", "store"]

SCHEMA: Final = "0002"
"""The newest migration that this version knows. Four digits, so that texts compare as numbers do."""

# SQLite makes a column the table's own row number only when its type is INTEGER, which there has 64 bits.
_Number = BigInteger().with_variant(Integer(), "sqlite")


class _EscapedText(TypeDecorator[str]):
    """Text of PostgreSQL, which knows no U+0000: it and U+0001 become U+0001 and one more character.

    Order, equality and prefixes of the escaped texts are those of the texts themselves.
    """

    # Compared by code points, as SQLite and Python do, and not as a language sorts words; nor does an index
    # break when a new version of the system sorts them otherwise.
    impl = Text(collation="C")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        if value is not None and ("\x00" in value or "\x01" in value):
            return value.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
        return value

    def process_result_value(self, value: Any | None, dialect: object) -> str | None:
        if value is not None and "\x01" in value:
            return str(value).replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
        return value


_Text = Text().with_variant(_EscapedText(), "postgresql")

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
    Column("schema", _Text, nullable=False),
)
"""The one row that all writers update: the counter and the identity."""

change_set = Table(
    "change_set",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("generation", _Number, nullable=False),
    Column("project", _Text, nullable=False),
    Column("author", _Text, nullable=False),
    Column("message", _Text, nullable=False),
    Column("actor", _Text, nullable=False),
    Column("request_id", _Text, nullable=False),
    Column("payload_digest", LargeBinary, nullable=False),
    Column("rule_numbers", _Number, nullable=False),
    Column("reverts", _Number, nullable=False),
    Column("warnings", _Text, nullable=False),
    Column("created_at", _Text, nullable=False),
    # With defaults for the rows of older schemas, which nothing may change.
    Column("draft", _Text, nullable=False, server_default=text("''")),
    Column("approved_by", _Text, nullable=False, server_default=text("'[]'")),
    Column("forced_clients", _Text, nullable=False, server_default=text("'[]'")),
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
    Column("project", _Text, nullable=False),
    Column("environment", _Text, nullable=False),
    Column("kind", _Text, nullable=False),
    Column("key", _Text, nullable=False),
    Column("before", _Text),
    Column("after", _Text),
)
"""What each change-set did to each item, append-only; the items in the form of `rheostat.model.encoding`."""

Index("change_item", change.c.kind, change.c.key, change.c.revision)

item = Table(
    "item",
    metadata,
    Column("project", _Text, primary_key=True),
    Column("environment", _Text, primary_key=True),
    Column("kind", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("revision", _Number, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("body", _Text),
)
"""The items as they are now, and tombstones, whose body is NULL."""

record = Table(
    "record",
    metadata,
    Column("kind", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("version", _Number, nullable=False),
    Column("due", _Text),
    Column("body", _Text, nullable=False),
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
    Column("project", _Text, primary_key=True),
    Column("environment", _Text, primary_key=True),
    Column("id", _Text, primary_key=True),
    Column("expires_at", _Text, nullable=False),
    Column("reported_at", _Text),
    Column("generation", _Number, nullable=False),
    Column("revision", _Number, nullable=False),
    Column("lag", Float),
    Column("diverged", Boolean, nullable=False),
    Column("types", LargeBinary, nullable=False),
    Column("node", _Text, nullable=False),
    Column("actor", _Text, nullable=False),
    Column("name", _Text, nullable=False),
    Column("sdk", _Text, nullable=False),
    Column("error", _Text, nullable=False),
    # Rows in the order of the primary key: all clients of an environment are read from consecutive pages, and
    # a report rewrites one page. What is counted comes first in a row, what may be long last.
    sqlite_with_rowid=False,
)
"""Who is connected; the instants are ISO 8601 in UTC with microseconds, ``reported_at`` may be NULL."""

Index("client_expires_at", client.c.expires_at)
