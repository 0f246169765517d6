"""What a webhook is told: which part of a change-set, in which words, with which signature."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from rheostat.errors import MissingDependencyError
from rheostat.model.change import Change, ChangeSet, Item
from rheostat.model.key import Key
from rheostat.model.webhook import Webhook

__all__ = [
    "CHANGE_SET",
    "MAX_BODY_BYTES",
    "TEST",
    "Message",
    "change_set_message",
    "headers_of",
    "test_message",
]

CHANGE_SET: Final = "change_set.committed"
TEST: Final = "webhook.test"

MAX_BODY_BYTES: Final = 256 * 1024
"""Of a message: what does not fit is counted in ``changes_omitted``."""

_UNSAID_FIELDS: Final = frozenset({"revision", "created_revision"})


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one webhook.

    Attributes:
        id: The same at every attempt, and unique among all that the webhook is sent.
        type: `CHANGE_SET` or `TEST`.
        revision: The revision that it tells of; 0 for a test.
        body: JSON text.
    """

    id: str
    type: str
    revision: int
    body: str


def change_set_message(webhook: Webhook, change_set: ChangeSet, store_id: bytes) -> Message | None:
    """Return what *webhook* is told of *change_set*; None when nothing of it is for it."""
    if change_set.project != webhook.project:
        return None
    told = [change for change in change_set.changes if _is_told(webhook, change)]
    if not told:
        return None
    committed_at = change_set.created_at or datetime.datetime.fromtimestamp(0, datetime.UTC)
    head = {
        "project": change_set.project,
        "environments": sorted({change.environment for change in told} - {""}),
        "revision": change_set.revision,
        "generation": change_set.generation,
        "author": change_set.author,
        "actor": change_set.actor,
        "message": change_set.message,
        "committed_at": _text(committed_at),
        "reverts": change_set.reverts,
        "draft": change_set.draft,
    }
    changes = _fitting([_told(change) for change in told], MAX_BODY_BYTES - len(_json(head).encode()) - 1024)
    content = {**head, "changes": changes, "changes_omitted": len(told) - len(changes)}
    # A store that was restored by hand may give a revision again, before it has noticed and begun a generation.
    stamp = hashlib.sha256(_text(committed_at).encode()).hexdigest()[:8]
    return Message(
        f"msg_{store_id.hex()[:8]}_{webhook.id}_{change_set.generation}_{change_set.revision}_{stamp}",
        CHANGE_SET,
        change_set.revision,
        _json({"type": CHANGE_SET, "timestamp": _text(committed_at), "data": content}),
    )


def test_message(webhook: Webhook, store_id: bytes, now: datetime.datetime, nonce: bytes) -> Message:
    """Return a message that tells of nothing."""
    content = {"project": webhook.project, "webhook": webhook.id, "environments": list(webhook.environments)}
    return Message(
        f"msg_{store_id.hex()[:8]}_{webhook.id}_test_{nonce.hex()}",
        TEST,
        0,
        _json({"type": TEST, "timestamp": _text(now), "data": content}),
    )


def headers_of(message: Message, secrets: Iterable[str], now: datetime.datetime) -> dict[str, str]:
    """Return the headers of an attempt at *now*, aware, with a signature for each of *secrets*.

    Raises:
        MissingDependencyError: The library that signs is not installed.
    """
    try:
        from standardwebhooks.webhooks import Webhook as Signer
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            "webhooks need standardwebhooks, which is not installed: pip install 'rheostat[server]'"
        ) from exc
    # The library takes whole seconds of UTC, whatever the zone says.
    at = now.astimezone(datetime.UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            Signer(secret).sign(message.id, at, message.body) for secret in secrets
        ),
    }


def _is_told(webhook: Webhook, change: Change) -> bool:
    if not webhook.environments:
        return True
    # Keys and webhooks concern the environments that they reach; without any, they reach all.
    items = [item for item in (change.before, change.after) if isinstance(item, Key | Webhook)]
    if items:
        return all(
            item.environments and set(item.environments) <= set(webhook.environments) for item in items
        )
    environment = change.key if change.kind == "environment" else change.environment
    return not environment or environment in webhook.environments


def _told(change: Change) -> dict[str, Any]:
    action = "created" if change.before is None else "removed" if change.after is None else "updated"
    told: dict[str, Any] = {
        "environment": change.environment,
        "kind": change.kind,
        "key": change.key,
        "action": action,
    }
    # Who may call, and who is told of what, is for administrators; that it has changed is not.
    if action == "updated" and change.kind not in ("key", "webhook"):
        told["fields"] = _changed_fields(change.before, change.after)
    return told


def _changed_fields(before: Item | None, after: Item | None) -> list[str]:
    if before is None or after is None or type(before) is not type(after):
        return []
    return sorted(
        field.name
        for field in dataclasses.fields(before)
        if field.name not in _UNSAID_FIELDS and getattr(before, field.name) != getattr(after, field.name)
    )


def _fitting(changes: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """Return the first of *changes*, as many as fit into *room* bytes."""
    for count, change in enumerate(changes):
        room -= len(_json(change).encode()) + 1
        if room < 0:
            return changes[:count]
    return changes


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _text(instant: datetime.datetime) -> str:
    return instant.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
