"""What a caller sees of a client that is connected: one suite for both clients, on an ASGI and a WSGI server."""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
import urllib3

from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.config_service_pb2 import EvaluateRequest, PingRequest
from rheo.v1.watch_pb2 import WATCH_MODE_DELTA, WatchRequest
from rheostat import (
    ALL,
    AsyncClient,
    ClientClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    Reason,
    Setting,
    SettingChange,
    SettingNotFoundError,
    Status,
    ambient,
)
from rheostat.errors import BehindError
from tests.e2e.process import wait_until
from tests.sdk.driving import Driven, Home
from tests.sdk.editor import Editor, put, setting_value

Connect = Callable[..., Driven]


class Log:
    """Collects changes."""

    def __init__(self) -> None:
        self.changes: list[SettingChange[Any]] = []

    def __call__(self, change: SettingChange[Any]) -> None:
        self.changes.append(change)

    @property
    def told(self) -> list[tuple[str, object, object]]:
        return [(change.name, change.before, change.after) for change in self.changes]

    def wait_for(self, count: int) -> list[tuple[str, object, object]]:
        wait_until(lambda: len(self.changes) >= count)
        return self.told


# Reading.


def test_reads_what_the_environment_has_and_then_what_it_is_changed_to(editor: Editor, connect: Connect):
    editor.put("timeout", 2.5)
    client = connect()
    assert client["timeout"] == 2.5
    assert client.ready
    assert not client.stale
    assert client.status is Status.LIVE
    revision = editor.set(timeout=4.0)
    client.until_value("timeout", 4.0)
    assert client.position.revision == client.revision == revision


def test_a_context_decides_which_rule_matches(editor: Editor, connect: Connect):
    editor.put("timeout", 2.5)
    editor.rule("timeout", "pro", 'user.plan == "pro"', 10.0)
    editor.rule("timeout", "eu", 'region == "eu"', 5.0)
    client = connect(context={"region": "eu"})
    assert client["timeout"] == 5.0
    assert client.get("timeout", region="us") == 2.5
    assert client.get("timeout", user={"plan": "pro"}) == 10.0
    assert client.get("timeout", None, context={"user": {"plan": "pro"}}) == 10.0
    scoped = client.with_context(user={"plan": "pro"})
    assert scoped["timeout"] == 10.0
    assert scoped.with_context(user={"plan": "free"}, region="us")["timeout"] == 2.5
    found = scoped.evaluate("timeout")
    assert (found.value, found.reason, found.rule_id) == (10.0, Reason.TARGETING_MATCH, "pro")
    assert found.revision == client.revision


def test_ambient_context_and_context_variables_are_read_at_each_evaluation(editor: Editor, connect: Connect):
    editor.put("banner", "none")
    editor.rule("banner", "eu", 'region == "eu"', "cookies")
    region: ContextVar[str] = ContextVar("region")
    client = connect()
    varying = client.with_context(region=region)
    assert varying["banner"] == "none"
    token = region.set("eu")
    assert varying["banner"] == "cookies"
    region.reset(token)
    assert varying.get("banner") == "none"
    with ambient(region="eu"):
        assert client["banner"] == "cookies"
        assert client.get("banner", region="us") == "none"
        with ambient({"region": "us"}):
            assert client.evaluate("banner").value == "none"
        assert client.evaluate_all()["banner"].value == "cookies"
    assert client["banner"] == "none"


def test_a_default_is_used_only_where_the_setting_is_absent(editor: Editor, connect: Connect):
    editor.commit(put("zero", 0), put("no", False), put("empty", ""))
    client = connect(defaults={"zero": 1, "no": True, "empty": "x", "other": "constructor"})
    assert [client["zero"], client.get("no"), client.get("empty", "explicit")] == [0, False, ""]
    assert client["other"] == "constructor"
    scoped = client.with_defaults({"other": "scoped"})
    assert scoped["other"] == "scoped"
    assert scoped.get("other", "explicit") == "explicit"
    assert scoped.get("other", None) is None
    assert client.get("unknown") is None
    assert set(client) == {"zero", "no", "empty", "other"}
    assert len(client) == 4
    assert "other" in client
    assert "unknown" not in client
    assert dict(client.settings) == {"zero": 0, "no": False, "empty": "", "other": "constructor"}
    with pytest.raises(SettingNotFoundError, match="unknown") as caught:
        client["unknown"]
    assert isinstance(caught.value, KeyError)
    assert "not ready" not in str(caught.value)


