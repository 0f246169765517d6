"""Clients that read only what a relay writes to Redis: ``Client(source=RedisSource(redis))``."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from rheo.v1 import watch_pb2
from rheo.v1.config_service_pb2 import GetSnapshotRequest
from rheostat.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MissingDependencyError,
    RheostatError,
    UnavailableError,
)
from rheostat.sdk import fork
from rheostat.sdk.call import Answer, method_named
from rheostat.sdk.core import Core
from rheostat.sdk.effect import Fetch
from rheostat.sdk.held import Held
from rheostat.sdk.redis_state import DEFAULT_PREFIX, Follower, Layout, made_from, snapshot_of
from rheostat.sdk.transport.cancellation import entered_scopes

if TYPE_CHECKING:
    from rheostat.sdk.async_connection import AsyncConnection
    from rheostat.sdk.connection import Connection

__all__ = ["AsyncRedisConnection", "RedisConnection", "RedisSource"]

_POLL_SECONDS: Final = 1.0
"""How often Redis is read without a hint: hints may be lost, and a relay's heartbeat gives none."""

_POOL_OPTIONS: Final = (
    "connection_class",
    "max_connections",
    "timeout",
    "queue_class",
    "service_name",
    "sentinel_manager",
    "is_master",
    "check_connection",
)
"""What a pool of connections keeps for itself of what it was made with."""

_SOURCE: Final = "redis"
"""What stands for the server's address in messages, as that of Redis may hold a password."""


class RedisSource:
    """Where a client reads what `rheostat relay --redis` writes, in the place of a server.

    Such a client opens no connection to a server, unless it is also given a `url`: then calls, such as declarations
    and reports, go there. It reads whole environments, whatever `names` and `prefixes` say. When no relay refreshes
    what Redis holds it goes on with that, and `stale` says so. One source may serve several clients of one kind.
    """

    def __init__(self, redis: Any, *, prefix: str = DEFAULT_PREFIX) -> None:
        """Name the Redis; nothing is opened yet.

        Args:
            redis: A URL such as ``redis://localhost:6379/0``; or your own `redis.Redis`, on `AsyncClient`
                `redis.asyncio.Redis`, which is not closed for you. Give that time-outs (``socket_timeout``), and
                leave ``decode_responses`` off.
            prefix: As of the relay.

        Raises:
            MissingDependencyError: redis is not installed.
            InvalidArgumentError: It is no URL of Redis, or a client that decodes what it reads.
        """
        try:
            import redis as library
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{error.name} is not installed, which this needs: pip install 'rheostat[redis]'"
            ) from error
        self._library = library
        self._redis = redis
        self._prefix = prefix
        if isinstance(redis, str):
            made_from(library.Redis, redis)
        else:
            pool = getattr(redis, "connection_pool", None)
            if getattr(pool, "connection_kwargs", {}).get("decode_responses"):
                raise InvalidArgumentError(
                    "the client of Redis decodes what it reads: leave decode_responses off"
                )

    def connection(self, core: Core) -> RedisConnection:
        """Return what a client with threads reads from.

        Raises:
            InvalidArgumentError: The client of Redis is one for asyncio.
        """
        if isinstance(self._redis, str):
            return RedisConnection(core, made_from(self._library.Redis, self._redis), self._prefix, own=True)
        if core.inherited:
            return RedisConnection(core, _renewed(self._redis), self._prefix, own=True)
        if inspect.iscoroutinefunction(getattr(self._redis, "execute_command", None)):
            raise InvalidArgumentError("a Client needs a redis.Redis, and was given one for asyncio")
        return RedisConnection(core, self._redis, self._prefix, own=False)

    def async_connection(self, core: Core) -> AsyncRedisConnection:
        """Return what a client on an event loop reads from.

        Raises:
            InvalidArgumentError: The client of Redis is one for threads.
        """
        if isinstance(self._redis, str):
            made = made_from(self._library.asyncio.Redis, self._redis)
            return AsyncRedisConnection(core, made, self._prefix, own=True)
        if core.inherited:
            return AsyncRedisConnection(core, _renewed(self._redis), self._prefix, own=True)
        if not inspect.iscoroutinefunction(getattr(self._redis, "execute_command", None)):
            raise InvalidArgumentError("an AsyncClient needs a redis.asyncio.Redis, and was given another")
        return AsyncRedisConnection(core, self._redis, self._prefix, own=False)


