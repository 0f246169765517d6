"""Drafts: change-sets that wait for approvals, for a time, or for their author."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from rheostat.model.change import Mutation

__all__ = ["Approval", "Draft", "DraftState", "MissingApproval"]


class DraftState(enum.Enum):
    """Where a draft stands."""

    OPEN = "open"
    SCHEDULED = "scheduled"
    COMMITTED = "committed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_closed(self) -> bool:
        """Whether nothing can become of it any more."""
        return self in (DraftState.COMMITTED, DraftState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Approval:
    """That somebody agrees to the mutations of a draft.

    Attributes:
        environments: Those that it is for, sorted.
        author: Who, for display.
        actor: The selector of the key that approved; empty in open mode.
        approved_at: Aware, UTC.
        comment: What was said with it.
    """

    environments: tuple[str, ...]
    author: str
    actor: str
    approved_at: datetime.datetime
    comment: str = ""


@dataclass(frozen=True, slots=True)
class MissingApproval:
    """How many approvals an environment still wants.

    Attributes:
        environment: Its slug.
        required: How many it wants.
        given: How many it has that count.
        self_approval: Whether the author of the draft may give one of them.
    """

    environment: str
    required: int
    given: int
    self_approval: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A change-set that is not committed yet.

    Attributes:
        id: Later ones sort before earlier ones.
        project: Slug.
        environment: For mutations that name none; empty when each names its own.
        mutations: What it does, in order. Empty where it is one of a list, and once it is closed.
        created_at: Aware, UTC.
        updated_at: When its mutations were written last; aware, UTC.
        base_revision: The revision that its author saw.
        version: Of the record that holds it: 1 when it is new, and one more after each change.
        state: Where it stands.
        message: Why, for the history.
        author: Who wrote the mutations, for display.
        actor: The selector of the key that wrote the mutations; empty in open mode.
        environments: Those whose approval it takes where they are protected, as of its last write; sorted.
        named: The environments that it names and does not touch; sorted.
        approvals: Of the mutations as they are.
        force: Commit although some connected client could not decode a value.
        scheduled_at: When the server commits it, aware, UTC; None unless it is scheduled.
        publisher: The selector of the key that scheduled or committed it; empty in open mode, and before that.
        revision: That it became, or 0.
        failure: Why it could not be committed at its time, or empty.
        content: Where the store keeps its mutations; empty once it is closed.
    """

    id: str
    project: str
    environment: str
    mutations: tuple[Mutation, ...]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    base_revision: int
    version: int = 0
    state: DraftState = DraftState.OPEN
    message: str = ""
    author: str = ""
    actor: str = ""
    environments: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    approvals: tuple[Approval, ...] = ()
    force: bool = False
    scheduled_at: datetime.datetime | None = None
    publisher: str = ""
    revision: int = 0
    failure: str = ""
    content: str = ""