def test_values_cannot_be_changed_by_who_reads_them(editor: Editor, connect: Connect):
    editor.put("limits", {"soft": [1, 2]})
    client = connect()
    with pytest.raises((TypeError, AttributeError)):
        client["limits"]["soft"] = ()
    assert client["limits"]["soft"] == (1, 2)


def test_typed_reads_check_types(editor: Editor, connect: Connect):
    editor.commit(put("flag", True), put("count", 5), put("ratio", 2.0), put("name", "n"), put("json", [1]))
    client = connect()
    assert client.bool_value("flag", False) is True
    assert client.bool_value("count", False) is False
    assert client.int_value("count", 0) == 5
    assert client.int_value("flag", 7) == 7
    assert client.int_value("ratio", 0) == 2
    assert client.float_value("count", 0.0) == 5.0
    assert client.str_value("name", "") == "n"
    assert client.str_value("json", "fallback") == "fallback"
    assert client.json_value("json", None) == (1,)


def test_explains_why_a_value_is_what_it_is(editor: Editor, connect: Connect):
    editor.put("timeout", 2.5)
    editor.rule("timeout", "eu", 'region == "eu"', 5.0)
    client = connect()
    found = client.explain("timeout", region="us")
    assert found.evaluation.value == 2.5
    assert [rule.rule_id for rule in found.rules] == ["eu"]


def test_a_pinned_view_stays_at_its_revision(editor: Editor, connect: Connect):
    editor.commit(put("a", 1), put("b", 1))
    setting = Setting("a", int, default=0)
    client = connect(settings=[setting])
    pinned = client.pin()
    with client.pinned():
        editor.commit(setting_value("a", 2), setting_value("b", 2))
        wait_until(lambda: client._core.replica.view.snapshot.setting("a").value == 2)
        assert (client["a"], client["b"], setting.get()) == (1, 1, 1)
        assert client.evaluate_all()["b"].value == 1
    assert (client["a"], client["b"], setting.get()) == (2, 2, 2)
    assert (pinned["a"], pinned["b"]) == (1, 1)
    assert pinned.revision < client.revision


def test_the_client_adds_an_id_of_its_own_for_segmentation(editor: Editor, connect: Connect):
    editor.put("who", "nobody")
    editor.rule("who", "me", 'client.id == "web-7"', "me")
    assert connect(client_id="web-7")["who"] == "me"
    assert connect()["who"] == "nobody"


def test_narrowing_gives_the_same_values_with_fewer_rules(editor: Editor, connect: Connect):
    editor.put("timeout", 1)
    editor.rule("timeout", "eu", 'region == "eu"', 2)
    editor.rule("timeout", "us", 'region == "us"', 3)
    client = connect(prefixes=["time"])
    client.narrow(region=["eu"])
    client.until(lambda c: len(c._core.replica.view.snapshot.setting("timeout").rules) == 1)
    assert (client.get("timeout", region="eu"), client["timeout"]) == (2, 1)
    client.narrow(region=ALL)
    client.until(lambda c: len(c._core.replica.view.snapshot.setting("timeout").rules) == 2)
    assert client.get("timeout", region="us") == 3
    assert not client.errors


# Being told.


