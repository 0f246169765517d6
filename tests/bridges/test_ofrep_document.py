"""OFREP's document: what Schemathesis makes of it is sent to the server, and the answers are held to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from rheostat.server import asgi_app, wsgi_app
from rheostat.service import Service
from rheostat.store import open_store
from tests.bridges.flags import fill, make_key
from tests.thorough import examples

DOCUMENT = Path(__file__).parents[2] / "docs/reference/ofrep.yaml"

EXAMPLES = 8
"""For each path and mode."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as service:
        fill(service)
        yield service


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return yaml.safe_load(DOCUMENT.read_text())


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def schema(request: pytest.FixtureRequest, service: Service, document: dict[str, Any]) -> Any:
    """The document, as the application of one kind would serve it itself."""
    text = json.dumps(document).encode()
    if request.param == "wsgi":
        inner = wsgi_app(service, ofrep=True)

        def wsgi(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/openapi.json":
                start_response("200 OK", [("content-type", "application/json")])
                return [text]
            return inner(environ, start_response)

        return schemathesis.openapi.from_wsgi("/openapi.json", wsgi)
    asgi_inner: Any = asgi_app(service, ofrep=True)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/openapi.json":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text})
        else:
            await asgi_inner(scope, receive, send)

    return schemathesis.openapi.from_asgi("/openapi.json", asgi)


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("path", ["/ofrep/v1/evaluate/flags/{key}", "/ofrep/v1/evaluate/flags"])
def test_answers_as_the_document_says(schema: Any, service: Service, path: str, mode: GenerationMode) -> None:
    key = make_key(service)[1]
    statuses = set()
    cases = schema[path]["POST"].as_strategy(generation_mode=mode)

    @settings(
        max_examples=examples(EXAMPLES),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=st.booleans())
    def run(case: Any, known: bool) -> None:
        if known:
            # Else nearly all are of unknown flags and places.
            for name in ("project", "environment"):
                case.query.pop(name, None)
            for name in ("X-Rheostat-Project", "X-Rheostat-Environment"):
                case.headers.pop(name, None)
            if "key" in case.path_parameters:
                case.path_parameters["key"] = "banner"
        response = case.call_and_validate(headers={"Authorization": f"Bearer {key}"})
        statuses.add(response.status_code)

    run()
    assert statuses & ({200} if mode is GenerationMode.POSITIVE else {400})
    assert 500 not in statuses
