"""Drafts over the wire: who gets at them, and what is answered."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rheo.v1 import draft_pb2
from rheo.v1 import draft_service_pb2 as messages
from rheo.v1.change_pb2 import Mutation, RevisionConflict
from rheo.v1.value_pb2 import Value
from rheostat.errors import RheostatError
from rheostat.model.change import PutEnvironment, PutSetting
from rheostat.model.draft import MissingApproval
from rheostat.model.key import KeyKind, Role
from rheostat.server import wsgi_app
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from rheostat.wire.draft import draft_from_proto
from tests.server.exchange import Answered, Wsgi, asked

DRAFT = "rheo.v1.DraftService/"
OPEN_WRITER = Writer(OPEN)


class Desk:
    """A server that demands keys, with the protected environment ``production`` and the free one ``staging``."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.application = Wsgi(wsgi_app(service, open=False))
        service.commit(
            OPEN_WRITER,
            "default",
            "",
            [PutEnvironment("production", protected=True), PutEnvironment("staging")],
        )
        for environment in ("production", "staging"):
            service.commit(
                OPEN_WRITER, "default", environment, [PutSetting("n", {"type": "int", "default": 0})]
            )
        self.editor = self.key(Role.EDITOR, "Ed")
        self.approver = self.key(Role.APPROVER, "Ann")

    def key(self, role: Role | None, description: str = "", *environments: str, **options: Any) -> str:
        options = {"kind": KeyKind.USER, "project": "default", **options}
        _, text, _ = self.service.create_key(
            OPEN_WRITER, role=role, description=description, environments=environments, **options
        )
        return text

    def send(self, key: str, method: str, **fields: Any) -> Answered:
        request = getattr(messages, f"{method}Request")(**fields)
        return self.application(
            asked(f"{DRAFT}{method}", request, "proto", ("authorization", f"Bearer {key}"))
        )

    def ask(self, key: str, method: str, **fields: Any) -> Any:
        answered = self.send(key, method, **fields)
        assert answered.code == "ok", answered.error
        return getattr(messages, f"{method}Response").FromString(answered.body)

    def create(self, key: str = "", value: int = 1, **fields: Any) -> Any:
        fields = {"environment": "production", "mutations": [set_value(value)], **fields}
        return self.ask(key or self.editor, "CreateDraft", **fields)


def set_value(value: int, environment: str = "") -> Mutation:
    return Mutation(set_value={"environment": environment, "name": "n", "value": Value(int_value=value)})


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Service(open_store("memory:")) as service:
        yield Desk(service)


def test_a_draft_goes_its_way(desk: Desk):
    made = desk.create(message="Slow banks")
    assert (made.draft.author, made.draft.state) == ("Ed", draft_pb2.DRAFT_STATE_OPEN)
    assert [change.key for change in made.changes] == ["n"]
    assert list(made.draft.environments) == ["production"]
    (missing,) = made.draft.missing_approvals
    assert (missing.environment, missing.required, missing.given) == ("production", 1, 0)

    refused = desk.send(desk.editor, "PublishDraft", id=made.draft.id)
    assert (refused.code, refused.reason) == ("failed_precondition", "APPROVAL_REQUIRED")
    approved = desk.ask(desk.approver, "ApproveDraft", id=made.draft.id, version=1, comment="fine").draft
    assert [(a.author, a.comment) for a in approved.approvals] == [("Ann", "fine")]
    assert not approved.missing_approvals
    assert desk.ask(desk.editor, "GetDraft", id=made.draft.id).draft == approved

    published = desk.ask(desk.editor, "PublishDraft", id=made.draft.id, version=2)
    assert published.draft.state == draft_pb2.DRAFT_STATE_COMMITTED
    assert published.revision == published.draft.revision == desk.service.head.revision
    assert [change.after.setting.value.int_value for change in published.changes] == [1]
    again = desk.ask(desk.editor, "PublishDraft", id=made.draft.id)
    assert (again.revision, again.changes) == (published.revision, published.changes)
    got = desk.ask(desk.editor, "GetDraft", id=made.draft.id)
    assert not got.changes and "committed" in got.problem


