"""The node: one store, its newest head in memory, and the use cases over them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from rheostat.errors import (
    AlreadyExistsError,
    BehindError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    RevisionCompactedError,
    RheostatError,
    SettingNotFoundError,
    UnavailableError,
)
from rheostat.evaluation import Context, Evaluation
from rheostat.evaluation.explain import Explanation, explain
from rheostat.model.change import Change, ChangeSet, Mutation, PutEnvironment, PutProject
from rheostat.model.declaration import Declaration, DeclarationResult
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key, KeyKind, Role, make_secret
from rheostat.model.state import State
from rheostat.service.access import DEFAULT_PROJECT, Principal, in_force, life_left, still_in_force
from rheostat.service.admission import Admission
from rheostat.service.approval import check_direct, check_governance
from rheostat.service.declare import Answers, answer_declarations
from rheostat.service.draft import Drafts
from rheostat.service.fleet import Fleet
from rheostat.service.limit import Limits
from rheostat.service.metric import Metrics
from rheostat.service.notice import Notices
from rheostat.service.plan import ItemAddress, Plan, plan, plan_declarations, plan_key, plan_revert
from rheostat.service.publish import Head, Hub, View, compacted_head, head_of
from rheostat.service.subject import PURGE_SECONDS, Subjects
from rheostat.service.usage import FLUSH_SECONDS, Usage
from rheostat.service.watch import CATCH_UP_SECONDS, WatchOptions, WatchSession
from rheostat.service.webhook import Sender, Webhooks
from rheostat.service.writing import Ahead, Companion, Outcome, Writer
from rheostat.store.base import Contents, Group, Identity, RequestWrite, Store, Transaction, Write

__all__ = ["DeclarationsOutcome", "Outcome", "Service", "Writer", "behind"]

log = logging.getLogger("rheostat.service")

_COMPACTION_SECONDS: Final = 600.0
"""How often the tail looks whether there is history to compact."""

_STALE_ATTEMPTS: Final = 3
"""How often a write that finds another history than this node's is planned anew."""

_HINT_SECONDS: Final = 1.0
"""How long the tail waits for a hint at a time; it looks at the store at least this often."""

MAX_REVISION: Final = 2**63 - 1
"""Revisions are 64 bits without a sign on the wire, and with one in a store."""

_REVERT_REACH: Final = 1_000
"""How many change-sets a revert to a revision may undo."""


_services: weakref.WeakSet[Service] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class DeclarationsOutcome:
    """What became of declarations.

    Attributes:
        results: One for each declaration, in order.
        revision: The revision of the change-set, or the one at which it was found that nothing changes.
        generation: The store's.
        features: The project's hierarchy of features at that revision.
        replayed: The same request had been committed before.
    """

    results: tuple[DeclarationResult, ...]
    revision: int
    generation: int
    features: tuple[str, ...]
    replayed: bool = False


class _StaleError(Exception):
    """Inside a writing transaction: the store's history is not the one that this node holds."""


