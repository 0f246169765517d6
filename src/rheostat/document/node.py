"""YAML and JSON texts as trees that know where everything stands."""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from rheostat.errors import FieldViolation, InvalidConditionError, InvalidDocumentError
from rheostat.language.fault import shown_line
from rheostat.model.value import INT64_MAX, INT64_MIN, FrozenMapping, Value

__all__ = ["MAX_DOCUMENT_LENGTH", "MAX_NODES", "Node", "Text", "read"]

MAX_DOCUMENT_LENGTH: Final = 32 * 1024 * 1024
"""Characters of a document, as many as the bytes that a Commit may have."""

MAX_NODES: Final = 1_000_000
"""Nodes of a document, aliases written out; an alias bomb has many more."""

MAX_DEPTH: Final = 100
"""The deepest nesting of a document."""

Scalar: TypeAlias = bool | int | float | str | None
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.2's core schema with JSON's numbers: yes, on, 007, 0x1f, 1_000, .5, 1:30 and dates are texts.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_CONSTANTS: Final[dict[str, Scalar]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_STR_TAGS: Final = ("!", "tag:yaml.org,2002:str")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A piece of a document.

    Attributes:
        content: A scalar, or the nodes inside.
        start: Offset in the text.
        end: Offset behind it.
        written: The text of a plain scalar, as 1.10 is not the number 1.1 to everybody.
        style: How a scalar is quoted: empty (plain), ``'``, ``"``, ``|`` or ``>``.
        keys: Offsets of the keys of a mapping.
        size: Nodes in it, with aliases written out.
    """

    content: Scalar | tuple[Node, ...] | Mapping[str, Node]
    start: int
    end: int
    written: str = ""
    style: str = ""
    keys: Mapping[str, int] = field(default_factory=dict)
    size: int = 1

    @property
    def kind(self) -> str:
        """What it is, in the words of an error message."""
        match self.content:
            case None:
                return "null"
            case bool():
                return f"the bool {json.dumps(self.content)}"
            case int() | float():
                return f"the number {self.written or self.content}"
            case str():
                shown = self.content if len(self.content) <= 40 else self.content[:37] + "..."
                return f"the text {json.dumps(shown, ensure_ascii=False)}"
            case tuple():
                return "a list"
            case _:
                return "a mapping"

    @property
    def value(self) -> Value:
        """The node as a value; the depth of documents bounds the recursion."""
        match self.content:
            case tuple() as elements:
                return tuple(element.value for element in elements)
            case Mapping() as entries:
                return FrozenMapping({key: entry.value for key, entry in entries.items()})
            case scalar:
                return scalar


class Text:
    """A document's text, for errors that show the place."""

    def __init__(self, text: str, source: str) -> None:
        """Take the *text* of the file called *source*."""
        self.text = text
        self.source = source
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def position(self, at: int) -> tuple[int, int]:
        """Return line and column of an offset, both from 1."""
        line = bisect.bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def error(self, at: int, path: str, problem: str, hint: str = "") -> InvalidDocumentError:
        """Return an error at an offset; *path* says where in the document's structure."""
        line, column = self.position(at)
        where = f"{self.source}:{line}:{column}: " + (f"{path}: " if path else "")
        message = f"{where}{problem}\n{shown_line(self.text, at)}" + (f"\n  {hint}" if hint else "")
        return InvalidDocumentError(
            message, line=line, column=column, violations=[FieldViolation(path, problem)]
        )

    def condition_error(self, node: Node, path: str, exc: InvalidConditionError) -> InvalidDocumentError:
        """Return the error of a condition at its place in the document, where that can be told."""
        content = node.content if isinstance(node.content, str) else ""
        at = node.start
        if "line" in exc.metadata:
            starts = [0, *(match.end() for match in re.finditer("\n", content))]
            offset = starts[int(exc.metadata["line"]) - 1] + int(exc.metadata["column"]) - 1
            found = _offset_in_source(self.text[node.start : node.end], node.style, content, offset)
            at = node.start if found is None else node.start + found
        return self.error(at, path, exc.metadata.get("problem", exc.message), exc.metadata.get("hint", ""))


def _offset_in_source(raw: str, style: str, content: str, offset: int) -> int | None:
    """Return where in the *raw* scalar the *offset* of its *content* is; None when that cannot be told."""
    if style == '"':
        return _offset_in_quotes(raw, offset) if "\n" not in raw else None
    first = 0
    if style == "'":
        first = 1
        raw = raw[:-1]
    elif style in ("|", ">"):
        first = raw.find("\n") + 1
    # Folding changes white space alone, so the n-th visible character of the one is that of the other.
    places = [i for i in range(first, len(raw)) if not raw[i].isspace()]
    if "".join(raw[i] for i in places) != "".join(content.split()):
        return None
    before = len("".join(content[:offset].split()))
    if before < len(places):
        return places[before]
    return places[-1] + 1 if places else None


def _offset_in_quotes(raw: str, offset: int) -> int:
    at = 1
    for _ in range(offset):
        if raw[at : at + 1] == "\\":
            at += {"x": 4, "u": 6, "U": 10}.get(raw[at + 1 : at + 2], 2)
        else:
            at += 1
    return min(at, len(raw) - 1)


def read(text: str, source: str) -> tuple[Node, Text]:
    """Return the tree of a YAML or JSON *text*.

    Raises:
        InvalidDocumentError: It is neither, repeats a key, or is too large or too deep.
    """
    if len(text) > MAX_DOCUMENT_LENGTH:
        raise InvalidDocumentError(f"{source}: the document is longer than {MAX_DOCUMENT_LENGTH} characters")
    text = text.removeprefix("\ufeff")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Text(text, source).error(exc.start, "", "half of a surrogate pair") from None
    place = Text(text, source)
    if text.lstrip(" \t\r\n").startswith("{"):
        # JSON is nearly, but not quite, a part of YAML: tabs and escaped surrogate pairs are not.
        try:
            return _JsonReader(place).document(), place
        except InvalidDocumentError:
            if source.lower().endswith(".json"):
                raise
    return _YamlReader(place).document(), place


def _checked_number(place: Text, at: int, written: str, *, integral: bool) -> int | float:
    if integral:
        if len(written) <= 20 and INT64_MIN <= (number := int(written)) <= INT64_MAX:
            return number
        raise place.error(at, "", f"the integer {written[:40]} does not fit 64 bits")
    parsed = float(written)
    if not math.isfinite(parsed):
        raise place.error(at, "", f"{written[:40]} is beyond the range of a float")
    return parsed


class _YamlReader:
    """Composes nodes from YAML's events; its own composer would lose styles and accept what YAML 1.1 does."""

    def __init__(self, place: Text) -> None:
        self._place = place
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        place = self._place
        try:
            self._events: Any = yaml.parse(place.text, Loader=Loader)
            self._next()
            if not isinstance(self._next(), yaml.DocumentStartEvent):
                raise place.error(0, "", "the document is empty")
            node = self._node(self._next(), 0)
            self._next()
            event = self._next()
            if isinstance(event, yaml.DocumentStartEvent):
                raise place.error(_start(event), "", "a file holds one document, not several")
        except yaml.MarkedYAMLError as exc:
            mark: Any = exc.problem_mark or exc.context_mark
            at = min(mark.index, len(place.text)) if mark is not None else 0
            problem = exc.problem or exc.context or "not YAML"
            raise place.error(at, "", f"not YAML: {problem}", _yaml_hint(problem)) from None
        except yaml.YAMLError as exc:
            at = getattr(exc, "position", 0)
            reason = getattr(exc, "reason", str(exc).split("\n", maxsplit=1)[0])
            raise place.error(min(at, len(place.text)), "", f"not YAML: {reason}") from None
        except RecursionError:
            raise place.error(0, "", f"the document nests more than {MAX_DEPTH} levels deep") from None
        return node

    def _next(self) -> Any:
        event: Any = next(self._events)
        return event

    def _node(self, event: Any, depth: int) -> Node:
        at = _start(event)
        place = self._place
        if depth > MAX_DEPTH:
            raise place.error(at, "", f"the document nests more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise place.error(at, "", f"the anchor &{event.anchor} is not defined before this alias")
            aliased = self._anchors[event.anchor]
            if aliased is None:
                raise place.error(at, "", f"the alias *{event.anchor} stands inside of what it refers to")
            return aliased
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        else:
            if event.tag is not None:
                raise place.error(at, "", f"the tag {event.tag} is not supported")
            if isinstance(event, yaml.SequenceStartEvent):
                node = self._sequence(at, depth)
            else:
                node = self._mapping(at, depth)
        if node.size > MAX_NODES:
            raise place.error(at, "", f"with its aliases written out, more than {MAX_NODES} nodes")
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _scalar(self, event: Any) -> Node:
        at, end = _start(event), _end(event)
        written: str = event.value
        if event.tag is not None and event.tag not in _STR_TAGS:
            raise self._place.error(at, "", f"the tag {event.tag} is not supported")
        style = event.style or ""
        content: Scalar = written
        if style or event.tag is not None:
            try:
                # The pure loader leaves escaped surrogate pairs apart.
                content = written.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self._place.error(at, "", "half of a surrogate pair") from None
        elif written in _CONSTANTS:
            content = _CONSTANTS[written]
        elif match := _NUMBER.fullmatch(written):
            integral = match[1] is None and match[2] is None
            content = _checked_number(self._place, at, written, integral=integral)
        return Node(content, at, end, written, style)

    def _sequence(self, at: int, depth: int) -> Node:
        elements: list[Node] = []
        size = 1
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            elements.append(self._node(event, depth + 1))
            size += elements[-1].size
        return Node(tuple(elements), at, _end(event), size=size)

    def _mapping(self, at: int, depth: int) -> Node:
        entries: dict[str, Node] = {}
        keys: dict[str, int] = {}
        size = 1
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = _start(event)
            key = self._key(event)
            if key in entries:
                line = self._place.position(keys[key])[0]
                raise self._place.error(place, "", f"the key {key!r} stands twice, first in line {line}")
            keys[key] = place
            entries[key] = self._node(self._next(), depth + 1)
            size += 1 + entries[key].size
        return Node(entries, at, _end(event), keys=keys, size=size)

    def _key(self, event: Any) -> str:
        at = _start(event)
        if not isinstance(event, yaml.ScalarEvent) or (event.tag is not None and event.tag not in _STR_TAGS):
            raise self._place.error(at, "", "a key is a text")
        if event.value == "<<" and not event.style:
            raise self._place.error(
                at, "", "merge keys are not supported", "an alias may stand for a whole value: key: *anchor"
            )
        node = self._scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        # A key is a text however it looks: 1, on and null are names here.
        return node.content if isinstance(node.content, str) else node.written


def _start(event: Any) -> int:
    offset: int = event.start_mark.index
    return offset


def _end(event: Any) -> int:
    offset: int = event.end_mark.index
    return offset


def _yaml_hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "a text with a colon and a space in it stands in quotes"
    if "cannot start any token" in problem and ("`" in problem or "\\t" in problem or "'@'" in problem):
        return "indentation is made of spaces; a text that begins with a special character stands in quotes"
    return ""


_JSON_SPACE: Final = re.compile(r"[ \t\r\n]*")
_JSON_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_JSON_WORD: Final = re.compile(r"[-+.A-Za-z0-9_]+")


class _JsonReader:
    def __init__(self, place: Text) -> None:
        self._place = place
        self._text = place.text
        self._at = 0

    def document(self) -> Node:
        node = self._node(0)
        self._skip()
        if self._at < len(self._text):
            raise self._place.error(self._at, "", "the document goes on after its end")
        return node

    def _skip(self) -> str:
        match = _JSON_SPACE.match(self._text, self._at)
        self._at = self._at if match is None else match.end()
        return self._text[self._at : self._at + 1]

    def _node(self, depth: int) -> Node:
        first = self._skip()
        at = self._at
        if depth > MAX_DEPTH:
            raise self._place.error(at, "", f"the document nests more than {MAX_DEPTH} levels deep")
        if first == "{":
            return self._object(at, depth)
        if first == "[":
            return self._array(at, depth)
        if first == '"':
            return self._string(at)
        match = _JSON_WORD.match(self._text, at)
        word = "" if match is None else match[0]
        self._at += len(word)
        if word in ("null", "true", "false"):
            return Node(_CONSTANTS[word], at, self._at, word)
        if number := _NUMBER.fullmatch(word):
            integral = number[1] is None and number[2] is None
            return Node(_checked_number(self._place, at, word, integral=integral), at, self._at, word)
        raise self._place.error(at, "", "not JSON: expected a value")

    def _string(self, at: int) -> Node:
        match = _JSON_STRING.match(self._text, at)
        if match is None:
            raise self._place.error(at, "", "not JSON: expected a text in double quotes")
        self._at = match.end()
        content: str = json.loads(match[0])
        try:
            content.encode()
        except UnicodeEncodeError:
            raise self._place.error(at, "", "half of a surrogate pair") from None
        return Node(content, at, self._at, style='"')

    def _array(self, at: int, depth: int) -> Node:
        self._at += 1
        elements: list[Node] = []
        if self._skip() != "]":
            elements.append(self._node(depth + 1))
            while self._skip() == ",":
                self._at += 1
                elements.append(self._node(depth + 1))
        self._expect("]")
        return Node(tuple(elements), at, self._at)

    def _object(self, at: int, depth: int) -> Node:
        self._at += 1
        entries: dict[str, Node] = {}
        keys: dict[str, int] = {}
        more = self._skip() != "}"
        while more:
            self._skip()
            place = self._at
            key = str(self._string(place).content)
            if key in entries:
                raise self._place.error(place, "", f"the key {key!r} stands twice")
            keys[key] = place
            self._skip()
            self._expect(":")
            entries[key] = self._node(depth + 1)
            more = self._skip() == ","
            self._at += more
        self._expect("}")
        return Node(entries, at, self._at, keys=keys)

    def _expect(self, character: str) -> None:
        if self._text[self._at : self._at + 1] != character:
            raise self._place.error(self._at, "", f"not JSON: expected {character!r}")
        self._at += 1
