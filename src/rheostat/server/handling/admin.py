"""AdminService: change-sets, keys and reads."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Sequence
from typing import Final

from rheo.v1 import admin_service_pb2 as admin
from rheostat.errors import (
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from rheostat.model.change import Change, ChangeSet, PutEnvironment, PutProject
from rheostat.model.key import Key, KeyKind
from rheostat.model.webhook import Webhook
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    PAGE_SIZE,
    Handling,
    bad_page_token,
    instant_from_request,
    no_setting,
    page_of,
    page_token,
    read_page_token,
)
from rheostat.service.access import DEFAULT_PROJECT, Permission, Principal, resolve, resolve_project
from rheostat.service.approval import check_reach
from rheostat.service.service import MAX_REVISION, no_revision
from rheostat.wire.change import (
    change_set_to_proto,
    mutations_from_request,
)
from rheostat.wire.key import key_kind_from_request, key_to_proto, role_from_request
from rheostat.wire.project import environment_to_proto, project_to_proto
from rheostat.wire.setting import segment_to_proto, setting_to_proto

__all__ = ["AdminHandlers"]

_OVERLAP: Final = datetime.timedelta(hours=24)
"""For how long a key stays in force beside its successor, unless something else is asked for."""

_HISTORY_READS: Final = 10
"""How often the store is read for a page of the history of which the caller may not see all."""


class AdminHandlers(Handling):
    """What people and their tools ask for. Safe from any thread."""

    def commit(self, request: admin.CommitRequest, call: Call) -> admin.CommitResponse:
        """Commit a change-set."""
        own = call.principal.key.project if call.principal.key is not None else ""
        mutations = mutations_from_request(
            request.mutations, project=request.project or own or DEFAULT_PROJECT
        )
        head = self.service.head
        creates = [mutation for mutation in mutations if isinstance(mutation, PutProject)]
        named = request.project or (creates[0].slug if creates else "")
        # To a key that does not see it, a project that exists and one that does not are the same.
        if creates and named not in head.state.projects and call.principal.sees(named):
            self._require_store_wide(call)
            project = named
        else:
            project = resolve_project(head.state, call.principal, request.project).project.slug
        made = {mutation.slug for mutation in mutations if isinstance(mutation, PutEnvironment)}
        environment = self._environment_of_write(head, call, project, request.environment, made)
        outcome = self.service.commit(
            self._writer(request, call),
            project,
            environment,
            mutations,
            expected_revision=request.expected_revision if request.HasField("expected_revision") else None,
            dry_run=request.dry_run,
            force=request.force,
            check=lambda made: check_reach(made, call.principal),
        )
        return admin.CommitResponse(**self._outcome(outcome))

    def _require_store_wide(self, call: Call) -> None:
        key = call.principal.key
        if key is not None and key.project:
            raise PermissionDeniedError("only a store-wide key may make a project")
        call.principal.require(Permission.ADMINISTER)

    def revert(self, request: admin.RevertRequest, call: Call) -> admin.RevertResponse:
        """Undo a change-set, or everything after one."""
        state = self.service.head.state
        project = resolve_project(state, call.principal, request.project).project.slug
        if request.environment:
            resolve(state, call.principal, project, request.environment)
        target = request.WhichOneof("target")
        outcome = self.service.revert(
            self._writer(request, call),
            project,
            environment=request.environment,
            revision=request.revision if target == "revision" else None,
            to_revision=request.to_revision if target == "to_revision" else None,
            expected_revision=request.expected_revision if request.HasField("expected_revision") else None,
            dry_run=request.dry_run,
            force=request.force,
            check=lambda made: check_reach(made, call.principal),
        )
        return admin.RevertResponse(**self._outcome(outcome))

    def create_key(self, request: admin.CreateKeyRequest, call: Call) -> admin.CreateKeyResponse:
        """Create a key."""
        head = self.service.head
        kind = key_kind_from_request(request.kind, "kind")
        role = role_from_request(request.role, "role")
        if (role is None) == (kind is KeyKind.USER):
            message = "a user key needs a role" if role is None else "only a user key has a role"
            raise InvalidArgumentError(message, violations=[FieldViolation("role", message)])
        project = ""
        if request.store_wide:
            if kind is not KeyKind.USER:
                message = "only a user key can be store-wide"
                raise InvalidArgumentError(message, violations=[FieldViolation("store_wide", message)])
            self._require_store_wide(call)
        else:
            project = resolve_project(head.state, call.principal, request.project).project.slug
        environments = list(request.environments)
        if request.environment and not environments:
            environments = [request.environment]
        for environment in filter(None, (*environments, request.environment)):
            _, _ = resolve(head.state, call.principal, project, environment)
        own = call.principal.key
        if own is not None and own.environments and not environments:
            environments = list(own.environments)
        key, text, outcome = self.service.create_key(
            self._writer(request, call),
            kind=kind,
            project=project,
            environments=environments,
            role=role,
            declare=request.declare if request.HasField("declare") else None,
            subjects=request.subjects,
            description=request.description,
            expires_at=instant_from_request(request, "expires_at"),
        )
        return admin.CreateKeyResponse(
            key=key_to_proto(key),
            secret=text,
            revision=outcome.revision,
            generation=outcome.generation,
            replayed=outcome.replayed,
        )

    def revoke_key(self, request: admin.RevokeKeyRequest, call: Call) -> admin.RevokeKeyResponse:
        """Revoke a key."""
        if request.project or request.environment:
            self._project(request, call)
        key, outcome = self.service.revoke_key(self._writer(request, call), request.selector)
        return admin.RevokeKeyResponse(
            key=key_to_proto(key),
            revision=outcome.revision,
            generation=outcome.generation,
            replayed=outcome.replayed,
        )

    def rotate_key(self, request: admin.RotateKeyRequest, call: Call) -> admin.RotateKeyResponse:
        """Make a successor of a key."""
        if request.project or request.environment:
            self._project(request, call)
        overlap = _OVERLAP
        if request.HasField("overlap"):
            overlap = request.overlap.ToTimedelta()
        key, old, text, outcome = self.service.rotate_key(
            self._writer(request, call),
            request.selector,
            overlap=overlap,
            expires_at=instant_from_request(request, "expires_at"),
        )
        return admin.RotateKeyResponse(
            key=key_to_proto(key),
            secret=text,
            old_key=key_to_proto(old),
            revision=outcome.revision,
            generation=outcome.generation,
            replayed=outcome.replayed,
        )

    def export(self, request: admin.ExportRequest, call: Call) -> admin.ExportResponse:
        """Answer all that a project holds, at one revision."""
        head = self._wait_for(request.min_revision, call)
        state = resolve_project(head.state, call.principal, request.project)
        slug = state.project.slug
        wanted = list(request.environments) or ([request.environment] if request.environment else [])
        for environment in wanted:
            resolve(head.state, call.principal, slug, environment)
        visible = wanted or self._visible(state, call.principal)
        return admin.ExportResponse(
            project=project_to_proto(state.project),
            environments=[
                admin.EnvironmentState(
                    environment=environment_to_proto(state.environments[name].environment),
                    settings=[
                        setting_to_proto(setting)
                        for _, setting in sorted(state.environments[name].settings.items())
                    ],
                )
                for name in visible
            ],
            segments=[segment_to_proto(segment) for _, segment in sorted(state.segments.items())],
            features=state.project.features,
            revision=head.revision,
            generation=head.identity.generation,
        )

    def get_project(self, request: admin.GetProjectRequest, call: Call) -> admin.GetProjectResponse:
        """Answer one project."""
        head, state = self._project(request, call)
        return admin.GetProjectResponse(project=project_to_proto(state.project), revision=head.revision)

    def list_projects(self, request: admin.ListProjectsRequest, call: Call) -> admin.ListProjectsResponse:
        """Answer the projects that the key knows."""
        head = self._wait_for(request.min_revision, call)
        projects = {
            slug: state.project for slug, state in head.state.projects.items() if call.principal.sees(slug)
        }
        found, token = page_of(projects, request)
        return admin.ListProjectsResponse(
            projects=[project_to_proto(project) for project in found], next_page_token=token
        )

    def get_environment(
        self, request: admin.GetEnvironmentRequest, call: Call
    ) -> admin.GetEnvironmentResponse:
        """Answer one environment."""
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        found = head.state.projects[project].environments[environment].environment
        return admin.GetEnvironmentResponse(environment=environment_to_proto(found), revision=head.revision)

    def list_environments(
        self, request: admin.ListEnvironmentsRequest, call: Call
    ) -> admin.ListEnvironmentsResponse:
        """Answer the environments that the key knows."""
        _, state = self._project(request, call)
        visible = {
            slug: state.environments[slug].environment for slug in self._visible(state, call.principal)
        }
        found, token = page_of(visible, request)
        return admin.ListEnvironmentsResponse(
            environments=[environment_to_proto(environment) for environment in found], next_page_token=token
        )

    def get_setting(self, request: admin.GetSettingRequest, call: Call) -> admin.GetSettingResponse:
        """Answer one setting, by name or alias."""
        head, snapshot, environment = self._snapshot(request, call)
        setting = snapshot.setting(request.name)
        if setting is None:
            raise no_setting(request.name, environment)
        return admin.GetSettingResponse(setting=setting_to_proto(setting), revision=head.revision)

    def list_settings(self, request: admin.ListSettingsRequest, call: Call) -> admin.ListSettingsResponse:
        """Answer settings, by name."""
        head, snapshot, _ = self._snapshot(request, call)
        matching = {
            name: setting for name, setting in snapshot.settings.items() if name.startswith(request.prefix)
        }
        found, token = page_of(matching, request)
        return admin.ListSettingsResponse(
            settings=[setting_to_proto(setting) for setting in found],
            next_page_token=token,
            revision=head.revision,
        )

    def get_segment(self, request: admin.GetSegmentRequest, call: Call) -> admin.GetSegmentResponse:
        """Answer one segment."""
        head, state = self._project(request, call)
        segment = state.segments.get(request.name)
        if segment is None:
            raise NotFoundError(
                f"the project {state.project.slug!r} has no segment {request.name!r}",
                reason="SEGMENT_NOT_FOUND",
                metadata={"segment": request.name},
            )
        return admin.GetSegmentResponse(segment=segment_to_proto(segment), revision=head.revision)

    def list_segments(self, request: admin.ListSegmentsRequest, call: Call) -> admin.ListSegmentsResponse:
        """Answer segments, by name."""
        head, state = self._project(request, call)
        found, token = page_of(state.segments, request)
        return admin.ListSegmentsResponse(
            segments=[segment_to_proto(segment) for segment in found],
            next_page_token=token,
            revision=head.revision,
        )

    def get_features(self, request: admin.GetFeaturesRequest, call: Call) -> admin.GetFeaturesResponse:
        """Answer the hierarchy of features."""
        head, state = self._project(request, call)
        return admin.GetFeaturesResponse(features=state.project.features, revision=head.revision)

    def get_revision(self, request: admin.GetRevisionRequest, call: Call) -> admin.GetRevisionResponse:
        """Answer one change-set of the history."""
        _, state = self._project(request, call)
        change_set = _visible_part(
            self.service.change_set(state.project.slug, request.revision), call.principal
        )
        if not change_set.changes:
            raise no_revision(state.project.slug, request.revision)
        return admin.GetRevisionResponse(change_set=change_set_to_proto(change_set))

    def list_revisions(self, request: admin.ListRevisionsRequest, call: Call) -> admin.ListRevisionsResponse:
        """Answer the history, newest first."""
        _, state = self._project(request, call)
        project = state.project.slug
        size = request.page_size or PAGE_SIZE
        before = None
        if request.page_token:
            raw = read_page_token(request.page_token)
            before = int.from_bytes(raw, "big")
            if len(raw) != 8 or before > MAX_REVISION:
                raise bad_page_token()
        environment = request.environment
        own = call.principal.key
        if not environment and own is not None and len(own.environments) == 1:
            # The store then leaves most of what is not visible out by itself.
            environment = own.environments[0]
        read = functools.partial(
            self.service.store.history,
            project=project,
            environment=environment or None,
            kind="setting" if request.setting else request.kind or None,
            key=request.setting or None,
            actor=request.actor or None,
            author=request.author or None,
            since=instant_from_request(request, "since"),
            until=instant_from_request(request, "until"),
        )

        def fits(changes: Sequence[Change]) -> bool:
            """Tell whether what the caller sees of a change-set is what it has asked for."""
            return (not request.kind or any(change.kind == request.kind for change in changes)) and (
                not request.setting
                or any((change.kind, change.key) == ("setting", request.setting) for change in changes)
            )

        found, following = _visible_history(read, call.principal, before, size, fits)
        return admin.ListRevisionsResponse(
            change_sets=[change_set_to_proto(change_set) for change_set in found],
            next_page_token=page_token(following.to_bytes(8, "big")) if following else "",
        )

    def get_key(self, request: admin.GetKeyRequest, call: Call) -> admin.GetKeyResponse:
        """Answer one key, never its secret."""
        head, state = self._project(request, call)
        key = head.state.keys.get(request.selector)
        if key is None or key.project not in (state.project.slug, "") or not call.principal.covers(key):
            raise NotFoundError(f"there is no key {request.selector!r}", reason="KEY_NOT_FOUND")
        used_at = self.service.usage.keys_used_at(state.project.slug).get(key.selector)
        return admin.GetKeyResponse(key=key_to_proto(key, last_used_at=used_at), revision=head.revision)

    def list_keys(self, request: admin.ListKeysRequest, call: Call) -> admin.ListKeysResponse:
        """Answer the keys of the project, and store-wide ones, as far as the caller covers them."""
        head, state = self._project(request, call)
        keys: dict[str, Key] = {
            selector: key
            for selector, key in head.state.keys.items()
            if key.project in (state.project.slug, "")
            and call.principal.covers(key)
            and (not request.environment or not key.environments or request.environment in key.environments)
        }
        found, token = page_of(keys, request)
        used_at = self.service.usage.keys_used_at(state.project.slug)
        return admin.ListKeysResponse(
            keys=[key_to_proto(key, last_used_at=used_at.get(key.selector)) for key in found],
            next_page_token=token,
        )


def _visible_part(change_set: ChangeSet, principal: Principal) -> ChangeSet:
    """Leave out of a change-set what the key may not see, and its request id unless the key has sent it.

    Which of the clients that were in its way are clients of what may be seen is not recorded, so that with a part
    of the changes they are all left out. A change-set that is left without changes must not be shown at all: its
    message may tell what it did.
    """
    kept = tuple(change for change in change_set.changes if _is_visible(change, principal))
    own = principal.key is None or principal.actor == change_set.actor
    return dataclasses.replace(
        change_set,
        changes=kept,
        request_id=change_set.request_id if own else "",
        forced_clients=change_set.forced_clients if len(kept) == len(change_set.changes) else (),
    )


def _visible_history(
    read: Callable[..., Sequence[ChangeSet]],
    principal: Principal,
    before: int | None,
    size: int,
    fits: Callable[[Sequence[Change]], bool],
) -> tuple[list[ChangeSet], int]:
    """Return a page of change-sets, and the revision before which the next page begins; 0 when it is the last.

    The page is short when what is hidden from the caller would take too long to pass over.
    """
    page: list[ChangeSet] = []
    for _ in range(_HISTORY_READS):
        found = read(before=before, limit=size + 1)
        for change_set in found:
            part = _visible_part(change_set, principal)
            if part.changes and fits(part.changes):
                if len(page) == size:
                    return page, page[-1].revision
                page.append(part)
            before = change_set.revision
        if len(found) <= size:
            return page, 0
    return page, before or 0


def _is_visible(change: Change, principal: Principal) -> bool:
    if change.kind in ("key", "webhook"):
        # Before it too: what a webhook was told of may have been narrowed to what the caller sees.
        items = [item for item in (change.before, change.after) if isinstance(item, Key | Webhook)]
        return Permission.ADMINISTER in principal.permissions and all(map(principal.covers, items))
    environment = change.key if change.kind == "environment" else change.environment
    return principal.sees(change.project, environment)
