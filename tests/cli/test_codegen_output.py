"""Generated modules are what they were generated from, whatever that says."""

from __future__ import annotations

import json
import keyword
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rheostat.cli.codegen.name import assign, type_candidates, variable_candidates
from rheostat.cli.codegen.python import python_module
from rheostat.cli.codegen.source import Source, listed
from rheostat.cli.codegen.typescript import typescript_module
from rheostat.model.setting import Lifecycle, Setting, Version
from rheostat.model.type import JSON, STR, EnumType, FlagsType, normalise, parse_type
from rheostat.model.value import canonical_json, freeze, thaw
from rheostat.sdk.setting import Setting as DeclaredSetting
from tests import strategies
from tests.cli.checker import check_python, check_typescript, run_typescript
from tests.thorough import examples

HOSTILE = (
    '"""',
    "'''",
    '"',
    "'",
    "\\",
    '\\"',
    '""" + evil() + """',
    "*/ evil(); /*",
    "*/",
    "/**",
    "//",
    "`${evil()}`",
    "${evil}",
    "{evil}",
    "\n",
    "\r",
    "\x00",
    "\x1b[31m",
    "\x85",
    "\u2028evil()",
    "\u202eevil",
    "\n# mypy: ignore-errors\n",
    "# type: ignore",
    "# pyright: basic",
    "@ts-nocheck",
    " @ts-ignore",
    "\n@ts-expect-error",
    "@deprecated",
    "</script>",
    "__proto__",
    "constructor",
    "__class__",
    "__doc__",
    "class",
    "Any",
    "int",
    "Settings",
    "ﬁ",
    "",
    " ",
    "😀",
    "\\u0022",
    "\\N{DIGIT ONE}",
    "%s",
)


def hostile():
    return st.one_of(
        st.sampled_from(HOSTILE),
        st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=3).map("".join),
        strategies.texts(),
    )


def names():
    return st.one_of(
        st.text("aB0_.-", min_size=1, max_size=5),
        st.sampled_from(
            [
                *(
                    "class",
                    "int",
                    "Any",
                    "Settings",
                    "settings",
                    "ALL_SETTINGS",
                    "Setting",
                    "__all__",
                    "None",
                ),
                *(
                    "a.b",
                    "a-b",
                    "a_b",
                    "a_dot_b",
                    "A.b",
                    "AB",
                    "1",
                    "...",
                    "_",
                    "x" * 200,
                    "print",
                    "__proto__",
                ),
                *("constructor", "SettingName", "defaults", "type", "match", "Sequence", "rheostat"),
            ]
        ),
    )


@st.composite
def hostile_settings(draw):
    """Settings whose every text is chosen to break out of where it is written."""
    options = st.lists(hostile(), min_size=1, max_size=3, unique=True)
    keys = draw(st.lists(hostile(), max_size=3, unique=True))
    schema = {
        "type": "object",
        "description": draw(hostile()),
        "properties": {key: {"type": "string", "description": draw(hostile())} for key in keys},
        "required": draw(st.lists(st.sampled_from(keys), unique=True)) if keys else [],
    }
    type_ = draw(
        st.one_of(
            strategies.types(),
            options.map(lambda chosen: parse_type(f"Enum{json.dumps(chosen)}")),
            options.map(lambda chosen: parse_type(f"Flags{json.dumps(chosen)}")),
            options.map(lambda chosen: parse_type(f"Json[{json.dumps({'enum': chosen})}]")),
            st.just(parse_type(f"Json[{json.dumps(schema)}]")),
        )
    )
    match type_:
        case EnumType(chosen):
            default = chosen[0]
        case FlagsType(chosen):
            default = chosen
        case _ if "properties" in str(type_):
            default = freeze({key: draw(hostile()) for key in [*keys, "other"]})
        case _ if "enum" in str(type_) and str(type_).startswith("Json"):
            default = json.loads(type_.schema)["enum"][0]
        case _:
            default = draw(strategies.values_of(type_))
    name = draw(names())
    return Setting(
        id=f"id-{name}",
        name=name,
        type=type_,
        default=normalise(type_, default),
        aliases=tuple(draw(st.lists(st.sampled_from(["old.a", "old-b"]), unique=True))),
        description=draw(hostile()),
        version=Version(draw(st.integers(0, 3)), draw(st.integers(0, 12))),
        features=draw(st.sampled_from([None, (), ("region", "user.plan")])),
        metadata=draw(strategies.metadata()),
        owner=draw(hostile()),
        tags=tuple(draw(st.lists(hostile(), unique=True, max_size=2))),
        lifecycle=draw(st.sampled_from([Lifecycle.ACTIVE, Lifecycle.DEPRECATED])),
    )


