"""Drafts on the command line: `--draft`, `--into`, and `rheostat drafts`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheo.v1.draft_service_connect import DraftServiceClientSync
from rheo.v1.draft_service_pb2 import PublishDraftRequest
from tests.cli.conftest import DOCUMENT, Cli, Server


class Team:
    """People with keys of a server, and the protected environment `production`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.admin = Cli(server.url, "default", folder)
        server.stop()
        self._grant(self.admin, "admin", store=server.store)
        server.start()
        self.admin.env["RHEOSTAT_URL"] = server.url
        self.admin.apply(DOCUMENT.format(project="default"))
        self.admin.run("env", "create", "staging")
        self.admin.apply(DOCUMENT.format(project="default").replace("production", "staging"))
        self.admin.run("env", "create", "production", "--protected")
        self.editor, self.approver = (Cli(server.url, "default", folder) for _ in range(2))
        for cli, role in ((self.editor, "editor"), (self.approver, "approver")):
            cli.env["RHEOSTAT_URL"] = server.url
            self._grant(cli, role, env=self.admin.env)
            cli.env["RHEOSTAT_ENVIRONMENT"] = "production"
            cli.env["RHEOSTAT_AUTHOR"] = f"the {role}"
        self.admin.env["RHEOSTAT_ENVIRONMENT"] = "production"

    def _grant(self, cli: Cli, role: str, *, store: str = "", env: dict[str, Any] | None = None) -> None:
        options = ("--store", store) if store else ()
        command = ("keys", "create", "--kind", "user", "--role", role, *options, "--json")
        cli.env["RHEOSTAT_KEY"] = json.loads(cli.run(*command, **(env or {})).stdout)["secret"]

    def publish(self, draft: str, by: Cli | None = None) -> int:
        by = by or self.editor
        client = DraftServiceClientSync(str(by.env["RHEOSTAT_URL"]))
        headers = {"authorization": f"Bearer {by.env['RHEOSTAT_KEY']}"}
        return client.publish_draft(PublishDraftRequest(id=draft), headers=headers).revision


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    server = Server(folder)
    try:
        yield Team(server, folder)
    finally:
        server.stop()


def timeout_of(cli: Cli) -> float:
    return cli.json("get", "checkout.timeout")["value"]


def test_a_change_of_a_protected_environment_says_how_to_make_a_draft(team: Team):
    before = team.editor.revision()
    result = team.editor.run("set", "checkout.timeout", "4", code=1)
    assert "needs approvals: 'production' has 0 of 1" in result.stderr and "--draft" in result.stderr
    assert team.editor.revision() == before
    assert "dry run" in team.editor.run("set", "checkout.timeout", "4", "--dry-run").stdout


def test_a_draft_is_made_shown_approved_and_committed(team: Team):
    made = team.editor.run("set", "checkout.timeout", "4.5", "--draft", "-m", "Slow banks")
    draft = made.stdout.split("draft ")[1].split(",")[0]
    assert "→ 4.5" in made.stdout and "nothing is committed yet" in made.stdout
    assert "production has 0 of 1 approvals" in made.stdout
    assert f"rheostat drafts approve {draft}" in made.stderr and f"rheostat publish {draft}" in made.stderr

    listed = team.approver.run("drafts", "list").stdout
    assert draft in listed and "Slow banks" in listed and "production 0/1" in listed
    shown = team.approver.run("drafts", "show", draft).stdout
    assert "the editor" in shown and "→ 4.5" in shown and "production has 0 of 1" in shown
    answer = team.approver.json("drafts", "show", draft)
    assert (answer["id"], answer["state"], answer["version"]) == (draft, "open", 1)
    assert answer["changes"][0]["after"]["value"] == 4.5 and answer["problem"] is None

    assert "say --yes" in team.approver.run("drafts", "approve", draft, code=2).stderr
    approved = team.approver.run("drafts", "approve", draft, "--yes", "--comment", "Checked").stdout
    assert "→ 4.5" in approved and f"approved draft {draft}, version 2" in approved
    assert "Checked" in team.editor.run("drafts", "show", draft).stdout
    assert team.editor.json("drafts", "show", draft)["missing_approvals"] == []

    revision = team.publish(draft)
    assert timeout_of(team.editor) == 4.5
    entry = team.editor.json("history", "-l", "1")["revisions"][0]
    assert (entry["revision"], entry["draft"], entry["message"]) == (revision, draft, "Slow banks")
    assert entry["author"] == "the editor" and len(entry["approved_by"]) == 1
    text = team.editor.run("history", "-l", "1").stdout
    assert f"(draft {draft})" in text and f"approved by {entry['approved_by'][0]}" in text
    assert draft not in team.editor.run("drafts", "list").stdout
    assert draft in team.editor.run("drafts", "list", "--state", "committed").stdout


