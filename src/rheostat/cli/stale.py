"""`rheostat stale`: settings that look as if nobody needed them any more."""

from __future__ import annotations

import datetime
from typing import Final

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text
from rheostat.wire.instant import instant_from_proto
from rheostat.wire.setting import lifecycle_from_request

__all__ = ["stale"]

_REASONS: Final = {
    "UNREAD": "nobody reads it",
    "ONE_VALUE": "always the same value",
    "LIFECYCLE": "on its way out",
}


@command(
    "stale",
    examples=[
        ("rheostat stale -e production", "what the code may not need any more"),
        ("rheostat stale --days 90 --owner team-payments --json | jq -r '.settings[].name'", "for a script"),
    ],
    answer="""
    project, environment, days
    noted_since   since when the server notes who reads what; null when it does not yet
    settings      [{name, owner, tags, lifecycle, reasons, last_read_at, last_changed_at, declared_by}], by name;
                  reasons are UNREAD, ONE_VALUE and LIFECYCLE; an instant that is not known is null;
                  declared_by counts connected clients
    """,
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    help="For how long nobody must have read a setting, or it must have had one value.",
)
@click.option("--owner", help="Only settings of this owner; an empty text for those of nobody.")
@target_options()
def stale(days: int, owner: str | None, target: Target, output: Output) -> None:
    """List settings that look as if nobody needed them any more.

    Nobody has read them, whatever the context they have one value and had no other for so long, or they are deprecated
    or archived. Clients report what they read, and the server notes what it evaluates by name.
    """
    with Connection(target) as connection:
        project, environment = connection.project, connection.environment
        request = admin.ListStaleSettingsRequest(
            project=project,
            environment=environment,
            unread_for=datetime.timedelta(days=days),
            page_size=1000,
        )
        found: list[admin.StaleSetting] = []
        noted_since = None
        for page in connection.pages(connection.admin.list_stale_settings, request):
            found += [setting for setting in page.settings if owner in (None, setting.owner)]
            if page.HasField("noted_since"):
                noted_since = instant_from_proto(page.noted_since)
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": environment,
                "days": days,
                "noted_since": instant_text(noted_since),
                "settings": [
                    {
                        "name": setting.name,
                        "owner": setting.owner,
                        "tags": list(setting.tags),
                        "lifecycle": lifecycle_from_request(setting.lifecycle, "lifecycle").name,
                        "reasons": _reasons(setting),
                        "last_read_at": instant_text(_instant(setting, "last_read_at")),
                        "last_changed_at": instant_text(_instant(setting, "last_changed_at")),
                        "declared_by": setting.declared_by,
                    }
                    for setting in found
                ],
            }
        )
        return
    output.place(project, environment)
    output.table(
        ["name", "why", "owner", "last read", "last changed", "declared by"],
        [
            (
                setting.name,
                ", ".join(_REASONS.get(reason, reason) for reason in _reasons(setting)),
                setting.owner,
                _day(_instant(setting, "last_read_at")),
                _day(_instant(setting, "last_changed_at")),
                f"{setting.declared_by} clients" if setting.declared_by else "",
            )
            for setting in found
        ],
    )
    if not found:
        output.note("every setting looks needed")
    cutoff = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    if noted_since is None or noted_since > cutoff:
        since = "not yet" if noted_since is None else f"only since {_day(noted_since)}"
        output.note(f"who reads what is noted {since}: what nobody has read for {days} days is not known")


def _reasons(setting: admin.StaleSetting) -> list[str]:
    return [admin.StaleReason.Name(reason).removeprefix("STALE_REASON_") for reason in setting.reasons]


def _instant(setting: admin.StaleSetting, field: str) -> datetime.datetime | None:
    return instant_from_proto(getattr(setting, field)) if setting.HasField(field) else None


def _day(instant: datetime.datetime | None) -> str:
    return (instant_text(instant) or "")[:10]
