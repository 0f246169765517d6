"""Conditions as a graph of two-valued nodes.

A rule asks only whether its condition is TRUE. In Kleene's logic a conjunction is TRUE when all parts are TRUE
and FALSE when one is FALSE, a disjunction the other way round, and a negation is TRUE when its part is FALSE. So
"is TRUE" and "is FALSE" of a condition (its two *rails*) are plain and/or of the rails of its parts, and UNKNOWN
(neither) needs no value of its own. Equal nodes are one object, which makes common parts visible.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rheostat.evaluation.comparison import (
    INSTANT_OPERATORS,
    LIST_OPERATORS,
    ORDER_OPERATORS,
    RELATION_OPERATORS,
    SEMVER_OPERATORS,
    TEXT_OPERATORS,
    compare,
)
from rheostat.evaluation.compiled.operand import (
    HASHES,
    OPAQUE,
    Term,
    is_scalar_term,
    operand,
    pattern,
    scalar_key,
    term,
)
from rheostat.evaluation.compiled.variable import (
    AttributeVariable,
    RootVariable,
    SettingVariable,
    SharedVariable,
    UnitVariable,
    Variable,
)
from rheostat.evaluation.context import normalise
from rheostat.evaluation.dependency import Dependencies
from rheostat.evaluation.instant import instant
from rheostat.evaluation.network import network
from rheostat.evaluation.semver import precedence
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
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
    Unrecognized,
)
from rheostat.model.snapshot import Snapshot

__all__ = [
    "FALSE",
    "TRUE",
    "Constant",
    "Graph",
    "Junction",
    "Membership",
    "Node",
    "Test",
    "UnsupportedRuleError",
]


class UnsupportedRuleError(Exception):
    """Something is no part of the model; the reference evaluator knows what to make of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Always true or always false."""

    value: bool


@dataclass(frozen=True, slots=True, eq=False)
class Junction:
    """True when every part is, or when any is."""

    every: bool
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """True when a variable equals one of the literals, or (not *positive*) is a scalar that equals none.

    Attributes:
        variable: What is compared.
        literals: Scalars without NaN, by `scalar_key`.
        positive: See above.
    """

    variable: Variable
    literals: Mapping[Hashable, Term]
    positive: bool


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """Any other expression.

    Attributes:
        template: The expression, with ``{v}`` and ``{w}`` for variables, ``{k}``, ``{n}`` and ``{l}`` for constants.
        variables: What it reads, at most two.
        constants: What is bound, at most three.
        cheap: Evaluating it again costs no more than remembering it.
    """

    template: str
    variables: tuple[Variable, ...]
    constants: tuple[object, ...] = ()
    cheap: bool = False


Node: TypeAlias = Constant | Junction | Membership | Test

TRUE: Final = Constant(value=True)
FALSE: Final = Constant(value=False)

_UNKNOWN: Final = (FALSE, FALSE)

_ORDER_SIGNS: Final = {
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL: "<=",
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL: ">=",
    Operator.SEMVER_EQUALS: "==",
    Operator.SEMVER_LESS_THAN: "<",
    Operator.SEMVER_LESS_THAN_OR_EQUAL: "<=",
    Operator.SEMVER_GREATER_THAN: ">",
    Operator.SEMVER_GREATER_THAN_OR_EQUAL: ">=",
    Operator.BEFORE: "<",
    Operator.AFTER: ">",
}
_IS_SCALAR: Final = "(type({v}) is str or type({v}) in SCALARS)"

Rails: TypeAlias = tuple[Node, Node]
"""Whether a condition is TRUE, and whether it is FALSE."""


class Graph:
    """The nodes and variables of one setting's rules. For one thread."""

    def __init__(
        self, snapshot: Snapshot, dependencies: Dependencies, setting: Callable[[str], Variable | Term]
    ) -> None:
        """Make an empty graph.

        Args:
            snapshot: Where segments are.
            dependencies: Which references close a cycle.
            setting: Returns what the value of another setting is: a variable, or a term where it is constant.
        """
        self._snapshot = snapshot
        self._dependencies = dependencies
        self._setting = setting
        self._nodes: dict[Hashable, Node] = {}
        self._variables: dict[Hashable, Variable] = {}
        self._segments: dict[str, Rails] = {}
        self._shared: dict[Node, SharedVariable] = {}

    def rails(self, condition: Condition) -> Rails:
        """Return whether *condition* is TRUE and whether it is FALSE.

        Raises:
            UnsupportedRuleError: Something in it has a type that the model does not allow.
        """
        match condition:
            case AllOf(tuple() as parts):
                rails = [self.rails(part) for part in parts]
                return self._join(True, [true for true, _ in rails]), self._join(
                    False, [false for _, false in rails]
                )
            case AnyOf(tuple() as parts):
                rails = [self.rails(part) for part in parts]
                return self._join(False, [true for true, _ in rails]), self._join(
                    True, [false for _, false in rails]
                )
            case Not(part):
                true, false = self.rails(part)
                return false, true
            case Comparison(left, Operator() as op, right, None | tuple() as literals):
                return self._comparison(
                    self._operand(left),
                    op,
                    None if right is None else self._operand(right),
                    literals if literals is None else tuple(map(normalise, literals)),
                )
            case Percentage(attribute, salt, int() as start, int() as end, algorithm):
                return self._percentage(self.unit(algorithm, salt, attribute), start, end)
            case SegmentReference(str() as name):
                return self._segment(name)
            case Unrecognized():
                return _UNKNOWN
            case _:
                raise UnsupportedRuleError

    def unit(self, algorithm: object, salt: object, path: object) -> UnitVariable | None:
        """Return the place of the unit at *path*, or None when the salt gives it none."""
        if not isinstance(algorithm, BucketAlgorithm) or type(salt) is not str:
            raise UnsupportedRuleError
        attribute = self._attribute(path)
        key = ("unit", algorithm, salt, path)
        found = self._variables.get(key)
        if not isinstance(found, UnitVariable):
            try:
                found = UnitVariable(algorithm, salt, attribute)
            except UnicodeEncodeError:
                return None
            self._variables[key] = found
        return found

    def share(self, roots: Iterable[Node]) -> None:
        """Find what stands in several places below *roots*, so that it is evaluated once. Call it once."""
        uses: dict[Node, int] = {}
        stack = list(roots)
        while stack:
            node = stack.pop()
            uses[node] = uses.get(node, 0) + 1
            if uses[node] == 1 and isinstance(node, Junction):
                stack.extend(node.parts)
        self._shared = {
            node: SharedVariable(node, self._written)
            for node, count in uses.items()
            if count > 1 and (isinstance(node, Junction) or (isinstance(node, Test) and not node.cheap))
        }
        for node, variable in self._shared.items():
            variable.needs = self._reads_inside(node)

    def is_shared(self, node: Node) -> bool:
        """Tell whether *node* has a variable of its own."""
        return node in self._shared

    def reads(self, node: Node) -> tuple[Variable, ...]:
        """Return the variables that *node*'s expression names."""
        shared = self._shared.get(node)
        return self._reads_inside(node) if shared is None else (shared,)

    def expression(self, node: Node, names: Mapping[Variable, str], bind: Callable[[object], str]) -> str:
        """Return an expression that is truthy when *node* is true; all that it reads has *names*."""
        shared = self._shared.get(node)
        return self._written(node, names, bind) if shared is None else names[shared]

    def _reads_inside(self, node: Node) -> tuple[Variable, ...]:
        match node:
            case Junction(_, parts):
                return tuple(dict.fromkeys(variable for part in parts for variable in self.reads(part)))
            case Membership(variable):
                return (variable,)
            case Test(_, variables):
                return variables
            case _:
                return ()

    def _written(self, node: Node, names: Mapping[Variable, str], bind: Callable[[object], str]) -> str:
        match node:
            case Constant(value):
                return "(1 == 1)" if value else "(1 == 0)"
            case Junction(every, parts):
                sign = " and " if every else " or "
                return f"({sign.join(self.expression(part, names, bind) for part in parts)})"
            case Membership():
                return _membership(node, names[node.variable], bind)
            case Test(template, variables, constants):
                places = dict(zip("vw", (names[variable] for variable in variables), strict=False))
                places.update(zip("knl", map(bind, constants), strict=False))
                return f"({template.format_map(places)})"

    def _node(self, key: Hashable, make: Callable[[], Node]) -> Node:
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = make()
        return found

    def _join(self, every: bool, parts: list[Node]) -> Node:
        neutral, absorbing = (TRUE, FALSE) if every else (FALSE, TRUE)
        if absorbing in parts:
            return absorbing
        kept: dict[Node, None] = {}
        merged: dict[tuple[Variable, bool], Membership] = {}
        for part in parts:
            if part is neutral:
                continue
            if not isinstance(part, Membership):
                kept[part] = None
                continue
            place = part.variable, part.positive
            other = merged.get(place)
            if other is None:
                merged[place] = part
                kept[part] = None
            elif other is not part:
                together = self._merged(every, other, part)
                if together is absorbing:
                    return absorbing
                kept = {together if node is other else node: None for node in kept}
                assert isinstance(together, Membership)
                merged[place] = together
        if len(kept) < 2:
            return next(iter(kept), neutral)
        nodes = tuple(kept)
        return self._node(("junction", every, nodes), lambda: Junction(every, nodes))

    def _merged(self, every: bool, one: Membership, other: Membership) -> Node:
        # x in A or x in B is x in A + B; and the negatives the other way round.
        if every is not one.positive:
            return self._membership(one.variable, {**one.literals, **other.literals}, one.positive)
        common = {key: value for key, value in one.literals.items() if key in other.literals}
        return self._membership(one.variable, common, one.positive)

    def _membership(self, variable: Variable, literals: Mapping[Hashable, Term], positive: bool) -> Node:
        if positive and not literals:
            return FALSE
        return self._node(
            ("membership", variable, frozenset(literals), positive),
            lambda: Membership(variable, literals, positive),
        )

    def _test(
        self,
        template: str,
        variables: tuple[Variable, ...],
        key: Hashable = (),
        constants: tuple[object, ...] = (),
        *,
        cheap: bool = False,
    ) -> Node:
        return self._node(
            ("test", template, variables, key), lambda: Test(template, variables, constants, cheap)
        )

    def _attribute(self, path: object) -> AttributeVariable:
        if type(path) is not str:
            raise UnsupportedRuleError
        found = self._variables.get(("attribute", path))
        if not isinstance(found, AttributeVariable):
            first, dot, _ = path.partition(".")
            found = self._variables["attribute", path] = AttributeVariable(
                path, self._root(first) if dot else None
            )
        return found

    def _root(self, key: str) -> RootVariable:
        found = self._variables.get(("root", key))
        if not isinstance(found, RootVariable):
            found = self._variables["root", key] = RootVariable(key)
        return found

    def _operand(self, part: Operand) -> Variable | Term:
        match part:
            case Attribute(path):
                return self._attribute(path)
            case Literal(value):
                return term(value)
            case SettingReference(str() as name):
                key = ("setting", name)
                if key in self._variables:
                    return self._variables[key]
                found = self._setting(name)
                if isinstance(found, SettingVariable):
                    # Under an alias it is the same variable.
                    found = self._variables.setdefault(("setting", found.name), found)
                    self._variables[key] = found
                return found
            case _:
                raise UnsupportedRuleError

    def _segment(self, name: str) -> Rails:
        found = self._segments.get(name)
        if found is None:
            segment = self._snapshot.segments.get(name)
            if segment is None or self._dependencies.cycle(("segment", name)):
                found = _UNKNOWN
            else:
                found = self.rails(segment.condition)
            self._segments[name] = found
        return found

    def _percentage(self, unit: UnitVariable | None, start: int, end: int) -> Rails:
        if unit is None:
            return _UNKNOWN
        low, high = unit.bound(start), unit.bound(end)
        if low == 0:
            true = self._test("{v} < {k}", (unit,), (high,), (high,), cheap=True)
            false = self._test("{k} <= {v} < {n}", (unit,), (high, HASHES), (high, HASHES), cheap=True)
            return true, false
        bounds = (low, high)
        return (
            self._test("{k} <= {v} < {n}", (unit,), bounds, bounds, cheap=True),
            self._test(f"{{v}} < {{k}} or {{n}} <= {{v}} < {HASHES}", (unit,), bounds, bounds, cheap=True),
        )

    def _comparison(self, left: Any, op: Operator, right: Any, literals: tuple[Any, ...] | None) -> Rails:
        """Return the rails of a comparison; operands are variables or terms, *right* None for none or missing."""
        if not isinstance(left, Variable) and not isinstance(right, Variable):
            truth = compare(op, operand(left), operand(right), literals)
            return (TRUE if truth is Truth.TRUE else FALSE), (TRUE if truth is Truth.FALSE else FALSE)
        if isinstance(left, Variable):
            if op is Operator.EXISTS:
                return (
                    self._test("{v} is not None", (left,), cheap=True),
                    self._test("{v} is None", (left,), cheap=True),
                )
            if right is None and literals is not None:
                found = self._against_literals(left, op, tuple(map(term, literals)))
            elif literals is None and not isinstance(right, Variable):
                found = self._against_one(left, op, right)
            else:
                found = None
            if found is not None:
                return found
        return self._any_comparison(left, op, right, literals)

    def _any_comparison(self, left: Any, op: Operator, right: Any, literals: tuple[Any, ...] | None) -> Rails:
        variables = tuple(dict.fromkeys(each for each in (left, right) if isinstance(each, Variable)))
        sides = []
        constants: list[object] = []
        for side in (left, right):
            if isinstance(side, Variable):
                sides.append("{v}" if side is variables[0] else "{w}")
            elif side is None:
                sides.append("None")
            else:
                constants.append(side)
                sides.append("{l}")
        call = f"compared({{k}}, {sides[0]}, {sides[1]}, {{n}}) is "
        # By their texts, which tell 1, 1.0 and true apart inside of lists, too.
        key = (op, repr(constants), None if literals is None else repr(tuple(map(term, literals))))
        bound = (op, literals, *constants)
        return (
            self._test(call + "TRUE", variables, key, bound),
            self._test(call + "FALSE", variables, key, bound),
        )

    def _against_literals(self, left: Variable, op: Operator, literals: tuple[Term, ...]) -> Rails | None:
        """Return the rails against a list of literals, or None when this is no common case of it."""
        if OPAQUE in literals:
            return None
        if op in LIST_OPERATORS:
            if not all(map(is_scalar_term, literals)):
                return _UNKNOWN
            by_key = {scalar_key(literal): literal for literal in literals}
            if op in RELATION_OPERATORS:
                return self._relation(left, op, by_key)
            rails = self._member_rails(left, by_key)
            return rails if op is Operator.IN else (rails[1], rails[0])
        if op in TEXT_OPERATORS:
            return self._text(left, op, literals)
        if op is Operator.IP_IN:
            return self._ip_in(left, literals)
        return _UNKNOWN

    def _against_one(self, left: Variable, op: Operator, right: Term) -> Rails | None:
        """Return the rails against one term that may be missing, or None when this is no common case of it."""
        if right is None or right is OPAQUE or op in LIST_OPERATORS:
            return _UNKNOWN
        if op in (Operator.EQUALS, Operator.NOT_EQUALS):
            if not is_scalar_term(right):
                return _UNKNOWN
            rails = self._member_rails(left, {scalar_key(right): right})
            return rails if op is Operator.EQUALS else (rails[1], rails[0])
        if op in ORDER_OPERATORS:
            return self._order(left, op, right)
        if op in INSTANT_OPERATORS:
            return self._converted(left, op, "instant", instant(right))
        if op in SEMVER_OPERATORS:
            return self._converted(left, op, "version", precedence(right) if isinstance(right, str) else None)
        if op in TEXT_OPERATORS:
            return self._text(left, op, (right,))
        if op is Operator.IP_IN:
            return self._ip_in(left, (right,))
        if op is Operator.MATCHES:
            return self._matches(left, right)
        return None

    def _member_rails(self, left: Variable, by_key: Mapping[Hashable, Term]) -> Rails:
        return self._membership(left, by_key, positive=True), self._membership(left, by_key, positive=False)

    def _order(self, left: Variable, op: Operator, right: Term) -> Rails:
        if type(right) is str:
            kind = "type({v}) is str"
        elif type(right) in (int, float):
            kind = "(type({v}) is int or type({v}) is float)"
        else:
            return _UNKNOWN
        key = (type(right), right)
        sign = _ORDER_SIGNS[op]
        return (
            self._test(f"{kind} and {{v}} {sign} {{k}}", (left,), key, (right,), cheap=True),
            self._test(f"{kind} and not {{v}} {sign} {{k}}", (left,), key, (right,), cheap=True),
        )

    def _converted(self, left: Variable, op: Operator, convert: str, right: Hashable | None) -> Rails:
        if right is None:
            return _UNKNOWN
        test = f"(t := {convert}({{v}})) is not None and"
        sign = _ORDER_SIGNS[op]
        return (
            self._test(f"{test} t {sign} {{k}}", (left,), right, (right,)),
            self._test(f"{test} not t {sign} {{k}}", (left,), right, (right,)),
        )

    def _text(self, left: Variable, op: Operator, literals: tuple[Term, ...]) -> Rails:
        if not all(type(literal) is str for literal in literals):
            return _UNKNOWN
        constant: object = literals
        if op is Operator.STARTS_WITH:
            call = "{v}.startswith({k})"
        elif op is Operator.ENDS_WITH:
            call = "{v}.endswith({k})"
        elif len(literals) == 1:
            call, constant = "{k} in {v}", literals[0]
        else:
            call = "contains_any({v}, {k})"
        return (
            self._test(f"type({{v}}) is str and {call}", (left,), literals, (constant,)),
            self._test(f"type({{v}}) is str and not {call}", (left,), literals, (constant,)),
        )

    def _relation(self, left: Variable, op: Operator, by_key: Mapping[Hashable, Term]) -> Rails | None:
        if not all(type(literal) is str for literal in by_key.values()):
            # Bools and numbers, which Python takes for each other.
            return None
        literals = frozenset(by_key.values())
        calls = {
            Operator.HAS_ANY: ("not {k}.isdisjoint({v})", "{k}.isdisjoint({v})"),
            Operator.HAS_NONE: ("{k}.isdisjoint({v})", "not {k}.isdisjoint({v})"),
            Operator.HAS_ALL: ("{k}.issubset({v})", "not {k}.issubset({v})"),
        }
        true, false = calls[op]
        return (
            self._test(f"type({{v}}) is tuple and {true}", (left,), literals, (literals,)),
            self._test(f"type({{v}}) is tuple and {false}", (left,), literals, (literals,)),
        )

    def _ip_in(self, left: Variable, literals: tuple[Term, ...]) -> Rails:
        networks = tuple(network(literal) if type(literal) is str else None for literal in literals)
        if None in networks:
            return _UNKNOWN
        return (
            self._test("inside({v}, {k}) is True", (left,), networks, (networks,)),
            self._test("inside({v}, {k}) is False", (left,), networks, (networks,)),
        )

    def _matches(self, left: Variable, right: Term) -> Rails:
        compiled = pattern(right) if type(right) is str else None
        if compiled is None:
            return _UNKNOWN
        return (
            self._test("found({k}, {v}) is True", (left,), right, (compiled,)),
            self._test("found({k}, {v}) is False", (left,), right, (compiled,)),
        )


def _membership(node: Membership, name: str, bind: Callable[[object], str]) -> str:
    scalar = _IS_SCALAR.format(v=name)
    if not node.literals:
        return scalar
    if len(node.literals) == 1:
        (literal,) = node.literals.values()
        constant = bind(literal)
        match literal:
            case bool():
                equal = f"{name} == {constant} and type({name}) is bool"
            case str():
                equal = f"{name} == {constant}"
            case _:
                equal = f"{name} == {constant} and type({name}) is not bool"
    else:
        value = name
        if not all(type(literal) is str for literal in node.literals.values()):
            value = f"({name} if type({name}) is not bool else BOOL_KEYS[{name}])"
        equal = f"{value} in {bind(frozenset(node.literals))}"
    return f"({equal})" if node.positive else f"(not ({equal}) and {scalar})"
