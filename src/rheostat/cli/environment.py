"""`rheostat env`: the environments of a project."""

from __future__ import annotations

from dataclasses import replace

import click

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.command import Command
from rheostat.cli.commit import WRITE_ANSWER, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.promote import copy
from rheostat.cli.record import environment_record
from rheostat.model.change import Environment, PutEnvironment
from rheostat.wire.project import environment_from_proto

__all__ = ["environments"]


@click.group("env")
def environments() -> None:
    """List, show, create and copy environments."""


environments.add_command(copy)


@environments.command(
    "list",
    cls=Command,
    examples=[("rheostat env list", "the environments that the key may see")],
    answer="""
    project
    environments   [{name, title, description, protected, required_approvals, self_approval, revision}], by
                   name
    """,
)
@target_options(environment=False)
def list_(target: Target, output: Output) -> None:
    """List the environments of a project."""
    with Connection(target) as connection:
        project = connection.project
        found: list[Environment] = []
        request = admin.ListEnvironmentsRequest(project=project)
        for page in connection.pages(connection.admin.list_environments, request):
            found += [environment_from_proto(message) for message in page.environments]
    if output.json:
        output.answer({"project": project, "environments": [environment_record(item) for item in found]})
        return
    output.place(project)
    output.table(
        ["name", "title", ""],
        [(item.slug, item.title, _protection(item) if item.protected else "") for item in found],
    )


@environments.command(
    "show",
    cls=Command,
    examples=[("rheostat env show production", "one environment")],
    answer="project, name, title, description, protected, required_approvals, self_approval, revision",
)
@click.argument("name")
@target_options(environment=False)
def show(name: str, target: Target, output: Output) -> None:
    """Show an environment."""
    with Connection(replace(target, environment=name)) as connection:
        project = connection.project
        request = admin.GetEnvironmentRequest(project=project, environment=name)
        answer = connection.call(connection.admin.get_environment, request)
        environment = environment_from_proto(answer.environment)
        count = 0 if output.json else len(connection.settings()[0])
    if output.json:
        output.answer({"project": project, **environment_record(environment)})
        return
    output.place(project, environment.slug, answer.revision)
    output.print(environment.slug, style="bold")
    for label, text in (
        ("title", environment.title),
        ("description", environment.description),
        ("protected", _protection(environment) if environment.protected else "no"),
        ("settings", str(count)),
    ):
        if text:
            output.print(f"  {label:<12} {text}")


@environments.command(
    "create",
    cls=Command,
    examples=[
        ("rheostat env create staging", "an empty environment"),
        ("rheostat env create live --protected --title 'Live shop'", "one whose changes need an approval"),
        ("rheostat env create live --required-approvals 2", "and from now on two of them"),
    ],
    answer=WRITE_ANSWER,
)
@click.argument("name")
@click.option("--title", help="A name for people.")
@click.option("--description", help="What it is, for people.")
@click.option("--protected/--unprotected", default=None, help="Whether changes need an approval.")
@click.option(
    "--required-approvals",
    type=click.IntRange(0, 20),
    help="How many different keys must approve a change when it is protected; 0 means 1.",
)
@click.option(
    "--self-approval/--no-self-approval",
    default=None,
    help="Whether the author of a change may be one of those who approve it.",
)
@write_options()
@target_options(environment=False)
def create(
    name: str,
    title: str | None,
    description: str | None,
    protected: bool | None,
    required_approvals: int | None,
    self_approval: bool | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Create an environment, or change the title, description or protection of one.

    Protection is for admins to change, and where an environment is protected already, that needs an approval too.
    """
    with Connection(target) as connection:
        mutation = PutEnvironment(
            name,
            title=title,
            description=description,
            protected=protected,
            required_approvals=required_approvals,
            self_approval=self_approval,
        )
        answer = commit(connection, [mutation], how)
        print_written(output, answer, project=connection.project, target=target, how=how)


def _protection(environment: Environment) -> str:
    count = environment.approvals
    text = f"protected, {count} approval{'' if count == 1 else 's'}"
    return f"{text}, the author's counts" if environment.self_approval else text