def test_changes_arrive_exactly_once_and_in_order(editor: Editor, connect: Connect):
    editor.commit(put("a", 0), put("b", 0))
    client = connect()
    one, everything = Log(), Log()
    client.subscribe("a", one)
    client.subscribe(everything)
    for value in (1, 2, 3):
        editor.set(a=value)
        client.until_value("a", value)
    editor.set(b=9)
    editor.put("c", 5)
    editor.delete("a")
    assert everything.wait_for(6) == [
        ("a", 0, 1), ("a", 1, 2), ("a", 2, 3), ("b", 0, 9),
        ("c", everything.changes[4].before, 5), ("a", 3, everything.changes[5].after),
    ]  # fmt: skip
    assert everything.changes[4].created
    assert everything.changes[5].deleted
    assert one.told == [told for told in everything.told if told[0] == "a"]
    revisions = [change.revision for change in everything.changes]
    assert revisions == sorted(revisions)
    assert "a" not in client


def test_all_of_a_revision_is_visible_before_the_first_callback(editor: Editor, connect: Connect):
    editor.commit(put("a", 0), put("b", 0))
    client = connect()
    seen: list[tuple[int, int]] = []
    client.subscribe(lambda change: seen.append((client["a"], client["b"])))
    editor.commit(setting_value("a", 1), setting_value("b", 1))
    wait_until(lambda: len(seen) == 2)
    assert seen == [(1, 1), (1, 1)]


def test_what_changes_no_value_is_no_change(editor: Editor, connect: Connect):
    editor.commit(put("a", 1), put("end", 0))
    client = connect()
    log = Log()
    client.subscribe(log)
    editor.set(a=1)
    editor.put("a", 1, description="of another description")
    editor.set(end=1)
    assert log.wait_for(1) == [("end", 0, 1)]


def test_a_rename_is_a_change_only_when_the_value_differs(editor: Editor, connect: Connect):
    editor.commit(put("old", 1), put("end", 0))
    client = connect()
    log, of_old, of_new = Log(), Log(), Log()
    client.subscribe(log)
    client.subscribe("old", of_old)
    client.subscribe("new", of_new)
    editor.rename("old", "new")
    editor.set(end=1)
    assert log.wait_for(1) == [("end", 0, 1)]
    assert client["old"] == client["new"] == 1
    editor.set(new=2)
    assert log.wait_for(2)[1:] == [("new", 1, 2)]
    wait_until(lambda: of_old.told == [("old", 1, 2)] and of_new.told == [("new", 1, 2)])


def test_a_segment_that_rules_share_changes_the_settings_that_use_it(
    editor: Editor, connect: Connect, request: pytest.FixtureRequest
):
    # Segments belong to the project, which the tests share.
    segment = f"segment-{editor.environment}"
    editor.segment(segment, 'region == "eu"')
    editor.commit(put("a", 1), put("other", 1))
    editor.rule("a", "r", f'segment("{segment}")', 2)
    client = connect(context={"region": "us"})
    log = Log()
    client.subscribe(log)
    editor.segment(segment, 'region == "us"')
    assert log.wait_for(1) == [("a", 1, 2)]


def test_a_callback_that_raises_is_logged_and_others_go_on(
    editor: Editor, connect: Connect, caplog: pytest.LogCaptureFixture
):
    editor.put("a", 0)
    client = connect()
    log = Log()

    def broken(change: object) -> None:
        raise LookupError("no such thing")

    client.subscribe("a", broken)
    client.subscribe("a", log)
    with caplog.at_level(logging.ERROR, "rheostat"):
        editor.set(a=1)
        editor.set(a=2)
        assert log.wait_for(2)[-1] == ("a", 1, 2) or log.told == [("a", 0, 2)]
    assert "broken has raised LookupError" in caplog.text


def test_a_subscription_may_be_ended_inside_its_callback_and_twice(editor: Editor, connect: Connect):
    editor.put("a", 0)
    client = connect()
    first: list[object] = []
    log = Log()

    def once(change: SettingChange[Any]) -> None:
        first.append(change.after)
        stop()
        stop()

    stop = client.subscribe("a", once)
    client.subscribe(log)
    for value in (1, 2):
        editor.set(a=value)
        log.wait_for(value)
    assert first == [1]
    stop()


