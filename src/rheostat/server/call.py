"""What every call goes through: request id, key, permission, request rules, errors.

The first interceptor is a metadata one, so that a call without a good key is refused before its body is read.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from google.protobuf.message import Message

from rheostat.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    PermissionDeniedError,
    UnavailableError,
)
from rheostat.server.stall import Stalled
from rheostat.server.throttle import Throttle
from rheostat.service import Service
from rheostat.service.access import OPEN, Permission, Principal, authenticate
from rheostat.wire.error import from_connect, to_connect
from rheostat.wire.validation import violations

__all__ = ["LARGE", "PERMISSIONS", "Call", "Entrance", "check_request", "not_let_in", "refusal"]

log = logging.getLogger("rheostat.server")

LARGE: Final = frozenset(
    (
        "rheo.v1.AdminService/Commit",
        "rheo.v1.DraftService/CreateDraft",
        "rheo.v1.DraftService/UpdateDraft",
    )
)
"""The methods that take requests of more than `Limits.max_request_bytes`: those of whole change-sets."""

PERMISSIONS: Final[Mapping[str, Permission]] = {
    "rheo.v1.ConfigService/Watch": Permission.WATCH,
    "rheo.v1.ConfigService/GetSnapshot": Permission.WATCH,
    "rheo.v1.ConfigService/Evaluate": Permission.EVALUATE,
    "rheo.v1.ConfigService/EvaluateAll": Permission.EVALUATE,
    # A key that may not declare is told so for each setting that it would change.
    "rheo.v1.ConfigService/DeclareSettings": Permission.REPORT,
    "rheo.v1.ConfigService/ReportStatus": Permission.REPORT,
    "rheo.v1.ConfigService/Ping": Permission.PING,
    "rheo.v1.AdminService/Commit": Permission.EDIT,
    "rheo.v1.AdminService/Revert": Permission.EDIT,
    "rheo.v1.AdminService/Export": Permission.VIEW,
    "rheo.v1.AdminService/CreateKey": Permission.ADMINISTER,
    "rheo.v1.AdminService/RevokeKey": Permission.ADMINISTER,
    "rheo.v1.AdminService/GetProject": Permission.VIEW,
    "rheo.v1.AdminService/ListProjects": Permission.VIEW,
    "rheo.v1.AdminService/GetEnvironment": Permission.VIEW,
    "rheo.v1.AdminService/ListEnvironments": Permission.VIEW,
    "rheo.v1.AdminService/GetSetting": Permission.VIEW,
    "rheo.v1.AdminService/ListSettings": Permission.VIEW,
    "rheo.v1.AdminService/GetSegment": Permission.VIEW,
    "rheo.v1.AdminService/ListSegments": Permission.VIEW,
    "rheo.v1.AdminService/GetFeatures": Permission.VIEW,
    "rheo.v1.AdminService/GetRevision": Permission.VIEW,
    "rheo.v1.AdminService/ListRevisions": Permission.VIEW,
    "rheo.v1.AdminService/GetKey": Permission.ADMINISTER,
    "rheo.v1.AdminService/ListKeys": Permission.ADMINISTER,
    "rheo.v1.AdminService/ListClients": Permission.VIEW,
    "rheo.v1.AdminService/RotateKey": Permission.ADMINISTER,
    "rheo.v1.AdminService/GetRollout": Permission.VIEW,
    "rheo.v1.AdminService/ListStaleSettings": Permission.VIEW,
    "rheo.v1.DraftService/CreateDraft": Permission.EDIT,
    "rheo.v1.DraftService/UpdateDraft": Permission.EDIT,
    "rheo.v1.DraftService/GetDraft": Permission.VIEW,
    "rheo.v1.DraftService/ListDrafts": Permission.VIEW,
    "rheo.v1.DraftService/ApproveDraft": Permission.APPROVE,
    "rheo.v1.DraftService/PublishDraft": Permission.EDIT,
    "rheo.v1.DraftService/CancelDraft": Permission.EDIT,
    "rheo.v1.WebhookService/CreateWebhook": Permission.ADMINISTER,
    "rheo.v1.WebhookService/UpdateWebhook": Permission.ADMINISTER,
    "rheo.v1.WebhookService/DeleteWebhook": Permission.ADMINISTER,
    "rheo.v1.WebhookService/RotateWebhookSecret": Permission.ADMINISTER,
    "rheo.v1.WebhookService/GetWebhook": Permission.ADMINISTER,
    "rheo.v1.WebhookService/ListWebhooks": Permission.ADMINISTER,
    "rheo.v1.WebhookService/TestWebhook": Permission.ADMINISTER,
    "rheo.v1.WebhookService/ListDeliveries": Permission.ADMINISTER,
    "rheo.v1.WebhookService/Redeliver": Permission.ADMINISTER,
    # A key that may not record all kinds of events is told so for each that it may not.
    "rheo.v1.EventService/RecordEvents": Permission.EXPOSE,
    "rheo.v1.EventService/UpsertSubjects": Permission.SUBJECTS,
    "rheo.v1.EventService/GetSubjects": Permission.SUBJECTS,
    "rheo.v1.EventService/DeleteSubjects": Permission.SUBJECTS,
    "rheo.v1.EventService/ListSubjects": Permission.SUBJECTS,
    "rheo.v1.EventService/ListSubjectChanges": Permission.VIEW,
    "rheo.v1.EventService/ListExposures": Permission.VIEW,
    "rheo.v1.EventService/ListEventCounts": Permission.VIEW,
}
"""What each method needs. A method that is not here is refused."""

_TOLD_VIOLATIONS: Final = 100
"""A short request can break a rule in each of thousands of elements; the answer shall stay short as well."""

# The runtime's own refusals quote its internals; callers get these instead.
_RUNTIME_MESSAGES: Final = {
    Code.INVALID_ARGUMENT: "the request cannot be read: it is not a message of this method in the content type "
    "that it names",
    Code.INTERNAL: "the request cannot be read",
    Code.UNIMPLEMENTED: "the request has no message, several, or a compression other than gzip",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call in progress.

    Attributes:
        principal: Who calls.
        request_id: Sent back as ``x-request-id``, and in the log.
        method: Full name, such as ``rheo.v1.ConfigService/Watch``.
        deadline: Instant of the service's monotonic clock; None when the caller waits for ever. The runtime
            enforces it on ASGI only.
        address: The caller's IP address; empty when the application server gives none.
        waited: ``min_revision`` has been waited for already; handlers do not wait again.
        authorization: The header that the caller is known by, for what is passed on; empty in open mode.
        began: Instant of the service's monotonic clock.
    """

    principal: Principal
    request_id: str
    method: str
    deadline: float | None = None
    address: str = ""
    waited: bool = False
    authorization: str = field(default="", repr=False)
    began: float = 0.0


