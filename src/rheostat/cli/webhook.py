"""`rheostat webhooks`: who is told of changes, and what became of it."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from typing import Any, Final

import click

from rheo.v1 import webhook_pb2
from rheo.v1 import webhook_service_pb2 as service
from rheostat.cli.command import Command
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.failure import ExitCode
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text, webhook_record
from rheostat.model.webhook import Delivery, DeliveryState, Webhook, WebhookStatus
from rheostat.wire.instant import duration_to_proto
from rheostat.wire.webhook import delivery_from_proto, webhook_from_proto

__all__ = ["webhooks"]

_WEBHOOK_ANSWER: Final = """
id, project, url, environments, description, enabled, revision
delivered_revision   the newest revision that it has been told of
failures             how many attempts have failed since the last success
next_attempt_at, old_secret_until   RFC 3339 or null
disabled_reason      why the server has disabled it; empty when it has not
"""
_DELIVERY_ANSWER: Final = """
id, type, revision, attempts, error
state                retrying, delivered or failed
attempted_at         RFC 3339
status               the HTTP status; 0 when there was no answer
"""

_SEND_SECONDS: Final = 30.0
"""At least, for a call that waits for a receiver, which has 20 s."""

_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}


@click.group("webhooks")
def webhooks() -> None:
    """Tell other programs of each change, over HTTP."""


@webhooks.command(
    "add",
    cls=Command,
    examples=[
        ("rheostat webhooks add https://hooks.example.com/config", "told of every change of the project"),
        (
            "rheostat webhooks add https://hooks.example.com/config -e production --description chat",
            "told of what touches production, or the whole project",
        ),
    ],
    answer="secret               whsec_…, shown this once\n" + _WEBHOOK_ANSWER.lstrip("\n"),
)
@click.argument("address")
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="Only changes of this environment, and of the whole project; may be repeated. [default: all]",
)
@click.option("--description", default="", help="What it is for.")
@write_options(dry_run=False)
@target_options(environment=False)
def add(
    address: str,
    environments: tuple[str, ...],
    description: str,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Make a webhook, and print the secret that signs its messages: it is never shown again.

    Each change-set after this one is posted to ADDRESS as JSON, in order and at least once, and signed as Standard
    Webhooks describe.
    """
    with Connection(target) as connection:
        request = service.CreateWebhookRequest(
            project=target.project,
            url=address,
            environments=environments,
            description=description,
            message=how.message,
            author=how.author,
            # Never repeated: the answer to a repeat has no secret.
            request_id=new_request_id(),
        )
        answer = connection.call(connection.webhooks.create_webhook, request)
    _print_secret(output, answer.webhook, answer.secret)


@webhooks.command(
    "list",
    cls=Command,
    examples=[("rheostat webhooks list", "all webhooks of the project, and how they stand")],
    answer="project\nwebhooks   [{"
    + " ".join(_WEBHOOK_ANSWER.split("\n")[1].split())
    + ", …}] as `show` answers",
)
@target_options(environment=False)
def list_(target: Target, output: Output) -> None:
    """List the webhooks of a project."""
    with Connection(target) as connection:
        project = connection.project
        found: list[tuple[Webhook, WebhookStatus]] = []
        request = service.ListWebhooksRequest(project=project)
        for page in connection.pages(connection.webhooks.list_webhooks, request):
            found += [webhook_from_proto(message) for message in page.webhooks]
    if output.json:
        output.answer({"project": project, "webhooks": [_record(*each) for each in found]})
        return
    output.place(project)
    output.table(
        ["id", "url", "environments", "description", "told of", ""],
        [
            (
                webhook.id,
                webhook.url,
                ", ".join(webhook.environments) or "all",
                webhook.description,
                str(status.delivered_revision),
                _state(webhook, status),
            )
            for webhook, status in found
        ],
    )
    if not found:
        output.note("there are no webhooks")


@webhooks.command(
    "show",
    cls=Command,
    examples=[("rheostat webhooks show 1f2e3d4c5b6a7988", "how far it has got, and what went wrong")],
    answer=_WEBHOOK_ANSWER,
)
@click.argument("id")
@target_options(environment=False)
def show(id: str, target: Target, output: Output) -> None:
    """Show a webhook."""
    with Connection(target) as connection:
        request = service.GetWebhookRequest(project=target.project, id=id)
        answer = connection.call(connection.webhooks.get_webhook, request)
    _print(output, answer.webhook)


