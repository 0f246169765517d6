"""DraftService: change-sets that wait."""

from __future__ import annotations

from typing import Any

from rheo.v1 import draft_service_pb2 as messages
from rheostat.model.change import PutEnvironment
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    PAGE_SIZE,
    Handling,
    author_of,
    instant_from_request,
    message_of,
    page_start,
    page_token,
)
from rheostat.service import Writer
from rheostat.service.access import resolve_project
from rheostat.service.draft import DraftView
from rheostat.wire.change import change_to_proto, mutations_from_request, warning_to_proto
from rheostat.wire.draft import draft_states_from_request, draft_to_proto

__all__ = ["DraftHandlers"]


class DraftHandlers(Handling):
    """Change-sets that wait. Safe from any thread."""

    def create_draft(self, request: messages.CreateDraftRequest, call: Call) -> messages.CreateDraftResponse:
        """Make a draft."""
        head = self.service.head
        project = resolve_project(head.state, call.principal, request.project).project.slug
        mutations = mutations_from_request(request.mutations, project=project)
        made = {mutation.slug for mutation in mutations if isinstance(mutation, PutEnvironment)}
        view = self.service.drafts.create(
            self._writer(request, call),
            project,
            self._environment_of_write(head, call, project, request.environment, made),
            mutations,
            base_revision=request.base_revision if request.HasField("base_revision") else None,
            force=request.force,
        )
        return messages.CreateDraftResponse(**_planned(view))

    def update_draft(self, request: messages.UpdateDraftRequest, call: Call) -> messages.UpdateDraftResponse:
        """Write other mutations into a draft."""
        project = self._project_of(request, call)
        view = self.service.drafts.update(
            Writer(call.principal, author_of(call), message_of(request)),
            project,
            request.id,
            mutations_from_request(request.mutations, project=project),
            version=request.version,
            force=request.force,
        )
        return messages.UpdateDraftResponse(**_planned(view))

    def get_draft(self, request: messages.GetDraftRequest, call: Call) -> messages.GetDraftResponse:
        """Answer a draft, with what it would change now."""
        project = self._project_of(request, call)
        view = self.service.drafts.get(call.principal, project, request.id)
        return messages.GetDraftResponse(**_planned(view), problem=view.problem)

    def list_drafts(self, request: messages.ListDraftsRequest, call: Call) -> messages.ListDraftsResponse:
        """Answer drafts, newest first."""
        project = self._project_of(request, call)
        page, following = self.service.drafts.list(
            call.principal,
            project,
            environment=request.environment,
            states=draft_states_from_request(request.states),
            after=page_start(request),
            limit=request.page_size or PAGE_SIZE,
        )
        return messages.ListDraftsResponse(
            drafts=[draft_to_proto(view.draft, view.missing) for view in page],
            next_page_token=page_token(following.encode()) if following else "",
        )

    def approve_draft(
        self, request: messages.ApproveDraftRequest, call: Call
    ) -> messages.ApproveDraftResponse:
        """Approve a draft."""
        view = self.service.drafts.approve(
            Writer(call.principal, request.author or author_of(call)),
            self._project_of(request, call),
            request.id,
            version=request.version,
            comment=request.comment,
        )
        return messages.ApproveDraftResponse(draft=draft_to_proto(view.draft, view.missing))

    def publish_draft(
        self, request: messages.PublishDraftRequest, call: Call
    ) -> messages.PublishDraftResponse:
        """Commit a draft, or schedule it."""
        published = self.service.drafts.publish(
            Writer(call.principal, request.author or author_of(call)),
            self._project_of(request, call),
            request.id,
            version=request.version,
            at=instant_from_request(request, "at"),
        )
        answer = messages.PublishDraftResponse(draft=draft_to_proto(published.draft))
        outcome = published.outcome
        if outcome is not None:
            answer.revision = outcome.revision
            answer.generation = outcome.generation
            answer.changes.extend(map(change_to_proto, outcome.change_set.changes))
            answer.warnings.extend(map(warning_to_proto, outcome.change_set.warnings))
        return answer

    def cancel_draft(self, request: messages.CancelDraftRequest, call: Call) -> messages.CancelDraftResponse:
        """Give a draft up."""
        view = self.service.drafts.cancel(
            Writer(call.principal, author_of(call)),
            self._project_of(request, call),
            request.id,
            version=request.version,
        )
        return messages.CancelDraftResponse(draft=draft_to_proto(view.draft, view.missing))

    def _project_of(self, request: Any, call: Call) -> str:
        _, state = self._project(request, call)
        return state.project.slug


def _planned(view: DraftView) -> dict[str, Any]:
    return {
        "draft": draft_to_proto(view.draft, view.missing),
        "changes": map(change_to_proto, view.changes),
        "warnings": map(warning_to_proto, view.warnings),
    }
