"""The inside of a client, shared by both drivers: what it holds, how it stands, what is still to be told and done.

Nothing here waits or does I/O. The drivers run its loops, deliver its callbacks and call `tick`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from rheo.v1 import watch_pb2
from rheo.v1.admin_service_pb2 import GetFeaturesRequest
from rheo.v1.client_pb2 import ClientIdentity
from rheo.v1.config_service_pb2 import DeclareSettingsRequest, ReportStatusRequest
from rheo.v1.declaration_pb2 import Declaration
from rheo.v1.value_pb2 import StringList
from rheostat.errors import (
    ClientClosedError,
    FailedPreconditionError,
    InvalidArgumentError,
    RheostatError,
    SettingNotFoundError,
    TypeMismatchError,
)
from rheostat.model.change import ItemKey
from rheostat.model.declaration import DeclarationOutcome, DeclarationResult, DifferenceLevel
from rheostat.model.exposure import ExposureRecord
from rheostat.model.position import Position
from rheostat.model.setting import Setting as StoredSetting
from rheostat.model.type import JSON
from rheostat.model.value import freeze
from rheostat.sdk import ambient
from rheostat.sdk.backoff import Backoff
from rheostat.sdk.cache import Cache, DamagedCacheError
from rheostat.sdk.call import calling
from rheostat.sdk.effect import Effect, Fetch
from rheostat.sdk.event import EventBuffer
from rheostat.sdk.held import Held, HeldItem, Update
from rheostat.sdk.replica import Publication, Replica
from rheostat.sdk.report import REPORT_TIMEOUT, Reporter
from rheostat.sdk.status import Status
from rheostat.sdk.subject import SharedCache, SubjectCache
from rheostat.sdk.subscription import Dispatcher, Subscription, Unsubscribe
from rheostat.sdk.watch_loop import SILENT_HEARTBEATS, Loop, Target, fetch_snapshot, poll_loop, watch_loop
from rheostat.wire.declaration import declaration_result_from_proto, declaration_to_proto
from rheostat.wire.instant import duration_from_proto
from rheostat.wire.watch import position_from_proto

if TYPE_CHECKING:
    from rheostat.sdk.reader import Reader
    from rheostat.sdk.redis_source import RedisSource
    from rheostat.sdk.setting import Setting

__all__ = ["ALL", "Core", "Driver", "Hooks", "Options"]

log = logging.getLogger("rheostat")

_HEARTBEAT_SECONDS: Final = 15.0
"""A server's usual heartbeat, until it says its own."""

_CACHE_SECONDS: Final = 1.0
"""The least time between two writes of the cache: a burst of changes is one write."""


_WARNINGS: Final = 1000
"""How many different warnings are logged and remembered at most."""

_DECLARE_BACKOFF: Final = (5.0, 300.0)
"""Seconds: the bound of the delay before a declaration that failed is sent again, and of the last."""

_BATCH_BYTES: Final = 512 * 1024
"""What one request declares at most, unless a single declaration is larger: half of what a server takes."""


class _All:
    """Any value: ends a narrowing."""

    def __repr__(self) -> str:
        return "ALL"


