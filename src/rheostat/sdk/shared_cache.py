"""Stored subjects that several processes share through Redis: ``Client(cache=RedisCache(redis))``.

Redis holds three things for each environment: a generation, by key of a subject the subject's id, and by id the
subject with its version and the generation in which it was read. Raising the generation drops everything at once. What
stands there is as old as `ttl` at most, should no process have been told of a change.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rheostat.errors import InvalidArgumentError
from rheostat.sdk.effect import Own

__all__ = ["RedisCache"]

log = logging.getLogger("rheostat")

_TOMBSTONE_SECONDS: Final = 10
"""How long a subject that has changed is taken in a newer version only: who has read the older one may be slow."""

_VERSION_DIGITS: Final = 20

_PAUSE_SECONDS: Final = 10.0
"""How long Redis is left alone after it has failed: each check would wait for it."""

_PUT: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  local version, mark = string.sub(held, 1, 20), string.sub(held, 21, 21)
  if version > ARGV[1] or (version == ARGV[1] and mark == 'x') then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'EX', ARGV[4])
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[3], 'EX', ARGV[4]) end
return 1
"""
"""An older version never takes the place of a newer one, nor that of one which has changed since."""

_DROP: Final = """
local held = redis.call('GET', KEYS[1])
if held then redis.call('SET', KEYS[1], string.sub(held, 1, 20) .. 'x', 'EX', ARGV[1]) end
return 1
"""


