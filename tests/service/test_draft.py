"""Drafts, who approves them, and change-sets that are committed at a time."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from rheostat.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    RevisionConflictError,
    RheostatError,
    UnavailableError,
)
from rheostat.language import parse_condition
from rheostat.model.change import (
    ChangeSet,
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    SetFeatures,
    SetValue,
)
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration
from rheostat.model.draft import Draft, DraftState
from rheostat.model.key import KeyKind, Role
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Segment, Version
from rheostat.model.type import INT, parse_type
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.service.draft import DRAFT_KIND, DraftView
from rheostat.service.draft_content import CONTENT_KIND
from rheostat.service.limit import Limits
from rheostat.store import open_store
from rheostat.store.base import Record, Write
from tests.service.node import NOBODY, PROJECT, Node, World

HOUR = datetime.timedelta(hours=1)


class Office:
    """A node with the protected environment ``production`` and the free ones ``staging`` and ``dev``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.node = world.node()
        self.service = self.node.service
        self.drafts = self.service.drafts
        self.node.commit(
            PutEnvironment("production", protected=True), PutEnvironment("staging"), PutEnvironment("dev")
        )
        for environment in ("production", "staging", "dev"):
            self.node.commit(
                PutSetting("n", {"type": "int", "default": 0}),
                PutSetting("m", {"type": "int", "default": 0}),
                environment=environment,
            )
        self.admin = self.key(Role.ADMIN)
        self.editor = self.key(Role.EDITOR)
        self.approver = self.key(Role.APPROVER)

    def key(self, role: Role, *environments: str, **options: Any) -> Writer:
        options = {"project": PROJECT, **options}
        key, _, _ = self.service.create_key(
            NOBODY, kind=KeyKind.USER, role=role, environments=environments, **options
        )
        return Writer(Principal(key), f"the {role.value}")

    def rotate(self, writer: Writer, **options: Any) -> Writer:
        """The successor of a key; the two overlap for an hour."""
        options = {"overlap": HOUR, **options}
        key, *_ = self.service.rotate_key(NOBODY, writer.principal.actor, **options)
        return replace(writer, principal=Principal(key))

    def revoke(self, writer: Writer) -> None:
        self.service.revoke_key(NOBODY, writer.principal.actor)

    def create(self, *mutations: Mutation, by: Writer | None = None, **options: Any) -> DraftView:
        mutations = mutations or (SetValue("n", 1),)
        return self.drafts.create(by or self.editor, PROJECT, "production", mutations, **options)

    def approve(self, view: DraftView, by: Writer | None = None) -> DraftView:
        return self.drafts.approve(
            by or self.approver, PROJECT, view.draft.id, version=view.draft.version, comment="fine"
        )

    def publish(self, view: DraftView, by: Writer | None = None, **options: Any) -> Any:
        return self.drafts.publish(by or self.editor, PROJECT, view.draft.id, **options)

    def scheduled(self, *mutations: Mutation, after: datetime.timedelta = HOUR, **options: Any) -> Draft:
        view = self.approve(self.create(*mutations, **options))
        return self.publish(view, at=self.world.clock.now() + after).draft

    def now(self, view: DraftView | Draft) -> Draft:
        draft = view.draft if isinstance(view, DraftView) else view
        return self.drafts.get(OPEN, PROJECT, draft.id).draft

    def value(self, environment: str = "production", name: str = "n", node: Node | None = None) -> object:
        service = (node or self.node).service
        return service.view(PROJECT, environment).snapshot.settings[name].base_value

    def commit(self, by: Writer, *mutations: Mutation, environment: str = "production", **options: Any):
        return self.service.commit(by, PROJECT, environment, mutations, **options)


def pass_time(world: World, seconds: float) -> None:
    world.clock.seconds += seconds


def fire(*nodes: Node) -> None:
    for node in nodes:
        node.service.catch_up()
        node.service.drafts.commit_due()


@pytest.fixture
def office(world: World) -> Office:
    return Office(world)


def refused(call: Callable[..., Any], *args: Any, **options: Any) -> RheostatError:
    with pytest.raises(RheostatError) as caught:
        call(*args, **options)
    return caught.value


# Protected environments.


def test_a_commit_to_a_protected_environment_is_refused_and_writes_nothing(office: Office):
    before = office.node.revision
    for writer in (office.editor, office.approver, office.admin):
        error = refused(office.commit, writer, SetValue("n", 1))
        assert isinstance(error, FailedPreconditionError)
        assert (error.reason, error.metadata["environments"]) == ("APPROVAL_REQUIRED", "production")
        assert "'production' has 0 of 1" in error.message and "--draft" in error.message
    assert office.node.revision == before


def test_a_dry_run_of_it_still_tells_what_would_change(office: Office):
    outcome = office.commit(office.editor, SetValue("n", 1), dry_run=True)
    assert [change.key for change in outcome.change_set.changes] == ["n"]


def test_other_environments_are_committed_to_as_before(office: Office):
    office.commit(office.editor, SetValue("n", 1), environment="staging")
    assert office.value("staging") == 1


@pytest.mark.parametrize(
    "mutation",
    [PutSegment(Segment("beta", parse_condition("user.beta == true"))), SetFeatures(("region",))],
    ids=["segment", "features"],
)
def test_what_reaches_a_protected_environment_through_the_project_needs_approval_too(
    office: Office, mutation: Mutation
):
    assert refused(office.commit, office.editor, mutation, environment="").reason == "APPROVAL_REQUIRED"


def test_a_revert_needs_approval_as_well(office: Office):
    published = office.publish(office.approve(office.create()))
    error = refused(office.service.revert, office.admin, PROJECT, revision=published.draft.revision)
    assert error.reason == "APPROVAL_REQUIRED"
    office.service.revert(office.admin, PROJECT, revision=published.draft.revision, dry_run=True)
    assert office.value() == 1


def test_a_server_without_keys_tells_nobody_apart_and_protects_nothing(office: Office):
    office.commit(NOBODY, SetValue("n", 1))
    view = office.create(SetValue("n", 2), by=NOBODY)
    assert view.missing == ()
    office.publish(view, by=NOBODY)
    assert office.value() == 2


def test_a_permitted_declaration_needs_no_approval(office: Office):
    key, _, _ = office.service.create_key(
        NOBODY, kind=KeyKind.SERVER, project=PROJECT, environments=("production",), declare=True
    )
    declaration = Declaration("new", INT, 1, Version(1, 0))
    office.service.declare(Writer(Principal(key)), PROJECT, "production", [declaration])
    assert office.value(name="new") == 1


