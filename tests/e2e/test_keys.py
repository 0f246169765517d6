"""Servers with keys: who is let in, and what becomes of the open streams of a key that is revoked."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CreateKeyRequest, RevokeKeyRequest, RotateKeyRequest
from rheo.v1.key_pb2 import KEY_KIND_SERVER
from rheo.v1.watch_pb2 import GO_AWAY_REASON_KEY_REVOKED
from rheostat.model.key import KeyKind, Role
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.e2e.process import ClientProgram, ServerProgram

Watch = Callable[..., ClientProgram]

CLIENTS = ("sync", "async", "typescript")


@dataclass
class Guarded:
    """A server that demands keys, and an administrator's key."""

    server: ServerProgram
    admin: str

    @property
    def client(self) -> AdminServiceClientSync:
        return AdminServiceClientSync(self.server.url)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.admin}"}

    def create_key(self, **fields: Any) -> tuple[str, str]:
        """Create a server key over the wire; returns its selector and its text."""
        created = self.client.create_key(
            CreateKeyRequest(kind=KEY_KIND_SERVER, **fields), headers=self.headers
        )
        return created.key.selector, created.secret


@pytest.fixture(scope="module", params=["serve", "gunicorn-gthread"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    path: Path = tmp_path_factory.mktemp("store") / "store.db"
    with Service(open_store(f"sqlite:{path}")) as service:
        _, admin, _ = service.create_key(Writer(OPEN), kind=KeyKind.USER, role=Role.ADMIN, project="default")
    # `serve` is not told to demand keys: that the store has one is enough.
    options = {} if request.param == "serve" else {"open": "0"}
    with ServerProgram(request.param, f"sqlite:{path}", **options) as server:
        yield Guarded(server, admin)


@pytest.mark.parametrize("client_kind", CLIENTS)
def test_a_watch_without_a_key_is_refused(guarded: Guarded, watch: Watch, client_kind: str):
    assert watch(client_kind, guarded.server.url).line()[1] == "error unauthenticated"


def test_a_revoked_keys_streams_end_within_five_seconds_and_no_others(guarded: Guarded, watch: Watch):
    (revoked, text), (_, other) = guarded.create_key(), guarded.create_key()
    clients = [watch(kind, guarded.server.url, key=text) for kind in CLIENTS]
    bystander = watch("async", guarded.server.url, key=other)
    for client in (*clients, bystander):
        client.snapshot()

    started = time.monotonic()
    AdminServiceClientSync(guarded.server.url).revoke_key(
        RevokeKeyRequest(selector=revoked), headers={"authorization": f"Bearer {guarded.admin}"}
    )
    for client in clients:
        assert client.next("go_away", patience=5.0).go_away.reason == GO_AWAY_REASON_KEY_REVOKED
        assert client.line(patience=5.0)[1] == "end"
    assert time.monotonic() - started < 5.0
    assert watch("sync", guarded.server.url, key=text).line()[1] == "error unauthenticated"

    bystander.tell("stop")
    assert bystander.line()[1] == "end"


def test_a_key_that_another_process_revokes_is_noticed_as_well(guarded: Guarded, watch: Watch):
    selector, text = guarded.create_key()
    client = watch("async", guarded.server.url, key=text)
    client.snapshot()
    started = time.monotonic()
    with Service(open_store(guarded.server.store)) as service:
        service.revoke_key(Writer(OPEN), selector)
    assert client.next("go_away", patience=5.0).go_away.reason == GO_AWAY_REASON_KEY_REVOKED
    assert client.line(patience=5.0)[1] == "end"
    assert time.monotonic() - started < 5.0


def test_a_key_that_expires_ends_its_streams(guarded: Guarded, watch: Watch):
    ends_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    _, text = guarded.create_key(expires_at=ends_at)
    client = watch("async", guarded.server.url, key=text)
    client.snapshot()
    assert client.next("go_away", patience=8.0).go_away.reason == GO_AWAY_REASON_KEY_REVOKED
    assert client.line(patience=5.0)[1] == "end"
    assert 0 <= (datetime.datetime.now(datetime.UTC) - ends_at).total_seconds() < 5.0


def test_streams_of_a_rotated_key_go_on_until_it_ends_and_those_of_its_successor_longer(
    guarded: Guarded, watch: Watch
):
    old, text = guarded.create_key()
    client = watch("async", guarded.server.url, key=text)
    client.snapshot()
    rotated = guarded.client.rotate_key(
        RotateKeyRequest(selector=old, overlap=datetime.timedelta(seconds=2)), headers=guarded.headers
    )
    successor = watch("async", guarded.server.url, key=rotated.secret)
    successor.snapshot()
    ends_at = rotated.old_key.expires_at.ToDatetime(tzinfo=datetime.UTC)
    assert client.next("go_away", patience=7.0).go_away.reason == GO_AWAY_REASON_KEY_REVOKED
    assert client.line(patience=5.0)[1] == "end"
    assert 0 <= (datetime.datetime.now(datetime.UTC) - ends_at).total_seconds() < 5.0
    successor.tell("stop")
    assert successor.line()[1] == "end"
