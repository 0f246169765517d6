"""Rules as tests write them: pairs, the mappings of documents, or the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from rheostat.document import parse_document
from rheostat.document.rule_match import completed_rule
from rheostat.errors import (
    InvalidArgumentError,
    InvalidConditionError,
    InvalidDocumentError,
    TypeMismatchError,
)
from rheostat.language import parse_condition
from rheostat.model.condition import AllOf, AnyOf, Condition, Not, Percentage, segments_of, settings_of
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.value import Value, thaw

__all__ = ["WrittenRule", "checked_condition", "rules_of"]

WrittenRule: TypeAlias = "tuple[str | Condition | None, object] | Mapping[str, object] | Rule"
"""``('region == "eu"', 3)``, ``{"where": …, "value": …}`` or ``{"split": …}`` as in a document, or the model's."""

Knows: TypeAlias = Callable[[str, str], bool]
"""Tells whether there is a ``setting`` or ``segment`` of a name."""


def rules_of(
    name: str, written: Iterable[WrittenRule], encode: Callable[[object], Value], knows: Knows
) -> tuple[Rule, ...]:
    """Return the rules of the setting *name*, with ids and salts written out as a server does.

    Args:
        name: Of the setting.
        written: The rules, the first that matches decides.
        encode: Returns a value in the form that is stored, or raises `TypeMismatchError`.
        knows: What conditions may refer to.

    Raises:
        InvalidConditionError: A condition cannot be parsed, or refers to what is not there.
        InvalidArgumentError: Something is no rule.
        TypeMismatchError: A value does not fit.
    """
    rules = []
    for number, each in enumerate(written, 1):
        where = f"rule {number} of {name!r}"
        rule = _rule(where, each, encode)
        if rule.condition is not None:
            rule = replace(rule, condition=_salted(checked_condition(where, rule.condition, knows), name))
        if isinstance(rule.outcome, Distribution) and not rule.outcome.salt:
            rule = replace(rule, outcome=replace(rule.outcome, salt=name))
        rules.append(replace(rule, id=rule.id or f"rule-{number}"))
    return tuple(rules)


def checked_condition(where: str, written: str | Condition, knows: Knows) -> Condition:
    """Return the condition, after looking that what it refers to is there.

    Raises:
        InvalidConditionError: It cannot be parsed, or refers to what is not there; the message begins with *where*.
    """
    condition = _parsed(where, written) if isinstance(written, str) else written
    for kind, names in (("segment", segments_of(condition)), ("setting", settings_of(condition))):
        for name in sorted(names):
            if not knows(kind, name):
                raise InvalidConditionError(
                    f"{where} refers to the {kind} {name!r}, which the stub does not have"
                )
    return condition


def _rule(where: str, written: WrittenRule, encode: Callable[[object], Value]) -> Rule:
    def encoded(value: object) -> Value:
        try:
            return encode(value)
        except TypeMismatchError as error:
            raise TypeMismatchError(f"{where}: {error.message}") from error

    match written:
        case Rule():
            return written
        case (None | str() as condition, value):
            return Rule(
                "", ValueOutcome(encoded(value)), None if condition is None else _parsed(where, condition)
            )
        case (condition, value) if isinstance(condition, Condition):
            return Rule("", ValueOutcome(encoded(value)), condition)
        case Mapping():
            return _of_document(where, written, encoded)
        case _:
            raise InvalidArgumentError(
                f"{where} is {written!r}: write a pair of a condition's text and a value, a mapping as in a "
                "document, or a Rule"
            )


def _parsed(where: str, text: str) -> Condition:
    try:
        return parse_condition(text)
    except InvalidConditionError as error:
        raise InvalidConditionError(f"{where}: {error.message}") from None


def _of_document(where: str, written: Mapping[str, object], encoded: Callable[[object], Value]) -> Rule:
    condition = written.get("where")
    known = _parsed(where, condition) if isinstance(condition, str) else None
    rest = {key: value for key, value in written.items() if known is None or key != "where"}
    if "value" in rest:
        rest["value"] = thaw(encoded(rest["value"]))
    split = rest.get("split")
    if isinstance(split, Mapping) and isinstance(split.get("variants"), (list, tuple)):
        variants = [
            {**variant, "value": thaw(encoded(variant["value"]))}
            if isinstance(variant, Mapping) and "value" in variant
            else variant
            for variant in split["variants"]
        ]
        rest["split"] = {**split, "variants": variants}
    # Parsed as a document, so that a rule means here what it means there.
    path = {"settings": {"x": {"environments": {"x": {"rules": [rest]}}}}}
    try:
        document = parse_document(json.dumps(path), source="")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where} is {written!r}: {error}") from None
    except InvalidDocumentError as error:
        problem = error.violations[0] if error.violations else None
        if problem is None:
            raise InvalidArgumentError(f"{where}: {error.message}") from None
        place = problem.field.removeprefix("settings.x.environments.x.rules[0]").removeprefix(".")
        raise InvalidArgumentError(f"{where}: {f'{place}: ' if place else ''}{problem.description}") from None
    assert document.settings is not None
    (entry,) = document.settings["x"].environments["x"].rules or ()
    rule = completed_rule(entry, None)
    return rule if known is None else replace(rule, condition=known)


def _salted(condition: Condition, name: str) -> Condition:
    """Return *condition* with the setting's name for absent salts, as the server writes them out."""
    match condition:
        case Percentage(salt=""):
            return replace(condition, salt=name)
        case AllOf(conditions):
            return AllOf(tuple(_salted(each, name) for each in conditions))
        case AnyOf(conditions):
            return AnyOf(tuple(_salted(each, name) for each in conditions))
        case Not(inner):
            return Not(_salted(inner, name))
        case _:
            return condition