class Entrance:
    """Both kinds of metadata interceptor in one: identifies the caller, and cleans what the runtime says."""

    def __init__(self, service: Service, *, open_: bool) -> None:
        """Make an interceptor; *open_* lets everybody in who has come past the gate."""
        self._service = service
        self._open = open_
        self._throttle = Throttle(service.limits.max_writes_per_second)
        self._calls: weakref.WeakKeyDictionary[RequestContext[Any, Any], Call] = weakref.WeakKeyDictionary()

    def call(self, ctx: RequestContext[Any, Any]) -> Call:
        """Return the call that *ctx* belongs to."""
        return self._calls[ctx]

    def on_start_sync(self, ctx: RequestContext[Any, Any], /) -> None:
        """Let the call in, or raise what refuses it."""
        request_id = self._service.randomness(8).hex()
        ctx.response_headers["x-request-id"] = request_id
        ctx.response_headers["cache-control"] = "private, no-store"
        method = f"{ctx.method.service_name}/{ctx.method.name}"
        try:
            if self._open:
                principal = OPEN
            else:
                principal = authenticate(
                    self._service.head.state,
                    ctx.request_headers.get("authorization"),
                    self._service.clock(),
                )
            permission = PERMISSIONS.get(method)
            if permission is None:
                raise PermissionDeniedError(f"the method {method} is open to nobody")
            principal.require(permission)
            if principal.key is not None:
                self._service.usage.note_key(principal.key)
            self._throttle.check(method, principal.actor)
        except Exception as exc:  # noqa: BLE001 - what is unexpected must not reach the runtime
            error = not_let_in(self._service, exc, request_id, method)
            _say_when_to_retry(ctx, error)
            raise error from None
        left = ctx.timeout_ms
        began = self._service.monotonic()
        deadline = None if left is None else began + left / 1000
        address = (ctx.client_address or "").rpartition(":")[0]
        authorization = ctx.request_headers.get("authorization") or ""
        self._calls[ctx] = Call(
            principal, request_id, method, deadline, address, authorization=authorization, began=began
        )

    def on_end_sync(self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /) -> None:
        """Count a call that has ended, and complete the answer to one that failed.

        An error that the runtime made itself is replaced, with its details and without its internals. One that
        says when to try again says so in the header ``Retry-After`` too, unless a stream has begun.
        """
        try:
            self._complete(ctx, error)
        except ConnectError as exc:
            error = exc
            raise
        finally:
            self._note_end(ctx, error)

    def _note_end(self, ctx: RequestContext[Any, Any], error: Exception | None) -> None:
        call = self._calls.get(ctx)
        if call is None:
            return
        code = "ok" if error is None else error.code.value if isinstance(error, ConnectError) else "canceled"
        service = self._service
        seconds = service.monotonic() - call.began
        service.metrics.called(call.method, code, seconds)
        if isinstance(error, ConnectError):
            service.metrics.count("errors", from_connect(error).reason)
        if log.isEnabledFor(logging.DEBUG):
            extra = {
                "method": call.method,
                "request_id": call.request_id,
                "code": code,
                "seconds": round(seconds, 6),
            }
            log.debug(
                "%s: %s after %.3f s (request %s)", call.method, code, seconds, call.request_id, extra=extra
            )

    def _complete(self, ctx: RequestContext[Any, Any], error: Exception | None) -> None:
        if error is None or isinstance(error, Stalled):
            # Nobody can be told of a stall.
            return
        if isinstance(error, ConnectError) and error.details:
            _say_when_to_retry(ctx, error)
            return
        method = f"{ctx.method.service_name}/{ctx.method.name}"
        request_id = ctx.response_headers.get("x-request-id") or ""
        if not isinstance(error, ConnectError):
            raise refusal(error, request_id, method)
        if error.code is Code.DEADLINE_EXCEEDED:
            raise to_connect(DeadlineExceededError("the deadline has passed"))
        if error.code is Code.RESOURCE_EXHAUSTED:
            limit = "max_commit_bytes" if method in LARGE else "max_request_bytes"
            size = getattr(self._service.limits, limit)
            raise to_connect(
                LimitExceededError(f"the request is larger than {size} bytes ({limit})", limit=limit)
            )
        message = _RUNTIME_MESSAGES.get(error.code)
        if message is not None:
            raise to_connect(InvalidArgumentError(message, reason="MALFORMED_REQUEST"))

    async def on_start(self, ctx: RequestContext[Any, Any], /) -> None:
        """As `on_start_sync`; it never waits."""
        self.on_start_sync(ctx)

    async def on_end(self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /) -> None:
        """As `on_end_sync`."""
        self.on_end_sync(token, ctx, error)


