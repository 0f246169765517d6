"""`rheostat keys`: creating, showing, rotating and revoking them."""

from __future__ import annotations

import datetime

from rheostat.model.key import key_selector


def test_a_key_is_made_shown_listed_and_revoked(cli):
    made = cli.json("keys", "create", "--kind", "server", "--description", "checkout")
    selector = made["selector"]
    assert key_selector(made["secret"]) == selector
    shown = cli.json("keys", "show", selector)
    assert shown == {key: value for key, value in made.items() if key != "secret"}
    assert (shown["description"], shown["last_used_at"]) == ("checkout", None)
    assert selector in cli.run("keys", "show", selector).output
    assert selector in [key["selector"] for key in cli.json("keys", "list")["keys"]]
    assert cli.json("keys", "revoke", selector)["revoked_at"]


def test_a_list_of_keys_is_of_one_environment_where_it_is_asked_for(cli):
    cli.run("env", "create", "staging")
    made = {
        environment: cli.json("keys", "create", "--kind", "server", "-e", environment)["selector"]
        for environment in ("production", "staging")
    }
    admin = cli.json("keys", "create", "--kind", "user", "--role", "admin")["selector"]
    found = {key["selector"] for key in cli.json("keys", "list", "-e", "staging")["keys"]}
    assert found == {made["staging"], admin}


def test_rotating_prints_the_successor_and_says_when_the_old_key_ends(cli):
    old = cli.json("keys", "create", "--kind", "server", "--description", "checkout")
    before = datetime.datetime.now(datetime.UTC)
    made = cli.json("keys", "rotate", old["selector"], "--overlap", "30m", "--expires", "90d")
    ends = datetime.datetime.fromisoformat(made["old_key"]["expires_at"])
    half_an_hour = datetime.timedelta(minutes=30)
    assert abs(ends - before - half_an_hour) < datetime.timedelta(minutes=1)
    assert made["old_key"]["selector"] == old["selector"]
    assert made["description"] == "checkout"
    assert key_selector(made["secret"]) == made["selector"] != old["selector"]
    text = cli.run("keys", "rotate", made["selector"], "--overlap", "0").stdout
    assert key_selector(text.strip()), "standard output is the key alone"
    cli.run("keys", "rotate", made["selector"], code=1)
    cli.run("keys", "rotate", old["selector"], "--overlap", "soon", code=2)