@pytest.mark.parametrize(
    "change", [{"protected": True}, {"required_approvals": 3}, {"self_approval": True}], ids=str
)
def test_only_an_admin_changes_how_an_environment_is_protected(office: Office, change: dict[str, Any]):
    for writer in (office.editor, office.approver):
        error = refused(office.commit, writer, PutEnvironment("staging", **change), environment="")
        assert isinstance(error, PermissionDeniedError)
        assert isinstance(
            refused(office.create, PutEnvironment("staging", **change), by=writer), PermissionDeniedError
        )
        made = refused(office.commit, writer, PutEnvironment("fresh", **change), environment="")
        assert isinstance(made, PermissionDeniedError)
    office.commit(office.editor, PutEnvironment("staging", title="Stage"), environment="")
    office.commit(office.admin, PutEnvironment("staging", **change), environment="")


def test_a_key_of_another_environment_neither_unprotects_one_nor_learns_of_it(office: Office):
    bound = office.key(Role.ADMIN, "staging")
    for mutation in (PutEnvironment("production", protected=False), PutEnvironment("dev", title="x")):
        error = refused(office.commit, bound, mutation, environment="")
        assert error.reason == "OUT_OF_SCOPE"
        assert "production" not in error.message


def test_an_admin_alone_cannot_unprotect_in_order_to_commit_alone(office: Office):
    lift = PutEnvironment("production", protected=False)
    assert refused(office.commit, office.admin, lift, environment="").reason == "APPROVAL_REQUIRED"
    both = (lift, SetValue("n", 1))
    assert refused(office.commit, office.admin, *both).reason == "APPROVAL_REQUIRED"
    view = office.create(*both, by=office.admin)
    assert refused(office.publish, view, by=office.admin).reason == "APPROVAL_REQUIRED"
    office.publish(office.approve(view), by=office.admin)
    assert office.value() == 1
    office.commit(office.editor, SetValue("n", 2))


def test_a_store_wide_admin_frees_an_environment_for_which_nobody_is_left_to_approve(office: Office):
    root = office.key(Role.ADMIN, project="")
    lift = PutEnvironment("production", protected=False)
    assert refused(office.commit, root, lift, environment="").reason == "APPROVAL_REQUIRED"
    office.revoke(office.approver)
    office.revoke(office.admin)
    again = office.key(Role.ADMIN)
    office.revoke(again)
    # Nothing else may come along with it.
    assert refused(office.commit, root, lift, SetValue("n", 1)).reason == "APPROVAL_REQUIRED"
    office.commit(root, lift, environment="")
    office.commit(office.editor, SetValue("n", 1))


# Drafts.


def test_a_draft_is_approved_and_becomes_one_revision_that_says_who_let_it_through(office: Office):
    view = office.create(by=replace(office.editor, author="Ada", message="Slow banks"))
    draft = view.draft
    assert (draft.version, draft.state, draft.environments) == (1, DraftState.OPEN, ("production",))
    assert [(m.environment, m.required, m.given) for m in view.missing] == [("production", 1, 0)]
    assert [change.key for change in view.changes] == ["n"]
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"

    approved = office.approve(view)
    assert approved.missing == () and approved.draft.version == 2
    (approval,) = approved.draft.approvals
    assert (approval.comment, approval.environments) == ("fine", ("production",))

    published = office.publish(approved, version=2)
    change_set = office.service.change_set(PROJECT, published.draft.revision)
    assert (change_set.author, change_set.message, change_set.draft) == ("Ada", "Slow banks", draft.id)
    assert change_set.actor == office.editor.principal.actor
    assert change_set.approved_by == (office.approver.principal.actor,)
    assert (published.draft.state, published.draft.version) == (DraftState.COMMITTED, 3)
    assert office.value() == 1


def test_publishing_again_answers_the_same_revision(office: Office):
    view = office.approve(office.create())
    first = office.publish(view, version=2)
    office.commit(NOBODY, SetValue("n", 5))
    again = office.publish(view, version=2)
    assert again.outcome.revision == first.outcome.revision == again.outcome.change_set.revision
    assert again.outcome.replayed and again.outcome.change_set.changes == first.outcome.change_set.changes
    assert office.value() == 5


def test_a_draft_that_could_not_be_committed_is_refused_with_the_place_of_the_mutation(office: Office):
    error = refused(office.create, SetValue("n", 1), SetValue("n", "x"))
    assert isinstance(error, InvalidArgumentError)
    assert error.violations[0].field == "mutations[1].set_value.value"
    assert isinstance(refused(office.create, SetValue("nothing", 1)), NotFoundError)
    assert refused(office.create, SetValue("n", 1), PutProject("other")).violations  # type: ignore[attr-defined]
    assert office.service.store.records(DRAFT_KIND) == ()


def test_a_draft_that_changes_nothing_is_refused(office: Office):
    assert refused(office.create, PutSetting("n", {"default": 0})).reason == "NOTHING_TO_CHANGE"


def test_a_draft_takes_no_revision(office: Office):
    before = office.node.revision
    view = office.approve(office.create())
    office.drafts.cancel(office.editor, PROJECT, view.draft.id)
    assert office.service.store.revision() == before


def test_a_draft_against_a_revision_that_does_not_exist_yet_is_refused(office: Office):
    error = refused(office.create, base_revision=office.node.revision + 1)
    assert [violation.field for violation in error.violations] == ["base_revision"]  # type: ignore[attr-defined]


def test_a_draft_of_what_has_changed_since_its_author_looked_is_refused_at_once(office: Office):
    seen = office.node.revision
    theirs = office.commit(NOBODY, SetValue("n", 5)).revision
    error = refused(office.create, base_revision=seen)
    assert isinstance(error, RevisionConflictError)
    assert error.conflicts[0].revision == theirs


def test_a_stale_draft_is_refused_naming_what_has_changed_and_in_which_revision(office: Office):
    view = office.approve(office.create())
    theirs = office.commit(NOBODY, SetValue("n", 5)).revision
    office.commit(NOBODY, SetValue("m", 5))
    error = refused(office.publish, view)
    assert isinstance(error, RevisionConflictError)
    assert [(c.kind, c.key, c.environment, c.revision) for c in error.conflicts] == [
        ("setting", "n", "production", theirs)
    ]
    shown = office.drafts.get(OPEN, PROJECT, view.draft.id)
    assert str(theirs) in shown.problem and shown.changes == ()
    assert office.value() == 5


def test_a_change_of_other_things_leaves_a_draft_fresh(office: Office):
    view = office.approve(office.create())
    office.commit(NOBODY, SetValue("m", 5))
    office.publish(view)
    assert (office.value(), office.value(name="m")) == (1, 5)


def test_an_update_takes_approvals_and_schedule_away_and_makes_the_draft_fresh(office: Office):
    scheduled = office.scheduled()
    office.commit(NOBODY, SetValue("n", 5))
    view = office.drafts.update(office.editor, PROJECT, scheduled.id, [SetValue("n", 6)])
    assert (view.draft.state, view.draft.approvals) == (DraftState.OPEN, ())
    assert (view.draft.scheduled_at, view.draft.base_revision) == (None, office.node.revision)
    pass_time(office.world, 7200)
    fire(office.node)
    assert office.value() == 5
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"
    office.publish(office.approve(view))
    assert office.value() == 6


