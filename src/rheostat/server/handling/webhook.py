"""WebhookService."""

from __future__ import annotations

from google.protobuf.message import Message

from rheo.v1 import webhook_service_pb2 as webhook
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    Handling,
    not_served,
)

__all__ = ["WebhookHandlers"]


class WebhookHandlers(Handling):
    """Addresses that are told of changes. Safe from any thread."""

    def create_webhook(self, request: webhook.CreateWebhookRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def update_webhook(self, request: webhook.UpdateWebhookRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def delete_webhook(self, request: webhook.DeleteWebhookRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def rotate_webhook_secret(self, request: webhook.RotateWebhookSecretRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def get_webhook(self, request: webhook.GetWebhookRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def list_webhooks(self, request: webhook.ListWebhooksRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def test_webhook(self, request: webhook.TestWebhookRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def list_deliveries(self, request: webhook.ListDeliveriesRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)

    def redeliver(self, request: webhook.RedeliverRequest, call: Call) -> Message:
        """Refuse: this version does not serve it."""
        raise not_served(call)
