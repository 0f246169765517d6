"""Receiving webhooks: is a message the server's, and what does it say?

Needs the extra `webhooks`, and nothing else of Rheostat: no client, no connection.

    @app.post("/hook")
    def hook():
        event = verify_flask(request, secret)     # raises WebhookVerificationError
        print(event.revision, [change.key for change in event.changes])
        return "", 204

The server sends a message again when its answer was lost, so remember the `id` of what was done. Messages tell that
something has changed, and no values: read those with a client.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rheostat.errors import InvalidArgumentError, MissingDependencyError, WebhookVerificationError

try:
    from standardwebhooks.webhooks import Webhook
    from standardwebhooks.webhooks import WebhookVerificationError as _NotVerifiedError
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[webhooks]'"
    ) from exc

if TYPE_CHECKING:
    from django.http import HttpRequest
    from flask import Request as FlaskRequest
    from starlette.requests import Request as StarletteRequest

__all__ = ["WebhookChange", "WebhookEvent", "verify", "verify_django", "verify_flask", "verify_starlette"]

_PREFIX: Final = "whsec_"


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What a change-set did to one thing.

    Attributes:
        environment: Empty for what belongs to the whole project.
        kind: `setting`, `segment`, `project`, `environment`, `key` or `webhook`; more may come.
        key: Its name.
        action: `created`, `updated` or `removed`.
        fields: What is different about it, by name; empty unless it was updated.
    """

    environment: str
    kind: str
    key: str
    action: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """A message that the server has sent.

    Attributes:
        id: The same whenever the message is sent again.
        type: `change_set.committed`, or `webhook.test`, which has no revision; more may come.
        timestamp: When that happened, aware, UTC.
        project: The project's slug.
        environments: Those of the changes that the webhook is told of.
        revision: Of the change-set; 0 when the message is of another type.
        generation: Of the change-set.
        author: Who wrote it.
        message: Why.
        changes: What it did, as far as that fits into a message.
        changes_omitted: How many more there are.
        content: The message's `data` as it came, for what this version does not know.
    """

    id: str
    type: str
    timestamp: datetime.datetime
    project: str
    environments: tuple[str, ...]
    revision: int
    generation: int
    author: str
    message: str
    changes: tuple[WebhookChange, ...]
    changes_omitted: int
    content: Mapping[str, Any]


def verify(secret: str | Iterable[str], headers: Mapping[str, str], body: bytes | str) -> WebhookEvent:
    """Return the message of a request, which carries a good signature and was made in the last five minutes.

    Args:
        secret: The webhook's, `whsec_...`; several while it is rotated.
        headers: The request's, in any case.
        body: The request's, as it came: what was parsed and written again has another signature.

    Raises:
        WebhookVerificationError: It is not so; answer 401.
        InvalidArgumentError: A secret is none.
    """
    verifiers = [_verifier(each) for each in _secrets(secret)]
    lowered = {name.lower(): text for name, text in headers.items()}
    problem = "its headers or its body cannot be read"
    for verifier in verifiers:
        try:
            verifier.verify(body, lowered, json_parse=False)
        except _NotVerifiedError as exc:
            problem = str(exc).lower()
        except (ValueError, TypeError):
            # What the library makes of a header that is not of its form.
            continue
        else:
            return _event(lowered["webhook-id"], body)
    raise WebhookVerificationError(f"the message to the webhook is not accepted: {problem}")


def verify_flask(request: FlaskRequest, secret: str | Iterable[str]) -> WebhookEvent:
    """Return the message of a Flask request; see `verify`.

    Raises:
        WebhookVerificationError: As `verify`.
        InvalidArgumentError: As `verify`.
    """
    return verify(secret, dict(request.headers.items()), request.get_data())


def verify_django(request: HttpRequest, secret: str | Iterable[str]) -> WebhookEvent:
    """Return the message of a Django request; see `verify`. The view has to be exempt from CSRF protection.

    Raises:
        WebhookVerificationError: As `verify`.
        InvalidArgumentError: As `verify`.
    """
    return verify(secret, request.headers, request.body)


async def verify_starlette(request: StarletteRequest, secret: str | Iterable[str]) -> WebhookEvent:
    """Return the message of a request of Starlette or FastAPI; see `verify`.

    Raises:
        WebhookVerificationError: As `verify`.
        InvalidArgumentError: As `verify`.
    """
    return verify(secret, request.headers, await request.body())


def _secrets(secret: object) -> Sequence[str]:
    """Return the secrets, which often come from an environment that lacks them."""
    if isinstance(secret, str):
        return [secret]
    # Bytes are iterable too, and would be taken for numbers.
    given = secret if isinstance(secret, Iterable) and not isinstance(secret, bytes | bytearray) else [secret]
    secrets = []
    for each in given:
        if not isinstance(each, str):
            raise InvalidArgumentError(
                f"the secret of a webhook is {type(each).__name__}; pass the text whsec_..., or several such texts"
            )
        secrets.append(each)
    if not secrets:
        raise InvalidArgumentError("there is no secret to verify a webhook's message with")
    return secrets


def _verifier(secret: str) -> Webhook:
    try:
        if not secret.startswith(_PREFIX) or len(secret) == len(_PREFIX):
            raise ValueError
        return Webhook(secret)
    except ValueError:
        # Never quoted: it may be most of one.
        raise InvalidArgumentError("the secret of a webhook is not of the form whsec_...") from None


def _event(message_id: str, body: bytes | str) -> WebhookEvent:
    try:
        message = json.loads(body)
        content = message["data"]
        return WebhookEvent(
            id=message_id,
            type=_text(message["type"]),
            timestamp=_instant(message["timestamp"]),
            project=_text(content["project"]),
            environments=tuple(map(_text, content.get("environments", ()))),
            revision=_whole(content.get("revision", 0)),
            generation=_whole(content.get("generation", 0)),
            author=_text(content.get("author", "")),
            message=_text(content.get("message", "")),
            changes=tuple(
                WebhookChange(
                    _text(change["environment"]),
                    _text(change["kind"]),
                    _text(change["key"]),
                    _text(change["action"]),
                    tuple(map(_text, change.get("fields", ()))),
                )
                for change in content.get("changes", ())
            ),
            changes_omitted=_whole(content.get("changes_omitted", 0)),
            content=content,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as exc:
        raise WebhookVerificationError("the message is signed, and is none of Rheostat's") from exc


def _text(content: object) -> str:
    if not isinstance(content, str):
        raise TypeError(f"{content!r} is no text")
    return content


def _whole(content: object) -> int:
    if not isinstance(content, int) or isinstance(content, bool):
        raise TypeError(f"{content!r} is no whole number")
    return content


def _instant(content: object) -> datetime.datetime:
    instant = datetime.datetime.fromisoformat(_text(content))
    if instant.tzinfo is None:
        raise ValueError(f"{content!r} has no time zone")
    return instant.astimezone(datetime.UTC)
