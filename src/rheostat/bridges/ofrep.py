"""OFREP, OpenFeature's protocol for remote evaluation, in the revision 0.3.0 of its OpenAPI document.

Only translation: requests to contexts, evaluations and errors to answers, the events of a watch to server-sent events.
Who calls, and where that may be, is decided by whoever serves this.

Where the document says less, or its clients take more, this is what we do:

- The document demands a context with a targeting key; its clients send neither unless the program gives them. Both
  may be missing here, and a rule that needs the unit then passes by, as everywhere.
- ``variant`` is always there, since a client fails without one; it is empty where no distribution has decided.
- The reason ``DEFAULT`` is sent as it is, as OpenFeature's own server does and all clients take it.
- A list is sent as it is: OpenFeature's structured values may be lists. Null is none, and refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

from rheostat._version import __version__
from rheostat.errors import (
    AuthenticationError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    RheostatError,
    SettingNotFoundError,
    TypeMismatchError,
    UnavailableError,
)
from rheostat.evaluation import Context
from rheostat.evaluation.result import ErrorCode, Reason
from rheostat.model.key import Key
from rheostat.model.position import parse_token
from rheostat.model.setting import FEATURE_NAME
from rheostat.model.value import ABSENT, canonical_text, freeze, parse_json, thaw
from rheostat.model.watch import Delta, GoAway, Hello, SnapshotEvent, WatchEvent
from rheostat.service.publish import Head, View
from rheostat.service.subject import Joined

__all__ = [
    "EVENTS",
    "FLAGS",
    "Change",
    "Feed",
    "OfrepOptions",
    "Reply",
    "attributes_of",
    "context_of",
    "entity_tag",
    "evaluated",
    "evaluated_all",
    "matches",
    "proof_of",
    "proves",
    "refused",
    "revision_of",
    "stream_address",
]

FLAGS: Final = "/ofrep/v1/evaluate/flags"
"""The path of the bulk evaluation; one flag is below it."""

EVENTS: Final = "/ofrep/v1/events"
"""The path of the event stream, which the protocol leaves to the server."""

_TARGETING_KEY: Final = "targetingKey"

_INACTIVITY_SECONDS: Final = 120
"""For how long a page may be in the background before it gives its stream up."""

_LEAST_RETRY_SECONDS: Final = 1.0
"""Before a client of an ended stream comes back, at least."""

_TAG_DIGITS: Final = 32

_PROOF_LABEL: Final = b"rheostat ofrep events"

_ERROR_CODES: Final = {
    "MALFORMED_REQUEST": ErrorCode.PARSE_ERROR,
    "UNSUPPORTED_MEDIA_TYPE": ErrorCode.PARSE_ERROR,
    "INVALID_CONTEXT": ErrorCode.INVALID_CONTEXT,
    "TARGETING_KEY_MISSING": ErrorCode.TARGETING_KEY_MISSING,
}
"""The protocol's code for a reason of ours; others are general."""

_CARRIED_CODES: Final = frozenset(
    (ErrorCode.PARSE_ERROR, ErrorCode.TARGETING_KEY_MISSING, ErrorCode.INVALID_CONTEXT, ErrorCode.GENERAL)
)


