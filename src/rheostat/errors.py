"""The error hierarchy: one class for each reaction a caller can have.

::

    RheostatError
    ├── InvalidArgumentError            fix the request; ``violations`` names the fields
    │   ├── InvalidSettingError         a definition, name or value of a setting is not acceptable
    │   │   └── InvalidTypeError        the text of a type cannot be parsed (also a ValueError)
    │   ├── TypeMismatchError           a value does not fit the type it is for (also a TypeError)
    │   ├── InvalidConditionError       a condition cannot be parsed or is not allowed (also a ValueError)
    │   └── InvalidDocumentError        a declarative document is wrong; carries line and column
    ├── NotFoundError
    │   └── SettingNotFoundError        also a KeyError
    ├── AlreadyExistsError              a name is taken, or a request id was used with another payload
    ├── RevisionConflictError           somebody else changed the same items first; read again
    ├── FailedPreconditionError         in use, a cycle, a gate, an approval
    ├── RevisionCompactedError          history no longer reaches back so far; take a snapshot
    ├── LimitExceededError              a named limit; may carry when to retry
    ├── AuthenticationError             no, bad, expired or revoked key
    │   └── WebhookVerificationError    a webhook's message is not signed as it should be, or too old
    ├── PermissionDeniedError           the key may not do this, or not there
    ├── UnavailableError                try again: draining, store away, too many streams
    │   └── BehindError                 this node has not reached ``min_revision`` in time
    ├── DeadlineExceededError           also a TimeoutError
    ├── ClientClosedError               the client was closed
    ├── MissingDependencyError          an extra is not installed; names it
    └── StoreError                      the store cannot be opened or is damaged

Every class carries ``reason`` (UPPER_SNAKE, stable, listed in docs/reference/errors.md) and ``metadata``
(strings), which travel as ``ErrorInfo`` over the wire. Messages are lower case, name the offending thing
and never hold a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AlreadyExistsError",
    "AuthenticationError",
    "BehindError",
    "ClientClosedError",
    "Conflict",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "InvalidArgumentError",
    "InvalidConditionError",
    "InvalidDocumentError",
    "InvalidSettingError",
    "InvalidTypeError",
    "LimitExceededError",
    "MissingDependencyError",
    "NotFoundError",
    "PermissionDeniedError",
    "RevisionCompactedError",
    "RevisionConflictError",
    "RheostatError",
    "SettingNotFoundError",
    "StoreError",
    "TypeMismatchError",
    "UnavailableError",
    "WebhookVerificationError",
]


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request.

    Attributes:
        field: The path of the field in the request, such as ``mutations[2].put_setting.setting.type``.
        description: What is wrong with it, in lower case.
    """

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """An item that changed after the revision the writer had expected.

    Attributes:
        kind: ``setting``, ``segment``, ``project``, ``environment`` or ``features``.
        key: The item's key, such as the setting's name.
        environment: The environment of the item, or empty for a project-wide one.
        revision: The revision of its newest change.
    """

    kind: str
    key: str
    environment: str
    revision: int


class RheostatError(Exception):
    """The root of all errors that Rheostat raises on purpose."""

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Make an error.

        Args:
            message: What happened, in lower case, with the offending name; never a secret.
            reason: A stable UPPER_SNAKE word for machines; the class has a default.
            metadata: Names and limits that go with the reason.
        """
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.request_id: str | None = None

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(RheostatError):
    """The request cannot be right whatever the state is; ``violations`` names its fields."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make an error; see `RheostatError` for the common arguments."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class InvalidSettingError(InvalidArgumentError):
    """A definition, name or value of a setting is not acceptable."""

    default_reason = "INVALID_SETTING"


class InvalidTypeError(InvalidSettingError, ValueError):
    """The text of a setting's type cannot be parsed."""

    default_reason = "INVALID_TYPE"


class TypeMismatchError(InvalidArgumentError, TypeError):
    """A value does not fit the type it is for."""

    default_reason = "TYPE_MISMATCH"


class InvalidConditionError(InvalidArgumentError, ValueError):
    """A condition cannot be parsed, or may not be used where it stands."""

    default_reason = "INVALID_CONDITION"


