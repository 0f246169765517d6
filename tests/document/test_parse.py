"""Reading documents: what they may say, and what a writer is told about a mistake."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rheostat.document import (
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
    format_document,
    parse_document,
)
from rheostat.errors import InvalidDocumentError
from rheostat.language import WrittenCondition
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.rule import Distribution, ValueOutcome, Variant
from rheostat.model.setting import Lifecycle, Order, Version
from rheostat.model.type import BOOL, FLOAT, JSON
from rheostat.model.value import FrozenMapping
from tests.document.applied import Shop
from tests.thorough import examples

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "document.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("```yaml\n")[1].split("```")[0]
EDITOR = PAGE.split("```yaml\n")[2].split("```")[0]


def one(fields: str, *, indent: int = 4) -> str:
    """A document with one setting."""
    return "settings:\n  a:\n" + "".join(f"{' ' * indent}{line}\n" for line in fields.splitlines())


def in_production(fields: str) -> str:
    return one("environments:\n  production:\n" + "".join(f"    {line}\n" for line in fields.splitlines()))


def test_reads_every_part_of_the_example() -> None:
    document = parse_document(EXAMPLE)
    where = WrittenCondition.parse
    assert document == Document(
        "shop",
        ("staging", "production"),
        ("region", "user.plan", "user.id"),
        {
            "beta-testers": SegmentEntry(
                where('user.email ends_with "@example.com" or user.id in ["u1", "u7"]')
            ),
            "staff": SegmentEntry(where('user.email ends_with "@shop.example"'), "People who work here."),
        },
        {
            "checkout.timeout": SettingEntry(
                {
                    "type": FLOAT,
                    "default": 2.5,
                    "description": "Seconds before the payment provider is given up.",
                    "version": Version(1, 2),
                    "aliases": ("payment.timeout",),
                    "owner": "team-payments",
                    "tags": ("payments",),
                },
                environments={
                    "production": EnvironmentEntry(
                        {"value": 3.0},
                        rules=(
                            RuleEntry(
                                where=where('region == "eu" and user.plan in ["pro", "team"]'),
                                outcome=ValueOutcome(4.0),
                            ),
                            RuleEntry(
                                "slow-start",
                                where('segment("beta-testers")'),
                                WrittenDistribution(
                                    Distribution(
                                        "user.id",
                                        "checkout-timeout",
                                        (Variant("slow", 25_000, 6.0), Variant("same", 75_000, 3.0)),
                                    )
                                ),
                            ),
                            RuleEntry(
                                where=where('percent(user.id, salt="checkout-timeout") < 10'),
                                outcome=ValueOutcome(5.0),
                            ),
                        ),
                    )
                },
            ),
            "new-checkout": SettingEntry({"type": BOOL, "default": False, "order": Order.SPECIFICITY}),
        },
    )


def test_the_example_can_be_applied() -> None:
    shop = Shop()
    shop.apply(EXAMPLE)
    assert list(shop.planned(EXAMPLE)) == []
    assert shop.setting("payment.timeout").base_value == 3.0


def test_json_says_the_same_as_yaml() -> None:
    document = parse_document(EXAMPLE)
    text = format_document(document, "json")
    assert json.loads(text)["project"] == "shop"
    assert parse_document(text) == document
    assert parse_document(text, source="shop.json") == document
    assert parse_document(text.replace("  ", "\t"), source="shop.json") == document


def test_the_editor_example_of_the_page_reads() -> None:
    segments = parse_document(EDITOR).segments or {}
    assert segments["titled"].where == WrittenCondition.parse('title contains "Re: "')
    assert segments["folded"].where == WrittenCondition.parse(
        'region == "eu" and user.plan in ["pro", "team"]'
    )


def test_reads_the_rarer_fields() -> None:
    document = parse_document(
        in_production(
            """\
type: Json
default: null
version: 1.10
features: []
lifecycle: deprecated
metadata: {on: no, "1": [1, 1.0, true, null]}
off: {b: 1}
enabled: false
unset: [value, owner]
rules:
  - {id: x, enabled: true, unset: [where, metadata]}
  - value: null
    description: d
    metadata: {}
  - split:
      unit: user.id
      algorithm: REPLANE
      variants: [{name: a, weight: 33.333%, value: 1}, {name: b, weight: 66.667 %, value: 2}]
