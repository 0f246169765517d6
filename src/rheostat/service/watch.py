"""One watch on the server's side, without input or output: what to say now, and until when to wait.

The drivers (a generator on WSGI, an async generator on ASGI) loop over `WatchSession.step`, send its events and
wait for the hub or for ``wake_at``. The order of the rows in `WatchSession._open` is that of the contract.
"""

from __future__ import annotations

import datetime
import enum
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from rheostat.errors import BehindError, PermissionDeniedError, UnavailableError
from rheostat.model.position import Filter, Position, parse_token
from rheostat.model.watch import (
    Bookmark,
    GoAway,
    GoAwayReason,
    Hello,
    Mode,
    Reset,
    ResetReason,
    SnapshotEvent,
    SnapshotReason,
    WatchEvent,
)
from rheostat.service.notice import Board, Notices
from rheostat.service.publish import Head, Hub, ScopedView, View

if TYPE_CHECKING:
    from rheostat.service.fleet import Ask

__all__ = [
    "CATCH_UP_SECONDS",
    "RELAY_BOOKMARK_SECONDS",
    "Asked",
    "Step",
    "WatchOptions",
    "WatchSession",
    "Watched",
]

CATCH_UP_SECONDS: Final = 3.0
"""How long a token or ``min_revision`` ahead of this node is waited for."""

RELAY_BOOKMARK_SECONDS: Final = 0.1
"""How long after a revision that does not touch its scope a relay is told of it, and how often at most."""

log = logging.getLogger("rheostat.watch")


class Asked(Protocol):
    """Tells who waits for a rollout."""

    def asked(self, place: tuple[str, str], now: float) -> Ask | None:
        """Return the question that somebody waits with in a project and environment; None when nobody does."""


