"""The use cases of webhooks."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rheostat.errors import LimitExceededError, NotFoundError, RevisionCompactedError
from rheostat.model.change import ChangeSet
from rheostat.model.state import State
from rheostat.model.webhook import (
    Delivery,
    Webhook,
    WebhookStatus,
    checked_url,
    make_webhook_secret,
)
from rheostat.service.access import OPEN, Principal
from rheostat.service.plan import Plan, plan_webhook
from rheostat.service.webhook.courier import deliver
from rheostat.service.webhook.dispatcher import Dispatcher
from rheostat.service.webhook.ledger import Cursor, Ledger, Secrets
from rheostat.service.webhook.message import Message, change_set_message, test_message
from rheostat.service.webhook.sender import HttpSender, Sender
from rheostat.service.writing import Outcome, Writer
from rheostat.store.base import Identity, Store, Transaction

if TYPE_CHECKING:
    from rheostat.service.service import Service

__all__ = ["WebhookOutcome", "Webhooks"]

_BY_HAND: Final = 2
"""Tests and redeliveries at a time."""

_READ: Final = 20
"""Change-sets read at a time."""


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    """What became of a write of a webhook.

    Attributes:
        webhook: As it is now; as it was, when it was removed.
        status: How far it has got.
        outcome: The revision.
        secret: A new secret, which is shown once; empty when there is none, and in a replay.
    """

    webhook: Webhook
    status: WebhookStatus
    outcome: Outcome
    secret: str = ""


class Webhooks:
    """The webhooks of a node. Safe from any thread."""

    def __init__(
        self, service: Service, *, allow_private: bool = False, sender: Sender | None = None
    ) -> None:
        """Make the use cases of *service*; nothing is delivered before `begin`.

        Args:
            service: The node.
            allow_private: Take http, and addresses of private networks.
            sender: Sends messages; by default over HTTP.
        """
        self._service = service
        self._allow_private = allow_private
        self._sender = sender or HttpSender(allow_private=allow_private)
        self._ledger = Ledger(service.store)
        self._delivering = False
        self._by_hand = threading.BoundedSemaphore(_BY_HAND)
        self._dispatcher = self._new_dispatcher()

    # Delivery.

    def begin(self) -> None:
        """Deliver from now on, in threads that the first enabled webhook starts; not on a node without background.

        Idempotent.
        """
        if not self._service.background:
            return
        self._delivering = True
        if self._service.started:
            self._dispatcher.notice()

    def notice(self) -> None:
        """Look at the newest head. Called at each new one, and so cheap."""
        if self._delivering:
            self._dispatcher.notice()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._dispatcher.close()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads."""
        self._dispatcher = self._new_dispatcher()
        self._by_hand = threading.BoundedSemaphore(_BY_HAND)

    def _new_dispatcher(self) -> Dispatcher:
        return Dispatcher(self._service, self._ledger, self._sender)

    # Writing.

    def create(
        self,
        writer: Writer,
        project: str,
        url: str,
        *,
        environments: Sequence[str] = (),
        description: str = "",
    ) -> WebhookOutcome:
        """Make a webhook, which is told of what comes after this change-set.

        Args:
            writer: Who, and why.
            project: Slug.
            url: Where changes are sent.
            environments: Only change-sets that touch one of these, or something project-wide; empty means all.
            description: For people.

        Raises:
            InvalidArgumentError: The URL is none that messages can be sent to.
            LimitExceededError: The project has too many webhooks.
        """
        url = checked_url(url, allow_private=self._allow_private)
        secret = make_webhook_secret(self._service.randomness(32))
        webhook = Webhook(
            id=self._service.randomness(8).hex(),
            project=project,
            url=url,
            environments=tuple(environments),
            description=description,
        )

        def make(state: State, revision: int) -> Plan:
            limit = self._service.limits.max_webhooks
            if sum(each.project == project for each in state.webhooks.values()) >= limit:
                raise LimitExceededError(
                    f"the project {project!r} has {limit} webhooks already", limit="max_webhooks"
                )
            new = replace(webhook, created_revision=revision, secret_revision=revision)
            return plan_webhook(state, new, revision=revision)

        def beside(transaction: Transaction) -> None:
            self._ledger.put_secrets_in(transaction, webhook, Secrets(secret))
            self._ledger.put_cursor_in(transaction, webhook, Cursor(transaction.revision + 1))

        outcome = self._service.write(writer, make, companion=_Beside(beside))
        return self._outcome(webhook, outcome, secret)

    def update(
        self,
        writer: Writer,
        project: str,
        webhook_id: str,
        *,
        url: str = "",
        environments: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> WebhookOutcome:
        """Change a webhook; None, and an empty URL, leave alone.

        Raises:
            NotFoundError: There is no such webhook among those that the caller covers.
            InvalidArgumentError: The URL is none that messages can be sent to.
        """
        if url:
            checked_url(url, allow_private=self._allow_private)
        passed = None if environments is None else self._passing(webhook_id)

        def make(state: State, revision: int) -> Plan:
            webhook = self._found(state, writer.principal, project, webhook_id)
            if passed is not None:
                passed.webhook = webhook
            changed = replace(
                webhook,
                url=url or webhook.url,
                environments=webhook.environments if environments is None else tuple(environments),
                description=webhook.description if description is None else description,
                enabled=webhook.enabled if enabled is None else enabled,
            )
            return plan_webhook(state, changed, revision=revision)

        def resumed(cursor: Cursor) -> Cursor:
            return replace(cursor.resumed(), disabled_reason="" if enabled else cursor.disabled_reason)

        afresh = bool(url or enabled)

        def beside(transaction: Transaction) -> None:
            webhook = Webhook(webhook_id, project, url)
            cursor = self._ledger.cursor_in(transaction, webhook)
            if cursor is None:
                return
            if passed is not None:
                delivered = passed.before(transaction, cursor.delivered)
                cursor = replace(cursor, delivered=delivered)
            if passed is not None or afresh:
                self._ledger.put_cursor_in(transaction, webhook, resumed(cursor) if afresh else cursor)

        outcome = self._service.write(writer, make, companion=_Beside(beside))
        if afresh and not outcome.change_set.changes:
            # It was enabled already, and waits for its next attempt.
            webhook = self._found(self._service.head.state, writer.principal, project, webhook_id)
            self._ledger.change_cursor(webhook, resumed)
        if afresh:
            self._dispatcher.nudge(webhook_id)
        return self._outcome(self._service.head.state.webhooks.get(webhook_id), outcome)

    def _passing(self, webhook_id: str) -> _Passing | None:
        head = self._service.head
        webhook = head.state.webhooks.get(webhook_id)
        cursor = None if webhook is None else self._ledger.cursor(webhook)
        if webhook is None or cursor is None:
            return None
        passing = _Passing(webhook, head.identity)
        passing.read(self._service.store, cursor.delivered)
        return passing

    def delete(self, writer: Writer, project: str, webhook_id: str) -> Outcome:
        """Remove a webhook with all that is kept of it.

        Raises:
            NotFoundError: There is no such webhook among those that the caller covers.
        """

        def make(state: State, revision: int) -> Plan:
            webhook = self._found(state, writer.principal, project, webhook_id)
            return plan_webhook(state, webhook, revision=revision, delete=True)

        gone = Webhook(webhook_id, project, "")
        outcome = self._service.write(
            writer, make, companion=_Beside(lambda transaction: self._ledger.forget_in(transaction, gone))
        )
        if not outcome.replayed:
            self._ledger.trim_deliveries(gone, keep=0)
        return outcome

    def rotate(
        self, writer: Writer, project: str, webhook_id: str, *, overlap: datetime.timedelta
    ) -> WebhookOutcome:
        """Make a new secret; the one before it signs beside it for *overlap*.

        Raises:
            NotFoundError: There is no such webhook among those that the caller covers.
        """
        secret = make_webhook_secret(self._service.randomness(32))
        until = self._service.clock() + overlap

        def make(state: State, revision: int) -> Plan:
            webhook = self._found(state, writer.principal, project, webhook_id)
            return plan_webhook(state, replace(webhook, secret_revision=revision), revision=revision)

        def beside(transaction: Transaction) -> None:
            webhook = Webhook(webhook_id, project, "")
            before = self._ledger.secrets_in(transaction, webhook)
            secrets = Secrets(secret)
            if before is not None and overlap:
                secrets = Secrets(secret, before.current, until)
            self._ledger.put_secrets_in(transaction, webhook, secrets)

        outcome = self._service.write(writer, make, companion=_Beside(beside))
        return self._outcome(self._service.head.state.webhooks.get(webhook_id), outcome, secret)

    def disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a webhook on behalf of the server, unless somebody has changed it in the meantime.

        Raises:
            UnavailableError: The node is draining, or the store is away.
        """

        def make(state: State, revision: int) -> Plan:
            current = state.webhooks.get(webhook.id)
            if current is None or current.revision != webhook.revision:
                return Plan(webhook.project, (), rule_number=state.rule_number)
            return plan_webhook(state, replace(current, enabled=False), revision=revision)

        def beside(transaction: Transaction) -> None:
            cursor = self._ledger.cursor_in(transaction, webhook)
            if cursor is not None:
                stopped = replace(cursor, next_attempt_at=None, disabled_reason=reason)
                self._ledger.put_cursor_in(transaction, webhook, stopped)

        message = f"The webhook was disabled: {reason}"
        self._service.write(Writer(OPEN, author="rheostat", message=message), make, companion=_Beside(beside))

    def _outcome(self, webhook: Webhook | None, outcome: Outcome, secret: str = "") -> WebhookOutcome:
        written = [change.after for change in outcome.change_set.changes if isinstance(change.after, Webhook)]
        found = written[0] if written else webhook
        if found is None:
            # Removed between the write and this look at it.
            raise _no_webhook("")
        return WebhookOutcome(found, self._ledger.status(found), outcome, "" if outcome.replayed else secret)

    # Reading.

    def visible(self, principal: Principal, project: str) -> dict[str, Webhook]:
        """Return the webhooks of a project that the caller covers, by id."""
        return {
            webhook.id: webhook
            for webhook in self._service.head.state.webhooks.values()
            if webhook.project == project and principal.covers(webhook)
        }

    def find(self, principal: Principal, project: str, webhook_id: str) -> Webhook:
        """Return one webhook.

        Raises:
            NotFoundError: There is no such webhook among those that the caller covers.
        """
        return self._found(self._service.head.state, principal, project, webhook_id)

    def status(self, webhook: Webhook) -> WebhookStatus:
        """Return how far a webhook has got."""
        return self._ledger.status(webhook)

    def deliveries(self, webhook: Webhook, *, after: str = "", limit: int) -> tuple[Sequence[Delivery], str]:
        """Return deliveries, newest first, and the place after which the next ones are; empty for the last."""
        found = self._ledger.deliveries(webhook, after=after, limit=limit + 1)
        page = found[:limit]
        return [delivery for _, delivery in page], page[-1][0] if len(found) > limit else ""

    # Sending by hand.

    def test(self, webhook: Webhook) -> Delivery:
        """Send a test message once, whether the webhook is enabled or not, and return what came of it.

        Raises:
            NotFoundError: The webhook is gone.
        """
        message = test_message(
            webhook,
            self._service.head.identity.store_id,
            self._service.clock(),
            self._service.randomness(8),
        )
        return self._send(webhook, message)

    def redeliver(self, webhook: Webhook, revision: int) -> Delivery:
        """Send the message of a revision again, once, and return what came of it.

        Raises:
            NotFoundError: There is no such revision, or nothing in it is for the webhook.
        """
        change_set = self._service.change_set(webhook.project, revision)
        message = change_set_message(webhook, change_set, self._service.head.identity.store_id)
        if message is None:
            raise NotFoundError(
                f"the webhook {webhook.id!r} is not told of revision {revision}",
                reason="REVISION_NOT_FOUND",
                metadata={"revision": str(revision)},
            )
        return self._send(webhook, message)

    def _send(self, webhook: Webhook, message: Message) -> Delivery:
        # Each of them may take a thread of the server for as long as the receiver likes, up to the time-out.
        if not self._by_hand.acquire(blocking=False):
            raise LimitExceededError(
                f"{_BY_HAND} messages are being sent by hand already", limit="webhook_tests", retry_after=1.0
            )
        try:
            delivery = deliver(self._service, self._ledger, self._sender, webhook, message)
        finally:
            self._by_hand.release()
        if delivery is None:
            raise _no_webhook(webhook.id)
        return delivery

    @staticmethod
    def _found(state: State, principal: Principal, project: str, webhook_id: str) -> Webhook:
        webhook = state.webhooks.get(webhook_id)
        if webhook is None or webhook.project != project or not principal.covers(webhook):
            raise _no_webhook(webhook_id)
        return webhook


class _Passing:
    """What a webhook passes over before its environments change: it is never told of that, whichever they become.

    Attributes:
        webhook: As it is before the change.
    """

    def __init__(self, webhook: Webhook, identity: Identity) -> None:
        self.webhook = webhook
        self._read_as = webhook.environments
        self._identity = identity
        self._passed = 0
        self._ended = False

    def read(self, store: Store, delivered: int) -> None:
        """Read what there is before the transaction, which others wait for."""
        self._passed = delivered
        while not self._ended:
            try:
                change_sets = store.read_since(self._passed, limit=_READ)
            except RevisionCompactedError:
                change_set = store.change_set(self._passed + 1)
                change_sets = () if change_set is None else (change_set,)
            if not change_sets:
                return
            self._pass(change_sets)

    def before(self, transaction: Transaction, delivered: int) -> int:
        """Return where the cursor goes that is at *delivered*."""
        if transaction.identity.nonce != self._identity.nonce or self.webhook.environments != self._read_as:
            # Another history, or another change of the same webhook came in between, which has moved the cursor.
            self._passed, self._ended = delivered, False
        if delivered > self._passed:
            self._passed, self._ended = delivered, False
        if not self._ended:
            try:
                self._pass(transaction.since(self._passed))
            except RevisionCompactedError:
                return delivered
        return self._passed

    def _pass(self, change_sets: Sequence[ChangeSet]) -> None:
        for change_set in change_sets:
            if change_set_message(self.webhook, change_set, self._identity.store_id) is not None:
                self._ended = True
                return
            self._passed = change_set.revision


class _Beside:
    """A companion that only writes records."""

    def __init__(self, write: Callable[[Transaction], None]) -> None:
        self._write = write

    def begin(self, transaction: Transaction) -> None:
        """Nothing is to be read first."""

    def complete(self, transaction: Transaction, change_set: ChangeSet) -> ChangeSet:
        """Write the records."""
        self._write(transaction)
        return change_set


def _no_webhook(webhook_id: str) -> NotFoundError:
    return NotFoundError(f"there is no webhook {webhook_id!r}", reason="WEBHOOK_NOT_FOUND")
