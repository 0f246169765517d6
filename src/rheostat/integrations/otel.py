"""OpenTelemetry: evaluations on spans and in metrics, and how clients stand.

Needs the extra `otel`. The names are those of OpenTelemetry's convention for feature flags
(https://opentelemetry.io/docs/specs/semconv/feature-flags/feature-flags-events/). Spans of calls and streams are the
HTTP client's: pass an instrumented one as `http_client`.

    client = Client("http://127.0.0.1:7420")
    settings = otel.traced(client)          # reads through it are recorded; those through `client` cost nothing
    otel.observe(client)                    # gauges: revision, staleness, readiness
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rheostat.errors import MissingDependencyError
from rheostat.evaluation.context import Context
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.model.value import ABSENT, Absent
from rheostat.sdk.client import BaseClient
from rheostat.sdk.reader import Reader, S
from rheostat.sdk.replica import ViewSource

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation

    from rheostat.sdk.setting import Setting

__all__ = ["TracedReader", "observe", "traced"]

T = TypeVar("T")

_Attributes = Mapping[str, object]

_SCOPE: Final = "rheostat"

_EVENT: Final = "feature_flag.evaluation"


def traced(
    reader: Reader[S],
    *,
    context_id: str = "user.id",
    values: bool = False,
    meter_provider: MeterProvider | None = None,
) -> TracedReader[S]:
    """Return a reader of the same settings that records each evaluation.

    An evaluation becomes an event `feature_flag.evaluation` on the current span, if there is one that records, and
    counts in the metric `feature_flag.evaluations`. Declared settings are recorded once they are bound to the
    result: ``setting.bind(traced(client))``.

    Args:
        reader: A client, or what `with_context` and `pin` return.
        context_id: The attribute that is recorded as the id of the context; empty for none.
        values: Record values, too; they may be large or secret.
        meter_provider: Where the metric goes; None is the global one.

    Raises:
        MissingDependencyError: The extra `otel` is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise _missing() from error
    found: TracedReader[S] = TracedReader()
    found._current_span = trace.get_current_span
    found._context_id = context_id
    found._values = values
    found._count = metrics.get_meter(_SCOPE, meter_provider=meter_provider).create_counter(
        "feature_flag.evaluations", unit="{evaluation}", description="evaluations of settings"
    )
    owner = reader._owner or reader
    found._read_from(reader._core, reader._source, reader._layers, reader._defaults, owner)
    return found


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

    _current_span: Any
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
        found._current_span, found._count = self._current_span, self._count
        found._context_id, found._values = self._context_id, self._values
        found._read_from(self._core, source, layers, defaults, self._owner or self)
        return found

    def _record(self, name: str, found: Evaluation, given: tuple[object, ...]) -> None:
        if not isinstance(name, str):
            return
        attributes: dict[str, str] = {
            "feature_flag.key": name,
            "feature_flag.provider.name": _SCOPE,
            "feature_flag.result.reason": found.reason.value.lower(),
        }
        if found.variant is not None:
            attributes["feature_flag.result.variant"] = found.variant
        if found.reason is Reason.ERROR and found.error_code is not None:
            attributes["error.type"] = found.error_code.value.lower()
        self._count.add(1, attributes)
        span = self._current_span()
        if not span.is_recording():
            return
        event: dict[str, Any] = {**attributes, "feature_flag.version": str(found.setting_revision)}
        project = self._core.options.project
        if project:
            event["feature_flag.set.id"] = f"{project}/{self._core.options.environment}"
        if self._context_id:
            layers = [layer for layer in (*given, *self._ambient_layers()) if isinstance(layer, Mapping)]
            unit = Context(*layers).lookup(self._context_id)
            if isinstance(unit, (str, int)):
                event["feature_flag.context.id"] = str(unit)
        if self._values:
            value = found.value
            event["feature_flag.result.value"] = (
                value if isinstance(value, (bool, int, float, str)) else repr(value)
            )
        if found.error_message:
            event["error.message"] = found.error_message
        span.add_event(_EVENT, event)


def _missing() -> MissingDependencyError:
    return MissingDependencyError("OpenTelemetry is not installed: pip install 'rheostat[otel]'")
