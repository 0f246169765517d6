"""The relay itself: its environments, and what the server's side needs of a node to serve them."""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from rheo.v1 import watch_pb2
from rheostat.errors import (
    AuthenticationError,
    FailedPreconditionError,
    InvalidArgumentError,
    RheostatError,
    UnavailableError,
)
from rheostat.model.key import Key, key_selector
from rheostat.model.state import ProjectState, State
from rheostat.relay.branch import MAX_DEPTH, Branch
from rheostat.relay.cache import DamagedRelayCacheError, Kept, RelayCache
from rheostat.relay.report import RelayFleet, RelayUsage
from rheostat.relay.session import RelaySession
from rheostat.relay.subject import RelaySubjects
from rheostat.relay.upstream import Upstreams
from rheostat.sdk.backoff import Backoff
from rheostat.service import Limits
from rheostat.service.access import Principal, authenticate, life_left, still_in_force
from rheostat.service.admission import Admission
from rheostat.service.metric import Metrics
from rheostat.service.notice import Notices
from rheostat.service.publish import Head, Hub, KeyRing, View
from rheostat.service.service import behind
from rheostat.service.watch import CATCH_UP_SECONDS, WatchOptions

__all__ = ["Relay"]

_TICK_SECONDS: Final = 1.0
"""How often reports are passed on."""

_CALL_SECONDS: Final = 5.0

_WRITE_SECONDS: Final = 5.0
"""How often the cache is written at most, while the state changes."""

_POSITION_SECONDS: Final = 60.0
"""How often it is written for a new position alone."""

_LOOK_SECONDS: Final = 60.0
"""How often the relay asks which environments there are, when its key is bound to none."""

_MARK_SECONDS: Final = 600.0

_CLOSE_SECONDS: Final = 2.0

log = logging.getLogger("rheostat.relay")


