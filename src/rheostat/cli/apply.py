"""`rheostat apply`: a document, as one change-set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, TextIO

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import Command
from rheostat.cli.commit import WRITE_ANSWER, WriteAnswer, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.file import read_document
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.state import find_state
from rheostat.document import Document, parse_document, plan_apply
from rheostat.errors import FieldViolation, InvalidArgumentError, RheostatError

__all__ = ["apply", "apply_text"]


class _Apply(Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``--prune=declared`` for a flag: an optional value would swallow the file's name."""
        split = args.index("--") if "--" in args else len(args)
        replaced = ["--prune-declared" if arg == "--prune=declared" else arg for arg in args[:split]]
        return super().parse_args(ctx, replaced + args[split:])


@click.command(
    "apply",
    cls=_Apply,
    examples=[
        ("rheostat apply shop.yaml --dry-run", "what would change"),
        ("rheostat apply shop.yaml -m 'Raise the timeout for the sale'", "one change-set"),
        ("rheostat apply shop.yaml --prune", "also delete what the file leaves out"),
        ("rheostat export | sed s/2.5/3.0/ | rheostat apply -", "from standard input"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option(
    "--prune",
    is_flag=True,
    help="Delete the settings, segments and features that the listed sections of the file leave out, but no "
    "settings that code has declared; --prune=declared deletes those too.",
)
@click.option("--prune-declared", is_flag=True, hidden=True)
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="Apply only to this environment of the file's; may be repeated. RHEOSTAT_ENVIRONMENT has no say here.",
)
@click.option("--force", is_flag=True, help="Also when a connected client could not decode a value.")
@write_options()
@target_options(environment=False)
def apply(
    file: TextIO,
    prune: bool,
    prune_declared: bool,
    environments: tuple[str, ...],
    force: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Apply a document of settings.

    FILE is YAML or JSON; - is standard input. What it does not mention is left alone. All of it commits as one
    change-set, or nothing does, and applying it again changes nothing. When somebody changes the same things
    meanwhile, the command ends with code 5 and writes nothing.
    """
    text, source = read_document(file)
    wanted: bool | Literal["declared"] = "declared" if prune_declared else prune
    answer, project = apply_text(
        text, source, target, how, environments=environments, prune=wanted, force=force
    )
    print_written(output, answer, project=project, target=target, how=how)


def apply_text(
    text: str,
    source: str,
    target: Target,
    how: WriteOptions,
    *,
    environments: tuple[str, ...] = (),
    prune: bool | Literal["declared"] = False,
    force: bool = False,
) -> tuple[WriteAnswer, str]:
    """Apply the document *text*, and return the server's answer and the project's slug.

    Args:
        text: YAML or JSON.
        source: The file's name, for messages.
        target: The server.
        how: Who and why, and whether at all, or as a draft.
        environments: Only these; all of the document's when empty.
        prune: See `rheostat.document.plan_apply`.
        force: See `rheo.v1.CommitRequest`.

    Raises:
        InvalidDocumentError: The document is wrong, or does not fit what there is.
        RevisionConflictError: Somebody else changed the same things meanwhile.
        RheostatError: As `Connection.call`.
    """
    document = parse_document(text, source=source)
    if target.project and document.project not in ("", target.project):
        raise document.error(
            "project", f"the document is about {document.project!r}, not {target.project!r} (--project)"
        )
    with Connection(replace(target, project=document.project or target.project)) as connection:
        project = connection.project
        state, revision = find_state(connection, project)
        paths: list[str] = []
        mutations = plan_apply(document, state, environments=environments or None, prune=prune, paths=paths)
        if not mutations and revision is not None:
            # Nothing to send: an empty change-set would only be answered with the same.
            return admin.CommitResponse(revision=revision), project
        try:
            answer = commit(connection, mutations, how, expected_revision=revision, force=force)
        except RheostatError as exc:
            _locate(exc, document, paths)
            raise
        for warning in answer.warnings:
            if warning.HasField("mutation_index") and warning.mutation_index < len(paths):
                warning.message = f"{document.located(paths[warning.mutation_index])}: {warning.message}"
        return answer, project


_MUTATION: Final = re.compile(r"mutations\[(\d+)\](?:\.(.*))?", re.DOTALL)

_KEYS: Final = (
    ("put_rule.rule.condition", "where"),
    ("put_rule.rule.distribution", "split"),
    ("put_rule.rule.", ""),
    ("put_segment.segment.condition", "where"),
    ("put_segment.segment.", ""),
    ("put_setting.setting.", ""),
)
"""What fields of a mutation are called in a document; an empty name stands for the rest of the field."""


def _locate(exc: RheostatError, document: Document, paths: Sequence[str]) -> None:
    """Name the part of *document* that *exc* is about in place of the mutation that was made of it."""
    violations = exc.violations if isinstance(exc, InvalidArgumentError) else ()
    field = violations[0].field if violations else exc.metadata.get("field", "")
    path = _path(field, paths)
    if path is None:
        return
    if isinstance(exc, InvalidArgumentError):
        exc.violations = tuple(
            FieldViolation(_path(v.field, paths) or v.field, v.description) for v in exc.violations
        )
    place = document.place(path)
    if place is not None:
        exc.metadata.update(line=str(place[0]), column=str(place[1]))
    exc.metadata["field"] = path
    exc.message = f"{document.located(path)}: {path}: {exc.message.removeprefix(f'{field}: ')}"


def _path(field: str, paths: Sequence[str]) -> str | None:
    """Return the path in the document of a *field* of the request, or None."""
    match = _MUTATION.fullmatch(field)
    if match is None or int(match[1]) >= len(paths):
        return None
    path, rest = paths[int(match[1])], match[2] or ""
    for prefix, key in _KEYS:
        if rest.startswith(prefix):
            inner = key or rest.removeprefix(prefix)
            return f"{path}.{inner}" if path else inner
    return path or None
