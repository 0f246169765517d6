"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables, and the triggers that keep the audit history append-only."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="store_single_row"), primary_key=True),
        sa.Column("store_id", sa.LargeBinary, nullable=False),
        sa.Column("generation", number, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("token_key", sa.LargeBinary, nullable=False),
        sa.Column("revision", number, nullable=False),
        sa.Column("floor", number, nullable=False),
        sa.Column("rule_number", number, nullable=False),
        sa.Column("schema", text, nullable=False),
    )
    op.create_table(
        "change_set",
        sa.Column("revision", number, primary_key=True, autoincrement=False),
        sa.Column("generation", number, nullable=False),
        sa.Column("project", text, nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("message", text, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("request_id", text, nullable=False),
        sa.Column("payload_digest", sa.LargeBinary, nullable=False),
        sa.Column("rule_numbers", number, nullable=False),
        sa.Column("reverts", number, nullable=False),
        sa.Column("warnings", text, nullable=False),
        sa.Column("created_at", text, nullable=False),
    )
    op.create_index("change_set_project", "change_set", ["project", "revision"])
    op.create_index(
        "change_set_request",
        "change_set",
        ["actor", "request_id"],
        unique=True,
        sqlite_where=sa.text("request_id != ''"),
        postgresql_where=sa.text("request_id != ''"),
    )
    op.create_table(
        "change",
        sa.Column(
            "revision", number, sa.ForeignKey("change_set.revision"), primary_key=True, autoincrement=False
        ),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("project", text, nullable=False),
        sa.Column("environment", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.Column("before", text),
        sa.Column("after", text),
    )
    op.create_index("change_item", "change", ["kind", "key", "revision"])
    op.create_table(
        "item",
        sa.Column("project", text, primary_key=True),
        sa.Column("environment", text, primary_key=True),
        sa.Column("kind", text, primary_key=True),
        sa.Column("key", text, primary_key=True),
        sa.Column("revision", number, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("body", text),
    )
    if op.get_bind().dialect.name == "sqlite":
        for table in ("change_set", "change"):
            for event in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the audit history is append-only'); END"
                )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION rheostat_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit history is append-only'; END $$"
        )
        for table in ("change_set", "change"):
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION rheostat_append_only()"
            )
