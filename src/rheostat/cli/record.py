"""Model values as the JSON that commands answer; its keys are documented and stable."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from rheostat.errors import InvalidConditionError
from rheostat.language import format_condition, format_percent
from rheostat.model.change import Change, ChangeSet, Environment, Item, PlanWarning, Project
from rheostat.model.condition import Condition
from rheostat.model.draft import Draft, MissingApproval
from rheostat.model.key import Key
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome
from rheostat.model.setting import Segment, Setting
from rheostat.model.value import ABSENT, thaw
from rheostat.model.webhook import Webhook

__all__ = [
    "change_record",
    "change_set_record",
    "condition_text",
    "draft_record",
    "environment_record",
    "instant_text",
    "item_record",
    "key_record",
    "rule_record",
    "setting_record",
    "warning_record",
    "webhook_record",
]


def condition_text(condition: Condition | None) -> str | None:
    """Return the canonical text of a condition; None for a rule that has none."""
    if condition is None:
        return None
    try:
        return format_condition(condition)
    except InvalidConditionError as exc:
        return f"<{exc.message}>"


def instant_text(instant: datetime.datetime | None) -> str | None:
    """Return an instant as RFC 3339, in UTC."""
    if instant is None:
        return None
    return instant.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def outcome_record(outcome: Outcome | None) -> dict[str, Any]:
    """Return ``value``, or ``split``; neither for an outcome that this version does not know."""
    match outcome:
        case ValueOutcome(value):
            return {"value": thaw(value)}
        case Distribution(unit, salt, variants, algorithm):
            return {
                "split": {
                    "unit": unit,
                    "salt": salt,
                    "algorithm": algorithm.name,
                    "variants": [
                        {"name": v.name, "weight": f"{format_percent(v.weight)}%", "value": thaw(v.value)}
                        for v in variants
                    ],
                }
            }
        case None:
            return {}


def rule_record(rule: Rule) -> dict[str, Any]:
    """Return a rule; ``where`` is null when it matches everything."""
    return {
        "id": rule.id,
        "number": rule.number,
        "enabled": rule.enabled,
        "where": condition_text(rule.condition),
        **outcome_record(rule.outcome),
        "description": rule.description,
        "metadata": thaw(rule.metadata),
    }


def setting_record(setting: Setting) -> dict[str, Any]:
    """Return a setting; ``value`` and ``off`` are there only when the environment has them."""
    record: dict[str, Any] = {
        "name": setting.name,
        "id": setting.id,
        "type": str(setting.type),
        "default": thaw(setting.default),
    }
    if setting.value is not ABSENT:
        record["value"] = thaw(setting.value)
    if setting.off is not ABSENT:
        record["off"] = thaw(setting.off)
    return record | {
        "enabled": setting.enabled,
        "rules": [rule_record(rule) for rule in setting.rules],
        "order": setting.order.name,
        "description": setting.description,
        "version": str(setting.version),
        "aliases": list(setting.aliases),
        "features": None if setting.features is None else list(setting.features),
        "metadata": thaw(setting.metadata),
        "owner": setting.owner,
        "tags": list(setting.tags),
        "lifecycle": setting.lifecycle.name,
        "declared": setting.declared,
        "revision": setting.revision,
    }


def environment_record(environment: Environment) -> dict[str, Any]:
    """Return an environment."""
    return {
        "name": environment.slug,
        "title": environment.title,
        "description": environment.description,
        "protected": environment.protected,
        "required_approvals": environment.required_approvals,
        "self_approval": environment.self_approval,
        "revision": environment.revision,
    }


def key_record(key: Key, last_used_at: datetime.datetime | None = None) -> dict[str, Any]:
    """Return a key, which never has its secret, and when it was last used, which its history does not hold."""
    return {
        "selector": key.selector,
        "kind": key.kind.value,
        "role": None if key.role is None else key.role.value,
        "project": key.project,
        "environments": list(key.environments),
        "declare": key.declare,
        "subjects": key.subjects,
        "description": key.description,
        "created_at": instant_text(key.created_at),
        "expires_at": instant_text(key.expires_at),
        "revoked_at": instant_text(key.revoked_at),
        "last_used_at": instant_text(last_used_at),
        "revision": key.revision,
    }


def webhook_record(webhook: Webhook) -> dict[str, Any]:
    """Return a webhook, which never has its secret."""
    return {
        "id": webhook.id,
        "project": webhook.project,
        "url": webhook.url,
        "environments": list(webhook.environments),
        "description": webhook.description,
        "enabled": webhook.enabled,
        "revision": webhook.revision,
    }


def item_record(item: Item | None) -> dict[str, Any] | None:
    """Return anything that a change-set changes."""
    match item:
        case None:
            return None
        case Setting():
            return setting_record(item)
        case Segment(name, condition, description, revision):
            return {
                "name": name,
                "where": condition_text(condition),
                "description": description,
                "revision": revision,
            }
        case Project(slug, title, description, features, revision):
            return {
                "name": slug,
                "title": title,
                "description": description,
                "features": list(features),
                "revision": revision,
            }
        case Environment():
            return environment_record(item)
        case Key():
            return key_record(item)
        case Webhook():
            return webhook_record(item)


def change_record(change: Change) -> dict[str, Any]:
    """Return a change with the whole item before and after it."""
    action = "create" if change.before is None else "delete" if change.after is None else "update"
    return {
        "action": action,
        "kind": change.kind,
        "name": change.key,
        "environment": change.environment,
        "before": item_record(change.before),
        "after": item_record(change.after),
    }


def change_set_record(change_set: ChangeSet) -> dict[str, Any]:
    """Return a change-set of the history."""
    return {
        "revision": change_set.revision,
        "generation": change_set.generation,
        "project": change_set.project,
        "environments": sorted({change.environment for change in change_set.changes} - {""}),
        "committed_at": instant_text(change_set.created_at),
        "author": change_set.author,
        "actor": change_set.actor,
        "message": change_set.message,
        "request_id": change_set.request_id,
        "reverts": change_set.reverts,
        "draft": change_set.draft or None,
        "approved_by": list(change_set.approved_by),
        "forced_clients": list(change_set.forced_clients),
        "changes": [change_record(change) for change in change_set.changes],
    }


def draft_record(draft: Draft, missing: Sequence[MissingApproval]) -> dict[str, Any]:
    """Return a draft without its mutations, which say less than what it would change."""
    return {
        "id": draft.id,
        "project": draft.project,
        "state": draft.state.value,
        "version": draft.version,
        "environments": list(draft.environments),
        "author": draft.author,
        "actor": draft.actor,
        "message": draft.message,
        "created_at": instant_text(draft.created_at),
        "updated_at": instant_text(draft.updated_at),
        "base_revision": draft.base_revision,
        "force": draft.force,
        "approvals": [
            {
                "environments": list(approval.environments),
                "author": approval.author,
                "actor": approval.actor,
                "approved_at": instant_text(approval.approved_at),
                "comment": approval.comment,
            }
            for approval in draft.approvals
        ],
        "missing_approvals": [
            {
                "environment": entry.environment,
                "required": entry.required,
                "given": entry.given,
                "self_approval": entry.self_approval,
            }
            for entry in missing
        ],
        "scheduled_at": instant_text(draft.scheduled_at),
        "revision": draft.revision or None,
        "failure": draft.failure or None,
    }


def warning_record(warning: PlanWarning) -> dict[str, Any]:
    """Return a warning of a plan."""
    return {
        "code": warning.code,
        "message": warning.message,
        "mutation": None if warning.mutation < 0 else warning.mutation,
        "context": None if warning.context is None else thaw(warning.context),
    }