def sources(max_size=6):
    found = st.lists(hostile_settings(), max_size=max_size, unique_by=lambda setting: setting.name)
    return found.map(lambda several: Source("shop", "production", listed(several)))


def loaded(code):
    """Return what a generated Python module defines."""
    found: dict = {"__name__": "generated"}
    exec(compile(code, "generated.py", "exec"), found)
    return found


@settings(max_examples=examples(40), deadline=None)
@given(sources())
def test_a_python_module_declares_exactly_the_stored_definitions(source):
    module = loaded(python_module(source))
    declared = {setting.name: setting.declaration() for setting in module["ALL_SETTINGS"]}
    assert list(declared) == [setting.name for setting in source.settings]
    for stored in source.settings:
        declaration = declared[stored.name]
        assert str(declaration.type) == str(stored.type)
        assert canonical_json(declaration.default) == canonical_json(stored.default)
        assert canonical_json(declaration.metadata) == canonical_json(stored.metadata)
        for field in ("version", "aliases", "features", "description", "owner", "tags"):
            assert getattr(declaration, field) == getattr(stored, field), field


@settings(max_examples=examples(40), deadline=None)
@given(sources(max_size=3))
def test_a_python_module_defines_what_it_exports_and_nothing_else(source):
    module = loaded(python_module(source))
    frame = {
        "Any",
        "Literal",
        "Mapping",
        "NotRequired",
        "Sequence",
        "Setting",
        "TypeAlias",
        "TypedDict",
        "Union",
        "cast",
    }
    defined = {name for name in module if not re.fullmatch(r"__\w+__", name)} - frame
    assert defined == set(module["__all__"])
    assert not defined & {*keyword.kwlist, "evil"}
    variables = {id(value): name for name, value in module.items() if isinstance(value, DeclaredSetting)}
    assert len(variables) == len(source.settings)
    assert set(module["Settings"].__annotations__) == {setting.name for setting in source.settings}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(sources(max_size=12))
def test_a_typescript_module_exports_exactly_the_defaults(source):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.ts").write_text(typescript_module(source), "utf-8")
        found = run_typescript(Path(folder), "settings.ts")
    wanted = {"defaults": {setting.name: thaw(setting.default) for setting in source.settings}}
    # JavaScript has one kind of number, and no negative zero in JSON.
    assert json.loads(json.dumps(found), parse_int=float) == json.loads(json.dumps(wanted), parse_int=float)


def many():
    """Return a source with some hundred hostile settings, each under several names; always the same."""
    drawn: dict[str, Setting] = {}

    @settings(max_examples=30, database=None, derandomize=True, deadline=None)
    @given(sources())
    def collect(source):
        for setting in source.settings:
            drawn.setdefault(setting.name, setting)
            name = f"{setting.name}.{len(drawn)}"[-200:]
            drawn[name] = replace(setting, name=name)

    collect()
    tree = parse_type(f"Mapping<Json[{json.dumps(RECURSIVE)}]>")
    drawn["tree"] = Setting("id", "tree", tree, freeze({"a": [{"id": 1, "children": [{"id": 2}]}]}))
    assert len(drawn) > 50
    return Source("shop", "production", listed(list(drawn.values())))


RECURSIVE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "a-b": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "either": {"oneOf": [{"$ref": "#/$defs/node"}, {"enum": ["x", 1, True, None]}]},
                "rest": {
                    "type": "object",
                    "properties": {"int": {"type": "integer"}, "x": {"type": "integer"}},
                },
                "id": {"type": "integer"},
            },
            "required": ["id"],
            "additionalProperties": {"type": "string"},
        }
    },
    "type": "array",
    "items": {"$ref": "#/$defs/node"},
}


