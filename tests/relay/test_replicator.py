"""What relays write to Redis, and what clients that read only that make of it: on a real server, step by step."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from rheo.v1 import watch_pb2
from rheostat.errors import InvalidArgumentError, UnavailableError
from rheostat.model.change import DeleteSetting, SetValue
from rheostat.relay.replicator import Copy, Replicator
from rheostat.sdk.held import Held
from rheostat.sdk.redis_source import RedisSource
from rheostat.sdk.redis_state import Follower, Layout
from tests.each import each
from tests.redis import Server, running_server
from tests.relay.node import RelayNode, relay_key
from tests.service.book import put
from tests.service.node import Node, World
from tests.service.replica import Replica, digest

LAYOUT = Layout("rheostat", "default", "production")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as made:
        yield made


@pytest.fixture
def redis(server: Server) -> Iterator[Any]:
    server.flush()
    client = server.client()
    yield client
    client.close()


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a"), put("b"))
    return made


@pytest.fixture
def relay(world: World, node: Node) -> RelayNode:
    return RelayNode(world, node, relay_key(node)).pump()


class Reader:
    """A client's watch of what Redis holds; its replica checks every claim."""

    def __init__(self, redis: Any, replica: Replica | None = None, **request: Any) -> None:
        self.redis = redis
        self.replica = replica or Replica()
        self.replica.connect()
        held = Held(self.replica.position, {}, digest(self.replica._revisions))
        self.follower = Follower(LAYOUT, watch_pb2.WatchRequest(**request), held)

    def look(self) -> list[str]:
        """Read once; returns the kinds of the events."""
        before = len(self.replica.events)
        while True:
            with self.redis.pipeline(transaction=True) as pipeline:
                self.follower.ask(pipeline)
                answers = pipeline.execute()
            for event in self.follower.take(answers):
                self.replica.feed(event.SerializeToString())
            if not self.follower.again:
                return self.replica.events[before:]

    @property
    def mode(self) -> str:
        assert self.replica.hello is not None
        return watch_pb2.WatchMode.Name(self.replica.hello.mode).removeprefix("WATCH_MODE_")


def written(relay: RelayNode, redis: Any) -> Copy:
    copy = Copy(relay.branch, redis)
    copy.update()
    return copy


def silence(redis: Any) -> None:
    """Let the heartbeat of all relays run out."""
    redis.delete(LAYOUT.name("beat"))


SNAPSHOT = ["hello", "snapshot_begin", "snapshot_chunk", "snapshot_end", "bookmark"]


def test_a_client_follows_by_deltas_what_a_relay_writes(
    world: World, node: Node, relay: RelayNode, redis: Any
) -> None:
    copy = written(relay, redis)
    reader = Reader(redis)
    assert reader.look() == SNAPSHOT
    assert reader.look() == []
    node.commit(SetValue("a", 7))
    node.commit(DeleteSetting("b"))
    relay.pump()
    copy.update()
    assert reader.look() == ["delta", "bookmark"]
    assert reader.replica.items == world.items("production")
    copy.update()
    assert reader.look() == ["bookmark"], "the heartbeat alone"
    # Another project's change passes over this environment.
    node.add_environment("staging")
    node.commit(put("c"), environment="staging")
    relay.relay.branch("default", "production")
    relay.pump()
    copy.update()
    assert reader.look() == ["bookmark"]
    assert reader.replica.at == (1, relay.branch.head.revision)  # type: ignore[union-attr]


def test_a_client_resumes_by_what_it_has_missed(node: Node, relay: RelayNode, redis: Any) -> None:
    copy = written(relay, redis)
    first = Reader(redis)
    first.look()
    again = Reader(redis, first.replica)
    assert again.look() == ["hello", "bookmark"]
    assert again.mode == "UP_TO_DATE"
    for value in range(3):
        node.commit(SetValue("a", value + 10))
        relay.pump()
        copy.update()
    again = Reader(redis, first.replica)
    assert again.look() == ["hello", "delta", "delta", "delta", "bookmark"]
    assert again.mode == "DELTA"
    redis.delete(LAYOUT.name("log"))
    node.commit(SetValue("b", 10))
    relay.pump()
    copy.update()
    late = Reader(redis)
    late.look()
    redis.delete(LAYOUT.name("log"))
    node.commit(SetValue("b", 11))
    relay.pump()
    copy.update()
    again = Reader(redis, first.replica)
    assert again.look() == SNAPSHOT, "the step in between is gone"
    assert again.replica.items == late.replica.items | {("setting", "b"): again.replica.items["setting", "b"]}


