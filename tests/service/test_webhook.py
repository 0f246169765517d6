"""Webhooks: what is told to whom, in which order, how often, and what becomes of receivers that do not take it."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from rheostat.errors import InvalidArgumentError, LimitExceededError, NotFoundError
from rheostat.model.change import (
    PutEnvironment,
    PutSegment,
    PutSetting,
    SetValue,
)
from rheostat.model.condition import AllOf
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.setting import Segment
from rheostat.model.webhook import Delivery, DeliveryState, Webhook, is_public
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.webhook import Attempt, HttpSender
from rheostat.service.webhook.courier import GIVE_UP, LEASE, Courier
from rheostat.service.webhook.ledger import KEPT_DELIVERIES, Ledger
from rheostat.service.webhook.message import MAX_BODY_BYTES, change_set_message
from rheostat.store import open_store
from tests.postgres import Template, running_template
from tests.service.node import NOBODY, Node, World
from tests.service.receiver import PATIENCE, Receiver

DAY = 24 * 3600.0


class Line:
    """A sender without a network: it keeps what it is given, and answers what a test has put in."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answer: Callable[[dict[str, Any]], Attempt] = lambda _: Attempt(204)

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        message = json.loads(body)
        self.sent.append((url, message, dict(headers)))
        return self.answer(message)

    @property
    def revisions(self) -> list[int]:
        return [message["data"].get("revision", 0) for _, message, _ in self.sent]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, _, headers in self.sent]


FAILING = Attempt(500, "HTTP 500 Internal Server Error")


