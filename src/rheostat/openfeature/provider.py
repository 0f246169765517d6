"""What the providers have in common: flags of OpenFeature's SDK, read from a client's local replica."""

from __future__ import annotations

import marshal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.hook import Hook
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from rheostat.errors import (
    AuthenticationError,
    InvalidArgumentError,
    PermissionDeniedError,
    RheostatError,
)
from rheostat.evaluation.join import OVERRIDE
from rheostat.evaluation.result import ErrorCode as OwnErrorCode
from rheostat.evaluation.result import Evaluation
from rheostat.evaluation.result import Reason as OwnReason
from rheostat.model.value import ABSENT, FrozenMapping, thaw
from rheostat.openfeature.context import TargetingKey, naming, subject_paths, subjects_of
from rheostat.openfeature.listening import listen
from rheostat.sdk.client import BaseClient
from rheostat.sdk.status import Status
from rheostat.sdk.subject import Joined

__all__ = ["Provider", "Structure"]

C = TypeVar("C", bound=BaseClient[Any])
T = TypeVar("T")

Structure = Sequence[FlagValueType] | Mapping[str, FlagValueType]
_FlagMetadata = dict[str, bool | int | float | str]
_Known = tuple[Evaluation, Reason, _FlagMetadata, bytes]
"""An evaluation, what does not change of its details, and lists and mappings as bytes."""

_NAME: Final = "rheostat"

_REASONS: Final = {reason.value: Reason(reason.value) for reason in OwnReason}

_EVENTS: Final = {
    Status.LIVE: ProviderEvent.PROVIDER_READY,
    Status.OFFLINE: ProviderEvent.PROVIDER_READY,
    Status.STALE: ProviderEvent.PROVIDER_STALE,
    Status.CLOSED: ProviderEvent.PROVIDER_STALE,
    Status.UNAUTHORIZED: ProviderEvent.PROVIDER_ERROR,
}
"""What a status means to an application. The values go on being served in all of them."""

_MESSAGES: Final = {
    Status.STALE: "nothing was heard of the server for a while: the last values are served",
    Status.CLOSED: "the client was closed: the last values are served",
}

_REMEMBERED: Final = 4096
"""Of how many evaluations of one revision details are kept."""


