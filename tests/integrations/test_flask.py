from __future__ import annotations

import threading
from collections import UserDict
from collections.abc import Iterator

import pytest
from flask import Flask, Response, jsonify, request, stream_with_context

from rheostat import Client, Setting, ambient
from rheostat.errors import InvalidArgumentError
from rheostat.integrations.flask import Rheostat
from rheostat.sdk.ambient import current
from rheostat.testing import LocalServer, StubClient

TIMEOUT = Setting("timeout", float, default=0.5)


@pytest.fixture
def stub() -> StubClient:
    stub = StubClient({"x": 1}, settings=[TIMEOUT])
    stub.set_rules("plan", [('user.plan == "pro"', "paying")], default="free")
    return stub


@pytest.fixture
def app(stub: StubClient) -> Flask:
    app = Flask(__name__)
    Rheostat(app, client=stub, context=lambda request: {"user": {"plan": request.headers.get("plan")}})

    def change() -> None:
        stub["x"] += 1

    @app.get("/twice")
    def twice():
        before = stub["x"]
        # By another thread, since this one's reads are pinned.
        changing = threading.Thread(target=change)
        changing.start()
        changing.join()
        return jsonify([before, stub["x"], stub.with_context(a=1)["x"]])

    @app.get("/async")
    async def asynchronous():
        return jsonify([stub["x"], stub["plan"]])

    @app.get("/plan")
    def plan():
        return stub["plan"]

    @app.get("/fail")
    def fail():
        raise ValueError(stub["plan"])

    @app.errorhandler(ValueError)
    def failed(error):
        return f"{error} and {stub['plan']}", 500

    @app.get("/stream")
    def stream():
        return Response(parts())

    @app.get("/stream/request")
    def stream_in_request():
        return Response(stream_with_context(parts()))

    def parts():
        yield f"{stub['x']} {stub['plan']}\n"
        with ambient(user={"plan": "none"}):
            yield f"{stub['x']} {stub['plan']}\n"
            yield f"{stub['x']} {stub['plan']}\n"
        yield f"{stub['x']} {stub['plan']}\n"

    @app.get("/file")
    def file():
        return Response(iter([b"x"]), direct_passthrough=True)

    return app


def test_all_of_a_request_reads_one_revision_while_a_change_arrives(app: Flask, stub: StubClient) -> None:
    with app.test_client() as browser:
        assert browser.get("/twice").json == [1, 1, 1]
        assert browser.get("/twice").json == [2, 2, 2]
    assert stub["x"] == 3


def test_a_change_of_a_real_server_is_read_by_the_next_request() -> None:
    arrived = threading.Event()
    with LocalServer() as server:
        server.set("timeout", 1.0)
        with Client(server.url, settings=[TIMEOUT]) as client:
            client.subscribe("timeout", lambda change: arrived.set())
            app = Flask(__name__)
            Rheostat(app, client=client)

            @app.get("/")
            def index():
                before = TIMEOUT.get()
                server.set("timeout", before + 1.0)
                assert arrived.wait(20)
                return jsonify([before, TIMEOUT.get(), client["timeout"]])

            assert app.test_client().get("/").json == [1.0, 1.0, 1.0]
            assert client["timeout"] == TIMEOUT.get() == 2.0


def test_the_context_of_a_request_ends_with_it(app: Flask, stub: StubClient) -> None:
    browser = app.test_client()
    assert browser.get("/plan", headers={"plan": "pro"}).text == "paying"
    assert current.get() is None
    assert stub["plan"] == "free"
    assert browser.get("/plan").text == "free"
    assert browser.get("/async", headers={"plan": "pro"}).json == [1, "paying"]
    assert browser.get("/async").json == [1, "free"]


