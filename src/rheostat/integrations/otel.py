"""OpenTelemetry: evaluations as events and in metrics, and how clients stand.

Needs the extra `otel`. The names are those of OpenTelemetry's convention for feature flags
(https://opentelemetry.io/docs/specs/semconv/feature-flags/feature-flags-events/). Spans of calls and streams are the
HTTP client's: pass an instrumented one as `http_client`.

    client = Client("http://127.0.0.1:7420")
    settings = otel.traced(client)          # reads through it are recorded; those through `client` cost nothing
    otel.observe(client)                    # gauges: revision, staleness, readiness
    otel.exposures(set_id="shop/live")      # for on_exposure, and rheostat.openfeature.ExposureHook

An evaluation is an event ``feature_flag.evaluation`` with ``feature_flag.key``, ``feature_flag.provider.name``,
``feature_flag.result.reason``, ``feature_flag.result.variant``, ``feature_flag.result.value`` where that is asked for,
``feature_flag.set.id`` (where the client was told project and environment), ``feature_flag.version`` (the setting's
revision), ``feature_flag.context.id``, and for errors ``error.type`` and ``feature_flag.error.message``. As the
convention has it, it goes to the logger, if a logger provider is set up, with the ids of the current span; else it is
an event of that span.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rheostat.errors import MissingDependencyError
from rheostat.evaluation.context import Context
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.model.exposure import ExposureRecord
from rheostat.model.value import ABSENT, Absent
from rheostat.sdk.client import BaseClient
from rheostat.sdk.reader import Reader, S
from rheostat.sdk.replica import ViewSource

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation

    from rheostat.sdk.setting import Setting

__all__ = ["TracedReader", "exposures", "observe", "traced"]

T = TypeVar("T")

log: Final = logging.getLogger("rheostat")

_Attributes = Mapping[str, object]

_SCOPE: Final = "rheostat"

_EVENT: Final = "feature_flag.evaluation"


def traced(
    reader: Reader[S],
    *,
    context_id: str = "user.id",
    values: bool = False,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> TracedReader[S]:
    """Return a reader of the same settings that records each evaluation.

    What cannot be recorded, because a processor or exporter raises, ends no read: the first such error is logged.

    An evaluation becomes an event, and counts in the metric `feature_flag.evaluations`. Declared settings are recorded
    once they are bound to the result: ``setting.bind(traced(client))``.

    Args:
        reader: A client, or what `with_context` and `pin` return.
        context_id: The attribute that is recorded as the id of the context; empty for none.
        values: Record values, too; they may be large or secret.
        meter_provider: Where the metric goes; None is the global one.
        logger_provider: Where events go; None is the global one.

    Raises:
        MissingDependencyError: The extra `otel` is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise _missing() from error
    found: TracedReader[S] = TracedReader()
    found._events = _Events(logger_provider)
    found._context_id = context_id
    found._values = values
    found._count = metrics.get_meter(_SCOPE, meter_provider=meter_provider).create_counter(
        "feature_flag.evaluations", unit="{evaluation}", description="evaluations of settings"
    )
    owner = reader._owner or reader
    found._read_from(reader._core, reader._source, reader._layers, reader._defaults, owner)
    return found


def exposures(
    *,
    set_id: str = "",
    context_id: str = "user.id",
    values: bool = False,
    logger_provider: LoggerProvider | None = None,
) -> Callable[[ExposureRecord], None]:
    """Return a function that makes an event of each exposure that it is called with, in the context of the call.

    For evaluations that the application chooses: as `on_exposure` of a client, or in a
    `rheostat.openfeature.ExposureHook`. What it returns may be called from any thread.

    Args:
        set_id: What is recorded as the id of the flag set, such as ``project/environment``; empty for none.
        context_id: The key of a subject, as kind and key, that is recorded as the id of the context; empty for none.
        values: Record values, too; they may be large or secret.
        logger_provider: Where events go; None is the global one.

    Raises:
        MissingDependencyError: The extra `otel` is not installed.
    """
    events = _Events(logger_provider)
    kind, _, key = context_id.partition(".")

    def emit(record: ExposureRecord) -> None:
        if not events.wanted:
            return
        attributes = _attributes(record.setting, record.reason, record.variant, record.error_code)
        if record.setting_revision:
            attributes["feature_flag.version"] = str(record.setting_revision)
        if set_id:
            attributes["feature_flag.set.id"] = set_id
        unit = record.subjects.get(kind, {}).get(key)
        if unit is not None:
            attributes["feature_flag.context.id"] = unit
        if values and record.value is not ABSENT:
            attributes["feature_flag.result.value"] = _recorded(record.value)
        events.emit(attributes, record.time.timestamp())

    return emit


