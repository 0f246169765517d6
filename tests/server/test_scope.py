"""What a key that is bound to one environment learns of the others by writing: that it may not, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import draft_service_pb2 as drafts
from rheo.v1.change_pb2 import Mutation as MutationMessage
from rheostat.language import parse_condition
from rheostat.model.change import (
    DeleteSegment,
    DeleteSetting,
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    SetFeatures,
    SetValue,
)
from rheostat.model.key import KeyKind, Role
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Segment
from rheostat.server import wsgi_app
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from rheostat.wire.condition import condition_to_proto
from tests.server.exchange import Answered, Wsgi, asked

OWN, HIDDEN, MISSING = "staging", "hidden-land", "no-such-land"

SECRET = "prod-db-7.internal"

INT = {"type": "int", "default": {"int_value": 0}}
CONDITION = condition_to_proto(parse_condition('country == "it"'))
LOOSE = condition_to_proto(parse_condition('segment("nobody") or city == "Rome"'))


def _rule(id_: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": id_, "value": value, **more}


IN_ENVIRONMENT: dict[str, list[dict[str, Any]]] = {
    "put_setting": [
        {"setting": {"name": "host", "type": "int"}, "update_mask": {"paths": ["type"]}},
        {"setting": {"name": "host", "type": "nonsense("}, "update_mask": {"paths": ["type"]}},
        {"setting": {"name": "host", "default": {"string_value": SECRET}}},
        {"setting": {"name": "limit", "default": {"string_value": "x"}}},
        {"setting": {"name": "limit", "aliases": ["host"]}, "update_mask": {"paths": ["aliases"]}},
        {"setting": {"name": "nothing", "description": "x"}},
        {"setting": {"name": "nothing", **INT}},
        {"setting": {"name": "nothing", **INT, "aliases": ["limit"]}},
        {"setting": {"name": "gone", **INT}},
    ],
    "rename_setting": [
        {"name": "limit", "new_name": "host"},
        {"name": "limit", "new_name": "fresh"},
        {"name": "host", "new_name": "..."},
        {"name": "nothing", "new_name": "limit"},
    ],
    "delete_setting": [{"name": "limit"}, {"name": "host"}, {"name": "nothing"}, {"name": "gone"}],
    "set_value": [
        {"name": "limit", "value": {"int_value": 4217}},
        {"name": "limit", "value": {"int_value": 5}},
        {"name": "limit", "value": {"string_value": "x"}},
        {"name": "host", "value": {"string_value": "AKIAIOSFODNN7EXAMPLE"}},
        {"name": "nothing", "value": {"int_value": 5}},
    ],
    "unset_value": [{"name": "limit"}, {"name": "host"}, {"name": "nothing"}],
    "put_rule": [
        {"setting": "limit", "rule": _rule("r1", {"int_value": 1})},
        {"setting": "limit", "rule": _rule("r1", {"string_value": "x"})},
        {"setting": "limit", "rule": _rule("r2", {"int_value": 1}, condition=LOOSE), "before_id": "r1"},
        {"setting": "limit", "rule": _rule("r2", {"int_value": 1}, condition=CONDITION), "before_id": "r9"},
        {"setting": "nothing", "rule": _rule("r1", {"int_value": 1})},
    ],
    "move_rule": [
        {"setting": "limit", "rule_id": "r1", "before_id": "r0"},
        {"setting": "limit", "rule_id": "r1", "after_id": "r9"},
        {"setting": "limit", "rule_id": "r9", "before_id": "r1"},
        {"setting": "nothing", "rule_id": "r1", "before_id": "r0"},
    ],
    "delete_rule": [
        {"setting": "limit", "rule_id": "r1"},
        {"setting": "limit", "rule_id": "r9"},
        {"setting": "nothing", "rule_id": "r1"},
    ],
}
"""What is asked for of an environment, by kind of mutation; what exists and what does not, good and bad."""

PROJECT_WIDE: dict[str, list[dict[str, Any]]] = {
    "put_project": [{"project": {"title": "Shop"}}, {"project": {"description": "x" * 300}}],
    "put_segment": [
        {"segment": {"name": "vip", "condition": CONDITION}},
        {"segment": {"name": "vip", "condition": LOOSE}},
        {"segment": {"name": "vip", "description": "x"}},
        {"segment": {"name": "nothing", "description": "x"}},
        {"segment": {"name": "nothing", "condition": CONDITION}},
    ],
    "delete_segment": [{"name": "vip"}, {"name": "free"}, {"name": "nothing"}],
    "set_features": [
        {"features": []},
        {"features": ["country", "user"]},
        {"features": ["city"]},
    ],
}
"""What changes every environment, by kind of mutation."""

OF_ENVIRONMENTS: list[dict[str, Any]] = [
    {"title": "x"},
    {"protected": True},
    {"protected": False},
    {"required_approvals": 3},
    {},
]
"""What is asked to be written into an environment."""


def _cases() -> Iterator[tuple[str, list[MutationMessage]]]:
    for kind, contents in IN_ENVIRONMENT.items():
        yield (
            kind,
            [
                MutationMessage(**{kind: {**content, "environment": environment}})
                for environment in (HIDDEN, MISSING)
                for content in contents
            ],
        )
    for kind, contents in PROJECT_WIDE.items():
        yield kind, [MutationMessage(**{kind: content}) for content in contents]
    yield (
        "put_environment",
        [
            MutationMessage(put_environment={"environment": {"name": environment, **content}})
            for environment in (HIDDEN, MISSING)
            for content in OF_ENVIRONMENTS
        ],
    )


CASES = dict(_cases())


class Desk:
    """A server that demands keys, and an environment full of what the caller must not learn."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.application = Wsgi(wsgi_app(service, open=False))
        self.commit(
            PutProject("shop"),
            PutEnvironment(OWN),
            PutEnvironment(HIDDEN, protected=True, required_approvals=3),
        )
        self.commit(PutEnvironment(OWN, title="Staging"), SetFeatures(("country", "user", "city")))
        self.commit(
            PutSegment(Segment("vip", parse_condition('user in ["ceo"]'))),
            PutSegment(Segment("free", parse_condition('user in ["x"]'))),
        )
        own = [PutSetting("n", {"type": "int", "default": 0}, OWN)]
        self.commit(
            PutSetting("host", {"type": "str", "default": SECRET}, HIDDEN),
            PutSetting("limit", {"type": "int", "default": 4217, "features": ("user", "city")}, HIDDEN),
            PutSetting("gone", {"type": "int", "default": 0}, HIDDEN),
            *own,
        )
        vip = parse_condition('segment("vip")')
        self.commit(
            PutRule("limit", Rule("r0", ValueOutcome(1), vip), environment=HIDDEN),
            PutRule("limit", Rule("r1", ValueOutcome(2), vip), environment=HIDDEN),
        )
        self.commit(DeleteSetting("gone", HIDDEN))
        _, self.key, _ = service.create_key(
            Writer(OPEN), kind=KeyKind.USER, role=Role.ADMIN, project="shop", environments=(OWN,)
        )

    def commit(self, *mutations: Mutation) -> int:
        return self.service.commit(Writer(OPEN), "shop", "", mutations, force=True).revision

    def send(self, method: str, request: Any) -> Answered:
        return self.application(
            asked(f"rheo.v1.{method}", request, "proto", ("authorization", f"Bearer {self.key}"))
        )

    def attempts(self, mutation: MutationMessage) -> Iterator[tuple[str, Answered]]:
        """Try a mutation in every way there is, before and behind one that the caller may do."""
        allowed = MutationMessage(set_value={"environment": OWN, "name": "n", "value": {"int_value": 1}})
        draft = self.send("DraftService/CreateDraft", drafts.CreateDraftRequest(mutations=[allowed]))
        id_ = drafts.CreateDraftResponse.FromString(draft.body).draft.id
        for where, mutations in (
            ("alone", [mutation]),
            ("first", [mutation, allowed]),
            ("last", [allowed, mutation]),
        ):
            for expected in (None, 1):
                for dry_run in (True, False):
                    yield (
                        f"commit {where} {expected} {dry_run}",
                        self.send(
                            "AdminService/Commit",
                            admin.CommitRequest(
                                mutations=mutations, expected_revision=expected, dry_run=dry_run, force=True
                            ),
                        ),
                    )
                yield (
                    f"create {where} {expected}",
                    self.send(
                        "DraftService/CreateDraft",
                        drafts.CreateDraftRequest(mutations=mutations, base_revision=expected),
                    ),
                )
            yield (
                f"update {where}",
                self.send("DraftService/UpdateDraft", drafts.UpdateDraftRequest(id=id_, mutations=mutations)),
            )


