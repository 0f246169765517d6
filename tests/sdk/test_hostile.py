"""Servers that answer what no server should: no read raises, and no value goes back or is made up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from google.protobuf.message import Message

from rheo.v1.watch_pb2 import (
    RESET_REASON_GENERATION,
    WATCH_MODE_DELTA,
    WATCH_MODE_UP_TO_DATE,
    Item,
    Reset,
    WatchRequest,
    WatchResponse,
)
from rheostat import AuthenticationError, Status, UnavailableError
from rheostat.sdk.cache import Cache, DamagedCacheError
from rheostat.sdk.held import Held, whole
from tests.e2e.process import wait_until
from tests.sdk.driving import Driven
from tests.sdk.fake import FakeServer, Refusal, Store, hello

Event = WatchResponse | bytes | None


def _copy(message: Any, change: Callable[[Any], object]) -> Any:
    found = type(message)()
    found.CopyFrom(message)
    change(found)
    assert isinstance(found, Message)
    return found


def _wrong_digest(event: WatchResponse) -> WatchResponse:
    def spoil(copy: WatchResponse) -> None:
        getattr(copy, copy.WhichOneof("event")).digest ^= 1  # type: ignore[arg-type]

    return _copy(event, spoil)


def _of_another_store(event: WatchResponse) -> WatchResponse:
    def change(copy: WatchResponse) -> None:
        getattr(copy, copy.WhichOneof("event")).position.store_id = b"x" * 16  # type: ignore[arg-type]

    return _copy(event, change)


def _older_snapshot(store: Store) -> Iterable[Event]:
    return [hello(), *store.snapshot(1), b""]


def _not_all_items(store: Store) -> Iterable[Event]:
    begin, chunk, end = store.snapshot()
    return [hello(), begin, _copy(chunk, lambda c: c.snapshot_chunk.items.pop()), end]


def _chunk_missing(store: Store) -> Iterable[Event]:
    begin, chunk, end = store.snapshot()
    return [hello(), begin, _copy(chunk, lambda c: setattr(c.snapshot_chunk, "index", 1)), end]


def _cut_in_the_middle_of_a_snapshot(store: Store) -> Iterable[Event]:
    return [hello(), *store.snapshot()[:2], b"\0\0\0", None]


_UP_TO_DATE = hello(WATCH_MODE_UP_TO_DATE)

# What the second stream of a client says that holds revision 2, and the third one too; afterwards all is well.
# The store is at revision 3.
LIES: dict[str, Callable[[Store], Iterable[Event]]] = {
    "nothing": lambda _: [b""],
    "garbage": lambda _: [random.Random(7).randbytes(4096), None],
    "an endless message": lambda _: [b"\0\x7f\xff\xff\xff" + b"x" * 1000, None],
    "an unknown message": lambda _: [b"\0\0\0\0\x04\xff\xff\xff\xff"],
    "a web page": lambda _: _refused(200, b"<html>Log in</html>", "text/html"),
    "a web page of an error": lambda _: _refused(502, b"<html>Bad gateway</html>", "text/html"),
    "an error without a code": lambda _: _refused(500, b"{"),
    "too busy": lambda _: _refused(503, b'{"code":"unavailable","message":"later"}'),
    "a delta with a wrong digest": lambda store: [_UP_TO_DATE, _wrong_digest(store.delta(2))],
    "a bookmark with a wrong digest": lambda store: [_UP_TO_DATE, _wrong_digest(store.bookmark(2))],
    "a snapshot with a wrong digest": lambda store: [
        hello(), *store.snapshot()[:2], _wrong_digest(store.snapshot()[2])
    ],
    "a delta of another history": lambda store: [_UP_TO_DATE, _of_another_store(store.delta(2))],
    "a bookmark of another history": lambda store: [_UP_TO_DATE, _of_another_store(store.bookmark(2))],
    "a delta after a gap": lambda store: [
        _UP_TO_DATE, _copy(store.delta(2), lambda c: setattr(c.delta, "from_revision", 9))
    ],
    "an older snapshot": _older_snapshot,
    "an older delta": lambda store: [_UP_TO_DATE, store.delta(0, 1), b""],
    "an older bookmark": lambda store: [_UP_TO_DATE, store.bookmark(1), b""],
    "a snapshot without some items": _not_all_items,
    "a snapshot without a chunk": _chunk_missing,
    "half a snapshot": _cut_in_the_middle_of_a_snapshot,
    "no hello": lambda store: store.snapshot(),
    "a hello without a heartbeat": lambda store: [hello(heartbeat=0.0), *store.snapshot()],
    "a reset, and then nothing": lambda _: [
        _UP_TO_DATE, WatchResponse(reset=Reset(reason=RESET_REASON_GENERATION)), b""
    ],
    "an event of a later version": lambda _: [_UP_TO_DATE, WatchResponse(), b""],
}  # fmt: skip


def _refused(status: int, body: bytes, content_type: str = "application/json") -> Iterator[Event]:
    raise Refusal(status, body, content_type)


class Witness:
    """Reads all the time."""

    def __init__(self, client: Driven) -> None:
        self.seen: list[object] = []
        self.errors: list[Exception] = []
        self._client = client
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.001):
            try:
                found = (self._client["a"], self._client["b"])
            except Exception as error:  # noqa: BLE001 - none may be raised
                self.errors.append(error)
                return
            if not self.seen or self.seen[-1] != found:
                self.seen.append(found)


@pytest.mark.parametrize("lie", LIES)
def test_nothing_that_a_server_says_makes_a_read_raise_or_a_value_go_back(
    lie: str, make: Callable[..., Driven]
):
    store = Store()
    store.set({"a": 1, "b": "x"})
    store.set({"a": 2})
    told: list[object] = []
    lied = False

    def script(request: WatchRequest) -> Iterable[Event]:
        nonlocal lied
        if not request.resume:
            return [*store.answer(request), b""]
        if not lied:
            lied = True
            return LIES[lie](store)
        return store.answer(request)

    with FakeServer(script) as server:
        client = make(server.url, backoff=(0.2, 0.3), start_timeout=10.0).start()
        client.subscribe(lambda change: told.append((change.name, change.before, change.after)))
        with Witness(client) as witness:
            store.set({"a": 3})
            client.until_value("a", 3)
            wait_until(lambda: bool(witness.errors) or witness.seen[-1:] == [(3, "x")])
        client.until(lambda c: c.status is Status.LIVE)
        assert not witness.errors
        assert witness.seen in ([(2, "x"), (3, "x")], [(3, "x")])
        wait_until(lambda: bool(told))
        assert told == [("a", 2, 3)]
        client.close()


def test_a_message_whose_length_was_garbled_is_not_waited_for_as_long_as_bytes_arrive(
    make: Callable[..., Driven],
):
    store = Store()
    store.set({"a": 1})
    pause = threading.Event()

    def script(request: WatchRequest) -> Iterable[Event]:
        if request.resume:
            yield from store.answer(request, heartbeat=0.2)
            return
        yield from store.answer(request, heartbeat=0.2)
        # 8 MB are said to follow, and the bookmarks of hours would be taken for them.
        yield b"\0\0\x7f\xff\xff"
        while not pause.wait(0.2):
            yield b"\0" * 10

    with FakeServer(script) as server:
        client = make(server.url, backoff=(0.05, 0.1)).start()
        store.set({"a": 2})
        client.until_value("a", 2)
        assert client.hellos[1].mode == WATCH_MODE_DELTA
        pause.set()
        client.close()


def test_digests_that_are_always_wrong_cost_two_tries_and_no_storm(make: Callable[..., Driven]):
    store = Store()
    store.set({"a": 1})

    def script(request: WatchRequest) -> Iterable[Event]:
        if not request.resume:
            return store.answer(request)
        return [hello(), *store.snapshot(), _wrong_digest(store.bookmark())]

    with FakeServer(script) as server:
        client = make(server.url, backoff=(0.02, 0.05)).start()
        first = client._core.driver
        assert first is not None
        client._core.driver.hurry()
        client.until(lambda c: len(client.errors) >= 2)
        tries = len(server.requests)
        # The third try would come within 50 ms, were it not for 4 minutes.
        assert not threading.Event().wait(0.5)
        assert len(server.requests) == tries <= 4
        assert client["a"] == 1


def test_a_key_that_is_refused_later_keeps_what_is_held(make: Callable[..., Driven]):
    store = Store()
    store.set({"a": 1, "b": "x"})

    def script(request: WatchRequest) -> Iterable[Event]:
        if request.resume:
            return _refused(401, b'{"code":"unauthenticated","message":"the key was revoked"}')
        return [*store.answer(request), b""]

    with FakeServer(script) as server:
        client = make(server.url, backoff=(0.02, 0.05)).start()
        client.until(lambda c: c.status is Status.UNAUTHORIZED)
        assert (client["a"], client["b"]) == (1, "x")
        assert client.ready
        # Callbacks are called off the receiving path.
        wait_until(lambda: client.statuses[-1:] == [Status.UNAUTHORIZED])
        assert isinstance(client.errors[-1], AuthenticationError)
        assert client.statuses == [Status.LIVE, Status.UNAUTHORIZED]


def test_a_server_that_only_ever_answers_garbage_leaves_the_defaults(make: Callable[..., Driven]):
    with FakeServer(LIES["garbage"]) as server:  # type: ignore[arg-type]
        client = make(server.url, backoff=(0.02, 0.05), start_timeout=0.3, defaults={"a": 5}).start()
        client.until(lambda c: len(client.errors) >= 3)
        assert all(isinstance(error, UnavailableError) for error in client.errors), client.errors
        assert client["a"] == 5
        assert client.get("b", 7) == 7
        assert client.status is Status.CONNECTING


def test_an_item_that_cannot_be_read_does_not_keep_the_others_away(make: Callable[..., Driven]):
    store = Store()
    store.set({"a": 1, "b": 2})

    def script(request: WatchRequest) -> Iterable[Event]:
        begin, chunk, end = store.snapshot()

        def spoil(copy: WatchResponse) -> None:
            copy.snapshot_chunk.items[1].setting.type = "no such type"

        return [hello(), begin, _copy(chunk, spoil), end]

    with FakeServer(script) as server:
        client = make(server.url).start()
        assert client["a"] == 1
        assert client.get("b", 9) == 9


# The cache file.


def _cache(path: Path) -> tuple[Cache, bytes]:
    store = Store()
    for number in range(40):
        store.set({f"setting-{number}": {"value": [number, "x" * number]}})
    cache = Cache(path, "http://127.0.0.1:1", "", "")
    update = whole(Held(), store.position(), store.items(), 40, store.digest())
    return cache, cache.content(update.held)


def test_a_cache_that_was_cut_or_altered_anywhere_is_refused(tmp_path: Path):
    cache, content = _cache(tmp_path / "cache")
    assert cache.parse(content).revision == 40
    randomness = random.Random(1)
    places = randomness.sample(range(len(content)), min(500, len(content)))
    assert len(places) == 500
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << randomness.randrange(8)
        for damaged in (content[:place], bytes(flipped)):
            with pytest.raises(DamagedCacheError):
                cache.parse(damaged)


def test_an_item_exchanged_with_a_mended_checksum_is_refused_by_the_digest(tmp_path: Path):
    cache, _ = _cache(tmp_path / "cache")
    store = Store()
    store.set({"a": 1})
    held = whole(Held(), store.position(), store.items(), 1, store.digest()).held
    item = held.items["setting", "a"]
    other = Item()
    other.CopyFrom(item.message)
    other.revision = 7
    forged = Held(held.position, {("setting", "a"): type(item)(7, item.item, other)}, held.digest)
    with pytest.raises(DamagedCacheError):
        cache.parse(cache.content(forged))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of another server", "a directory"])
def test_a_damaged_cache_is_never_served(damage: str, tmp_path: Path, make: Callable[..., Driven]):
    path = tmp_path / "cache"
    _, content = _cache(path)
    url = "http://127.0.0.1:1"
    match damage:
        case "cut":
            path.write_bytes(content[:-7])
        case "flipped":
            path.write_bytes(content.replace(b"xxxxxxxx", b"xxxxyxxx", 1))
        case "empty":
            path.write_bytes(b"")
        case "a directory":
            path.mkdir()
        case _:
            path.write_bytes(content)
            url = "http://127.0.0.1:2"
    client = make(url, cache_path=path, start_timeout=0.2, backoff=(0.05, 0.1)).start()
    assert client.get("setting-3", "default") == "default"
    assert client.status is Status.CONNECTING
    wait_until(lambda: any(isinstance(error, DamagedCacheError) for error in client.errors))
