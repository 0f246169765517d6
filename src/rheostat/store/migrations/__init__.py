"""Migrations of the SQL stores: Alembic scripts, which `rheostat.store.migration` runs."""
