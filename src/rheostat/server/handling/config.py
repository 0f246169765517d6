"""ConfigService."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rheo.v1 import client_pb2, declaration_pb2, watch_pb2
from rheo.v1 import config_service_pb2 as config
from rheostat._version import __version__
from rheostat.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LimitExceededError,
    PermissionDeniedError,
)
from rheostat.evaluation import Context
from rheostat.evaluation.explain import explain
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration, DeclarationOutcome, DeclarationResult
from rheostat.model.key import KeyKind
from rheostat.model.position import Filter, parse_token
from rheostat.model.watch import (
    Bookmark,
    Delta,
    Entry,
    GoAway,
    GoAwayReason,
    Hello,
    Reset,
    SnapshotEvent,
    SnapshotReason,
    WatchEvent,
)
from rheostat.server.call import Call, check_request
from rheostat.server.codec import Shared
from rheostat.server.handling.base import (
    PAGE_SIZE,
    Handling,
    author_of,
    bad_page_token,
    no_setting,
    page_token,
    payload_digest,
    read_page_token,
)
from rheostat.service import Service, Writer
from rheostat.service.access import Permission
from rheostat.service.publish import Head, ScopedView, View
from rheostat.service.subject import NOBODY, Joined
from rheostat.service.watch import WatchOptions, WatchSession
from rheostat.wire.declaration import declaration_from_proto, declaration_result_to_proto
from rheostat.wire.evaluation import evaluation_to_proto
from rheostat.wire.event import EventEncoder
from rheostat.wire.instant import instant_to_proto
from rheostat.wire.subject import reference_from_request
from rheostat.wire.value import context_from_request, struct_from_request
from rheostat.wire.watch import filter_from_proto, item_to_proto, position_to_proto

__all__ = ["ConfigHandlers"]

SNAPSHOT_PAGE_BYTES: Final = 256 * 1024
"""A page of a snapshot ends before the item that would make it larger, unless that is its only one."""

_SMALL_SNAPSHOT: Final = 8
"""Messages of a snapshot that need no admission: about 1 MiB, so that a few slow readers do not keep ordinary
environments from all others."""

_SAME_MOMENT: Final = datetime.timedelta(seconds=0.5)
"""By how much a bookmark may tell of an earlier time than it was made at."""

_KEPT_BOOKMARKS: Final = 128
"""The newest of each scope that is watched."""

_KEPT_SNAPSHOTS: Final = 16
"""Snapshots kept for callers who are between two pages of one."""


class ConfigHandlers(Handling):
    """What programs ask for. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; the service is not closed by them."""
        super().__init__(service)
        self._encoders: dict[bytes, EventEncoder[Shared]] = {}
        self._bookmarks: dict[bytes, tuple[Bookmark | None, Sequence[Shared]]] = {}
        self._paged: OrderedDict[bytes, SnapshotEvent] = OrderedDict()
        self._lock = threading.Lock()

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
        relay = call.principal.key is not None and call.principal.key.kind is KeyKind.RELAY
        admission = service.admission
        with (
            admission.watch(call.principal.actor, call.address),
            admission.filter(filter_) as served,
            self._counted(request, call, project, environment),
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
                    relay=relay,
                    # Who may not read subjects holds none, and needs no news of them.
                    subjects=request.subjects
                    and (relay or Permission.SUBJECTS in call.principal.permissions),
                    may_go_on=lambda: service.key_in_force(call.principal),
                    ends_by=lambda: service.key_ends_at(call.principal),
                )
            )

    def _counted(
        self, request: watch_pb2.WatchRequest, call: Call, project: str, environment: str
    ) -> contextlib.AbstractContextManager[None]:
        """Count a stream as a client of the fleet while the context lasts: not a person's, and not a relay's."""
        key = call.principal.key
        counts = key is None or key.kind is KeyKind.SERVER
        if not counts or not request.client.id or request.via:
            return contextlib.nullcontext()
        return self.service.fleet.connected(
            project, environment, _identity(request.client), call.principal.actor
        )

    def sending(self, messages: Sequence[Shared]) -> contextlib.AbstractContextManager[None]:
        """Count *messages* as a snapshot that is being sent, when they are a large one."""
        if len(messages) <= _SMALL_SNAPSHOT:
            return contextlib.nullcontext()
        return self.service.admission.snapshot()

    def note_events(self, events: Sequence[WatchEvent]) -> None:
        """Count what a watch was told that is not everyday."""
        count = self.service.metrics.count
        for event_ in events:
            match event_:
                case Hello(reason=SnapshotReason() as reason):
                    count("snapshots", reason.name)
                case Reset(reason=reset):
                    count("snapshots", reset.name)
                case Delta(coalesced=True):
                    count("coalesced")
                case GoAway(reason=end):
                    count("ended", end.name)
                case _:
                    pass

    def note_delivery(self, frames: int, size: int, deltas: int) -> None:
        """Count what was handed to the connections of watches.

        Args:
            frames: How many messages.
            size: Their bytes in sum.
            deltas: How many of them were deltas that lead up to the newest revision.
        """
        metrics = self.service.metrics
        metrics.delivered(frames, size)
        if deltas and metrics.newest[0]:
            metrics.lag.note(self.service.clock().timestamp() - metrics.newest[1], deltas)

    def encode(self, event_: WatchEvent, session: WatchSession) -> Sequence[Shared]:
        """Return the messages of an event of *session*, each encoded once for all streams that send it."""
        if isinstance(event_, Bookmark):
            return self._bookmark(event_, session)
        return self._encoder().encode(event_, session.whole)

    def _bookmark(self, bookmark: Bookmark, session: WatchSession) -> Sequence[Shared]:
        """Return the message of a bookmark, which may tell of a moment ago: thousands fall due together."""
        scope = bookmark.position.scope
        kept, messages = self._bookmarks.get(scope, (None, ()))
        if kept is not None and kept.origin_time <= bookmark.origin_time <= kept.origin_time + _SAME_MOMENT:
            same = dataclasses.replace(kept, origin_time=bookmark.origin_time)
            if same == bookmark:
                return messages
        messages = self._encoder().encode(bookmark, session.whole)
        if len(self._bookmarks) >= _KEPT_BOOKMARKS:
            self._bookmarks.clear()
        self._bookmarks[scope] = (bookmark, messages)
        return messages

    def slow(self) -> Shared:
        """Return the message to a client that has taken nothing for too long."""
        go_away = GoAway(GoAwayReason.SLOW, spread=0.0, grace=0.0)
        self.note_events((go_away,))
        (message,) = self._encoder().encode(go_away, _no_whole)
        return message

    def _encoder(self) -> EventEncoder[Shared]:
        key = self.service.head.identity.token_key
        encoder = self._encoders.get(key)
        if encoder is None:
            encoder = self._encoders[key] = EventEncoder(key, Shared)
        return encoder

    def get_snapshot(self, request: config.GetSnapshotRequest, call: Call) -> config.GetSnapshotResponse:
        """Answer a page of an environment's state, all pages at one position."""
        service = self.service
        head, project, environment = self._located(request, call)
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
            response.next_page_token = page_token(token + end.to_bytes(4, "big"))
        return response

    def _paged_snapshot(self, page_token: str, scope: ScopedView, head: Head) -> tuple[SnapshotEvent, int]:
        raw = read_page_token(page_token)
        position = parse_token(raw[:-4], head.identity.token_key)
        if position is None or position.scope != scope.scope:
            raise bad_page_token()
        start = int.from_bytes(raw[-4:], "big")
        with self._lock:
            kept = self._paged.get(raw[:-4])
        if kept is None and position.same_history(head.position(scope.scope)):
            # Another process answered the page before.
            if position.revision > head.revision:
                view = scope.view
                head = self._newest(view.project, view.environment)
                scope = self.service.view(view.project, view.environment, head).scope(scope.filter)
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
        head, project, environment = self._located(request, call)
        joined, context = self._joined(request, call, project, environment)
        view = self.service.view(project, environment, head)
        if view.snapshot.setting(request.name) is None:
            raise no_setting(request.name, environment)
        self.service.usage.note_reads(project, environment, (request.name,))
        return config.EvaluateResponse(
            evaluation=self._evaluation(view, head, request.name, joined, context, request.explain, call)
        )

    def evaluate_all(self, request: config.EvaluateAllRequest, call: Call) -> config.EvaluateAllResponse:
        """Evaluate several settings at one revision."""
        head, project, environment = self._located(request, call)
        joined, context = self._joined(request, call, project, environment)
        view = self.service.view(project, environment, head)
        names = list(request.names) or sorted(view.snapshot.settings)
        # Who asks for all of them says of none that it needs it.
        self.service.usage.note_reads(project, environment, request.names)
        response = config.EvaluateAllResponse(revision=head.revision)
        size, limit = 0, self.service.limits.max_snapshot_bytes
        for name in names:
            evaluation = self._evaluation(view, head, name, joined, context, request.explain, call)
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
        self,
        view: View,
        head: Head,
        name: str,
        joined: Joined,
        context: Context,
        explained: bool,
        call: Call,
    ) -> Any:
        # Explanations quote rules and segments, which public keys never see, and traits, which not all others do.
        explained = (
            explained
            and not _is_public(call)
            and (not joined.join.layer or Permission.SUBJECTS in call.principal.permissions)
        )
        result = dataclasses.replace(joined.evaluate(view, name, context), revision=head.revision)
        explanation = None
        if explained and not joined.conflict:
            # The rules are explained even where an override comes before them.
            explanation = explain(view.snapshot, name, context)
        return evaluation_to_proto(name, result, explanation)

    def _joined(
        self,
        request: config.EvaluateRequest | config.EvaluateAllRequest,
        call: Call,
        project: str,
        environment: str,
    ) -> tuple[Joined, Context]:
        """Return what the stored subjects of a request are to its evaluation, and its context."""
        attributes: Mapping[str, object] = (
            struct_from_request(request.attributes, "attributes")
            if request.HasField("attributes")
            else context_from_request(request.context, "context")
        )
        if not request.subjects:
            return NOBODY, Context(attributes)
        if not call.principal.may_name_subjects:
            raise PermissionDeniedError(
                "this public key may not name stored subjects; see 'rheostat keys create --subjects'",
                reason="SUBJECTS_NOT_ALLOWED",
            )
        references = [
            reference_from_request(reference, f"subjects[{index}]")
            for index, reference in enumerate(request.subjects)
        ]
        joined = self.service.subjects.joined(project, environment, references)
        return joined, joined.context(attributes)

    def declare_settings(
        self, request: config.DeclareSettingsRequest, call: Call
    ) -> config.DeclareSettingsResponse:
        """Answer declarations, and commit those that are acceptable."""
        head = self.service.head
        project, environment = self._resolve(head, call, request.project, request.environment)
        declarations = [_declaration(message) for message in request.declarations]
        # First: what the client could decode before it declared must not be in the way of what it declares.
        declared = self.service.fleet.declare(
            project,
            environment,
            declarations,
            continued=request.declared_types_hash,
            client=_identity(request.client),
            actor=call.principal.actor,
        )
        outcome = self.service.declare(_declarer(request, call), project, environment, declarations)
        if any(result.blocking_clients for result in outcome.results):
            self.service.fleet.note_rejected(project, environment, request.client.id)
        return config.DeclareSettingsResponse(
            results=[declaration_result_to_proto(result) for result in outcome.results],
            revision=outcome.revision,
            generation=outcome.generation,
            features=outcome.features,
            declared_types_hash=declared,
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


def _declarer(request: config.DeclareSettingsRequest, call: Call) -> Writer:
    """Who declares: for display, the program, as it calls itself."""
    payload = config.DeclareSettingsRequest()
    payload.CopyFrom(request)
    payload.ClearField("request_id")
    # Another process of the program may repeat the request.
    payload.ClearField("client")
    payload.ClearField("declared_types_hash")
    client = request.client
    program = client.name or client.id
    message = f"Declared by {program}" if program else "Declared by code"
    if client.sdk:
        message = f"{message} ({client.sdk})"
    return Writer(
        call.principal,
        author_of(call) or client.name,
        message,
        request.request_id,
        payload_digest(payload, call),
    )


def _identity(client: client_pb2.ClientIdentity) -> ClientReport:
    return ClientReport(client.id, client.name, client.sdk)


def _declaration(message: declaration_pb2.Declaration) -> Declaration | DeclarationResult:
    """Return a declaration, or what is answered to one that cannot be read."""
    try:
        return declaration_from_proto(message)
    except InvalidArgumentError as exc:
        return DeclarationResult(message.name, DeclarationOutcome.INVALID, message=exc.message)


def _no_whole() -> SnapshotEvent:
    raise AssertionError("only deltas are replaced by snapshots")


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