def told(answered: Answered) -> object:
    """All that an answer tells, but for the slug that the caller wrote."""

    def plain(text: str) -> str:
        return text.replace(HIDDEN, "X").replace(MISSING, "X")

    assert answered.error is not None, answered.body
    info, request = answered.detail(ErrorInfo), answered.detail(BadRequest)
    return (
        answered.code,
        answered.reason,
        plain(answered.message),
        tuple(sorted((name, plain(text)) for name, text in info.metadata.items())),
        () if request is None else tuple((v.field, plain(v.description)) for v in request.field_violations),
        tuple(sorted(detail["type"] for detail in answered.error["details"])),
    )


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Service(open_store("memory:")) as service:
        yield Desk(service)


def test_every_kind_of_mutation_is_tried() -> None:
    assert CASES.keys() == {field.name for field in MutationMessage.DESCRIPTOR.fields}


@pytest.mark.parametrize("kind", CASES)
def test_a_bound_key_is_told_the_same_whatever_another_environment_holds(desk: Desk, kind: str) -> None:
    answers: dict[str, set[object]] = {}
    before = desk.service.head.revision
    for mutation in CASES[kind]:
        for way, answered in desk.attempts(mutation):
            answers.setdefault(way, set()).add(told(answered))
    assert len(answers) == 21
    assert {way: told for way, told in answers.items() if len(told) > 1} == {}
    reason = "UNKNOWN_ENVIRONMENT" if kind in IN_ENVIRONMENT else "OUT_OF_SCOPE"
    assert {answer[:2] for (answer,) in answers.values()} == {("permission_denied", reason)}  # type: ignore[index]
    assert desk.service.head.revision == before


