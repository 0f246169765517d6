"""Checking flags for subjects: on both clients, and on the readers that they scope."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from rheostat.errors import FailedPreconditionError, RheostatError
from rheostat.evaluation.context import Context
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.model.exposure import ExposureRecord
from rheostat.model.setting import Lifecycle
from rheostat.model.type import BOOL
from rheostat.model.value import ABSENT
from rheostat.sdk import ambient
from rheostat.sdk.effect import Effect
from rheostat.sdk.reader import Reader, S, _ambient_now, _override
from rheostat.sdk.replica import View
from rheostat.sdk.subject import Joined, keys_of

__all__ = ["AsyncChecker", "Checker", "exposure_of"]

log = logging.getLogger("rheostat")

_Attributes = Mapping[str, object]

_NOBODY: Final = Joined({}, {})


class _Checks(Reader[S]):
    """What checks have in common; nothing here waits."""

    __slots__ = ()

    def _ready_joined(self, subjects: _Attributes, plus: object) -> Joined | None:
        """Return what *subjects* add, where that is at hand."""
        if self._source.idle is not None:
            self._before_read(None, subjects)
        if not subjects:
            return _NOBODY
        return None if plus is not None else self._core.subjects.settled(subjects)

    def _quickly(self, name: str, subjects: _Attributes) -> bool | None:
        """Return the verdict where all is at hand and nothing is out of the ordinary; None where `_verdict` is needed."""
        source, core = self._source, self._core
        if source.idle is not None or core.stale or (ambient.used and _ambient_now() is not None):
            return None
        joined = core.subjects.settled(subjects)
        if joined is None or joined.overrides or self._layers:
            return None
        view = source.view
        behind = joined.bases.get(id(self._base))
        if behind is None or behind[0] is not self._base or view.overridden or name not in view.programs:
            return None
        found = view.evaluate(name, joined.attributes, ABSENT, behind[1])  # type: ignore[arg-type]
        value = found.value
        if type(value) is not bool:
            return None
        self._checked(name, found, subjects, None)
        return value

    @property
    def _may_ask(self) -> bool:
        core = self._core
        return not (core.subjects.local or core.options.offline or core.closed)

    def _resolving(self, subjects: _Attributes, timeout: float | None) -> Generator[Effect, Any, Joined]:
        wanted = self._core.options.subject_timeout
        if timeout is not None and timeout >= 0:
            wanted = min(wanted, timeout)
        return self._core.subjects.resolving(subjects, wanted)

    def _unresolved(self, subjects: _Attributes, error: Exception) -> Joined:
        """Return what goes for subjects that could not even be asked for."""
        if not isinstance(error, RheostatError):
            log.error("subjects could not be resolved", exc_info=error)
        named = ", ".join(kind for kind, said in subjects.items() if isinstance(said, Mapping))
        return Joined({}, {}, attributes=dict(subjects), note=f"traits unavailable ({error}): {named}")

    def _verdict(
        self,
        view: View,
        name: str,
        default: Any,
        context: _Attributes | None,
        joined: Joined,
        subjects: _Attributes,
    ) -> Evaluation:
        """Return the evaluation of a flag, which is a bool or has reason ERROR. Never raises."""
        now = _ambient_now()
        base = self._base if now is None else self._ambient_place(now)[1]
        if joined.conflict:
            found = Evaluation(
                value=ABSENT,
                reason=Reason.ERROR,
                revision=view.snapshot.revision,
                error_code=ErrorCode.INVALID_CONTEXT,
                error_message=f"key conflict: {joined.conflict}",
            )
        else:
            override = None
            if joined.layer:
                override = _override(view, name, joined)
                if now is None and not self._layers and context is None:
                    base = self._joined_before(joined, base)
                else:
                    base, other = self._beside(view, name, context, joined, base)
                    override = override or other
            elif self._core.replica.joining:
                base, override = self._with_subjects(view, name, context, base)
            if override is not None:
                found = override
            else:
                attributes: Any = joined.attributes
                if context is not None:
                    attributes = Context(attributes, context) if isinstance(context, Mapping) else context
                found = view.evaluate(name, attributes, ABSENT, base)  # type: ignore[arg-type]
                if found.reason is not Reason.ERROR and name not in view.programs:
                    view.note_read(name)
        if found.reason is not Reason.ERROR and type(found.value) is not bool:
            found = Evaluation(
                value=ABSENT,
                reason=Reason.ERROR,
                revision=found.revision,
                setting_revision=found.setting_revision,
                error_code=ErrorCode.TYPE_MISMATCH,
                error_message=f"the setting {name!r} is no bool",
            )
        if found.reason is Reason.ERROR or view.overridden or self._core.stale:
            found = self._annotated(view, name, found, default)
            if found.reason is Reason.ERROR and default is ABSENT and type(found.value) is not bool:
                found = replace(found, value=False)
        self._checked(name, found, subjects, context)
        return found

    def _beside(
        self, view: View, name: str, context: _Attributes | None, joined: Joined, base: Any
    ) -> tuple[Any, Evaluation | None]:
        """Return what is behind the call's own attributes, with those subjects at hand that other layers name."""
        layers = self._ambient_layers()
        try:
            given = (context,) if isinstance(context, Mapping) else ()
            more = self._core.subjects.at_hand((*given, *layers), without=joined.layer)
        except Exception as error:  # noqa: BLE001 - mappings are the caller's, and a check never raises
            self._core.warn_once(("subjects", str(error)), "subjects could not be joined: %s", error)
            more = None
        if more is None:
            return self._joined_before(joined, base), None
        # Two of a kind never join, not even where one of them is brought by another subject.
        others = {
            path: value for path, value in more.layer.items() if path.partition(".")[0] not in joined.layer
        }
        return ambient.base_of((joined.layer, others, *layers)), _override(view, name, more)

    def _checked(
        self, name: str, found: Evaluation, subjects: _Attributes, context: _Attributes | None
    ) -> None:
        """Count what was found, as often as the client was told to."""
        core = self._core
        share = core.options.exposures
        if share < 1.0 and core.randomness.random() >= share:
            return
        if found.reason is not Reason.ERROR:
            core.events.expose(name, found)
        told = core.options.hooks.on_exposure
        if told is not None:
            try:
                told(exposure_of(name, found, subjects))
            except Exception:
                log.exception("on_exposure has failed")

    def _view_now(self) -> View:
        now = _ambient_now()
        return self._source.view if now is None else self._ambient_place(now)[0]

    def _verdicts(
        self,
        names: Iterable[str] | None,
        default: Any,
        context: _Attributes | None,
        joined: Joined,
        subjects: _Attributes,
    ) -> dict[str, bool]:
        view = self._view_now()
        if names is None:
            names = [
                name
                for name, setting in view.snapshot.settings.items()
                if setting.lifecycle is not Lifecycle.ARCHIVED and _is_flag(setting)
            ]
        try:
            listed = list(names)
        except Exception as error:  # noqa: BLE001 - names are the caller's, and a check never raises
            self._core.warn_once(("names", str(error)), "flags could not be checked: %s", error)
            listed = []
        found: dict[str, bool] = {}
        for name in listed:
            if isinstance(name, str):
                found[name] = self._verdict(view, name, default, context, joined, subjects).value  # type: ignore[assignment]
            else:
                self._core.warn_once(
                    ("names", type(name)), "what is no text names no flag: %s", type(name).__name__
                )
        return found


