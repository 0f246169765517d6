"""What the handlers of all services share."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rheostat.errors import (
    FieldViolation,
    InvalidArgumentError,
    PermissionDeniedError,
    SettingNotFoundError,
)
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import ProjectState
from rheostat.server.call import Call
from rheostat.service import Service, Writer
from rheostat.service.access import Principal, resolve, resolve_project
from rheostat.service.credential import check_credentials
from rheostat.service.publish import Head
from rheostat.service.service import Outcome, behind
from rheostat.wire.change import (
    change_to_proto,
    warning_to_proto,
)

__all__ = [
    "MAX_PAGE_SIZE",
    "PAGE_SIZE",
    "Handling",
    "author_of",
    "bad_page_token",
    "instant_from_request",
    "message_of",
    "no_setting",
    "page_of",
    "page_start",
    "page_token",
    "payload_digest",
    "read_page_token",
]

T = TypeVar("T")

PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000


class Handling:
    """What the handlers of all services share. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; the service is not closed by them."""
        self.service = service

    def _wait_for(self, min_revision: int, call: Call) -> Head:
        head = self.service.head
        if call.waited and head.revision < min_revision:
            raise behind(min_revision, head)
        left = None if call.deadline is None else call.deadline - self.service.monotonic()
        return self.service.wait_for(min_revision, left)

    def _resolve(self, head: Head, call: Call, project: str, environment: str) -> tuple[str, str]:
        return resolve(head.state, call.principal, project, environment)

    def _located(self, request: Any, call: Call) -> tuple[Head, str, str]:
        """Return a head that has reached the request's ``min_revision``, and the place that the request means."""
        head = self._wait_for(request.min_revision, call)
        return head, *self._resolve(head, call, request.project, request.environment)

    def _newest(self, project: str, environment: str) -> Head:
        """Return the newest head that an environment can be read from."""
        return self.service.catch_up()

    def _project(self, request: Any, call: Call) -> tuple[Head, ProjectState]:
        head = self._wait_for(getattr(request, "min_revision", 0), call)
        state = resolve_project(head.state, call.principal, request.project)
        # Project-wide requests need no environment; one that is given has to exist all the same.
        if request.environment:
            self._resolve(head, call, state.project.slug, request.environment)
        return head, state

    def _snapshot(self, request: Any, call: Call) -> tuple[Head, Snapshot, str]:
        head, project, environment = self._located(request, call)
        return head, self.service.view(project, environment, head).snapshot, environment

    @staticmethod
    def _visible(state: ProjectState, principal: Principal) -> list[str]:
        return [slug for slug in state.environments if principal.sees(state.project.slug, slug)]

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

    def _writer(self, request: Any, call: Call) -> Writer:
        payload = type(request)()
        payload.CopyFrom(request)
        payload.ClearField("request_id")
        author = request.author or author_of(call)
        message = message_of(request)
        return Writer(call.principal, author, message, request.request_id, payload_digest(payload, call))

    @staticmethod
    def _outcome(outcome: Outcome) -> dict[str, Any]:
        return {
            "revision": outcome.revision,
            "generation": outcome.generation,
            "changes": [change_to_proto(change) for change in outcome.change_set.changes],
            "warnings": [warning_to_proto(warning) for warning in outcome.change_set.warnings],
            "replayed": outcome.replayed,
        }


def payload_digest(payload: Message, call: Call) -> bytes:
    """Return the SHA-256 of a request without what differs between its repeats."""
    return hashlib.sha256(
        call.method.encode() + b"\0" + payload.SerializeToString(deterministic=True)
    ).digest()


def message_of(request: Any) -> str:
    """Return why something is written, which is kept for good and so may hold no credential.

    Raises:
        InvalidSettingError: It does.
    """
    check_credentials(request.message, "message")
    return str(request.message)


def author_of(call: Call) -> str:
    """Return who calls, for display."""
    key = call.principal.key
    return "" if key is None else key.description or key.selector


def _checked_environment(call: Call, project: str, environment: str) -> str:
    if not call.principal.sees(project, environment):
        raise PermissionDeniedError(
            f"the environment {environment!r} of the project {project!r} is unknown",
            reason="UNKNOWN_ENVIRONMENT",
        )
    return environment


def no_setting(name: str, environment: str) -> SettingNotFoundError:
    """Return what says that an environment has no such setting."""
    return SettingNotFoundError(
        f"the environment {environment!r} has no setting {name!r}",
        metadata={"setting": name, "environment": environment},
    )


def instant_from_request(request: Message, field: str) -> datetime.datetime | None:
    """Return the instant that a field of a request holds; None when it is not set.

    Raises:
        InvalidArgumentError: It is out of range.
    """
    if not request.HasField(field):
        return None
    message: Timestamp = getattr(request, field)
    try:
        return message.ToDatetime(tzinfo=datetime.UTC)
    except (OverflowError, ValueError):
        text = "is not an instant from the year 1 to the year 9999"
        raise InvalidArgumentError(f"{field}: {text}", violations=[FieldViolation(field, text)]) from None


def page_of(items: Mapping[str, T], request: Any) -> tuple[list[T], str]:
    """Return one page of *items* by key, and the token of the next one."""
    size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
    after = page_start(request)
    names = sorted(name for name in items if name > after)
    page = names[:size]
    token = page_token(page[-1].encode()) if len(names) > size else ""
    return [items[name] for name in page], token


def page_start(request: Any, encoding: str = "utf-8") -> str:
    """Return what a page comes after, as the token of the page before says; empty for the first page.

    Raises:
        InvalidArgumentError: This method made no such token.
    """
    if not request.page_token:
        return ""
    try:
        return read_page_token(request.page_token).decode(encoding)
    except UnicodeDecodeError:
        raise bad_page_token() from None


def page_token(raw: bytes) -> str:
    """Return the token of a page."""
    return base64.urlsafe_b64encode(b"p" + raw).decode().rstrip("=")


def read_page_token(token: str) -> bytes:
    """Return what a token of a page holds.

    Raises:
        InvalidArgumentError: This server made no such token.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise bad_page_token() from None
    if not raw.startswith(b"p") or len(raw) < 2:
        raise bad_page_token()
    return raw[1:]


def bad_page_token() -> InvalidArgumentError:
    """Return what says that a token of a page is not one of this method."""
    message = "is not a token that this method answered for the same request"
    return InvalidArgumentError(f"page_token: {message}", violations=[FieldViolation("page_token", message)])