def test_a_draft_is_updated_scheduled_and_cancelled(desk: Desk):
    made = desk.create().draft
    updated = desk.ask(desk.editor, "UpdateDraft", id=made.id, version=1, mutations=[set_value(2)])
    assert (updated.draft.version, updated.draft.mutations[0].set_value.value.int_value) == (2, 2)
    desk.ask(desk.approver, "ApproveDraft", id=made.id, version=2)
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    scheduled = desk.ask(desk.editor, "PublishDraft", id=made.id, at=at)
    assert scheduled.draft.state == draft_pb2.DRAFT_STATE_SCHEDULED and not scheduled.revision
    assert scheduled.draft.scheduled_at.ToDatetime(datetime.UTC) == at
    cancelled = desk.ask(desk.editor, "CancelDraft", id=made.id).draft
    assert cancelled.state == draft_pb2.DRAFT_STATE_CANCELLED and not cancelled.HasField("scheduled_at")
    assert not desk.ask(desk.editor, "ListDrafts").drafts
    listed = desk.ask(desk.editor, "ListDrafts", states=[draft_pb2.DRAFT_STATE_CANCELLED]).drafts
    assert [draft.id for draft in listed] == [made.id]


def test_a_conflict_tells_what_has_changed_and_when(desk: Desk):
    seen = desk.service.head.revision
    first, second = desk.create(value=1).draft, desk.create(value=2, base_revision=seen).draft
    for draft in (first, second):
        desk.ask(desk.approver, "ApproveDraft", id=draft.id, version=1)
    revision = desk.ask(desk.editor, "PublishDraft", id=first.id).revision
    answered = desk.send(desk.editor, "PublishDraft", id=second.id)
    assert (answered.code, answered.reason) == ("aborted", "REVISION_CONFLICT")
    conflict = answered.detail(RevisionConflict)
    assert conflict.expected_revision == seen
    assert [(item.environment, item.kind, item.key, item.revision) for item in conflict.items] == [
        ("production", "setting", "n", revision)
    ]
    answered = desk.send(desk.editor, "CancelDraft", id=second.id, version=1)
    assert (answered.code, answered.reason) == ("aborted", "DRAFT_CHANGED")
    assert [(item.kind, item.revision) for item in answered.detail(RevisionConflict).items] == [("draft", 2)]


def test_a_field_at_fault_is_named(desk: Desk):
    answered = desk.send(
        desk.editor,
        "CreateDraft",
        environment="production",
        mutations=[set_value(1), Mutation(set_value={"name": "n", "value": Value(string_value="x")})],
    )
    assert answered.code == "invalid_argument"
    assert answered.fields == ["mutations[1].set_value.value"]


def test_a_repeat_of_a_request_answers_the_same_draft(desk: Desk):
    first = desk.create(request_id="r1")
    assert desk.create(request_id="r1").draft == first.draft
    answered = desk.send(
        desk.editor, "CreateDraft", environment="production", mutations=[set_value(9)], request_id="r1"
    )
    assert (answered.code, answered.reason) == ("already_exists", "REQUEST_ID_REUSED")
    # Another key's request ids are its own.
    other = desk.create(desk.approver, request_id="r1", value=9)
    assert other.draft.id != first.draft.id


def test_pages_follow_each_other_and_foreign_tokens_are_refused(desk: Desk):
    ids = {desk.create(value=number).draft.id for number in range(1, 6)}
    seen: list[str] = []
    token = ""
    while True:
        page = desk.ask(desk.editor, "ListDrafts", page_size=2, page_token=token)
        seen += [draft.id for draft in page.drafts]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == 5 and set(seen) == ids and seen == sorted(seen)
    answered = desk.send(desk.editor, "ListDrafts", page_token="!!")
    assert (answered.code, answered.fields) == ("invalid_argument", ["page_token"])


METHODS: dict[str, dict[str, Any]] = {
    "CreateDraft": {"environment": "staging", "mutations": [set_value(5)]},
    "UpdateDraft": {"mutations": [set_value(6)]},
    "GetDraft": {},
    "ListDrafts": {},
    "ApproveDraft": {"version": 1},
    "PublishDraft": {},
    "CancelDraft": {},
}


def with_id(method: str, draft_id: str) -> dict[str, Any]:
    fields = METHODS[method]
    return fields if method in ("CreateDraft", "ListDrafts") else {**fields, "id": draft_id}


