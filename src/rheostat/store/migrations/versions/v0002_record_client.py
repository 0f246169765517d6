"""Records beside the history, the clients that are connected, and who let a change-set through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the two tables, and add the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "record",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("key", ordered, primary_key=True),
        sa.Column("version", number, nullable=False),
        sa.Column("due", ordered),
        sa.Column("body", sa.Text, nullable=False),
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
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("id", ordered, primary_key=True),
        sa.Column("expires_at", ordered, nullable=False),
        sa.Column("reported_at", ordered),
        sa.Column("generation", number, nullable=False),
        sa.Column("revision", number, nullable=False),
        sa.Column("lag", sa.Float),
        sa.Column("diverged", sa.Boolean, nullable=False),
        sa.Column("types", sa.LargeBinary, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sdk", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("client_expires_at", "client", ["expires_at"])
    for name, default in (("draft", "''"), ("approved_by", "'[]'"), ("forced_clients", "'[]'")):
        op.add_column("change_set", sa.Column(name, sa.Text, nullable=False, server_default=sa.text(default)))
