"""Committing mutations, and printing what became of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import draft_service_pb2 as messages
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.diff import change_lines, summary
from rheostat.cli.option import Target, WriteOptions
from rheostat.cli.output import Output
from rheostat.cli.record import change_record, draft_record, warning_record
from rheostat.cli.rollout import Rollout, announce, follow, require, rollout_record
from rheostat.errors import FailedPreconditionError
from rheostat.model.change import Change, Mutation, PlanWarning
from rheostat.wire.change import change_from_proto, mutation_to_proto, warning_from_proto
from rheostat.wire.draft import draft_from_proto

__all__ = ["WRITE_ANSWER", "WriteAnswer", "commit", "commit_now", "print_drafted", "print_written", "written"]

Drafted: TypeAlias = messages.CreateDraftResponse | messages.UpdateDraftResponse

WriteAnswer: TypeAlias = admin.CommitResponse | admin.RevertResponse | Drafted
"""What the server answers to a write, which may be the writing of a draft."""

WRITE_ANSWER = """
project, environment   what it was about; environment is null for project-wide writes
revision, generation   of the change-set; when nothing changed, of the state as it is
committed              whether a revision was taken
dry_run, replayed      whether nothing was to be written; whether the same request had been made before
changes                [{action, kind, name, environment, before, after}], empty when nothing changed;
                       action is create, update or delete; a setting is as `rheostat get` answers it
warnings               [{code, message, mutation, context}]
draft                  only with --draft and --into, which commit nothing: as `rheostat drafts show` answers it
rollouts               only with --wait: how far it has got, for each environment that clients read it in; each as
                       in `rheostat rollout`