def test_a_subscriber_gets_values_of_its_own_context(editor: Editor, connect: Connect):
    editor.put("a", 0)
    editor.rule("a", "eu", 'region == "eu"', 10)
    client = connect()
    log = Log()
    client.with_context(region="eu").subscribe("a", log)
    editor.rule("a", "eu", 'region == "eu"', 11)
    assert log.wait_for(1) == [("a", 10, 11)]


def test_changes_can_be_iterated_over_until_the_client_is_closed(editor: Editor, connect: Connect):
    editor.commit(put("a", 0), put("b", 0))
    client = connect()
    every, of_b = client.changes(), client.changes("b")
    editor.set(a=1)
    editor.set(b=2)
    assert [(c.name, c.after) for c in (every.next(), every.next())] == [("a", 1), ("b", 2)]
    assert of_b.next().after == 2
    client.close()
    assert every.next() is None
    assert of_b.next() is None


def test_a_frozen_client_loses_nothing(editor: Editor, connect: Connect):
    editor.commit(put("a", 0), put("b", 0))
    client = connect()
    log = Log()
    client.subscribe(log)
    with client.frozen():
        editor.set(a=1)
        editor.set(a=2)
        revision = editor.delete("b")
        client.until(lambda c: c._core.held.revision == revision)
        assert (client["a"], client["b"]) == (0, 0)
        assert not log.changes
    assert client["a"] == 2
    assert "b" not in client
    log.wait_for(2)
    assert [(change.name, change.deleted) for change in log.changes] == [("a", False), ("b", True)]


def test_an_override_wins_over_everything_and_subscribers_are_told(editor: Editor, connect: Connect):
    editor.put("a", 0)
    editor.rule("a", "eu", 'region == "eu"', 1)
    client = connect(context={"region": "eu"})
    log = Log()
    client.subscribe("a", log)
    client.set_override("a", 7)
    assert client["a"] == 7
    found = client.evaluate("a")
    assert (found.reason, found.variant) == (Reason.STATIC, "override")
    editor.rule("a", "eu", 'region == "eu"', 2)
    client.set_override("new", "here")
    assert client["new"] == "here"
    client.clear_override("new")
    assert "new" not in client
    client.clear_override()
    client.until_value("a", 2)
    log.wait_for(2)
    assert log.told[0] == ("a", 1, 7)
    assert log.told[-1] in {("a", 7, 2), ("a", 1, 2)}


def test_hooks_are_told_of_positions_and_statuses(editor: Editor, connect: Connect):
    editor.put("a", 0)
    positions: list[int] = []
    client = connect(on_update=lambda position: positions.append(position.revision))
    revision = editor.set(a=1)
    wait_until(lambda: bool(positions) and positions[-1] == revision)
    assert positions == sorted(positions)
    client.close()
    assert client.statuses == [Status.LIVE, Status.CLOSED]


def test_a_change_too_large_for_a_step_arrives_whole(editor: Editor, connect: Connect):
    names = [f"large-{number}" for number in range(12)]
    editor.commit(*(put(name, "") for name in names))
    client = connect()
    log = Log()
    client.subscribe(log)
    # Above 1 MiB the server sends a snapshot in its place.
    editor.set({name: name + "x" * 120_000 for name in names})
    log.wait_for(len(names))
    assert sorted(change.name for change in log.changes) == sorted(names)
    assert len({change.revision for change in log.changes}) == 1
    assert all(client[name].startswith(name) for name in names)
    assert len(client.hellos) == 1


def test_threads_that_come_first_together_start_one_stream(editor: Editor, make: Callable[..., Driven]):
    editor.put("a", 1)
    client = make(editor.url, environment=editor.environment)
    futures = [threading.Thread(target=client.start) for _ in range(8)]
    for each in futures:
        each.start()
    for each in futures:
        each.join(20)
    assert client["a"] == 1
    assert len(client.hellos) == 1


