"""`rheostat promote` and `env copy`: a plan, a question on a terminal, one change-set."""

from __future__ import annotations

import itertools

import pytest

from rheostat.cli import promote


def test_an_environment_is_copied_whole_in_one_revision(cli):
    before = cli.revision()
    answer = cli.json("env", "copy", "production", "sandbox", "--title", "Sandbox")
    assert answer["revision"] == before + 1
    assert cli.json("env", "show", "sandbox")["title"] == "Sandbox"
    dropped = ("revision", "rules")
    for setting, other in zip(
        cli.json("list", "-e", "production")["settings"],
        cli.json("list", "-e", "sandbox")["settings"],
        strict=True,
    ):
        assert {k: v for k, v in setting.items() if k not in dropped} == {
            k: v for k, v in other.items() if k not in dropped
        }
        assert [{**rule, "number": 0} for rule in setting["rules"]] == [
            {**rule, "number": 0} for rule in other["rules"]
        ]
    assert "promote" in cli.run("env", "copy", "production", "sandbox", code=1).stderr


def test_chosen_parts_of_named_settings_are_promoted(cli):
    cli.run("env", "copy", "production", "sandbox")
    cli.run("set", "checkout.timeout", "9.5", "-e", "sandbox")
    cli.run("set", "greeting", "hi", "-e", "sandbox")
    tried = cli.run("promote", "sandbox", "production", "--dry-run").stdout
    assert "value: 3.0 → 9.5" in tried
    assert "nothing was written" in tried
    answer = cli.json("promote", "sandbox", "production", "checkout.timeout", "--values")
    assert [change["name"] for change in answer["changes"]] == ["checkout.timeout"]
    assert cli.json("get", "checkout.timeout", "-e", "production")["value"] == 9.5
    assert "value" not in cli.json("get", "greeting", "-e", "production")
    assert "no changes" in cli.run("promote", "sandbox", "production", "checkout.timeout").stdout


def test_what_is_refused_says_why(cli):
    cli.run("env", "create", "sandbox")
    assert "env copy" in cli.run("promote", "production", "nowhere", code=1).stderr
    assert "nowhere" in cli.run("promote", "nowhere", "production", code=1).stderr
    assert "nothing" in cli.run("promote", "production", "sandbox", "nothing", code=1).stderr
    cli.run("promote", "production", "production", code=2)
    cli.run("promote", "production", "sandbox", "greeting", "--prune", code=2)


def test_pruning_deletes_what_the_source_does_not_have(cli):
    cli.run("env", "create", "empty")
    cli.run("env", "copy", "production", "sandbox")
    answer = cli.json("promote", "empty", "sandbox", "--prune")
    assert {change["action"] for change in answer["changes"]} == {"delete"}
    assert cli.json("list", "-e", "sandbox")["settings"] == []


def test_on_a_terminal_the_plan_is_shown_and_asked_about_first(cli, monkeypatch: pytest.MonkeyPatch):
    cli.run("env", "create", "sandbox")
    monkeypatch.setattr(promote, "_is_terminal", lambda: True)
    before = cli.revision()
    refused = cli.run("promote", "production", "sandbox", input="n\n", code=130)
    assert "dry run" in refused.output
    assert cli.revision() == before
    cli.run("promote", "production", "sandbox", input="y\n")
    assert cli.revision() == before + 1
    cli.run("promote", "production", "sandbox", "--yes", input="")


def test_somebody_elses_change_meanwhile_is_a_conflict_and_nothing_is_written(
    cli, monkeypatch: pytest.MonkeyPatch
):
    cli.run("env", "copy", "production", "sandbox")
    cli.run("set", "greeting", "hi", "-e", "sandbox")
    made, export = itertools.count(), promote.export_state

    def raced(*arguments, **options):
        exported = export(*arguments, **options)
        if not next(made):
            cli.run("set", "greeting", "hello there", "-e", "production")
        return exported

    monkeypatch.setattr(promote, "export_state", raced)
    cli.run("promote", "sandbox", "production", code=5)
    assert cli.json("get", "greeting", "-e", "production")["value"] == "hello there"
