"""The stored form of mutations and drafts: JSON text, as `rheostat.model.encoding` has it for items.

The form only grows: a field that is absent has its default, an unknown one is refused, so that an older server
never commits a part of what a newer one wrote.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from rheostat.errors import StoreError
from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    MoveRule,
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.draft import Approval, Draft, DraftState
from rheostat.model.encoding import (
    StoredFields,
    decode_condition,
    decode_rule,
    encode_condition,
    encode_rule,
)
from rheostat.model.setting import Lifecycle, Order, Segment, Version
from rheostat.model.value import ABSENT, FrozenMapping, Value, canonical_text, freeze, thaw

__all__ = [
    "decode_draft",
    "decode_mutation",
    "decode_mutations",
    "encode_draft",
    "encode_mutation",
    "encode_mutations",
]


def encode_mutation(mutation: Mutation) -> dict[str, Any]:
    """Return *mutation* as JSON data: a mapping of its kind to its fields, without those that say nothing."""
    match mutation:
        case PutProject(slug, title, description):
            return {"put_project": _said({"slug": slug, "title": title, "description": description})}
        case PutEnvironment():
            return {
                "put_environment": _said(
                    {"slug": mutation.slug} | {name: getattr(mutation, name) for name in _ENVIRONMENT_FIELDS}
                )
            }
        case PutSetting(name, fields, environment):
            return {
                "put_setting": _placed(environment)
                | {
                    "name": name,
                    "set": {
                        field: _encode_field(field, content)
                        for field, content in fields.items()
                        if content is not ABSENT
                    },
                    "clear": sorted(field for field, content in fields.items() if content is ABSENT),
                }
            }
        case RenameSetting(name, new_name, environment):
            return {"rename_setting": _placed(environment) | {"name": name, "new_name": new_name}}
        case DeleteSetting(name, environment):
            return {"delete_setting": _placed(environment) | {"name": name}}
        case SetValue(name, value, environment):
            return {"set_value": _placed(environment) | {"name": name, "value": thaw(value)}}
        case UnsetValue(name, environment):
            return {"unset_value": _placed(environment) | {"name": name}}
        case PutRule():
            return {
                "put_rule": _placed(mutation.environment)
                | {"setting": mutation.setting, "rule": encode_rule(mutation.rule)}
                | _true_or_filled(mutation, ("before_id", "after_id", "keep_enabled", "keep_algorithms"))
            }
        case MoveRule():
            return {
                "move_rule": _placed(mutation.environment)
                | {"setting": mutation.setting, "rule_id": mutation.rule_id}
                | _true_or_filled(mutation, ("before_id", "after_id"))
            }
        case DeleteRule(setting, rule_id, environment):
            return {"delete_rule": _placed(environment) | {"setting": setting, "rule_id": rule_id}}
        case PutSegment(segment):
            return {
                "put_segment": {
                    "name": segment.name,
                    "condition": encode_condition(segment.condition),
                    "description": segment.description,
                    "revision": segment.revision,
                }
                | _true_or_filled(mutation, ("keep_description", "keep_condition"))
            }
        case DeleteSegment(name):
            return {"delete_segment": {"name": name}}
        case SetFeatures(features):
            return {"set_features": {"features": list(features)}}


def decode_mutation(raw: Mapping[str, Any]) -> Mutation:
    """Return the mutation that `encode_mutation` made data of.

    Raises:
        StoreError: It is damaged, or a newer version wrote it.
    """
    try:
        ((kind, content),) = raw.items()
        fields = StoredFields(content)
        decoded = _DECODERS[kind](fields)
        fields.end()
    except StoreError:
        raise
    except Exception as exc:
        raise StoreError(f"the store holds a mutation that this version cannot read: {exc!r}") from exc
    return decoded


def encode_mutations(mutations: Sequence[Mutation]) -> str:
    """Return the stored text of the mutations of a draft."""
    return canonical_text([encode_mutation(mutation) for mutation in mutations])


def decode_mutations(text: str) -> tuple[Mutation, ...]:
    """Return the mutations that `encode_mutations` wrote.

    Raises:
        StoreError: The text is damaged, or a newer version wrote it.
    """
    try:
        return tuple(decode_mutation(raw) for raw in json.loads(text))
    except StoreError:
        raise
    except Exception as exc:
        raise StoreError(f"the store holds mutations that this version cannot read: {exc!r}") from exc


def encode_draft(draft: Draft) -> str:
    """Return the stored text of *draft*, without its mutations, and its version, which the record of it has."""
    encoded: dict[str, Any] = {
        "id": draft.id,
        "project": draft.project,
        "environment": draft.environment,
        "created_at": _encode_instant(draft.created_at),
        "updated_at": _encode_instant(draft.updated_at),
        "base_revision": draft.base_revision,
        "state": draft.state.value,
    } | _true_or_filled(
        draft, ("message", "author", "actor", "force", "publisher", "revision", "failure", "content")
    )
    for name in ("environments", "named"):
        if getattr(draft, name):
            encoded[name] = list(getattr(draft, name))
    if draft.approvals:
        encoded["approvals"] = [
            {
                "environments": list(approval.environments),
                "author": approval.author,
                "actor": approval.actor,
                "approved_at": _encode_instant(approval.approved_at),
            }
            | _true_or_filled(approval, ("comment",))
            for approval in draft.approvals
        ]
    if draft.scheduled_at is not None:
        encoded["scheduled_at"] = _encode_instant(draft.scheduled_at)
    return canonical_text(encoded)


def decode_draft(text: str, version: int) -> Draft:
    """Return the draft that `encode_draft` wrote, without its mutations.

    Args:
        text: The body of its record.
        version: Of its record.

    Raises:
        StoreError: The text is damaged, or a newer version wrote it.
    """
    try:
        fields = StoredFields(json.loads(text))
        scheduled_at = fields.take("scheduled_at")
        draft = Draft(
            id=fields.take("id"),
            project=fields.take("project"),
            environment=fields.take("environment"),
            mutations=(),
            created_at=_decode_instant(fields.take("created_at")),
            updated_at=_decode_instant(fields.take("updated_at")),
            base_revision=fields.take("base_revision"),
            version=version,
            state=DraftState(fields.take("state")),
            message=fields.take("message", ""),
            author=fields.take("author", ""),
            actor=fields.take("actor", ""),
            environments=tuple(fields.take("environments", ())),
            named=tuple(fields.take("named", ())),
            approvals=tuple(_decode_approval(raw) for raw in fields.take("approvals", ())),
            force=fields.take("force", False),
            scheduled_at=None if scheduled_at is None else _decode_instant(scheduled_at),
            publisher=fields.take("publisher", ""),
            revision=fields.take("revision", 0),
            failure=fields.take("failure", ""),
            content=fields.take("content", ""),
        )
        fields.end()
    except StoreError:
        raise
    except Exception as exc:
        raise StoreError(f"the store holds a draft that this version cannot read: {exc!r}") from exc
    return draft


_ENVIRONMENT_FIELDS: Final = ("title", "description", "protected", "required_approvals", "self_approval")


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in fields.items() if content is not None}


def _placed(environment: str) -> dict[str, Any]:
    return {"environment": environment} if environment else {}


def _true_or_filled(source: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: content for name in names if (content := getattr(source, name))}


def _encode_field(name: str, content: object) -> Any:
    match name:
        case "default" | "value" | "off" | "metadata":
            return thaw(cast("Value", content))
        case "aliases" | "tags" | "features":
            return None if content is None else list(cast("tuple[str, ...]", content))
        case "type" | "version":
            return str(content)
        case "order" | "lifecycle":
            return cast("Order | Lifecycle", content).name
        case _:
            return content


def _decode_field(name: str, raw: Any) -> object:
    match name:
        case "default" | "value" | "off":
            return freeze(raw)
        case "metadata":
            metadata = freeze(raw)
            if not isinstance(metadata, FrozenMapping):
                raise StoreError("the store holds metadata that is not a mapping")
            return metadata
        case "aliases" | "tags" | "features":
            return None if raw is None else tuple(raw)
        case "version":
            return Version.parse(raw)
        case "order":
            return Order[raw]
        case "lifecycle":
            return Lifecycle[raw]
        case "type" | "description" | "owner" | "enabled":
            return raw
        case _:
            raise StoreError(f"the store holds the unknown field {name!r}; a newer version wrote it")


def _decode_put_setting(fields: StoredFields) -> PutSetting:
    filled = {name: _decode_field(name, raw) for name, raw in fields.take("set").items()}
    cleared = dict.fromkeys(fields.take("clear"), ABSENT)
    return PutSetting(fields.take("name"), {**filled, **cleared}, fields.take("environment", ""))


def _decode_put_rule(fields: StoredFields) -> PutRule:
    return PutRule(
        fields.take("setting"),
        decode_rule(fields.take("rule")),
        before_id=fields.take("before_id", ""),
        after_id=fields.take("after_id", ""),
        keep_enabled=fields.take("keep_enabled", False),
        keep_algorithms=fields.take("keep_algorithms", False),
        environment=fields.take("environment", ""),
    )


def _decode_put_segment(fields: StoredFields) -> PutSegment:
    segment = Segment(
        fields.take("name"),
        decode_condition(fields.take("condition")),
        fields.take("description"),
        fields.take("revision"),
    )
    return PutSegment(
        segment,
        keep_description=fields.take("keep_description", False),
        keep_condition=fields.take("keep_condition", False),
    )


_DECODERS: Final[Mapping[str, Callable[[StoredFields], Mutation]]] = {
    "put_project": lambda fields: PutProject(
        fields.take("slug"), fields.take("title"), fields.take("description")
    ),
    "put_environment": lambda fields: PutEnvironment(
        fields.take("slug"), **{name: fields.take(name) for name in _ENVIRONMENT_FIELDS}
    ),
    "put_setting": _decode_put_setting,
    "rename_setting": lambda fields: RenameSetting(
        fields.take("name"), fields.take("new_name"), fields.take("environment", "")
    ),
    "delete_setting": lambda fields: DeleteSetting(fields.take("name"), fields.take("environment", "")),
    "set_value": lambda fields: SetValue(
        fields.take("name"), freeze(fields.take("value")), fields.take("environment", "")
    ),
    "unset_value": lambda fields: UnsetValue(fields.take("name"), fields.take("environment", "")),
    "put_rule": _decode_put_rule,
    "move_rule": lambda fields: MoveRule(
        fields.take("setting"),
        fields.take("rule_id"),
        fields.take("before_id", ""),
        fields.take("after_id", ""),
        fields.take("environment", ""),
    ),
    "delete_rule": lambda fields: DeleteRule(
        fields.take("setting"), fields.take("rule_id"), fields.take("environment", "")
    ),
    "put_segment": _decode_put_segment,
    "delete_segment": lambda fields: DeleteSegment(fields.take("name")),
    "set_features": lambda fields: SetFeatures(tuple(fields.take("features"))),
}


def _decode_approval(raw: Mapping[str, Any]) -> Approval:
    fields = StoredFields(raw)
    approval = Approval(
        tuple(fields.take("environments")),
        fields.take("author"),
        fields.take("actor"),
        _decode_instant(fields.take("approved_at")),
        fields.take("comment", ""),
    )
    fields.end()
    return approval


def _encode_instant(instant: datetime.datetime) -> str:
    return instant.astimezone(datetime.UTC).isoformat(timespec="microseconds")


def _decode_instant(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