@pytest.mark.parametrize("kind", [KeyKind.PUBLIC, KeyKind.SERVER, KeyKind.RELAY])
def test_keys_of_programs_get_at_no_draft(desk: Desk, kind: KeyKind):
    draft_id = desk.create().draft.id
    key = desk.key(None, "", "production", kind=kind)
    for method in METHODS:
        answered = desk.send(key, method, **with_id(method, draft_id))
        assert answered.code == "permission_denied", method
        assert draft_id not in answered.message


def test_a_viewer_reads_and_an_editor_writes_and_an_approver_approves(desk: Desk):
    may = {
        Role.VIEWER: {"GetDraft", "ListDrafts"},
        Role.EDITOR: set(METHODS) - {"ApproveDraft"},
        Role.APPROVER: set(METHODS),
    }
    numbers = itertools.count(100)
    for role, methods in may.items():
        key = desk.key(role)
        for method in METHODS:
            draft_id = desk.create(environment="staging", value=next(numbers)).draft.id
            answered = desk.send(key, method, **with_id(method, draft_id))
            assert (answered.code != "permission_denied") == (method in methods), (role, method)


def test_a_key_of_another_environment_finds_nothing(desk: Desk):
    draft_id = desk.create(mutations=[set_value(1, "production"), set_value(1, "staging")]).draft.id
    bound = desk.key(Role.APPROVER, "", "staging")
    assert not desk.ask(bound, "ListDrafts").drafts
    for method in ("UpdateDraft", "GetDraft", "ApproveDraft", "PublishDraft", "CancelDraft"):
        hidden = desk.send(bound, method, **with_id(method, draft_id))
        assert (hidden.code, hidden.reason) == ("not_found", "DRAFT_NOT_FOUND"), method
        missing = desk.send(bound, method, **with_id(method, "nothing"))
        assert hidden.message.replace(draft_id, "nothing") == missing.message
    answered = desk.send(bound, "CreateDraft", environment="production", mutations=[set_value(1)])
    assert answered.code == "permission_denied"


def test_an_approver_of_one_environment_is_answered_nothing_of_the_others(desk: Desk):
    mutations = [set_value(1, "production"), set_value(77, "staging")]
    draft_id = desk.create(environment="", mutations=mutations).draft.id
    bound = desk.key(Role.APPROVER, "", "production")
    for method in ("GetDraft", "ListDrafts", "ApproveDraft"):
        answered = desk.send(bound, method, **with_id(method, draft_id))
        assert answered.code == "ok" and draft_id.encode() in answered.body
        assert b"staging" not in answered.body, method
    (change,) = desk.ask(bound, "GetDraft", id=draft_id).changes
    assert change.environment == "production"
    assert desk.ask(desk.editor, "PublishDraft", id=draft_id).draft.state == draft_pb2.DRAFT_STATE_COMMITTED


def test_a_list_leaves_out_what_drafts_do(desk: Desk):
    made = desk.create().draft
    (listed,) = desk.ask(desk.editor, "ListDrafts").drafts
    assert not listed.mutations
    made.ClearField("mutations")
    assert listed == made


def test_a_draft_comes_back_from_its_message(desk: Desk):
    made = desk.create(message="why", force=True)
    desk.ask(desk.approver, "ApproveDraft", id=made.draft.id, version=1, comment="fine")
    draft, missing = draft_from_proto(desk.ask(desk.editor, "GetDraft", id=made.draft.id).draft)
    stored = desk.service.drafts.get(OPEN, "default", made.draft.id).draft
    assert draft == replace(stored, content="") and missing == ()
    assert draft_from_proto(made.draft)[1] == (MissingApproval("production", 1, 0, self_approval=False),)


def test_a_draft_that_an_older_version_cannot_read_is_refused_there(desk: Desk):
    message = desk.create().draft
    message.mutations.add()
    with pytest.raises(RheostatError):
        draft_from_proto(message)


@pytest.mark.parametrize("method", ["CreateDraft", "UpdateDraft"])
def test_the_message_of_a_draft_holds_no_credential(desk: Desk, method: str) -> None:
    secret = "AKIAIOSFODNN7EXAMPLE"
    fields = {"id": desk.create().draft.id} if method == "UpdateDraft" else {}
    answered = desk.send(desk.editor, method, mutations=[set_value(3)], message=f"with {secret}", **fields)
    assert (answered.code, answered.reason) == ("invalid_argument", "LOOKS_LIKE_CREDENTIAL")
    assert answered.fields == ["message"]
    assert secret.encode() not in answered.body
