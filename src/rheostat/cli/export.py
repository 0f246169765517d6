"""`rheostat export` and `schema`: documents, and what they may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.file import replace_file
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.state import export_state
from rheostat.document import document_schema, export_document, format_document

__all__ = ["export", "schema"]


@command(
    "export",
    examples=[
        ("rheostat export > shop.yaml", "the whole project"),
        ("rheostat export -e staging --output staging.json", "one environment, as JSON"),
    ],
    answer="the document itself, as JSON",
)
@click.option(
    "--output",
    "-o",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file, whole or not at all, instead of standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json"]),
    help="[default: json with --json or for a file that ends in .json, else yaml]",
)
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="Export only this environment; may be repeated. RHEOSTAT_ENVIRONMENT has no say here.",
)
@target_options(environment=False)
def export(
    path: Path | None,
    form: Literal["yaml", "json"] | None,
    environments: tuple[str, ...],
    target: Target,
    output: Output,
) -> None:
    """Write a project as a document.

    The same state gives the same bytes. `rheostat apply` reads what this writes.
    """
    with Connection(target) as connection:
        state, revision = export_state(connection, target.project, environments)
    if form is None:
        form = "json" if output.json or (path is not None and path.suffix == ".json") else "yaml"
    text = format_document(export_document(state, environments=environments or None), form)
    if path is None:
        click.echo(text, nl=False)
    else:
        replace_file(path, text)
        output.note(f"wrote {path}")
    output.place(state.project.slug, ", ".join(state.environments), revision)


@command(
    "schema",
    examples=[
        ("rheostat schema > rheostat.schema.json", "for an editor"),
        ("# yaml-language-server: $schema=rheostat.schema.json", "first line of a document that uses it"),
    ],
    answer="the schema itself",
)
@click.option("--json", is_flag=True, expose_value=False, help="No difference: a JSON Schema is JSON.")
def schema() -> None:
    """Print the JSON Schema of documents, with which editors complete and check them."""
    click.echo(json.dumps(document_schema(), indent=2, ensure_ascii=False))