@webhooks.command(
    "update",
    cls=Command,
    examples=[
        (
            "rheostat webhooks update 1f2e3d4c5b6a7988 --address https://hooks.example.com/v2",
            "another address",
        ),
        ("rheostat webhooks update 1f2e3d4c5b6a7988 --all-environments", "told of every change"),
    ],
    answer=_WEBHOOK_ANSWER,
)
@click.argument("id")
@click.option("--address", default="", help="Where changes are sent from now on.")
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="Only changes of this environment, in the place of those before; may be repeated.",
)
@click.option("--all-environments", is_flag=True, help="Changes of all environments.")
@click.option("--description", help="What it is for.")
@write_options(dry_run=False)
@target_options(environment=False)
def update(
    id: str,
    address: str,
    environments: tuple[str, ...],
    all_environments: bool,
    description: str | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Change the address, the environments or the description of a webhook."""
    if all_environments and environments:
        raise click.UsageError("--all-environments and --environment exclude each other")
    _update(
        target,
        how,
        output,
        id=id,
        url=address,
        set_environments=all_environments or bool(environments),
        environments=environments,
        description=description,
    )


@webhooks.command(
    "remove",
    cls=Command,
    examples=[("rheostat webhooks remove 1f2e3d4c5b6a7988", "with its secret and its deliveries")],
    answer="id, revision",
)
@click.argument("id")
@write_options(dry_run=False)
@target_options(environment=False)
def remove(id: str, how: WriteOptions, target: Target, output: Output) -> None:
    """Remove a webhook, and all that is kept of it."""
    with Connection(target) as connection:
        request = service.DeleteWebhookRequest(
            project=target.project, id=id, message=how.message, author=how.author, request_id=new_request_id()
        )
        answer = connection.write(connection.webhooks.delete_webhook, request)
    if output.json:
        output.answer({"id": id, "revision": answer.revision})
    else:
        output.print(f"removed {id}")


@webhooks.command(
    "enable",
    cls=Command,
    examples=[("rheostat webhooks enable 1f2e3d4c5b6a7988", "it is told of all that it has missed, at once")],
    answer=_WEBHOOK_ANSWER,
)
@click.argument("id")
@write_options(dry_run=False)
@target_options(environment=False)
def enable(id: str, how: WriteOptions, target: Target, output: Output) -> None:
    """Enable a webhook again; one that is enabled and waits after a failure is tried at once."""
    _update(target, how, output, id=id, enabled=True)


@webhooks.command(
    "disable",
    cls=Command,
    examples=[("rheostat webhooks disable 1f2e3d4c5b6a7988", "while the receiver is rebuilt")],
    answer=_WEBHOOK_ANSWER,
)
@click.argument("id")
@write_options(dry_run=False)
@target_options(environment=False)
def disable(id: str, how: WriteOptions, target: Target, output: Output) -> None:
    """Send a webhook nothing, until it is enabled: it is then told of what it has missed."""
    _update(target, how, output, id=id, enabled=False)


@webhooks.command(
    "rotate",
    cls=Command,
    examples=[
        ("rheostat webhooks rotate 1f2e3d4c5b6a7988", "both secrets sign for a day"),
        ("rheostat webhooks rotate 1f2e3d4c5b6a7988 --overlap 0m", "the old one has leaked"),
    ],
    answer="secret               whsec_…, shown this once\n" + _WEBHOOK_ANSWER.lstrip("\n"),
)
@click.argument("id")
@click.option(
    "--overlap",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="For how long both sign: 30m, 12h, 7d.",
)
@write_options(dry_run=False)
@target_options(environment=False)
def rotate(id: str, overlap: str, how: WriteOptions, target: Target, output: Output) -> None:
    """Make a new secret, and print it; the old one signs beside it for a while."""
    match = re.fullmatch(r"([0-9]{1,5})([mhd])", overlap)
    if match is None:
        raise click.BadParameter(f"{overlap!r} is not of the form 30m, 12h or 7d", param_hint="--overlap")
    with Connection(target) as connection:
        request = service.RotateWebhookSecretRequest(
            project=target.project,
            id=id,
            overlap=duration_to_proto(int(match[1]) * _UNITS[match[2]]),
            message=how.message,
            author=how.author,
            request_id=new_request_id(),
        )
        answer = connection.call(connection.webhooks.rotate_webhook_secret, request)
    _print_secret(output, answer.webhook, answer.secret)


@webhooks.command(
    "test",
    cls=Command,
    examples=[
        ("rheostat webhooks test 1f2e3d4c5b6a7988", "does the receiver answer, and take the signature?")
    ],
    answer=_DELIVERY_ANSWER,
)
@click.argument("id")
@target_options(environment=False)
def test(id: str, target: Target, output: Output) -> int:
    """Send a test message now, once; the exit code is 1 when the receiver does not take it."""
    with Connection(_patient(target)) as connection:
        request = service.TestWebhookRequest(project=target.project, id=id)
        answer = connection.call(connection.webhooks.test_webhook, request)
    return _print_delivery(output, delivery_from_proto(answer.delivery))


@webhooks.command(
    "deliveries",
    cls=Command,
    examples=[
        ("rheostat webhooks deliveries 1f2e3d4c5b6a7988", "the last 20, newest first"),
        ("rheostat webhooks deliveries 1f2e3d4c5b6a7988 --limit 1000 --json", "all that are kept"),
    ],
    answer="id\ndeliveries   [{id, type, revision, state, attempts, attempted_at, status, error}], newest first",
)
@click.argument("id")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most."
)
@target_options(environment=False)
def deliveries(id: str, limit: int, target: Target, output: Output) -> None:
    """List what was sent to a webhook, newest first; the last 1 000 deliveries are kept."""
    with Connection(target) as connection:
        request = service.ListDeliveriesRequest(project=target.project, id=id, page_size=limit)
        answer = connection.call(connection.webhooks.list_deliveries, request)
    found = [delivery_from_proto(message) for message in answer.deliveries]
    if output.json:
        output.answer({"id": id, "deliveries": [_delivery_record(delivery) for delivery in found]})
        return
    output.table(
        ["at", "revision", "state", "attempts", "status", ""],
        [
            (
                instant_text(delivery.attempted_at) or "",
                str(delivery.revision or "test"),
                delivery.state.value,
                str(delivery.attempts),
                str(delivery.status or "-"),
                delivery.error,
            )
            for delivery in found
        ],
    )
    if not found:
        output.note("nothing was sent yet")


@webhooks.command(
    "redeliver",
    cls=Command,
    examples=[
        (
            "rheostat webhooks redeliver 1f2e3d4c5b6a7988 42",
            "the receiver has lost the message of revision 42",
        )
    ],
    answer=_DELIVERY_ANSWER,
)
@click.argument("id")
@click.argument("revision", type=click.IntRange(min=1))
@target_options(environment=False)
def redeliver(id: str, revision: int, target: Target, output: Output) -> int:
    """Send the message of a revision again, once; the exit code is 1 when the receiver does not take it."""
    with Connection(_patient(target)) as connection:
        request = service.RedeliverRequest(project=target.project, id=id, revision=revision)
        answer = connection.call(connection.webhooks.redeliver, request)
    return _print_delivery(output, delivery_from_proto(answer.delivery))


def _update(target: Target, how: WriteOptions, output: Output, **fields: Any) -> None:
    with Connection(target) as connection:
        request = service.UpdateWebhookRequest(
            project=target.project,
            message=how.message,
            author=how.author,
            request_id=new_request_id(),
            **fields,
        )
        answer = connection.write(connection.webhooks.update_webhook, request)
    _print(output, answer.webhook)


def _patient(target: Target) -> Target:
    return replace(target, timeout=max(target.timeout, _SEND_SECONDS))


def _record(webhook: Webhook, status: WebhookStatus) -> dict[str, Any]:
    return {
        **webhook_record(webhook),
        "delivered_revision": status.delivered_revision,
        "failures": status.failures,
        "next_attempt_at": instant_text(status.next_attempt_at),
        "disabled_reason": status.disabled_reason,
        "old_secret_until": instant_text(status.old_secret_until),
    }


def _delivery_record(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "type": delivery.type,
        "revision": delivery.revision,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "attempted_at": instant_text(delivery.attempted_at),
        "status": delivery.status,
        "error": delivery.error,
    }


def _print(output: Output, message: webhook_pb2.Webhook) -> None:
    webhook, status = webhook_from_proto(message)
    if output.json:
        output.answer(_record(webhook, status))
        return
    output.place(webhook.project, revision=webhook.revision)
    output.print(webhook.id, style="bold")
    for label, text in (
        ("url", webhook.url),
        ("environments", ", ".join(webhook.environments) or "all"),
        ("description", webhook.description),
        ("state", _state(webhook, status)),
        ("told of", f"revision {status.delivered_revision}"),
        ("old secret", f"until {instant_text(status.old_secret_until)}" if status.old_secret_until else ""),
    ):
        if text:
            output.print(f"  {label:<12} {text}")


def _print_secret(output: Output, message: webhook_pb2.Webhook, secret: str) -> None:
    webhook, status = webhook_from_proto(message)
    if output.json:
        output.answer({"secret": secret, **_record(webhook, status)})
        return
    output.note(f"webhook {webhook.id}, {webhook.url}; its secret is shown this once:")
    click.echo(secret)


def _print_delivery(output: Output, delivery: Delivery) -> int:
    if output.json:
        output.answer(_delivery_record(delivery))
    elif delivery.state is DeliveryState.DELIVERED:
        output.print(f"taken: HTTP {delivery.status}, {delivery.id}")
    else:
        output.print(f"not taken: {delivery.error}, {delivery.id}")
    return ExitCode.OK if delivery.state is DeliveryState.DELIVERED else ExitCode.FAILED


def _state(webhook: Webhook, status: WebhookStatus) -> str:
    if not webhook.enabled:
        return f"disabled: {status.disabled_reason}" if status.disabled_reason else "disabled"
    if not status.failures:
        return "enabled"
    until = status.next_attempt_at
    now = datetime.datetime.now(datetime.UTC)
    when = "now" if until is None or until <= now else f"at {instant_text(until)}"
    return f"failing: {status.failures} attempts, the next {when}"
