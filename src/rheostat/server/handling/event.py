"""EventService."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rheo.v1 import event_service_pb2 as event
from rheo.v1 import subject_pb2
from rheostat.errors import FieldViolation, InvalidArgumentError, LimitExceededError, RheostatError
from rheostat.model.subject import KeyConflict, Refusal, Subject
from rheostat.model.value import INT64_MAX
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    Handling,
    bad_page_token,
    instant_from_request,
    page_start,
    page_token,
    read_page_token,
)
from rheostat.server.throttle import Throttle
from rheostat.service import Service
from rheostat.service.access import Permission
from rheostat.service.subject import refusal_of
from rheostat.store.subject_base import SubjectName
from rheostat.wire.subject import (
    event_count_to_proto,
    event_from_request,
    exposure_count_to_proto,
    patch_from_request,
    reference_from_request,
    refusal_to_proto,
    subject_change_to_proto,
    subject_to_proto,
)

__all__ = ["EventHandlers"]

T = TypeVar("T")


class EventHandlers(Handling):
    """Subjects and events. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; the service is not closed by them."""
        super().__init__(service)
        self._events = Throttle(service.limits.max_writes_per_second, what="events")

    def record_events(self, request: event.RecordEventsRequest, call: Call) -> event.RecordEventsResponse:
        """Count events."""
        project, environment = self._place(request, call)
        if Permission.EVENTS not in call.principal.permissions:
            # Anybody may have such a key, and a call may hold a thousand.
            self._events.count(call.principal.actor, len(request.events))
        now = self.service.clock()
        events = [_entry(event_from_request, message, now) for message in request.events]
        result = self.service.subjects.record(call.principal, project, environment, events)
        rejected = [
            refusal_to_proto(index, refusal) for index, refusal in enumerate(result) if refusal is not None
        ]
        return event.RecordEventsResponse(accepted=len(result) - len(rejected), rejected=rejected)

    def upsert_subjects(
        self, request: event.UpsertSubjectsRequest, call: Call
    ) -> event.UpsertSubjectsResponse:
        """Create or change subjects."""
        project, environment = self._place(request, call)
        patches = [_entry(patch_from_request, message) for message in request.subjects]
        result = self.service.subjects.upsert(call.principal, project, environment, patches)
        taken = [each for each in result if not isinstance(each, Refusal)]
        # All are written by now: what has no place is left out.
        return event.UpsertSubjectsResponse(
            subjects=self._page(taken),
            rejected=[
                refusal_to_proto(index, each)
                for index, each in enumerate(result)
                if isinstance(each, Refusal)
            ],
        )

    def get_subjects(self, request: event.GetSubjectsRequest, call: Call) -> event.GetSubjectsResponse:
        """Answer subjects."""
        project, environment = self._place(request, call)
        found = self.service.subjects.get(project, environment, _names(request.lookups))
        response = event.GetSubjectsResponse()
        size, limit = 0, self.service.limits.max_answer_bytes
        for lookup, each in zip(request.lookups, found, strict=True):
            match each:
                case None:
                    response.results.add(outcome=event.SUBJECT_OUTCOME_MISSING)
                case KeyConflict():
                    response.results.add(outcome=event.SUBJECT_OUTCOME_CONFLICT)
                case Subject(version=version) if (
                    lookup.HasField("if_version") and lookup.if_version == version
                ):
                    response.results.add(outcome=event.SUBJECT_OUTCOME_UNCHANGED)
                case _:
                    message = subject_to_proto(each)
                    # One large subject can be named a thousand times.
                    size += message.ByteSize()
                    if size > limit:
                        raise LimitExceededError(
                            f"the subjects together take more than {limit} bytes (max_answer_bytes); name fewer",
                            limit="max_answer_bytes",
                        )
                    response.results.add(outcome=event.SUBJECT_OUTCOME_FOUND, subject=message)
        return response

    def delete_subjects(
        self, request: event.DeleteSubjectsRequest, call: Call
    ) -> event.DeleteSubjectsResponse:
        """Remove subjects."""
        project, environment = self._place(request, call)
        names = _names(request.lookups)
        versions = [
            # No subject has a version that large.
            min(lookup.if_version, INT64_MAX) if lookup.HasField("if_version") else None
            for lookup in request.lookups
        ]
        result = self.service.subjects.delete(
            call.principal, project, environment, list(zip(names, versions, strict=True))
        )
        response = event.DeleteSubjectsResponse()
        for each in result:
            match each:
                case Subject():
                    outcome = event.SUBJECT_OUTCOME_FOUND
                case KeyConflict():
                    outcome = event.SUBJECT_OUTCOME_CONFLICT
                case True:
                    outcome = event.SUBJECT_OUTCOME_UNCHANGED
                case _:
                    outcome = event.SUBJECT_OUTCOME_MISSING
            response.results.add(outcome=outcome)
        return response

    def list_subjects(self, request: event.ListSubjectsRequest, call: Call) -> event.ListSubjectsResponse:
        """Answer a page of subjects."""
        project, environment = self._place(request, call)
        after = read_page_token(request.page_token) if request.page_token else b""
        if len(after) not in (0, 16):
            raise bad_page_token()
        size = _page_size(request)
        found = self.service.store.list_subjects(
            project, environment, kind=request.kind, after=after, limit=size + 1, now=self.service.clock()
        )
        response = event.ListSubjectsResponse(subjects=self._page(found[:size]))
        if len(response.subjects) < len(found):
            response.next_page_token = page_token(response.subjects[-1].id)
        return response

    def list_subject_changes(
        self, request: event.ListSubjectChangesRequest, call: Call
    ) -> event.ListSubjectChangesResponse:
        """Answer a page of changes of subjects."""
        project, environment = self._place(request, call)
        size = _page_size(request)
        found = self.service.store.subject_changes(
            project,
            environment,
            id=request.id,
            before=_number(request) if request.page_token else None,
            limit=size + 1,
        )
        page = found[:size]
        return event.ListSubjectChangesResponse(
            changes=[subject_change_to_proto(change) for change in page],
            next_page_token=page_token(str(page[-1].number).encode()) if len(found) > size else "",
        )

    def list_exposures(self, request: event.ListExposuresRequest, call: Call) -> event.ListExposuresResponse:
        """Answer a page of counts of exposures."""
        project, environment = self._place(request, call)
        size = _page_size(request)
        offset = _number(request) if request.page_token else 0
        found = self.service.store.exposures(
            project,
            environment,
            setting=request.setting,
            since=_day(request, "since"),
            until=_day(request, "until"),
            offset=offset,
            limit=size + 1,
        )
        return event.ListExposuresResponse(
            exposures=[exposure_count_to_proto(count) for count in found[:size]],
            next_page_token=page_token(str(offset + size).encode()) if len(found) > size else "",
        )

    def list_event_counts(
        self, request: event.ListEventCountsRequest, call: Call
    ) -> event.ListEventCountsResponse:
        """Answer a page of counts of events."""
        project, environment = self._place(request, call)
        size = _page_size(request)
        found = self.service.store.event_counts(
            project,
            environment,
            since=_day(request, "since"),
            until=_day(request, "until"),
            after=page_start(request),
            limit=size + 1,
        )
        page = found[:size]
        return event.ListEventCountsResponse(
            events=[event_count_to_proto(count) for count in page],
            next_page_token=page_token(page[-1].event.encode()) if len(found) > size else "",
        )

    def _page(self, subjects: Sequence[Subject]) -> list[subject_pb2.Subject]:
        """Return the first of *subjects*, at least one if there is any, up to the one that would be too much."""
        page: list[subject_pb2.Subject] = []
        room = self.service.limits.max_answer_bytes
        for subject in subjects:
            message = subject_to_proto(subject)
            room -= message.ByteSize()
            if room < 0 and page:
                break
            page.append(message)
        return page

    def _place(self, request: Any, call: Call) -> tuple[str, str]:
        return self._resolve(self.service.head, call, request.project, request.environment)


def _entry(read: Callable[..., T], message: Any, *more: object) -> T | Refusal:
    """Return an entry of a batch, or why it cannot be read: one must not hold up the others."""
    try:
        return read(message, *more)
    except RheostatError as error:
        return refusal_of(error)


def _names(lookups: Sequence[event.SubjectLookup]) -> list[SubjectName]:
    return [_name(lookup, f"lookups[{index}]") for index, lookup in enumerate(lookups)]


def _name(lookup: event.SubjectLookup, place: str) -> SubjectName:
    if lookup.WhichOneof("by") == "id":
        return lookup.id
    if lookup.HasField("if_version"):
        # Keys may belong to another subject by now, which has versions of its own.
        text = "needs the subject's id: a version is one of the subject, and keys may pass to another one"
        raise InvalidArgumentError(
            f"{place}.if_version: {text}",
            violations=[FieldViolation(f"{place}.if_version", text)],
            reason="INVALID_FIELD",
        )
    return reference_from_request(lookup.reference, f"{place}.reference")


def _page_size(request: Any) -> int:
    return min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)


def _number(request: Any) -> int:
    """Return the number in the token of a page."""
    text = page_start(request, "ascii")
    if not text.isdecimal() or int(text[:20]) > INT64_MAX - MAX_PAGE_SIZE or len(text) > 20:
        raise bad_page_token()
    return int(text)


def _day(request: Any, field: str) -> datetime.date | None:
    """Return the day, UTC, of an instant in a request."""
    instant = instant_from_request(request, field)
    return None if instant is None else instant.date()
