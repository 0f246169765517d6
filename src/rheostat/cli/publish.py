"""`rheostat publish`: a draft or a document, and the way to the clients."""

from __future__ import annotations

from typing import TextIO

import click

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import draft_service_pb2 as messages
from rheostat.cli.apply import apply_text
from rheostat.cli.command import command
from rheostat.cli.commit import WRITE_ANSWER, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.file import read_document
from rheostat.cli.instant import parse_future
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.record import draft_record
from rheostat.cli.rollout import announce
from rheostat.wire.draft import draft_from_proto
from rheostat.wire.instant import instant_to_proto

__all__ = ["publish"]


@command(
    "publish",
    examples=[
        ("rheostat publish 7zq3k9m2x4a1f --wait 99% --timeout 30s", "commit a draft, and see it arrive"),
        ("rheostat publish 7zq3k9m2x4a1f --at 2026-03-01T06:00:00Z", "let the server commit it then"),
        ("rheostat publish --file shop.yaml --wait 100%", "apply a document, and wait for every client"),
    ],
    answer=WRITE_ANSWER.replace(
        "only with --draft and --into, which commit nothing: as", "what was published, as"
    ),
)
@click.argument("draft_id", metavar="[DRAFT]", default="")
@click.option(
    "--file",
    "-f",
    "file",
    type=click.File("r", encoding="utf-8"),
    help="Apply this document; - is standard input.",
)
@click.option(
    "--at", help="Commit the draft at this instant, or after this time: 2026-03-01T06:00:00Z or 2h."
)
@click.option("--version", type=click.IntRange(1), help="Refuse unless the draft has this version.")
@click.option(
    "--force", is_flag=True, help="With --file: also when a connected client could not decode a value."
)
@write_options()
@target_options(environment=False)
def publish(
    draft_id: str,
    file: TextIO | None,
    at: str | None,
    version: int | None,
    force: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Publish a draft or a document, and see it arrive.

    With --wait the command shows how the share of clients that have the revision grows, and ends with code 6 and the
    names of the laggards when it is not reached within --timeout. What is published stays published.
    """
    if bool(draft_id) == (file is not None):
        raise click.UsageError("give the DRAFT to publish, or the --file to apply")
    if file is not None:
        if at is not None or version is not None:
            raise click.UsageError("--at and --version are about a draft, and --file is none")
        answer, project = apply_text(*read_document(file), target, how, force=force)
        print_written(output, answer, project=project, target=target, how=how)
        return
    for given, option in (
        (how.message, "--message"),
        (how.draft, "--draft"),
        (how.into, "--into"),
        (force, "--force"),
    ):
        if given:
            raise click.UsageError(f"{option} is for --file: a draft has what was said when it was written")
    if how.dry_run:
        raise click.UsageError("what a draft would change, 'rheostat drafts show' says")
    if at is not None and how.wait is not None:
        raise click.UsageError("--wait cannot wait for what is committed later: use 'rheostat rollout' then")
    instant = None if at is None else instant_to_proto(parse_future(at, "--at"))
    with Connection(target) as connection:
        project = connection.project
        if how.wait is not None:
            announce(connection)
        request = messages.PublishDraftRequest(
            project=project, id=draft_id, version=version or 0, at=instant, author=how.author
        )
        found = connection.call(connection.drafts.publish_draft, request)
    draft, missing = draft_from_proto(found.draft)
    if draft.scheduled_at is not None:
        if output.json:
            output.answer({"project": project, "committed": False, "draft": draft_record(draft, missing)})
        else:
            output.print(
                f"draft {draft.id} is scheduled for {draft.scheduled_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
            )
        return
    answer = admin.CommitResponse(
        revision=found.revision, generation=found.generation, changes=found.changes, warnings=found.warnings
    )
    more = {"draft": draft_record(draft, missing)}
    print_written(output, answer, project=project, target=target, how=how, more=more)
