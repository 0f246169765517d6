"""The handlers of all RPCs, written once: plain functions of a request and its call.

The WSGI side calls them as they are, the ASGI side in a thread where they may wait. Watch is apart: its session is
sans-IO, and each side drives it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import config_service_pb2 as config
from rheo.v1 import declaration_pb2, watch_pb2
from rheo.v1 import event_service_pb2 as event
from rheostat._version import __version__
from rheostat.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    SettingNotFoundError,
)
from rheostat.evaluation import Context
from rheostat.evaluation.explain import explain
from rheostat.model.change import Change, ChangeSet, PutEnvironment, PutProject
from rheostat.model.declaration import Declaration, DeclarationOutcome, DeclarationResult
from rheostat.model.key import Key, KeyKind
from rheostat.model.position import Filter, parse_token
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import ProjectState
from rheostat.model.watch import Entry, SnapshotEvent, WatchEvent
from rheostat.server.call import Call, check_request
from rheostat.server.codec import Shared
from rheostat.service import Service, Writer
from rheostat.service.access import DEFAULT_PROJECT, Permission, Principal, resolve, resolve_project
from rheostat.service.plan import Plan
from rheostat.service.publish import Head, ScopedView, View
from rheostat.service.service import MAX_REVISION, Outcome, behind, no_revision
from rheostat.service.watch import WatchOptions, WatchSession
from rheostat.wire.change import (
    change_set_to_proto,
    change_to_proto,
    mutations_from_request,
    warning_to_proto,
)
from rheostat.wire.declaration import declaration_from_proto, declaration_result_to_proto
from rheostat.wire.evaluation import evaluation_to_proto
from rheostat.wire.event import EventEncoder
from rheostat.wire.instant import instant_to_proto
from rheostat.wire.key import key_kind_from_request, key_to_proto, role_from_request
from rheostat.wire.project import environment_to_proto, project_to_proto
from rheostat.wire.setting import segment_to_proto, setting_to_proto
from rheostat.wire.value import context_from_request, struct_from_request
from rheostat.wire.watch import filter_from_proto, item_to_proto, position_to_proto

__all__ = ["Handlers"]

T = TypeVar("T")

PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000
LARGE_BYTES: Final = 16 * 1024
"""A request of more than this is worth another thread, even where its handler does not wait."""

SNAPSHOT_PAGE_BYTES: Final = 256 * 1024
"""A page of a snapshot ends before the item that would make it larger, unless that is its only one."""

_HISTORY_READS: Final = 10
"""How often the store is read for a page of the history of which the caller may not see all."""

_SMALL_SNAPSHOT: Final = 8
"""Messages of a snapshot that need no admission: about 1 MiB, less than a connection's buffers may hold."""

_KEPT_SNAPSHOTS: Final = 16
"""Snapshots kept for callers who are between two pages of one."""


