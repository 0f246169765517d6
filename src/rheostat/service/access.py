"""Who is calling, what they may do, and which project and environment a request means."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import Final

from rheostat.errors import (
    AuthenticationError,
    FieldViolation,
    InvalidArgumentError,
    PermissionDeniedError,
)
from rheostat.model.change import Environment
from rheostat.model.key import Key, KeyKind, Role, key_selector, verify_secret
from rheostat.model.state import ProjectState, State
from rheostat.model.webhook import Webhook

__all__ = [
    "DEFAULT_PROJECT",
    "OPEN",
    "Permission",
    "Principal",
    "authenticate",
    "resolve",
    "resolve_project",
]

DEFAULT_PROJECT: Final = "default"


class Permission(enum.Enum):
    """What a method needs. Methods without one are refused."""

    PING = "ping"
    EVALUATE = "evaluate"
    WATCH = "watch"
    DECLARE = "declare"
    REPORT = "report"
    SUBJECTS = "subjects"
    EXPOSE = "expose"
    EVENTS = "events"
    VIEW = "view"
    EDIT = "edit"
    APPROVE = "approve"
    ADMINISTER = "administer"


_PUBLIC: Final = frozenset({Permission.PING, Permission.EVALUATE, Permission.EXPOSE})
_SERVER: Final = _PUBLIC | {Permission.WATCH, Permission.REPORT, Permission.SUBJECTS, Permission.EVENTS}
_RELAY: Final = frozenset({Permission.PING, Permission.WATCH, Permission.REPORT})
_VIEWER: Final = frozenset({Permission.PING, Permission.EVALUATE, Permission.WATCH, Permission.VIEW})
# Whoever may decide what a setting is for everybody may decide it for one, and sees for whom.
_EDITOR: Final = _VIEWER | {Permission.EDIT, Permission.SUBJECTS}
_ADMIN: Final = frozenset(Permission)

_ROLES: Final = {
    Role.VIEWER: _VIEWER,
    Role.EDITOR: _EDITOR,
    Role.APPROVER: _EDITOR | {Permission.APPROVE},
    Role.ADMIN: _ADMIN,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        key: The key, or None in open mode, where everything is allowed.
    """

    key: Key | None = None

    @property
    def actor(self) -> str:
        """The key's selector; empty in open mode."""
        return "" if self.key is None else self.key.selector

    @property
    def lineage(self) -> str:
        """The selector of the first of the keys that the caller's one succeeds by rotation; empty in open mode.

        Keys of one lineage are one person: none of them approves what another one wrote.
        """
        return "" if self.key is None else self.key.lineage or self.key.selector

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the caller may do."""
        match self.key:
            case None:
                return _ADMIN
            case Key(kind=KeyKind.PUBLIC):
                return _PUBLIC
            case Key(kind=KeyKind.SERVER, declare=True):
                return _SERVER | {Permission.DECLARE}
            case Key(kind=KeyKind.SERVER):
                return _SERVER
            case Key(kind=KeyKind.RELAY):
                return _RELAY
            case Key(role=role):
                return frozenset() if role is None else _ROLES[role]

    def require(self, permission: Permission) -> None:
        """Raise `PermissionDeniedError` unless the caller has *permission*."""
        if permission not in self.permissions:
            raise PermissionDeniedError(
                f"this key may not {permission.value}", metadata={"permission": permission.value}
            )

    @property
    def may_name_subjects(self) -> bool:
        """Evaluations may be for stored subjects; a public key, whose context anybody makes, is given that expressly."""
        return self.key is None or self.key.kind is not KeyKind.PUBLIC or self.key.subjects

    def may_declare(self, environment: Environment) -> bool:
        """Tell whether what the caller declares takes effect in *environment*, which it sees.

        In a protected one, where change-sets need an approval, the permission stands for it, and so it has to
        be given expressly, to an admin's key as well: else an admin could go round the approval alone.
        """
        if Permission.DECLARE not in self.permissions:
            return False
        return not environment.protected or self.key is None or self.key.declare_protected

    def may_override(self, environment: Environment) -> bool:
        """Tell whether the caller may decide in *environment*, which it sees, what settings are for single subjects.

        In a protected one that is for people who may approve, and for programs with the permission that stands for
        an approval of what they declare.
        """
        if not environment.protected or self.key is None:
            return True
        if self.key.kind is KeyKind.USER:
            return Permission.APPROVE in self.permissions
        return self.key.declare_protected

    def sees(self, project: str, environment: str = "") -> bool:
        """Tell whether the caller may know of the project, and of the environment when one is given."""
        if self.key is None:
            return True
        if self.key.project and self.key.project != project:
            return False
        return not environment or not self.key.environments or environment in self.key.environments

    def covers(self, item: Key | Webhook) -> bool:
        """Tell whether a key or webhook reaches no further than the caller, who may then know of it and end it."""
        own = self.key
        if own is None:
            return True
        if own.project and own.project != item.project:
            return False
        # One without environments reaches all of them.
        return not own.environments or (
            bool(item.environments) and set(item.environments) <= set(own.environments)
        )


OPEN: Final = Principal()
"""The caller in open mode."""


def authenticate(state: State, header: str | None, now: datetime.datetime) -> Principal:
    """Return who the ``Authorization`` *header* is.

    Raises:
        AuthenticationError: No key, or a bad, expired or revoked one. The text never tells an unknown selector
            from a wrong secret.
    """
    if not header:
        raise AuthenticationError("no key: send 'Authorization: Bearer rst_...'", reason="MISSING_KEY")
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise AuthenticationError("the authorization is not of the form 'Bearer rst_...'", reason="BAD_KEY")
    selector = key_selector(text)
    if selector is None:
        raise AuthenticationError("the key is mistyped or cut short", reason="BAD_KEY")
    key = state.keys.get(selector)
    # Compare even when there is no such key, so that the time taken tells nothing.
    verified = verify_secret(text, bytes(32) if key is None else key.verifier)
    if key is None or not verified or not text.startswith(f"rst_{key.kind.value}_"):
        raise AuthenticationError("the key is unknown", reason="BAD_KEY")
    if not in_force(key, now):
        word = "revoked" if key.revoked_at is not None else "expired"
        raise AuthenticationError(f"the key {selector} is {word}", reason=f"{word.upper()}_KEY")
    return Principal(key)


def in_force(key: Key | None, now: datetime.datetime) -> bool:
    """Tell whether a stored key still opens anything."""
    return key is not None and key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def still_in_force(state: State, principal: Principal, now: datetime.datetime) -> bool:
    """Tell whether the key of a caller, as *state* has it now, still opens anything."""
    return principal.key is not None and in_force(state.keys.get(principal.key.selector), now)


def life_left(state: State, principal: Principal, now: datetime.datetime) -> float | None:
    """Return the seconds until the key of a caller expires, as *state* has it now; None when it does not."""
    key = None if principal.key is None else state.keys.get(principal.key.selector)
    return None if key is None or key.expires_at is None else (key.expires_at - now).total_seconds()


def resolve_project(state: State, principal: Principal, project: str) -> ProjectState:
    """Return the project that a request means; an empty name is the key's, or ``default``.

    Raises:
        PermissionDeniedError: There is no such project, or the key does not know it; the same either way.
    """
    slug = project or (principal.key.project if principal.key is not None else "") or DEFAULT_PROJECT
    found = state.projects.get(slug)
    if found is None or not principal.sees(slug):
        raise PermissionDeniedError(
            f"the project {slug!r} is unknown", reason="UNKNOWN_PROJECT", metadata={"project": slug}
        )
    return found


def resolve(state: State, principal: Principal, project: str, environment: str) -> tuple[str, str]:
    """Return the project and environment that a request means; an empty environment is the only one there is.

    Raises:
        PermissionDeniedError: One of them is unknown, or unknown to the key.
        InvalidArgumentError: The environment is empty and there are several; the message lists them.
    """
    found = resolve_project(state, principal, project)
    slug = found.project.slug
    visible = [name for name in found.environments if principal.sees(slug, name)]
    if environment:
        if environment not in visible:
            raise PermissionDeniedError(
                f"the environment {environment!r} of the project {slug!r} is unknown",
                reason="UNKNOWN_ENVIRONMENT",
                metadata={"project": slug, "environment": environment},
            )
        return slug, environment
    if len(visible) != 1:
        choices = ", ".join(visible) or "none"
        raise InvalidArgumentError(
            f"name an environment of the project {slug!r}; it has {choices}",
            violations=[FieldViolation("environment", f"is empty; choose one of {choices}")],
            reason="ENVIRONMENT_REQUIRED",
            metadata={"project": slug, "environments": choices},
        )
    return slug, visible[0]
