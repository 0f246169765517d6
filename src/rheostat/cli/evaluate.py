"""`rheostat evaluate` and `explain`: what a setting is for a context, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from rheo.v1 import config_service_pb2 as config
from rheo.v1 import evaluation_pb2
from rheostat.cli.command import command
from rheostat.cli.connection import Connection
from rheostat.cli.literal import parse_context
from rheostat.cli.option import Target, target_options
from rheostat.cli.output import Output
from rheostat.cli.shell import complete_setting
from rheostat.cli.subject_name import parse_references
from rheostat.language import format_percent
from rheostat.model.subject import SubjectReference
from rheostat.model.value import ABSENT, Value, canonical_json, thaw
from rheostat.wire.evaluation import evaluation_from_proto
from rheostat.wire.subject import reference_to_proto
from rheostat.wire.value import context_to_proto

__all__ = ["evaluate", "explain"]

_EVALUATION_ANSWER = """
project, environment, name
context                the context that was sent
value                  the value; absent only with an error
reason                 STATIC, DEFAULT, TARGETING_MATCH, SPLIT, DISABLED or ERROR
rule_id, variant       of the rule that matched; null when none did
revision               of the state; setting_revision is what last changed the setting
error_code, error      null without an error
note                   what the value came about without, such as a subject that is not stored; null when nothing was
"""

_SUBJECTS: Final = click.option(
    "--subject",
    "subjects",
    multiple=True,
    metavar="KIND:NAME=VALUE",
    help="A stored subject that joins the context, such as company:id=acme; may be repeated.",
)

_TRUTHS: Final[Mapping[int, str]] = {
    number: name.removeprefix("TRUTH_") for name, number in evaluation_pb2.Truth.items() if number
}

_STYLES: Final[Mapping[int, str]] = {
    evaluation_pb2.TRUTH_TRUE: "green",
    evaluation_pb2.TRUTH_FALSE: "red",
    evaluation_pb2.TRUTH_UNKNOWN: "yellow",
}


@command(
    "evaluate",
    examples=[
        ("rheostat evaluate checkout.timeout region=eu user.plan=pro", "for one context"),
        ('rheostat evaluate checkout.timeout --context \'{"user": {"id": "u1"}}\'', "the context as JSON"),
        ("rheostat evaluate new-checkout user.id='\"42\"'", "a string that looks like a number"),
        (
            "rheostat evaluate export --subject company:id=acme",
            "for a stored company, with its traits and usage",
        ),
    ],
    answer=_EVALUATION_ANSWER,
)
@click.argument("name", shell_complete=complete_setting)
@click.argument("pairs", metavar="[PATH=VALUE]...", nargs=-1)
@click.option("--context", "whole", metavar="JSON", default="", help="The context as a JSON object.")
@_SUBJECTS
@click.option("--raw", is_flag=True, help="Print a string without quotes.")
@target_options()
def evaluate(
    name: str,
    pairs: tuple[str, ...],
    whole: str,
    subjects: tuple[str, ...],
    raw: bool,
    target: Target,
    output: Output,
) -> None:
    """Evaluate a setting for a context.

    The context is given as pairs such as user.plan=pro. A value is JSON where it parses as such (5, true, null,
    ["a"]), else a plain string.
    """
    context = parse_context(pairs, whole)
    references = parse_references(subjects, "--subject")
    with Connection(target) as connection:
        answer = _evaluate(connection, name, context, references, explained=False)
        project, environment = connection.project, connection.environment
    evaluation = evaluation_from_proto(answer)
    if output.json:
        output.answer(_evaluation_record(project, environment, context, answer))
        return
    if isinstance(evaluation.value, str) and raw:
        output.print(evaluation.value)
    elif evaluation.value is not ABSENT:
        output.print(canonical_json(evaluation.value))
    output.place(project, environment, evaluation.revision)
    output.note(_reason(answer))


@command(
    "explain",
    examples=[("rheostat explain checkout.timeout region=eu user.plan=pro", "which rule decides, and why")],
    answer=_EVALUATION_ANSWER
    + """\
detail                 the whole in one sentence
rules                  [{rule_id, number, truth, matched, detail, condition, variant, bucket}], as far as tried;
                       truth is TRUE, FALSE, UNKNOWN or null; condition is {text, truth, detail, parts} or null
