"""The stored form of items: JSON text, which the store and the history keep.

The form only grows: a field that is absent has its default, an unknown one is refused, so that an older server
never drops what a newer one wrote.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from rheostat.errors import StoreError
from rheostat.model.change import Environment, Item, Project
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    Unrecognized,
)
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome, Variant
from rheostat.model.setting import Lifecycle, Order, Segment, Setting, Version
from rheostat.model.type import parse_type
from rheostat.model.value import ABSENT, FrozenMapping, Value, canonical_text, freeze, thaw
from rheostat.model.webhook import Webhook

__all__ = [
    "StoredFields",
    "condition_key",
    "decode_condition",
    "decode_item",
    "decode_rule",
    "encode_condition",
    "encode_item",
    "encode_rule",
    "outcome_key",
]


def encode_item(item: Item) -> str:
    """Return the stored text of *item*. Equal items have equal texts, and others different ones."""
    match item:
        case Setting():
            encoded = _setting(item)
        case Segment():
            encoded = {
                "name": item.name,
                "condition": encode_condition(item.condition),
                "description": item.description,
                "revision": item.revision,
            }
        case Project():
            encoded = {
                "slug": item.slug,
                "title": item.title,
                "description": item.description,
                "features": list(item.features),
                "revision": item.revision,
            }
        case Environment():
            encoded = {
                "slug": item.slug,
                "title": item.title,
                "description": item.description,
                "protected": item.protected,
                "revision": item.revision,
            }
            if item.required_approvals:
                encoded["required_approvals"] = item.required_approvals
            if item.self_approval:
                encoded["self_approval"] = True
        case Key():
            encoded = _key(item)
        case Webhook():
            encoded = {
                "id": item.id,
                "project": item.project,
                "url": item.url,
                "environments": list(item.environments),
                "description": item.description,
                "enabled": item.enabled,
                "created_revision": item.created_revision,
                "secret_revision": item.secret_revision,
                "revision": item.revision,
            }
    return canonical_text(encoded)


def decode_item(kind: str, text: str) -> Item:
    """Return the item that `encode_item` wrote.

    Raises:
        StoreError: The text is damaged, or a newer version wrote it.
    """
    try:
        return _DECODERS[kind](json.loads(text))
    except StoreError:
        raise
    except Exception as exc:
        raise StoreError(f"the store holds a {kind} that this version cannot read: {exc}") from exc


def condition_key(condition: Condition | None) -> str:
    """Return a text that is equal exactly for equal conditions; ``1``, ``1.0`` and ``true`` differ."""
    return "" if condition is None else canonical_text(encode_condition(condition))


def outcome_key(outcome: Outcome | None) -> str:
    """Return a text that is equal exactly for equal outcomes."""
    return "" if outcome is None else canonical_text(_outcome(outcome))


def encode_condition(condition: Condition) -> dict[str, Any]:
    """Return *condition* as JSON data."""
    match condition:
        case Comparison(left, operator, right, literals):
            encoded: dict[str, Any] = {"left": _operand(left), "op": operator.name}
            if right is not None:
                encoded["right"] = _operand(right)
            if literals is not None:
                encoded["list"] = thaw(literals)
            return encoded
        case AllOf(conditions):
            return {"all_of": [encode_condition(inner) for inner in conditions]}
        case AnyOf(conditions):
            return {"any_of": [encode_condition(inner) for inner in conditions]}
        case Not(inner):
            return {"not": encode_condition(inner)}
        case Percentage(attribute, salt, start, end, algorithm):
            return {
                "percentage": attribute,
                "salt": salt,
                "from": start,
                "to": end,
                "algorithm": algorithm.name,
            }
        case SegmentReference(name):
            return {"segment": name}
        case Unrecognized(reason):
            return {"unrecognized": reason}


def _operand(operand: Operand) -> dict[str, Any]:
    match operand:
        case Attribute(path):
            return {"attribute": path}
        case Literal(value):
            return {"literal": thaw(value)}
        case SettingReference(name):
            return {"setting": name}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case ValueOutcome(value):
            return {"value": thaw(value)}
        case Distribution():
            return {
                "unit": outcome.unit,
                "salt": outcome.salt,
                "algorithm": outcome.algorithm.name,
                "variants": [
                    {"name": variant.name, "weight": variant.weight, "value": thaw(variant.value)}
                    for variant in outcome.variants
                ],
            }


def encode_rule(rule: Rule) -> dict[str, Any]:
    """Return *rule* as JSON data."""
    encoded: dict[str, Any] = {"id": rule.id, "number": rule.number}
    if rule.outcome is not None:
        encoded["outcome"] = _outcome(rule.outcome)
    if rule.condition is not None:
        encoded["condition"] = encode_condition(rule.condition)
    if not rule.enabled:
        encoded["enabled"] = False
    if rule.description:
        encoded["description"] = rule.description
    if rule.metadata:
        encoded["metadata"] = thaw(rule.metadata)
    return encoded


def _setting(setting: Setting) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "id": setting.id,
        "name": setting.name,
        "type": str(setting.type),
        "default": thaw(setting.default),
        "version": str(setting.version),
        "revision": setting.revision,
    }
    if setting.value is not ABSENT:
        encoded["value"] = thaw(setting.value)
    if setting.off is not ABSENT:
        encoded["off"] = thaw(setting.off)
    if setting.features is not None:
        encoded["features"] = list(setting.features)
    for name in ("aliases", "tags"):
        if getattr(setting, name):
            encoded[name] = list(getattr(setting, name))
    for name in ("description", "owner"):
        if getattr(setting, name):
            encoded[name] = getattr(setting, name)
    if setting.metadata:
        encoded["metadata"] = thaw(setting.metadata)
    if setting.order is not Order.STORED:
        encoded["order"] = setting.order.name
    if setting.lifecycle is not Lifecycle.ACTIVE:
        encoded["lifecycle"] = setting.lifecycle.name
    if not setting.enabled:
        encoded["enabled"] = False
    if setting.declared:
        encoded["declared"] = True
    if setting.rules:
        encoded["rules"] = [encode_rule(rule) for rule in setting.rules]
    return encoded


def _key(key: Key) -> dict[str, Any]:
    encoded = {
        "selector": key.selector,
        "kind": key.kind.value,
        "verifier": base64.b64encode(key.verifier).decode(),
        "project": key.project,
        "environments": list(key.environments),
        "role": None if key.role is None else key.role.value,
        "declare": key.declare,
        "subjects": key.subjects,
        "description": key.description,
        "created_at": None if key.created_at is None else key.created_at.isoformat(),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
        "revision": key.revision,
    }
    if key.declare_protected:
        encoded["declare_protected"] = True
    if key.lineage:
        encoded["lineage"] = key.lineage
    return encoded


class StoredFields:
    """The fields of a stored object, each taken once, so that an unknown one is noticed."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Take fields of *raw*, which stays as it is."""
        self._raw = dict(raw)

    def take(self, name: str, default: Any = None) -> Any:
        """Take a field, or the default where it is absent."""
        return self._raw.pop(name, default)

    def has(self, name: str) -> bool:
        """Tell whether a field is there and was not taken yet."""
        return name in self._raw

    def end(self) -> None:
        """Raise `StoreError` when a field is left: a newer version wrote it."""
        if self._raw:
            raise StoreError(
                f"the store holds the unknown field {next(iter(self._raw))!r}; a newer version wrote it"
            )