class Provider(AbstractProvider, Generic[C]):
    """What both providers have in common. Safe from any thread."""

    def __init__(
        self,
        client: C | str | None,
        *,
        targeting_key: str,
        subject_keys: Iterable[str],
        fetch_subjects: bool,
        count_exposures: bool,
        hooks: Iterable[Hook],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._fetches = fetch_subjects
        # Chosen once: reads are to cost no more than they must.
        self._details = self._counted if count_exposures else self._uncounted
        self._attributes = TargetingKey(targeting_key).attributes
        self._subject_keys = subject_paths(targeting_key, subject_keys)
        self._hooks = list(hooks)
        # None for a client that somebody else closes.
        self._make: Callable[[], C] | None = None
        if client is None or isinstance(client, str):
            self._make = lambda: self._made(client, options)
            self._use(self._make())
        elif options:
            listed = ", ".join(map(repr, sorted(options)))
            raise InvalidArgumentError(
                f"the options {listed} are for a client that the provider makes itself"
            )
        else:
            self._use(client)
        self._closed = False
        self._lock = threading.Lock()
        self._unlisten: Callable[[], None] | None = None
        # What the application was told last, by the SDK or here; None while it waits for the SDK to say.
        self._told: ProviderEvent | None = None
        # The SDK tells how `initialize` has ended, which by then may be wrong.
        self._said: ProviderEvent | None = None
        self._unsettled = False
        # By identity, as the replica makes each evaluation once: what does not change of its details.
        self._known: dict[int, _Known] = {}
        self._revision = -1

    def _made(self, url: str | None, options: Mapping[str, Any]) -> C:
        raise NotImplementedError

    def _use(self, client: C) -> None:
        self._client = client
        self._evaluate: Callable[[str, Any, Mapping[str, object] | None], Evaluation] = (
            self._evaluate_for_subjects if self._fetches else client.evaluate
        )

    # Stored subjects.

    def _evaluate_for_subjects(
        self, flag_key: str, default: Any, attributes: Mapping[str, object] | None
    ) -> Evaluation:
        """Evaluate with the stored subjects that *attributes* name, after asking for them if that is possible here."""
        subjects = self._subjects(attributes)
        if attributes is None or not subjects:
            return self._client.evaluate(flag_key, default, attributes)
        joined = self._at_hand(subjects) or self._fetched(subjects)
        if joined is None:
            note = f"traits unavailable (not at hand): {', '.join(subjects)}"
        elif joined.conflict:
            return Evaluation(
                value=ABSENT,
                reason=OwnReason.ERROR,
                revision=self._client.revision,
                error_code=OwnErrorCode.INVALID_CONTEXT,
                error_message=f"key conflict: {joined.conflict}",
            )
        else:
            note = joined.note
        found = self._client.evaluate(flag_key, default, naming(attributes, subjects))
        return replace(found, note=note) if note else found

    def _subjects(self, attributes: Mapping[str, object] | None) -> dict[str, dict[str, str]]:
        return subjects_of(attributes, self._subject_keys) if isinstance(attributes, Mapping) else {}

    def _at_hand(self, subjects: Mapping[str, object]) -> Joined | None:
        client: Any = self._client
        found: Joined | None = client._ready_joined(subjects, None)
        return found

    def _fetched(self, subjects: Mapping[str, object]) -> Joined | None:
        """Return what *subjects* add after asking for them; None where nobody can wait for that. Never raises."""
        raise NotImplementedError

    # What the SDK asks.

    def get_metadata(self) -> Metadata:
        """Return the provider's name, ``rheostat``."""
        return Metadata(name=_NAME)

    def get_provider_hooks(self) -> list[Hook]:
        """Return the hooks that the provider was made with."""
        return self._hooks

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Return the value of a bool setting. Never raises."""
        attributes = self._attributes(evaluation_context)
        found = self._evaluate(flag_key, default_value, attributes)
        value = found.value
        if type(value) is not bool or found.error_code is not None:
            return self._failed(flag_key, "bool", default_value, found)
        return self._details(flag_key, found, value)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Return the value of a string setting, an enumeration's too. Never raises."""
        attributes = self._attributes(evaluation_context)
        found = self._evaluate(flag_key, default_value, attributes)
        value = found.value
        if type(value) is not str or found.error_code is not None:
            return self._failed(flag_key, "string", default_value, found)
        return self._details(flag_key, found, value)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Return the value of an integer setting, or an integral float as int. Never raises."""
        attributes = self._attributes(evaluation_context)
        found = self._evaluate(flag_key, default_value, attributes)
        value = found.value
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or found.error_code is not None:
            return self._failed(flag_key, "integer", default_value, found)
        return self._details(flag_key, found, value)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Return the value of a number's setting, an int as float. Never raises."""
        attributes = self._attributes(evaluation_context)
        found = self._evaluate(flag_key, default_value, attributes)
        value = found.value
        if type(value) is int:
            value = float(value)
        if type(value) is not float or found.error_code is not None:
            return self._failed(flag_key, "number", default_value, found)
        return self._details(flag_key, found, value)

    def resolve_object_details(
        self, flag_key: str, default_value: Structure, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Structure]:
        """Return the value of a setting of lists or mappings, as fresh lists and dicts. Never raises."""
        attributes = self._attributes(evaluation_context)
        found = self._evaluate(flag_key, default_value, attributes)
        value = found.value
        if (type(value) is not FrozenMapping and type(value) is not tuple) or found.error_code is not None:
            return self._failed(flag_key, "list or mapping", default_value, found)
        return self._details(flag_key, found, ABSENT)

    def _uncounted(self, flag_key: str, found: Evaluation, value: Any) -> FlagResolutionDetails[Any]:
        """Return the details of an evaluation; *value* is ABSENT for fresh lists and dicts."""
        known = self._known.get(id(found))
        if known is None or known[0] is not found:
            known = self._learned(found)
        _, reason, metadata, text = known
        if value is ABSENT:
            # Made here, of JSON's types, and a tenth of the time of copying in Python.
            value = marshal.loads(text)  # noqa: S302
        # Whoever gets the metadata may change them.
        return FlagResolutionDetails(value, None, None, reason, found.variant, metadata.copy())

    def _counted(self, flag_key: str, found: Evaluation, value: Any) -> FlagResolutionDetails[Any]:
        core = self._client._core
        share = core.options.exposures
        if share >= 1.0 or core.randomness.random() < share:
            core.events.expose(flag_key, found)
        return self._uncounted(flag_key, found, value)

    def _learned(self, found: Evaluation) -> _Known:
        if self._unsettled:
            self._settle()
        reason = Reason.STALE if found.stale else _REASONS[found.reason.value]
        text = marshal.dumps(thaw(found.value)) if isinstance(found.value, (tuple, FrozenMapping)) else b""
        known = found, reason, self._metadata(found), text
        # The replica makes those of stale and overridden settings anew for each read.
        if not found.stale and found.variant != OVERRIDE:
            if found.revision != self._revision or len(self._known) >= _REMEMBERED:
                # Values may be large, and those of earlier revisions are read by hardly anybody.
                self._revision = found.revision
                self._known.clear()
            self._known[id(found)] = known
        return known

    def _metadata(self, found: Evaluation) -> _FlagMetadata:
        metadata: _FlagMetadata = {
            "revision": found.revision,
            "setting_revision": found.setting_revision,
            # The names of OpenFeature's appendix D, for hooks that trace.
            "version": str(found.setting_revision),
        }
        options = self._client._core.options
        # One of both names no flag set; the other is then the key's.
        if options.project and options.environment:
            metadata["flagSetId"] = f"{options.project}/{options.environment}"
        if found.rule_id is not None:
            metadata["rule_id"] = found.rule_id
        if found.note:
            metadata["note"] = found.note
        return metadata

    def _failed(self, flag_key: str, wanted: str, default: T, found: Evaluation) -> FlagResolutionDetails[T]:
        if self._unsettled:
            self._settle()
        if found.error_code is None:
            code, message = ErrorCode.TYPE_MISMATCH, f"the setting {flag_key!r} is no {wanted}"
        else:
            code, message = ErrorCode(found.error_code.value), found.error_message
        return FlagResolutionDetails(default, code, message, Reason.ERROR, None, self._metadata(found))

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Track an event for the subjects that the context names, as `Client.track` does. Neither waits nor raises.

        Quantities are integers and a value need be none: so the attribute ``quantity`` of the details, if it is an
        integer, is how much there is of it, and the value of the details is kept as the attribute ``value``.
        """
        details = {} if tracking_event_details is None else dict(tracking_event_details.attributes)
        value = None if tracking_event_details is None else tracking_event_details.value
        if value is not None:
            details.setdefault("value", value)
        quantity = details.get("quantity")
        if type(quantity) is int:
            del details["quantity"]
        else:
            quantity = 1
        context = self._attributes(evaluation_context)
        subjects = subjects_of(context or {}, self._subject_keys)
        self._client.track(tracking_event_name, quantity=quantity, attributes=details, **subjects)

    # How the provider stands.

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Start the client and wait for a state. Called by the SDK; what comes later is told by events.

        Raises:
            ProviderFatalError: The server refuses the key.
            ProviderNotReadyError: There is no state yet, nor one in a cache. It is ready as soon as one has come.
        """
        if self._closed and self._make is not None:
            self._use(self._make())
            self._known.clear()
        self._closed = False
        with self._lock:
            self._told = None
            self._unsettled = False
        try:
            self._start()
            client = self._client
            if not client.ready:
                raise ProviderNotReadyError(f"the client is not ready: it is {client.status.value}")
        except (AuthenticationError, PermissionDeniedError) as error:
            self._begin(ProviderEvent.PROVIDER_ERROR)
            raise ProviderFatalError(str(error)) from error
        except RheostatError as error:
            self._begin(ProviderEvent.PROVIDER_ERROR)
            raise ProviderNotReadyError(str(error)) from error
        except BaseException:
            self._begin(ProviderEvent.PROVIDER_ERROR)
            raise
        self._begin(ProviderEvent.PROVIDER_READY)

    def shutdown(self) -> None:
        """End the events, and the client if the provider has made it. Called by the SDK."""
        with self._lock:
            unlisten, self._unlisten = self._unlisten, None
            self._closed = True
        if unlisten is not None:
            unlisten()
        if self._make is not None:
            self._end()

    def _start(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _begin(self, told: ProviderEvent) -> None:
        """Begin to tell events; the SDK tells of *told* once `initialize` has ended."""
        if self._unlisten is None:
            self._unlisten = listen(self._client, self._tell, self._names_changed)
        with self._lock:
            self._told = self._said = told
        if _EVENTS.get(self._client.status) is not told:
            self._unsettled = True
            # What is known is not looked at twice.
            self._known.clear()

    def _settle(self) -> None:
        """Tell where the client stands, if that is not what the SDK has told.

        No flag is resolved before the SDK has done so, and an event that was told earlier may have been too early.
        """
        self._unsettled = False
        status = self._client.status
        with self._lock:
            self._told = self._said
        self._tell(status)

    def _tell(self, status: Status) -> None:
        event = _EVENTS.get(status)
        with self._lock:
            if event is None or event is self._told or self._told is None or self._closed:
                return
            self._told = event
        details = ProviderEventDetails(message=_MESSAGES.get(status))
        if event is ProviderEvent.PROVIDER_ERROR:
            refusal = self._client._core.refusal
            details.message = "the server refuses the client" if refusal is None else str(refusal)
            # A fatal error would end the serving of the last values.
            has_state = self._client._core.has_state
            details.error_code = ErrorCode.GENERAL if has_state else ErrorCode.PROVIDER_FATAL
        self.emit(event, details)

    def _names_changed(self, names: list[str]) -> None:
        if not self._closed:
            details = ProviderEventDetails(flags_changed=names, metadata={"revision": self._client.revision})
            self.emit(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, details)