def _renewed(given: Any) -> Any:
    """Return a client of the same options without the connections, which are those of the parent process.

    Raises:
        FailedPreconditionError: It is of a class that is made in another way.
    """
    pool = given.connection_pool
    # By name, as pools differ in their order: how many connections, what waits for one, and where Sentinel has it.
    options = {name: getattr(pool, name) for name in _POOL_OPTIONS if hasattr(pool, name)}
    try:
        # What a Sentinel's pool gives its connections stands for that very pool.
        kept = {name: value for name, value in pool.connection_kwargs.items() if name != "connection_pool"}
        return type(given).from_pool(type(pool)(**{**kept, **options}))
    except Exception as error:  # noqa: BLE001 - classes of anybody are called
        # Not its text, nor where it comes from: both may quote options.
        kind = type(error).__name__
    raise FailedPreconditionError(
        f"the client of Redis of the parent process cannot be made anew in this one, which goes on with its last "
        f"state ({kind}): give RedisSource a URL"
    )


class _Reading:
    """What both connections have in common.

    Attributes:
        url: What messages call the source.
    """

    url = _SOURCE

    def __init__(self, core: Core, redis: Any, prefix: str, *, own: bool) -> None:
        self._core = core
        self._redis = redis
        self._prefix = prefix
        self._own = own

    @property
    def config(self) -> Any:
        """Raises, as there is no server.

        Raises:
            FailedPreconditionError: Always.
        """
        raise _no_server()

    def _named(self) -> Layout | None:
        """Return what to read; None when Redis has to say which environment that is."""
        project, environment = self._core.options.project, self._core.options.environment
        return Layout(self._prefix, project, environment) if project and environment else None

    def _only(self, members: list[bytes]) -> Layout:
        """Return the only environment that a client which does not name one can mean.

        Raises:
            UnavailableError: There is none.
            InvalidArgumentError: There are several.
        """
        options = self._core.options
        known = sorted(member.decode() for member in members)
        found = [
            (project, environment)
            for project, _, environment in (each.partition("/") for each in known)
            if options.project in ("", project) and options.environment in ("", environment)
        ]
        if not found:
            raise UnavailableError("no relay has written such an environment to Redis", reason="SOURCE_EMPTY")
        if len(found) > 1:
            raise InvalidArgumentError(
                f"name one of the environments that Redis holds: {', '.join('/'.join(each) for each in found)}",
                reason="ENVIRONMENT_REQUIRED",
            )
        return Layout(self._prefix, *found[0])

    def _follower(self, layout: Layout, request: watch_pb2.WatchRequest) -> Follower:
        return Follower(layout, request, self._core.held)

    def _polling(self, layout: Layout, request: GetSnapshotRequest, *, anew: bool) -> Follower:
        """Return what makes the answer to a poll; *anew* when what is held does not lead there."""
        resume = bool(request.resume) and not anew
        held = self._core.held
        return Follower(layout, watch_pb2.WatchRequest(resnapshot=not resume), held if resume else Held())

    def _adopt(self, follower: Follower) -> None:
        if follower.old is not None:
            self._core.begin_with(follower.old)


def _no_server() -> FailedPreconditionError:
    return FailedPreconditionError(
        "the client reads from Redis alone, and this needs a server: give it a url as well",
        reason="NOT_SERVED",
    )


