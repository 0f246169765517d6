"""From tokens to conditions, by an LALR grammar: time and stack do not depend on the nesting."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn, cast

from lark import Lark, Transformer, v_args
from lark.exceptions import UnexpectedToken

from rheostat.language.fault import Fault
from rheostat.language.hint import expectation, hint_for
from rheostat.language.instant import is_instant
from rheostat.language.token import ConditionLexer, ConditionToken, tokens_of
from rheostat.language.word import MAX_NESTING
from rheostat.model.condition import (
    BUCKETS,
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    depth,
)
from rheostat.model.value import Value

__all__ = ["parsed"]

_GRAMMAR: Final = r"""
?start: disjunction
?disjunction: conjunction | conjunction (_OR conjunction)+  -> any_of
?conjunction: negation | negation (_AND negation)+          -> all_of
?negation: atom | _NOT negation                             -> negated

?atom: _LPAR disjunction _RPAR
    | _ALL_OF _LPAR (disjunction (_COMMA disjunction)*)? _RPAR                    -> all_of
    | _ANY_OF _LPAR (disjunction (_COMMA disjunction)*)? _RPAR                    -> any_of
    | _EXISTS _LPAR left _RPAR                                                    -> exists
    | _MISSING _LPAR left _RPAR                                                   -> missing
    | _SEGMENT _LPAR STRING _RPAR                                                 -> segment
    | _COMPARE _LPAR left _COMMA PATH (_COMMA (right | list))? _RPAR              -> compare
    | left (EQ | NE | LT | LE | GT | GE | BEFORE | AFTER | MATCHES) right         -> comparison
    | left (STARTS_WITH | ENDS_WITH | CONTAINS | IP_IN) (right | list)            -> comparison
    | left (IN | HAS_ANY | HAS_ALL | HAS_NONE) list                               -> comparison
    | left _NOT IN list                                                           -> not_in
    | _SEMVER _LPAR left _RPAR (EQ | LT | LE | GT | GE) right                     -> semver
    | percent LT NUMBER                                                           -> below
    | percent GE NUMBER                                                           -> at_least
    | NUMBER LE percent                                                           -> at_least_mirrored
    | NUMBER LE percent LT NUMBER                                                 -> between

percent: _PERCENT _LPAR path (_COMMA argument)* _RPAR
argument: PATH _ASSIGN (STRING | PATH)

?left: path -> attribute
    | reference
?right: scalar -> literal
    | OBJECT -> literal
    | _TIMESTAMP _LPAR STRING _RPAR -> timestamp
    | reference
?reference: _ATTR _LPAR path _RPAR -> attribute
    | _SETTING _LPAR STRING _RPAR -> setting
    | _LITERAL _LPAR (scalar | OBJECT | LIST) _RPAR -> literal
list: LIST
path: PATH | QUOTED_PATH
?scalar: STRING | NUMBER | TRUE | FALSE | NULL

%declare _OR _AND _NOT _LPAR _RPAR _COMMA _ASSIGN _ALL_OF _ANY_OF _EXISTS _MISSING _SEGMENT _COMPARE _SEMVER
%declare _PERCENT _ATTR _SETTING _LITERAL _TIMESTAMP IN EQ NE LT LE GT GE BEFORE AFTER MATCHES STARTS_WITH
%declare ENDS_WITH CONTAINS IP_IN HAS_ANY HAS_ALL HAS_NONE PATH QUOTED_PATH STRING NUMBER TRUE FALSE NULL
%declare LIST OBJECT
"""

_PERCENT_BOUND: Final = re.compile(r"[0-9]+(?:\.([0-9]+))?")
_TERMINAL_OPERATORS: Final = {
    "EQ": Operator.EQUALS,
    "NE": Operator.NOT_EQUALS,
    "LT": Operator.LESS_THAN,
    "LE": Operator.LESS_THAN_OR_EQUAL,
    "GT": Operator.GREATER_THAN,
    "GE": Operator.GREATER_THAN_OR_EQUAL,
}
_ALGORITHMS: Final = ", ".join(algorithm.name for algorithm in BucketAlgorithm)


@dataclass(frozen=True)
class _Literals:
    """A list on the right side, as opposed to an operand that is a list."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class _Unit:
    """``percent(…)`` without its bounds."""

    attribute: str
    salt: str
    algorithm: BucketAlgorithm


