"""`rheostat completion` and `version`, and the completion of names."""

from __future__ import annotations

from typing import Final

import click

from rheostat.cli.command import command
from rheostat.cli.failure import UnreachableError
from rheostat.cli.option import DEFAULT_URL, Target, json_option, target_options
from rheostat.cli.output import Output
from rheostat.errors import RheostatError

__all__ = ["complete_setting", "completion", "version"]

_COMPLETION_SECONDS: Final = 1.0
"""How long a shell waits for names at most."""

_PLACES: Final = {
    "bash": 'eval "$(rheostat completion bash)"       # in ~/.bashrc',
    "zsh": 'eval "$(rheostat completion zsh)"        # in ~/.zshrc',
    "fish": "rheostat completion fish | source       # in ~/.config/fish/config.fish",
}


@command(
    "completion",
    examples=[
        (line.partition("#")[0].rstrip(), f"{shell}, {line.partition('#')[2].strip()}")
        for shell, line in _PLACES.items()
    ],
    answer="shell, script",
)
@click.argument("shell", type=click.Choice(list(_PLACES)))
@json_option
def completion(shell: str, output: Output) -> None:
    """Print the completion script of a shell.

    It completes commands, options and, where the server answers at once, the names of settings.
    """
    from click.shell_completion import get_completion_class

    from rheostat.cli.root import root

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"there is no completion for {shell}")
    source = script(root, {}, "rheostat", "_RHEOSTAT_COMPLETE").source()
    if output.json:
        output.answer({"shell": shell, "script": source})
    else:
        click.echo(source)


@command(
    "version",
    examples=[("rheostat version", "this program's version, and the server's if it answers")],
    answer="""
    version   this program's
    server    {url, version, node, generation, revision}; null when no server answers
    """,
)
@target_options(environment=False)
def version(target: Target, output: Output) -> None:
    """Print the versions of client and server.

    A server that does not answer is no error.
    """
    from importlib import metadata

    from rheo.v1.config_service_pb2 import PingRequest
    from rheostat.cli.connection import Connection

    own = metadata.version("rheostat")
    with Connection(target) as connection:
        try:
            ping = connection.call(connection.config.ping, PingRequest())
        except UnreachableError:
            ping = None
    if output.json:
        server = None
        if ping is not None:
            server = {
                "url": target.url,
                "version": ping.version,
                "node": ping.node,
                "generation": ping.generation,
                "revision": ping.revision,
            }
        output.answer({"version": own, "server": server})
        return
    output.print(f"rheostat {own}")
    if ping is None:
        output.note(f"no server answers at {target.url}")
    else:
        output.print(f"server {ping.version} at {target.url}, node {ping.node}, revision {ping.revision}")


def complete_setting(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of settings that begin with *incomplete*; none when the server does not answer."""
    from rheostat.cli.connection import Connection

    params = ctx.params
    target = Target(
        url=params.get("url") or DEFAULT_URL,
        key=params.get("key") or "",
        project=params.get("project") or "",
        environment=params.get("environment") or "",
        timeout=_COMPLETION_SECONDS,
    )
    try:
        with Connection(target) as connection:
            return [setting.name for setting in connection.settings(incomplete)[0]]
    except RheostatError:
        return []
