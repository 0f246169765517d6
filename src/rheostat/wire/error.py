"""Errors as Connect errors, and back. The one place that knows Connect's codes.

The table is that of docs/reference/errors.md. Every error of `rheostat.errors` travels as its code, its message
and the details ``google.rpc.ErrorInfo`` (reason and metadata), ``google.rpc.BadRequest`` (violations),
``google.rpc.RetryInfo`` (when to retry) and ``rheo.v1.RevisionConflict``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final, TypeVar

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # has stubs, but no py.typed
    BadRequest,
    ErrorInfo,
    RetryInfo,
)
from protobuf.wkt import Any

from rheo.v1 import change_pb2
from rheostat.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BehindError,
    ClientClosedError,
    Conflict,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    InvalidConditionError,
    InvalidDocumentError,
    InvalidSettingError,
    InvalidTypeError,
    LimitExceededError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    RevisionCompactedError,
    RevisionConflictError,
    RheostatError,
    SettingNotFoundError,
    StoreError,
    TypeMismatchError,
    UnavailableError,
    WebhookVerificationError,
)
from rheostat.wire.instant import duration_from_proto, duration_to_proto

__all__ = ["CODES", "DOMAIN", "INTERNAL_MESSAGE", "REASONS", "error_json", "from_connect", "to_connect"]

M = TypeVar("M", bound=Message)

DOMAIN: Final = "rheostat"
"""The domain of `ErrorInfo`; one of another domain is somebody else's, such as a proxy's."""

INTERNAL_MESSAGE: Final = "internal error; the server's log has it under the request's id"
"""What callers are told of errors whose own text may hold a path or somebody's value."""

CODES: Final[Mapping[type[RheostatError], Code]] = {
    InvalidArgumentError: Code.INVALID_ARGUMENT,
    NotFoundError: Code.NOT_FOUND,
    AlreadyExistsError: Code.ALREADY_EXISTS,
    RevisionConflictError: Code.ABORTED,
    FailedPreconditionError: Code.FAILED_PRECONDITION,
    RevisionCompactedError: Code.OUT_OF_RANGE,
    LimitExceededError: Code.RESOURCE_EXHAUSTED,
    AuthenticationError: Code.UNAUTHENTICATED,
    PermissionDeniedError: Code.PERMISSION_DENIED,
    UnavailableError: Code.UNAVAILABLE,
    DeadlineExceededError: Code.DEADLINE_EXCEEDED,
    # A relay whose own client was closed is going down: another node will do better.
    ClientClosedError: Code.UNAVAILABLE,
    # The operator has to install something; trying again does not help.
    MissingDependencyError: Code.FAILED_PRECONDITION,
    StoreError: Code.INTERNAL,
    RheostatError: Code.INTERNAL,
}
"""The code of each class; subclasses have that of the nearest class that is named here."""

_SUBCLASSES: Final[tuple[type[RheostatError], ...]] = (
    BehindError,
    InvalidConditionError,
    InvalidDocumentError,
    InvalidSettingError,
    InvalidTypeError,
    SettingNotFoundError,
    TypeMismatchError,
    WebhookVerificationError,
)

REASONS: Final[Mapping[str, type[RheostatError]]] = {
    **{class_.default_reason: class_ for class_ in (*CODES, *_SUBCLASSES)},
    "DUPLICATE_RULE": InvalidConditionError,
    "LOOKS_LIKE_CREDENTIAL": InvalidSettingError,
    "NOT_SPECIFIC": InvalidConditionError,
    "UNDECLARED_FEATURE": InvalidConditionError,
    "UNKNOWN_SEGMENT": InvalidConditionError,
    "UNKNOWN_SETTING": InvalidConditionError,
}
"""The class that a client raises for a reason; for other reasons it is the code's own class."""

_CLASSES: Final[Mapping[Code, type[RheostatError]]] = {
    code: class_
    for class_, code in CODES.items()
    if class_ not in (ClientClosedError, MissingDependencyError, StoreError)
}


