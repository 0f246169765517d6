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

__all__ = [
    "SCHEMA",
    "change",
    "change_set",
    "client",
    "escape",
    "event_day",
    "event_key",
    "exposure_day",
    "item",
    "metadata",
    "record",
    "store",
    "subject",
    "subject_change",
    "subject_counter",
    "subject_feed",
    "subject_key",
    "subject_member",
    "subject_scope",
    "subject_usage",
    "unescape",
]

SCHEMA: Final = "0003"
"""The newest migration that this version knows. Four digits, so that texts compare as numbers do."""

# SQLite makes a column the table's own row number only when its type is INTEGER, which there has 64 bits.
_Number = BigInteger().with_variant(Integer(), "sqlite")


def escape(text: str) -> str:
    """Return the form that PostgreSQL has of a text; see `_EscapedText`."""
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def unescape(text: str) -> str:
    """Return the text that PostgreSQL has in this form."""
    if "\x01" in text:
        return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    return text


class _EscapedText(TypeDecorator[str]):
    """Text of PostgreSQL, which knows no U+0000: it and U+0001 become U+0001 and one more character.

    Order, equality and prefixes of the escaped texts are those of the texts themselves.
    """

    # Compared by code points, as SQLite and Python do, and not as a language sorts words; nor does an index
    # break when a new version of the system sorts them otherwise.
    impl = Text(collation="C")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: Any | None, dialect: object) -> str | None:
        return None if value is None else unescape(str(value))


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

# Subjects. Instants are texts as above; a day is the ordinal of its date, as Python counts them.

subject_scope = Table(
    "subject_scope",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("project", _Text, nullable=False),
    Column("environment", _Text, nullable=False),
    Column("subjects", _Number, nullable=False),
    Column("base", _Number, nullable=False),
)
"""The environments that have any, by the short numbers that the millions of rows below begin with; how many subjects
each has, and what is added to the versions of all of them."""

Index("subject_scope_place", subject_scope.c.project, subject_scope.c.environment, unique=True)

subject = Table(
    "subject",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, primary_key=True),
    Column("kind", _Text, nullable=False),
    Column("version", _Number, nullable=False),
    Column("month_day", Integer, nullable=False),
    Column("created_at", _Text, nullable=False),
    Column("updated_at", _Text, nullable=False),
    Column("keys", _Text, nullable=False),
    Column("traits", _Text, nullable=False),
    Column("overrides", _Text, nullable=False),
    sqlite_with_rowid=False,
)
"""The last three are JSON texts. The version is not all of it: see `rheostat.store.subject.BUMPS`, and `base`
above."""

Index("subject_kind", subject.c.scope, subject.c.kind, subject.c.id)

subject_key = Table(
    "subject_key",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("kind", _Text, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("folded", _Text, primary_key=True),
    Column("id", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Who is found by which key, with the value folded."""

subject_member = Table(
    "subject_member",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("target", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Who is a member of whom, in order."""

Index(
    "subject_member_target",
    subject_member.c.scope,
    subject_member.c.target,
    subject_member.c.id,
    unique=True,
)

subject_usage = Table(
    "subject_usage",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("event", _Text, primary_key=True),
    Column("count", _Number, nullable=False),
    # All that is counted of a subject stands on one page: what an event costs is the writing of that page.
    sqlite_with_rowid=False,
)
"""What is counted of subjects by day; day 0 is all time, see `rheostat.store.subject.TOTAL`."""

subject_change = Table(
    "subject_change",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("scope", _Number, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("kind", _Text, nullable=False),
    Column("version", _Number, nullable=False),
    Column("time", _Text, nullable=False),
    Column("actor", _Text, nullable=False),
    Column("fields", _Text, nullable=False),
)
"""Who changed subjects; ``fields`` is a JSON list of names."""

Index("subject_change_scope", subject_change.c.scope, subject_change.c.number)
Index("subject_change_id", subject_change.c.scope, subject_change.c.id, subject_change.c.number)

subject_feed = Table(
    "subject_feed",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("scope", _Number, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("at", _Text, nullable=False),
)
"""Who is another than before; an empty id for all of the environment."""

subject_counter = Table(
    "subject_counter",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="subject_counter_single_row"), primary_key=True),
    Column("feed", _Number, nullable=False),
    Column("change", _Number, nullable=False),
)
"""The newest numbers of the feed and of the changes; no row before there was one."""

event_key = Table(
    "event_key",
    metadata,
    # The day on which it was used comes first, so that those of a day are removed as one range, and new ones are
    # written where others of the day are.
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("actor", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    sqlite_with_rowid=False,
)
"""The idempotency keys of events that are counted."""

event_day = Table(
    "event_day",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("event", _Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("events", _Number, nullable=False),
    Column("quantity", _Number, nullable=False),
    Column("last_at", _Text, nullable=False),
    sqlite_with_rowid=False,
)
"""How often events happened, whoever they were of."""

exposure_day = Table(
    "exposure_day",
    metadata,
    Column("scope", _Number, primary_key=True, autoincrement=False),
    Column("setting", _Text, primary_key=True),
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("rule_id", _Text, primary_key=True),
    Column("variant", _Text, primary_key=True),
    Column("value_json", _Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("count", _Number, nullable=False),
    Column("first_at", _Text, nullable=False),
    Column("last_at", _Text, nullable=False),
    sqlite_with_rowid=False,
)
"""How often values were given."""