def test_an_approver_is_asked_on_a_terminal(team: Team, monkeypatch: pytest.MonkeyPatch):
    draft = team.editor.json("set", "greeting", "hi", "--draft")["draft"]["id"]
    monkeypatch.setattr("rheostat.cli.draft._can_ask", lambda: True)
    team.approver.run("drafts", "approve", draft, input="n\n", code=130)
    assert team.approver.json("drafts", "show", draft)["approvals"] == []
    result = team.approver.run("drafts", "approve", draft, input="y\n")
    assert "Approve this draft?" in result.stderr and "approved draft" in result.stdout
    team.editor.run("drafts", "cancel", draft)


def test_what_was_changed_after_it_was_shown_is_not_approved(team: Team):
    draft = team.editor.json("set", "greeting", "hi", "--draft")["draft"]["id"]
    team.editor.run("set", "greeting", "ha", "--into", draft)
    result = team.approver.run("drafts", "approve", draft, "--yes", "--version", "1", code=5)
    assert "changed" in result.stderr
    team.editor.run("drafts", "cancel", draft)


def test_a_change_is_written_into_a_draft_in_place_of_what_is_in_it(team: Team):
    draft = team.editor.json("set", "greeting", "hi", "--draft", "-m", "Shorter")["draft"]["id"]
    team.approver.run("drafts", "approve", draft, "--yes")
    text = team.editor.run("set", "theme", '"dark"', "--into", draft).stdout
    assert f"draft {draft}, version 3" in text and "production has 0 of 1" in text
    answer = team.editor.json("drafts", "show", draft)
    assert [change["name"] for change in answer["changes"]] == ["theme"]
    assert (answer["message"], answer["approvals"]) == ("Shorter", [])
    team.editor.run("drafts", "cancel", draft)
    assert team.editor.json("drafts", "show", draft)["state"] == "cancelled"
    assert "was cancelled" in team.editor.run("set", "theme", '"dark"', "--into", draft, code=1).stderr


def test_a_change_for_another_environment_goes_where_it_is_meant_to(team: Team):
    draft = team.editor.json("set", "greeting", "hi", "--draft")["draft"]["id"]
    team.editor.run("set", "greeting", "ho", "-e", "staging", "--into", draft)
    change = team.editor.json("drafts", "show", draft)["changes"][0]
    assert (change["environment"], change["after"]["value"]) == ("staging", "ho")
    team.editor.run("drafts", "cancel", draft)


def test_a_document_becomes_one_draft(team: Team):
    text = team.editor.run("export").stdout.replace("default: hello", "default: welcome")
    answer = json.loads(team.editor.apply(text, "--draft", "--json").stdout)
    assert answer["committed"] is False
    assert {change["environment"] for change in answer["changes"]} == {"production", "staging"}
    assert answer["draft"]["environments"] == ["production", "staging"]
    team.editor.run("drafts", "cancel", answer["draft"]["id"])


def test_a_draft_of_nothing_is_not_made(team: Team):
    value = json.dumps(timeout_of(team.editor))
    result = team.editor.run("set", "checkout.timeout", value, "--draft")
    assert "no changes" in result.stdout
    assert "there are no drafts" in team.editor.run("drafts", "list", "--state", "open").stderr


