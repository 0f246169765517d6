"""PostgreSQL killed under load: nothing acknowledged is lost, nothing is missed, nothing comes twice."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rheo.v1 import watch_pb2
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheostat.errors import UnavailableError
from rheostat.model.change import Change, ChangeSet
from rheostat.model.encoding import decode_item
from rheostat.model.position import Filter
from rheostat.store.base import Transaction
from rheostat.store.postgres import PostgresStore
from rheostat.testing import LocalServer
from tests.checking import History, Watched, check_acknowledged, check_followed, check_gapless
from tests.postgres import Server
from tests.service.replica import Replica
from tests.store.contract import put, replayed, setting, texts

KILLS = int(os.environ.get("RHEOSTAT_POSTGRES_KILLS", "5"))
WRITERS = 4
PATIENCE = 60.0

PAUSE = 0.25
"""Seconds until the next attempt while the server is away: it needs the processors to come back."""

PROJECT = "default"

NAMES = 7
"""Settings that the writers change, one after the other."""


@pytest.fixture
def server() -> Iterator[Server]:
    # As it is installed: with fsync, full_page_writes and synchronous_commit.
    server = Server()
    yield server
    server.close()


class Progress:
    """What has happened so far; wakes those who wait for more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.acknowledged: dict[str, int] = {}
        self.seen: list[tuple[int, str]] = []
        self.failures: list[BaseException] = []
        self.interruptions = 0
        self.done = threading.Event()
        self.written = threading.Event()

    def add(self, change: Callable[[], object]) -> None:
        with self._condition:
            change()
            self._condition.notify_all()

    def wait(self, reached: Callable[[], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: bool(self.failures) or reached(), PATIENCE)
        assert not self.failures, self.failures


def write_for_ever(store: PostgresStore, writer: int, begun: int, progress: Progress) -> None:
    number = 0
    while not progress.done.is_set():
        number += 1
        request = f"w{writer}.{number}"
        found: list[ChangeSet] = []

        def write(
            transaction: Transaction, request: str = request, found: list[ChangeSet] = found
        ) -> ChangeSet | None:
            first = transaction.find_request("k", request)
            if first is not None:
                found.append(first)
                return None
            revision = transaction.revision + 1
            name = f"s{revision % NAMES}"
            item = setting(name, revision, "x" * (revision * 7919 % 3000), "str")
            before = None
            if revision > begun + NAMES:
                # Who wrote it last can be counted, since every revision writes one.
                before = transaction.since(revision - NAMES - 1)[0].changes[0].after
            return ChangeSet(
                PROJECT,
                (Change(PROJECT, "production", "setting", name, before, item),),
                message=request,
                actor="k",
                request_id=request,
            )

        while True:
            found.clear()
            try:
                written = store.commit(write)
            except UnavailableError:
                # It may have been written: asked again under the same id, as the service's callers do.
                progress.add(lambda: setattr(progress, "interruptions", progress.interruptions + 1))
                if progress.done.wait(PAUSE):
                    break
                continue
            acknowledged = found[0] if written is None else written
            progress.add(
                lambda request=request, revision=acknowledged.revision: progress.acknowledged.update(
                    {request: revision}
                )
            )
            break


def follow(store: PostgresStore, progress: Progress) -> None:
    position = 0
    while not (progress.written.is_set() and position >= max(progress.acknowledged.values())):
        try:
            store.wait_hint(0.5)
            for change_set in store.read_since(position):
                position = change_set.revision
                progress.add(lambda found=change_set: progress.seen.append((found.revision, found.message)))
        except UnavailableError:
            time.sleep(PAUSE)  # the server is away; how long does not matter


class Watcher(Replica):
    """A plain generated client of a node, whose stream has no reason to end: the node stays up."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.began = -1
        self.steps: list[tuple[int, int]] = []
        self._client = ConfigServiceClientSync(url)

    def follow(self, progress: Progress) -> None:
        self.connect()
        request = watch_pb2.WatchRequest(project=PROJECT, environment="production")
        stream = self._client.watch(request, timeout_ms=None)
        with contextlib.closing(stream):  # type: ignore[type-var]
            for message in stream:
                self.feed(message.SerializeToString())
                if message.HasField("snapshot_end"):
                    assert self.began < 0, "one snapshot is enough"
                    self.began = message.snapshot_end.position.revision
                if message.HasField("delta"):
                    delta = message.delta
                    self.steps.append((delta.from_revision, delta.position.revision))
                # A bookmark comes each second, so that this is asked after the last change too.
                if progress.written.is_set() and self.at[1] >= max(progress.acknowledged.values()):
                    return
        raise AssertionError("the stream has ended")


def test_loses_nothing_when_the_server_is_killed_under_four_writers_and_a_watcher(server: Server) -> None:
    server.execute("CREATE DATABASE store")
    url = server.url("store")
    node = LocalServer(url, heartbeat=1.0)
    try:
        kill_under_load(server, url, node)
    finally:
        node.close()


def kill_under_load(server: Server, url: str, node: LocalServer) -> None:
    identity = node.service.head.identity
    begun = node.revision
    progress = Progress()
    watcher = Watcher(node.url)

    def guarded(run: Callable[..., None], *arguments: object) -> None:
        try:
            run(*arguments, progress)
        except BaseException as exc:
            progress.add(lambda exc=exc: progress.failures.append(exc))
            raise

    stores = [PostgresStore(url) for _ in range(WRITERS + 1)]
    writers = [
        threading.Thread(target=guarded, args=(write_for_ever, store, number, begun))
        for number, store in enumerate(stores[:WRITERS])
    ]
    follower = threading.Thread(target=guarded, args=(follow, stores[WRITERS]))
    watching = threading.Thread(target=guarded, args=(watcher.follow,))
    for thread in (*writers, follower, watching):
        thread.start()
    try:
        for kill in range(KILLS):
            count = len(progress.acknowledged) + 5 + kill * 13 % 40
            progress.wait(lambda count=count: len(progress.acknowledged) >= count)
            server.kill()
            server.start()
        count = len(progress.acknowledged) + 20
        progress.wait(lambda: len(progress.acknowledged) >= count)
    finally:
        progress.done.set()
        for thread in writers:
            thread.join(PATIENCE)
        progress.written.set()
        follower.join(PATIENCE)
        watching.join(PATIENCE)
        for store in stores:
            store.close()
    assert not progress.failures
    assert progress.interruptions >= 1
    store = PostgresStore(url)
    contents = store.load()
    history: list[ChangeSet] = []
    while found := store.read_since(len(history)):
        history.extend(found)
    assert contents.revision == len(history)
    check_gapless(history)
    assert texts(contents) == replayed(history)[0]
    check_acknowledged(progress.acknowledged, history)
    check_followed(progress.seen, history)
    assert len(progress.seen) >= max(progress.acknowledged.values())
    # The watcher on the node: a chain without a gap, a state that is the store's, and nothing that came twice.
    reached = [position for _, position in watcher.steps]
    assert [after for after, _ in watcher.steps[1:]] == reached[:-1]
    assert watcher.steps[0][0] <= watcher.began < reached[0]
    assert watcher.at == (1, reached[-1])
    lives = History()
    life = (identity.store_id, identity.generation, identity.nonce)
    lives.begin(life, history)
    held = {key: decode_item(key[0], text) for key, text in watcher.items.items()}
    Watched(lives, "the watcher", "production", Filter()).saw(life, watcher.at[1], held)
    # To crash and to recover is to lose nothing.
    assert contents.identity == identity
    assert put(store, "after").revision == contents.revision + 1
    store.close()


def test_goes_on_after_a_restart_as_if_nothing_had_been(server: Server) -> None:
    server.execute("CREATE DATABASE store")
    store = PostgresStore(server.url("store"))
    put(store, "a")
    store.wait_hint(0)
    server.stop()
    with pytest.raises(UnavailableError) as caught:
        store.revision()
    assert caught.value.reason == "STORE_AWAY"
    with pytest.raises(UnavailableError):
        put(store, "b")
    server.start()
    assert store.revision() == 1
    server.stop()
    server.start()
    # The idle connection is broken, and nobody has noticed yet.
    assert put(store, "b").revision == 2
    deadline = time.monotonic() + PATIENCE
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = 'store'"
    while server.execute(listening) != [(1,)]:
        assert time.monotonic() < deadline
    store.close()
