"""The stub reads as a client of a real server does: one suite on both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import pytest

from rheostat import ABSENT, Client, Reason, Setting, SettingChange, SettingNotFoundError, Status, ambient
from rheostat.testing import LocalServer, StubClient


class Theme(Enum):
    LIGHT = "light"
    DARK = "dark"


class World:
    """A client, and who sets what it reads."""

    client: Client

    def set(self, name: str, value: object) -> None:
        raise NotImplementedError

    def set_rules(self, name: str, rules: list[Mapping[str, Any]], default: object) -> None:
        raise NotImplementedError

    def set_segment(self, name: str, condition: str) -> None:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError

    def await_that(self, holds: Callable[[], bool]) -> None:
        raise NotImplementedError


class StubWorld(World):
    def __init__(self, client: StubClient) -> None:
        self.client = client
        self.set = client.__setitem__
        self.set_segment = client.set_segment
        self.delete = client.delete

    def set_rules(self, name: str, rules: list[Mapping[str, Any]], default: object) -> None:
        self.client.set_rules(name, rules, default=default)

    def await_that(self, holds: Callable[[], bool]) -> None:
        assert holds()


class ServerWorld(World):
    """Each change is waited for, so that what is read next has it."""

    def __init__(self, server: LocalServer, **options: Any) -> None:
        self._server = server
        self._moved = threading.Condition()
        self.client = Client(server.url, on_update=self._note, **options)

    def _note(self, position: object) -> None:
        with self._moved:
            self._moved.notify_all()

    def _arrive(self, revision: int) -> None:
        self.await_that(lambda: self.client.revision >= revision)

    def await_that(self, holds: Callable[[], bool]) -> None:
        with self._moved:
            assert self._moved.wait_for(holds, 20)

    def set(self, name: str, value: object) -> None:
        self._arrive(self._server.set(name, value))

    def set_rules(self, name: str, rules: list[Mapping[str, Any]], default: object) -> None:
        revision = self._server.apply(
            {
                "settings": {
                    name: {
                        "type": "Json",
                        "default": default,
                        "environments": {"production": {"rules": rules}},
                    }
                }
            }
        )
        self._arrive(revision)

    def set_segment(self, name: str, condition: str) -> None:
        self._arrive(self._server.apply({"segments": {name: condition}}))

    def delete(self, name: str) -> None:
        self._arrive(self._server.delete(name))


Make = Callable[..., World]


@pytest.fixture(params=["stub", "server"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "stub":
        yield lambda **options: StubWorld(StubClient(**options).start())
        return
    with LocalServer() as server:
        made: list[Client] = []

        def connected(**options: Any) -> World:
            world = ServerWorld(server, **options)
            made.append(world.client.start())
            return world

        yield connected
        for client in made:
            client.close()


@pytest.fixture
def world(make: Make) -> World:
    return make()


def test_a_client_is_live_with_an_empty_environment(world: World) -> None:
    client = world.client
    assert client.ready and not client.stale and client.status is Status.LIVE
    assert (len(client), list(client), client.revision) == (0, [], 1)
    assert client.position is not None and client.position.revision == 1
    client.wait_ready(1)
    assert client.reload().revision == 1


def test_values_are_read_as_they_were_set(world: World) -> None:
    values = {"a": 1, "b": 2.5, "c": "text", "d": True, "e": [1, {"f": None}], "g.h": {"i": 2}}
    for name, value in values.items():
        world.set(name, value)
    client = world.client
    assert {name: client[name] for name in client} == {**values, "e": (1, {"f": None})}
    assert (client.int_value("a", 0), client.float_value("a", 0.0), client.bool_value("d", False)) == (
        1,
        1.0,
        True,
    )
    assert (client.str_value("c", ""), client.json_value("g.h", None)) == ("text", {"i": 2})
    assert client.bool_value("a", False) is False
    assert "a" in client and "z" not in client
    assert dict(client.settings)["c"] == "text"


def test_what_is_not_there_gives_defaults_or_a_key_error(make: Make) -> None:
    client = make(defaults={"a": 1}).client
    assert client["a"] == client.get("a") == 1
    assert client.get("a", 2) == 2
    assert client.get("z") is None
    assert client.with_defaults({"z": 3})["z"] == 3
    found = client.evaluate("z", 4)
    assert (found.value, found.reason, found.error_message) == (
        4,
        Reason.ERROR,
        "no setting is called 'z'",
    )
    with pytest.raises(SettingNotFoundError, match=r"^no setting has the name 'z'$"):
        client["z"]
    with pytest.raises(KeyError):
        client["z"]


def test_rules_segments_and_splits_decide_by_context(make: Make) -> None:
    world = make(context={"region": "eu"})
    world.set_segment("staff", 'user.mail ends_with "@example.com"')
    world.set_rules(
        "timeout",
        [
            {"where": 'segment("staff")', "value": 9},
            {"where": 'region == "eu" and user.plan in ["pro", "team"]', "value": 5},
            {"where": "percent(user.id) < 50", "value": 4},
            {
                "where": 'region == "us"',
                "split": {
                    "unit": "user.id",
                    "salt": "halves",
                    "variants": [
                        {"name": "half", "weight": "50%", "value": 1},
                        {"name": "rest", "weight": "rest", "value": 2},
                    ],
                },
            },
        ],
        3,
    )
    client = world.client
    assert client["timeout"] == 3
    assert client.get("timeout", user={"mail": "ada@example.com"}) == 9
    assert client.get("timeout", user={"plan": "pro"}) == 5
    assert client.get("timeout", user={"plan": "pro"}, region="us") == 3
    assert client.get("timeout", context={"user.plan": "team"}) == 5
    # The salts are the server's, so the same units are in the shares.
    shares = [client.get("timeout", user={"id": f"user-{i}"}) for i in range(20)]
    assert shares == [4, 3, 4, 3, 4, 3, 4, 3, 4, 4, 4, 4, 3, 4, 4, 3, 3, 4, 4, 3]
    us = client.with_context(region="us")
    found = [us.evaluate("timeout", user={"id": f"user-{i}"}) for i in range(20)]
    assert [each.variant for each in found if each.value != 4] == [
        "rest",
        "half",
        "rest",
        "rest",
        "rest",
        "half",
        "rest",
        "rest",
    ]
    assert {each.reason for each in found} == {Reason.SPLIT, Reason.TARGETING_MATCH}
    with ambient(user={"plan": "pro"}):
        assert client["timeout"] == 5
        assert us["timeout"] == 3
    assert client.explain("timeout", user={"plan": "pro"}).evaluation.value == 5
    assert client.evaluate_all(user={"plan": "pro"})["timeout"].value == 5


def test_declared_settings_have_their_type(make: Make) -> None:
    theme = Setting("theme", Theme, default=Theme.LIGHT)
    timeout = Setting("timeout", float, default=0.5)
    world = make(settings=[theme])
    timeouts = timeout.get()
    assert theme.get() is Theme.LIGHT
    assert theme.get(Theme.DARK) is Theme.DARK
    with world.client.activate():
        world.set("timeout", 2)
        assert (timeouts, timeout.get()) == (0.5, 2.0)
        assert type(timeout.get()) is float
        assert timeout.evaluate().reason is Reason.STATIC
    assert timeout.get() == 0.5


def test_a_pinned_reader_stays_at_its_revision(world: World) -> None:
    client = world.client
    world.set("x", 1)
    pin = client.pin()
    revision = client.revision
    with client.pinned(region="eu"):
        changing = threading.Thread(target=world.set, args=("x", 2))
        changing.start()
        changing.join(20)
        assert client["x"] == 1
    assert (pin["x"], client["x"]) == (1, 2)
    assert (pin.revision, client.revision) == (revision, revision + 1)


def test_subscribers_are_told_of_each_change_in_order(world: World) -> None:
    client = world.client
    told: list[tuple[str, object, object]] = []

    def note(change: SettingChange[Any]) -> None:
        told.append((change.name, change.before, change.after))
        if change.name == "x":
            # Everything of the revision is visible.
            assert client.revision >= change.revision

    stop = client.subscribe(note)
    ended = threading.Event()
    client.subscribe("end", lambda change: ended.set())
    world.set("x", 1)
    world.set("y", "a")
    world.set("x", 2)
    world.set("x", 2)
    world.delete("x")
    world.set("end", 1)
    assert ended.wait(20)
    assert told == [
        ("x", ABSENT, 1),
        ("y", ABSENT, "a"),
        ("x", 1, 2),
        ("x", 2, ABSENT),
        ("end", ABSENT, 1),
    ]
    stop()
    stop()


def test_a_callback_that_raises_is_logged_and_the_others_are_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()

    def broken(change: object) -> None:
        raise ValueError("broken callback")

    world.client.subscribe("x", broken)
    world.client.subscribe("x", lambda change: told.set())
    world.set("x", 1)
    assert told.wait(20)
    assert "broken callback" in caplog.text


def test_changes_can_be_iterated_over(world: World) -> None:
    changes = world.client.changes("x")
    world.set("x", 1)
    world.set("y", 1)
    world.set("x", 2)
    assert [(next(changes).after) for _ in range(2)] == [1, 2]
    world.client.close()
    assert list(changes) == []


def test_overrides_win_over_everything(world: World) -> None:
    client = world.client
    world.set_rules("x", [{"where": 'region == "eu"', "value": 2}], 1)
    client.set_override("x", 5)
    found = client.evaluate("x", region="eu")
    assert (found.value, found.reason, found.variant) == (5, Reason.STATIC, "override")
    client.clear_override("x")
    assert client.get("x", region="eu") == 2


def test_frozen_holds_changes_back(world: World) -> None:
    client = world.client
    world.set("x", 1)
    told: list[object] = []
    arrived = threading.Event()
    client.subscribe("x", lambda change: (told.append(change.after), arrived.set()))
    stands = client.revision
    server = getattr(world, "_server", None)
    with client.frozen():
        for value in (2, 3):
            (server.set if server else world.set)("x", value)
        if server:
            world.await_that(lambda: client._core.held.revision >= server.revision)
        assert (client["x"], client.revision, told) == (1, stands, [])
    assert client["x"] == 3
    assert arrived.wait(20)
    assert told == [3]


def test_reads_go_on_after_close(world: World) -> None:
    world.set("x", 1)
    world.client.close()
    world.client.close()
    assert world.client["x"] == 1
    assert world.client.status is Status.CLOSED


def test_required_settings_have_to_be_there(make: Make) -> None:
    with pytest.raises(SettingNotFoundError, match="'a', 'b'"):
        make(required=["a", "b"])
