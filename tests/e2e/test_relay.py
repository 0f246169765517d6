"""Two nodes, two relays in a row and programs at each of them, as real processes that are killed one after the other."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheo.v1 import watch_pb2
from rheo.v1.admin_service_pb2 import GetProjectRequest
from rheo.v1.watch_pb2 import WATCH_MODE_SNAPSHOT
from rheostat import Client, Setting
from rheostat.errors import FailedPreconditionError
from rheostat.model.change import PutEnvironment, PutSetting, SetValue
from rheostat.model.key import KeyKind, Role
from rheostat.relay.cache import RelayCache
from rheostat.relay.relay import Relay
from rheostat.relay.upstream import Stream
from rheostat.sdk.status import Status
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.e2e.process import Program, wait_until

PATIENCE = 100.0
WRITER = Writer(OPEN)


class Place:
    """A process of the product's own command, which comes back at the same port."""

    def __init__(self, *arguments: str, key: str = "") -> None:
        self.arguments = arguments
        self.key = key
        self.port = "0"
        self.begin()

    def begin(self) -> None:
        """Start it, without waiting."""
        self.program = Program(
            [
                sys.executable,
                "-m",
                "rheostat.cli",
                *self.arguments,
                "--port",
                self.port,
                "--log-level",
                "error",
            ],
            {"RHEOSTAT_KEY": self.key},
        )

    def wait(self) -> None:
        """Wait until it accepts connections."""
        self.port = self.program.line_like(r"ready at http://127\.0\.0\.1:(\d+)", PATIENCE)[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.program.kill()

    def reached(self, revision: int) -> None:
        """Wait until it knows of a revision, and of the keys that were made by then."""

        wait_until(lambda: self.readiness().get("revision", 0) >= revision, PATIENCE)

    def readiness(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            return json.loads(urllib.request.urlopen(f"{self.url}/readyz", timeout=PATIENCE).read())
        return {}

    def hops(self, key: str) -> int:
        """How many relays its streams pass through."""
        stream = Stream(self.url, {"authorization": f"Bearer {key}"}, watch_pb2.WatchRequest())
        try:
            event = stream.receive(PATIENCE)
            assert event is not None
            return event.hello.hops
        finally:
            stream.close()


class Watcher:
    """A client of the SDK that remembers how its streams have begun."""

    def __init__(self, place: Place, key: str) -> None:
        self.hellos: list[watch_pb2.Hello] = []
        self.client = Client(place.url, key=key, backoff=(0.05, 0.5))
        connected = self.client._core.connected

        def noted(hello: watch_pb2.Hello) -> None:
            self.hellos.append(hello)
            connected(hello)

        self.client._core.connected = noted  # type: ignore[method-assign]
        self.client.start(wait=False)

    def has(self, value: int) -> bool:
        return self.client.get("n") == value


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:{tmp_path_factory.mktemp('store') / 'store.db'}"


@pytest.fixture(scope="module")
def service(store: str) -> Iterator[Service]:
    """Writes go straight to the store, so that any process may be gone."""
    with Service(open_store(store)) as made:
        made.commit(WRITER, "default", "production", [PutSetting("n", {"type": "int", "default": 0})])
        yield made


def key(service: Service, kind: KeyKind) -> str:
    _, text, _ = service.create_key(
        WRITER, kind=kind, project="default", environments=("production",), declare=kind is KeyKind.SERVER
    )
    return text


@pytest.fixture(scope="module")
def program_key(service: Service) -> str:
    return key(service, KeyKind.SERVER)


@pytest.fixture(scope="module")
def relay_key(service: Service) -> str:
    return key(service, KeyKind.RELAY)


@pytest.fixture(scope="module")
def places(service: Service, store: str, program_key: str, relay_key: str) -> Iterator[dict[str, Place]]:
    """Two nodes, a relay of both, and a relay of that one and of a node."""
    with contextlib.ExitStack() as stack:
        made: dict[str, Place] = {}

        def place(name: str, *arguments: str, key: str = "") -> None:
            made[name] = Place(*arguments, key=key)
            # Not of the program, which another one may have replaced by then.
            stack.callback(made[name].kill)

        place("n1", "serve", "--store", store)
        place("n2", "serve", "--store", store)
        made["n1"].wait()
        made["n2"].wait()
        nodes = ("--upstream", made["n1"].url, "--upstream", made["n2"].url)
        place("r1", "relay", "--name", "r1", *nodes, key=relay_key)
        made["r1"].wait()
        above = ("--upstream", made["r1"].url, "--upstream", made["n2"].url)
        place("r2", "relay", "--name", "r2", *above, key=relay_key)
        made["r2"].wait()
        made["r2"].reached(service.head.revision)
        assert made["r2"].readiness()["connected"] == 1
        assert made["r2"].hops(program_key) == 2
        yield made


@pytest.fixture
def watchers(places: dict[str, Place], program_key: str) -> Iterator[dict[str, Watcher]]:
    with contextlib.ExitStack() as stack:
        made = {name: Watcher(place, program_key) for name, place in places.items()}
        for watcher in made.values():
            stack.callback(watcher.client.close)
        for watcher in made.values():
            watcher.client.wait_ready(PATIENCE)
        yield made


def change(service: Service) -> int:
    value = service.head.revision
    service.commit(WRITER, "default", "production", [SetValue("n", value)])
    return value


@pytest.mark.parametrize("victims", [("n1", "r1"), ("r2", "n2")], ids="-".join)
def test_whatever_is_killed_every_program_gets_all_changes_and_no_second_snapshot(
    service: Service, places: dict[str, Place], watchers: dict[str, Watcher], victims: tuple[str, ...]
) -> None:
    for victim in victims:
        places[victim].kill()
        places[victim].begin()
        value = change(service)
        others = [watcher for name, watcher in watchers.items() if name != victim]
        wait_until(lambda others=others, value=value: all(each.has(value) for each in others), PATIENCE)
        places[victim].wait()
        # It comes back empty where it is a relay, and serves nothing before it has a state.
        wait_until(lambda victim=victim, value=value: watchers[victim].has(value), PATIENCE)
    value = change(service)
    wait_until(lambda: all(each.has(value) for each in watchers.values()), PATIENCE)
    assert len(watchers[victims[0]].hellos) > 1
    for watcher in watchers.values():
        assert WATCH_MODE_SNAPSHOT not in [hello.mode for hello in watcher.hellos[1:]]


def test_a_program_moves_between_nodes_and_relays_both_ways_without_a_snapshot(
    service: Service, places: dict[str, Place], program_key: str
) -> None:
    headers = {"authorization": f"Bearer {program_key}"}
    token, modes, revisions = b"", [], []
    for name in ("n1", "r2", "n2", "r1", "n1"):
        change(service)
        places[name].reached(service.head.revision)
        stream = Stream(places[name].url, headers, watch_pb2.WatchRequest(resume=token))
        try:
            while event := stream.receive(PATIENCE):
                match event.WhichOneof("event"):
                    case "hello":
                        modes.append(event.hello.mode)
                    case "snapshot_end" | "delta" as kind:
                        position = getattr(event, kind).position
                        break
        finally:
            stream.close()
        token = position.token
        revisions.append(position.revision)
    assert modes == [watch_pb2.WATCH_MODE_SNAPSHOT] + [watch_pb2.WATCH_MODE_DELTA] * 4
    assert revisions == sorted(set(revisions))


def test_a_relay_passes_on_what_programs_write_and_refuses_what_people_administer(
    service: Service, places: dict[str, Place], program_key: str
) -> None:
    below = places["r2"]
    declared = Setting("declared.there", int, default=7)
    with Client(below.url, key=program_key, settings=[declared]) as client:
        wait_until(lambda: "declared.there" in client.settings, PATIENCE)

        # Reports are passed on by both relays, and name the one that the program is connected to.
        def reported() -> list[str]:
            rows = service.fleet.clients("default", "production", after="", limit=100)
            return [row.node for row in rows if row.id == client.client_id and row.reported_at is not None]

        wait_until(lambda: reported() == ["r2"], PATIENCE)
    admin = service.create_key(WRITER, kind=KeyKind.USER, role=Role.ADMIN, project="")[1]
    below.reached(service.head.revision)
    with Client(below.url, key=admin, environment="production") as client:
        refused = client.call("GetProject", GetProjectRequest()).error
        assert isinstance(refused, FailedPreconditionError)
        assert (refused.reason, refused.metadata["upstream"]) == ("ON_RELAY", places["r1"].url)


def test_a_relay_ends_the_streams_of_a_key_that_is_revoked(
    service: Service, places: dict[str, Place]
) -> None:
    text = key(service, KeyKind.SERVER)
    places["r2"].reached(service.head.revision)
    with Client(places["r2"].url, key=text) as client:
        service.revoke_key(WRITER, text.split("_")[2])
        wait_until(lambda: client.status is Status.UNAUTHORIZED, PATIENCE)


def test_a_relay_starts_from_its_file_when_its_upstream_is_away(
    service: Service, places: dict[str, Place], tmp_path: Path
) -> None:
    service.commit(WRITER, "default", "", [PutEnvironment("staging")])
    value = change(service)
    both = ("production", "staging")
    _, relay_key, _ = service.create_key(WRITER, kind=KeyKind.RELAY, project="default", environments=both)
    places["n2"].reached(service.head.revision)
    cache = RelayCache(tmp_path / "state")
    with Relay([places["n2"].url], relay_key, cache=cache) as relay:
        wait_until(lambda: relay.has_state and relay.least_revision >= service.head.revision, PATIENCE)
        assert [branch.environment for branch in relay.branches] == ["production", "staging"]
        tokens = [branch.held.token for branch in relay.branches]
    assert cache.path.stat().st_mode & 0o777 == 0o600
    with Relay(["http://127.0.0.1:9"], relay_key, cache=cache) as relay:
        view = relay.head.views["default", "production"]
        assert view.snapshot.settings["n"].value == value
        assert [branch.held.token for branch in relay.branches] == tokens
        assert relay.stale_seconds > 0
        wait_until(lambda: bool(relay.problem), PATIENCE)
