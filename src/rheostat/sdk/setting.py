"""Settings that code declares: typed, with a local default, read through whichever client is there."""

from __future__ import annotations

import dataclasses
import logging
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast, overload

from rheostat.errors import FailedPreconditionError, InvalidSettingError, RheostatError, TypeMismatchError
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.model.declaration import Declaration
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome, Variant
from rheostat.model.setting import FEATURE_NAME, METADATA_KEY, SETTING_NAME, Version
from rheostat.model.setting import Setting as StoredSetting
from rheostat.model.type import normalise
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, freeze
from rheostat.sdk.codec import Codec, Coercion, codec_for

__all__ = [
    "Localised",
    "OnCoerce",
    "Problem",
    "Setting",
    "SettingSource",
    "Validator",
    "current_client",
    "settings_of",
]

_LOGGER: Final = logging.getLogger("rheostat.sdk")

T = TypeVar("T")
V = TypeVar("V", bound="Callable[[Any], Any]")

Validator = Callable[[T], T]
"""Returns the value to use for one that the server sent, or raises to refuse it."""

OnCoerce = Callable[[Any, Value, tuple[Coercion, ...], Rule | None, "Setting[Any]"], object]
"""Called as ``(value, raw, coercions, rule, setting)``; the rule is None for a value that is no rule's."""

Place = tuple[bool, str | None, str | None]
"""Where a value stands: whether it is the off value, the rule's id, the variant's name."""

_BASE: Final[Place] = (False, None, None)
_OFF: Final[Place] = (True, None, None)
_NOTHING: Final[Mapping[Place, object]] = types.MappingProxyType({})