ALL: Final = _All()
"""In `Client.narrow`: the attribute may have any value."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions of the caller's; called in order with all other callbacks, off the receiving path.

    Attributes:
        on_update: Called with the position after each step.
        on_update_error: Called with what ended a stream or refused one.
        on_status: Called with each new status.
        on_declaration: Called with the results of declaring settings.
        on_exposure: Called with each check that is counted, by whoever makes it.
    """

    on_update: Callable[[Position], object] | None = None
    on_update_error: Callable[[RheostatError], object] | None = None
    on_status: Callable[[Status], object] | None = None
    on_declaration: Callable[[Sequence[DeclarationResult]], object] | None = None
    on_exposure: Callable[[ExposureRecord], object] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a client was made with; `rheostat.Client` describes each."""

    url: str | None
    key: str | None = field(default=None, repr=False)
    project: str = ""
    environment: str = ""
    name: str = ""
    client_id: str | None = None
    required: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    mode: str = "watch"
    poll_interval: float = 30.0
    offline: bool = False
    strict: bool = False
    report: bool = True
    cache_path: str | os.PathLike[str] | None = None
    bootstrap: str | os.PathLike[str] | Mapping[str, object] | None = None
    timeout: float = 10.0
    start_timeout: float = 5.0
    retries: int = 2
    backoff: tuple[float, float] = (1.0, 30.0)
    stale_after: float | None = None
    max_events: int = 10_000
    event_interval: float = 5.0
    flush_timeout: float = 5.0
    exposures: float = 1.0
    max_subjects: int = 10_000
    subject_timeout: float = 2.0
    cache: SharedCache | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    http_client: Any = None
    http_client_factory: Callable[[], Any] | None = None
    source: RedisSource | None = None
    hooks: Hooks = field(default_factory=Hooks)


class Driver(Protocol):
    """What a core needs of threads or an event loop. Safe from any thread; nothing blocks or raises."""

    def wake(self) -> None:
        """Something is to be delivered, done or written, or the readiness may have changed."""

    def hurry(self) -> None:
        """Leave the stream, or the wait for the next one, and open one at once."""

    def send(self) -> None:
        """Look at the events that are to be sent."""


class Core:
    """See the module.

    Attributes:
        options: What the client was made with.
        replica: What readers read.
        dispatcher: What subscribers have not been told yet.
        stale: Nothing was heard of the server for a while. A plain attribute, because evaluations read it.
        client_id: The attribute ``client.id``.
        driver: Runs the client; None before it has started.
        events: What is to be told to the server.
        subjects: Copies of stored subjects.
        ending: What is closed together with the client.
        restart: What the next read is to call once the driver has ended with its event loop.
        randomness: Where delays are drawn from.
        client_layer: The weakest layer of every context, which has it.
        jobs: Unary work for the driver: generators of effects, which raise nothing.
        readers: All that read with the client's own context, which a fork changes.
    """

    def __init__(
        self,
        options: Options,
        *,
        clock: Callable[[], float] = time.monotonic,
        randomness: random.Random | None = None,
    ) -> None:
        """Hold what *options* give; no I/O but that of a bootstrap file."""
        self.options = options
        self.randomness = randomness or random.Random()  # noqa: S311 - it spreads load, and guards nothing
        self.client_layer: dict[str, object] = {}
        self.replica = Replica()
        self.dispatcher = Dispatcher()
        self.stale = False
        self.client_id = options.client_id or str(uuid.uuid4())
        self.client_layer["client.id"] = self.client_id
        self.readers: WeakSet[Reader[Any]] = WeakSet()
        self.jobs: deque[Generator[Effect, Any, object]] = deque()
        self.driver: Driver | None = None
        self.ending: WeakSet[Any] = WeakSet()
        self._process = os.getpid()
        self.restart: Callable[[], None] | None = None
        self.hello: watch_pb2.Hello | None = None
        self.closed = False
        self.features: frozenset[str] | None = None
        self.refusal: RheostatError | None = None
        self._clock = clock
        self._tracked: dict[str, tuple[str, ...]] = {}
        self._live = False
        self._failed = False
        self._from_file = False
        self._status = Status.CONNECTING
        self._heard_at: float | None = None
        self._heartbeat = _HEARTBEAT_SECONDS
        # What is to be declared, and what waits for another try at an instant of the clock.
        self._pending: dict[str, Setting[Any]] = {}
        self._aside: dict[str, Setting[Any]] = {}
        self._declare_at = 0.0
        self._declare_backoff = Backoff(*_DECLARE_BACKOFF, self.randomness)
        self._declaring_soon = False
        self._declares = options.source is None or options.url is not None
        # The next declaration continues none; and the last that did so because the server did not know what it was to
        # continue has not been continued yet.
        self._declares_anew = False
        self._forgotten = False
        self._asked_features = False
        self._reporter = Reporter(
            self.replica, polls=options.mode == "poll", clock=clock, randomness=self.randomness
        )
        self._warned: set[Hashable] = set()
        self._uncached: Held | None = None
        self._cache_at = 0.0
        self.events = self._event_buffer()
        self.subjects = self._subject_cache()
        self._target = self._made_target()
        self.replica.listener = self._published
        if options.strict:
            ambient.checks.add(self)
        if options.bootstrap is not None:
            self._take_bootstrap(options.bootstrap)
        if options.offline:
            self._announce()

    # How it stands.

    @property
    def status(self) -> Status:
        """See `rheostat.Client.status`."""
        if self.closed:
            return Status.CLOSED
        if self.options.offline:
            return Status.OFFLINE
        if self.refusal is not None:
            return Status.UNAUTHORIZED
        if self._live and not self.stale:
            return Status.LIVE
        return Status.STALE if self.has_state else Status.CONNECTING

    @property
    def has_state(self) -> bool:
        """Whether reads give more than defaults."""
        return self._live or self._from_file or self.options.offline

    @property
    def ready(self) -> bool:
        """Whether there is a state that has every required setting."""
        return self.has_state and not self._missing()

    def readiness(self) -> bool:
        """Return `ready`.

        Raises:
            ClientClosedError: It was closed.
            SettingNotFoundError: The state lacks required settings.
            RheostatError: The server refuses the key or the request, and has given no state.
        """
        if self.closed:
            raise ClientClosedError("the client was closed")
        if self.refusal is not None and not (self._live and self.ready):
            # One object for all who wait: without the frames of those before.
            raise self.refusal.with_traceback(None)
        missing = self._missing()
        if missing and (self._live or self.options.offline):
            listed = ", ".join(map(repr, missing))
            raise SettingNotFoundError(f"the environment lacks the required settings {listed}")
        return self.ready

    @property
    def settled(self) -> bool:
        """Whether waiting longer for a server that is away has no use, as there is a state to go on with."""
        return self.ready and (self._live or self.options.offline or self._failed)

    @property
    def confirmed_ready(self) -> bool:
        """Whether it is ready with a state that the server has confirmed."""
        return self.ready and (self._live or self.options.offline)

    def excuse(self) -> str:
        """Return what to add to an error about a setting that is not there."""
        if self._live:
            return ""
        return f"; the client is not ready: it is {self.status.value}"

    def _missing(self) -> list[str]:
        snapshot = self.replica.view.snapshot
        return [name for name in self.options.required if snapshot.setting(name) is None]

    def check_open(self, *, reading: bool = False) -> None:
        """Raise when nothing can be asked of the server any more.

        Args:
            reading: What is to be asked is the state, which a source other than a server has too.

        Raises:
            ClientClosedError: The client was closed.
            FailedPreconditionError: It is offline, or has no server.
        """
        if self.closed:
            raise ClientClosedError("the client was closed")
        if self.options.offline:
            raise FailedPreconditionError("the client is offline, and this needs the server")
        if self.options.url is None and not reading:
            raise FailedPreconditionError(
                "the client has no server, and this needs one: give it a url as well"
            )

    def _announce(self) -> None:
        """Tell whoever wants to know where the client stands now."""
        with self.replica.lock():
            # Two threads may have something to tell, and the later status is to be told last.
            status = self.status
            if status is not self._status:
                self._status = status
                self.dispatcher.call(self.options.hooks.on_status, status)
        if self.driver is not None:
            self.driver.wake()

    def warn_once(self, about: Hashable, message: str, *arguments: object) -> None:
        """Log a warning unless one *about* the same was logged before."""
        if about not in self._warned and len(self._warned) < _WARNINGS:
            self._warned.add(about)
            log.warning(message, *arguments)

    # The loops, and what they tell (`watch_loop.Observer`).

    def loop(self) -> Loop:
        """Return the loop that the driver runs for as long as the client is open."""
        loop = poll_loop if self.options.mode == "poll" else watch_loop
        return loop(self, clock=self._clock, randomness=self.randomness)

    @property
    def target(self) -> Target:
        """What to watch."""
        return self._target

    @property
    def held(self) -> Held:
        """What the stream has delivered."""
        return self.replica.held

    def connected(self, hello: watch_pb2.Hello) -> None:
        """A stream has begun."""
        self.hello = hello
        with self.replica.lock():
            self._reporter.connected(hello.node)
        self._heartbeat = duration_from_proto(hello.heartbeat)
        if self._target.subjects and self.options.source is None:
            # What a source reads tells of no subjects.
            self.subjects.watched()
        if hello.filter_ignored:
            self.warn_once("filter", "the server serves too many distinct filters and sends everything")
        if (
            hello.mode == watch_pb2.WATCH_MODE_SNAPSHOT
            and hello.reason != watch_pb2.SNAPSHOT_REASON_REQUESTED
        ):
            # It may be a server that does not know them.
            self._declare_all()

    def advanced(self, update: Update) -> bool:
        """Take over *update*; False when something newer is held already."""
        with self.replica.lock():
            before = self.replica.held
            if _is_older(update.held, before):
                return False
            changed = update.changed
            if update.base is not before:
                # A fetch and the stream have overtaken each other.
                changed = frozenset(_differing(before, update.held))
            self.replica.advance(update.held, changed)
            self._reporter.applied(snapshot=update.snapshot)
            if update.problems:
                # What it is, and not why: that may quote a value.
                unreadable = update.problems[-1].partition(": ")[0]
                self._reporter.failed(f"this version cannot read the {unreadable}")
        if self.options.mode == "poll" and _is_other_store(before, update.held):
            # On a stream the Hello says so.
            self._declare_all()
        for problem in update.problems:
            self.warn_once(
                ("unreadable", problem), "this version cannot read a part of the state: %s", problem
            )
        self._uncached = update.held
        if update.held.position is not None:
            self.dispatcher.call(self.options.hooks.on_update, position_from_proto(update.held.position))
        self._now_live()
        return True

    def confirmed(self, held: Held) -> None:
        """What is held is current at its position."""
        with self.replica.lock():
            if not _is_older(held, self.replica.held):
                self.replica.confirm(held)
        if self._uncached is None and not self._live:
            self._uncached = held
        self._now_live()

    def heard(self) -> None:
        """Something has come from the server."""
        self._heard_at = self._clock()

    def disconnected(self, error: RheostatError | None, retry_in: float) -> None:
        """A stream has ended."""
        self.subjects.unwatched()
        with self.replica.lock():
            self._reporter.disconnected()
            if error is not None:
                self._reporter.failed(error.message)
        if error is None:
            log.debug("the stream has ended; another one in %.1f s", retry_in)
            return
        level = logging.DEBUG if self._failed else logging.WARNING
        self._failed = True
        log.log(level, "the configuration stream has ended: %s; again in %.1f s", error, retry_in)
        self.dispatcher.call(self.options.hooks.on_update_error, error)
        self._announce()

    def refused(self, error: RheostatError, retry_in: float) -> None:
        """The server refuses the key or the request."""
        self.subjects.unwatched()
        with self.replica.lock():
            self._reporter.disconnected()
            self._reporter.failed(error.message)
        if self.refusal is None:
            log.error("the server refuses the client: %s; it is asked again in %.0f s", error, retry_in)
        self.refusal = error
        self._failed = True
        self.dispatcher.call(self.options.hooks.on_update_error, error)
        self._announce()

    def subjects_changed(self, message: watch_pb2.SubjectsChanged) -> None:
        """Subjects are others than before."""
        self.subjects.changed(message.ids, everything=message.all)

    def asked_to_report(self, within: float) -> None:
        """Somebody waits for a rollout."""
        with self.replica.lock():
            sooner = self._reporter.ask(within)
        if sooner and self.driver is not None:
            # It waits as long as `tick` last said.
            self.driver.wake()

    def differed(self, times: int) -> None:
        """The digest has differed so many times in a row."""
        self._reporter.diverged = times > 1

    def _now_live(self) -> None:
        if self._failed and self._live:
            log.info("the configuration stream is back")
        changed = not self._live or self.stale or self.refusal is not None
        self._live = True
        self._failed = False
        self.refusal = None
        self.stale = False
        self._heard_at = self._clock()
        self._introduce()
        with self.replica.lock():
            changed = self._reporter.current() or changed
        if changed or self.dispatcher or self._uncached is not None:
            self._announce()

    def tick(self) -> float:
        """Do what is due; returns the seconds until the next time, at most 60."""
        now = self._clock()
        due = 60.0
        if self._live and not self.stale and self._heard_at is not None:
            left = self._heard_at + self._stale_after() - now
            if left <= 0:
                self.stale = True
                log.warning("nothing was heard of the configuration server for %.0f s", now - self._heard_at)
                self._announce()
            else:
                due = min(due, left)
        if self.options.cache_path is not None and self._uncached is not None:
            due = min(due, max(0.0, self._cache_at - now))
        if self._aside and self._live:
            if now >= self._declare_at:
                self._retry_declaring()
                self._introduce()
            else:
                due = min(due, self._declare_at - now)
        if self.options.report and self._live and self.refusal is None and not self.closed:
            due = min(due, self._report_in(now))
        return due

    def _stale_after(self) -> float:
        if self.options.stale_after is not None:
            return self.options.stale_after
        beat = self.options.poll_interval if self.options.mode == "poll" else self._heartbeat
        return beat * SILENT_HEARTBEATS

    # Files.

    def load_cache(self) -> None:
        """Take over the state of the cache, unless there is a better one; before the first stream."""
        path = self.options.cache_path
        if path is None or self._live or self.replica.held.position is not None:
            return
        try:
            held = self._cache_at_path(path).read()
        except DamagedCacheError as error:
            log.warning("%s", error)
            self.dispatcher.call(self.options.hooks.on_update_error, error)
            return
        if held is not None:
            self.begin_with(held)

    def begin_with(self, held: Held) -> None:
        """Take over a state that nobody vouches for any more, unless there is a newer one."""
        with self.replica.lock():
            before = self.replica.held
            if _is_older(held, before):
                return
            self.replica.advance(held, {*before.items, *held.items})
        self._from_file = True
        self.stale = True
        self._announce()

    def cache_due(self, *, closing: bool = False) -> Callable[[], None] | None:
        """Return what writes the cache, which takes a while, if that is due; it does not raise."""
        path = self.options.cache_path
        if path is None or self._uncached is None:
            return None
        if not closing and self._clock() < self._cache_at:
            return None
        cache, held = self._cache_at_path(path), self.replica.held
        self._uncached = None
        self._cache_at = self._clock() + _CACHE_SECONDS

        def write() -> None:
            try:
                cache.write(held)
            except OSError as error:
                reason = error.strerror or str(error)
                self.warn_once(("cache", reason), "the cache %s cannot be written: %s", cache.path, reason)

        return write

    def _cache_at_path(self, path: str | os.PathLike[str]) -> Cache:
        options = self.options
        wanted = self._target.filter
        scope = b"" if wanted is None else wanted.SerializeToString(deterministic=True)
        if not options.environment:
            # Then the key says which one it is. It is high in entropy, and its hash tells nothing.
            scope += (options.key or "").encode()
        return Cache(path, options.url or "", options.project, options.environment, scope=scope)

    def _take_bootstrap(self, bootstrap: str | os.PathLike[str] | Mapping[str, object]) -> None:
        """Begin with given values, until the server has sent its own.

        Raises:
            InvalidArgumentError: The file cannot be read, or is neither a JSON object nor a cache.
            TypeMismatchError: A value is none.
        """
        if isinstance(bootstrap, Mapping):
            held = _held_of(bootstrap)
        else:
            path = Path(bootstrap)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise InvalidArgumentError(
                    f"the bootstrap file {path} cannot be read: {error.strerror}"
                ) from error
            held = self._bootstrap_of(path, content)
        self._from_file = True
        self.replica.advance(held, held.items)

    def _bootstrap_of(self, path: Path, content: bytes) -> Held:
        if content.startswith(b"rheostat-cache"):
            try:
                return self._cache_at_path(path).parse(content)
            except DamagedCacheError as error:
                raise InvalidArgumentError(error.message.replace("cache", "bootstrap file", 1)) from error
        try:
            values = json.loads(content)
        except ValueError as error:
            raise InvalidArgumentError(f"the bootstrap file {path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise InvalidArgumentError(f"the bootstrap file {path} is no JSON object of names and values")
        return _held_of(values)

    # Declared settings.

    def declare(self, settings: Iterable[Setting[Any]]) -> None:
        """Fit values to *settings*, and declare them to the server once it answers."""
        with self.replica.lock():
            new = self.replica.declare(settings)
            self._pending.update((setting.name, setting) for setting in new)
        if new and self._live:
            self._introduce()

    def adopt(self, setting: Setting[Any]) -> None:
        """Declare a setting that is read through this client without having been declared to it."""
        known = self.replica.declared(setting.name)
        if known is None:
            self.declare([setting])
        elif known is not setting and known.declaration() != setting.declaration():
            # Two of one name would otherwise take turns at each read.
            self.warn_once(
                ("declared twice", setting.name),
                "the setting %r is declared twice, in different ways; the first declaration counts",
                setting.name,
            )

    def _declare_all(self) -> None:
        """Declare everything anew, to a server that may not know it."""
        with self.replica.lock():
            self._declares_anew = True
            self._pending.update((setting.name, setting) for setting in self.replica.declarations)
            self._retry_declaring()

    def _retry_declaring(self) -> None:
        with self.replica.lock():
            self._pending = {**self._aside, **self._pending}
            self._aside = {}

    def _introduce(self) -> None:
        if self._pending and self._declares and not self.closed and not self._declaring_soon:
            self._declaring_soon = True
            self.jobs.append(self._declaring())
        if self.options.strict and not self._asked_features and self.options.url is not None:
            self._asked_features = True
            self.jobs.append(self._asking_features())
        if self.jobs and self.driver is not None:
            self.driver.wake()

    def _declaring(self) -> Generator[Effect, Any, None]:
        with self.replica.lock():
            pending, self._pending = self._pending, {}
            self._declaring_soon = False
            if self._declares_anew:
                self._declares_anew = False
                self._reporter.types_hash = b""
        for batch, messages in _batches(pending):
            yield from self._declaring_batch(batch, messages)
            if self._declares_anew:
                # With all that follows here.
                return

    def _declaring_batch(
        self, batch: Mapping[str, Setting[Any]], messages: Sequence[Declaration]
    ) -> Generator[Effect, Any, None]:
        request = DeclareSettingsRequest(
            project=self.options.project,
            environment=self.options.environment,
            declarations=messages,
            client=self.identity,
            request_id=f"declare-{uuid.uuid4().hex}",
            declared_types_hash=self._reporter.types_hash,
        )
        fetch = Fetch("DeclareSettings", request, self.options.timeout)
        try:
            answer = yield from calling(fetch, retries=self.options.retries, randomness=self.randomness)
        except RheostatError as error:
            self._declaring_failed(batch, error)
            return
        self._declare_backoff.reset()
        self._continued(request.declared_types_hash, answer.message.declared_types_hash)
        if answer.message.features:
            self.features = frozenset(answer.message.features)
        results = [declaration_result_from_proto(result) for result in answer.message.results]
        for result in results:
            _log_result(result)
        self.dispatcher.call(self.options.hooks.on_declaration, tuple(results))

    def _continued(self, former: bytes, answered: bytes) -> None:
        """Note the hash that the server has *answered* to declarations that continue *former*."""
        self._reporter.types_hash = answered
        if not former:
            return
        forgotten, self._forgotten = self._forgotten, not answered
        if not answered and not forgotten:
            # It does not know what was declared before. Should it go on to forget, it is left alone.
            self._declare_all()
            self._introduce()

    def _declaring_failed(self, batch: Mapping[str, Setting[Any]], error: RheostatError) -> None:
        if isinstance(error, ClientClosedError):
            return
        if isinstance(error, FailedPreconditionError) and error.reason == "NOT_SERVED":
            # A server of an earlier version: the local declarations do without it.
            self._declares = False
            log.debug("the server takes no declarations: %s", error)
            return
        with self.replica.lock():
            self._aside = {**self._aside, **batch}
        self._declare_at = self._clock() + self._declare_backoff.delay()
        self.warn_once(("declare", error.reason), "settings could not be declared: %s", error)
        if self.driver is not None:
            # It waits as long as `tick` last said.
            self.driver.wake()

    # Reports.

    def _report_in(self, now: float) -> float:
        """Queue the report that is due; returns the seconds until there is something to do about the next."""
        with self.replica.lock():
            if self._reporter.take():
                self.jobs.append(self._reporting())
                return 0.0
            due = self._reporter.due
        # A report that is under way ends before the next is looked at.
        return 60.0 if due is None or self._reporter.under_way else max(0.0, due - now)

    def _reporting(self) -> Generator[Effect, Any, None]:
        with self.replica.lock():
            report = self._reporter.report(self.identity, self.dispatcher.names)
        request = ReportStatusRequest(
            project=self.options.project, environment=self.options.environment, reports=[report]
        )
        try:
            # Not again before the next is due: it has nothing to say by then.
            answer = yield Fetch("ReportStatus", request, min(REPORT_TIMEOUT, self.options.timeout))
        except RheostatError as error:
            log.debug("the server was not told where the client stands: %s", error)
            with self.replica.lock():
                self._reporter.refused(report, error)
            return
        finally:
            self._reporter.under_way = False
        with self.replica.lock():
            self._reporter.answered(report)
        if report.client.id in answer.message.declare_again:
            self._declare_all()
            self._introduce()

    def _asking_features(self) -> Generator[Effect, Any, None]:
        request = GetFeaturesRequest(project=self.options.project)
        try:
            answer = yield Fetch("GetFeatures", request, self.options.timeout)
        except RheostatError as error:
            self.warn_once("features", "the client is strict, but may not read the features: %s", error)
        else:
            self.features = frozenset(answer.message.features)

    def check_features(self, context: Mapping[str, object]) -> None:
        """Refuse attributes that are no registered features, on a strict client that knows them.

        Raises:
            ValueError: Names the attributes.
        """
        unknown = self.unknown_features(context)
        if unknown:
            listed = ", ".join(map(repr, unknown))
            raise ValueError(f"the project has no features {listed}; it has {sorted(self.features or ())}")

    def unknown_features(self, context: Mapping[str, object]) -> list[str]:
        """Return the attributes of *context* that are no registered features."""
        features = self.features
        if not self.options.strict or features is None:
            return []
        return [path for path in _paths(context, "") if path not in features and path != "client.id"]

    # What the client does on behalf of its caller.

    @property
    def identity(self) -> ClientIdentity:
        """Who asks."""
        return ClientIdentity(
            id=self.client_id[:200], sdk=f"rheostat-python/{_version()}", name=self.options.name
        )

    def subscribe(self, subscription: Subscription) -> Unsubscribe:
        """Deliver changes to *subscription*."""
        self.replica.watch_affected()
        return self.dispatcher.subscribe(subscription)

    def narrow(self, attributes: Mapping[str, object]) -> None:
        """Ask for the rules only that can match, from the next stream on, which is opened at once.

        Raises:
            TypeMismatchError: The values of an attribute are no strings, or there are none.
            ValueError: See `check_features`.
        """
        self.check_features(attributes)
        tracked = dict(self._tracked)
        for attribute, values in attributes.items():
            if values is ALL:
                tracked.pop(attribute, None)
                continue
            listed = (values,) if isinstance(values, str) else tuple(values)  # type: ignore[arg-type]
            if not all(isinstance(value, str) for value in listed):
                raise TypeMismatchError(
                    f"the values of {attribute!r} to narrow to are not all strings: {listed!r}"
                )
            if not listed:
                raise TypeMismatchError(
                    f"there are no values of {attribute!r} to narrow to: name some, or pass ALL"
                )
            tracked[attribute] = listed
        if tracked != self._tracked:
            self._tracked = tracked
            self._target = self._made_target()
            if self.driver is not None:
                self.driver.hurry()

    def reloading(self) -> Generator[Effect, Any, Position]:
        """Fetch the state now and return its position."""
        yield from fetch_snapshot(self, timeout=self.options.timeout)
        position = self.replica.held.position
        assert position is not None
        return position_from_proto(position)

    def call_headers(self) -> dict[str, str]:
        """Return the headers of every call."""
        headers = dict(self.options.headers)
        if self.options.key:
            headers["authorization"] = f"Bearer {self.options.key}"
        return headers

    def _event_buffer(self) -> EventBuffer:
        options = self.options
        events = EventBuffer(
            max_events=options.max_events,
            interval=options.event_interval,
            timeout=options.timeout,
            retries=options.retries,
            randomness=self.randomness,
            project=options.project,
            environment=options.environment,
            identity=lambda: self.identity,
            current_name=self._current_name,
            clock=self._clock,
        )
        events.wake = self._send_events
        if options.offline:
            events.refusing = ""
        elif options.url is None:
            events.refusing = "the client has no server to send events to: give it a url as well"
        return events

    def _subject_cache(self) -> SubjectCache:
        options = self.options
        shared = options.cache
        if shared is not None:
            # Whose environment it is: where that is not said, the key says so.
            scope = (options.project, options.environment, "" if options.environment else options.key or "")
            shared = shared.bind(hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16])
        subjects = SubjectCache(
            max_subjects=options.max_subjects,
            max_events=options.max_events,
            project=options.project,
            environment=options.environment,
            check_open=self.check_open,
            shared=shared,
            later=self._later,
            clock=self._clock,
        )
        subjects.first_held = self._watch_subjects
        subjects.kinds_held = self.replica.join
        self.events.stored = subjects.store
        return subjects

    def _later(self, work: Generator[Effect, Any, object]) -> None:
        self.jobs.append(work)
        if self.driver is not None:
            self.driver.wake()

    def _watch_subjects(self) -> None:
        """Let the next stream, which is opened at once, tell of changed subjects."""
        if not self._target.subjects:
            self._target = self._made_target(subjects=True)
            if self.driver is not None and not self.subjects.local:
                self.driver.hurry()

    def _send_events(self) -> None:
        if self.driver is None and self.replica.idle is not None:
            # As a read does. The driver looks at the events when it starts.
            self.replica.idle()
        elif self.driver is not None:
            self.driver.send()

    def _current_name(self, name: str) -> str:
        setting = self.replica.view.snapshot.setting(name)
        return name if setting is None else setting.name

    def close(self) -> None:
        """Note that the client is closed; reads go on."""
        self.closed = True
        if self.events.refusing is None:
            self.events.refusing = "the client was closed, and sends no more events"
        ambient.checks.discard(self)
        self.subjects.abandoned()
        self._announce()

    def adrift(self, driver: Driver) -> None:
        """Note that *driver* has ended with its event loop: the client starts anew on the next one."""
        if self.driver is driver:
            self.driver = None
            self.dispatcher.wake = lambda: None
            self.replica.idle = self.restart
            self.subjects.abandoned()
            if self._live:
                # What is held was current once, like the state of a file: nobody listens, and no timer runs.
                self._live = self._failed = False
                self._from_file = self.stale = True
                self._announce()

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that has made the client."""
        return os.getpid() != self._process

    def after_fork(self) -> Driver | None:
        """Become the client of a child process; returns the driver of the parent, which is to be left alone."""
        driver, self.driver = self.driver, None
        # Before anything wakes the threads of the parent.
        self.dispatcher.wake = lambda: None
        self.replica.after_fork()
        self.hello = None
        if self.options.client_id is None:
            self.client_id = str(uuid.uuid4())
            self.client_layer["client.id"] = self.client_id
            self._target = self._made_target()
            for reader in tuple(self.readers):
                reader.forget_context()
        self.randomness.seed()
        self._reporter.after_fork()
        self.events.after_fork()
        self.subjects.after_fork()
        self.jobs.clear()
        return driver

    def _made_target(self, *, subjects: bool | None = None) -> Target:
        options = self.options
        wanted: watch_pb2.Filter | None = None
        if options.names or options.prefixes or self._tracked:
            wanted = watch_pb2.Filter(
                names=options.names,
                prefixes=options.prefixes,
                tracked={name: StringList(values=values) for name, values in self._tracked.items()},
            )
        first, last = options.backoff
        return Target(
            project=options.project,
            environment=options.environment,
            filter=wanted,
            client=self.identity,
            first_backoff=first,
            last_backoff=last,
            open_timeout=options.timeout + 5.0,
            poll_interval=options.poll_interval,
            subjects=self.subjects.holds if subjects is None else subjects,
        )

    def _published(self, publication: Publication) -> None:
        self.dispatcher.publish(publication)
        for setting, problem in publication.problems:
            self._reporter.failed(f"a value of the setting {setting.name!r} does not fit its declared type")
            self.warn_once(("misfit", setting.name, problem.rule_id), "%s", problem.message)


