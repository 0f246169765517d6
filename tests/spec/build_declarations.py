"""Writes declarations.json from the tables below. The expectations are written by hand, from the specification.

Run as ``python tests/spec/build_declarations.py``; a test checks that the file is what this makes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = Any

_source = importlib.util.spec_from_file_location(
    "build_evaluation", Path(__file__).with_name("build_evaluation.py")
)
assert _source is not None
assert _source.loader is not None
_evaluation = importlib.util.module_from_spec(_source)
_source.loader.exec_module(_evaluation)
value = _evaluation.value

FEATURES = ["region", "tenant", "user.id"]
"""The features of the project, in each case."""

UNSAID: Any = object()


def setting(type_: str, default: Json, **fields: Json) -> Json:
    """A stored setting; ``a`` in version 1.0 unless *fields* say otherwise."""
    made = {"name": "a", "version": "1.0", "enabled": True, "type": type_, "default": value(default)}
    return made | _fields(fields)


def declared(type_: str, default: Json, version: str = "1.0", **fields: Json) -> Json:
    """A declaration; of ``a`` unless *fields* say otherwise."""
    made = {"name": "a", "type": type_, "default": value(default), "version": version}
    return made | _fields(fields)


def _fields(fields: dict[str, Json]) -> Json:
    made: dict[str, Json] = {}
    for name, content in fields.items():
        match name:
            case "value" | "off":
                made[name] = value(content)
            case "metadata":
                made[name] = {key: value(part) for key, part in content.items()}
            case "features":
                made[name] = {"values": content}
            case _:
                made[name] = content
    return made


def rule(value_: Json, id_: str = "r", **fields: Json) -> Json:
    return {"id": id_, "enabled": True, "value": value(value_)} | fields


def split(*values: Json, unit: str = "user.id") -> Json:
    share = 100_000 // len(values)
    variants = [{"name": f"v{i}", "weight": share, "value": value(each)} for i, each in enumerate(values)]
    return {
        "id": "r",
        "enabled": True,
        "distribution": {
            "unit": unit,
            "salt": "s",
            "variants": variants,
            "algorithm": "BUCKET_ALGORITHM_MURMUR3",
        },
    }


def reads(path: str) -> Json:
    """A condition that reads an attribute."""
    return {"comparison": {"left": {"attribute": path}, "op": "OPERATOR_EXISTS"}}


def expected(outcome: str, differences: str = "", version: str = "") -> Json:
    """An answer; *differences* such as ``type:MAJOR default:MINOR``."""
    listed = [part.split(":") for part in differences.split()]
    return {
        "outcome": outcome,
        "storedVersion": version,
        "differences": [{"attribute": attribute, "level": level} for attribute, level in listed],
    }


def case(
    name: str,
    stored: Json | list[Json],
    declarations: Json | list[Json],
    answers: Json | list[Json],
    *,
    after: Json | list[Json] = (),
    segments: Json = (),
    permitted: bool = True,
) -> Json:
    def many(one: Json) -> list[Json]:
        return [one] if isinstance(one, dict) else list(one)

    made = {
        "name": name,
        "features": FEATURES,
        "settings": many(stored),
        "declarations": many(declarations),
        "expected": many(answers),
    }
    if segments:
        made["segments"] = list(segments)
    if not permitted:
        made["permitted"] = False
    if after:
        made["after"] = many(after)
    return made


# Types. From one to the other: "=" the same, "<" narrower, ">" wider or anything else. Then a default for each; they are
# the same value where only one is given.

SAME, NARROWER, OTHER = "=", "<", ">"

TYPES: list[tuple[str, str, str, str, Json, Json]] = [
    ("int", "int", SAME, SAME, 1, UNSAID),
    ("Enum[1]", "Enum[1.0]", SAME, SAME, 1, UNSAID),
    ('Enum["b","a"]', 'Enum[ "a" , "b" ]', SAME, SAME, "a", UNSAID),
    (
        'Json[{"type":"object","minProperties":0}]',
        'Json[{"minProperties":0,"type":"object"}]',
        SAME,
        SAME,
        {},
        UNSAID,
    ),
    ("float", "int", NARROWER, OTHER, 5, UNSAID),
    ('Enum["a","b"]', 'Enum["a"]', NARROWER, OTHER, "a", UNSAID),
    ('Flags["a","b"]', 'Flags["b"]', NARROWER, OTHER, [], UNSAID),
    ("Sequence<float>", "Sequence<int>", NARROWER, OTHER, [1], UNSAID),
    ("Mapping<float>", "Mapping<int>", NARROWER, OTHER, {"k": 1}, UNSAID),
    ("Mapping<Sequence<float>>", "Mapping<Sequence<int>>", NARROWER, OTHER, {"k": [1]}, UNSAID),
    ('Sequence<Enum["a","b"]>', 'Sequence<Enum["b"]>', NARROWER, OTHER, ["b"], UNSAID),
    ("Json", 'Json[{"type":"string"}]', NARROWER, OTHER, "x", UNSAID),
    ("Sequence<Json>", "Sequence<Json[true]>", NARROWER, OTHER, [None], UNSAID),
    ("bool", "int", OTHER, OTHER, True, 1),
    ("int", "str", OTHER, OTHER, 1, "1"),
    ("str", 'Enum["a"]', OTHER, OTHER, "a", UNSAID),
    ("int", "Enum[1]", OTHER, OTHER, 1, UNSAID),
    ('Enum["a"]', 'Flags["a"]', OTHER, OTHER, "a", ["a"]),
    ('Enum["a","b"]', 'Enum["b","c"]', OTHER, OTHER, "b", UNSAID),
    ("Enum[1]", "Enum[true]", OTHER, OTHER, 1, True),
    ("Json", "int", OTHER, OTHER, 1, UNSAID),
    ("Json", "Sequence<Json>", OTHER, OTHER, [1], UNSAID),
    ('Json[{"type":"integer"}]', 'Json[{"type":"number"}]', OTHER, OTHER, 1, UNSAID),
    ("Sequence<int>", "Mapping<int>", OTHER, OTHER, [], {}),
    ("Sequence<int>", "int", OTHER, OTHER, [1], 1),
    ("Sequence<str>", 'Flags["a"]', OTHER, OTHER, ["a"], UNSAID),
]

_LEVELS = {SAME: "", NARROWER: "type:MINOR", OTHER: "type:MAJOR"}


def type_cases() -> Iterator[Json]:
    for old, new, there, back, first, second in TYPES:
        other = first if second is UNSAID else second
        default = "" if second is UNSAID else "default:MINOR"
        forth = f"{_LEVELS[there]} {default}"
        name = f"type: {old} to {new}"
        yield case(
            f"{name}, same version",
            setting(old, first),
            declared(new, other),
            expected("MISMATCH" if forth.strip() else "UP_TO_DATE", forth, "1.0"),
        )
        yield case(
            f"{name}, minor version",
            setting(old, first),
            declared(new, other, "1.1"),
            expected("REJECTED" if there == OTHER else "UPGRADED", forth, "1.0"),
        )
        yield case(
            f"{name}, major version",
            setting(old, first),
            declared(new, other, "2.0"),
            expected("UPGRADED", forth, "1.0"),
        )
        yield case(
            f"{name}, lower version",
            setting(new, other, version="1.1"),
            declared(old, first, "1.0"),
            expected("OUTDATED", forth, "1.1"),
        )
        if there != SAME:
            yield case(
                f"{name} and back, minor version",
                setting(new, other),
                declared(old, first, "1.1"),
                expected("REJECTED" if back == OTHER else "UPGRADED", f"{_LEVELS[back]} {default}", "1.0"),
            )


# Values that are stored, whether the new type takes them, and what they then are.

VALUES: list[tuple[str, Json, str, Json, Json, bool, Json]] = [
    # old type, its default, new type, its default, the stored value, whether it is taken, and as what
    ("float", 1, "int", 1, 5.0, True, 5),
    ("float", 1, "int", 1, 2.5, False, None),
    ("int", 1, "float", 1, 5, True, 5.0),
    ("int", 1, "float", 1, 9007199254740993, True, 9007199254740992.0),
    ("int", 0, "str", "", 5, False, None),
    ("bool", False, "int", 0, True, False, None),
    ("int", 0, "Json", 0, 5, True, 5),
    ("Json", 0, "int", 0, 5.0, True, 5),
    ("Json", 0, "int", 0, None, False, None),
    ("Json", 0, 'Json[{"maximum":3}]', 0, 4, False, None),
    ("Json", 0, 'Json[{"maximum":3}]', 0, 3, True, 3),
    ('Json[{"maximum":3}]', 0, 'Json[{"maximum":9}]', 0, 3, True, 3),
    ('Json[{"maximum":9}]', 0, 'Json[{"maximum":3}]', 0, 4, False, None),
    ('Enum["a","b"]', "a", 'Enum["a"]', "a", "b", False, None),
    ('Enum["a","b"]', "a", 'Enum["a"]', "a", "a", True, "a"),
    ('Enum["a"]', "a", 'Enum["a","b"]', "a", "a", True, "a"),
    ('Enum["a","b"]', "a", 'Enum["a","c"]', "a", "b", False, None),
    ("str", "a", 'Enum["a"]', "a", "b", False, None),
    ("str", "a", 'Enum["a"]', "a", "a", True, "a"),
    ('Flags["a","b"]', [], 'Flags["a"]', [], ["b"], False, None),
    ('Flags["a","b"]', [], 'Flags["a"]', [], ["a"], True, ["a"]),
    ("Sequence<str>", [], 'Flags["a","b"]', [], ["a", "a"], False, None),
    ("Sequence<str>", [], 'Flags["a","b"]', [], ["b", "a"], True, ["b", "a"]),
    ("Sequence<float>", [], "Sequence<int>", [], [1.0, 2.5], False, None),
    ("Sequence<float>", [], "Sequence<int>", [], [1.0], True, [1]),
    ("Mapping<int>", {}, "Mapping<float>", {}, {"k": 1}, True, {"k": 1.0}),
    ("Mapping<Json>", {}, "Mapping<int>", {}, {"k": 1, "l": None}, False, None),
]

PLACES = ("value", "off", "rule", "disabled rule", "variant")


def _holding(place: str, raw: Json, default: Json) -> Json:
    match place:
        case "value" | "off":
            return {place: raw}
        case "rule":
            return {"rules": [rule(default, "first"), rule(raw)]}
        case "disabled rule":
            return {"rules": [rule(raw, enabled=False)]}
        case _:
            return {"rules": [split(default, raw)]}


def value_cases() -> Iterator[Json]:
    for at, (old, first, new, second, raw, taken, then) in enumerate(VALUES):
        # Each value in one place, and the first ones in all of them.
        for place in PLACES if at < 2 else (PLACES[at % len(PLACES)],):
            default = "" if first == second and type(first) is type(second) else " default:MINOR"
            name = f"value: {json.dumps(raw)} as {place}, from {old} to {new}"
            made = setting(old, first, **_holding(place, raw, _normal(old, first)))
            level = "MAJOR" if taken else "MISMATCH"
            if taken:
                narrower = any((old, new, NARROWER) == row[:3] for row in TYPES) or (old, new) in NARROWED
                level = "MINOR" if narrower else "MAJOR"
                held = (
                    {place: value(then)} if place in ("value", "off") else {"ruleValues": {"r": value(then)}}
                )
                yield case(
                    name,
                    made,
                    declared(new, second, "2.0"),
                    expected("UPGRADED", f"type:{level}{default}", "1.0"),
                    after={"name": "a", "type": new, **held},
                )
            else:
                yield case(
                    name,
                    made,
                    declared(new, second, "2.0"),
                    expected("REJECTED", f"type:MISMATCH{default}", "1.0"),
                    after={"name": "a", "type": old, "version": "1.0"},
                )


NARROWED = {
    ("Json", 'Json[{"maximum":3}]'),
    ('Flags["a","b"]', 'Flags["a"]'),
}
"""Of the types of VALUES, the narrower ones that TYPES does not have."""


# Defaults: whether they differ.

DEFAULTS: list[tuple[str, Json, Json, bool]] = [
    ("int", 5, 5.0, False),
    ("int", 5, 0, True),
    ("float", 1.5, 0, True),
    ("bool", True, False, True),
    ("str", "x", "", True),
    ("Sequence<int>", [1], [], True),
    ("Sequence<int>", [1, 2], [2, 1], True),
    ("Mapping<int>", {"k": 1}, {}, True),
    ("Mapping<int>", {"k": 1, "l": 2}, {"l": 2, "k": 1}, False),
    ('Flags["a","b"]', ["a", "b"], [], True),
    ("Json", 1, True, True),
    ("Json", 0, False, True),
    ("Json", 1, 1.0, False),
    ("Json", {"k": [1]}, {"k": [1.0]}, False),
    ("Json", {"k": [1]}, {"k": [True]}, True),
    ("Json", {"k": None}, {}, True),
    ("Json", 0, None, True),
    ("Json", "1", 1, True),
]


def default_cases() -> Iterator[Json]:
    for type_, old, new, differs in DEFAULTS:
        name = f"default: {json.dumps(old)} to {json.dumps(new)} of {type_}"
        differences = "default:MINOR" if differs else ""
        yield case(
            f"{name}, same version",
            setting(type_, old),
            declared(type_, new),
            expected("MISMATCH" if differs else "UP_TO_DATE", differences, "1.0"),
        )
        yield case(
            f"{name}, minor version",
            setting(type_, old),
            declared(type_, new, "1.1"),
            expected("UPGRADED", differences, "1.0"),
            after={"name": "a", "version": "1.1", "default": value(_normal(type_, new) if differs else old)},
        )


def _normal(type_: str, raw: Json) -> Json:
    return float(raw) if type_ == "float" else raw


# Metadata: whether it differs.

METADATA: list[tuple[Json, Json, bool]] = [
    ({}, {"k": 1}, True),
    ({"k": 1}, {}, True),
    ({"k": 1}, {"k": 1.0}, False),
    ({"k": 1}, {"k": True}, True),
    ({"k": None}, {}, True),
    ({"k": 1, "l": 2}, {"l": 2, "k": 1}, False),
    ({"k": {"deep": [0]}}, {"k": {"deep": [False]}}, True),
]


def metadata_cases() -> Iterator[Json]:
    for old, new, differs in METADATA:
        name = f"metadata: {json.dumps(old)} to {json.dumps(new)}"
        differences = "metadata:MINOR" if differs else ""
        stored = setting("int", 1, metadata=old)
        yield case(
            f"{name}, same version",
            stored,
            declared("int", 1, metadata=new),
            expected("MISMATCH" if differs else "UP_TO_DATE", differences, "1.0"),
        )
        yield case(
            f"{name}, minor version",
            stored,
            declared("int", 1, "1.1", metadata=new),
            expected("UPGRADED", differences, "1.0"),
            after={
                "name": "a",
                "metadata": {key: value(part) for key, part in (new if differs else old).items()},
            },
        )


# Features: None is any. What is declared, what a rule reads, and the level, "" for no difference.

STAFF = [{"name": "staff", "condition": reads("tenant")}]

FEATURE_ROWS: list[tuple[list[str] | None, list[str] | None, Json, str]] = [
    (None, None, None, ""),
    ([], [], None, ""),
    (["region", "tenant"], ["tenant", "region"], None, ""),
    (["region"], ["region", "tenant"], None, "MAJOR"),
    ([], ["region"], None, "MAJOR"),
    (["region"], None, None, "MAJOR"),
    (["region"], None, rule(2, condition=reads("region")), "MAJOR"),
    ([], None, None, "MAJOR"),
    (["region"], ["tenant"], None, "MAJOR"),
    (["region"], ["tenant"], rule(2, condition=reads("region")), "MISMATCH"),
    (["region", "tenant"], ["region"], None, "MINOR"),
    (["region", "tenant"], ["region"], rule(2), "MINOR"),
    (["region", "tenant"], ["region"], rule(2, condition=reads("region")), "MINOR"),
    (["region", "tenant"], ["region"], rule(2, condition=reads("tenant")), "MISMATCH"),
    (["region", "tenant"], ["region"], rule(2, condition=reads("tenant"), enabled=False), "MISMATCH"),
    (["region", "tenant"], ["region"], rule(2, condition={"segment": {"name": "staff"}}), "MISMATCH"),
    (["region", "user.id"], ["region"], split(1, 2), "MISMATCH"),
    (["region", "user.id"], ["user.id"], split(1, 2), "MINOR"),
    (["region"], [], None, "MINOR"),
    (["region"], [], rule(2, condition=reads("region")), "MISMATCH"),
    (None, ["region"], None, "MINOR"),
    (None, [], None, "MINOR"),
    (None, ["region"], rule(2, condition=reads("region")), "MINOR"),
    (None, ["region"], rule(2, condition=reads("tenant")), "MISMATCH"),
    (None, ["region"], rule(2, condition=reads("unregistered")), "MISMATCH"),
    (None, [], split(1, 2), "MISMATCH"),
]


def feature_cases() -> Iterator[Json]:
    for old, new, one, level in FEATURE_ROWS:
        described = "" if one is None else f", rule {json.dumps({k: v for k, v in one.items() if k != 'id'})}"
        name = f"features: {json.dumps(old)} to {json.dumps(new)}{described}"
        fields = {} if old is None else {"features": old}
        stored = setting("int", 1, **fields, rules=[] if one is None else [one])
        wanted = {} if new is None else {"features": new}
        differences = f"features:{level}" if level else ""
        minor = {"": "UPGRADED", "MINOR": "UPGRADED", "MAJOR": "REJECTED", "MISMATCH": "REJECTED"}[level]
        major = "REJECTED" if level == "MISMATCH" else "UPGRADED"
        yield case(
            f"{name}, same version",
            stored,
            declared("int", 1, **wanted),
            expected("MISMATCH" if level else "UP_TO_DATE", differences, "1.0"),
            segments=STAFF,
        )
        yield case(
            f"{name}, minor version",
            stored,
            declared("int", 1, "1.1", **wanted),
            expected(minor, differences, "1.0"),
            segments=STAFF,
        )
        yield case(
            f"{name}, major version",
            stored,
            declared("int", 1, "2.0", **wanted),
            expected(major, differences, "1.0"),
            segments=STAFF,
        )
    yield case(
        "features: a newer version has more, lower version",
        setting("int", 1, version="2.0", features=["region", "tenant"]),
        declared("int", 1, "1.0", features=["region"]),
        expected("OUTDATED", "features:MAJOR", "2.0"),
    )
    yield case(
        "features: a newer version has fewer, lower version",
        setting("int", 1, version="1.1", features=["region"], rules=[rule(2, condition=reads("region"))]),
        declared("int", 1, "1.0", features=["region", "tenant"]),
        expected("OUTDATED", "features:MINOR", "1.1"),
    )
    yield case(
        "features: a newer version allows all, lower version",
        setting("int", 1, version="2.0", rules=[rule(2, condition=reads("tenant"))]),
        declared("int", 1, "1.0", features=["region"]),
        expected("OUTDATED", "features:MAJOR", "2.0"),
    )


# Versions: declared and stored, without and with another default.

VERSIONS: list[tuple[str, str, str, str]] = [
    ("1.0", "1.0", "UP_TO_DATE", "MISMATCH"),
    ("1.0", "1.00", "UP_TO_DATE", "MISMATCH"),
    ("1.0", "01.0", "UP_TO_DATE", "MISMATCH"),
    ("1.0", "", "UP_TO_DATE", "MISMATCH"),
    ("1.2", "1.10", "UPGRADED", "UPGRADED"),
    ("1.10", "1.9", "OUTDATED", "OUTDATED"),
    ("9.0", "10.0", "UPGRADED", "UPGRADED"),
    ("1.9", "2.0", "UPGRADED", "UPGRADED"),
    ("2.0", "1.99", "OUTDATED", "OUTDATED"),
    ("1.0", "1.7", "UPGRADED", "UPGRADED"),
    ("1.0", "7.3", "UPGRADED", "UPGRADED"),
    ("0.0", "0.1", "UPGRADED", "UPGRADED"),
]


def version_cases() -> Iterator[Json]:
    for old, new, same, other in VERSIONS:
        shown = new or "none"
        yield case(
            f"version: {shown} on {old}",
            setting("int", 1, version=old),
            declared("int", 1, new),
            expected(same, "", old),
        )
        yield case(
            f"version: {shown} on {old}, with another default",
            setting("int", 1, version=old),
            declared("int", 2, new),
            expected(other, "default:MINOR", old),
        )
    yield case(
        "version: 1.7 takes no major difference on 1.0",
        setting("int", 1),
        declared("float", 1, "1.7"),
        expected("REJECTED", "type:MAJOR", "1.0"),
    )
    yield case(
        "version: 3.2 takes a major difference on 1.5",
        setting("int", 1, version="1.5"),
        declared("float", 1, "3.2"),
        expected("UPGRADED", "type:MAJOR", "1.5"),
    )
    for version in ("1", "1.0.0", "v1.0", "1.x", "-1.0", "1.", " 1.0"):
        yield case(f"version: {version!r} is none", [], declared("int", 1, version), expected("INVALID"))


# Names.


def name_cases() -> Iterator[Json]:
    yield case(
        "name: a new setting",
        [],
        declared("int", 1),
        expected("CREATED"),
        after={"name": "a", "declared": True, "version": "1.0"},
    )
    yield case(
        "name: a new setting of any version",
        [],
        declared("int", 1, "3.7"),
        expected("CREATED"),
        after={"name": "a", "version": "3.7"},
    )
    yield case(
        "name: a new setting with aliases",
        [],
        declared("int", 1, aliases=["b", "c"]),
        expected("CREATED"),
        after={"name": "a", "aliases": ["b", "c"]},
    )
    yield case(
        "name: a rename",
        setting("int", 1, name="old"),
        declared("int", 1, "1.1", aliases=["old"]),
        expected("UPGRADED", "name:MINOR", "1.0"),
        after={"name": "a", "aliases": ["old"], "version": "1.1"},
    )
    yield case(
        "name: a second rename keeps both former names",
        setting("int", 1, name="newer", aliases=["old"]),
        declared("int", 1, "1.1", aliases=["newer"]),
        expected("UPGRADED", "name:MINOR", "1.0"),
        after={"name": "a", "aliases": ["old", "newer"]},
    )
    yield case(
        "name: a rename back",
        setting("int", 1, name="new", aliases=["a"]),
        declared("int", 1, "1.1"),
        expected("UPGRADED", "name:MINOR", "1.0"),
        after={"name": "a", "aliases": ["new"]},
    )
    yield case(
        "name: a rename needs a higher version",
        setting("int", 1, name="old"),
        declared("int", 1, aliases=["old"]),
        expected("MISMATCH", "name:MINOR", "1.0"),
        after={"name": "old", "aliases": []},
    )
    yield case(
        "name: declared by its alias in its version",
        setting("int", 1, name="new", aliases=["a"]),
        declared("int", 1),
        expected("MISMATCH", "name:MINOR", "1.0"),
    )
    yield case(
        "name: declared by its alias in a lower version",
        setting("int", 2, name="new", version="1.1", aliases=["a"]),
        declared("int", 1),
        expected("OUTDATED", "name:MINOR default:MINOR", "1.1"),
    )
    yield case(
        "name: a rename with everything else",
        setting("float", 2, name="old", value=5, metadata={"k": 1}, features=["region", "tenant"]),
        declared("int", 1, "1.1", aliases=["old"], features=["region"]),
        expected("UPGRADED", "name:MINOR type:MINOR default:MINOR features:MINOR metadata:MINOR", "1.0"),
        after={"name": "a", "type": "int", "default": value(1), "value": value(5), "aliases": ["old"]},
    )
    yield case(
        "name: aliases are not compared",
        setting("int", 1, aliases=["b"]),
        declared("int", 1, aliases=["c"]),
        expected("UP_TO_DATE", "", "1.0"),
    )
    yield case(
        "name: an upgrade adds aliases and takes none away",
        setting("int", 1, aliases=["b"]),
        declared("int", 1, "1.1", aliases=["c"]),
        expected("UPGRADED", "", "1.0"),
        after={"name": "a", "aliases": ["b", "c"]},
    )
    taken = [setting("int", 1), setting("int", 1, name="b", aliases=["c"])]
    for alias in ("b", "c"):
        yield case(
            f"name: the alias {alias} of another setting",
            taken,
            declared("int", 1, "1.1", aliases=[alias]),
            expected("INVALID"),
        )
        yield case(
            f"name: a new setting whose aliases are of two settings, {alias} among them",
            taken,
            declared("int", 1, "1.1", name="new", aliases=["a", alias]),
            expected("INVALID"),
        )
    yield case(
        "name: two aliases of one setting",
        setting("int", 1, name="b", aliases=["c"]),
        declared("int", 1, "1.1", aliases=["c", "b"]),
        expected("UPGRADED", "name:MINOR", "1.0"),
        after={"name": "a", "aliases": ["c", "b"]},
    )
    for bad in ("", "a b", "a/b", "ä", "x" * 201, "a\n"):
        shown = json.dumps(bad if len(bad) < 9 else "201 letters")
        yield case(f"name: {shown} is none", [], declared("int", 1, name=bad), expected("INVALID"))
        yield case(
            f"name: the alias {shown} is none", [], declared("int", 1, aliases=[bad]), expected("INVALID")
        )
    yield case(
        "name: 200 letters, dots and dashes",
        [],
        declared("int", 1, name="Az09_.-" + "x" * 193),
        expected("CREATED"),
    )
    yield case("name: an alias twice", [], declared("int", 1, aliases=["b", "b"]), expected("INVALID"))
    yield case("name: its own alias", [], declared("int", 1, aliases=["a"]), expected("INVALID"))
    archived = setting("int", 1, lifecycle="LIFECYCLE_ARCHIVED")
    for version in ("0.9", "1.0", "1.1"):
        yield case(
            f"name: archived, declared as {version}",
            archived,
            declared("int", 1, version),
            expected("INVALID"),
        )
    yield case(
        "name: archived, found by an alias",
        archived,
        declared("int", 1, "1.1", name="b", aliases=["a"]),
        expected("INVALID"),
    )
    yield case(
        "name: deprecated settings are declared like others",
        setting("int", 1, lifecycle="LIFECYCLE_DEPRECATED"),
        declared("int", 0, "1.1"),
        expected("UPGRADED", "default:MINOR", "1.0"),
    )


INVALID: list[tuple[str, Json]] = [
    ("no type", declared("", 1)),
    ("an unknown type", declared("integer", 1)),
    ("a type that goes on", declared("int int", 1)),
    ("an Enum without options", declared("Enum[]", 1)),
    ("an Enum that repeats an option", declared("Enum[1,1.0]", 1)),
    ("an Enum with null", declared("Enum[null]", 1)),
    ("a schema that is none", declared('Json[{"type":"nothing"}]', 1)),
    ("a schema of another document", declared('Json[{"$ref":"https://example.com/schema"}]', 1)),
    ("no default", {"name": "a", "type": "int"}),
    ("a default of another type", declared("int", "1")),
    ("a bool as a number", declared("int", True)),
    ("a number as a bool", declared("bool", 1)),
    ("null outside Json", declared("str", None)),
    ("a fraction as an int", declared("int", 1.5)),
    ("a default that is no option", declared('Enum["a"]', "b")),
    ("a default that repeats a flag", declared('Flags["a"]', ["a", "a"])),
    ("a default that breaks its schema", declared('Json[{"type":"string"}]', 1)),
    ("an unknown feature", declared("int", 1, features=["region", "unknown"])),
    ("a feature twice", declared("int", 1, features=["region", "region"])),
    ("a bad key of metadata", declared("int", 1, metadata={"a.b": 1})),
    ("an empty key of metadata", declared("int", 1, metadata={"": 1})),
    ("a default that looks like a private key", declared("str", "-----BEGIN RSA PRIVATE KEY-----\nMIIE")),
]


def invalid_cases() -> Iterator[Json]:
    for name, bad in INVALID:
        # Alone, and beside one that is good.
        yield case(
            f"invalid: {name}",
            [],
            [bad, declared("int", 1, name="good")],
            [expected("INVALID"), expected("CREATED")],
            after={"name": "good"},
        )
    yield case(
        "invalid: also where something is stored",
        setting("int", 1),
        declared("int", 1, features=["unknown"]),
        expected("INVALID"),
    )


def permission_cases() -> Iterator[Json]:
    for name, stored, one, answer in (
        ("a new one", [], declared("int", 1), expected("DENIED")),
        (
            "an upgrade",
            setting("int", 1),
            declared("int", 2, "1.1"),
            expected("DENIED", "default:MINOR", "1.0"),
        ),
        (
            "an upgrade without differences",
            setting("int", 1),
            declared("int", 1, "1.1"),
            expected("DENIED", "", "1.0"),
        ),
        ("the same", setting("int", 1), declared("int", 1), expected("UP_TO_DATE", "", "1.0")),
        ("a mismatch", setting("int", 1), declared("int", 2), expected("MISMATCH", "default:MINOR", "1.0")),
        (
            "an older one",
            setting("int", 1, version="1.1"),
            declared("int", 2),
            expected("OUTDATED", "default:MINOR", "1.1"),
        ),
        (
            "an unacceptable one",
            setting("int", 1),
            declared("str", "", "1.1"),
            expected("REJECTED", "type:MAJOR default:MINOR", "1.0"),
        ),
        ("a bad one", [], declared("int", ""), expected("INVALID")),
    ):
        after = (
            {"name": "a", "default": stored["default"], "declared": False} if isinstance(stored, dict) else ()
        )
        yield case(f"permission: without it, {name}", stored, one, answer, permitted=False, after=after)


def batch_cases() -> Iterator[Json]:
    yield case(
        "batch: each answer at once",
        [
            setting("int", 1, name="same"),
            setting("int", 1, name="other"),
            setting("int", 1, name="newer", version="1.1"),
            setting("int", 1, name="older"),
            setting("int", 1, name="wider"),
        ],
        [
            declared("int", 1, name="new"),
            declared("int", 1, name="same"),
            declared("int", 2, name="other"),
            declared("int", 1, name="newer"),
            declared("int", 2, "1.1", name="older"),
            declared("float", 1, "1.1", name="wider"),
            declared("nothing", 1, name="bad"),
        ],
        [
            expected("CREATED"),
            expected("UP_TO_DATE", "", "1.0"),
            expected("MISMATCH", "default:MINOR", "1.0"),
            expected("OUTDATED", "", "1.1"),
            expected("UPGRADED", "default:MINOR", "1.0"),
            expected("REJECTED", "type:MAJOR", "1.0"),
            expected("INVALID"),
        ],
        after=[{"name": "older", "default": value(2)}, {"name": "wider", "type": "int"}],
    )
    yield case(
        "batch: a name twice counts once",
        [],
        [declared("int", 1), declared("int", 2, "1.1")],
        [expected("CREATED"), expected("INVALID")],
        after={"name": "a", "default": value(1)},
    )
    yield case(
        "batch: the first good one of a name counts",
        [],
        [declared("int", "x"), declared("int", 1)],
        [expected("INVALID"), expected("CREATED")],
    )
    yield case(
        "batch: one setting by two of its names",
        setting("int", 1, aliases=["b"]),
        [declared("int", 1), declared("int", 1, name="b")],
        [expected("UP_TO_DATE", "", "1.0"), expected("INVALID")],
    )
    yield case(
        "batch: an alias that the batch has just taken",
        [],
        [declared("int", 1), declared("int", 1, name="b", aliases=["a"])],
        [expected("CREATED"), expected("INVALID")],
    )
    yield case(
        "batch: a name that the batch has just made an alias",
        setting("int", 1, name="old"),
        [declared("int", 1, "1.1", aliases=["old"]), declared("int", 1, name="old")],
        [expected("UPGRADED", "name:MINOR", "1.0"), expected("INVALID")],
    )
    yield case(
        "batch: two renames",
        [setting("int", 1, name="x"), setting("int", 2, name="y")],
        [declared("int", 1, "1.1", aliases=["x"]), declared("int", 2, "1.1", name="b", aliases=["y"])],
        [expected("UPGRADED", "name:MINOR", "1.0")] * 2,
        after=[{"name": "a", "aliases": ["x"]}, {"name": "b", "aliases": ["y"]}],
    )
    on_old = {
        "comparison": {"left": {"setting": "old"}, "op": "OPERATOR_EQUALS", "right": {"literal": value(1)}}
    }
    yield case(
        "batch: a rename goes on being referred to",
        [setting("int", 1, name="old"), setting("int", 1, name="user", rules=[rule(2, condition=on_old)])],
        declared("int", 1, "1.1", aliases=["old"]),
        expected("UPGRADED", "name:MINOR", "1.0"),
        after={"name": "user", "refersTo": ["a"]},
    )


def kept_cases() -> Iterator[Json]:
    said = {"description": "d", "owner": "o", "tags": ["t"]}
    yield case(
        "kept: what is said for people, with a new setting",
        [],
        declared("int", 1, **said),
        expected("CREATED"),
        after={"name": "a", **said},
    )
    yield case(
        "kept: what is said for people, where nothing was",
        setting("int", 1),
        declared("int", 1, "1.1", **said),
        expected("UPGRADED", "", "1.0"),
        after={"name": "a", **said},
    )
    theirs = {"description": "D", "owner": "O", "tags": ["T"]}
    yield case(
        "kept: what operators say for people",
        setting("int", 1, **theirs),
        declared("int", 1, "1.1", **said),
        expected("UPGRADED", "", "1.0"),
        after={"name": "a", **theirs},
    )
    yield case(
        "kept: what is said for people is not compared",
        setting("int", 1, **theirs),
        declared("int", 1, **said),
        expected("UP_TO_DATE", "", "1.0"),
    )
    yield case(
        "kept: value, rules, order and switch",
        setting("int", 1, value=7, off=8, rules=[rule(9)], order="RULE_ORDER_SPECIFICITY", enabled=False),
        declared("int", 2, "1.1"),
        expected("UPGRADED", "default:MINOR", "1.0"),
        after={
            "name": "a",
            "default": value(2),
            "value": value(7),
            "off": value(8),
            "ruleValues": {"r": value(9)},
            "order": "RULE_ORDER_SPECIFICITY",
            "enabled": False,
        },
    )
    yield case(
        "kept: a setting made by hand is the code's once it is declared the same",
        setting("int", 1),
        declared("int", 1),
        expected("UP_TO_DATE", "", "1.0"),
        after={"name": "a", "declared": True},
    )
    yield case(
        "kept: a setting made by hand is its own when it is declared otherwise",
        setting("int", 1),
        declared("int", 2),
        expected("MISMATCH", "default:MINOR", "1.0"),
        after={"name": "a", "declared": False},
    )


def cases() -> Iterator[Json]:
    yield from type_cases()
    yield from value_cases()
    yield from default_cases()
    yield from metadata_cases()
    yield from feature_cases()
    yield from version_cases()
    yield from name_cases()
    yield from invalid_cases()
    yield from permission_cases()
    yield from batch_cases()
    yield from kept_cases()


def document() -> str:
    """Return the text of declarations.json: one case a line, so that differences are easy to read."""
    lines = [json.dumps(one, ensure_ascii=True, separators=(",", ":")) for one in cases()]
    return '{"cases":[\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    Path(__file__).with_name("declarations.json").write_text(document(), encoding="ascii")
