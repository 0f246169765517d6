"""What was expected at a place, in words, and what to write instead of common mistakes."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final

from rheostat.language.token import ConditionToken
from rheostat.language.word import KEYWORDS

__all__ = ["expectation", "hint_for"]

_COMPARISONS: Final = {"EQ", "NE", "LT", "LE", "GT", "GE"}
_LIST_OPERATORS: Final = {"IN", "HAS_ANY", "HAS_ALL", "HAS_NONE"}
_WORD_OPERATORS: Final = {
    "STARTS_WITH",
    "ENDS_WITH",
    "CONTAINS",
    "MATCHES",
    "BEFORE",
    "AFTER",
    "IP_IN",
    *_LIST_OPERATORS,
}
_LITERALS: Final = {"STRING", "NUMBER", "TRUE", "FALSE", "NULL"}
_PATHS: Final = {"PATH", "QUOTED_PATH"}
_MIRRORED: Final = {"EQ": "==", "NE": "!=", "LT": ">", "LE": ">=", "GT": "<", "GE": "<="}

_VALUES: Final = _LITERALS | {"OBJECT", "LIST", "_TIMESTAMP", "_ATTR", "_SETTING", "_LITERAL"}
_LEFT: Final = _PATHS | {"_ATTR", "_SETTING", "_LITERAL"}
_OPERATORS: Final = _COMPARISONS | _WORD_OPERATORS | {"_NOT"}
_CONDITION_STARTS: Final = _LEFT | {
    "NUMBER",
    "_LPAR",
    "_NOT",
    "_ALL_OF",
    "_ANY_OF",
    "_EXISTS",
    "_MISSING",
    "_SEGMENT",
    "_COMPARE",
    "_SEMVER",
    "_PERCENT",
}

# Where all terminals of the first set are possible, the words stand for all of the second.
_GROUPS: Final = (
    ({"_EXISTS", "_SEGMENT"}, _CONDITION_STARTS, "a condition"),
    ({"EQ", "IN"}, _OPERATORS, "an operator such as ==, in or starts_with"),
    ({"EQ", "LT"}, _COMPARISONS, "==, <, <=, > or >="),
    ({"STRING", "TRUE", "LIST"}, _VALUES, "a value or a list"),
    ({"STRING", "TRUE"}, _VALUES, "a value"),
    (_PATHS, _LEFT, "a path"),
)

_NAMES: Final = {
    "$END": "the end",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_COMMA": "`,`",
    "_ASSIGN": "`=`",
    "_AND": "`and`",
    "_OR": "`or`",
    "LT": "`<`",
    "LE": "`<=`",
    "GT": "`>`",
    "GE": "`>=`",
    "EQ": "`==`",
    "NE": "`!=`",
    "STRING": "a text in double quotes",
    "NUMBER": "a number",
    "LIST": "a list such as [1, 2]",
    "OBJECT": "an object",
    "PATH": "a word",
    "QUOTED_PATH": "a path in backticks",
}

_SHARES: Final = "a share is percent(…) < 25, percent(…) >= 50 or 12.5 <= percent(…) < 50"
_LOWERED: Final = {"and", "or", "not", "in", "exists", "missing", "true", "false", "null"}


def expectation(accepted: Collection[str]) -> str:
    """Return in words what could have stood where the terminals *accepted* are possible."""
    left = set(accepted)
    words = []
    for needed, covered, name in _GROUPS:
        if needed <= left:
            words.append(name)
            left -= covered
    words += [name for terminal, name in _NAMES.items() if terminal in left]
    words += [
        f"`{word}`" for word, terminal in KEYWORDS.items() if terminal in left and terminal not in _NAMES
    ]
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def hint_for(tokens: Sequence[ConditionToken], index: int, accepted: Collection[str]) -> str:
    """Return what to write instead at ``tokens[index]`` (the end when it is beyond them), or nothing."""
    if index >= len(tokens):
        return _hint_at_end(tokens)
    found = tokens[index]
    before = tokens[index - 1] if index else None
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if found.type == "_ASSIGN":
        return "equality is written =="
    if found.type == "_RPAR" and "$END" in accepted:
        return "no parenthesis is open"
    chained = _hint_about_chain(tokens, index, accepted)
    if chained:
        return chained
    if before is not None and before.type in _LIST_OPERATORS and found.type != "LIST":
        shown = f"[{found}]" if found.type in _LITERALS else '["a", "b"]'
        return f"`{before}` takes a list of literals: {shown}"
    if found.type == "LIST" and before is not None and before.type in _COMPARISONS:
        return "write `in` for several values, and has_any, has_all or has_none for a list attribute"
    if found.type == "PATH" and "STRING" in accepted:
        lowered = str(found).lower()
        if lowered in _LOWERED:
            return f"it is written {lowered}, in lower case"
        return f"a text stands in double quotes: {json.dumps(str(found))}; another attribute is attr({found})"
    if found.type == "PATH" and str(found).lower() in _LOWERED:
        return f"keywords are in lower case: {str(found).lower()}"
    if before is not None and before.type == "PATH" and str(before).lower() == "not":
        return "keywords are in lower case: not"
    if found.type == "PATH" and before is not None and before.type in _PATHS:
        return "a path with spaces stands in backticks"
    if str(found) in KEYWORDS and (
        _PATHS & set(accepted) or (found.type.startswith("_") and after is not None and after.type != "_LPAR")
    ):
        return f"{found} is a keyword; an attribute of that name stands in backticks: `{found}`"
    if before is not None and str(before) in KEYWORDS and "_LPAR" in accepted:
        return f"{before} is a keyword; an attribute of that name stands in backticks: `{before}`"
    return ""


def _hint_at_end(tokens: Sequence[ConditionToken]) -> str:
    opened = sum(token.type == "_LPAR" for token in tokens)
    closed = sum(token.type == "_RPAR" for token in tokens)
    if opened > closed:
        return f"{opened - closed} of the parentheses {'is' if opened - closed == 1 else 'are'} not closed"
    if len(tokens) == 1 and tokens[0].type in _PATHS:
        return f"is it set? exists({tokens[0]}); is it true? {tokens[0]} == true"
    return ""


def _hint_about_chain(tokens: Sequence[ConditionToken], index: int, accepted: Collection[str]) -> str:
    """Explain ``1 < x < 5``, ``a < b < c`` and ``1 < x``."""
    found = tokens[index]
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    relation = next((i for i in (index, index - 1) if i > 0 and tokens[i].type in _COMPARISONS), None)
    if relation is not None and tokens[relation - 1].type in _LITERALS and relation + 1 < len(tokens):
        literal, operator, path = tokens[relation - 1], tokens[relation], tokens[relation + 1]
        starts = relation == 1 or tokens[relation - 2].type in {"_AND", "_OR", "_NOT", "_LPAR", "_COMMA"}
        if starts and path.type in _PATHS:
            flipped = f"{path} {_MIRRORED[operator.type]} {literal}"
            rest = tokens[relation + 2 : relation + 4]
            if rest and rest[0].type in _COMPARISONS:
                second = f"{path} {rest[0]} {rest[1] if len(rest) > 1 else '...'}"
                return f"comparisons do not chain (write `a < x and x < b`): {flipped} and {second}"
            return f"the path comes first: {flipped}"
    if found.type in _COMPARISONS | _WORD_OPERATORS and "_AND" in accepted and index >= 1:
        if any(token.type == "_PERCENT" for token in tokens[:index]) and found.type in _COMPARISONS:
            return _SHARES
        return "comparisons do not chain: write `a < x and x < b`"
    if found.type in _COMPARISONS and tokens[index - 1].type == "_RPAR" and {"LT", "GE"} == set(accepted):
        return _SHARES
    if found.type in _COMPARISONS and after is not None and after.type == "_PERCENT":
        return _SHARES
    if found.type == "NE" and "EQ" in accepted:
        return "write not semver(…) == …"
    return ""
