"""The JSON Schema takes what the parser takes, and refuses what is wrong in structure."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings

from rheostat.document import document_schema, export_document, format_document, parse_document
from rheostat.model.state import ProjectState
from tests.document.applied import Shop
from tests.document.test_parse import EDITOR, EXAMPLE
from tests.document.test_property import states

VALIDATOR = jsonschema_rs.validator_for(document_schema())
EXAMPLES = Path(__file__).parents[2] / "examples"


def as_json(text: str) -> object:
    return json.loads(format_document(parse_document(text), "json"))


def test_it_is_a_schema_itself() -> None:
    jsonschema_rs.meta.validate(document_schema())
    assert document_schema() is not document_schema()


@pytest.mark.parametrize("text", [EXAMPLE, EDITOR, "{}", '{"$schema": "x"}'])
def test_good_documents_satisfy_it(text: str) -> None:
    VALIDATOR.validate(as_json(text))


@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(states())
def test_exports_satisfy_it(state: ProjectState) -> None:
    VALIDATOR.validate(json.loads(format_document(export_document(state), "json")))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"setings": {}},
        {"project": "Shop"},
        {"environments": ["a", "a"]},
        {"features": "region"},
        {"segments": {"a b": "x == 1"}},
        {"segments": {"a": 1}},
        {"segments": {"a": {"when": "x == 1"}}},
        {"settings": {"a": {"rules": []}}},
        {"settings": {"a": {"type": 1}}},
        {"settings": {"a": {"version": "1"}}},
        {"settings": {"a": {"order": "random"}}},
        {"settings": {"a": {"unset": ["type"]}}},
        {"settings": {"a": {"metadata": {"a b": 1}}}},
        {"settings": {"a": {"environments": {"p": {"enabled": "yes"}}}}},
        {"settings": {"a": {"environments": {"p": {"rules": [{}]}}}}},
        {"settings": {"a": {"environments": {"p": {"rules": [{"where": "x == 1"}]}}}}},
        {"settings": {"a": {"environments": {"p": {"rules": [{"id": "a b", "value": 1}]}}}}},
        {
            "settings": {
                "a": {
                    "environments": {"p": {"rules": [{"value": 1, "split": {"unit": "u", "variants": []}}]}}
                }
            }
        },
        {"settings": {"a": {"environments": {"p": {"rules": [{"split": {"unit": "u", "variants": []}}]}}}}},
        {
            "settings": {
                "a": {
                    "environments": {
                        "p": {
                            "rules": [
                                {"split": {"unit": "u", "variants": [{"name": "a", "weight": 1, "value": 1}]}}
                            ]
                        }
                    }
                }
            }
        },
    ],
    ids=json.dumps,
)
def test_bad_documents_do_not(document: object) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        VALIDATOR.validate(document)


def test_every_property_has_a_description() -> None:
    def check(part: object, path: str) -> None:
        if isinstance(part, dict):
            for name, inner in part.get("properties", {}).items():
                described = inner if "$ref" not in inner else {**inner, **resolve(inner["$ref"])}
                assert "description" in described or name in {"where", "split"}, f"{path}.{name}"
            for name, inner in part.items():
                check(inner, f"{path}.{name}")

    def resolve(reference: str) -> dict[str, object]:
        definition: dict[str, object] = document_schema()["$defs"][reference.rsplit("/", 1)[1]]
        return definition

    check(document_schema(), "")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_satisfy_it_and_apply_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    VALIDATOR.validate(as_json(text))
    document = parse_document(text, source=path.name)
    shop = Shop(slug=document.project)
    shop.apply(document)
    assert list(shop.planned(document)) == []
    assert shop.project is not None
    exported = format_document(export_document(shop.project))
    VALIDATOR.validate(as_json(exported))
    assert list(shop.planned(exported)) == []
    again = Shop(slug=document.project)
    again.apply(exported)
    assert again.project is not None
    assert format_document(export_document(again.project)) == exported