""",
)
@click.argument("name", shell_complete=complete_setting)
@click.argument("pairs", metavar="[PATH=VALUE]...", nargs=-1)
@click.option("--context", "whole", metavar="JSON", default="", help="The context as a JSON object.")
@_SUBJECTS
@target_options()
def explain(
    name: str,
    pairs: tuple[str, ...],
    whole: str,
    subjects: tuple[str, ...],
    target: Target,
    output: Output,
) -> None:
    """Explain a value, rule by rule and condition by condition.

    The context is given as for `rheostat evaluate`.
    """
    context = parse_context(pairs, whole)
    references = parse_references(subjects, "--subject")
    with Connection(target) as connection:
        answer = _evaluate(connection, name, context, references, explained=True)
        project, environment = connection.project, connection.environment
    if output.json:
        record = _evaluation_record(project, environment, context, answer)
        record["detail"] = answer.explanation.detail
        record["rules"] = [_rule_record(rule) for rule in answer.explanation.rules]
        output.answer(record)
        return
    output.place(project, environment, answer.revision)
    _print_tree(output, answer)


def _evaluate(
    connection: Connection,
    name: str,
    context: Any,
    subjects: Sequence[SubjectReference],
    *,
    explained: bool,
) -> evaluation_pb2.Evaluation:
    request = config.EvaluateRequest(
        project=connection.project,
        environment=connection.environment,
        name=name,
        context=context_to_proto(context),
        subjects=[reference_to_proto(subject) for subject in subjects],
        explain=explained,
    )
    return connection.call(connection.config.evaluate, request).evaluation


def _reason(answer: evaluation_pb2.Evaluation) -> str:
    word = evaluation_pb2.EvaluationReason.Name(answer.reason).removeprefix("EVALUATION_REASON_")
    text = word
    if answer.rule_id:
        text += f", rule {answer.rule_id}"
    if answer.variant:
        text += f", variant {answer.variant}"
    if answer.error_message:
        text += f": {answer.error_message}"
    if answer.note:
        text += f"; {answer.note}"
    return text


def _evaluation_record(
    project: str, environment: str, context: Value, answer: evaluation_pb2.Evaluation
) -> dict[str, Any]:
    evaluation = evaluation_from_proto(answer)
    record: dict[str, Any] = {
        "project": project,
        "environment": environment,
        "name": answer.name,
        "context": thaw(context),
    }
    if evaluation.value is not ABSENT:
        record["value"] = thaw(evaluation.value)
    return record | {
        "reason": evaluation.reason.name,
        "rule_id": evaluation.rule_id,
        "variant": evaluation.variant,
        "revision": evaluation.revision,
        "setting_revision": evaluation.setting_revision,
        "error_code": None if evaluation.error_code is None else evaluation.error_code.name,
        "error": evaluation.error_message or None,
        "note": evaluation.note or None,
    }


def _truth(number: int) -> str | None:
    # An explanation of a newer server may have a truth that this version has no word for.
    return _TRUTHS.get(number)


def _rule_record(rule: evaluation_pb2.RuleExplanation) -> dict[str, Any]:
    return {
        "rule_id": rule.rule_id,
        "number": rule.number,
        "truth": _truth(rule.truth),
        "matched": rule.matched,
        "detail": rule.detail,
        "condition": _condition_record(rule.condition) if rule.HasField("condition") else None,
        "variant": rule.variant or None,
        "bucket": rule.bucket if rule.HasField("bucket") else None,
    }


def _condition_record(condition: evaluation_pb2.ConditionExplanation) -> dict[str, Any]:
    return {
        "text": condition.text,
        "truth": _truth(condition.truth),
        "detail": condition.detail,
        "parts": [_condition_record(part) for part in condition.parts],
    }


def _print_tree(output: Output, answer: evaluation_pb2.Evaluation) -> None:
    from rich.text import Text
    from rich.tree import Tree

    value = answer.value_json or "no value"
    top = Text(f"{answer.name} = {value}", "bold")
    top.append(f"   {_reason(answer)}", "not bold dim")
    tree = Tree(top, guide_style="dim")
    for place, rule in enumerate(answer.explanation.rules, 1):
        mark, style = ("✓", "bold green") if rule.matched else ("·", "dim")
        line = Text(f"{mark} rule {place} {rule.rule_id}", style)
        if not rule.HasField("condition") or (rule.truth == evaluation_pb2.TRUTH_TRUE and not rule.matched):
            line.append(f"   {rule.detail}", "not bold dim")
        if rule.HasField("bucket"):
            line.append(f"   bucket {format_percent(rule.bucket)} %", "not bold dim")
        if rule.variant:
            line.append(f"   variant {rule.variant}", "not bold")
        branch = tree.add(line)
        if rule.HasField("condition"):
            _add_condition(branch, rule.condition)
    if not any(rule.matched for rule in answer.explanation.rules):
        tree.add(Text(answer.explanation.detail, "dim"))
    output.print(tree)


def _add_condition(branch: Any, condition: evaluation_pb2.ConditionExplanation) -> None:
    from rich.text import Text

    style = _STYLES.get(condition.truth, "dim")
    line = Text(f"{(_truth(condition.truth) or '?'):<7} ", style)
    line.append(condition.text)
    # Where there are parts, they say it.
    if condition.detail and not condition.parts:
        line.append(f"   {condition.detail}", "dim")
    inner = branch.add(line)
    for part in condition.parts:
        _add_condition(inner, part)
