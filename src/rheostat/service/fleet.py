"""The fleet: the clients of all nodes of a store, how far they have got, and what they can decode."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from rheostat.errors import FailedPreconditionError, LimitExceededError
from rheostat.model.change import ChangeSet, PlanWarning
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration, DeclarationResult
from rheostat.model.setting import Setting
from rheostat.service.compatibility import Gate
from rheostat.service.declare import Blocking, BlockingClients
from rheostat.service.declared import DeclaredTypes
from rheostat.service.plan import Plan
from rheostat.service.roster import LIFE, Register, Roster
from rheostat.service.typeset import NewValues, TypeSet, new_values
from rheostat.store.base import ClientCount, ClientRow, Record

if TYPE_CHECKING:
    from rheostat.service.publish import Head
    from rheostat.service.service import Service

__all__ = ["Ask", "Fleet", "Rollout"]

ASK_SECONDS: Final = 15.0
"""For how long a question about a rollout makes clients report soon."""

_ASKED: Final = "rollout"
"""The kind of the records that tell all nodes that somebody waits."""

_ASK_LIFE: Final = datetime.timedelta(seconds=20)
"""Longer than `ASK_SECONDS`, so that who asks every second is written down every five."""

_REPORTS_PER_SECOND: Final = 1_000
_SOONEST: Final = 0.1
_LATEST: Final = 10.0

_LISTED: Final = 100
"""Clients that the metadata of an error lists."""

_MAX_DECLARED: Final = 20_000
_MAX_DECLARED_BYTES: Final = 8 * 1024 * 1024

_REJECTED_SECONDS: Final = 30.0
"""How long a client waits at least before it declares again what was rejected because of others."""

_MAX_REJECTED: Final = 10_000

_CACHED_COMMITS: Final = 1_024

_COUNTED: Final = 1_000
"""Clients that are read from the store at a time."""

_TOLERANCE: Final = 1.0
"""Seconds that a change may seem to have been applied before its commit, from rounding and clocks that are set."""

_MAX_INT: Final = 2**63 - 1

_Place: TypeAlias = tuple[str, str]
"""Project and environment."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody waits for a rollout.

    Attributes:
        serial: Tells one question from the one before.
        within: Seconds within which clients are to report.
        until: Instant of the monotonic clock after which nobody waits any more.
    """

    serial: str
    within: float
    until: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a revision has got.

    Attributes:
        revision: The revision.
        generation: Its generation.
        committed_at: When it was committed; None when the environment is as it was at the compaction floor, and
            the newest revision was asked for.
        count: The clients.
        laggards: Those that report and have not reached it, by id.
    """

    revision: int
    generation: int
    committed_at: datetime.datetime | None
    count: ClientCount
    laggards: tuple[ClientReport, ...]


@dataclass(frozen=True, slots=True)
class _Commit:
    project: str
    at: float