class Checker(_Checks[S]):
    """A reader that checks flags for subjects, from any thread."""

    __slots__ = ()

    def check(
        self,
        flag: str,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> bool:
        """Return whether *flag*, a setting of type bool, is on for subjects: ``check("beta", user={"id": "u1"})``.

        Stored subjects are found by any of the keys that are named, and their traits, counters and overrides join.
        Those that are not at hand are asked for in one call. Never raises; without an answer in time it goes on
        without them, and `check_details` says so.

        Args:
            flag: The name or an alias.
            default: What is returned when the flag is not there, is no bool, or keys contradict each other. When it is
                not given: that of `with_defaults`, of the client, of the declaration, else False.
            context: Further attributes.
            timeout: Seconds that asking may take, at most `subject_timeout`.
            plus: Counters to raise for this check alone, by event: ``{"api-call": 1}`` asks whether one more would fit.
            subjects: By kind, the keys of each, and what else is to be said of it: that wins over its traits.
        """
        if context is None and plus is None:
            quick = self._quickly(flag, subjects)
            if quick is not None:
                return quick
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = self._resolved(subjects, timeout, plus)
        return self._verdict(self._view_now(), flag, default, context, joined, subjects).value  # type: ignore[return-value]

    def check_details(
        self,
        flag: str,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> Evaluation:
        """Return what `check` does, and how it came about; `note` says which subjects it came about without, and why."""
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = self._resolved(subjects, timeout, plus)
        found = self._verdict(self._view_now(), flag, default, context, joined, subjects)
        return replace(found, note=joined.note) if joined.note else found

    def check_all(
        self,
        names: Iterable[str] | None = None,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> dict[str, bool]:
        """Return what `check` does for flags, by name, at one revision; without *names* for all that are not archived."""
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = self._resolved(subjects, timeout, plus)
        return self._verdicts(names, default, context, joined, subjects)

    def _resolved(
        self, subjects: _Attributes, timeout: float | None, plus: Mapping[str, int] | None
    ) -> Joined:
        client: Any = self._owner or self
        try:
            work = self._resolving(subjects, timeout)
            joined = client._driver().run(work) if self._may_ask else _at_once(work)
        except Exception as error:  # noqa: BLE001 - a check never raises
            joined = self._unresolved(subjects, error)
        return _plus(joined, plus)

    def with_context(self, context: _Attributes | None = None, /, **attributes: object) -> Checker[S]:
        """Return a reader with more context; see `Reader.with_context`."""
        return super().with_context(context, **attributes)  # type: ignore[return-value]

    def with_defaults(self, defaults: Mapping[str, object]) -> Checker[S]:
        """Return a reader with more defaults; see `Reader.with_defaults`."""
        return super().with_defaults(defaults)  # type: ignore[return-value]

    def pin(self) -> Checker[S]:
        """Return a reader that stays at the revision that is read now; see `Reader.pin`."""
        return super().pin()  # type: ignore[return-value]


class AsyncChecker(_Checks[S]):
    """A reader that checks flags for subjects, from any task."""

    __slots__ = ()

    async def check(
        self,
        flag: str,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> bool:
        """Return whether *flag* is on for subjects; see `Checker.check`."""
        if context is None and plus is None:
            quick = self._quickly(flag, subjects)
            if quick is not None:
                return quick
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = await self._resolved(subjects, timeout, plus)
        return self._verdict(self._view_now(), flag, default, context, joined, subjects).value  # type: ignore[return-value]

    async def check_details(
        self,
        flag: str,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> Evaluation:
        """Return what `check` does, and how it came about; see `Checker.check_details`."""
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = await self._resolved(subjects, timeout, plus)
        found = self._verdict(self._view_now(), flag, default, context, joined, subjects)
        return replace(found, note=joined.note) if joined.note else found

    async def check_all(
        self,
        names: Iterable[str] | None = None,
        /,
        *,
        default: Any = ABSENT,
        context: Mapping[str, object] | None = None,
        timeout: float | None = None,
        plus: Mapping[str, int] | None = None,
        **subjects: object,
    ) -> dict[str, bool]:
        """Return what `check` does for flags, by name; see `Checker.check_all`."""
        joined = self._ready_joined(subjects, plus)
        if joined is None:
            joined = await self._resolved(subjects, timeout, plus)
        return self._verdicts(names, default, context, joined, subjects)

    async def _resolved(
        self, subjects: _Attributes, timeout: float | None, plus: Mapping[str, int] | None
    ) -> Joined:
        client: Any = self._owner or self
        try:
            work = self._resolving(subjects, timeout)
            joined = await client._driver().run(work) if self._may_ask else _at_once(work)
        except Exception as error:  # noqa: BLE001 - a check never raises
            joined = self._unresolved(subjects, error)
        return _plus(joined, plus)

    def with_context(self, context: _Attributes | None = None, /, **attributes: object) -> AsyncChecker[S]:
        """Return a reader with more context; see `Reader.with_context`."""
        return super().with_context(context, **attributes)  # type: ignore[return-value]

    def with_defaults(self, defaults: Mapping[str, object]) -> AsyncChecker[S]:
        """Return a reader with more defaults; see `Reader.with_defaults`."""
        return super().with_defaults(defaults)  # type: ignore[return-value]

    def pin(self) -> AsyncChecker[S]:
        """Return a reader that stays at the revision that is read now; see `Reader.pin`."""
        return super().pin()  # type: ignore[return-value]


Checker._scoped = Checker
AsyncChecker._scoped = AsyncChecker


def _at_once(work: Generator[Effect, Any, Joined]) -> Joined:
    """Run work that has nothing to wait for."""
    try:
        next(work)
        while True:
            work.throw(FailedPreconditionError("the client is offline or closed"))
    except StopIteration as stop:
        found: Joined = stop.value
        return found


def _plus(joined: Joined, plus: object) -> Joined:
    if not isinstance(plus, Mapping):
        return joined
    numbers = {
        event: quantity
        for event, quantity in plus.items()
        if isinstance(event, str) and isinstance(quantity, int) and not isinstance(quantity, bool)
    }
    return joined.raised(numbers) if numbers else joined


def _is_flag(setting: Any) -> bool:
    return setting.type == BOOL or type(setting.base_value) is bool


def exposure_of(name: str, found: Evaluation, subjects: _Attributes) -> ExposureRecord:
    """Return that *found* was given for the setting *name* to *subjects*, which a call has named."""
    return ExposureRecord(
        setting=name,
        value=found.value,
        reason=found.reason.value,
        rule_id=found.rule_id,
        variant=found.variant,
        revision=found.revision,
        subjects={
            kind: keys
            for kind, said in subjects.items()
            if isinstance(said, Mapping) and (keys := keys_of(kind, said))
        },
        time=datetime.datetime.now(datetime.UTC),
        error_code=None if found.error_code is None else found.error_code.value,
        setting_revision=found.setting_revision,
    )