class RedisCache:
    """Shares stored subjects between processes through Redis or Valkey, so that each is asked for once.

    ::

        Client(url, cache=RedisCache(redis.Redis(socket_timeout=0.2)))

    A subject that a process does not hold is looked up there before the server is asked, and written there after it was.
    The stream's news of a change drops it, and what was found there is confirmed by the server within half a minute.
    Should Redis fail, checks go on without it for a while, and the log says so once. Safe from any thread.
    """

    def __init__(
        self, redis: Any, *, ttl: float = 300.0, timeout: float = 0.5, prefix: str = "rheostat"
    ) -> None:
        """Share through *redis*.

        Args:
            redis: A `redis.Redis`, or for `rheostat.AsyncClient` a `redis.asyncio.Redis`, which is never closed for you.
                Give the former a short `socket_timeout`: a check waits for that. Leave `decode_responses` off.
            ttl: Seconds that a subject is kept, 1 at least.
            timeout: Seconds that a check on an event loop waits for Redis.
            prefix: What all keys in Redis begin with.

        Raises:
            InvalidArgumentError: *ttl* or *timeout* is out of range, or the client of Redis decodes what it reads.
        """
        if not 1 <= ttl < float("inf"):
            raise InvalidArgumentError(f"the option ttl is {ttl} s, and has to be 1 s at least")
        if not 0 < timeout < float("inf"):
            raise InvalidArgumentError(f"the option timeout is {timeout} s, and has to be above zero")
        pool = getattr(redis, "connection_pool", None)
        if getattr(pool, "connection_kwargs", {}).get("decode_responses"):
            raise InvalidArgumentError(
                "the client of Redis decodes what it reads: leave decode_responses off"
            )
        self._redis = redis
        self._ttl = int(ttl)
        self._timeout = timeout
        self._prefix = prefix
        self._space = ""
        self._warned: set[str] = set()
        self._paused_until = float("-inf")
        # A drop that has failed; of what, nobody remembers.
        self._owes_drop = False

    def check_kind(self, *, waits: bool) -> None:
        """Refuse a client of Redis of the other kind.

        Args:
            waits: It is for a `Client`, which waits in its thread.

        Raises:
            InvalidArgumentError: It is one for asyncio, or none; or a thread would wait for it for ever.
        """
        if inspect.iscoroutinefunction(getattr(self._redis, "execute_command", None)) is waits:
            raise InvalidArgumentError(
                "the cache of a Client needs a redis.Redis, and was given one for asyncio"
                if waits
                else "the cache of an AsyncClient needs a redis.asyncio.Redis, and was given another"
            )
        if waits and _waits_for_ever(self._redis):
            raise InvalidArgumentError(
                "the client of Redis has no socket_timeout, and a check would wait for it: pass socket_timeout=0.2"
            )

    def bind(self, scope: str) -> RedisCache:
        """Return the cache of one environment."""
        bound = RedisCache(self._redis, ttl=self._ttl, timeout=self._timeout, prefix=self._prefix)
        # In braces, so that a cluster keeps all of it in one place.
        bound._space = f"{{{self._prefix}:subjects:{scope}}}"
        return bound

    def look_up(self, names: Sequence[Sequence[tuple[str, str, str]]]) -> Own:
        """Return what gives the generation, and for each subject that is named by any of some names its bytes or None."""
        return _Asking(self, lambda: _looking_up(self, names))

    def put(self, subjects: Sequence[tuple[Any, Sequence[tuple[str, str, str]]]], generation: str) -> Own:
        """Return what stores subjects with their names as of *generation*, unless in a newer version they are."""
        return _Asking(self, lambda: _putting(self, subjects, generation))

    def drop(self, ids: Sequence[bytes] | None) -> Own:
        """Return what drops subjects; None drops all."""
        return _Asking(self, lambda: _dropping(self, ids), drops=True)

    def _key(self, *parts: str) -> str:
        return f"{self._space}:{json.dumps(parts, separators=(',', ':'))}"

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _failed(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        kind = type(error).__name__
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning(
                "the shared cache of subjects is not used, as Redis has failed: %s", str(error) or kind
            )


def _waits_for_ever(redis: Any) -> bool:
    """Tell whether the connections of *redis* have no time-out, as far as that can be found out."""
    try:
        pool = redis.connection_pool
        # One that is never opened: what is not said depends on the version.
        return pool.connection_class(**pool.connection_kwargs).socket_timeout is None
    except Exception:  # noqa: BLE001 - classes of anybody are called
        return False


class _Asking(Own):
    """Commands to Redis, one after another; gives None when one fails, or has lately."""

    def __init__(self, cache: RedisCache, begin: Callable[[], Any], *, drops: bool = False) -> None:
        self._cache = cache
        self._begin = begin
        self._drops = drops

    def blocking(self) -> Any:
        """See `Own`."""
        cache = self._cache
        if self._is_held_back():
            return None
        work = self._work()
        try:
            command = next(work)
            while True:
                command = work.send(command(cache._redis))
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # noqa: BLE001 - whatever Redis has, checks go on
            self._failed(error)
            return None

    async def awaited(self) -> Any:
        """See `Own`."""
        cache = self._cache
        if self._is_held_back():
            return None
        work = self._work()
        try:
            async with asyncio.timeout(cache._timeout):
                command = next(work)
                while True:
                    command = work.send(await command(cache._redis))
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
            return None

    def _is_held_back(self) -> bool:
        if not self._cache._is_paused():
            return False
        self._cache._owes_drop = self._cache._owes_drop or self._drops
        return True

    def _failed(self, error: Exception) -> None:
        self._cache._owes_drop = self._cache._owes_drop or self._drops
        self._cache._failed(error)

    def _work(self) -> Any:
        cache = self._cache
        if cache._owes_drop:
            # Before anything is read or written: what is there may be what was to be dropped.
            yield from _dropping(cache, None)
            cache._owes_drop = False
        return (yield from self._begin())


def _looking_up(cache: RedisCache, names: Sequence[Sequence[tuple[str, str, str]]]) -> Any:
    asked = [cache._key(*name) for each in names for name in each]
    generation, *found = yield lambda redis: redis.mget([cache._key("generation"), *asked])
    generation = (generation or b"0").decode()
    ids: list[bytes | None] = []
    at = iter(found)
    for each in names:
        known = {which for which in [next(at) for _ in each] if which is not None}
        # Keys of two subjects: the server is to say so.
        ids.append(known.pop() if len(known) == 1 else None)
    wanted = [which for which in ids if which is not None]
    if not wanted:
        return generation, [None] * len(ids)
    contents = yield lambda redis: redis.mget([cache._key("subject", which.hex()) for which in wanted])
    by_id = dict(zip(wanted, contents, strict=True))
    return generation, [None if which is None else _content(by_id[which], generation) for which in ids]


def _content(held: bytes | None, generation: str) -> bytes | None:
    """Return the message that is held, if it was read in *generation*."""
    if held is None or held[_VERSION_DIGITS : _VERSION_DIGITS + 1] != b" ":
        return None
    read_in, _, content = held[_VERSION_DIGITS + 1 :].partition(b" ")
    return content if read_in == generation.encode() else None


def _putting(
    cache: RedisCache, subjects: Sequence[tuple[Any, Sequence[tuple[str, str, str]]]], generation: str
) -> Any:
    # As it was before the server was asked: what was dropped meanwhile stays so.
    read_in = generation.encode()
    for subject, names in subjects:
        keys = [cache._key("subject", subject.id.hex()), *(cache._key(*name) for name in names)]
        version = f"{subject.version:0{_VERSION_DIGITS}}".encode()
        content = read_in + b" " + subject.SerializeToString()
        yield lambda redis, k=keys, a=(version, content, subject.id, cache._ttl): redis.eval(
            _PUT, len(k), *k, *a
        )
    return None


def _dropping(cache: RedisCache, ids: Sequence[bytes] | None) -> Any:
    if ids is None:
        yield lambda redis: redis.incr(cache._key("generation"))
        return None
    for which in ids:
        key = cache._key("subject", which.hex())
        yield lambda redis, k=key: redis.eval(_DROP, 1, k, _TOMBSTONE_SECONDS)
    return None
