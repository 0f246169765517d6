"""`rheostat usage`: which values were given how often, and which events were counted."""

from __future__ import annotations

import datetime
from typing import Any, Final

import click

from rheo.v1 import event_service_pb2 as event
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.instant import parse_instant
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text
from rheostat.cli.shell import complete_setting
from rheostat.wire.instant import instant_from_proto

__all__ = ["usage"]

_TEXT: Final = {
    "exposures": ["setting", "variant", "rule_id", "revision", "value", "count", "first_at", "last_at"],
    "events": ["event", "events", "quantity", "last_at"],
}


@command(
    "usage",
    examples=[
        ("rheostat usage -e production", "which values were given, by setting, variant and revision"),
        ("rheostat usage new-checkout --since 7d", "of one setting, in the last week"),
        ("rheostat usage --events --format ndjson", "how often which event happened, for a script"),
    ],
    answer="""
    exposures   [{setting, variant, rule_id, revision, value, count, first_at, last_at}]; value is JSON text, cut
                after 200 characters; or with --events
    events      [{event, events, quantity, last_at}], by name
    """,
)
@click.argument("setting", required=False, shell_complete=complete_setting)
@click.option("--events", is_flag=True, help="Count events instead of exposures.")
@click.option("--since", help="Only days from this one's on, UTC: so long ago, such as 7d, or an instant.")
@click.option("--until", help="Only days before this one's, UTC.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "ndjson"]),
    default="table",
    show_default=True,
    help="How to print it; json is the same as --json.",
)
@target_options()
def usage(
    setting: str | None,
    events: bool,
    since: str | None,
    until: str | None,
    format_: str,
    target: Target,
    output: Output,
) -> None:
    """Show which values were given how often, or how often events happened.

    Programs tell of both; counts are kept by day for 400 days.
    """
    if setting and events:
        raise click.UsageError("events are not those of a setting: give either the setting or --events")
    if format_ == "json":
        output = Output(json=True)
    what = "events" if events else "exposures"
    with Connection(target) as connection:
        records = _read(connection, target, setting or "", since, until, events=events)
    if format_ == "ndjson":
        for record in records:
            output.line(record)
        return
    if output.json:
        output.answer({what: records})
        return
    columns = _TEXT[what]
    output.table(
        [column.removesuffix("_at").removesuffix("_id") for column in columns],
        [[_shown(record[column]) for column in columns] for record in records],
    )
    if not records:
        output.note("no events were told" if events else "no exposures were told")


def _read(
    connection: Connection,
    target: Target,
    setting: str,
    since: str | None,
    until: str | None,
    *,
    events: bool,
) -> list[dict[str, Any]]:
    place: dict[str, Any] = {"project": target.project, "environment": target.environment}
    if since:
        place["since"] = parse_instant(since, "--since").astimezone(datetime.UTC)
    if until:
        place["until"] = parse_instant(until, "--until").astimezone(datetime.UTC)
    if events:
        return [
            {
                "event": count.event,
                "events": count.events,
                "quantity": count.quantity,
                "last_at": instant_text(instant_from_proto(count.last_at)),
            }
            for page in connection.pages(
                connection.events.list_event_counts, event.ListEventCountsRequest(**place)
            )
            for count in page.events
        ]
    return [
        {
            "setting": count.setting,
            "variant": count.variant or None,
            "rule_id": count.rule_id or None,
            "revision": count.revision,
            "value": count.value_json or None,
            "count": count.count,
            "first_at": instant_text(instant_from_proto(count.first_at)),
            "last_at": instant_text(instant_from_proto(count.last_at)),
        }
        for page in connection.pages(
            connection.events.list_exposures, event.ListExposuresRequest(**place, setting=setting)
        )
        for count in page.exposures
    ]


def _shown(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return text if len(text) <= 40 else f"{text[:39]}…"
