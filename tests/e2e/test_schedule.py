"""Scheduled change-sets over several server processes on one store, some of which are killed when it is time."""

from __future__ import annotations

import contextlib
import datetime
import functools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rheo.v1 import draft_pb2
from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest, GetSettingRequest
from rheo.v1.change_pb2 import Mutation
from rheo.v1.draft_service_connect import DraftServiceClientSync
from rheo.v1.draft_service_pb2 import CreateDraftRequest, GetDraftRequest, PublishDraftRequest
from rheo.v1.value_pb2 import Value
from rheostat.model.change import ChangeSet
from rheostat.store import open_store
from tests.e2e.process import ServerProgram, wait_until
from tests.postgres import running_template

SERVERS = 3
ROUNDS = 2
DRAFTS = 4
AHEAD = 1.0
"""Seconds until the first draft of a round is due, at least; the others follow each other in tenths."""

BUSY_SECONDS = 80.0
"""For what takes a start of servers, on a machine that is busy with other tests."""

PLACE = {"project": "default", "environment": "production"}


class Cluster:
    """Servers on one store; any of them may be killed and started again."""

    def __init__(self, store: str, stack: contextlib.ExitStack) -> None:
        self.store = store
        self._stack = stack
        self.servers = [self._started(ServerProgram("serve", self.store))]
        with ThreadPoolExecutor() as pool:
            made = pool.map(lambda _: ServerProgram("serve", self.store), range(SERVERS - 1))
            self.servers += map(self._started, made)
        names = [f"s{number}" for number in range(DRAFTS)]
        settings = [Mutation(put_setting={"setting": {"name": name, "type": "int"}}) for name in names]
        for setting in settings:
            setting.put_setting.setting.default.int_value = 0
        AdminServiceClientSync(self.servers[0].url).commit(CommitRequest(**PLACE, mutations=settings))

    def _started(self, server: ServerProgram) -> ServerProgram:
        self._stack.callback(server.kill)
        return server

    def restart(self, number: int) -> None:
        self.servers[number] = self._started(self.servers[number].again())

    def restart_all(self) -> None:
        with ThreadPoolExecutor() as pool:
            # At the same time, as those that commit what is due.
            self.servers = [self._started(server) for server in pool.map(ServerProgram.again, self.servers)]

    def client(self, number: int) -> DraftServiceClientSync:
        return DraftServiceClientSync(self.servers[number].url)

    def schedule(self, value: int, chance: random.Random) -> tuple[list[str], datetime.datetime]:
        """Schedule a draft for each setting, in any order and on any server.

        Returns:
            The ids by their times, and the time of the first.
        """
        began = time.monotonic()
        drafts = {}
        for number in range(DRAFTS):
            mutation = Mutation(set_value={"name": f"s{number}", "value": Value(int_value=value)})
            request = CreateDraftRequest(**PLACE, mutations=[mutation])
            drafts[number] = self.client(chance.randrange(SERVERS)).create_draft(request).draft
        # All of them have to be scheduled before the first is due, also on a machine that is busy.
        ahead = max(AHEAD, 4 * (time.monotonic() - began))
        first = now() + datetime.timedelta(seconds=ahead)
        for number in chance.sample(range(DRAFTS), DRAFTS):
            publish = PublishDraftRequest(id=drafts[number].id, version=drafts[number].version)
            publish.at.FromDatetime(first + datetime.timedelta(seconds=number / 10))
            published = self.client(chance.randrange(SERVERS)).publish_draft(publish).draft
            assert published.state == draft_pb2.DRAFT_STATE_SCHEDULED
        return [drafts[number].id for number in range(DRAFTS)], first

    def is_committed(self, number: int, draft: str) -> bool:
        found = self.client(number).get_draft(GetDraftRequest(id=draft)).draft
        assert found.state in (draft_pb2.DRAFT_STATE_SCHEDULED, draft_pb2.DRAFT_STATE_COMMITTED), found
        return found.state == draft_pb2.DRAFT_STATE_COMMITTED

    def history(self) -> list[ChangeSet]:
        """All change-sets, oldest first, as they lie in the store."""
        store = open_store(self.store)
        try:
            return list(reversed(store.history(project="default", limit=1000)))
        finally:
            store.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            store = f"sqlite:{tmp_path_factory.mktemp('cluster') / 'store.db'}"
        else:
            store = stack.enter_context(running_template()).store()
        yield Cluster(store, stack)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def check(cluster: Cluster, value: int, drafts: list[str], first: datetime.datetime, *, reader: int) -> None:
    history = cluster.history()
    assert [change_set.draft for change_set in history if change_set.draft in drafts] == drafts
    assert [change_set.revision for change_set in history] == list(range(1, len(history) + 1))
    for number, draft in enumerate(drafts):
        (change_set,) = (found for found in history if found.draft == draft)
        assert change_set.created_at is not None
        assert change_set.created_at >= first + datetime.timedelta(seconds=number / 10)
        shown = cluster.client(reader).get_draft(GetDraftRequest(id=draft)).draft
        assert shown.revision == change_set.revision
    admin = AdminServiceClientSync(cluster.servers[reader].url)
    for number in range(DRAFTS):
        request = GetSettingRequest(**PLACE, name=f"s{number}", min_revision=len(history))
        assert admin.get_setting(request).setting.value.int_value == value


def test_each_is_committed_once_in_its_order_whoever_is_killed(cluster: Cluster):
    chance = random.Random(7)
    for round_ in range(1, ROUNDS + 1):
        drafts, first = cluster.schedule(round_, chance)
        due = time.monotonic() + (first - now()).total_seconds()
        victim = chance.randrange(SERVERS)
        # Around the time of the first one or between two others.
        moment = due + chance.uniform(-0.1, 0.4)
        wait_until(lambda moment=moment: time.monotonic() >= moment)
        cluster.servers[victim].kill()
        survivor = (victim + 1) % SERVERS
        for draft in drafts:
            wait_until(functools.partial(cluster.is_committed, survivor, draft), BUSY_SECONDS)
        check(cluster, round_, drafts, first, reader=survivor)
        cluster.restart(victim)


def test_those_that_were_due_while_no_server_was_there_are_committed_at_the_next_start(cluster: Cluster):
    value = 100
    drafts, first = cluster.schedule(value, random.Random(8))
    for server in cluster.servers:
        server.kill()
    committed = [change_set.draft for change_set in cluster.history() if change_set.draft in drafts]
    assert len(committed) < DRAFTS
    wait_until(lambda: now() >= first + datetime.timedelta(seconds=1))
    cluster.restart_all()
    for draft in drafts:
        wait_until(functools.partial(cluster.is_committed, 0, draft), BUSY_SECONDS)
    check(cluster, value, drafts, first, reader=SERVERS - 1)


def test_a_draft_is_committed_soon_after_its_time(cluster: Cluster):
    (draft, *_), first = cluster.schedule(200, random.Random(9))
    wait_until(lambda: cluster.is_committed(0, draft), BUSY_SECONDS)
    (change_set,) = (found for found in cluster.history() if found.draft == draft)
    assert change_set.created_at is not None
    # Within a second, on a machine that has nothing else to do.
    assert (change_set.created_at - first).total_seconds() < 5.0
