"""Drafts: change-sets that wait, who approves them, and their commit at a time, exactly once."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from rheostat.errors import (
    AlreadyExistsError,
    Conflict,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RevisionConflictError,
    RheostatError,
    StoreError,
    UnavailableError,
)
from rheostat.model.change import (
    Change,
    ChangeSet,
    DeleteSegment,
    Mutation,
    PlanWarning,
    PutEnvironment,
    PutProject,
    PutSegment,
    SetFeatures,
)
from rheostat.model.draft import Approval, Draft, DraftState, MissingApproval
from rheostat.model.draft_encoding import decode_draft, encode_draft
from rheostat.model.state import State
from rheostat.service.access import OPEN, Permission, Principal
from rheostat.service.approval import (
    approval_required,
    check_governance,
    check_reach,
    counting_approvals,
    lineage_of,
    missing_approvals,
    named,
    standing_key,
    touched,
)
from rheostat.service.draft_content import DraftContents
from rheostat.service.plan import Plan
from rheostat.service.writing import Outcome, Writer
from rheostat.store.base import Record, Transaction

if TYPE_CHECKING:
    from rheostat.service.publish import Head
    from rheostat.service.service import Service

__all__ = ["DRAFT_KIND", "DraftView", "Drafts", "Published"]

T = TypeVar("T")

log = logging.getLogger("rheostat.service")

DRAFT_KIND: Final = "draft"
"""The kind of the records that hold drafts; their keys are the project and the id, with a slash between."""

_CLOSED_KIND: Final = "draft-closed"
"""The kind of the records that say from when on a draft is not kept any more, with its key."""

_CLOSED_KEPT: Final = datetime.timedelta(days=90)

_REQUEST_KIND: Final = "draft-request"

_REQUEST_KEPT: Final = datetime.timedelta(hours=24)

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Digits of ids, in the order of their code points; without those that look alike."""

_ID_MILLISECONDS: Final = 2**45
"""Counted backwards, so that later ids come first; enough until the year 3084."""

_ATTEMPTS: Final = 5
"""How often a write that finds the draft changed by somebody else looks at it again."""

_READ_SECONDS: Final = 1.0
"""How often the store is asked for what is due: others may have scheduled something."""

_CLEAN_SECONDS: Final = 600.0

_BATCH: Final = 100

_PAGE_READS: Final = 10
"""How often the store is read for a page of drafts of which the caller does not want, or see, all."""

_PAGE_CHARACTERS: Final = 8 * 1024 * 1024
"""A page ends with the draft that makes it this long: approvals have comments."""

_TRIES: Final = 10
"""How often a draft is tried at its time, once a second, when the store cannot give what it needs."""

_HIDDEN: Final = "a key that sees all of its environments is told why"


