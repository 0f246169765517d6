"""How subjects are named on the command line: a kind, and keys such as ``id=acme``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from rheostat.errors import InvalidArgumentError, TypeMismatchError
from rheostat.model.subject import SubjectReference
from rheostat.wire.subject import reference_from_request, reference_to_proto

__all__ = ["as_usage", "parse_named", "parse_reference", "parse_references", "split_pairs"]

M = TypeVar("M")


def split_pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Return pairs of the form ``name=value``.

    Raises:
        click.UsageError: One has another form, or a name is given twice; *option* is named.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option}: {text!r} is not of the form name=value")
        if name in pairs:
            raise click.UsageError(f"{option}: {name!r} is given twice")
        pairs[name] = value
    return list(pairs.items())


def parse_reference(kind: str, keys: Sequence[str]) -> SubjectReference:
    """Return the subject of a kind that has *keys*, each ``name=value``.

    Raises:
        click.UsageError: The kind or a key is none.
    """
    return _checked(SubjectReference(kind, dict(split_pairs(keys, "keys"))))


def parse_named(text: str, option: str) -> SubjectReference:
    """Return the subject that ``kind:name=value`` names.

    Raises:
        click.UsageError: It has another form.
    """
    kind, colon, key = text.partition(":")
    if not colon or not kind:
        raise click.UsageError(f"{option}: {text!r} is not of the form kind:name=value")
    return parse_reference(kind, [key])


def parse_references(texts: Sequence[str], option: str) -> list[SubjectReference]:
    """Return the subjects that *texts* name, each ``kind:name=value``; keys of one kind are those of one subject.

    Raises:
        click.UsageError: One has another form, or gives a key twice.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        reference = parse_named(text, option)
        keys = found.setdefault(reference.kind, {})
        for name, value in reference.keys.items():
            if keys.setdefault(name, value) != value:
                raise click.UsageError(f"{option}: the key {name!r} of {reference.kind} is given twice")
    return [_checked(SubjectReference(kind, keys)) for kind, keys in found.items()]


def as_usage(check: Callable[[M], object], message: M) -> None:
    """Check what needs no server to be found wrong.

    Raises:
        click.UsageError: *check* has found something.
    """
    try:
        check(message)
    except (InvalidArgumentError, TypeMismatchError) as error:
        raise click.UsageError(error.message) from None


def _checked(reference: SubjectReference) -> SubjectReference:
    for text in (reference.kind, *reference.keys, *reference.keys.values()):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{text!r} is not UTF-8") from None
    as_usage(reference_from_request, reference_to_proto(reference))
    return reference
