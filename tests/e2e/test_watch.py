"""Plain generated clients, in programs of their own, against real servers on a SQLite file."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.config_service_pb2 import GetSnapshotRequest
from rheo.v1.value_pb2 import StringList
from rheo.v1.watch_pb2 import (
    SNAPSHOT_REASON_NEW,
    WATCH_MODE_DELTA,
    WATCH_MODE_SNAPSHOT,
    WATCH_MODE_UP_TO_DATE,
    Filter,
    Item,
    WatchRequest,
    WatchResponse,
)
from tests.e2e.process import ClientProgram, ServerProgram
from tests.e2e.writing import (
    SETTING,
    commit_by_another_process,
    make_rules,
    make_setting,
    put_region_segment,
    set_value,
)

CLIENTS = ("sync", "async", "typescript")
MAIN_SERVERS = ("serve", "gunicorn-gthread")
OTHER_SERVERS = ("hypercorn", "granian", "gunicorn-gevent", "waitress")

Watch = Callable[..., ClientProgram]


def delays_of_changes(
    server: ServerProgram, client: ClientProgram, first: int, count: int = 5
) -> list[float]:
    """Commit changes one by one; returns the seconds from the start of each commit to its arrival."""
    delays = []
    for value in range(first, first + count):
        started = time.monotonic()
        revision = set_value(server.url, value)
        at, event = client.event()
        while event.HasField("bookmark"):
            at, event = client.event()
        delays.append(at - started)
        assert event.delta.position.revision == revision
        assert [item.setting.value.int_value for item in event.delta.items] == [value]
    return delays


@pytest.mark.parametrize("client_kind", CLIENTS)
@pytest.mark.parametrize("server_kind", MAIN_SERVERS)
def test_gets_hello_the_snapshot_and_then_changes_in_under_100_ms(
    shared_server: Callable[[str], ServerProgram], watch: Watch, server_kind: str, client_kind: str
):
    server = shared_server(server_kind)
    make_setting(server.url)
    set_value(server.url, 1)
    client = watch(client_kind, server.url)

    hello = client.next("hello").hello
    assert (hello.mode, hello.reason) == (WATCH_MODE_SNAPSHOT, SNAPSHOT_REASON_NEW)
    begin = client.next("snapshot_begin").snapshot_begin
    items = []
    while len(items) < begin.item_count:
        chunk = client.next("snapshot_chunk").snapshot_chunk
        items += chunk.items
    end = client.next("snapshot_end").snapshot_end
    assert (end.item_count, end.position.revision) == (begin.item_count, begin.position.revision)
    # Half a snapshot is nothing to resume from.
    assert end.position.token
    assert not begin.position.token
    assert [item.setting.value.int_value for item in items if item.key == SETTING] == [1]

    delays = delays_of_changes(server, client, first=2)
    assert statistics.median(delays) < 0.1, delays


@pytest.mark.parametrize("server_kind", OTHER_SERVERS)
def test_each_change_is_flushed_at_once_by(
    shared_server: Callable[[str], ServerProgram], watch: Watch, server_kind: str
):
    server = shared_server(server_kind)
    make_setting(server.url)
    client = watch("sync", server.url)
    client.snapshot()
    delays = delays_of_changes(server, client, first=1)
    assert statistics.median(delays) < 0.1, delays


@pytest.mark.parametrize("server_kind", MAIN_SERVERS)
def test_tracked_values_narrow_streams_and_polls_and_a_segment_revives_rules(
    shared_server: Callable[[str], ServerProgram], server_kind: str
):
    server = shared_server(server_kind)
    client = ConfigServiceClientSync(server.url)
    put_region_segment(server.url, "us")
    make_rules(server.url, "narrowed.price")
    filter_ = Filter(prefixes=["narrowed."], tracked={"region": StringList(values=["eu"])})
    stream = client.watch(WatchRequest(environment="production", filter=filter_), timeout_ms=60_000)

    hello = next(stream).hello
    assert (hello.filter, hello.filter_ignored) == (filter_, False)
    items = []
    for event in stream:
        items += event.snapshot_chunk.items
        if event.HasField("snapshot_end"):
            break
    assert rules_of(items) == ["always"]
    poll = GetSnapshotRequest(environment="production", filter=filter_)
    page = client.get_snapshot(poll)
    assert list(page.items) == items
    assert page.digest == event.snapshot_end.digest
    poll.resume = event.snapshot_end.position.token
    assert client.get_snapshot(poll).up_to_date

    put_region_segment(server.url, "eu")
    delta = next(event.delta for event in stream if event.HasField("delta"))
    assert rules_of(delta.items) == ["in-region", "always"]
    assert {item.revision for item in delta.items} == {delta.position.revision}
    page = client.get_snapshot(poll)
    assert (page.up_to_date, page.digest) == (False, delta.digest)
    stream.close()

    filter_.tracked["plan"].values.extend([])
    with pytest.raises(ConnectError) as refused:
        client.get_snapshot(GetSnapshotRequest(environment="production", filter=filter_))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert 'filter.tracked["plan"]' in refused.value.message


def rules_of(items: Sequence[Item]) -> list[str]:
    """The ids of the rules of the one setting among *items*."""
    (setting,) = (item.setting for item in items if item.kind == "setting")
    return [rule.id for rule in setting.rules]


@dataclass
class Resumed:
    """The first two events of a stream that a client resumed, once after each death of the server."""

    up_to_date: tuple[WatchResponse, WatchResponse]
    delta: tuple[WatchResponse, WatchResponse]
    held: WatchResponse
    missed: int
    live: WatchResponse
    committed_elsewhere: int


@pytest.fixture(scope="module", params=MAIN_SERVERS)
def resumed(
    request: pytest.FixtureRequest, start: Callable[..., ServerProgram], typescript: None
) -> Iterator[dict[str, Resumed]]:
    """What the three clients saw of one server that was killed and started again on its store, twice."""
    server = start(request.param)
    make_setting(server.url)
    with contextlib.ExitStack() as stack:

        def watch_all(tokens: dict[str, bytes]) -> dict[str, ClientProgram]:
            return {
                kind: stack.enter_context(ClientProgram(kind, server.url, resume=tokens.get(kind, b"")))
                for kind in CLIENTS
            }

        first = watch_all({})
        held = {kind: client.snapshot() for kind, client in first.items()}
        tokens = {kind: event.snapshot_end.position.token for kind, event in held.items()}
        server.kill()
        server = stack.enter_context(server.again())
        second = watch_all(tokens)
        up_to_date = {kind: (client.event()[1], client.event()[1]) for kind, client in second.items()}
        server.kill()
        missed = commit_by_another_process(server.store, 77)
        server = stack.enter_context(server.again())
        third = watch_all(tokens)
        delta = {kind: (client.event()[1], client.event()[1]) for kind, client in third.items()}
        elsewhere = commit_by_another_process(server.store, 78)
        yield {
            kind: Resumed(
                up_to_date[kind],
                delta[kind],
                held[kind],
                missed,
                client.next("delta"),
                elsewhere,
            )
            for kind, client in third.items()
        }


@pytest.mark.parametrize("client_kind", CLIENTS)
def test_resuming_after_the_server_was_killed_is_up_to_date(resumed: dict[str, Resumed], client_kind: str):
    hello, bookmark = resumed[client_kind].up_to_date
    assert hello.hello.mode == WATCH_MODE_UP_TO_DATE
    end = resumed[client_kind].held.snapshot_end
    assert bookmark.bookmark.position.revision == end.position.revision
    assert bookmark.bookmark.digest == end.digest


@pytest.mark.parametrize("client_kind", CLIENTS)
def test_resuming_brings_the_changes_that_were_committed_while_the_server_was_dead(
    resumed: dict[str, Resumed], client_kind: str
):
    hello, delta = resumed[client_kind].delta
    assert hello.hello.mode == WATCH_MODE_DELTA
    assert delta.delta.from_revision <= resumed[client_kind].held.snapshot_end.position.revision
    assert delta.delta.position.revision == resumed[client_kind].missed
    assert [(item.key, item.setting.value.int_value) for item in delta.delta.items] == [(SETTING, 77)]


@pytest.mark.parametrize("client_kind", CLIENTS)
def test_a_change_by_another_process_on_the_same_file_reaches_the_watcher(
    resumed: dict[str, Resumed], client_kind: str
):
    delta = resumed[client_kind].live.delta
    assert delta.position.revision == resumed[client_kind].committed_elsewhere
    assert [(item.key, item.setting.value.int_value) for item in delta.items] == [(SETTING, 78)]
