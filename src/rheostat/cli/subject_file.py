"""Files of subjects, in CSV and NDJSON, as batches of changes."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final, Never

import click

from rheo.v1 import event_service_pb2 as event
from rheostat.cli.connection import Connection
from rheostat.cli.option import Target
from rheostat.errors import LimitExceededError, RheostatError, TypeMismatchError, UnavailableError
from rheostat.model.subject import MEMBER_OF, TRAIT_NAME, USAGE, SubjectPatch, SubjectReference
from rheostat.model.value import FrozenMapping, Value, canonical_json, freeze, parse_json
from rheostat.wire.subject import patch_from_request, patch_to_proto

__all__ = ["CONVERSIONS", "Batch", "Failure", "Upserts", "json_or_text", "read_upserts", "send_upserts"]

_BATCH: Final = 1_000
_BATCH_BYTES: Final = 512 * 1024
"""Half of what a server takes in one request."""

_MOST_BYTES: Final = 2 * _BATCH_BYTES - 4096
"""Of one subject: what a server takes, less the rest of the request."""

_ATTEMPTS: Final = 8
_FIRST_DELAY: Final = 0.5


# What Python takes beside these (1_0, nan, other digits) is no number to anybody else.
_INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def json_or_text(text: str) -> Value:
    """Return the value that *text* is in JSON, or *text* itself where it is no JSON at all.

    Raises:
        TypeMismatchError: It is JSON, but no value: too deep, too large, or with a key twice.
    """
    try:
        return parse_json(text)
    except TypeMismatchError:
        if _is_json(text):
            raise
        return text


def _is_json(text: str) -> bool:
    def refuse(_: str) -> Never:
        raise json.JSONDecodeError("no JSON", text, 0)

    try:
        json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        # More digits or levels than Python reads.
        return True
    return True


def _int(text: str) -> Value:
    if _INTEGER.fullmatch(text.strip()) is None:
        raise ValueError(text)
    return freeze(int(text))


def _float(text: str) -> Value:
    if _NUMBER.fullmatch(text.strip()) is None:
        raise ValueError(text)
    return freeze(float(text))


def _bool(text: str) -> Value:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise ValueError(text)


def _guess(text: str) -> Value:
    # Quotes of CSV are gone by now: what still has some is a text with quotes in it.
    if text.lstrip().startswith('"'):
        return text
    value = json_or_text(text)
    return text if value is None else value


CONVERSIONS: Final[Mapping[str, Callable[[str], Value]]] = {
    "str": str,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "json": parse_json,
}
"""Types of traits in a file, and what makes them of a cell."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a line was not taken."""

    line: int
    reason: str
    message: str

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"line": self.line, "reason": self.reason, "message": self.message}


@dataclass(slots=True)
class Batch:
    """Changes that go in one call.

    Attributes:
        messages: The changes.
        lines: The line of each.
        failures: Lines that are none.
        read: How many lines there were, without empty ones.
        position: How many bytes of the file have been read.
        size: Bytes of the changes.
        seen: Those columns that `Upserts` names, other than keys, and that a line has.
    """

    messages: list[event.SubjectUpsert] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    read: int = 0
    position: int = 0
    size: int = 0
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Upserts:
    """What the lines of a file mean.

    Attributes:
        kind: What the subjects are.
        columns: The column of each key, by the key's name.
        types: The types of traits that are not what they look like.
        skip: Columns that are left out.
    """

    kind: str
    columns: Mapping[str, str]
    types: Mapping[str, str]
    skip: frozenset[str] = frozenset()

    @property
    def named(self) -> frozenset[str]:
        """The columns that are named, other than keys."""
        return self.skip | self.types.keys()

    def check(self, header: Sequence[str]) -> None:
        """Check the names of all columns of a file.

        Raises:
            click.ClickException: One is missing, stands twice, or is neither a key nor a trait nor left out.
        """
        for option, columns in (
            ("--by", self.columns.values()),
            ("--trait", self.types),
            ("--skip", self.skip),
        ):
            for column in sorted(columns):
                if column not in header:
                    raise click.ClickException(
                        f"{option}: the file has no column {column!r}; it has {', '.join(header)}"
                    )
        if len(set(header)) < len(header):
            raise click.ClickException("the file has two columns of one name")
        for column in header:
            if column in self.columns.values() or column in self.skip:
                continue
            if TRAIT_NAME.fullmatch(column) is None or column in (USAGE, MEMBER_OF):
                raise click.ClickException(
                    f"the column {column[:100]!r} cannot be a trait, whose name has 1 to 64 letters, digits, _ or - "
                    f"and is neither {USAGE} nor {MEMBER_OF}: leave it out with --skip, or rename it"
                )

    def message(self, row: Mapping[str, Value]) -> event.SubjectUpsert:
        """Return the change that a line asks for.

        Raises:
            RheostatError: It is none.
            ValueError: A cell is not of its type.
        """
        keys: dict[str, str] = {}
        for name, column in self.columns.items():
            value = row.get(column)
            if value is not None and value != "":
                # A key is a text; an integer in NDJSON is the text that it is written as.
                if isinstance(value, bool) or not isinstance(value, (str, int)):
                    raise ValueError(
                        f"{column} is {canonical_json(value)[:100]}, and a key is a text or an integer"
                    )
                keys[name] = str(value)
        left_out = {*self.columns.values(), *self.skip}
        traits = {
            name: self._converted(name, value)
            for name, value in row.items()
            if name not in left_out and value is not None
        }
        message = patch_to_proto(SubjectPatch(SubjectReference(self.kind, keys), traits))
        patch_from_request(message)
        return message

    def _converted(self, name: str, value: Value) -> Value:
        type_ = self.types.get(name)
        if type_ is None:
            return value
        text = value if isinstance(value, str) else canonical_json(value)
        try:
            return CONVERSIONS[type_](text)
        except (ValueError, TypeMismatchError):
            raise ValueError(f"{name} is {text[:100]!r}, which is no {type_}") from None


