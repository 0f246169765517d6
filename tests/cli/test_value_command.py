"""`rheostat set` and `unset`: values and single rules."""

from __future__ import annotations

import pytest


def rules_of(cli, name="checkout.timeout"):
    return cli.json("rules", name)["rules"]


def test_set_without_a_condition_sets_the_environments_value(cli):
    result = cli.run("set", "checkout.timeout", "4")
    assert "value: 3.0 → 4.0" in result.stdout
    assert "environment production" in result.stderr
    assert cli.json("get", "checkout.timeout")["value"] == 4.0


def test_setting_the_same_value_again_changes_nothing(cli):
    before = cli.revision()
    assert "no changes" in cli.run("set", "checkout.timeout", "3").stdout
    assert cli.revision() == before


def test_set_where_replaces_the_first_enabled_rule_with_the_condition(cli):
    answer = cli.json("set", "checkout.timeout", "6", "--where", 'region=="eu"')
    assert answer["rule_id"] == "first"
    rules = rules_of(cli)
    assert [rule["id"] for rule in rules] == ["first", "second"]
    assert rules[0]["value"] == 6.0


def test_an_unsaid_salt_compares_equal_and_is_kept(cli):
    cli.run("set", "checkout.timeout", "6", "--where", "percent(user.id) < 10")
    rules = rules_of(cli)
    assert [(rule["id"], rule["value"]) for rule in rules] == [("first", 4.0), ("second", 6.0)]
    assert rules[1]["where"] == 'percent(user.id, salt="s") < 10'


def test_a_disabled_rule_with_the_condition_is_left_alone(cli, document):
    cli.apply(document.replace("- id: first\n", "- id: first\n            enabled: false\n"))
    answer = cli.json("set", "checkout.timeout", "6", "--where", 'region == "eu"')
    assert answer["rule_id"] not in (None, "first")
    assert [rule["enabled"] for rule in rules_of(cli)] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "place"), [((), 0), (("--last",), 2), (("--before", "second"), 1)], ids=str
)
def test_a_new_rule_goes_to_the_head_unless_told_otherwise(cli, options, place):
    answer = cli.json("set", "checkout.timeout", "7", "--where", 'user.plan == "pro"', *options)
    rules = rules_of(cli)
    assert len(rules) == 3
    assert rules[place]["id"] == answer["rule_id"]
    assert (rules[place]["where"], rules[place]["value"]) == ('user.plan == "pro"', 7.0)


def test_replacing_a_rule_keeps_its_description(cli, document):
    cli.apply(document.replace("- id: first\n", "- id: first\n            description: Slow banks\n"))
    cli.run("set", "checkout.timeout", "6", "--where", 'region == "eu"')
    assert rules_of(cli)[0]["description"] == "Slow banks"


def test_a_dry_run_writes_nothing(cli):
    before = cli.revision()
    answer = cli.json("set", "checkout.timeout", "6", "--where", 'region == "us"', "--dry-run")
    assert answer["dry_run"] is True and answer["committed"] is False
    assert answer["changes"][0]["name"] == "checkout.timeout"
    assert cli.revision() == before


def test_a_setting_ordered_by_specificity_places_rules_itself(cli):
    assert (
        "specificity"
        in cli.run("set", "by-feature", "2", "--where", 'region == "eu"', "--last", code=2).stderr
    )
    cli.run("set", "by-feature", "2", "--where", 'region == "eu"')
    cli.run("set", "by-feature", "3", "--where", 'region == "eu" and user.plan == "pro"')
    assert [rule["value"] for rule in rules_of(cli, "by-feature")] == [3, 2]


def test_a_value_of_the_wrong_type_names_the_type(cli):
    assert "float" in cli.run("set", "checkout.timeout", "soon", code=1).stderr
    assert "true or false" in cli.run("set", "new-checkout", "yes", code=1).stderr
    assert 'Enum["dark","light"]' in cli.run("set", "theme", "blue", code=1).stderr


def test_words_are_strings_for_str_and_enum_settings(cli):
    cli.run("set", "greeting", "5")
    cli.run("set", "theme", "dark")
    assert cli.json("get", "greeting")["value"] == "5"
    assert cli.json("get", "theme")["value"] == "dark"


def test_null_is_a_value_of_a_json_setting(cli):
    cli.run("set", "limits", "null")
    setting = cli.json("get", "limits")
    assert "value" in setting and setting["value"] is None


def test_a_wrong_condition_shows_where(cli):
    text = cli.run("set", "checkout.timeout", "5", "--where", 'region = "eu"', code=1).stderr
    assert "line 1, column 8" in text and "^" in text


def test_an_unknown_rule_for_before_is_refused(cli):
    error = cli.json("set", "checkout.timeout", "5", "--where", "exists(region)", "--before", "no", code=1)
    assert error["error"]["reason"] == "RULE_NOT_FOUND"


def test_options_about_the_place_need_a_condition(cli):
    assert "--where" in cli.run("set", "checkout.timeout", "5", "--last", code=2).stderr


def test_a_concurrent_change_of_the_rules_is_planned_again(cli, monkeypatch):
    from rheostat.cli import value as module

    commit, edits = module.commit, ["9"]

    def commit_after_somebody_else(*args, **kwargs):
        if edits:
            cli.run("set", "checkout.timeout", edits.pop(), "-e", "production")
        return commit(*args, **kwargs)

    monkeypatch.setattr(module, "commit", commit_after_somebody_else)
    cli.run("set", "checkout.timeout", "6", "--where", 'region == "eu"')
    setting = cli.json("get", "checkout.timeout")
    assert (setting["value"], setting["rules"][0]["value"]) == (9.0, 6.0)


def test_unset_lets_the_default_count_again(cli):
    cli.run("unset", "checkout.timeout")
    assert "value" not in cli.json("get", "checkout.timeout")


def test_unset_removes_a_rule_by_condition_or_id(cli):
    cli.run("unset", "checkout.timeout", "--where", 'region == "eu"')
    assert [rule["id"] for rule in rules_of(cli)] == ["second"]
    cli.run("unset", "checkout.timeout", "--rule", "second")
    assert rules_of(cli) == []
    assert cli.json("unset", "checkout.timeout", "--where", 'region == "eu"', code=1)["error"]["reason"] == (
        "RULE_NOT_FOUND"
    )


def test_several_environments_and_none_named_is_refused_naming_them(cli):
    cli.run("env", "create", "staging")
    text = cli.run("set", "checkout.timeout", "5", code=1).stderr
    assert "production" in text and "staging" in text and "--environment" in text
    cli.run("set", "checkout.timeout", "5", RHEOSTAT_ENVIRONMENT="production")
    assert cli.json("get", "checkout.timeout", "-e", "production")["value"] == 5.0
