"""`rheostat features`: the hierarchy, and which rules follow it."""

from __future__ import annotations

import json

SPECIFIC = {"region": "eu", "user.plan": "pro"}


def listed(cli) -> list[str]:
    return cli.json("features", "list")["features"]


def test_features_are_added_moved_and_removed_in_their_places(cli):
    assert listed(cli) == ["region", "user.plan", "user.id"]
    cli.run("features", "add", "device")
    cli.run("features", "add", "country", "city", "--before", "user.plan")
    cli.run("features", "add", "os", "--after", "user.id")
    assert listed(cli) == ["region", "country", "city", "user.plan", "user.id", "os", "device"]
    cli.run("features", "move", "device", "--before", "region")
    cli.run("features", "move", "region", "--after", "city")
    assert listed(cli) == ["device", "country", "city", "region", "user.plan", "user.id", "os"]
    cli.run("features", "remove", "os", "city")
    assert listed(cli) == ["device", "country", "region", "user.plan", "user.id"]
    assert "device\n" in cli.run("features", "list").stdout


def test_a_move_shows_the_rules_that_it_reorders(cli):
    for path, value in SPECIFIC.items():
        cli.run("set", "by-feature", str(len(path)), "--where", f"{path} == {json.dumps(value)}")
    assert [rule["value"] for rule in cli.json("get", "by-feature")["rules"]] == [9, 6]
    before = cli.revision()
    shown = cli.run("features", "move", "user.plan", "--before", "region", "--dry-run").stdout
    assert "by-feature in production" in shown
    assert "moved from place" in shown
    assert cli.revision() == before
    changed = cli.json("features", "move", "user.plan", "--before", "region")["changes"]
    assert [(change["kind"], change["name"]) for change in changed] == [
        ("project", cli.project),
        ("setting", "by-feature"),
    ]
    assert [rule["value"] for rule in cli.json("get", "by-feature")["rules"]] == [6, 9]


def test_what_is_refused_says_why(cli):
    assert "already" in cli.run("features", "add", "region", code=1).stderr
    assert "region, user.plan, user.id" in cli.run("features", "remove", "city", code=1).stderr
    assert "'city'" in cli.run("features", "move", "region", "--before", "city", code=1).stderr
    cli.apply(f"{{project: {cli.project}, settings: {{by-feature: {{features: [user.id]}}}}}}")
    assert "by-feature" in cli.run("features", "remove", "user.id", code=1).stderr
    cli.run("features", "move", "region", code=2)
    cli.run("features", "add", "city", "--before", "region", "--after", "user.id", code=2)
    cli.run("features", "move", "region", "--after", "region", code=2)
    assert listed(cli) == ["region", "user.plan", "user.id"]
