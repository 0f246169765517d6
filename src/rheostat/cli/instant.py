"""Durations and instants as they are typed: `90d`, `2h`, `2026-03-01T12:00:00Z`."""

from __future__ import annotations

import datetime
import re
from typing import Final

import click

__all__ = ["parse_duration", "parse_future", "parse_instant"]

_UNITS: Final = {
    "s": datetime.timedelta(seconds=1),
    "m": datetime.timedelta(minutes=1),
    "h": datetime.timedelta(hours=1),
    "d": datetime.timedelta(days=1),
    "w": datetime.timedelta(weeks=1),
}

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([smhdw])")


def parse_duration(text: str, option: str) -> datetime.timedelta:
    """Return the duration that *text* is.

    Raises:
        click.BadParameter: It is none; the message names *option*.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not of the form 90d, 12h or 30m", param_hint=option)
    return int(match[1]) * _UNITS[match[2]]


def parse_instant(text: str, option: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return the instant that *text* is, aware: so long ago, or a date with or without a time.

    Args:
        text: Without a zone it is in that of this machine.
        option: Where it was given.
        now: What it is counted back from.

    Raises:
        click.BadParameter: It is none; the message names *option*.
    """
    match = _DURATION.fullmatch(text)
    if match is not None:
        return (now or datetime.datetime.now(datetime.UTC)) - int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither of the form 30m, 2h or 7d nor an instant such as 2026-03-01T12:00:00Z",
            param_hint=option,
        ) from None


def parse_future(text: str, option: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return the instant that *text* is, aware: in so long, or a date with or without a time.

    Raises:
        click.BadParameter: It is none; the message names *option*.
    """
    match = _DURATION.fullmatch(text)
    if match is not None:
        return (now or datetime.datetime.now(datetime.UTC)) + int(match[1]) * _UNITS[match[2]]
    return parse_instant(text, option)
