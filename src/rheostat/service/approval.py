"""Protected environments: what needs whose approval, and who may change that."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from rheostat.errors import FailedPreconditionError, PermissionDeniedError
from rheostat.model.change import Change, Environment
from rheostat.model.draft import Approval, MissingApproval
from rheostat.model.key import Key
from rheostat.model.state import State
from rheostat.service.access import Permission, Principal, in_force
from rheostat.service.plan import Plan

__all__ = [
    "approval_required",
    "check_direct",
    "check_governance",
    "check_reach",
    "counting_approvals",
    "lineage_of",
    "missing_approvals",
    "named",
    "standing_key",
    "touched",
]


def touched(made: Plan) -> tuple[str, ...]:
    """Return the environments whose approval a change-set takes where they are protected, sorted.

    These are those whose snapshot it changes, and protected ones whose protection it changes: else an admin
    could lift the protection alone, and then commit alone.
    """
    lifted = {
        change.key
        for change in made.changes
        if isinstance(change.before, Environment)
        and change.before.protected
        and _governance(change.before) != _governance(change.after)
    }
    return tuple(sorted(lifted.union(made.environments)))


def named(made: Plan) -> set[str]:
    """Return the environments that the changes are in, or are about."""
    return {_place(change) for change in made.changes} - {""}


def check_reach(made: Plan, principal: Principal) -> None:
    """Refuse a change-set that touches, or is about, an environment that the caller does not see.

    Raises:
        PermissionDeniedError: It does; the message does not name it.
    """
    if not all(principal.sees(made.project, slug) for slug in named(made).union(made.environments)):
        raise PermissionDeniedError(
            "the change-set changes an environment that this key may not write", reason="OUT_OF_SCOPE"
        )


def check_governance(made: Plan, principal: Principal) -> None:
    """Refuse a change of an environment's protection by anybody but an admin who sees the environment.

    Raises:
        PermissionDeniedError: It is one.
    """
    for change in made.changes:
        if change.kind != "environment":
            continue
        if not principal.sees(made.project, change.key):
            raise PermissionDeniedError(
                "the change-set changes an environment that this key may not write", reason="OUT_OF_SCOPE"
            )
        before = change.before or Environment(change.key)
        governed = _governance(before) != _governance(change.after)
        if governed and Permission.ADMINISTER not in principal.permissions:
            raise PermissionDeniedError(
                f"only an admin may change the protection of the environment {change.key!r}",
                metadata={"permission": Permission.ADMINISTER.value, "environment": change.key},
            )


def check_direct(state: State, made: Plan, principal: Principal, now: datetime.datetime) -> None:
    """Refuse a change-set that touches a protected environment, unless nobody is told from anybody else.

    Raises:
        FailedPreconditionError: It has to be a draft, which others approve.
    """
    if principal.key is None:
        return
    wanting = [
        entry
        for entry in missing_approvals(state, made.project, touched(made), (), principal.actor, now)
        if not _is_stuck(state, made, entry.environment, principal, now)
    ]
    if wanting:
        raise approval_required(wanting, "make a draft of it, with --draft on the command line")


def approval_required(missing: Sequence[MissingApproval], advice: str) -> FailedPreconditionError:
    """Return what says that approvals are missing."""
    environments = [entry.environment for entry in missing]
    wanted = ", ".join(f"{entry.environment!r} has {entry.given} of {entry.required}" for entry in missing)
    return FailedPreconditionError(
        f"the change-set touches protected environments and needs approvals: {wanted}; {advice}",
        reason="APPROVAL_REQUIRED",
        metadata={"environments": ",".join(environments)},
    )


def missing_approvals(
    state: State,
    project: str,
    environments: Iterable[str],
    approvals: Sequence[Approval],
    author: str,
    now: datetime.datetime,
) -> tuple[MissingApproval, ...]:
    """Return what the protected ones among *environments* still want, by environment.

    Args:
        state: Whose keys and environments count.
        project: Slug; it exists.
        environments: Those that are touched.
        approvals: All that were given.
        author: The selector of the key that wrote the mutations.
        now: Keys that have expired by then do not count.
    """
    entries = state.projects[project].environments
    missing = []
    for slug in sorted(environments):
        entry = entries.get(slug)
        if entry is None or not entry.environment.approvals:
            continue
        environment = entry.environment
        given = len(counting_approvals(state, project, [slug], approvals, author, now))
        if given < environment.approvals:
            missing.append(MissingApproval(slug, environment.approvals, given, environment.self_approval))
    return tuple(missing)


def counting_approvals(
    state: State,
    project: str,
    environments: Iterable[str],
    approvals: Sequence[Approval],
    author: str,
    now: datetime.datetime,
) -> tuple[str, ...]:
    """Return the selectors of the keys whose approval counts for one of *environments* at least.

    Keys of one lineage count once. One that was revoked, has expired, or lost the role or the environment since
    does not, unless a successor of it is in force, nor does the author's own where that is not allowed. Arguments
    as `missing_approvals`.
    """
    entries = state.projects[project].environments
    written_by = lineage_of(state, author)
    counting: dict[str, str] = {}
    for approval in approvals:
        for slug in environments:
            entry = entries.get(slug)
            if entry is None or slug not in approval.environments:
                continue
            lineage = lineage_of(state, approval.actor)
            own = lineage == written_by and not entry.environment.self_approval
            if not own and _may_approve(standing_key(state, approval.actor, now), project, slug):
                counting.setdefault(lineage, approval.actor)
    return tuple(counting.values())


def lineage_of(state: State, selector: str) -> str:
    """Return what keys that succeed each other have in common; of a key that there is not, its selector."""
    key = state.keys.get(selector)
    return selector if key is None else Principal(key).lineage


def standing_key(state: State, selector: str, now: datetime.datetime) -> Key | None:
    """Return the key, or the newest of its lineage that is in force when it is not itself; None when none is.

    A rotation gives the successor the access that the key has, and nothing changes the access of a key later.
    """
    key = state.keys.get(selector)
    if in_force(key, now):
        return key
    lineage = lineage_of(state, selector)
    family = [other for other in state.keys.values() if Principal(other).lineage == lineage]
    standing = [other for other in family if in_force(other, now)]
    return max(standing, key=lambda other: (other.revision, other.selector), default=None)


def _may_approve(key: Key | None, project: str, environment: str) -> bool:
    principal = Principal(key)
    return (
        key is not None
        and Permission.APPROVE in principal.permissions
        and principal.sees(project, environment)
    )


def _is_stuck(
    state: State, made: Plan, environment: str, principal: Principal, now: datetime.datetime
) -> bool:
    """Tell whether the caller may change the protection of an environment that too few could ever approve for.

    Only a store-wide admin, and only when the change-set does nothing else to the environment.
    """
    key = principal.key
    if key is None or key.project or key.environments or Permission.ADMINISTER not in principal.permissions:
        return False
    if environment in made.environments:
        return False
    entry = state.projects[made.project].environments[environment].environment
    able = {
        Principal(other).lineage
        for other in state.keys.values()
        if in_force(other, now) and _may_approve(other, made.project, environment)
    }
    if not entry.self_approval:
        able.discard(principal.lineage)
    return len(able) < entry.approvals


def _place(change: Change) -> str:
    return change.key if change.kind == "environment" else change.environment


def _governance(item: object) -> tuple[bool, int, bool] | None:
    """What says how far an environment is protected; None for one that is gone."""
    if not isinstance(item, Environment):
        return None
    return item.protected, item.required_approvals, item.self_approval