class Watched(Protocol):
    """What a watch needs of the node that it is open at: a `rheostat.service.Service`, or a relay."""

    node: str
    heartbeat: float
    drain_grace: float
    clock: Callable[[], datetime.datetime]

    @property
    def fleet(self) -> Asked:
        """Who waits for a rollout."""

    @property
    def notices(self) -> Notices:
        """What is told of subjects."""

    @property
    def hub(self) -> Hub:
        """Where the heads come from."""

    @property
    def draining(self) -> bool:
        """The node has been asked to end."""

    @property
    def drain_spread(self) -> float:
        """Seconds over which the clients are to spread when it ends."""

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which they are to spread if it ends without a word."""

    def catch_up(self) -> Head:
        """Look for news, and return the newest head."""

    def raise_generation(self, above: int) -> None:
        """Begin a new generation because history was lost."""

    def stream_age(self) -> float:
        """Draw the seconds after which a watch is asked to reconnect."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What a client asked for.

    Attributes:
        project: Resolved slug.
        environment: Resolved slug.
        resume: The resume token; empty for none.
        resnapshot: Send a snapshot although the token would do.
        min_revision: Do not answer before this revision has been reached.
        filter: What it wants to see.
        filter_refused: What was asked for is wider than `filter`, and Hello says so.
        relay: The stream is a relay's: it carries keys, tombstones and what else that needs.
        subjects: Tell of changed subjects.
        may_go_on: Tells whether the key is still in force; asked at every step.
        ends_by: Tells the instant of the monotonic clock at which the key expires, which may change while the
            stream is open; None when it does not.
    """

    project: str
    environment: str
    resume: bytes = b""
    resnapshot: bool = False
    min_revision: int = 0
    filter: Filter = field(default_factory=Filter)
    filter_refused: bool = False
    relay: bool = False
    subjects: bool = False
    may_go_on: Callable[[], bool] = lambda: True
    ends_by: Callable[[], float | None] = lambda: None


class Step(NamedTuple):
    """What to do next.

    Attributes:
        events: To send, in order.
        wake_at: Step again at this instant of the monotonic clock, or when the hub rings.
        done: End the stream after sending.
    """

    events: tuple[WatchEvent, ...]
    wake_at: float
    done: bool = False


class _Phase(enum.Enum):
    OPENING = "opening"
    LIVE = "live"
    LEAVING = "leaving"
    DONE = "done"


class WatchSession:
    """One open watch. Not thread-safe: one driver steps it."""

    def __init__(self, service: Watched, options: WatchOptions) -> None:
        """Prepare a session; nothing is read before the first step."""
        self._service = service
        self._options = options
        self._phase = _Phase.OPENING
        # Taken once: asking the service for it costs a system call, to notice a fork.
        self._hub: Hub | None = None
        self._asked_at: float | None = None
        self._scope: ScopedView | None = None
        self._position: Position | None = None
        self._last_sent = 0.0
        # A relay's clients see by its bookmarks how old their state is, so that deltas do not stand in for them.
        self._last_bookmark = 0.0
        self._told_revision = 0
        # The question about a rollout that the client was told of last, until when it reports because of that, and
        # when to tell it again.
        self._asked: Ask | None = None
        self._asked_until = 0.0
        self._ask_at = math.inf
        self._ends_at = 0.0
        self._expires_at = 0.0
        # Of a client that is told of subjects: where, and the last notice that it got.
        self._board: Board | None = None
        self._notice = 0

    @property
    def told(self) -> bool:
        """The client is told of subjects: the session is to be stepped when the hub's `Hub.notes` rise, too."""
        return self._options.subjects

    @property
    def has_notice(self) -> bool:
        """There is something to tell of subjects."""
        board = self._board
        return board is not None and board.number != self._notice

    @property
    def position(self) -> Position | None:
        """What the client holds once everything sent so far has arrived; None before the first state."""
        return self._position

    @property
    def may_go_on(self) -> bool:
        """Whether the key is still in force; the driver asks before each message of a long answer."""
        return self._options.may_go_on()

    def whole(self) -> SnapshotEvent:
        """Return the whole state at the position of the last step, for a delta that is too large to send."""
        assert self._scope is not None
        assert self._position is not None
        return self._scope.snapshot(self._position)

    def step(self, now: float) -> Step:
        """Return what to send at *now* (monotonic seconds) and how long to wait.

        Raises:
            PermissionDeniedError: The environment is unknown, or was lost with the history that made it.
            BehindError: ``min_revision`` was not reached in time.
            UnavailableError: The node is draining and the watch had not begun.
        """
        match self._phase:
            case _Phase.OPENING:
                return self._open(now)
            case _Phase.LIVE:
                return self._go_on(now)
            case _Phase.LEAVING:
                if not self._options.may_go_on():
                    self._phase = _Phase.DONE
                    return Step((), now, done=True)
                # A client that has been asked to leave still gets every change until the grace is over.
                events = self._changes(self._head())
                if self._board is not None:
                    events += self._notices(self._board)
                done = now >= self._ends_at
                if done:
                    self._phase = _Phase.DONE
                return Step(events, self._ends_at, done)
            case _Phase.DONE:
                return Step((), now, done=True)

    # Opening.

    def _open(self, now: float) -> Step:
        service, options = self._service, self._options
        if self._asked_at is None:
            self._asked_at = now
        if service.draining:
            raise UnavailableError(
                "the node is draining", reason="DRAINING", retry_after=service.drain_spread / 2
            )
        self._hub = service.hub
        if options.subjects and self._board is None:
            # Before the client is greeted: what it fetches from then on is as new.
            self._board = service.notices.board((options.project, options.environment))
            self._notice = self._board.number
        head = self._hub.head
        if head.revision < options.min_revision:
            head = service.catch_up()
        if head.revision < options.min_revision:
            if now >= self._asked_at + CATCH_UP_SECONDS:
                raise BehindError(
                    f"revision {options.min_revision} was not reached in {CATCH_UP_SECONDS:g} s; this node is at "
                    f"{head.revision}",
                    metadata={"revision": str(head.revision)},
                )
            return Step((), self._asked_at + CATCH_UP_SECONDS)
        token = parse_token(options.resume, head.identity.token_key) if options.resume else None
        if token is not None and _is_ahead(token, head):
            # Perhaps this node has only not read it yet; what is sent must never be older than the token.
            head = service.catch_up()
        if token is not None and (step := self._cannot_serve(head, token, now)) is not None:
            return step
        head, scope = self._scoped(head)
        reason = self._why_snapshot(head, scope, token)
        if reason is SnapshotReason.GENERATION:
            head, scope = self._scoped(self._hub.head)
        position = scope.position(head)
        self._phase = _Phase.LIVE
        self._scope, self._position = scope, position
        self._last_sent = self._last_bookmark = now
        self._told_revision = position.revision
        self._expires_at = now + service.stream_age()
        asking = self._asking(now, changed=False)
        if options.relay:
            # Only a bookmark tells how old the state is.
            asking = asking or (self._bookmark(now),)
        if reason is not None:
            return self._sent(now, (self._hello(Mode.SNAPSHOT, reason), scope.snapshot(position), *asking))
        assert token is not None
        delta = scope.delta(token.revision, position)
        if delta is None:
            bookmark = asking or (self._bookmark(now),)
            return self._sent(now, (self._hello(Mode.UP_TO_DATE, None), *bookmark))
        return self._sent(now, (self._hello(Mode.DELTA, None), delta, *asking))

    def _cannot_serve(self, head: Head, token: Position, now: float) -> Step | None:
        """Return what to do about a token that only another node can continue; None when this one can."""
        return None

    def _scoped(self, head: Head) -> tuple[Head, ScopedView]:
        view = self._view(head)
        if view is None:
            head = self._service.catch_up()
            view = self._view(head)
        if view is None:
            raise self._unknown_environment()
        return head, view.scope(self._options.filter)

    def _view(self, head: Head) -> View | None:
        options = self._options
        if options.relay:
            return head.relayed(options.project, options.environment)
        return head.views.get((options.project, options.environment))

    def _unknown_environment(self) -> PermissionDeniedError:
        return PermissionDeniedError(
            f"the environment {self._options.environment!r} is unknown", reason="UNKNOWN_ENVIRONMENT"
        )

    def _why_snapshot(self, head: Head, scope: ScopedView, token: Position | None) -> SnapshotReason | None:
        """The table of the contract: the first row that fits wins. None means resuming works."""
        if token is None:
            return SnapshotReason.INVALID if self._options.resume else SnapshotReason.NEW
        identity = head.identity
        if token.store_id != identity.store_id:
            return SnapshotReason.STORE
        if token.generation < identity.generation:
            return SnapshotReason.GENERATION
        if _is_ahead(token, head) or token.nonce != identity.nonce:
            # A token that this store made, of a history that it no longer has: a file was restored by hand.
            log.warning(
                "a watcher holds generation %d revision %d, which the store (generation %d revision %d) has "
                "lost; raising the generation",
                token.generation,
                token.revision,
                identity.generation,
                head.revision,
            )
            self._service.raise_generation(token.generation)
            return SnapshotReason.GENERATION
        if self._options.resnapshot:
            return SnapshotReason.REQUESTED
        if token.scope != scope.scope:
            return SnapshotReason.SCOPE
        if token.revision < scope.view.floor:
            return SnapshotReason.COMPACTED
        if scope.rewired_since(token.revision):
            return SnapshotReason.SCOPE
        return None

    def _hello(self, mode: Mode, reason: SnapshotReason | None) -> Hello:
        service, options = self._service, self._options
        return Hello(
            mode=mode,
            reason=reason,
            heartbeat=service.heartbeat,
            node=service.node,
            hops=self._hops(),
            project=options.project,
            environment=options.environment,
            filter=options.filter,
            filter_ignored=options.filter_refused,
            reconnect_spread=service.reconnect_spread,
        )

    def _hops(self) -> int:
        """How many relays stand between the client and the store's own node."""
        return 0

    def _origin_time(self) -> datetime.datetime:
        """When the store's own node has last said that this is the state."""
        return self._service.clock()

    # Going on.

    def _go_on(self, now: float) -> Step:
        service = self._service
        if not self._options.may_go_on():
            return self._leave(now, GoAway(GoAwayReason.KEY_REVOKED, spread=0.0, grace=0.0))
        before = self._scope
        events = self._changes(self._head())
        if service.draining:
            return self._leave(
                now, GoAway(GoAwayReason.DRAIN, service.drain_spread, service.drain_grace), events
            )
        if now >= self._expires_at:
            return self._leave(now, GoAway(GoAwayReason.MAX_AGE, 0.0, service.drain_grace), events)
        events += self._asking(now, changed=self._scope is not before)
        notices = () if self._board is None else self._notices(self._board)
        if events:
            if self._options.relay and now >= self._last_bookmark + service.heartbeat:
                events += (self._bookmark(now),)
            return self._sent(now, events + notices)
        if now >= self._bookmark_at():
            return self._sent(now, (self._bookmark(now), *notices))
        # Notices say nothing of the state, and so do not stand in for bookmarks.
        return Step(notices, self._wake_at())

    def _notices(self, board: Board) -> tuple[WatchEvent, ...]:
        """What the client is to be told of subjects."""
        self._notice, notice = board.after(self._notice)
        return () if notice is None else (notice,)

    def _bookmark_at(self) -> float:
        """When a bookmark is due."""
        if not self._options.relay:
            return self._last_sent + self._service.heartbeat
        assert self._position is not None
        if self._position.revision > self._told_revision:
            return self._last_bookmark + RELAY_BOOKMARK_SECONDS
        return self._last_bookmark + self._service.heartbeat

    def _head(self) -> Head:
        assert self._hub is not None
        return self._hub.head

    def _changes(self, head: Head) -> tuple[WatchEvent, ...]:
        """What leads from what was sent to *head*, and take the new position."""
        scope, position = self._scope, self._position
        assert scope is not None
        assert position is not None
        view = self._view(head)
        if view is None:
            # The store was restored by hand to a time before the environment was made.
            raise self._unknown_environment()
        if view is scope.view and head.identity.generation == position.generation:
            return self._passed_over(head, scope)
        new_scope = view.scope(self._options.filter)
        new_position = new_scope.position(head)
        self._scope, self._position = new_scope, new_position
        if not new_position.same_history(position):
            return (Reset(ResetReason.GENERATION), new_scope.snapshot(new_position))
        if position.revision < view.floor:
            return (Reset(ResetReason.COMPACTED), new_scope.snapshot(new_position))
        if new_scope.drawn_in != scope.drawn_in:
            return (Reset(ResetReason.CLOSURE), new_scope.snapshot(new_position))
        delta = new_scope.delta(position.revision, new_position)
        return () if delta is None else (delta,)

    def _passed_over(self, head: Head, scope: ScopedView) -> tuple[WatchEvent, ...]:
        # Revisions of other environments: nothing is sent, the next bookmark passes over them.
        self._position = scope.position(head)
        return ()

    def _asking(self, now: float, *, changed: bool) -> tuple[WatchEvent, ...]:
        """What tells the client to report: at once when somebody begins to wait, and after each change while they do.

        A client that is still to report because of the last time is not told again before.
        """
        ask = self._service.fleet.asked((self._options.project, self._options.environment), now)
        if ask is None:
            self._ask_at = math.inf
            return ()
        if changed or self._asked is None or ask.serial != self._asked.serial:
            self._asked = ask
            self._ask_at = min(self._ask_at, max(now, self._asked_until))
        if now < self._ask_at:
            return ()
        self._ask_at = math.inf
        self._asked_until = now + ask.within
        return (self._bookmark(now),)

    def _bookmark(self, now: float) -> Bookmark:
        assert self._scope is not None
        assert self._position is not None
        service = self._service
        self._last_bookmark = now
        ask = service.fleet.asked((self._options.project, self._options.environment), now)
        return Bookmark(
            self._position,
            self._origin_time(),
            self._scope.digest,
            service.reconnect_spread,
            None if ask is None else ask.within,
        )

    def _sent(self, now: float, events: tuple[WatchEvent, ...]) -> Step:
        self._last_sent = now
        assert self._position is not None
        self._told_revision = self._position.revision
        return Step(events, self._wake_at())

    def _wake_at(self) -> float:
        wake_at = min(self._bookmark_at(), self._expires_at, self._ask_at)
        ends_by = self._options.ends_by()
        return wake_at if ends_by is None else min(wake_at, ends_by)

    def _leave(self, now: float, go_away: GoAway, events: tuple[WatchEvent, ...] = ()) -> Step:
        self._phase = _Phase.LEAVING
        self._ends_at = now + go_away.grace
        if go_away.grace <= 0:
            self._phase = _Phase.DONE
        return Step((*events, go_away), self._ends_at, done=self._phase is _Phase.DONE)


def _is_ahead(token: Position, head: Head) -> bool:
    identity = head.identity
    return token.store_id == identity.store_id and (token.generation, token.revision) > (
        identity.generation,
        head.revision,
    )
