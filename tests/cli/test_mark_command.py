"""`rheostat mark` and the filters of `list`: owners, tags, and where a setting stands in its life."""

from __future__ import annotations


def listed(cli, *options):
    return [setting["name"] for setting in cli.json("list", *options)["settings"]]


def test_settings_are_marked_and_found_by_their_marks(cli):
    cli.run("mark", "greeting", "--owner", "team-web", "--tag", "sale", "--tag", "page")
    cli.run("mark", "theme", "--tag", "page", "--description", "dark or light", "--lifecycle", "deprecated")
    assert listed(cli, "--tag", "page") == ["greeting", "theme"]
    assert listed(cli, "--tag", "page", "--tag", "sale") == ["greeting"]
    assert listed(cli, "--owner", "team-web") == ["greeting"]
    assert "greeting" not in listed(cli, "--owner", "")
    assert listed(cli, "--lifecycle", "deprecated", "--lifecycle", "archived") == ["theme"]
    assert listed(cli, "th", "--tag", "page") == ["theme"]
    assert "no setting fits" in cli.run("list", "--tag", "none").output
    cli.run("mark", "greeting", "--untag", "sale", "--owner", "")
    setting = cli.json("get", "greeting")
    assert (setting["tags"], setting["owner"]) == (["page"], "")
    assert cli.json("get", "theme")["description"] == "dark or light"
    cli.run("mark", "greeting", code=2)
    cli.run("mark", "nothing", "--owner", "x", code=1)


def test_who_changes_a_deprecated_setting_is_told_so(cli):
    cli.run("mark", "greeting", "--owner", "team-web", "--lifecycle", "deprecated")
    answer = cli.json("set", "greeting", "hi", "--dry-run")
    assert [warning["code"] for warning in answer["warnings"]] == ["SETTING_DEPRECATED"]
    assert "its owner is team-web" in cli.run("set", "greeting", "hi").output
    assert cli.json("mark", "greeting", "--lifecycle", "archived")["warnings"] == []
    assert cli.json("evaluate", "greeting")["value"] == "hi", "reads go on"
    answer = cli.json("set", "greeting", "hello")
    assert [warning["code"] for warning in answer["warnings"]] == ["SETTING_ARCHIVED"]
    cli.run("mark", "greeting", "--lifecycle", "active")
    assert cli.json("set", "greeting", "hullo")["warnings"] == []