def with_other_keys():
    """Return a source with a default that has keys which its schema neither names nor forbids."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    inherited = {key: {"type": "string"} for key in ("constructor", "toString", "__proto__")}
    found = [
        Setting("1", "open", parse_type(f"Json[{json.dumps(schema)}]"), freeze({"a": 1, "more": {}})),
        Setting("2", "any", JSON, freeze({"a": [1, None, {"b": 1.5}], "c": [[], {}]})),
        Setting("3", "none", JSON, None),
        Setting("4", "inherited", parse_type(f"Json[{json.dumps({'properties': inherited})}]"), freeze({})),
    ]
    return Source("p", "e", listed(found))


@pytest.fixture(scope="module")
def modules():
    return {"hostile": many(), "open": with_other_keys(), "empty": Source("", "", [])}


def test_python_modules_are_well_typed_whatever_the_texts(modules, tmp_path):
    check_python(tmp_path, {f"{name}_settings.py": python_module(source) for name, source in modules.items()})


def test_typescript_modules_are_well_typed_whatever_the_texts(modules, tmp_path):
    check_typescript(tmp_path, {f"{name}.ts": typescript_module(source) for name, source in modules.items()})


# Names.


def named(*settings_):
    module = python_module(Source("p", "e", listed([Setting(name, name, STR, "") for name in settings_])))
    return dict(re.findall(r'^(\w+): Setting\[str\] = Setting\("([^"]+)"', module, re.MULTILINE))


def test_names_become_identifiers():
    assert named("checkout.timeout", "new-flow", "class", "int", "9.lives", "_x") == {
        "checkout_timeout": "checkout.timeout",
        "new_flow": "new-flow",
        "class_": "class",
        "int_": "int",
        "setting_9_lives": "9.lives",
        "setting__x": "_x",
    }


def test_a_new_name_never_takes_over_the_identifier_of_another():
    before = named("a.b")
    after = named("a.b", "a-b")
    assert before == {"a_b": "a.b"}
    assert after == {"a_dot_b": "a.b", "a_dash_b": "a-b"}
    assert named("a.b", "a-b", "a_dot_b") != {}
    assert "a_b" not in after


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(names(), unique=True, max_size=10), st.randoms())
@example(["a.b", "a-b", "a_dot_b", "a_dash_b", "a_b"], None)
def test_identifiers_are_unique_and_do_not_depend_on_the_order(several, random):
    candidates = {name: variable_candidates(name, keyword.kwlist) for name in several}
    first = assign(candidates, keyword.kwlist)
    assert len(set(first.values())) == len(several)
    for identifier in first.values():
        assert identifier.isidentifier() and not keyword.iskeyword(identifier)
        assert not identifier.startswith("_")
    if random is not None:
        random.shuffle(several)
    assert assign({name: candidates[name] for name in several}, keyword.kwlist) == first


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(names(), unique=True, max_size=6), names())
def test_one_more_setting_leaves_each_identifier_alone_or_ends_it(several, more):
    """What an identifier stands for is never another setting after the next run."""
    before = assign({name: variable_candidates(name) for name in several}, ())
    after = assign({name: variable_candidates(name) for name in {*several, more}}, ())
    for name, identifier in before.items():
        now = [other for other, given_ in after.items() if given_ == identifier]
        assert now in ([name], [])


def test_somebody_who_knows_the_digests_cannot_take_a_name():
    last = variable_candidates("a.b")[-1]
    found = assign({name: variable_candidates(name) for name in ("a.b", "a-b", "a_dot_b", last)}, {last})
    assert len(set(found.values())) == 4 and last not in found.values()


def test_types_of_equal_names_are_told_apart():
    choice = parse_type('Enum["a"]')
    source = Source(
        "p",
        "e",
        listed(
            [
                *(Setting(name, name, choice, "a") for name in ("a.b", "a-b", "AB", "settings", "any")),
                Setting("CD", "CD", STR, ""),
                Setting("c.d", "c.d", choice, "a"),
            ]
        ),
    )
    module = loaded(python_module(source))
    types = {name for name in module["__all__"] if not isinstance(module[name], (DeclaredSetting, list))}
    assert {"Settings", "SettingsValue", "AnyValue", "CDValue"} <= types
    assert len(types) == 7


def test_a_long_way_through_a_schema_has_a_short_name():
    name, *_ = type_candidates("key", ["checkout", *["nested"] * 30])
    assert len(name) <= 80


# Contents.


def test_archived_settings_are_left_out_and_deprecated_ones_marked():
    gone = Setting("1", "gone", STR, "", lifecycle=Lifecycle.ARCHIVED)
    old = Setting("2", "old", STR, "", lifecycle=Lifecycle.DEPRECATED, description="Not now.")
    source = Source("p", "e", listed([old, gone]))
    python, typescript = python_module(source), typescript_module(source)
    assert "gone" not in python + typescript
    assert '\n"""Deprecated. Not now."""\n' in python
    assert "   * Not now.\n   * @deprecated\n   */\n" in typescript
