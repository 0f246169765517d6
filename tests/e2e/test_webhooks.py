"""Webhooks of servers that are killed: nothing is lost, and nothing is told out of order."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from rheo.v1.webhook_service_connect import WebhookServiceClientSync
from rheo.v1.webhook_service_pb2 import (
    CreateWebhookRequest,
    GetWebhookRequest,
    ListDeliveriesRequest,
    RotateWebhookSecretRequest,
)
from tests.e2e.process import Program, wait_until
from tests.e2e.writing import commit_by_another_process, make_setting, set_value
from tests.service.receiver import Received, Receiver

SHORT, LONG = 5.0, 3600.0
"""Seconds after which another process takes over from one that was killed: soon, and not while a test runs."""

BUSY_SECONDS = 80.0
"""For what takes a lease and a start of servers, on a machine that is busy with other tests."""

ROUNDS = 3

SERVE = """
import datetime, sys
from rheostat.cli import main
from rheostat.service.webhook import courier, dispatcher
courier.LEASE = datetime.timedelta(seconds=float(sys.argv.pop(1)))
# Leases are renewed this often.
dispatcher._LOOK_SECONDS = 1.0
main()
"""


class Serving(Program):
    """`rheostat serve`, which may tell programs on this machine, with leases of another length."""

    def __init__(self, store: Path, lease: float) -> None:
        super().__init__(
            [
                *(sys.executable, "-c", SERVE, str(lease)),
                *("serve", "--store", f"sqlite:{store}", "--port", "0"),
                *("--webhook-allow-private", "--log-level", "warning"),
            ]
        )
        try:
            self.url = self.line_like(r"ready at (http://\S+)", BUSY_SECONDS)[1]
        except BaseException:
            self.kill()
            raise


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def started(store: Path, lease: float, count: int = 2) -> list[Serving]:
    """Start servers at the same time: that takes longest of all."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: Serving(store, lease), range(count)))


@pytest.fixture
def killed_servers(store: Path) -> Iterator[list[Serving]]:
    """Two servers of one store, which a test kills and replaces."""
    running = started(store, SHORT)
    try:
        yield running
    finally:
        for server in running:
            server.kill()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Serving]]]:
    store = tmp_path_factory.mktemp("pair") / "store.db"
    running = started(store, LONG)
    try:
        yield store, running
    finally:
        for server in running:
            server.kill()


@pytest.fixture
def servers(pair: tuple[Path, list[Serving]]) -> list[Serving]:
    """Two servers of one store; one that a test has ended is started again."""
    store, running = pair
    for number, server in enumerate(running):
        if server.process.poll() is not None:
            # Closes its pipes.
            server.kill()
            running[number] = Serving(store, LONG)
    return running


def create(url: str, receiver: Receiver) -> tuple[str, str]:
    """Make a webhook; returns its id and its secret."""
    made = WebhookServiceClientSync(url).create_webhook(CreateWebhookRequest(url=receiver.url))
    return made.webhook.id, made.secret


def check(receiver: Receiver, secret: str, revisions: list[int]) -> None:
    """Everything was told at least once, in order, and signed."""
    received = receiver.received
    assert receiver.revisions == sorted(receiver.revisions), "something was told out of order"
    assert sorted(set(receiver.revisions)) == revisions
    assert len({each.id for each in received}) == len(revisions), "a repeat has the id of the first"
    for each in received:
        assert Verifier(secret).verify(each.body, each.headers)["data"]["revision"] == each.revision


def test_every_change_is_delivered_although_servers_are_killed_between_commit_and_delivery(
    store: Path, killed_servers: list[Serving]
) -> None:
    servers = killed_servers
    killed = threading.Event()
    in_flight: list[int] = []
    held: list[int] = []

    def answer(received: Received) -> int:
        if received.revision in in_flight:
            # The server that sent this is killed before it learns that it was taken.
            held.append(received.revision)
            killed.wait(60)
        return 204

    with Receiver(answer) as receiver:
        make_setting(servers[0].url)
        _, secret = create(servers[0].url, receiver)
        revisions: list[int] = []
        for number in range(ROUNDS):
            # By one of two, at once after it has acknowledged: its own delivery has hardly begun.
            victim = number % 2
            revisions.append(set_value(servers[victim].url, number))
            servers[victim].kill()
            servers[victim] = Serving(store, SHORT)

        receiver.wait_until(lambda: revisions[-1] in receiver.revisions, BUSY_SECONDS)
        # Not a repeat of one before, which may still come.
        in_flight.append(revisions[-1] + 1)
        revisions.append(set_value(servers[0].url, 100))
        wait_until(lambda: bool(held), BUSY_SECONDS)
        for server in servers:
            server.kill()
        assert in_flight == [revisions[-1]]
        in_flight.clear()
        killed.set()
        # Nobody is there while this one is written, and nobody who wrote it delivers.
        revisions.append(commit_by_another_process(f"sqlite:{store}", 101))
        servers[:] = started(store, SHORT)
        receiver.wait_until(lambda: revisions[-1] in receiver.revisions, BUSY_SECONDS)
        check(receiver, secret, revisions)
        # The one that was held was not known to be taken.
        assert receiver.revisions.count(revisions[-2]) >= 2


def test_a_server_that_is_asked_to_end_leaves_the_rest_to_the_other_at_once(servers: list[Serving]) -> None:
    with Receiver() as receiver:
        make_setting(servers[0].url)
        webhook, secret = create(servers[0].url, receiver)
        revisions = [set_value(servers[number % 2].url, number) for number in range(20)]
        servers[0].terminate()
        assert servers[0].wait(BUSY_SECONDS) == 0
        revisions += [set_value(servers[1].url, number) for number in range(100, 105)]
        receiver.wait_until(lambda: revisions[-1] in receiver.revisions, BUSY_SECONDS)
        check(receiver, secret, revisions)
        client = WebhookServiceClientSync(servers[1].url)
        request = GetWebhookRequest(id=webhook)
        wait_until(
            lambda: client.get_webhook(request).webhook.delivered_revision == revisions[-1], BUSY_SECONDS
        )
        listed = client.list_deliveries(ListDeliveriesRequest(id=webhook)).deliveries
        assert [each.revision for each in listed] == revisions[::-1]
        assert {each.attempts for each in listed} == {1}


def test_both_secrets_verify_while_one_is_replaced(servers: list[Serving]) -> None:
    with Receiver() as receiver:
        make_setting(servers[0].url)
        webhook, old = create(servers[0].url, receiver)
        client = WebhookServiceClientSync(servers[0].url)
        new = client.rotate_webhook_secret(RotateWebhookSecretRequest(id=webhook)).secret
        set_value(servers[1].url, 1)
        for each in receiver.wait(2, BUSY_SECONDS):
            for secret in (old, new):
                Verifier(secret).verify(each.body, each.headers)
