"""`rheostat history` and `revert`: what was changed, and undoing it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import click
from rich.text import Text

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import command
from rheostat.cli.commit import WRITE_ANSWER, WriteAnswer, commit, print_written
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.diff import change_lines
from rheostat.cli.instant import parse_instant
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.record import change_set_record
from rheostat.cli.rollout import announce
from rheostat.cli.shell import complete_setting
from rheostat.cli.state import export_state
from rheostat.document import export_document, format_document, parse_document, plan_apply
from rheostat.model.change import ChangeSet
from rheostat.model.state import State
from rheostat.wire.change import change_from_proto, change_set_from_proto
from rheostat.wire.instant import instant_to_proto

__all__ = ["history", "revert"]

_LISTED: Final = 8
"""Things of one revision that are named without ``--patch``."""


@command(
    "history",
    examples=[
        ("rheostat history", "the last changes of the project"),
        ("rheostat history checkout.timeout --patch", "what happened to a setting"),
        ("rheostat history -e production --limit 5", "of one environment"),
        ("rheostat history --since 7d --author Ada", "what somebody did lately"),
        ("rheostat history --kind key --since 2026-03-01", "which keys were made and revoked"),
    ],
    answer="""
    project, environment   environment is null when it is not limited to one
    revisions              [{revision, generation, project, environments, committed_at, author, actor, message,
                           request_id, reverts, draft, approved_by, forced_clients, changes}], newest first;
                           draft is its id or null; changes as in `rheostat apply`
    """,
)
@click.argument("name", default="", shell_complete=complete_setting)
@click.option(
    "--limit",
    "-l",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many revisions at most.",
)
@click.option("--actor", default="", metavar="SELECTOR", help="Only what was written with this key.")
@click.option("--author", default="", help="Only what this author wrote, as it is shown.")
@click.option("--since", metavar="TIME", help="Only from then on: 30m, 2h, 7d ago, or 2026-03-01T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Only from before then; as --since.")
@click.option(
    "--kind",
    type=click.Choice(["setting", "segment", "project", "environment", "key", "webhook"]),
    help="Only what changed something of this kind.",
)
@click.option("--patch", "-p", is_flag=True, help="Show what each changed, not only where.")
@target_options()
def history(
    name: str,
    limit: int,
    actor: str,
    author: str,
    since: str | None,
    until: str | None,
    kind: str | None,
    patch: bool,
    target: Target,
    output: Output,
) -> None:
    """List what was changed, newest first: in the project, or in one of its settings.

    With --environment, only what changed that environment. This is the audit log: every change-set is in it, and stays.
    """
    limits = {
        field: instant_to_proto(parse_instant(text, f"--{field}"))
        for field, text in (("since", since), ("until", until))
        if text is not None
    }
    with Connection(target) as connection:
        project = connection.project
        request = admin.ListRevisionsRequest(
            project=project,
            environment=target.environment,
            setting=name,
            page_size=min(limit, 1000),
            actor=actor,
            author=author,
            kind=kind or "",
            since=limits.get("since"),
            until=limits.get("until"),
        )
        found: list[ChangeSet] = []
        for page in connection.pages(connection.admin.list_revisions, request):
            found += [change_set_from_proto(message) for message in page.change_sets]
            if len(found) >= limit:
                break
    del found[limit:]
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": target.environment or None,
                "revisions": [change_set_record(change_set) for change_set in found],
            }
        )
        return
    output.place(project, target.environment)
    for change_set in found:
        output.print(_heading(change_set))
        for line in _origin(change_set):
            output.print(line)
        for change in change_set.changes if patch else change_set.changes[:_LISTED]:
            for line in change_lines(change) if patch else itertools.islice(change_lines(change), 1):
                output.print(Text("  ") + line)
        if not patch and len(change_set.changes) > _LISTED:
            output.print(f"  … and {len(change_set.changes) - _LISTED} more", style="dim")
    if not found:
        chosen = bool(actor or author or kind or limits)
        output.note(
            "nothing in the history fits"
            if chosen
            else f"nothing has changed {name!r}"
            if name
            else "there is no history yet"
        )


@command(
    "revert",
    examples=[
        ("rheostat revert 42 --dry-run", "what undoing revision 42 would change"),
        ("rheostat revert 42 -m 'Too slow'", "undo that one change-set"),
        ("rheostat revert --to 41", "undo everything after revision 41"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("revision", type=click.IntRange(1), required=False)
@click.option("--to", "to_revision", type=click.IntRange(0), help="Undo everything after this revision.")
@click.option("--force", is_flag=True, help="Also when a connected client could not decode a value.")
@click.option(
    "-e",
    "--environment",
    default="",
    metavar="SLUG",
    help="Undo only what was changed in this environment. RHEOSTAT_ENVIRONMENT has no say here.",
)
@write_options()
@target_options(environment=False)
def revert(
    revision: int | None,
    to_revision: int | None,
    environment: str,
    force: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Undo a revision, or everything after one.

    Undoing is a change-set of its own: the history stays. A single revision is not undone when something that it
    changed has changed again since; the command then ends with code 5. With --draft the draft holds what has to be
    written to get back there.
    """
    if (revision is None) == (to_revision is None):
        raise click.UsageError("give a REVISION to undo, or --to and the revision to go back to")
    with Connection(target) as connection:
        request = admin.RevertRequest(
            project=connection.project,
            environment=environment,
            revision=revision,
            to_revision=to_revision,
            message=how.message,
            author=how.author,
            request_id="" if how.dry_run else new_request_id(),
            dry_run=how.dry_run,
            force=force,
        )
        if (how.draft or how.into) and not how.dry_run:
            answer = _draft_of_revert(connection, request, how)
        else:
            if how.wait is not None:
                announce(connection, [environment] if environment else ())
            answer = connection.write(connection.admin.revert, request)
        print_written(
            output,
            answer,
            project=connection.project,
            environment=environment,
            target=target,
            how=how,
        )


def _draft_of_revert(connection: Connection, request: admin.RevertRequest, how: WriteOptions) -> WriteAnswer:
    """Make a draft of what a revert would change."""
    request.dry_run, request.request_id = True, ""
    planned = connection.call(connection.admin.revert, request)
    state, revision = export_state(connection, connection.project)
    changes = [change_from_proto(change) for change in planned.changes]
    target = State({connection.project: state}).apply(changes, 0, 0).projects[connection.project]
    document = parse_document(format_document(export_document(target)))
    mutations = plan_apply(document, state, prune="declared")
    if not mutations:
        return planned
    return commit(connection, mutations, how, expected_revision=revision, force=request.force)


def _heading(change_set: ChangeSet) -> Text:
    heading = Text(f"revision {change_set.revision}", "bold")
    if change_set.created_at is not None:
        heading.append(f"  {change_set.created_at.astimezone():%Y-%m-%d %H:%M:%S}", "not bold dim")
    author = change_set.author or change_set.actor
    if author:
        heading.append(f"  {author}", "not bold")
    if change_set.message:
        heading.append(f"  {change_set.message}", "not bold")
    if change_set.reverts:
        heading.append(f"  (undoes {change_set.reverts})", "not bold dim")
    if change_set.draft:
        heading.append(f"  (draft {change_set.draft})", "not bold dim")
    return heading


def _origin(change_set: ChangeSet) -> Iterator[Text]:
    """Yield who let the change-set through, and over which clients."""
    for label, names in (
        ("approved by", change_set.approved_by),
        ("could not be decoded by", change_set.forced_clients),
    ):
        if names:
            yield Text(f"  {label} {', '.join(names)}", "dim")