def parsed(text: str) -> Condition:
    """Return the condition that *text* says.

    Raises:
        Fault: It says none.
    """
    try:
        condition = cast("Condition", _lark().parse(text))
    except UnexpectedToken as exc:
        _refuse(text, exc)
    if depth(condition) > MAX_NESTING:
        raise Fault(0, f"the condition nests more than {MAX_NESTING} levels deep")
    return condition


def _refuse(text: str, exc: UnexpectedToken) -> NoReturn:
    accepted = exc.accepts or exc.expected
    if exc.token.type == "$END":
        tokens = list(tokens_of(text))
        at, index, found = len(text.rstrip()), len(tokens), "the condition ends here"
    else:
        at = exc.token.start_pos or 0
        tokens = _tokens_up_to(text, at)
        index = next(i for i, token in enumerate(tokens) if token.start_pos == at)
        shown = tokens[index] if len(tokens[index]) <= 40 else tokens[index][:37] + "..."
        found = f"found `{shown}`" if "`" not in shown else f"found {shown}"
    raise Fault(at, f"expected {expectation(accepted)}, {found}", hint_for(tokens, index, accepted))


def _tokens_up_to(text: str, at: int) -> list[ConditionToken]:
    """Return the tokens up to the one at the offset *at*, and as many behind it as a hint may look at."""
    tokens: list[ConditionToken] = []
    behind = 0
    try:
        for token in tokens_of(text):
            tokens.append(token)
            behind += (token.start_pos or 0) >= at
            if behind > 4:
                break
    except Fault:
        # What follows is no token; the earlier mistake is the one to tell.
        pass
    return tokens


@functools.cache
def _lark() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer=ConditionLexer, transformer=_Builder())


