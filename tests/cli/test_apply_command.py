"""`rheostat apply`: plans, one change-set, errors that name their place."""

from __future__ import annotations

import json
from pathlib import Path

import yaml


def test_applying_twice_says_no_changes_and_takes_no_revision(cli, document):
    before = cli.revision()
    result = cli.apply(document)
    assert "no changes" in result.stdout
    assert cli.revision() == before
    assert cli.json("apply", "-", input=document)["changes"] == []


def test_a_dry_run_shows_old_and_new_values_and_writes_nothing(cli, document):
    before = cli.revision()
    result = cli.apply(document.replace("value: 3.0", "value: 3.5"), "--dry-run")
    assert "value: 3.0 → 3.5" in result.stdout
    assert "nothing was written" in result.stdout
    assert cli.revision() == before
    assert cli.json("get", "checkout.timeout")["value"] == 3.0


def test_the_diff_names_rules_that_are_added_removed_moved_and_changed(cli, document):
    wanted = yaml.safe_load(document)
    rules = wanted["settings"]["checkout.timeout"]["environments"]["production"]["rules"]
    rules.reverse()
    rules[1]["value"] = 4.5
    rules.append({"where": 'user.plan == "pro"', "value": 9})
    moved = cli.apply(yaml.safe_dump(wanted), "--dry-run").stdout
    assert "moved from place" in moved
    assert "outcome: 4.0 → 4.5" in moved
    assert "+ rule 3" in moved and 'user.plan == "pro"' in moved
    del rules[0]
    removed = cli.apply(yaml.safe_dump(wanted), "--dry-run").stdout
    assert "- rule 2 (second)" in removed


def test_an_apply_makes_the_project_and_its_environments(empty, document):
    result = empty.apply(document)
    assert f"+ project {empty.project}" in result.stdout
    assert [e["name"] for e in empty.json("env", "list")["environments"]] == ["production"]


def test_reads_json_and_files_and_names_the_revision(empty, document):
    path = empty.folder / "shop.json"
    path.write_text(json.dumps(yaml.safe_load(document)))
    answer = empty.json("apply", str(path), "-m", "First")
    assert answer["committed"] is True
    newest = empty.json("history", "--limit", "1")["revisions"][0]
    assert (newest["revision"], newest["message"], newest["author"]) == (answer["revision"], "First", "ann")


def test_an_error_names_line_and_column_of_the_file(cli):
    path = cli.folder / "broken.yaml"
    path.write_text("settings:\n  checkout.timeout:\n    type: flaot\n")
    text = cli.run("apply", str(path), code=1).stderr
    assert "broken.yaml:3:" in text
    record = cli.json("apply", str(path), code=1)["error"]
    assert (record["line"], record["exit_code"]) == (3, 1)
    assert record["column"] > 4
    assert record["reason"] == "INVALID_DOCUMENT"


def test_an_error_in_a_condition_of_the_file_shows_its_place(cli, document):
    broken = document.replace('region == "eu"', 'region = "eu"')
    record = cli.json("apply", "-", code=1, input=broken)["error"]
    lines = broken.splitlines()
    assert 'region = "eu"' in lines[record["line"] - 1]


def test_only_prune_deletes_what_the_file_leaves_out(cli, document):
    wanted = yaml.safe_load(document)
    del wanted["settings"]["greeting"]
    text = yaml.safe_dump(wanted)
    assert "no changes" in cli.apply(text).stdout
    assert "- setting greeting in production" in cli.apply(text, "--prune", "--dry-run").stdout
    cli.apply(text, "--prune")
    assert cli.json("get", "greeting", code=1)["error"]["reason"] == "SETTING_NOT_FOUND"


def test_prune_equals_declared_does_not_swallow_the_files_name(cli, document):
    path = cli.folder / "shop.yaml"
    path.write_text(document)
    assert "no changes" in cli.run("apply", "--prune=declared", str(path)).stdout
    assert "no changes" in cli.run("apply", "--prune", str(path)).stdout


