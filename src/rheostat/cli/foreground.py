"""Programs that serve in the foreground: their options, and how they say that they are ready."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rheostat.cli.log import FORMATS, formatter_of
from rheostat.cli.option import json_option
from rheostat.cli.output import Output
from rheostat.errors import MissingDependencyError

if TYPE_CHECKING:
    from rheostat.server.serve import ServeConfig
    from rheostat.service import Limits

__all__ = ["READY", "Foreground", "foreground_options"]

F = TypeVar("F", bound=Callable[..., Any])

READY = "ready at "
"""What the line that says the URL begins with."""

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Foreground:
    """How a command serves.

    Attributes:
        config: Where and how.
        limits: Of the node.
        ready_file: Holds the URL while connections are accepted; None for no file.
        output: Where the URL is printed.
    """

    config: ServeConfig
    limits: Limits
    ready_file: Path | None
    output: Output

    def run(self, serve: Callable[[Callable[[str], None]], None]) -> None:
        """Run *serve*, which is given what it tells the URL once it accepts connections.

        Raises:
            ClickException: It cannot listen.
        """
        config, ready_file = self.config, self.ready_file
        if ready_file is not None:
            # One that a killed server has left would be believed.
            ready_file.unlink(missing_ok=True)
        try:
            serve(self._announce)
        except OSError as exc:
            raise click.ClickException(
                f"cannot listen on {config.host} port {config.port}: {exc.strerror or exc}"
            ) from None
        finally:
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)

    def _announce(self, url: str) -> None:
        if self.ready_file is not None:
            _write_whole(self.ready_file, f"{url}\n")
        if self.output.json:
            click.echo(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}))
        else:
            click.echo(f"{READY}{url}")
        # A script waits for this line in a pipe.
        sys.stdout.flush()


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=7420,
        show_default=True,
        help="The port to bind; 0 takes a free one.",
    ),
    click.option(
        "--insecure", is_flag=True, help="Bind another address without TLS: only behind a proxy that has it."
    ),
    click.option(
        "--allow-origin",
        "allow_origins",
        multiple=True,
        metavar="ORIGIN",
        help="Let web pages of this origin call, such as https://admin.example.com; may be repeated.",
    ),
    click.option(
        "--ofrep",
        is_flag=True,
        help="Serve OFREP too, OpenFeature's protocol for remote evaluation, below /ofrep/v1.",
    ),
    click.option(
        "--ofrep-targeting-key",
        metavar="ATTRIBUTE",
        help="The attribute that the targeting key of OFREP is. [default: user.id]",
    ),
    click.option(
        "--ssl-certfile", type=click.Path(dir_okay=False), help="PEM file of the certificate chain."
    ),
    click.option("--ssl-keyfile", type=click.Path(dir_okay=False), help="PEM file of the certificate's key."),
    click.option(
        "--ssl-client-ca",
        type=click.Path(dir_okay=False),
        help="PEM file of authorities: clients need a certificate of one of them, beside their keys.",
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=NUMBER",
        help="Change a limit, such as max_streams=500; may be repeated. An unknown name is answered with all names.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(_LEVELS),
        default="info",
        show_default=True,
        help="How much to log on standard error.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="How: lines for people, or one JSON object a line.",
    ),
    click.option(
        "--ready-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the URL to this file when the server accepts connections; it goes when the server ends.",
    ),
)


def foreground_options(function: F) -> F:
    """Add the options of a `Foreground` and ``--json``; the command gets ``foreground`` in their place."""

    @functools.wraps(function)
    def run(*, output: Output, ready_file: Path | None, limits: Iterable[str], **kwargs: Any) -> Any:
        if (kwargs["ssl_certfile"] is None) != (kwargs["ssl_keyfile"] is None):
            raise click.UsageError("--ssl-certfile and --ssl-keyfile go together")
        targeting_key = kwargs.pop("ofrep_targeting_key")
        if targeting_key is not None and not kwargs["ofrep"]:
            raise click.UsageError("--ofrep-targeting-key needs --ofrep")
        try:
            from rheostat.bridges.ofrep import OfrepOptions
            from rheostat.server.serve import ServeConfig
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("rheostat"):
                raise
            raise MissingDependencyError(
                f"the server needs {exc.name}, which is not installed: pip install 'rheostat[server]'"
            ) from exc
        _log_to_stderr(kwargs["log_level"], kwargs.pop("log_format"))
        names = (
            "host",
            "port",
            "insecure",
            "allow_origins",
            "ssl_certfile",
            "ssl_keyfile",
            "ssl_client_ca",
            "log_level",
        )
        ofrep = None
        if kwargs.pop("ofrep"):
            ofrep = OfrepOptions() if targeting_key is None else OfrepOptions(targeting_key=targeting_key)
        config = ServeConfig(ofrep=ofrep, **{name: kwargs.pop(name) for name in names})
        return function(foreground=Foreground(config, _limits(limits), ready_file, output), **kwargs)

    decorated: Any = json_option(run)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click types decorators by callables of any signature


def _limits(given: Iterable[str]) -> Limits:
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


def _log_to_stderr(level: str, format_: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_of(format_))
    logging.basicConfig(level=level.upper(), handlers=[handler])
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