# Declared settings.


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def test_declared_settings_have_values_of_their_types(editor: Editor, connect: Connect):
    colour = Setting("colour", Colour, default=Colour.RED)
    delays = Setting("delays", list[float], default=[1.0])
    missing = Setting("missing", int, default=3)
    editor.commit(put("colour", "red", 'Enum["blue","red"]'), put("delays", [1.0, 2.0], "Sequence<float>"))
    client = connect(settings=[colour, delays, missing])
    assert colour.get() is Colour.RED
    assert list(delays.get()) == [1.0, 2.0]
    assert missing.get() == client["missing"] == 3
    log = Log()
    colour.subscribe(log)
    editor.set(colour="blue")
    assert log.wait_for(1) == [("colour", Colour.RED, Colour.BLUE)]
    assert colour.get() is Colour.BLUE
    client.set_override("colour", Colour.RED)
    assert colour.get() is Colour.RED


def test_a_setting_follows_the_client_that_is_active(editor: Editor, connect: Connect):
    editor.put("a", 5)
    setting = Setting("a", int, default=1)
    assert setting.get() == 1
    client = connect()
    with client.activate():
        assert setting.get() == 5
    assert setting.get() == 1


def test_definitions_are_listed(editor: Editor, connect: Connect):
    editor.put("old", 1, description="how many", version="1.2", owner="team", tags=["x"])
    editor.rename("old", "new")
    client = connect()
    found = client.get_settings()["new"]
    assert (found.type, found.default, found.version, found.owner) == ("int", 1, "1.2", "team")
    assert found.aliases == ("old",)


# What asks the server.


def test_reload_fetches_what_was_just_written(editor: Editor, connect: Connect):
    editor.put("a", 0)
    client = connect()
    revision = editor.set(a=1)
    assert client.reload().revision >= revision
    assert client["a"] == 1


def test_a_call_reaches_every_rpc_and_raises_none_of_its_errors(editor: Editor, connect: Connect):
    editor.put("a", 4)
    client = connect()
    assert client.ping().revision >= 1
    request = EvaluateRequest(environment=editor.environment, name="a")
    found = client.call("Evaluate", request, headers={"x-caller": "test"})
    assert found.error is None
    assert found.message.evaluation.value.int_value == 4
    assert found.headers["x-request-id"]
    commit = CommitRequest(environment=editor.environment, mutations=[setting_value("a", 5)])
    assert client.call("AdminService/Commit", commit, timeout=5.0).message.revision
    refused = client.call(
        "Commit", CommitRequest(environment=editor.environment, mutations=[setting_value("none", 5)])
    )
    assert refused.message is None
    assert isinstance(refused.error, NotFoundError)
    assert refused.error.request_id
    with pytest.raises(NotFoundError):
        refused.unwrap()
    with pytest.raises(InvalidArgumentError, match="no RPC"):
        client.call("Nothing", PingRequest())
    with pytest.raises(InvalidArgumentError, match=r"client\.stream"):
        client.call("Watch", WatchRequest())


def test_a_stream_of_ones_own_gives_events_and_says_why_it_ended(editor: Editor, connect: Connect):
    editor.put("a", 4)
    client = connect()
    with client.stream(WatchRequest(environment=editor.environment)) as stream:
        kinds = [stream.next().WhichOneof("event") for _ in range(3)]
        assert kinds == ["hello", "snapshot_begin", "snapshot_chunk"]
        assert stream.iterator.headers["x-request-id"]
    with client.stream(WatchRequest(environment="none")) as stream:
        assert stream.next() is None
        assert stream.iterator.error.reason
    client.close()
    with pytest.raises(ClientClosedError), client.stream(WatchRequest()):
        pass


def test_a_call_out_of_time_says_so(connect: Connect, editor: Editor):
    client = connect(retries=0)
    found = client.call("GetSnapshot", _far_ahead(editor.environment), timeout=0.2)
    # The server, which was told the time, and the client find out at about the same time.
    assert isinstance(found.error, (BehindError, DeadlineExceededError))


