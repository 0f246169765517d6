"""`rheostat clients`: who is connected, and how far each has got."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text
from rheostat.model.client import ClientReport
from rheostat.wire.client import client_report_from_proto

__all__ = ["CLIENT_RECORD", "client_record", "clients", "is_behind", "print_clients", "seconds_text"]

CLIENT_RECORD = """{id, name, sdk, node, generation, revision, behind_by, lag_seconds, reported_at,
               diverged, error}; behind_by is null when the client has not reported, or is of
               another generation; reported_at is null when it is connected and has not reported"""
"""The keys of one client."""


@command(
    "clients",
    examples=[
        ("rheostat clients -e production", "who reads production, and at which revision"),
        ("rheostat clients --behind", "who has not got the last change"),
        ("rheostat clients --json | jq -r '.clients[] | select(.diverged) | .name'", "who needs a look"),
    ],
    answer=f"""
    project, environment
    revision, generation   the last revision that has changed the environment
    clients                [{CLIENT_RECORD}], by id
    """.replace("               ", "                           "),
)
@click.option(
    "--behind", is_flag=True, help="Only those that have not reached the environment's last revision."
)
@target_options()
def clients(behind: bool, target: Target, output: Output) -> None:
    """List the connected clients of an environment, and how far each has got.

    A client is listed from its first report, or the beginning of its stream, until 3 minutes after the last. Those
    that have not reported are listed without a revision, and are not behind.
    """
    with Connection(target) as connection:
        project, environment = connection.project, connection.environment
        head = connection.call(
            connection.admin.get_rollout,
            admin.GetRolloutRequest(project=project, environment=environment, max_laggards=1),
        )
        found: list[ClientReport] = []
        request = admin.ListClientsRequest(project=project, environment=environment)
        for page in connection.pages(connection.admin.list_clients, request):
            found += map(client_report_from_proto, page.clients)
    if behind:
        found = [each for each in found if is_behind(each, head)]
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": environment,
                "revision": head.revision,
                "generation": head.generation,
                "clients": [client_record(each, head) for each in found],
            }
        )
        return
    output.place(project, environment, head.revision)
    print_clients(output, found, head)
    if not found:
        output.note("no client is behind" if behind else "no client is connected")


def print_clients(output: Output, found: Sequence[ClientReport], head: admin.GetRolloutResponse) -> None:
    """Print a table of clients, compared with a rollout."""
    now = datetime.datetime.now(datetime.UTC)
    output.table(
        ["id", "name", "sdk", "node", "revision", "behind by", "lag", "reported", ""],
        [
            (
                _shown(each.id),
                _shown(each.name),
                _shown(each.sdk),
                _shown(each.node),
                "" if each.reported_at is None else str(each.revision),
                _behind_text(each, head),
                "" if each.lag is None else seconds_text(each.lag),
                _reported_text(each, now),
                "; ".join(filter(None, ["diverged" if each.diverged else "", _shown(each.error, 60)])),
            )
            for each in found
        ],
    )


def is_behind(client: ClientReport, head: admin.GetRolloutResponse) -> bool:
    """Tell whether a client has reported, and not that it has reached a rollout's revision."""
    return client.reported_at is not None and (client.generation, client.revision) < (
        head.generation,
        head.revision,
    )


def client_record(client: ClientReport, head: admin.GetRolloutResponse) -> dict[str, Any]:
    """Return a client as the JSON that commands answer, compared with a rollout."""
    reported = client.reported_at is not None
    return {
        "id": client.id,
        "name": client.name,
        "sdk": client.sdk,
        "node": client.node,
        "generation": client.generation,
        "revision": client.revision,
        "behind_by": max(0, head.revision - client.revision)
        if reported and client.generation == head.generation
        else None,
        "lag_seconds": client.lag,
        "reported_at": instant_text(client.reported_at),
        "diverged": client.diverged,
        "error": client.error or None,
    }


def seconds_text(seconds: float) -> str:
    """Return a time span as people read it: ``850 ms``, ``2.5 s``, ``3 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _behind_text(client: ClientReport, head: admin.GetRolloutResponse) -> str:
    if not is_behind(client, head):
        return ""
    if client.generation != head.generation:
        return "another history"
    return str(head.revision - client.revision)


def _reported_text(client: ClientReport, now: datetime.datetime) -> str:
    if client.reported_at is None:
        return "never"
    # By another clock than this machine's.
    return f"{max(0.0, (now - client.reported_at).total_seconds()):.0f} s ago"


def _shown(text: str, width: int = 200) -> str:
    # Clients call themselves what they like; a terminal obeys some of it.
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return shown if len(shown) <= width else shown[: width - 1] + "…"
