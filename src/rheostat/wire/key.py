"""Keys as messages; never their secrets."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import key_pb2
from rheostat.errors import FieldViolation, InvalidArgumentError
from rheostat.model.key import Key, KeyKind, Role
from rheostat.wire.instant import instant_from_proto, instant_to_proto

__all__ = [
    "key_from_proto",
    "key_kind_from_request",
    "key_kind_to_proto",
    "key_to_proto",
    "relay_key_from_proto",
    "relay_key_to_proto",
    "role_from_request",
    "role_to_proto",
]

_KINDS: Final[Mapping[int, KeyKind]] = {
    number: KeyKind[name.removeprefix("KEY_KIND_")] for name, number in key_pb2.KeyKind.items() if number
}
_KIND_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_ROLES: Final[Mapping[int, Role]] = {
    number: Role[name.removeprefix("ROLE_")] for name, number in key_pb2.Role.items() if number
}
_ROLE_NUMBERS: Final = {role: number for number, role in _ROLES.items()}


def key_to_proto(key: Key, *, last_used_at: datetime.datetime | None = None) -> key_pb2.Key:
    """Return *key* as people see it, without its verifier.

    Args:
        key: The key.
        last_used_at: When it was last used, which the store keeps beside it.
    """
    return key_pb2.Key(
        selector=key.selector,
        access=_access_to_proto(key),
        description=key.description,
        created_at=_optional_instant(key.created_at),
        expires_at=_optional_instant(key.expires_at),
        last_used_at=_optional_instant(last_used_at),
        revoked_at=_optional_instant(key.revoked_at),
        revision=key.revision,
    )


def key_from_proto(message: key_pb2.Key) -> Key:
    """Return the key of a peer's answer, with an empty verifier.

    Raises:
        InvalidArgumentError: The key's kind or role is not known to this version.
    """
    access = message.access
    return Key(
        selector=message.selector,
        kind=key_kind_from_request(access.kind, "access.kind"),
        verifier=b"",
        project=access.project,
        environments=tuple(access.environments),
        role=role_from_request(access.role, "access.role"),
        declare=access.declare,
        subjects=access.subjects,
        description=message.description,
        created_at=instant_from_proto(message.created_at) if message.HasField("created_at") else None,
        expires_at=instant_from_proto(message.expires_at) if message.HasField("expires_at") else None,
        revoked_at=instant_from_proto(message.revoked_at) if message.HasField("revoked_at") else None,
        revision=message.revision,
    )


def relay_key_to_proto(key: Key) -> key_pb2.RelayKey:
    """Return what a relay needs of *key* to check its own clients; a revoked key is a tombstone instead."""
    return key_pb2.RelayKey(
        selector=key.selector,
        verifier=key.verifier,
        access=_access_to_proto(key),
        expires_at=_optional_instant(key.expires_at),
    )


def relay_key_from_proto(message: key_pb2.RelayKey, revision: int) -> Key:
    """Return a relay's key, with the *revision* of its item.

    Raises:
        InvalidArgumentError: The key's kind or role is not known to this version, which must not let it in.
    """
    access = message.access
    return Key(
        selector=message.selector,
        kind=key_kind_from_request(access.kind, "access.kind"),
        verifier=message.verifier,
        project=access.project,
        environments=tuple(access.environments),
        role=role_from_request(access.role, "access.role"),
        declare=access.declare,
        subjects=access.subjects,
        expires_at=instant_from_proto(message.expires_at) if message.HasField("expires_at") else None,
        revision=revision,
    )


def key_kind_to_proto(kind: KeyKind) -> key_pb2.KeyKind:
    """Return the number of *kind*."""
    return _KIND_NUMBERS[kind]  # type: ignore[return-value]  # enum numbers are plain ints at run time


def key_kind_from_request(number: int, field: str) -> KeyKind:
    """Return the kind of a key.

    Raises:
        InvalidArgumentError: It is not said or not known here; the violation names *field*.
    """
    kind = _KINDS.get(number)
    if kind is None:
        raise _invalid(field, f"the key kind {number} is unknown" if number else "a key needs a kind")
    return kind


def role_to_proto(role: Role | None) -> key_pb2.Role:
    """Return the number of *role*; None is unspecified."""
    if role is None:
        return key_pb2.ROLE_UNSPECIFIED
    return _ROLE_NUMBERS[role]  # type: ignore[return-value]  # as above


def role_from_request(number: int, field: str) -> Role | None:
    """Return a role, or None when it is not said.

    Raises:
        InvalidArgumentError: It is not known here; the violation names *field*.
    """
    if number == key_pb2.ROLE_UNSPECIFIED:
        return None
    role = _ROLES.get(number)
    if role is None:
        raise _invalid(field, f"the role {number} is unknown")
    return role


def _access_to_proto(key: Key) -> key_pb2.KeyAccess:
    return key_pb2.KeyAccess(
        kind=key_kind_to_proto(key.kind),
        role=role_to_proto(key.role),
        project=key.project,
        environments=key.environments,
        declare=key.declare,
        subjects=key.subjects,
    )


def _optional_instant(instant: datetime.datetime | None) -> Timestamp | None:
    return None if instant is None else instant_to_proto(instant)


def _invalid(field: str, description: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field}: {description}", violations=[FieldViolation(field, description)])