def _translated(error: Exception) -> RheostatError:
    """Return what a client of Redis has raised as an error of ours; its text may quote the address."""
    if isinstance(error, RheostatError):
        return error
    return UnavailableError(f"Redis cannot be read: {type(error).__name__}", reason="SOURCE_UNAVAILABLE")


class RedisConnection(_Reading):
    """Watches and polls for `rheostat.sdk.thread_driver`."""

    def __init__(self, core: Core, redis: Any, prefix: str, *, own: bool) -> None:
        """Prepare it; nothing is opened yet."""
        super().__init__(core, redis, prefix, own=own)
        self._calls: Connection | None = None
        if core.options.url is not None:
            from rheostat.sdk.connection import Connection

            self._calls = Connection(core)
        self._deadline = 0.0
        self._streams: set[_Stream] = set()

    @property
    def config(self) -> Any:
        """The generated client of the config service."""
        return super().config if self._calls is None else self._calls.config

    def wait_at_most(self, seconds: float) -> None:
        """Bound the silence of the stream, from now on."""
        self._deadline = time.monotonic() + seconds

    def watch(self, request: watch_pb2.WatchRequest) -> Iterator[watch_pb2.WatchResponse]:
        """Follow what relays write, from the first `next` on."""
        stream = _Stream(self._redis)
        self._streams.add(stream)
        try:
            for scope in entered_scopes():
                scope.enroll(stream)
            layout = self._layout()
            stream.subscribe(layout.name("changed"))
            follower = self._follower(layout, request)
            while True:
                events = self._look(follower)
                yield from events
                if time.monotonic() > self._deadline:
                    raise DeadlineExceededError("no relay has refreshed what Redis holds in time")
                if stream.cancelled:
                    raise UnavailableError("the watch was ended", reason="SOURCE_UNAVAILABLE")
                if not follower.again:
                    stream.wait(_POLL_SECONDS)
        except Exception as error:
            raise _translated(error) from error
        finally:
            for scope in entered_scopes():
                scope.dismiss(stream)
            self._streams.discard(stream)
            stream.close()

    def fetch(self, fetch: Fetch) -> Answer[Any]:
        """Make one unary call; a snapshot is read from Redis.

        Raises:
            RheostatError: It failed.
        """
        if method_named(fetch.method).name != "GetSnapshot":
            if self._calls is None:
                raise _no_server()
            return self._calls.fetch(fetch)
        request: GetSnapshotRequest = fetch.request  # type: ignore[assignment]
        try:
            layout = self._layout()
            events = self._poll(self._polling(layout, request, anew=False))
            if any(event.HasField("delta") for event in events):
                events = self._poll(self._polling(layout, request, anew=True))
        except Exception as error:
            raise _translated(error) from error
        return Answer(snapshot_of(events))

    def disown(self) -> None:
        """Leave all to the parent process, after a fork."""
        for stream in self._streams:
            fork.keep(stream)
        if self._own:
            fork.keep(self._redis)
            self._own = False
        if self._calls is not None:
            self._calls.disown()

    def close(self) -> None:
        """End the watch and all calls. Returns at once, from any thread."""
        for stream in tuple(self._streams):
            stream.cancel()
        if self._calls is not None:
            self._calls.close()
        if self._own:
            with contextlib.suppress(Exception):
                self._redis.close()

    def _layout(self) -> Layout:
        return self._named() or self._only(self._redis.zrange(Layout.index(self._prefix), 0, -1))

    def _poll(self, follower: Follower) -> list[watch_pb2.WatchResponse]:
        events = self._look(follower)
        while follower.again:
            events = self._look(follower)
        return events

    def _look(self, follower: Follower) -> list[watch_pb2.WatchResponse]:
        with self._redis.pipeline(transaction=True) as pipeline:
            follower.ask(pipeline)
            answers = pipeline.execute()
        try:
            return follower.take(answers)
        finally:
            self._adopt(follower)