def everything(redis: Any) -> dict[bytes, list[bytes]]:
    """All that Redis holds, by name: as it was written, where `dump` gives it compressed."""
    read: dict[bytes, Any] = {
        b"string": lambda name: [redis.get(name)],
        b"hash": lambda name: [part for field in redis.hgetall(name).items() for part in field],
        b"zset": lambda name: redis.zrange(name, 0, -1),
        b"set": redis.smembers,
        b"list": lambda name: redis.lrange(name, 0, -1),
    }
    return {name: list(read[redis.type(name)](name)) for name in redis.scan_iter()}


def test_no_keys_are_written(node: Node, relay: RelayNode, redis: Any) -> None:
    relay_key(node)
    relay.pump()
    copy = written(relay, redis)
    node.commit(SetValue("a", 2))
    relay.pump()
    copy.update()
    head = relay.branch.head
    assert head is not None and head.relayed("default", "production").ring.valid  # type: ignore[union-attr]
    found = everything(redis)
    assert {name.rpartition(b":")[2] for name in found} == {
        b"head",
        b"items",
        b"log",
        b"beat",
        b"environments",
    }
    held = b"\0".join(part for name, parts in found.items() for part in (name, *parts))
    # What is in a step is found, and so would a key be.
    assert b"setting" in found[LAYOUT.name("log").encode()][0]
    secrets = [head.identity.token_key, relay.relay._key.encode()]
    for key in head.state.keys.values():
        secrets += [key.selector.encode(), key.verifier]
    assert len(secrets) > 3 and all(secrets)
    for secret in secrets:
        for shown in (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")):
            assert shown not in held


def test_an_older_relay_never_replaces_a_newer_state(
    world: World, node: Node, relay: RelayNode, redis: Any
) -> None:
    behind = RelayNode(world, node, relay_key(node)).pump()
    relay.pump()
    node.commit(SetValue("a", 2))
    relay.pump()
    newer, older = Copy(relay.branch, redis), Copy(behind.branch, redis)
    newer.update()
    before = redis.hgetall(LAYOUT.name("head")), redis.hgetall(LAYOUT.name("items"))
    silence(redis)
    older.update()
    assert (redis.hgetall(LAYOUT.name("head")), redis.hgetall(LAYOUT.name("items"))) == before
    assert redis.get(LAYOUT.name("beat")) is None, "nor does it vouch for it"
    assert not redis.keys("*draft*")
    behind.pump()
    older.update()
    assert redis.get(LAYOUT.name("beat"))
    reader = Reader(redis)
    reader.look()
    # The two take turns, and clients see one history.
    for value in range(4):
        node.commit(SetValue("a", value + 30))
        for one, copy in ((relay, newer), (behind, older))[:: 1 if value % 2 else -1]:
            one.pump()
            copy.update()
        assert reader.look()[0] == "delta"
    assert reader.replica.items == world.items("production")


def test_what_redis_has_lost_is_written_again(node: Node, relay: RelayNode, redis: Any) -> None:
    copy = written(relay, redis)
    reader = Reader(redis)
    reader.look()
    before = dict(reader.replica.items)
    for lose in (
        redis.flushall,
        lambda: redis.delete(LAYOUT.name("items")),
        lambda: redis.hdel(LAYOUT.name("items"), "setting:a"),
        lambda: redis.delete(LAYOUT.name("head")),
    ):
        lose()
        copy.update()
        fresh = Reader(redis)
        assert fresh.look() == SNAPSHOT
        assert fresh.replica.items == before
    assert reader.look() in ([], ["bookmark"])


def test_what_no_relay_has_written_is_replaced(node: Node, relay: RelayNode, redis: Any) -> None:
    copy = written(relay, redis)
    name = LAYOUT.name
    head = redis.hgetall(name("head"))
    spoil: list[Any] = [(redis.hdel, name("head"), field) for field in head]
    spoil += [
        (redis.hset, name("head"), field, "!")
        for field in ("generation", "revision", "count", "beats", "hops")
    ]
    spoil += [(redis.set, name(part), "x") for part in ("head", "items", "log")]
    redis.sadd("stray", "x")
    index = Layout.index("rheostat")
    spoil += [(redis.copy, "stray", stray, None, True) for stray in (name("beat"), index)]
    for value, (action, *arguments) in enumerate(spoil):
        action(*arguments)
        assert copy.update(), arguments
        fresh = Reader(redis)
        assert fresh.look() == SNAPSHOT, arguments
        assert redis.type(name("beat")) == b"string"
        assert redis.zrange(index, 0, -1) == [b"default/production"]
        node.commit(SetValue("a", value + 100))
        relay.pump()
        assert copy.update()
        assert fresh.look() == ["delta", "bookmark"], arguments


def test_what_clients_cannot_read_is_written_anew_at_the_next_check(
    world: World, node: Node, relay: RelayNode, redis: Any, server: Server
) -> None:
    replicator = Replicator(relay.relay, server.url)
    spoil: list[Any] = [
        lambda: redis.hset(LAYOUT.name("items"), mapping=before),
        lambda: redis.hset(LAYOUT.name("items"), "setting:a", b"\xff"),
        lambda: redis.zadd(LAYOUT.name("log"), {b"\xff": 10**6}),
    ]
    try:
        replicator._write_due()
        before = redis.hgetall(LAYOUT.name("items"))
        for value, lose in enumerate(spoil):
            node.commit(SetValue("a", value + 10))
            relay.pump()
            replicator._write_due()
            watching = Reader(redis)
            watching.look()
            lose()
            world.clock.seconds += 300.0
            replicator._write_due()
            fresh = Reader(redis)
            assert fresh.look() == SNAPSHOT
            assert fresh.replica.items == world.items("production")
            watching.look()
        # At the start of a relay too.
        redis.hset(LAYOUT.name("items"), mapping=before)
        again = Replicator(relay.relay, server.url)
        again._write_due()
        again.close()
        fresh = Reader(redis)
        fresh.look()
        assert fresh.replica.items == world.items("production")
    finally:
        replicator.close()


def test_relays_of_one_name_never_mix_what_they_write(world: World, node: Node, redis: Any) -> None:
    node.commit(*[put(f"s{at}") for at in range(4)])
    key = relay_key(node)
    old = RelayNode(world, node, key, node="same").pump()
    node.commit(SetValue("s0", 1), SetValue("s3", 1))
    new = RelayNode(world, node, key, node="same").pump()
    one, other = Copy(old.branch, redis), Copy(new.branch, redis)
    interrupted, run = one._run, other._run

    def prepare(*arguments: Any, **options: Any) -> Any:
        if options.get("whole"):
            raise InterruptedError
        return interrupted(*arguments, **options)

    def late(*arguments: Any, **options: Any) -> Any:
        if options.get("whole"):
            # Just before what this one has prepared takes its place.
            with pytest.raises(InterruptedError):
                one.update()
        return run(*arguments, **options)

    one._run = prepare  # type: ignore[method-assign]
    other._run = late  # type: ignore[method-assign]
    other.update()
    fresh = Reader(redis)
    assert fresh.look() == SNAPSHOT
    assert fresh.replica.items == world.items("production")


def test_what_no_relay_writes_any_more_is_gone_after_a_week(node: Node, relay: RelayNode, redis: Any) -> None:
    index = Layout.index("rheostat")
    copy = written(relay, redis)
    node.commit(SetValue("a", 2))
    relay.pump()
    copy.update()
    redis.zadd(index, {"default/gone": redis.time()[0] - 1, "default/other": redis.time()[0] + 3600})
    for name in redis.scan_iter():
        redis.expire(name, 3600)
    copy.update()
    names = {index.encode(), *(LAYOUT.name(part).encode() for part in ("head", "items", "log"))}
    assert names < set(redis.scan_iter())
    for name in names:
        assert 3600 < redis.ttl(name) <= 7 * 24 * 3600
    assert redis.zrange(index, 0, -1) == [b"default/other", b"default/production"]
    assert redis.zscore(index, "default/production") > redis.time()[0] + 3600


def test_a_redis_that_went_back_takes_no_client_back(node: Node, relay: RelayNode, redis: Any) -> None:
    copy = written(relay, redis)
    old = {part: redis.dump(LAYOUT.name(part)) for part in ("head", "items")}
    node.commit(SetValue("a", 2))
    relay.pump()
    copy.update()
    reader = Reader(redis)
    reader.look()
    redis.delete(LAYOUT.name("log"))
    for part, content in old.items():
        redis.restore(LAYOUT.name(part), 0, content, replace=True)
    assert reader.look() == []
    with pytest.raises(UnavailableError, match="older than what the client has") as caught:
        Reader(redis, reader.replica).look()
    assert caught.value.reason == "SOURCE_BEHIND"
    reader.replica.hello = None
    copy.update()
    again = Reader(redis, reader.replica)
    again.look()
    assert again.mode == "UP_TO_DATE"


def test_a_new_generation_reaches_clients_as_a_snapshot(
    world: World, node: Node, relay: RelayNode, redis: Any
) -> None:
    copy = written(relay, redis)
    reader = Reader(redis)
    reader.look()
    world.store.raise_generation(0)
    node.service.catch_up()
    relay.pump()
    copy.update()
    assert reader.look() == ["reset", *SNAPSHOT[1:]]
    assert reader.replica.at == (2, node.revision)


def test_a_state_that_nobody_refreshes_is_old_but_not_lost(node: Node, relay: RelayNode, redis: Any) -> None:
    copy = written(relay, redis)
    watching = Reader(redis)
    watching.look()
    silence(redis)
    assert watching.look() == []
    fresh = Reader(redis)
    with pytest.raises(UnavailableError) as caught:
        fresh.look()
    assert caught.value.reason == "SOURCE_SILENT"
    assert fresh.follower.old is not None and len(fresh.follower.old.items) == 2
    copy.update()
    assert watching.look() == ["bookmark"]


def test_redis_ahead_of_a_lost_history_is_asked_about_upstream(
    world: World, node: Node, relay: RelayNode, redis: Any
) -> None:
    backup = world.store.backup()
    node.commit(SetValue("a", 2))
    relay.pump()
    written(relay, redis)
    token = relay.branch.held.token
    world.store.restore(backup)
    other = RelayNode(world, world.node(), relay.relay._key).pump()
    copy = Copy(other.branch, redis)
    for _ in range(3):
        copy.update()
    assert other.relay._doubted == {("default", "production"): token}


def test_redis_that_holds_nothing_says_so(redis: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        Reader(redis).look()
    assert caught.value.reason == "SOURCE_EMPTY"
    redis.hset(LAYOUT.name("head"), "digest", "other")
    with pytest.raises(UnavailableError) as caught:
        Reader(redis).look()
    assert caught.value.reason == "SOURCE_DAMAGED"


def test_an_environment_that_cannot_be_written_holds_up_no_other(
    world: World, node: Node, server: Server, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node.add_environment("staging")
    node.commit(put("c"), environment="staging")
    environments = ("production", "staging")
    both = RelayNode(world, node, relay_key(node, environments), environments=environments).pump()
    staging = Layout("rheostat", "default", "staging")
    names = ["rheostat:1:{default/staging}:*", Layout.index("rheostat")]
    user: dict[str, Any] = {
        "enabled": True,
        "passwords": ["+secret"],
        "channels": ["*"],
        "commands": ["+@all"],
    }
    redis.acl_setuser("one", keys=names, **user)
    replicator = Replicator(both.relay, server.url.replace("unix://", "unix://one:secret@"))
    try:
        for seconds in (0.0, 20.0, 40.0):
            assert replicator._write_due() <= 5.0
            assert both.relay.redis_seconds == seconds, "the oldest"
            assert redis.hget(staging.name("head"), "count") == b"1"
            assert not redis.exists(LAYOUT.name("head"))
            redis.delete(staging.name("head"))
            world.clock.seconds += 20.0
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert "default/production" in warning and "NoPermissionError" in warning
        # While it waits for its next attempt, changes of the others are written at once.
        replicator._write_due()
        node.commit(put("d"), environment="staging")
        both.pump()
        replicator._write_due()
        assert redis.hget(staging.name("head"), "count") == b"2"
        redis.acl_setuser("one", keys=["*"], **user)
        world.clock.seconds += 20.0
        replicator._write_due()
        assert both.relay.redis_seconds == 0.0
        assert redis.exists(LAYOUT.name("head"))
    finally:
        replicator.close()
        redis.acl_deluser("one")


def test_what_another_writes_counts_as_copied_only_while_that_one_lives(
    world: World, node: Node, relay: RelayNode, redis: Any, server: Server
) -> None:
    behind = RelayNode(world, node, relay_key(node)).pump()
    node.commit(SetValue("a", 2))
    newer = written(relay.pump(), redis)
    replicator = Replicator(behind.relay, server.url)
    try:
        replicator._write_due()
        world.clock.seconds += 20.0
        newer.update()
        replicator._write_due()
        assert behind.relay.redis_seconds == 0.0
        silence(redis)
        world.clock.seconds += 20.0
        replicator._write_due()
        assert behind.relay.redis_seconds == 20.0
        # Another store, whose relay lives, is never what is to be there.
        redis.hset(LAYOUT.name("head"), "store", "ff" * 16)
        redis.set(LAYOUT.name("beat"), 1)
        world.clock.seconds += 20.0
        replicator._write_due()
        assert behind.relay.redis_seconds == 40.0
        redis.delete(LAYOUT.name("beat"))
        world.clock.seconds += 20.0
        replicator._write_due()
        assert behind.relay.redis_seconds == 0.0
    finally:
        replicator.close()


@each(
    "address",
    [
        "http://user:secret@localhost",
        "redis://:secret/x@cache:6379/0",
        "redis://user:secret#x@cache:6379/0",
        "rediss://user:secret?x@cache:6379",
        "redis://:x@secret@cache:port/0",
        "redis://:secret\N{ACCOUNT OF}x@cache:6379/0",
        "redis://[secret",
        "redis://cache?socket_timeout=secret",
    ],
)
def test_an_address_that_is_none_is_refused_without_a_word_of_it(relay: RelayNode, address: str) -> None:
    for take in (lambda: Replicator(relay.relay, address), lambda: RedisSource(address)):
        with pytest.raises(InvalidArgumentError, match="address of Redis") as caught:
            take()
        # Nor in what led to it, which logs show.
        assert "secret" not in str(caught.value) and "percent-encoded" in str(caught.value)
        assert caught.value.__context__ is None