def observe(client: BaseClient[Any], *, meter_provider: MeterProvider | None = None) -> None:
    """Report how *client* stands, for as long as it lives.

    Gauges, with the attributes ``rheostat.client.id`` and ``rheostat.client.status``: `rheostat.client.revision`, and
    `rheostat.client.ready` and `rheostat.client.stale`, which are 0 or 1.

    Args:
        client: The client.
        meter_provider: Where the metrics go; None is the global one.

    Raises:
        MissingDependencyError: The extra `otel` is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise _missing() from error
    meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
    observed = weakref.ref(client)

    def gauge(name: str, unit: str, description: str, measure: Any) -> None:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            living = observed()
            if living is None:
                return []
            attributes = {
                "rheostat.client.id": living.client_id,
                "rheostat.client.status": living.status.value,
            }
            return [metrics.Observation(measure(living), attributes)]

        meter.create_observable_gauge(name, callbacks=[read], unit=unit, description=description)

    gauge(
        "rheostat.client.revision",
        "{revision}",
        "the revision up to which everything has been delivered",
        lambda living: 0 if living.position is None else living.position.revision,
    )
    gauge("rheostat.client.ready", "1", "whether there is a state", lambda living: int(living.ready))
    gauge("rheostat.client.stale", "1", "whether the server is silent", lambda living: int(living.stale))


class TracedReader(Reader[S]):
    """Reads as `Reader` does, and records; see `traced`, which makes one."""

    _events: _Events
    _count: Counter
    _context_id: str
    _values: bool

    def __getitem__(self, name: str) -> Any:
        found = self.evaluate(name)
        if found.value is ABSENT or (found.value is None and name not in self):
            # Raises, and says why.
            return super().__getitem__(name)
        return found.value

    def get(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Any:
        """Return the value; see `Reader.get`."""
        found = self.evaluate(name, default, context, **attributes)
        return None if found.value is ABSENT else found.value

    def evaluate(
        self, name: str, default: Any = ABSENT, /, context: _Attributes | None = None, **attributes: object
    ) -> Evaluation:
        """Return the evaluation; see `Reader.evaluate`."""
        found = super().evaluate(name, default, context, **attributes)
        self._record(name, found, (attributes, context))
        return found

    def evaluate_setting(
        self, setting: Setting[T], default: T | Absent, context: _Attributes | None, attributes: _Attributes
    ) -> Evaluation:
        """Return the evaluation of a declared setting; see `Reader.evaluate_setting`."""
        found = super().evaluate_setting(setting, default, context, attributes)
        self._record(setting.name, found, (attributes, context))
        return found

    def _other(
        self, source: ViewSource, layers: tuple[_Attributes, ...], defaults: Mapping[str, object]
    ) -> Reader[S]:
        found: TracedReader[S] = TracedReader()
        found._events, found._count = self._events, self._count
        found._context_id, found._values = self._context_id, self._values
        found._read_from(self._core, source, layers, defaults, self._owner or self)
        return found

    def _record(self, name: str, found: Evaluation, given: tuple[object, ...]) -> None:
        if not isinstance(name, str):
            return
        try:
            self._told(name, found, given)
        except Exception as error:  # noqa: BLE001 - what the program has set up to be told must not end its reads
            self._events.complain(error)

    def _told(self, name: str, found: Evaluation, given: tuple[object, ...]) -> None:
        code = found.error_code if found.reason is Reason.ERROR else None
        attributes = _attributes(
            name, found.reason.value, found.variant, None if code is None else code.value
        )
        self._count.add(1, attributes)
        if not self._events.wanted:
            return
        event = {**attributes, "feature_flag.version": str(found.setting_revision)}
        options = self._core.options
        # One of both names no flag set; the other is then the key's.
        if options.project and options.environment:
            event["feature_flag.set.id"] = f"{options.project}/{options.environment}"
        if self._context_id:
            layers = [layer for layer in (*given, *self._ambient_layers()) if isinstance(layer, Mapping)]
            unit = Context(*layers).lookup(self._context_id)
            if isinstance(unit, (str, int)):
                event["feature_flag.context.id"] = str(unit)
        if self._values:
            event["feature_flag.result.value"] = _recorded(found.value)
        if found.error_message:
            event["feature_flag.error.message"] = found.error_message
        self._events.emit(event)


class _Events:
    """Where events go. Safe from any thread."""

    def __init__(self, provider: LoggerProvider | None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry._logs import NoOpLogger, get_logger
        except ImportError as error:
            raise _missing() from error
        self._current_span = trace.get_current_span
        self._logger: Any = get_logger(_SCOPE, logger_provider=provider)
        self._nothing = NoOpLogger
        self._complained = False

    @property
    def wanted(self) -> bool:
        """Whether an event of now would go anywhere."""
        return self._logs or self._current_span().is_recording()

    @property
    def _logs(self) -> bool:
        logger = self._logger
        enabled = getattr(logger, "enabled", None)
        if enabled is not None:
            return bool(enabled(event_name=_EVENT))
        # Before 1.40 a logger does not say so. One that was made before the provider was set stands for the real one.
        return not isinstance(getattr(logger, "_logger", logger), self._nothing)

    def complain(self, error: Exception) -> None:
        """Log, once, that evaluations cannot be recorded."""
        if not self._complained:
            self._complained = True
            log.warning(
                "evaluations cannot be recorded with OpenTelemetry: %s", type(error).__name__, exc_info=error
            )

    def emit(self, attributes: Mapping[str, Any], seconds: float | None = None) -> None:
        """Emit an event of now, or of *seconds* since the epoch."""
        timestamp = time.time_ns() if seconds is None else round(seconds * 1e9)
        if self._logs:
            self._logger.emit(timestamp=timestamp, event_name=_EVENT, attributes=attributes)
        else:
            self._current_span().add_event(_EVENT, attributes, timestamp=timestamp)


def _attributes(name: str, reason: str, variant: str | None, code: str | None) -> dict[str, Any]:
    attributes = {
        "feature_flag.key": name,
        "feature_flag.provider.name": _SCOPE,
        "feature_flag.result.reason": reason.lower(),
    }
    if variant is not None:
        attributes["feature_flag.result.variant"] = variant
    if code is not None:
        attributes["error.type"] = code.lower()
    return attributes


def _recorded(value: object) -> bool | float | str:
    return value if isinstance(value, (bool, int, float, str)) else repr(value)


def _missing() -> MissingDependencyError:
    return MissingDependencyError("OpenTelemetry is not installed: pip install 'rheostat[otel]'")
