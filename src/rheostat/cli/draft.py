"""`rheostat drafts`: change-sets that wait."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.text import Text

from rheo.v1 import draft_service_pb2 as messages
from rheostat.cli.command import Command
from rheostat.cli.commit import print_drafted, written
from rheostat.cli.connection import Connection
from rheostat.cli.diff import change_lines, summary
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import change_record, draft_record, warning_record
from rheostat.model.draft import Draft, DraftState, MissingApproval
from rheostat.wire.draft import draft_from_proto, draft_states_to_proto

__all__ = ["drafts"]

_DRAFT_ANSWER: Final = """
id, project, state, version, environments, author, actor, message, created_at, updated_at, base_revision, force
                    state is open, scheduled, committed, cancelled or failed
approvals           [{environments, author, actor, approved_at, comment}]
missing_approvals   [{environment, required, given, self_approval}], empty when it can be committed
scheduled_at, revision, failure   null unless it is scheduled, committed or failed
"""

_PLAN_ANSWER: Final = (
    _DRAFT_ANSWER
    + """changes, warnings   what it would change if it was committed now, as in `rheostat apply`
problem             why it could not be committed now, but for approvals; null when it could
"""
)


@click.group("drafts")
def drafts() -> None:
    """List, show, approve, refresh and cancel drafts.

    A draft is made with the option --draft of a command that writes, and changed with --into. `rheostat publish`
    commits it, at once or at a time.
    """


@drafts.command(
    "list",
    cls=Command,
    examples=[
        ("rheostat drafts list", "those that wait for something"),
        ("rheostat drafts list -e production --state scheduled", "what will change production by itself"),
    ],
    answer="project\ndrafts   newest first, each as in `rheostat drafts show`, without changes, warnings, problem",
)
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in DraftState]),
    multiple=True,
    help="Only those in this state; may be repeated. [default: open, scheduled and failed]",
)
@click.option(
    "--limit", "-l", type=click.IntRange(1), default=100, show_default=True, help="How many at most."
)
@target_options()
def list_(states: tuple[str, ...], limit: int, target: Target, output: Output) -> None:
    """List the drafts of a project, newest first; with --environment, only those that touch it.

    What each of them would change, `rheostat drafts show` tells.
    """
    found: list[tuple[Draft, tuple[MissingApproval, ...]]] = []
    with Connection(target) as connection:
        project = connection.project
        request = messages.ListDraftsRequest(
            project=project,
            environment=target.environment,
            states=draft_states_to_proto(map(DraftState, states)),
        )
        for page in connection.pages(connection.drafts.list_drafts, request):
            found += map(draft_from_proto, page.drafts)
            if len(found) >= limit:
                break
    del found[limit:]
    if output.json:
        output.answer({"project": project, "drafts": [draft_record(*entry) for entry in found]})
        return
    output.place(project, target.environment)
    output.table(
        ["id", "state", "author", "environments", "message"],
        [
            (
                draft.id,
                _state(draft, missing),
                draft.author or draft.actor,
                ", ".join(draft.environments),
                draft.message,
            )
            for draft, missing in found
        ],
    )
    if not found:
        output.note("there are no drafts")


@drafts.command(
    "show",
    cls=Command,
    examples=[("rheostat drafts show 7zq3k9m2x4a1f", "who wrote it, who approved it, what it would change")],
    answer=_PLAN_ANSWER,
)
@click.argument("draft_id", metavar="DRAFT")
@target_options(environment=False)
def show(draft_id: str, target: Target, output: Output) -> None:
    """Show a draft, and what it would change if it was committed now."""
    with Connection(target) as connection:
        answer = _get(connection, draft_id)
    _print_plan(output, answer)


@drafts.command(
    "approve",
    cls=Command,
    examples=[
        ("rheostat drafts approve 7zq3k9m2x4a1f", "shows it, and asks"),
        ("rheostat drafts approve 7zq3k9m2x4a1f --yes --version 2 --comment 'Checked'", "in a script"),
    ],
    answer=_DRAFT_ANSWER,
)
@click.argument("draft_id", metavar="DRAFT")
@click.option("--comment", "-c", default="", help="What to say with it.")
@click.option("--version", type=click.IntRange(1), help="Refuse unless the draft has this version.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@target_options(environment=False)
def approve(
    draft_id: str, comment: str, version: int | None, yes: bool, target: Target, output: Output
) -> None:
    """Approve a draft. It is shown first, and what was shown is what is approved: a draft that has changed is refused.

    Takes a key with the role approver or admin, other than the one that wrote the draft unless the environment
    allows that. The approval is for the environments that the key sees, and the draft is shown as far as it is about
    these.
    """
    if not yes and (output.json or not _can_ask()):
        raise click.UsageError("this is no terminal to ask on: say --yes")
    with Connection(target) as connection:
        if not yes or version is None:
            shown = _get(connection, draft_id)
            version = version or shown.draft.version
            if not output.json:
                _print_plan(output, shown)
        if not yes:
            click.confirm("Approve this draft?", abort=True, err=True)
        request = messages.ApproveDraftRequest(
            project=connection.project, id=draft_id, version=version, comment=comment
        )
        draft, missing = draft_from_proto(connection.call(connection.drafts.approve_draft, request).draft)
    if output.json:
        output.answer(draft_record(draft, missing))
        return
    output.print(f"approved draft {draft.id}, version {draft.version}")
    _print_missing(output, draft, missing)


@drafts.command(
    "update",
    cls=Command,
    examples=[("rheostat drafts update 7zq3k9m2x4a1f", "bring a stale draft up to the newest revision")],
    answer=_PLAN_ANSWER,
)
@click.argument("draft_id", metavar="DRAFT")
@click.option("--message", "-m", default="", help="Another reason, for the history.")
@target_options(environment=False)
def update(draft_id: str, message: str, target: Target, output: Output) -> None:
    """Write what is in a draft anew, on what has changed meanwhile. Its approvals and its schedule are gone.

    To write something else into it, give the command that writes it the option --into.
    """
    with Connection(target) as connection:
        stored = _get(connection, draft_id).draft
        request = messages.UpdateDraftRequest(
            project=connection.project,
            id=draft_id,
            version=stored.version,
            mutations=stored.mutations,
            message=message,
            force=stored.force,
        )
        answer = connection.call(connection.drafts.update_draft, request)
    if output.json:
        output.answer(_plan_record(answer, ""))
        return
    changes, warnings = written(answer)
    output.place(answer.draft.project)
    for change in changes:
        for line in change_lines(change):
            output.print(line)
    output.warn(warnings)
    print_drafted(output, answer)


@drafts.command(
    "cancel",
    cls=Command,
    examples=[("rheostat drafts cancel 7zq3k9m2x4a1f", "also one that is scheduled")],
    answer=_DRAFT_ANSWER,
)
@click.argument("draft_id", metavar="DRAFT")
@target_options(environment=False)
def cancel(draft_id: str, target: Target, output: Output) -> None:
    """Give a draft up, for good. What it would have done is not kept."""
    with Connection(target) as connection:
        request = messages.CancelDraftRequest(project=connection.project, id=draft_id)
        draft, missing = draft_from_proto(connection.call(connection.drafts.cancel_draft, request).draft)
    if output.json:
        output.answer(draft_record(draft, missing))
    else:
        output.print(f"cancelled draft {draft.id}")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _get(connection: Connection, draft_id: str) -> messages.GetDraftResponse:
    request = messages.GetDraftRequest(project=connection.project, id=draft_id)
    return connection.call(connection.drafts.get_draft, request)


def _plan_record(
    answer: messages.GetDraftResponse | messages.UpdateDraftResponse, problem: str
) -> dict[str, Any]:
    changes, warnings = written(answer)
    return {
        **draft_record(*draft_from_proto(answer.draft)),
        "changes": [change_record(change) for change in changes],
        "warnings": [warning_record(warning) for warning in warnings],
        "problem": problem or None,
    }


def _print_plan(output: Output, answer: messages.GetDraftResponse) -> None:
    draft, missing = draft_from_proto(answer.draft)
    changes, warnings = written(answer)
    if output.json:
        output.answer(_plan_record(answer, answer.problem))
        return
    output.place(draft.project)
    heading = Text(f"draft {draft.id}", "bold")
    heading.append(f"  version {draft.version}, {_state(draft, missing)}", "not bold dim")
    for text in (draft.author or draft.actor, draft.message):
        if text:
            heading.append(f"  {text}", "not bold")
    output.print(heading)
    for approval in draft.approvals:
        said = f": {approval.comment}" if approval.comment else ""
        output.print(f"  approved by {approval.author or approval.actor}{said}")
    _print_missing(output, draft, missing)
    for change in changes:
        for line in change_lines(change):
            output.print(line)
    output.warn(warnings)
    if draft.failure:
        output.print(f"  failed: {draft.failure}", style="red")
    if answer.problem:
        output.print(f"  {answer.problem}", style="yellow")
    else:
        output.print(f"on revision {draft.base_revision} or later: {summary(changes)}")


def _print_missing(output: Output, draft: Draft, missing: Sequence[MissingApproval]) -> None:
    for entry in missing:
        own = ", the author's counts" if entry.self_approval else ""
        output.print(f"  {entry.environment} has {entry.given} of {entry.required} approvals{own}")
    if not missing and draft.state is DraftState.OPEN:
        output.note(f"  commit it with: rheostat publish {draft.id}")


def _state(draft: Draft, missing: Sequence[MissingApproval]) -> str:
    if draft.scheduled_at is not None:
        return f"scheduled for {draft.scheduled_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if draft.revision:
        return f"committed as {draft.revision}"
    if missing:
        waits = ", ".join(f"{entry.environment} {entry.given}/{entry.required}" for entry in missing)
        return f"{draft.state.value}, approvals: {waits}"
    return draft.state.value
