"""Operands as generated code sees them, and the functions that it calls.

A *term* is an attribute or a setting's value after normalisation, narrowed further so that ``==``, ``in`` and
hashing are safe and exact: None is missing; a bool, an int of 64 bits, a float other than NaN, a str, or a tuple
of those are themselves; all else that is there (a mapping, a NaN, a list with a NaN) is `OPAQUE`, because no
operator but ``exists`` takes it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import re2

from rheostat.evaluation.bucket import bucket, murmur3_32, unit_text
from rheostat.evaluation.comparison import Literals, compare
from rheostat.evaluation.context import Context, ContextValue, normalise
from rheostat.evaluation.instant import instant
from rheostat.evaluation.network import Network, address, is_inside
from rheostat.evaluation.semver import Precedence, precedence
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import BUCKETS, BucketAlgorithm, Operator
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, Absent

__all__ = [
    "GLOBALS",
    "HASHES",
    "NO_UNIT",
    "OPAQUE",
    "Base",
    "LiveBase",
    "Term",
    "Terms",
    "hash_bound",
    "is_scalar_term",
    "operand",
    "pattern",
    "scalar_key",
    "term",
]

Term: TypeAlias = Any
"""None, a bool, an int, a float, a str, a tuple of scalars, or `OPAQUE`."""

HASHES: Final = 1 << 32

NO_UNIT: Final = HASHES
"""In the place of a unit's hash where there is no unit: above every hash, so that it is in no share."""


class _Mark:
    """An object that is equal to itself alone."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


OPAQUE: Final = _Mark("OPAQUE")
# Not found in a layer. ABSENT is an enum's member, and so could stand in a context as a value.
_NOT_FOUND: Final = _Mark("NOT_FOUND")

_SCALARS: Final = frozenset({str, int, float, bool})
# Python's True equals 1, so bools are never keys themselves.
_BOOL_KEYS: Final = {True: _Mark("TRUE"), False: _Mark("FALSE")}


class Terms(Protocol):
    """What the layers behind the call's own have, by path."""

    def __getitem__(self, path: str, /) -> Term:
        """Return the term at *path*; None when it is missing."""


class Base(dict[str, Term]):
    """The layers behind the call's own, flattened path by path as rules ask for them.

    For layers that do not change; make another one when they do. Safe from any thread.
    """

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, object]) -> None:
        """Take *layers*, the strongest first."""
        super().__init__()
        self.layers = layers

    def __missing__(self, path: str) -> Term:
        found = self[path] = term(Context(*self.layers).lookup(path))
        return found


class LiveBase:
    """Layers that are looked into at each evaluation."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        """Look into the layers of *context*."""
        self._context = context

    def __getitem__(self, path: str) -> Term:
        return term(self._context.lookup(path))


def term(raw: object) -> Term:
    """Return *raw* as a term. Never raises."""
    kind = type(raw)
    if kind is str or kind is bool or raw is None:
        return raw
    if kind is int:
        return raw if INT64_MIN <= raw <= INT64_MAX else None  # type: ignore[operator]
    if kind is float:
        return OPAQUE if math.isnan(raw) else raw  # type: ignore[arg-type]
    value = normalise(raw)
    if value is ABSENT:
        return None
    if type(value) is float and math.isnan(value):
        return OPAQUE
    if type(value) is tuple:
        return OPAQUE if any(type(part) is float and math.isnan(part) for part in value) else value
    return value if type(value) in _SCALARS else OPAQUE


def operand(value: Term) -> ContextValue | Absent:
    """Return what the reference's operators take for *value*."""
    if value is None:
        return ABSENT
    # A NaN, like all that is opaque, exists and is otherwise UNKNOWN.
    return math.nan if value is OPAQUE else value


def is_scalar_term(value: Term) -> bool:
    """Tell whether *value* is a bool, a number or a string."""
    return type(value) in _SCALARS


def scalar_key(value: Term) -> Hashable:
    """Return a key that two scalars share exactly when they are equal to the operators."""
    return _BOOL_KEYS[value] if type(value) is bool else value


