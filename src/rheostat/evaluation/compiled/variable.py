"""Variables of generated code: what conditions read, each fetched at most once on every way through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from rheostat.evaluation.bucket import bucket
from rheostat.evaluation.compiled.operand import hash_bound
from rheostat.model.condition import BUCKETS, BucketAlgorithm

if TYPE_CHECKING:
    from rheostat.evaluation.compiled.logic import Node

__all__ = [
    "AttributeVariable",
    "RootVariable",
    "SettingVariable",
    "SharedVariable",
    "UnitVariable",
    "Variable",
]

Bind: TypeAlias = Callable[[object], str]
"""Takes a constant and returns the name that it is bound to. Nothing else of a rule gets into the source."""


class Variable:
    """Something that is computed into a local variable. Compared by identity; a graph has one for each key."""

    __slots__ = ("needs",)

    def __init__(self, *needs: Variable) -> None:
        """Make a variable that is computed from *needs*."""
        self.needs = needs

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Return the statements that compute it into *name*, given the *names* of what it needs."""
        raise NotImplementedError


class RootVariable(Variable):
    """What the call's own layer has under the first part of a dotted path, to be read as a dict is."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        """Read *key*."""
        super().__init__()
        self.key = key

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Look it up: for a dict, ``in`` and ``[]`` are faster than a call of ``get``."""
        key = bind(self.key)
        return [
            f"{name} = c[{key}] if {key} in c else EMPTY",
            f"if type({name}) is not dict:",
            f"    {name} = nested({name})",
        ]


class AttributeVariable(Variable):
    """The term of an attribute of the context."""

    __slots__ = ("path",)

    def __init__(self, path: str, root: RootVariable | None) -> None:
        """Read *path*, whose first part is *root*; None for a path without dots."""
        super().__init__(*(() if root is None else (root,)))
        self.path = path

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Look the flat key up, then walk; whatever is no plain string goes through a function."""
        path = bind(self.path)
        return [
            self.raw_line(name, path, names, bind),
            f"if type({name}) is not str:",
            f"    {self.term_line(name, path)}",
        ]

    def raw_line(self, name: str, path: str, names: Mapping[Variable, str], bind: Bind) -> str:
        """Return the statement that looks into the call's own layer; what it finds is a term only if a string."""
        _, *rest = self.path.split(".")
        found = "NOT_FOUND"
        if len(rest) == 1:
            key, at = bind(rest[0]), names[self.needs[0]]
            found = f"{at}[{key}] if {key} in {at} else NOT_FOUND"
        elif rest:
            found = f"walk({names[self.needs[0]]}, {bind(tuple(rest))})"
        return f"{name} = c[{path}] if {path} in c else {found}"

    def term_line(self, name: str, path: str) -> str:
        """Return the statement that makes a term of what `raw_line` found."""
        return f"{name} = attribute({name}, b, {path})"


class UnitVariable(Variable):
    """The place of a unit: its hash, or its bucket where buckets do not follow the order of hashes."""

    __slots__ = ("algorithm", "salt", "unit")

    def __init__(self, algorithm: BucketAlgorithm, salt: str, unit: AttributeVariable) -> None:
        """Hash *unit*.

        Raises:
            UnicodeEncodeError: The salt holds a lone surrogate.
        """
        super().__init__(unit)
        bucket(algorithm, salt, "")
        self.algorithm = algorithm
        self.salt = salt
        self.unit = unit

    def bound(self, bound: int) -> int:
        """Return the place at which the buckets from *bound* on begin."""
        if self.algorithm is BucketAlgorithm.MURMUR3:
            return hash_bound(bound)
        return min(max(bound, 0), BUCKETS)

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Hash a plain string at once, and anything else in a function."""
        unit = names[self.unit]
        if self.algorithm is BucketAlgorithm.MURMUR3:
            prefix = bind(f"{self.salt}:")
            text = f"type({unit}) is str and {unit}"
            return [f"{name} = {self._hash(unit, prefix)} if {text} else unit_hash({prefix}, {unit})"]
        return [f"{name} = bucket({bind(self.algorithm)}, {bind(self.salt)}, {unit})"]

    def joint_lines(self, name: str, unit: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Return the statements that compute the unit as well, into *unit*, and ask for its type only once."""
        path = bind(self.unit.path)
        found = [self.unit.raw_line(unit, path, names, bind)]
        if self.algorithm is not BucketAlgorithm.MURMUR3:
            return [
                *found,
                f"if type({unit}) is not str:",
                f"    {self.unit.term_line(unit, path)}",
                *self.lines(name, {self.unit: unit}, bind),
            ]
        prefix = bind(f"{self.salt}:")
        return [
            *found,
            f"if type({unit}) is str and {unit}:",
            f"    {name} = {self._hash(unit, prefix)}",
            "else:",
            f"    {self.unit.term_line(unit, path)}",
            f"    {name} = unit_hash({prefix}, {unit})",
        ]

    @staticmethod
    def _hash(unit: str, prefix: str) -> str:
        return f"murmur3(({prefix} + {unit}).encode())"


class SettingVariable(Variable):
    """The term of another setting's value."""

    __slots__ = ("decide", "memo", "name")

    def __init__(self, name: str, decide: Any, *, memo: bool) -> None:
        """Ask *decide*, the function of the setting *name*.

        Args:
            name: The current name.
            decide: Takes the arguments of generated functions, and returns an outcome.
            memo: Other settings may refer to this one too, so its outcome is remembered for the evaluation.
        """
        super().__init__()
        self.name = name
        self.decide = decide
        self.memo = memo

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Call the function of the other setting, unless its outcome is known already."""
        found = [f"o = {bind(self.decide)}"]
        if self.memo:
            key = bind(self.name)
            found += [
                f"{name} = m.get({key})",
                f"if {name} is None:",
                f"    {name} = m[{key}] = o(c, b, m)",
                f"{name} = {name}.value",
            ]
        else:
            found += [f"{name} = o(c, b).value"]
        return [*found, f"if type({name}) is not str:", f"    {name} = term({name})"]


class SharedVariable(Variable):
    """Whether a condition holds that stands in several places."""

    __slots__ = ("node", "write")

    def __init__(self, node: Node, write: Callable[..., str]) -> None:
        """Take *node* and the function that writes its expression; what it needs is set afterwards."""
        super().__init__()
        self.node = node
        self.write = write

    def lines(self, name: str, names: Mapping[Variable, str], bind: Bind) -> list[str]:
        """Evaluate the condition."""
        return [f"{name} = {self.write(self.node, names, bind)}"]
