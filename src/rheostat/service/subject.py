"""Subjects and events: writing them, telling watchers of it, and joining them to evaluations."""

from __future__ import annotations

import datetime
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rheostat.errors import (
    FailedPreconditionError,
    RevisionCompactedError,
    RheostatError,
    TypeMismatchError,
)
from rheostat.evaluation import Context, Evaluation
from rheostat.evaluation.join import OVERRIDE, Join, implied, join, overridden
from rheostat.evaluation.result import ErrorCode, Reason
from rheostat.model.key import KeyKind
from rheostat.model.rule import Distribution
from rheostat.model.subject import (
    KEY_NAME,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    RESERVED_KINDS,
    SUBJECT_KIND,
    Exposure,
    FeedEntry,
    KeyConflict,
    Refusal,
    Subject,
    SubjectEvent,
    SubjectOverride,
    SubjectPatch,
    SubjectReference,
    Track,
    fold,
)
from rheostat.model.type import normalise
from rheostat.model.value import ABSENT
from rheostat.service.access import Permission, Principal
from rheostat.service.credential import check_credentials
from rheostat.service.notice import Address, Notices
from rheostat.store.base import Record
from rheostat.store.subject_base import SubjectName

if TYPE_CHECKING:
    from rheostat.model.snapshot import Snapshot
    from rheostat.service.publish import View
    from rheostat.service.service import Service

__all__ = ["MAX_ASKED_KINDS", "MAX_REFERENCES", "NOBODY", "PURGE_SECONDS", "Joined", "Subjects", "refusal_of"]

log = logging.getLogger("rheostat.service")

PURGE_SECONDS: Final = 600.0
"""How often what is kept no longer is removed."""

_PURGE_KIND: Final = "purge"
_PURGE_KEY: Final = "subjects"

_PURGED: Final = datetime.timedelta(seconds=0.9 * PURGE_SECONDS)
"""For how long no other node removes anything after one has begun to: less than it takes until that one's next turn."""

_CLOSING_SECONDS: Final = 2.0

MAX_REFERENCES: Final = 20
"""Subjects of one evaluation."""

MAX_ASKED_KINDS: Final = 50
"""About so many kinds that a node does not know of yet one context has the store asked, at most."""

_CACHED: Final = 10_000
"""Subjects that a node keeps copies of, those that were asked for last."""

_CACHED_CHARACTERS: Final = 64 * 1024 * 1024
"""As Python writes them; about what they take."""

_REFERENCES: Final = 8
"""Ways in which a cached subject was named that are remembered."""

_REMEMBERED: Final = 10_000
"""Changed subjects that are remembered, lest one that was read before its change is cached after it."""

_ABSENT_SECONDS: Final = 5.0
"""For how long a node remembers of a kind that nobody is stored, unless it hears of a change sooner."""

_ABSENT_KINDS: Final = 1_000
"""Contexts name what they like."""

_DELETE_ATTEMPTS: Final = 5
"""How often a subject that changes while it is to be removed is looked at anew; then it stays."""

_MAX_UNTRUSTED_COUNT: Final = 10_000
"""Exposures that one event of a public key may be about. Whole counts are 64 bits, which one event could fill."""

_FEED_PAGE: Final = 1_000

_FEED_REACH: Final = 10_000
"""A node that is more entries of the feed behind than that drops all its copies instead."""

