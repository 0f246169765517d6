from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import feature_flag_attributes

from rheostat import Client, MissingDependencyError, Reader, Setting, ambient
from rheostat.integrations import otel
from rheostat.model.exposure import ExposureRecord
from rheostat.openfeature import ExposureHook, RheostatProvider


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(offline=True, bootstrap={"limit": 3}, project="shop", environment="live") as client:
        yield client


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


def events(spans: InMemorySpanExporter) -> list[dict[str, Any]]:
    (span,) = spans.get_finished_spans()
    assert {event.name for event in span.events} <= {"feature_flag.evaluation"}
    return [dict(event.attributes or {}) for event in span.events]


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    found: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
    data = reader.get_metrics_data()
    assert data is not None
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [(p.value, dict(p.attributes)) for p in metric.data.data_points]
    return found


def test_a_read_is_an_event_of_the_current_span(
    client: Client, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    reader = otel.traced(client)
    with tracer.start_as_current_span("request"):
        assert reader.get("limit", user={"id": "u1"}) == 3
    (event,) = events(spans)
    assert event == {
        "feature_flag.key": "limit",
        "feature_flag.provider.name": "rheostat",
        "feature_flag.result.reason": "static",
        "feature_flag.version": "0",
        "feature_flag.set.id": "shop/live",
        "feature_flag.context.id": "u1",
    }


def test_every_way_to_read_is_recorded_once(
    client: Client, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    reader = otel.traced(client)
    declared = Setting("limit", int, default=1)
    client.declare(declared)
    declared.bind(reader)
    with tracer.start_as_current_span("request"):
        assert reader["limit"] == 3
        assert reader.evaluate("limit").value == 3
        assert reader.int_value("limit", 0) == 3
        assert reader.with_context(region="eu").pin()["limit"] == 3
        assert declared.get() == 3
        assert declared.evaluate().value == 3
    assert [event["feature_flag.key"] for event in events(spans)] == ["limit"] * 6


def test_what_is_not_there_is_recorded_as_an_error(
    client: Client, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    reader = otel.traced(client, values=True)
    with tracer.start_as_current_span("request"):
        assert reader.get("nope", "mine") == "mine"
        with pytest.raises(KeyError):
            reader["nope"]
    for event in events(spans):
        assert event["feature_flag.result.reason"] == "error"
        assert event["error.type"] == "flag_not_found"
        assert "nope" in event["feature_flag.error.message"]
    assert events(spans)[0]["feature_flag.result.value"] == "mine"


def test_the_id_of_the_context_may_be_ambient(
    client: Client, tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    reader = otel.traced(client, context_id="account")
    with tracer.start_as_current_span("request"), ambient(account=7):
        reader.get("limit")
        reader.get("limit", account="other")
    assert [event["feature_flag.context.id"] for event in events(spans)] == ["7", "other"]


def test_reads_count_without_a_span(client: Client) -> None:
    metrics = InMemoryMetricReader()
    reader = otel.traced(client, meter_provider=MeterProvider([metrics]))
    client.set_override("limit", 4)
    assert [reader.get("limit"), reader.get("limit")] == [4, 4]
    ((count, attributes),) = points(metrics)["feature_flag.evaluations"]
    assert count == 2
    assert attributes["feature_flag.result.variant"] == "override"


def test_gauges_show_how_a_client_stands() -> None:
    metrics = InMemoryMetricReader()
    client = Client(offline=True, client_id="c1")
    otel.observe(client, meter_provider=MeterProvider([metrics]))
    client.start()
    found = points(metrics)
    here = {"rheostat.client.id": "c1", "rheostat.client.status": "offline"}
    assert found["rheostat.client.ready"] == [(1, here)]
    assert found["rheostat.client.stale"] == [(0, here)]
    assert found["rheostat.client.revision"] == [(0, here)]
    client.close()


def test_without_the_extra_the_error_names_it(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError, match=r"rheostat\[otel\]"):
        otel.traced(client)
    with pytest.raises(MissingDependencyError, match=r"rheostat\[otel\]"):
        otel.observe(client)


def test_a_subscript_evaluates_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[str] = []
    evaluate = Reader.evaluate

    def counting(reader: Any, name: str, *given: Any, **attributes: Any) -> Any:
        evaluated.append(name)
        return evaluate(reader, name, *given, **attributes)

    monkeypatch.setattr(Reader, "evaluate", counting)
    monkeypatch.setattr(Reader, "__getitem__", lambda reader, name: evaluated.append(name))
    name = next(iter(client))
    assert otel.traced(client)[name] == client.get(name)
    assert evaluated == [name]


# Events of the convention, which are log records with a name.


class Logs:
    def __init__(self) -> None:
        self._exporter = InMemoryLogRecordExporter()
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    def records(self) -> list[Any]:
        found = [each.log_record for each in self._exporter.get_finished_logs()]
        assert {record.event_name for record in found} <= {"feature_flag.evaluation"}
        return found

    def events(self) -> list[dict[str, Any]]:
        return [dict(record.attributes) for record in self.records()]


@pytest.fixture
def logs() -> Iterator[Logs]:
    logs = Logs()
    yield logs
    logs.provider.shutdown()


def exposure(**fields: Any) -> ExposureRecord:
    given: dict[str, Any] = {
        "setting": "limit",
        "value": 3,
        "reason": "SPLIT",
        "rule_id": "r",
        "variant": "blue",
        "revision": 9,
        "subjects": {"user": {"id": "u1"}, "company": {"id": "c1"}},
        "time": datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC),
        "setting_revision": 4,
        **fields,
    }
    return ExposureRecord(**given)


def test_with_a_logger_provider_a_read_is_its_event_and_not_the_spans(
    client: Client, tracer: trace.Tracer, spans: InMemorySpanExporter, logs: Logs
) -> None:
    reader = otel.traced(client, values=True, logger_provider=logs.provider)
    with tracer.start_as_current_span("request") as span:
        reader.get("limit", user={"id": "u1"})
        reader.with_context(user={"id": "u2"}).get("limit")
    assert reader.get("nope", 1) == 1
    assert events(spans) == []
    within, scoped, failed = logs.events()
    assert within == {
        "feature_flag.key": "limit",
        "feature_flag.provider.name": "rheostat",
        "feature_flag.result.reason": "static",
        "feature_flag.result.value": 3,
        "feature_flag.version": "0",
        "feature_flag.set.id": "shop/live",
        "feature_flag.context.id": "u1",
    }
    assert scoped["feature_flag.context.id"] == "u2"
    assert (failed["error.type"], failed["feature_flag.result.reason"]) == ("flag_not_found", "error")
    assert "nope" in failed["feature_flag.error.message"]
    first, _, outside = logs.records()
    assert first.trace_id == span.get_span_context().trace_id
    assert outside.trace_id == 0


@pytest.mark.parametrize("place", [{"project": "shop"}, {"environment": "live"}, {}])
def test_a_flag_set_is_named_where_project_and_environment_are_known(
    logs: Logs, place: dict[str, str]
) -> None:
    with Client(offline=True, bootstrap={"limit": 3}, **place) as client:  # type: ignore[arg-type]
        otel.traced(client, logger_provider=logs.provider).get("limit")
        found = RheostatProvider(client).resolve_integer_details("limit", 0)
    assert "feature_flag.set.id" not in logs.events()[0]
    assert (found.value, "flagSetId" in found.flag_metadata) == (3, False)


def test_a_read_survives_who_records_it(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(LogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            raise ConnectionError("mine")

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    provider = LoggerProvider()
    provider.add_log_record_processor(Failing())
    reader = otel.traced(client, logger_provider=provider)
    declared = Setting("limit", int, default=1)
    client.declare(declared)
    declared.bind(reader)
    assert (reader.get("limit"), reader["limit"], reader.evaluate("limit").value, declared.get()) == (
        3,
        3,
        3,
        3,
    )
    assert reader.with_context(user={"id": "u1"}).get("limit") == 3
    (record,) = caplog.records
    assert "evaluations cannot be recorded" in record.message and "ConnectionError" in record.message
    provider.shutdown()


def test_an_exposure_is_an_event_of_its_own_time(logs: Logs) -> None:
    emit = otel.exposures(set_id="shop/live", logger_provider=logs.provider)
    emit(exposure())
    emit(exposure(variant=None, reason="ERROR", error_code="TYPE_MISMATCH", subjects={}, setting_revision=0))
    otel.exposures(values=True, context_id="company.id", logger_provider=logs.provider)(exposure())
    first, failed, other = logs.events()
    assert first == {
        "feature_flag.key": "limit",
        "feature_flag.provider.name": "rheostat",
        "feature_flag.result.reason": "split",
        "feature_flag.result.variant": "blue",
        "feature_flag.version": "4",
        "feature_flag.set.id": "shop/live",
        "feature_flag.context.id": "u1",
    }
    assert failed == {
        "feature_flag.key": "limit",
        "feature_flag.provider.name": "rheostat",
        "feature_flag.result.reason": "error",
        "feature_flag.set.id": "shop/live",
        "error.type": "type_mismatch",
    }
    assert (other["feature_flag.result.value"], other["feature_flag.context.id"]) == (3, "c1")
    assert logs.records()[0].timestamp == 1795348800 * 10**9


def test_without_a_logger_provider_an_exposure_is_an_event_of_the_current_span(
    tracer: trace.Tracer, spans: InMemorySpanExporter
) -> None:
    emit = otel.exposures()
    # To nobody.
    emit(exposure())
    with tracer.start_as_current_span("request"):
        emit(exposure())
    (event,) = events(spans)
    assert event["feature_flag.result.variant"] == "blue"


def test_the_hooks_of_openfeature_emit_the_same_event(client: Client, logs: Logs) -> None:
    hook = ExposureHook(otel.exposures(set_id="shop/live", logger_provider=logs.provider))
    api.set_provider_and_wait(RheostatProvider(client, hooks=[hook]))
    try:
        flags = api.get_client()
        assert flags.get_integer_value("limit", 0, EvaluationContext("u1")) == 3
        assert flags.get_boolean_value("limit", True) is True
    finally:
        api.shutdown()
    found, failed = logs.events()
    assert found == {
        "feature_flag.key": "limit",
        "feature_flag.provider.name": "rheostat",
        "feature_flag.result.reason": "static",
        "feature_flag.set.id": "shop/live",
        "feature_flag.context.id": "u1",
    }
    assert (failed["error.type"], failed["feature_flag.result.reason"]) == ("type_mismatch", "error")


def test_the_attributes_are_those_of_the_convention(client: Client, logs: Logs) -> None:
    known = {
        value for name, value in vars(feature_flag_attributes).items() if name.startswith("FEATURE_FLAG_")
    }
    deprecated = {
        "feature_flag.evaluation.reason",
        "feature_flag.evaluation.error.message",
        "feature_flag.variant",
    }
    reader = otel.traced(client, values=True, logger_provider=logs.provider)
    reader.get("limit", user={"id": "u1"})
    reader.get("nope", 1)
    client.set_override("limit", 4)
    reader.get("limit")
    client.clear_override()
    used = {name for event in logs.events() for name in event}
    assert used - {"error.type"} == known - deprecated