def test_whoever_writes_a_draft_anew_is_its_author_and_does_not_approve_it(office: Office):
    view = office.create()
    other = office.key(Role.APPROVER)
    written = office.drafts.update(other, PROJECT, view.draft.id, [SetValue("n", 7)])
    assert written.draft.actor == other.principal.actor
    assert refused(office.approve, written, by=other).reason == "OWN_DRAFT"
    office.publish(office.approve(written))
    assert office.value() == 7


def test_a_closed_draft_is_not_changed_any_more(office: Office):
    committed = office.publish(office.approve(office.create())).draft
    cancelled = office.drafts.cancel(office.editor, PROJECT, office.create(SetValue("m", 1)).draft.id).draft
    for draft in (committed, cancelled):
        for call in (
            lambda draft: office.drafts.update(office.editor, PROJECT, draft.id, [SetValue("m", 2)]),
            lambda draft: office.drafts.approve(
                office.admin, PROJECT, draft.id, version=office.now(draft).version
            ),
        ):
            assert refused(call, draft).reason == "DRAFT_CLOSED"
    assert refused(office.drafts.cancel, office.editor, PROJECT, committed.id).reason == "DRAFT_CLOSED"
    assert office.drafts.cancel(office.editor, PROJECT, cancelled.id).draft == cancelled
    assert refused(office.drafts.publish, office.editor, PROJECT, cancelled.id).reason == "DRAFT_CLOSED"


@pytest.mark.parametrize("call", ["update", "approve", "publish", "cancel"])
def test_a_version_that_is_not_the_drafts_is_a_conflict(office: Office, call: str):
    view = office.create()
    office.drafts.update(office.editor, PROJECT, view.draft.id, [SetValue("n", 2)])
    more = [[SetValue("n", 3)]] if call == "update" else []
    error = refused(getattr(office.drafts, call), office.approver, PROJECT, view.draft.id, *more, version=1)
    assert isinstance(error, RevisionConflictError)
    assert error.reason == "DRAFT_CHANGED"
    assert [(c.kind, c.key, c.revision) for c in error.conflicts] == [("draft", view.draft.id, 2)]


def test_drafts_are_listed_newest_first_in_pages(office: Office):
    ids = []
    for number in range(1, 6):
        pass_time(office.world, 1)
        ids.append(office.create(SetValue("n", number)).draft.id)
    office.drafts.cancel(office.editor, PROJECT, ids[1])
    listed: list[str] = []
    after = ""
    while True:
        page, after = office.drafts.list(office.editor.principal, PROJECT, after=after, limit=2)
        listed += [view.draft.id for view in page]
        if not after:
            break
        assert len(page) == 2
    assert listed == [ids[4], ids[3], ids[2], ids[0]]
    only, _ = office.drafts.list(office.editor.principal, PROJECT, states=[DraftState.CANCELLED])
    assert [view.draft.id for view in only] == [ids[1]]
    elsewhere, _ = office.drafts.list(office.editor.principal, PROJECT, environment="staging")
    assert elsewhere == []


def test_a_page_ends_where_it_gets_long(office: Office):
    for number in range(4):
        pass_time(office.world, 1)
        office.create(SetValue("n", number + 1), by=replace(office.editor, message="x" * 4_400_000))
    page, after = office.drafts.list(OPEN, PROJECT)
    assert len(page) == 2 and after
    rest, after = office.drafts.list(OPEN, PROJECT, after=after)
    assert (len(rest), after) == (2, "")


# Who sees a draft.


def test_a_draft_is_hidden_from_keys_that_do_not_see_all_it_touches(office: Office):
    both = office.create(SetValue("n", 1, "production"), SetValue("n", 1, "staging"), by=office.admin)
    one = office.create(SetValue("n", 2, "staging"))
    made = office.create(PutEnvironment("secret"), by=office.admin)
    # What is written as it is already changes nothing, and is to be seen in the mutations all the same.
    office.service.commit(NOBODY, PROJECT, "", [SetValue("n", 7, "production")])
    idle = office.create(SetValue("n", 7, "production"), SetValue("n", 3, "staging"), by=office.admin)
    bound = office.key(Role.APPROVER, "staging")
    for view in (both, made, idle):
        draft_id = view.draft.id
        for call, of, more in (
            (office.drafts.get, bound.principal, {}),
            (office.drafts.approve, bound, {"version": view.draft.version}),
            (office.drafts.update, bound, {"mutations": [SetValue("n", 3, "staging")]}),
            (office.drafts.publish, bound, {}),
            (office.drafts.cancel, bound, {}),
        ):
            hidden = refused(call, of, PROJECT, draft_id, **more)
            assert (type(hidden), hidden.reason) == (NotFoundError, "DRAFT_NOT_FOUND")
            missing = refused(call, of, PROJECT, "nothing", **more)
            assert hidden.message.replace(draft_id, "nothing") == missing.message
    page, _ = office.drafts.list(bound.principal, PROJECT)
    assert [view.draft.id for view in page] == [one.draft.id]


def test_a_draft_of_another_project_is_not_found(office: Office):
    office.service.commit(NOBODY, "other", "", [PutProject("other"), PutEnvironment("production")])
    view = office.create()
    assert refused(office.drafts.get, OPEN, "other", view.draft.id).reason == "DRAFT_NOT_FOUND"
    assert office.drafts.list(OPEN, "other") == ([], "")


@pytest.mark.parametrize(
    "mutation",
    [
        SetValue("n", 1, "production"),
        PutSegment(Segment("beta", parse_condition("user.beta == true"))),
        PutEnvironment("production", title="Live"),
    ],
    ids=["value", "segment", "environment"],
)
def test_a_draft_that_touches_what_its_author_does_not_see_is_refused(office: Office, mutation: Mutation):
    bound = office.key(Role.ADMIN, "staging")
    error = refused(office.create, mutation, by=bound)
    # Of a setting it is told what anybody is told of an environment that there is not.
    assert error.reason == ("UNKNOWN_ENVIRONMENT" if isinstance(mutation, SetValue) else "OUT_OF_SCOPE")


def test_a_draft_that_comes_to_touch_more_is_not_published_by_keys_that_do_not_see_it(office: Office):
    bound = office.key(Role.EDITOR, "production", "staging", "dev")
    view = office.create(PutSegment(Segment("beta", parse_condition("user.beta == true"))), by=bound)
    approved = office.approve(view)
    office.node.add_environment("later")
    assert refused(office.publish, approved, by=bound).reason == "OUT_OF_SCOPE"
    office.publish(approved)


# Who approves for one of the environments that a draft touches.


def both(office: Office, **options: Any) -> DraftView:
    return office.create(
        SetValue("m", 1, "staging"), SetValue("n", 1), PutEnvironment("dev", title="Dev"), **options
    )