def _is_older(held: Held, than: Held) -> bool:
    """Tell whether *held* is an earlier state of the same store than *than*."""
    if held.position is None or than.position is None:
        return held.position is None and than.position is not None
    return held.position.store_id == than.position.store_id and (
        (held.position.generation, held.position.revision)
        < (than.position.generation, than.position.revision)
    )


def _is_other_store(before: Held, after: Held) -> bool:
    return (
        before.position is not None
        and after.position is not None
        and before.position.store_id != after.position.store_id
    )


def _differing(before: Held, after: Held) -> set[ItemKey]:
    """Return the kinds and keys of all that is not the same object in both."""
    keys = before.items.keys() | after.items.keys()
    return {key for key in keys if before.items.get(key) is not after.items.get(key)}


def _batches(
    settings: Mapping[str, Setting[Any]],
) -> Iterator[tuple[dict[str, Setting[Any]], list[Declaration]]]:
    """Yield *settings* with their messages, in parts that a server takes in one request."""
    batch: dict[str, Setting[Any]] = {}
    messages: list[Declaration] = []
    size = 0
    for name, setting in settings.items():
        message = declaration_to_proto(setting.declaration())
        added = message.ByteSize()
        if batch and size + added > _BATCH_BYTES:
            yield batch, messages
            batch, messages, size = {}, [], 0
        batch[name] = setting
        messages.append(message)
        size += added
    if batch:
        yield batch, messages