class Post:
    """A node with a webhook, whose courier a test runs by hand."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.line = Line()
        self.node = world.node(webhook_sender=self.line, **options)
        self.node.commit(PutSetting("rate", {"type": "int", "default": 0}))
        self.webhooks = self.node.service.webhooks
        made = self.webhooks.create(NOBODY, "default", "https://hooks.example/in")
        self.id = made.webhook.id
        self.secret = made.secret
        self.ledger = Ledger(world.store)
        self.courier = self.new_courier()

    def new_courier(self, node: Node | None = None) -> Courier:
        return Courier((node or self.node).service, self.ledger, self.line, self.id)

    @property
    def webhook(self) -> Webhook:
        return self.node.service.head.state.webhooks[self.id]

    @property
    def status(self) -> Any:
        return self.webhooks.status(self.webhook)

    def set(self, value: int) -> int:
        return self.node.commit(SetValue("rate", value)).revision

    def deliveries(self) -> list[Delivery]:
        return list(self.webhooks.deliveries(self.webhook, limit=100)[0])

    def wait(self, seconds: float) -> None:
        self.world.clock.seconds += seconds


@pytest.fixture
def post(world: World) -> Post:
    return Post(world)


# What is told.


def test_a_webhook_is_told_of_each_change_set_after_its_own(post: Post) -> None:
    revisions = [post.set(1), post.set(2), post.set(3)]
    assert post.courier.run() is None
    assert post.line.revisions == revisions
    assert post.status.delivered_revision == revisions[-1]
    assert [delivery.revision for delivery in post.deliveries()] == revisions[::-1]
    assert {delivery.state for delivery in post.deliveries()} == {DeliveryState.DELIVERED}


def test_a_message_says_what_changed_and_no_values(post: Post) -> None:
    writer = Writer(OPEN, author="ada", message="faster")
    post.node.service.commit(writer, "default", "production", [SetValue("rate", 31_415)])
    post.courier.run()
    url, message, headers = post.line.sent[0]
    assert url == "https://hooks.example/in"
    assert headers["content-type"] == "application/json"
    assert message["type"] == "change_set.committed"
    assert message["timestamp"] == message["data"].pop("committed_at")
    assert message["data"] == {
        "project": "default",
        "environments": ["production"],
        "revision": 4,
        "generation": 1,
        "author": "ada",
        "actor": "",
        "message": "faster",
        "reverts": 0,
        "draft": "",
        "changes": [
            {
                "environment": "production",
                "kind": "setting",
                "key": "rate",
                "action": "updated",
                "fields": ["value"],
            }
        ],
        "changes_omitted": 0,
    }
    assert "31415" not in json.dumps(message)


def test_a_message_is_signed_as_standard_webhooks_say(post: Post) -> None:
    # The library takes the real time only.
    post.world.clock.started = datetime.datetime.now(datetime.UTC)
    post.world.clock.seconds = 0.0
    sent: list[tuple[bytes, dict[str, str]]] = []

    class Raw(Line):
        def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
            sent.append((body, dict(headers)))
            return Attempt(200)

    post.set(1)
    Courier(post.node.service, post.ledger, Raw(), post.id).run()
    ((body, headers),) = sent
    assert Verifier(post.secret).verify(body, headers)["data"]["revision"] == 4
    with pytest.raises(WebhookVerificationError):
        Verifier(post.secret).verify(body + b" ", headers)


def test_an_id_differs_between_webhooks_and_revisions_and_not_between_attempts(post: Post) -> None:
    other = post.webhooks.create(NOBODY, "default", "https://other.example/").webhook
    post.set(1)
    post.line.answer = lambda _: FAILING
    post.courier.run()
    post.line.answer = lambda _: Attempt(200)
    post.wait(3600)
    post.courier.run()
    first, *others = post.line.ids
    assert others[0] == first
    assert len(set(others)) == len(others)
    assert all(post.id in each for each in post.line.ids)
    Courier(post.node.service, post.ledger, post.line, other.id).run()
    assert other.id in post.line.ids[-1]


def test_only_what_touches_its_environments_or_is_project_wide_is_told(post: Post) -> None:
    post.node.add_environment("staging")
    post.node.commit(PutSetting("rate", {"type": "int", "default": 0}), environment="staging")
    made = post.webhooks.create(NOBODY, "default", "https://hooks.example/", environments=["staging"])
    courier = Courier(post.node.service, post.ledger, post.line, made.webhook.id)
    post.set(1)
    both = post.node.commit(
        SetValue("rate", 5, environment="staging"), SetValue("rate", 6, environment="production")
    ).revision
    wide = post.node.commit(PutSegment(Segment("staff", AllOf(())))).revision
    post.node.add_environment("other")
    changed = post.node.commit(PutEnvironment("staging", title="Staging")).revision
    assert courier.run() is None
    assert post.line.revisions == [both, wide, changed]
    told = post.line.sent[0][1]["data"]
    assert told["environments"] == ["staging"]
    assert [change["environment"] for change in told["changes"]] == ["staging"]


def test_keys_are_told_by_selector_and_to_those_who_see_their_environments(post: Post) -> None:
    key, text, _ = post.node.service.create_key(
        NOBODY, kind=KeyKind.SERVER, project="default", environments=["production"]
    )
    post.courier.run()
    (change,) = post.line.sent[0][1]["data"]["changes"]
    assert change == {"environment": "", "kind": "key", "key": key.selector, "action": "created"}
    assert text.split("_")[3] not in json.dumps(post.line.sent[0][1])
    narrow = Webhook("n", "default", "https://x.example", environments=("staging",))
    change_set = post.world.store.change_sets[-1]
    assert change_set_message(narrow, change_set, b"1234") is None
    assert change_set_message(replace(narrow, environments=("production",)), change_set, b"1234") is not None


def test_other_projects_are_not_told_of(post: Post) -> None:
    change_set = post.world.store.change_sets[-1]
    assert change_set_message(Webhook("n", "other", "https://x.example"), change_set, b"1234") is None


def test_a_large_change_set_is_told_in_part_and_says_so(post: Post) -> None:
    many = [
        PutSetting(f"s-{number:04d}-{'x' * 50}", {"type": "int", "default": 0}) for number in range(2_000)
    ]
    post.node.commit(*many)
    post.courier.run()
    message = post.line.sent[0][1]
    assert len(json.dumps(message, separators=(",", ":"))) <= MAX_BODY_BYTES
    omitted = message["data"]["changes_omitted"]
    assert 0 < omitted == 2_000 - len(message["data"]["changes"])


def test_what_is_not_for_it_is_passed_over_without_a_write(post: Post) -> None:
    post.node.add_environment("staging")
    made = post.webhooks.create(NOBODY, "default", "https://hooks.example/", environments=["staging"])
    courier = Courier(post.node.service, post.ledger, post.line, made.webhook.id)
    written: list[str] = []
    put = post.world.store.put_record
    post.world.store.put_record = lambda record, **options: (  # type: ignore[method-assign]
        written.append(record.kind),
        put(record, **options),
    )[1]
    for value in range(30):
        post.set(value)
        assert courier.run() is None
    assert post.line.sent == []
    assert written == []


def test_what_was_passed_over_stays_passed_over_when_the_environments_change(
    post: Post, world: World
) -> None:
    post.node.add_environment("staging")
    made = post.webhooks.create(NOBODY, "default", "https://hooks.example/", environments=["staging"])
    courier = Courier(post.node.service, post.ledger, post.line, made.webhook.id)
    for value in range(5):
        post.set(value)
    assert courier.run() is None
    post.set(5)
    # Another process, and the one that had passed over some of it, tell the same after this.
    for environments in (["staging", "production"], ["staging"], []):
        post.webhooks.update(NOBODY, "default", made.webhook.id, environments=environments)
    expected = [post.set(6)]
    other = world.node(webhook_sender=post.line)
    for each in (post.new_courier(other), courier):
        each._id = made.webhook.id
        assert each.run() is None
    assert [revision for revision in post.line.revisions if revision in expected] == expected
    assert min(post.line.revisions) > made.webhook.created_revision + 6


def test_what_waits_to_be_told_stays_where_it_is_when_the_environments_change(post: Post) -> None:
    post.node.add_environment("staging")
    post.node.commit(PutSetting("rate", {"type": "int", "default": 0}), environment="staging")
    made = post.webhooks.create(NOBODY, "default", "https://hooks.example/", environments=["staging"])
    passed = post.set(1)
    waiting = post.node.commit(SetValue("rate", 5, environment="staging")).revision
    later = post.set(2)
    post.webhooks.update(NOBODY, "default", made.webhook.id, environments=[])
    Courier(post.node.service, post.ledger, post.line, made.webhook.id).run()
    assert passed not in post.line.revisions
    assert [revision for revision in post.line.revisions if revision in (waiting, later)] == [waiting, later]


# Failures.


def test_a_message_that_is_not_taken_holds_up_those_behind_it(post: Post) -> None:
    first, second = post.set(1), post.set(2)
    post.line.answer = lambda _: FAILING
    due = post.courier.run()
    assert due is not None
    assert post.line.revisions == [first]
    assert post.status.failures == 1
    assert post.status.next_attempt_at == due
    assert post.deliveries()[0].state is DeliveryState.RETRYING
    assert post.deliveries()[0].error == "HTTP 500 Internal Server Error"
    # Not before its time.
    assert post.courier.run() == due
    assert post.line.revisions == [first]
    post.line.answer = lambda _: Attempt(200)
    post.world.clock.seconds += (due - post.world.clock.now()).total_seconds()
    assert post.courier.run() is None
    assert post.line.revisions == [first, first, second]
    assert post.status.failures == 0
    assert post.deliveries()[-1].attempts == 2


def test_waits_grow_with_full_jitter_and_end_with_the_webhook_disabled_after_three_days(post: Post) -> None:
    post.set(1)
    post.line.answer = lambda _: FAILING
    started = post.world.clock.now()
    waits: list[float] = []
    while (due := post.courier.run()) is not None and post.webhook.enabled:
        waits.append((due - post.world.clock.now()).total_seconds())
        post.world.clock.seconds += waits[-1]
    bases = [5, 30, 120, 600, 3_600, 10_800]
    bounds = bases + [21_600] * (len(waits) - len(bases))
    assert all(1.0 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    # Drawn, and neither all short nor all long.
    assert max(waits) > 10_000
    assert min(waits[6:]) < 15_000
    passed = post.world.clock.now() - started
    assert GIVE_UP <= passed <= GIVE_UP + datetime.timedelta(hours=6)

    assert not post.webhook.enabled
    assert post.status.disabled_reason == (
        "no message was taken for 3 days; at last: HTTP 500 Internal Server Error"
    )
    change_set = post.world.store.change_sets[-1]
    assert change_set.author == "rheostat"
    assert change_set.actor == ""
    assert change_set.message.startswith("The webhook was disabled: no message was taken for 3 days")
    assert post.courier.run() is None


@pytest.mark.parametrize("days", [4, 3650])
def test_a_clock_that_jumps_or_a_server_that_was_away_does_not_disable_a_webhook(
    post: Post, days: float
) -> None:
    post.set(1)
    post.line.answer = lambda _: FAILING
    for jump in (0.0, days * DAY, -days * DAY, days * DAY, 0.0, 0.0):
        due = post.courier.run()
        assert due is not None
        assert post.webhook.enabled, post.status.disabled_reason
        post.wait((due - post.world.clock.now()).total_seconds() + jump)
    # It has three days of failures before it all the same, and no more.
    started = post.world.clock.now()
    while (due := post.courier.run()) is not None and post.webhook.enabled:
        post.wait((due - post.world.clock.now()).total_seconds())
    passed = post.world.clock.now() - started
    assert GIVE_UP - datetime.timedelta(hours=12) <= passed <= GIVE_UP + datetime.timedelta(hours=6)


def test_a_webhook_that_is_enabled_again_goes_on_where_it_stopped(post: Post) -> None:
    missed = [post.set(1), post.set(2)]
    post.line.answer = lambda _: Attempt(410, "HTTP 410 Gone")
    post.courier.run()
    assert not post.webhook.enabled
    assert post.status.disabled_reason == "the receiver answered 410: it is gone"
    assert len(post.line.sent) == 1
    assert post.deliveries()[0].state is DeliveryState.FAILED

    # Watchers of that time would need a snapshot; the audit history has it all.
    later = post.set(3)
    post.wait(10 * DAY)
    post.node.service.compact(later)
    post.line.sent.clear()
    post.line.answer = lambda _: Attempt(200)
    post.webhooks.update(NOBODY, "default", post.id, enabled=True)
    assert post.status.disabled_reason == ""
    post.courier.run()
    # Its own changes are among them.
    assert post.line.revisions == [*missed, later - 1, later, later + 1]


def test_to_enable_a_webhook_that_waits_tries_at_once(post: Post) -> None:
    post.set(1)
    post.line.answer = lambda _: FAILING
    assert post.courier.run() is not None
    revision = post.node.revision
    outcome = post.webhooks.update(NOBODY, "default", post.id, enabled=True)
    assert outcome.outcome.revision == revision
    assert outcome.status.failures == 0
    post.line.answer = lambda _: Attempt(200)
    assert post.courier.run() is None


def test_a_disabled_webhook_is_told_nothing(post: Post) -> None:
    post.webhooks.update(NOBODY, "default", post.id, enabled=False)
    post.set(1)
    assert post.courier.run() is None
    assert post.line.sent == []


def test_a_clock_that_was_wrong_does_not_hold_a_webhook_up(post: Post) -> None:
    post.set(1)
    post.line.answer = lambda _: FAILING
    post.wait(3650 * DAY)
    post.courier.run()
    post.wait(-3650 * DAY)
    post.line.answer = lambda _: Attempt(200)
    assert post.courier.run() is None
    assert len(post.line.sent) == 2


def test_the_store_that_fails_after_a_delivery_leads_to_a_repeat_and_not_to_a_gap(post: Post) -> None:
    first, second = post.set(1), post.set(2)
    put = post.world.store.put_record

    def failing(record: Any, **options: Any) -> Any:
        if record.kind == "webhook_delivery":
            raise RuntimeError
        return put(record, **options)

    post.world.store.put_record = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        post.courier.run()
    post.world.store.put_record = put  # type: ignore[method-assign]
    # The lease was given back.
    assert post.courier.run() is None
    assert post.line.revisions == [first, first, second]


# Several processes.


def test_one_process_at_a_time_tells_a_webhook(post: Post, world: World) -> None:
    first = post.set(1)
    other = post.new_courier(world.node())
    other_due: list[Any] = []

    def meanwhile(_: dict[str, Any]) -> Attempt:
        other_due.append(other.run())
        return Attempt(200)

    post.line.answer = meanwhile
    assert post.courier.run() is None
    assert post.line.revisions == [first]
    assert other_due[0] is not None
    # What the first has told, the second does not tell again.
    post.line.answer = lambda _: Attempt(200)
    assert other.run() is None
    assert post.line.revisions == [first]


def test_a_process_that_has_died_is_followed_by_another_when_its_lease_ends(post: Post, world: World) -> None:
    revision = post.set(1)

    class Killed(BaseException):
        pass

    def killed(_: dict[str, Any]) -> Attempt:
        raise Killed

    post.line.answer = killed
    with pytest.raises(Killed):
        post.courier.run()
    other = post.new_courier(world.node())
    post.line.answer = lambda _: Attempt(200)
    post.wait(LEASE.total_seconds() - 1)
    assert other.run() is not None
    assert post.line.revisions == [revision]
    post.wait(1)
    assert other.run() is None
    assert post.line.revisions == [revision, revision]


def test_a_process_that_was_too_slow_does_not_undo_what_another_has_done(post: Post, world: World) -> None:
    first, second = post.set(1), post.set(2)
    other = post.new_courier(world.node())
    answers = iter([True])

    def slow(_: dict[str, Any]) -> Attempt:
        if next(answers, False):
            post.wait(LEASE.total_seconds() + 1)
            assert other.run() is None
        return Attempt(200)

    post.line.answer = slow
    assert post.courier.run() is not None
    assert post.status.delivered_revision == second
    assert post.line.revisions == [first, first, second]


def test_a_lease_is_renewed_while_a_delivery_takes_long(post: Post, world: World) -> None:
    post.set(1)
    other = post.new_courier(world.node())

    def slow(_: dict[str, Any]) -> Attempt:
        for _ in range(3):
            post.wait(LEASE.total_seconds() - 5)
            post.courier.renew()
            assert other.run() is not None
        return Attempt(200)

    post.line.answer = slow
    assert post.courier.run() is None
    assert len(post.line.sent) == 1


def test_a_history_that_was_lost_is_told_anew_from_where_it_was_restored(post: Post, world: World) -> None:
    node = post.node.service
    backup = {**world.store.backup(), "_records": dict(world.store._records)}
    post.set(1)
    post.courier.run()
    world.store.restore(backup)
    node.catch_up()
    assert node.head.identity.generation == 2
    revision = post.set(2)
    post.courier.run()
    assert post.line.revisions == [revision, revision]
    assert len(set(post.line.ids)) == 2


# Writing.


def test_the_history_and_the_items_hold_no_secret(post: Post) -> None:
    rotated = post.webhooks.rotate(NOBODY, "default", post.id, overlap=datetime.timedelta(hours=1))
    held = repr(post.world.store.change_sets) + repr(post.world.store.load())
    for secret in (post.secret, rotated.secret):
        assert secret.startswith("whsec_")
        assert secret not in held
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


def test_two_secrets_sign_while_one_is_replaced(post: Post) -> None:
    rotated = post.webhooks.rotate(NOBODY, "default", post.id, overlap=datetime.timedelta(hours=1))
    assert rotated.status.old_secret_until == post.world.clock.now() + datetime.timedelta(hours=1)
    bodies: list[bytes] = []
    send = post.line.send

    def keeping(url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        bodies.append(body)
        return send(url, body, headers)

    post.line.send = keeping  # type: ignore[method-assign]
    post.set(1)
    post.courier.run()
    # Of the rotation, and of the value.
    assert len(bodies) == 2
    post.wait(3601)
    post.set(2)
    post.courier.run()
    expected = [(True, True), (True, True), (True, False)]
    for body, (_, _, headers), signed_by in zip(bodies, post.line.sent, expected, strict=True):
        at = datetime.datetime.fromtimestamp(int(headers["webhook-timestamp"]), datetime.UTC)
        found = headers["webhook-signature"].split(" ")
        both = [
            Verifier(secret).sign(headers["webhook-id"], at, body.decode())
            for secret in (rotated.secret, post.secret)
        ]
        assert tuple(signature in found for signature in both) == signed_by
        assert len(found) == sum(signed_by)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(post: Post) -> None:
    post.webhooks.rotate(NOBODY, "default", post.id, overlap=datetime.timedelta())
    post.courier.run()
    assert " " not in post.line.sent[0][2]["webhook-signature"]
    assert post.status.old_secret_until is None


def test_writes_with_a_request_id_are_made_once_and_their_secret_is_shown_once(post: Post) -> None:
    writer = Writer(OPEN, request_id="r1", payload=b"x")
    first = post.webhooks.create(writer, "default", "https://a.example/")
    again = post.webhooks.create(writer, "default", "https://a.example/")
    assert again.webhook == first.webhook
    assert again.outcome.replayed
    assert first.secret and not again.secret
    writer = replace(writer, request_id="r2")
    rotated = [
        post.webhooks.rotate(writer, "default", post.id, overlap=datetime.timedelta()) for _ in range(2)
    ]
    assert rotated[0].secret and not rotated[1].secret
    assert rotated[0].outcome.revision == rotated[1].outcome.revision
    post.set(1)
    post.courier.run()
    _, message, headers = post.line.sent[-1]
    at = datetime.datetime.fromtimestamp(int(headers["webhook-timestamp"]), datetime.UTC)
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    assert headers["webhook-signature"] == Verifier(rotated[0].secret).sign(headers["webhook-id"], at, text)


def test_a_webhook_that_is_removed_leaves_nothing_behind(post: Post) -> None:
    post.set(1)
    post.courier.run()
    post.webhooks.test(post.webhook)
    outcome = post.webhooks.delete(NOBODY, "default", post.id)
    assert outcome.change_set.changes[0].after is None
    for kind in ("webhook_secret", "webhook_cursor", "webhook_delivery"):
        assert post.world.store.records(kind) == ()
    with pytest.raises(NotFoundError):
        post.webhooks.delete(NOBODY, "default", post.id)
    post.set(2)
    assert post.courier.run() is None
    assert len(post.line.sent) == 2


def test_a_webhook_is_there_after_a_restart_and_a_revert_leaves_it_alone(post: Post) -> None:
    before = post.node.revision
    post.set(1)
    post.webhooks.update(NOBODY, "default", post.id, description="chat")
    post.node.service.revert(NOBODY, "default", to_revision=before - 1)
    assert post.webhook.description == "chat"
    again = post.world.node()
    assert again.service.head.state == post.node.service.head.state
    assert again.service.head.state.webhooks[post.id] == post.webhook


def test_watchers_see_nothing_of_webhooks(post: Post) -> None:
    watch = post.node.watch().opened()
    at, digest = watch.replica.at, post.node.service.view("default", "production").digest
    sent = len(watch.messages)
    post.webhooks.update(NOBODY, "default", post.id, description="chat")
    post.webhooks.rotate(NOBODY, "default", post.id, overlap=datetime.timedelta())
    watch.step()
    assert all(message.WhichOneof("event") == "bookmark" for message in watch.messages[sent:])
    assert post.node.service.view("default", "production").digest == digest
    assert watch.replica.at[0] == at[0]


def test_a_key_of_some_environments_reaches_webhooks_of_those_only(post: Post) -> None:
    def bound(*environments: str) -> Principal:
        return Principal(Key("k", KeyKind.USER, b"", "default", environments=environments, role=Role.ADMIN))

    narrow = post.webhooks.create(NOBODY, "default", "https://n.example", environments=["production"]).webhook
    assert set(post.webhooks.visible(bound("production"), "default")) == {narrow.id}
    assert set(post.webhooks.visible(bound("staging"), "default")) == set()
    assert set(post.webhooks.visible(OPEN, "default")) == {narrow.id, post.id}
    with pytest.raises(NotFoundError):
        post.webhooks.find(bound("production"), "default", post.id)
    with pytest.raises(NotFoundError):
        post.webhooks.rotate(Writer(bound("staging")), "default", narrow.id, overlap=datetime.timedelta())


def test_a_project_has_so_many_webhooks_and_no_more(world: World) -> None:
    post = Post(world, limits=Limits(max_webhooks=2))
    post.webhooks.create(NOBODY, "default", "https://a.example/")
    with pytest.raises(LimitExceededError) as caught:
        post.webhooks.create(NOBODY, "default", "https://b.example/")
    assert caught.value.limit == "max_webhooks"


# By hand.


def test_a_test_message_is_sent_once_and_changes_nothing_else(post: Post) -> None:
    revision = post.node.revision
    delivery = post.webhooks.test(post.webhook)
    assert (delivery.state, delivery.status, delivery.type) == (DeliveryState.DELIVERED, 204, "webhook.test")
    assert post.line.sent[0][1]["type"] == "webhook.test"
    post.line.answer = lambda _: FAILING
    failed = post.webhooks.test(post.webhook)
    assert (failed.state, failed.error) == (DeliveryState.FAILED, "HTTP 500 Internal Server Error")
    assert failed.id != delivery.id
    assert post.node.revision == revision
    assert post.status.failures == 0
    assert [each.type for each in post.deliveries()] == ["webhook.test"] * 2


def test_a_message_can_be_sent_again_under_its_id(post: Post) -> None:
    revision = post.set(1)
    post.courier.run()
    again = post.webhooks.redeliver(post.webhook, revision)
    assert again.attempts == 2
    assert post.line.ids[0] == post.line.ids[1]
    assert post.line.sent[0][1] == post.line.sent[1][1]
    assert len(post.deliveries()) == 1
    with pytest.raises(NotFoundError):
        post.webhooks.redeliver(post.webhook, 10_000)


def test_what_is_sent_by_hand_in_between_ends_no_attempts(post: Post) -> None:
    revision = post.set(1)
    post.line.answer = lambda _: FAILING
    assert post.courier.run() is not None
    for attempts in (2, 3):
        again = post.webhooks.redeliver(post.webhook, revision)
        assert (again.state, again.attempts) == (DeliveryState.RETRYING, attempts)
    # That it does not disable the webhook either, an answer of 410 by hand does not change.
    post.line.answer = lambda _: Attempt(410, "HTTP 410 Gone")
    assert post.webhooks.redeliver(post.webhook, revision).state is DeliveryState.RETRYING
    post.line.answer = lambda _: Attempt(204)
    post.wait(DAY)
    post.courier.run()
    assert post.deliveries()[0].state is DeliveryState.DELIVERED
    post.line.answer = lambda _: FAILING
    assert post.webhooks.redeliver(post.webhook, revision).state is DeliveryState.FAILED


def test_an_attempt_and_one_by_hand_at_the_same_time_are_both_counted(post: Post) -> None:
    revision = post.set(1)

    def meanwhile(_: dict[str, Any]) -> Attempt:
        post.line.answer = lambda _: FAILING
        post.webhooks.redeliver(post.webhook, revision)
        return FAILING

    post.line.answer = meanwhile
    assert post.courier.run() is not None
    (delivery,) = post.deliveries()
    assert (delivery.state, delivery.attempts) == (DeliveryState.RETRYING, 2)


def test_what_a_webhook_is_not_told_of_cannot_be_sent_to_it(post: Post) -> None:
    revision = post.set(1)
    post.node.add_environment("staging")
    narrow = post.webhooks.create(NOBODY, "default", "https://n.example", environments=["staging"]).webhook
    with pytest.raises(NotFoundError):
        post.webhooks.redeliver(narrow, revision)
    assert post.line.sent == []


def test_few_messages_are_sent_by_hand_at_a_time(post: Post) -> None:
    refused: list[str] = []

    def nested(_: dict[str, Any]) -> Attempt:
        try:
            post.webhooks.test(post.webhook)
        except LimitExceededError as exc:
            refused.append(exc.limit)
        return Attempt(200)

    post.line.answer = nested
    post.webhooks.test(post.webhook)
    assert refused == ["webhook_tests"]
    assert len(post.line.sent) == 2


def test_the_last_thousand_deliveries_are_kept(post: Post) -> None:
    webhook = post.webhook
    post.set(1)
    post.courier.run()
    (sample,) = post.deliveries()
    for revision in range(10, 10 + KEPT_DELIVERIES + 150):
        made = replace(sample, revision=revision)
        post.ledger.change_delivery(webhook, post.ledger.place_of(revision), lambda _, made=made: made)
    post.set(2)
    Courier(post.node.service, post.ledger, post.line, post.id).run()
    page, after = post.webhooks.deliveries(webhook, limit=700)
    rest, end = post.webhooks.deliveries(webhook, after=after, limit=700)
    found = [delivery.revision for delivery in (*page, *rest)]
    assert (len(found), end) == (KEPT_DELIVERIES, "")
    assert found == sorted(found, reverse=True)
    assert found[0] == 10 + KEPT_DELIVERIES + 149


# Addresses.


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "ftp://hooks.example/",
        "hooks.example/x",
        "https://",
        "https:///x",
        "https://user:secret@hooks.example/",
        "https://user@hooks.example/",
        "https://hooks.example:99999/",
        "https://hooks.example:0/",
        "https://hooks.example:x/",
        "https://hooks.example/#here",
        "https://hooks.example/a b",
        "https://hooks.example/\r\nx-evil: 1",
        "https://hööks.example/",
        "https://[::1/",
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://a.localhost/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
    ],
)
def test_a_url_that_nothing_can_or_may_be_sent_to_is_refused(post: Post, url: str) -> None:
    revision = post.node.revision
    for write in (
        lambda: post.webhooks.create(NOBODY, "default", url),
        lambda: post.webhooks.update(NOBODY, "default", post.id, url=url),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            write()
        assert caught.value.reason == "INVALID_URL"
        assert caught.value.violations[0].field == "url"
        assert "secret" not in caught.value.message
    assert post.node.revision == revision


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "192.88.99.1", "168.63.129.16",
     "fec0::1", "feff::1", "3fff::1", "3fff:fff::1", "::ffff:168.63.129.16", "2002:c058:6301::1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:0a00:0001::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "x", ""],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet_are_told_apart(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "168.63.129.17",
        "192.88.98.1",
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "hooks.test"]
)
def test_a_name_that_leads_to_this_machine_is_refused_when_it_is_looked_up(host: str) -> None:
    with Receiver() as receiver:

        def resolve(name: str, port: int) -> Any:
            if name == "hooks.test":
                return [(socket.AF_INET, ("1.1.1.1", port)), (socket.AF_INET, ("127.0.0.1", port))]
            return [
                (family, address)
                for family, *_, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            ]

        sender = HttpSender(resolve=resolve)
        attempt = sender.send(f"https://{host}:{receiver.port}/", b"{}", {})
        assert (attempt.status, attempt.taken) == (0, False)
        assert "private network" in attempt.error
        assert "127.0.0.1" not in attempt.error
        assert receiver.received == []


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    looked: list[str] = []
    with Receiver() as receiver:

        def resolve(name: str, port: int) -> Any:
            looked.append(name)
            return [(socket.AF_INET, ("127.0.0.1", port))]

        attempt = HttpSender(allow_private=True, resolve=resolve).send(
            f"http://rebinding.test:{receiver.port}/a/b?c=d", b"{}", {"webhook-id": "1"}
        )
        assert attempt == Attempt(204)
        (request,) = receiver.wait(1)
        assert looked == ["rebinding.test"]
        assert request.headers["host"] == f"rebinding.test:{receiver.port}"
        assert request.path == "/a/b?c=d"


def test_redirects_are_not_followed() -> None:
    with Receiver() as elsewhere, Receiver(lambda _: 307) as receiver:
        receiver.headers["location"] = elsewhere.url
        attempt = HttpSender(allow_private=True).send(receiver.url, b"{}", {})
        assert attempt == Attempt(307, "HTTP 307 Temporary Redirect: redirects are not followed")
        assert elsewhere.received == []


def test_a_receiver_that_drips_is_cut_off_in_time() -> None:
    """A byte now and then keeps each read alive for ever."""
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                connection.sendall(b"x-drip: 1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        started = time.monotonic()
        sender = HttpSender(allow_private=True, timeout=0.5)
        attempt = sender.send(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        ended.set()
        thread.join(PATIENCE)
    # 100 headers, which end it as well, would take 5 s.
    assert time.monotonic() - started < 4
    assert attempt == Attempt(0, "no answer within 0.5 s")


def test_a_receiver_that_says_nothing_refuses_or_speaks_otherwise_is_reported_in_a_few_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = HttpSender(allow_private=True, timeout=0.3)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert sender.send(url, b"{}", {}).error == "no answer within 0.3 s"
        assert sender.send(url.replace("http:", "https:"), b"{}", {}).error == "no answer within 0.3 s"
    assert HttpSender(allow_private=True).send(url, b"{}", {}).error == "connection refused"

    def gone(name: str, port: int) -> Any:
        raise socket.gaierror

    assert HttpSender(resolve=gone).send("https://gone.test/", b"{}", {}).error == "the name does not resolve"
    with Receiver(lambda _: 499) as receiver:
        assert HttpSender(allow_private=True).send(receiver.url, b"{}", {}) == Attempt(499, "HTTP 499")
        plain = receiver.url.replace("http:", "https:")
        # Whichever the receiver does first: answer in the clear, or hang up.
        assert HttpSender(allow_private=True).send(plain, b"{}", {}).error in (
            "no TLS connection can be made",
            "connection reset by peer",
        )


def test_a_certificate_is_checked_against_the_name(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-days", "2", "-keyout", key, "-out", certificate),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=hooks.test"),
            *("-addext", "subjectAltName=DNS:hooks.test"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Receiver() as receiver:
        receiver._server.socket = context.wrap_socket(receiver._server.socket, server_side=True)

        def resolve(_: str, port: int) -> Any:
            return [(socket.AF_INET, ("127.0.0.1", port))]

        def send(name: str, tls: ssl.SSLContext | None) -> Attempt:
            sender = HttpSender(allow_private=True, resolve=resolve, tls=tls)
            return sender.send(f"https://{name}:{receiver.port}/", b"{}", {})

        assert send("hooks.test", trusting) == Attempt(204)
        assert "not trusted" in send("other.test", trusting).error
        assert "not trusted" in send("hooks.test", None).error
        assert len(receiver.received) == 1


# Threads.


@pytest.fixture(scope="module")
def postgres() -> Iterator[Template]:
    with running_template() as template:
        yield template


@pytest.fixture(params=["sqlite", "postgres"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Service]]:
    """Nodes over one store that deliver to this machine."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").store()
    with contextlib.ExitStack() as stack:

        def start() -> Service:
            store = open_store(url)
            service = stack.enter_context(Service(store, webhook_allow_private=True))
            service.webhooks.begin()
            return service

        yield start


