"""One environment at a relay: the stream from upstream that brings it, and what its clients' watches need."""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import watch_pb2
from rheo.v1.client_pb2 import ClientIdentity
from rheostat._version import __version__
from rheostat.errors import BehindError, ClientClosedError, FailedPreconditionError, RheostatError
from rheostat.relay.cache import Kept
from rheostat.relay.mirror import mirrored
from rheostat.relay.upstream import Stream
from rheostat.sdk.effect import CloseStream, Effect, OpenStream, Receive, Sleep
from rheostat.sdk.held import Held, Update
from rheostat.sdk.watch_loop import Loop, Target, watch_loop
from rheostat.service.publish import Head, Hub, compacted_head, stepped_head
from rheostat.service.service import behind
from rheostat.wire.instant import instant_from_proto

if TYPE_CHECKING:
    from rheostat.relay.relay import Relay

__all__ = ["MAX_DEPTH", "Branch"]

MAX_DEPTH: Final = 4
"""Relays in a row, the nearest to the clients included."""

_OPEN_SECONDS: Final = 10.0
"""How long the first event may take: longer than the 3 s for which an upstream waits to catch up with a token."""

_HEALTHY_SECONDS: Final = 60.0

_UNKNOWN: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)

log = logging.getLogger("rheostat.relay")


