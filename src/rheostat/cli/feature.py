"""`rheostat features`: the project's hierarchy of context attributes, general to specific."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import Command
from rheostat.cli.commit import WRITE_ANSWER, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.errors import AlreadyExistsError, NotFoundError
from rheostat.model.change import SetFeatures

__all__ = ["features"]

_BEFORE = click.option("--before", metavar="FEATURE", help="In front of this one: more general than it.")
_AFTER = click.option("--after", metavar="FEATURE", help="Behind this one: more specific than it.")


@click.group("features")
def features() -> None:
    """List, add, move and remove features.

    Features are the context attributes that rules may read, in an order from general to specific. The rules of settings
    that are ordered by specificity follow that order: a change of it that reorders rules shows which.
    """


@features.command(
    "list",
    cls=Command,
    examples=[("rheostat features list", "the hierarchy, general to specific")],
    answer="project, revision\nfeatures   [name], general to specific",
)
@target_options(environment=False)
def list_(target: Target, output: Output) -> None:
    """List the features of a project, general to specific."""
    with Connection(target) as connection:
        project = connection.project
        found, revision = _features(connection)
    if output.json:
        output.answer({"project": project, "revision": revision, "features": found})
        return
    output.place(project, revision=revision)
    for name in found:
        output.print(name)
    if not found:
        output.note("there are no features")


@features.command(
    "add",
    cls=Command,
    examples=[
        ("rheostat features add user.id", "as the most specific one"),
        ("rheostat features add region user.plan --before user.id", "two, in this order"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("names", nargs=-1, required=True, metavar="FEATURE...")
@_BEFORE
@_AFTER
@write_options()
@target_options(environment=False)
def add(
    names: tuple[str, ...],
    before: str | None,
    after: str | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Add features: as the most specific ones, or where it is said."""
    _check_place(before, after)
    with Connection(target) as connection:
        present, revision = _features(connection)
        for name in names:
            if name in present:
                raise AlreadyExistsError(f"there is a feature {name!r} already")
        _write(connection, _placed(present, names, before, after), revision, how, output)


@features.command(
    "move",
    cls=Command,
    examples=[
        ("rheostat features move region --before user.plan --dry-run", "which rules that would reorder")
    ],
    answer=WRITE_ANSWER,
)
@click.argument("name", metavar="FEATURE")
@_BEFORE
@_AFTER
@write_options()
@target_options(environment=False)
def move(
    name: str, before: str | None, after: str | None, how: WriteOptions, target: Target, output: Output
) -> None:
    """Move a feature in the hierarchy."""
    if before is None and after is None:
        raise click.UsageError("say where to: --before or --after, and another feature")
    _check_place(before, after)
    if name in (before, after):
        raise click.UsageError("a feature is not moved to itself")
    with Connection(target) as connection:
        present, revision = _features(connection)
        _known(name, present)
        rest = [feature for feature in present if feature != name]
        _write(connection, _placed(rest, [name], before, after), revision, how, output)


@features.command(
    "remove",
    cls=Command,
    examples=[("rheostat features remove user.plan", "refused while a setting names it")],
    answer=WRITE_ANSWER,
)
@click.argument("names", nargs=-1, required=True, metavar="FEATURE...")
@write_options()
@target_options(environment=False)
def remove(names: tuple[str, ...], how: WriteOptions, target: Target, output: Output) -> None:
    """Remove features that no setting names.

    Settings that name none may go on reading the attribute.
    """
    with Connection(target) as connection:
        present, revision = _features(connection)
        for name in names:
            _known(name, present)
        rest = [feature for feature in present if feature not in names]
        _write(connection, rest, revision, how, output)


def _features(connection: Connection) -> tuple[list[str], int]:
    request = admin.GetFeaturesRequest(project=connection.project)
    answer = connection.call(connection.admin.get_features, request)
    return list(answer.features), answer.revision


def _check_place(before: str | None, after: str | None) -> None:
    if before is not None and after is not None:
        raise click.UsageError("a feature stands --before another or --after one, not both")


def _known(name: str, present: Sequence[str]) -> None:
    if name not in present:
        raise NotFoundError(f"there is no feature {name!r}; there are {', '.join(present) or 'none'}")


def _placed(
    rest: Sequence[str], names: Sequence[str], before: str | None, after: str | None
) -> Sequence[str]:
    """Return *rest* with *names* in one of its places; at the end when none is said."""
    at = len(rest)
    if (anchor := before if before is not None else after) is not None:
        _known(anchor, rest)
        at = rest.index(anchor) + (before is None)
    return [*rest[:at], *names, *rest[at:]]


def _write(
    connection: Connection, wanted: Sequence[str], revision: int, how: WriteOptions, output: Output
) -> None:
    # Whoever changed the hierarchy meanwhile meant another one.
    answer = commit(connection, [SetFeatures(tuple(wanted))], how, expected_revision=revision)
    print_written(output, answer, project=connection.project, target=connection.target, how=how)
