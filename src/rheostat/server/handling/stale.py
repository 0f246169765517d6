"""Settings that look unused."""

from __future__ import annotations

from google.protobuf.message import Message

from rheo.v1 import admin_service_pb2 as admin
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    Handling,
    not_served,
)

__all__ = ["StaleHandlers"]


class StaleHandlers(Handling):
    """Which settings look unused. Safe from any thread."""

    def list_stale_settings(self, request: admin.ListStaleSettingsRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)