"""
        )
    )
    assert document.settings is not None
    section = document.settings["a"].environments["production"]
    assert section.fields == {
        "type": JSON,
        "default": None,
        "version": Version(1, 10),
        "features": (),
        "lifecycle": Lifecycle.DEPRECATED,
        "metadata": FrozenMapping({"on": "no", "1": (1, 1.0, True, None)}),
        "off": FrozenMapping({"b": 1}),
        "enabled": False,
    }
    assert section.unset == {"value", "owner"}
    assert section.rules == (
        RuleEntry("x", enabled=True, unset=frozenset({"where", "metadata"})),
        RuleEntry(outcome=ValueOutcome(None), description="d", metadata=FrozenMapping()),
        RuleEntry(
            outcome=WrittenDistribution(
                Distribution(
                    "user.id",
                    "",
                    (Variant("a", 33_333, 1), Variant("b", 66_667, 2)),
                    BucketAlgorithm.REPLANE,
                ),
                has_algorithm=True,
            )
        ),
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("007", "007"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("+1", "+1"),
        (".5", ".5"),
        ("1.", "1."),
        ("1:30", "1:30"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01 00:00:00", "2026-01-01 00:00:00"),
        ("=", "="),
        ("1", 1),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1.0", 1.0),
        ("1e3", 1e3),
        ("12e-3", 0.012),
        ("9223372036854775807", 2**63 - 1),
        ('"1"', "1"),
        ("'true'", "true"),
        ("!!str 1", "1"),
        ('"\\u00e9\\U0001F600\\x41"', "é😀A"),
        ("{1: a, on: b, null: c}", FrozenMapping({"1": "a", "on": "b", "null": "c"})),
        ("[1, [2.0, {}]]", (1, (2.0, FrozenMapping()))),
        ("&x [1]", (1,)),
    ],
)
def test_scalars_are_those_of_json_and_yaml_1_2(written: str, value: object) -> None:
    document = parse_document(one(f"default: {written}"))
    assert document.settings is not None
    assert repr(document.settings["a"].fields["default"]) == repr(value)


def test_an_alias_stands_for_its_anchor() -> None:
    document = parse_document(
        "settings:\n  a: &a\n    type: int\n    default: 1\n  b: *a\nfeatures: &f [x]\n"
    )
    assert document.settings is not None
    assert document.settings["a"] == document.settings["b"]


RULE = "rules:\n  - where: a == 1\n    "
MISTAKES = [
    # document, line, column, path, what the message says
    ("", 1, 1, "", "empty"),
    ("- 1", 1, 1, "", "a mapping, found a list"),
    ("project: Shop", 1, 10, "project", "is not of the form"),
    ("project: 1", 1, 10, "project", "in quotes"),
    ("project: null", 1, 10, "project", "unset"),
    ("projct: shop", 1, 1, "projct", "did you mean project"),
    ("environments: prod", 1, 15, "environments", "a list"),
    ("environments: [a, a]", 1, 19, "environments[1]", "twice"),
    ("features: [a, 'a b']", 1, 15, "features[1]", "is not of the form"),
    ("segments:\n  a b: x == 1", 2, 3, "segments", "segment name"),
    ("segments:\n  a: [x]", 2, 6, "segments.a", "`where`"),
    ("segments:\n  a: x = 1", 2, 8, "segments.a", "equality is written =="),
    ("segments:\n  a: {where: x = 1}", 2, 16, "segments.a.where", "equality is written =="),
    ("a: 1\na: 2", 2, 1, "", "stands twice, first in line 1"),
    ('{"a": 1,\n "a": 2}', 2, 2, "", "stands twice"),
    ("<<: {}", 1, 1, "", "merge keys"),
    ("a: *b", 1, 4, "", "not defined"),
    ("a: &b [*b]", 1, 8, "", "inside of what it refers to"),
    ("a: !!binary eA==", 1, 4, "", "tag"),
    ("a: !x {}", 1, 4, "", "tag"),
    ("{}\n---\n{}", 2, 1, "", "one document"),
    ("a: ]", 1, 4, "", "not YAML"),
    ("? [a]\n: 1", 1, 3, "", "a key is a text"),
    ('segments:\n  a: x == "a: b"', 2, 13, "", "stands in quotes"),
    (one("enviroments: {}"), 3, 5, "settings.a.enviroments", "did you mean environments"),
    (one("rules: []"), 3, 5, "settings.a.rules", "belongs to an environment"),
    (one("value: 1"), 3, 5, "settings.a.value", "belongs to an environment"),
    (one("type: integer"), 3, 11, "settings.a.type", "unknown type"),
    (one("type: bool\ndefault: on"), 4, 14, "settings.a.default", "true and false"),
    (one("type: int\ndefault: 007"), 4, 14, "settings.a.default", "as in JSON"),
    (one("type: int\ndefault: null"), 4, 14, "settings.a.default", "unset"),
    (one("default: 9223372036854775808"), 3, 14, "", "64 bits"),
    (one("default: 1e999"), 3, 14, "", "range of a float"),
    (one("description:"), 3, 17, "settings.a.description", "unset"),
    (one("description: 5"), 3, 18, "settings.a.description", "in quotes"),
    (one("version: 1"), 3, 14, "settings.a.version", "major.minor"),
    (one("version: true"), 3, 14, "settings.a.version", "a text"),
    (one("aliases: [b, b]"), 3, 18, "settings.a.aliases[1]", "twice"),
    (one("order: specific"), 3, 12, "settings.a.order", "did you mean specificity"),
    (one("lifecycle: dead"), 3, 16, "settings.a.lifecycle", "deprecated"),
    (one("metadata: {a b: 1}"), 3, 16, "settings.a.metadata", "metadata entry name"),
    (one("unset: [type]"), 3, 13, "settings.a.unset[0]", "cannot be cleared"),
    (one("unset: [rules]"), 3, 13, "settings.a.unset[0]", "rules: []"),
    (one("owner: x\nunset: [owner]"), 4, 13, "settings.a.unset[0]", "both set and cleared"),
    (one("environments: {Prod: {}}"), 3, 20, "settings.a.environments", "environment name"),
    (
        "environments: [production]\n" + one("environments: {prodution: {}}"),
        4,
        20,
        "settings.a.environments.prodution",
        "did you mean production",
    ),
    (in_production("enabled: yes"), 5, 18, "settings.a.environments.production.enabled", "true or false"),
    (in_production("rules: {}"), 5, 16, "settings.a.environments.production.rules", "a list"),
    (in_production(RULE + "vlaue: 1"), 7, 13, ".rules[0].vlaue", "did you mean value"),
    (in_production("rules: [{}]"), 5, 17, ".rules[0]", "a value or a split"),
    (in_production(RULE + "value: 1\n    split: {}"), 8, 13, ".rules[0].split", "not both"),
    (in_production(RULE + "id: a b\n    value: 1"), 7, 17, ".rules[0].id", "is not of the form"),
    (in_production("rules: [{id: x, value: 1}, {id: x, value: 1}]"), 5, 36, ".rules[1].id", "rules[0]"),
    (in_production("rules: [{where: '', value: 1}]"), 5, 25, ".rules[0].where", "expected a condition"),
    (in_production("rules: [{where: true, value: 1}]"), 5, 25, ".rules[0].where", "a text"),
    (in_production("rules: [{split: {variants: []}}]"), 5, 25, ".rules[0].split", "`unit`"),
    (in_production("rules: [{split: {unit: a, variants: []}}]"), 5, 45, ".split.variants", "at least one"),
    (
        in_production("rules: [{split: {unit: a, algorithm: MD5, variants: []}}]"),
        5,
        46,
        ".split.algorithm",
        "MURMUR3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "path", "says"), MISTAKES, ids=[f"{m[3]}: {m[4]}" for m in MISTAKES]
)
def test_a_mistake_is_shown_with_its_place(text: str, line: int, column: int, path: str, says: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_document(text, source="shop.yaml")
    error = caught.value
    assert says in str(error)
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"shop.yaml:{line}:{column}: ")
    assert error.violations[0].field.endswith(path)


def split(variants: str) -> str:
    return in_production(f"rules:\n  - split:\n      unit: user.id\n      variants: {variants}")


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ("[{name: a, weight: 60%, value: 1}, {name: b, weight: 30%, value: 1}]", "sum to 90%, not 100%"),
        ("[{name: a, weight: 60%, value: 1}, {name: b, weight: 40.5%, value: 1}]", "sum to 100.5%"),
        ("[{name: a, weight: 60%, value: 1}, {name: b, weight: 40.001%, value: 1}]", "sum to 100.001%"),
        ("[{name: a, weight: rest, value: 1}, {name: b, weight: rest, value: 1}]", "only one"),
        ("[{name: a, weight: 60%, value: 1}, {name: a, weight: rest, value: 1}]", "twice"),
        ("[{name: a, weight: 33.3333%, value: 1}]", "three decimals"),
        ("[{name: a, weight: 101%, value: 1}]", "above 100%"),
        ("[{name: a, weight: 100, value: 1}]", "write 100%"),
        ("[{name: a, weight: -1%, value: 1}]", "25%"),
        ("[{name: a, weight: 100%}]", "`value`"),
        ("[{weight: 100%, value: 1}]", "`name`"),
    ],
)
def test_weights_are_checked(variants: str, says: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_document(split(variants))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "scalar",
    [
        "a == 1 and region == eu",
        "'a == 1 and region == eu'",
        '"a == \\"x\\" and region == eu"',
        '"a == \\x22x\\u0022 and region == eu"',
        "|\n              a == 1 and\n              region == eu",
        ">-\n              a == 1\n              and\n\n              region == eu",
        "a == 1 and\n              region == eu",
        "'a == 1 and\n              region == eu'",
    ],
)
def test_a_mistake_in_a_condition_is_found_however_it_is_quoted(scalar: str) -> None:
    text = in_production(f"rules:\n  - where: {scalar}\n    value: 1")
    with pytest.raises(InvalidDocumentError) as caught:
        parse_document(text)
    at = text.rindex("eu")
    assert (caught.value.line, caught.value.column) == (
        text.count("\n", 0, at) + 1,
        at - text.rindex("\n", 0, at),
    )
    shown, caret = str(caught.value).split("\n")[1:3]
    assert shown[caret.index("^") :].startswith("eu")


def test_a_value_is_checked_against_the_type_of_its_environment() -> None:
    text = one("type: int\ndefault: 1\nenvironments:\n  production: {type: str}\n  staging: {value: x}\n")
    with pytest.raises(InvalidDocumentError) as caught:
        parse_document(text)
    assert caught.value.violations[0].field == "settings.a.default"
    with pytest.raises(InvalidDocumentError) as caught:
        parse_document(text.replace("{type: str}", "{type: str, default: x}"))
    assert caught.value.violations[0].field == "settings.a.environments.staging.value"


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.monotonic()
    with pytest.raises(InvalidDocumentError, match="aliases written out"):
        parse_document("\n".join(lines))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", '{"a":', "[["])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(InvalidDocumentError):
        parse_document("a: " + opening * 5_000)
    with pytest.raises(InvalidDocumentError):
        parse_document(opening * 5_000)


PIECES = [
    *(
        "a",
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "&a ",
        "*a",
        "!t ",
        "|\n",
        "#",
        "---\n",
    ),
    *("settings", "project", "rules", "1", "\t", "?", "%", "@", "`", "\x00", "\ud800", "\ufeff", "\u2028"),
]


@settings(deadline=None, max_examples=examples(150))
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
@example("settings:\n  a:\n    default: \x07")
@example('{"a": "\\ud800"}')
@example('a: "\\ud83d\\ude00"')
@example("%YAML 9.9\n---\n{}")
@example("a: !<tag:yaml.org,2002:str> x")
def test_no_text_raises_anything_but_an_invalid_document(text: str) -> None:
    for source in ("shop.yaml", "shop.json"):
        error = refusal(text, source)
        assert error is None or str(error).startswith(source)


def refusal(text: str, source: str) -> InvalidDocumentError | None:
    try:
        parse_document(text, source=source)
    except InvalidDocumentError as exc:
        return exc
    return None