def decode_condition(raw: Mapping[str, Any]) -> Condition:
    """Return the condition that `encode_condition` made data of; StoreError when a field of it is unknown."""
    fields = StoredFields(raw)
    decoded: Condition
    if fields.has("left"):
        right = fields.take("right")
        literals = fields.take("list")
        decoded = Comparison(
            _decode_operand(fields.take("left")),
            Operator[fields.take("op")],
            None if right is None else _decode_operand(right),
            None if literals is None else tuple(freeze(literal) for literal in literals),
        )
    elif fields.has("all_of"):
        decoded = AllOf(tuple(decode_condition(inner) for inner in fields.take("all_of")))
    elif fields.has("any_of"):
        decoded = AnyOf(tuple(decode_condition(inner) for inner in fields.take("any_of")))
    elif fields.has("not"):
        decoded = Not(decode_condition(fields.take("not")))
    elif fields.has("percentage"):
        decoded = Percentage(
            fields.take("percentage"),
            fields.take("salt"),
            fields.take("from"),
            fields.take("to"),
            BucketAlgorithm[fields.take("algorithm")],
        )
    elif fields.has("segment"):
        decoded = SegmentReference(fields.take("segment"))
    else:
        decoded = Unrecognized(fields.take("unrecognized", "an empty condition"))
    fields.end()
    return decoded


def _decode_operand(raw: Mapping[str, Any]) -> Operand:
    ((kind, content),) = raw.items()
    match kind:
        case "attribute":
            return Attribute(content)
        case "literal":
            return Literal(freeze(content))
        case "setting":
            return SettingReference(content)
        case _:
            raise StoreError(f"the store holds an operand of the unknown kind {kind!r}")


def _decode_outcome(raw: Mapping[str, Any]) -> Outcome:
    fields = StoredFields(raw)
    decoded: Outcome
    if fields.has("value"):
        decoded = ValueOutcome(freeze(fields.take("value")))
    else:
        decoded = Distribution(
            fields.take("unit"),
            fields.take("salt"),
            tuple(
                Variant(variant["name"], variant["weight"], freeze(variant["value"]))
                for variant in fields.take("variants")
            ),
            BucketAlgorithm[fields.take("algorithm")],
        )
    fields.end()
    return decoded


