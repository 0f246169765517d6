"""Records beside the history, the clients that are connected, and who let a change-set through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the two tables, and add the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "record",
        sa.Column("kind", text, primary_key=True),
        sa.Column("key", text, primary_key=True),
        sa.Column("version", number, nullable=False),
        sa.Column("due", text),
        sa.Column("body", text, nullable=False),
    )
    op.create_index(
        "record_due",
        "record",
        ["kind", "due", "key"],
        sqlite_where=sa.text("due IS NOT NULL"),
        postgresql_where=sa.text("due IS NOT NULL"),
    )
    op.create_table(
        "client",
        sa.Column("project", text, primary_key=True),
        sa.Column("environment", text, primary_key=True),
        sa.Column("id", text, primary_key=True),
        sa.Column("expires_at", text, nullable=False),
        sa.Column("reported_at", text),
        sa.Column("generation", number, nullable=False),
        sa.Column("revision", number, nullable=False),
        sa.Column("lag", sa.Float),
        sa.Column("diverged", sa.Boolean, nullable=False),
        sa.Column("types", sa.LargeBinary, nullable=False),
        sa.Column("node", text, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("sdk", text, nullable=False),
        sa.Column("error", text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("client_expires_at", "client", ["expires_at"])
    for name, default in (("draft", "''"), ("approved_by", "'[]'"), ("forced_clients", "'[]'")):
        op.add_column("change_set", sa.Column(name, text, nullable=False, server_default=sa.text(default)))
