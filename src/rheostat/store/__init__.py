"""Stores: where change-sets are kept, durably and in order."""
