"""`rheostat set` and `unset`: values, and the rules of single conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import click

from rheo.v1.change_pb2 import Change
from rheostat.cli.command import command
from rheostat.cli.commit import WRITE_ANSWER, commit, print_written
from rheostat.cli.connection import Connection
from rheostat.cli.literal import parse_value
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.shell import complete_setting
from rheostat.errors import NotFoundError, RevisionConflictError
from rheostat.language import WrittenCondition
from rheostat.model.change import DeleteRule, Mutation, PutRule, SetValue, UnsetValue
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Order, Setting
from rheostat.model.value import Value

__all__ = ["set_", "unset"]

_ATTEMPTS: Final = 4
"""How often a write is planned again on the newest state after somebody else changed the same setting."""


@command(
    "set",
    examples=[
        ("rheostat set checkout.timeout 4", "the environment's value"),
        ("rheostat set checkout.timeout 6 --where 'region == \"eu\"'", "for some: a rule"),
        ("rheostat set new-checkout true --where 'percent(user.id) < 10'", "for ten per cent of the users"),
        ("rheostat set checkout.limits '{\"eu\": 5}' --dry-run", "only show what would change"),
    ],
    answer=WRITE_ANSWER + "rule_id                of the rule that was written; null without --where\n",
)
@click.argument("name", shell_complete=complete_setting)
@click.argument("value")
@click.option(
    "--where",
    help="A condition: set the value where it holds. The first enabled rule with this condition gets the "
    "value; when there is none, a new rule comes before all others.",
)
@click.option("--last", is_flag=True, help="Put a new rule after all others.")
@click.option("--before", metavar="ID", help="Put a new rule before this one.")
@click.option("--force", is_flag=True, help="Also when a connected client could not decode the value.")
@write_options()
@target_options()
def set_(
    name: str,
    value: str,
    where: str | None,
    last: bool,
    before: str | None,
    force: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Set a value, for everybody or where a condition holds.

    VALUE is JSON that fits the setting's type; for str and Enum settings a plain word will do. Put -- before a
    negative number.
    """
    if last and before:
        raise click.UsageError("--last and --before cannot both be given")
    if where is None and (last or before):
        raise click.UsageError("--last and --before say where a rule goes, and need --where")
    written = None if where is None else WrittenCondition.parse(where)
    with Connection(target) as connection:
        for attempt in range(_ATTEMPTS):
            setting, revision = connection.setting(name)
            parsed = parse_value(value, setting.type)
            rule_id = None
            if written is None:
                mutation: Mutation = SetValue(setting.name, parsed)
                expected = None
            else:
                mutation = _put_rule(setting, written, parsed, last=last, before=before or "")
                rule_id = mutation.rule.id
                expected = revision
            try:
                answer = commit(
                    connection,
                    [mutation],
                    how,
                    environment=connection.environment,
                    expected_revision=expected,
                    force=force,
                )
            except RevisionConflictError:
                # What the command means depends on the rules as they are: read them again.
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            if written is not None and not rule_id:
                rule_id = _new_rule_id(answer.changes)
            print_written(
                output,
                answer,
                project=connection.project,
                environment=connection.environment,
                target=target,
                how=how,
                more={"rule_id": rule_id},
            )
            return


@command(
    "unset",
    examples=[
        ("rheostat unset checkout.timeout", "the setting's default counts again"),
        ("rheostat unset checkout.timeout --where 'region == \"eu\"'", "remove a rule by its condition"),
        ("rheostat unset checkout.timeout --rule slow-start", "remove a rule by its id"),
    ],
    answer=WRITE_ANSWER + "rule_id                of the rule that was removed, or null\n",
)
@click.argument("name", shell_complete=complete_setting)
@click.option("--where", help="Remove the first enabled rule with this condition.")
@click.option("--rule", "rule_id", metavar="ID", help="Remove the rule with this id.")
@click.option("--force", is_flag=True, help="Also when a connected client could not decode what counts then.")
@write_options()
@target_options()
def unset(
    name: str,
    where: str | None,
    rule_id: str | None,
    force: bool,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Clear a value, or remove a rule.

    Without --where and --rule the environment's value is cleared, so that the setting's default counts again.
    """
    if where is not None and rule_id is not None:
        raise click.UsageError("--where and --rule cannot both be given")
    written = None if where is None else WrittenCondition.parse(where)
    with Connection(target) as connection:
        setting, revision = connection.setting(name)
        expected = None
        mutation: Mutation = UnsetValue(setting.name)
        if written is not None:
            found = _matching(setting, written)
            if found is None:
                raise NotFoundError(
                    f"no enabled rule of {setting.name!r} has the condition {where}", reason="RULE_NOT_FOUND"
                )
            rule_id, expected = found.id, revision
        if rule_id is not None:
            mutation = DeleteRule(setting.name, rule_id)
        answer = commit(
            connection,
            [mutation],
            how,
            environment=connection.environment,
            expected_revision=expected,
            force=force,
        )
        print_written(
            output,
            answer,
            project=connection.project,
            environment=connection.environment,
            target=target,
            how=how,
            more={"rule_id": rule_id},
        )


def _matching(setting: Setting, written: WrittenCondition) -> Rule | None:
    return next((rule for rule in setting.rules if rule.enabled and written.equals(rule.condition)), None)


def _put_rule(
    setting: Setting, written: WrittenCondition, value: Value, *, last: bool, before: str
) -> PutRule:
    """Return the mutation that gives *value* where the condition holds; see docs/reference/document.md."""
    if setting.order is Order.SPECIFICITY and (last or before):
        raise click.UsageError(
            f"the rules of {setting.name!r} are ordered by specificity; --last and --before mean nothing"
        )
    if before and setting.rule(before) is None:
        raise NotFoundError(f"the setting {setting.name!r} has no rule {before!r}", reason="RULE_NOT_FOUND")
    found = _matching(setting, written)
    if found is not None:
        # In its place, and with all that the command does not speak of.
        return PutRule(setting.name, replace(found, outcome=ValueOutcome(value)), keep_enabled=True)
    rule = Rule("", ValueOutcome(value), written.condition)
    if not before and not last and setting.order is Order.STORED and setting.rules:
        before = setting.rules[0].id
    return PutRule(setting.name, rule, before_id=before)


def _new_rule_id(changes: Iterable[Change]) -> str | None:
    for change in changes:
        known = {rule.id for rule in change.before.setting.rules}
        for rule in change.after.setting.rules:
            if rule.id not in known:
                return rule.id
    return None
