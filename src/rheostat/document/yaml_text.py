"""Canonical YAML: the same data gives the same bytes, whatever library reads or writes it.

Written by hand rather than by PyYAML, whose quoting follows YAML 1.1 alone and may change with its version:
here a text is quoted unless both YAML 1.1 and 1.2 take it for a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from rheostat.language.quoting import escape_invisible

__all__ = ["Block", "Lines", "Tree", "yaml_text"]

Tree: TypeAlias = "bool | int | float | str | Sequence[Tree] | Mapping[str, Tree] | None"


class Block(dict[str, "Tree"]):
    """A mapping with each entry on a line of its own, however short it is."""


class Lines(list["Tree"]):
    """A list with each element on a line of its own."""


_FLOW_WIDTH: Final = 80
# YAML's limit for a key that stands before its colon without a question mark, less some room.
_MAX_SIMPLE_KEY: Final = 1000

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_SHARE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?%")
# A sentence or a condition: begins with a letter or a parenthesis, or as `12.5 <= percent(` does.
_PLAIN: Final = re.compile(r"(?:[A-Za-z_(]|[0-9.]+ <= percent\()[^\x00-\x1f]*")
_AMBIGUOUS: Final = re.compile(r": |:\Z| #|\s\Z")
_RESERVED: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def yaml_text(tree: Mapping[str, Tree]) -> str:
    """Return *tree* as a YAML document; keys stay in their order."""
    return "\n".join(_block(tree, 0)) + "\n"


def _block(tree: Tree, indent: int) -> list[str]:
    """Return the lines of a non-empty mapping or list."""
    lines: list[str] = []
    margin = "  " * indent
    if isinstance(tree, Mapping):
        for key, inner in tree.items():
            shown = _key(key)
            if len(shown) > _MAX_SIMPLE_KEY:
                lines.append(f"{margin}? {shown}")
                shown = ""
            lines += _entry(f"{margin}{shown}:", inner, indent)
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for inner in tree:
            short = _inline(inner)
            if short is not None:
                lines.append(f"{margin}- {short}")
            else:
                nested = _block(inner, indent + 1)
                # The first line moves up beside the dash.
                lines.append(f"{margin}- {nested[0][len(margin) + 2 :]}")
                lines += nested[1:]
    return lines


def _entry(head: str, inner: Tree, indent: int) -> list[str]:
    short = _inline(inner)
    if short is not None:
        return [f"{head} {short}"]
    return [head, *_block(inner, indent + 1)]


def _inline(tree: Tree) -> str | None:
    """Return *tree* on one line, or None when it does not fit there."""
    if isinstance(tree, str):
        return _text(tree)
    if not isinstance(tree, (Mapping, Sequence)):
        return _number_or_constant(tree)
    if tree and isinstance(tree, (Block, Lines)):
        return None
    flow = _flow(tree)
    return flow if flow is not None and (len(flow) <= _FLOW_WIDTH or not tree) else None


def _flow(tree: Tree) -> str | None:
    if isinstance(tree, str):
        return tree if _is_word(tree) or _SHARE.fullmatch(tree) else _quoted(tree)
    if isinstance(tree, Mapping):
        parts: list[str] = []
        for key, inner in tree.items():
            shown, text = _key(key), _flow(inner)
            if text is None or len(shown) > _MAX_SIMPLE_KEY or sum(map(len, parts)) > _FLOW_WIDTH:
                return None
            parts.append(f"{shown}: {text}")
        return "{" + ", ".join(parts) + "}"
    if isinstance(tree, Sequence):
        elements: list[str] = []
        for inner in tree:
            text = _flow(inner)
            if text is None or sum(map(len, elements)) > _FLOW_WIDTH:
                return None
            elements.append(text)
        return "[" + ", ".join(elements) + "]"
    return _number_or_constant(tree)


def _key(key: str) -> str:
    return key if _is_word(key) else _quoted(key)


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and text.lower() not in _RESERVED


def _text(text: str) -> str:
    if _SHARE.fullmatch(text):
        return text
    plain = _PLAIN.fullmatch(text) and not _AMBIGUOUS.search(text) and escape_invisible(text) == text
    if plain and text.lower() not in _RESERVED:
        return text
    # Conditions are full of double quotes; between single ones they stay readable.
    if '"' in text and "'" not in text and text.isascii() and text.isprintable():
        return f"'{text}'"
    return _quoted(text)


def _quoted(text: str) -> str:
    return escape_invisible(json.dumps(text, ensure_ascii=False))


def _number_or_constant(scalar: bool | float | None) -> str:
    text = json.dumps(scalar, allow_nan=False)
    if isinstance(scalar, float) and "e" in text and "." not in text:
        # 1e+300 is a text to YAML 1.1; 1.0e+300 is a float to everybody.
        text = text.replace("e", ".0e")
    return text
