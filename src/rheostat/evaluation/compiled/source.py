"""Writes the rules of a setting as one Python function.

The source holds the structure of the rules alone. For everything that somebody wrote (names, literals, values) it
has a sign, and the object itself is put into the function's table of constants, so that no data becomes code.
Settings of the same structure are compiled once.

A generated function takes the call's own layer (a dict), the further layers (a mapping from paths to terms, or
None) and a memo for the settings that several others refer to; it returns an `Outcome`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias

from rheostat.evaluation.compiled.logic import Graph, Junction, Membership, Node
from rheostat.evaluation.compiled.operand import GLOBALS, Terms
from rheostat.evaluation.compiled.variable import SettingVariable, UnitVariable, Variable
from rheostat.evaluation.result import Reason
from rheostat.model.value import Value

__all__ = ["Choice", "Decide", "Outcome", "Share", "compile_rules"]

_MIN_DISPATCH: Final = 4
"""The fewest rules for which one lookup in a dict beats a chain of comparisons."""

_MAX_CHAIN: Final = 48
"""The most rules written one after the other; those behind them become a function of their own."""

_MAX_DEPTH: Final = 30
"""The deepest nesting of statements; CPython's parser stops at 100."""

_MAX_LEVELS: Final = 6
"""The most lookups in each other: more features than hierarchies have."""

_MAX_PARTS: Final = 4
"""The most parts of a disjunction that become rules of their own, each of which may then be looked up."""

_MAX_CHAINED_SHARES: Final = 3
"""The most shares that are compared one after the other; more are bisected."""

# Around a constant in a line that is being written.
_OPEN: Final = "\x01"
_CLOSE: Final = "\x02"
# In the end it is a string, in whose place the code object gets the constant; or a variable that holds it.
_SIGN: Final = "$"
_AS_CONSTANTS: Final = {ord(_OPEN): f"'{_SIGN}", ord(_CLOSE): "'"}
_AS_VARIABLES: Final = {ord(_OPEN): None, ord(_CLOSE): None}


class Outcome:
    """What a setting's function returns: the value, and all that an evaluation says about it.

    Compared by identity. Immutable by convention: no check is worth its time here.
    """

    __slots__ = ("reason", "rule_id", "setting_revision", "value", "variant")

    def __init__(
        self,
        value: Value,
        reason: Reason,
        setting_revision: int,
        rule_id: str | None = None,
        variant: str | None = None,
    ) -> None:
        """Take the fields of an `Evaluation` that do not depend on the snapshot."""
        self.value = value
        self.reason = reason
        self.rule_id = rule_id
        self.variant = variant
        self.setting_revision = setting_revision


Decide: TypeAlias = Callable[[dict[str, object], Terms | None], Outcome]


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The outcomes of a distribution, each from the place where the one before ends up to its bound."""

    unit: UnitVariable
    bounds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A rule: what it decides when all of *conditions* are true."""

    conditions: tuple[Node, ...]
    outcome: Outcome | Share

    @property
    def decides_always(self) -> bool:
        """Whether no later rule is ever asked."""
        return not self.conditions and isinstance(self.outcome, Outcome)