def rate(service: Service, value: int) -> int:
    return service.commit(NOBODY, "default", "production", [SetValue("rate", value)]).revision


def make_rate(service: Service) -> None:
    service.commit(NOBODY, "default", "production", [PutSetting("rate", {"type": "int", "default": 0})])


def test_changes_arrive_by_themselves_and_in_order(live: Callable[[], Service]) -> None:
    service = live()
    make_rate(service)
    with Receiver() as receiver:
        made = service.webhooks.create(NOBODY, "default", receiver.url)
        revisions = [rate(service, value) for value in range(20)]
        received = receiver.wait(20)
        assert receiver.revisions == revisions
        for each in received:
            assert Verifier(made.secret).verify(each.body, each.headers) == each.message


def test_no_thread_runs_without_an_enabled_webhook(live: Callable[[], Service]) -> None:
    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread not in before}

    before = set(threading.enumerate())
    service = live()
    make_rate(service)
    made = service.webhooks.create(NOBODY, "default", "http://127.0.0.1:9/")
    assert "rheostat-webhooks" in names()
    service.close()
    assert not names() & {"rheostat-webhooks", "rheostat-webhook"}
    assert made.secret


def test_a_node_without_background_tells_nobody_and_commits_nothing_by_itself(world: World) -> None:
    line = Line()
    node = world.node(webhook_sender=line, background=False)
    node.commit(PutSetting("rate", {"type": "int", "default": 0}))
    node.service.webhooks.create(NOBODY, "default", "https://hooks.example/")
    node.service.webhooks.begin()
    node.commit(SetValue("rate", 1))
    assert not any(thread.name == "rheostat-webhooks" for thread in threading.enumerate())
    due: list[int] = []
    node.service.drafts.commit_due = lambda: due.append(1)  # type: ignore[method-assign]
    # A turn of the tail.
    caught_up = threading.Event()
    catch_up = node.service.catch_up

    def count() -> Any:
        caught_up.set()
        return catch_up()

    node.service.catch_up = count  # type: ignore[method-assign]
    world.store.wake()
    assert caught_up.wait(PATIENCE)
    world.close()
    assert due == []
    assert line.sent == []