def test_naming_the_environment_once_for_all_mutations_tells_as_little(desk: Desk) -> None:
    answers = set()
    for environment in (HIDDEN, MISSING):
        for name in ("limit", "nothing"):
            mutation = MutationMessage(unset_value={"name": name})
            for method, class_ in (
                ("AdminService/Commit", admin.CommitRequest),
                ("DraftService/CreateDraft", drafts.CreateDraftRequest),
            ):
                answers.add(told(desk.send(method, class_(environment=environment, mutations=[mutation]))))
    assert len(answers) == 1


@pytest.mark.parametrize("changed_again", [False, True])
def test_undoing_what_changed_other_environments_tells_a_bound_key_nothing_of_them(
    desk: Desk, changed_again: bool
) -> None:
    vip = parse_condition('segment("later")')
    mutations: list[Mutation] = [
        PutProject("shop", title="Shop"),
        PutEnvironment(HIDDEN, title="Hidden"),
        PutEnvironment(MISSING),
        PutSetting("more", {"type": "int", "default": 1}, HIDDEN),
        SetValue("more", 5, HIDDEN),
        PutSegment(Segment("later", parse_condition('city == "Rome"'))),
        PutRule("more", Rule("r", ValueOutcome(3), vip), environment=HIDDEN),
        SetFeatures(("country", "user", "city", "plan")),
        DeleteSegment("free"),
    ]
    revisions = [desk.commit(mutation, SetValue("n", i + 1, OWN)) for i, mutation in enumerate(mutations)]
    if changed_again:
        desk.commit(
            PutProject("shop", title="Store"),
            PutEnvironment(HIDDEN, title="Other"),
            SetValue("more", 6, HIDDEN),
            PutSegment(Segment("later", parse_condition('city == "Oslo"'))),
        )
        desk.commit(PutSegment(Segment("free", parse_condition('user in ["y"]'))))
    answers = set()
    for revision, mutation in zip(revisions, mutations, strict=True):
        if mutation == PutEnvironment(MISSING):
            continue
        for expected in (None, 1):
            for dry_run in (True, False):
                for target in ({"revision": revision}, {"to_revision": revision - 1}):
                    request = admin.RevertRequest(
                        **target, expected_revision=expected, dry_run=dry_run, force=True
                    )
                    answers.add(told(desk.send("AdminService/Revert", request)))
    assert len(answers) == 1
    assert {answer[:2] for answer in answers} == {("permission_denied", "OUT_OF_SCOPE")}  # type: ignore[index]
    # Its own part it may undo.
    last = admin.RevertRequest(revision=revisions[-1], environment=OWN)
    assert desk.send("AdminService/Revert", last).code == "ok"


def test_a_key_bound_to_all_environments_there_are_changes_what_is_project_wide(desk: Desk) -> None:
    _, desk.key, _ = desk.service.create_key(
        Writer(OPEN), kind=KeyKind.USER, role=Role.ADMIN, project="shop", environments=(OWN, HIDDEN)
    )
    segment = MutationMessage(put_segment={"segment": {"name": "free", "condition": CONDITION}})
    request = admin.CommitRequest(mutations=[segment], dry_run=True)
    assert desk.send("AdminService/Commit", request).code == "ok"
