"""What every store gives to what it keeps: an identity, and each change-set its place in the history."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Final

from rheostat.model.change import ChangeSet
from rheostat.store.base import Identity

__all__ = ["NONCE_BYTES", "instant_text", "new_identity", "stamped", "utc", "utc_now"]

NONCE_BYTES: Final = 8


def utc_now() -> datetime.datetime:
    """Return the time, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def utc(instant: datetime.datetime) -> datetime.datetime:
    """Return the same instant in UTC.

    Raises:
        ValueError: It has no time zone.
    """
    if instant.tzinfo is None:
        raise ValueError(f"the instant {instant.isoformat()} has no time zone")
    return instant.astimezone(datetime.UTC)


def instant_text(instant: datetime.datetime) -> str:
    """Return the form in which SQL stores keep an instant: ISO 8601 in UTC with microseconds.

    Texts of this form compare as the instants do.

    Raises:
        ValueError: It has no time zone.
    """
    return utc(instant).isoformat(timespec="microseconds")


def new_identity(randomness: Callable[[int], bytes]) -> Identity:
    """Draw the identity of a new store."""
    return Identity(
        store_id=randomness(16), generation=1, nonce=randomness(NONCE_BYTES), token_key=randomness(32)
    )


def stamped(change_set: ChangeSet, identity: Identity, revision: int, now: datetime.datetime) -> ChangeSet:
    """Return *change_set* as the store keeps it.

    Raises:
        ValueError: An item carries another revision than the change-set's, or *now* has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError("the clock of a store gives aware times")
    for change in change_set.changes:
        if change.after is not None and change.after.revision != revision:
            raise ValueError(
                f"the {change.kind} {change.key!r} carries revision {change.after.revision} "
                f"in the change-set of revision {revision}"
            )
    return dataclasses.replace(
        change_set, revision=revision, generation=identity.generation, created_at=now.astimezone(datetime.UTC)
    )