class Service:
    """A node over one store. All methods are safe from any thread; those that write or wait may block.

    Works in each process of a pre-forking server: after a fork the child reads the store afresh and starts its
    own tail on first use.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits | None = None,
        node: str | None = None,
        heartbeat: float = 15.0,
        max_stream_age: float = 30 * 60.0,
        drain_grace: float = 3.0,
        keep_revisions: int = 10_000,
        keep_seconds: float = 24 * 3600.0,
        clock: Callable[[], datetime.datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        webhook_allow_private: bool = False,
        webhook_sender: Sender | None = None,
        background: bool = True,
    ) -> None:
        """Make a node; nothing is read before `start` or the first use.

        Args:
            store: Closed by `close`.
            limits: Defaults to `Limits`.
            node: Shown to clients; defaults to a random name.
            heartbeat: Seconds of silence after which a bookmark is sent.
            max_stream_age: Seconds, ± 20 %, after which a watcher is asked to reconnect.
            drain_grace: Seconds that a draining node leaves its watchers.
            keep_revisions: How many revisions a watcher may be behind, at least, before it needs a snapshot.
            keep_seconds: For how long, at least.
            clock: The wall clock, aware UTC.
            monotonic: Seconds for time-outs.
            randomness: Makes random bytes.
            webhook_allow_private: Let webhooks be sent over http and to addresses of private networks.
            webhook_sender: Sends the messages of webhooks; by default over HTTP.
            background: Tell webhooks of changes, commit drafts when their time comes, and remove what is kept no
                longer of subjects and events.
        """
        self.store = store
        self.limits = limits or Limits()
        self.node = node or f"node-{randomness(4).hex()}"
        self.heartbeat = heartbeat
        self.drain_grace = drain_grace
        self.keep_revisions = keep_revisions
        self.keep_seconds = keep_seconds
        self.clock = clock or _utc_now
        self.monotonic = monotonic
        self.randomness = randomness
        self.background = background
        self._max_stream_age = max_stream_age
        self._start_locks()
        self._hub: Hub | None = None
        self._pid = 0
        self._tail: threading.Thread | None = None
        self._closed = False
        self._draining = False
        self.admission = Admission(self.limits, randomness=self.randomness)
        self.metrics = Metrics()
        self.usage = Usage(self)
        self.subjects = Subjects(self)
        self.drafts = Drafts(self)
        self.webhooks = Webhooks(self, allow_private=webhook_allow_private, sender=webhook_sender)
        self.fleet = Fleet(self)
        _services.add(self)

    # Life.

    def _start_locks(self) -> None:
        # Held by who reads the store to follow it, and never inside of a writing transaction: it may be held while
        # the generation is raised, which waits for those.
        self._following = threading.RLock()
        # Held while heads are made and published, and never while the store writes: so that neither a reader nor a
        # writer whose turn it is waits for another one's disk.
        self._lock = threading.RLock()
        self._ahead: Ahead | None = None
        self._planning = _Planning()

    def start(self) -> Self:
        """Read the store, make the first project when it is empty, and follow other processes' writes."""
        _ = self.hub
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the tail and close the store. Idempotent."""
        with self._following:
            if self._closed:
                return
            self._closed = True
            tail = self._tail
        if self.started:
            with contextlib.suppress(RheostatError):
                self.usage.flush()
        self.webhooks.close()
        self.subjects.close()
        self.fleet.close()
        self.store.close()
        if tail is not None and self._pid == os.getpid() and tail is not threading.current_thread():
            tail.join(timeout=2.0)

    @property
    def hub(self) -> Hub:
        """The hub of this process, started on first use and again after a fork."""
        hub = self._hub
        if hub is not None and self._pid == os.getpid():
            return hub
        with self._following:
            if self._hub is not None and self._pid == os.getpid():
                return self._hub
            if self._closed:
                raise UnavailableError("the node is closed", reason="CLOSED")
            self._bootstrap()
            self.subjects.begin()
            self._hub = Hub(self._load())
            self._pid = os.getpid()
            self._tail = threading.Thread(target=self._follow, name="rheostat-tail", daemon=True)
            self._tail.start()
            self.webhooks.notice()
            return self._hub

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent's threads. Only for the hook below."""
        # Another thread of the parent may have held them.
        self._start_locks()
        self._hub = None
        self._tail = None
        self.admission = Admission(self.limits, randomness=self.randomness)
        self.metrics = Metrics()
        self.usage = Usage(self)
        self.subjects = Subjects(self)
        self.webhooks.after_fork_in_child()
        self.fleet = Fleet(self)

    @property
    def head(self) -> Head:
        """The newest head of this process."""
        return self.hub.head

    @property
    def started(self) -> bool:
        """This process has read the store."""
        return self._hub is not None and self._pid == os.getpid()

    @property
    def draining(self) -> bool:
        """The node has been asked to end."""
        return self._draining

    @property
    def ready(self) -> bool:
        """The node has read the store, and is not draining."""
        return self._hub is not None and not self._draining and not self._closed

    @property
    def drain_spread(self) -> float:
        """Seconds over which a draining node's clients are asked to spread their reconnects."""
        return self.admission.drain_spread

    @property
    def reconnect_spread(self) -> float:
        """Seconds over which the clients of this node are to spread their reconnects if it ends without a word."""
        return self.admission.reconnect_spread

    @property
    def notices(self) -> Notices:
        """What watchers are told of subjects."""
        return self.subjects.notices

    def wake_told(self) -> None:
        """Wake the watches that are told of subjects."""
        if self._hub is not None:
            self._hub.tell()

    def check_serving(self) -> None:
        """Refuse a write while the node is draining.

        Raises:
            UnavailableError: It is.
        """
        if self._draining:
            raise UnavailableError("the node is draining", reason="DRAINING", retry_after=1.0)

    def drain(self) -> None:
        """Refuse new watches and ask the open ones to leave. Idempotent; returns at once."""
        self._draining = True
        if self._hub is not None:
            self._hub.ring()

    def stream_age(self) -> float:
        """Draw the age at which a new watch is asked to reconnect: the maximum ± 20 %."""
        share = int.from_bytes(self.randomness(4), "big") / 2**32
        return self._max_stream_age * (0.8 + 0.4 * share)

    # Following the store.

    def _bootstrap(self) -> None:
        def write(transaction: Transaction) -> ChangeSet | None:
            if transaction.revision:
                return None
            first = plan(
                State(),
                DEFAULT_PROJECT,
                "",
                [PutProject(DEFAULT_PROJECT), PutEnvironment("production")],
                revision=1,
                new_id=self._new_id,
            )
            return ChangeSet(DEFAULT_PROJECT, first.changes, author="rheostat", message="The store was made")

        if self.store.revision() == 0:
            self.store.commit(write)

    def _load(self) -> Head:
        contents = self.store.load()
        return head_of(contents, _state_of(contents))

    def _follow(self) -> None:
        compacted_at = flushed_at = purged_at = self.monotonic()
        while not self._closed:
            try:
                self.store.wait_hint(
                    self.drafts.seconds_to_due(_HINT_SECONDS) if self.background else _HINT_SECONDS
                )
                if not self._closed:
                    self.catch_up()
                    self.subjects.follow()
                    self.fleet.follow()
                    if self.background:
                        self.drafts.commit_due()
                if not self._closed and self.monotonic() >= compacted_at + _COMPACTION_SECONDS:
                    compacted_at = self.monotonic()
                    self.compact_old()
                if self.background and not self._closed and self.monotonic() >= purged_at + PURGE_SECONDS:
                    purged_at = self.monotonic()
                    self.subjects.purge_beside()
                if not self._closed and self.monotonic() >= flushed_at + FLUSH_SECONDS:
                    flushed_at = self.monotonic()
                    self.usage.flush()
            except Exception as exc:
                if self._closed:
                    return
                self.metrics.count("store errors")
                if isinstance(exc, RheostatError):
                    log.warning("cannot follow the store: %s; trying again", exc)
                else:
                    # Whatever it is: a node whose tail has ended would serve its last state for good.
                    log.exception("cannot follow the store; trying again")
                # The store's own time-out has passed already; this only keeps a store that fails at once
                # from being asked in a tight loop.
                threading.Event().wait(_HINT_SECONDS)

    def catch_up(self) -> Head:
        """Read what other processes have committed, publish it, and return the newest head."""
        hub = self.hub
        with self._following:
            # Before the store is asked: what is published meanwhile is durable, and the store would seem to be behind.
            head = hub.head
            identity, revision = self.store.newest()
            if _has_lost(identity, revision, head):
                log.warning(
                    "the store (generation %d) has lost history that this node has served (generation %d "
                    "revision %d); raising the generation",
                    identity.generation,
                    head.identity.generation,
                    head.revision,
                )
                self.store.raise_generation(head.identity.generation)
                return self._reload()
            if not _same_history(identity, head.identity):
                return self._reload()
            try:
                while head.revision < revision:
                    change_sets = self.store.read_since(head.revision)
                    with self._lock:
                        advanced = bool(change_sets) and self._advance(change_sets)
                    if not advanced:
                        # Another process has begun a history that this one has not read yet.
                        return self._reload()
                    head = hub.head
            except RevisionCompactedError:
                # This process was stopped for longer than history is kept.
                return self._reload()
            return hub.head

    def _reload(self) -> Head:
        """Publish the store's contents, read from scratch. `_following` is held, and `_lock` is not."""
        read = Ahead(Group(), self._load())
        while not self._replace(read.head):
            before = read.head
            read.follow(self.store.read_since(before.revision))
            if read.head is before:
                # To publish it would be to go back. The next look finds that the history was lost.
                raise UnavailableError(
                    "the store has lost history while it was read", reason="STORE_AWAY", retry_after=1.0
                )
        # Subjects are part of what was lost or restored.
        self.subjects.forget()
        self.webhooks.notice()
        return read.head

    def _replace(self, head: Head) -> bool:
        """Publish *head*, unless it is behind what was published while it was read; return whether it was not."""
        with self._lock:
            held = self.hub.head
            if _same_history(held.identity, head.identity) and head.revision < held.revision:
                return False
            self.hub.publish(head)
            return True

    def _advance(self, change_sets: Sequence[ChangeSet]) -> bool:
        """Publish those of some change-sets that follow the head; return whether none was of another generation.

        `_lock` is held.
        """
        ahead = Ahead(Group(), self.hub.head)
        ahead.follow(change_sets)
        self._publish(ahead)
        return ahead.head.revision >= change_sets[-1].revision

    def _publish(self, ahead: Ahead) -> None:
        """Let everybody see what is durable. `_lock` is held."""
        if ahead.head is not ahead.base:
            self.fleet.note_commits(ahead.change_sets)
            self.metrics.note_commits(ahead.change_sets)
            self.hub.publish(ahead.head)
            self.webhooks.notice()

    def raise_generation(self, above: int) -> None:
        """Begin a new generation because the store has lost history, and reset all watchers."""
        with self._following:
            if self.store.identity().generation <= above:
                self.store.raise_generation(above)
            self._reload()

    def compact(self, floor: int) -> int:
        """Let go of history at or below the revision *floor*, and return the floor that the store has now.

        Watchers that stand below it need a snapshot when they come back. The audit history stays.
        """
        head = self.catch_up()
        with self._following:
            raised = self.store.compact(min(floor, head.revision))
            with self._lock:
                head = self.hub.head
                if raised <= head.floor:
                    return raised
                # Unless another process has committed and compacted since.
                if raised <= head.revision:
                    self.hub.publish(compacted_head(head, raised))
                    return raised
            self._reload()
        return raised

    def compact_old(self) -> int:
        """Compact what is older than both `keep_revisions` and `keep_seconds`; return the floor.

        The tail does so from time to time.
        """
        head = self.catch_up()
        kept_since = self.clock() - datetime.timedelta(seconds=self.keep_seconds)
        floor = self.revision_at(kept_since, head.revision - self.keep_revisions, from_=head.floor)
        return self.compact(floor) if floor > head.floor else head.floor

    def revision_at(self, instant: datetime.datetime, newest: int, *, from_: int = 0) -> int:
        """Return the newest revision up to *newest* that was committed at *instant* or before.

        Args:
            instant: Aware.
            newest: Where to begin.
            from_: One that is known to be old enough; it is the answer when no later one is.
        """
        # low is old enough, and those above high are not.
        low, high = from_, newest
        while low < high:
            middle = (low + high + 1) // 2
            change_set = self.store.change_set(middle)
            # Audit history may be pruned: what is gone is old.
            if change_set is None or (change_set.created_at or instant) <= instant:
                low = middle
            else:
                high = middle - 1
        return low

    def wait_for(self, min_revision: int, timeout: float | None = None) -> Head:
        """Return a head that has reached *min_revision*, waiting up to 3 s, or *timeout* when that is less.

        Raises:
            BehindError: It was not reached in time.
        """
        head = self.head
        if head.revision >= min_revision:
            return head
        deadline = self.monotonic() + min(CATCH_UP_SECONDS, CATCH_UP_SECONDS if timeout is None else timeout)
        while True:
            bell = self.hub.bell
            head = self.catch_up()
            if head.revision >= min_revision:
                return head
            left = deadline - self.monotonic()
            if left <= 0:
                raise behind(min_revision, head)
            self.hub.wait(bell, left)

    # Writing.

    def commit(
        self,
        writer: Writer,
        project: str,
        environment: str,
        mutations: Sequence[Mutation],
        *,
        expected_revision: int | None = None,
        dry_run: bool = False,
        force: bool = False,
        check: Callable[[Plan], None] | None = None,
    ) -> Outcome:
        """Plan *mutations* and commit them as one change-set.

        Args:
            writer: Who, and why.
            project: Slug; need not exist when the mutations create it.
            environment: For mutations that name none.
            mutations: In order.
            expected_revision: See `plan`.
            dry_run: Plan only.
            force: Commit values that some connected client could not decode.
            check: Called with the plan before it is written; raises to refuse it.

        Raises:
            AlreadyExistsError: The request id was used with another payload.
            FailedPreconditionError: It touches a protected environment, and takes a draft and its approvals; or some
                connected client could not decode a value, and *force* is false.
            RheostatError: As `plan`.
        """

        def make(state: State, revision: int) -> Plan:
            made = self.planned(
                state,
                revision,
                writer.principal,
                project,
                environment,
                mutations,
                expected_revision=expected_revision,
            )
            return self._admitted(state, made, writer.principal, check, dry_run=dry_run, force=force)

        return self.write(writer, make, dry_run=dry_run)

    def _admitted(
        self,
        state: State,
        made: Plan,
        principal: Principal,
        check: Callable[[Plan], None] | None,
        *,
        dry_run: bool,
        force: bool,
    ) -> Plan:
        """Return a plan that *principal* may commit without approvals, and that no client is broken by."""
        if check is not None:
            check(made)
        check_governance(made, principal)
        if not dry_run:
            check_direct(state, made, principal, self.clock())
        return self.fleet.gated(made, force=force)

    def planned(
        self,
        state: State,
        revision: int,
        principal: Principal,
        project: str,
        environment: str,
        mutations: Sequence[Mutation],
        *,
        expected_revision: int | None,
    ) -> Plan:
        """Plan *mutations* of *principal* on *state*, which is the head's, without regard to approvals.

        Raises:
            RheostatError: As `plan`; also when a snapshot would grow too large.
        """
        made = plan(
            state,
            project,
            environment,
            mutations,
            revision=revision,
            new_id=self._new_id,
            limits=self.limits,
            expected_revision=expected_revision,
            removed_at=functools.partial(self._removed_at, project),
            sees=functools.partial(principal.sees, project),
        )
        self._check_snapshots(made)
        return made

    def declare(
        self,
        writer: Writer,
        project: str,
        environment: str,
        declarations: Sequence[Declaration | DeclarationResult],
    ) -> DeclarationsOutcome:
        """Answer *declarations*, and commit those that are acceptable as one change-set.

        What is wrong with one declaration is its answer, and never an error. Whether the writer may declare in the
        environment is part of the answers too.

        Args:
            writer: Who, and why.
            project: Slug; it exists.
            environment: Slug; it exists, and the writer sees it.
            declarations: The batch; what could not even be read stands in it as its answer.

        Raises:
            AlreadyExistsError: The request id was used with other declarations.
            UnavailableError: The node is draining, or the store is away.
        """
        # Most batches change nothing, so they are answered before the store is locked, and then only confirmed.
        answered = self._answered(self.head.state, writer, project, environment, declarations)

        def make(state: State, revision: int) -> Plan:
            nonlocal answered
            if state is not answered[0]:
                answered = self._answered(state, writer, project, environment, declarations)
            mutations = answered[1].mutations
            if not mutations:
                return Plan(project, (), rule_number=state.rule_number)
            made = plan_declarations(
                state,
                project,
                environment,
                mutations,
                revision=revision,
                new_id=self._new_id,
                limits=self.limits,
            )
            self._check_snapshots(made)
            return made

        outcome = self.write(writer, make)
        revision = outcome.revision
        if outcome.replayed:
            state = self._state_before(revision)
            answered = self._answered(
                state, writer, project, environment, declarations, replayed=outcome.change_set
            )
        elif not outcome.change_set.changes:
            revision = answered[0].revision
        state, answers = answered
        return DeclarationsOutcome(
            answers.results,
            revision,
            outcome.generation,
            state.projects[project].project.features,
            outcome.replayed,
        )

    def _answered(
        self,
        state: State,
        writer: Writer,
        project: str,
        environment: str,
        declarations: Sequence[Declaration | DeclarationResult],
        *,
        replayed: ChangeSet | None = None,
    ) -> tuple[State, Answers]:
        entry = state.projects[project]
        view = (self._planning.head or self.head).views.get((project, environment))
        answers = answer_declarations(
            entry,
            environment,
            declarations,
            permitted=writer.principal.may_declare(entry.environments[environment].environment),
            limits=self.limits,
            room=None if view is None else self.limits.max_snapshot_bytes - view.size,
            blocking=self.fleet.blocking(project, environment, replayed),
        )
        return state, answers

    def _state_before(self, revision: int) -> State:
        """Return what the store held when *revision*, which this node holds, was planned."""
        head = self.head
        later: list[ChangeSet] = []
        at = revision - 1
        while at < head.revision and (found := self.store.read_since(at)):
            later += found
            at = later[-1].revision
        undone = [
            replace(change, before=change.after, after=change.before)
            for change_set in reversed(later)
            if change_set.revision <= head.revision
            for change in reversed(change_set.changes)
        ]
        return head.state.apply(undone, revision - 1, head.state.rule_number)

    def revert(
        self,
        writer: Writer,
        project: str,
        *,
        environment: str = "",
        revision: int | None = None,
        to_revision: int | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
        force: bool = False,
        check: Callable[[Plan], None] | None = None,
    ) -> Outcome:
        """Undo one change-set (*revision*) or everything after one (*to_revision*), as a new change-set.

        With an *environment* only what was changed in it is undone, and nothing project-wide. Keys and webhooks stay
        as they are, and so do projects and environments that were made: those are never removed.

        Raises:
            NotFoundError: The project has no such revision.
            PermissionDeniedError: What would be undone lies in an environment that the writer does not see, or is
                project-wide, and the writer does not see all environments.
            RevisionConflictError: An item of the one change-set was changed again later.
            FailedPreconditionError: As `commit`.
            RheostatError: As `plan`.
        """

        def make(state: State, next_revision: int) -> Plan:
            undone = [
                [change for change in change_set.changes if _undoable(change, environment)]
                for change_set in self._undone(project, revision, to_revision, next_revision)
            ]
            made = plan_revert(
                state,
                project,
                undone,
                revision=next_revision,
                new_id=self._new_id,
                limits=self.limits,
                expected_revision=expected_revision,
                removed_at=functools.partial(self._removed_at, project),
                sees=functools.partial(writer.principal.sees, project),
                strict=to_revision is None,
            )
            self._check_snapshots(made)
            return self._admitted(state, made, writer.principal, check, dry_run=dry_run, force=force)

        reverts = revision if revision is not None else to_revision or 0
        return self.write(writer, make, dry_run=dry_run, reverts=reverts)

    def _undone(
        self, project: str, revision: int | None, to_revision: int | None, next_revision: int
    ) -> list[ChangeSet]:
        if revision is not None:
            return [self.change_set(project, revision)]
        to_revision = to_revision or 0
        if to_revision >= next_revision:
            raise NotFoundError(f"the revision {to_revision} does not exist", reason="REVISION_NOT_FOUND")
        undone: list[ChangeSet] = []
        for change_set in self._newest_first(project):
            if change_set.revision <= to_revision:
                break
            undone.append(change_set)
            if len(undone) > _REVERT_REACH:
                raise LimitExceededError(
                    f"more than {_REVERT_REACH} change-sets lie after revision {to_revision}",
                    limit="revert_reach",
                )
        return undone

    def _newest_first(self, project: str) -> Iterator[ChangeSet]:
        """Yield a project's change-sets, with those that the plan of this thread is made after."""
        yield from (each for each in reversed(self._planning.written) if each.project == project)
        before: int | None = None
        while page := self.store.history(project=project, before=before, limit=100):
            yield from page
            before = page[-1].revision

    def create_key(
        self,
        writer: Writer,
        *,
        kind: KeyKind,
        project: str,
        environments: Sequence[str] = (),
        role: Role | None = None,
        declare: bool | None = None,
        subjects: bool = False,
        description: str = "",
        expires_at: datetime.datetime | None = None,
    ) -> tuple[Key, str, Outcome]:
        """Create a key; its text is returned once and never stored. A replay returns an empty text.

        Args:
            writer: Who, and why.
            kind: What it is for.
            project: The project it belongs to; empty for a store-wide user key.
            environments: Those that it sees; empty means all.
            role: Of a user key.
            declare: Whether a server key may declare settings; None means yes, but not where that is protected.
            subjects: Whether a public key may name stored subjects.
            description: For people.
            expires_at: When it ends; None means never.

        Raises:
            InvalidArgumentError: It would have ended already.
        """
        _check_ends_later(expires_at, self.clock())
        text, selector, verifier = make_secret(kind, self.randomness(40))
        key = Key(
            selector=selector,
            kind=kind,
            verifier=verifier,
            project=project,
            environments=tuple(environments),
            role=role,
            declare=declare is not False,
            declare_protected=declare is True,
            subjects=subjects,
            description=description,
            created_at=self.clock(),
            expires_at=expires_at,
        )
        outcome = self.write(writer, lambda state, revision: plan_key(state, key, revision=revision))
        stored = next(
            (change.after for change in outcome.change_set.changes if isinstance(change.after, Key)), key
        )
        return stored, "" if outcome.replayed else text, outcome

    def revoke_key(self, writer: Writer, selector: str) -> tuple[Key, Outcome]:
        """Revoke a key for good; its open streams end within seconds. Revoking twice changes nothing.

        Raises:
            NotFoundError: There is no such key among those that the caller covers.
        """
        revoked_at = self.clock()

        def make(state: State, revision: int) -> Plan:
            key = state.keys.get(selector)
            if key is None or not writer.principal.covers(key):
                raise NotFoundError(f"there is no key {selector!r}", reason="KEY_NOT_FOUND")
            if key.revoked_at is not None:
                return Plan(key.project, (), rule_number=state.rule_number)
            return plan_key(state, replace(key, revoked_at=revoked_at), revision=revision)

        outcome = self.write(writer, make)
        return self.head.state.keys[selector], outcome

    def rotate_key(
        self,
        writer: Writer,
        selector: str,
        *,
        overlap: datetime.timedelta,
        expires_at: datetime.datetime | None = None,
    ) -> tuple[Key, Key, str, Outcome]:
        """Make a successor of a key, with the same access, and let the old one end after *overlap*.

        Args:
            writer: Who, and why.
            selector: Of the old key.
            overlap: For how long the old key stays in force; its own end still holds when it is sooner.
            expires_at: When the successor ends; None means after as long a life as the old key was made for, which
                may be never.

        Returns:
            The successor; the old key; the successor's text, which is empty in a replay; what was written.

        Raises:
            NotFoundError: There is no such key among those that the caller covers.
            FailedPreconditionError: The old key is not in force any more.
            InvalidArgumentError: The successor would have ended already.
        """
        now = self.clock()
        _check_ends_later(expires_at, now)
        randomness = self.randomness(40)
        text = ""

        def make(state: State, revision: int) -> Plan:
            nonlocal text
            old = state.keys.get(selector)
            if old is None or not writer.principal.covers(old):
                raise NotFoundError(f"there is no key {selector!r}", reason="KEY_NOT_FOUND")
            if not in_force(old, now):
                raise FailedPreconditionError(
                    f"the key {selector!r} has ended: create a new one", reason="KEY_NOT_IN_FORCE"
                )
            text, successor, verifier = make_secret(old.kind, randomness)
            ends = now + overlap
            key = replace(
                old,
                selector=successor,
                verifier=verifier,
                created_at=now,
                expires_at=expires_at or _end_of_successor(state, old, now),
                lineage=old.lineage or old.selector,
            )
            ending = replace(old, expires_at=ends if old.expires_at is None else min(old.expires_at, ends))
            changes = (
                *plan_key(state, key, revision=revision).changes,
                *plan_key(state, ending, revision=revision).changes,
            )
            return Plan(old.project, changes, rule_number=state.rule_number)

        outcome = self.write(writer, make)
        written = [change.after for change in outcome.change_set.changes if isinstance(change.after, Key)]
        key = next(key for key in written if key.selector != selector)
        # It is not among the changes when it ends no sooner than before.
        old = next((key for key in written if key.selector == selector), None)
        return key, old or self.head.state.keys[selector], "" if outcome.replayed else text, outcome

    def write(
        self,
        writer: Writer,
        make: Callable[[State, int], Plan],
        *,
        dry_run: bool = False,
        reverts: int = 0,
        companion: Companion | None = None,
    ) -> Outcome:
        """Commit what *make* plans, as one change-set. The one way to all writes; checks no permission itself.

        Args:
            writer: Who, and why.
            make: Plans on a state, for a revision; called again when another process was faster.
            dry_run: Plan only.
            reverts: The revision that this undoes, or 0.
            companion: Reads and writes records in the transaction of the change-set.

        Raises:
            AlreadyExistsError: The request id was used with another payload.
            UnavailableError: The node is draining, or the store is away.
            RheostatError: As *make*.
        """
        self.check_serving()
        if dry_run:
            head = self.catch_up()
            with self._planning.on(head, ()):
                made = make(head.state, head.revision + 1)
            return Outcome(
                ChangeSet(
                    made.project, made.changes, warnings=made.warnings, forced_clients=made.forced_clients
                ),
                head.revision,
                head.identity.generation,
            )
        replay: list[ChangeSet] = []
        idle: list[Plan] = []
        groups: list[Group] = []

        def write(transaction: Transaction) -> ChangeSet | None:
            groups.append(transaction.group)
            head = self._head_in(transaction)
            if writer.request_id:
                first = transaction.find_request(writer.principal.actor, writer.request_id)
                if first is not None:
                    replay.append(self._checked_replay(first, writer))
                    return None
            if companion is not None:
                companion.begin(transaction)
            with self._planning.on(head, transaction.group.written):
                made = make(head.state, transaction.revision + 1)
            if not made.changes:
                idle.append(made)
                return None
            change_set = ChangeSet(
                project=made.project,
                changes=made.changes,
                author=writer.author,
                message=writer.message,
                actor=writer.principal.actor,
                request_id=writer.request_id,
                payload_digest=writer.payload,
                rule_numbers=made.rule_number - head.state.rule_number,
                reverts=reverts,
                warnings=made.warnings,
                forced_clients=made.forced_clients,
            )
            return change_set if companion is None else companion.complete(transaction, change_set)

        _ = self.hub
        began = self.monotonic()
        try:
            committed = self._commit(
                RequestWrite(writer.principal.actor, writer.request_id, write) if writer.request_id else write
            )
        except UnavailableError:
            self.metrics.count("store errors")
            raise
        finally:
            with self._lock:
                # Unless another writer was faster, of the same group or of the next one.
                if groups and self._ahead is not None and self._ahead.group is groups[-1]:
                    self._settle()
        head = self.head
        if committed is not None:
            self.metrics.commits.note(self.monotonic() - began)
            if (head.identity.generation, head.revision) < (committed.generation, committed.revision):
                self.catch_up()
            return Outcome(committed, committed.revision, committed.generation)
        if replay:
            return Outcome(replay[0], replay[0].revision, replay[0].generation, replayed=True)
        project, warnings = idle[-1].project, idle[-1].warnings
        return Outcome(ChangeSet(project, (), warnings=warnings), head.revision, head.identity.generation)

    def _head_in(self, transaction: Transaction) -> Head:
        """Return the head of what a writing transaction shows.

        Raises:
            _StaleError: It does not follow what this node holds.
        """
        group = transaction.group
        with self._lock:
            if self._ahead is None or self._ahead.group is not group:
                self._settle()
                self._ahead = Ahead(group, self.head)
            # From here on only the writers of this group change it, one after the other.
            ahead = self._ahead
        head = ahead.head
        if not _same_history(transaction.identity, head.identity) or transaction.revision < head.revision:
            raise _StaleError
        if transaction.revision > head.revision:
            try:
                change_sets = transaction.since(head.revision)
            except RevisionCompactedError:
                raise _StaleError from None
            with self._lock:
                ahead.follow(change_sets)
            if ahead.head.revision != transaction.revision:
                raise _StaleError
        return ahead.head

    def _settle(self) -> None:
        """Publish what a group of commits that has ended has led to, or forget it. `_lock` is held."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.group.lost:
            return
        # Nobody came after the last one to take it in.
        ahead.follow(ahead.group.written)
        if self.head is ahead.base:
            self._publish(ahead)
        elif ahead.change_sets:
            # It was read from the store meanwhile, or history was compacted.
            self._advance(ahead.change_sets)

    def _commit(self, write: Write) -> ChangeSet | None:
        for _ in range(_STALE_ATTEMPTS):
            try:
                return self.store.commit(write)
            except _StaleError:
                # Outside of the transaction, because it may have to raise the generation.
                self.catch_up()
        raise UnavailableError("the history of the store keeps changing", retry_after=1.0)

    @staticmethod
    def _checked_replay(first: ChangeSet, writer: Writer) -> ChangeSet:
        if first.payload_digest != writer.payload:
            raise AlreadyExistsError(
                f"the request id {writer.request_id!r} was used for another change, in revision "
                f"{first.revision}; use a new one",
                reason="REQUEST_ID_REUSED",
                metadata={"revision": str(first.revision)},
            )
        return first

    def _check_snapshots(self, made: Plan) -> None:
        """Refuse what would make an environment's snapshot too large to send."""
        head = self._planning.head or self.head
        segments_grow = _growth(change for change in made.changes if change.kind == "segment")
        for environment in made.environments:
            view = head.views.get((made.project, environment))
            growth = segments_grow + _growth(c for c in made.changes if c.environment == environment)
            if growth <= 0:
                continue
            size = growth + (0 if view is None else view.size)
            if size > self.limits.max_snapshot_bytes:
                raise LimitExceededError(
                    f"the snapshot of {environment!r} would take {size} bytes, more than "
                    f"{self.limits.max_snapshot_bytes}",
                    limit="max_snapshot_bytes",
                )

    def _removed_at(self, project: str, address: ItemAddress) -> int:
        """Return the revision that removed an item; 0 when it is there, never was, or that is compacted."""
        environment, kind, key = address
        views = (self._planning.head or self.head).views
        return max(
            (
                view.removed_at((kind, key))
                for (its_project, slug), view in views.items()
                if its_project == project and environment in (slug, "")
            ),
            default=0,
        )

    def _new_id(self) -> str:
        return self.randomness(5).hex()

    # Reading.

    def view(self, project: str, environment: str, head: Head | None = None) -> View:
        """Return the newest view of an environment; KeyError when there is none (resolve it first)."""
        return (head or self.head).views[project, environment]

    def change_set(self, project: str, revision: int) -> ChangeSet:
        """Return one change-set of the project's history.

        Raises:
            NotFoundError: The project has no such revision.
        """
        found = self.store.change_set(revision) if revision <= MAX_REVISION else None
        if found is None or found.project not in (project, ""):
            raise no_revision(project, revision)
        return found

    def evaluate(
        self, project: str, environment: str, name: str, context: Context, *, head: Head | None = None
    ) -> Evaluation:
        """Evaluate one setting.

        Raises:
            SettingNotFoundError: The environment has no such setting.
        """
        view = self.view(project, environment, head)
        if view.snapshot.setting(name) is None:
            raise SettingNotFoundError(
                f"the environment {environment!r} has no setting {name!r}",
                metadata={"setting": name, "environment": environment},
            )
        return view.compiled.evaluate(name, context)

    def explain(
        self, project: str, environment: str, name: str, context: Context, *, head: Head | None = None
    ) -> Explanation:
        """Explain an evaluation, rule by rule; see `evaluate`."""
        snapshot = self.view(project, environment, head).snapshot
        if snapshot.setting(name) is None:
            raise SettingNotFoundError(
                f"the environment {environment!r} has no setting {name!r}",
                metadata={"setting": name, "environment": environment},
            )
        return explain(snapshot, name, context)

    # Watching.

    @property
    def watchers(self) -> int:
        """How many watches are open in this process."""
        return self.admission.open

    def watch(self, options: WatchOptions) -> WatchSession:
        """Begin a watch; the driver steps the session."""
        return WatchSession(self, options)

    def key_in_force(self, principal: Principal) -> bool:
        """Tell whether the caller's key still opens anything; True in open mode."""
        return principal.key is None or still_in_force(self.head.state, principal, self.clock())

    def key_ends_at(self, principal: Principal) -> float | None:
        """Return the instant of the monotonic clock at which the caller's key expires; None when it does not."""
        left = None if principal.key is None else life_left(self.head.state, principal, self.clock())
        return None if left is None else self.monotonic() + left


