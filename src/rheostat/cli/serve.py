"""`rheostat serve`: the server in the foreground."""

from __future__ import annotations

from dataclasses import replace

import click

from rheostat.cli.command import command
from rheostat.cli.foreground import Foreground, foreground_options
from rheostat.cli.migrate import STORE_OPTION

__all__ = ["serve"]


@command(
    "serve",
    examples=[
        ("rheostat serve", "for development: this machine only, without keys, in ./rheostat.db"),
        ("rheostat serve --port 0 --store memory: --ready-file url.txt", "for a test"),
        (
            "rheostat serve --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem",
            "for others; needs keys: `rheostat keys create --store URL`",
        ),
    ],
    answer="""
    one line when the server accepts connections:
    event, url, pid   event is `ready`
    """,
)
@STORE_OPTION
@click.option(
    "--open/--closed",
    "open_",
    default=None,
    help="Let everybody on this machine in without a key, or nobody. [default: open on a loopback address while "
    "the store has no keys]",
)
@click.option(
    "--webhook-allow-private",
    is_flag=True,
    help="Let webhooks be sent over http, and to this machine and private networks.",
)
@click.option(
    "--no-background",
    is_flag=True,
    help="Neither tell webhooks of changes, nor commit scheduled drafts, nor remove what is kept no longer: for a copy of a store.",
)
@foreground_options
def serve(
    store: str, open_: bool | None, webhook_allow_private: bool, no_background: bool, foreground: Foreground
) -> None:
    """Run a server.

    It prints `ready at URL` once it accepts connections, and runs until Ctrl-C or SIGTERM; watchers are then asked
    to leave, and it ends within five seconds.

    Without keys in the store, and on a loopback address, the server is open: whoever can reach it on this machine
    may change everything. For any other address it needs keys, and TLS or --insecure.
    """
    from rheostat.server.serve import open_service
    from rheostat.server.serve import serve as serve_until_signal

    service = open_service(
        store,
        limits=foreground.limits,
        webhook_allow_private=webhook_allow_private,
        background=not no_background,
    )
    try:
        config = replace(foreground.config, open=open_)
        foreground.run(lambda ready: serve_until_signal(service, config, on_ready=ready))
    finally:
        # Also when it could not even begin.
        service.close()
