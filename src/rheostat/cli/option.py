"""Options that commands share, and what they amount to."""

from __future__ import annotations

import functools
import getpass
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from rheostat.cli.output import Output

__all__ = [
    "DEFAULT_URL",
    "Target",
    "WriteOptions",
    "checked_key",
    "checked_slug",
    "checked_url",
    "json_option",
    "share_text",
    "target_options",
    "wait_option",
    "write_options",
]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL: Final = "http://127.0.0.1:7420"

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

_CALL_SECONDS: Final = 10.0
_WAIT_SECONDS: Final = 60.0

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, project and environment a command is about.

    Attributes:
        url: Of the server, without a slash at the end.
        key: Sent with every call; empty on an open server.
        project: Slug; empty means the key's, or ``default``.
        environment: Slug; empty means the only one there is.
        timeout: Seconds for each call; streams have none.
        patience: Seconds that ``--wait`` waits for clients.
    """

    url: str = DEFAULT_URL
    key: str = ""
    project: str = ""
    environment: str = ""
    timeout: float = _CALL_SECONDS
    patience: float = _WAIT_SECONDS

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.url).hostname in _LOOPBACK

    @property
    def is_private(self) -> bool:
        """Whether nobody else can read what is sent."""
        return self.is_loopback or self.url.startswith("https:")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a command writes.

    Attributes:
        message: Why, for the history.
        author: Who, for the history of an open server.
        dry_run: Only show what would change.
        draft: Commit nothing: make a draft of it.
        into: Commit nothing: write it into the draft with this id.
        wait: Wait until this share of the clients has it, from 0 to 1; None does not wait.
    """

    message: str = ""
    author: str = ""
    dry_run: bool = False
    draft: bool = False
    into: str = ""
    wait: float | None = None


class _Seconds(click.ParamType[float]):
    """A time span: ``30s``, ``500ms``, ``2m``, or seconds without a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)", str(value))
        if match is None:
            self.fail(f"{value!r} is not of the form 30s, 500ms or 2m", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if not 0 < seconds <= 86_400:
            self.fail(f"{value!r} is not above zero and at most a day", param, ctx)
        return seconds


class _Share(click.ParamType[float]):
    """A share: ``99%``, or the number without the sign."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, from 0 to 1."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%?", str(value))
        if match is None or float(match[1]) > 100:
            self.fail(f"{value!r} is not of the form 99%", param, ctx)
        return float(match[1]) / 100


def share_text(share: float) -> str:
    """Return a share as it is typed: ``99%``."""
    return f"{share * 100:.6g}%"


