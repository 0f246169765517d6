"""What is kept of webhooks beside the history: secrets, cursors, and the last deliveries."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rheostat.model.webhook import Delivery, DeliveryState, Webhook, WebhookStatus
from rheostat.store.base import Record, Store, Transaction

__all__ = ["KEPT_DELIVERIES", "Cursor", "Ledger", "Secrets"]

KEPT_DELIVERIES: Final = 1_000
"""Of each webhook, the newest."""

_SECRET: Final = "webhook_secret"  # noqa: S105 - the name of a kind of records
_CURSOR: Final = "webhook_cursor"
_DELIVERY: Final = "webhook_delivery"

_REPEATS: Final = 10
"""How often a change of a cursor is tried that others change at the same time."""

_LAST: Final = 10**19 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a webhook has got, and which process is about to tell it more.

    Attributes:
        delivered: The newest revision that it has been told of, or passed over.
        failures: How many attempts have failed since the last success.
        next_attempt_at: When the next one is.
        disabled_reason: Why the server has disabled the webhook; empty when it has not.
        owner: Names the lease; empty without one.
        leased_until: When the lease ends unless it is renewed.
        waited: The waits that were planned since the first failure, together: neither a clock that is set nor a
            time in which no process runs counts against the receiver.
    """

    delivered: int
    failures: int = 0
    next_attempt_at: datetime.datetime | None = None
    disabled_reason: str = ""
    owner: str = ""
    leased_until: datetime.datetime | None = None
    waited: datetime.timedelta = datetime.timedelta()

    def released(self) -> Cursor:
        """Return it without a lease."""
        return replace(self, owner="", leased_until=None)

    def resumed(self) -> Cursor:
        """Return it as if nothing had failed."""
        return replace(self, failures=0, next_attempt_at=None, waited=datetime.timedelta())


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets that sign.

    Attributes:
        current: The newest.
        old: The one before it; empty when there is none.
        old_until: Until when that one signs as well.
    """

    current: str
    old: str = ""
    old_until: datetime.datetime | None = None

    def in_force(self, now: datetime.datetime) -> tuple[str, ...]:
        """Return those that sign at *now*, the newest first."""
        if self.old and self.old_until is not None and now < self.old_until:
            return (self.current, self.old)
        return (self.current,)


class Ledger:
    """Reads and writes the records. Safe from any thread."""

    def __init__(self, store: Store) -> None:
        """Keep records in *store*."""
        self._store = store

    # Cursors.

    def cursor(self, webhook: Webhook) -> Cursor | None:
        """Return the cursor; None when the webhook is gone."""
        record = self._store.record(_CURSOR, _key(webhook))
        return None if record is None else _decode_cursor(record)

    def change_cursor(self, webhook: Webhook, change: Callable[[Cursor], Cursor | None]) -> Cursor | None:
        """Change the cursor, whatever others do to it at the same time.

        Args:
            webhook: Whose cursor.
            change: Makes the new one of the stored one; None leaves it as it is. May be called again.

        Returns:
            The new one; None when *change* wanted none, or the webhook is gone.
        """
        for _ in range(_REPEATS):
            record = self._store.record(_CURSOR, _key(webhook))
            if record is None:
                return None
            changed = change(_decode_cursor(record))
            if changed is None:
                return None
            written = self._store.put_record(
                _encode_cursor(webhook, changed), expected_version=record.version
            )
            if written is not None:
                return changed
        return None

    @staticmethod
    def cursor_in(transaction: Transaction, webhook: Webhook) -> Cursor | None:
        """Return the cursor as a transaction sees it."""
        record = transaction.record(_CURSOR, _key(webhook))
        return None if record is None else _decode_cursor(record)

    @staticmethod
    def put_cursor_in(transaction: Transaction, webhook: Webhook, cursor: Cursor) -> None:
        """Write the cursor together with a change-set."""
        transaction.put_record(_encode_cursor(webhook, cursor))

    # Secrets.

    def secrets(self, webhook: Webhook) -> Secrets | None:
        """Return the secrets; None when the webhook is gone."""
        record = self._store.record(_SECRET, _key(webhook))
        return None if record is None else _decode_secrets(record)

    @staticmethod
    def secrets_in(transaction: Transaction, webhook: Webhook) -> Secrets | None:
        """Return the secrets as a transaction sees them."""
        record = transaction.record(_SECRET, _key(webhook))
        return None if record is None else _decode_secrets(record)

    @staticmethod
    def put_secrets_in(transaction: Transaction, webhook: Webhook, secrets: Secrets) -> None:
        """Write the secrets together with a change-set."""
        body = {"current": secrets.current, "old": secrets.old, "old_until": _text(secrets.old_until)}
        transaction.put_record(Record(_SECRET, _key(webhook), json.dumps(body)))

    def status(self, webhook: Webhook) -> WebhookStatus:
        """Return how far a webhook has got."""
        cursor, secrets = self.cursor(webhook), self.secrets(webhook)
        if cursor is None:
            return WebhookStatus()
        return WebhookStatus(
            delivered_revision=cursor.delivered,
            failures=cursor.failures,
            next_attempt_at=cursor.next_attempt_at,
            disabled_reason=cursor.disabled_reason,
            old_secret_until=secrets.old_until if secrets is not None and secrets.old else None,
        )

    @staticmethod
    def forget_in(transaction: Transaction, webhook: Webhook) -> None:
        """Remove the cursor and the secrets together with a change-set."""
        transaction.delete_record(_CURSOR, _key(webhook))
        transaction.delete_record(_SECRET, _key(webhook))

    # Deliveries.

    def delivery(self, webhook: Webhook, place: str) -> Delivery | None:
        """Return one delivery, or None."""
        record = self._store.record(_DELIVERY, f"{_key(webhook)}/{place}")
        return None if record is None else _decode_delivery(record)

    def change_delivery(
        self, webhook: Webhook, place: str, change: Callable[[Delivery | None], Delivery]
    ) -> Delivery:
        """Write a delivery, whatever others do to it at the same time.

        Args:
            webhook: Whose delivery.
            place: Where it stands.
            change: Makes the new one of the stored one; may be called again.
        """
        key = f"{_key(webhook)}/{place}"
        for _ in range(_REPEATS):
            record = self._store.record(_DELIVERY, key)
            delivery = change(None if record is None else _decode_delivery(record))
            changed = _encode_delivery(key, delivery)
            if self._store.put_record(changed, expected_version=0 if record is None else record.version):
                return delivery
        # It is for people to read: rather a count too few than a message that is sent again for this.
        self._store.put_record(changed)
        return delivery

    def deliveries(
        self, webhook: Webhook, *, after: str = "", limit: int = KEPT_DELIVERIES
    ) -> Sequence[tuple[str, Delivery]]:
        """Return up to *limit* deliveries with their places, newest first, from behind the place *after*."""
        prefix = f"{_key(webhook)}/"
        found = self._store.records(
            _DELIVERY, prefix=prefix, after=f"{prefix}{after}" if after else "", limit=limit
        )
        return [(record.key.removeprefix(prefix), _decode_delivery(record)) for record in found]

    def trim_deliveries(self, webhook: Webhook, keep: int = KEPT_DELIVERIES) -> None:
        """Remove all but the newest deliveries."""
        after = ""
        if keep:
            kept = self.deliveries(webhook, limit=keep)
            if len(kept) < keep:
                return
            after = kept[-1][0]
        while found := self.deliveries(webhook, after=after):
            for place, _ in found:
                self._store.delete_record(_DELIVERY, f"{_key(webhook)}/{place}")

    @staticmethod
    def place_of(revision: int) -> str:
        """Return the place of the delivery of a revision: the higher, the earlier."""
        return f"{_LAST - revision:019d}-1"

    @staticmethod
    def place_of_test(revision: int, now: datetime.datetime, message_id: str) -> str:
        """Return the place of a test that was made when *revision* was the newest."""
        return f"{_LAST - revision:019d}-0-{_LAST - int(now.timestamp() * 1e6):019d}-{message_id[-8:]}"


def _key(webhook: Webhook) -> str:
    return f"{webhook.project}/{webhook.id}"


def _encode_cursor(webhook: Webhook, cursor: Cursor) -> Record:
    body = {
        "delivered": cursor.delivered,
        "failures": cursor.failures,
        "next_attempt_at": _text(cursor.next_attempt_at),
        "disabled_reason": cursor.disabled_reason,
        "owner": cursor.owner,
        "leased_until": _text(cursor.leased_until),
        "waited": cursor.waited.total_seconds(),
    }
    return Record(_CURSOR, _key(webhook), json.dumps(body))


def _decode_cursor(record: Record) -> Cursor:
    raw: dict[str, Any] = json.loads(record.body)
    return Cursor(
        raw["delivered"],
        raw["failures"],
        _instant(raw["next_attempt_at"]),
        raw["disabled_reason"],
        raw["owner"],
        _instant(raw["leased_until"]),
        datetime.timedelta(seconds=raw["waited"]),
    )


def _decode_secrets(record: Record) -> Secrets:
    raw: dict[str, Any] = json.loads(record.body)
    return Secrets(raw["current"], raw["old"], _instant(raw["old_until"]))


def _encode_delivery(key: str, delivery: Delivery) -> Record:
    body = {
        "id": delivery.id,
        "type": delivery.type,
        "revision": delivery.revision,
        "state": delivery.state.name,
        "attempts": delivery.attempts,
        "attempted_at": _text(delivery.attempted_at),
        "status": delivery.status,
        "error": delivery.error,
    }
    return Record(_DELIVERY, key, json.dumps(body))


def _decode_delivery(record: Record) -> Delivery:
    raw: dict[str, Any] = json.loads(record.body)
    return Delivery(
        raw["id"],
        raw["type"],
        raw["revision"],
        DeliveryState[raw["state"]],
        raw["attempts"],
        datetime.datetime.fromisoformat(raw["attempted_at"]),
        raw["status"],
        raw["error"],
    )


def _text(instant: datetime.datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(datetime.UTC).isoformat()


def _instant(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)
