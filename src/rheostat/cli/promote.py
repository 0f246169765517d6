"""`rheostat promote` and `env copy`: from one environment into another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from rheostat.cli.command import Command, command
from rheostat.cli.commit import WRITE_ANSWER, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.shell import complete_setting
from rheostat.cli.state import export_state
from rheostat.document import PARTS, plan_apply, promotion
from rheostat.errors import AlreadyExistsError, NotFoundError
from rheostat.model.change import Mutation, PutEnvironment

__all__ = ["copy", "promote"]

_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask on a terminal before writing.")


@command(
    "promote",
    examples=[
        ("rheostat promote staging production --dry-run", "what would change"),
        ("rheostat promote staging production checkout.timeout --rules", "the rules of one setting"),
        ("rheostat promote staging production --definitions --prune", "which settings there are, and how"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("source")
@click.argument("destination", metavar="TARGET")
@click.argument("names", nargs=-1, metavar="[SETTING]...", shell_complete=complete_setting)
@click.option("--definitions", is_flag=True, help="Type, default, version, description, owner and the like.")
@click.option("--values", is_flag=True, help="The environment's value, off value, and whether it is enabled.")
@click.option("--rules", is_flag=True, help="The rules, in order.")
@click.option(
    "--prune",
    is_flag=True,
    help="Delete settings that SOURCE does not have, but none that code has declared.",
)
@click.option("--force", is_flag=True, help="Also when a connected client could not decode a value.")
@_YES
@write_options()
@target_options(environment=False)
def promote(
    source: str,
    destination: str,
    names: tuple[str, ...],
    definitions: bool,
    values: bool,
    rules: bool,
    prune: bool,
    force: bool,
    yes: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Bring settings of one environment into another, as they are.

    All settings, or those named; their definitions, values and rules, or what is chosen of these. Rules keep their ids
    and salts, so that users stay in their buckets. Settings that TARGET does not have are created there; others that
    it has are left alone. All of it is one change-set; when somebody changes the same things in TARGET meanwhile, the
    command ends with code 5 and writes nothing.
    """
    if prune and names:
        raise click.UsageError("--prune is about all settings, and some are named")
    if source == destination:
        raise click.UsageError("an environment is not promoted to itself")
    chosen = [
        part
        for part, wanted in (("definitions", definitions), ("values", values), ("rules", rules))
        if wanted
    ]
    _run(
        source,
        destination,
        names,
        chosen,
        prune=prune,
        force=force,
        yes=yes,
        made=None,
        how=how,
        target=target,
        output=output,
    )


@click.command(
    "copy",
    cls=Command,
    examples=[
        ("rheostat env copy production load-test", "an environment that begins as production is"),
        ("rheostat env copy production live-2 --protected", "one whose changes need an approval from now on"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("source")
@click.argument("name", metavar="TARGET")
@click.option("--title", help="A name for people.")
@click.option("--description", help="What it is, for people.")
@click.option(
    "--protected/--unprotected",
    default=False,
    show_default=True,
    help="Whether its changes need an approval.",
)
@_YES
@write_options()
@target_options(environment=False)
def copy(
    source: str,
    name: str,
    title: str | None,
    description: str | None,
    protected: bool,
    yes: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Create an environment as a copy of another: definitions, values and rules.

    Rules keep their ids and salts, so that users are in the same buckets. Protection is not copied.
    """
    made = PutEnvironment(name, title=title, description=description, protected=protected or None)
    _run(
        source,
        name,
        (),
        (),
        prune=False,
        force=False,
        yes=yes,
        made=made,
        how=how,
        target=target,
        output=output,
    )


def _run(
    source: str,
    destination: str,
    names: Sequence[str],
    parts: Sequence[str],
    *,
    prune: bool,
    force: bool,
    yes: bool,
    made: PutEnvironment | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Plan and commit; *made* is the environment to make, and None when it must be there."""
    with Connection(target) as connection:
        project = connection.project
        state, revision = export_state(connection, project)
        if made is not None and destination in state.environments:
            raise AlreadyExistsError(
                f"the environment {destination!r} exists; to bring another one there, use 'rheostat promote'"
            )
        if made is None and destination not in state.environments:
            raise NotFoundError(
                f"there is no environment {destination!r}; to make it, use 'rheostat env copy'"
            )
        document = promotion(state, source, destination, names=names, parts=parts or PARTS)
        planned = plan_apply(document, state, prune=prune)
        mutations: list[Mutation] = [
            made if made is not None and isinstance(mutation, PutEnvironment) else mutation
            for mutation in planned
        ]
        asked = not (yes or how.dry_run or output.json or not _is_terminal())
        if asked and mutations:
            trial = replace(how, dry_run=True, wait=None)
            tried = commit(connection, mutations, trial, expected_revision=revision, force=force)
            print_written(output, tried, project=project, environment=destination, target=target, how=trial)
            click.confirm(f"Write this to {destination}?", abort=True, err=True)
        answer = commit(connection, mutations, how, expected_revision=revision, force=force)
        print_written(output, answer, project=project, environment=destination, target=target, how=how)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
