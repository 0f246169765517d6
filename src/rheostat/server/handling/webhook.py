"""WebhookService."""

from __future__ import annotations

import datetime
from typing import Any, Final

from rheo.v1 import webhook_pb2
from rheo.v1 import webhook_service_pb2 as webhook
from rheostat.model.webhook import Webhook
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    Handling,
    page_of,
    page_start,
    page_token,
)
from rheostat.service import Service
from rheostat.service.publish import Head
from rheostat.wire.webhook import delivery_to_proto, webhook_to_proto

__all__ = ["WebhookHandlers"]

_OVERLAP: Final = datetime.timedelta(hours=24)
"""For how long an old secret signs beside the new one, unless something else is asked for."""


class WebhookHandlers(Handling):
    """Addresses that are told of changes. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; what answers calls delivers, too."""
        super().__init__(service)
        service.webhooks.begin()

    def create_webhook(
        self, request: webhook.CreateWebhookRequest, call: Call
    ) -> webhook.CreateWebhookResponse:
        """Make a webhook."""
        head, state = self._project(request, call)
        project = state.project.slug
        made = self.service.webhooks.create(
            self._writer(request, call),
            project,
            request.url,
            environments=self._environments(head, call, project, request.environments),
            description=request.description,
        )
        return webhook.CreateWebhookResponse(
            webhook=webhook_to_proto(made.webhook, made.status),
            secret=made.secret,
            revision=made.outcome.revision,
            generation=made.outcome.generation,
        )

    def update_webhook(
        self, request: webhook.UpdateWebhookRequest, call: Call
    ) -> webhook.UpdateWebhookResponse:
        """Change a webhook."""
        head, state = self._project(request, call)
        project = state.project.slug
        environments = None
        if request.set_environments:
            environments = self._environments(head, call, project, request.environments)
        made = self.service.webhooks.update(
            self._writer(request, call),
            project,
            request.id,
            url=request.url,
            environments=environments,
            description=request.description if request.HasField("description") else None,
            enabled=request.enabled if request.HasField("enabled") else None,
        )
        return webhook.UpdateWebhookResponse(
            webhook=webhook_to_proto(made.webhook, made.status),
            revision=made.outcome.revision,
            generation=made.outcome.generation,
        )

    def delete_webhook(
        self, request: webhook.DeleteWebhookRequest, call: Call
    ) -> webhook.DeleteWebhookResponse:
        """Remove a webhook."""
        _, state = self._project(request, call)
        outcome = self.service.webhooks.delete(self._writer(request, call), state.project.slug, request.id)
        return webhook.DeleteWebhookResponse(revision=outcome.revision, generation=outcome.generation)

    def rotate_webhook_secret(
        self, request: webhook.RotateWebhookSecretRequest, call: Call
    ) -> webhook.RotateWebhookSecretResponse:
        """Make a new secret for a webhook."""
        _, state = self._project(request, call)
        made = self.service.webhooks.rotate(
            self._writer(request, call),
            state.project.slug,
            request.id,
            overlap=request.overlap.ToTimedelta() if request.HasField("overlap") else _OVERLAP,
        )
        return webhook.RotateWebhookSecretResponse(
            webhook=webhook_to_proto(made.webhook, made.status),
            secret=made.secret,
            revision=made.outcome.revision,
            generation=made.outcome.generation,
        )

    def get_webhook(self, request: webhook.GetWebhookRequest, call: Call) -> webhook.GetWebhookResponse:
        """Answer one webhook, never its secret."""
        return webhook.GetWebhookResponse(webhook=self._whole(self._found(request, call)))

    def list_webhooks(self, request: webhook.ListWebhooksRequest, call: Call) -> webhook.ListWebhooksResponse:
        """Answer the webhooks of the project, as far as the caller covers them."""
        _, state = self._project(request, call)
        visible = self.service.webhooks.visible(call.principal, state.project.slug)
        found, token = page_of(visible, request)
        return webhook.ListWebhooksResponse(webhooks=map(self._whole, found), next_page_token=token)

    def test_webhook(self, request: webhook.TestWebhookRequest, call: Call) -> webhook.TestWebhookResponse:
        """Send a test message."""
        delivery = self.service.webhooks.test(self._found(request, call))
        return webhook.TestWebhookResponse(delivery=delivery_to_proto(delivery))

    def list_deliveries(
        self, request: webhook.ListDeliveriesRequest, call: Call
    ) -> webhook.ListDeliveriesResponse:
        """Answer what was sent to a webhook, newest first."""
        after = page_start(request, "ascii")
        found, following = self.service.webhooks.deliveries(
            self._found(request, call),
            after=after,
            limit=min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE),
        )
        return webhook.ListDeliveriesResponse(
            deliveries=map(delivery_to_proto, found),
            next_page_token=page_token(following.encode()) if following else "",
        )

    def redeliver(self, request: webhook.RedeliverRequest, call: Call) -> webhook.RedeliverResponse:
        """Send the message of a revision again."""
        delivery = self.service.webhooks.redeliver(self._found(request, call), request.revision)
        return webhook.RedeliverResponse(delivery=delivery_to_proto(delivery))

    def _found(self, request: Any, call: Call) -> Webhook:
        _, state = self._project(request, call)
        return self.service.webhooks.find(call.principal, state.project.slug, request.id)

    def _whole(self, found: Webhook) -> webhook_pb2.Webhook:
        return webhook_to_proto(found, self.service.webhooks.status(found))

    def _environments(self, head: Head, call: Call, project: str, named: Any) -> tuple[str, ...]:
        """Return the environments that a request names; those that the caller sees, when it names none."""
        for environment in named:
            self._resolve(head, call, project, environment)
        own = call.principal.key
        if not named and own is not None:
            return own.environments
        return tuple(named)
