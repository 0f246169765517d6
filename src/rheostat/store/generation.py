"""When generations began, and why: a record of each but the first, kept beside the history."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rheostat.store.base import Identity, Record

__all__ = ["GENERATION_KIND", "LOST", "MOVED", "Beginning", "beginning_of", "beginnings_in"]

GENERATION_KIND: Final = "generation"
"""The kind of the records; the key is the number, in twenty digits so that keys are ordered as numbers are."""

LOST: Final = "history was lost that servers or clients have seen"
"""Why servers begin a generation by themselves."""

MOVED: Final = "the database failed over, or was restored or copied, since it was last written"
"""Why they begin one when they come to a database that is another one."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a generation began.

    Attributes:
        generation: Its number.
        began_at: When, aware, UTC.
        revision: The newest one at that moment.
        cause: Why, for people.
    """

    generation: int
    began_at: datetime.datetime
    revision: int
    cause: str


def beginning_of(identity: Identity, revision: int, cause: str, now: datetime.datetime) -> Record:
    """Return the record of the generation of *identity*, which begins at *now*."""
    body = {"began_at": now.astimezone(datetime.UTC).isoformat(), "revision": revision, "cause": cause}
    return Record(GENERATION_KIND, f"{identity.generation:020d}", json.dumps(body))


def beginnings_in(records: Sequence[Record]) -> Sequence[Beginning]:
    """Read what `beginning_of` has written, in its order."""
    return tuple(_beginning(record.key, json.loads(record.body)) for record in records)


def _beginning(key: str, body: dict[str, object]) -> Beginning:
    return Beginning(
        int(key),
        datetime.datetime.fromisoformat(str(body["began_at"])),
        int(str(body["revision"])),
        str(body["cause"]),
    )