class Handlers:
    """The handlers over one service. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; the service is not closed by them."""
        self.service = service
        self._encoders: dict[bytes, EventEncoder[Shared]] = {}
        self._paged: OrderedDict[bytes, SnapshotEvent] = OrderedDict()
        self._lock = threading.Lock()

    def blocks(self, method: str, request: Message) -> bool:
        """Tell whether the handler may wait for the store or take long, so that an event loop must not run it."""
        if method in _NEVER_BLOCK:
            ahead = getattr(request, "min_revision", 0) > self.service.head.revision
            # An explanation of many rules takes long, and so does a large context.
            return ahead or bool(getattr(request, "explain", False)) or request.ByteSize() > LARGE_BYTES
        return True

    def handle(self, name: str, request: Any, call: Call) -> Any:
        """Check *request* and answer it. Raises only errors of `rheostat.errors`, or unexpected ones."""
        if call.deadline is not None and self.service.monotonic() >= call.deadline:
            # Nobody waits for the answer, and a write that the caller takes for refused must not happen.
            raise DeadlineExceededError("the deadline has passed")
        check_request(self.service, request, call.method)
        return getattr(self, name)(request, call)

    # Watch.

    @contextlib.contextmanager
    def watching(self, request: watch_pb2.WatchRequest, call: Call) -> Iterator[WatchSession]:
        """Check a Watch request and yield its session, which is counted as open while the context lasts."""
        check_request(self.service, request, call.method)
        service = self.service
        if service.node in request.via:
            raise FailedPreconditionError(
                f"the stream has passed through {service.node!r} already: relays watch each other in a circle",
                reason="WATCH_LOOP",
                metadata={"node": service.node},
            )
        # A project or environment that another process has just made is found by the wait for min_revision.
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        filter_ = _filter(request)
        expires_at = None if call.principal.key is None else call.principal.key.expires_at
        ends_by = None
        if expires_at is not None:
            ends_by = service.monotonic() + (expires_at - service.clock()).total_seconds()
        admission = service.admission
        with (
            admission.watch(call.principal.actor, call.address),
            admission.filter(filter_) as served,
        ):
            yield service.watch(
                WatchOptions(
                    project=project,
                    environment=environment,
                    resume=request.resume,
                    resnapshot=request.resnapshot,
                    min_revision=request.min_revision,
                    filter=filter_ if served else Filter(),
                    filter_refused=not served,
                    may_go_on=lambda: service.key_in_force(call.principal),
                    ends_by=ends_by,
                )
            )

    def sending(self, messages: Sequence[Shared]) -> contextlib.AbstractContextManager[None]:
        """Count *messages* as a snapshot that is being sent, when they are a large one."""
        if len(messages) <= _SMALL_SNAPSHOT:
            return contextlib.nullcontext()
        return self.service.admission.snapshot()

    def encode(self, event_: WatchEvent, session: WatchSession) -> Sequence[Shared]:
        """Return the messages of an event of *session*, each encoded once for all streams that send it."""
        return self._encoder().encode(event_, session.whole)

    def _encoder(self) -> EventEncoder[Shared]:
        key = self.service.head.identity.token_key
        encoder = self._encoders.get(key)
        if encoder is None:
            encoder = self._encoders[key] = EventEncoder(key, Shared)
        return encoder

    # ConfigService.

    def get_snapshot(self, request: config.GetSnapshotRequest, call: Call) -> config.GetSnapshotResponse:
        """Answer a page of an environment's state, all pages at one position."""
        service = self.service
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        scope = service.view(project, environment, head).scope(_filter(request))
        key = head.identity.token_key
        start = 0
        if request.page_token:
            event_, start = self._paged_snapshot(request.page_token, scope, head)
        else:
            position = head.position(scope.scope)
            held = parse_token(request.resume, key) if request.resume else None
            if (
                held is not None
                and held.same_history(position)
                and head.floor <= held.revision <= position.revision
                and not scope.changed_since(held.revision)
                and not scope.rewired_since(held.revision)
            ):
                return config.GetSnapshotResponse(
                    position=position_to_proto(position, key),
                    item_count=len(scope.content.entries),
                    digest=scope.digest,
                    up_to_date=True,
                )
            event_ = scope.snapshot(position)
        items = _page_of_items(event_.entries[start : start + (request.page_size or PAGE_SIZE)])
        end = start + len(items)
        token = event_.position.token(key)
        response = config.GetSnapshotResponse(
            position=position_to_proto(event_.position, key),
            items=items,
            item_count=len(event_.entries),
            digest=event_.digest,
        )
        if end < len(event_.entries):
            with self._lock:
                self._paged[token] = event_
                self._paged.move_to_end(token)
                while len(self._paged) > _KEPT_SNAPSHOTS:
                    self._paged.popitem(last=False)
            response.next_page_token = _page_token(token + end.to_bytes(4, "big"))
        return response

    def _paged_snapshot(self, page_token: str, scope: ScopedView, head: Head) -> tuple[SnapshotEvent, int]:
        raw = _read_page_token(page_token)
        position = parse_token(raw[:-4], head.identity.token_key)
        if position is None or position.scope != scope.scope:
            raise _bad_page_token()
        start = int.from_bytes(raw[-4:], "big")
        with self._lock:
            kept = self._paged.get(raw[:-4])
        if kept is None and position.same_history(head.position(scope.scope)):
            # Another process answered the page before.
            if position.revision > head.revision:
                head = self.service.catch_up()
                scope = self.service.view(scope.view.project, scope.view.environment, head).scope(
                    scope.filter
                )
            if position.revision <= head.revision and not (
                scope.changed_since(position.revision) or scope.rewired_since(position.revision)
            ):
                kept = SnapshotEvent(position, scope.content)
        if kept is None:
            raise FailedPreconditionError(
                "the state has changed since the page before; begin again without page_token",
                reason="PAGE_EXPIRED",
            )
        return kept, start

    def evaluate(self, request: config.EvaluateRequest, call: Call) -> config.EvaluateResponse:
        """Evaluate one setting."""
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        context = self._context(request, call)
        view = self.service.view(project, environment, head)
        if view.snapshot.setting(request.name) is None:
            raise _no_setting(request.name, environment)
        return config.EvaluateResponse(
            evaluation=self._evaluation(view, head, request.name, context, request.explain, call)
        )

    def evaluate_all(self, request: config.EvaluateAllRequest, call: Call) -> config.EvaluateAllResponse:
        """Evaluate several settings at one revision."""
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        context = self._context(request, call)
        view = self.service.view(project, environment, head)
        names = list(request.names) or sorted(view.snapshot.settings)
        response = config.EvaluateAllResponse(revision=head.revision)
        size, limit = 0, self.service.limits.max_snapshot_bytes
        for name in names:
            evaluation = self._evaluation(view, head, name, context, request.explain, call)
            # One large setting can be named ten thousand times.
            size += evaluation.ByteSize()
            if size > limit:
                raise LimitExceededError(
                    f"the values together take more than {limit} bytes (max_snapshot_bytes); name fewer settings",
                    limit="max_snapshot_bytes",
                )
            response.evaluations.append(evaluation)
        return response

    def _evaluation(
        self, view: View, head: Head, name: str, context: Context, explained: bool, call: Call
    ) -> Any:
        # Explanations quote rules and segments, which public keys never see.
        explained = explained and not _is_public(call)
        result = dataclasses.replace(view.compiled.evaluate(name, context), revision=head.revision)
        explanation = explain(view.snapshot, name, context) if explained else None
        return evaluation_to_proto(name, result, explanation)

    def _context(self, request: config.EvaluateRequest | config.EvaluateAllRequest, call: Call) -> Context:
        if request.subjects:
            raise FailedPreconditionError(
                "stored subjects are not available on this server; put their attributes into the context",
                reason="SUBJECTS_UNAVAILABLE",
            )
        if request.HasField("attributes"):
            return Context(struct_from_request(request.attributes, "attributes"))
        return Context(context_from_request(request.context, "context"))

    def declare_settings(
        self, request: config.DeclareSettingsRequest, call: Call
    ) -> config.DeclareSettingsResponse:
        """Answer declarations, and commit those that are acceptable."""
        head = self.service.head
        project, environment = self._resolve(head, call, request.project, request.environment)
        outcome = self.service.declare(
            _declarer(request, call),
            project,
            environment,
            [_declaration(message) for message in request.declarations],
        )
        return config.DeclareSettingsResponse(
            results=[declaration_result_to_proto(result) for result in outcome.results],
            revision=outcome.revision,
            generation=outcome.generation,
            features=outcome.features,
        )

    def ping(self, request: config.PingRequest, call: Call) -> config.PingResponse:
        """Answer who is there."""
        head = self.service.head
        return config.PingResponse(
            node=self.service.node,
            version=__version__,
            time=instant_to_proto(self.service.clock()),
            generation=head.identity.generation,
            revision=head.revision,
        )

    # AdminService: writes.

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
            check=lambda made: _check_environments(made, call.principal),
        )
        return admin.CommitResponse(**self._outcome(outcome))

    def _environment_of_write(
        self, head: Head, call: Call, project: str, named: str, made: Collection[str]
    ) -> str:
        """The environment for mutations that name none; empty when there is no single one."""
        state = head.state.projects.get(project)
        if named:
            if state is None or named in made:
                return _checked_environment(call, project, named)
            return self._resolve(head, call, project, named)[1]
        visible = [
            slug
            for slug in (state.environments if state is not None else ())
            if call.principal.sees(project, slug)
        ]
        return visible[0] if len(visible) == 1 else ""

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
            check=lambda made: _check_environments(made, call.principal),
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
            expires_at=_instant(request.expires_at, "expires_at") if request.HasField("expires_at") else None,
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

    def _writer(self, request: Any, call: Call) -> Writer:
        payload = type(request)()
        payload.CopyFrom(request)
        payload.ClearField("request_id")
        author = request.author or _author(call)
        return Writer(
            call.principal, author, request.message, request.request_id, _payload_digest(payload, call)
        )

    @staticmethod
    def _outcome(outcome: Outcome) -> dict[str, Any]:
        return {
            "revision": outcome.revision,
            "generation": outcome.generation,
            "changes": [change_to_proto(change) for change in outcome.change_set.changes],
            "warnings": [warning_to_proto(warning) for warning in outcome.change_set.warnings],
            "replayed": outcome.replayed,
        }

    # AdminService: reads.

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
        page, token = _page(projects, request)
        return admin.ListProjectsResponse(
            projects=[project_to_proto(project) for project in page], next_page_token=token
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
        page, token = _page(visible, request)
        return admin.ListEnvironmentsResponse(
            environments=[environment_to_proto(environment) for environment in page], next_page_token=token
        )

    def get_setting(self, request: admin.GetSettingRequest, call: Call) -> admin.GetSettingResponse:
        """Answer one setting, by name or alias."""
        head, snapshot, environment = self._snapshot(request, call)
        setting = snapshot.setting(request.name)
        if setting is None:
            raise _no_setting(request.name, environment)
        return admin.GetSettingResponse(setting=setting_to_proto(setting), revision=head.revision)

    def list_settings(self, request: admin.ListSettingsRequest, call: Call) -> admin.ListSettingsResponse:
        """Answer settings, by name."""
        head, snapshot, _ = self._snapshot(request, call)
        matching = {
            name: setting for name, setting in snapshot.settings.items() if name.startswith(request.prefix)
        }
        page, token = _page(matching, request)
        return admin.ListSettingsResponse(
            settings=[setting_to_proto(setting) for setting in page],
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
        page, token = _page(state.segments, request)
        return admin.ListSegmentsResponse(
            segments=[segment_to_proto(segment) for segment in page],
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
            raw = _read_page_token(request.page_token)
            before = int.from_bytes(raw, "big")
            if len(raw) != 8 or before > MAX_REVISION:
                raise _bad_page_token()
        environment = request.environment
        own = call.principal.key
        if not environment and own is not None and len(own.environments) == 1:
            # The store then leaves most of what is not visible out by itself.
            environment = own.environments[0]
        read = functools.partial(
            self.service.store.history,
            project=project,
            environment=environment or None,
            kind="setting" if request.setting else None,
            key=request.setting or None,
        )
        page, following = _visible_history(read, call.principal, before, size)
        return admin.ListRevisionsResponse(
            change_sets=[change_set_to_proto(change_set) for change_set in page],
            next_page_token=_page_token(following.to_bytes(8, "big")) if following else "",
        )

    def get_key(self, request: admin.GetKeyRequest, call: Call) -> admin.GetKeyResponse:
        """Answer one key, never its secret."""
        head, state = self._project(request, call)
        key = head.state.keys.get(request.selector)
        if key is None or key.project not in (state.project.slug, "") or not call.principal.covers(key):
            raise NotFoundError(f"there is no key {request.selector!r}", reason="KEY_NOT_FOUND")
        return admin.GetKeyResponse(key=key_to_proto(key), revision=head.revision)

    def list_keys(self, request: admin.ListKeysRequest, call: Call) -> admin.ListKeysResponse:
        """Answer the keys of the project, and store-wide ones, as far as the caller covers them."""
        head, state = self._project(request, call)
        keys: dict[str, Key] = {
            selector: key
            for selector, key in head.state.keys.items()
            if key.project in (state.project.slug, "") and call.principal.covers(key)
        }
        page, token = _page(keys, request)
        return admin.ListKeysResponse(keys=[key_to_proto(key) for key in page], next_page_token=token)

    # What later versions serve.

    def report_status(self, request: config.ReportStatusRequest, call: Call) -> Message:
        """Refuse: this version keeps no reports."""
        raise _not_served(call)

    def list_clients(self, request: admin.ListClientsRequest, call: Call) -> Message:
        """Refuse: this version keeps no reports."""
        raise _not_served(call)

    def record_events(self, request: event.RecordEventsRequest, call: Call) -> Message:
        """Refuse: this version keeps no events."""
        raise _not_served(call)

    def upsert_subjects(self, request: event.UpsertSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps no subjects."""
        raise _not_served(call)

    def get_subjects(self, request: event.GetSubjectsRequest, call: Call) -> Message:
        """Refuse: this version keeps no subjects."""
        raise _not_served(call)

    # Shared.

    def _wait_for(self, min_revision: int, call: Call) -> Head:
        head = self.service.head
        if call.waited and head.revision < min_revision:
            raise behind(min_revision, head)
        left = None if call.deadline is None else call.deadline - self.service.monotonic()
        return self.service.wait_for(min_revision, left)

    def _resolve(self, head: Head, call: Call, project: str, environment: str) -> tuple[str, str]:
        return resolve(head.state, call.principal, project, environment)

    def _project(self, request: Any, call: Call) -> tuple[Head, ProjectState]:
        head = self._wait_for(getattr(request, "min_revision", 0), call)
        state = resolve_project(head.state, call.principal, request.project)
        # Project-wide requests need no environment; one that is given has to exist all the same.
        if request.environment:
            self._resolve(head, call, state.project.slug, request.environment)
        return head, state

    def _snapshot(self, request: Any, call: Call) -> tuple[Head, Snapshot, str]:
        head = self._wait_for(request.min_revision, call)
        project, environment = self._resolve(head, call, request.project, request.environment)
        return head, self.service.view(project, environment, head).snapshot, environment

    @staticmethod
    def _visible(state: ProjectState, principal: Principal) -> list[str]:
        return [slug for slug in state.environments if principal.sees(state.project.slug, slug)]


_NEVER_BLOCK: Final = frozenset(
    f"rheo.v1.{name}"
    for name in (
        "ConfigService/Evaluate",
        "ConfigService/Ping",
    )
)


def _payload_digest(payload: Message, call: Call) -> bytes:
    return hashlib.sha256(
        call.method.encode() + b"\0" + payload.SerializeToString(deterministic=True)
    ).digest()


def _author(call: Call) -> str:
    key = call.principal.key
    return "" if key is None else key.description or key.selector


def _declarer(request: config.DeclareSettingsRequest, call: Call) -> Writer:
    """Who declares: for display, the program, as it calls itself."""
    payload = config.DeclareSettingsRequest()
    payload.CopyFrom(request)
    payload.ClearField("request_id")
    # Another process of the program may repeat the request.
    payload.ClearField("client")
    client = request.client
    program = client.name or client.id
    message = f"Declared by {program}" if program else "Declared by code"
    if client.sdk:
        message = f"{message} ({client.sdk})"
    return Writer(
        call.principal,
        _author(call) or client.name,
        message,
        request.request_id,
        _payload_digest(payload, call),
    )


def _declaration(message: declaration_pb2.Declaration) -> Declaration | DeclarationResult:
    """Return a declaration, or what is answered to one that cannot be read."""
    try:
        return declaration_from_proto(message)
    except InvalidArgumentError as exc:
        return DeclarationResult(message.name, DeclarationOutcome.INVALID, message=exc.message)


def _page_of_items(entries: Sequence[Entry]) -> list[watch_pb2.Item]:
    items: list[watch_pb2.Item] = []
    size = 0
    for entry in entries:
        item = item_to_proto(entry)
        size += item.ByteSize()
        if items and size > SNAPSHOT_PAGE_BYTES:
            break
        items.append(item)
    return items


def _filter(request: Any) -> Filter:
    """The filter of a request, in a canonical form, so that equal ones share a scope."""
    return filter_from_proto(request.filter).canonical()


def _is_public(call: Call) -> bool:
    return call.principal.key is not None and call.principal.key.kind is KeyKind.PUBLIC


def _checked_environment(call: Call, project: str, environment: str) -> str:
    if not call.principal.sees(project, environment):
        raise PermissionDeniedError(
            f"the environment {environment!r} of the project {project!r} is unknown",
            reason="UNKNOWN_ENVIRONMENT",
        )
    return environment


def _check_environments(made: Plan, principal: Principal) -> None:
    """Refuse a change-set that touches, through segments and features too, what the key does not see."""
    for environment in made.environments:
        if not principal.sees(made.project, environment):
            raise PermissionDeniedError(
                "the change-set changes an environment that this key may not write", reason="OUT_OF_SCOPE"
            )


def _visible_part(change_set: ChangeSet, principal: Principal) -> ChangeSet:
    """Leave out of a change-set what the key may not see, and its request id unless the key has sent it.

    A change-set that is left without changes must not be shown at all: its message may tell what it did.
    """
    kept = tuple(change for change in change_set.changes if _is_visible(change, principal))
    own = principal.key is None or principal.actor == change_set.actor
    return dataclasses.replace(change_set, changes=kept, request_id=change_set.request_id if own else "")


def _visible_history(
    read: Callable[..., Sequence[ChangeSet]], principal: Principal, before: int | None, size: int
) -> tuple[list[ChangeSet], int]:
    """Return a page of change-sets, and the revision before which the next page begins; 0 when it is the last.

    The page is short when what is hidden from the caller would take too long to pass over.
    """
    page: list[ChangeSet] = []
    for _ in range(_HISTORY_READS):
        found = read(before=before, limit=size + 1)
        for change_set in found:
            part = _visible_part(change_set, principal)
            if part.changes:
                if len(page) == size:
                    return page, page[-1].revision
                page.append(part)
            before = change_set.revision
        if len(found) <= size:
            return page, 0
    return page, before or 0


def _is_visible(change: Change, principal: Principal) -> bool:
    if change.kind == "key":
        key = change.before if change.after is None else change.after
        return (
            Permission.ADMINISTER in principal.permissions and isinstance(key, Key) and principal.covers(key)
        )
    environment = change.key if change.kind == "environment" else change.environment
    return principal.sees(change.project, environment)


def _no_setting(name: str, environment: str) -> SettingNotFoundError:
    return SettingNotFoundError(
        f"the environment {environment!r} has no setting {name!r}",
        metadata={"setting": name, "environment": environment},
    )


def _not_served(call: Call) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"this server does not serve {call.method}", reason="NOT_SERVED", metadata={"method": call.method}
    )


def _instant(message: Timestamp, field: str) -> datetime.datetime:
    try:
        return message.ToDatetime(tzinfo=datetime.UTC)
    except (OverflowError, ValueError):
        text = "is not an instant from the year 1 to the year 9999"
        raise InvalidArgumentError(f"{field}: {text}", violations=[FieldViolation(field, text)]) from None


def _page(items: Mapping[str, T], request: Any) -> tuple[list[T], str]:
    """Return one page of *items* by key, and the token of the next one."""
    size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
    after = ""
    if request.page_token:
        try:
            after = _read_page_token(request.page_token).decode()
        except UnicodeDecodeError:
            raise _bad_page_token() from None
    names = sorted(name for name in items if name > after)
    page = names[:size]
    token = _page_token(page[-1].encode()) if len(names) > size else ""
    return [items[name] for name in page], token


def _page_token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(b"p" + raw).decode().rstrip("=")


def _read_page_token(token: str) -> bytes:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_page_token() from None
    if not raw.startswith(b"p") or len(raw) < 2:
        raise _bad_page_token()
    return raw[1:]


def _bad_page_token() -> InvalidArgumentError:
    message = "is not a token that this method answered for the same request"
    return InvalidArgumentError(f"page_token: {message}", violations=[FieldViolation("page_token", message)])
