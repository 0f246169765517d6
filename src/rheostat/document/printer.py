"""From documents to their canonical text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, cast

from rheostat.document.document import (
    DEFINITION_FIELDS,
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.document.yaml_text import Block, Lines, Tree, yaml_text
from rheostat.language import format_condition, format_percent
from rheostat.language.quoting import escape_invisible
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.rule import ValueOutcome
from rheostat.model.setting import Lifecycle, Order
from rheostat.model.value import FrozenMapping, Value

__all__ = ["format_document"]


def format_document(document: Document, format: Literal["yaml", "json"] = "yaml") -> str:
    """Return the canonical text of *document*: equal documents have equal texts, to the byte.

    Settings, segments, sections of environments and keys of values are sorted; the rest has a fixed order.

    Raises:
        InvalidConditionError: A condition in it has no text form.
    """
    tree = _document(document)
    if format == "json":
        return escape_invisible(json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
    return yaml_text(tree)


def _document(document: Document) -> Block:
    tree = Block()
    if document.project:
        tree["project"] = document.project
    if document.environments is not None:
        tree["environments"] = list(document.environments)
    if document.features is not None:
        tree["features"] = list(document.features)
    if document.segments is not None:
        tree["segments"] = Block(
            (name, _segment(entry)) for name, entry in sorted(document.segments.items(), key=lambda i: i[0])
        )
    if document.settings is not None:
        tree["settings"] = Block(
            (name, _setting(entry)) for name, entry in sorted(document.settings.items(), key=lambda i: i[0])
        )
    return tree


def _segment(entry: SegmentEntry) -> Tree:
    if entry.where is not None and entry.description is None:
        return format_condition(entry.where.condition)
    tree = Block()
    if entry.where is not None:
        tree["where"] = format_condition(entry.where.condition)
    if entry.description is not None:
        tree["description"] = entry.description
    return tree


def _setting(entry: SettingEntry) -> Tree:
    tree = _fields(entry.fields, DEFINITION_FIELDS)
    tree.update(_unset(entry.unset))
    if entry.environments:
        tree["environments"] = Block(
            (slug, _environment(section))
            for slug, section in sorted(entry.environments.items(), key=lambda item: item[0])
        )
    return tree


def _environment(section: EnvironmentEntry) -> Tree:
    tree = _fields(section.fields, (*DEFINITION_FIELDS, "enabled", "value", "off"))
    tree.update(_unset(section.unset))
    if section.rules is not None:
        tree["rules"] = Lines(_rule(rule) for rule in section.rules)
    return tree


def _unset(names: frozenset[str]) -> Block:
    return Block(unset=sorted(names)) if names else Block()


_WRITERS: Final[Mapping[str, Callable[[object], Tree]]] = {
    "type": str,
    "default": lambda content: _sorted(cast("Value", content)),
    "value": lambda content: _sorted(cast("Value", content)),
    "off": lambda content: _sorted(cast("Value", content)),
    "version": str,
    "aliases": lambda content: list(cast("Sequence[str]", content)),
    "tags": lambda content: list(cast("Sequence[str]", content)),
    "features": lambda content: list(cast("Sequence[str]", content)),
    "order": lambda content: cast("Order", content).value.lower(),
    "lifecycle": lambda content: cast("Lifecycle", content).value.lower(),
    "metadata": lambda content: _sorted(cast("Value", content)),
}


def _fields(fields: Mapping[str, object], known: Sequence[str]) -> Block:
    return Block(
        (name, _WRITERS[name](fields[name]) if name in _WRITERS else cast("Tree", fields[name]))
        for name in known
        if name in fields
    )


def _sorted(value: Value) -> Tree:
    """Return *value* as JSON data with sorted keys: their order is no part of a value."""
    if isinstance(value, tuple):
        return [_sorted(element) for element in value]
    if isinstance(value, FrozenMapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value


def _rule(rule: RuleEntry) -> Tree:
    tree = Block()
    if rule.id:
        tree["id"] = rule.id
    if rule.where is not None:
        tree["where"] = format_condition(rule.where.condition)
    match rule.outcome:
        case ValueOutcome(value):
            tree["value"] = _sorted(value)
        case WrittenDistribution():
            tree["split"] = _split(rule.outcome)
        case None:
            pass
    if rule.enabled is not None:
        tree["enabled"] = rule.enabled
    if rule.description is not None:
        tree["description"] = rule.description
    if rule.metadata is not None:
        tree["metadata"] = _sorted(rule.metadata)
    tree.update(_unset(rule.unset))
    return tree


def _split(written: WrittenDistribution) -> Tree:
    split = written.distribution
    tree = Block(unit=split.unit)
    if split.salt:
        tree["salt"] = split.salt
    if written.has_algorithm or split.algorithm is not BucketAlgorithm.MURMUR3:
        tree["algorithm"] = split.algorithm.name
    tree["variants"] = Lines(
        {
            "name": variant.name,
            "weight": f"{format_percent(variant.weight)}%",
            "value": _sorted(variant.value),
        }
        for variant in split.variants
    )
    return tree