def _far_ahead(environment: str) -> Any:
    from rheo.v1.config_service_pb2 import GetSnapshotRequest

    return GetSnapshotRequest(environment=environment, min_revision=1_000_000)


def test_a_closed_client_reads_its_last_state_and_asks_nothing(editor: Editor, connect: Connect):
    editor.put("a", 4)
    client = connect()
    client.close()
    client.close()
    assert (client["a"], client.get("a"), client.evaluate("a").value) == (4, 4, 4)
    assert client.status is Status.CLOSED
    for ask in (client.reload, client.ping, client.start, client.wait_ready, client.changes):
        with pytest.raises(ClientClosedError):
            ask()


# Other ways to be connected.


def test_a_client_that_is_only_read_starts_by_itself(editor: Editor, make: Callable[..., Driven]):
    editor.put("a", 4)
    client = make(editor.url, environment=editor.environment)
    assert client.run(lambda c: c.get("a", 1)) == 1
    client.until_value("a", 4)
    assert client.status is Status.LIVE


def test_polling_brings_changes_and_deletions(editor: Editor, connect: Connect):
    editor.commit(put("a", 0), put("b", 0))
    client = connect(mode="poll", poll_interval=0.05)
    assert client.status is Status.LIVE
    log = Log()
    client.subscribe(log)
    editor.set(a=1)
    log.wait_for(1)
    editor.delete("b")
    log.wait_for(2)
    assert [(change.name, change.deleted) for change in log.changes] == [("a", False), ("b", True)]
    assert not client.hellos


def test_a_clients_own_http_client_is_used_and_not_closed(
    editor: Editor, make: Callable[..., Driven], home: Home
):
    editor.put("a", 4)
    if home.kind == "sync":
        pool = urllib3.PoolManager(headers={"x-mine": "1"})
        client = make(editor.url, environment=editor.environment, http_client=pool).start()
        assert client["a"] == 4
        client.close()
        assert len(pool.pools) == 1
        assert pool.request("GET", f"{editor.url}/healthz").status == 200
        pool.clear()
        return

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"x-mine": "1"})

    found = home.run(session)
    client = make(editor.url, environment=editor.environment, http_client=found).start()
    assert client["a"] == 4
    client.close()
    assert not found.closed

    async def health() -> int:
        async with found.get(f"{editor.url}/healthz") as response:
            return response.status

    assert home.run(health) == 200
    home.run(found.close)


def test_two_clients_of_two_environments_do_not_mix(server: Any, make: Callable[..., Driven]):
    first, second = Editor(server.url), Editor(server.url)
    first.put("a", 1)
    second.put("a", 2)
    clients = [make(each.url, environment=each.environment).start() for each in (first, second)]
    assert [client["a"] for client in clients] == [1, 2]
    first.set(a=3)
    clients[0].until_value("a", 3)
    assert clients[1]["a"] == 2


def test_a_client_resumes_by_delta_after_it_was_told_to_hurry(editor: Editor, connect: Connect):
    editor.put("a", 0)
    client = connect(backoff=(0.1, 0.5))
    editor.set(a=1)
    client.until_value("a", 1)
    client._core.driver.hurry()
    client.until(lambda c: len(client.hellos) >= 2)
    editor.set(a=2)
    client.until_value("a", 2)
    assert all(hello.mode >= WATCH_MODE_DELTA for hello in client.hellos[1:])


def test_callbacks_of_an_async_client_may_be_coroutine_functions(editor: Editor):
    editor.put("a", 0)

    async def run() -> list[object]:
        told: asyncio.Queue[object] = asyncio.Queue()

        async def callback(change: SettingChange[Any]) -> None:
            await asyncio.sleep(0)
            told.put_nowait(change.after)

        async with AsyncClient(editor.url, environment=editor.environment) as client:
            client.subscribe("a", callback)
            await asyncio.to_thread(editor.set, a=1)
            await asyncio.to_thread(editor.set, a=2)
            return [await told.get(), await told.get()]

    assert asyncio.run(run()) == [1, 2]
