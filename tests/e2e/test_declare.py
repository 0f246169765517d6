"""Programs that declare their settings to real servers, with both clients."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import (
    CreateKeyRequest,
    GetRevisionRequest,
    GetSettingRequest,
    ListRevisionsRequest,
)
from rheo.v1.change_pb2 import Mutation, PutEnvironment
from rheo.v1.key_pb2 import KEY_KIND_SERVER
from rheo.v1.project_pb2 import Environment
from rheo.v1.setting_pb2 import Setting as SettingMessage
from rheostat import Setting, SettingChange, Status
from rheostat.model.declaration import DeclarationOutcome, DeclarationResult
from rheostat.model.key import KeyKind, Role
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.e2e.process import ServerProgram, wait_until
from tests.sdk.driving import DRIVERS, Driven, Home
from tests.sdk.editor import Editor

Outcome = DeclarationOutcome
Make = Callable[..., "Program"]


class Program:
    """A program: its client, and what it was told of its declarations."""

    def __init__(
        self, home: Home, url: str, environment: str, settings: Sequence[Setting[Any]], **options: Any
    ):
        self.results: list[DeclarationResult] = []
        self.client = Driven(
            home,
            url,
            environment=environment,
            settings=settings,
            on_declaration=self.results.extend,
            **options,
        )

    def start(self) -> Program:
        """Start, and wait until the declarations are answered."""
        self.client.start()
        wait_until(lambda: bool(self.results))
        return self

    @property
    def outcomes(self) -> list[DeclarationOutcome]:
        return [result.outcome for result in self.results]


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
def make(home: Home) -> Iterator[Make]:
    """Make a program, which ends with the test."""
    with contextlib.ExitStack() as stack:

        def make_one(editor: Editor, *settings: Setting[Any], **options: Any) -> Program:
            made = Program(home, editor.url, editor.environment, settings, **options)
            stack.callback(made.client.close)
            return made

        yield make_one


def stored(editor: Editor, name: str) -> SettingMessage:
    request = GetSettingRequest(environment=editor.environment, name=name)
    return AdminServiceClientSync(editor.url).get_setting(request).setting


def test_settings_come_into_being_as_code_declares_them(editor: Editor, make: Make):
    editor.features(["region"])
    timeout = Setting(
        "timeout", float, default=2.5, version="1.2", features=["region"], metadata={"k": [1]}, owner="team"
    )
    retries = Setting("retries", int, default=0)
    program = make(editor, timeout, retries, name="checkout").start()
    assert program.outcomes == [Outcome.CREATED, Outcome.CREATED]
    held = stored(editor, "timeout")
    assert (held.type, held.version, held.owner, held.declared) == ("float", "1.2", "team", True)
    assert list(held.features.values) == ["region"]
    assert stored(editor, "retries").default.int_value == 0
    # In one change-set, which says who did it.
    admin = AdminServiceClientSync(editor.url)
    (newest, *_) = admin.list_revisions(
        ListRevisionsRequest(environment=editor.environment, page_size=1)
    ).change_sets
    assert newest.revision == held.revision == stored(editor, "retries").revision
    row = admin.get_revision(GetRevisionRequest(revision=newest.revision)).change_set
    assert row.message.startswith("Declared by checkout (rheostat-python/")
    # It reads its own settings, and what operators make of them.
    program.client.until_value("timeout", 2.5)
    editor.set(timeout=4)
    program.client.until(lambda _: timeout.get() == 4.0)
    # Another process of the same code changes nothing.
    again = make(editor, Setting("retries", int, default=0)).start()
    assert again.outcomes == [Outcome.UP_TO_DATE]
    assert stored(editor, "retries").revision == held.revision


def test_an_upgrade_is_seen_by_running_clients_without_restart(editor: Editor, make: Make):
    old = Setting("limit", int, default=5)
    running = make(editor, old).start()
    plain = make(editor)
    plain.client.start()
    running.client.until_value("limit", 5)
    changes: list[SettingChange[Any]] = []
    old.subscribe(changes.append)

    newer = make(editor, Setting("limit", int, default=0, version="1.1")).start()
    assert newer.outcomes == [Outcome.UPGRADED]
    # A falsy default, too.
    running.client.until(lambda _: old.get() == 0)
    plain.client.until_value("limit", 0)
    wait_until(lambda: bool(changes))
    assert [(change.before, change.after) for change in changes] == [(5, 0)]


def test_a_rename_goes_on_reaching_running_clients_under_the_former_name(editor: Editor, make: Make):
    old = Setting("old", int, default=5)
    running = make(editor, old).start()
    narrow = make(editor, names=["old"])
    narrow.client.start()
    new = Setting("new", int, default=5, version="1.1", alias="old")
    newer = make(editor, new).start()
    assert newer.outcomes == [Outcome.UPGRADED]
    editor.set(new=7)
    running.client.until(lambda _: old.get() == 7)
    newer.client.until(lambda _: new.get() == 7)
    narrow.client.until_value("old", 7)
    assert running.client["old"] == running.client["new"] == 7
    # Restarted as it was, it is outdated and reads all the same.
    restarted = make(editor, Setting("old", int, default=5)).start()
    assert restarted.outcomes == [Outcome.OUTDATED]
    restarted.client.until_value("old", 7)


@pytest.mark.parametrize(
    ("newer", "level"),
    [
        (Setting("a", float, default=2.0, version="2.0"), logging.WARNING),
        (Setting("a", int, default=2, version="1.1"), logging.INFO),
    ],
    ids=["major", "minor"],
)
def test_outdated_code_goes_on_with_the_stored_default_and_says_so(
    editor: Editor, make: Make, caplog: pytest.LogCaptureFixture, newer: Setting[Any], level: int
):
    make(editor, newer).start()
    old = Setting("a", int, default=1)
    with caplog.at_level(logging.INFO, "rheostat"):
        program = make(editor, old).start()
    (result,) = program.results
    assert (result.outcome, result.stored_version) == (Outcome.OUTDATED, newer.version)
    program.client.until(lambda _: old.get() == 2)
    assert isinstance(old.get(), int)
    (record,) = [record for record in caplog.records if "newer code" in record.message]
    assert record.levelno == level


def test_after_a_mismatch_values_that_fit_are_used_and_local_defaults_elsewhere(
    editor: Editor, make: Make, caplog: pytest.LogCaptureFixture
):
    editor.put("fits", 5.0, "float")
    editor.put("misfits", "x", "str")
    fits, misfits = Setting("fits", int, default=1), Setting("misfits", int, default=7)
    program = make(editor, fits, misfits).start()
    assert program.outcomes == [Outcome.MISMATCH, Outcome.MISMATCH]
    attributes = [[difference.attribute for difference in result.differences] for result in program.results]
    assert attributes == [["type", "default"], ["type", "default"]]
    program.client.until(lambda _: fits.get() == 5)
    assert misfits.get() == 7
    assert stored(editor, "misfits").type == "str"
    warned = [record.message for record in caplog.records if "MISMATCH" in record.message]
    assert len(warned) == 2


def test_a_rejected_upgrade_leaves_everybody_as_they_were(editor: Editor, make: Make):
    old = Setting("mode", Literal["a", "b"], default="a")
    running = make(editor, old).start()
    editor.set(mode="b")
    running.client.until(lambda _: old.get() == "b")
    narrower = Setting("mode", Literal["a"], default="a", version="1.1")
    program = make(editor, narrower).start()
    (result,) = program.results
    assert (result.outcome, str(result.stored_version)) == (Outcome.REJECTED, "1.0")
    assert "the environment's value" in result.message
    # The server's value does not fit, so the new code has its own default, and the old one its value.
    assert narrower.get() == "a"
    assert old.get() == "b"
    assert stored(editor, "mode").version == "1.0"


def test_one_bad_declaration_does_not_hold_up_the_others(editor: Editor, make: Make):
    bad = Setting("bad", int, default=1, features=["unregistered"])
    good = Setting("good", int, default=2)
    program = make(editor, bad, good).start()
    assert program.outcomes == [Outcome.INVALID, Outcome.CREATED]
    assert "unregistered" in program.results[0].message
    program.client.until_value("good", 2)
    assert bad.get() == 1


@pytest.mark.parametrize("kind", ["serve", "gunicorn-gthread"])
def test_a_client_declares_once_the_server_is_there(
    make: Make, start: Callable[..., ServerProgram], kind: str
):
    server = start(kind)
    editor = Editor(server.url)
    server.kill()
    setting = Setting("a", int, default=1)
    program = make(editor, setting, start_timeout=0.2, backoff=(0.1, 0.2))
    program.client.start()
    assert setting.get() == 1
    assert program.results == []
    with server.again():
        wait_until(lambda: bool(program.results))
        assert program.outcomes == [Outcome.CREATED]
        editor.set(a=3)
        program.client.until(lambda _: setting.get() == 3)
        program.client.close()


# Keys.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProgram, str]]:
    """A server that demands keys, and an administrator's key."""
    path: Path = tmp_path_factory.mktemp("store") / "store.db"
    with Service(open_store(f"sqlite:{path}")) as service:
        _, admin, _ = service.create_key(Writer(OPEN), kind=KeyKind.USER, role=Role.ADMIN, project="default")
    with ServerProgram("serve", f"sqlite:{path}") as server:
        yield server, admin