"""
"""The keys of the JSON answer of every command that writes."""


def commit_now(
    connection: Connection,
    mutations: Sequence[Mutation],
    how: WriteOptions,
    *,
    environment: str = "",
    expected_revision: int | None = None,
    force: bool = False,
) -> admin.CommitResponse:
    """Commit *mutations* as one change-set, under a new request id, and return the server's answer.

    What is to become a draft is only tried, and written by `commit`. Clients that are to be waited for are asked
    before to report soon.

    Raises:
        RevisionConflictError: Something that they touch has changed after *expected_revision*.
        RheostatError: As `Connection.call`.
    """
    dry_run = how.dry_run or how.draft or bool(how.into)
    request = admin.CommitRequest(
        project=connection.project,
        environment=environment,
        mutations=[mutation_to_proto(mutation) for mutation in mutations],
        message=how.message,
        author=how.author,
        request_id="" if dry_run else new_request_id(),
        expected_revision=expected_revision,
        dry_run=dry_run,
        force=force,
    )
    if how.wait is not None:
        announce(connection, [environment] if environment else ())
    return connection.write(connection.admin.commit, request)


def commit(
    connection: Connection,
    mutations: Sequence[Mutation],
    how: WriteOptions,
    *,
    environment: str = "",
    expected_revision: int | None = None,
    force: bool = False,
) -> admin.CommitResponse | Drafted:
    """Commit *mutations*, or make a draft of them when that was asked for.

    Returns:
        The server's answer; that of a commit also where a draft would change nothing.

    Raises:
        RheostatError: As `commit_now`.
    """
    if (how.draft or how.into) and not how.dry_run:
        try:
            return _draft(connection, mutations, how, environment, expected_revision, force=force)
        except FailedPreconditionError as error:
            if error.reason != "NOTHING_TO_CHANGE":
                raise
    return commit_now(
        connection,
        mutations,
        how,
        environment=environment,
        expected_revision=expected_revision,
        force=force,
    )


def _draft(
    connection: Connection,
    mutations: Sequence[Mutation],
    how: WriteOptions,
    environment: str,
    base_revision: int | None,
    *,
    force: bool,
) -> Drafted:
    content = [mutation_to_proto(mutation) for mutation in mutations]
    if how.into:
        of = {"project": connection.project, "id": how.into}
        stored = connection.call(connection.drafts.get_draft, messages.GetDraftRequest(**of)).draft
        # Its own environment is the one for mutations that name none.
        for mutation in content:
            kind = getattr(mutation, mutation.WhichOneof("kind") or "")
            if stored.environment != environment and getattr(kind, "environment", None) == "":
                kind.environment = environment
        return connection.call(
            connection.drafts.update_draft,
            messages.UpdateDraftRequest(
                **of, version=stored.version, mutations=content, message=how.message, force=force
            ),
        )
    request = messages.CreateDraftRequest(
        project=connection.project,
        environment=environment,
        mutations=content,
        message=how.message,
        author=how.author,
        request_id=new_request_id(),
        base_revision=base_revision,
        force=force,
    )
    return connection.write(connection.drafts.create_draft, request)


def written(
    answer: WriteAnswer | messages.GetDraftResponse | messages.PublishDraftResponse,
) -> tuple[list[Change], list[PlanWarning]]:
    """Return the changes and the warnings of a write's answer.

    Raises:
        InvalidArgumentError: This version is too old to read them.
    """
    return (
        [change_from_proto(change) for change in answer.changes],
        [warning_from_proto(warning) for warning in answer.warnings],
    )


def print_written(
    output: Output,
    answer: WriteAnswer,
    *,
    project: str,
    target: Target,
    how: WriteOptions,
    environment: str = "",
    more: dict[str, Any] | None = None,
) -> None:
    """Print what a write changed, or under ``--dry-run`` would change; then wait for clients, if that was asked for.

    Args:
        output: Where.
        answer: The server's.
        project: What it was about.
        target: The server.
        how: As it was written.
        environment: What it was about; empty for project-wide writes.
        more: Further keys of the JSON answer.

    Raises:
        ClientsBehindError: It was written, and clients did not get it in time.
        click.Abort: It was written, and Ctrl-C has ended the waiting.
    """
    changes, warnings = written(answer)
    waiting = _Waiting(output, target, project, how, answer, changes)
    dry_run = how.dry_run
    if isinstance(answer, Drafted):
        draft, missing = draft_from_proto(answer.draft)
        head = {"revision": draft.base_revision, "generation": None, "committed": False, "replayed": False}
        more = {**(more or {}), "draft": draft_record(draft, missing)}
    else:
        head = {
            "revision": answer.revision,
            "generation": answer.generation,
            "committed": bool(changes) and not dry_run,
            "replayed": answer.replayed,
        }
    if output.json:
        waiting.follow()
        if how.wait is not None:
            more = {**(more or {}), "rollouts": [rollout_record(each) for each in waiting.rollouts]}
        output.answer(
            {
                "project": project,
                "environment": environment or None,
                **head,
                "dry_run": dry_run,
                "changes": [change_record(change) for change in changes],
                "warnings": [warning_record(warning) for warning in warnings],
                **(more or {}),
            }
        )
        waiting.require()
        return
    output.place(project, environment)
    for change in changes:
        # What is new is spelled out before it is written; afterwards its name will do.
        brief = change.before is None and not dry_run
        for line in itertools.islice(change_lines(change), 1 if brief else None):
            output.print(line)
    output.warn(warnings)
    if isinstance(answer, Drafted):
        print_drafted(output, answer)
    elif not changes:
        output.print(f"no changes; revision {answer.revision} stands")
    elif dry_run:
        output.print(f"dry run: {summary(changes)}; nothing was written")
    else:
        output.print(f"revision {answer.revision}: {summary(changes)}")
    output.flush()
    waiting.follow()
    waiting.require()


class _Waiting:
    """The wait for clients after a write; none when it was not asked for, or nothing was committed."""

    def __init__(
        self,
        output: Output,
        target: Target,
        project: str,
        how: WriteOptions,
        answer: WriteAnswer,
        changes: Sequence[Change],
    ) -> None:
        self.rollouts: list[Rollout] = []
        self._interrupted = False
        self._output = output
        self._target = target
        self._project = project
        self._share = None if isinstance(answer, Drafted) else how.wait
        self._revision = 0 if isinstance(answer, Drafted) else answer.revision
        self._changes = changes

    def follow(self) -> None:
        """Wait."""
        # Keys, webhooks and the properties of environments and projects are nothing that clients read.
        read = [change for change in self._changes if change.kind in {"setting", "segment"}]
        if self._share is None:
            return
        if not read:
            self._output.note("nothing that clients read has changed, so there is nothing to wait for")
            return
        everywhere = any(not change.environment for change in read)
        environments = () if everywhere else tuple(dict.fromkeys(change.environment for change in read))
        self.rollouts, self._interrupted = follow(
            self._target, self._project, environments, self._revision, self._share, self._output
        )

    def require(self) -> None:
        """See `rheostat.cli.rollout.require`."""
        require(self.rollouts, self._output, interrupted=self._interrupted, committed=self._revision)


def print_drafted(output: Output, answer: Drafted) -> None:
    """Print which draft was made, and what it waits for."""
    draft, missing = draft_from_proto(answer.draft)
    changes, _ = written(answer)
    output.print(f"draft {draft.id}, version {draft.version}: {summary(changes)}; nothing is committed yet")
    for entry in missing:
        output.print(f"  {entry.environment} has {entry.given} of {entry.required} approvals")
    if missing:
        output.note(f"  approve it with: rheostat drafts approve {draft.id}")
    output.note(f"  commit it with: rheostat publish {draft.id}")