def test_a_request_that_fails_has_its_context_in_the_handler_and_leaves_none(app: Flask) -> None:
    browser = app.test_client()
    assert browser.get("/fail", headers={"plan": "pro"}).text == "paying and paying"
    assert current.get() is None
    assert browser.get("/nowhere", headers={"plan": "pro"}).status_code == 404
    assert current.get() is None


@pytest.mark.parametrize("path", ["/stream", "/stream/request"])
def test_a_streaming_response_stays_in_its_request(app: Flask, stub: StubClient, path: str) -> None:
    response = app.test_client().get(path, headers={"plan": "pro"}, buffered=False)
    parts: Iterator[bytes] = response.iter_encoded()
    read = []
    for part in parts:
        read.append(part)
        stub["x"] += 1
    assert b"".join(read).split() == b"1 paying 1 free 1 free 1 paying".split()
    response.close()
    assert current.get() is None
    assert stub["plan"] == "free"
    assert stub["x"] > 1


def test_a_streaming_response_that_nobody_reads_is_closed(app: Flask, stub: StubClient) -> None:
    closed = []

    @app.get("/endless")
    def endless():
        def parts():
            try:
                while True:
                    yield str(stub["x"])
            finally:
                closed.append(stub["plan"])

        return Response(parts())

    response = app.test_client().get("/endless", headers={"plan": "pro"}, buffered=False)
    assert next(iter(response.iter_encoded())) == b"1"
    response.close()
    assert closed == ["paying"]


def test_a_file_is_passed_on_as_it_is(app: Flask) -> None:
    assert app.test_client().get("/file").data == b"x"


def test_requests_at_the_same_time_have_their_own_contexts(app: Flask, stub: StubClient) -> None:
    inside, leave = threading.Event(), threading.Event()

    @app.get("/wait")
    def wait():
        inside.set()
        assert leave.wait(20)
        return stub["plan"]

    answers: list[str] = []
    browser = threading.Thread(
        target=lambda: answers.append(app.test_client().get("/wait", headers={"plan": "pro"}).text)
    )
    browser.start()
    assert inside.wait(20)
    assert app.test_client().get("/plan").text == "free"
    assert stub["plan"] == "free"
    leave.set()
    browser.join(20)
    assert answers == ["paying"]


class Broken(UserDict[str, object]):
    def __iter__(self):
        raise ValueError("broken")


@pytest.mark.parametrize("answer", [ValueError("broken"), "no mapping", UserDict(a=1), Broken()])
def test_a_context_that_cannot_be_made_is_logged_and_the_request_goes_on(
    stub: StubClient, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    def context_of(request: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    app = Flask(__name__)
    Rheostat(app, client=stub, context=context_of)
    app.get("/")(lambda: stub["plan"])
    assert app.test_client().get("/").text == "free"
    assert ("context_of" in caplog.text) is (type(answer) is not UserDict)


def test_by_default_nothing_about_a_request_is_used(stub: StubClient) -> None:
    app = Flask(__name__)
    Rheostat(app, client=stub)
    app.get("/<path>")(lambda path: str(stub["x"]))
    app.test_client().get("/secret?user=ada")
    assert [read.context for read in stub.evaluations] == [{}]


def test_the_config_of_an_application_may_name_the_client(stub: StubClient) -> None:
    extension = Rheostat()
    app = Flask(__name__)
    with pytest.raises(InvalidArgumentError, match="RHEOSTAT_CLIENT"):
        extension.init_app(app)
    empty = StubClient()
    app.config["RHEOSTAT_CLIENT"] = empty
    app.config["RHEOSTAT_CONTEXT"] = lambda request: {"path": request.path}
    extension.init_app(app)
    assert app.extensions["rheostat"] is empty
    app.get("/here")(lambda: str(empty.get("x", 1, method=request.method)))
    app.test_client().get("/here")
    assert [read.context for read in empty.evaluations] == [{"path": "/here", "method": "GET"}]
    with pytest.raises(InvalidArgumentError, match="42"):
        extension.init_app(Flask(__name__), client=42)