class _Lines:
    """The lines of a file as text, and how many bytes they had."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.position = 0
        self.number = 0
        self.broken = 0
        """The number of the last line that was not UTF-8; what of it was not is surrogates."""

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self.position += len(line)
            self.number += 1
            encoding = "utf-8-sig" if self.number == 1 else "utf-8"
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                self.broken = self.number
                text = line.decode(encoding, "surrogateescape")
            yield text


def read_upserts(stream: IO[bytes], format_: str, upserts: Upserts) -> Iterator[Batch]:
    """Yield the changes in a file, in batches that a server takes; all that were read before an error is raised.

    Args:
        stream: The file.
        format_: ``csv`` or ``ndjson``.
        upserts: What its lines mean.

    Raises:
        click.ClickException: It is no such file, or cannot be read any further.
    """
    lines = _Lines(stream)
    rows = _csv_rows(lines, upserts) if format_ == "csv" else _ndjson_rows(lines)
    named = upserts.named
    batch = Batch()
    ended: click.ClickException | None = None
    try:
        for number, row in rows:
            message = row if isinstance(row, Failure) else _message(upserts, number, row)
            size = 0 if isinstance(message, Failure) else message.ByteSize()
            if batch.read >= _BATCH or (batch.messages and batch.size + size > _BATCH_BYTES):
                yield batch
                batch = Batch()
            batch.read += 1
            batch.position = lines.position
            if named and not isinstance(row, Failure):
                batch.seen |= named & row.keys()
            if isinstance(message, Failure):
                batch.failures.append(message)
            else:
                batch.messages.append(message)
                batch.lines.append(number)
                batch.size += size
    except click.ClickException as error:
        ended = error
    except OSError as error:
        ended = click.ClickException(f"the file cannot be read any further: {error.strerror or error}")
    if batch.read:
        yield batch
    if ended is not None:
        raise ended


def _message(upserts: Upserts, number: int, row: Mapping[str, Value]) -> event.SubjectUpsert | Failure:
    try:
        message = upserts.message(row)
    except RheostatError as error:
        return Failure(number, error.reason, error.message)
    except ValueError as error:
        return Failure(number, "TYPE_MISMATCH", str(error))
    size = message.ByteSize()
    if size > _MOST_BYTES:
        return Failure(number, "LIMIT_EXCEEDED", f"{size} bytes, and a request may have {_MOST_BYTES}")
    return message


def _csv_rows(lines: _Lines, upserts: Upserts) -> Iterator[tuple[int, Mapping[str, Value] | Failure]]:
    reader = csv.reader(iter(lines), strict=True)
    number = 1
    try:
        header = next(reader, None)
        if lines.broken:
            raise click.ClickException("the first line is not UTF-8")
        if header is None:
            raise click.ClickException("the file is empty: its first line has the names of the columns")
        upserts.check(header)
        texts = {*upserts.columns.values(), *upserts.types}
        while True:
            number = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if not row:
                continue
            if lines.broken >= number:
                yield number, Failure(number, "INVALID_ARGUMENT", "not UTF-8")
                continue
            if len(row) != len(header):
                yield (
                    number,
                    Failure(
                        number, "INVALID_ARGUMENT", f"{len(row)} cells in a file of {len(header)} columns"
                    ),
                )
                continue
            values: dict[str, Value] = {}
            failure: Failure | None = None
            for name, cell in zip(header, row, strict=True):
                if cell == "" or name in upserts.skip:
                    continue
                try:
                    values[name] = cell if name in texts else _guess(cell)
                except TypeMismatchError as error:
                    failure = Failure(
                        number, error.reason, f"{name}: {error.message}; see --trait {name}:str"
                    )
                    break
            yield number, failure or values
    except csv.Error as error:
        raise click.ClickException(f"line {number} is not CSV: {error}") from None


def _ndjson_rows(lines: _Lines) -> Iterator[tuple[int, Mapping[str, Value] | Failure]]:
    for line in lines:
        number = lines.number
        if not line.strip():
            continue
        if lines.broken == number:
            yield number, Failure(number, "INVALID_ARGUMENT", "not UTF-8")
            continue
        try:
            row = parse_json(line)
        except TypeMismatchError as error:
            yield number, Failure(number, error.reason, error.message)
            continue
        if not isinstance(row, FrozenMapping):
            yield number, Failure(number, "TYPE_MISMATCH", "not a JSON object")
            continue
        yield number, row


def send_upserts(connection: Connection, target: Target, batch: Batch) -> list[Failure]:
    """Send a batch, again and again while the server is away or busy; return what it has refused.

    Raises:
        RheostatError: It stays away, or does not let the caller in.
    """
    if not batch.messages:
        return []
    request = event.UpsertSubjectsRequest(
        project=target.project, environment=target.environment, subjects=batch.messages
    )
    for attempt in range(_ATTEMPTS):
        try:
            answer = connection.call(connection.events.upsert_subjects, request)
            break
        except (UnavailableError, LimitExceededError) as error:
            busy = isinstance(error, UnavailableError) or error.retry_after is not None
            if not busy or attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(max(error.retry_after or 0.0, _FIRST_DELAY * 2**attempt / 2))
    return [Failure(batch.lines[entry.index], entry.reason, entry.message) for entry in answer.rejected]