def _say_when_to_retry(ctx: RequestContext[Any, Any], error: ConnectError) -> None:
    match from_connect(error):
        case UnavailableError(retry_after=float(seconds)) | LimitExceededError(retry_after=float(seconds)):
            # HTTP knows whole seconds only; 0 would ask for a busy loop.
            ctx.response_headers["retry-after"] = str(max(1, math.ceil(seconds)))
        case _:
            pass


def refusal(exc: BaseException, request_id: str, method: str) -> ConnectError:
    """Return what the caller is told of *exc*; whatever is not ours is logged and told in a fixed text."""
    if isinstance(exc, ConnectError):
        return exc
    error = to_connect(exc)
    if error.code is Code.INTERNAL:
        log.error(
            "unexpected error in %s (request %s)",
            method,
            request_id,
            exc_info=exc,
            extra={"method": method, "request_id": request_id},
        )
    return error


def not_let_in(service: Service, exc: BaseException, request_id: str, method: str) -> ConnectError:
    """Count a call that *exc* refuses at the entrance, and return what the caller is told; see `refusal`."""
    error = refusal(exc, request_id, method)
    # Such a call has no end, at which others are counted.
    service.metrics.count("calls", method, error.code.value)
    service.metrics.count("errors", from_connect(error).reason)
    return error


def check_request(service: Service, request: Message, method: str) -> None:
    """Check a request against the rules of the contract and the size limit of its method.

    Raises:
        InvalidArgumentError: It breaks a rule; all broken ones are listed, up to `_TOLD_VIOLATIONS`.
        LimitExceededError: It is too large.
    """
    if method not in LARGE:
        size, limit = request.ByteSize(), service.limits.max_request_bytes
        if size > limit:
            raise LimitExceededError(
                f"the request has {size} bytes, more than {limit} (max_request_bytes)",
                limit="max_request_bytes",
            )
    found = violations(request)
    if found:
        first = found[0]
        place = f"{first.field}: " if first.field else ""
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InvalidArgumentError(
            f"{place}{first.description}{more}",
            violations=found[:_TOLD_VIOLATIONS],
            reason="INVALID_FIELD",
        )
