"""Telling one webhook what it has not been told yet, in order, one message at a time."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rheostat.errors import RevisionCompactedError, RheostatError
from rheostat.model.change import ChangeSet
from rheostat.model.webhook import Delivery, DeliveryState, Webhook
from rheostat.service.webhook.ledger import Cursor, Ledger
from rheostat.service.webhook.message import Message, change_set_message, headers_of
from rheostat.service.webhook.sender import Sender

if TYPE_CHECKING:
    from rheostat.service.publish import Head
    from rheostat.service.service import Service

__all__ = ["GIVE_UP", "LEASE", "Courier", "deliver"]

log = logging.getLogger("rheostat.webhook")

LEASE: Final = datetime.timedelta(seconds=15)
"""For how long one process alone tells a webhook of changes, unless it renews that."""

GIVE_UP: Final = datetime.timedelta(days=3)
"""After so long without a success the webhook is disabled. The planned waits are added up, and no clock is read."""

_DELAYS: Final = (5, 30, 120, 600, 3_600, 3 * 3_600, 6 * 3_600)
"""Seconds: each wait is drawn from zero to these, the last for all further ones."""

_CONTENDED: Final = datetime.timedelta(seconds=1)
"""When to look again after another process was faster."""

_HELD: Final = datetime.timedelta(seconds=2)
"""When to look again while another process has the lease."""

_READ: Final = 20
"""Change-sets read at a time: one may have megabytes."""

_PASSED_OVER: Final = 1_000
"""How many revisions that are not for the webhook are passed over in memory only."""

_TRIM_EVERY: Final = 100


class Courier:
    """What one process does for one webhook. For one thread at a time, but for `renew`."""

    def __init__(self, service: Service, ledger: Ledger, sender: Sender, webhook_id: str) -> None:
        """Make a courier for the webhook called *webhook_id*."""
        self._service = service
        self._ledger = ledger
        self._sender = sender
        self._id = webhook_id
        # Revisions that are not for the webhook, of the history that has this nonce, while it has these environments.
        self._passed = 0
        self._passed_by: tuple[bytes, tuple[str, ...]] = (b"", ())
        self._untrimmed = _TRIM_EVERY
        self._owner = ""
        self.stopped = False

    def run(self) -> datetime.datetime | None:
        """Deliver what there is.

        Returns:
            When to run again; None when only a new revision, or a change of the webhook, is a reason to.
        """
        # One head for all that is decided: what is passed over by it was not for the webhook as it was then.
        head = self._service.head
        webhook = self._webhook(head)
        cursor = None if webhook is None else self._ledger.cursor(webhook)
        if webhook is None or cursor is None:
            return None
        waits_until = self._waits_until(cursor)
        if waits_until is not None:
            return waits_until
        message = self._next(head, webhook, cursor.delivered)
        if message is None:
            self._pass_over(webhook, cursor)
            return None
        taken = self._lease(webhook)
        if taken is None:
            return self._service.clock() + _CONTENDED
        try:
            if taken.delivered != cursor.delivered:
                # Another process has delivered in the meantime.
                message = self._next(head, webhook, taken.delivered)
            if message is None:
                self._release(webhook)
                return None
            return self._deliver(webhook, message)
        except Exception:
            with contextlib.suppress(RheostatError):
                self._release(webhook)
            raise
        finally:
            self._owner = ""

    def renew(self) -> None:
        """Lengthen the lease while a delivery takes long. Safe from any thread."""
        owner, webhook = self._owner, self._service.head.state.webhooks.get(self._id)
        if not owner or webhook is None:
            return
        until = self._service.clock() + LEASE
        self._ledger.change_cursor(
            webhook, lambda stored: replace(stored, leased_until=until) if stored.owner == owner else None
        )

    def _webhook(self, head: Head) -> Webhook | None:
        """The webhook, if it is to be told anything now."""
        webhook = head.state.webhooks.get(self._id)
        if self.stopped or self._service.draining or webhook is None or not webhook.enabled:
            return None
        return webhook

    def _waits_until(self, cursor: Cursor) -> datetime.datetime | None:
        now = self._service.clock()
        # What lies further ahead than it can have been set was set by a clock that was wrong.
        if cursor.leased_until is not None and now < cursor.leased_until <= now + LEASE:
            # It may be given back sooner.
            return min(cursor.leased_until, now + _HELD)
        latest = now + datetime.timedelta(seconds=_DELAYS[-1])
        if cursor.next_attempt_at is not None and now < cursor.next_attempt_at <= latest:
            return cursor.next_attempt_at
        return None

    def _next(self, head: Head, webhook: Webhook, delivered: int) -> Message | None:
        """Return the first message after *delivered*; None when the head holds nothing for the webhook."""
        identity = head.identity
        if self._passed_by != (identity.nonce, webhook.environments):
            # Revisions may have been given again, to others; and what the cursor has not passed over is for the
            # webhook as it is now.
            self._passed_by, self._passed = (identity.nonce, webhook.environments), 0
        for change_set in self._after(max(delivered, self._passed), head.revision):
            message = change_set_message(webhook, change_set, identity.store_id)
            if message is not None:
                return message
            self._passed = change_set.revision
        return None

    def _after(self, revision: int, last: int) -> Iterator[ChangeSet]:
        store = self._service.store
        while revision < last and not self.stopped:
            found: Sequence[ChangeSet]
            try:
                found = store.read_since(revision, limit=min(_READ, last - revision))
            except RevisionCompactedError:
                # It was disabled for longer than watchers are served; the audit history reaches back further.
                change_set = store.change_set(revision + 1)
                found = () if change_set is None else (change_set,)
                revision += 1
            else:
                if not found:
                    return
            for change_set in found:
                revision = change_set.revision
                yield change_set

    def _pass_over(self, webhook: Webhook, cursor: Cursor) -> None:
        passed = self._passed
        if passed >= cursor.delivered + _PASSED_OVER:
            self._ledger.change_cursor(
                webhook,
                lambda stored: (
                    None if stored.owner else replace(stored, delivered=max(stored.delivered, passed))
                ),
            )

    def _lease(self, webhook: Webhook) -> Cursor | None:
        owner = self._service.randomness(8).hex()
        until = self._service.clock() + LEASE

        def take(stored: Cursor) -> Cursor | None:
            if self._waits_until(stored) is not None:
                return None
            return replace(stored, owner=owner, leased_until=until)

        taken = self._ledger.change_cursor(webhook, take)
        if taken is not None:
            self._owner = owner
        return taken

    def _deliver(self, webhook: Webhook, message: Message) -> datetime.datetime | None:
        following: Message | None = message
        while following is not None:
            told = following
            delivery = deliver(self._service, self._ledger, self._sender, webhook, told, retrying=True)
            if delivery is None:
                return None
            if delivery.state is not DeliveryState.DELIVERED:
                return self._failed(webhook, delivery)
            self._trim(webhook)
            head = self._service.head
            going_on = self._webhook(head)
            following = None if going_on is None else self._next(head, going_on, told.revision)
            webhook = going_on or webhook
            if self._advance(webhook, told.revision, keep=following is not None) is None:
                return self._service.clock() + _CONTENDED
        return None

    def _advance(self, webhook: Webhook, delivered: int, *, keep: bool) -> Cursor | None:
        owner, until = self._owner, self._service.clock() + LEASE

        def advance(stored: Cursor) -> Cursor | None:
            if stored.owner != owner:
                return None
            stored = replace(stored.resumed(), delivered=max(stored.delivered, delivered))
            return replace(stored, leased_until=until) if keep else stored.released()

        return self._ledger.change_cursor(webhook, advance)

    def _release(self, webhook: Webhook) -> None:
        owner = self._owner
        self._ledger.change_cursor(
            webhook, lambda stored: stored.released() if stored.owner == owner else None
        )

    def _failed(self, webhook: Webhook, delivery: Delivery) -> datetime.datetime | None:
        owner, now = self._owner, self._service.clock()
        share = int.from_bytes(self._service.randomness(4), "big") / 2**32

        def fail(stored: Cursor) -> Cursor | None:
            if stored.owner != owner:
                return None
            base = _DELAYS[min(stored.failures, len(_DELAYS) - 1)]
            wait = datetime.timedelta(seconds=max(1.0, base * share))
            return replace(
                stored.released(),
                failures=stored.failures + 1,
                next_attempt_at=now + wait,
                # Until the next attempt.
                waited=stored.waited + wait,
            )

        cursor = self._ledger.change_cursor(webhook, fail)
        if cursor is None:
            return now + _CONTENDED
        log.warning(
            "the webhook %s did not take a message: %s (%d in a row)",
            webhook.id,
            delivery.error,
            cursor.failures,
        )
        reason = ""
        if delivery.status == 410:
            reason = "the receiver answered 410: it is gone"
        elif cursor.next_attempt_at is not None and cursor.waited - (cursor.next_attempt_at - now) >= GIVE_UP:
            reason = f"no message was taken for {GIVE_UP.days} days; at last: {delivery.error}"
        if reason:
            try:
                self._service.webhooks.disable(webhook, reason)
            except RheostatError as exc:
                log.warning("the webhook %s cannot be disabled now: %s", webhook.id, exc)
        return cursor.next_attempt_at

    def _trim(self, webhook: Webhook) -> None:
        self._untrimmed += 1
        if self._untrimmed >= _TRIM_EVERY:
            self._untrimmed = 0
            self._ledger.trim_deliveries(webhook)


def deliver(
    service: Service,
    ledger: Ledger,
    sender: Sender,
    webhook: Webhook,
    message: Message,
    *,
    retrying: bool = False,
) -> Delivery | None:
    """Send *message* once, note what came of it and return it; None when the webhook is gone.

    Args:
        service: The node.
        ledger: Its records.
        sender: Sends.
        webhook: To whom.
        message: What.
        retrying: A failure is followed by another attempt.
    """
    secrets = ledger.secrets(webhook)
    if secrets is None:
        return None
    at = service.clock()
    attempt = sender.send(webhook.url, message.body.encode(), headers_of(message, secrets.in_force(at), at))
    if message.revision:
        place = ledger.place_of(message.revision)
    else:
        place = ledger.place_of_test(service.head.revision, at, message.id)

    def note(before: Delivery | None) -> Delivery:
        state = DeliveryState.RETRYING if retrying and attempt.status != 410 else DeliveryState.FAILED
        if attempt.taken:
            state = DeliveryState.DELIVERED
        elif not retrying and before is not None and before.state is DeliveryState.RETRYING:
            # What is sent by hand in between ends no attempts.
            state = DeliveryState.RETRYING
        return Delivery(
            message.id,
            message.type,
            message.revision,
            state,
            1 if before is None else before.attempts + 1,
            at,
            attempt.status,
            attempt.error,
        )

    return ledger.change_delivery(webhook, place, note)