class _Body:
    """Lines of code, and the constants bound in them."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self.constants: list[object] = []

    def bind(self, constant: object) -> str:
        self.constants.append(constant)
        return f"{_OPEN}{self.prefix}{len(self.constants) - 1}{_CLOSE}"

    def line(self, depth: int, text: str) -> None:
        self.lines.append(" " * depth + text)

    def names(self) -> list[str]:
        return [f"{self.prefix}{index}" for index in range(len(self.constants))]

    def moved_into(self, other: _Body) -> list[str]:
        """Return the lines as *other* may have them, with the constants bound there."""
        bound = [other.bind(constant) for constant in self.constants]
        own = re.compile(f"{_OPEN}{self.prefix}([0-9]+){_CLOSE}")
        return [own.sub(lambda found: bound[int(found[1])], line) for line in self.lines]


_Scope: TypeAlias = dict[Variable, str]
_Needs: TypeAlias = frozenset[Variable]
_NOTHING: Final[_Needs] = frozenset()


def compile_rules(graph: Graph, choices: Sequence[Choice], otherwise: Outcome) -> Decide:
    """Return the function that tries *choices* in order and returns *otherwise* when none decides."""
    graph.share(node for choice in choices for node in choice.conditions)
    writer = _Writer(graph, choices)
    body = _Body("p")
    if not writer.chain(body, list(choices), {}, 0, _NOTHING):
        body.line(0, f"return {body.bind(otherwise)}")
    function: Decide = _function(body, ("m",), memo=writer.remembers, root=True)
    return function


class _Writer:
    """Writes one setting's rules."""

    def __init__(self, graph: Graph, choices: Sequence[Choice]) -> None:
        self._graph = graph
        self._known_needs: dict[Choice, list[Variable]] = {}
        # A rule is written once for each literal that leads to it. This bounds how often that may be.
        self._budget = 1_000 + 8 * sum(1 + _literals(choice) for choice in choices)
        self.remembers = False

    def chain(self, body: _Body, choices: list[Choice], scope: _Scope, depth: int, after: _Needs) -> bool:
        """Write *choices* one after the other, and tell whether one of them always decides.

        Args:
            body: Takes the lines.
            choices: In order.
            scope: The variables computed so far on every way to here; grows by those computed here.
            depth: How deep the lines are indented.
            after: What is read behind the chain when nothing decides.
        """
        choices = [part for choice in choices for part in self._parts(choice)]
        later = self._later(choices, after)
        at = written = 0
        while at < len(choices):
            choice = choices[at]
            if choice.decides_always:
                body.line(depth, f"return {body.bind(choice.outcome)}")
                return True
            if written >= _MAX_CHAIN:
                end = self._chunk(choices, at)
                self._keep(body, choices[at:end], scope, depth, later[end])
                self._call(body, self._block(choices[at:end], scope, later[end]), scope, depth)
                at = end
                continue
            variable, end = self._run(choices, at)
            if variable is not None and len(body.prefix) <= _MAX_LEVELS:
                self._dispatch(body, variable, choices[at:end], scope, depth, later[end])
                at = end
            else:
                self._choice(body, choice, scope, depth, later[at + 1])
                at += 1
            written += 1
        return False

    def _chunk(self, choices: list[Choice], at: int) -> int:
        """Return the end of the next `_MAX_CHAIN` pieces from *at* on, cutting no run in two."""
        for _ in range(_MAX_CHAIN):
            if at == len(choices):
                break
            variable, end = self._run(choices, at)
            at = at + 1 if variable is None else end
        return at

    def _keep(self, body: _Body, choices: Iterable[Choice], scope: _Scope, depth: int, later: _Needs) -> None:
        """Compute what *choices* have in common with what comes later, so that it is computed once."""
        for choice in choices:
            for variable in self._needs(choice):
                if variable in later:
                    self._define(body, variable, scope, depth)

    def _parts(self, choice: Choice) -> list[Choice]:
        """Return *choice*, its conjunctions taken apart; a disjunction becomes a choice for each part."""
        conditions: dict[Node, None] = {}
        stack = list(reversed(choice.conditions))
        while stack:
            node = stack.pop()
            if isinstance(node, Junction) and node.every and not self._graph.is_shared(node):
                stack.extend(reversed(node.parts))
            else:
                conditions[node] = None
        only = next(iter(conditions), None)
        if (
            len(conditions) == 1
            and isinstance(only, Junction)
            and not only.every
            and len(only.parts) <= _MAX_PARTS
            and not self._graph.is_shared(only)
        ):
            return [inner for part in only.parts for inner in self._parts(Choice((part,), choice.outcome))]
        return [Choice(tuple(sorted(conditions, key=_cost)), choice.outcome)]

    def _needs(self, choice: Choice) -> list[Variable]:
        """Return what *choice* reads, directly or not, in an order to compute it."""
        known = self._known_needs.get(choice)
        if known is not None:
            return known
        direct = [variable for node in choice.conditions for variable in self._graph.reads(node)]
        if isinstance(choice.outcome, Share):
            direct.append(choice.outcome.unit)
        ordered: dict[Variable, None] = {}
        self._order(direct, ordered)
        found = self._known_needs[choice] = list(ordered)
        return found

    def _order(self, variables: Iterable[Variable], ordered: dict[Variable, None]) -> None:
        for variable in variables:
            if variable not in ordered:
                self._order(variable.needs, ordered)
                ordered[variable] = None

    def _later(self, choices: list[Choice], after: _Needs) -> list[_Needs]:
        later = [after]
        for choice in reversed(choices):
            needs = self._needs(choice)
            later.append(later[-1] if later[-1].issuperset(needs) else later[-1].union(needs))
        return later[::-1]

    def _define(self, body: _Body, variable: Variable, scope: _Scope, depth: int) -> None:
        if variable in scope:
            return
        if isinstance(variable, UnitVariable) and variable.unit not in scope:
            for need in variable.unit.needs:
                self._define(body, need, scope, depth)
            unit, name = f"v{len(scope)}", f"v{len(scope) + 1}"
            for line in variable.joint_lines(name, unit, scope, body.bind):
                body.line(depth, line)
            scope[variable.unit] = unit
            scope[variable] = name
            return
        for need in variable.needs:
            self._define(body, need, scope, depth)
        if isinstance(variable, SettingVariable) and variable.memo:
            self.remembers = True
        name = f"v{len(scope)}"
        for line in variable.lines(name, scope, body.bind):
            body.line(depth, line)
        scope[variable] = name

    def _choice(self, body: _Body, choice: Choice, scope: _Scope, depth: int, later: _Needs) -> None:
        self._keep(body, (choice,), scope, depth, later)
        inner = dict(scope)
        tests: list[str] = []
        for node in choice.conditions:
            missing = [variable for variable in self._graph.reads(node) if variable not in inner]
            if missing and tests:
                body.line(depth, f"if {' and '.join(tests)}:")
                depth += 1
                tests = []
                if depth >= _MAX_DEPTH:
                    rest = choice.conditions[choice.conditions.index(node) :]
                    self._call(body, self._block([Choice(rest, choice.outcome)], inner, later), inner, depth)
                    return
            for variable in missing:
                self._define(body, variable, inner, depth)
            tests.append(self._graph.expression(node, inner, body.bind))
        if tests:
            body.line(depth, f"if {' and '.join(tests)}:")
            depth += 1
        self._outcome(body, choice.outcome, inner, depth)

    def _outcome(self, body: _Body, outcome: Outcome | Share, scope: _Scope, depth: int) -> None:
        if isinstance(outcome, Outcome):
            body.line(depth, f"return {body.bind(outcome)}")
            return
        self._define(body, outcome.unit, scope, depth)
        place = scope[outcome.unit]
        if len(outcome.bounds) <= _MAX_CHAINED_SHARES:
            for bound, found in zip(outcome.bounds, outcome.outcomes, strict=True):
                body.line(depth, f"if {place} < {body.bind(bound)}:")
                body.line(depth + 1, f"return {body.bind(found)}")
        else:
            # None behind the last bound: there is no unit, or the weights do not sum to the whole.
            outcomes = body.bind((*outcome.outcomes, None))
            body.line(depth, f"o = {outcomes}[bisect({body.bind(outcome.bounds)}, {place})]")
            self._return_found(body, depth)

    def _return_found(self, body: _Body, depth: int) -> None:
        body.line(depth, "if o is not None:")
        body.line(depth + 1, "return o")

    def _run(self, choices: list[Choice], start: int) -> tuple[Variable | None, int]:
        """Return the variable whose equality the most choices in a row from *start* ask for, and their end."""
        best: Variable | None = None
        best_end = start + _MIN_DISPATCH - 1
        for node in choices[start].conditions:
            if not isinstance(node, Membership) or not node.positive:
                continue
            end = start
            count = 0
            while end < len(choices):
                wanted = _member(choices[end], node.variable)
                if wanted is None or count + len(wanted.literals) > self._budget:
                    break
                count += len(wanted.literals)
                end += 1
            if end > best_end:
                best, best_end = node.variable, end
        return best, best_end

    def _dispatch(
        self, body: _Body, variable: Variable, choices: list[Choice], scope: _Scope, depth: int, later: _Needs
    ) -> None:
        """Write a lookup of *variable* in a dict of what remains of *choices* for each of its values."""
        self._define(body, variable, scope, depth)
        self._keep(body, choices, scope, depth, later)
        candidates: dict[Hashable, list[int]] = {}
        remains: list[Choice] = []
        for index, choice in enumerate(choices):
            member = _member(choice, variable)
            assert member is not None
            self._budget -= len(member.literals)
            remains.append(
                Choice(tuple(node for node in choice.conditions if node is not member), choice.outcome)
            )
            for key in member.literals:
                candidates.setdefault(key, []).append(index)
        blocks: dict[tuple[int, ...], _Body | Outcome] = {}
        for indexes in candidates.values():
            chosen = tuple(indexes)
            if chosen not in blocks:
                blocks[chosen] = self._remaining([remains[index] for index in chosen], body, scope, later)
        entries = {key: blocks[tuple(indexes)] for key, indexes in candidates.items()}
        name = scope[variable]
        if not all(type(key) is str for key in entries):
            name = f"{name} if type({name}) is not bool else BOOL_KEYS[{name}]"
        shapes = {None if isinstance(block, Outcome) else tuple(block.lines) for block in blocks.values()}
        if shapes == {None}:
            body.line(depth, f"o = {body.bind(entries)}.get({name})")
            self._return_found(body, depth)
        elif len(shapes - {None}) == 1 and depth + _depth_of(blocks.values()) < 2 * _MAX_DEPTH:
            bodies = [block for block in blocks.values() if isinstance(block, _Body)]
            self._in_place(body, bodies, entries, name, depth)
        else:
            self._mixed(body, entries, name, scope, depth)

    def _in_place(
        self,
        body: _Body,
        bodies: list[_Body],
        entries: Mapping[Hashable, _Body | Outcome],
        key: str,
        depth: int,
    ) -> None:
        """Write behind the lookup the lines that all of *bodies* have; the other entries are outcomes."""
        alone = bodies[0] if len(bodies) == 1 else None
        table: dict[Hashable, object] = {
            literal: entry if isinstance(entry, Outcome) else True if alone else tuple(entry.constants)
            for literal, entry in entries.items()
        }
        body.line(depth, f"e = {body.bind(table)}.get({key})")
        body.line(depth, "if e is not None:")
        if any(isinstance(entry, Outcome) for entry in entries.values()):
            body.line(depth + 1, "if e is not True:" if alone else "if type(e) is not tuple:")
            body.line(depth + 2, "return e")
        if alone is not None:
            for line in alone.moved_into(body):
                body.line(depth + 1, line)
        else:
            body.line(depth + 1, f"({''.join(f'{each}, ' for each in bodies[0].names())}) = e")
            for line in bodies[0].lines:
                body.line(depth + 1, line.translate(_AS_VARIABLES))

    def _mixed(
        self,
        body: _Body,
        entries: Mapping[Hashable, _Body | Outcome],
        key: str,
        scope: _Scope,
        depth: int,
    ) -> None:
        functions: dict[_Body, object] = {}
        table: dict[Hashable, tuple[Outcome | None, object]] = {}
        for literal, block in entries.items():
            if isinstance(block, Outcome):
                table[literal] = block, None
                continue
            if block not in functions:
                functions[block] = _function(block, ("m", *scope.values()))
            table[literal] = None, functions[block]
        body.line(depth, f"e = {body.bind(table)}.get({key})")
        body.line(depth, "if e is not None:")
        body.line(depth + 1, "o = e[0]")
        body.line(depth + 1, "if o is None:")
        body.line(depth + 2, f"o = e[1]({_arguments(scope)})")
        body.line(depth + 1, "if o is not None:")
        body.line(depth + 2, "return o")

    def _remaining(
        self, choices: list[Choice], outer: _Body, scope: _Scope, later: _Needs
    ) -> _Body | Outcome:
        first = choices[0]
        if first.decides_always and isinstance(first.outcome, Outcome):
            return first.outcome
        body = _Body(outer.prefix + "q")
        self.chain(body, choices, dict(scope), 0, later)
        return body

    def _block(self, choices: list[Choice], scope: _Scope, later: _Needs) -> object:
        body = _Body("p")
        self.chain(body, choices, dict(scope), 0, later)
        return _function(body, ("m", *scope.values()))

    def _call(self, body: _Body, function: object, scope: _Scope, depth: int) -> None:
        body.line(depth, f"o = {body.bind(function)}")
        body.line(depth, f"o = o({_arguments(scope)})")
        self._return_found(body, depth)