class _Planning(threading.local):
    """What this thread makes a plan on, if it makes one.

    Attributes:
        head: The head.
        written: The newest change-sets in it, which nobody else may see yet.
    """

    head: Head | None = None
    written: Sequence[ChangeSet] = ()

    @contextlib.contextmanager
    def on(self, head: Head, written: Sequence[ChangeSet]) -> Iterator[None]:
        """Make a plan."""
        self.head, self.written = head, written
        try:
            yield
        finally:
            self.head, self.written = None, ()


def no_revision(project: str, revision: int) -> NotFoundError:
    """Return the error about a revision that is none of the project's, or that the caller may not know of."""
    return NotFoundError(
        f"the project {project!r} has no revision {revision}",
        reason="REVISION_NOT_FOUND",
        metadata={"revision": str(revision)},
    )


def behind(min_revision: int, head: Head, what: str = "node") -> BehindError:
    """Return what says that *head*, of *what*, has not reached *min_revision* in time."""
    return BehindError(
        f"revision {min_revision} was not reached in time; this {what} is at {head.revision}",
        metadata={"revision": str(head.revision)},
    )


def _undoable(change: Change, environment: str) -> bool:
    if environment and change.environment != environment:
        return False
    made = change.kind in ("project", "environment") and change.before is None
    return not made and change.kind not in ("key", "webhook")


