"""`rheostat mark`: whose a setting is, what it is about, and where it stands in its life."""

from __future__ import annotations

import click

from rheostat.cli.command import command
from rheostat.cli.commit import WRITE_ANSWER, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.shell import complete_setting
from rheostat.model.change import PutSetting
from rheostat.model.setting import Lifecycle

__all__ = ["mark"]


@command(
    "mark",
    examples=[
        ("rheostat mark checkout.timeout --owner team-payments --tag payments", "whose it is"),
        ("rheostat mark checkout.timeout --lifecycle deprecated", "it is on its way out"),
        ("rheostat mark checkout.timeout --untag sale --description ''", "what it no longer is"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("name", shell_complete=complete_setting)
@click.option("--owner", help="Who answers for it; an empty text for nobody.")
@click.option("--tag", "tags", multiple=True, help="Add this tag; may be repeated.")
@click.option("--untag", "untags", multiple=True, help="Take this tag away; may be repeated.")
@click.option("--description", help="What it is, for people.")
@click.option(
    "--lifecycle",
    type=click.Choice([lifecycle.name.lower() for lifecycle in Lifecycle]),
    help="active; deprecated: who changes it is told; archived: reads go on, but code cannot declare it.",
)
@write_options()
@target_options()
def mark(
    name: str,
    owner: str | None,
    tags: tuple[str, ...],
    untags: tuple[str, ...],
    description: str | None,
    lifecycle: str | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Say whose a setting is, and where it stands in its life.

    These are the operators' to say, also of settings that code has declared. They are an environment's own.
    """
    if owner is None and description is None and lifecycle is None and not tags and not untags:
        raise click.UsageError(
            "say what to mark it with: --owner, --tag, --untag, --description, --lifecycle"
        )
    with Connection(target) as connection:
        setting, revision = connection.setting(name)
        fields: dict[str, object] = {}
        if owner is not None:
            fields["owner"] = owner
        if description is not None:
            fields["description"] = description
        if lifecycle is not None:
            fields["lifecycle"] = Lifecycle[lifecycle.upper()]
        if tags or untags:
            kept = (tag for tag in (*setting.tags, *tags) if tag not in untags)
            fields["tags"] = tuple(dict.fromkeys(kept))
        environment = connection.environment
        # The tags are of what was read; whoever changed them meanwhile shall not lose theirs.
        expected = revision if "tags" in fields else None
        mutation = PutSetting(setting.name, fields, environment)
        answer = commit(connection, [mutation], how, environment=environment, expected_revision=expected)
        print_written(
            output, answer, project=connection.project, environment=environment, target=target, how=how
        )
