"""From text to a document, with errors that name line, column and path."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from rheostat.document.document import (
    CLEARABLE_FIELDS,
    DEFINITION_FIELDS,
    ENVIRONMENT_FIELDS,
    Document,
    EnvironmentEntry,
    RuleEntry,
    SegmentEntry,
    SettingEntry,
    WrittenDistribution,
)
from rheostat.document.node import Node, Text, read
from rheostat.errors import InvalidConditionError, InvalidDocumentError, InvalidTypeError, TypeMismatchError
from rheostat.language import WrittenCondition, format_percent
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.rule import TOTAL_WEIGHT, Distribution, ValueOutcome, Variant
from rheostat.model.setting import (
    FEATURE_NAME,
    METADATA_KEY,
    RULE_ID,
    SEGMENT_NAME,
    SETTING_NAME,
    SLUG,
    Lifecycle,
    Order,
    Version,
)
from rheostat.model.type import JsonType, SettingType, normalise, parse_type
from rheostat.model.value import FrozenMapping, Value

__all__ = ["parse_document"]

T = TypeVar("T")

_WEIGHT: Final = re.compile(r"([0-9]{1,3}(?:\.([0-9]+))?) ?%")
_OLD_BOOLS: Final = frozenset({"yes", "no", "on", "off", "y", "n"})
_RULE_KEYS: Final = ("id", "where", "value", "split", "enabled", "description", "metadata", "unset")
_VALUE_KEYS: Final = ("default", "value", "off")


def parse_document(text: str, *, source: str = "<document>") -> Document:
    """Return the document that a YAML or JSON *text* holds.

    Args:
        text: The whole file.
        source: Its name, for messages; one that ends in ``.json`` is read as JSON alone.

    Raises:
        InvalidDocumentError: Something in it is wrong. The message has source, line, column, the path within
            the document, the line itself, and what was expected.
    """
    node, place = read(text, source)
    return _Parser(place).document(node)


def _within(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Parser:
    def __init__(self, place: Text) -> None:
        self._place = place
        self._places: dict[str, tuple[int, int]] = {}

    def document(self, node: Node) -> Document:
        entries = self._mapping(
            node, "", ("project", "environments", "features", "segments", "settings", "$schema")
        )
        project = ""
        if "project" in entries:
            project = self._name(entries["project"], "project", SLUG, "slug")
        environments = None
        if "environments" in entries:
            environments = self._names(entries["environments"], "environments", SLUG, "slug")
        features = None
        if "features" in entries:
            features = self._names(entries["features"], "features", FEATURE_NAME, "feature")
        segments = None
        if "segments" in entries:
            segments = self._named(entries["segments"], "segments", SEGMENT_NAME, "segment", self._segment)
        settings = None
        if "settings" in entries:
            settings = self._named(
                entries["settings"],
                "settings",
                SETTING_NAME,
                "setting",
                lambda inner, path: self._setting(inner, path, environments),
            )
        return Document(project, environments, features, segments, settings, self._place.source, self._places)

    # Shapes.

    def _error(self, node: Node, path: str, problem: str, hint: str = "") -> InvalidDocumentError:
        return self._place.error(node.start, path, problem, hint)

    def _expected(self, node: Node, path: str, what: str, hint: str = "") -> InvalidDocumentError:
        if node.content is None and not hint:
            hint = "null is a value of Json settings alone; to clear a field name it in unset: [...]"
        return self._error(node, path, f"expected {what}, found {node.kind}", hint)

    def _mapping(self, node: Node, path: str, known: Sequence[str]) -> Mapping[str, Node]:
        entries = self._any_mapping(node, path)
        for key in entries:
            if key not in known:
                raise self._place.error(
                    node.keys[key], _within(path, key), f"the key {key!r} is unknown", _nearest(key, known)
                )
        return entries

    def _any_mapping(self, node: Node, path: str) -> Mapping[str, Node]:
        self._places[path] = self._place.position(node.start)
        if not isinstance(node.content, Mapping):
            raise self._expected(node, path, "a mapping")
        for key, at in node.keys.items():
            self._places[_within(path, key)] = self._place.position(at)
        return node.content

    def _list(self, node: Node, path: str) -> tuple[Node, ...]:
        if not isinstance(node.content, tuple):
            raise self._expected(node, path, "a list")
        for i, element in enumerate(node.content):
            self._places[f"{path}[{i}]"] = self._place.position(element.start)
        return node.content

    def _text(self, node: Node, path: str) -> str:
        if not isinstance(node.content, str):
            hint = "" if node.content is None else "put it in quotes"
            raise self._expected(node, path, "a text", hint)
        return node.content

    def _bool(self, node: Node, path: str) -> bool:
        if not isinstance(node.content, bool):
            raise self._expected(node, path, "true or false")
        return node.content

    def _name(self, node: Node, path: str, pattern: re.Pattern[str], what: str) -> str:
        name = self._text(node, path)
        if not pattern.fullmatch(name):
            raise self._error(node, path, f"the {what} {_shown(name)} is not of the form {pattern.pattern}")
        return name

    def _names(self, node: Node, path: str, pattern: re.Pattern[str] | None, what: str) -> tuple[str, ...]:
        names: list[str] = []
        for i, element in enumerate(self._list(node, path)):
            place = f"{path}[{i}]"
            name = (
                self._text(element, place) if pattern is None else self._name(element, place, pattern, what)
            )
            if name in names:
                raise self._error(element, place, f"the {what} {_shown(name)} stands twice")
            names.append(name)
        return tuple(names)

    def _choice(self, node: Node, path: str, choices: Mapping[str, T]) -> T:
        word = self._text(node, path)
        if word not in choices:
            raise self._expected(node, path, " or ".join(choices), _nearest(word, tuple(choices)))
        return choices[word]

    def _named(
        self,
        node: Node,
        path: str,
        pattern: re.Pattern[str],
        what: str,
        parse: Callable[[Node, str], T],
    ) -> dict[str, T]:
        parsed: dict[str, T] = {}
        for name, inner in self._any_mapping(node, path).items():
            if not pattern.fullmatch(name):
                raise self._place.error(
                    node.keys[name],
                    path,
                    f"the {what} name {_shown(name)} is not of the form {pattern.pattern}",
                )
            parsed[name] = parse(inner, _within(path, name))
        return parsed

    def _unset(self, entries: Mapping[str, Node], path: str, known: Sequence[str]) -> frozenset[str]:
        if "unset" not in entries:
            return frozenset()
        place = _within(path, "unset")
        names = self._names(entries["unset"], place, None, "field")
        for i, name in enumerate(names):
            element = self._list(entries["unset"], place)[i]
            if name not in known:
                hint = (
                    "an empty list removes all rules: rules: []" if name == "rules" else _nearest(name, known)
                )
                raise self._error(
                    element, f"{place}[{i}]", f"the field {_shown(name)} cannot be cleared", hint
                )
            if name in entries:
                raise self._error(
                    element, f"{place}[{i}]", f"the field {_shown(name)} is both set and cleared"
                )
        return frozenset(names)

    # Parts.

    def _where(self, node: Node, path: str) -> WrittenCondition:
        text = self._text(node, path)
        try:
            return WrittenCondition.parse(text)
        except InvalidConditionError as exc:
            raise self._place.condition_error(node, path, exc) from None

    def _segment(self, node: Node, path: str) -> SegmentEntry:
        if isinstance(node.content, str):
            return SegmentEntry(self._where(node, path))
        if not isinstance(node.content, Mapping):
            raise self._expected(node, path, "a condition, or a mapping with `where`")
        entries = self._mapping(node, path, ("where", "description", "unset"))
        where, description = entries.get("where"), entries.get("description")
        unset = self._unset(entries, path, ("description",))
        return SegmentEntry(
            None if where is None else self._where(where, _within(path, "where")),
            ("" if unset else None)
            if description is None
            else self._text(description, _within(path, "description")),
        )

    def _setting(self, node: Node, path: str, environments: tuple[str, ...] | None) -> SettingEntry:
        for key in ("rules", *ENVIRONMENT_FIELDS):
            if isinstance(node.content, Mapping) and key in node.content:
                raise self._place.error(
                    node.keys[key],
                    _within(path, key),
                    f"{key} belongs to an environment",
                    f"put it under environments: {{production: {{{key}: ...}}}}",
                )
        entries = self._mapping(node, path, (*DEFINITION_FIELDS, "unset", "environments"))
        fields = self._fields(entries, path, DEFINITION_FIELDS)
        type_ = fields.get("type")
        self._check_values(entries, path, fields, type_)
        unset = self._unset(entries, path, CLEARABLE_FIELDS)
        sections: dict[str, EnvironmentEntry] = {}
        if "environments" in entries:
            place = _within(path, "environments")
            inner = entries["environments"]
            if environments is None:
                sections = self._named(
                    inner, place, SLUG, "environment", lambda n, p: self._environment(n, p, entries, fields)
                )
            else:
                for slug, section in self._mapping(inner, place, environments).items():
                    sections[slug] = self._environment(section, _within(place, slug), entries, fields)
        return SettingEntry(fields, unset, sections)

    def _environment(
        self, node: Node, path: str, outer: Mapping[str, Node], common: Mapping[str, object]
    ) -> EnvironmentEntry:
        known = (*DEFINITION_FIELDS, *ENVIRONMENT_FIELDS, "unset", "rules")
        entries = self._mapping(node, path, known)
        fields = self._fields(entries, path, (*DEFINITION_FIELDS, *ENVIRONMENT_FIELDS))
        type_ = fields.get("type", common.get("type"))
        self._check_values(entries, path, fields, type_)
        if "type" in fields and "default" in common and "default" not in fields:
            setting_path = path[: path.rfind(".environments.")]
            self._check_value(outer["default"], _within(setting_path, "default"), common["default"], type_)
        unset = self._unset(entries, path, CLEARABLE_FIELDS)
        rules: tuple[RuleEntry, ...] | None = None
        if "rules" in entries:
            place = _within(path, "rules")
            nodes = self._list(entries["rules"], place)
            rules = tuple(self._rule(inner, f"{place}[{i}]", type_) for i, inner in enumerate(nodes))
            first: dict[str, int] = {}
            for i, rule in enumerate(rules):
                if rule.id and rule.id in first:
                    raise self._error(
                        nodes[i], f"{place}[{i}].id", f"rules[{first[rule.id]}] has the id {rule.id!r} too"
                    )
                first[rule.id] = i
        return EnvironmentEntry(fields, unset, rules)

    def _fields(self, entries: Mapping[str, Node], path: str, known: Iterable[str]) -> dict[str, object]:
        return {
            name: self._field(name, entries[name], _within(path, name)) for name in known if name in entries
        }

    def _field(self, name: str, node: Node, path: str) -> object:
        match name:
            case "type":
                try:
                    return parse_type(self._text(node, path))
                except InvalidTypeError as exc:
                    raise self._error(node, path, exc.message) from None
            case "default" | "value" | "off":
                return self._value(node, path)
            case "description" | "owner":
                return self._text(node, path)
            case "version":
                return self._version(node, path)
            case "aliases":
                return self._names(node, path, SETTING_NAME, "alias")
            case "tags":
                return self._names(node, path, None, "tag")
            case "features":
                return self._names(node, path, FEATURE_NAME, "feature")
            case "order":
                return self._choice(node, path, {"stored": Order.STORED, "specificity": Order.SPECIFICITY})
            case "lifecycle":
                return self._choice(node, path, {choice.value.lower(): choice for choice in Lifecycle})
            case "metadata":
                return self._metadata(node, path)
            case _:
                return self._bool(node, path)

    def _value(self, node: Node, path: str) -> Value:
        self._places[path] = self._place.position(node.start)
        return node.value

    def _version(self, node: Node, path: str) -> Version:
        # 1.10 without quotes is the number 1.1 to YAML; what was written is what is meant.
        number = isinstance(node.content, (int, float)) and not isinstance(node.content, bool)
        written = node.written if number else self._text(node, path)
        try:
            return Version.parse(written)
        except ValueError as exc:
            raise self._error(node, path, str(exc)) from None

    def _metadata(self, node: Node, path: str) -> FrozenMapping:
        return FrozenMapping(
            self._named(node, path, METADATA_KEY, "metadata entry", lambda inner, _: inner.value)
        )

    def _check_values(
        self, entries: Mapping[str, Node], path: str, fields: Mapping[str, object], type_: object
    ) -> None:
        for name in _VALUE_KEYS:
            if name in fields:
                self._check_value(entries[name], _within(path, name), fields[name], type_)

    def _check_value(self, node: Node, path: str, value: object, type_: object) -> None:
        """Refuse a value that does not fit the type, where the document itself says the type."""
        if type_ is None:
            return
        setting_type: SettingType = type_  # type: ignore[assignment]  # fields hold objects by name
        try:
            normalise(setting_type, value)  # type: ignore[arg-type]  # as above
        except TypeMismatchError as exc:
            hint = ""
            if value is None and not isinstance(setting_type, JsonType):
                hint = "null is a value of Json settings alone; to clear a field name it in unset: [...]"
            elif isinstance(value, str) and value.lower() in _OLD_BOOLS and str(setting_type) == "bool":
                hint = "as in YAML 1.2, the bools are true and false"
            elif isinstance(value, str) and node.style == "" and value[:1] in "0123456789+-.":
                hint = "numbers are written as in JSON; this is a text"
            raise self._error(node, path, exc.message, hint) from None

    def _rule(self, node: Node, path: str, type_: object) -> RuleEntry:
        entries = self._mapping(node, path, _RULE_KEYS)
        rule_id = self._name(entries["id"], f"{path}.id", RULE_ID, "rule id") if "id" in entries else ""
        outcome: ValueOutcome | WrittenDistribution | None = None
        if "value" in entries and "split" in entries:
            raise self._place.error(
                node.keys["split"], f"{path}.split", "a rule has a value or a split, not both"
            )
        if "value" in entries:
            value = self._value(entries["value"], f"{path}.value")
            self._check_value(entries["value"], f"{path}.value", value, type_)
            outcome = ValueOutcome(value)
        elif "split" in entries:
            outcome = self._split(entries["split"], f"{path}.split", type_)
        elif not rule_id:
            raise self._error(
                node,
                path,
                "expected a value or a split",
                "only a rule with an id may leave its outcome alone",
            )
        return RuleEntry(
            rule_id,
            self._where(entries["where"], f"{path}.where") if "where" in entries else None,
            outcome,
            self._bool(entries["enabled"], f"{path}.enabled") if "enabled" in entries else None,
            self._text(entries["description"], f"{path}.description") if "description" in entries else None,
            self._metadata(entries["metadata"], f"{path}.metadata") if "metadata" in entries else None,
            self._unset(entries, path, ("where", "description", "metadata")),
        )

    def _split(self, node: Node, path: str, type_: object) -> WrittenDistribution:
        entries = self._mapping(node, path, ("unit", "salt", "algorithm", "variants"))
        for needed in ("unit", "variants"):
            if needed not in entries:
                raise self._error(node, path, f"a split needs `{needed}`")
        unit = self._text(entries["unit"], f"{path}.unit")
        if not unit:
            raise self._expected(entries["unit"], f"{path}.unit", "the path of an attribute, such as user.id")
        algorithm = BucketAlgorithm.MURMUR3
        if "algorithm" in entries:
            algorithm = self._choice(
                entries["algorithm"], f"{path}.algorithm", dict(BucketAlgorithm.__members__)
            )
        return WrittenDistribution(
            Distribution(
                unit,
                self._text(entries["salt"], f"{path}.salt") if "salt" in entries else "",
                self._variants(entries["variants"], f"{path}.variants", type_),
                algorithm,
            ),
            "algorithm" in entries,
        )

    def _variants(self, node: Node, path: str, type_: object) -> tuple[Variant, ...]:
        nodes = self._list(node, path)
        if not nodes:
            raise self._error(node, path, "a split needs at least one variant")
        rest: int | None = None
        variants: list[Variant] = []
        for i, inner in enumerate(nodes):
            place = f"{path}[{i}]"
            entries = self._mapping(inner, place, ("name", "weight", "value"))
            for needed in ("name", "weight", "value"):
                if needed not in entries:
                    raise self._error(inner, place, f"a variant needs `{needed}`")
            name = self._text(entries["name"], f"{place}.name")
            if not name or any(name == variant.name for variant in variants):
                problem = "is empty" if not name else "stands twice"
                raise self._error(entries["name"], f"{place}.name", f"the name {_shown(name)} {problem}")
            weight = self._weight(entries["weight"], f"{place}.weight")
            if weight is None:
                if rest is not None:
                    raise self._error(entries["weight"], f"{place}.weight", "only one variant has the rest")
                rest = i
            value = self._value(entries["value"], f"{place}.value")
            self._check_value(entries["value"], f"{place}.value", value, type_)
            variants.append(Variant(name, weight or 0, value))
        total = sum(variant.weight for variant in variants)
        if rest is not None and total <= TOTAL_WEIGHT:
            last = variants[rest]
            variants[rest] = Variant(last.name, TOTAL_WEIGHT - total, last.value)
        elif total != TOTAL_WEIGHT:
            raise self._error(
                node,
                path,
                f"the weights sum to {format_percent(total)}%, not 100%",
                "" if rest is not None else "one variant may have weight: rest",
            )
        return tuple(variants)

    def _weight(self, node: Node, path: str) -> int | None:
        if node.content == "rest":
            return None
        match = _WEIGHT.fullmatch(node.content) if isinstance(node.content, str) else None
        if match is None:
            hint = f"write {node.written}%" if isinstance(node.content, (int, float)) else ""
            raise self._expected(node, path, "a share such as 25% or 12.5%, or `rest`", hint)
        if match[2] is not None and len(match[2].rstrip("0")) > 3:
            raise self._error(node, path, f"the weight {match[0]} has more than three decimals")
        whole, _, decimals = match[1].partition(".")
        weight = int(whole) * 1000 + int((decimals + "000")[:3])
        if weight > TOTAL_WEIGHT:
            raise self._error(node, path, f"the weight {match[0]} is above 100%")
        return weight


def _shown(name: str) -> str:
    return json.dumps(name if len(name) <= 60 else name[:57] + "...", ensure_ascii=False)


def _nearest(word: str, known: Sequence[str]) -> str:
    if near := difflib.get_close_matches(word, known, n=1):
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(known)}" if known else ""