class SettingSource(Protocol):
    """What a setting reads from; a client or a view of one. Safe from any thread."""

    def read_setting(
        self,
        setting: Setting[T],
        default: T | Absent,
        context: Mapping[str, object] | None,
        attributes: dict[str, object],
    ) -> T:
        """Return the value of *setting*; *default*, else its own, where there is none. Never raises."""

    def evaluate_setting(
        self,
        setting: Setting[T],
        default: T | Absent,
        context: Mapping[str, object] | None,
        attributes: dict[str, object],
    ) -> Evaluation:
        """Return the value as `read_setting` does, and how it came about. Never raises."""

    def subscribe_setting(self, setting: Setting[T], callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call *callback* with each change of *setting*, until the returned function is called."""


current_client: ContextVar[SettingSource | None] = ContextVar("rheostat_current_client", default=None)
"""The client that was activated in this context; it wins over the one that a setting is bound to."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A server's value that does not fit the local type, or not as a whole.

    Attributes:
        rule_id: The rule it is of; None for the base value and the off value.
        raw: The value as the server sent it.
        coercions: What was dropped of it.
        message: All of it in words, with the setting's name.
        value: What is used of it; ABSENT when nothing is.
    """

    rule_id: str | None
    raw: Value | Absent
    coercions: tuple[Coercion, ...]
    message: str
    value: Value | Absent = ABSENT


@dataclass(frozen=True, slots=True)
class Localised:
    """A server's setting brought into the type that the code declared.

    Attributes:
        setting: With values that fit, under the local type; the very setting that came in when all of it fits.
            None when nothing of it can be used, so that reads give the local default.
        decoded: The Python values after validators, by (is the off value, rule's id, variant's name); empty when
            they are the setting's own values. ``(True, None, None)`` is always among them, also where a disabled
            setting answers its base value. They must be passed through `Codec.copy` on their way to a reader.
        problems: What did not fit, for the log.
    """

    setting: StoredSetting | None
    decoded: Mapping[Place, object] = dataclasses.field(default_factory=lambda: _NOTHING)
    problems: tuple[Problem, ...] = ()


class Setting(Generic[T]):
    """A setting that code declares and reads. Safe from any thread; `bind` and validators are set up before reads.

    It knows nothing global: without a client it answers its local default.

    Attributes:
        name: Its name.
        aliases: Its former names.
        codec: Of its Python type.
        default: The local default, as it was given; `local_default` is what reads give.
        features: The attributes that rules may read; None means any, empty means none.
        version: Of the definition.
        metadata: For tools.
        description: For people.
        owner: Who answers for it.
        tags: Words to find it by.
        on_coerce: Called where a server's value is used in part only.
    """

    @overload
    def __init__(
        self,
        name: str,
        type: type[T],
        *,
        default: T,
        features: Iterable[str] | None = None,
        version: str = "1.0",
        alias: str | Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        validators: Iterable[Validator[T]] = (),
        on_coerce: OnCoerce | None = None,
        description: str = "",
        owner: str = "",
        tags: Iterable[str] = (),
    ) -> None: ...

    # For what type checkers do not take as a type: Literal, T | None, Sequence and other abstract ones, texts.
    @overload
    def __init__(
        self: Setting[Any],
        name: str,
        type: object,
        *,
        default: Any,
        features: Iterable[str] | None = None,
        version: str = "1.0",
        alias: str | Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        validators: Iterable[Validator[Any]] = (),
        on_coerce: OnCoerce | None = None,
        description: str = "",
        owner: str = "",
        tags: Iterable[str] = (),
    ) -> None: ...

    def __init__(
        self,
        name: str,
        type: object,
        *,
        default: T,
        features: Iterable[str] | None = None,
        version: str = "1.0",
        alias: str | Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        validators: Iterable[Validator[T]] = (),
        on_coerce: OnCoerce | None = None,
        description: str = "",
        owner: str = "",
        tags: Iterable[str] = (),
    ) -> None:
        """Declare a setting; what is wrong with it is said now, not when a server sees it.

        Args:
            name: Letters, digits, ``_``, ``.`` and ``-``, at most 200.
            type: A Python type, or the text of a type; see `codec_for`.
            default: Answered whenever there is no value of a server; it fits the type.
            features: The attributes that rules may read; None means any, empty means none.
            version: ``major.minor``; to be raised with every change of name, type, default, features or metadata.
            alias: A former name, or several.
            metadata: For tools; keys of letters, digits, ``_`` and ``-`` with any JSON.
            validators: See `add_validator`.
            on_coerce: Called as ``(value, raw, coercions, rule, setting)`` where only a part of a server's value
                fits the type. What it raises is logged.
            description: For people.
            owner: Who answers for it.
            tags: Words to find it by.

        Raises:
            InvalidSettingError: Any of it is not acceptable; the message names the setting and how to mend it.
        """
        if not isinstance(name, str) or SETTING_NAME.fullmatch(name) is None:
            raise InvalidSettingError(
                f"the name {name!r} of a setting is not of the form {SETTING_NAME.pattern}: "
                "use letters, digits, '_', '.' and '-', at most 200"
            )
        self.name = name
        self.aliases = self._checked_aliases(alias)
        self.codec: Codec[T] = self._checked_codec(type)
        self.default = default
        encoded = self._checked_default(default)
        self.features = self._checked_features(features)
        self.version = self._checked_version(version)
        self.metadata = self._checked_metadata(metadata)
        self.description = description
        self.owner = owner
        self.tags = self._unique(self._texts(tags, "tags"), "tag")
        self.on_coerce = on_coerce
        self._validators: tuple[Validator[T], ...] = ()
        for validator in validators:
            self.add_validator(validator)
        self._declaration = Declaration(
            name=self.name,
            type=self.codec.type,
            default=encoded,
            version=self.version,
            aliases=self.aliases,
            features=self.features,
            metadata=self.metadata,
            description=self.description,
            owner=self.owner,
            tags=self.tags,
        )
        self._bound: SettingSource | None = None
        self._failed = False

    def __repr__(self) -> str:
        return f"Setting({self.name!r}, {self.codec.type}, default={self.default!r})"

    @property
    def validators(self) -> tuple[Validator[T], ...]:
        """What server values pass through, in order."""
        return self._validators

    @property
    def local_default(self) -> T:
        """The default as reads give it: in the form of server values, and fresh where the type is mutable."""
        return self._local_default if self.codec.immutable else self.copied(self._local_default)

    def declaration(self) -> Declaration:
        """Return what is declared to the server; its default is the model's value of the local default."""
        return self._declaration

    def add_validator(self, validator: V) -> V:
        """Let values of the server pass through *validator*, after those that are there; usable as a decorator.

        It returns the value to use. One that raises, or returns what is not of the type, rejects that value alone: its
        rule is skipped, or the local default stands in its place. The local default passes through none. Values
        that a client already holds are not read again.

        Raises:
            InvalidSettingError: It cannot be called.
        """
        if not callable(validator):
            raise self._invalid(f"the validator {validator!r} cannot be called")
        self._validators = (*self._validators, validator)
        return validator

    def get(
        self,
        default: T | Absent = ABSENT,
        /,
        context: Mapping[str, object] | None = None,
        **attributes: object,
    ) -> T:
        """Return the value for the current context. Never raises, never waits.

        Args:
            default: Instead of the local default, where there is no value.
            context: Attributes for this call.
            attributes: Further ones, which win over *context*.
        """
        source = current_client.get()
        if source is None:
            source = self._bound
            if source is None:
                return self._otherwise(default)
        try:
            return source.read_setting(self, default, context, attributes)
        except Exception as exc:  # noqa: BLE001 - a read never raises, whatever the source is
            self._log_failure(exc)
            return self._otherwise(default)

    def evaluate(
        self,
        default: T | Absent = ABSENT,
        /,
        context: Mapping[str, object] | None = None,
        **attributes: object,
    ) -> Evaluation:
        """Return the value as `get` does, and how it came about. Never raises, never waits.

        The value is the Python one, also where that is no value of the model, such as a member of an Enum.
        """
        source = current_client.get()
        if source is None:
            source = self._bound
        if source is None:
            code, message = ErrorCode.PROVIDER_NOT_READY, f"the setting {self.name!r} is bound to no client"
        else:
            try:
                return source.evaluate_setting(self, default, context, attributes)
            except Exception as exc:  # noqa: BLE001 - a read never raises, whatever the source is
                self._log_failure(exc)
                code, message = ErrorCode.GENERAL, f"reading the setting {self.name!r} failed"
        return Evaluation(
            cast("Value", self._otherwise(default)), Reason.ERROR, error_code=code, error_message=message
        )

    def subscribe(self, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call *callback* with each change, until the returned function is called.

        Raises:
            FailedPreconditionError: The setting is bound to no client, and none is active in this context.
        """
        source = current_client.get()
        if source is None:
            source = self._bound
        if source is None:
            raise FailedPreconditionError(
                f"the setting {self.name!r} is bound to no client: pass it to Client(settings=[...]), "
                "client.declare(...), or activate a client"
            )
        return source.subscribe_setting(self, callback)

    def fitted(self, value: object) -> Value:
        """Return *value*, of the Python type or in the form of the wire, as a value of the declared type.

        Raises:
            TypeMismatchError: It is neither.
        """
        try:
            encoded: Value = self.codec.encode(cast("T", value))
        except TypeMismatchError:
            with suppress(TypeMismatchError):
                return normalise(self.codec.type, freeze(value))
            raise
        return encoded

    def bind(self, source: SettingSource) -> None:
        """Read from *source* from now on, instead of any other one."""
        self._bound = source

    def unbind(self, source: SettingSource | None = None) -> None:
        """Read from no source any more; with *source*, only if it is the one that is read from."""
        if source is None or self._bound is source:
            self._bound = None

    def _otherwise(self, default: T | Absent) -> T:
        return self.local_default if isinstance(default, Absent) else default

    def _log_failure(self, exc: Exception) -> None:
        if not self._failed:
            # Once: reads are many.
            self._failed = True
            _LOGGER.error("reading the setting %r failed; its default is used", self.name, exc_info=exc)

    def copied(self, value: T) -> T:
        """Return a copy of *value* for one reader; *value* itself where its class cannot be copied."""
        try:
            return self.codec.copy(value)
        except Exception:  # noqa: BLE001 - a class whose objects cannot be copied is the caller's
            return value

    def localise(self, setting: StoredSetting) -> Localised:
        """Return the server's *setting* with every value in the local type and passed through the validators.

        A rule whose value cannot be used is left out, a distribution as a whole; the local default stands for a
        base value or off value that cannot be used. Calls `on_coerce`. Never raises.
        """
        try:
            if self.codec.identity and not self._validators and self._fits(setting):
                return Localised(setting, _NOTHING)
            return _Localiser(self, setting).localised()
        except Exception as exc:  # noqa: BLE001 - a server's setting must never stop the receiving of others
            message = f"setting {self.name!r}: cannot be read, and the local default is used: {exc!r}"
            return Localised(None, _NOTHING, (Problem(None, ABSENT, (), message),))

    def _fits(self, setting: StoredSetting) -> bool:
        """Tell whether every value of *setting* is in the local type as it is."""
        mend = self.codec.mend
        found: list[Coercion] = []
        if mend(setting.default, found) is not setting.default:
            return False
        for value in (setting.value, setting.off):
            if value is not ABSENT and mend(value, found) is not value:
                return False
        for rule in setting.rules:
            outcome = rule.outcome
            if isinstance(outcome, ValueOutcome):
                if mend(outcome.value, found) is not outcome.value:
                    return False
            elif outcome is not None:
                for variant in outcome.variants:
                    if mend(variant.value, found) is not variant.value:
                        return False
        return not found

    def _validated(self, value: T) -> T:
        """Return *value* after all validators, in the form of server values.

        Raises:
            Exception: Anything that one of them raises.
            TypeMismatchError: One returned what is not of the type.
        """
        for validator in self._validators:
            returned = validator(value)
            try:
                value = self.codec.decode(self.codec.encode(returned))
            except TypeMismatchError as exc:
                named = getattr(validator, "__qualname__", repr(validator))
                raise TypeMismatchError(
                    f"the validator {named} returned what does not fit: {exc.message}"
                ) from None
        return value

    def _invalid(self, message: str) -> InvalidSettingError:
        return InvalidSettingError(f"setting {self.name!r}: {message}")

    def _texts(self, given: Iterable[str], what: str) -> tuple[str, ...]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise self._invalid(f"{what} is {given!r}: give a list of strings")
        texts = tuple(given)
        for text in texts:
            if not isinstance(text, str):
                raise self._invalid(f"{what} holds {text!r}, which is not a string")
        return texts

    def _unique(self, texts: tuple[str, ...], what: str) -> tuple[str, ...]:
        for i, text in enumerate(texts):
            if text in texts[:i]:
                raise self._invalid(f"the {what} {text!r} stands twice: remove one")
        return texts

    def _checked_aliases(self, alias: str | Iterable[str]) -> tuple[str, ...]:
        aliases = (alias,) if isinstance(alias, str) else self._texts(alias, "alias")
        for text in aliases:
            if SETTING_NAME.fullmatch(text) is None:
                raise self._invalid(f"the alias {text!r} is not of the form {SETTING_NAME.pattern}")
            if text == self.name:
                raise self._invalid("its name is among its aliases, which are former names: remove it there")
        return self._unique(aliases, "alias")

    def _checked_codec(self, type_: object) -> Codec[T]:
        try:
            return codec_for(type_)
        except InvalidSettingError as exc:
            raise self._invalid(exc.message) from None

    def _checked_default(self, default: T) -> Value:
        try:
            encoded = self.codec.encode(default)
        except TypeMismatchError as exc:
            raise self._invalid(
                f"the default does not fit the type: {exc.message}; give another default or type"
            ) from None
        try:
            self._local_default = self.codec.decode(encoded)
        except Exception as exc:
            raise self._invalid(f"the default cannot be made again from its fields: {exc!r}") from exc
        return encoded

    def _checked_features(self, features: Iterable[str] | None) -> tuple[str, ...] | None:
        if features is None:
            return None
        checked = self._texts(features, "features")
        for feature in checked:
            if FEATURE_NAME.fullmatch(feature) is None:
                raise self._invalid(f"the feature {feature!r} is not of the form {FEATURE_NAME.pattern}")
        return self._unique(checked, "feature")

    def _checked_version(self, version: str) -> Version:
        if not isinstance(version, str):
            raise self._invalid(f"the version {version!r} is not a string: write it as '1.0'")
        try:
            return Version.parse(version)
        except ValueError as exc:
            raise self._invalid(str(exc)) from None

    def _checked_metadata(self, metadata: Mapping[str, object] | None) -> FrozenMapping:
        if metadata is None:
            return FrozenMapping()
        if not isinstance(metadata, Mapping):
            raise self._invalid(f"the metadata {metadata!r} is not a mapping")
        items: dict[str, Value] = {}
        for key, given in metadata.items():
            if not isinstance(key, str) or METADATA_KEY.fullmatch(key) is None:
                raise self._invalid(
                    f"the key {key!r} of the metadata is not of the form {METADATA_KEY.pattern}: "
                    "use letters, digits, '_' and '-'"
                )
            try:
                items[key] = freeze(given)
            except TypeMismatchError as exc:
                raise self._invalid(f"the metadata {key!r} is not JSON: {exc.message}") from None
        return FrozenMapping(items)


class _Localiser(Generic[T]):
    """Brings one setting of the server into the local type."""

    def __init__(self, declared: Setting[T], stored: StoredSetting) -> None:
        self._declared = declared
        self._stored = stored
        self._plain = declared.codec.identity and not declared._validators
        self._decoded: dict[Place, object] = {}
        self._problems: list[Problem] = []

    def localised(self) -> Localised:
        stored = self._stored
        fallback = self._declared._declaration.default
        if stored.value is ABSENT:
            value: Value | Absent = ABSENT
            default = self._base(stored.default, "the default", _BASE)
        else:
            value = self._base(stored.value, "the environment's value", _BASE)
            # No read sees it.
            hidden = self._declared.codec.coerce(stored.default).value
            default = fallback if hidden is ABSENT else hidden
        off: Value | Absent = ABSENT
        if stored.off is ABSENT:
            if not self._plain:
                self._decoded[_OFF] = self._decoded[_BASE]
        else:
            off = self._base(stored.off, "the off value", _OFF)
        setting = dataclasses.replace(
            stored,
            type=self._declared.codec.type,
            default=default,
            value=value,
            off=off,
            rules=tuple(kept for rule in stored.rules if (kept := self._rule(rule)) is not None),
        )
        return Localised(setting, self._decoded or _NOTHING, tuple(self._problems))

    def _base(self, raw: Value, what: str, place: Place) -> Value:
        used = self._used(raw, what, "the local default is used instead", place, None)
        if used is not None:
            return used[0]
        if not self._plain:
            self._decoded[place] = self._declared._local_default
        return self._declared._declaration.default

    def _rule(self, rule: Rule) -> Rule | None:
        """Return *rule* with values of the local type, or None when it cannot be used."""
        outcome: Outcome
        match rule.outcome:
            case None:
                return rule
            case ValueOutcome(raw):
                what = f"the value of the rule {rule.id!r}"
                used = self._used(raw, what, "the rule is skipped", (False, rule.id, None), rule)
                if used is None:
                    return None
                outcome = ValueOutcome(used[0])
            case Distribution(variants=variants) as distribution:
                kept: list[Variant] = []
                for variant in variants:
                    what = f"the variant {variant.name!r} of the rule {rule.id!r}"
                    place = (False, rule.id, variant.name)
                    used = self._used(variant.value, what, "the rule is skipped", place, rule)
                    if used is None:
                        for done in kept:
                            self._decoded.pop((False, rule.id, done.name), None)
                        return None
                    kept.append(dataclasses.replace(variant, value=used[0]))
                outcome = dataclasses.replace(distribution, variants=tuple(kept))
        return dataclasses.replace(rule, outcome=outcome)

    def _used(
        self, raw: Value, what: str, otherwise: str, place: Place, rule: Rule | None
    ) -> tuple[Value] | None:
        """Return what is used of *raw*, after noting its Python value; None when nothing is."""
        declared = self._declared
        coerced = declared.codec.coerce(raw)
        value = coerced.value
        if isinstance(value, Absent):
            why = "; ".join(map(str, coerced.coercions))
            self._note(rule, raw, coerced.coercions, f"{what} does not fit, and {otherwise}: {why}")
            return None
        try:
            decoded = declared.codec.decode(value)
            if declared._validators:
                decoded = declared._validated(decoded)
        except Exception as exc:  # noqa: BLE001 - validators and classes are the caller's
            why = exc.message if isinstance(exc, RheostatError) else repr(exc)
            self._note(rule, raw, coerced.coercions, f"{what} is refused, and {otherwise}: {why}")
            return None
        if not self._plain:
            self._decoded[place] = decoded
        if coerced.coercions:
            dropped = "; ".join(map(str, coerced.coercions))
            self._note(rule, raw, coerced.coercions, f"{what} is used in part: {dropped}", value)
            self._tell(decoded, raw, coerced.coercions, rule)
        return (value,)

    def _tell(self, decoded: T, raw: Value, coercions: tuple[Coercion, ...], rule: Rule | None) -> None:
        declared = self._declared
        if declared.on_coerce is None:
            return
        try:
            declared.on_coerce(declared.copied(decoded), raw, coercions, rule, declared)
        except Exception:
            _LOGGER.exception("on_coerce of the setting %r failed", declared.name)

    def _note(
        self,
        rule: Rule | None,
        raw: Value,
        coercions: tuple[Coercion, ...],
        message: str,
        value: Value | Absent = ABSENT,
    ) -> None:
        rule_id = None if rule is None else rule.id
        self._problems.append(
            Problem(rule_id, raw, coercions, f"setting {self._declared.name!r}: {message}", value)
        )


def settings_of(source: object) -> tuple[Setting[Any], ...]:
    """Return the settings that a module, class, mapping, object or iterable holds, each once, in order.

    Raises:
        InvalidSettingError: An iterable holds something else, or *source* can hold none.
    """
    held: Iterable[object]
    if isinstance(source, Mapping):
        held = source.values()
    elif isinstance(source, type):
        held = [item for base in reversed(source.__mro__) for item in vars(base).values()]
    elif isinstance(source, Iterable) and not isinstance(source, (str, bytes)):
        held = list(source)
        for item in held:
            if not isinstance(item, Setting):
                raise InvalidSettingError(f"{item!r} is not a setting: pass objects of rheostat.Setting")
    elif hasattr(source, "__dict__"):
        held = vars(source).values()
    else:
        raise InvalidSettingError(
            f"{source!r} holds no settings: pass a module, a class, or a list of settings"
        )
    return tuple({id(item): item for item in held if isinstance(item, Setting)}.values())
