"""`rheostat subjects`: companies, users and what else is stored, one by one or from a file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import IO, Any, Final, Self

import click

from rheo.v1 import event_service_pb2 as event
from rheostat.cli.command import Command
from rheostat.cli.connection import Connection
from rheostat.cli.instant import parse_future
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text
from rheostat.cli.subject_file import (
    CONVERSIONS,
    Batch,
    Failure,
    Upserts,
    json_or_text,
    read_upserts,
    send_upserts,
)
from rheostat.cli.subject_name import as_usage, parse_named, parse_reference, split_pairs
from rheostat.errors import FailedPreconditionError, NotFoundError, TypeMismatchError
from rheostat.model.subject import Subject, SubjectOverride, SubjectPatch, SubjectReference
from rheostat.model.value import Value, canonical_json, thaw
from rheostat.wire.instant import instant_from_proto
from rheostat.wire.subject import (
    patch_from_request,
    patch_to_proto,
    reference_to_proto,
    subject_from_proto,
)

__all__ = ["subjects"]

SUBJECT_RECORD: Final = """id (hexadecimal), kind, keys, traits, version, created_at, updated_at, month_day
overrides   [{setting, value, expires_at}]; expires_at is null for good
counters    [{event, period, count, period_end}]; period is day, week, month or all
member_of   [{id, kind, keys}]
"""
"""The keys of one subject."""

_SHOWN_FAILURES: Final = 20
_KEPT_FAILURES: Final = 1_000
"""In the answer in JSON; a file of millions of lines may have as many refusals."""

_KEYS: Final = click.argument("keys", metavar="NAME=VALUE...", nargs=-1, required=True)


@click.group("subjects")
def subjects() -> None:
    """Show, change, remove and import subjects: companies, users and what else is stored."""


@subjects.command(
    "get",
    cls=Command,
    examples=[
        ("rheostat subjects get company id=acme", "its traits, overrides and counters"),
        ("rheostat subjects get user email=ada@example.com --json | jq .traits", "by any of its keys"),
    ],
    answer=SUBJECT_RECORD,
)
@click.argument("kind")
@_KEYS
@target_options()
def get(kind: str, keys: tuple[str, ...], target: Target, output: Output) -> None:
    """Show a subject, found by any of its keys."""
    reference = parse_reference(kind, keys)
    with Connection(target) as connection:
        subject = _found(connection, reference)
    if output.json:
        output.answer(_record(subject))
        return
    _print(output, subject)


@subjects.command(
    "list",
    cls=Command,
    examples=[
        ("rheostat subjects list --kind company", "all companies, oldest first"),
        ("rheostat subjects list --limit 10 --json | jq '.subjects[].keys'", "for a script"),
    ],
    answer="subjects   [{id, kind, keys, traits, …}], as `rheostat subjects get` answers one",
)
@click.option("--kind", default="", help="Only those of this kind, such as company.")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="How many to list at most."
)
@target_options()
def list_(kind: str, limit: int, target: Target, output: Output) -> None:
    """List subjects, oldest first."""
    request = event.ListSubjectsRequest(project=target.project, environment=target.environment, kind=kind)
    found: list[Subject] = []
    more = False
    with Connection(target) as connection:
        while True:
            request.page_size = min(1000, limit - len(found))
            page = connection.call(connection.events.list_subjects, request)
            found += map(subject_from_proto, page.subjects)
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)
            if not more or len(found) >= limit:
                break
    if output.json:
        output.answer({"subjects": [_record(subject) for subject in found]})
        return
    output.table(
        ["kind", "keys", "traits", "overrides", "updated"],
        [
            (
                subject.kind,
                _pairs(subject.keys),
                ", ".join(sorted(subject.traits)),
                ", ".join(override.setting for override in subject.overrides),
                (instant_text(subject.updated_at) or "")[:19],
            )
            for subject in found
        ],
    )
    if not found:
        output.note("no subject is stored")
    elif more:
        output.note(f"and more: these are the first {len(found)}, see --limit")


@subjects.command(
    "set",
    cls=Command,
    examples=[
        ("rheostat subjects set company id=acme --trait plan=pro --trait seats=5", "make or change it"),
        (
            "rheostat subjects set company id=acme --override checkout.timeout=9 --until 30d",
            "a value for it alone, for 30 days",
        ),
        (
            "rheostat subjects set user id=u1 email=ada@example.com --member-of company:id=acme",
            "one key more",
        ),
    ],
    answer=SUBJECT_RECORD,
)
@click.argument("kind")
@_KEYS
@click.option("--trait", "traits", multiple=True, metavar="NAME=VALUE", help="Set a trait; JSON or a text.")
@click.option("--remove-trait", "remove_traits", multiple=True, metavar="NAME", help="Remove a trait.")
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="SETTING=VALUE",
    help="Give a setting this value, JSON or a text, for the subject alone.",
)
@click.option("--until", help="When these overrides end: in so long, such as 30d, or an instant.")
@click.option(
    "--remove-override", "remove_overrides", multiple=True, metavar="SETTING", help="Remove an override."
)
@click.option(
    "--member-of",
    multiple=True,
    metavar="KIND:NAME=VALUE",
    help="Make it a member of another subject, such as company:id=acme.",
)
@click.option(
    "--remove-member-of", multiple=True, metavar="KIND:NAME=VALUE", help="Make it a member no more."
)
@click.option(
    "--month-day",
    type=click.IntRange(1, 31),
    help="The day of the month on which its monthly counters begin.",
)
@target_options()
def set_(
    kind: str,
    keys: tuple[str, ...],
    traits: tuple[str, ...],
    remove_traits: tuple[str, ...],
    overrides: tuple[str, ...],
    until: str | None,
    remove_overrides: tuple[str, ...],
    member_of: tuple[str, ...],
    remove_member_of: tuple[str, ...],
    month_day: int | None,
    target: Target,
    output: Output,
) -> None:
    """Create or change a subject, found by any of its keys; it has all of them afterwards.

    What is not named stays as it is. A value is JSON where it parses as such (5, true, ["a"]), else a plain string.
    """
    ends = parse_future(until, "--until") if until else None
    if ends is not None and not overrides:
        raise click.UsageError("--until says when overrides end: give --override, too")
    patch = SubjectPatch(
        reference=parse_reference(kind, keys),
        traits={name: _value(text, f"--trait {name}") for name, text in split_pairs(traits, "--trait")},
        remove_traits=remove_traits,
        overrides=tuple(
            SubjectOverride(name, _value(text, f"--override {name}"), ends)
            for name, text in split_pairs(overrides, "--override")
        ),
        remove_overrides=remove_overrides,
        member_of=tuple(parse_named(text, "--member-of") for text in member_of),
        remove_member_of=tuple(parse_named(text, "--remove-member-of") for text in remove_member_of),
        month_day=month_day,
    )
    message = patch_to_proto(patch)
    # A mistake that shows without a server is one of the command line.
    as_usage(patch_from_request, message)
    request = event.UpsertSubjectsRequest(
        project=target.project, environment=target.environment, subjects=[message]
    )
    with Connection(target) as connection:
        answer = connection.call(connection.events.upsert_subjects, request)
    for refused in answer.rejected:
        error = FailedPreconditionError(refused.message)
        error.reason = refused.reason
        raise error
    subject = subject_from_proto(answer.subjects[0])
    if output.json:
        output.answer(_record(subject))
        return
    _print(output, subject)


@subjects.command(
    "delete",
    cls=Command,
    examples=[
        ("rheostat subjects delete user id=u1", "with everything that is kept of it"),
        ("rheostat subjects delete user id=u1 --yes --json", "for a script"),
    ],
    answer="deleted   whether there was such a subject",
)
@click.argument("kind")
@_KEYS
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options()
def delete(kind: str, keys: tuple[str, ...], yes: bool, target: Target, output: Output) -> None:
    """Remove a subject with everything that is kept of it: keys, traits, overrides, memberships and counters."""
    reference = parse_reference(kind, keys)
    if not yes and not output.json:
        click.confirm(f"Remove the {kind} {_pairs(reference.keys)} for good?", abort=True, err=True)
    request = event.DeleteSubjectsRequest(
        project=target.project,
        environment=target.environment,
        lookups=[event.SubjectLookup(reference=reference_to_proto(reference))],
    )
    with Connection(target) as connection:
        answer = connection.call(connection.events.delete_subjects, request)
    outcome = answer.results[0].outcome
    if outcome == event.SUBJECT_OUTCOME_CONFLICT:
        raise _conflict(reference)
    deleted = outcome == event.SUBJECT_OUTCOME_FOUND
    if output.json:
        output.answer({"deleted": deleted})
    else:
        output.print("removed" if deleted else "there was none")


@subjects.command(
    "history",
    cls=Command,
    examples=[
        ("rheostat subjects history", "who has changed which subjects lately"),
        ("rheostat subjects history company id=acme", "of one"),
        ("rheostat subjects history --id 0190f3b2c4d5e6f708192a3b4c5d6e7f", "of one that is gone"),
    ],
    answer="changes   [{id, kind, version, time, actor, fields}], newest first; version is 0 when it was removed",
)
@click.argument("kind", required=False)
@click.argument("keys", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--id", "hexadecimal", help="Only changes of the subject with this id.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many to list at most."
)
@target_options()
def history(
    kind: str | None,
    keys: tuple[str, ...],
    hexadecimal: str | None,
    limit: int,
    target: Target,
    output: Output,
) -> None:
    """List who has changed subjects and what of them, newest first. Values are not kept."""
    id_ = b""
    if hexadecimal is not None:
        try:
            id_ = bytes.fromhex(hexadecimal)
        except ValueError:
            id_ = b""
        if len(id_) != 16:
            raise click.UsageError("--id is not of 32 hexadecimal digits")
    with Connection(target) as connection:
        if kind is not None:
            id_ = _found(connection, parse_reference(kind, keys)).id
        request = event.ListSubjectChangesRequest(
            project=target.project, environment=target.environment, id=id_, page_size=limit
        )
        changes = connection.call(connection.events.list_subject_changes, request).changes
    records = [
        {
            "id": change.id.hex(),
            "kind": change.kind,
            "version": change.version,
            "time": instant_text(instant_from_proto(change.time)),
            "actor": change.actor,
            "fields": list(change.fields),
        }
        for change in changes
    ]
    if output.json:
        output.answer({"changes": records})
        return
    output.table(
        ["time", "kind", "id", "version", "by", "what"],
        [
            (
                str(record["time"])[:19],
                str(record["kind"]),
                str(record["id"]),
                str(record["version"] or "removed"),
                str(record["actor"]),
                ", ".join(change.fields),
            )
            for record, change in zip(records, changes, strict=True)
        ],
    )
    if not records:
        output.note("nothing has changed in the last 90 days")


@subjects.command(
    "import",
    cls=Command,
    examples=[
        (
            "rheostat subjects import companies.csv --kind company",
            "the column id is the key, others are traits",
        ),
        (
            "rheostat subjects import users.csv --kind user --by id=user_id --by email=mail --trait zip:str",
            "keys of other columns; a trait that only looks like a number",
        ),
        ("rheostat subjects import users.ndjson --kind user --errors failed.ndjson", "what was refused"),
    ],
    answer="""
    read, written, refused   how many subjects
    failed                   [{line, reason, message}], the first 1000; with --errors only in that file, and all of them
    unseen                   names in --trait and --skip that no line of NDJSON has; columns of CSV are checked first
    """,
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True))
@click.option("--kind", required=True, help="What they are, such as company.")
@click.option(
    "--by",
    "keys",
    multiple=True,
    metavar="NAME=COLUMN",
    help="A key, and the column or field that has it; by default id=id.",
)
@click.option(
    "--trait",
    "traits",
    multiple=True,
    metavar="NAME:TYPE",
    help=f"The type of a trait: {', '.join(CONVERSIONS)}. By default what a cell looks like.",
)
@click.option("--skip", multiple=True, metavar="COLUMN", help="Leave a column or field out.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "ndjson"]),
    help="By default what the name of the file ends with.",
)
@click.option(
    "--errors",
    type=click.Path(dir_okay=False, writable=True),
    help="Write what was refused into this file, as NDJSON.",
)
@target_options()
def import_(
    file: str,
    kind: str,
    keys: tuple[str, ...],
    traits: tuple[str, ...],
    skip: tuple[str, ...],
    format_: str | None,
    errors: str | None,
    target: Target,
    output: Output,
) -> None:
    """Create or change subjects from a file in CSV, with a header, or in NDJSON, an object on each line.

    Each line is a subject: its keys, and all other columns as traits. An empty cell of CSV leaves what is stored. What
    was imported already changes nothing, so that an import which was broken off can simply be repeated.
    """
    types: dict[str, str] = {}
    for text in traits:
        name, _, type_ = text.rpartition(":")
        if not name or type_ not in CONVERSIONS:
            raise click.UsageError(
                f"--trait {text!r} is not of the form name:type; types are {', '.join(CONVERSIONS)}"
            )
        if name in types:
            raise click.UsageError(f"--trait: {name!r} is given twice")
        types[name] = type_
    if format_ is None:
        format_ = (
            "ndjson" if file.endswith((".ndjson", ".jsonl")) else "csv" if file.endswith(".csv") else None
        )
    if format_ is None:
        raise click.UsageError("the name of the file does not say what it is: give --format csv or ndjson")
    columns = dict(split_pairs(keys, "--by")) or {"id": "id"}
    # A kind or the name of a key that no line can be right with.
    parse_reference(kind, [f"{name}=-" for name in columns])
    upserts = Upserts(kind, columns, types, frozenset(skip))
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(click.open_file(file, "rb"))
        outcome = _Outcome(
            stack.enter_context(_opened(errors, file)) if errors else None,
            set(upserts.named) if format_ == "ndjson" else set(),
        )
        connection = stack.enter_context(Connection(target))
        try:
            with _Progress(output, None if file == "-" else _size(file)) as progress:
                for batch in read_upserts(stream, format_, upserts):
                    outcome.add(connection, batch)
                    progress.show(batch.position, outcome.written, outcome.refused)
        except BaseException:
            if outcome.read:
                # What was written is written, whatever has ended the import.
                outcome.tell(output, errors)
            raise
    outcome.tell(output, errors)
    if outcome.refused:
        click.get_current_context().exit(1)


class _Outcome:
    """What has become of the lines of a file so far."""

    def __init__(self, errors: IO[str] | None, unseen: set[str]) -> None:
        self.read = 0
        self.written = 0
        self.refused = 0
        self._unseen = unseen
        self._errors = errors
        self._kept: list[Failure] = []

    def add(self, connection: Connection, batch: Batch) -> None:
        """Send a batch and count what becomes of it.

        Raises:
            RheostatError: As `send_upserts`; what was no subject is counted nevertheless.
        """
        self.read += batch.read
        self._unseen -= batch.seen
        refused: list[Failure] = []
        try:
            refused = send_upserts(connection, connection.target, batch)
            self.written += len(batch.messages) - len(refused)
        finally:
            failures = sorted([*batch.failures, *refused], key=lambda failure: failure.line)
            self.refused += len(failures)
            if self._errors is None:
                self._kept += failures[: _KEPT_FAILURES - len(self._kept)]
            else:
                for failure in failures:
                    self._errors.write(f"{json.dumps(failure.record(), ensure_ascii=False)}\n")

    def tell(self, output: Output, errors: str | None) -> None:
        """Print it; *errors* is the file that has what was refused."""
        if output.json:
            output.answer(
                {
                    "read": self.read,
                    "written": self.written,
                    "refused": self.refused,
                    "failed": [failure.record() for failure in self._kept],
                    "unseen": sorted(self._unseen),
                }
            )
            return
        output.print(f"{self.written} of {self.read} subjects written")
        if self._unseen:
            output.note(
                f"warning: no line has {', '.join(sorted(self._unseen))}, which --trait or --skip names",
                style="yellow",
            )
        if errors is not None:
            if self.refused:
                output.note(f"{self.refused} were refused, see {errors}", style="red")
            return
        for failure in self._kept[:_SHOWN_FAILURES]:
            output.note(f"line {failure.line}: {failure.message} ({failure.reason})", style="red")
        if self.refused > _SHOWN_FAILURES:
            output.note(f"and {self.refused - _SHOWN_FAILURES} more; give --errors FILE to have them all")


def _opened(errors: str, file: str) -> IO[str]:
    try:
        if file != "-" and Path(errors).exists() and Path(errors).samefile(file):
            raise click.UsageError("--errors is the file that is to be imported")
        return Path(errors).open("w", encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--errors: {errors}: {error.strerror}") from None


class _Progress:
    """A bar on a terminal, by the bytes of the file; nothing elsewhere."""

    def __init__(self, output: Output, total: int | None) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=output.side,
            transient=True,
            disable=output.json or not output.side.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def show(self, position: int, written: int, failed: int) -> None:
        """Show how far it is."""
        text = f"{written} written" + (f", {failed} refused" if failed else "")
        self._progress.update(self._task, completed=position, description=text)


def _size(file: str) -> int | None:
    try:
        return Path(file).stat().st_size
    except OSError:
        return None


def _value(text: str, place: str) -> Value:
    try:
        return json_or_text(text)
    except TypeMismatchError as error:
        raise click.UsageError(f"{place}: {error.message}") from None


def _found(connection: Connection, reference: SubjectReference) -> Subject:
    target = connection.target
    request = event.GetSubjectsRequest(
        project=target.project,
        environment=target.environment,
        lookups=[event.SubjectLookup(reference=reference_to_proto(reference))],
    )
    result = connection.call(connection.events.get_subjects, request).results[0]
    if result.outcome == event.SUBJECT_OUTCOME_CONFLICT:
        raise _conflict(reference)
    if result.outcome != event.SUBJECT_OUTCOME_FOUND:
        raise NotFoundError(f"no {reference.kind} has {_pairs(reference.keys)}")
    return subject_from_proto(result.subject)


def _conflict(reference: SubjectReference) -> FailedPreconditionError:
    return FailedPreconditionError(f"the keys {_pairs(reference.keys)} belong to different subjects")


def _pairs(keys: Any) -> str:
    # A map has no order of its own.
    return " ".join(f"{name}={keys[name]}" for name in sorted(keys, key=lambda name: (name != "id", name)))


def _record(subject: Subject) -> dict[str, Any]:
    return {
        "id": subject.id.hex(),
        "kind": subject.kind,
        "keys": dict(subject.keys),
        "traits": {name: thaw(value) for name, value in subject.traits.items()},
        "version": subject.version,
        "created_at": instant_text(subject.created_at),
        "updated_at": instant_text(subject.updated_at),
        "month_day": subject.month_day,
        "overrides": [
            {
                "setting": override.setting,
                "value": thaw(override.value),
                "expires_at": instant_text(override.expires_at),
            }
            for override in subject.overrides
        ],
        "counters": [
            {
                "event": counter.event,
                "period": counter.period.value,
                "count": counter.count,
                "period_end": instant_text(counter.period_end),
            }
            for counter in subject.counters
        ],
        "member_of": [
            {"id": other.id.hex(), "kind": other.kind, "keys": dict(other.keys)}
            for other in subject.member_of
        ],
    }


def _print(output: Output, subject: Subject) -> None:
    output.print(f"{subject.kind} {_pairs(subject.keys)}")
    rows = [("trait", name, canonical_json(value), "") for name, value in sorted(subject.traits.items())]
    rows += [
        (
            "override",
            override.setting,
            canonical_json(override.value),
            f"until {instant_text(override.expires_at)}" if override.expires_at else "",
        )
        for override in subject.overrides
    ]
    rows += [("member of", other.kind, _pairs(other.keys), "") for other in subject.member_of]
    rows += [
        (
            "counter",
            f"{counter.event}.{counter.period.value}",
            str(counter.count),
            f"until {instant_text(counter.period_end)}" if counter.period_end else "",
        )
        for counter in subject.counters
    ]
    output.table(["", "name", "value", ""], rows)
    output.note(
        f"id {subject.id.hex()}, version {subject.version}, updated {instant_text(subject.updated_at)}"
    )