class InvalidDocumentError(InvalidArgumentError):
    """A declarative document is wrong.

    Attributes:
        line: 1-based line in the document, or None when unknown.
        column: 1-based column, or None when unknown.
    """

    default_reason = "INVALID_DOCUMENT"

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        column: int | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Make an error at a place of the document."""
        super().__init__(message, violations=violations)
        self.line = line
        self.column = column


class NotFoundError(RheostatError):
    """A setting, segment, rule, subject or revision does not exist."""

    default_reason = "NOT_FOUND"


class SettingNotFoundError(NotFoundError, KeyError):
    """No setting has this name or alias in the environment."""

    default_reason = "SETTING_NOT_FOUND"


class AlreadyExistsError(RheostatError):
    """A name is taken, or a request id was used before with another payload."""

    default_reason = "ALREADY_EXISTS"


class RevisionConflictError(RheostatError):
    """Items of the change-set changed after the revision that the writer expected.

    Attributes:
        expected: The writer's expected revision.
        conflicts: The items that changed after it, with their revisions.
    """

    default_reason = "REVISION_CONFLICT"

    def __init__(self, expected: int, conflicts: Sequence[Conflict]) -> None:
        """Make an error that lists what changed."""
        listed = ", ".join(
            f"{c.kind} {c.key!r}{f' in {c.environment}' if c.environment else ''} at revision {c.revision}"
            for c in conflicts
        )
        super().__init__(
            f"changed after the expected revision {expected}: {listed}; read again and repeat",
            metadata={"expected_revision": str(expected)},
        )
        self.expected = expected
        self.conflicts = tuple(conflicts)

    @property
    def actual(self) -> int:
        """The newest revision among the conflicting items."""
        return max((c.revision for c in self.conflicts), default=self.expected)


class FailedPreconditionError(RheostatError):
    """The state does not allow it: in use, a cycle, a gate, a missing approval, a call on a relay."""

    default_reason = "FAILED_PRECONDITION"


class RevisionCompactedError(RheostatError):
    """History no longer reaches back to the revision; take a snapshot.

    Attributes:
        floor: The oldest revision from which history is complete.
    """

    default_reason = "REVISION_COMPACTED"

    def __init__(self, revision: int, floor: int) -> None:
        """Make an error for *revision*, with the compaction *floor*."""
        super().__init__(
            f"revision {revision} is compacted; history starts at {floor}",
            metadata={"revision": str(revision), "floor": str(floor)},
        )
        self.floor = floor


class LimitExceededError(RheostatError):
    """A named limit was passed.

    Attributes:
        limit: The name of the limit, as in the configuration.
        retry_after: Seconds after which trying again makes sense, or None when it never does.
    """

    default_reason = "LIMIT_EXCEEDED"

    def __init__(self, message: str, *, limit: str, retry_after: float | None = None) -> None:
        """Make an error for the limit called *limit*."""
        super().__init__(message, metadata={"limit": limit})
        self.limit = limit
        self.retry_after = retry_after


class AuthenticationError(RheostatError):
    """No key, or a bad, expired or revoked one."""

    default_reason = "UNAUTHENTICATED"


class WebhookVerificationError(AuthenticationError):
    """A message to a webhook is not signed with its secret, is too old, or is no message of Rheostat."""

    default_reason = "WEBHOOK_VERIFICATION"


class PermissionDeniedError(RheostatError):
    """The key may not do this, or knows no such project or environment."""

    default_reason = "PERMISSION_DENIED"


class UnavailableError(RheostatError):
    """Not now: draining, store away, too many streams. Trying again makes sense.

    Attributes:
        retry_after: Seconds after which trying again makes sense, or None when unknown.
    """

    default_reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make an error; see `RheostatError` for the common arguments."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class BehindError(UnavailableError):
    """This node has not reached the asked-for ``min_revision`` in time."""

    default_reason = "BEHIND"


class DeadlineExceededError(RheostatError, TimeoutError):
    """The call's time ran out; whether it took effect is unknown."""

    default_reason = "DEADLINE_EXCEEDED"


class ClientClosedError(RheostatError):
    """The client was closed before the call."""

    default_reason = "CLIENT_CLOSED"


class MissingDependencyError(RheostatError, ImportError):
    """An optional dependency is not installed; the message names the extra that has it."""

    default_reason = "MISSING_DEPENDENCY"


class StoreError(RheostatError):
    """The store cannot be opened, is damaged, or is of a newer version."""

    default_reason = "STORE"
