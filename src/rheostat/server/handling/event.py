"""EventService."""

from __future__ import annotations

from google.protobuf.message import Message

from rheo.v1 import event_service_pb2 as event
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    Handling,
    not_served,
)

__all__ = ["EventHandlers"]


class EventHandlers(Handling):
    """Subjects and events, which a later version serves. Safe from any thread."""

    def record_events(self, request: event.RecordEventsRequest, call: Call) -> Message:
        """Refuse: this version keeps no events."""
        raise not_served(call)

    def upsert_subjects(self, request: event.UpsertSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps no subjects."""
        raise not_served(call)

    def get_subjects(self, request: event.GetSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps no subjects."""
        raise not_served(call)

    def delete_subjects(self, request: event.DeleteSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps neither subjects nor events."""
        raise not_served(call)

    def list_subjects(self, request: event.ListSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps neither subjects nor events."""
        raise not_served(call)

    def list_subject_changes(self, request: event.ListSubjectChangesRequest, call: Call) -> Message:
        """Refuse: this version keeps neither subjects nor events."""
        raise not_served(call)

    def list_exposures(self, request: event.ListExposuresRequest, call: Call) -> Message:
        """Refuse: this version keeps neither subjects nor events."""
        raise not_served(call)

    def list_event_counts(self, request: event.ListEventCountsRequest, call: Call) -> Message:
        """Refuse: this version keeps neither subjects nor events."""
        raise not_served(call)