@dataclass(frozen=True, slots=True)
class OfrepOptions:
    """How OFREP is served.

    Attributes:
        targeting_key: The attribute that the targeting key is. It wins over one of the same path in the context.
        event_streams: Tell clients that ask for all flags where they hear of changes. Each that listens holds a
            stream; on a WSGI server it occupies a thread or greenlet.
    """

    targeting_key: str = "user.id"
    event_streams: bool = True

    def __post_init__(self) -> None:
        """Check the attribute's path."""
        if FEATURE_NAME.fullmatch(self.targeting_key) is None:
            raise InvalidArgumentError(
                f"the option targeting_key is {self.targeting_key!r}, which is no attribute's path"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def json(cls, status: int, content: Mapping[str, object], *headers: tuple[str, str]) -> Reply:
        """Make an answer in JSON."""
        body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        return cls(status, body, (("content-type", "application/json"), *headers))


# Requests.


def attributes_of(body: bytes) -> Mapping[str, object]:
    """Return the attributes in the body of a request, whichever evaluation it asks for.

    Raises:
        InvalidArgumentError: The body is no JSON object, or its context none; the reason says which.
    """
    try:
        request = parse_json(body)
    except TypeMismatchError as exc:
        raise InvalidArgumentError(f"the body: {exc.message}", reason="MALFORMED_REQUEST") from None
    if not isinstance(request, Mapping):
        raise InvalidArgumentError("the body is not a JSON object", reason="MALFORMED_REQUEST")
    context = request.get("context")
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise InvalidArgumentError("the context is not a JSON object", reason="INVALID_CONTEXT")
    key = context.get(_TARGETING_KEY)
    if key is not None and not isinstance(key, str):
        raise InvalidArgumentError("context.targetingKey is not a string", reason="INVALID_CONTEXT")
    if key == "":
        raise InvalidArgumentError("context.targetingKey is empty", reason="TARGETING_KEY_MISSING")
    return context


def context_of(attributes: Mapping[str, object], options: OfrepOptions) -> Mapping[str, object]:
    """Return the attributes of the evaluation: the targeting key is one of them, and wins over one of its path."""
    key = attributes.get(_TARGETING_KEY)
    if key is None:
        return {name: value for name, value in attributes.items() if name != _TARGETING_KEY}
    # The flat name is looked up before mappings are walked through, and names a subject before these do.
    named = (_TARGETING_KEY, options.targeting_key)
    return {
        options.targeting_key: key,
        **{name: each for name, each in attributes.items() if name not in named},
    }


def revision_of(tag: str, head: Head) -> int:
    """Return the revision that an event has announced with *tag*; 0 for a tag that is not of this history."""
    try:
        token = base64.b64decode(tag + "=" * (-len(tag) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return 0
    position = parse_token(token, head.identity.token_key)
    identity = head.identity
    if (
        position is None
        or (position.store_id, position.generation, position.nonce)
        != (identity.store_id, identity.generation, identity.nonce)
    ):  # fmt: skip
        return 0
    return position.revision


def matches(if_none_match: str, tag: str) -> bool:
    """Tell whether the header ``If-None-Match`` names *tag*; weak forms, and forms without quotes, count."""
    named = (part.strip().removeprefix("W/").strip('"') for part in if_none_match.split(","))
    return any(name in ("*", tag.strip('"')) for name in named)


# Answers.


def evaluated(view: View, name: str, joined: Joined, context: Context) -> Reply:
    """Return the answer about one flag.

    Args:
        view: The environment.
        name: Of the flag.
        joined: The stored subjects that the context names.
        context: What is evaluated for, with theirs.

    Raises:
        SettingNotFoundError: The environment has none of this name.
    """
    if view.snapshot.setting(name) is None:
        raise SettingNotFoundError(
            f"the environment {view.environment!r} has no setting {name!r}",
            metadata={"setting": name, "environment": view.environment},
        )
    content = _content(view, name, joined, context)
    return Reply.json(400 if "errorCode" in content else 200, content)


def evaluated_all(
    view: View, joined: Joined, context: Context, *, limit: int, stream: str, tag: str
) -> Reply:
    """Return the answer about all flags of an environment.

    Args:
        view: The environment.
        joined: The stored subjects that the context names.
        context: What is evaluated for, with theirs.
        limit: The bytes that the answer may have.
        stream: Where changes are told, as a path with its query; empty for nowhere.
        tag: Of the answer.

    Raises:
        LimitExceededError: The answer would be larger.
    """
    content: dict[str, object] = {
        "flags": [_content(view, name, joined, context) for name in sorted(view.snapshot.settings)],
        "metadata": {"flagSetId": _flag_set(view)},
    }
    if stream:
        content["eventStreams"] = [
            {
                "type": "sse",
                # Without an origin: it is where the client has found this answer.
                "endpoint": {"requestUri": stream},
                "inactivityDelaySec": _INACTIVITY_SECONDS,
            }
        ]
    reply = Reply.json(200, content, ("etag", tag))
    if len(reply.body) > limit:
        raise LimitExceededError(
            f"the flags together take more than {limit} bytes (max_snapshot_bytes); ask for them one by one",
            limit="max_snapshot_bytes",
        )
    return reply


def entity_tag(view: View, head: Head, joined: Joined, context: Context, stream: str) -> str:
    """Return the tag of the answer about all flags, from all that it depends on, without evaluating any.

    Revisions that leave the environment as it is do not change it.
    """
    identity = head.identity
    parts = [
        # Another release may write another answer.
        __version__,
        identity.store_id.hex(),
        identity.generation,
        # Of one number there may be several generations: a backup that was put back twice begins two.
        identity.nonce.hex(),
        view.project,
        view.environment,
        view.digest,
        [thaw(freeze(layer)) for layer in context.layers],
        thaw(freeze(joined.join.overrides)),
        joined.note,
        joined.conflict,
        stream,
    ]
    digest = hashlib.sha256(canonical_text(parts).encode()).hexdigest()
    return f'"{digest[:_TAG_DIGITS]}"'


def refused(error: RheostatError, key: str | None = None) -> Reply:
    """Return the answer that tells of *error*.

    Args:
        error: Its text is sent; for one that callers must not see, pass what they are to be told instead.
        key: The flag that was asked for; None where all were.
    """
    status = _status(error)
    code = ErrorCode.GENERAL
    if status is HTTPStatus.NOT_FOUND:
        code = ErrorCode.FLAG_NOT_FOUND
    elif status is HTTPStatus.BAD_REQUEST:
        code = _ERROR_CODES.get(error.reason, ErrorCode.GENERAL)
    content: dict[str, object] = {} if key is None else {"key": key}
    content |= {"errorCode": code.value, "errorDetails": error.message}
    headers: list[tuple[str, str]] = []
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    if isinstance(error, (LimitExceededError, UnavailableError)) and error.retry_after is not None:
        # In seconds: one of the clients takes the year of a date for them.
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    return Reply.json(status, content, *headers)


def _status(error: RheostatError) -> HTTPStatus:
    match error:
        case AuthenticationError():
            return HTTPStatus.UNAUTHORIZED
        case PermissionDeniedError():
            return HTTPStatus.FORBIDDEN
        case NotFoundError():
            return HTTPStatus.NOT_FOUND
        case LimitExceededError(retry_after=float() | int()):
            return HTTPStatus.TOO_MANY_REQUESTS
        case InvalidArgumentError() | LimitExceededError() | FailedPreconditionError():
            return HTTPStatus.BAD_REQUEST
        case UnavailableError() | DeadlineExceededError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def _content(view: View, key: str, joined: Joined, context: Context) -> dict[str, object]:
    evaluation = joined.evaluate(view, key, context)
    value = evaluation.value
    if evaluation.reason is Reason.ERROR or value is ABSENT:
        code = evaluation.error_code or ErrorCode.GENERAL
        if code not in _CARRIED_CODES:
            code = ErrorCode.GENERAL
        return {"key": key, "errorCode": code.value, "errorDetails": evaluation.error_message}
    if value is None:
        text = "the value is null, which OFREP cannot carry"
        return {"key": key, "errorCode": ErrorCode.GENERAL.value, "errorDetails": text}
    # The same names as those of `rheostat.openfeature`.
    metadata: dict[str, object] = {
        "setting_revision": evaluation.setting_revision,
        "version": str(evaluation.setting_revision),
        "flagSetId": _flag_set(view),
    }
    if evaluation.rule_id is not None:
        metadata["rule_id"] = evaluation.rule_id
    if evaluation.note:
        metadata["note"] = evaluation.note
    return {
        "key": key,
        "value": thaw(value),
        "reason": evaluation.reason.value,
        "variant": evaluation.variant or "",
        "metadata": metadata,
    }


def _flag_set(view: View) -> str:
    return f"{view.project}/{view.environment}"


# The event stream.


def stream_address(mount: str, project: str, environment: str, key: Key | None) -> str:
    """Return the path and query at which the holder of *key* hears of changes, the same each time.

    Browsers send no headers when they open a stream, so the address holds a proof that whoever knows it was given it
    under the key. It opens nothing else, and ends with the key.

    Args:
        mount: The path below which the application is mounted.
        project: Its slug.
        environment: Its slug.
        key: None in open mode.
    """
    query = {"project": project, "environment": environment}
    if key is not None:
        query |= {"key": key.selector, "proof": proof_of(key, project, environment)}
    return f"{quote(mount)}{EVENTS}?{urlencode(query)}"


def proof_of(key: Key, project: str, environment: str) -> str:
    """Return the proof in `stream_address`."""
    said = b"\0".join((_PROOF_LABEL, key.selector.encode(), project.encode(), environment.encode()))
    return _text(hmac.digest(key.verifier, said, "sha256"))


def proves(proof: str, key: Key, project: str, environment: str) -> bool:
    """Tell whether *proof* is the one of `stream_address`, in a time that tells nothing."""
    return hmac.compare_digest(proof.encode(), proof_of(key, project, environment).encode())


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch has to say to a listener.

    Attributes:
        text: To send; may be empty.
        ends: The stream ends after it.
    """

    text: bytes
    ends: bool = False


class Feed:
    """The events of one watch as server-sent events. Not safe from two threads at a time.

    A listener learns that there is something new to fetch, never what. It is told so at the beginning too, unless it
    has been told of all there is: between its last answer and the stream something may have changed.
    """

    def __init__(self, token: Callable[[], bytes | None], share: Callable[[], float]) -> None:
        """Make a feed.

        Args:
            token: Returns the resume token of what the watch has reached; None when that is nothing.
            share: Draws a number from 0 to 1, so that listeners do not come back together.
        """
        self._token = token
        self._share = share

    def change(self, events: Sequence[WatchEvent]) -> Change:
        """Return what the *events* of a step of the watch are to the listener."""
        lines: list[str] = []
        ends = False
        for event in events:
            match event:
                case Hello(reconnect_spread=spread):
                    # A node that dies cannot say when to come back.
                    lines.append(self._retry(spread or 0.0))
                case GoAway(spread=spread):
                    lines.append(self._retry(spread))
                    ends = True
                case _:
                    pass
        if any(isinstance(event, (Delta, SnapshotEvent)) for event in events):
            token = self._token()
            assert token is not None
            tag = _text(token)
            told = json.dumps({"type": "refetchEvaluation", "etag": tag}, separators=(",", ":"))
            lines.append(f"id: {tag}\ndata: {told}\n\n")
        if events and not lines:
            # A comment, so that what lies between knows that the stream is alive.
            lines.append(":\n\n")
        return Change("".join(lines).encode(), ends)

    def _retry(self, spread: float) -> str:
        seconds = _LEAST_RETRY_SECONDS + self._share() * spread
        return f"retry: {round(seconds * 1000)}\n\n"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