def _held_of(values: Mapping[str, object]) -> Held:
    """Return *values* by name as a state that any snapshot replaces."""
    items = {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise TypeMismatchError(f"the name {name!r} of a bootstrapped setting is no string")
        try:
            setting = StoredSetting(id="", name=name, type=JSON, default=freeze(value))
        except TypeMismatchError as error:
            raise TypeMismatchError(f"the bootstrapped value of {name!r}: {error.message}") from error
        items["setting", name] = HeldItem(0, setting, watch_pb2.Item(kind="setting", key=name))
    return Held(None, items, 0)


def _paths(context: Mapping[str, object], prefix: str) -> Iterable[str]:
    for name, value in context.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _log_result(result: DeclarationResult) -> None:
    match result.outcome:
        case DeclarationOutcome.CREATED | DeclarationOutcome.UPGRADED:
            log.info("the setting %r was declared: %s", result.name, result.outcome.value)
        case DeclarationOutcome.UP_TO_DATE:
            log.debug("the setting %r is declared already", result.name)
        case DeclarationOutcome.OUTDATED:
            major = any(difference.level is DifferenceLevel.MAJOR for difference in result.differences)
            log.log(
                logging.WARNING if major else logging.INFO,
                "the setting %r is declared in version %s by newer code, whose default applies: %s",
                result.name,
                result.stored_version,
                "; ".join(difference.message for difference in result.differences),
            )
        case _:
            why = [result.message, *(difference.message for difference in result.differences)]
            log.warning(
                "the declaration of %r is answered %s: %s",
                result.name,
                result.outcome.value,
                "; ".join(filter(None, why)) or "no reason given",
            )


@cache
def _version() -> str:
    try:
        return version("rheostat")
    except PackageNotFoundError:
        # Run from a tree that was not installed.
        return "0"
