"""How the provider begins, ends, and tells of changes and outages, with a real server."""

from __future__ import annotations

import asyncio
import queue
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ProviderFatalError, ProviderNotReadyError
from openfeature.provider import ProviderStatus
from openfeature.track import TrackingEventDetails

from rheo.v1.event_service_pb2 import (
    GetSubjectsRequest,
    ListEventCountsRequest,
    ListExposuresRequest,
    SubjectLookup,
)
from rheo.v1.subject_pb2 import SubjectReference
from rheostat import AsyncClient, Client, Status
from rheostat.model.key import KeyKind
from rheostat.openfeature import AsyncRheostatProvider, RheostatProvider
from rheostat.server.asgi import asgi_app
from rheostat.service import Writer
from rheostat.service.access import OPEN
from rheostat.testing import AsyncStubClient, LocalServer, StubClient
from tests.e2e.process import PATIENCE, wait_until

# Fast to notice and to come back; tests wait for what happens, however long that takes.
BRISK: dict[str, Any] = {"backoff": (0.05, 0.2), "stale_after": 1.0, "start_timeout": PATIENCE}


@pytest.fixture(autouse=True)
def _forget_the_provider() -> Iterator[None]:
    yield
    api.shutdown()


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(heartbeat=0.2) as server:
        server.set("changing-flag", "foo")
        server.set("other-flag", 1)
        yield server


class Events:
    """What an application is told."""

    def __init__(self) -> None:
        self._told: queue.Queue[tuple[ProviderEvent, EventDetails]] = queue.Queue()
        for event in ProviderEvent:
            api.add_handler(event, self._handler(event))

    def _handler(self, event: ProviderEvent) -> Callable[[EventDetails], None]:
        return lambda details: self._told.put((event, details))

    def next(
        self, wanted: ProviderEvent, holds: Callable[[EventDetails], bool] = lambda details: True
    ) -> EventDetails:
        """Wait for the next such event; others are passed over."""
        while True:
            event, details = self._told.get(timeout=PATIENCE)
            if event is wanted and holds(details):
                assert details.provider_name in {"rheostat", "No-op Provider"}
                return details

    def none_left(self, unwanted: ProviderEvent) -> bool:
        left = []
        while not self._told.empty():
            left.append(self._told.get_nowait()[0])
        return unwanted not in left


def status() -> ProviderStatus:
    return api.get_client().get_provider_status()


def unused_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_provider_is_ready_once_it_has_a_state(server: LocalServer) -> None:
    events = Events()
    api.set_provider(RheostatProvider(server.url, **BRISK))
    events.next(ProviderEvent.PROVIDER_READY, lambda details: details.provider_name == "rheostat")
    assert status() is ProviderStatus.READY
    assert api.get_client().get_string_value("changing-flag", "unset") == "foo"
    # What was there from the beginning has not changed.
    assert events.none_left(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)


def test_a_change_is_told_with_the_flags_and_read_at_once(server: LocalServer) -> None:
    api.set_provider_and_wait(RheostatProvider(server.url, **BRISK))
    events = Events()
    flags = api.get_client()
    assert flags.get_string_value("changing-flag", "unset") == "foo"
    revision = server.set("changing-flag", "bar")
    details = events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    assert flags.get_string_value("changing-flag", "unset") == "bar"
    assert (details.flags_changed, details.metadata) == (["changing-flag"], {"revision": revision})
    # Two settings of one revision are one event, and so are those that a segment affects.
    rule = {"rules": [{"id": "r", "where": 'segment("s")', "value": 2}]}
    entry = {"type": "int", "default": 1, "environments": {"production": rule}}
    server.apply({"segments": {"s": "x == 1"}, "settings": {"a": entry, "b": entry}})
    assert events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["a", "b"]
    server.apply({"segments": {"s": "x == 2"}})
    assert events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["a", "b"]
    server.delete("a")
    assert events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["a"]


