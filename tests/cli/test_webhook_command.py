"""`rheostat webhooks` against a real server and a real receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from tests.cli.conftest import Cli, Server
from tests.service.receiver import Receiver


@pytest.fixture
def told(make_server: Callable[..., Server], tmp_path: Path) -> Cli:
    """Commands against a server that may tell programs on this machine."""
    cli = Cli(make_server("--webhook-allow-private").url, "default", tmp_path)
    cli.run("env", "create", "staging")
    return cli


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_a_program_is_told_of_changes_with_signatures_by_the_secret_that_was_printed(
    told: Cli, receiver: Receiver
):
    result = told.run("webhooks", "add", receiver.url, "--description", "chat")
    secret = result.stdout.strip()
    (webhook,) = told.json("webhooks", "list")["webhooks"]
    assert webhook["id"] in result.stderr
    assert (webhook["description"], webhook["enabled"], webhook["failures"]) == ("chat", True, 0)
    assert "secret" not in webhook

    told.apply("settings: {rate: {type: int, default: 1}}", "-e", "staging")
    (received,) = receiver.wait(1)
    message = Verifier(secret).verify(received.body, received.headers)
    assert message["data"]["changes"][0]["key"] == "rate"

    (delivery,) = told.json("webhooks", "deliveries", webhook["id"])["deliveries"]
    assert (delivery["id"], delivery["revision"]) == (received.id, received.revision)
    again = told.json("webhooks", "redeliver", webhook["id"], str(received.revision))
    assert (again["state"], again["attempts"], again["status"]) == ("delivered", 2, 204)
    assert receiver.wait(2)[1].body == received.body


def test_a_test_message_says_whether_the_receiver_takes_it(told: Cli, receiver: Receiver):
    webhook = told.json("webhooks", "add", receiver.url)["id"]
    assert told.run("webhooks", "test", webhook).stdout.startswith("taken: HTTP 204")
    receiver.answer = lambda _: 500
    result = told.run("webhooks", "test", webhook, code=1)
    assert result.stdout.startswith("not taken: HTTP 500 Internal Server Error")
    failed = told.run("webhooks", "test", webhook, "--json", code=1).stdout
    assert '"state": "failed"' in failed
    listed = told.run("webhooks", "deliveries", webhook).stdout
    assert [line.split()[2] for line in listed.splitlines()[1:]] == ["failed", "failed", "delivered"]


def test_a_webhook_is_disabled_enabled_changed_rotated_and_removed(told: Cli, receiver: Receiver):
    made = told.json("webhooks", "add", receiver.url, "-e", "staging")
    webhook = made["id"]
    assert told.json("webhooks", "disable", webhook)["enabled"] is False
    assert "disabled" in told.run("webhooks", "show", webhook).stdout
    told.apply("settings: {rate: {type: int, default: 1}}", "-e", "staging")
    assert told.json("webhooks", "enable", webhook, "-m", "it is back")["enabled"] is True
    receiver.wait_until(
        lambda: any(each.message["data"]["changes"][0]["key"] == "rate" for each in receiver.received)
    )

    changed = told.json("webhooks", "update", webhook, "--all-environments", "--description", "all")
    assert (changed["environments"], changed["description"], changed["url"]) == ([], "all", receiver.url)
    rotated = told.json("webhooks", "rotate", webhook, "--overlap", "1h")
    assert rotated["secret"].startswith("whsec_") and rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"]
    assert told.json("history")["revisions"][0]["changes"][0]["kind"] == "webhook"
    assert made["secret"] not in told.run("history", "--json").stdout

    told.run("webhooks", "remove", webhook)
    assert told.json("webhooks", "show", webhook, code=1)["error"]["reason"] == "WEBHOOK_NOT_FOUND"
    assert told.json("webhooks", "list")["webhooks"] == []


def test_a_server_that_was_not_told_to_refuses_addresses_of_private_networks(cli: Cli, receiver: Receiver):
    for address in (receiver.url, "https://10.0.0.1/", "ftp://hooks.example/"):
        assert cli.json("webhooks", "add", address, code=1)["error"]["reason"] == "INVALID_URL"
    webhook = cli.json("webhooks", "add", "https://hooks.invalid/")["id"]
    assert "not taken" in cli.run("webhooks", "test", webhook, code=1).stdout
    cli.run("webhooks", "remove", webhook)


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "x", "--all-environments", "-e", "staging"),
        ("rotate", "x", "--overlap", "soon"),
        ("redeliver", "x", "0"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_sent(cli: Cli, arguments: tuple[str, ...]):
    cli.run("webhooks", *arguments, code=2)