def test_who_approves_for_one_environment_sees_and_approves_what_is_about_it(office: Office):
    office.node.commit(PutEnvironment("staging", protected=True), environment="")
    bound = office.key(Role.APPROVER, "production")
    view = both(office)
    draft_id = view.draft.id
    shown = office.drafts.get(bound.principal, PROJECT, draft_id)
    assert shown.draft.mutations == (SetValue("n", 1),)
    assert [(change.environment, change.key) for change in shown.changes] == [("production", "n")]
    assert (shown.draft.environments, shown.draft.named) == (("production",), ())
    assert [entry.environment for entry in shown.missing] == ["production"]
    assert (shown.problem, [warning.code for warning in shown.warnings]) == ("", ["PARTLY_SHOWN"])

    approved = office.approve(shown, by=bound)
    assert approved.missing == ()
    for secret in ("staging", "dev", "Dev"):
        assert secret not in repr(approved) and secret not in repr(shown)
    whole = office.drafts.get(office.editor.principal, PROJECT, draft_id)
    assert len(whole.draft.mutations) == 3 and whole.draft.approvals[0].environments == ("production",)
    assert [entry.environment for entry in whole.missing] == ["staging"]
    assert "'staging' has 0 of 1" in refused(office.publish, whole).message
    other = office.key(Role.APPROVER, "staging")
    listed, _ = office.drafts.list(other.principal, PROJECT)
    assert [entry.draft.approvals for entry in listed] == [()]
    office.publish(office.approve(listed[0], by=other))
    assert (office.value(), office.value("staging", "m")) == (1, 1)
    # Closed, it is still shown in part.
    closed = office.drafts.get(bound.principal, PROJECT, draft_id)
    assert "staging" not in repr(closed) and "committed as revision" in closed.problem


def test_what_is_project_wide_is_shown_to_those_who_approve_for_one_environment(office: Office):
    bound = office.key(Role.APPROVER, "production")
    segment = PutSegment(Segment("beta", parse_condition("user.beta == true")))
    view = office.create(segment)
    assert office.drafts.get(bound.principal, PROJECT, view.draft.id).draft.mutations == (segment,)
    office.publish(office.approve(view, by=bound))


def test_who_may_not_approve_for_a_protected_environment_of_a_draft_does_not_see_it(office: Office):
    draft_id = both(office).draft.id
    for by in (
        office.key(Role.EDITOR, "production"),
        office.key(Role.APPROVER, "staging"),
        office.key(Role.APPROVER, "dev"),
    ):
        assert refused(office.drafts.get, by.principal, PROJECT, draft_id).reason == "DRAFT_NOT_FOUND"
        assert office.drafts.list(by.principal, PROJECT) == ([], "")


def test_who_sees_a_part_of_a_draft_neither_changes_nor_commits_nor_cancels_it(office: Office):
    bound = office.key(Role.ADMIN, "production")
    draft_id = both(office).draft.id
    for call, more in (
        (office.drafts.update, {"mutations": [SetValue("n", 3)]}),
        (office.drafts.publish, {}),
        (office.drafts.cancel, {}),
    ):
        assert refused(call, bound, PROJECT, draft_id, **more).reason == "DRAFT_NOT_FOUND"


def test_why_a_draft_cannot_be_committed_is_not_told_to_who_sees_a_part_of_it(office: Office):
    bound = office.key(Role.APPROVER, "production")
    draft = office.scheduled(SetValue("m", 1, "staging"), SetValue("n", 1))
    office.node.commit(SetValue("m", 9), environment="staging")
    assert "staging" not in repr(office.drafts.get(bound.principal, PROJECT, draft.id))
    pass_time(office.world, 3600)
    fire(office.node)
    assert "staging" in office.now(draft).failure
    shown = office.drafts.get(bound.principal, PROJECT, draft.id)
    assert (shown.draft.state, shown.changes) == (DraftState.FAILED, ())
    assert shown.problem and shown.draft.failure and "staging" not in repr(shown)


def test_a_filter_by_an_environment_tells_nothing_of_one_that_is_not_seen(office: Office):
    bound = office.key(Role.APPROVER, "production")
    both(office)
    for environment, count in (("production", 1), ("staging", 0), ("dev", 0)):
        page, _ = office.drafts.list(bound.principal, PROJECT, environment=environment)
        assert len(page) == count


# How many drafts there may be, and how long they are kept.


def contents(office: Office) -> int:
    return len(office.service.store.records(CONTENT_KIND))


def test_a_project_has_a_limit_of_open_drafts(world: World):
    office = Office(world)
    small = world.node(limits=Limits(max_open_drafts=2)).service.drafts

    def create(number: int) -> DraftView:
        return small.create(office.editor, PROJECT, "production", [SetValue("n", number)])

    first, second = create(1), create(2)
    error = refused(create, 3)
    assert isinstance(error, LimitExceededError) and error.limit == "max_open_drafts"
    assert contents(office) == len(world.store.records(DRAFT_KIND)) == 2
    # They may still be written anew, and each that is closed makes room.
    small.update(office.editor, PROJECT, first.draft.id, [SetValue("n", 4)])
    small.cancel(office.editor, PROJECT, first.draft.id)
    third = create(5)
    approved = small.approve(office.approver, PROJECT, third.draft.id, version=1)
    small.publish(office.editor, PROJECT, approved.draft.id)
    create(6)
    assert refused(create, 7).reason == "LIMIT_EXCEEDED"
    assert small.get(OPEN, PROJECT, second.draft.id).draft.mutations == (SetValue("n", 2),)


def test_the_open_drafts_of_a_project_have_a_limit_of_their_size_together(world: World):
    office = Office(world)
    office.node.commit(PutSetting("s", {"type": "str", "default": ""}))
    small = world.node(limits=Limits(max_drafts_bytes=2500)).service.drafts

    def create(letter: str) -> DraftView:
        return small.create(office.editor, PROJECT, "production", [SetValue("s", letter * 1000)])

    first = create("a")
    create("b")
    error = refused(create, "c")
    assert isinstance(error, LimitExceededError) and error.limit == "max_drafts_bytes"
    small.update(office.editor, PROJECT, first.draft.id, [SetValue("s", "d" * 1000)])
    error = refused(small.update, office.editor, PROJECT, first.draft.id, [SetValue("s", "e" * 2000)])
    assert isinstance(error, LimitExceededError)
    assert small.get(OPEN, PROJECT, first.draft.id).draft.mutations == (SetValue("s", "d" * 1000),)


def test_a_list_reads_no_mutations(office: Office, monkeypatch: pytest.MonkeyPatch):
    office.node.commit(PutSetting("s", {"type": "str", "default": ""}))
    office.create(SetValue("s", "x" * 100_000))
    store = office.world.store
    read: list[Record] = []

    def records(*args: Any, **options: Any) -> Sequence[Record]:
        found = type(store).records(store, *args, **options)
        read.extend(found)
        return found

    monkeypatch.setattr(store, "records", records)
    monkeypatch.setattr(store, "record", None)
    page, _ = office.drafts.list(office.editor.principal, PROJECT)
    assert [view.draft.mutations for view in page] == [()]
    assert len(read) == 1 and len(read[0].body) < 1000