@pytest.mark.parametrize(
    ("declare", "protected", "expected"),
    [
        (None, False, Outcome.CREATED),
        (False, False, Outcome.DENIED),
        (None, True, Outcome.DENIED),
        (True, True, Outcome.CREATED),
    ],
    ids=["default", "forbidden", "protected", "protected, expressly"],
)
def test_a_key_declares_where_it_may_and_reads_everywhere(
    guarded: tuple[ServerProgram, str],
    make: Make,
    declare: bool | None,
    protected: bool,
    expected: DeclarationOutcome,
):
    server, admin = guarded
    editor = Editor(server.url, key=admin)
    if protected:
        environment = Environment(name=editor.environment, protected=True)
        editor.commit(
            Mutation(
                put_environment=PutEnvironment(environment=environment, update_mask={"paths": ["protected"]})
            )
        )
    made = AdminServiceClientSync(server.url).create_key(
        CreateKeyRequest(kind=KEY_KIND_SERVER, declare=declare, environments=[editor.environment]),
        headers={"authorization": f"Bearer {admin}"},
    )
    setting = Setting("a", int, default=1)
    program = make(editor, setting, key=made.secret).start()
    assert program.outcomes == [expected]
    assert program.client.status is Status.LIVE
    if expected is Outcome.DENIED:
        assert editor.environment in program.results[0].message
    assert setting.get() == 1
