"""From text to tokens.

Lists and objects are one token each, read by the JSON decoder: a list of ten thousand ids costs the grammar
one step.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final

from lark import Token
from lark.lexer import Lexer

from rheostat.errors import TypeMismatchError
from rheostat.language.fault import Fault
from rheostat.language.quoting import MAX_LITERAL_DEPTH, deeper_than
from rheostat.language.word import KEYWORDS, MAX_NESTING, PLAIN_PATH
from rheostat.model.value import INT64_MAX, INT64_MIN, Value, freeze

__all__ = [
    "ConditionLexer",
    "ConditionToken",
    "tokens_of",
]

_CONSTANTS: Final[dict[str, Value]] = {"true": True, "false": False, "null": None}

_SYMBOLS: Final = {
    "==": "EQ",
    "!=": "NE",
    "<=": "LE",
    ">=": "GE",
    "<": "LT",
    ">": "GT",
    "=": "_ASSIGN",
    "(": "_LPAR",
    ")": "_RPAR",
    ",": "_COMMA",
}

_SPACE: Final = re.compile(r"[ \t\r\n]+")
_SYMBOL: Final = re.compile(r"==|!=|<=|>=|[<>=(),]")
# Wider than JSON's numbers, so that 007 or 1.2.3 is one wrong token rather than two right ones.
_NUMBER_LIKE: Final = re.compile(r"[-+]?\.?[0-9](?:[eE][-+]|[A-Za-z0-9_.])*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_STRING_PREFIX: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_QUOTED_PATH: Final = re.compile(r"`(?:[^`\\\x00-\x1f]|\\(?:[`\"\\/bfnrt]|u[0-9a-fA-F]{4}))*`")
_QUOTED_PATH_PREFIX: Final = re.compile(r"`(?:[^`\\\x00-\x1f]|\\(?:[`\"\\/bfnrt]|u[0-9a-fA-F]{4}))*")
_BACKTICK_ESCAPE: Final = re.compile(r"\\(.)|\"", re.DOTALL)

_FOREIGN: Final = {
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=` between two operands",
    "'": 'texts stand in double quotes: "text"',
    "\u2018": 'texts stand in straight double quotes: "text"',
    "\u2019": 'texts stand in straight double quotes: "text"',
    "\u201c": 'texts stand in straight double quotes: "text"',
    "\u201d": 'texts stand in straight double quotes: "text"',
    "%": "percentages are written without the sign: percent(user.id) < 25",
    "$": "a path with other characters than letters, digits, `_`, `-` and `.` stands in backticks",
    "#": "conditions have no comments",
}


class ConditionToken(Token):
    """A token with the value it stands for, where it has one."""

    __slots__ = ("payload",)
    payload: Value

    @classmethod
    def of(cls, type_: str, text: str, start: int, end: int, payload: Value = None) -> ConditionToken:
        """Make a token of ``text[start:end]``."""
        token = cls(type_, text[start:end], start_pos=start, end_pos=end)
        token.payload = payload
        return token


class ConditionLexer(Lexer):
    """What the grammar asks for tokens."""

    def __init__(self, lexer_conf: object) -> None:
        """Ignore the configuration: the tokens do not come from the grammar."""

    def lex(self, data: str) -> Iterator[ConditionToken]:  # type: ignore[override]  # lark's custom lexer form
        """Yield the tokens of *data*."""
        return tokens_of(data)


def tokens_of(text: str) -> Iterator[ConditionToken]:
    """Yield the tokens of *text*.

    Raises:
        Fault: A piece of the text is no token.
    """
    at = 0
    nesting = 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        token = _token_at(text, at)
        if token.type == "_LPAR":
            nesting += 1
            if nesting > MAX_NESTING:
                raise Fault(at, f"the condition nests more than {MAX_NESTING} levels deep")
        elif token.type == "_RPAR":
            nesting -= 1
        yield token
        at = token.end_pos or len(text)


def _token_at(text: str, at: int) -> ConditionToken:
    first = text[at]
    if word := PLAIN_PATH.match(text, at):
        payload = _CONSTANTS[word[0]] if word[0] in _CONSTANTS else word[0]
        return ConditionToken.of(KEYWORDS.get(word[0], "PATH"), text, at, word.end(), payload)
    if first == '"':
        return _string(text, at)
    if first == "`":
        return _quoted_path(text, at)
    if first in "[{":
        return _collection(text, at)
    if number := _NUMBER_LIKE.match(text, at):
        return _number(text, at, number.end())
    if symbol := _SYMBOL.match(text, at):
        return ConditionToken.of(_SYMBOLS[symbol[0]], text, at, symbol.end())
    hint = _FOREIGN.get(first, "")
    if not hint and first.isalpha():
        hint = "a path with other letters than a to z stands in backticks, a text in double quotes"
    raise Fault(at, f"{_shown(first)} means nothing here", hint)


def _shown(character: str) -> str:
    return f"`{character}`" if character.isprintable() else f"the character U+{ord(character):04X}"


def _string(text: str, at: int) -> ConditionToken:
    match = _STRING.match(text, at)
    if match is None:
        raise _unfinished(text, _STRING_PREFIX, at, "string", '"')
    return ConditionToken.of("STRING", text, at, match.end(), _decoded(match[0], at))


def _quoted_path(text: str, at: int) -> ConditionToken:
    match = _QUOTED_PATH.match(text, at)
    if match is None:
        raise _unfinished(text, _QUOTED_PATH_PREFIX, at, "path in backticks", "`")
    inner = _BACKTICK_ESCAPE.sub(_json_escape, match[0][1:-1])
    return ConditionToken.of("QUOTED_PATH", text, at, match.end(), _decoded(f'"{inner}"', at))


def _json_escape(match: re.Match[str]) -> str:
    """Turn what may stand between backticks into what may stand between double quotes."""
    if match[0] == '"':
        return '\\"'
    return "`" if match[1] == "`" else match[0]


def _decoded(quoted: str, at: int) -> str:
    decoded: str = json.loads(quoted)
    try:
        decoded.encode()
    except UnicodeEncodeError:
        raise Fault(at, "the string holds half of a surrogate pair") from None
    return decoded


def _unfinished(text: str, prefix: re.Pattern[str], at: int, what: str, quote: str) -> Fault:
    match = prefix.match(text, at)
    end = at if match is None else match.end()
    if end == len(text):
        return Fault(at, f"the {what} is not closed", f"it ends with {quote}")
    if text[end] == "\\":
        return Fault(end, f"an unknown escape in the {what}", f"a backslash itself is written {chr(92) * 2}")
    return Fault(
        end, f"{_shown(text[end])} in the {what}", "control characters are written as escapes, such as \\n"
    )


def _number(text: str, at: int, end: int) -> ConditionToken:
    written = text[at:end]
    match = _NUMBER.fullmatch(written)
    if match is None:
        hint = f'a text stands in double quotes, a path in backticks: "{written}", `{written}`'
        raise Fault(at, f"{_cut(written)} is not a number", hint if len(written) < 40 else "")
    payload: Value
    if match[1] is None and match[2] is None:
        payload = _parsed_int(written, at)
    else:
        payload = _parsed_float(written, at)
    return ConditionToken.of("NUMBER", text, at, end, payload)


def _parsed_int(written: str, at: int) -> int:
    # The longest integer of 64 bits has 20 characters; longer ones are not even converted.
    if len(written) <= 20 and INT64_MIN <= (number := int(written)) <= INT64_MAX:
        return number
    raise Fault(at, f"the integer {_cut(written)} does not fit 64 bits")


def _parsed_float(written: str, at: int) -> float:
    number = float(written)
    if not math.isfinite(number):
        raise Fault(at, f"{_cut(written)} is beyond the range of a float")
    return number


def _cut(written: str) -> str:
    return written if len(written) <= 40 else written[:37] + "..."


def _collection(text: str, at: int) -> ConditionToken:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made: dict[str, object] = {}
        for key, element in pairs:
            if key in made:
                raise Fault(at, f"the key {json.dumps(_cut(key))} stands twice in the object")
            made[key] = element
        return made

    def refused(word: str) -> object:
        raise Fault(at, f"{word} is not JSON")

    decoder = json.JSONDecoder(
        object_pairs_hook=unique,
        parse_constant=refused,
        parse_int=lambda written: _parsed_int(written, at),
        parse_float=lambda written: _parsed_float(written, at),
    )
    kind = "list" if text[at] == "[" else "object"
    try:
        raw, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as exc:
        hint = 'it holds JSON: texts stand in double quotes, as in ["a", 1, true]'
        what = "ends in the middle" if exc.pos >= len(text.rstrip()) else "is not JSON here"
        raise Fault(min(exc.pos, len(text)), f"the {kind} {what}", hint) from None
    except RecursionError:
        raise Fault(at, f"the {kind} nests more than {MAX_LITERAL_DEPTH} levels deep") from None
    if deeper_than(raw, MAX_LITERAL_DEPTH):
        raise Fault(at, f"the {kind} nests more than {MAX_LITERAL_DEPTH} levels deep")
    try:
        payload = freeze(raw)
    except TypeMismatchError as exc:
        raise Fault(at, f"in the {kind}, {exc}") from None
    return ConditionToken.of(kind.upper(), text, at, end, payload)
