"""Reports of clients, and rollouts."""

from __future__ import annotations

from google.protobuf.message import Message

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import config_service_pb2 as config
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    Handling,
    not_served,
)

__all__ = ["ReportHandlers"]


class ReportHandlers(Handling):
    """Where the clients are. Safe from any thread."""

    def report_status(self, request: config.ReportStatusRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def list_clients(self, request: admin.ListClientsRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def get_rollout(self, request: admin.GetRolloutRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)