def test_an_outage_makes_the_provider_stale_and_its_end_ready(server: LocalServer) -> None:
    api.set_provider_and_wait(RheostatProvider(server.url, **BRISK))
    events = Events()
    flags = api.get_client()
    server.stop()
    assert "last values" in (events.next(ProviderEvent.PROVIDER_STALE).message or "")
    assert status() is ProviderStatus.STALE
    found = flags.get_string_details("changing-flag", "unset")
    assert (found.value, found.reason, found.error_code) == ("foo", "STALE", None)
    # An error is not hidden by the outage.
    assert flags.get_string_details("missing", "unset").reason == "ERROR"
    server.set("changing-flag", "bar")
    server.start()
    details = events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    assert details.flags_changed == ["changing-flag"]
    events.next(ProviderEvent.PROVIDER_READY)
    wait_until(lambda: flags.get_string_details("changing-flag", "unset").reason == "STATIC")
    assert flags.get_string_value("changing-flag", "unset") == "bar"


def test_a_provider_whose_server_is_away_has_an_error_and_recovers(server: LocalServer) -> None:
    server.stop()
    events = Events()
    provider = RheostatProvider(server.url, **{**BRISK, "start_timeout": 0.2})
    with pytest.raises(ProviderNotReadyError):
        api.set_provider_and_wait(provider)
    assert "not ready" in (events.next(ProviderEvent.PROVIDER_ERROR).message or "")
    assert status() is ProviderStatus.ERROR
    found = api.get_client().get_string_details("changing-flag", "mine")
    assert (found.value, found.reason, found.error_code) == ("mine", "ERROR", "PROVIDER_NOT_READY")
    server.start()
    details = events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    assert details.flags_changed == ["changing-flag", "other-flag"]
    events.next(ProviderEvent.PROVIDER_READY)
    assert api.get_client().get_string_value("changing-flag", "mine") == "foo"
    assert status() in {ProviderStatus.READY, ProviderStatus.STALE}


def test_flags_are_not_resolved_before_the_provider_is_ready(server: LocalServer) -> None:
    server.stop()
    api.set_provider(RheostatProvider(server.url, **BRISK))
    found = api.get_client().get_string_details("changing-flag", "mine")
    assert (found.value, found.reason, found.error_code) == ("mine", "ERROR", "PROVIDER_NOT_READY")
    events = Events()
    server.start()
    events.next(ProviderEvent.PROVIDER_READY, lambda details: details.provider_name == "rheostat")
    assert api.get_client().get_string_value("changing-flag", "mine") == "foo"


