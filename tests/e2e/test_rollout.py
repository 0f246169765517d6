"""Programs of two versions on real servers: what breaks the older one is refused, or forced and on record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import (
    CommitRequest,
    GetRevisionRequest,
    GetRolloutRequest,
    GetRolloutResponse,
    ListClientsRequest,
)
from rheo.v1.client_pb2 import ClientIdentity, ClientReport
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.config_service_pb2 import ReportStatusRequest
from rheostat import Setting
from rheostat.errors import FailedPreconditionError
from rheostat.model.declaration import DeclarationOutcome, DeclarationResult
from rheostat.wire.error import from_connect
from tests.e2e.process import ServerProgram, wait_until
from tests.sdk.driving import DRIVERS, Driven, Home
from tests.sdk.editor import Editor, setting_value

Outcome = DeclarationOutcome


class Program:
    """A program that declares settings: its client, and what it was answered."""

    def __init__(self, home: Home, editor: Editor, settings: Sequence[Setting[Any]], **options: Any) -> None:
        self.results: list[DeclarationResult] = []
        self.client = Driven(
            home,
            editor.url,
            environment=editor.environment,
            settings=settings,
            on_declaration=self.results.extend,
            **options,
        )
        self.client.start()
        wait_until(lambda: bool(self.results))


@pytest.fixture(params=["serve", "gunicorn-gthread"])
def server(request: pytest.FixtureRequest, shared_server: Callable[[str], ServerProgram]) -> ServerProgram:
    return shared_server(request.param)


@pytest.fixture
def editor(server: ServerProgram) -> Editor:
    return Editor(server.url)


@pytest.fixture(scope="module", params=DRIVERS)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    found = Home(request.param)
    yield found
    found.close()


@pytest.fixture
def start(home: Home, editor: Editor) -> Iterator[Callable[..., Program]]:
    """Start a program, which ends with the test."""
    with contextlib.ExitStack() as stack:

        def start_one(*settings: Setting[Any], **options: Any) -> Program:
            made = Program(home, editor, settings, **options)
            stack.callback(made.client.close)
            return made

        yield start_one


def commit(editor: Editor, name: str, value: object, **fields: Any) -> int:
    request = CommitRequest(environment=editor.environment, mutations=[setting_value(name, value)], **fields)
    try:
        return AdminServiceClientSync(editor.url).commit(request).revision
    except Exception as exc:
        raise from_connect(exc) from exc  # type: ignore[arg-type]


def test_running_clients_are_upgraded_and_values_that_they_cannot_read_take_force(
    editor: Editor, start: Callable[..., Program]
):
    old_limit = Setting("limit", int, default=5)
    old = start(old_limit, client_id="old-1", name="shop@web-1")
    new_limit = Setting("limit", float, default=2.0, version="2.0")
    new = start(new_limit, client_id="new-1", name="shop@web-2")
    assert [program.results[0].outcome for program in (old, new)] == [Outcome.CREATED, Outcome.UPGRADED]
    # Without a restart, and in its own type.
    old.client.until(lambda _: old_limit.get() == 2)
    assert isinstance(old_limit.get(), int)

    commit(editor, "limit", 3.0)
    for program, setting in ((old, old_limit), (new, new_limit)):
        program.client.until(lambda _, setting=setting: setting.get() == 3)

    with pytest.raises(FailedPreconditionError) as caught:
        commit(editor, "limit", 2.5)
    assert caught.value.reason == "CLIENTS_WOULD_BREAK"
    assert "shop@web-1 (old-1)" in caught.value.message
    assert "shop@web-2" not in caught.value.message
    assert json.loads(caught.value.metadata["clients"]) == ["old-1"]
    assert (old_limit.get(), new_limit.get()) == (3, 3.0)

    revision = commit(editor, "limit", 2.5, force=True)
    new.client.until(lambda _: new_limit.get() == 2.5)
    # It goes on with its own default.
    old.client.until(lambda _: old_limit.get() == 5)
    audited = AdminServiceClientSync(editor.url).get_revision(GetRevisionRequest(revision=revision))
    assert list(audited.change_set.forced_clients) == ["old-1"]

    worse = start(Setting("limit", str, default="none", version="3.0"), client_id="worse-1")
    (rejected,) = worse.results
    assert rejected.outcome is Outcome.REJECTED
    assert new_limit.get() == 2.5


def test_a_new_default_that_running_clients_cannot_read_is_rejected_with_their_ids(
    editor: Editor, start: Callable[..., Program]
):
    old_mode = Setting("mode", int, default=1)
    start(old_mode, client_id="old-1")
    start(Setting("mode", int, default=1), client_id="old-2")
    new_mode = Setting("mode", str, default="fast", version="2.0")
    (rejected,) = start(new_mode, client_id="new-1").results
    assert rejected.outcome is Outcome.REJECTED
    assert rejected.blocking_clients == ("old-1", "old-2")
    assert (old_mode.get(), new_mode.get()) == (1, "fast")


def test_a_rollout_shows_who_has_reached_a_revision_and_who_has_not(editor: Editor):
    revision = editor.put("limit", 1)
    admin, config = AdminServiceClientSync(editor.url), ConfigServiceClientSync(editor.url)

    def report(id_: str, at: int) -> None:
        made = ClientReport(client=ClientIdentity(id=id_), generation=1, revision=at)
        config.report_status(ReportStatusRequest(environment=editor.environment, reports=[made]))

    def rollout() -> GetRolloutResponse:
        return admin.get_rollout(
            GetRolloutRequest(environment=editor.environment, revision=revision, ask=True)
        )

    for number in range(20):
        report(f"c{number:02}", revision - (number % 10 == 0))
    wait_until(lambda: rollout().reporting == 20)
    found = rollout()
    assert (found.revision, found.reached) == (revision, 18)
    assert [laggard.client.id for laggard in found.laggards] == ["c00", "c10"]
    for late in ("c00", "c10"):
        report(late, revision)
    assert wait_until(lambda: rollout().reached == 20) < 5.0
    listed = admin.list_clients(ListClientsRequest(environment=editor.environment, page_size=1000))
    assert len(listed.clients) == 20
