"""`rheostat get`, `list` and `rules`: settings as they are."""

from __future__ import annotations

import click

from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.diff import cut, describe_outcome, show_value
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.record import condition_text, rule_record, setting_record
from rheostat.cli.shell import complete_setting
from rheostat.model.rule import Rule
from rheostat.model.setting import Lifecycle, Order, Setting
from rheostat.model.value import ABSENT, canonical_json

__all__ = ["SETTING_ANSWER", "get", "list_", "rules"]

SETTING_ANSWER = """
name, id, type         the setting; id is the same in all environments
default                the definition's default
value, off             this environment's, only where it has them
enabled, order         order is STORED or SPECIFICITY
rules                  [{id, number, enabled, where, value or split, description, metadata}], in order;
                       where is null when the rule matches everything; split is
                       {unit, salt, algorithm, variants: [{name, weight, value}]}
description, version, aliases, features, metadata, owner, tags, lifecycle, declared
revision               that last changed the setting
"""
"""The keys of a setting."""


@command(
    "get",
    examples=[
        ("rheostat get checkout.timeout", "everything about a setting"),
        ("rheostat get checkout.timeout --json | jq .value", "one field of it"),
    ],
    answer="project, environment\n" + SETTING_ANSWER.lstrip("\n"),
)
@click.argument("name", shell_complete=complete_setting)
@target_options()
def get(name: str, target: Target, output: Output) -> None:
    """Show a setting, by its name or an alias.

    What it is for a given context, `rheostat evaluate` says.
    """
    with Connection(target) as connection:
        setting, revision = connection.setting(name)
        project, environment = connection.project, connection.environment
    if output.json:
        output.answer({"project": project, "environment": environment, **setting_record(setting)})
        return
    output.place(project, environment, revision)
    output.print(setting.name, style="bold")
    for label, text in _details(setting):
        output.print(f"  {label:<12} {text}")
    for place, rule in enumerate(setting.rules, 1):
        output.print(f"  {f'rule {place}':<12} {_rule_text(rule)}")


@command(
    "list",
    examples=[
        ("rheostat list", "all settings of the environment"),
        ("rheostat list checkout. -e staging", "those whose names begin with `checkout.`"),
        ("rheostat list --owner team-payments --lifecycle deprecated", "what a team wants to be rid of"),
    ],
    answer="""
    project, environment, revision
    settings   [setting], as `rheostat get` answers it, by name
    """,
)
@click.argument("prefix", default="", shell_complete=complete_setting)
@click.option("--tag", "tags", multiple=True, help="Only those with this tag; with all where it is repeated.")
@click.option("--owner", help="Only those of this owner; an empty text for those of nobody.")
@click.option(
    "--lifecycle",
    "lifecycles",
    multiple=True,
    type=click.Choice([lifecycle.name.lower() for lifecycle in Lifecycle]),
    help="Only those in this part of their life; may be repeated.",
)
@target_options()
def list_(
    prefix: str,
    tags: tuple[str, ...],
    owner: str | None,
    lifecycles: tuple[str, ...],
    target: Target,
    output: Output,
) -> None:
    """List the settings of an environment, or those whose names begin with PREFIX."""
    with Connection(target) as connection:
        all_, revision = connection.settings(prefix)
        project, environment = connection.project, connection.environment
    found = [
        setting
        for setting in all_
        if set(tags) <= set(setting.tags)
        and owner in (None, setting.owner)
        and (not lifecycles or setting.lifecycle.name.lower() in lifecycles)
    ]
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": environment,
                "revision": revision,
                "settings": [setting_record(setting) for setting in found],
            }
        )
        return
    output.place(project, environment, revision)
    output.table(
        ["name", "type", "value", "rules", ""],
        [
            (
                setting.name,
                cut(str(setting.type), 40),
                cut(show_value(setting.base_value), 60),
                str(len(setting.rules)) if setting.rules else "",
                ", ".join(_states(setting)),
            )
            for setting in found
        ],
    )
    if all_ and not found:
        output.note("no setting fits")
    elif not found:
        output.note(f"no setting's name begins with {prefix!r}" if prefix else "there are no settings yet")


@command(
    "rules",
    examples=[("rheostat rules checkout.timeout", "the rules in the order in which they are tried")],
    answer="""
    project, environment, revision, name
    order     STORED or SPECIFICITY
    rules     [{id, number, enabled, where, value or split, description, metadata}], as in `rheostat get`
    """,
)
@click.argument("name", shell_complete=complete_setting)
@target_options()
def rules(name: str, target: Target, output: Output) -> None:
    """List the rules of a setting, in order: the first that matches decides."""
    with Connection(target) as connection:
        setting, revision = connection.setting(name)
        project, environment = connection.project, connection.environment
    if output.json:
        output.answer(
            {
                "project": project,
                "environment": environment,
                "revision": revision,
                "name": setting.name,
                "order": setting.order.name,
                "rules": [rule_record(rule) for rule in setting.rules],
            }
        )
        return
    output.place(project, environment, revision)
    output.table(
        ["", "id", "where", "outcome", ""],
        [
            (
                str(place),
                rule.id,
                condition_text(rule.condition) or "always",
                describe_outcome(rule.outcome),
                "" if rule.enabled else "not enabled",
            )
            for place, rule in enumerate(setting.rules, 1)
        ],
    )
    output.print(f"{'else' if setting.rules else 'always'} {show_value(setting.base_value)}")
    if setting.order is Order.SPECIFICITY:
        output.note("ordered by specificity")


def _details(setting: Setting) -> list[tuple[str, str]]:
    own = setting.value is not ABSENT
    details = [
        ("type", str(setting.type)),
        ("value", show_value(setting.value) if own else f"{show_value(setting.default)} (the default)"),
    ]
    if own:
        details.append(("default", show_value(setting.default)))
    if setting.off is not ABSENT:
        details.append(("off", show_value(setting.off)))
    details += [
        (label, text)
        for label, text in (
            ("state", ", ".join(_states(setting))),
            ("description", setting.description),
            ("owner", setting.owner),
            ("tags", ", ".join(setting.tags)),
            ("aliases", ", ".join(setting.aliases)),
            ("features", "" if setting.features is None else ", ".join(setting.features) or "none"),
            ("metadata", canonical_json(setting.metadata) if setting.metadata else ""),
            ("order", "by specificity" if setting.order is Order.SPECIFICITY else ""),
        )
        if text
    ]
    details.append(("version", f"{setting.version}, revision {setting.revision}"))
    return details


def _states(setting: Setting) -> list[str]:
    states = [] if setting.enabled else ["not enabled"]
    if setting.lifecycle is not Lifecycle.ACTIVE:
        states.append(setting.lifecycle.name.lower())
    if setting.declared:
        states.append("declared by code")
    return states


def _rule_text(rule: Rule) -> str:
    condition = condition_text(rule.condition)
    text = f"where {condition}" if condition is not None else "always"
    text += f" → {describe_outcome(rule.outcome)}"
    return f"{text}  ({rule.id}{'' if rule.enabled else ', not enabled'})"