def _depth_of(blocks: Iterable[_Body | Outcome]) -> int:
    lines = [line for block in blocks if isinstance(block, _Body) for line in block.lines]
    return max((len(line) - len(line.lstrip()) for line in lines), default=0)


def _arguments(scope: _Scope) -> str:
    return ", ".join(("c", "b", "m", *scope.values()))


def _literals(choice: Choice) -> int:
    return sum(len(node.literals) for node in choice.conditions if isinstance(node, Membership))


def _member(choice: Choice, variable: Variable) -> Membership | None:
    for node in choice.conditions:
        if isinstance(node, Membership) and node.positive and node.variable is variable:
            return node
    return None


def _cost(node: Node) -> int:
    if isinstance(node, Membership):
        return 0
    if isinstance(node, Junction) or not getattr(node, "cheap", False):
        return 2
    return 1


def _function(body: _Body, parameters: tuple[str, ...], *, memo: bool = False, root: bool = False) -> Any:
    """Return the function of *body*; it takes c, b and *parameters*, the last of which a *root* need not be given."""
    lines = [f"def decide(c, b, {', '.join(parameters)}):"]
    if memo:
        lines += [" if m is None:", "  m = {}"]
    lines += [f" {line}" for line in body.lines]
    code = _code("\n".join((*lines, " return None")).translate(_AS_CONSTANTS))
    first = len(_SIGN) + len(body.prefix)
    constants = tuple(
        body.constants[int(constant[first:])]
        if type(constant) is str and constant.startswith(_SIGN)
        else constant
        for constant in code.co_consts
    )
    return FunctionType(code.replace(co_consts=constants), GLOBALS, "decide", (None,) if root else None)


@lru_cache(maxsize=4096)
def _code(source: str) -> CodeType:
    """Return the code of a function, with signs in the places of its constants."""
    module = compile(source, "<rheostat rules>", "exec", dont_inherit=True, optimize=0)
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))
