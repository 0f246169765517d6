"""The handlers of a relay: what it answers itself, what it passes on, and what it refuses."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf.message import Message

from rheo.v1 import watch_pb2
from rheostat.errors import DeadlineExceededError, FailedPreconditionError, UnavailableError
from rheostat.model.key import KeyKind
from rheostat.relay.relay import Relay
from rheostat.server.call import Call, check_request
from rheostat.server.handler import ProgramHandlers
from rheostat.service.access import resolve
from rheostat.service.publish import Head
from rheostat.service.watch import CATCH_UP_SECONDS, WatchSession

if TYPE_CHECKING:
    from rheostat.service import Service

__all__ = ["FORWARDED_AT_ONCE", "RelayHandlers"]

_FORWARD_SECONDS: Final = 30.0
"""How long a call that is passed on may take, unless its caller says less."""

_AWAY_SECONDS: Final = 5.0

FORWARDED_AT_ONCE: Final = 16
"""Half of the application's threads: an upstream that takes calls and does not answer must not hold up the other half,
which opens watches and serves polls."""

_BUSY_SECONDS: Final = 1.0

_ANSWERED: Final = frozenset(
    f"rheo.v1.ConfigService/{name}"
    for name in ("Watch", "GetSnapshot", "Evaluate", "EvaluateAll", "Ping", "ReportStatus")
)
_EVALUATIONS: Final = frozenset(f"rheo.v1.ConfigService/{name}" for name in ("Evaluate", "EvaluateAll"))
"""Those that name stored subjects, which a relay does not have, are passed on."""

_FORWARDED: Final = frozenset(
    f"rheo.v1.{name}"
    for name in (
        "ConfigService/DeclareSettings",
        "EventService/RecordEvents",
        "EventService/UpsertSubjects",
        "EventService/GetSubjects",
        "EventService/DeleteSubjects",
    )
)


class RelayHandlers(ProgramHandlers):
    """The handlers over one relay. Safe from any thread."""

    def __init__(self, relay: Relay) -> None:
        """Make handlers; the relay is not closed by them."""
        # It offers all that the methods of `_ANSWERED` use; the others do not come that far.
        super().__init__(cast("Service", relay))
        self._relay = relay
        self._room = threading.BoundedSemaphore(FORWARDED_AT_ONCE)

    def blocks(self, method: str, request: Message) -> bool:
        """As of a node; an environment that is behind the others is waited for, too."""
        if getattr(request, "min_revision", 0) > self._relay.least_revision:
            return True
        return super().blocks(method, request)

    def handle(self, name: str, request: Any, call: Call) -> Any:
        """Answer a request, pass it on, or refuse it."""
        joins = call.method in _EVALUATIONS and bool(request.subjects)
        if call.method in _ANSWERED and not joins:
            return super().handle(name, request, call)
        if call.method not in _FORWARDED and not joins:
            upstream = self._relay.upstreams.urls[0]
            raise FailedPreconditionError(
                f"a relay does not serve {call.method}; ask its upstream, {upstream}",
                reason="ON_RELAY",
                metadata={"upstream": upstream, "method": call.method},
            )
        check_request(self.service, request, call.method)
        if not any(branch.upstream for branch in self._relay.branches):
            # Waiting for what does not answer would occupy the threads that other calls need.
            raise UnavailableError(
                f"the relay is cut off from its upstream, which {call.method} needs",
                reason="UPSTREAM_AWAY",
                retry_after=_AWAY_SECONDS,
            )
        left = _FORWARD_SECONDS
        if call.deadline is not None:
            left = min(left, call.deadline - self._relay.monotonic())
        if left <= 0:
            raise DeadlineExceededError("the deadline has passed")
        if not self._room.acquire(blocking=False):
            raise UnavailableError(
                f"the upstream has not answered {FORWARDED_AT_ONCE} calls that were passed on before this one",
                reason="UPSTREAM_AWAY",
                retry_after=_BUSY_SECONDS,
            )
        try:
            method = call.method.removeprefix("rheo.v1.")
            return self._relay.upstreams.call(method, request, left, authorization=call.authorization)
        finally:
            self._room.release()

    @contextlib.contextmanager
    def watching(self, request: watch_pb2.WatchRequest, call: Call) -> Iterator[WatchSession]:
        """As of a node, for relays below that do not watch each other in a circle."""
        key = call.principal.key
        # It becomes part of this relay's own requests: whoever else names an upstream would cut the relay off it.
        via = request.via if key is not None and key.kind is KeyKind.RELAY else ()
        with self._relay.below(via), super().watching(request, call) as session:
            yield session

    def _located(self, request: Any, call: Call) -> tuple[Head, str, str]:
        relay = self._relay
        project, environment = resolve(relay.head.state, call.principal, request.project, request.environment)
        now = relay.monotonic()
        left = CATCH_UP_SECONDS
        if call.waited:
            # For any environment; this one gets the rest of the time, and no thread for as long again.
            left = call.began + CATCH_UP_SECONDS - now
        if call.deadline is not None:
            left = min(left, call.deadline - now)
        return relay.branch(project, environment).wait_for(request.min_revision, left), project, environment

    def _newest(self, project: str, environment: str) -> Head:
        return self._relay.branch(project, environment).hub.head
