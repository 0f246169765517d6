"""Webhooks and their deliveries as messages; never their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rheo.v1 import webhook_pb2
from rheostat.errors import InvalidArgumentError
from rheostat.model.webhook import Delivery, DeliveryState, Webhook, WebhookStatus
from rheostat.wire.instant import instant_from_proto, instant_to_proto

__all__ = ["delivery_from_proto", "delivery_to_proto", "webhook_from_proto", "webhook_to_proto"]

_STATES: Final[Mapping[int, DeliveryState]] = {
    number: DeliveryState[name.removeprefix("DELIVERY_STATE_")]
    for name, number in webhook_pb2.DeliveryState.items()
    if number
}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def webhook_to_proto(webhook: Webhook, status: WebhookStatus | None = None) -> webhook_pb2.Webhook:
    """Return *webhook*; with its *status*, which the history does not hold."""
    message = webhook_pb2.Webhook(
        id=webhook.id,
        project=webhook.project,
        url=webhook.url,
        environments=webhook.environments,
        description=webhook.description,
        enabled=webhook.enabled,
        revision=webhook.revision,
    )
    if status is not None:
        message.disabled_reason = status.disabled_reason
        message.delivered_revision = status.delivered_revision
        message.failures = status.failures
        if status.next_attempt_at is not None:
            message.next_attempt_at.CopyFrom(instant_to_proto(status.next_attempt_at))
        if status.old_secret_until is not None:
            message.old_secret_until.CopyFrom(instant_to_proto(status.old_secret_until))
    return message


def webhook_from_proto(message: webhook_pb2.Webhook) -> tuple[Webhook, WebhookStatus]:
    """Return the webhook of a peer's answer, and its status.

    Raises:
        ValueError: An instant is outside the years 1 to 9999.
    """
    webhook = Webhook(
        id=message.id,
        project=message.project,
        url=message.url,
        environments=tuple(message.environments),
        description=message.description,
        enabled=message.enabled,
        revision=message.revision,
    )
    status = WebhookStatus(
        delivered_revision=message.delivered_revision,
        failures=message.failures,
        next_attempt_at=instant_from_proto(message.next_attempt_at)
        if message.HasField("next_attempt_at")
        else None,
        disabled_reason=message.disabled_reason,
        old_secret_until=instant_from_proto(message.old_secret_until)
        if message.HasField("old_secret_until")
        else None,
    )
    return webhook, status


def delivery_to_proto(delivery: Delivery) -> webhook_pb2.Delivery:
    """Return *delivery* as a message."""
    return webhook_pb2.Delivery(
        id=delivery.id,
        type=delivery.type,
        revision=delivery.revision,
        state=_STATE_NUMBERS[delivery.state],  # type: ignore[arg-type]  # enum numbers are plain ints at run time
        attempts=delivery.attempts,
        attempted_at=instant_to_proto(delivery.attempted_at),
        status=delivery.status,
        error=delivery.error,
    )


def delivery_from_proto(message: webhook_pb2.Delivery) -> Delivery:
    """Return the delivery of a peer's answer.

    Raises:
        InvalidArgumentError: Its state is not known to this version.
    """
    state = _STATES.get(message.state)
    if state is None:
        raise InvalidArgumentError(f"the state {message.state} of a delivery is unknown")
    return Delivery(
        id=message.id,
        type=message.type,
        revision=message.revision,
        state=state,
        attempts=message.attempts,
        attempted_at=instant_from_proto(message.attempted_at),
        status=message.status,
        error=message.error,
    )
