"""Drafts as messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rheo.v1 import draft_pb2
from rheostat.model.draft import Approval, Draft, DraftState, MissingApproval
from rheostat.wire.change import mutation_to_proto, mutations_from_request
from rheostat.wire.instant import instant_from_proto, instant_to_proto

__all__ = ["draft_from_proto", "draft_states_from_request", "draft_states_to_proto", "draft_to_proto"]

_STATES: Final = {
    DraftState.OPEN: draft_pb2.DRAFT_STATE_OPEN,
    DraftState.SCHEDULED: draft_pb2.DRAFT_STATE_SCHEDULED,
    DraftState.COMMITTED: draft_pb2.DRAFT_STATE_COMMITTED,
    DraftState.CANCELLED: draft_pb2.DRAFT_STATE_CANCELLED,
    DraftState.FAILED: draft_pb2.DRAFT_STATE_FAILED,
}

_BY_NUMBER: Final = {number: state for state, number in _STATES.items()}


def draft_to_proto(draft: Draft, missing: Sequence[MissingApproval] = ()) -> draft_pb2.Draft:
    """Return *draft* as a message, with the approvals that it waits for."""
    message = draft_pb2.Draft(
        id=draft.id,
        project=draft.project,
        environment=draft.environment,
        version=draft.version,
        state=_STATES[draft.state],
        mutations=[mutation_to_proto(mutation) for mutation in draft.mutations],
        message=draft.message,
        author=draft.author,
        actor=draft.actor,
        created_at=instant_to_proto(draft.created_at),
        updated_at=instant_to_proto(draft.updated_at),
        base_revision=draft.base_revision,
        environments=draft.environments,
        approvals=[
            draft_pb2.Approval(
                environments=approval.environments,
                author=approval.author,
                actor=approval.actor,
                approved_at=instant_to_proto(approval.approved_at),
                comment=approval.comment,
            )
            for approval in draft.approvals
        ],
        missing_approvals=[
            draft_pb2.MissingApproval(
                environment=entry.environment,
                required=entry.required,
                given=entry.given,
                self_approval=entry.self_approval,
            )
            for entry in missing
        ],
        revision=draft.revision,
        failure=draft.failure,
        force=draft.force,
    )
    if draft.scheduled_at is not None:
        message.scheduled_at.CopyFrom(instant_to_proto(draft.scheduled_at))
    return message


def draft_from_proto(message: draft_pb2.Draft) -> tuple[Draft, tuple[MissingApproval, ...]]:
    """Return the draft of a peer's answer, and the approvals that it waits for.

    What only the store knows of it is left out. A state that this version does not know counts as open.

    Raises:
        InvalidArgumentError: A mutation of it is of a kind that this version does not know.
    """
    draft = Draft(
        id=message.id,
        project=message.project,
        environment=message.environment,
        mutations=tuple(mutations_from_request(message.mutations, project=message.project)),
        created_at=instant_from_proto(message.created_at),
        updated_at=instant_from_proto(message.updated_at),
        base_revision=message.base_revision,
        version=message.version,
        state=_BY_NUMBER.get(message.state, DraftState.OPEN),
        message=message.message,
        author=message.author,
        actor=message.actor,
        environments=tuple(message.environments),
        approvals=tuple(
            Approval(
                tuple(approval.environments),
                approval.author,
                approval.actor,
                instant_from_proto(approval.approved_at),
                approval.comment,
            )
            for approval in message.approvals
        ),
        force=message.force,
        scheduled_at=instant_from_proto(message.scheduled_at) if message.HasField("scheduled_at") else None,
        revision=message.revision,
        failure=message.failure,
    )
    missing = tuple(
        MissingApproval(entry.environment, entry.required, entry.given, entry.self_approval)
        for entry in message.missing_approvals
    )
    return draft, missing


def draft_states_from_request(states: Iterable[draft_pb2.DraftState]) -> list[DraftState]:
    """Return the states of a request, which the contract's rules have let through."""
    return [_BY_NUMBER[number] for number in states]


def draft_states_to_proto(states: Iterable[DraftState]) -> list[draft_pb2.DraftState]:
    """Return *states* as the contract has them."""
    return [_STATES[state] for state in states]