def test_a_closed_draft_keeps_no_mutations(office: Office):
    published = office.publish(office.approve(office.create())).draft
    cancelled = office.drafts.cancel(office.editor, PROJECT, office.create(SetValue("m", 1)).draft.id).draft
    scheduled = office.scheduled(SetValue("m", 2))
    pass_time(office.world, 3600)
    fire(office.node)
    assert contents(office) == 0
    for draft in (published, cancelled, office.now(scheduled)):
        assert draft.state.is_closed and draft.mutations == ()
    changes = office.service.change_set(PROJECT, published.revision).changes
    assert [change.key for change in changes] == ["n"]


def test_a_closed_draft_is_removed_after_ninety_days(office: Office):
    published = office.publish(office.approve(office.create())).draft
    cancelled = office.drafts.cancel(office.editor, PROJECT, office.create(SetValue("m", 1)).draft.id).draft
    kept = office.create(SetValue("m", 2)).draft
    pass_time(office.world, 90 * 24 * 3600 - 1)
    fire(office.node)
    assert office.now(published).state is DraftState.COMMITTED
    pass_time(office.world, 601)
    fire(office.node)
    for draft in (published, cancelled):
        assert refused(office.now, draft).reason == "DRAFT_NOT_FOUND"
    assert office.now(kept).mutations == (SetValue("m", 2),)
    assert office.service.store.due_records("draft-closed", office.world.clock.now()) == ()


def test_mutations_that_a_crash_left_behind_are_removed(office: Office, monkeypatch: pytest.MonkeyPatch):
    store = office.world.store
    put = store.put_record

    def cut(record: Record, **options: Any) -> Record | None:
        if record.kind == DRAFT_KIND:
            raise UnavailableError("away")
        return put(record, **options)

    def away(kind: str, key: str, **options: Any) -> bool:
        raise UnavailableError("away")

    view = office.create()
    with monkeypatch.context() as patched:
        patched.setattr(store, "put_record", cut)
        refused(office.create)
    with monkeypatch.context() as patched:
        patched.setattr(store, "delete_record", away)
        view = office.drafts.update(office.editor, PROJECT, view.draft.id, [SetValue("n", 2)])
        assert view.draft.version == 2
    assert contents(office) == 3
    fire(office.node)
    pass_time(office.world, 3600)
    fire(office.node)
    assert contents(office) == 1
    assert office.now(view).mutations == (SetValue("n", 2),)
    for _ in range(3):
        pass_time(office.world, 24 * 3600)
        fire(office.node)
    assert office.now(view).mutations == (SetValue("n", 2),)


# Approvals.


def test_as_many_different_keys_as_the_environment_wants_have_to_approve(office: Office):
    office.node.commit(PutEnvironment("production", required_approvals=2), environment="")
    view = office.approve(office.create())
    assert refused(office.approve, view).reason == "ALREADY_APPROVED"
    assert [(entry.given, entry.required) for entry in view.missing] == [(1, 2)]
    assert "has 1 of 2" in refused(office.publish, view).message
    office.publish(office.approve(view, by=office.admin))


def test_the_author_approves_only_where_that_is_allowed(office: Office):
    author = office.key(Role.APPROVER)
    view = office.create(by=author)
    assert refused(office.approve, view, by=author).reason == "OWN_DRAFT"
    office.node.commit(PutEnvironment("production", self_approval=True), environment="")
    office.publish(office.approve(view, by=author), by=author)
    assert office.value() == 1


def test_the_authors_approval_counts_only_for_the_environments_that_allow_it(office: Office):
    office.node.commit(PutEnvironment("staging", protected=True, self_approval=True), environment="")
    author = office.key(Role.APPROVER)
    view = office.create(SetValue("n", 1, "production"), SetValue("n", 1, "staging"), by=author)
    view = office.approve(view, by=author)
    assert [entry.environment for entry in view.missing] == ["production"]
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"
    office.publish(office.approve(view))


def test_editors_and_viewers_do_not_approve(office: Office):
    view = office.create()
    for role in (Role.VIEWER, Role.EDITOR):
        assert isinstance(refused(office.approve, view, by=office.key(role)), PermissionDeniedError)


@pytest.mark.parametrize("loss", ["revoked", "expired"])
def test_the_approval_of_a_key_that_has_ended_since_does_not_count(office: Office, loss: str):
    ending = office.world.clock.now() + HOUR
    approver = office.key(Role.APPROVER, expires_at=ending if loss == "expired" else None)
    view = office.approve(office.create(), by=approver)
    assert view.missing == ()
    if loss == "revoked":
        office.revoke(approver)
    else:
        pass_time(office.world, 3601)
    assert [
        entry.given for entry in office.drafts.get(office.editor.principal, PROJECT, view.draft.id).missing
    ] == [0]
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"
    published = office.publish(office.approve(DraftView(office.now(view))))
    change_set = published.outcome.change_set
    assert change_set.approved_by == (office.approver.principal.actor,)


def test_an_environment_that_is_protected_after_the_draft_was_made_wants_approvals(office: Office):
    view = office.drafts.create(office.editor, PROJECT, "staging", [SetValue("n", 1)])
    assert view.missing == ()
    office.node.commit(PutEnvironment("staging", protected=True), environment="")
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"
    office.publish(office.approve(view))


def test_an_author_who_is_no_admin_any_more_changes_no_protection(office: Office):
    view = office.approve(office.create(PutEnvironment("production", required_approvals=2), by=office.admin))
    office.revoke(office.admin)
    assert refused(office.publish, view, by=office.editor).reason == "KEY_ENDED"


# Keys that succeed each other are one person.


def test_the_successor_of_a_key_does_not_approve_what_the_key_wrote_nor_the_other_way_round(office: Office):
    first = office.key(Role.APPROVER)
    second = office.rotate(first)
    third = office.rotate(second)
    for author, other in ((first, third), (third, first), (second, third)):
        view = office.create(by=author)
        assert refused(office.approve, view, by=other).reason == "OWN_DRAFT"


def test_a_draft_that_both_keys_of_one_person_have_written_and_approved_is_not_published(office: Office):
    office.node.commit(PutEnvironment("production", self_approval=True), environment="")
    author = office.key(Role.APPROVER)
    view = office.approve(office.create(by=author), by=office.rotate(author))
    assert view.missing == ()
    # What was approved while that was allowed does not count when it is not any more.
    office.node.commit(PutEnvironment("production", self_approval=False), environment="")
    assert refused(office.publish, view, by=author).reason == "APPROVAL_REQUIRED"


def test_two_keys_of_one_person_are_not_two_approvals(office: Office):
    office.node.commit(PutEnvironment("production", required_approvals=2), environment="")
    view = office.approve(office.create())
    assert refused(office.approve, view, by=office.rotate(office.approver)).reason == "ALREADY_APPROVED"
    assert "has 1 of 2" in refused(office.publish, view).message


