"""DraftService."""

from __future__ import annotations

from google.protobuf.message import Message

from rheo.v1 import draft_service_pb2 as draft
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    Handling,
    not_served,
)

__all__ = ["DraftHandlers"]


class DraftHandlers(Handling):
    """Change-sets that wait. Safe from any thread."""

    def create_draft(self, request: draft.CreateDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def update_draft(self, request: draft.UpdateDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def get_draft(self, request: draft.GetDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def list_drafts(self, request: draft.ListDraftsRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def approve_draft(self, request: draft.ApproveDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def publish_draft(self, request: draft.PublishDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def cancel_draft(self, request: draft.CancelDraftRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)
