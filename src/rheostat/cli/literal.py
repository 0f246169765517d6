"""Values and contexts as they are typed on a command line."""

from __future__ import annotations

from collections.abc import Iterable

import click

from rheostat.errors import TypeMismatchError
from rheostat.model.type import BOOL, STR, EnumType, JsonType, SettingType, normalise
from rheostat.model.value import FrozenMapping, Value, parse_json

__all__ = ["parse_context", "parse_value"]


def parse_value(text: str, type_: SettingType) -> Value:
    """Return the value of *type_* that *text* means: JSON that fits the type, else a plain string.

    So ``5`` is a number for an int setting and a string for a str one; quotes make it JSON for sure.

    Raises:
        TypeMismatchError: It is neither; the message names the type.
    """
    try:
        return normalise(type_, parse_json(text))
    except TypeMismatchError as exc:
        problem = exc
    if type_ == STR or isinstance(type_, EnumType):
        try:
            return normalise(type_, text)
        except TypeMismatchError as exc:
            problem = exc
    if isinstance(type_, JsonType):
        raise TypeMismatchError(
            f"{text!r} is not JSON, which a setting of type Json takes; quote strings twice"
        )
    hint = "; write true or false" if type_ == BOOL else ""
    if problem.message.startswith("not JSON"):
        raise TypeMismatchError(f"{text!r} is not of type {type_}{hint}")
    raise TypeMismatchError(f"{problem.message}{hint}")


def parse_context(pairs: Iterable[str], whole: str = "") -> FrozenMapping:
    """Return the context of ``path=value`` pairs, and of the JSON object *whole*, over which the pairs win.

    A value is JSON when it parses as such, else a plain string.

    Raises:
        click.UsageError: A pair has no equals sign or stands twice, or *whole* is no JSON object.
    """
    context: dict[str, Value] = {}
    if whole:
        try:
            parsed = parse_json(whole)
        except TypeMismatchError as exc:
            raise click.UsageError(f"--context: {exc.message}") from None
        if not isinstance(parsed, FrozenMapping):
            raise click.UsageError("--context is not a JSON object")
        context.update(parsed)
    seen: set[str] = set()
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise click.UsageError(f"{pair!r} is not of the form path=value, such as user.plan=pro")
        if path in seen:
            raise click.UsageError(f"the attribute {path!r} is given twice")
        seen.add(path)
        try:
            # A flat key is looked up before the walk through mappings, so that it wins over --context.
            context[path] = parse_json(text)
        except TypeMismatchError:
            context[path] = text
    return FrozenMapping(context)