def test_two_keys_of_one_person_are_not_two_that_could_still_approve(office: Office):
    root = office.key(Role.ADMIN, project="")
    office.node.commit(PutEnvironment("production", required_approvals=2), environment="")
    office.revoke(office.admin)
    office.rotate(root)
    office.rotate(office.approver)
    # Left are the author, and one other person with two keys.
    office.commit(root, PutEnvironment("production", required_approvals=1), environment="")


def test_an_approval_counts_once_its_key_is_succeeded(office: Office):
    view = office.approve(office.create())
    successor = office.rotate(office.approver)
    pass_time(office.world, 3601)
    assert office.drafts.get(office.editor.principal, PROJECT, view.draft.id).missing == ()
    office.revoke(successor)
    assert refused(office.publish, view).reason == "APPROVAL_REQUIRED"
    third = office.approve(DraftView(office.now(view)), by=office.admin)
    office.publish(third)


def test_a_schedule_holds_when_the_keys_of_all_who_took_part_are_succeeded(office: Office):
    draft = office.scheduled()
    editor = office.rotate(office.editor)
    office.rotate(office.approver)
    pass_time(office.world, 3601)
    fire(office.node)
    done = office.now(draft)
    assert (done.state, office.value()) == (DraftState.COMMITTED, 1)
    change_set = office.service.change_set(PROJECT, done.revision)
    assert change_set.actor == editor.principal.actor
    assert change_set.approved_by == (office.approver.principal.actor,)


def test_a_schedule_fails_when_all_keys_of_its_publisher_are_revoked(office: Office):
    draft = office.scheduled()
    successor = office.rotate(office.editor)
    office.revoke(office.editor)
    office.revoke(successor)
    pass_time(office.world, 3600)
    fire(office.node)
    assert office.now(draft).state is DraftState.FAILED


def test_an_admin_whose_key_was_succeeded_is_still_the_author_of_a_change_of_protection(office: Office):
    view = office.create(PutEnvironment("production", required_approvals=2), by=office.admin)
    office.rotate(office.admin)
    pass_time(office.world, 3601)
    office.publish(office.approve(view))
    entry = office.service.head.state.projects[PROJECT].environments["production"]
    assert entry.environment.required_approvals == 2


# Two at a time.


def test_of_two_operators_the_second_gets_a_conflict_and_loses_nothing(office: Office):
    seen = office.node.revision
    first = office.commit(NOBODY, SetValue("n", 1), expected_revision=seen).revision
    error = refused(office.commit, NOBODY, SetValue("n", 2), expected_revision=seen)
    assert isinstance(error, RevisionConflictError)
    assert error.conflicts[0].revision == error.actual == first
    assert office.value() == 1
    # With drafts: both were made, one is published, and the other is still there to be written anew.
    ada, ben = (office.approve(office.create(SetValue("n", number))) for number in (3, 4))
    published = office.publish(ada).draft.revision
    error = refused(office.publish, ben)
    assert isinstance(error, RevisionConflictError)
    assert error.conflicts[0].revision == published
    kept = office.now(ben)
    assert (kept.mutations, kept.state) == ((SetValue("n", 4),), DraftState.OPEN)
    fresh = office.drafts.update(office.editor, PROJECT, kept.id, kept.mutations)
    office.publish(office.approve(fresh))
    assert office.value() == 4