def test_a_slow_receiver_does_not_delay_another(live: Callable[[], Service]) -> None:
    service = live()
    make_rate(service)
    release = threading.Event()
    with Receiver(lambda _: 200 if release.wait(PATIENCE) else 500) as slow, Receiver() as quick:
        service.webhooks.create(NOBODY, "default", slow.url)
        service.webhooks.create(NOBODY, "default", quick.url)
        slow.wait(1)
        revisions = [rate(service, value) for value in range(10)]
        quick.wait_until(lambda: quick.received[-1].revision == revisions[-1])
        assert len(slow.received) == 1
        release.set()
        slow.wait_until(lambda: slow.received[-1].revision == revisions[-1])
        assert slow.most_at_once == 1


def test_two_nodes_on_one_store_never_tell_a_receiver_at_the_same_time(live: Callable[[], Service]) -> None:
    nodes = [live(), live()]
    make_rate(nodes[0])
    pause = threading.Event()
    with Receiver(lambda _: 500 if pause.wait(0.005) else 204) as receiver:
        nodes[0].webhooks.create(NOBODY, "default", receiver.url)
        revisions = [rate(nodes[value % 2], value) for value in range(60)]
        receiver.wait_until(lambda: receiver.received[-1].revision == revisions[-1])
        assert receiver.revisions == revisions
        assert receiver.most_at_once == 1


def test_a_forked_child_delivers_with_threads_of_its_own(live: Callable[[], Service]) -> None:
    service = live()
    make_rate(service)
    with Receiver() as receiver:
        service.webhooks.create(NOBODY, "default", receiver.url)
        rate(service, 1)
        receiver.wait(1)
        with warnings.catch_warnings():
            # Newer versions of Python warn of threads, which are what this is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            status = 1
            try:
                with contextlib.suppress(Exception):
                    rate(service, 2)
                    names = {thread.name for thread in threading.enumerate()}
                    status = 0 if "rheostat-webhooks" in names else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        receiver.wait(2)
        assert receiver.revisions[-1] == service.store.revision()