_Named: TypeAlias = tuple[str, str, str, frozenset[tuple[str, str]]]
"""Project, environment, kind and folded keys."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Joined:
    """What subjects are to an evaluation.

    Attributes:
        join: What they add.
        note: Which of them are not known, for people; empty when all are.
        conflict: Why nothing can be decided: keys that are said to be of one subject belong to several. Empty when
            that is not so.
    """

    join: Join
    note: str = ""
    conflict: str = ""

    def context(self, *layers: Mapping[str, object]) -> Context:
        """Return the context of an evaluation.

        Args:
            layers: The call's attributes, which are stronger than those of subjects, then the weaker ones.
        """
        first, *rest = layers or ({},)
        return Context(first, self.join.layer, *rest)

    def evaluate(self, view: View, name: str, context: Context) -> Evaluation:
        """Return the value of a setting for a *context* that was made by `context`. Never raises."""
        if self.conflict:
            return Evaluation(
                value=ABSENT,
                reason=Reason.ERROR,
                revision=view.snapshot.revision,
                error_code=ErrorCode.INVALID_CONTEXT,
                error_message=f"key conflict: {self.conflict}",
            )
        found = overridden(view.snapshot, name, self.join.overrides)
        if found is None:
            found = view.compiled.evaluate(name, context)
        return replace(found, note=self.note) if self.note else found


NOBODY: Final = Joined(Join({}, {}, float("inf")))
"""Of an evaluation that names no subject."""


class Subjects:
    """The subjects and events of all environments, as one node sees them. Safe from any thread.

    Attributes:
        notices: What watchers are told.
        behind: How many entries of the feed the node had still to read when it last looked.
    """

    def __init__(self, service: Service) -> None:
        """Prepare it; `begin` reads where the feed is."""
        self._service = service
        self.notices = Notices(service.monotonic, service.wake_told)
        self.behind = 0
        self._copies = _Copies()
        self._draw = _Draw(service.clock, service.randomness)
        # Held by who reads the feed.
        self._following = threading.Lock()
        # Numbers those that want it to be read, and up to which of them that was done.
        self._asked = itertools.count(1)
        self._read = 0
        self._number: int | None = None
        self._kinds: set[tuple[str, str, str]] = set()
        # Those of which nobody is stored, and until when that is taken for true; another one after each change.
        self._absent: dict[tuple[str, str, str], float] = {}
        self._purging: threading.Thread | None = None
        self._closed = False

    # Following.

    def begin(self) -> None:
        """Read where the feed is: what comes later is told."""
        with self._following:
            if self._number is None:
                self._number = self._service.store.subject_feed_number()

    def follow(self) -> None:
        """Read what has changed, here and elsewhere; drop copies of it, and tell watchers."""
        store = self._service.store
        turn = next(self._asked)
        with self._following:
            if self._read >= turn:
                # Whoever went before has begun to read after this was called: many write at once.
                return
            newest = next(self._asked)
            number = store.subject_feed_number()
            if self._number is None:
                self._number = number
            self.behind = number - self._number
            if self.behind < 0 or self.behind > _FEED_REACH:
                # A store that was restored, or a node that stood still.
                self._number = number
                self.forget()
            while self._number < number:
                try:
                    entries = store.subject_feed(self._number, _FEED_PAGE)
                except RevisionCompactedError:
                    entries = ()
                if not entries:
                    self._number = number
                    self.forget()
                else:
                    self._number = entries[-1].number
                    self._take(entries)
            self.behind = 0
            self._read = newest

    def forget(self) -> None:
        """Drop all copies, and tell watchers to do so: history is another one."""
        self._copies.drop_all()
        self._kinds = set()
        self._absent = {}
        self.notices.note_all()

    def _take(self, entries: Sequence[FeedEntry]) -> None:
        self._absent = {}
        changed: dict[Address, set[bytes] | None] = {}
        for entry in entries:
            address = (entry.project, entry.environment)
            if not entry.id:
                changed[address] = None
                self._copies.drop_environment(address)
            elif (ids := changed.setdefault(address, set())) is not None:
                ids.add(entry.id)
        for address, ids in changed.items():
            self._copies.drop(address, ids or ())
            self.notices.note(address, ids or ())

    def close(self) -> None:
        """End the thread that tells watchers, and wait a moment for one that removes things. Idempotent."""
        self._closed = True
        self.notices.close()
        if self._purging is not None:
            self._purging.join(_CLOSING_SECONDS)

    def purge(self) -> int:
        """Remove what is kept no longer, now; return how much that was.

        Raises:
            UnavailableError: The store is away.
        """
        return self._service.store.purge_subject_records(self._service.clock())

    def purge_beside(self) -> None:
        """Remove what is kept no longer on a thread of its own, unless another node has just done so.

        Does nothing while such a thread of this node runs. Only the tail calls it.
        """
        if self._closed or (self._purging is not None and self._purging.is_alive()):
            return
        # What has gathered may take long, and whoever follows the store must not wait for it.
        thread = threading.Thread(target=self._purge_in_turn, name="rheostat-purge", daemon=True)
        thread.start()
        # Only now: what has not been started cannot be waited for by a thread that closes meanwhile.
        self._purging = thread

    def _purge_in_turn(self) -> None:
        try:
            if self._takes_turn():
                self.purge()
        except Exception as exc:
            if self._closed:
                return
            self._service.metrics.count("store errors")
            # What is left is removed in another turn.
            message = "cannot remove what is kept no longer of subjects and events; trying again later"
            if isinstance(exc, RheostatError):
                log.warning("%s: %s", message, exc)
            else:
                log.exception(message)

    def _takes_turn(self) -> bool:
        """Tell whether no other node has begun to remove things lately; from now on this one has."""
        store, now = self._service.store, self._service.clock()
        last = store.record(_PURGE_KIND, _PURGE_KEY)
        # One that is further ahead was written by a clock that was set back since.
        if last is not None and last.due is not None and now < last.due <= now + _PURGED:
            return False
        turn = Record(_PURGE_KIND, _PURGE_KEY, "{}", now + _PURGED)
        return store.put_record(turn, expected_version=0 if last is None else last.version) is not None

    # Writing.

    def upsert(
        self,
        principal: Principal,
        project: str,
        environment: str,
        patches: Sequence[SubjectPatch | Refusal],
    ) -> Sequence[Subject | Refusal]:
        """Create or change subjects; return what became of each.

        Args:
            principal: Who.
            project: Slug.
            environment: Slug.
            patches: Entries that were refused already stay so.

        Raises:
            UnavailableError: The store is away.
        """
        service = self._service
        service.check_serving()
        snapshot = service.view(project, environment).snapshot
        may_override = self._may_override(principal, project, environment)
        checked = [_tried(_checked_patch, patch, snapshot, may_override=may_override) for patch in patches]
        result = _in_places(
            checked,
            lambda taken: service.store.upsert_subjects(
                project,
                environment,
                taken,
                actor=principal.actor,
                now=service.clock(),
                limits=service.limits.subjects,
                draw_id=self._draw,
            ),
        )
        written = sum(not isinstance(each, Refusal) for each in result)
        service.metrics.count("subjects", "written", times=written)
        service.metrics.count("subjects", "rejected", times=len(result) - written)
        self._follow_own()
        return result

    def record(
        self,
        principal: Principal,
        project: str,
        environment: str,
        events: Sequence[SubjectEvent | Refusal],
    ) -> Sequence[Refusal | None]:
        """Count events; return for each None, or why it is not counted. See `upsert`."""
        service = self._service
        service.check_serving()
        trusted = Permission.EVENTS in principal.permissions
        snapshot = service.view(project, environment).snapshot
        checked = [_tried(_checked_event, event, snapshot, trusted=trusted) for event in events]
        result = _in_places(
            checked,
            lambda taken: service.store.record_events(
                project,
                environment,
                taken,
                actor=principal.actor,
                now=service.clock(),
                limits=service.limits.subjects,
                draw_id=self._draw,
            ),
        )
        refused = sum(each is not None for each in result)
        service.metrics.count("events", "recorded", times=len(result) - refused)
        service.metrics.count("events", "rejected", times=refused)
        self._follow_own()
        return result

    def delete(
        self,
        principal: Principal,
        project: str,
        environment: str,
        names: Sequence[tuple[SubjectName, int | None]],
    ) -> Sequence[Subject | KeyConflict | bool]:
        """Remove subjects; see `SubjectStore.delete_subjects`.

        Raises:
            FailedPreconditionError: The environment is protected, and a person who may write no overrides in it wants
                to remove a subject that has some. Only subjects that changed at the same time may be gone then.
            UnavailableError: The store is away.
        """
        service = self._service
        service.check_serving()
        people = principal.key is not None and principal.key.kind is KeyKind.USER
        if people and not self._may_override(principal, project, environment):
            result = self._delete_without_overrides(principal, project, environment, names)
        else:
            # A program has to be able to remove a person who asks for that, whatever is stored of them.
            result = service.store.delete_subjects(
                project, environment, names, actor=principal.actor, now=service.clock()
            )
        service.metrics.count("subjects", "deleted", times=sum(isinstance(each, Subject) for each in result))
        self._follow_own()
        return result

    def _delete_without_overrides(
        self,
        principal: Principal,
        project: str,
        environment: str,
        names: Sequence[tuple[SubjectName, int | None]],
    ) -> Sequence[Subject | KeyConflict | bool]:
        store, now = self._service.store, self._service.clock()
        result: list[Subject | KeyConflict | bool] = [True] * len(names)
        left = list(range(len(names)))
        for _ in range(_DELETE_ATTEMPTS):
            found = store.get_subjects(project, environment, [names[index][0] for index in left], now=now)
            looked: dict[int, tuple[bytes, int]] = {}
            for index, each in zip(left, found, strict=True):
                version = names[index][1]
                if not isinstance(each, Subject):
                    result[index] = False if each is None else each
                elif version is None or version == each.version:
                    if any(has.expires_at is None or has.expires_at > now for has in each.overrides):
                        raise FailedPreconditionError(
                            f"lookups[{index}]: the environment is protected: a subject with overrides in it is an "
                            "approver's to delete",
                            reason="APPROVAL_REQUIRED",
                        )
                    looked[index] = (each.id, each.version)
            # As they were looked at, so that none is removed that got an override meanwhile.
            gone = store.delete_subjects(
                project, environment, list(looked.values()), actor=principal.actor, now=now
            )
            for index, removed in zip(looked, gone, strict=True):
                result[index] = removed
            left = [index for index in looked if result[index] is True and names[index][1] is None]
            if not left:
                break
        return result

    def _may_override(self, principal: Principal, project: str, environment: str) -> bool:
        found = self._service.head.state.projects[project].environments[environment]
        return principal.may_override(found.environment)

    def _follow_own(self) -> None:
        """Whoever has written here reads what is written, here."""
        try:
            self.follow()
        except RheostatError:
            # The write is durable, and the tail goes on to try. Until then copies may be old.
            self.forget()

    # Reading.

    def get(
        self, project: str, environment: str, names: Sequence[SubjectName]
    ) -> Sequence[Subject | KeyConflict | None]:
        """Return subjects as the store has them."""
        return self._service.store.get_subjects(project, environment, names, now=self._service.clock())

    def joined(
        self,
        project: str,
        environment: str,
        references: Sequence[SubjectReference],
        now: datetime.datetime | None = None,
    ) -> Joined:
        """Join the subjects that an evaluation names, and those that these are the only members of.

        Args:
            project: Slug.
            environment: Slug.
            references: Of two of a kind, the first one that is known counts.
            now: Aware; defaults to the node's clock.

        Raises:
            UnavailableError: The store is away, and not all of them are at hand.
        """
        if not references:
            return NOBODY
        if now is None:
            now = self._service.clock()
        address = (project, environment)
        found = self._held(address, references, now)
        subjects: list[Subject] = []
        unknown: list[str] = []
        for reference, each in zip(references, found, strict=True):
            match each:
                case KeyConflict(message=message):
                    return replace(NOBODY, conflict=message)
                case None:
                    unknown.append(f"{reference.kind} ({', '.join(sorted(reference.keys))})")
                case _:
                    subjects.append(each)
        if brought := implied(subjects):
            subjects += [each for each in self._held(address, brought, now) if isinstance(each, Subject)]
        note = f"not stored, and joined without traits: {', '.join(unknown)}" if unknown else ""
        return Joined(join(subjects, now), note)

    def _held(
        self, address: Address, names: Sequence[SubjectName], now: datetime.datetime
    ) -> list[Subject | KeyConflict | None]:
        """Return subjects, from the copies where there are any."""
        copies = self._copies
        found: list[Subject | KeyConflict | None] = [copies.get(address, name) for name in names]
        missing = [index for index, each in enumerate(found) if each is None]
        if missing:
            stamp = copies.stamp
            fetched = self._service.store.get_subjects(*address, [names[index] for index in missing], now=now)
            for index, each in zip(missing, fetched, strict=True):
                found[index] = each
                if isinstance(each, Subject):
                    copies.put(address, names[index], each, stamp)
        return found

    def references_of(self, project: str, environment: str, context: Context) -> tuple[SubjectReference, ...]:
        """Return the subjects that a context names by itself, for protocols that have no other place for them.

        An attribute whose name is a kind of the environment's subjects, and which is a mapping, names one: each text
        in it may be a key. So may a flat attribute such as ``user.id``. What is no key of anybody does not matter.
        Nor do kinds that the node does not know of yet, beyond the first `MAX_ASKED_KINDS`.

        Args:
            project: Slug.
            environment: Slug.
            context: The stronger layer's text is the key where several have one of a name.

        Raises:
            UnavailableError: The store is away.
        """
        found: dict[str, dict[str, str]] = {}
        for layer in context.layers:
            for name, value in layer.items():
                if isinstance(value, Mapping):
                    for inner, text in value.items():
                        _add_key(found, name, inner, text)
                elif isinstance(value, str):
                    kind, _, inner = name.partition(".")
                    _add_key(found, kind, inner, value)
        references = [SubjectReference(kind, keys) for kind, keys in found.items() if keys]
        questions = iter(range(MAX_ASKED_KINDS))
        known = (each for each in references if self._has_kind(project, environment, each.kind, questions))
        return tuple(itertools.islice(known, MAX_REFERENCES))

    def _has_kind(self, project: str, environment: str, kind: str, questions: Iterator[int]) -> bool:
        named = (project, environment, kind)
        if named in self._kinds:
            return True
        service = self._service
        # Taken before the store is asked: what that says may be old once there is another one.
        absent = self._absent
        now = service.monotonic()
        if absent.get(named, now) > now or next(questions, None) is None:
            return False
        if service.store.list_subjects(project, environment, kind=kind, limit=1, now=service.clock()):
            self._kinds.add(named)
            return True
        if len(absent) >= _ABSENT_KINDS:
            absent.clear()
        absent[named] = now + _ABSENT_SECONDS
        return False


def refusal_of(error: RheostatError) -> Refusal:
    """Return why an entry of a batch is not taken, of what was raised about it."""
    return Refusal(error.reason, error.message)


def _add_key(found: dict[str, dict[str, str]], kind: object, name: object, text: object) -> None:
    if not (isinstance(kind, str) and isinstance(name, str) and isinstance(text, str)):
        return
    if kind in RESERVED_KINDS or SUBJECT_KIND.fullmatch(kind) is None or KEY_NAME.fullmatch(name) is None:
        return
    if 1 <= len(text) <= MAX_KEY_CHARACTERS:
        keys = found.setdefault(kind, {})
        if len(keys) < MAX_KEYS:
            keys.setdefault(name, text)


def _tried(
    check: Callable[..., T | Refusal], entry: T | Refusal, *args: object, **options: object
) -> T | Refusal:
    if isinstance(entry, Refusal):
        return entry
    try:
        return check(entry, *args, **options)
    except RheostatError as error:
        return refusal_of(error)


def _in_places(
    entries: Sequence[T | Refusal], write: Callable[[Sequence[T]], Sequence[R | Refusal]]
) -> list[R | Refusal]:
    """Write those entries that were not refused, and return what became of all, each in its place."""
    taken = [entry for entry in entries if not isinstance(entry, Refusal)]
    results = iter(write(taken) if taken else ())
    return [entry if isinstance(entry, Refusal) else next(results) for entry in entries]


def _checked_patch(patch: SubjectPatch, snapshot: Snapshot, *, may_override: bool) -> SubjectPatch | Refusal:
    """Return a patch whose overrides are those of settings that there are, under their names and of their types."""
    for name, text in patch.reference.keys.items():
        check_credentials(text, f"reference.keys.{name}")
    for name, value in patch.traits.items():
        check_credentials(value, f"traits.{name}")
    if not (patch.overrides or patch.remove_overrides):
        return patch
    if not may_override:
        raise FailedPreconditionError(
            "the environment is protected: overrides in it are to be written by approvers, and by programs whose keys "
            "were expressly given the permission to declare",
            reason="APPROVAL_REQUIRED",
        )
    overrides: dict[str, SubjectOverride] = {}
    for index, override in enumerate(patch.overrides):
        check_credentials(override.value, f"overrides[{index}].value")
        setting = snapshot.setting(override.setting)
        if setting is None:
            return Refusal(
                "UNKNOWN_SETTING",
                f"overrides[{index}].setting: the environment has no setting {override.setting[:200]!r}",
            )
        try:
            value = normalise(setting.type, override.value)
        except TypeMismatchError as error:
            raise TypeMismatchError(f"overrides[{index}].value: {error.message}") from None
        overrides[setting.name] = replace(override, setting=setting.name, value=value)
    removed: dict[str, None] = {}
    for name in patch.remove_overrides:
        setting = snapshot.setting(name)
        removed.update(dict.fromkeys((name,) if setting is None else (name, *setting.names)))
    return replace(patch, overrides=tuple(overrides.values()), remove_overrides=tuple(removed))


def _checked_event(event: SubjectEvent, snapshot: Snapshot, *, trusted: bool) -> SubjectEvent | Refusal:
    for index, reference in enumerate(event.subjects):
        for name, text in reference.keys.items():
            check_credentials(text, f"subjects[{index}].keys.{name}")
    match event.what:
        case Track() if not trusted:
            return Refusal("PERMISSION_DENIED", "this key may record exposures, and track nothing")
        case Exposure(value=value) as exposure:
            check_credentials(value, "exposure.value")
            if not trusted:
                told = _plausible(exposure, snapshot)
                if isinstance(told, Refusal):
                    return told
                exposure = told
            # Nobody is counted for an exposure, so that nobody has to be stored for it either.
            return replace(event, subjects=(), what=exposure)
        case _:
            return event


def _plausible(exposure: Exposure, snapshot: Snapshot) -> Exposure | Refusal:
    """Return what is counted of an exposure that anybody may have made up.

    Only what there is, at the revision of the setting and without the value: each other text would be one more row.
    """
    if exposure.count > _MAX_UNTRUSTED_COUNT:
        return Refusal(
            "LIMIT_EXCEEDED",
            f"exposure.count: is more than {_MAX_UNTRUSTED_COUNT} from a key that anybody may have",
        )
    setting = snapshot.setting(exposure.setting)
    if setting is None:
        return Refusal("UNKNOWN_SETTING", f"the environment has no setting {exposure.setting[:200]!r}")
    if exposure.rule_id and all(rule.id != exposure.rule_id for rule in setting.rules):
        return Refusal(
            "RULE_NOT_FOUND", f"the setting {setting.name!r} has no rule {exposure.rule_id[:200]!r}"
        )
    variants = {
        variant.name
        for rule in setting.rules
        if isinstance(rule.outcome, Distribution)
        for variant in rule.outcome.variants
    }
    if exposure.variant and exposure.variant not in {OVERRIDE, *variants}:
        return Refusal(
            "INVALID_ARGUMENT",
            f"exposure.variant: the setting {setting.name!r} has no variant {exposure.variant[:200]!r}",
        )
    return replace(exposure, setting=setting.name, value=ABSENT, revision=setting.revision)


class _Draw:
    """Draws ids of subjects, which rise with the time: 6 bytes of milliseconds, 2 that count, 8 at random."""

    def __init__(self, clock: Callable[[], datetime.datetime], randomness: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._randomness = randomness
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        milliseconds = max(0, int(self._clock().timestamp() * 1000))
        with self._lock:
            # A clock that was set back, or stands still, does not take the order back.
            self._last = max(self._last + 1, milliseconds << 16)
            number = self._last
        return (number % (1 << 64)).to_bytes(8, "big") + self._randomness(8)


class _Copies:
    """Copies of the subjects that were asked for last. Safe from any thread.

    A subject is found by its id, or by keys which are all its own: that another subject gets a key cannot make what is
    held wrong then, without that the subject itself changes. What is not known is not held, for the same reason.

    Attributes:
        stamp: How many changes were seen.
    """

    def __init__(self) -> None:
        self.stamp = 0
        self._lock = threading.Lock()
        self._subjects: OrderedDict[tuple[Address, bytes], Subject] = OrderedDict()
        self._named: dict[_Named, tuple[Address, bytes]] = {}
        self._names: dict[tuple[Address, bytes], list[_Named]] = {}
        self._sizes: dict[tuple[Address, bytes], int] = {}
        self._size = 0
        # At which stamp a subject has changed; and the stamp from before which nothing may be put.
        self._changed: OrderedDict[tuple[Address, bytes], int] = OrderedDict()
        self._since = 0

    def get(self, address: Address, name: SubjectName) -> Subject | None:
        """Return a copy; None when there is none."""
        with self._lock:
            key = (address, name) if isinstance(name, bytes) else self._named.get(_named(address, name))
            subject = None if key is None else self._subjects.get(key)
            if key is not None and subject is not None:
                self._subjects.move_to_end(key)
            return subject

    def put(self, address: Address, name: SubjectName, subject: Subject, stamp: int) -> None:
        """Keep a copy of what was read when the stamp was *stamp*, unless it has changed since."""
        key = (address, subject.id)
        size = len(repr(subject))
        with self._lock:
            if stamp < max(self._since, self._changed.get(key, 0)):
                return
            self._size += size - self._sizes.get(key, 0)
            self._subjects[key] = subject
            self._subjects.move_to_end(key)
            self._sizes[key] = size
            names = self._names.setdefault(key, [])
            if not isinstance(name, bytes) and len(names) < _REFERENCES:
                own = {(each, fold(text)) for each, text in subject.keys.items()}
                named = _named(address, name)
                if named[3] <= own and named not in names:
                    names.append(named)
                    self._named[named] = key
            while len(self._subjects) > _CACHED or self._size > _CACHED_CHARACTERS:
                self._remove(next(iter(self._subjects)))

    def drop(self, address: Address, ids: Sequence[bytes] | set[bytes]) -> None:
        """Let go of subjects that have changed."""
        with self._lock:
            self.stamp += 1
            for id_ in ids:
                key = (address, id_)
                self._remove(key)
                self._changed[key] = self.stamp
                self._changed.move_to_end(key)
            while len(self._changed) > _REMEMBERED:
                self._since = max(self._since, self._changed.popitem(last=False)[1])

    def drop_environment(self, address: Address) -> None:
        """Let go of all subjects of an environment."""
        with self._lock:
            self.stamp += 1
            self._since = self.stamp
            for key in [key for key in self._subjects if key[0] == address]:
                self._remove(key)

    def drop_all(self) -> None:
        """Let go of all."""
        with self._lock:
            self.stamp += 1
            self._since = self.stamp
            for held in (self._subjects, self._named, self._names, self._sizes, self._changed):
                held.clear()
            self._size = 0

    def _remove(self, key: tuple[Address, bytes]) -> None:
        if self._subjects.pop(key, None) is None:
            return
        self._size -= self._sizes.pop(key)
        for named in self._names.pop(key):
            self._named.pop(named, None)


def _named(address: Address, reference: SubjectReference) -> _Named:
    return (
        *address,
        reference.kind,
        frozenset((name, fold(text)) for name, text in reference.keys.items()),
    )