def _state_of(contents: Contents) -> State:
    # Projects and environments first, so that everything else finds its place.
    rank = {"project": 0, "environment": 1}
    changes = [
        Change(stored.project, stored.environment, stored.kind, stored.key, None, stored.item)
        for stored in sorted(contents.items, key=lambda stored: rank.get(stored.kind, 2))
    ]
    return State().apply(changes, contents.revision, contents.rule_number)


def _growth(changes: Iterable[Change]) -> int:
    """How many bytes more, or less, the items take after *changes*."""
    return sum(
        (0 if change.after is None else len(encode_item(change.after).encode()))
        - (0 if change.before is None else len(encode_item(change.before).encode()))
        for change in changes
    )


def _has_lost(identity: Identity, revision: int, head: Head) -> bool:
    """Tell whether the store, which was just asked, is behind what this node has served."""
    held = head.identity
    if identity.store_id != held.store_id:
        return False
    if identity.generation != held.generation:
        return identity.generation < held.generation
    return identity.nonce != held.nonce or revision < head.revision


def _same_history(left: Identity, right: Identity) -> bool:
    return (left.store_id, left.generation, left.nonce) == (
        right.store_id,
        right.generation,
        right.nonce,
    )


def _check_ends_later(expires_at: datetime.datetime | None, now: datetime.datetime) -> None:
    if expires_at is not None and expires_at <= now:
        text = "is not in the future"
        raise InvalidArgumentError(f"expires_at: {text}", violations=[FieldViolation("expires_at", text)])


def _end_of_successor(state: State, old: Key, now: datetime.datetime) -> datetime.datetime | None:
    """Return when the successor of *old* ends that is given no end of its own: it gets as long a life."""
    # A key that has a successor already ends sooner than it was made for; that successor tells for how long.
    lineage = Principal(old).lineage
    family = [key for key in state.keys.values() if Principal(key).lineage == lineage and key.created_at]
    made = max(family, key=lambda key: (key.created_at or now, bool(key.lineage)), default=old)
    if made.expires_at is None or made.created_at is None:
        return made.expires_at
    return now + (made.expires_at - made.created_at)


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _after_fork_in_child() -> None:
    for service in _services:
        service.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
