"""`rheostat stale`: what looks unused, and what is not known yet."""

from __future__ import annotations


def test_it_lists_what_is_on_its_way_out_and_says_what_is_not_known_yet(cli):
    assert cli.json("stale")["settings"] == []
    result = cli.run("stale")
    assert "every setting looks needed" in result.output
    assert "what nobody has read for 30 days is not known" in result.output
    cli.run("mark", "theme", "--lifecycle", "deprecated", "--owner", "team-web", "--tag", "page")
    answer = cli.json("stale", "--days", "7")
    assert (answer["days"], answer["environment"]) == (7, "production")
    (setting,) = answer["settings"]
    assert setting | {"last_changed_at": ""} == {
        "name": "theme",
        "owner": "team-web",
        "tags": ["page"],
        "lifecycle": "DEPRECATED",
        "reasons": ["LIFECYCLE"],
        "last_read_at": None,
        "last_changed_at": "",
        "declared_by": 0,
    }
    cli.run("evaluate", "theme")
    assert cli.json("stale")["settings"][0]["last_read_at"]
    assert "on its way out" in cli.run("stale").stdout
    assert cli.json("stale", "--owner", "")["settings"] == []
