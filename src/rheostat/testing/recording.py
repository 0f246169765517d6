"""Readers that remember what was read through them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rheostat.evaluation.result import Evaluation, Reason
from rheostat.model.exposure import ExposureRecord
from rheostat.model.value import ABSENT, Absent, Value
from rheostat.sdk import ambient
from rheostat.sdk.checker import AsyncChecker, Checker, _Checks, exposure_of
from rheostat.sdk.reader import Reader, S
from rheostat.sdk.replica import ViewSource

if TYPE_CHECKING:
    from rheostat.sdk.setting import Setting

__all__ = [
    "RecordedEvaluation",
    "RecordedEvent",
    "RecordedIdentity",
    "RecordingAsyncChecker",
    "RecordingChecker",
    "RecordingReader",
]

T = TypeVar("T")

_Attributes = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RecordedEvaluation:
    """One read.

    Attributes:
        name: As it was asked for, which may be an alias.
        context: All attributes that counted, of the call, ambient and of the reader; without ``client.id``.
        value: What the caller got.
        reason: Why.
        rule_id: The rule that matched, or None.
        variant: The variant that was given, or None.
    """

    name: str
    context: Mapping[str, object]
    value: Any
    reason: Reason
    rule_id: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One call of `track`.

    Attributes:
        event: What has happened.
        quantity: How much of it.
        attributes: What else was said.
        subjects: To whom, by kind: the keys.
    """

    event: str
    quantity: int
    attributes: Mapping[str, Value]
    subjects: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class RecordedIdentity:
    """One call of `identify`.

    Attributes:
        kind: What the subject is.
        keys: By name.
        traits: That were set; None for one that was removed.
        member_of: Kinds and keys of what it became a member of.
    """

    kind: str
    keys: Mapping[str, str]
    traits: Mapping[str, Value]
    member_of: tuple[tuple[str, Mapping[str, str]], ...] = ()


class RecordingReader(Reader[S]):
    """Appends each read that has answered to `evaluations`, and makes readers that append to the same list.

    Attributes:
        evaluations: The reads so far, the oldest first; yours to clear.
        exposures: The checks so far, likewise.
    """

    evaluations: list[RecordedEvaluation]
    exposures: list[ExposureRecord]

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self._record(name, value, super().evaluate(name), ())
        return value

    def get(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Any:
        """Return the value; see `Reader.get`."""
        value = super().get(name, default, context, **attributes)
        found = super().evaluate(name, default, context, **attributes)
        self._record(name, value, found, (attributes, context))
        return value

    def evaluate(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Evaluation:
        """Return the evaluation; see `Reader.evaluate`."""
        found = super().evaluate(name, default, context, **attributes)
        self._record(name, found.value, found, (attributes, context))
        return found

    def evaluate_setting(
        self, setting: Setting[T], default: T | Absent, context: _Attributes | None, attributes: _Attributes
    ) -> Evaluation:
        """Return the evaluation of a declared setting; see `Reader.evaluate_setting`."""
        found = super().evaluate_setting(setting, default, context, attributes)
        self._record(setting.name, found.value, found, (attributes, context))
        return found

    def _record(self, name: str, value: Any, found: Evaluation, given: tuple[object, ...]) -> None:
        now = ambient.current.get()
        layers = (*given, *(() if now is None else now.layers), *self._layers)
        self.evaluations.append(
            RecordedEvaluation(name, _merged(layers), value, found.reason, found.rule_id, found.variant)
        )

    def _other(
        self, source: ViewSource, layers: tuple[_Attributes, ...], defaults: Mapping[str, object]
    ) -> Reader[S]:
        found: RecordingReader[S] = self._scoped()  # type: ignore[assignment]
        found.evaluations = self.evaluations
        found.exposures = self.exposures
        found._read_from(self._core, source, layers, defaults, self._owner or self)
        return found


class _RecordingChecks(RecordingReader[S], _Checks[S]):
    """Records checks, too."""

    def _checked(
        self, name: str, found: Evaluation, subjects: _Attributes, context: _Attributes | None
    ) -> None:
        super()._checked(name, found, subjects, context)
        self._record(name, found.value, found, (subjects, context))
        self.exposures.append(exposure_of(name, found, subjects))


class RecordingChecker(_RecordingChecks[S], Checker[S]):
    """Records reads and checks."""


class RecordingAsyncChecker(_RecordingChecks[S], AsyncChecker[S]):
    """Records reads and checks."""


RecordingReader._scoped = RecordingReader
RecordingChecker._scoped = RecordingChecker
RecordingAsyncChecker._scoped = RecordingAsyncChecker


def _merged(layers: tuple[object, ...]) -> dict[str, object]:
    """Return the attributes of *layers*, the strongest first, as one mapping."""
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        if isinstance(layer, Mapping):
            # Reads never raise, whatever mapping they are given.
            with suppress(Exception):
                _lay_over(merged, ambient.resolved(layer))
    return merged


def _lay_over(merged: dict[str, object], layer: Mapping[str, object]) -> None:
    for name in layer:
        with suppress(Exception):
            if name not in layer:
                # A context variable without a value.
                continue
            value = layer[name]
            if isinstance(value, Mapping):
                former = merged.get(name)
                inner = dict(former) if isinstance(former, Mapping) else {}
                _lay_over(inner, value)
                value = inner
            merged[name] = value
