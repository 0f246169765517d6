"""Spans of calls, by Connect's own instrumentation for OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from connectrpc_otel import ConnectInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rheo.v1.config_service_pb2 import EvaluateRequest, PingRequest
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.server import asgi_app, wsgi_app
from rheostat.service import Service
from rheostat.store import open_store
from tests.server.exchange import Answered, Asgi, Asked, Wsgi, asked

CONFIG = "rheo.v1.ConfigService/"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = ConnectInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()


@pytest.fixture(params=["asgi", "wsgi"])
def call(
    request: pytest.FixtureRequest, exported: InMemorySpanExporter
) -> Iterator[Callable[[Asked], Answered]]:
    with Service(open_store("memory:")) as service:
        if request.param == "wsgi":
            yield Wsgi(wsgi_app(service, open=True))
        else:
            application = Asgi(asgi_app(service, open=True))
            yield lambda asked: asyncio.run(application(asked))


def spans(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


def test_a_call_is_a_span_of_its_caller_s_trace(
    call: Callable[[Asked], Answered], exported: InMemorySpanExporter
):
    assert call(asked(f"{CONFIG}Ping", PingRequest(), "proto", ("traceparent", PARENT))).code == "ok"
    (span,) = exported.get_finished_spans()
    assert span.name == f"{CONFIG}Ping"
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" in PARENT


def test_a_refused_call_and_a_watch_are_spans_too(
    call: Callable[[Asked], Answered], exported: InMemorySpanExporter
):
    assert call(asked(f"{CONFIG}Evaluate", EvaluateRequest(name="nothing"))).code == "not_found"
    assert call(asked(f"{CONFIG}Watch", WatchRequest(environment="production"))).events()
    found = spans(exported)
    assert not found[f"{CONFIG}Evaluate"].status.is_ok
    assert f"{CONFIG}Watch" in found
