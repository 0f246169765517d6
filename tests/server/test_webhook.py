"""The webhook service: what its requests mean, and what keys that are bound to environments reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import webhook_pb2
from rheo.v1 import webhook_service_pb2 as webhook
from rheostat.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from rheostat.model.change import PutEnvironment, PutSetting, SetValue
from rheostat.model.key import KeyKind, Role
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.webhook import Attempt
from rheostat.store import open_store

URL = "https://hooks.example/in"


class Line:
    def __init__(self) -> None:
        self.answer = Attempt(204)

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        return self.answer


@dataclass
class World:
    service: Service
    handlers: Handlers
    line: Line

    def ask(self, name: str, principal: Principal = OPEN, **fields: Any) -> Any:
        service, module = ("WebhookService", webhook)
        if not hasattr(webhook, f"{name}Request"):
            service, module = ("AdminService", admin)
        request = getattr(module, f"{name}Request")(**fields)
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
        return self.handlers.handle(method, request, Call(principal, "1", f"rheo.v1.{service}/{name}"))

    def admin(self, *environments: str) -> Principal:
        key, _, _ = self.service.create_key(
            Writer(OPEN), kind=KeyKind.USER, role=Role.ADMIN, project="default", environments=environments
        )
        return Principal(key)

    def webhooks(self, principal: Principal = OPEN) -> list[str]:
        return [each.id for each in self.ask("ListWebhooks", principal).webhooks]

    def kinds(self, principal: Principal) -> list[str]:
        found = self.ask("ListRevisions", principal).change_sets
        return [change.kind for change_set in found for change in change_set.changes]


@pytest.fixture
def world() -> Iterator[World]:
    line = Line()
    with Service(open_store("memory:"), webhook_sender=line) as service:
        handlers = Handlers(service)
        # These tests send by hand only.
        service.webhooks.close()
        service.commit(Writer(OPEN), "default", "", [PutEnvironment("staging")])
        yield World(service, handlers, line)


def test_a_webhook_is_made_read_changed_and_removed(world: World) -> None:
    made = world.ask("CreateWebhook", url=URL, description="chat", request_id="r")
    assert made.secret.startswith("whsec_")
    assert made.webhook.enabled
    assert made.webhook.delivered_revision == made.webhook.revision == made.revision
    again = world.ask("CreateWebhook", url=URL, description="chat", request_id="r")
    assert (again.webhook, again.secret, again.revision) == (made.webhook, "", made.revision)
    with pytest.raises(AlreadyExistsError):
        world.ask("CreateWebhook", url="https://other.example/", request_id="r")

    id_ = made.webhook.id
    assert world.ask("GetWebhook", id=id_).webhook == made.webhook
    changed = world.ask("UpdateWebhook", id=id_, environments=["staging"], description="").webhook
    assert (list(changed.environments), changed.description, changed.url) == ([], "", URL)
    changed = world.ask("UpdateWebhook", id=id_, set_environments=True, environments=["staging"]).webhook
    assert list(changed.environments) == ["staging"]
    unchanged = world.ask("UpdateWebhook", id=id_)
    assert unchanged.webhook.revision == changed.revision
    assert world.ask("DeleteWebhook", id=id_).revision == world.service.head.revision
    assert world.webhooks() == []


def test_a_secret_is_answered_once_and_nowhere_else(world: World) -> None:
    made = world.ask("CreateWebhook", url=URL)
    rotated = world.ask("RotateWebhookSecret", id=made.webhook.id)
    left = rotated.webhook.old_secret_until.ToDatetime() - world.service.clock().replace(tzinfo=None)
    assert 23 * 3600 < left.total_seconds() <= 24 * 3600
    secrets = [made.secret, rotated.secret]
    for name, fields in (
        ("GetWebhook", {"id": made.webhook.id}),
        ("ListWebhooks", {}),
        ("ListRevisions", {}),
        ("TestWebhook", {"id": made.webhook.id}),
        ("ListDeliveries", {"id": made.webhook.id}),
        ("Export", {}),
    ):
        answer = str(world.ask(name, **fields))
        assert not any(secret in answer or secret.removeprefix("whsec_") in answer for secret in secrets)


def test_deliveries_come_in_pages_newest_first(world: World) -> None:
    made = world.ask("CreateWebhook", url=URL).webhook
    world.line.answer = Attempt(503, "HTTP 503 Service Unavailable")
    ids = [world.ask("TestWebhook", id=made.id).delivery.id for _ in range(5)]
    listed: list[Any] = []
    token = ""
    while True:
        page = world.ask("ListDeliveries", id=made.id, page_size=2, page_token=token)
        listed += page.deliveries
        assert len(page.deliveries) <= 2
        token = page.next_page_token
        if not token:
            break
    assert [each.id for each in listed] == ids[::-1]
    assert {each.state for each in listed} == {webhook_pb2.DELIVERY_STATE_FAILED}
    assert {(each.status, each.error) for each in listed} == {(503, "HTTP 503 Service Unavailable")}


def test_a_message_is_sent_again_by_its_revision(world: World) -> None:
    made = world.ask("CreateWebhook", url=URL).webhook
    revision = world.service.commit(
        Writer(OPEN), "default", "staging", [PutSetting("n", {"type": "int", "default": 0})]
    ).revision
    for attempts in (1, 2):
        delivery = world.ask("Redeliver", id=made.id, revision=revision).delivery
        assert (delivery.revision, delivery.attempts) == (revision, attempts)
        assert delivery.state == webhook_pb2.DELIVERY_STATE_DELIVERED
    with pytest.raises(NotFoundError) as caught:
        world.ask("Redeliver", id=made.id, revision=2**63)
    assert caught.value.reason == "REVISION_NOT_FOUND"


def test_a_bound_key_makes_webhooks_of_its_environments_only(world: World) -> None:
    bound = world.admin("staging")
    made = world.ask("CreateWebhook", bound, url=URL).webhook
    assert list(made.environments) == ["staging"]
    with pytest.raises(PermissionDeniedError):
        world.ask("CreateWebhook", bound, url=URL, environments=["production"])
    with pytest.raises(PermissionDeniedError):
        world.ask("UpdateWebhook", bound, id=made.id, set_environments=True, environments=["production"])
    # All that the key sees, and not all that there is.
    widened = world.ask("UpdateWebhook", bound, id=made.id, set_environments=True).webhook
    assert list(widened.environments) == ["staging"]
    with pytest.raises(PermissionDeniedError):
        world.ask("CreateWebhook", url=URL, environments=["nowhere"])


def test_a_bound_key_knows_nothing_of_wider_webhooks(world: World) -> None:
    bound, other = world.admin("staging"), world.admin("production")
    wide = world.ask("CreateWebhook", url="https://wide.example/").webhook
    narrow = world.ask("CreateWebhook", bound, url=URL).webhook
    assert world.webhooks(bound) == [narrow.id]
    assert world.webhooks(other) == []
    assert sorted(world.webhooks()) == sorted([wide.id, narrow.id])
    for name in (
        *("GetWebhook", "UpdateWebhook", "DeleteWebhook", "RotateWebhookSecret"),
        *("TestWebhook", "ListDeliveries"),
    ):
        with pytest.raises(NotFoundError) as caught:
            world.ask(name, bound, id=wide.id)
        assert caught.value.reason == "WEBHOOK_NOT_FOUND"
    # Nor does the history tell: neither of the wide one, nor of how the narrow one was widened.
    world.ask("UpdateWebhook", id=narrow.id, set_environments=True, environments=["staging", "production"])
    assert world.kinds(bound).count("webhook") == 1
    assert "wide.example" not in str(world.ask("ListRevisions", bound))
    assert world.kinds(other).count("webhook") == 0
    assert world.kinds(OPEN).count("webhook") == 3


def test_only_administrators_find_webhooks_in_the_history(world: World) -> None:
    world.ask("CreateWebhook", url=URL)
    key, _, _ = world.service.create_key(Writer(OPEN), kind=KeyKind.USER, role=Role.EDITOR, project="default")
    assert "webhook" not in world.kinds(Principal(key))
    assert "hooks.example" not in str(world.ask("ListRevisions", Principal(key)))


def test_a_bound_webhook_gets_its_own_part_of_a_change_set(world: World) -> None:
    made = world.ask("CreateWebhook", url=URL, environments=["staging"]).webhook
    for environment in ("staging", "production"):
        world.service.commit(
            Writer(OPEN), "default", environment, [PutSetting("n", {"type": "int", "default": 0})]
        )
    production = world.service.commit(Writer(OPEN), "default", "production", [SetValue("n", 1)]).revision
    with pytest.raises(NotFoundError):
        world.ask("Redeliver", id=made.id, revision=production)


def test_a_url_that_may_not_be_sent_to_is_named_as_the_field_at_fault(world: World) -> None:
    for name, fields in (("CreateWebhook", {}), ("UpdateWebhook", {"id": "none"})):
        with pytest.raises(InvalidArgumentError) as caught:
            world.ask(name, url="https://169.254.169.254/", **fields)
        assert caught.value.violations[0].field == "url"