def test_a_cached_state_is_served_and_the_provider_stale(server: LocalServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with Client(server.url, cache_path=cache) as client:
        wait_until(lambda: client.ready and cache.exists())
    server.stop()
    events = Events()
    api.set_provider_and_wait(RheostatProvider(server.url, cache_path=cache, **BRISK))
    found = api.get_client().get_string_details("changing-flag", "mine")
    assert (found.value, found.reason) == ("foo", "STALE")
    # The SDK says at first that it is ready, since it was initialized.
    events.next(ProviderEvent.PROVIDER_STALE)
    assert status() is ProviderStatus.STALE


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A server that demands keys."""
    monkeypatch.setattr("rheostat.server.asgi.asgi_app", lambda service, **options: asgi_app(service))
    with LocalServer(heartbeat=0.2) as server:
        server.set("changing-flag", "foo")
        yield server


def test_a_refused_key_is_fatal(guarded: LocalServer) -> None:
    events = Events()
    with pytest.raises(ProviderFatalError):
        api.set_provider_and_wait(RheostatProvider(guarded.url, key="rst_server_unknown", **BRISK))
    assert events.next(ProviderEvent.PROVIDER_ERROR).error_code == "PROVIDER_FATAL"
    assert status() is ProviderStatus.FATAL
    found = api.get_client().get_string_details("changing-flag", "mine")
    assert (found.value, found.reason, found.error_code) == ("mine", "ERROR", "PROVIDER_FATAL")


def test_a_revoked_key_is_an_error_that_leaves_the_values(guarded: LocalServer) -> None:
    key, secret, _ = guarded.service.create_key(Writer(OPEN), kind=KeyKind.SERVER, project="default")
    api.set_provider_and_wait(RheostatProvider(guarded.url, key=secret, **BRISK))
    events = Events()
    guarded.service.revoke_key(Writer(OPEN), key.selector)
    details = events.next(ProviderEvent.PROVIDER_ERROR)
    assert details.error_code == "GENERAL"
    assert secret not in (details.message or "")
    assert status() is ProviderStatus.ERROR
    assert api.get_client().get_string_value("changing-flag", "mine") == "foo"


def test_the_events_follow_the_client_and_not_the_first_word_of_the_sdk() -> None:
    with StubClient({"x": 1}) as client:
        provider = RheostatProvider(client)
        told: list[ProviderEvent] = []
        provider.attach(lambda _, event, details: told.append(event))
        provider._client._core.stale = True
        provider.initialize(None)  # type: ignore[arg-type]
        assert told == []
        assert provider.resolve_integer_details("x", 0).reason == "STALE"
        assert told == [ProviderEvent.PROVIDER_STALE]
        provider.resolve_integer_details("x", 0)
        assert told == [ProviderEvent.PROVIDER_STALE]


def test_a_client_of_the_applications_is_told_of_by_several_providers_and_left_open(
    server: LocalServer,
) -> None:
    seen: list[Status] = []
    with Client(server.url, on_status=seen.append, **BRISK) as client:
        for _ in range(3):
            api.set_provider_and_wait(RheostatProvider(client), "first")
            api.set_provider_and_wait(RheostatProvider(client), "second")
        events = [queue.SimpleQueue[Any](), queue.SimpleQueue[Any]()]
        for told, domain in zip(events, ("first", "second"), strict=True):
            api.get_client(domain).add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, told.put)
        server.set("changing-flag", "bar")
        for told in events:
            assert told.get(timeout=PATIENCE).flags_changed == ["changing-flag"]
            assert told.empty()
        api.shutdown()
        assert client["changing-flag"] == "bar"
        assert client.status is not Status.CLOSED
        wait_until(lambda: Status.LIVE in seen)


def test_a_client_of_the_providers_ends_with_it_and_begins_anew(server: LocalServer) -> None:
    provider = RheostatProvider(server.url, **BRISK)
    api.set_provider_and_wait(provider)
    first = provider._client
    api.shutdown()
    assert first.status is Status.CLOSED
    api.set_provider_and_wait(provider)
    server.set("changing-flag", "bar")
    wait_until(lambda: api.get_client().get_string_value("changing-flag", "unset") == "bar")


def test_closing_the_client_under_the_provider_makes_it_stale(server: LocalServer) -> None:
    with Client(server.url, **BRISK) as client:
        api.set_provider_and_wait(RheostatProvider(client))
        events = Events()
        client.close()
        assert "closed" in (
            events.next(ProviderEvent.PROVIDER_STALE, lambda d: "closed" in (d.message or "")).message or ""
        )
        assert api.get_client().get_string_value("changing-flag", "unset") == "foo"


# Programs with an event loop.


def test_an_asynchronous_provider_is_initialized_while_the_loop_goes_on(server: LocalServer) -> None:
    async def main() -> None:
        events = Events()
        api.set_provider(AsyncRheostatProvider(server.url, **BRISK))
        ready = asyncio.to_thread(
            events.next, ProviderEvent.PROVIDER_READY, lambda details: details.provider_name == "rheostat"
        )
        await ready
        flags = api.get_client()
        assert await flags.get_string_value_async("changing-flag", "unset") == "foo"
        assert (await flags.get_integer_details_async("other-flag", 0)).reason in {"STATIC", "STALE"}
        await asyncio.to_thread(server.set, "changing-flag", "bar")
        details = await asyncio.to_thread(events.next, ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
        assert details.flags_changed == ["changing-flag"]
        assert await flags.get_string_value_async("changing-flag", "unset") == "bar"
        provider: Any = flags.provider
        # In the loop's own thread it cannot be waited for.
        api.shutdown()
        await provider._ending
        assert provider._client.status is Status.CLOSED

    asyncio.run(main())


def test_a_started_client_may_be_waited_for_in_its_loop(server: LocalServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, **BRISK) as client:
            api.set_provider_and_wait(AsyncRheostatProvider(client))
            assert status() is ProviderStatus.READY
            assert await api.get_client().get_integer_value_async("other-flag", 0) == 1
            api.shutdown()
            assert client.status is not Status.CLOSED
        # Waiting for one that was not started would stop the loop that is to start it.
        provider = AsyncRheostatProvider(server.url, **BRISK)
        with pytest.raises(ProviderNotReadyError, match="event loop"):
            api.set_provider_and_wait(provider)
        await provider._client.wait_ready(PATIENCE)
        assert await api.get_client().get_integer_value_async("other-flag", 0) == 1
        await asyncio.to_thread(api.shutdown)
        assert provider._client.status is Status.CLOSED

    asyncio.run(main())


def test_without_an_event_loop_an_asynchronous_provider_is_not_ready() -> None:
    provider = AsyncRheostatProvider(unused_url())
    with pytest.raises(ProviderNotReadyError, match="no event loop"):
        api.set_provider_and_wait(provider)
    api.shutdown()
    assert provider._client.status is Status.CLOSED


def test_stubs_stand_in_for_clients() -> None:
    async def main() -> None:
        async with AsyncStubClient({"x": True}) as stub:
            api.set_provider_and_wait(AsyncRheostatProvider(stub))
            assert await api.get_client().get_boolean_value_async("x", False)
            stub.set_rules("x", [{"where": 'user.id == "u1"', "value": False}], default=True)
            found = await api.get_client().get_boolean_details_async("x", True)
            assert (found.value, found.reason) == (True, "DEFAULT")

    asyncio.run(main())
    with StubClient({"x": 1}) as client:
        api.set_provider_and_wait(RheostatProvider(client))
        events = Events()
        client["x"] = 2
        assert events.next(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED).flags_changed == ["x"]
        assert api.get_client().get_integer_value("x", 0) == 2


def test_what_is_tracked_reaches_the_server_before_the_provider_has_ended(server: LocalServer) -> None:
    api.set_provider_and_wait(RheostatProvider(server.url, **BRISK))
    flags = api.get_client()
    for i in range(3):
        flags.track("purchase", EvaluationContext("u1"), TrackingEventDetails(9.99, {"quantity": i + 1}))
    flags.track("seen")
    api.shutdown()
    with Client(server.url) as client:
        found = client.call("ListEventCounts", ListEventCountsRequest()).unwrap().events
        lookup = SubjectLookup(reference=SubjectReference(kind="user", keys={"id": "u1"}))
        subjects = client.call("GetSubjects", GetSubjectsRequest(lookups=[lookup])).unwrap()
    assert [(each.event, each.events, each.quantity) for each in found] == [
        ("purchase", 3, 6),
        ("seen", 1, 1),
    ]
    counters = {(each.event, each.count) for each in subjects.results[0].subject.counters}
    assert counters == {("purchase", 6)}


def test_what_was_given_is_counted_on_the_server_if_that_is_wanted(server: LocalServer) -> None:
    for counts in (True, False):
        api.set_provider_and_wait(RheostatProvider(server.url, count_exposures=counts, **BRISK))
        flags = api.get_client()
        for _ in range(3):
            assert flags.get_string_value("changing-flag", "unset") == "foo"
        # Nobody was given these.
        flags.get_integer_value("changing-flag", 1)
        flags.get_integer_value("missing", 1)
        api.shutdown()
    with Client(server.url) as client:
        found = client.call("ListExposures", ListExposuresRequest()).unwrap().exposures
    assert [(each.setting, each.value_json, each.count) for each in found] == [("changing-flag", '"foo"', 3)]
    assert found[0].revision == server.revision