class Relay:
    """Follows the environments of one key and serves them as a node does. Safe from any thread.

    Attributes:
        node: Shown to clients.
        heartbeat: Seconds of silence after which a bookmark is sent.
        drain_grace: Seconds that a draining relay leaves its watchers.
        limits: As of a node.
        clock: The wall clock, aware UTC.
        monotonic: Seconds for time-outs.
        randomness: Makes random bytes.
        jitter: Where delays are drawn from.
        backoff: Seconds: the first and the last bound of the delay between two attempts at all upstreams.
        upstreams: Where the state comes from.
        admission: Counts what is open.
        metrics: What it has done.
        fleet: Who is to report, and what was reported.
        usage: Notes nothing.
        subjects: Joins nobody.
        notices: What watchers are told of subjects.
        closed: `close` was called.
        copied_at: When Redis last held the state of all environments, on the monotonic clock; None where no Redis is
            written.
    """

    def __init__(
        self,
        upstreams: Sequence[str],
        key: str,
        *,
        project: str = "",
        environments: Sequence[str] = (),
        cache: RelayCache | None = None,
        limits: Limits | None = None,
        node: str | None = None,
        heartbeat: float = 15.0,
        max_stream_age: float = 30 * 60.0,
        drain_grace: float = 3.0,
        keep_revisions: int = 10_000,
        keep_seconds: float = 24 * 3600.0,
        backoff: tuple[float, float] = (1.0, 30.0),
        clock: Callable[[], datetime.datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Make a relay; nothing is read or opened before `start`.

        Args:
            upstreams: Addresses of nodes or relays of one store, in the order of preference.
            key: One of the kind relay.
            project: Slug; empty for the key's.
            environments: Slugs; empty for all that the key sees.
            cache: Where the state is kept; None for nowhere.
            limits: Defaults to `Limits`.
            node: Defaults to a random name.
            heartbeat: See above.
            max_stream_age: Seconds, ± 20 %, after which a watcher is asked to reconnect.
            drain_grace: See above.
            keep_revisions: How many revisions a watcher may be behind, at least, before it needs a snapshot,
            keep_seconds: and for how long; both only as far as the upstream's snapshot reached back.
            backoff: See above.
            clock: See above.
            monotonic: See above.
            randomness: See above.

        Raises:
            InvalidArgumentError: There is no upstream, or the key is none of a relay.
        """
        if not upstreams:
            raise InvalidArgumentError("a relay needs an upstream")
        if any("@" in url for url in upstreams):
            # Programs are told the address.
            raise InvalidArgumentError("the address of an upstream holds a name or a password")
        if key_selector(key) is None or not key.startswith("rst_relay_"):
            raise InvalidArgumentError(
                "a relay needs a key of the kind relay: rheostat keys create --kind relay",
                reason="NOT_A_RELAY",
            )
        self.randomness = randomness
        self.node = node or f"relay-{randomness(4).hex()}"
        self.heartbeat = heartbeat
        self.drain_grace = drain_grace
        self.limits = limits or Limits()
        self.clock = clock or _utc_now
        self.monotonic = monotonic
        self.jitter = random.Random(int.from_bytes(randomness(16), "big"))  # noqa: S311 - spreads attempts out
        self.backoff = backoff
        self.upstreams = Upstreams(upstreams, key)
        self.admission = Admission(self.limits, randomness=randomness)
        self.metrics = Metrics()
        self.fleet = RelayFleet(self.clock, monotonic)
        self.usage = RelayUsage()
        self.subjects = RelaySubjects()
        self.notices = Notices(monotonic, self._tell)
        self.closed = False
        self.copied_at: float | None = None
        self._key = key
        self._project = project
        self._environments = tuple(environments)
        self._cache = cache
        self._max_stream_age = max_stream_age
        self._keep = (keep_revisions, keep_seconds)
        self._draining = False
        self._started = False
        # Guards what follows.
        self._lock = threading.RLock()
        self._branches: dict[tuple[str, str], Branch] = {}
        self._hub: Hub | None = None
        # Names of relays below, with how many streams have passed through each.
        self._below: Counter[str] = Counter()
        # The merged keys, and of which rings they are.
        self._keys: tuple[tuple[KeyRing, ...], dict[str, Key]] = ((), {})
        # By project and environment: the newest token that the upstream is to be asked about.
        self._doubted: dict[tuple[str, str], bytes] = {}
        self._complete = False
        self._problem = ""
        self._dirty = self._moved = False
        self._marks: list[tuple[float, int]] = []
        self._awake = threading.Event()
        self._worker = threading.Thread(target=self._work, name="rheostat-relay", daemon=True)

    # Life.

    def start(self) -> Self:
        """Begin with what the cache has, and follow the upstream. Idempotent; does not wait for it."""
        with self._lock:
            if self._started or self.closed:
                return self
            self._started = True
        for kept in self._cached():
            self._add(kept.project, kept.environment, kept)
        if self._branches:
            self._complete = True
            self.changed()
        self._worker.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the streams, and write down what is not written yet. Idempotent."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            branches = list(self._branches.values())
        self._awake.set()
        self.notices.close()
        for branch in branches:
            branch.close()
        deadline = self.monotonic() + _CLOSE_SECONDS
        for branch in branches:
            branch.join(max(0.0, deadline - self.monotonic()))
        if self._worker.is_alive() and self._worker is not threading.current_thread():
            self._worker.join(max(0.0, deadline - self.monotonic()))
        self.upstreams.close()
        if self._dirty or self._moved:
            self._write()

    @property
    def started(self) -> bool:
        """`start` was called."""
        return self._started

    @property
    def draining(self) -> bool:
        """The relay has been asked to end."""
        return self._draining

    @property
    def ready(self) -> bool:
        """There is something to serve, and the relay is not draining."""
        return self.has_state and not self._draining and not self.closed

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return self.admission.open

    def drain(self) -> None:
        """Refuse new watches and ask the open ones to leave. Idempotent; returns at once."""
        self._draining = True
        self.ring()

    @property
    def drain_spread(self) -> float:
        """Seconds over which a draining relay's clients are asked to spread their reconnects."""
        return self.admission.drain_spread

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which the clients are to spread their reconnects if the relay ends without a word."""
        return self.admission.reconnect_spread

    def stream_age(self) -> float:
        """Draw the age at which a new watch is asked to reconnect: the maximum ± 20 %."""
        share = int.from_bytes(self.randomness(4), "big") / 2**32
        return self._max_stream_age * (0.8 + 0.4 * share)

    # What the server's side asks for.

    @property
    def hub(self) -> Hub:
        """The heads of all environments in one, whose bell rings for each.

        Raises:
            UnavailableError: There is no state yet: nobody can be told whether a key is good.
        """
        if self._hub is None:
            raise UnavailableError("the relay has no state yet", reason="RELAY_EMPTY", retry_after=1.0)
        return self._hub

    @property
    def head(self) -> Head:
        """The newest head of all environments; its revision is the newest of any."""
        return self.hub.head

    @property
    def has_state(self) -> bool:
        """There is something to serve."""
        return self._hub is not None

    @property
    def least_revision(self) -> int:
        """The revision that all environments have reached."""
        heads = [branch.head for branch in self.branches]
        return min((head.revision for head in heads if head is not None), default=0)

    @property
    def branches(self) -> Sequence[Branch]:
        """The environments."""
        with self._lock:
            return list(self._branches.values())

    @property
    def problem(self) -> str:
        """The reason of what is wrong with the upstream; empty when nothing is. The log has the text."""
        return next((branch.problem for branch in self.branches if branch.problem), self._problem)

    @property
    def stale_seconds(self) -> float:
        """For how long the store's own node has not said that this is the state."""
        origin = min((branch.origin_time for branch in self.branches if branch.head), default=None)
        return 0.0 if origin is None else max(0.0, (self.clock() - origin).total_seconds())

    @property
    def redis_seconds(self) -> float | None:
        """For how long Redis may not have held the state of all environments; None where no Redis is written."""
        return None if self.copied_at is None else max(0.0, self.monotonic() - self.copied_at)

    @property
    def via(self) -> tuple[str, ...]:
        """What a stream to the upstream passes through: this relay, and those below it, as far as there is room."""
        with self._lock:
            return (self.node, *self._below)[:MAX_DEPTH]

    @contextlib.contextmanager
    def below(self, via: Sequence[str]) -> Iterator[None]:
        """Keep in mind the relays that a stream has passed through, while the context, the stream, lasts.

        Raises:
            FailedPreconditionError: This relay's own state comes from one of them.
        """
        above = next((branch.upstream for branch in self.branches if branch.upstream in via), None)
        if above:
            raise FailedPreconditionError(
                f"this relay's state comes from {above!r}, through which the stream has passed: relays watch each "
                "other in a circle",
                reason="WATCH_LOOP",
                metadata={"node": above},
            )
        with self._lock:
            self._below.update(via)
        try:
            yield
        finally:
            with self._lock:
                self._below.subtract(via)
                self._below = +self._below

    def branch(self, project: str, environment: str) -> Branch:
        """Return an environment that there is a state of; KeyError when there is none (resolve it first)."""
        return self._branches[project, environment]

    def view(self, project: str, environment: str, head: Head | None = None) -> View:
        """Return the newest view of an environment; KeyError when there is none (resolve it first)."""
        return (head or self.head).views[project, environment]

    def watch(self, options: WatchOptions) -> RelaySession:
        """Begin a watch; the driver steps the session."""
        return RelaySession(self.branch(options.project, options.environment), options)

    def catch_up(self) -> Head:
        """Return the newest head: a relay cannot ask for more than it is sent."""
        return self.head

    def wait_for(self, min_revision: int, timeout: float | None = None) -> Head:
        """Return the head once any environment has reached *min_revision*, waiting up to 3 s, or *timeout*.

        Raises:
            BehindError: It was not reached in time.
        """
        patience = CATCH_UP_SECONDS if timeout is None else min(CATCH_UP_SECONDS, timeout)
        head = self.hub.reach(min_revision, patience, self.monotonic)
        if head.revision < min_revision:
            raise behind(min_revision, head, "relay")
        return head

    def key_in_force(self, principal: Principal) -> bool:
        """Tell whether the caller's key still opens anything."""
        return principal.key is None or still_in_force(self.head.state, principal, self.clock())

    def key_ends_at(self, principal: Principal) -> float | None:
        """Return the instant of the monotonic clock at which the caller's key expires; None when it does not."""
        left = None if principal.key is None else life_left(self.head.state, principal, self.clock())
        return None if left is None else self.monotonic() + left

    # What the environments tell.

    def changed(self, *, state: bool = False) -> None:
        """Make the head anew: an environment has moved, or with *state* changed."""
        with self._lock:
            self._dirty = self._dirty or state
            self._moved = True
            heads = [branch.head for branch in self._branches.values()]
            found = [head for head in heads if head is not None]
            if self._hub is None and (not self._complete or len(found) < len(heads)):
                # A key that only the missing environment knows would be taken for a bad one.
                return
            head = self._merged(found)
            if self._hub is None:
                self._hub = Hub(head)
            else:
                self._hub.publish(head)

    def _tell(self) -> None:
        """Wake the watches that are told of subjects."""
        hub = self._hub
        if hub is not None:
            hub.tell()

    def ring(self) -> None:
        """Wake all watches."""
        hub = self._hub
        if hub is not None:
            hub.ring()

    def _merged(self, heads: Sequence[Head]) -> Head:
        """Return one head of those of all environments. The lock is held."""
        newest = max(heads, key=lambda head: (head.identity.generation, head.revision))
        projects: dict[str, ProjectState] = {}
        for head in sorted(heads, key=lambda head: head.revision):
            for slug, project in head.state.projects.items():
                former = projects.get(slug)
                environments = {} if former is None else former.environments
                projects[slug] = replace(project, environments={**environments, **project.environments})
        rings = tuple(ring for head in heads for ring in head.rings.values())
        if len(rings) != len(self._keys[0]) or any(
            one is not other for one, other in zip(rings, self._keys[0], strict=True)
        ):
            self._keys = (rings, _merged_keys(rings))
        return Head(
            newest.identity,
            State(projects, self._keys[1], newest.revision),
            max(head.floor for head in heads),
            {address: view for head in heads for address, view in head.views.items()},
        )

    def doubt(self, address: tuple[str, str], token: bytes) -> None:
        """Ask the upstream about a token soon, for what that makes a node notice."""
        with self._lock:
            self._doubted[address] = token

    # The worker.

    def _work(self) -> None:
        attempts = Backoff(*self.backoff, self.jitter)
        look_at = self.monotonic()
        written_at = marked_at = self.monotonic()
        while not self.closed:
            now = self.monotonic()
            try:
                if now >= look_at:
                    if self._look():
                        attempts.reset()
                        look_at = now + _LOOK_SECONDS
                    else:
                        look_at = now + attempts.delay()
                self._pass_on()
                self._ask_about_doubted()
                if now >= marked_at + _MARK_SECONDS:
                    marked_at = now
                    self._compact(now)
                if self._cache is not None and (
                    (self._dirty and now >= written_at + _WRITE_SECONDS)
                    or (self._moved and now >= written_at + _POSITION_SECONDS)
                ):
                    written_at = now
                    self._write()
            except Exception:
                # Whatever it is: reports and the cache must go on.
                log.exception("a task of the relay has failed; trying again")
            self._awake.wait(_TICK_SECONDS)

    def _look(self) -> bool:
        """Find out which environments to follow; return whether that succeeded.

        A watch that names none is answered by the only one that the key sees, or refused with the names of all.
        """
        own = None if self._hub is None else self._hub.head.state.keys.get(key_selector(self._key) or "")
        if self._complete and (self._environments or (own is not None and own.environments)):
            known = {slug for _, slug in self._branches}
            if known >= set(self._environments or (own.environments if own is not None else ())):
                return True
        wanted: list[tuple[str, str]] = []
        try:
            for environment in self._environments or ("",):
                wanted += self._resolved(self._project, environment)
        except RheostatError as error:
            if not self.closed:
                self._problem = error.reason
                log.warning("cannot find out which environments to relay: %s", error.message)
            return False
        self._problem = ""
        for address in wanted:
            if address not in self._branches:
                self._add(*address)
        with self._lock:
            self._complete = True
        if any(branch.head is not None for branch in self.branches):
            self.changed()
        return True

    def _resolved(self, project: str, environment: str) -> list[tuple[str, str]]:
        """Return the project and environments that a name means, of the first upstream that answers.

        Raises:
            RheostatError: None did.
        """
        last: RheostatError | None = None
        for url in self.upstreams.urls:
            # With a token, the only environment is not sent again and again.
            token = self.branches[0].held.token if len(self.branches) == 1 else b""
            request = watch_pb2.WatchRequest(
                project=project, environment=environment, resume=token, via=self.via
            )
            stream = self.upstreams.watch(url, request)
            try:
                event = stream.receive(_CALL_SECONDS)
            except InvalidArgumentError as error:
                if error.reason != "ENVIRONMENT_REQUIRED":
                    raise
                found = error.metadata.get("environments", "")
                return [(error.metadata.get("project", project), slug) for slug in found.split(", ") if slug]
            except RheostatError as error:
                last = error
            else:
                if event is not None and event.HasField("hello"):
                    return [(event.hello.project, event.hello.environment)]
                last = UnavailableError(f"{url} has no state for relays now")
            finally:
                stream.close()
        assert last is not None
        raise last

    def _add(self, project: str, environment: str, kept: Kept | None = None) -> None:
        branch = Branch(self, project, environment, kept)
        with self._lock:
            self._branches[branch.project, branch.environment] = branch
        branch.start()

    def _pass_on(self) -> None:
        for request in self.fleet.reports.batches():
            try:
                answer = self.upstreams.call("ConfigService/ReportStatus", request, _CALL_SECONDS)
            except RheostatError as error:
                log.debug("reports cannot be passed on: %s", error.message)
                self.fleet.reports.failed(request)
            else:
                self.fleet.reports.answered(request, answer.declare_again)

    def _ask_about_doubted(self) -> None:
        """Open a stream with each doubted token, until it is answered.

        A node raises the generation when the token tells that the store has lost history, and the streams of this
        relay bring that; another relay asks its own upstream in turn.
        """
        with self._lock:
            doubted, self._doubted = self._doubted, {}
        for (project, environment), token in doubted.items():
            request = watch_pb2.WatchRequest(
                project=project, environment=environment, resume=token, via=self.via
            )
            for url in self.upstreams.urls:
                stream = self.upstreams.watch(url, request)
                try:
                    stream.receive(_CALL_SECONDS)
                except RheostatError as error:
                    log.debug("%s cannot be asked about a token: %s", url, error.message)
                    continue
                finally:
                    stream.close()
                break

    def _compact(self, now: float) -> None:
        """Let go of what is older than both figures of `keep_revisions` and `keep_seconds`, as a node does."""
        if self._hub is None:
            return
        revisions, seconds = self._keep
        revision = self._hub.head.revision
        self._marks.append((now, revision))
        old = [mark for mark in self._marks if mark[0] <= now - seconds]
        if old:
            self._marks = self._marks[len(old) - 1 :]
            floor = min(old[-1][1], revision - revisions)
            for branch in self.branches:
                branch.compact(floor)
            self.changed()

    # The cache.

    def _cached(self) -> Sequence[Kept]:
        if self._cache is None:
            return ()
        try:
            kept = self._cache.read() or []
        except DamagedRelayCacheError as error:
            log.error("%s", error.message)  # noqa: TRY400 - the file is at fault, and the text says how
            return ()
        wanted = [
            each
            for each in kept
            if (not self._project or each.project == self._project)
            and (not self._environments or each.environment in self._environments)
        ]
        if self._environments and len(wanted) < len(self._environments):
            wanted = []
        try:
            for each in wanted:
                authenticate(each.head.state, f"Bearer {self._key}", self.clock())
        except AuthenticationError as error:
            # Whoever holds the file alone is not to be served, and a key of fewer environments not all of it.
            log.warning("the cache %s is not used: %s", self._cache.path.name, error.message)
            return ()
        return wanted

    def _write(self) -> None:
        if self._cache is None:
            return
        self._dirty = self._moved = False
        kept = [each for each in (branch.kept() for branch in self.branches) if each is not None]
        try:
            self._cache.write(kept)
        except OSError as error:
            self._dirty = True
            log.warning("the cache %s cannot be written: %s", self._cache.path.name, error.strerror)


def _merged_keys(rings: Iterable[KeyRing]) -> dict[str, Key]:
    """Return the keys of all environments: one that any of them has seen revoked is gone."""
    keys: dict[str, Key] = {}
    revoked: dict[str, int] = {}
    for ring in rings:
        for selector, revision in ring.revoked.items():
            revoked[selector] = max(revision, revoked.get(selector, 0))
        for selector, key in ring.valid.items():
            if selector not in keys or keys[selector].revision < key.revision:
                keys[selector] = key
    return {selector: key for selector, key in keys.items() if key.revision > revoked.get(selector, -1)}


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