def decode_rule(raw: Mapping[str, Any]) -> Rule:
    """Return the rule that `encode_rule` made data of; StoreError when a field of it is unknown."""
    fields = StoredFields(raw)
    outcome = fields.take("outcome")
    condition = fields.take("condition")
    rule = Rule(
        id=fields.take("id"),
        outcome=None if outcome is None else _decode_outcome(outcome),
        condition=None if condition is None else decode_condition(condition),
        number=fields.take("number"),
        enabled=fields.take("enabled", True),
        description=fields.take("description", ""),
        metadata=_mapping(fields.take("metadata", {})),
    )
    fields.end()
    return rule


def _decode_setting(raw: Mapping[str, Any]) -> Setting:
    fields = StoredFields(raw)
    features = fields.take("features")
    setting = Setting(
        id=fields.take("id"),
        name=fields.take("name"),
        type=parse_type(fields.take("type")),
        default=freeze(fields.take("default")),
        aliases=tuple(fields.take("aliases", ())),
        description=fields.take("description", ""),
        version=Version.parse(fields.take("version")),
        features=None if features is None else tuple(features),
        metadata=_mapping(fields.take("metadata", {})),
        owner=fields.take("owner", ""),
        tags=tuple(fields.take("tags", ())),
        order=Order[fields.take("order", Order.STORED.name)],
        enabled=fields.take("enabled", True),
        value=freeze(fields.take("value")) if fields.has("value") else ABSENT,
        off=freeze(fields.take("off")) if fields.has("off") else ABSENT,
        rules=tuple(decode_rule(rule) for rule in fields.take("rules", ())),
        lifecycle=Lifecycle[fields.take("lifecycle", Lifecycle.ACTIVE.name)],
        declared=fields.take("declared", False),
        revision=fields.take("revision"),
    )
    fields.end()
    return setting


def _decode_segment(raw: Mapping[str, Any]) -> Segment:
    fields = StoredFields(raw)
    segment = Segment(
        fields.take("name"),
        decode_condition(fields.take("condition")),
        fields.take("description", ""),
        fields.take("revision"),
    )
    fields.end()
    return segment


def _decode_project(raw: Mapping[str, Any]) -> Project:
    fields = StoredFields(raw)
    project = Project(
        fields.take("slug"),
        fields.take("title", ""),
        fields.take("description", ""),
        tuple(fields.take("features", ())),
        fields.take("revision"),
    )
    fields.end()
    return project


def _decode_environment(raw: Mapping[str, Any]) -> Environment:
    fields = StoredFields(raw)
    environment = Environment(
        fields.take("slug"),
        fields.take("title", ""),
        fields.take("description", ""),
        fields.take("protected", False),
        fields.take("revision"),
        fields.take("required_approvals", 0),
        fields.take("self_approval", False),
    )
    fields.end()
    return environment


def _decode_key(raw: Mapping[str, Any]) -> Key:
    fields = StoredFields(raw)
    role = fields.take("role")
    key = Key(
        selector=fields.take("selector"),
        kind=KeyKind(fields.take("kind")),
        verifier=base64.b64decode(fields.take("verifier")),
        project=fields.take("project", ""),
        environments=tuple(fields.take("environments", ())),
        role=None if role is None else Role(role),
        declare=fields.take("declare", True),
        subjects=fields.take("subjects", False),
        description=fields.take("description", ""),
        created_at=_instant(fields.take("created_at")),
        expires_at=_instant(fields.take("expires_at")),
        revoked_at=_instant(fields.take("revoked_at")),
        revision=fields.take("revision"),
        declare_protected=fields.take("declare_protected", False),
        lineage=fields.take("lineage", ""),
    )
    fields.end()
    return key


def _decode_webhook(raw: Mapping[str, Any]) -> Webhook:
    fields = StoredFields(raw)
    webhook = Webhook(
        id=fields.take("id"),
        project=fields.take("project"),
        url=fields.take("url"),
        environments=tuple(fields.take("environments", ())),
        description=fields.take("description", ""),
        enabled=fields.take("enabled", True),
        created_revision=fields.take("created_revision"),
        secret_revision=fields.take("secret_revision"),
        revision=fields.take("revision"),
    )
    fields.end()
    return webhook


def _instant(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


def _mapping(raw: Mapping[str, Any]) -> FrozenMapping:
    value: Value = freeze(raw)
    if not isinstance(value, FrozenMapping):
        raise StoreError("the store holds metadata that is not a mapping")
    return value


_DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Item]]] = {
    "setting": _decode_setting,
    "segment": _decode_segment,
    "project": _decode_project,
    "environment": _decode_environment,
    "key": _decode_key,
    "webhook": _decode_webhook,
}