class Fleet:
    """What a node knows of the clients of its store. Safe from any thread; methods may wait for the store.

    Attributes:
        roster: Writes down who is connected.
    """

    def __init__(self, service: Service) -> None:
        """Know nothing yet; nothing is read or written before the first use."""
        self._service = service
        self._store = service.store
        clock, monotonic = service.clock, service.monotonic
        self._types = DeclaredTypes(service.store, service.limits, clock=clock, monotonic=monotonic)
        self._register = Register(service.limits.max_clients_per_key, monotonic=monotonic)
        self._gate = Gate(service.store, self._types, clock=clock, monotonic=monotonic)
        self.roster = Roster(
            service.store, service.node, clock=clock, monotonic=monotonic, housekeeping=self.keep_house
        )
        self._asks: dict[_Place, Ask] = {}
        # When something of a client was rejected because of others, which may have left since (monotonic).
        self._rejected: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._commits: OrderedDict[tuple[int, int], _Commit] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Write down what has been noted. Idempotent."""
        self.roster.close()

    def keep_house(self, now: datetime.datetime) -> None:
        """Remove what has outlived itself; the node does so from time to time."""
        self._store.expire_clients(now)
        self._store.delete_due_records(_ASKED, now)
        self._types.expire(now)
        self._register.expire()

    # Who is there.

    def connected(
        self, project: str, environment: str, client: ClientReport, actor: str
    ) -> contextlib.AbstractContextManager[None]:
        """Keep a client in mind while the context, its stream, lasts; unless its key has too many."""
        if not self._register.admits(project, environment, actor, client.id):
            return contextlib.nullcontext()
        return self.roster.connected(self._row(project, environment, client, actor))

    def declare(
        self,
        project: str,
        environment: str,
        declarations: Iterable[Declaration | DeclarationResult],
        *,
        continued: bytes,
        client: ClientReport,
        actor: str,
    ) -> bytes:
        """Take note of the types that a client declares, which all nodes judge values by from then on.

        Args:
            project: Slug.
            environment: Slug.
            declarations: All that could be read count, whatever becomes of them.
            continued: The hash of the types that these come in addition to; empty for none.
            client: Who declares; with an empty id nobody who is connected.
            actor: The selector of its key.

        Returns:
            The hash of the types; empty when what is continued is unknown.

        Raises:
            LimitExceededError: They are too many together, or the key's clients have declared too much.
        """
        types = TypeSet.of(declarations)
        if continued:
            former = self._types.find(project, environment, continued)
            if former is None:
                return b""
            types = former.merged(types)
            if len(types.lines) > _MAX_DECLARED or len(types.text) > _MAX_DECLARED_BYTES:
                raise LimitExceededError(
                    f"the client has declared more than {_MAX_DECLARED} settings, or types of more than "
                    f"{_MAX_DECLARED_BYTES} bytes (max_declared)",
                    limit="max_declared",
                )
        self._types.keep(project, environment, types, actor)
        if client.id and self._register.admits(project, environment, actor, client.id):
            self.roster.put(replace(self._row(project, environment, client, actor), types=types.hash))
            self._gate.forget(project)
        return types.hash

    def note_rejected(self, project: str, environment: str, client_id: str) -> None:
        """Let a client declare again with a later report: whoever could not decode what it declared may have left."""
        if client_id:
            with self._lock:
                self._rejected[project, environment, client_id] = self._service.monotonic()
                while len(self._rejected) > _MAX_REJECTED:
                    self._rejected.popitem(last=False)

    def report(
        self,
        project: str,
        environment: str,
        reports: Sequence[ClientReport],
        actor: str,
        *,
        relayed: bool = False,
    ) -> list[str]:
        """Take reports, and return the ids of those who are to declare again.

        Nothing that stands in a report is an error: what makes no sense is not known.

        Args:
            project: Slug.
            environment: Slug.
            reports: Those without an id are passed over, and those of a key that has too many clients.
            actor: The selector of the key that they come under.
            relayed: They tell when they were made.
        """
        now = self._service.clock()
        head = self._service.head
        ahead = max((report.revision for report in reports), default=0)
        if ahead > head.revision and ahead <= _MAX_INT:
            # A client of another node may know what this one has not read yet.
            head = self._service.catch_up()
        diverged = sum(report.diverged for report in reports)
        if diverged:
            self._service.metrics.count("diverged", times=diverged)
        known: dict[bytes, bool] = {b"": True}
        declare_again = []
        for report in reports:
            if not report.id or not self._register.admits(project, environment, actor, report.id):
                continue
            types = report.types if len(report.types) in (0, 32) else b""
            if report.types not in known:
                known[report.types] = bool(types) and self._types.renew(project, environment, types, actor)
            if not known[report.types] or self._was_rejected(project, environment, report.id):
                declare_again.append(report.id)
            if report.settings_read:
                self._service.usage.note_reads(project, environment, report.settings_read)
            at = now
            if relayed and report.reported_at is not None:
                at = min(max(report.reported_at, now - LIFE), now)
            row = self._row(project, environment, report, actor)
            self.roster.note(
                replace(
                    row,
                    node=_text(report.node),
                    types=types,
                    reported_at=at,
                    expires_at=at + LIFE,
                    lag=self._lag(head, project, environment, report, at),
                )
            )
        return declare_again

    def _was_rejected(self, project: str, environment: str, client_id: str) -> bool:
        key = (project, environment, client_id)
        with self._lock:
            at = self._rejected.get(key)
            if at is None or self._service.monotonic() < at + _REJECTED_SECONDS:
                return False
            del self._rejected[key]
            return True

    def clients(self, project: str, environment: str, *, after: str, limit: int) -> list[ClientReport]:
        """Return up to *limit* clients whose ids follow *after*, by id."""
        now = self._service.clock()
        return [
            _report(row)
            for row in self._store.clients(project, environment, now=now, after=after, limit=limit)
        ]

    def declarers(self, project: str, environment: str) -> Mapping[str, int]:
        """Return how many connected clients have declared a setting, by the names and aliases they gave it."""
        now = self._service.clock()
        counts: Counter[str] = Counter()
        for slug, hash_ in self._store.client_types(project, now=now):
            types = self._types.find(project, environment, hash_) if slug == environment else None
            if types is None:
                continue
            clients, after = 0, ""
            while page := self._store.clients(
                project, environment, now=now, types=hash_, after=after, limit=_COUNTED
            ):
                clients += len(page)
                after = page[-1].id
            for name in {name for line in types.lines for name in line[1:]}:
                counts[name] += clients
        return counts

    def _row(self, project: str, environment: str, client: ClientReport, actor: str) -> ClientRow:
        return ClientRow(
            project=project,
            environment=environment,
            id=_text(client.id),
            expires_at=self._service.clock() + LIFE,
            name=_text(client.name),
            sdk=_text(client.sdk),
            node=self._service.node,
            actor=actor,
            generation=min(client.generation, _MAX_INT),
            revision=min(client.revision, _MAX_INT),
            diverged=client.diverged,
            error=_text(client.error),
        )

    # Rollouts.

    def rollout(
        self, project: str, environment: str, *, revision: int, ask: bool, max_laggards: int
    ) -> Rollout:
        """Tell how far a revision has got.

        Args:
            project: Slug.
            environment: Slug.
            revision: 0 means the newest one that has changed the environment.
            ask: Somebody waits: clients are to report soon.
            max_laggards: How many to name.

        Raises:
            NotFoundError: The project has no such revision.
        """
        head = self._service.head
        if revision > head.revision:
            head = self._service.catch_up()
        # Revisions that do not touch the environment reach its clients with the next bookmark only, and change
        # nothing for them.
        touched = head.views[project, environment].touched_at(revision or head.revision)
        committed = None
        if revision or touched is not None:
            revision = revision or touched or 0
            committed = self._commit(head, project, revision)
        revision = revision or head.revision
        at = (head.identity.generation, min(revision, head.floor) if touched is None else touched)
        now = self._service.clock()
        count = self._store.count_clients(project, environment, now=now, generation=at[0], revision=at[1])
        laggards: Sequence[ClientRow] = ()
        if count.reached < count.reporting and max_laggards:
            laggards = self._store.clients(project, environment, now=now, behind=at, limit=max_laggards)
        if ask:
            self._ask(project, environment, count.reporting + count.silent)
        return Rollout(
            revision,
            head.identity.generation,
            None if committed is None else datetime.datetime.fromtimestamp(committed.at, datetime.UTC),
            count,
            tuple(map(_report, laggards)),
        )

    def asked(self, place: _Place, now: float) -> Ask | None:
        """Return the question that somebody waits with, at *now* (monotonic); None when nobody does."""
        ask = self._asks.get(place)
        return ask if ask is not None and now < ask.until else None

    def follow(self) -> None:
        """Read what other nodes are asked, and let the watches ask their clients."""
        now, monotonic = self._service.clock(), self._service.monotonic()
        asks: dict[_Place, Ask] = {}
        for record in self._store.records(_ASKED):
            if record.due is None or record.due <= now:
                continue
            project, _, environment = record.key.partition("/")
            held = self._asks.get((project, environment))
            serial = record.due.isoformat()
            asks[project, environment] = (
                held
                if held is not None and held.serial == serial
                else Ask(
                    serial,
                    float(json.loads(record.body)["within"]),
                    monotonic + (record.due - now).total_seconds(),
                )
            )
        news = any(self._asks.get(place) is not ask for place, ask in asks.items())
        self._asks = asks
        if news:
            self.roster.hurry(max(ask.until for ask in asks.values()))
            self._service.hub.ring()

    def note_commits(self, change_sets: Iterable[ChangeSet]) -> None:
        """Keep in mind when revisions were committed, which is measured against."""
        for change_set in change_sets:
            if change_set.created_at is not None:
                self._note_commit(change_set.generation, change_set)

    def _ask(self, project: str, environment: str, clients: int) -> None:
        key = f"{project}/{environment}"
        now = self._service.clock()
        stored = self._store.record(_ASKED, key)
        due = None if stored is None else stored.due
        if due is None or due < now + datetime.timedelta(seconds=ASK_SECONDS):
            within = min(max(clients / _REPORTS_PER_SECOND, _SOONEST), _LATEST)
            self._store.put_record(Record(_ASKED, key, json.dumps({"within": within}), now + _ASK_LIFE))
        self.follow()

    def _note_commit(self, generation: int, change_set: ChangeSet) -> _Commit:
        at = change_set.created_at
        commit = _Commit(change_set.project, 0.0 if at is None else at.timestamp())
        with self._lock:
            self._commits[generation, change_set.revision] = commit
            while len(self._commits) > _CACHED_COMMITS:
                self._commits.popitem(last=False)
        return commit

    def _commit(self, head: Head, project: str, revision: int) -> _Commit:
        with self._lock:
            found = self._commits.get((head.identity.generation, revision))
        if found is None or found.project not in (project, ""):
            # Also the error of what is none of the project's revisions.
            found = self._note_commit(head.identity.generation, self._service.change_set(project, revision))
        return found

    def _lag(
        self,
        head: Head,
        project: str,
        environment: str,
        report: ClientReport,
        at: datetime.datetime,
    ) -> float | None:
        if report.age is None or report.generation != head.identity.generation:
            return None
        if report.revision > head.revision:
            return None
        revision = head.views[project, environment].touched_at(report.revision)
        if revision is None:
            return None
        key = (head.identity.generation, revision)
        with self._lock:
            commit = self._commits.get(key)
        if commit is None:
            change_set = self._store.change_set(revision)
            if change_set is None or change_set.created_at is None:
                return None
            commit = self._note_commit(key[0], change_set)
        lag = at.timestamp() - max(report.age, 0.0) - commit.at
        # Long before the commit: what it applied is another change, because its filter leaves this one out.
        return max(lag, 0.0) if lag > -_TOLERANCE else None

    # The gate.

    def blocking(self, project: str, environment: str, replayed: ChangeSet | None) -> Blocking:
        """Return what judges declarations of one batch.

        Args:
            project: Slug.
            environment: Slug.
            replayed: What the same batch has led to before: those of its entries that it does not hold were
                rejected then, whoever is connected now.
        """
        written = None if replayed is None else {change.key for change in replayed.changes if change.after}

        def blocking(before: Setting | None, after: Setting) -> BlockingClients | None:
            if written is not None and after.name in written:
                return None
            new = NewValues.of(environment, before, after)
            blocked = None if new is None else self._gate.blocked(project, [new])
            if blocked is not None:
                return BlockingClients(blocked.message, blocked.clients)
            if written is not None:
                return BlockingClients("clients that were connected then could not decode a value of it", ())
            return None

        return blocking

    def gated(self, made: Plan, *, force: bool = False) -> Plan:
        """Return a plan that no connected client is broken by, or that says which clients are.

        Args:
            made: What is to be committed.
            force: Commit it all the same; the plan then names the clients, and warns of them.

        Raises:
            FailedPreconditionError: A client could not decode a value of it, and *force* is false.
        """
        found = list(new_values(made.changes))
        blocked = self._gate.blocked(made.project, found) if found else None
        if blocked is None:
            return made
        if not force:
            raise FailedPreconditionError(
                f"{blocked.message}; force the change-set to commit it all the same",
                reason="CLIENTS_WOULD_BREAK",
                metadata={
                    "setting": blocked.misfit.new.setting,
                    "environment": blocked.misfit.new.environment,
                    "clients": json.dumps(blocked.clients[:_LISTED]),
                },
            )
        warning = PlanWarning("CLIENTS_WOULD_BREAK", blocked.message)
        return replace(made, warnings=(*made.warnings, warning), forced_clients=blocked.clients)


def _text(text: str) -> str:
    # What people are shown: a terminal or a log may end the text there.
    return text.replace("\0", "\ufffd")


def _report(row: ClientRow) -> ClientReport:
    return ClientReport(
        id=row.id,
        name=row.name,
        sdk=row.sdk,
        generation=row.generation,
        revision=row.revision,
        node=row.node,
        types=row.types,
        diverged=row.diverged,
        reported_at=row.reported_at,
        lag=row.lag,
        error=row.error,
    )
