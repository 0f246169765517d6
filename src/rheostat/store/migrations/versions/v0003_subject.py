"""Subjects, what is counted of them and of values, and the feed of their changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "subject_scope",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("project", text, nullable=False),
        sa.Column("environment", text, nullable=False),
        sa.Column("subjects", number, nullable=False),
        sa.Column("base", number, nullable=False),
    )
    op.create_index("subject_scope_place", "subject_scope", ["project", "environment"], unique=True)
    op.create_table(
        "subject",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("kind", text, nullable=False),
        sa.Column("version", number, nullable=False),
        sa.Column("month_day", sa.Integer, nullable=False),
        sa.Column("created_at", text, nullable=False),
        sa.Column("updated_at", text, nullable=False),
        sa.Column("keys", text, nullable=False),
        sa.Column("traits", text, nullable=False),
        sa.Column("overrides", text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("subject_kind", "subject", ["scope", "kind", "id"])
    op.create_table(
        "subject_key",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("kind", text, primary_key=True),
        sa.Column("name", text, primary_key=True),
        sa.Column("folded", text, primary_key=True),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subject_member",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("target", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("subject_member_target", "subject_member", ["scope", "target", "id"], unique=True)
    op.create_table(
        "subject_usage",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("event", text, primary_key=True),
        sa.Column("count", number, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subject_change",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("scope", number, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("version", number, nullable=False),
        sa.Column("time", text, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("fields", text, nullable=False),
    )
    op.create_index("subject_change_scope", "subject_change", ["scope", "number"])
    op.create_index("subject_change_id", "subject_change", ["scope", "id", "number"])
    op.create_table(
        "subject_feed",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("scope", number, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("at", text, nullable=False),
    )
    op.create_table(
        "subject_counter",
        sa.Column(
            "id",
            sa.Integer,
            sa.CheckConstraint("id = 1", name="subject_counter_single_row"),
            primary_key=True,
        ),
        sa.Column("feed", number, nullable=False),
        sa.Column("change", number, nullable=False),
    )
    op.create_table(
        "event_key",
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("actor", text, primary_key=True),
        sa.Column("key", text, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event_day",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("event", text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("events", number, nullable=False),
        sa.Column("quantity", number, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "exposure_day",
        sa.Column("scope", number, primary_key=True, autoincrement=False),
        sa.Column("setting", text, primary_key=True),
        sa.Column("revision", number, primary_key=True, autoincrement=False),
        sa.Column("rule_id", text, primary_key=True),
        sa.Column("variant", text, primary_key=True),
        sa.Column("value_json", text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", number, nullable=False),
        sa.Column("first_at", text, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sqlite_with_rowid=False,
    )
