"""`rheostat history`: the audit log, by who, when and what."""

from __future__ import annotations

import datetime

import click
import pytest

from rheostat.cli.instant import parse_duration, parse_instant

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def revisions(cli, *options):
    return [entry["revision"] for entry in cli.json("history", *options)["revisions"]]


def test_it_lists_what_an_author_did_in_a_time_to_a_kind_of_thing(cli):
    made = cli.json("set", "greeting", "hi", "--author", "grace", "-e", "production")["revision"]
    key = cli.json("keys", "create", "--kind", "server")["selector"]
    assert revisions(cli, "--author", "grace") == [made]
    assert revisions(cli, "--author", "nobody") == []
    assert revisions(cli, "--actor", "0" * 16) == []
    (created,) = cli.json("history", "--kind", "key")["revisions"]
    assert [change["name"] for change in created["changes"]] == [key]
    assert made in revisions(cli, "--since", "1h")
    assert revisions(cli, "--until", "1h") == []
    assert revisions(cli, "greeting", "--since", "2026-01-01", "--author", "grace") == [made]
    assert "nothing in the history fits" in cli.run("history", "--author", "nobody").output
    assert "--since" in cli.run("history", "--since", "yesterday", code=2).stderr


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("90s", NOW - datetime.timedelta(seconds=90)),
        ("2h", NOW - datetime.timedelta(hours=2)),
        ("7d", NOW - datetime.timedelta(days=7)),
        ("2w", NOW - datetime.timedelta(days=14)),
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01T13:00:00+01:00", NOW),
        ("2026-03-01", datetime.datetime(2026, 3, 1).astimezone()),
    ],
)
def test_an_instant_is_so_long_ago_or_written_out(text: str, instant: datetime.datetime):
    assert parse_instant(text, "--since", NOW) == instant


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1y", "d", "1.5h", "2026-13-01", "now", "123456d"])
def test_what_is_no_instant_and_no_duration_is_refused_naming_the_option(text: str):
    for parse in (parse_instant, parse_duration):
        with pytest.raises(click.BadParameter) as caught:
            parse(text, "--since")
        assert caught.value.param_hint == "--since"
