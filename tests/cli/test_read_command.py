"""`rheostat get`, `list`, `rules`, `evaluate`, `explain`, `env`, `export`, `history`, `revert`."""

from __future__ import annotations

import json


def test_get_shows_a_setting_by_name_and_alias(cli):
    text = cli.run("get", "checkout.timeout").stdout
    assert "float" in text and "3.0" in text and "team-payments" in text
    setting = cli.json("get", "checkout.timeout")
    assert (setting["project"], setting["environment"]) == (cli.project, "production")
    assert setting["rules"][0]["where"] == 'region == "eu"'


def test_list_filters_by_the_beginning_of_names(cli):
    names = [setting["name"] for setting in cli.json("list")["settings"]]
    assert names == sorted(names) and "greeting" in names
    assert [setting["name"] for setting in cli.json("list", "checkout.")["settings"]] == ["checkout.timeout"]
    assert "greeting" not in cli.run("list", "checkout.").stdout


def test_rules_are_in_order_and_end_with_the_value_of_all_others(cli):
    lines = cli.run("rules", "checkout.timeout").stdout.splitlines()
    places = [next(i for i, line in enumerate(lines) if word in line) for word in ("first", "second")]
    assert places == sorted(places)
    assert lines[-1] == "else 3.0"


def test_evaluate_takes_pairs_with_json_values(cli):
    assert cli.run("evaluate", "checkout.timeout", "region=eu").stdout == "4.0\n"
    assert cli.run("evaluate", "checkout.timeout", "region=us").stdout == "3.0\n"
    answer = cli.json("evaluate", "checkout.timeout", "region=eu", "user.age=5")
    assert answer["context"] == {"region": "eu", "user.age": 5}
    assert (answer["value"], answer["reason"], answer["rule_id"]) == (4.0, "TARGETING_MATCH", "first")


def test_evaluate_takes_a_whole_context_over_which_pairs_win(cli):
    context = json.dumps({"region": "us", "user": {"plan": "pro"}})
    assert cli.run("evaluate", "checkout.timeout", "--context", context).stdout == "3.0\n"
    assert cli.run("evaluate", "checkout.timeout", "region=eu", "--context", context).stdout == "4.0\n"


def test_strings_are_json_unless_raw(cli):
    assert cli.run("evaluate", "greeting").stdout == '"hello"\n'
    assert cli.run("evaluate", "greeting", "--raw").stdout == "hello\n"


def test_evaluate_refuses_what_is_no_pair_before_it_asks_anybody(cli):
    assert "path=value" in cli.run("evaluate", "greeting", "region", code=2).stderr
    assert "twice" in cli.run("evaluate", "greeting", "a=1", "a=2", code=2).stderr


def test_explain_shows_each_rule_and_what_its_condition_was(cli):
    text = cli.run("explain", "checkout.timeout", "region=us", "user.id=u1").stdout
    assert "rule 1 first" in text and "FALSE" in text and 'region is "us"' in text
    answer = cli.json("explain", "checkout.timeout", "user.id=u1")
    assert answer["rules"][0]["truth"] == "UNKNOWN"
    assert answer["rules"][0]["condition"]["detail"] == "region is missing"


def test_environments_are_created_listed_and_shown(cli):
    cli.run("env", "create", "staging", "--title", "Dress rehearsal", "--protected")
    listed = {item["name"]: item for item in cli.json("env", "list")["environments"]}
    assert listed["staging"]["protected"] is True
    assert "Dress rehearsal" in cli.run("env", "show", "staging").stdout
    cli.run("env", "create", "staging", "--unprotected")
    assert cli.json("env", "show", "staging") | {"revision": 0} == {
        "project": cli.project,
        "name": "staging",
        "title": "Dress rehearsal",
        "description": "",
        "protected": False,
        "required_approvals": 0,
        "self_approval": False,
        "revision": 0,
    }


def test_export_and_apply_round_trip_to_the_byte(cli, empty):
    first = cli.run("export").stdout
    assert "no changes" in cli.apply(first).stdout
    assert cli.run("export").stdout == first
    assert json.loads(cli.run("export", "--json").stdout)["project"] == cli.project


def test_export_writes_a_file_whole_and_chooses_json_by_its_name(cli):
    path = cli.folder / "out.json"
    cli.run("export", "--output", str(path))
    assert json.loads(path.read_text())["project"] == cli.project
    assert list(cli.folder.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_an_error(cli):
    assert "cannot write" in cli.run("export", "-o", str(cli.folder / "no" / "out.yaml"), code=1).stderr


def test_history_is_newest_first_and_can_be_of_one_setting(cli):
    cli.run("set", "greeting", "hi", "-m", "Shorter")
    cli.run("set", "checkout.timeout", "8", "-m", "Slower")
    messages = [revision["message"] for revision in cli.json("history")["revisions"]]
    assert messages[:2] == ["Slower", "Shorter"]
    assert [r["message"] for r in cli.json("history", "greeting", "-l", "1")["revisions"]] == ["Shorter"]
    text = cli.run("history", "greeting", "--patch").stdout
    assert "Shorter" in text and '"hi"' in text and "Slower" not in text


def test_a_long_revision_is_cut_unless_a_patch_is_asked_for(cli):
    assert " more" in cli.run("history").stdout
    assert " more" not in cli.run("history", "--patch").stdout


def test_reverting_a_revision_restores_the_bytes_of_the_export(cli):
    before = cli.run("export").stdout
    revision = cli.json("set", "checkout.timeout", "9", "--where", 'user.plan == "pro"')["revision"]
    assert cli.run("export").stdout != before
    assert "nothing was written" in cli.run("revert", str(revision), "--dry-run").stdout
    answer = cli.json("revert", str(revision), "-m", "Too slow")
    assert answer["committed"] is True
    assert cli.run("export").stdout == before
    assert cli.json("history", "-l", "1")["revisions"][0]["reverts"] == revision


def test_reverting_to_a_revision_undoes_all_after_it(cli):
    before = cli.run("export").stdout
    revision = cli.revision()
    cli.run("set", "greeting", "a")
    cli.run("set", "greeting", "b")
    cli.run("revert", "--to", str(revision))
    assert cli.run("export").stdout == before


def test_what_has_changed_again_is_not_reverted_alone(cli):
    revision = cli.json("set", "greeting", "a")["revision"]
    cli.run("set", "greeting", "b")
    error = cli.json("revert", str(revision), code=5)["error"]
    assert error["conflicts"][0]["name"] == "greeting"


def test_revert_needs_exactly_one_target(cli):
    cli.run("revert", code=2)
    cli.run("revert", "3", "--to", "2", code=2)


def test_evaluate_and_explain_join_the_subjects_that_are_named(cli):
    cli.json("subjects", "set", "company", "id=acme", "vat=CH-1", "--override", "checkout.timeout=9")
    named = ("--subject", "company:id=acme", "--subject", "company:vat=ch-1")
    found = cli.json("evaluate", "checkout.timeout", *named)
    assert (found["value"], found["variant"], found["note"]) == (9.0, "override", None)
    assert cli.json("explain", "checkout.timeout", *named)["value"] == 9.0
    unknown = cli.json("evaluate", "checkout.timeout", "--subject", "company:id=nobody")
    assert unknown["variant"] is None and "company" in unknown["note"]
    assert "not stored" in cli.run("explain", "checkout.timeout", "--subject", "company:id=nobody").output
    assert "kind:name=value" in cli.run("evaluate", "a", "--subject", "acme", code=2).output
    twice = ("--subject", "company:id=a", "--subject", "company:id=b")
    assert "given twice" in cli.run("evaluate", "a", *twice, code=2).output
