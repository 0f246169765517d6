"""`rheostat codegen`: types for the settings of one environment."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TextIO

import click

from rheostat.cli.codegen.python import python_module
from rheostat.cli.codegen.source import Source, document_source, listed
from rheostat.cli.codegen.typescript import typescript_module
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.file import read_document, replace_file
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.document import parse_document

__all__ = ["codegen"]

_WRITERS: Final = {"python": python_module, "typescript": typescript_module}


@command(
    "codegen",
    examples=[
        ("rheostat codegen --lang python -e production --output shop_settings.py", "from the server"),
        ("rheostat codegen --lang typescript -e production --from shop.yaml > settings.ts", "from an export"),
        ("rheostat codegen --lang python -e production --output shop_settings.py --check", "in CI"),
    ],
    answer="language, project, environment, settings (how many), file (null for standard output), and either\n"
    "changed (whether the file is another now) or code (the module, when there is no file)",
)
@click.option(
    "--lang", "language", type=click.Choice([*_WRITERS]), required=True, help="What to write the module in."
)
@click.option(
    "--from",
    "file",
    type=click.File("r", encoding="utf-8"),
    help="Read a document, as `rheostat export` writes it, instead of asking the server; - is standard input.",
)
@click.option(
    "--output",
    "-o",
    "path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write to this file, whole or not at all, instead of standard output.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing, and end with code 1 when the file of --output is not what would be written.",
)
@target_options()
def codegen(
    language: str, file: TextIO | None, path: Path | None, check: bool, target: Target, output: Output
) -> None:
    """Generate typed code from an environment.

    Python: a TypedDict of all settings for Client[Settings], and a Setting object for each to read and declare it by.
    TypeScript: an interface of all settings, and their defaults. Enums become literal types, JSON Schemas nested
    types; what a type cannot say is Any, or unknown. Archived settings are left out.

    The same definitions give the same bytes: values, rules and revisions do not matter. Definitions are per
    environment, so that one is needed; of a document it is the one that --environment names, or its only one.
    """
    if path == Path("-"):
        path = None
    if check and path is None:
        raise click.UsageError("--check compares a file, which --output has to name")
    source = _live(target) if file is None else _exported(file, target)
    code = _WRITERS[language](source)
    answer = {
        "language": language,
        "project": source.project,
        "environment": source.environment,
        "settings": len(source.settings),
        "file": None if path is None else str(path),
    }
    if path is None:
        if output.json:
            output.answer({**answer, "code": code})
        else:
            click.echo(code.encode(), nl=False)
    else:
        changed = _text_of(path) != code
        if changed and check:
            raise click.ClickException(
                f"{path} is not what rheostat codegen writes; run it again without --check"
            )
        if changed:
            replace_file(path, code)
        if output.json:
            output.answer({**answer, "changed": changed})
        output.note(f"wrote {path}" if changed else f"{path} is up to date")
    output.place(source.project or "of no name", source.environment)


def _live(target: Target) -> Source:
    with Connection(target) as connection:
        settings, _ = connection.settings()
        return Source(connection.project, connection.environment, listed(settings))


def _exported(file: TextIO, target: Target) -> Source:
    text, name = read_document(file)
    document = parse_document(text, source=name)
    if target.project and document.project not in ("", target.project):
        raise document.error(
            "project", f"the document is about {document.project!r}, not {target.project!r} (--project)"
        )
    return document_source(document, target.environment)


def _text_of(path: Path) -> str | None:
    try:
        # A checkout may have other line ends.
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return None
    except OSError as exc:
        raise click.ClickException(f"cannot read {path}: {exc.strerror}") from None
