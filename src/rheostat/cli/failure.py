"""How commands fail: exit codes, and errors as text or JSON on standard error."""

from __future__ import annotations

import enum
import json
from typing import Any

import click

from rheostat.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidArgumentError,
    InvalidDocumentError,
    LimitExceededError,
    PermissionDeniedError,
    RevisionConflictError,
    RheostatError,
    UnavailableError,
)

__all__ = ["ClientsBehindError", "ExitCode", "UnreachableError", "exit_code", "report"]


class ExitCode(enum.IntEnum):
    """What a command exits with."""

    OK = 0
    """Done; also when there was nothing to change."""
    FAILED = 1
    """The server refused it, or it failed."""
    USAGE = 2
    """The command line is wrong; nothing was sent."""
    UNREACHABLE = 3
    """No server answers, or not now: trying again makes sense."""
    DENIED = 4
    """No key, a bad one, or one that may not do this."""
    CONFLICT = 5
    """Somebody else changed the same things first; read again and repeat."""
    BEHIND = 6
    """Done, but the clients that --wait waits for did not get it in time."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


class UnreachableError(UnavailableError):
    """No server answers at the URL."""

    default_reason = "UNREACHABLE"


class ClientsBehindError(RheostatError):
    """Fewer clients than were waited for have reached a revision in time."""

    default_reason = "CLIENTS_BEHIND"


def exit_code(error: BaseException) -> ExitCode:
    """Return the code with which a command that raised *error* exits."""
    match error:
        case click.UsageError():
            return ExitCode.USAGE
        case UnavailableError() | DeadlineExceededError():
            return ExitCode.UNREACHABLE
        case AuthenticationError() | PermissionDeniedError():
            return ExitCode.DENIED
        case RevisionConflictError():
            return ExitCode.CONFLICT
        case ClientsBehindError():
            return ExitCode.BEHIND
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.FAILED


def report(error: RheostatError | click.ClickException, *, as_json: bool) -> ExitCode:
    """Write *error* to standard error, as text or as one JSON object, and return the exit code."""
    code = exit_code(error)
    if as_json:
        click.echo(json.dumps({"error": _record(error, code)}, indent=2), err=True)
    elif isinstance(error, click.ClickException):
        error.show()
    else:
        click.echo(_text(error), err=True)
    return code


def _record(error: RheostatError | click.ClickException, code: ExitCode) -> dict[str, Any]:
    if isinstance(error, click.ClickException):
        reason = "USAGE" if isinstance(error, click.UsageError) else "FAILED"
        return {"reason": reason, "message": error.format_message(), "exit_code": int(code)}
    record: dict[str, Any] = {
        "reason": error.reason,
        "message": error.message,
        "exit_code": int(code),
        "metadata": error.metadata,
    }
    if isinstance(error, InvalidArgumentError):
        record["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
    if isinstance(error, InvalidDocumentError):
        record["line"], record["column"] = error.line, error.column
    if isinstance(error, RevisionConflictError):
        record["expected_revision"] = error.expected
        record["conflicts"] = [
            {"kind": c.kind, "name": c.key, "environment": c.environment, "revision": c.revision}
            for c in error.conflicts
        ]
    if isinstance(error, (UnavailableError, LimitExceededError)):
        record["retry_after"] = error.retry_after
    if error.request_id:
        record["request_id"] = error.request_id
    return record


def _text(error: RheostatError) -> str:
    lines = [f"error: {error.message}"]
    if isinstance(error, InvalidArgumentError):
        # The message of most errors says what their only violation does.
        lines += [
            f"  {v.field}: {v.description}" for v in error.violations if v.description not in error.message
        ]
    if error.reason == "ENVIRONMENT_REQUIRED":
        lines.append("  name it with --environment or RHEOSTAT_ENVIRONMENT")
    if error.request_id:
        lines.append(f"  request {error.request_id}")
    return "\n".join(lines)
