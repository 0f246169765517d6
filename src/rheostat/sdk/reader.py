"""Reading settings: what clients, scoped clients and pinned views have in common. Nothing here waits or does I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

from rheostat.errors import SettingNotFoundError
from rheostat.evaluation.compiled.operand import Base, LiveBase
from rheostat.evaluation.context import Context
from rheostat.evaluation.explain import Explanation, explain
from rheostat.evaluation.join import OVERRIDE, overridden
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.model.setting import Lifecycle
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value
from rheostat.sdk import ambient
from rheostat.sdk.replica import Replica, View, ViewSource
from rheostat.sdk.subscription import SettingChange, Subscription, Unsubscribe

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultedTypeVar

    from rheostat.sdk.core import Core
    from rheostat.sdk.setting import Setting
    from rheostat.sdk.subject import Joined

    S = DefaultedTypeVar("S", default=Mapping[str, Any])
else:
    S = TypeVar("S")

__all__ = ["Reader", "SettingsView"]

T = TypeVar("T")

_Attributes = Mapping[str, object]

log = logging.getLogger("rheostat")

_NOTHING: Final[_Attributes] = {}

_ambient_now: Final = ambient.current.get


class Reader(Generic[S]):
    """Reads settings from the local replica, in a context and with defaults of its own.

    Reads are local, take no lock and never wait. All of one read belongs to one revision. No method raises because
    of what the server sent or because it is away; only ``reader[name]`` raises, `KeyError`, for a setting that
    neither the server nor a default knows. Safe from any thread or task.

    What a call says in `context` and keywords wins over ambient context (`rheostat.ambient`), which wins over that
    of `with_context`, which wins over the client's. Keywords win over `context`; ``user={"plan": "pro"}`` is the
    attribute ``user.plan``.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_behind",
        "_core",
        "_defaults",
        "_layers",
        "_named",
        "_owner",
        "_source",
    )

    _scoped: ClassVar[type[Reader[Any]]]
    """What readers with more context are."""

    _core: Core
    _source: ViewSource
    _layers: tuple[_Attributes, ...]
    _defaults: Mapping[str, object]
    _base: Base | LiveBase
    _owner: Reader[Any] | None

    _named: frozenset[str]
    """What the reader's own context may name subjects by: the names at its top."""

    _behind: tuple[object, object, Base | LiveBase] | None
    """The join of the last read that was not the client's own, and what it stood before, and both together."""

    def _read_from(
        self,
        core: Core,
        source: ViewSource,
        layers: tuple[_Attributes, ...],
        defaults: Mapping[str, object],
        owner: Reader[Any] | None = None,
    ) -> None:
        self._core = core
        # The client, which ends when nobody reads from it any more; None for the client itself.
        self._owner = owner
        self._source = source
        self._layers = layers
        self._defaults = defaults
        self._base = ambient.base_of((*layers, core.client_layer))
        self._named = frozenset([name for layer in (*layers, core.client_layer) for name in layer])
        self._behind = None
        core.readers.add(self)

    def forget_context(self) -> None:
        """Look the reader's own context up anew, because the client's id is another one."""
        self._base = ambient.base_of((*self._layers, self._core.client_layer))

    # Values.

    def __getitem__(self, name: str) -> Any:
        """Return the value of the setting *name* in the reader's own context.

        Raises:
            SettingNotFoundError: (a KeyError) Neither the server nor a default has it. The text says whether the
                client was ready.
        """
        if not ambient.used or _ambient_now() is None:
            try:
                source = self._source
                if not source.joining or source.joining.isdisjoint(self._named):
                    program = source.programs[name]
                    return (program(_NOTHING, self._base) if type(program) is FunctionType else program).value
            except Exception:  # noqa: BLE001, S110 - the slow way knows what to do
                pass
        found = self._slowly(name, None, _NOTHING)
        if found is ABSENT:
            found = self._default(name, ABSENT)
            if found is ABSENT:
                raise SettingNotFoundError(f"no setting has the name {name!r}{self._core.excuse()}")
        return found

    def get(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Any:
        """Return the value of the setting *name*, or a default where there is no such setting. Never raises.

        Args:
            name: The name or an alias.
            default: What an absent setting gives. When it is not given: that of `with_defaults`, of the client, of
                the declaration, else None.
            context: Attributes of this call as a mapping.
            attributes: More of them, which win.
        """
        if not ambient.used or _ambient_now() is None:
            # What `CompiledSnapshot.value` does, without its call: that is a tenth of the time of a read.
            try:
                source = self._source
                kinds = source.joining
                if kinds and not (
                    kinds.isdisjoint(attributes)
                    and kinds.isdisjoint(self._named)
                    and (context is None or kinds.isdisjoint(context))
                ):
                    program = None
                else:
                    program = source.programs[name]
                if program is None:
                    pass
                elif type(program) is not FunctionType:
                    return program.value
                elif attributes:
                    if context is None:
                        return program(attributes, self._base).value
                elif type(context) is dict:
                    return program(context, self._base).value
                elif context is None:
                    return program(attributes, self._base).value
            except Exception:  # noqa: BLE001, S110 - the slow way knows what to do
                pass
        found = self._slowly(name, context, attributes)
        if found is ABSENT:
            found = self._default(name, default)
            return None if found is ABSENT else found
        return found

    def evaluate(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Evaluation:
        """Return the value as `get` does, and how it came about: reason, rule, variant, revision. Never raises."""
        source = self._source
        if source.idle is not None:
            self._before_read(context, attributes)
        if context is None:
            context = attributes
        elif attributes:
            context = _joined(context, attributes)
        now = _ambient_now()
        if now is None:
            view, base = source.view, self._base
        else:
            view, base = self._ambient_place(now)
        if self._core.replica.joining:
            base, override = self._with_subjects(view, name, context, base)
            if override is not None:
                return self._annotated(view, name, override, default)
        found = view.evaluate(name, context, ABSENT, base)  # type: ignore[arg-type]
        failed = found.reason is Reason.ERROR
        if not failed and name not in view.programs:
            view.note_read(name)
        if failed or view.overridden or self._core.stale:
            return self._annotated(view, name, found, default)
        return found

    def evaluate_all(
        self, context: _Attributes | None = None, /, **attributes: object
    ) -> dict[str, Evaluation]:
        """Return the evaluations of all settings that are not archived, by name, at one revision. Never raises."""
        pinned = self.pin()
        return {
            name: pinned.evaluate(name, context=context, **attributes)
            for name, setting in pinned._source.view.snapshot.settings.items()
            if setting.lifecycle is not Lifecycle.ARCHIVED
        }

    def explain(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Explanation:
        """Return why the setting *name* has its value: rule by rule, condition by condition. Never raises."""
        self._start()
        now = _ambient_now()
        view, base = (self._source.view, self._base) if now is None else self._ambient_place(now)
        joined = attributes if context is None else _joined(context, attributes)
        override: Evaluation | None = None
        if self._core.replica.joining:
            base, override = self._with_subjects(view, name, joined, base)
        layers = (*_layers_of(joined), *_layers_of(base))
        found = explain(view.snapshot, name, Context(*layers), self._default(name, default))
        evaluation = found.evaluation if override is None else override
        return replace(found, evaluation=self._annotated(view, name, evaluation, default))

    def bool_value(
        self, name: str, default: bool, /, context: _Attributes | None = None, **attributes: object
    ) -> bool:
        """Return the value as `get` does; *default* also where the value is no bool. Never raises."""
        found = self.get(name, default, context, **attributes)
        return found if type(found) is bool else self._mistyped(name, found, "bool", default)

    def str_value(
        self, name: str, default: str, /, context: _Attributes | None = None, **attributes: object
    ) -> str:
        """Return the value as `get` does; *default* also where the value is no string. Never raises."""
        found = self.get(name, default, context, **attributes)
        return found if isinstance(found, str) else self._mistyped(name, found, "string", default)

    def int_value(
        self, name: str, default: int, /, context: _Attributes | None = None, **attributes: object
    ) -> int:
        """Return the value as `get` does, an integral float as int; *default* where it is no integer. Never raises."""
        found = self.get(name, default, context, **attributes)
        if type(found) is float and found.is_integer():
            return int(found)
        return found if type(found) is int else self._mistyped(name, found, "integer", default)

    def float_value(
        self, name: str, default: float, /, context: _Attributes | None = None, **attributes: object
    ) -> float:
        """Return the value as `get` does, an int as float; *default* also where it is no number. Never raises."""
        found = self.get(name, default, context, **attributes)
        if type(found) is int:
            return float(found)
        return found if type(found) is float else self._mistyped(name, found, "number", default)

    def json_value(
        self, name: str, default: Any, /, context: _Attributes | None = None, **attributes: object
    ) -> Any:
        """Return the value as `get` does; *default* also where it is no list or mapping. Never raises.

        Lists are tuples and mappings are immutable; `rheostat.thaw` makes fresh ones of them.
        """
        found = self.get(name, default, context, **attributes)
        if isinstance(found, (tuple, list, Mapping)):
            return found
        return self._mistyped(name, found, "list or mapping", default)

    # The whole.

    def __contains__(self, name: object) -> bool:
        """Tell whether ``reader[name]`` has a value; aliases count."""
        if not isinstance(name, str):
            return False
        return self._view().snapshot.setting(name) is not None or self._default(name, ABSENT) is not ABSENT

    def __iter__(self) -> Iterator[str]:
        """Yield the current names of the settings, then those that only defaults know."""
        settings = self._view().snapshot.settings
        yield from settings
        snapshot = self._view().snapshot
        seen = set(settings)
        declared = [setting.name for setting in self._source.replica.declarations]
        for name in (*self._defaults, *declared):
            if name not in seen and snapshot.setting(name) is None:
                seen.add(name)
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self) -> tuple[str, ...]:
        """Return the names that iterating gives."""
        return tuple(self)

    @property
    def settings(self) -> S:
        """The settings as a read-only mapping; typed, where the client is ``Client[Settings]``."""
        view: Any = SettingsView(self)
        return view  # type: ignore[no-any-return]

    @property
    def revision(self) -> int:
        """The revision that is read now; 0 before the first state."""
        return self._view().snapshot.revision

    # Other readers of the same replica.

    def with_context(self, context: _Attributes | None = None, /, **attributes: object) -> Reader[S]:
        """Return a reader with more context: attributes of it win over those of this one.

        Values may be context variables (`contextvars.ContextVar`), which are read at each evaluation.

        Raises:
            ValueError: The client is strict, and an attribute is no registered feature.
        """
        layer = {**(context or {}), **attributes}
        self._core.check_features(layer)
        return self._other(self._source, (layer, *self._layers), self._defaults)

    def with_defaults(self, defaults: Mapping[str, object]) -> Reader[S]:
        """Return a reader with more defaults, used where the server has no such setting."""
        return self._other(self._source, self._layers, {**self._defaults, **defaults})

    def pin(self) -> Reader[S]:
        """Return a reader that stays at the revision that is read now, such as for one request."""
        view = self._view()
        return self._other(_Pinned(self._source.replica, view), self._layers, self._defaults)

    @contextmanager
    def pinned(self, context: _Attributes | None = None, /, **attributes: object) -> Iterator[Self]:
        """Stay at one revision inside the block, in this thread or task, with *attributes* as ambient context.

        All readers of the same client are pinned, declared settings among them.
        """
        self._start()
        layer = {**(context or {}), **attributes}
        with ambient.entered(layer or None, {self._source.replica: self._view()}):
            yield self

    # Being told.

    def subscribe(
        self,
        name: str | Callable[[SettingChange[Any]], object],
        callback: Callable[[SettingChange[Any]], object] | None = None,
        /,
    ) -> Unsubscribe:
        """Call *callback* whenever the setting *name*, or without a name any setting, may give another value.

        Called in order, off the receiving path, once all changes of the revision are visible; what it raises is
        logged. On `AsyncClient` it may be a coroutine function.

        Returns:
            What ends it; it may be called inside the callback and more than once.

        Raises:
            TypeError: There is no callback.
        """
        subscribed, called = (None, name) if callback is None else (name, callback)
        if not callable(called) or not (subscribed is None or isinstance(subscribed, str)):
            raise TypeError("subscribe takes a callback, or a setting's name and a callback")
        return self._core.subscribe(Subscription(self, called, subscribed))

    # What declared settings need.

    def read_setting(
        self, setting: Setting[T], default: T | Absent, context: _Attributes | None, attributes: _Attributes
    ) -> T:
        """Return the value of a declared setting, of its type; see `Setting.get`."""
        replica = self._source.replica
        if replica.declared(setting.name) is not setting:
            self._core.adopt(setting)
        if setting.codec.identity and not setting.validators:
            found: Any = self.get(setting.name, default, context, **attributes)
            return found  # type: ignore[no-any-return]
        evaluation = self.evaluate_setting(setting, default, context, attributes)
        return evaluation.value  # type: ignore[return-value]

    def evaluate_setting(
        self, setting: Setting[T], default: T | Absent, context: _Attributes | None, attributes: _Attributes
    ) -> Evaluation:
        """Return the evaluation of a declared setting, with the value of its type; see `Setting.evaluate`."""
        if self._source.replica.declared(setting.name) is not setting:
            self._core.adopt(setting)
        self._start()
        now = _ambient_now()
        view, base = (self._source.view, self._base) if now is None else self._ambient_place(now)
        joined = attributes if context is None else _joined(context, attributes)
        found: Evaluation | None = None
        if self._core.replica.joining:
            base, found = self._with_subjects(view, setting.name, joined, base)
        if found is None:
            found = view.evaluate(setting.name, joined, ABSENT, base)  # type: ignore[arg-type]
        if found.reason is Reason.ERROR and default is ABSENT:
            default = self._default_of(setting)
        annotated = self._annotated(view, setting.name, found, default)
        if found.reason is Reason.ERROR:
            return annotated
        if setting.name not in view.programs:
            view.note_read(setting.name)
        value = _decoded(view, setting, found)
        return annotated if value is ABSENT else replace(annotated, value=value)

    def subscribe_setting(
        self, setting: Setting[T], callback: Callable[[SettingChange[T]], object]
    ) -> Unsubscribe:
        """Call *callback* with changes whose values are of the setting's type; see `subscribe`."""
        self._core.adopt(setting)
        return self._core.subscribe(Subscription(self, callback, setting.name, setting))

    def value_in(self, view: View, name: str, setting: Setting[Any] | None = None) -> Any:
        """Return the value in one *view*, in the reader's own context; ABSENT where there is no such setting."""
        found = view.evaluate(name, None, ABSENT, self._base)  # type: ignore[arg-type]
        if found.reason is Reason.ERROR:
            return ABSENT
        value = ABSENT if setting is None else _decoded(view, setting, found)
        return found.value if value is ABSENT else value

    # The inside.

    def _other(
        self, source: ViewSource, layers: tuple[_Attributes, ...], defaults: Mapping[str, object]
    ) -> Reader[S]:
        found: Reader[S] = self._scoped()
        found._read_from(self._core, source, layers, defaults, self._owner or self)
        return found

    def _before_read(self, context: Any, attributes: _Attributes) -> None:
        self._start()
        if self._core.options.strict:
            for given in (context, attributes):
                for path in self._core.unknown_features(given) if isinstance(given, Mapping) else ():
                    self._core.warn_once(("feature", path), "%r is no registered feature", path)

    def _start(self) -> None:
        idle = self._source.idle
        if idle is not None:
            idle()

    def _view(self) -> View:
        self._start()
        now = _ambient_now()
        view = self._source.view
        if now is None or isinstance(self._source, _Pinned):
            return view
        return now.pins.get(self._source.replica, view)

    def _ambient_place(self, now: ambient.Ambient) -> tuple[View, Base | LiveBase]:
        view = self._source.view
        if now.pins and not isinstance(self._source, _Pinned):
            view = now.pins.get(self._source.replica, view)
        found = now.bases.get(self)
        if found is not None and found[0] is self._base:
            return view, found[1]
        base = ambient.base_of((*now.layers, *self._layers, self._core.client_layer))
        now.bases[self] = self._base, base
        return view, base

    def _ambient_layers(self) -> tuple[_Attributes, ...]:
        """Return all layers behind a call's own, the strongest first."""
        now = _ambient_now()
        layers = (() if now is None else now.layers) + self._layers
        return (*(ambient.resolved(layer) for layer in layers), self._core.client_layer)

    def _slowly(self, name: str, context: Any, attributes: _Attributes) -> Any:
        """Return the value with all that a read may have to look at; ABSENT when there is no such setting."""
        if self._source.idle is not None:
            self._before_read(context, attributes)
        if context is None:
            context = attributes
        elif attributes and context is not attributes:
            context = _joined(context, attributes)
        now = _ambient_now()
        view, base = (self._source.view, self._base) if now is None else self._ambient_place(now)
        if self._core.replica.joining:
            base, override = self._with_subjects(view, name, context, base)
            if override is not None:
                return override.value
        found: Any = view.value(name, context, ABSENT, base)  # type: ignore[arg-type]
        if found is not ABSENT and name not in view.programs:
            view.note_read(name)
        return found

    def _with_subjects(
        self, view: View, name: str, context: Any, base: Base | LiveBase
    ) -> tuple[Base | LiveBase, Evaluation | None]:
        """Return *base* behind what the subjects add that are at hand, and what one of them has instead. Never raises."""
        try:
            layers = (*_layers_of(context), *self._ambient_layers())
            joined = self._core.subjects.at_hand(layers)
            if joined is None:
                return base, None
            return self._joined_before(joined, base), _override(view, name, joined)
        except Exception as error:  # noqa: BLE001 - mappings are the caller's, and a read never raises
            self._core.warn_once(("subjects", str(error)), "subjects could not be joined: %s", error)
            return base, None

    def _joined_before(self, joined: Joined, base: Base | LiveBase) -> Base | LiveBase:
        """Return *base* behind what subjects add; kept for the client's own, and no longer than the reader for others."""
        if base is self._base:
            if self._owner is None:
                return joined.before(base, self._ambient_layers)
            known = self._behind
            if known is not None and known[0] is joined.bases and known[1] is base:
                return known[2]
        made = joined.behind(base, self._ambient_layers)
        if base is self._base:
            self._behind = joined.bases, base, made
        return made

    def _default(self, name: str, explicit: Any) -> Any:
        """Return what stands for an absent setting; ABSENT when nothing does. Never raises."""
        if explicit is not ABSENT:
            return explicit
        try:
            declared = self._source.replica.declared(name)
            if name in self._defaults:
                given = self._defaults[name]
                return given if declared is None else self._given_default(declared, given)
        except Exception:  # noqa: BLE001 - a name that is not hashable, or worse
            return ABSENT
        return ABSENT if declared is None else declared.declaration().default

    def _default_of(self, setting: Setting[T]) -> T:
        """Return what stands for an absent setting, of its type."""
        if setting.name in self._defaults:
            fitted = self._given_default(setting, self._defaults[setting.name])
            if fitted is not setting.declaration().default:
                return setting.codec.decode(fitted)
        return setting.local_default

    def _given_default(self, setting: Setting[Any], given: object) -> Value:
        """Return a default that was given for *setting* as a value of its type; its own where that fits not."""
        try:
            fitted = setting.fitted(given)
            setting.codec.decode(fitted)
        except Exception as error:  # noqa: BLE001 - classes are the caller's, and a read never raises
            self._core.warn_once(
                ("default", setting.name),
                "the default that was given for the setting %r does not fit its type, and that of its declaration is "
                "used: %s",
                setting.name,
                error,
            )
            return setting.declaration().default
        return fitted

    def _annotated(self, view: View, name: str, found: Evaluation, default: Any) -> Evaluation:
        stale = self._core.stale
        if found.reason is Reason.ERROR:
            if found.error_code is ErrorCode.FLAG_NOT_FOUND and not self._core.has_state:
                found = replace(
                    found,
                    error_code=ErrorCode.PROVIDER_NOT_READY,
                    error_message=f"{found.error_message}{self._core.excuse()}",
                )
            return replace(found, value=self._default(name, default), stale=stale)
        variant = found.variant
        if view.overridden:
            setting = view.snapshot.setting(name)
            if setting is not None and setting.name in view.overridden:
                variant = OVERRIDE
        if stale or variant is not found.variant:
            return replace(found, stale=stale, variant=variant)
        return found

    def _mistyped(self, name: str, found: object, wanted: str, default: T) -> T:
        if found is not default:
            self._core.warn_once(
                ("mistyped", name, wanted),
                "the setting %r is read as %s but is %s; its default is used",
                name,
                wanted,
                _kind(found),
            )
        return default


class _Pinned:
    """One view for good."""

    __slots__ = ("idle", "replica", "view")

    def __init__(self, replica: Replica, view: View) -> None:
        self.replica = replica
        self.view = view
        self.idle: Callable[[], None] | None = None

    @property
    def joining(self) -> frozenset[str]:
        """See `ViewSource`."""
        return self.replica.joining

    @property
    def programs(self) -> Mapping[str, Any]:
        """See `ViewSource`."""
        return self.view.programs


Reader._scoped = Reader


class SettingsView(Mapping[str, Any]):
    """The settings of a reader as a mapping, live."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader[Any]) -> None:
        """Show what *reader* reads."""
        self._reader = reader

    def __getitem__(self, name: str) -> Any:
        return self._reader[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader)

    def __len__(self) -> int:
        return len(self._reader)

    def __contains__(self, name: object) -> bool:
        return name in self._reader

    def __repr__(self) -> str:
        return f"SettingsView({dict(self)!r})"


def _decoded(view: View, setting: Setting[Any], found: Evaluation) -> Any:
    """Return the value of the declared type; ABSENT where it is that of the wire."""
    current = view.snapshot.setting(setting.name)
    decoded = None if current is None else view.decoded.get(current.name)
    if not decoded:
        return ABSENT
    value: Any = decoded.get((found.reason is Reason.DISABLED, found.rule_id, found.variant), ABSENT)
    if value is ABSENT and found.variant == OVERRIDE:
        # Of a subject, in the form of the wire.
        try:
            value = setting.codec.decode(found.value)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - classes are the caller's, and a read never raises
            return ABSENT
    return value if value is ABSENT or setting.codec.immutable else setting.copied(value)


def _override(view: View, name: str, joined: Joined) -> Evaluation | None:
    """Return what a subject has in the place of the setting's value; what this process has set wins over that."""
    if not joined.overrides:
        return None
    if view.overridden:
        setting = view.snapshot.setting(name)
        if setting is not None and setting.name in view.overridden:
            return None
    return overridden(view.snapshot, name, joined.overrides)


def _joined(context: Any, attributes: _Attributes) -> Any:
    """Return *context* with *attributes* before it; what is no context stays, so that the evaluator can say so."""
    if not attributes:
        return context
    if isinstance(context, (Context, Mapping)):
        return Context(attributes, *Context.of(context).layers)
    return context


def _layers_of(context: Any) -> tuple[_Attributes, ...]:
    if isinstance(context, (Context, Base)):
        return context.layers
    if isinstance(context, LiveBase):
        return context._context.layers
    return (context,) if isinstance(context, Mapping) else ()


def _kind(found: object) -> str:
    if isinstance(found, FrozenMapping):
        return "a mapping"
    return {bool: "a bool", int: "an int", float: "a float", str: "a string", tuple: "a list"}.get(
        type(found), type(found).__name__
    )
