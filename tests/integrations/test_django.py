from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient as AsyncBrowser
from django.test import Client as Browser
from django.test.utils import override_settings
from django.urls import path

from rheostat.integrations.django import RheostatMiddleware
from rheostat.sdk.ambient import current
from rheostat.testing import StubClient

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["rheostat.integrations.django.RheostatMiddleware"],
        SECRET_KEY="only for tests",
    )
    django.setup()

held: dict[str, StubClient] = {}


def change() -> None:
    changing = threading.Thread(target=lambda: held["stub"].__setitem__("x", held["stub"]["x"] + 1))
    changing.start()
    changing.join()


def twice(request: Any) -> JsonResponse:
    stub = held["stub"]
    before = stub["x"]
    change()
    return JsonResponse([before, stub["x"], stub["plan"]], safe=False)


async def twice_async(request: Any) -> JsonResponse:
    return twice(request)


def fail(request: Any) -> None:
    raise ValueError(held["stub"]["plan"])


def stream(request: Any) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for _ in range(3):
            yield f"{held['stub']['x']} {held['stub']['plan']} "
            change()

    return StreamingHttpResponse(parts())


async def stream_async(request: Any) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(3):
            yield f"{held['stub']['x']} {held['stub']['plan']} "
            change()

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("twice", twice),
    path("twice/async", twice_async),
    path("fail", fail),
    path("stream", stream),
    path("stream/async", stream_async),
]


def context_of(request: Any) -> dict[str, Any]:
    return {"user": {"plan": request.headers.get("plan")}}


@pytest.fixture
def stub() -> Iterator[StubClient]:
    stub = held["stub"] = StubClient({"x": 1})
    stub.set_rules("plan", [('user.plan == "pro"', "paying")], default="free")
    with override_settings(RHEOSTAT_CLIENT=stub, RHEOSTAT_CONTEXT=context_of):
        yield stub
    del held["stub"]


PRO = {"plan": "pro"}


@pytest.mark.parametrize("url", ["/twice", "/twice/async"])
def test_all_of_a_request_reads_one_revision_while_a_change_arrives(stub: StubClient, url: str) -> None:
    browser = Browser()
    assert browser.get(url, headers=PRO).json() == [1, 1, "paying"]
    assert browser.get(url).json() == [2, 2, "free"]
    assert current.get() is None
    assert (stub["x"], stub["plan"]) == (3, "free")


@pytest.mark.parametrize("url", ["/twice", "/twice/async"])
def test_on_asgi_all_of_a_request_reads_one_revision_too(stub: StubClient, url: str) -> None:
    async def main() -> None:
        browser = AsyncBrowser()
        assert (await browser.get(url, headers=PRO)).json() == [1, 1, "paying"]
        assert current.get() is None
        both = await asyncio.gather(browser.get(url, headers=PRO), browser.get(url))
        assert [response.json()[2] for response in both] == ["paying", "free"]

    asyncio.run(main())


def test_a_request_that_fails_leaves_no_context(stub: StubClient) -> None:
    with pytest.raises(ValueError, match="paying"):
        Browser().get("/fail", headers=PRO)
    assert current.get() is None
    response = Browser(raise_request_exception=False).get("/fail", headers=PRO)
    assert response.status_code == 500
    assert current.get() is None


def test_a_streaming_response_stays_in_its_request(stub: StubClient) -> None:
    response = Browser().get("/stream", headers=PRO)
    assert current.get() is None
    assert b"".join(response.streaming_content) == b"1 paying " * 3
    assert stub["x"] == 4
    assert current.get() is None


def test_on_asgi_a_streaming_response_stays_in_its_request(stub: StubClient) -> None:
    async def main() -> None:
        response = await AsyncBrowser().get("/stream/async", headers=PRO)
        assert current.get() is None
        assert b"".join([part async for part in response.streaming_content]) == b"1 paying " * 3
        assert stub["x"] == 4
        assert current.get() is None

    asyncio.run(main())


def test_a_file_is_passed_on_as_it_is(stub: StubClient) -> None:
    # Not by the test browser, which wraps it itself.
    response = RheostatMiddleware(lambda request: FileResponse(BytesIO(b"all of it")))(HttpRequest())
    assert response.file_to_stream is not None
    assert b"".join(response) == b"all of it"
    response.close()


def broken(request: Any) -> dict[str, Any]:
    raise ValueError("broken")


def test_a_context_that_cannot_be_made_is_logged_and_the_request_goes_on(
    stub: StubClient, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(RHEOSTAT_CONTEXT=f"{__name__}.broken"):
        middleware = RheostatMiddleware(lambda request: HttpResponse(stub["plan"]))
    assert middleware(object()).content == b"free"
    assert "broken" in caplog.text


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("RHEOSTAT_CLIENT", None),
        ("RHEOSTAT_CLIENT", "nowhere.at_all"),
        ("RHEOSTAT_CLIENT", 42),
        ("RHEOSTAT_CONTEXT", "nowhere.at_all"),
        ("RHEOSTAT_CONTEXT", 42),
        ("RHEOSTAT_CONTEXT", twice_async),
    ],
)
def test_settings_that_are_wrong_are_said_at_the_start(stub: StubClient, name: str, wrong: object) -> None:
    with override_settings(**{name: wrong}), pytest.raises(ImproperlyConfigured, match=name):
        RheostatMiddleware(lambda request: None)


def test_a_function_may_make_the_client(stub: StubClient) -> None:
    with override_settings(RHEOSTAT_CLIENT=lambda: stub, RHEOSTAT_CONTEXT=None):
        middleware = RheostatMiddleware(lambda request: HttpResponse(str(stub["x"])))
    assert middleware(object()).content == b"1"
    assert [read.context for read in stub.evaluations] == [{}]
