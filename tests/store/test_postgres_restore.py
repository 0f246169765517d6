"""A base backup in the place of the database, or a promoted standby: clients of servers hold the new history."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from rheo.v1 import watch_pb2
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheostat import Client
from rheostat.cli.root import root
from rheostat.store import open_store
from rheostat.store.generation import GENERATION_KIND, MOVED, beginnings_in
from rheostat.testing import LocalServer
from tests.e2e.process import wait_until
from tests.postgres import Server
from tests.sdk.proxy import Proxy
from tests.service.replica import Replica

PATIENCE = 60.0


@pytest.fixture
def database() -> Iterator[Server]:
    running = Server("fsync=off", "autovacuum=off")
    yield running
    running.close()


def base_backup(database: Server, name: str, *options: str) -> Path:
    folder = database.make_folder(name)
    database.run(
        *(
            "pg_basebackup",
            "-D",
            folder,
            "-d",
            database.url("postgres"),
            "-c",
            "fast",
            "-X",
            "stream",
            *options,
        )
    )
    return folder


def put_back(database: Server, url: str) -> Callable[[], None]:
    """A backup that is started as it is: nothing in the database tells that history is lost."""
    backup = base_backup(database, "backup")

    def lose() -> None:
        database.kill()
        database.start(backup)
        result = CliRunner().invoke(root, ["restore", "--store", url])
        assert result.exit_code == 0, result.output
        assert "is in generation 2 now, after 1" in result.output

    return lose


def recovered(database: Server, url: str) -> Callable[[], None]:
    """A recovery to a point in time, which begins a timeline."""
    backup = base_backup(database, "backup")
    (backup / "recovery.signal").touch()
    shutil.chown(backup / "recovery.signal", *database.owner)
    with (backup / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\nrecovery_target = 'immediate'\n")
        settings.write("recovery_target_action = 'promote'\n")

    def lose() -> None:
        database.kill()
        database.start(backup)

    return lose


def promoted(database: Server, url: str) -> Callable[[], None]:
    """A standby that the last change has not reached is promoted, which begins a timeline too."""
    standby = base_backup(database, "standby", "-R")

    def lose() -> None:
        database.kill()
        database.start(standby, primary=False)
        database.run("pg_ctl", "promote", "-w", "-D", standby)

    return lose


class Follower:
    """An SDK client and a plain one, which stay while the server behind their address is replaced."""

    def __init__(self, stack: contextlib.ExitStack, server: LocalServer) -> None:
        self.proxy = stack.enter_context(Proxy(port_of(server)))
        self.client = stack.enter_context(Client(self.proxy.url, backoff=(0.05, 0.2)))
        self.plain = Replica()

    def move_to(self, server: LocalServer) -> None:
        self.proxy.lead_to(port_of(server))

    def watch(self, server: LocalServer) -> watch_pb2.Hello:
        """Let the plain client take part until it has everything, and then leave."""
        self.plain.connect()
        request = watch_pb2.WatchRequest(project="default", environment="production", resume=self.plain.token)
        wanted = (server.service.head.identity.generation, server.revision)
        stream = ConfigServiceClientSync(server.url).watch(request, timeout_ms=int(PATIENCE * 1000))
        with contextlib.closing(stream):  # type: ignore[type-var]
            for message in stream:
                self.plain.feed(message.SerializeToString())
                if self.plain.position is not None and self.plain.at == wanted:
                    break
        assert self.plain.hello is not None
        return self.plain.hello


def port_of(server: LocalServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("loss", [put_back, recovered, promoted])
def test_no_client_keeps_what_the_database_has_lost(
    database: Server, loss: Callable[[Server, str], Callable[[], None]]
) -> None:
    database.execute("CREATE DATABASE store")
    url = database.url("store")
    with contextlib.ExitStack() as stack:
        with LocalServer(url) as server:
            kept = server.set("greeting", "kept")
            follower = Follower(stack, server)
            lose = loss(database, url)
            lost = server.set("greeting", "lost")
            wait_until(lambda: follower.client.get("greeting", "") == "lost", PATIENCE)
            assert follower.watch(server).reason == watch_pb2.SNAPSHOT_REASON_NEW
            assert '"lost"' in follower.plain.items["setting", "greeting"]
        lose()
        with LocalServer(url) as server:
            assert server.revision == kept
            # The revision that the clients hold is given again, before any of them is back.
            assert server.set("greeting", "new") == lost
            follower.move_to(server)
            wait_until(lambda: follower.client.get("greeting", "") == "new", PATIENCE)
            position = follower.client.position
            assert position is not None
            assert (position.generation, position.revision) == (2, lost)
            assert follower.watch(server).reason == watch_pb2.SNAPSHOT_REASON_GENERATION
            assert '"new"' in follower.plain.items["setting", "greeting"]
    store = open_store(url)
    (beginning,) = beginnings_in(store.records(GENERATION_KIND))
    store.close()
    assert (beginning.generation, beginning.revision) == (2, kept)
    assert (beginning.cause == MOVED) == (loss is not put_back)