def to_connect(exc: BaseException) -> ConnectError:
    """Return what a caller is told of *exc*, with all details; a `ConnectError` is returned as it is.

    An exception that is not Rheostat's, and one about the store itself, is INTERNAL with `INTERNAL_MESSAGE`:
    log it, as its own text goes nowhere.
    """
    if isinstance(exc, ConnectError):
        return exc
    if not isinstance(exc, RheostatError):
        return _internal(RheostatError.default_reason)
    code = _code(type(exc))
    if code is Code.INTERNAL:
        return _internal(exc.reason)
    metadata = {_carried(name): _carried(text) for name, text in exc.metadata.items()}
    info = ErrorInfo(domain=DOMAIN, reason=exc.reason, metadata=metadata)
    details: list[Message] = [info]
    match exc:
        case InvalidDocumentError():
            for name, number in (("line", exc.line), ("column", exc.column)):
                if number is not None:
                    info.metadata[name] = str(number)
        case RevisionConflictError():
            details.append(
                change_pb2.RevisionConflict(
                    expected_revision=exc.expected,
                    items=[
                        change_pb2.ConflictingItem(
                            environment=conflict.environment,
                            kind=conflict.kind,
                            key=conflict.key,
                            revision=conflict.revision,
                        )
                        for conflict in exc.conflicts
                    ],
                )
            )
        case LimitExceededError() | UnavailableError() if exc.retry_after is not None:
            details.append(RetryInfo(retry_delay=duration_to_proto(exc.retry_after)))
        case _:
            pass
    if isinstance(exc, InvalidArgumentError) and exc.violations:
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=_carried(violation.field), description=_carried(violation.description)
                    )
                    for violation in exc.violations
                ]
            )
        )
    return ConnectError(code, _carried(exc.message), [_wrapped(detail) for detail in details])


def error_json(error: ConnectError) -> bytes:
    """Return *error* as the body of an answer that the runtime does not write itself."""
    content = {
        "code": error.code.value,
        "message": error.message,
        "details": [
            {
                "type": detail.type_name,
                # Connect wants it without padding.
                "value": base64.b64encode(detail.message_bytes).decode().rstrip("="),
            }
            for detail in error.details
        ],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def from_connect(exc: ConnectError) -> RheostatError:
    """Return the error that the server raised: its class, reason, metadata, violations, conflicts and delay.

    Without details, such as from a proxy, it is the code's own class, with the code's name as the reason.
    Raise it ``from`` *exc*.
    """
    info = next((i for i in _found(exc, ErrorInfo) if i.domain == DOMAIN), None)
    metadata = {} if info is None else dict(info.metadata)
    class_ = _CLASSES.get(exc.code, RheostatError)
    if info is not None:
        named = REASONS.get(info.reason, class_)
        if _code(named) is exc.code:
            class_ = named
    error = _made(class_, exc, metadata)
    # Some classes write their own message; what the server said is the one to show.
    error.message = exc.message
    error.args = (exc.message,)
    error.reason = exc.code.name if info is None else info.reason
    error.metadata = metadata
    return error


def _internal(reason: str) -> ConnectError:
    return ConnectError(Code.INTERNAL, INTERNAL_MESSAGE, [_wrapped(ErrorInfo(domain=DOMAIN, reason=reason))])


def _carried(text: str) -> str:
    # Errors quote what they refuse, which may be a lone surrogate.
    return text.encode(errors="replace").decode()


def _code(class_: type[RheostatError]) -> Code:
    return next(CODES[base] for base in class_.__mro__ if base in CODES)


def _wrapped(message: Message) -> Any:
    # The runtime packs only messages of its own protobuf library; an Any of that library it takes as it is.
    return Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def _found(exc: ConnectError, class_: type[M]) -> list[M]:
    found: list[M] = []
    for detail in exc.details:
        if detail.type_name == class_.DESCRIPTOR.full_name:
            message = class_()
            try:
                message.ParseFromString(detail.message_bytes)
            except DecodeError:
                continue
            found.append(message)
    return found


def _retry_after(exc: ConnectError) -> float | None:
    return next((duration_from_proto(info.retry_delay) for info in _found(exc, RetryInfo)), None)


def _violations(exc: ConnectError) -> list[FieldViolation]:
    return [
        FieldViolation(violation.field, violation.description)
        for request in _found(exc, BadRequest)
        for violation in request.field_violations
    ]


def _number(metadata: Mapping[str, str], name: str) -> int | None:
    text = metadata.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None


def _made(class_: type[RheostatError], exc: ConnectError, metadata: Mapping[str, str]) -> RheostatError:
    """Make an error of *class_*, or of the root where the details that the class stands for are missing."""
    if issubclass(class_, InvalidArgumentError):
        invalid = class_(exc.message, violations=_violations(exc))
        if isinstance(invalid, InvalidDocumentError):
            invalid.line = _number(metadata, "line")
            invalid.column = _number(metadata, "column")
        return invalid
    if issubclass(class_, UnavailableError):
        return class_(exc.message, retry_after=_retry_after(exc))
    if issubclass(class_, LimitExceededError):
        return class_(exc.message, limit=metadata.get("limit", ""), retry_after=_retry_after(exc))
    if issubclass(class_, RevisionConflictError):
        for conflict in _found(exc, change_pb2.RevisionConflict):
            items = [
                Conflict(item.kind, item.key, item.environment, item.revision) for item in conflict.items
            ]
            return class_(conflict.expected_revision, items)
        return RheostatError(exc.message)
    if issubclass(class_, RevisionCompactedError):
        revision, floor = _number(metadata, "revision"), _number(metadata, "floor")
        if revision is None or floor is None:
            return RheostatError(exc.message)
        return class_(revision, floor)
    return class_(exc.message)
