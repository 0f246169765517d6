"""Committing mutations, and printing what became of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.diff import change_lines, summary
from rheostat.cli.option import WriteOptions
from rheostat.cli.output import Output
from rheostat.cli.record import change_record, warning_record
from rheostat.model.change import Change, Mutation, PlanWarning
from rheostat.wire.change import change_from_proto, mutation_to_proto, warning_from_proto

__all__ = ["WRITE_ANSWER", "commit", "print_written", "written"]

WRITE_ANSWER = """
project, environment   what it was about; environment is null for project-wide writes
revision, generation   of the change-set; when nothing changed, of the state as it is
committed              whether a revision was taken
dry_run, replayed      whether nothing was to be written; whether the same request had been made before
changes                [{action, kind, name, environment, before, after}], empty when nothing changed;
                       action is create, update or delete; a setting is as `rheostat get` answers it
warnings               [{code, message, mutation, context}]
"""
"""The keys of the JSON answer of every command that writes."""


def commit(
    connection: Connection,
    mutations: Sequence[Mutation],
    how: WriteOptions,
    *,
    environment: str = "",
    expected_revision: int | None = None,
    force: bool = False,
) -> admin.CommitResponse:
    """Commit *mutations* as one change-set, under a new request id, and return the server's answer.

    Raises:
        RevisionConflictError: Something that they touch has changed after *expected_revision*.
        RheostatError: As `Connection.call`.
    """
    request = admin.CommitRequest(
        project=connection.project,
        environment=environment,
        mutations=[mutation_to_proto(mutation) for mutation in mutations],
        message=how.message,
        author=how.author,
        request_id="" if how.dry_run else new_request_id(),
        expected_revision=expected_revision,
        dry_run=how.dry_run,
        force=force,
    )
    return connection.write(connection.admin.commit, request)


def written(
    answer: admin.CommitResponse | admin.RevertResponse,
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
    answer: admin.CommitResponse | admin.RevertResponse,
    *,
    project: str,
    environment: str = "",
    dry_run: bool = False,
    more: dict[str, Any] | None = None,
) -> None:
    """Print what a write changed, or under ``--dry-run`` would change.

    Args:
        output: Where.
        answer: The server's.
        project: What it was about.
        environment: What it was about; empty for project-wide writes.
        dry_run: Nothing was written.
        more: Further keys of the JSON answer.
    """
    changes, warnings = written(answer)
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": environment or None,
                "revision": answer.revision,
                "generation": answer.generation,
                "committed": bool(changes) and not dry_run,
                "dry_run": dry_run,
                "replayed": answer.replayed,
                "changes": [change_record(change) for change in changes],
                "warnings": [warning_record(warning) for warning in warnings],
                **(more or {}),
            }
        )
        return
    output.place(project, environment)
    for change in changes:
        # What is new is spelled out before it is written; afterwards its name will do.
        brief = change.before is None and not dry_run
        for line in itertools.islice(change_lines(change), 1 if brief else None):
            output.print(line)
    output.warn(warnings)
    if not changes:
        output.print(f"no changes; revision {answer.revision} stands")
    elif dry_run:
        output.print(f"dry run: {summary(changes)}; nothing was written")
    else:
        output.print(f"revision {answer.revision}: {summary(changes)}")
