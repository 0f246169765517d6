"""`rheostat relay`: a relay in the foreground."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import click

from rheostat.cli.command import command
from rheostat.cli.foreground import Foreground, foreground_options
from rheostat.cli.option import checked_key, checked_slug, checked_url

__all__ = ["relay"]


@command(
    "relay",
    examples=[
        (
            "rheostat relay --upstream https://config.example.com --cache /var/lib/rheostat/relay",
            "the key is in RHEOSTAT_KEY",
        ),
        (
            "rheostat relay --upstream http://a:7420 --upstream http://b:7420 --key-file key.txt --port 7421",
            "goes on at the other one when one is away",
        ),
        (
            "rheostat relay --upstream https://config.example.com --redis redis://cache:6379",
            "for clients that read that",
        ),
        ("rheostat keys create --kind relay -e production", "the key that it needs"),
    ],
    answer="""
    one line when the relay accepts connections:
    event, url, pid   event is `ready`
    """,
)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    required=True,
    metavar="URL",
    help="A server or relay to follow; may be repeated, in the order of preference.",
)
@click.option(
    "--key",
    envvar="RHEOSTAT_KEY",
    show_envvar=True,
    callback=checked_key,
    help="The relay's key, rst_relay_…; better given as RHEOSTAT_KEY, which no list of processes shows.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A file that holds the key, in the place of --key.",
)
@click.option(
    "--project",
    envvar="RHEOSTAT_PROJECT",
    show_envvar=True,
    callback=checked_slug,
    help="The project; by default the key's.",
)
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="An environment to relay; may be repeated. By default all that the key sees.",
)
@click.option(
    "--cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that keeps the state, so that the relay starts when its upstreams are away. It holds secrets.",
)
@click.option(
    "--redis",
    envvar="RHEOSTAT_REDIS",
    show_envvar=True,
    metavar="URL",
    help="Also write the state to this Redis, for clients that read only that; redis://, rediss:// or unix://.",
)
@click.option(
    "--redis-prefix",
    default="rheostat",
    show_default=True,
    metavar="TEXT",
    help="What all names in Redis begin with.",
)
@click.option("--name", default="", help="What clients see as the node; by default a random name.")
@foreground_options
def relay(
    upstreams: tuple[str, ...],
    key: str,
    key_file: Path | None,
    project: str,
    environments: tuple[str, ...],
    cache: Path | None,
    redis: str | None,
    redis_prefix: str,
    name: str,
    foreground: Foreground,
) -> None:
    """Run a relay, which follows servers and serves what they do.

    It needs a key of the kind relay. Clients use their own keys, and may move between servers and relays. While all
    upstreams are away the relay goes on with its last state; /readyz says how old that is. Up to four relays may
    follow each other. With --redis it also writes all that it mirrors to Redis, but no keys; several relays may write
    the same.
    """
    from rheostat.relay.cache import RelayCache
    from rheostat.relay.relay import Relay
    from rheostat.relay.serve import serve_relay

    if key_file is not None:
        key = checked_key(None, None, key_file.read_text(encoding="utf-8"))
    if name and not re.fullmatch(r"[!-~]{1,200}", name):
        raise click.BadParameter("is not 1 to 200 characters of ASCII without spaces", param_hint="--name")
    made = Relay(
        [checked_url(None, None, url) for url in upstreams],
        key,
        project=project,
        environments=[checked_slug(None, None, slug) for slug in environments],
        cache=None if cache is None else RelayCache(cache),
        limits=foreground.limits,
        node=name or None,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(made.close)
        if redis:
            from rheostat.relay.replicator import Replicator

            replicator = Replicator(made, redis, prefix=redis_prefix)
            stack.callback(replicator.close)
            replicator.start()
        foreground.run(lambda ready: serve_relay(made, foreground.config, on_ready=ready))
