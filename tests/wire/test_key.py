from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from rheo.v1 import key_pb2
from rheostat.errors import InvalidArgumentError
from rheostat.model.key import Key, KeyKind, Role
from rheostat.wire.key import (
    key_from_proto,
    key_kind_from_request,
    key_kind_to_proto,
    key_to_proto,
    relay_key_from_proto,
    relay_key_to_proto,
    role_from_request,
    role_to_proto,
)

NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)
KEY = Key(
    "ab12",
    KeyKind.PUBLIC,
    b"v" * 32,
    project="shop",
    environments=("a", "b"),
    declare=False,
    subjects=True,
    description="page",
    created_at=NOON,
    expires_at=NOON,
    revision=4,
)


def test_people_see_a_key_without_its_verifier() -> None:
    message = key_to_proto(KEY, last_used_at=NOON)
    assert KEY.verifier not in message.SerializeToString()
    assert message.last_used_at.ToDatetime(tzinfo=datetime.UTC) == NOON
    assert key_from_proto(message) == replace(KEY, verifier=b"")
    assert not key_to_proto(KEY).HasField("last_used_at")
    assert not key_to_proto(KEY).HasField("revoked_at")


def test_a_relay_sees_what_it_needs_to_check_a_key() -> None:
    message = relay_key_to_proto(KEY)
    assert relay_key_from_proto(message, 4) == replace(KEY, description="", created_at=None)


@pytest.mark.parametrize("kind", KeyKind)
def test_every_kind_has_its_number(kind: KeyKind) -> None:
    number = key_kind_to_proto(kind)
    assert number == key_pb2.KeyKind.Value(f"KEY_KIND_{kind.name}")
    assert key_kind_from_request(number, "kind") is kind


@pytest.mark.parametrize("role", [None, *Role])
def test_every_role_has_its_number(role: Role | None) -> None:
    number = role_to_proto(role)
    assert number == key_pb2.Role.Value(f"ROLE_{role.name if role else 'UNSPECIFIED'}")
    assert role_from_request(number, "role") is role


def test_unknown_kinds_and_roles_open_nothing() -> None:
    message = relay_key_to_proto(KEY)
    message.access.role = 99  # type: ignore[assignment]  # what a newer peer may send
    with pytest.raises(InvalidArgumentError, match="the role 99 is unknown"):
        relay_key_from_proto(message, 4)
    for number in (0, 99):
        with pytest.raises(InvalidArgumentError) as caught:
            key_kind_from_request(number, "kind")
        assert [v.field for v in caught.value.violations] == ["kind"]