def test_a_document_of_another_project_is_refused(cli, document):
    text = cli.run("apply", "-", "--project", "other", code=1, input=document).stderr
    assert cli.project in text and "other" in text


def test_an_edit_between_plan_and_commit_is_not_overwritten(cli, document, monkeypatch):
    from rheostat.cli import apply as module

    plan = module.plan_apply

    def plan_while_somebody_edits(*args, **kwargs):
        cli.run("set", "checkout.timeout", "8", "-e", "production")
        return plan(*args, **kwargs)

    monkeypatch.setattr(module, "plan_apply", plan_while_somebody_edits)
    record = cli.json("apply", "-", code=5, input=document.replace("value: 3.0", "value: 3.5"))["error"]
    assert record["conflicts"][0]["name"] == "checkout.timeout"
    assert cli.json("get", "checkout.timeout")["value"] == 8.0


def test_environment_limits_an_apply(empty, document):
    both = document.replace("[production]", "[production, staging]")
    empty.apply(both)
    empty.apply(both.replace("default: hello", "default: hi"), "-e", "staging")
    greetings = {e: empty.json("get", "greeting", "-e", e)["default"] for e in ("production", "staging")}
    assert greetings == {"production": "hello", "staging": "hi"}


def test_a_file_that_is_no_text_is_refused(cli):
    path = Path(cli.folder / "image.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in cli.run("apply", str(path), code=1).stderr


def test_what_the_server_refuses_names_the_rules_place_in_the_file(cli, document):
    path = cli.folder / "shop.yaml"
    broken = document.replace('where: region == "eu"', 'where: region matches "("')
    path.write_text(broken)
    error = cli.json("apply", str(path), code=1)["error"]
    line = int(error["metadata"]["line"])
    assert 'where: region matches "("' in broken.splitlines()[line - 1]
    where = "settings.checkout.timeout.environments.production.rules[0].where"
    assert (error["reason"], error["metadata"]["field"]) == ("INVALID_CONDITION", where)
    assert [violation["field"] for violation in error["violations"]] == [where]
    assert error["message"].startswith(f"shop.yaml:{line}:") and "mutations[" not in error["message"]
    assert f"error: shop.yaml:{line}:" in cli.run("apply", str(path), code=1).stderr


def test_what_does_not_fit_together_names_its_place_in_the_file_too(cli, document):
    broken = document.replace('where: region == "eu"', 'where: segment("gone")')
    error = cli.json("apply", "-", code=1, input=broken)["error"]
    assert error["reason"] == "UNKNOWN_SEGMENT" and "mutations[" not in error["message"]
    # The whole change-set is at fault, so that the setting is as near as it gets.
    line = broken.splitlines()[int(error["metadata"]["line"]) - 1]
    assert 'segment("gone")' in line or "rules" in line or "- id" in line

    circular = document.replace('where: region == "eu"', 'where: setting("checkout.timeout") == 1')
    error = cli.json("apply", "-", code=1, input=circular)["error"]
    assert (error["reason"], error["exit_code"]) == ("CYCLE", 1)
    assert error["message"].startswith("standard input:") and int(error["metadata"]["line"]) > 7


def test_a_dry_run_warns_of_rules_that_never_decide_at_their_place_in_the_file(cli, document):
    changed = document.replace(
        'where: percent(user.id, salt="s") < 10', 'where: region == "eu" and user.plan == "pro"'
    )
    line = next(i for i, text in enumerate(changed.splitlines(), 1) if "- id: second" in text)
    result = cli.apply(changed, "--dry-run")
    assert f"warning: standard input:{line}:" in result.stderr
    assert "rule 2 ('second') of the setting 'checkout.timeout' never decides" in result.stderr
    assert 'for instance for {"region":"eu","user.plan":"pro"}' in result.stderr
    (warning,) = cli.json("apply", "-", "--dry-run", input=changed)["warnings"]
    assert (warning["code"], warning["context"]) == ("RULE_HIDDEN", {"region": "eu", "user.plan": "pro"})
