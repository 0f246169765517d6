"""What a revert undoes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from rheostat.document import export_document, format_document, parse_document, plan_apply
from rheostat.errors import NotFoundError, RevisionConflictError, RheostatError
from rheostat.language import parse_condition
from rheostat.model.change import DeleteSetting, PutEnvironment, PutRule, PutSegment, PutSetting, SetValue
from rheostat.model.key import KeyKind
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Segment
from rheostat.model.state import ProjectState
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.document.test_property import SLOW, states

WRITER = Writer(OPEN)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as started:
        started.commit(WRITER, "default", "", [PutEnvironment("staging")])
        for environment in ("production", "staging"):
            started.commit(WRITER, "default", environment, [PutSetting("n", {"type": "int", "default": 0})])
        yield started


def exported(service: Service) -> str:
    return format_document(export_document(service.head.state.projects["default"]))


def value(service: Service, environment: str) -> object:
    return service.view("default", environment).snapshot.settings["n"].base_value


def test_undoing_each_change_set_from_the_newest_gives_the_same_bytes_at_every_step(service: Service):
    texts = [exported(service)]
    revisions = []
    steps = [
        [SetValue("n", 1, "production")],
        [PutSegment(Segment("beta", parse_condition('user.plan == "pro"')))],
        [
            PutRule(
                "n", Rule("r", ValueOutcome(2), parse_condition('segment("beta")')), environment="production"
            ),
            SetValue("n", 3, "staging"),
        ],
        [DeleteSetting("n", "staging")],
    ]
    for mutations in steps:
        revisions.append(service.commit(WRITER, "default", "", mutations).revision)
        texts.append(exported(service))
    for revision, text in zip(reversed(revisions), reversed(texts[:-1]), strict=True):
        service.revert(WRITER, "default", revision=revision)
        assert exported(service) == text


def test_going_back_to_a_revision_undoes_all_later_ones_at_once(service: Service):
    before, text = service.head.revision, exported(service)
    for number in range(5):
        service.commit(WRITER, "default", "production", [SetValue("n", number)])
    outcome = service.revert(WRITER, "default", to_revision=before)
    assert exported(service) == text
    assert outcome.revision == before + 6
    assert outcome.change_set.reverts == before


def test_a_named_environment_limits_what_is_undone(service: Service):
    both = [SetValue("n", 7, "production"), SetValue("n", 8, "staging")]
    revision = service.commit(WRITER, "default", "", both).revision
    service.revert(WRITER, "default", environment="staging", revision=revision)
    assert (value(service, "production"), value(service, "staging")) == (7, 0)


def test_a_change_set_whose_items_changed_again_is_not_undone_and_says_which(service: Service):
    revision = service.commit(WRITER, "default", "production", [SetValue("n", 1)]).revision
    later = service.commit(WRITER, "default", "production", [SetValue("n", 2)]).revision
    with pytest.raises(RevisionConflictError) as caught:
        service.revert(WRITER, "default", revision=revision)
    (conflict,) = caught.value.conflicts
    assert (conflict.kind, conflict.key, conflict.environment, conflict.revision) == (
        "setting",
        "n",
        "production",
        later,
    )
    assert value(service, "production") == 2


def test_going_back_to_the_beginning_keeps_environments_and_keys(service: Service):
    key, _, _ = service.create_key(WRITER, kind=KeyKind.SERVER, project="default")
    service.revert(WRITER, "default", to_revision=0)
    state = service.head.state
    assert set(state.projects["default"].environments) == {"production", "staging"}
    assert not state.projects["default"].environments["production"].settings
    assert key.selector in state.keys


def test_a_revision_that_does_not_exist_yet_is_not_found(service: Service):
    with pytest.raises(NotFoundError):
        service.revert(WRITER, "default", revision=99)
    with pytest.raises(NotFoundError):
        service.revert(WRITER, "default", to_revision=99)


@SLOW
@given(states(), states())
def test_whatever_was_changed_going_back_gives_the_same_bytes_and_they_make_the_same_store(
    first: ProjectState, second: ProjectState
):
    def apply(service: Service, text: str) -> int:
        document = parse_document(text)
        mutations = plan_apply(document, service.head.state.projects.get("shop"), prune="declared")
        return service.commit(WRITER, "shop", "", mutations).revision

    slugs = sorted(first.environments)

    def text_of(service: Service) -> str:
        # Environments that were made since stay, empty.
        return format_document(export_document(service.head.state.projects["shop"], environments=slugs))

    with Service(open_store("memory:")) as service, Service(open_store("memory:")) as empty:
        made = apply(service, format_document(export_document(first)))
        text = text_of(service)
        try:
            changed = apply(service, format_document(export_document(second)))
        except RheostatError:
            # Together they would not be legal: a name, for instance, that two settings would have.
            changed = 0
        if changed > made:
            service.revert(WRITER, "shop", to_revision=made)
            assert text_of(service) == text
            service.revert(WRITER, "shop", revision=service.head.revision)
            service.revert(WRITER, "shop", to_revision=made)
            assert text_of(service) == text
        apply(empty, text)
        assert text_of(empty) == text
