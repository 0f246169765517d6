from __future__ import annotations

import datetime
import itertools
from dataclasses import replace

import pytest

from rheostat.errors import AuthenticationError, InvalidArgumentError, PermissionDeniedError
from rheostat.model.change import Environment, Project
from rheostat.model.key import Key, KeyKind, Role, make_secret
from rheostat.model.state import EnvironmentState, ProjectState, State
from rheostat.service.access import (
    OPEN,
    Permission,
    Principal,
    authenticate,
    resolve,
    resolve_project,
)

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)


def project(slug: str, *environments: str) -> ProjectState:
    entries = {name: EnvironmentState(Environment(name)) for name in environments}
    return ProjectState(Project(slug), entries)


TEXT, SELECTOR, VERIFIER = make_secret(KeyKind.SERVER, bytes(range(40)))
KEY = Key(SELECTOR, KeyKind.SERVER, VERIFIER, project="shop", environments=("staging", "production"))
STATE = State(
    projects={
        "shop": project("shop", "production", "staging", "secret-launch"),
        "other": project("other", "live"),
        "default": project("default", "production"),
    },
    keys={SELECTOR: KEY},
)


def known(**changes: object) -> State:
    return replace(STATE, keys={SELECTOR: replace(KEY, **changes)})  # type: ignore[arg-type]


# Who is calling.