class Branch:
    """Follows one environment on a thread of its own, and offers what `rheostat.service.watch.Watched` asks for.

    It is the observer of the SDK's watch loop, which resumes, backs off and checks digests. Attributes may be read
    from any thread.

    Attributes:
        project: Slug.
        environment: Slug.
        hops: How many relays stand between this one's clients and the store's own node.
        node: See `Watched`.
        heartbeat: See `Watched`.
        drain_grace: See `Watched`.
        clock: See `Watched`.
        fleet: See `Watched`.
        notices: See `Watched`.
        upstream: The node that the stream comes from; empty while there is none.
        problem: The reason of the error that ended the last one; empty while a stream brings the state.
    """

    def __init__(self, relay: Relay, project: str, environment: str, kept: Kept | None = None) -> None:
        """Prepare it, with what the cache has kept; `start` begins the stream."""
        self.project = project
        self.environment = environment
        self.node = relay.node
        self.heartbeat = relay.heartbeat
        self.drain_grace = relay.drain_grace
        self.clock: Callable[[], datetime.datetime] = relay.clock
        self.fleet = relay.fleet
        self.notices = relay.notices
        self.hops = 1
        self.upstream = ""
        self.problem = ""
        self._relay = relay
        self._held = Held()
        self._hub: Hub | None = None
        self._origin: Timestamp | None = None
        # What the last event says of it, a bookmark whose position and digest were not compared yet.
        self._told_origin: Timestamp | None = None
        self._passed_on: Timestamp | None = None
        if kept is not None:
            self.hops = kept.hops
            self._held = kept.held
            self._origin = kept.origin
            self._hub = Hub(kept.head)
        # Guards the two together, and wakes the thread.
        self._changed = threading.Condition()
        self._stream: Stream | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"rheostat-relay-{project}-{environment}", daemon=True
        )
        # Which upstream is next, how many were tried without a pause, and how the last stream went.
        self._next = 0
        self._skipped = 0
        self._began = 0.0
        self._farewell = watch_pb2.GO_AWAY_REASON_UNSPECIFIED

    # What clients' watches ask for.

    @property
    def hub(self) -> Hub:
        """The heads of this environment; only once there is one."""
        assert self._hub is not None
        return self._hub

    @property
    def head(self) -> Head | None:
        """The newest head; None before the first state."""
        return None if self._hub is None else self._hub.head

    @property
    def draining(self) -> bool:
        """The relay has been asked to end."""
        return self._relay.draining

    @property
    def drain_spread(self) -> float:
        """Seconds over which clients are to spread when it ends."""
        return self._relay.drain_spread

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which clients are to spread if it ends without a word."""
        return self._relay.reconnect_spread

    @property
    def origin_time(self) -> datetime.datetime:
        """When the store's own node has last said that this is the state."""
        if self._origin is not None:
            with contextlib.suppress(ValueError):
                return instant_from_proto(self._origin)
        return _UNKNOWN

    def stream_age(self) -> float:
        """Draw the age at which a watch is asked to reconnect."""
        return self._relay.stream_age()

    def catch_up(self) -> Head:
        """Return the newest head: a relay cannot ask for more than it is sent."""
        return self.hub.head

    def raise_generation(self, above: int) -> None:
        """Refuse: only a node that reads the store begins generations.

        Raises:
            BehindError: Always.
        """
        raise BehindError("a relay begins no generation; another node will do better")

    def doubt(self, token: bytes) -> None:
        """Tell the upstream of a client whose *token* is of a history that this relay does not have.

        It may be one that the store has lost. Only a node can find that out, and clients of relays alone, and relays
        of relays, would never ask one.
        """
        if self.upstream:
            self._relay.doubt((self.project, self.environment), token)

    def wait_for(self, min_revision: int, timeout: float) -> Head:
        """Return a head that has reached *min_revision*.

        Raises:
            BehindError: It was not reached in *timeout* seconds.
        """
        head = self.hub.reach(min_revision, timeout, self._relay.monotonic)
        if head.revision < min_revision:
            raise behind(min_revision, head, "relay")
        return head

    # What the relay asks for.

    def start(self) -> None:
        """Begin to follow the upstream."""
        self._thread.start()

    def close(self) -> None:
        """End the stream; `join` waits for the thread."""
        with self._changed:
            stream = self._stream
            self._changed.notify_all()
        if stream is not None:
            stream.cancel()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, for *timeout* seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def kept(self) -> Kept | None:
        """Return what the cache is to keep; None before the first state."""
        with self._changed:
            if self._hub is None:
                return None
            return Kept(self.project, self.environment, self._held, self._hub.head, self.hops, self._origin)

    def compact(self, floor: int) -> None:
        """Let go of what clients need that stand below the revision *floor*."""
        with self._changed:
            if self._hub is not None and floor > self._hub.head.floor:
                self._publish(compacted_head(self._hub.head, floor), self._held)

    # What the watch loop tells; see `rheostat.sdk.watch_loop.Observer`.

    @property
    def target(self) -> Target:
        """What to watch."""
        relay = self._relay
        first, last = relay.backoff
        return Target(
            project=self.project,
            environment=self.environment,
            client=ClientIdentity(sdk=f"rheostat-relay/{__version__}", name=self.node),
            via=relay.via,
            # Some client below may hold some.
            subjects=True,
            first_backoff=first,
            last_backoff=last,
            open_timeout=_OPEN_SECONDS,
        )

    @property
    def held(self) -> Held:
        """What the stream has delivered."""
        return self._held

    def connected(self, hello: watch_pb2.Hello) -> None:
        """Note where the stream comes from."""
        log.info("%s/%s comes from %s", self.project, self.environment, hello.node)
        self.upstream = hello.node
        self.hops = hello.hops + 1
        # What has changed while there was no stream, nobody tells.
        self.notices.note((self.project, self.environment), ())

    def advanced(self, update: Update) -> bool:
        """Serve the state after *update*.

        Raises:
            RheostatError: It cannot be served; the former state is.
        """
        with self._changed:
            # Both at once: what follows a head is noted in its log before it is published, and `compact` copies that.
            self._publish(mirrored(self.head, update, self.project, self.environment), update.held)
        self._relay.changed(state=True)
        return True

    def confirmed(self, held: Held) -> None:
        """Serve the state at a later position."""
        self.problem = ""
        with self._changed:
            if self._told_origin is not None:
                self._origin, self._told_origin = self._told_origin, None
            head = self.head
            moved = head is not None and held.revision > head.revision
            if head is not None and moved:
                self._publish(stepped_head(head, held.revision), held)
        if moved:
            self._relay.changed()
        elif self._origin is not self._passed_on:
            # Relays below are told that the state is still this one.
            self._relay.ring()
        self._passed_on = self._origin

    def heard(self) -> None:
        """Nothing to note."""

    def disconnected(self, error: RheostatError | None, retry_in: float) -> None:
        """Note the end of the stream, and go on at another upstream unless it was for this one's age."""
        friendly = error is None and self._farewell == watch_pb2.GO_AWAY_REASON_MAX_AGE
        self._next = 0 if friendly else self._next + 1
        self.upstream = ""
        if error is not None and not self._relay.closed:
            self.problem = error.reason
            log.warning("the stream of %s/%s has ended: %s", self.project, self.environment, error.message)

    def refused(self, error: RheostatError, retry_in: float) -> None:
        """Note that the upstream does not let the relay in."""
        self._next += 1
        self.upstream = ""
        self.problem = error.reason
        log.error("the upstream refuses %s/%s: %s", self.project, self.environment, error.message)

    def asked_to_report(self, within: float) -> None:
        """Pass on that somebody waits for a rollout."""
        self.fleet.ask((self.project, self.environment), within)
        if self._hub is not None:
            self._relay.ring()

    def subjects_changed(self, changed: watch_pb2.SubjectsChanged) -> None:
        """Pass on that subjects have changed."""
        if changed.all or changed.ids:
            self.notices.note((self.project, self.environment), () if changed.all else changed.ids)

    def differed(self, times: int) -> None:
        """Tell of a state that is not what the upstream says."""
        if times > 1:
            log.error(
                "the state of %s/%s has differed from the upstream's %d times in a row",
                self.project,
                self.environment,
                times,
            )

    def _publish(self, head: Head, held: Held) -> None:
        self._held = held
        if self._hub is None:
            self._hub = Hub(head)
        else:
            self._hub.publish(head)

    # The thread.

    def _run(self) -> None:
        relay = self._relay
        while not relay.closed:
            loop = watch_loop(self, clock=relay.monotonic, randomness=relay.jitter)
            try:
                self._follow(loop)
            except ClientClosedError:
                return
            except Exception:
                # A defect of ours must not end the stream for good.
                log.exception("following %s/%s has failed; it begins anew", self.project, self.environment)
                with contextlib.suppress(ClientClosedError):
                    self._sleep(relay.backoff[1])
            finally:
                self._leave()
                loop.close()

    def _follow(self, loop: Loop) -> None:
        effect = next(loop)
        while True:
            try:
                result = self._perform(effect)
            except ClientClosedError:
                raise
            except RheostatError as error:
                effect = loop.throw(error)
            else:
                effect = loop.send(result)

    def _perform(self, effect: Effect) -> Any:
        relay = self._relay
        if relay.closed:
            raise ClientClosedError("the relay was closed")
        match effect:
            case OpenStream(request):
                self._leave()
                self._farewell = watch_pb2.GO_AWAY_REASON_UNSPECIFIED
                self._began = relay.monotonic()
                urls = relay.upstreams.urls
                stream = relay.upstreams.watch(urls[self._next % len(urls)], request)
                with self._changed:
                    self._stream = stream
            case Receive(timeout):
                assert self._stream is not None
                event = self._stream.receive(timeout)
                if event is not None:
                    self._note(event, self._stream)
                return event
            case CloseStream():
                self._leave()
            case Sleep(seconds):
                if relay.monotonic() - self._began >= _HEALTHY_SECONDS:
                    self._skipped = 0
                if self._skipped + 1 < len(relay.upstreams.urls):
                    # The other upstream is no reason to wait.
                    self._skipped += 1
                    return None
                self._skipped = 0
                self._sleep(seconds)
            case _:
                raise TypeError(f"{effect!r} is no effect of a watch")
        return None

    def _note(self, event: watch_pb2.WatchResponse, stream: Stream) -> None:
        self._told_origin = None
        match event.WhichOneof("event"):
            case "hello":
                if event.hello.hops + 1 > MAX_DEPTH:
                    raise FailedPreconditionError(
                        f"the upstream is {event.hello.hops} relays away from its store, and {MAX_DEPTH} are the "
                        "most",
                        reason="RELAY_TOO_DEEP",
                    )
                self._relay.upstreams.prefer(stream.url)
            case "bookmark":
                self._told_origin = event.bookmark.origin_time
            case "go_away":
                self._farewell = event.go_away.reason
            case _:
                pass

    def _sleep(self, seconds: float) -> None:
        relay = self._relay
        deadline = relay.monotonic() + seconds
        with self._changed:
            while (left := deadline - relay.monotonic()) > 0:
                if relay.closed:
                    raise ClientClosedError("the relay was closed")
                self._changed.wait(left)

    def _leave(self) -> None:
        with self._changed:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
