"""What a key that is bound to environments learns of the others: of their history, and of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1.key_pb2 import KEY_KIND_SERVER, KEY_KIND_USER, ROLE_ADMIN
from rheostat.errors import NotFoundError, PermissionDeniedError, RheostatError
from rheostat.language import parse_condition
from rheostat.model.change import Mutation, PutEnvironment, PutProject, PutSegment, PutSetting, SetValue
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.setting import Segment
from rheostat.model.type import INT
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.store import open_store

SETTING = {"type": "int", "default": 0}


@dataclass
class World:
    """A store with a production and a staging environment, each with a setting ``n``."""

    service: Service

    def __post_init__(self) -> None:
        self.handlers = Handlers(self.service)
        self.commit("", PutEnvironment("staging"))
        for environment in ("production", "staging"):
            self.commit(environment, PutSetting("n", SETTING))

    def commit(self, environment: str, *mutations: Mutation, project: str = "default") -> int:
        """Commit in open mode; returns the revision."""
        writer = Writer(OPEN, "Ada", f"about {environment or 'all'}", f"request-{self.service.head.revision}")
        return self.service.commit(writer, project, environment, mutations).revision

    @property
    def slugs(self) -> tuple[str, str]:
        return "production", "staging"

    def connect(self, environment: str, id_: str) -> None:
        """Let a client declare the setting ``any`` as a number."""
        declarations = [Declaration("any", INT, 0)]
        self.service.fleet.declare(
            "default", environment, declarations, continued=b"", client=ClientReport(id_), actor=""
        )

    def key(self, *environments: str, role: Role = Role.ADMIN, project: str = "default") -> Principal:
        key, _, _ = self.service.create_key(
            Writer(OPEN), kind=KeyKind.USER, role=role, project=project, environments=environments
        )
        return Principal(key)

    def ask(self, principal: Principal, method: str, **fields: Any) -> Any:
        request = getattr(admin, f"{method}Request")(**fields)
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method)[1:]
        call = Call(principal, "1", f"rheo.v1.AdminService/{method}")
        return self.handlers.handle(name, request, call)

    def reason(self, principal: Principal, method: str, **fields: Any) -> str:
        with pytest.raises(RheostatError) as caught:
            self.ask(principal, method, **fields)
        assert isinstance(caught.value, NotFoundError | PermissionDeniedError)
        return caught.value.reason

    def revisions(self, principal: Principal, **fields: Any) -> list[int]:
        """The revisions that all pages list, which are all full but the last."""
        listed: list[int] = []
        answer = self.ask(principal, "ListRevisions", **fields)
        while True:
            listed += [change_set.revision for change_set in answer.change_sets]
            if not answer.next_page_token:
                return listed
            assert len(answer.change_sets) == fields.get("page_size", 100)
            answer = self.ask(principal, "ListRevisions", page_token=answer.next_page_token, **fields)


@pytest.fixture
def world() -> Iterator[World]:
    with Service(open_store("memory:")) as service:
        yield World(service)


def selectors(answer: Any) -> set[str]:
    return {key.selector for key in answer.keys}


def selector(principal: Principal) -> str:
    assert principal.key is not None
    return principal.key.selector


# History.


def test_a_bound_viewer_finds_no_trace_of_other_environments_change_sets(world: World):
    hidden = world.commit("production", SetValue("n", 1))
    shown = world.commit("staging", SetValue("n", 2))
    both = world.commit("", SetValue("n", 3, "production"), SetValue("n", 4, "staging"))
    wide = world.commit("", PutSegment(Segment("beta", parse_condition("user.beta == true"))))
    viewer = world.key("staging", role=Role.VIEWER)
    listed = world.revisions(viewer)
    assert hidden not in listed
    assert listed[:3] == [wide, both, shown]
    assert world.reason(viewer, "GetRevision", revision=hidden) == "REVISION_NOT_FOUND"

    part = world.ask(viewer, "GetRevision", revision=both).change_set
    assert (part.author, part.message) == ("Ada", "about all")
    assert [change.environment for change in part.changes] == ["staging"]
    assert list(part.environments) == ["staging"]
    assert world.revisions(world.key(role=Role.VIEWER))[:4] == [wide, both, shown, hidden]


def test_a_hidden_revision_and_one_that_does_not_exist_are_told_alike(world: World):
    hidden = world.commit("production", SetValue("n", 1))
    viewer = world.key("staging", role=Role.VIEWER)
    messages = []
    for revision in (hidden, 999):
        with pytest.raises(NotFoundError) as caught:
            world.ask(viewer, "GetRevision", revision=revision)
        messages.append(caught.value.message.replace(str(revision), "N"))
    assert messages[0] == messages[1]


def test_a_bound_viewer_does_not_learn_of_the_making_of_other_environments(world: World):
    made = world.commit("", PutEnvironment("secret"))
    own = world.commit("", PutEnvironment("staging", title="Staging"))
    viewer = world.key("staging", role=Role.VIEWER)
    assert made not in world.revisions(viewer)
    assert own in world.revisions(viewer)
    assert world.reason(viewer, "GetRevision", revision=made) == "REVISION_NOT_FOUND"


def test_a_bound_viewer_is_not_told_of_clients_that_may_be_of_other_environments(world: World):
    world.commit("", *(PutSetting("any", {"type": "Json", "default": 0}, slug) for slug in world.slugs))
    world.connect("production", "secret-client")
    values = [SetValue("any", "x", slug) for slug in world.slugs]
    both = world.service.commit(Writer(OPEN), "default", "", values, force=True).revision
    whole = world.ask(world.key(role=Role.VIEWER), "GetRevision", revision=both).change_set
    assert list(whole.forced_clients) == ["secret-client"]
    part = world.ask(world.key("staging", role=Role.VIEWER), "GetRevision", revision=both).change_set
    assert not part.forced_clients


@pytest.mark.parametrize("page_size", [1, 2, 3])
@pytest.mark.parametrize("environments", [("staging",), ("staging", "dev")], ids=["one", "two"])
def test_pages_of_the_history_are_full_however_much_of_it_is_hidden(
    world: World, page_size: int, environments: tuple[str, ...]
):
    shown = []
    for number in range(1, 5):
        for hidden in range(1, 4):
            world.commit("production", SetValue("n", 10 * number + hidden))
        shown.append(world.commit("staging", SetValue("n", number)))
    world.commit("production", SetValue("n", 0))
    viewer = world.key(*environments, role=Role.VIEWER)
    assert world.revisions(viewer, page_size=page_size)[:4] == shown[::-1]
    assert world.revisions(viewer, page_size=page_size, setting="n")[:4] == shown[::-1]


def test_a_long_hidden_history_is_read_in_several_requests(world: World, monkeypatch: pytest.MonkeyPatch):
    shown = world.commit("staging", SetValue("n", 1))
    for number in range(1, 61):
        world.commit("production", SetValue("n", number))
    viewer = world.key("staging", "dev", role=Role.VIEWER)
    token, listed, requests = "", [], 0
    while shown not in listed:
        answer = world.ask(viewer, "ListRevisions", page_size=1, page_token=token)
        token = answer.next_page_token
        listed += [change_set.revision for change_set in answer.change_sets]
        requests += 1
        assert len(answer.change_sets) <= 1
        assert token
    assert 1 < requests < 20


def test_request_ids_are_shown_to_their_writer_only(world: World):
    writer = world.key()
    answer = world.ask(
        writer,
        "Commit",
        environment="staging",
        request_id="mine",
        mutations=[{"set_value": {"name": "n", "value": {"int_value": 1}}}],
    )

    def told(principal: Principal) -> set[str]:
        one = world.ask(principal, "GetRevision", revision=answer.revision).change_set
        listed = world.ask(principal, "ListRevisions", page_size=1).change_sets[0]
        return {one.request_id, listed.request_id}

    assert told(writer) == {"mine"}
    assert told(OPEN) == {"mine"}
    world.commit("production", SetValue("n", 1))
    reader = world.key("staging", role=Role.VIEWER)
    assert told(reader) == {""}


def test_the_history_of_keys_is_that_of_the_keys_that_the_reader_administers(world: World):
    theirs = world.key("production")
    made_theirs = world.service.head.revision
    own = world.key("staging")
    made_own = world.service.head.revision
    wide = world.key(project="")
    made_wide = world.service.head.revision
    assert made_own in world.revisions(own)
    assert made_theirs not in world.revisions(own)
    assert world.reason(own, "GetRevision", revision=made_theirs) == "REVISION_NOT_FOUND"
    project_wide = world.key()
    assert {made_own, made_theirs} < set(world.revisions(project_wide))
    assert world.reason(project_wide, "GetRevision", revision=made_wide) == "REVISION_NOT_FOUND"
    assert world.ask(wide, "GetRevision", revision=made_wide).change_set.changes
    viewer = world.key(role=Role.VIEWER)
    assert not {made_own, made_theirs} & set(world.revisions(viewer))
    assert world.ask(theirs, "GetRevision", revision=made_theirs).change_set.changes


def test_the_history_is_asked_for_by_author_key_time_and_kind(world: World):
    key = world.key(role=Role.EDITOR)
    own = world.service.commit(Writer(key, "Grace", "m"), "default", "staging", [SetValue("n", 5)]).revision
    segment = world.commit("", PutSegment(Segment("beta", parse_condition("user.beta == true"))))
    viewer = world.key(role=Role.VIEWER)
    admin = world.key()
    assert world.revisions(viewer, author="Grace") == world.revisions(viewer, actor=selector(key)) == [own]
    assert world.revisions(viewer, author="grace") == []
    assert world.revisions(viewer, kind="segment") == [segment]
    assert world.revisions(viewer, kind="setting", setting="n", author="Grace") == [own]
    assert world.revisions(viewer, kind="segment", setting="n") == []
    assert world.revisions(viewer, kind="key") == [], "which keys there are is for administrators"
    assert len(world.revisions(admin, kind="key")) == 3
    at = world.service.change_set("default", own).created_at
    assert at is not None
    later = world.revisions(viewer, since=at)
    assert own in later
    assert segment in later
    assert own not in world.revisions(viewer, until=at)
    assert world.revisions(viewer, since=at, until=at) == []


def test_what_a_key_does_not_see_of_a_change_set_is_not_what_it_has_asked_for(world: World):
    world.commit("", PutSetting("m", SETTING, "staging"), SetValue("n", 9, "production"))
    bound = world.key("staging", "dev", role=Role.VIEWER)
    assert len(world.revisions(bound, setting="n")) == 1, "the one that made it"


# Reverts.


@pytest.mark.parametrize("changed_again", [False, True])
def test_reverting_another_environments_change_set_tells_nothing_of_it(world: World, changed_again: bool):
    revision = world.commit("", SetValue("n", 1, "production"), SetValue("n", 1, "staging"))
    if changed_again:
        world.commit("production", SetValue("n", 2))
    editor = world.key("staging", role=Role.EDITOR)
    for target in ({"revision": revision}, {"to_revision": revision - 1}):
        assert world.reason(editor, "Revert", dry_run=True, **target) == "OUT_OF_SCOPE"
    # Its own part it may undo.
    answer = world.ask(editor, "Revert", revision=revision, environment="staging")
    assert [change.environment for change in answer.changes] == ["staging"]


# Keys.


@pytest.mark.parametrize(
    ("own", "other", "covers"),
    [
        (("default",), ("default",), True),
        (("default",), ("default", "staging"), True),
        (("default", "staging"), ("default", "staging"), True),
        (("default", "staging", "dev"), ("default", "dev"), True),
        (("default", "staging"), ("default", "production"), False),
        (("default", "staging"), ("default", "staging", "production"), False),
        (("default", "staging"), ("default",), False),
        (("default", "staging"), ("shop", "staging"), False),
        (("default",), ("shop",), False),
        (("default",), ("",), False),
        (("",), ("default",), True),
        (("",), ("",), True),
        (("", "staging"), ("shop", "staging"), True),
        (("", "staging"), ("",), False),
    ],
)
def test_a_key_covers_those_that_reach_no_further(own: tuple[str, ...], other: tuple[str, ...], covers: bool):
    first, second = (Key("k", KeyKind.USER, b"", key[0], key[1:]) for key in (own, other))
    assert Principal(first).covers(second) is covers
    assert OPEN.covers(second)


def test_a_bound_administrator_reaches_no_other_environments_keys(world: World):
    own, same = world.key("staging"), world.key("staging")
    others = [world.key("production"), world.key("production", "staging"), world.key(), world.key(project="")]
    assert selectors(world.ask(own, "ListKeys")) == {selector(own), selector(same)}
    assert world.ask(own, "GetKey", selector=selector(same)).key.selector == selector(same)
    for other in others:
        assert world.reason(own, "GetKey", selector=selector(other)) == "KEY_NOT_FOUND"
        assert world.reason(own, "RevokeKey", selector=selector(other)) == "KEY_NOT_FOUND"
        assert world.service.key_in_force(other)
    assert world.ask(own, "RevokeKey", selector=selector(same)).key.HasField("revoked_at")
    assert not world.service.key_in_force(same)


def test_an_administrator_of_a_project_reaches_all_its_keys_and_no_others(world: World):
    world.commit("", PutProject("shop"), PutEnvironment("production"), project="shop")
    own, bound = world.key(), world.key("staging")
    others = [world.key(project="shop"), world.key(project="")]
    assert selectors(world.ask(own, "ListKeys")) == {selector(own), selector(bound)}
    for other in others:
        assert world.reason(own, "GetKey", selector=selector(other)) == "KEY_NOT_FOUND"
        assert world.reason(own, "RevokeKey", selector=selector(other)) == "KEY_NOT_FOUND"
    wide = others[1]
    assert selectors(world.ask(wide, "ListKeys")) == {selector(own), selector(bound), selector(wide)}
    assert world.ask(wide, "RevokeKey", selector=selector(own)).revision


@pytest.mark.parametrize(
    "environments",
    [
        {"environments": ["production"]},
        {"environment": "production"},
        {"environments": ["staging", "production"]},
        {"environments": ["staging"], "environment": "production"},
        {"environments": ["none"]},
    ],
)
def test_a_bound_administrator_makes_no_keys_of_other_environments(
    world: World, environments: dict[str, Any]
):
    own = world.key("staging")
    before = set(world.service.head.state.keys)
    for kind in ({"kind": KEY_KIND_SERVER}, {"kind": KEY_KIND_USER, "role": ROLE_ADMIN}):
        assert world.reason(own, "CreateKey", **kind, **environments) == "UNKNOWN_ENVIRONMENT"
    assert set(world.service.head.state.keys) == before


@pytest.mark.parametrize("project", ["default", ""])
def test_the_keys_of_a_bound_administrator_reach_no_further_than_its_own(world: World, project: str):
    own = world.key("staging", "dev", project=project)
    for fields in ({}, {"environment": "staging"}, {"environments": ["staging"]}):
        made = world.ask(own, "CreateKey", kind=KEY_KIND_SERVER, project="default", **fields).key
        assert own.covers(world.service.head.state.keys[made.selector])