def hash_bound(bound: int) -> int:
    """Return the least hash whose bucket is not below *bound*: comparing hashes spares a multiplication."""
    return -(-min(max(bound, 0), BUCKETS) * HASHES // BUCKETS)


def pattern(text: str) -> Any | None:
    """Return a compiled regular expression, or None when *text* is none."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except (re2.error, UnicodeEncodeError):
        return None


def _attribute(raw: object, base: Terms | None, path: str) -> Term:
    """Return the term of what the call's own layer has at *path*, or what the further layers have."""
    if raw is _NOT_FOUND:
        return None if base is None else base[path]
    if type(raw) is int and INT64_MIN <= raw <= INT64_MAX:
        # The commonest after plain strings; a call saved.
        return raw
    return term(raw)


def _walk(at: object, parts: tuple[str, ...]) -> object:
    if type(at) is _Nested:
        at = at.inner
    try:
        for part in parts:
            if not isinstance(at, Mapping) or part not in at:
                return _NOT_FOUND
            at = at[part]
    except Exception:  # noqa: BLE001 - what cannot be read is there, and is missing
        return None
    return at


class _Nested:
    """What stands in a layer where a plain dict would be, read as generated code reads a dict: ``in``, then ``[]``.

    For one evaluation.
    """

    __slots__ = ("_found", "inner")

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self._found: object = None

    def __contains__(self, part: str) -> bool:
        self._found = _walk(self.inner, (part,))
        return self._found is not _NOT_FOUND

    def __getitem__(self, _: str) -> object:
        return self._found


def _unit_hash(prefix: str, unit: Term) -> int:
    """Return the hash of a unit that is no plain string."""
    text = str(unit) if type(unit) is int else unit_text(unit)
    return NO_UNIT if text is None else murmur3_32((prefix + text).encode())


def _bucket(algorithm: BucketAlgorithm, salt: str, unit: Term) -> int:
    text = unit_text(unit)
    return NO_UNIT if text is None else bucket(algorithm, salt, text)


def _found(compiled: Any, text: Term) -> bool | None:
    if type(text) is not str:
        return None
    try:
        return compiled.search(text) is not None
    except UnicodeEncodeError:
        return None


def _inside(text: Term, networks: tuple[Network, ...]) -> bool | None:
    where = address(text) if type(text) is str else None
    return None if where is None else is_inside(where, networks)


def _version(text: Term) -> Precedence | None:
    return precedence(text) if type(text) is str else None


def _instant(value: Term) -> int | None:
    return None if value is OPAQUE else instant(value)


def _contains_any(text: str, literals: tuple[str, ...]) -> bool:
    return any(literal in text for literal in literals)


def _compared(op: Operator, left: Term, right: Term, literals: Literals | None) -> Truth:
    return compare(op, operand(left), operand(right), literals)


def _murmur3() -> Callable[[bytes], int]:
    try:
        # For bytes alone: given a str with a lone surrogate, its `hash` ends the process.
        from mmh3 import mmh3_32_uintdigest
    except ImportError:  # pragma: no cover - the wheel exists for every platform that CI has
        return murmur3_32
    return mmh3_32_uintdigest


GLOBALS: Final[dict[str, Any]] = {
    "__builtins__": {
        "type": type,
        "str": str,
        "int": int,
        "float": float,
        "bool": bool,
        "tuple": tuple,
        "dict": dict,
    },
    "BOOL_KEYS": _BOOL_KEYS,
    "EMPTY": {},
    "FALSE": Truth.FALSE,
    "NOT_FOUND": _NOT_FOUND,
    "SCALARS": _SCALARS,
    "TRUE": Truth.TRUE,
    "attribute": _attribute,
    "bisect": bisect.bisect_right,
    "bucket": _bucket,
    "compared": _compared,
    "contains_any": _contains_any,
    "found": _found,
    "inside": _inside,
    "instant": _instant,
    "murmur3": _murmur3(),
    "nested": _Nested,
    "term": term,
    "unit_hash": _unit_hash,
    "version": _version,
    "walk": _walk,
}
"""The names that generated code uses, beside its own parameters and variables."""
