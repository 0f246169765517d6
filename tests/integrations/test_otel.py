from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rheostat import Client, MissingDependencyError, Reader, Setting, ambient
from rheostat.integrations import otel


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
        assert "nope" in event["error.message"]
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
