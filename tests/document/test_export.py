"""Exports: canonical, factored, lossless."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from rheostat.document import export_document, format_document, parse_document
from rheostat.errors import InvalidDocumentError, NotFoundError
from rheostat.language import parse_condition
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Segment, Setting
from rheostat.model.type import INT, JSON
from rheostat.model.value import FrozenMapping
from tests.document.applied import Shop, project_state

EXPORTED = """\
project: shop
environments: [production, staging]
features: [region, user.id]
segments:
  beta: 'user.email ends_with "@example.com" and name != "a: b"'
  staff:
    where: user.id in ["u1", "u7"]
    description: "On the pay roll: all of them"
settings:
  alone:
    environments:
      staging:
        type: int
        default: 1
  greeting:
    type: Mapping<str>
    default: {de: hallo, "no": hei}
    description: "two\\nlines"
    metadata: {seen: true}
    environments:
      production:
        value:
          de: Guten Tag, liebe Kundin und lieber Kunde, und willkommen in unserem Laden
          en: hello
  limit:
    type: int
    default: 0
    version: "1.10"
    aliases: [cap, "2"]
    owner: team a
    tags: ["on", 25%]
    features: [user.id]
    lifecycle: deprecated
    environments:
      production:
        description: here
        enabled: false
        value: -1
        "off": 0
        rules:
          - id: r1
            where: 12.5 <= percent(user.id, salt="limit", algorithm=REPLANE) < 50
            value: 1
            enabled: false
            description: why
            metadata: {by: me}
          - id: r2
            split:
              unit: user.id
              salt: limit
              algorithm: REPLANE_PYTHON
              variants:
                - {name: "a b", weight: 33.333%, value: 1}
                - {name: b, weight: 66.667%, value: 2}
          - id: r3
            value: 3
  payload:
    type: Json
    default: null
    environments:
      production:
        "off": {}
        rules:
          - id: r
            where: (a == 1 or b == 2) and c == 3
            value: null
      staging:
        value: [1, 1.0, "1", true, 1.0e+300, -0.0]
"""


def test_an_export_is_written_the_way_people_write() -> None:
    shop = Shop()
    shop.apply(EXPORTED)
    assert shop.project is not None
    assert format_document(export_document(shop.project)) == EXPORTED
    assert format_document(parse_document(EXPORTED)) == EXPORTED
    # Readers of YAML 1.1 take it for the same data.
    assert yaml.safe_load(EXPORTED) == json.loads(format_document(export_document(shop.project), "json"))


def test_some_environments_can_be_exported() -> None:
    shop = Shop()
    shop.apply(EXPORTED)
    assert shop.project is not None
    document = export_document(shop.project, environments=["staging"])
    assert document.environments == ("staging",)
    assert document.settings is not None
    # With one environment nothing differs, so the definition stands at the top.
    assert document.settings["alone"].fields == {"type": INT, "default": 1}
    with pytest.raises(NotFoundError, match="'dev'"):
        export_document(shop.project, environments=["dev"])


def test_the_order_of_mappings_does_not_show() -> None:
    one = Setting("i", "a", JSON, FrozenMapping({"x": 1, "y": 2}))
    other = Setting("j", "b", JSON, 1)
    swapped = replace(one, default=FrozenMapping({"y": 2, "x": 1}), id="k", revision=7)
    segments = [Segment("s", parse_condition("x == 1")), Segment("t", parse_condition("x == 2"))]
    left = project_state({"p": [one, other], "q": [other]}, segments=segments)
    right = project_state({"q": [other], "p": [other, swapped]}, segments=segments[::-1])
    for form in ("yaml", "json"):
        assert format_document(export_document(left), form) == format_document(export_document(right), form)


def test_enum_options_of_different_kinds_are_not_equal() -> None:
    shop = Shop()
    text = (
        "project: shop\nenvironments: [p, q]\nsettings:\n  a:\n    environments:\n"
        "      p: {type: 'Enum[1]', default: 1}\n      q: {type: 'Enum[true]', default: true}\n"
    )
    shop.apply(text)
    assert shop.project is not None
    again = Shop()
    again.apply(format_document(export_document(shop.project)))
    assert str(again.setting("a", "q").type) == "Enum[true]"
    assert str(again.setting("a", "p").type) == "Enum[1]"


def test_what_a_newer_version_wrote_is_not_dropped_in_silence() -> None:
    state = project_state({"p": [Setting("i", "a", INT, 1, rules=(Rule("r", None),))]})
    with pytest.raises(InvalidDocumentError, match="rule 'r' of 'a' in 'p' comes from a newer version"):
        export_document(state)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_keys_longer_than_yaml_allows_without_a_question_mark_survive(form: str) -> None:
    value = FrozenMapping({"k" * 1100: FrozenMapping({"\u2028" * 300: 1}), "on": ()})
    state = project_state(
        {"p": [Setting("i", "a", JSON, value, rules=(Rule("r", ValueOutcome((value, "y")), number=1),))]}
    )
    text = format_document(export_document(state), form)  # type: ignore[arg-type]
    assert "\u2028" not in text
    document = parse_document(text)
    assert document == export_document(state)


def test_nothing_is_an_export_too() -> None:
    assert format_document(export_document(project_state({}))) == "project: shop\n"
    assert format_document(export_document(project_state({"p": []}))) == "project: shop\nenvironments: [p]\n"