def test_a_stale_draft_says_what_has_changed_and_is_brought_up(team: Team):
    first = team.editor.json("set", "greeting", "one", "--draft")["draft"]["id"]
    second = team.editor.json("set", "greeting", "two", "--draft")["draft"]["id"]
    for draft in (first, second):
        team.approver.run("drafts", "approve", draft, "--yes")
    revision = team.publish(first)
    shown = team.editor.run("drafts", "show", second).stdout
    assert f"setting 'greeting' in production at revision {revision}" in shown
    answer = team.editor.json("drafts", "update", second)
    assert answer["base_revision"] >= revision and answer["approvals"] == []
    assert answer["changes"][0]["before"]["value"] == "one"
    team.approver.run("drafts", "approve", second, "--yes")
    team.publish(second)
    assert team.editor.json("get", "greeting")["value"] == "two"


def test_a_revert_of_a_protected_environment_is_drafted(team: Team):
    before = team.editor.run("export").stdout
    draft = team.editor.json("set", "checkout.timeout", "9", "--where", 'region == "us"', "--draft")["draft"]
    team.approver.run("drafts", "approve", draft["id"], "--yes")
    revision = team.publish(draft["id"])
    assert team.editor.run("export").stdout != before
    assert "needs approvals" in team.editor.run("revert", str(revision), code=1).stderr
    undo = team.editor.json("revert", str(revision), "--draft", "-m", "Too slow")["draft"]["id"]
    team.approver.run("drafts", "approve", undo, "--yes")
    team.publish(undo)
    assert team.editor.run("export").stdout == before


def test_how_an_environment_is_protected_is_set_and_shown(team: Team):
    assert team.editor.run("env", "create", "staging", "--protected", code=4)
    team.admin.run("env", "create", "staging", "--required-approvals", "2", "--self-approval")
    shown = team.editor.json("env", "show", "staging")
    assert (shown["protected"], shown["required_approvals"], shown["self_approval"]) == (False, 2, True)
    assert "protected, 1 approval" in team.editor.run("env", "show", "production").stdout
    assert "protected, 1 approval" in team.editor.run("env", "list").stdout


def test_of_two_operators_the_second_gets_a_conflict_that_names_the_firsts_revision(cli: Cli, document: str):
    # What `apply` and `set --where` send is what they have read: others' changes since then are in the way.
    ada = cli.json("set", "greeting", "ada", "--draft")["draft"]["id"]
    first = cli.json("set", "greeting", "ben", "-m", "Ben was here")["revision"]
    answer = cli.json("drafts", "show", ada)
    assert f"at revision {first}" in answer["problem"] and answer["state"] == "open"
    assert cli.json("get", "greeting")["value"] == "ben"


def test_a_draft_that_is_not_there_is_not_found(cli: Cli):
    assert cli.json("drafts", "show", "nothing", code=1)["error"]["reason"] == "DRAFT_NOT_FOUND"


def test_a_draft_is_either_made_or_written_into(cli: Cli):
    assert "--into names one" in cli.run("set", "greeting", "x", "--draft", "--into", "d", code=2).stderr


def test_a_dry_run_of_a_draft_makes_none(cli: Cli):
    answer = cli.json("set", "greeting", "x", "--draft", "--dry-run")
    assert answer["dry_run"] is True and "draft" not in answer
    assert cli.json("drafts", "list")["drafts"] == []


def test_a_draft_is_made_on_a_server_without_keys_too(cli: Cli, document: str):
    answer = cli.json("apply", "-", "--draft", input=document.replace("default: hello", "default: hi"))
    assert answer["draft"]["missing_approvals"] == []
    ids = [draft["id"] for draft in cli.json("drafts", "list")["drafts"]]
    assert ids == [answer["draft"]["id"]]
    assert cli.json("drafts", "list", "-e", "production")["drafts"][0]["environments"] == ["production"]
