"""A hook that tells of evaluations: to a warehouse, to OpenTelemetry, to whatever takes exposures."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from openfeature.flag_evaluation import FlagEvaluationDetails
from openfeature.hook import Hook, HookContext, HookHints

from rheostat.errors import TypeMismatchError
from rheostat.evaluation.context import Context
from rheostat.model.exposure import ExposureRecord
from rheostat.model.value import ABSENT, Absent, Value, freeze
from rheostat.openfeature.context import TargetingKey, checked_path, subject_paths, subjects_of

__all__ = ["ExposureHook"]

log: Final = logging.getLogger("rheostat")


class ExposureHook(Hook):
    """Calls a function with each evaluation, as an `ExposureRecord`.

    For the whole API, a client, one evaluation (`FlagEvaluationOptions`), or a provider::

        api.add_hooks([ExposureHook(NdjsonWriter("exposures.ndjson"), attributes=["region"])])
    """

    def __init__(
        self,
        on_exposure: Callable[[ExposureRecord], object],
        *,
        attributes: Iterable[str] = (),
        targeting_key: str = "user.id",
        subject_keys: Iterable[str] = ("user.id", "company.id"),
        errors: bool = True,
    ) -> None:
        """Tell *on_exposure*.

        Args:
            on_exposure: Called in the thread that evaluates, so it should not wait: `NdjsonWriter` and
                `otel.exposures` do not. What it raises is logged.
            attributes: Paths of the attributes of the context to tell, such as ``region``.
            targeting_key: The attribute that the targeting key is, as the provider was told.
            subject_keys: Attributes that name subjects.
            errors: Tell of evaluations that have failed, too.

        Raises:
            InvalidArgumentError: A path cannot be that of an attribute.
        """
        self._on_exposure = on_exposure
        self._attributes = tuple(checked_path("attributes", path) for path in attributes)
        self._targeting_key = TargetingKey(targeting_key)
        self._subject_keys = subject_paths(targeting_key, subject_keys)
        self._errors = errors

    def finally_after(
        self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints
    ) -> None:
        """Tell of the evaluation. Called by the SDK."""
        if details.error_code is None or self._errors:
            try:
                self._on_exposure(self._record(hook_context, details))
            except Exception:
                log.exception("an exposure of %r could not be told", details.flag_key)

    def _record(self, hook_context: HookContext, details: FlagEvaluationDetails[Any]) -> ExposureRecord:
        attributes = self._targeting_key.attributes(hook_context.evaluation_context) or {}
        context = Context(attributes)
        chosen = {path: context.lookup(path) for path in self._attributes}
        metadata = details.flag_metadata
        rule_id = metadata.get("rule_id")
        return ExposureRecord(
            setting=details.flag_key,
            value=_frozen(details.value),
            reason=str(details.reason or "UNKNOWN"),
            rule_id=None if rule_id is None else str(rule_id),
            variant=details.variant,
            revision=_revision(metadata.get("revision")),
            subjects=subjects_of(attributes, self._subject_keys),
            time=datetime.datetime.now(datetime.UTC),
            error_code=None if details.error_code is None else str(details.error_code),
            context={path: value for path, value in chosen.items() if value is not ABSENT},
            setting_revision=_revision(metadata.get("setting_revision")),
        )


def _revision(told: object) -> int:
    """Return a revision; 0 for what another provider calls by that name."""
    return told if type(told) is int else 0


def _frozen(value: object) -> Value | Absent:
    try:
        return freeze(value)
    except TypeMismatchError:
        # A default of the caller's, of whatever type.
        return ABSENT
