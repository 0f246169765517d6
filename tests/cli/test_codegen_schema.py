"""From JSON Schemas to the types of two languages."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rheostat.cli.codegen.python import python_module
from rheostat.cli.codegen.schema import form_of, schema_form
from rheostat.cli.codegen.shape import (
    AnyShape,
    ArrayShape,
    LiteralShape,
    MapShape,
    ObjectShape,
    PrimitiveShape,
    ReferenceShape,
    UnionShape,
)
from rheostat.cli.codegen.source import Source
from rheostat.cli.codegen.typescript import typescript_module
from rheostat.model.setting import Setting
from rheostat.model.type import parse_type
from rheostat.model.value import FrozenMapping, canonical_json, freeze
from tests.thorough import examples


def admits(shape, value, definitions):
    """Tell whether a reader who trusts the type is never surprised by *value*; other keys are no surprise."""
    match shape:
        case AnyShape():
            return True
        case PrimitiveShape("null"):
            return value is None
        case PrimitiveShape("bool"):
            return isinstance(value, bool)
        case PrimitiveShape("int"):
            # JSON Schema calls 1.0 an integer.
            return not isinstance(value, bool) and isinstance(value, (int, float)) and value == int(value)
        case PrimitiveShape("float"):
            return not isinstance(value, bool) and isinstance(value, (int, float))
        case PrimitiveShape("str"):
            return isinstance(value, str)
        case LiteralShape(wanted):
            return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted
        case ArrayShape(element):
            return isinstance(value, tuple) and all(admits(element, item, definitions) for item in value)
        case MapShape(element):
            return isinstance(value, FrozenMapping) and all(
                admits(element, item, definitions) for item in value.values()
            )
        case ReferenceShape(pointer):
            return pointer not in definitions or admits(definitions[pointer], value, definitions)
        case UnionShape(parts):
            return any(admits(part, value, definitions) for part in parts)
        case ObjectShape(properties):
            return isinstance(value, FrozenMapping) and all(
                admits(entry.shape, value[key], definitions) if key in value else not entry.required
                for key, entry in properties.items()
            )


def setting(schema, default, name="x"):
    type_ = parse_type(f"Json[{json.dumps(schema)}]")
    return Setting(f"id-{name}", name, type_, freeze(default))


def written(schema, default=None):
    source = Source("p", "e", [setting(schema, default)])
    return python_module(source), typescript_module(source)


_KEYS = st.sampled_from(["a", "b", "c"])
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.just(0.5), st.sampled_from(["a", "b"]))
_NAMES = st.sampled_from(["null", "boolean", "integer", "number", "string", "object", "array"])


def _nested(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {"type": st.one_of(_NAMES, st.lists(_NAMES, min_size=1, max_size=3, unique=True))},
        optional={
            "properties": st.dictionaries(_KEYS, inner, max_size=3),
            "required": st.lists(_KEYS, max_size=2, unique=True),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "."]), inner, max_size=1),
            "items": inner,
            "prefixItems": several,
            "enum": st.lists(_SCALARS, min_size=1, max_size=3, unique_by=repr),
        },
    ) | st.fixed_dictionaries(
        {},
        optional={
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "$ref": st.sampled_from(["#", "#/$defs/one", "#/$defs/two", "#/$defs/none", "other#"]),
            "const": _SCALARS,
            "not": inner,
        },
    )


schemas = st.recursive(
    st.one_of(st.booleans(), st.builds(lambda name: {"type": name}, _NAMES)), _nested, max_leaves=6
)
values = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=examples(200), deadline=None)
@given(schemas, schemas, schemas, st.lists(values, min_size=1, max_size=6))
@example({"allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}]}, {"$ref": "#"}, {"$ref": "#"}, [1])
def test_a_type_admits_whatever_its_schema_admits(schema, one, two, examples):
    assume(isinstance(schema, dict))
    schema = {**schema, "$defs": {"one": one, "two": two}}
    form = schema_form(freeze(schema))
    try:
        validator = jsonschema_rs.validator_for(schema)
    except ValueError:
        # A reference to another document, or to nothing: the server has refused it.
        return
    for value in examples:
        try:
            is_valid = validator.is_valid(value)
        except ValueError:
            continue
        if is_valid:
            assert admits(form.shape, freeze(value), form.definitions), canonical_json(freeze(value))


@pytest.mark.parametrize(
    ("schema", "python", "typescript"),
    [
        ({"type": "string"}, "str", "string"),
        ({"type": ["integer", "null"]}, "int | None", "number | null"),
        ({"type": "number"}, "float", "number"),
        ({"enum": ["a", "b", None]}, 'Literal["a", "b"] | None', '"a" | "b" | null'),
        ({"enum": [True, 1]}, "X", "X"),
        ({"const": "on"}, "X", "X"),
        ({"enum": [0.5, 1]}, "float", "number"),
        ({"type": "array", "items": {"type": "integer"}}, "Sequence[int]", "readonly number[]"),
        (
            {"type": "array", "items": {"enum": ["a", 1]}},
            "Sequence[XItem]",
            "readonly XItem[]",
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False},
            "Sequence[str | None]",
            "readonly (string | null)[]",
        ),
        ({"type": "array"}, "Sequence[Any]", "readonly unknown[]"),
        ({"type": "object"}, "Mapping[str, Any]", "{ readonly [name: string]: unknown }"),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            "Mapping[str, bool]",
            "{ readonly [name: string]: boolean }",
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "Sequence[str] | str",
            "string | (readonly string[])",
        ),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "str | None", "string | null"),
        ({"type": "integer", "anyOf": [{"minimum": 1}, {"maximum": -1}]}, "int", "number"),
        ({"allOf": [{"type": "number"}, {"type": "integer"}]}, "int", "number"),
        ({"$ref": "#/$defs/name", "$defs": {"name": {"type": "string"}}}, "str", "string"),
        ({"$defs": {"a/b~c": {"type": "null"}}, "$ref": "#/$defs/a~1b~0c"}, "None", "null"),
        ({"$ref": "https://example.test/other.json"}, "Any", "unknown"),
        ({"$ref": "#/$defs/none"}, "Any", "unknown"),
        ({"$ref": "#"}, "Any", "unknown"),
        ({"minimum": 3}, "Any", "unknown"),
        ({"type": "unheard-of"}, "Any", "unknown"),
        ({"type": "array", "items": {"$ref": "#"}}, "Sequence[Any]", "readonly unknown[]"),
        (True, "Any", "unknown"),
        (False, "Any", "unknown"),
    ],
    ids=str,
)
def test_a_schema_has_its_type_in_both_languages(schema, python, typescript):
    type_ = parse_type(f"Json[{json.dumps(schema)}]")
    source = Source("p", "e", [Setting("id", "x", type_, None)])
    assert f"\nx: Setting[{python}] = " in python_module(source)
    assert f'\n  readonly "x": {typescript};\n' in typescript_module(source)


def test_objects_become_types_of_their_own():
    schema = {
        "type": "object",
        "description": "How to try again.",
        "required": ["attempts", "at"],
        "properties": {
            "attempts": {"type": "integer", "description": "At most."},
            "on": {"type": "array", "items": {"type": "object", "properties": {"code": {"enum": [1, 2]}}}},
            "old": {"type": "string", "deprecated": True},
        },
    }
    python, typescript = written(schema, {"attempts": 3, "at": 0})
    assert (
        'class X(TypedDict):\n    """How to try again."""\n\n'
        "    at: Any\n"
        '    attempts: int\n    """At most."""\n'
        '    old: NotRequired[str]\n    """Deprecated."""\n'
        "    on: NotRequired[Sequence[XOnItem]]\n"
    ) in python
    assert "class XOnItem(TypedDict):" in python
    assert "code: NotRequired[Literal[1, 2]]" in python
    assert (
        "/** How to try again. */\nexport interface X {\n  readonly at: unknown;\n"
        "  /** At most. */\n  readonly attempts: number;\n  /** @deprecated */\n  readonly old?: string;\n"
        "  readonly on?: readonly XOnItem[];\n}\n"
    ) in typescript
    assert "export interface XOnItem {\n  readonly code?: 1 | 2;\n}" in typescript


def test_keys_that_are_no_identifiers_are_written_as_texts():
    schema = {
        "type": "object",
        "properties": {key: {"type": "integer"} for key in ("a-b", "class", "int", "__x", "ﬁ")},
        "required": ["a-b"],
    }
    python, typescript = written(schema, {"a-b": 1})
    assert (
        'X = TypedDict(\n    "X",\n    {\n        "__x": NotRequired[int],\n        "a-b": int,\n' in python
    )
    assert 'readonly "a-b": number;' in typescript
    assert "readonly class?: number;" in typescript


def test_a_schema_that_contains_itself_has_a_type_that_does():
    node = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    python, typescript = written(schema, {"name": "a"})
    assert 'children: NotRequired[Sequence["XNode"]]' in python
    assert 'next: NotRequired[Union["XNode", None]]' in python
    assert "readonly next?: XNode | null;" in typescript
    assert "\nx: Setting[XNode] = " in python


def test_all_of_and_siblings_of_a_union_are_combined():
    base = {"type": "object", "properties": {"kind": {"type": "string"}, "id": {}}, "required": ["kind"]}
    schema = {
        "$defs": {"base": base},
        "oneOf": [
            {
                "allOf": [
                    {"$ref": "#/$defs/base"},
                    {"properties": {"kind": {"const": "a"}, "size": {"type": "integer"}}, "required": ["id"]},
                ]
            },
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ],
    }
    python, typescript = written(schema, {"kind": "b"})
    assert "x: Setting[XOption1 | XOption2] = " in python
    assert 'kind: Literal["a"]\n    size: NotRequired[int]\n' in python
    assert "export type" in typescript
    assert 'export interface XOption1 {\n  readonly id: unknown;\n  readonly kind: "a";\n' in typescript


def test_a_schema_of_exponential_size_is_left_open_in_no_time():
    definitions = {"d0": {"type": "string"}}
    for i in range(1, 40):
        previous = {"$ref": f"#/$defs/d{i - 1}"}
        definitions[f"d{i}"] = {
            "type": "array",
            "prefixItems": [
                {"type": "array", "items": previous},
                {"type": "object", "additionalProperties": previous},
            ],
            "items": False,
        }
    python, _ = written({"$ref": "#/$defs/d39", "$defs": definitions}, [])
    assert len(python) < 20_000
    assert "Any" in python


def test_schemas_that_refer_to_each_other_meet_for_a_bounded_time():
    def node(other):
        keys = {f"k{i}": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": f"#/$defs/{other}"}]} for i in range(6)}
        return {"type": "object", "properties": keys}

    definitions = {"a": node("b"), "b": node("c"), "c": node("a")}
    schema = {"allOf": [{"$ref": f"#/$defs/{name}"} for name in "abc"], "$defs": definitions}
    python, typescript = written(schema, {})
    assert len(python) < 2_000_000
    assert len(typescript) < 2_000_000


def test_the_types_of_settings_nest():
    form = form_of(parse_type('Mapping<Sequence<Enum["a","b"]>>'))
    assert form.shape == MapShape(ArrayShape(UnionShape((LiteralShape("a"), LiteralShape("b")))))