class _Stream:
    """The hints of one watch; read by one thread, and ended by any."""

    def __init__(self, redis: Any) -> None:
        self.cancelled = False
        self._subscription = redis.pubsub(ignore_subscribe_messages=True)

    def subscribe(self, channel: str) -> None:
        self._subscription.subscribe(channel)

    def wait(self, seconds: float) -> None:
        """Wait for a hint; several are one."""
        message = self._subscription.get_message(timeout=seconds)
        while message is not None:
            message = self._subscription.get_message()

    def cancel(self) -> None:
        """End the wait."""
        self.cancelled = True
        connection = self._subscription.connection
        if connection is not None:
            # What the reader meets then ends it.
            with contextlib.suppress(Exception):
                connection.disconnect()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._subscription.close()


class AsyncRedisConnection(_Reading):
    """Watches and polls for `rheostat.sdk.task_driver`. For the event loop that runs when it is made."""

    def __init__(self, core: Core, redis: Any, prefix: str, *, own: bool) -> None:
        """Prepare it; nothing is opened yet."""
        super().__init__(core, redis, prefix, own=own)
        self._calls: AsyncConnection | None = None
        if core.options.url is not None:
            from rheostat.sdk.async_connection import AsyncConnection

            self._calls = AsyncConnection(core)

    @property
    def config(self) -> Any:
        """The generated client of the config service."""
        return super().config if self._calls is None else self._calls.config

    @property
    def received_bytes(self) -> int:
        """Nothing that would show that a silent stream is alive: a relay's heartbeat alone does."""
        return 0

    async def watch(self, request: watch_pb2.WatchRequest) -> AsyncIterator[watch_pb2.WatchResponse]:
        """Follow what relays write, from the first `anext` on."""
        subscription = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            layout = await self._layout()
            await subscription.subscribe(layout.name("changed"))
            follower = self._follower(layout, request)
            while True:
                for event in await self._look(follower):
                    yield event
                if not follower.again:
                    # Several hints are one.
                    message = await subscription.get_message(timeout=_POLL_SECONDS)
                    while message is not None:
                        message = await subscription.get_message()
        except Exception as error:
            raise _translated(error) from error
        finally:
            with contextlib.suppress(Exception):
                await subscription.aclose()

    async def fetch(self, fetch: Fetch) -> Answer[Any]:
        """Make one unary call; a snapshot is read from Redis.

        Raises:
            RheostatError: It failed.
        """
        if method_named(fetch.method).name != "GetSnapshot":
            if self._calls is None:
                raise _no_server()
            return await self._calls.fetch(fetch)
        request: GetSnapshotRequest = fetch.request  # type: ignore[assignment]
        try:
            layout = await self._layout()
            events = await self._poll(self._polling(layout, request, anew=False))
            if any(event.HasField("delta") for event in events):
                events = await self._poll(self._polling(layout, request, anew=True))
        except Exception as error:
            raise _translated(error) from error
        return Answer(snapshot_of(events))

    def disown(self) -> None:
        """Leave all to the parent process, after a fork."""
        fork.keep(self._redis)
        self._own = False
        if self._calls is not None:
            self._calls.disown()

    async def close(self) -> None:
        """Close what is ours."""
        if self._calls is not None:
            await self._calls.close()
        if self._own:
            with contextlib.suppress(Exception):
                await self._redis.aclose()

    async def _layout(self) -> Layout:
        return self._named() or self._only(await self._redis.zrange(Layout.index(self._prefix), 0, -1))

    async def _poll(self, follower: Follower) -> list[watch_pb2.WatchResponse]:
        events = await self._look(follower)
        while follower.again:
            events = await self._look(follower)
        return events

    async def _look(self, follower: Follower) -> list[watch_pb2.WatchResponse]:
        async with self._redis.pipeline(transaction=True) as pipeline:
            follower.ask(pipeline)
            answers = await pipeline.execute()
        try:
            return follower.take(answers)
        finally:
            self._adopt(follower)