@pytest.mark.parametrize("header", [f"Bearer {TEXT}", f"bearer  {TEXT} ", f"BEARER {TEXT}"])
def test_a_key_is_found_by_its_text(header: str) -> None:
    assert authenticate(STATE, header, NOW).key == KEY


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "MISSING_KEY"),
        ("", "MISSING_KEY"),
        ("Bearer", "BAD_KEY"),
        ("Bearer ", "BAD_KEY"),
        (TEXT, "BAD_KEY"),
        (f"Basic {TEXT}", "BAD_KEY"),
        (f"Bearer {TEXT[:-1]}", "BAD_KEY"),
        (f"Bearer {TEXT} {TEXT}", "BAD_KEY"),
        (f"Bearer {make_secret(KeyKind.SERVER, bytes(40))[0]}", "BAD_KEY"),
        (f"Bearer {make_secret(KeyKind.SERVER, bytes(range(8)) + bytes(32))[0]}", "BAD_KEY"),
        (f"Bearer {make_secret(KeyKind.USER, bytes(range(40)))[0]}", "BAD_KEY"),
    ],
    ids=[
        "none",
        "empty",
        "no key",
        "blank",
        "no scheme",
        "basic",
        "cut",
        "two",
        "unknown",
        "wrong secret",
        "wrong kind",
    ],
)
def test_anything_else_is_refused(header: str | None, reason: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authenticate(STATE, header, NOW)
    assert caught.value.reason == reason
    assert TEXT[30:60] not in caught.value.message


def test_an_unknown_selector_and_a_wrong_secret_read_the_same() -> None:
    messages = set()
    for raw in (bytes(40), bytes(range(8)) + bytes(32)):
        with pytest.raises(AuthenticationError) as caught:
            authenticate(STATE, f"Bearer {make_secret(KeyKind.SERVER, raw)[0]}", NOW)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_key_opens_until_it_expires_or_is_revoked() -> None:
    header = f"Bearer {TEXT}"
    assert authenticate(known(expires_at=NOW + SECOND), header, NOW).key is not None
    for state, reason in (
        (known(expires_at=NOW), "EXPIRED_KEY"),
        (known(revoked_at=NOW - SECOND), "REVOKED_KEY"),
        (known(revoked_at=NOW + SECOND), "REVOKED_KEY"),
        (known(revoked_at=NOW, expires_at=NOW), "REVOKED_KEY"),
    ):
        with pytest.raises(AuthenticationError) as caught:
            authenticate(state, header, NOW)
        assert caught.value.reason == reason


# What they may do.


def of_kind(kind: KeyKind, role: Role | None = None, *, declare: bool = False) -> frozenset[Permission]:
    return Principal(replace(KEY, kind=kind, role=role, declare=declare)).permissions


def test_a_public_key_only_evaluates_and_tells_of_it() -> None:
    only = {Permission.PING, Permission.EVALUATE, Permission.EXPOSE}
    assert of_kind(KeyKind.PUBLIC, declare=True) == only
    assert not Principal(replace(KEY, kind=KeyKind.PUBLIC)).may_name_subjects
    assert Principal(replace(KEY, kind=KeyKind.PUBLIC, subjects=True)).may_name_subjects


def test_who_may_edit_sees_and_writes_subjects_and_who_may_view_does_not() -> None:
    assert Permission.SUBJECTS not in of_kind(KeyKind.USER, Role.VIEWER)
    assert Permission.SUBJECTS in of_kind(KeyKind.USER, Role.EDITOR)
    assert Permission.SUBJECTS in of_kind(KeyKind.SERVER)


def test_a_server_key_watches_and_declares_when_it_may_and_never_edits() -> None:
    plain = of_kind(KeyKind.SERVER)
    assert Permission.WATCH in plain
    assert plain.isdisjoint({Permission.DECLARE, Permission.VIEW, Permission.EDIT, Permission.ADMINISTER})
    assert of_kind(KeyKind.SERVER, declare=True) == plain | {Permission.DECLARE}


def test_a_relay_key_only_watches_and_reports() -> None:
    assert of_kind(KeyKind.RELAY, declare=True) == {Permission.PING, Permission.WATCH, Permission.REPORT}


def test_each_role_includes_those_before_it() -> None:
    roles = [of_kind(KeyKind.USER, role) for role in Role]
    assert all(less <= more for less, more in itertools.pairwise(roles))
    assert Permission.EDIT not in roles[0]
    assert Permission.ADMINISTER not in roles[2]
    assert roles[3] == OPEN.permissions == frozenset(Permission)
    assert of_kind(KeyKind.USER) == frozenset(), "a user without a role may nothing"


def test_what_is_not_allowed_is_refused_by_name() -> None:
    OPEN.require(Permission.ADMINISTER)
    with pytest.raises(PermissionDeniedError) as caught:
        Principal(KEY).require(Permission.EDIT)
    assert caught.value.metadata == {"permission": "edit"}


# Where.


def test_an_empty_project_is_the_key_s_or_default() -> None:
    assert resolve_project(STATE, Principal(KEY), "").project.slug == "shop"
    assert resolve_project(STATE, OPEN, "").project.slug == "default"
    assert resolve_project(STATE, Principal(replace(KEY, project="")), "").project.slug == "default"


def test_a_project_that_the_key_does_not_know_reads_like_one_that_is_not_there() -> None:
    messages = set()
    for slug in ("other", "never"):
        with pytest.raises(PermissionDeniedError) as caught:
            resolve_project(STATE, Principal(KEY), slug)
        assert caught.value.reason == "UNKNOWN_PROJECT"
        messages.add(caught.value.message.replace(slug, ""))
    assert len(messages) == 1


def test_an_environment_that_the_key_does_not_know_reads_like_one_that_is_not_there() -> None:
    messages = set()
    for slug in ("secret-launch", "never"):
        with pytest.raises(PermissionDeniedError) as caught:
            resolve(STATE, Principal(KEY), "shop", slug)
        assert caught.value.reason == "UNKNOWN_ENVIRONMENT"
        messages.add(caught.value.message.replace(slug, ""))
    assert len(messages) == 1
    assert resolve(STATE, Principal(KEY), "shop", "staging") == ("shop", "staging")
    assert resolve(STATE, OPEN, "shop", "secret-launch") == ("shop", "secret-launch")


def test_an_empty_environment_is_the_only_one_that_the_caller_has() -> None:
    assert resolve(STATE, OPEN, "", "") == ("default", "production")
    alone = Principal(replace(KEY, environments=("staging",)))
    assert resolve(STATE, alone, "", "") == ("shop", "staging")
    with pytest.raises(InvalidArgumentError) as caught:
        resolve(STATE, Principal(KEY), "", "")
    assert caught.value.reason == "ENVIRONMENT_REQUIRED"
    assert caught.value.metadata["environments"] == "production, staging"
    assert "secret-launch" not in caught.value.message
    assert [violation.field for violation in caught.value.violations] == ["environment"]
    with pytest.raises(InvalidArgumentError, match="it has none"):
        resolve(STATE, Principal(replace(KEY, environments=("gone",))), "", "")
