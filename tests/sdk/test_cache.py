"""The last known good state: written whole, read whole, or refused."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheo.v1 import watch_pb2
from rheostat.sdk.cache import Cache, DamagedCacheError
from rheostat.sdk.held import Held
from tests.sdk.line import Looping, Seen
from tests.service.book import equals, put, put_segment
from tests.service.node import Node, World

URL = "https://config.example"


@pytest.fixture
def node() -> Iterator[Node]:
    world = World()
    made = world.node()
    made.commit(put("a"), put("b", "str", "text"), put_segment("beta", equals("region", "eu")))
    yield made
    world.close()


@pytest.fixture
def held(node: Node) -> Held:
    seen = Seen()
    Looping(seen).follow(node)
    return seen.held


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "state" / "rheostat.cache", URL, "shop", "production")


def content(held: Held) -> dict[tuple[str, str], tuple[int, object]]:
    return {key: (each.revision, each.item) for key, each in held.items.items()}


def test_what_was_written_is_read_with_its_token(cache: Cache, held: Held) -> None:
    assert cache.read() is None, "there is no file yet"
    cache.write(held)
    found = cache.read()
    assert found is not None
    assert content(found) == content(held)
    assert (found.token, found.digest, found.revision) == (held.token, held.digest, held.revision)


def test_only_its_owner_can_read_the_file(cache: Cache, held: Held) -> None:
    before = os.umask(0)
    try:
        cache.write(held)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    cache.path.chmod(0o644)
    cache.write(held)
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600, "also where it was another file"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(cache: Cache, held: Held) -> None:
    cache.write(held)
    before = cache.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cache.write(Held(), sync=full)
    assert cache.path.read_bytes() == before
    assert list(cache.path.parent.iterdir()) == [cache.path]


def test_a_reader_meets_the_old_file_or_the_new_one(cache: Cache, held: Held) -> None:
    cache.write(held)
    met = []

    def look(descriptor: int) -> None:
        met.append(cache.read())

    cache.write(held, sync=look)
    assert met[0] is not None and content(met[0]) == content(held)


def test_a_file_that_is_cut_or_flipped_anywhere_is_refused(cache: Cache, held: Held) -> None:
    whole = cache.content(held)
    draw = random.Random(20)
    for number in range(500):
        place = draw.randrange(len(whole))
        if number % 2:
            damaged = whole[:place]
        else:
            damaged = whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
        with pytest.raises(DamagedCacheError):
            cache.parse(damaged)
    with pytest.raises(DamagedCacheError):
        cache.parse(whole + b"\0")
    assert content(cache.parse(whole)) == content(held)


@pytest.mark.parametrize(
    "about",
    [
        ("https://other.example", "shop", "production"),
        (URL, "other", "production"),
        (URL, "shop", "staging"),
    ],
)
def test_the_file_of_another_server_project_or_environment_is_refused(
    cache: Cache, held: Held, about: tuple[str, str, str]
) -> None:
    cache.write(held)
    with pytest.raises(DamagedCacheError, match="another server, project, environment, key or filter"):
        Cache(cache.path, *about).read()


def test_a_file_whose_items_do_not_give_its_digest_is_refused(cache: Cache, held: Held) -> None:
    wrong = Held(held.position, held.items, held.digest ^ 1)
    with pytest.raises(DamagedCacheError):
        cache.parse(cache.content(wrong))


def test_a_file_that_cannot_be_read_says_why(cache: Cache) -> None:
    cache.path.parent.mkdir()
    cache.path.mkdir()
    with pytest.raises(DamagedCacheError, match="cannot be read"):
        cache.read()


def test_what_a_later_version_has_sent_is_kept_as_it_came(cache: Cache, held: Held) -> None:
    unknown = watch_pb2.Item(kind="later", key="x", revision=3)
    from rheostat.model.position import item_digest
    from rheostat.sdk.held import HeldItem

    items = {**held.items, ("later", "x"): HeldItem(3, None, unknown)}
    found = cache.parse(cache.content(Held(held.position, items, held.digest ^ item_digest("later", "x", 3))))
    assert found.items["later", "x"].message == unknown


def test_a_file_of_another_key_or_filter_is_refused_and_does_not_hold_the_key(
    tmp_path: Path, held: Held
) -> None:
    path = tmp_path / "rheostat.cache"
    mine = Cache(path, URL, "shop", "production", scope=b"rst_server_mine")
    mine.write(held)
    assert b"rst_server_mine" not in path.read_bytes()
    found = mine.read()
    assert found is not None
    assert content(found) == content(held)
    for other in (
        Cache(path, URL, "shop", "production", scope=b"rst_server_other"),
        Cache(path, URL, "shop", "production"),
    ):
        with pytest.raises(DamagedCacheError, match="key or filter"):
            other.read()


def test_a_path_that_no_file_can_have_is_an_ordinary_failure(held: Held) -> None:
    cache = Cache("a\0b", URL, "shop", "production")
    with pytest.raises(DamagedCacheError, match="cannot be read"):
        cache.read()
    with pytest.raises(OSError, match="NUL"):
        cache.write(held)