def checked_url(_: click.Context | None, __: click.Parameter | None, value: str) -> str:
    """Return a server's address, as a callback of options.

    Raises:
        BadParameter: It is none.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{value!r} is not of the form http://host:port")
    return value.rstrip("/")


def checked_slug(_: click.Context | None, __: click.Parameter | None, value: str | None) -> str:
    """Return a slug, or an empty text for none, as a callback of options.

    Raises:
        BadParameter: It is none.
    """
    if value and not _SLUG.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not a slug: lower-case letters, digits and hyphens")
    return value or ""


def checked_key(_: click.Context | None, __: click.Parameter | None, value: str | None) -> str:
    """Return a key, or an empty text for none, as a callback of options.

    Raises:
        BadParameter: It can be none.
    """
    value = (value or "").strip()
    if value and not re.fullmatch(r"[!-~]+", value):
        # Never quoted: it may be most of a secret.
        raise click.BadParameter("the key has a space or a character that no key has")
    return value


_URL = click.option(
    "--url",
    envvar="RHEOSTAT_URL",
    show_envvar=True,
    default=DEFAULT_URL,
    show_default=True,
    callback=checked_url,
    help="The server.",
)
_KEY = click.option(
    "--key",
    envvar="RHEOSTAT_KEY",
    show_envvar=True,
    callback=checked_key,
    help="The key, rst_…; better given as RHEOSTAT_KEY, which no list of processes shows.",
)
_PROJECT = click.option(
    "--project",
    envvar="RHEOSTAT_PROJECT",
    show_envvar=True,
    callback=checked_slug,
    help="The project; by default the key's.",
)
_ENVIRONMENT = click.option(
    "--environment",
    "-e",
    envvar="RHEOSTAT_ENVIRONMENT",
    show_envvar=True,
    callback=checked_slug,
    help="The environment; needed when there are several.",
)
_TIMEOUT = click.option(
    "--timeout",
    type=_Seconds(),
    help=f"For each call to the server, such as 30s or 2m, by default {_CALL_SECONDS:.0f}s; with --wait for the wait, "
    f"by default {_WAIT_SECONDS:.0f}s.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Answer, and report errors, as JSON.")


def json_option(function: F) -> F:
    """Add ``--json``; the command gets an `Output` called ``output``."""

    @functools.wraps(function)
    def run(**kwargs: Any) -> Any:
        return function(output=Output(json=kwargs.pop("as_json")), **kwargs)

    return _JSON(run)  # type: ignore[return-value]  # click types decorators by callables of any signature


def target_options(*, environment: bool = True) -> Callable[[F], F]:
    """Add the options of a `Target` and ``--json``; the command gets ``target`` and ``output``."""
    options: Sequence[Callable[[Any], Any]] = (
        (_URL, _KEY, _PROJECT, _ENVIRONMENT, _TIMEOUT) if environment else (_URL, _KEY, _PROJECT, _TIMEOUT)
    )

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(**kwargs: Any) -> Any:
            timeout = kwargs.pop("timeout")
            # A short wait is no reason to give up the write before it, or the names at its end.
            waits = click.get_current_context().params.get("wait") is not None
            target = Target(
                url=kwargs.pop("url"),
                key=kwargs.pop("key"),
                project=kwargs.pop("project"),
                environment=kwargs.pop("environment") if environment else "",
                timeout=max(timeout or 0.0, _CALL_SECONDS) if waits else timeout or _CALL_SECONDS,
                patience=timeout or _WAIT_SECONDS,
            )
            if target.key and not target.is_private:
                kwargs["output"].note(
                    f"warning: {target.url} is not https, so that others can read the key on its way",
                    style="yellow",
                )
            return function(target=target, **kwargs)

        decorated: Any = json_option(run)
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]  # as above

    return decorate


_MESSAGE = click.option("--message", "-m", default="", help="Why, for the history.")
_AUTHOR = click.option(
    "--author",
    envvar="RHEOSTAT_AUTHOR",
    show_envvar=True,
    help="Who, for the history; a server with keys names the key instead. Your login name by default.",
)
_DRY_RUN = click.option("--dry-run", "-n", is_flag=True, help="Show what would change, and write nothing.")
_DRAFT = click.option(
    "--draft",
    is_flag=True,
    help="Commit nothing yet: make a draft, which others approve, or which waits for its time.",
)
_INTO = click.option(
    "--into",
    metavar="DRAFT",
    default="",
    help="Commit nothing yet: write this into a draft in the place of what is in it; its approvals are gone.",
)


def wait_option(function: F) -> F:
    """Add ``--wait``; the command gets ``wait``, a share from 0 to 1 or None."""
    option = click.option(
        "--wait",
        type=_Share(),
        metavar="SHARE",
        help="Wait until this share of the clients, such as 99%, has it. When --timeout is over first, name those "
        "that are behind, and end with code 6.",
    )
    return option(function)


def write_options(*, dry_run: bool = True) -> Callable[[F], F]:
    """Add the options of a write; the command gets ``how``, a `WriteOptions`.

    Args:
        dry_run: It is a change-set, which can be tried and drafted.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(**kwargs: Any) -> Any:
            author = kwargs.pop("author")
            how = WriteOptions(
                message=kwargs.pop("message"),
                author=_login_name() if author is None else author,
                dry_run=kwargs.pop("dry_run", False),
                draft=kwargs.pop("draft", False),
                into=kwargs.pop("into", ""),
                wait=kwargs.pop("wait", None),
            )
            if how.draft and how.into:
                raise click.UsageError("--draft makes a draft, and --into names one: give one of the two")
            if how.wait is not None and (how.dry_run or how.draft or how.into):
                raise click.UsageError("--wait waits for what is committed, and this commits nothing")
            return function(how=how, **kwargs)

        decorated: Any = _MESSAGE(_AUTHOR(run))
        return _DRY_RUN(_DRAFT(_INTO(wait_option(decorated)))) if dry_run else decorated  # type: ignore[no-any-return]  # as above

    return decorate


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run as a user that has no name.
        return ""