@dataclass(frozen=True, slots=True)
class DraftView:
    """A draft as somebody sees it.

    Attributes:
        draft: As it is stored, with the environments that it touches now where that is known.
        missing: The approvals that it waits for.
        changes: What it would change if it was committed now; empty when it cannot be.
        warnings: What its author should know.
        problem: Why it could not be committed now, but for approvals; empty when it could.
    """

    draft: Draft
    missing: tuple[MissingApproval, ...] = ()
    changes: tuple[Change, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a draft that was published.

    Attributes:
        draft: As it is now.
        outcome: The commit; None when it was scheduled.
    """

    draft: Draft
    outcome: Outcome | None = None


class _CommittedError(Exception):
    """Inside a writing transaction: the draft has become a revision already."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft.id)
        self.draft = draft


class _NotDueError(Exception):
    """Inside a writing transaction: the draft is not scheduled for now any more."""


class Drafts:
    """The drafts of a store. All methods are safe from any thread, and may wait for the store.

    All that is to be kept lies in the store, so that any node goes on with what another one began.
    """

    def __init__(self, service: Service) -> None:
        """Begin with nothing; nothing is read before the first use."""
        self._service = service
        self._contents = DraftContents(service)
        self._tries: dict[str, int] = {}
        self._read_again_at: float | None = None
        self._clean_at: float | None = None
        self._soonest: datetime.datetime | None = None

    # Writing.

    def create(
        self,
        writer: Writer,
        project: str,
        environment: str,
        mutations: Sequence[Mutation],
        *,
        base_revision: int | None = None,
        force: bool = False,
    ) -> DraftView:
        """Keep *mutations* as a draft, once it is shown that they could be committed now, but for approvals.

        Args:
            writer: Who, and why. A repeat of its request id with the same payload returns the first draft.
            project: Slug; it exists.
            environment: For mutations that name none.
            mutations: In order.
            base_revision: The revision that the author saw; None means the newest one.
            force: Commit although some connected client could not decode a value.

        Raises:
            AlreadyExistsError: The request id was used with another payload.
            FailedPreconditionError: They would change nothing.
            LimitExceededError: The project has too many open drafts, or they are too large together.
            RheostatError: As `Service.commit`, but for approvals.
        """
        self._check_draining()
        request = self._find_request(writer, project)
        if request is not None:
            repeated = self._find(project, request)
            if repeated is not None:
                return self._view(self._filled(repeated), writer.principal)
        head = self._service.catch_up()
        if base_revision is not None and base_revision > head.revision:
            text = f"the newest revision is {head.revision}"
            raise InvalidArgumentError(
                f"base_revision: {text}", violations=[FieldViolation("base_revision", text)]
            )
        now = self._service.clock()
        draft = Draft(
            "",
            project,
            environment,
            tuple(mutations),
            now,
            now,
            head.revision if base_revision is None else base_revision,
            message=writer.message,
            author=writer.author,
            actor=writer.principal.actor,
            force=force,
        )
        made = self._planned(head, draft, writer.principal)
        draft = self._with_reach(draft, made)
        for _ in range(_ATTEMPTS):
            draft = replace(draft, id=request or self._new_id(now))
            if writer.request_id and request is None:
                request = self._take_request(writer, project, draft.id)
                draft = replace(draft, id=request)
            draft = replace(draft, content=self._contents.write(project, draft.id, draft.mutations))
            stored = self._service.store.put_record(_record(draft), expected_version=0)
            if stored is not None:
                return self._of_plan(replace(draft, version=stored.version), made, writer.principal)
            self._contents.drop(project, draft.id, draft.content)
            if request is not None and (first := self._find(project, request)) is not None:
                return self._view(self._filled(first), writer.principal)
        raise UnavailableError("the ids of drafts keep being taken", retry_after=1.0)

    def update(
        self,
        writer: Writer,
        project: str,
        draft_id: str,
        mutations: Sequence[Mutation],
        *,
        version: int = 0,
        force: bool = False,
    ) -> DraftView:
        """Write other mutations into a draft, against the newest revision. Approvals and schedule are gone.

        Whoever does is its author from then on, because nobody is to approve what they wrote themselves. A message
        is replaced unless the new one is empty.

        Raises:
            NotFoundError: There is no such draft that the caller sees.
            RevisionConflictError: It does not have *version*, unless that is 0.
            FailedPreconditionError: It is committed or cancelled; or the mutations would change nothing.
            RheostatError: As `create`.
        """

        def change(draft: Draft) -> tuple[Draft, Plan]:
            head = self._service.catch_up()
            written = replace(
                draft,
                mutations=tuple(mutations),
                updated_at=self._service.clock(),
                base_revision=head.revision,
                state=DraftState.OPEN,
                message=writer.message or draft.message,
                author=writer.author,
                actor=writer.principal.actor,
                approvals=(),
                force=force,
                scheduled_at=None,
                publisher="",
                failure="",
            )
            made = self._planned(head, written, writer.principal)
            return self._with_reach(written, made), made

        draft, made = self._change(project, draft_id, writer.principal, version, change)
        return self._of_plan(draft, made, writer.principal)

    def approve(
        self, writer: Writer, project: str, draft_id: str, *, version: int, comment: str = ""
    ) -> DraftView:
        """Approve the mutations of a draft for those environments that it touches which the caller sees.

        Raises:
            NotFoundError: There is no such draft that the caller sees.
            RevisionConflictError: It does not have *version*.
            AlreadyExistsError: The caller has approved it before.
            FailedPreconditionError: It is committed or cancelled; or the caller wrote it, and none of its
                environments lets authors approve.
        """
        principal = writer.principal
        principal.require(Permission.APPROVE)

        def change(draft: Draft) -> tuple[Draft, None]:
            head = self._service.catch_up()
            if any(lineage_of(head.state, each.actor) == principal.lineage for each in draft.approvals):
                raise AlreadyExistsError(
                    f"this key, or one that it succeeds, has approved the draft {draft.id!r} before",
                    reason="ALREADY_APPROVED",
                )
            made, _ = self._tried(head, draft, principal if _sees(principal, draft) else OPEN)
            if made is not None:
                draft = self._with_reach(draft, made)
                if not self._reviews(principal, draft):
                    _not_found(project, draft_id)
            self._check_own(head.state, draft, principal)
            approval = Approval(
                tuple(slug for slug in draft.environments if principal.sees(project, slug)),
                writer.author,
                principal.actor,
                self._service.clock(),
                comment,
            )
            # What had failed for want of it may be tried again.
            state = DraftState.OPEN if draft.state is DraftState.FAILED else draft.state
            return replace(draft, approvals=(*draft.approvals, approval), state=state, failure=""), None

        draft, _ = self._change(project, draft_id, principal, version, change, allowed=self._reviews)
        return self._view(draft, principal)

    def cancel(self, writer: Writer, project: str, draft_id: str, *, version: int = 0) -> DraftView:
        """Give a draft up, with what it would do. Cancelling twice changes nothing.

        Raises:
            NotFoundError: There is no such draft that the caller sees.
            RevisionConflictError: It does not have *version*, unless that is 0.
            FailedPreconditionError: It is committed.
        """
        draft = self._visible(project, draft_id, writer.principal)
        if draft.state is not DraftState.CANCELLED:
            cancelled = partial(
                replace, state=DraftState.CANCELLED, mutations=(), content="", scheduled_at=None, failure=""
            )
            draft, _ = self._change(
                project,
                draft_id,
                writer.principal,
                version,
                lambda draft: (cancelled(draft), None),
                filled=False,
            )
        return self._view(draft, writer.principal)

    def publish(
        self,
        writer: Writer,
        project: str,
        draft_id: str,
        *,
        version: int = 0,
        at: datetime.datetime | None = None,
    ) -> Published:
        """Commit a draft now, or let the server commit it *at* an instant.

        Publishing one that is committed returns what it became, so that the call can be repeated.

        Raises:
            NotFoundError: There is no such draft that the caller sees.
            RevisionConflictError: The draft does not have *version*, unless that is 0; or it is stale: something
                that it touches has changed after its base revision.
            FailedPreconditionError: Approvals are missing; or it is cancelled.
            RheostatError: As `Service.commit`.
        """
        self._check_draining()
        draft = self._visible(project, draft_id, writer.principal)
        if draft.state is DraftState.COMMITTED:
            return self._committed(draft)
        _check_version(draft, version)
        if at is None or at <= self._service.clock():
            return self._commit(writer, draft, version=version)

        def change(draft: Draft) -> tuple[Draft, None]:
            head = self._service.catch_up()
            made = self._planned(head, draft, writer.principal)
            self._check_approved(head.state, draft, made, writer.principal)
            scheduled = replace(
                draft,
                state=DraftState.SCHEDULED,
                scheduled_at=at,
                publisher=writer.principal.actor,
                failure="",
            )
            return self._with_reach(scheduled, made), None

        scheduled, _ = self._change(project, draft_id, writer.principal, version, change)
        if self._soonest is None or at < self._soonest:
            self._soonest = at
        return Published(scheduled)

    # Reading.

    def get(self, principal: Principal, project: str, draft_id: str) -> DraftView:
        """Return a draft, with what it would change if it was committed now.

        Whoever may approve for a protected environment among those that it touches sees it too, as far as it is
        about environments that they see.

        Raises:
            NotFoundError: There is no such draft that the caller sees.
        """
        draft = self._visible(project, draft_id, principal, allowed=self._reviews, filled=True)
        return self._view(draft, principal)

    def list(
        self,
        principal: Principal,
        project: str,
        *,
        environment: str = "",
        states: Collection[DraftState] = (),
        after: str = "",
        limit: int = 100,
    ) -> tuple[list[DraftView], str]:
        """Return a page of the drafts that the caller sees, newest first, without their mutations.

        Args:
            principal: The caller.
            project: Slug; it exists.
            environment: Only drafts that touch or name it; empty means all.
            states: Only drafts in one of these; empty means those that are not closed.
            after: What the page before returned; empty for the first page.
            limit: At most so many. A page may be shorter.

        Returns:
            The drafts, and what the next page comes after; empty on the last one.
        """
        wanted = states or [state for state in DraftState if not state.is_closed]
        page: list[DraftView] = []
        length = 0
        for _ in range(_PAGE_READS):
            records = self._service.store.records(
                DRAFT_KIND, prefix=f"{project}/", after=f"{project}/{after}" if after else "", limit=_BATCH
            )
            for record in records:
                after = record.key.removeprefix(f"{project}/")
                draft = _readable(record)
                if draft is None or draft.state not in wanted or not self._reviews(principal, draft):
                    continue
                view = _part(DraftView(draft, self._missing(draft, principal)), principal)
                if environment and environment not in (*view.draft.environments, *view.draft.named):
                    continue
                page.append(view)
                length += len(record.body)
                if len(page) == limit or length >= _PAGE_CHARACTERS:
                    is_last = record is records[-1] and len(records) < _BATCH
                    return page, "" if is_last else after
            if len(records) < _BATCH:
                return page, ""
        return page, after

    # Committing at a time.

    def seconds_to_due(self, limit: float) -> float:
        """Return the seconds until something is known to be due, at most *limit*."""
        if self._soonest is None or self._service.draining:
            return limit
        return min(limit, max(0.001, (self._soonest - self._service.clock()).total_seconds()))

    def commit_due(self) -> None:
        """Commit the drafts whose time has come, soonest first; the tail does so each second, and in time.

        Another node may do the same at the same time: which of them a draft becomes a revision of is decided in
        the transaction that writes it, and there is one only.

        Raises:
            RheostatError: The store is away; what is due stays due.
        """
        if self._service.draining:
            return
        now, monotonic = self._service.clock(), self._service.monotonic()
        known = self._soonest is not None and self._soonest <= now
        if not known and self._read_again_at is not None and monotonic < self._read_again_at:
            return
        self._read_again_at = monotonic + _READ_SECONDS
        self._soonest = None
        ahead = now + datetime.timedelta(seconds=_READ_SECONDS)
        due = self._due(ahead)
        self._tries = {draft.id: self._tries[draft.id] for _, draft in due if draft.id in self._tries}
        for at, draft in due:
            if at > now:
                self._soonest = at
                break
            if not self._commit_scheduled(draft):
                # Those that come later wait as well: their order is kept.
                return
        if self._clean_at is None or monotonic >= self._clean_at:
            more = self._clean(now)
            self._clean_at = monotonic + (_READ_SECONDS if more else _CLEAN_SECONDS)

    def _due(self, ahead: datetime.datetime) -> Sequence[tuple[datetime.datetime, Draft]]:
        """Return drafts that are due by *ahead*, soonest first, and of those due at once the oldest first."""
        limit = _BATCH
        while True:
            records = self._service.store.due_records(DRAFT_KIND, ahead, limit)
            if len(records) < limit:
                break
            # There may be more that are due with the last one, and are older.
            complete = [record for record in records if record.due != records[-1].due]
            if complete:
                records = complete
                break
            limit *= 2
        # One that is passed over is of a newer version, and a node of that version will commit it.
        due = [(record.due, _readable(record)) for record in records]
        found = [(at, draft) for at, draft in due if at is not None and draft is not None]
        return sorted(found, key=lambda entry: (entry[0], entry[1].created_at))

    def _clean(self, now: datetime.datetime) -> bool:
        """Remove what is not kept any more; return whether there may be more of it."""
        store = self._service.store
        store.delete_due_records(_REQUEST_KIND, now)
        closed = store.due_records(_CLOSED_KIND, now, _BATCH)
        for record in closed:
            try:
                draft = self._find(*record.key.split("/"))
            except StoreError:
                # Nodes of the version that wrote it remove it.
                store.put_record(replace(record, due=now + _CLOSED_KEPT), expected_version=record.version)
                continue
            if draft is not None and draft.state.is_closed:
                store.delete_record(DRAFT_KIND, record.key, expected_version=draft.version)
            store.delete_record(_CLOSED_KIND, record.key, expected_version=record.version)
        return self._contents.clean(now, _BATCH, self._find) or len(closed) == _BATCH

    def _commit_scheduled(self, draft: Draft) -> bool:
        """Commit a draft whose time has come, or let it fail; return False when later ones have to wait for it."""
        try:
            principal = self._publisher(self._service.head.state, draft)
            self._commit(Writer(principal), draft, scheduled=True)
        except _NotDueError:
            return True
        except UnavailableError as exc:
            log.warning("cannot commit the draft %s at its time: %s; trying again", draft.id, exc)
            return False
        except StoreError as exc:
            tries = self._tries[draft.id] = self._tries.get(draft.id, 0) + 1
            if tries < _TRIES:
                log.warning("cannot commit the draft %s at its time: %s; trying again", draft.id, exc)
            else:
                log.warning("the draft %s could not be committed at its time: %s", draft.id, exc)
                self._fail(draft, exc.message)
        except RheostatError as exc:
            log.warning("the draft %s could not be committed at its time: %s", draft.id, exc)
            self._fail(draft, exc.message)
        except Exception:
            log.exception("the draft %s could not be committed at its time", draft.id)
            self._fail(draft, "something unexpected went wrong; the server's log has the cause")
        return True

    def _fail(self, draft: Draft, failure: str) -> None:
        failed = replace(draft, state=DraftState.FAILED, scheduled_at=None, failure=failure)
        # Whoever has changed it meanwhile is right.
        self._service.store.put_record(_record(failed), expected_version=draft.version)

    def _publisher(self, state: State, draft: Draft) -> Principal:
        """Return who scheduled the draft.

        Raises:
            PermissionDeniedError: The key is not in force any more, or may not write any more.
        """
        principal = self._standing(state, draft.publisher, "scheduled")
        principal.require(Permission.EDIT)
        return principal

    def _standing(self, state: State, selector: str, what_it_did: str) -> Principal:
        """Return the caller behind a selector, as the key is now, or one that succeeds it.

        Raises:
            PermissionDeniedError: The key is not in force any more.
        """
        if not selector:
            return OPEN
        key = standing_key(state, selector, self._service.clock())
        if key is None:
            raise PermissionDeniedError(
                f"the key {selector}, which {what_it_did} it, is not in force any more", reason="KEY_ENDED"
            )
        return Principal(key)

    # Committing.

    def _commit(
        self, writer: Writer, draft: Draft, *, version: int = 0, scheduled: bool = False
    ) -> Published:
        """Commit a draft in one transaction with its record, so that it becomes one revision at most."""
        closing = self._closing(draft)
        settling = _Settling(self._service, draft, writer, version, closing, scheduled=scheduled)

        def make(state: State, revision: int) -> Plan:
            current = settling.draft
            principal = self._publisher(state, current) if scheduled else writer.principal
            made = self._plan(state, revision, current, principal)
            self._check_approved(state, current, made, principal)
            settling.approved_by = counting_approvals(
                state,
                current.project,
                touched(made),
                current.approvals,
                current.actor,
                self._service.clock(),
            )
            return self._service.fleet.gated(made, force=current.force)

        try:
            outcome = self._service.write(writer, make, companion=settling)
        except _CommittedError as exc:
            return self._committed(exc.draft)
        if outcome.change_set.revision:
            return Published(self._get(draft.project, draft.id), outcome)
        # Nothing is left to change. There is no transaction then that its record could be part of.
        current = settling.draft
        idle = settling.settled(outcome.revision)
        self._service.store.put_record(self._closing(idle))
        stored = self._service.store.put_record(_record(idle), expected_version=current.version)
        if stored is None:
            raise _changed(self._get(draft.project, draft.id), current.version)
        self._contents.drop(current.project, current.id, current.content)
        return Published(replace(idle, version=stored.version), outcome)

    def _committed(self, draft: Draft) -> Published:
        """Return what a committed draft has become."""
        found = self._service.store.change_set(draft.revision)
        identity = self._service.head.identity
        if found is None or found.draft != draft.id:
            # Pruned; or it had changed nothing.
            found = ChangeSet(draft.project, (), generation=identity.generation)
        return Published(draft, Outcome(found, draft.revision, found.generation, replayed=True))

    # Planning.

    def _planned(self, head: Head, draft: Draft, principal: Principal) -> Plan:
        """Plan a draft on *head*; as `_plan`, and refuse what changes nothing or breaks clients."""
        made = self._plan(head.state, head.revision + 1, draft, principal)
        if not made.changes:
            raise FailedPreconditionError("the mutations change nothing", reason="NOTHING_TO_CHANGE")
        return self._service.fleet.gated(made, force=draft.force)

    def _plan(self, state: State, revision: int, draft: Draft, principal: Principal) -> Plan:
        made = self._service.planned(
            state,
            revision,
            principal,
            draft.project,
            draft.environment,
            draft.mutations,
            expected_revision=draft.base_revision,
        )
        check_reach(made, principal)
        if draft.actor == principal.actor:
            check_governance(made, principal)
        elif any(change.kind == "environment" for change in made.changes):
            check_governance(made, self._standing(state, draft.actor, "wrote"))
        return made

    def _tried(self, head: Head, draft: Draft, principal: Principal) -> tuple[Plan | None, str]:
        """Return the plan of a draft, or why there is none."""
        try:
            return self._planned(head, draft, principal), ""
        except (UnavailableError, StoreError):
            raise
        except RheostatError as exc:
            return None, exc.message

    @staticmethod
    def _with_reach(draft: Draft, made: Plan) -> Draft:
        environments = touched(made)
        # Also those in which nothing changes: the mutations are shown too.
        about = {
            mutation.slug
            if isinstance(mutation, PutEnvironment)
            # Those of project-wide things have no environment.
            else getattr(mutation, "environment", "") or draft.environment
            for mutation in draft.mutations
        }
        others = named(made).union(about).difference(environments, [""])
        return replace(draft, environments=environments, named=tuple(sorted(others)))

    # Approvals.

    def _missing(self, draft: Draft, principal: Principal) -> tuple[MissingApproval, ...]:
        if draft.state.is_closed or principal.key is None:
            return ()
        return missing_approvals(
            self._service.head.state,
            draft.project,
            draft.environments,
            draft.approvals,
            draft.actor,
            self._service.clock(),
        )

    def _check_approved(self, state: State, draft: Draft, made: Plan, principal: Principal) -> None:
        if principal.key is None:
            return
        missing = missing_approvals(
            state, draft.project, touched(made), draft.approvals, draft.actor, self._service.clock()
        )
        if missing:
            raise approval_required(missing, f"approve it with: rheostat drafts approve {draft.id}")

    @staticmethod
    def _check_own(state: State, draft: Draft, principal: Principal) -> None:
        entries = state.projects[draft.project].environments
        protected = [
            entries[slug].environment
            for slug in draft.environments
            if slug in entries and entries[slug].environment.protected and principal.sees(draft.project, slug)
        ]
        own = principal.key is not None and principal.lineage == lineage_of(state, draft.actor)
        if not own or not protected:
            return
        if not any(environment.self_approval for environment in protected):
            slugs = ", ".join(repr(environment.slug) for environment in protected)
            raise FailedPreconditionError(
                f"the key that wrote a draft, and those that succeed it, may not approve it in {slugs}: somebody "
                "else has to",
                reason="OWN_DRAFT",
            )

    # Looking.

    def _view(self, draft: Draft, principal: Principal) -> DraftView:
        if draft.state is DraftState.COMMITTED:
            return _part(
                DraftView(draft, problem=f"it was committed as revision {draft.revision}"), principal
            )
        if draft.state is DraftState.CANCELLED:
            return _part(DraftView(draft, problem="it was cancelled"), principal)
        planner = principal if _sees(principal, draft) else OPEN
        made, problem = self._tried(self._service.catch_up(), draft, planner)
        if made is None:
            view = DraftView(draft, self._missing(draft, principal), problem=problem)
        else:
            view = self._of_plan(self._with_reach(draft, made), made, principal)
        return view if planner is principal else _part(view, principal)

    def _of_plan(self, draft: Draft, made: Plan, principal: Principal) -> DraftView:
        return DraftView(draft, self._missing(draft, principal), made.changes, made.warnings)

    def _find(self, project: str, draft_id: str) -> Draft | None:
        record = self._service.store.record(DRAFT_KIND, f"{project}/{draft_id}")
        return None if record is None else decode_draft(record.body, record.version)

    def _get(self, project: str, draft_id: str) -> Draft:
        found = self._find(project, draft_id)
        if found is None:
            _not_found(project, draft_id)
        return found

    def _filled(self, draft: Draft) -> Draft:
        """Return a draft with its mutations, as it is by now."""
        for _ in range(_ATTEMPTS):
            if draft.state.is_closed:
                return draft
            mutations = self._contents.read(self._service.store, draft)
            if mutations is not None:
                return replace(draft, mutations=mutations)
            draft = self._get(draft.project, draft.id)
        raise _lost(draft)

    def _visible(
        self,
        project: str,
        draft_id: str,
        principal: Principal,
        *,
        allowed: Callable[[Principal, Draft], bool] | None = None,
        filled: bool = False,
    ) -> Draft:
        """Return a draft that the caller sees, or may deal with as *allowed* has it, with mutations if *filled*."""
        draft = self._get(project, draft_id)
        if filled:
            draft = self._filled(draft)
        if not (allowed or _sees)(principal, draft):
            _not_found(project, draft_id)
        return draft

    def _reviews(self, principal: Principal, draft: Draft) -> bool:
        """Tell whether the caller sees the draft, or may approve for a protected environment that it touches."""
        if _sees(principal, draft):
            return True
        if Permission.APPROVE not in principal.permissions or not principal.sees(draft.project):
            return False
        entries = self._service.head.state.projects[draft.project].environments
        return any(
            slug in entries and entries[slug].environment.protected and principal.sees(draft.project, slug)
            for slug in draft.environments
        )

    def _closing(self, draft: Draft) -> Record:
        """Return the record that has a draft removed when it was closed long ago."""
        due = self._service.clock() + _CLOSED_KEPT
        return Record(_CLOSED_KIND, _key(draft.project, draft.id), "{}", due)

    def _change(
        self,
        project: str,
        draft_id: str,
        principal: Principal,
        version: int,
        change: Callable[[Draft], tuple[Draft, T]],
        *,
        allowed: Callable[[Principal, Draft], bool] | None = None,
        filled: bool = True,
    ) -> tuple[Draft, T]:
        """Write a draft as *change* makes it of what it is, unless somebody else has written it meanwhile.

        Whoever named no version means whatever there is, and tries again.
        """
        self._check_draining()
        for _ in range(_ATTEMPTS):
            draft = self._visible(project, draft_id, principal, allowed=allowed, filled=filled)
            _check_version(draft, version)
            _check_open(draft)
            changed, more = change(draft)
            if changed.state.is_closed:
                self._service.store.put_record(self._closing(changed))
            elif changed.mutations is not draft.mutations:
                written = self._contents.write(project, draft_id, changed.mutations)
                changed = replace(changed, content=written)
            stored = self._service.store.put_record(_record(changed), expected_version=draft.version)
            if draft.content != changed.content:
                unused = changed.content if stored is None else draft.content
                self._contents.drop(project, draft_id, unused)
            if stored is not None:
                return replace(changed, version=stored.version), more
        raise _changed(self._get(project, draft_id), draft.version)

    def _check_draining(self) -> None:
        if self._service.draining:
            raise UnavailableError("the node is draining", reason="DRAINING", retry_after=1.0)

    # Repeated requests.

    def _find_request(self, writer: Writer, project: str) -> str | None:
        """Return the id of the draft that a request made before, or began to make; None when there is none."""
        if not writer.request_id:
            return None
        record = self._service.store.record(_REQUEST_KIND, _request_key(writer, project))
        if record is None or (record.due is not None and record.due <= self._service.clock()):
            return None
        first = json.loads(record.body)
        if first["payload"] != writer.payload.hex():
            raise AlreadyExistsError(
                f"the request id {writer.request_id!r} was used for another draft; use a new one",
                reason="REQUEST_ID_REUSED",
                metadata={"draft": first["draft"]},
            )
        return str(first["draft"])

    def _take_request(self, writer: Writer, project: str, draft_id: str) -> str:
        """Note under its request id which draft a request makes; return the id that was noted first."""
        store, now = self._service.store, self._service.clock()
        key = _request_key(writer, project)
        body = json.dumps({"draft": draft_id, "payload": writer.payload.hex()})
        record = Record(_REQUEST_KIND, key, body, now + _REQUEST_KEPT)
        for _ in range(_ATTEMPTS):
            old = store.record(_REQUEST_KIND, key)
            if old is not None and (first := self._find_request(writer, project)) is not None:
                return first
            if store.put_record(record, expected_version=0 if old is None else old.version) is not None:
                return draft_id
        raise UnavailableError("the request id keeps being used", retry_after=1.0)

    def _new_id(self, now: datetime.datetime) -> str:
        number = (_ID_MILLISECONDS - 1 - int(now.timestamp() * 1000)) % _ID_MILLISECONDS
        number = number << 20 | int.from_bytes(self._service.randomness(3), "big") >> 4
        digits = []
        for _ in range(13):
            number, digit = divmod(number, len(_ALPHABET))
            digits.append(_ALPHABET[digit])
        return "".join(reversed(digits))


class _Settling:
    """Reads the draft in the transaction that commits it, and writes there what has become of it."""

    def __init__(
        self,
        service: Service,
        draft: Draft,
        writer: Writer,
        version: int,
        closing: Record,
        *,
        scheduled: bool,
    ) -> None:
        self.draft = draft
        self.approved_by: tuple[str, ...] = ()
        self._service = service
        self._writer = writer
        self._version = version
        self._closing = closing
        self._scheduled = scheduled

    def begin(self, transaction: Transaction) -> None:
        record = transaction.record(DRAFT_KIND, _key(self.draft.project, self.draft.id))
        if record is None:
            _not_found(self.draft.project, self.draft.id)
        draft = self.draft = decode_draft(record.body, record.version)
        if self._scheduled:
            due = draft.scheduled_at
            if draft.state is not DraftState.SCHEDULED or due is None or due > self._service.clock():
                raise _NotDueError
        else:
            if draft.state is DraftState.COMMITTED:
                raise _CommittedError(draft)
            if not _sees(self._writer.principal, draft):
                _not_found(draft.project, draft.id)
            _check_version(draft, self._version)
            _check_open(draft)
        mutations = DraftContents.read(transaction, draft)
        if mutations is None:
            raise _lost(draft)
        self.draft = replace(draft, mutations=mutations)

    def complete(self, transaction: Transaction, change_set: ChangeSet) -> ChangeSet:
        transaction.put_record(_record(self.settled(transaction.revision + 1)))
        transaction.put_record(self._closing)
        DraftContents.drop_in(transaction, self.draft)
        return replace(
            change_set,
            author=self.draft.author,
            message=self.draft.message,
            draft=self.draft.id,
            approved_by=self.approved_by,
        )

    def settled(self, revision: int) -> Draft:
        return replace(
            self.draft,
            state=DraftState.COMMITTED,
            mutations=(),
            content="",
            revision=revision,
            publisher=self._writer.principal.actor,
            scheduled_at=None,
            failure="",
        )


def _key(project: str, draft_id: str) -> str:
    return f"{project}/{draft_id}"


def _record(draft: Draft) -> Record:
    return Record(DRAFT_KIND, _key(draft.project, draft.id), encode_draft(draft), draft.scheduled_at)


def _readable(record: Record) -> Draft | None:
    """Return the draft of a record; None when a newer version wrote it."""
    try:
        return decode_draft(record.body, record.version)
    except StoreError as exc:
        log.warning("the draft %s is passed over: %s", record.key, exc)
        return None


def _request_key(writer: Writer, project: str) -> str:
    return f"{project}/{writer.principal.actor}/{hashlib.sha256(writer.request_id.encode()).hexdigest()}"


def _sees(principal: Principal, draft: Draft) -> bool:
    return principal.sees(draft.project) and all(
        principal.sees(draft.project, slug) for slug in (*draft.environments, *draft.named)
    )


def _part(view: DraftView, principal: Principal) -> DraftView:
    """Leave out of a view what is about environments that the caller does not see.

    What may name such environments, or what is in them, is left out or told in general terms; the message of the
    draft is not.
    """
    draft = view.draft
    if _sees(principal, draft):
        return view

    def seen(slugs: Iterable[str]) -> tuple[str, ...]:
        return tuple(slug for slug in slugs if principal.sees(draft.project, slug))

    places = [_place(mutation, draft.environment) for mutation in draft.mutations]
    kept = [index for index, place in enumerate(places) if principal.sees(draft.project, place)]
    closed = draft.state.is_closed
    warnings = [
        replace(warning, mutation=kept.index(warning.mutation))
        for warning in view.warnings
        # One about something project-wide may tell of any environment.
        if warning.mutation in kept and places[warning.mutation]
    ]
    if not closed:
        text = (
            "the draft also changes environments that this key does not see; what it does there is not shown"
        )
        warnings.append(PlanWarning("PARTLY_SHOWN", text))
    return DraftView(
        replace(
            draft,
            environment="".join(seen([draft.environment])),
            mutations=tuple(draft.mutations[index] for index in kept),
            environments=seen(draft.environments),
            named=seen(draft.named),
            approvals=tuple(
                replace(approval, environments=seen(approval.environments))
                for approval in draft.approvals
                if seen(approval.environments)
            ),
            failure=draft.failure and f"it could not be committed at its time; {_HIDDEN}",
        ),
        tuple(entry for entry in view.missing if seen([entry.environment])),
        tuple(
            change
            for change in view.changes
            if seen([change.key if change.kind == "environment" else change.environment])
        ),
        tuple(warnings),
        view.problem if closed else view.problem and f"it could not be committed now; {_HIDDEN}",
    )


def _place(mutation: Mutation, environment: str) -> str:
    """Return the environment that a mutation is in, or about; empty for what is project-wide."""
    match mutation:
        case PutEnvironment(slug):
            return slug
        case PutProject() | PutSegment() | DeleteSegment() | SetFeatures():
            return ""
        case _:
            return mutation.environment or environment


def _lost(draft: Draft) -> StoreError:
    return StoreError(f"the store has lost the mutations of the draft {draft.id!r}")


def _not_found(project: str, draft_id: str) -> NoReturn:
    raise NotFoundError(
        f"the project {project!r} has no draft {draft_id!r}",
        reason="DRAFT_NOT_FOUND",
        metadata={"draft": draft_id},
    )


def _check_version(draft: Draft, version: int) -> None:
    if version not in (0, draft.version):
        raise _changed(draft, version)


def _check_open(draft: Draft) -> None:
    if draft.state.is_closed:
        what = "cancelled"
        if draft.state is DraftState.COMMITTED:
            what = f"committed, as revision {draft.revision}"
        raise FailedPreconditionError(f"the draft {draft.id!r} was {what}", reason="DRAFT_CLOSED")


def _changed(draft: Draft, expected: int) -> RevisionConflictError:
    error = RevisionConflictError(expected, [Conflict("draft", draft.id, "", draft.version)])
    error.message = f"the draft {draft.id!r} has changed: it has version {draft.version}, not {expected}"
    error.reason = "DRAFT_CHANGED"
    return error
