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
from collections.abc import Callable, Sequence
from typing import Any, Final

from rheostat.errors import InvalidArgumentError
from rheostat.sdk.effect import Own

__all__ = ["RedisCache"]

log = logging.getLogger("rheostat")

_TOMBSTONE_SECONDS: Final = 10
"""How long a subject that has changed is taken in a newer version only: who has read the older one may be slow."""

_VERSION_DIGITS: Final = 20

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
    The stream's news of a change drops it. Should Redis fail, checks go on without it, and the log says so once. Safe
    from any thread. Give the client of Redis a short `socket_timeout`: a check waits for it.

    Attributes:
        generation: The one that was read last.
    """

    def __init__(self, redis: Any, *, ttl: float = 300.0, prefix: str = "rheostat") -> None:
        """Share through *redis*.

        Args:
            redis: A `redis.Redis`, or for `rheostat.AsyncClient` a `redis.asyncio.Redis`, which is never closed for you.
            ttl: Seconds that a subject is kept, 1 at least.
            prefix: What all keys in Redis begin with.

        Raises:
            InvalidArgumentError: *ttl* is out of range.
        """
        if not 1 <= ttl < float("inf"):
            raise InvalidArgumentError(f"the option ttl is {ttl} s, and has to be 1 s at least")
        self._redis = redis
        self._ttl = int(ttl)
        self._prefix = prefix
        self._space = ""
        self.generation = "0"
        self._warned: set[str] = set()

    def bind(self, scope: str) -> RedisCache:
        """Return the cache of one environment."""
        bound = RedisCache(self._redis, ttl=self._ttl, prefix=self._prefix)
        # In braces, so that a cluster keeps all of it in one place.
        bound._space = f"{{{self._prefix}:subjects:{scope}}}"
        return bound

    def look_up(self, names: Sequence[Sequence[tuple[str, str, str]]]) -> Own:
        """Return what gives, for each subject that is named by any of some names, its message as bytes, or None."""
        return _Asking(self, lambda: _looking_up(self, names))

    def put(self, subjects: Sequence[tuple[Any, Sequence[tuple[str, str, str]]]]) -> Own:
        """Return what stores subjects with their names, unless they are stored in a newer version."""
        return _Asking(self, lambda: _putting(self, subjects))

    def drop(self, ids: Sequence[bytes] | None) -> Own:
        """Return what drops subjects; None drops all."""
        return _Asking(self, lambda: _dropping(self, ids))

    def _key(self, *parts: str) -> str:
        return f"{self._space}:{json.dumps(parts, separators=(',', ':'))}"

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("the shared cache of subjects is not used, as Redis has failed: %s", error)


class _Asking(Own):
    """Commands to Redis, one after another; gives None when one fails."""

    def __init__(self, cache: RedisCache, begin: Callable[[], Any]) -> None:
        self._cache = cache
        self._begin = begin

    def blocking(self) -> Any:
        """See `Own`."""
        work = self._begin()
        try:
            command = next(work)
            while True:
                command = work.send(command(self._cache._redis))
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # noqa: BLE001 - whatever Redis has, checks go on
            self._cache._failed(error)
            return None

    async def awaited(self) -> Any:
        """See `Own`."""
        work = self._begin()
        redis = self._cache._redis
        try:
            command = next(work)
            while True:
                if inspect.iscoroutinefunction(getattr(redis, "execute_command", None)):
                    found = await command(redis)
                else:
                    found = await asyncio.to_thread(command, redis)
                command = work.send(found)
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # noqa: BLE001 - as above
            self._cache._failed(error)
            return None


def _looking_up(cache: RedisCache, names: Sequence[Sequence[tuple[str, str, str]]]) -> Any:
    asked = [cache._key(*name) for each in names for name in each]
    generation, *found = yield lambda redis: redis.mget([cache._key("generation"), *asked])
    cache.generation = (generation or b"0").decode()
    ids: list[bytes | None] = []
    at = iter(found)
    for each in names:
        known = {which for which in [next(at) for _ in each] if which is not None}
        # Keys of two subjects: the server is to say so.
        ids.append(known.pop() if len(known) == 1 else None)
    wanted = [which for which in ids if which is not None]
    if not wanted:
        return [None] * len(ids)
    contents = yield lambda redis: redis.mget([cache._key("subject", which.hex()) for which in wanted])
    by_id = dict(zip(wanted, contents, strict=True))
    return [None if which is None else _content(cache, by_id[which]) for which in ids]


def _content(cache: RedisCache, held: bytes | None) -> bytes | None:
    """Return the message that is held, if it was read in this generation."""
    if held is None or held[_VERSION_DIGITS : _VERSION_DIGITS + 1] != b" ":
        return None
    generation, _, content = held[_VERSION_DIGITS + 1 :].partition(b" ")
    return content if generation.decode() == cache.generation else None


def _putting(cache: RedisCache, subjects: Sequence[tuple[Any, Sequence[tuple[str, str, str]]]]) -> Any:
    # As it was before the server was asked: what was dropped meanwhile stays so.
    generation = cache.generation.encode()
    for subject, names in subjects:
        keys = [cache._key("subject", subject.id.hex()), *(cache._key(*name) for name in names)]
        version = f"{subject.version:0{_VERSION_DIGITS}}".encode()
        content = generation + b" " + subject.SerializeToString()
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
