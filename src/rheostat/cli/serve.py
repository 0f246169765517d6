"""`rheostat serve`: the server in the foreground."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rheostat.cli.command import command
from rheostat.cli.migrate import STORE_OPTION
from rheostat.cli.option import json_option
from rheostat.cli.output import Output
from rheostat.errors import MissingDependencyError, RheostatError

__all__ = ["READY", "serve"]

READY = "ready at "
"""What the line that says the URL begins with."""

_LEVELS = ("debug", "info", "warning", "error")


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
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7420,
    show_default=True,
    help="The port to bind; 0 takes a free one.",
)
@click.option(
    "--open/--closed",
    "open_",
    default=None,
    help="Let everybody on this machine in without a key, or nobody. [default: open on a loopback address while "
    "the store has no keys]",
)
@click.option(
    "--insecure", is_flag=True, help="Bind another address without TLS: only behind a proxy that has it."
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin call, such as https://admin.example.com; may be repeated.",
)
@click.option("--ssl-certfile", type=click.Path(dir_okay=False), help="PEM file of the certificate chain.")
@click.option("--ssl-keyfile", type=click.Path(dir_okay=False), help="PEM file of the certificate's key.")
@click.option(
    "--ssl-client-ca",
    type=click.Path(dir_okay=False),
    help="PEM file of authorities: clients need a certificate of one of them, beside their keys.",
)
@click.option(
    "--webhook-allow-private",
    is_flag=True,
    help="Let webhooks be sent over http, and to this machine and private networks.",
)
@click.option(
    "--no-background",
    is_flag=True,
    help="Neither tell webhooks of changes nor commit scheduled drafts: for a copy of a store.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Change a limit, such as max_streams=500; may be repeated. An unknown name is answered with all names.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="How much to log on standard error.",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the URL to this file when the server accepts connections; it goes when the server ends.",
)
@json_option
def serve(
    store: str,
    host: str,
    port: int,
    open_: bool | None,
    insecure: bool,
    allow_origins: tuple[str, ...],
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    ssl_client_ca: str | None,
    webhook_allow_private: bool,
    no_background: bool,
    limits: tuple[str, ...],
    log_level: str,
    ready_file: Path | None,
    output: Output,
) -> None:
    """Run a server.

    It prints `ready at URL` once it accepts connections, and runs until Ctrl-C or SIGTERM; watchers are then asked
    to leave, and it ends within five seconds.

    Without keys in the store, and on a loopback address, the server is open: whoever can reach it on this machine
    may change everything. For any other address it needs keys, and TLS or --insecure.
    """
    if (ssl_certfile is None) != (ssl_keyfile is None):
        raise click.UsageError("--ssl-certfile and --ssl-keyfile go together")
    try:
        from rheostat.server.serve import ServeConfig, open_service
        from rheostat.server.serve import serve as serve_until_signal
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("rheostat"):
            raise
        raise MissingDependencyError(
            f"the server needs {exc.name}, which is not installed: pip install 'rheostat[server]'"
        ) from exc
    _log_to_stderr(log_level)
    config = ServeConfig(
        host=host,
        port=port,
        open=open_,
        insecure=insecure,
        allow_origins=allow_origins,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_client_ca=ssl_client_ca,
        log_level=log_level,
    )
    service = open_service(
        store,
        limits=_limits(limits),
        webhook_allow_private=webhook_allow_private,
        background=not no_background,
    )
    if ready_file is not None:
        # One that a killed server has left would be believed.
        ready_file.unlink(missing_ok=True)

    def on_ready(url: str) -> None:
        if ready_file is not None:
            _write_whole(ready_file, f"{url}\n")
        if output.json:
            click.echo(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}))
        else:
            click.echo(f"{READY}{url}")
        # A script waits for this line in a pipe.
        sys.stdout.flush()

    try:
        serve_until_signal(service, config, on_ready=on_ready)
    except RheostatError:
        service.close()
        raise
    except OSError as exc:
        service.close()
        raise click.ClickException(f"cannot listen on {host} port {port}: {exc.strerror or exc}") from None
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


def _limits(given: Iterable[str]) -> Any:
    from rheostat.service import Limits

    known = [field.name for field in fields(Limits)]
    chosen: dict[str, int] = {}
    for pair in given:
        name, equals, number = pair.partition("=")
        if name not in known:
            raise click.BadParameter(
                f"there is no limit {name!r}; there are {', '.join(known)}", param_hint="--limit"
            )
        if not equals or not (number.isascii() and number.isdecimal()) or not 0 < int(number) < 2**53:
            raise click.BadParameter(f"{pair!r} does not give {name} a number above 0", param_hint="--limit")
        chosen[name] = int(number)
    return Limits(**chosen)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its steps are of no interest when there is nothing to migrate.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Whether the server is open must be said at any level.
    logger = logging.getLogger("rheostat.server")
    if logging.getLevelName(level.upper()) > logging.WARNING:
        logger.setLevel(logging.WARNING)


def _write_whole(path: Path, text: str) -> None:
    """Write *text* so that whoever waits for the file never reads half of it."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
