"""Context that holds for a while in one thread or task, such as for one request, and the views pinned for as long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary, WeakSet

from rheostat.evaluation.compiled.operand import Base, LiveBase
from rheostat.evaluation.context import Context

if TYPE_CHECKING:
    from rheostat.sdk.reader import Reader
    from rheostat.sdk.replica import Replica, View

__all__ = ["Ambient", "ambient", "base_of", "current", "entered", "resolved"]


class Ambient:
    """What is ambient in a thread or task. Immutable but for what it remembers.

    Attributes:
        layers: Contexts, the innermost first.
        pins: The view of each replica that is pinned.
        bases: For each living reader that has read here, its own layers, by which a change of them is noticed, and
            all layers behind a call's own.
    """

    __slots__ = ("bases", "layers", "pins")

    def __init__(self, layers: tuple[Mapping[str, object], ...], pins: Mapping[Replica, View]) -> None:
        """Take *layers* and *pins*."""
        self.layers = layers
        self.pins = pins
        self.bases: WeakKeyDictionary[Reader[Any], tuple[object, Base | LiveBase]] = WeakKeyDictionary()


current: Final[ContextVar[Ambient | None]] = ContextVar("rheostat_ambient", default=None)
"""What is ambient here; None is the common case."""


class Checked(Protocol):
    """Knows which attributes there may be."""

    def check_features(self, context: Mapping[str, object]) -> None:
        """Raise `ValueError` for an attribute that there may not be."""


checks: Final[WeakSet[Checked]] = WeakSet()
"""The strict clients of this process."""

used = False
"""Whether anything was ever ambient in this process: as long as nothing was, reads need not look."""


@contextmanager
def entered(layer: Mapping[str, object] | None, pins: Mapping[Replica, View]) -> Iterator[None]:
    """Make *layer* and *pins* ambient inside the block, on top of what is."""
    global used  # noqa: PLW0603 - it is never taken back
    for strict in tuple(checks):
        strict.check_features(layer or {})
    used = True
    outer = current.get()
    layers = (() if layer is None else (layer,)) + (() if outer is None else outer.layers)
    former: Mapping[Replica, View] = {} if outer is None else outer.pins
    token = current.set(Ambient(layers, {**former, **pins}))
    try:
        yield
    finally:
        current.reset(token)


@contextmanager
def ambient(context: Mapping[str, object] | None = None, /, **attributes: object) -> Iterator[None]:
    """Make attributes ambient inside the block: every evaluation of this thread or task has them, of all clients.

    They stand behind the attributes of a call and before those of a scoped view and of the client. Blocks nest, and
    the inner one wins. A task that is started inside inherits them; a thread does not, unless it is started in a
    copied context.

    Args:
        context: The attributes as a mapping.
        attributes: More of them, which win.

    Raises:
        ValueError: There is a strict client, of whose project an attribute is no feature.
    """
    with entered({**(context or {}), **attributes}, {}):
        yield


class _Resolved(Mapping[str, object]):
    """A layer whose values may be context variables, read at each lookup; one without a value is missing."""

    __slots__ = ("_layer",)

    def __init__(self, layer: Mapping[str, object]) -> None:
        self._layer = layer

    def __getitem__(self, key: str) -> object:
        found = self._layer[key]
        if isinstance(found, ContextVar):
            try:
                return found.get()
            except LookupError:
                raise KeyError(key) from None
        return resolved(found) if isinstance(found, Mapping) else found

    def __contains__(self, key: object) -> bool:
        try:
            # Not `get` with a default, which would win over the variable's own.
            self[key]  # type: ignore[index]
        except (KeyError, TypeError):
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer)

    def __len__(self) -> int:
        return len(self._layer)


def resolved(layer: Mapping[str, object]) -> Mapping[str, object]:
    """Return *layer* itself, or what reads the context variables in it."""
    return _Resolved(layer) if has_variables(layer) else layer


def has_variables(layer: Mapping[str, object]) -> bool:
    """Tell whether values of *layer*, or of mappings in it, are context variables."""
    return any(
        isinstance(value, ContextVar) or (isinstance(value, Mapping) and has_variables(value))
        for value in layer.values()
    )


def base_of(layers: tuple[Mapping[str, object], ...]) -> Base | LiveBase:
    """Return *layers* as the evaluator takes them: looked up once for each path, unless they have variables."""
    if any(isinstance(layer, _Resolved) or has_variables(layer) for layer in layers):
        return LiveBase(Context(*(resolved(layer) for layer in layers)))
    return Base(*layers)