def test_of_concurrent_publications_one_commits_and_all_answer_its_revision(office: Office):
    view = office.approve(office.create())
    nodes = [office.node, *(office.world.node() for _ in range(3))]
    before = office.service.store.revision()
    start = threading.Barrier(len(nodes))
    answers: list[int] = []

    def publish(node: Node) -> None:
        start.wait()
        published = node.service.drafts.publish(office.editor, PROJECT, view.draft.id)
        answers.append(published.outcome.revision)

    threads = [threading.Thread(target=publish, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [before + 1] * len(nodes)
    assert office.service.store.revision() == before + 1


def test_of_concurrent_approvals_with_one_version_one_is_taken(office: Office):
    view = office.create()
    approvers = [office.key(Role.APPROVER) for _ in range(4)]
    start = threading.Barrier(len(approvers))
    results: list[str] = []

    def approve(by: Writer) -> None:
        start.wait()
        try:
            office.approve(view, by=by)
        except RevisionConflictError as exc:
            results.append(exc.reason)
        else:
            results.append("taken")

    threads = [threading.Thread(target=approve, args=(by,)) for by in approvers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["DRAFT_CHANGED"] * 3 + ["taken"]
    assert len(office.now(view).approvals) == 1


# Repeated requests.


def test_a_repeated_request_answers_the_same_draft(office: Office):
    writer = replace(office.editor, request_id="r1", payload=b"one")
    first = office.create(by=writer)
    again = office.create(by=writer)
    assert again.draft == first.draft
    # Also when it could not be made any more.
    office.commit(NOBODY, SetValue("n", 1))
    assert office.create(by=writer).draft == first.draft
    assert len(office.service.store.records(DRAFT_KIND)) == 1
    error = refused(office.create, by=replace(writer, payload=b"two"))
    assert (type(error), error.reason) == (AlreadyExistsError, "REQUEST_ID_REUSED")
    other = office.create(SetValue("m", 1), by=replace(office.admin, request_id="r1", payload=b"two"))
    assert other.draft.id != first.draft.id


def test_a_request_that_was_cut_off_before_its_draft_was_written_is_taken_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    store = office.service.store
    put = store.put_record

    def cut(record: Record, **options: Any) -> Record | None:
        if record.kind == DRAFT_KIND:
            raise UnavailableError("away")
        return put(record, **options)

    writer = replace(office.editor, request_id="r1", payload=b"one")
    with monkeypatch.context() as patched:
        patched.setattr(store, "put_record", cut)
        assert isinstance(refused(office.create, by=writer), UnavailableError)
    made = office.create(by=writer)
    assert office.create(by=writer).draft.id == made.draft.id
    assert len(store.records(DRAFT_KIND)) == 1


def test_a_request_id_is_forgotten_after_a_day(office: Office):
    writer = replace(office.editor, request_id="r1", payload=b"one")
    first = office.create(by=writer)
    pass_time(office.world, 24 * 3600 + 1)
    fire(office.node)
    second = office.create(SetValue("m", 1), by=replace(writer, payload=b"two"))
    assert second.draft.id != first.draft.id
    assert office.create(by=replace(writer, payload=b"two")).draft.id == second.draft.id


# Committing at a time.


def test_a_scheduled_draft_is_committed_at_its_time_and_not_before(office: Office):
    draft = office.scheduled()
    assert (draft.state, draft.scheduled_at) == (DraftState.SCHEDULED, office.world.clock.now() + HOUR)
    fire(office.node)
    assert office.value() == 0
    pass_time(office.world, 3599)
    fire(office.node)
    assert office.value() == 0
    assert 0 < office.drafts.seconds_to_due(5.0) <= 1.0
    pass_time(office.world, 1)
    fire(office.node)
    done = office.now(draft)
    assert (office.value(), done.state, done.revision) == (1, DraftState.COMMITTED, office.node.revision)
    assert done.scheduled_at is None
    change_set = office.service.change_set(PROJECT, done.revision)
    assert (change_set.author, change_set.draft) == ("the editor", draft.id)
    fire(office.node)
    pass_time(office.world, 3600)
    fire(office.node)
    assert office.service.store.revision() == done.revision


def test_an_instant_that_has_passed_means_now(office: Office):
    view = office.approve(office.create())
    published = office.publish(view, at=office.world.clock.now() - HOUR)
    assert published.draft.state is DraftState.COMMITTED


def test_a_schedule_wants_its_approvals_when_it_is_made(office: Office):
    view = office.create()
    error = refused(office.publish, view, at=office.world.clock.now() + HOUR)
    assert error.reason == "APPROVAL_REQUIRED"
    assert office.now(view).state is DraftState.OPEN


def test_a_stale_draft_is_not_even_scheduled(office: Office):
    view = office.approve(office.create())
    office.commit(NOBODY, SetValue("n", 5))
    error = refused(office.publish, view, at=office.world.clock.now() + HOUR)
    assert isinstance(error, RevisionConflictError)


def test_a_node_that_was_down_at_the_time_commits_late(office: Office):
    draft = office.scheduled()
    pass_time(office.world, 24 * 3600)
    late = office.world.node()
    fire(late)
    assert office.now(draft).state is DraftState.COMMITTED
    assert office.value(node=late) == 1


def test_several_nodes_commit_what_is_due_once_and_in_the_order_of_the_times(office: Office):
    nodes = [office.node, *(office.world.node() for _ in range(3))]
    names = [f"s{number}" for number in range(12)]
    office.node.commit(*(PutSetting(name, {"type": "int", "default": 0}) for name in names))
    drafts = [
        office.scheduled(SetValue(name, 1), after=datetime.timedelta(seconds=60 - number))
        for number, name in enumerate(names)
    ]
    before = office.service.store.revision()
    pass_time(office.world, 61)
    start = threading.Barrier(len(nodes))

    def go(node: Node) -> None:
        start.wait()
        fire(node)

    threads = [threading.Thread(target=go, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    committed = [change_set.draft for change_set in office.world.store.change_sets[before:]]
    assert committed == [draft.id for draft in reversed(drafts)]


@pytest.mark.parametrize("count", [3, 130])
def test_drafts_that_are_due_at_one_instant_are_committed_in_the_order_they_were_made(
    office: Office, count: int
):
    names = [f"s{number}" for number in range(count)]
    office.node.commit(*(PutSetting(name, {"type": "int", "default": 0}) for name in names))
    at = office.world.clock.now() + HOUR
    ids = []
    for name in names:
        pass_time(office.world, 1)
        view = office.approve(office.create(SetValue(name, 1)))
        ids.append(office.publish(view, at=at).draft.id)
    before = office.service.store.revision()
    pass_time(office.world, 3600)
    fire(office.node)
    assert [change_set.draft for change_set in office.world.store.change_sets[before:]] == ids


def test_a_draft_that_the_store_cannot_give_holds_no_other_and_fails_in_the_end(
    office: Office, caplog: pytest.LogCaptureFixture
):
    store = office.world.store
    bad = office.scheduled(SetValue("n", 1))
    good = office.scheduled(SetValue("m", 1), after=HOUR + datetime.timedelta(seconds=1))
    (damaged,) = store.records(CONTENT_KIND, prefix=f"{PROJECT}/{bad.id}/")
    store.put_record(replace(damaged, body="["))
    pass_time(office.world, 3700)
    with caplog.at_level(logging.WARNING, "rheostat.service"):
        fire(office.node)
        (other,), _ = office.drafts.list(OPEN, PROJECT)
        assert (other.draft.id, other.draft.state) == (bad.id, DraftState.SCHEDULED)
        assert office.now(good).state is DraftState.COMMITTED
        for _ in range(9):
            pass_time(office.world, 1)
            fire(office.node)
    (failed,), _ = office.drafts.list(OPEN, PROJECT)
    assert failed.draft.state is DraftState.FAILED and "cannot read" in failed.draft.failure
    assert office.drafts.cancel(office.editor, PROJECT, bad.id).draft.state is DraftState.CANCELLED


def test_a_cancelled_schedule_does_not_fire(office: Office):
    draft = office.scheduled()
    office.drafts.cancel(office.editor, PROJECT, draft.id)
    pass_time(office.world, 7200)
    fire(office.node)
    assert (office.value(), office.now(draft).state) == (0, DraftState.CANCELLED)


def test_a_draft_that_is_put_off_while_a_node_reads_what_is_due_waits_for_its_new_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    draft = office.scheduled()
    pass_time(office.world, 3600)
    store = office.world.store
    due = store.due_records

    def overtaken(*args: Any, **options: Any) -> Sequence[Record]:
        found = due(*args, **options)
        monkeypatch.setattr(store, "due_records", due)
        office.drafts.publish(office.editor, PROJECT, draft.id, at=office.world.clock.now() + HOUR)
        return found

    monkeypatch.setattr(store, "due_records", overtaken)
    fire(office.node)
    assert (office.value(), office.now(draft).state) == (0, DraftState.SCHEDULED)
    pass_time(office.world, 3600)
    fire(office.node)
    assert office.value() == 1


def test_a_schedule_whose_thing_has_changed_fails_and_says_so(office: Office):
    draft = office.scheduled()
    theirs = office.commit(NOBODY, SetValue("n", 5)).revision
    pass_time(office.world, 3600)
    fire(office.node)
    failed = office.now(draft)
    assert (failed.state, failed.scheduled_at) == (DraftState.FAILED, None)
    assert f"at revision {theirs}" in failed.failure
    assert office.value() == 5
    written = office.drafts.update(office.editor, PROJECT, draft.id, draft.mutations)
    assert (written.draft.state, written.draft.failure) == (DraftState.OPEN, "")


@pytest.mark.parametrize("who", ["approver", "publisher"])
def test_a_schedule_fails_when_the_key_of_its_approver_or_publisher_has_ended(office: Office, who: str):
    draft = office.scheduled()
    office.revoke(office.approver if who == "approver" else office.editor)
    pass_time(office.world, 3600)
    fire(office.node)
    failed = office.now(draft)
    assert failed.state is DraftState.FAILED
    assert ("needs approvals" if who == "approver" else "not in force") in failed.failure
    assert office.value() == 0


def test_what_failed_for_want_of_an_approval_is_approved_and_published_again(office: Office):
    draft = office.scheduled()
    office.revoke(office.approver)
    pass_time(office.world, 3600)
    fire(office.node)
    view = office.approve(DraftView(office.now(draft)), by=office.admin)
    assert (view.draft.state, view.draft.failure) == (DraftState.OPEN, "")
    office.publish(view)
    assert office.value() == 1


def connect(office: Office, id_: str, name: str, type_: str) -> None:
    office.service.fleet.declare(
        PROJECT,
        "production",
        [Declaration(name, parse_type(type_), 0)],
        continued=b"",
        client=ClientReport(id_),
        actor="",
    )


def test_a_draft_that_a_connected_client_could_not_decode_takes_force_which_is_kept_to_the_end(
    office: Office,
):
    office.node.commit(PutSetting("any", {"type": "Json", "default": 0}))
    connect(office, "c1", "any", "int")
    assert refused(office.create, SetValue("any", "x")).reason == "CLIENTS_WOULD_BREAK"
    view = office.create(SetValue("any", "x"), force=True)
    assert "CLIENTS_WOULD_BREAK" in [warning.code for warning in view.warnings]
    published = office.publish(office.approve(view))
    change_set = office.service.change_set(PROJECT, published.draft.revision)
    assert change_set.forced_clients == ("c1",)
    assert change_set.approved_by == (office.approver.principal.actor,)


def test_a_schedule_that_would_break_a_client_by_then_fails(office: Office):
    office.node.commit(PutSetting("any", {"type": "Json", "default": 0}))
    draft = office.scheduled(SetValue("any", "x"))
    connect(office, "c1", "any", "int")
    shown = office.drafts.get(OPEN, PROJECT, draft.id)
    assert "c1" in shown.problem
    pass_time(office.world, 3600)
    connect(office, "c1", "any", "int")
    fire(office.node)
    failed = office.now(draft)
    assert failed.state is DraftState.FAILED and "c1" in failed.failure


def test_a_draft_whose_limits_are_passed_by_then_fails(world: World):
    office = Office(world)
    draft = office.scheduled(PutSetting("big", {"type": "str", "default": "x" * 5000}))
    small = world.node(limits=Limits(max_item_bytes=1000))
    pass_time(world, 3600)
    fire(small)
    assert office.now(draft).state is DraftState.FAILED


def test_while_the_store_is_away_what_is_due_waits_in_its_order(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    first = office.scheduled(SetValue("n", 1))
    second = office.scheduled(SetValue("m", 1), after=HOUR + datetime.timedelta(seconds=1))
    pass_time(office.world, 3700)
    store = office.world.store
    commit = store.commit
    tried: list[int] = []

    def away(write: Write) -> ChangeSet | None:
        tried.append(1)
        raise UnavailableError("away")

    monkeypatch.setattr(store, "commit", away)
    fire(office.node)
    assert len(tried) == 1
    fire(office.node)
    assert len(tried) == 1, "asked again before a second had passed"
    assert office.now(first).state is office.now(second).state is DraftState.SCHEDULED
    monkeypatch.setattr(store, "commit", commit)
    pass_time(office.world, 1)
    fire(office.node)
    assert office.now(first).revision + 1 == office.now(second).revision == office.node.revision


def test_an_answer_that_got_lost_in_the_commit_makes_no_second_revision(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    draft = office.scheduled()
    pass_time(office.world, 3600)
    store = office.world.store
    commit = store.commit

    def lost(write: Write) -> ChangeSet | None:
        commit(write)
        monkeypatch.setattr(store, "commit", commit)
        raise UnavailableError("the answer was lost")

    monkeypatch.setattr(store, "commit", lost)
    fire(office.node)
    pass_time(office.world, 1)
    fire(office.node)
    done = office.now(draft)
    assert (done.state, done.revision) == (DraftState.COMMITTED, office.service.store.revision())
    assert sum(change_set.draft == draft.id for change_set in store.change_sets) == 1


def test_a_draft_that_breaks_the_server_fails_and_does_not_stop_those_after_it(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    bad = office.scheduled(SetValue("n", 1))
    good = office.scheduled(SetValue("m", 1), after=HOUR + datetime.timedelta(seconds=1))
    planned = office.service.planned

    def broken(state: Any, revision: int, principal: Any, *args: Any, **options: Any) -> Any:
        if args[2] == bad.mutations:
            raise ZeroDivisionError("secret detail")
        return planned(state, revision, principal, *args, **options)

    monkeypatch.setattr(office.service, "planned", broken)
    pass_time(office.world, 3700)
    with caplog.at_level(logging.ERROR, "rheostat.service"):
        fire(office.node)
    monkeypatch.undo()
    failed = office.now(bad)
    assert failed.state is DraftState.FAILED and "secret detail" not in failed.failure
    assert office.now(good).state is DraftState.COMMITTED
    assert any(record.exc_info for record in caplog.records)


def test_a_draft_of_a_newer_version_is_left_for_a_newer_node(
    office: Office, caplog: pytest.LogCaptureFixture
):
    store = office.world.store
    due = office.world.clock.now()
    record = Record(DRAFT_KIND, f"{PROJECT}/0newer", '{"id":"0newer","votes":3}', due)
    store.put_record(record)
    draft = office.scheduled()
    pass_time(office.world, 3600)
    with caplog.at_level(logging.WARNING, "rheostat.service"):
        fire(office.node)
    assert office.now(draft).state is DraftState.COMMITTED
    assert store.record(DRAFT_KIND, record.key).body == record.body  # type: ignore[union-attr]
    assert office.drafts.list(OPEN, PROJECT) == ([], "")


def test_a_draining_node_leaves_what_is_due_to_others(office: Office):
    draft = office.scheduled()
    pass_time(office.world, 3600)
    office.service.drain()
    fire(office.node)
    assert isinstance(refused(office.create), UnavailableError)
    assert office.drafts.seconds_to_due(1.0) == 1.0
    other = office.world.node()
    fire(other)
    assert other.service.drafts.get(OPEN, PROJECT, draft.id).draft.state is DraftState.COMMITTED


def test_a_node_commits_at_the_time_by_itself():
    # The real clocks and the real tail.
    with Service(open_store("memory:")) as service:
        service.commit(NOBODY, PROJECT, "production", [PutSetting("n", {"type": "int", "default": 0})])
        view = service.drafts.create(NOBODY, PROJECT, "production", [SetValue("n", 1)])
        at = service.clock() + datetime.timedelta(seconds=0.3)
        service.drafts.publish(NOBODY, PROJECT, view.draft.id, at=at)
        hub, bell = service.hub, service.hub.bell
        deadline = service.monotonic() + 10
        while service.view(PROJECT, "production").snapshot.settings["n"].base_value != 1:
            assert service.monotonic() < deadline
            hub.wait(bell, deadline - service.monotonic())
            bell = hub.bell
        assert service.clock() >= at


def test_rules_of_a_draft_get_their_numbers_when_it_is_committed(office: Office):
    rule = Rule("", ValueOutcome(1), parse_condition('region == "eu"'))
    view = office.approve(office.create(PutRule("n", rule)))
    office.commit(NOBODY, PutRule("m", replace(rule, id="own")))
    office.publish(view)
    settings = office.service.view(PROJECT, "production").snapshot.settings
    assert settings["n"].rules[0].number == settings["m"].rules[0].number + 1
