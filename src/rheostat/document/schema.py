"""The JSON Schema of documents, for editors and other programs."""

from __future__ import annotations

from typing import Any

from rheostat.document.document import CLEARABLE_FIELDS
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.setting import (
    FEATURE_NAME,
    METADATA_KEY,
    RULE_ID,
    SEGMENT_NAME,
    SETTING_NAME,
    SLUG,
    Lifecycle,
    Order,
)

__all__ = ["document_schema"]


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that every document satisfies, as fresh data.

    It knows the structure. What takes more than that (conditions, types of values, sums of weights) is
    checked when the document is read.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rheostat document",
        "description": "What is wanted of a project. What is absent is left alone.",
        **_closed(
            {
                "$schema": {"type": "string", "description": "Where this schema is, for editors."},
                "project": {"$ref": "#/$defs/slug", "description": "The project; default: the key's."},
                "environments": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/slug"},
                    "uniqueItems": True,
                    "description": "Where the definitions apply; default: all of the project's.",
                },
                "features": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/feature"},
                    "uniqueItems": True,
                    "description": "The hierarchy of context attributes, general to specific.",
                },
                "segments": _named(SEGMENT_NAME.pattern, "segment", "Conditions that rules share, by name."),
                "settings": _named(SETTING_NAME.pattern, "setting", "Settings, by name."),
            }
        ),
        "$defs": {
            "slug": {"type": "string", "pattern": _whole(SLUG.pattern)},
            "feature": {"type": "string", "pattern": _whole(FEATURE_NAME.pattern)},
            "condition": {
                "type": "string",
                "minLength": 1,
                "description": 'An expression, such as region == "eu" and user.plan in ["pro"].',
            },
            "metadata": {
                "type": "object",
                "propertyNames": {"pattern": _whole(METADATA_KEY.pattern)},
                "description": "Anything that tools want to keep here.",
            },
            "segment": {
                "oneOf": [
                    {"$ref": "#/$defs/condition"},
                    _closed(
                        {
                            "where": {"$ref": "#/$defs/condition"},
                            "description": {"type": "string", "description": "For people."},
                            "unset": _unset(("description",)),
                        }
                    ),
                ]
            },
            "setting": _closed(
                {
                    **_definition(),
                    "environments": {
                        "type": "object",
                        "propertyNames": {"$ref": "#/$defs/slug"},
                        "additionalProperties": {"$ref": "#/$defs/environment"},
                        "description": "Values, rules and what differs, by environment.",
                    },
                }
            ),
            "environment": _closed(
                {
                    **_definition(),
                    "value": {"description": "This environment's default."},
                    "enabled": {
                        "type": "boolean",
                        "description": "False: no rules, and `off` where it is set.",
                    },
                    "off": {"description": "What a disabled setting answers; default: its value."},
                    "rules": {
                        "type": "array",
                        "items": {"$ref": "#/$defs/rule"},
                        "description": "The whole ordered list: the first match decides; [] removes all.",
                    },
                }
            ),
            "rule": {
                **_closed(
                    {
                        "id": {
                            "type": "string",
                            "pattern": _whole(RULE_ID.pattern),
                            "description": "Unique in the setting and environment.",
                        },
                        "where": {"$ref": "#/$defs/condition"},
                        "value": {"description": "What the rule decides."},
                        "split": {"$ref": "#/$defs/split"},
                        "enabled": {"type": "boolean", "description": "A disabled rule is skipped."},
                        "description": {"type": "string", "description": "For people."},
                        "metadata": {"$ref": "#/$defs/metadata"},
                        "unset": _unset(("where", "description", "metadata")),
                    }
                ),
                "anyOf": [{"required": ["value"]}, {"required": ["split"]}, {"required": ["id"]}],
                "not": {"required": ["value", "split"]},
            },
            "split": {
                **_closed(
                    {
                        "unit": {
                            "type": "string",
                            "minLength": 1,
                            "description": "The path of the attribute that is divided, such as user.id.",
                        },
                        "salt": {
                            "type": "string",
                            "description": "Separates this split from others; default: the setting's name.",
                        },
                        "algorithm": {
                            "enum": list(BucketAlgorithm.__members__),
                            "description": "How units are hashed; default: MURMUR3.",
                        },
                        "variants": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"$ref": "#/$defs/variant"},
                            "description": "Their order is part of the rule, and their weights sum to 100%.",
                        },
                    }
                ),
                "required": ["unit", "variants"],
            },
            "variant": {
                **_closed(
                    {
                        "name": {"type": "string", "minLength": 1, "description": "Unique in the split."},
                        "weight": {
                            "type": "string",
                            "pattern": r"^([0-9]{1,3}(\.[0-9]+)? ?%|rest)$",
                            "description": "A share such as 25% or 12.5%, or rest for what the others leave.",
                        },
                        "value": {"description": "The value of this share."},
                    }
                ),
                "required": ["name", "weight", "value"],
            },
        },
    }


def _whole(pattern: str) -> str:
    return f"^{pattern}$"


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _named(pattern: str, definition: str, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": _whole(pattern)},
        "additionalProperties": {"$ref": f"#/$defs/{definition}"},
        "description": description,
    }


def _unset(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"enum": list(names)},
        "uniqueItems": True,
        "description": "Fields to clear.",
    }


def _texts(description: str, items: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "array",
        "items": items or {"type": "string"},
        "uniqueItems": True,
        "description": description,
    }


def _definition() -> dict[str, Any]:
    return {
        "type": {
            "type": "string",
            "description": 'bool, int, float, str, Enum["a","b"], Flags["a","b"], Sequence<T>, Mapping<T>, '
            "Json or Json[schema].",
        },
        "default": {"description": "The value where nothing else decides."},
        "description": {"type": "string", "description": "For people."},
        "version": {
            "type": ["string", "number"],
            "pattern": r"^[0-9]{1,9}\.[0-9]{1,9}$",
            "description": "Of the definition: major.minor, compared numerically.",
        },
        "aliases": _texts("Former names.", {"type": "string", "pattern": _whole(SETTING_NAME.pattern)}),
        "owner": {"type": "string", "description": "Whom to ask."},
        "tags": _texts("For finding."),
        "features": _texts("The attributes that rules may read; default: any.", {"$ref": "#/$defs/feature"}),
        "order": {
            "enum": [order.value.lower() for order in Order],
            "description": "stored: rules decide in their order; specificity: in that of the hierarchy.",
        },
        "lifecycle": {
            "enum": [lifecycle.value.lower() for lifecycle in Lifecycle],
            "description": "Where the setting stands in its life.",
        },
        "metadata": {"$ref": "#/$defs/metadata"},
        "unset": _unset(CLEARABLE_FIELDS),
    }