@v_args(inline=True)
class _Builder(Transformer[ConditionToken, Condition]):
    """Makes conditions of what the grammar recognised, from the inside out."""

    def all_of(self, *conditions: Condition) -> Condition:
        return AllOf(conditions)

    def any_of(self, *conditions: Condition) -> Condition:
        return AnyOf(conditions)

    def negated(self, condition: Condition) -> Condition:
        return Not(condition)

    def exists(self, operand: Operand) -> Condition:
        return Comparison(operand, Operator.EXISTS)

    def missing(self, operand: Operand) -> Condition:
        return Not(Comparison(operand, Operator.EXISTS))

    def segment(self, name: ConditionToken) -> Condition:
        return SegmentReference(cast("str", name.payload))

    def comparison(self, left: Operand, operator: ConditionToken, right: Operand | _Literals) -> Condition:
        op = _TERMINAL_OPERATORS.get(operator.type) or Operator[operator.type]
        return _comparison(left, op, right)

    def not_in(self, left: Operand, _in: ConditionToken, right: _Literals) -> Condition:
        return _comparison(left, Operator.NOT_IN, right)

    def semver(self, left: Operand, operator: ConditionToken, right: Operand) -> Condition:
        return _comparison(left, Operator[f"SEMVER_{_TERMINAL_OPERATORS[operator.type].name}"], right)

    def compare(
        self, left: Operand, name: ConditionToken, right: Operand | _Literals | None = None
    ) -> Condition:
        if name not in Operator.__members__:
            known = ", ".join(Operator.__members__)
            raise Fault(name.start_pos or 0, f"the operator `{name}` is unknown", f"there are {known}")
        return _comparison(left, Operator[name], right)

    def below(self, unit: _Unit, _lt: ConditionToken, end: ConditionToken) -> Condition:
        return _percentage(unit, None, end)

    def at_least(self, unit: _Unit, _ge: ConditionToken, start: ConditionToken) -> Condition:
        return _percentage(unit, start, None)

    def at_least_mirrored(self, start: ConditionToken, _le: ConditionToken, unit: _Unit) -> Condition:
        return _percentage(unit, start, None)

    def between(
        self,
        start: ConditionToken,
        _le: ConditionToken,
        unit: _Unit,
        _lt: ConditionToken,
        end: ConditionToken,
    ) -> Condition:
        return _percentage(unit, start, end)

    def percent(self, attribute: str, *arguments: tuple[ConditionToken, ConditionToken]) -> _Unit:
        salt: str | None = None
        algorithm: BucketAlgorithm | None = None
        for name, content in arguments:
            at = name.start_pos or 0
            if name == "salt" and salt is None:
                if content.type != "STRING":
                    raise Fault(content.start_pos or 0, "a salt is a text in double quotes")
                salt = cast("str", content.payload)
            elif name == "algorithm" and algorithm is None:
                if content.type == "STRING" or content not in BucketAlgorithm.__members__:
                    raise Fault(
                        content.start_pos or 0,
                        f"the algorithm {content} is unknown",
                        f"there are {_ALGORITHMS}",
                    )
                algorithm = BucketAlgorithm[content]
            elif name in ("salt", "algorithm"):
                raise Fault(at, f"`{name}` stands twice")
            else:
                raise Fault(at, f"percent has no argument `{name}`", "it has a path, salt and algorithm")
        return _Unit(attribute, salt or "", algorithm or BucketAlgorithm.MURMUR3)

    def argument(
        self, name: ConditionToken, content: ConditionToken
    ) -> tuple[ConditionToken, ConditionToken]:
        return name, content

    def attribute(self, path: str) -> Operand:
        return Attribute(path)

    def literal(self, token: ConditionToken) -> Operand:
        return Literal(token.payload)

    def setting(self, name: ConditionToken) -> Operand:
        return SettingReference(cast("str", name.payload))

    def timestamp(self, token: ConditionToken) -> Operand:
        written = cast("str", token.payload)
        if not is_instant(written):
            raise Fault(
                token.start_pos or 0,
                "that is no instant of RFC 3339",
                'write a date, or date, time and offset: "2026-01-31", "2026-01-31T17:30:00Z" or '
                '"2026-01-31T17:30:00+01:00"',
            )
        return Literal(written)

    def list(self, token: ConditionToken) -> _Literals:
        return _Literals(cast("tuple[Value, ...]", token.payload))

    def path(self, token: ConditionToken) -> str:
        return cast("str", token.payload)


def _comparison(left: Operand, operator: Operator, right: Operand | _Literals | None) -> Comparison:
    if isinstance(right, _Literals):
        return Comparison(left, operator, None, right.values)
    return Comparison(left, operator, right)


def _percentage(unit: _Unit, start: ConditionToken | None, end: ConditionToken | None) -> Percentage:
    first = 0 if start is None else _bucket(start)
    last = BUCKETS if end is None else _bucket(end)
    if first > last:
        at = 0 if end is None else end.start_pos or 0
        raise Fault(at, "the upper bound is below the lower one", "12.5 <= percent(…) < 50")
    return Percentage(unit.attribute, unit.salt, first, last, unit.algorithm)


def _bucket(token: ConditionToken) -> int:
    at = token.start_pos or 0
    match = _PERCENT_BOUND.fullmatch(token)
    if match is None or len(token) > 40:
        raise Fault(at, "a share is a number from 0 to 100, such as 12.5")
    if match[1] is not None and len(match[1].rstrip("0")) > 3:
        raise Fault(at, f"the share {token} has more than three decimals")
    thousandths = int(Decimal(token) * 1000)
    if thousandths > BUCKETS:
        raise Fault(at, f"the share {token} is above 100")
    return thousandths
