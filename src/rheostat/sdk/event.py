"""What a program tells: events, patches of subjects and exposures, buffered here and sent in batches.

Nothing here waits, does I/O or knows of threads: the drivers run `EventBuffer.sending`, and `EventBuffer.due` says when.
What is buffered is sent in order, so that a patch comes before the events that follow it.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rheo.v1 import event_service_pb2
from rheo.v1.client_pb2 import ClientIdentity
from rheostat.errors import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    RheostatError,
    UnavailableError,
)
from rheostat.evaluation.result import Evaluation
from rheostat.model.subject import (
    EVENT_NAME,
    KEY_NAME,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    RESERVED_KINDS,
    SUBJECT_KIND,
    TRAIT_NAME,
    Exposure,
    SubjectPatch,
    SubjectReference,
    Track,
)
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, Value, freeze
from rheostat.sdk.backoff import Backoff
from rheostat.sdk.call import calling
from rheostat.sdk.effect import Effect, Fetch
from rheostat.wire.instant import instant_to_proto
from rheostat.wire.subject import patch_to_proto, reference_to_proto
from rheostat.wire.value import mapping_to_proto, value_to_proto

__all__ = ["BATCH", "Entry", "EventBuffer", "patch_of", "reference_of", "track_of"]

log = logging.getLogger("rheostat")

BATCH: Final = 100
"""What one request holds at most, and how many entries are sent at once rather than after the interval."""

_BATCH_BYTES: Final = 512 * 1024
"""What one request holds at most, unless a single entry is larger: half of what a server takes."""

_LONGEST_WAIT: Final = 24 * 3600.0
"""Seconds after which an entry is given up: half of the time for which a server knows an idempotency key."""

_BACKOFF_SECONDS: Final = (1.0, 30.0)
"""The bound of the first delay after a failure, and of the last."""

_REFUSED_SECONDS: Final = (150.0, 450.0)
"""As for the stream: a refused key is rarely mended in seconds."""

_LONGEST_RETRY: Final = 3600.0
"""A server that asks for more is not meant, nor is an unnamed limit that lasts longer."""

_UNCOUNTED: Final = 1000
"""How many exposures wait at most to be counted."""

_COUNTED: Final = 2000
"""How many different exposures are counted before they become entries."""

_MAX_SUBJECTS: Final = 20


@dataclass(slots=True, eq=False)
class Entry:
    """Something that is to be sent.

    Attributes:
        number: Rises with each entry of a process; makes its idempotency key.
        time: When it happened: seconds since the epoch.
        since: When it was buffered, on the monotonic clock.
        what: An event's content, or a patch.
        subjects: Of an event.
        attributes: Of an event.
        attempted: Sending it has begun, so that nobody knows whether the server has it, or it was dropped.
    """

    number: int
    time: float
    since: float
    what: Track | Exposure | SubjectPatch
    subjects: Sequence[SubjectReference] = ()
    attributes: Mapping[str, Value] | None = None
    attempted: bool = False

    @property
    def is_patch(self) -> bool:
        """Whether it goes to `UpsertSubjects`."""
        return isinstance(self.what, SubjectPatch)


_Message: TypeAlias = "event_service_pb2.Event | event_service_pb2.SubjectUpsert"


class EventBuffer:
    """Holds what is to be sent, at most so much. Its methods are safe from any thread; one driver at a time sends.

    Attributes:
        asleep: The next entry has to call `wake`: nobody looks at the buffer until then.
        wake: Lets a driver look; must not block or raise.
        record: Takes entries in place of the buffer, such as in a stub.
        stored: Is told of the subjects that a patch has made, as messages.
        refusing: Why nothing is taken; None while the buffer is open. Empty text drops silently, and counts nothing.
    """

    def __init__(
        self,
        *,
        max_events: int,
        interval: float,
        timeout: float,
        retries: int,
        randomness: random.Random,
        project: str = "",
        environment: str = "",
        identity: Callable[[], ClientIdentity] = ClientIdentity,
        current_name: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Hold nothing.

        Args:
            max_events: How many entries are held; of more the oldest are dropped.
            interval: Seconds that an entry waits for others.
            timeout: Seconds of a request.
            retries: How often a request is repeated before a longer wait.
            randomness: Where delays are drawn from.
            project: As in requests.
            environment: As in requests.
            identity: Who sends.
            current_name: Gives the name of a setting for one of its aliases.
            clock: Monotonic seconds.
            wall_clock: Seconds since the epoch.
        """
        self.asleep = True
        self.wake: Callable[[], None] = lambda: None
        self.record: Callable[[Entry], None] | None = None
        self.stored: Callable[[Iterable[Any]], None] = lambda _: None
        self.refusing: str | None = None
        self._max = max_events
        self._interval = interval
        self._timeout = timeout
        self._retries = retries
        self._randomness = randomness
        self._project = project
        self._environment = environment
        self._identity = identity
        self._current_name = current_name
        self._clock = clock
        self._wall_clock = wall_clock
        self._warned: set[str] = set()
        self._backoff = Backoff(*_BACKOFF_SECONDS, randomness)
        self._begin()

    def _begin(self) -> None:
        self._prefix = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._entries: deque[Entry] = deque()
        # How many of these are exposures, which give way to what the program has told.
        self._exposures = 0
        self._sending: list[Entry] = []
        self._exposed: deque[tuple[str, Evaluation]] = deque()
        self._exposed_since = 0.0
        self._counts: dict[tuple[Any, ...], int] = {}
        # On the clock: when to try again after a failure, and before when the server wants to hear nothing.
        self._retry_at = self._not_before = 0.0
        self._batch = BATCH
        self._failing = False
        self._hurried = False
        self._dropped = 0
        # Made at its first use, see `Replica.lock`.
        self._locks: dict[str, AbstractContextManager[object]] = {}

    def after_fork(self) -> None:
        """Begin anew in a child process: what was buffered before is sent by the parent alone."""
        self._backoff.reset()
        self._begin()
        self.asleep = True

    def _lock(self) -> Any:
        return self._locks.get("") or self._locks.setdefault("", threading.RLock())

    # What comes in.

    @property
    def dropped(self) -> int:
        """How many events and patches of this process were given up."""
        return self._dropped

    def track(
        self, event: str, quantity: object, attributes: object, subjects: Mapping[str, object]
    ) -> Entry | None:
        """Buffer an event; None when it is not taken. Never raises."""
        if self.refusing is not None:
            self._refuse()
            return None
        try:
            what, whom, more = track_of(event, quantity, attributes, subjects)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the arguments, the caller has other work
            self._wrong("track", error)
            return None
        return self._put(what, whom, more)

    def identify(self, kind: str, keys: object, traits: object, member_of: object) -> Entry | None:
        """Buffer a patch; None when it is not taken. Never raises."""
        if self.refusing is not None:
            self._refuse()
            return None
        try:
            patch = patch_of(kind, keys, traits, member_of)
        except Exception as error:  # noqa: BLE001 - as in `track`
            self._wrong("identify", error)
            return None
        return self._put(patch, (), None)

    def expose(self, name: str, found: Evaluation) -> None:
        """Count that *found* was given for the setting *name*. Never raises."""
        if self.refusing is not None or self.record is not None:
            return
        exposed = self._exposed
        exposed.append((name, found))
        if self.asleep or len(exposed) >= _UNCOUNTED:
            if len(exposed) == 1:
                self._exposed_since = self._clock()
            elif len(exposed) >= _UNCOUNTED:
                self._count()
            if self.asleep:
                self._wake()

    def _put(
        self,
        what: Track | SubjectPatch,
        subjects: Sequence[SubjectReference],
        attributes: Mapping[str, Value] | None,
    ) -> Entry:
        entry = Entry(next(self._numbers), self._wall_clock(), self._clock(), what, subjects, attributes)
        if self.record is not None:
            self.record(entry)
            return entry
        entries = self._entries
        entries.append(entry)
        waiting = len(entries)
        if waiting > self._max:
            self._shed()
        if self.asleep:
            self._wake()
        elif waiting >= BATCH and not self._hurried:
            self._hurried = True
            self._wake()
        return entry

    def _wake(self) -> None:
        try:
            self.wake()
        except Exception as error:  # noqa: BLE001 - it is a plain call of the application that has come here
            self._warn("wake", "events cannot be sent now: %s", error)

    def _shed(self) -> None:
        with self._lock():
            while self._exposures and len(self._entries) > self._max:
                self._shed_exposures()
            while len(self._entries) > self._max:
                self._pop().attempted = True
                self._drop("full", "the buffer of events is full: the oldest are dropped")

    def _shed_exposures(self) -> None:
        """Drop the oldest exposures: as many at once as make it worth to look for them."""
        most = max(len(self._entries) - self._max, min(BATCH, self._max // 2))
        kept: list[Entry] = []
        shed = 0
        while shed < most and self._exposures:
            entry = self._pop()
            if isinstance(entry.what, Exposure):
                shed += 1
            else:
                kept.append(entry)
        self._push_back(kept)
        self._drop("exposures", "the buffer of events is full: exposures are dropped", count=shed)

    def _pop(self) -> Entry:
        entry = self._entries.popleft()
        self._exposures -= isinstance(entry.what, Exposure)
        return entry

    def _push_back(self, entries: Sequence[Entry]) -> None:
        self._entries.extendleft(reversed(entries))
        self._exposures += sum(isinstance(entry.what, Exposure) for entry in entries)

    def _refuse(self) -> None:
        if self.refusing:
            with self._lock():
                self._drop("refusing", "%s", self.refusing)

    def _wrong(self, method: str, error: Exception) -> None:
        with self._lock():
            self._drop(f"{method}: {error}"[:200], "a call of %s is not taken: %s", method, error)

    def _drop(self, about: str, message: str, *arguments: object, count: int = 1) -> None:
        self._dropped += count
        self._warn(about, message, *arguments)

    def _warn(self, about: str, message: str, *arguments: object) -> None:
        if about not in self._warned and len(self._warned) < BATCH:
            self._warned.add(about)
            log.warning(message, *arguments)

    def _count(self) -> None:
        """Count the exposures that have come, unless another thread does."""
        lock = self._lock()
        if not lock.acquire(blocking=False):
            return
        try:
            counts = self._counts
            while self._exposed:
                try:
                    name, found = self._exposed.popleft()
                except IndexError:
                    break
                value = found.value
                key = (name, found.rule_id, found.variant, found.revision, type(value), value)
                counts[key] = counts.get(key, 0) + 1
            if len(counts) >= _COUNTED:
                self._counted()
        finally:
            lock.release()

    def _counted(self) -> None:
        """Make entries of the exposures that were counted."""
        counts, self._counts = self._counts, {}
        now, since = self._wall_clock(), self._clock()
        for (name, rule_id, variant, revision, _, value), count in counts.items():
            exposure = Exposure(
                setting=self._current_name(name),
                rule_id=rule_id or "",
                variant=variant or "",
                value=value,
                revision=revision,
                count=count,
            )
            self._entries.append(Entry(next(self._numbers), now, since, exposure))
        self._exposures += len(counts)
        self._shed()

    # What goes out.

    def __bool__(self) -> bool:
        """Tell whether anything waits or is being sent."""
        return bool(self._entries or self._sending or self._exposed or self._counts)

    def mark(self) -> int:
        """Return what `passed` takes to tell whether all that is here now has gone out."""
        with self._lock():
            self._count()
            self._counted()
            return next(self._numbers)

    def passed(self, mark: int) -> bool:
        """Tell whether what was here when *mark* was made was sent, or given up."""
        with self._lock():
            oldest = self._sending or self._entries
            return not oldest or oldest[0].number >= mark

    def due(self, *, wanted: bool = False) -> float | None:
        """Return the seconds until `sending` is to be run; None when nothing waits.

        Args:
            wanted: Somebody waits for it: the interval does not count.
        """
        if not self:
            return None
        now = self._clock()
        if now < self._retry_at:
            return self._retry_at - now
        if wanted or len(self._entries) >= BATCH:
            return 0.0
        try:
            since = self._entries[0].since
        except IndexError:
            since = self._exposed_since
        return max(0.0, since + self._interval - now)

    def hasten(self) -> None:
        """Try again now after a failure, unless the server wants to hear nothing yet."""
        self._retry_at = min(self._retry_at, self._not_before)

    def sending(self) -> Generator[Effect, Any, None]:
        """Send all that waits, until something goes wrong that time may mend; raises no RPC error."""
        self._hurried = False
        with self._lock():
            self._count()
            self._exposed_since = self._clock()
        while True:
            if not self._failing or len(self._entries) < BATCH:
                # Not while much else waits for the server: they would be counted in ever more entries.
                with self._lock():
                    self._counted()
            batch = self._take()
            if not batch:
                return
            done = False
            try:
                done = yield from self._send(batch)
            finally:
                if not done:
                    self._put_back(batch)
            if not done:
                return

    def give_up(self) -> None:
        """Drop what is left, as nothing will be sent any more."""
        with self._lock():
            self._count()
            self._counted()
            left = len(self._entries) + len(self._sending)
            self._entries.clear()
            self._exposures = 0
            # Should it still be under way, it is not put back: it is counted.
            self._sending = []
            if left:
                self._drop(
                    "left", "%d events could not be sent before the client was closed", left, count=left
                )

    def _take(self) -> list[Entry]:
        """Return what to send next, in one request; empty when there is nothing."""
        batch: list[Entry] = []
        with self._lock():
            oldest = self._wall_clock() - _LONGEST_WAIT
            entries = self._entries
            while entries and len(batch) < self._batch:
                entry = entries[0]
                if entry.time < oldest:
                    self._pop().attempted = True
                    self._drop("old", "events could not be sent for a day: the oldest are dropped")
                    continue
                if batch and entry.is_patch is not batch[0].is_patch:
                    break
                batch.append(self._pop())
            self._sending = batch
        return batch

    def _put_back(self, batch: Sequence[Entry]) -> None:
        with self._lock():
            if self._sending is not batch:
                return
            self._push_back(batch)
            self._sending = []
            self._shed()

    def _send(self, batch: list[Entry]) -> Generator[Effect, Any, bool]:
        """Send *batch*, or its beginning; tell whether to go on. What is left of it has to be put back if not."""
        patches = batch[0].is_patch
        messages: list[Any] = []
        size = 0
        for entry in batch:
            message = self._message(entry)
            size += message.ByteSize()
            if messages and size > _BATCH_BYTES:
                break
            messages.append(message)
        if len(messages) < len(batch):
            with self._lock():
                self._push_back(batch[len(messages) :])
                del batch[len(messages) :]
        for entry in batch:
            entry.attempted = True
        try:
            answer = yield from calling(
                Fetch(*self._request(messages, patches=patches), self._timeout),
                retries=self._retries,
                randomness=self._randomness,
            )
        except (UnavailableError, DeadlineExceededError) as error:
            return self._later(error, self._backoff.delay())
        except LimitExceededError as error:
            return self._exceeded(batch, error)
        except (AuthenticationError, PermissionDeniedError, NotFoundError) as error:
            # A key, a project or an environment that may be mended.
            return self._later(error, self._randomness.uniform(*_REFUSED_SECONDS))
        except ClientClosedError:
            return False
        except RheostatError as error:
            self._refused(batch, error)
            return True
        self._backoff.reset()
        self._batch = BATCH
        self._failing = False
        with self._lock():
            self._sending = []
            for rejected in answer.message.rejected:
                what = "patch of a subject" if patches else "event"
                self._drop(
                    f"rejected {rejected.reason}", "the server takes a %s not: %s", what, rejected.message
                )
        if patches:
            self.stored(answer.message.subjects)
        return True

    def _later(self, error: RheostatError, delay: float) -> bool:
        asked = getattr(error, "retry_after", None)
        if asked:
            # What the server asks for is a least; the jitter on top keeps clients apart.
            delay = max(delay, min(asked, _LONGEST_RETRY) * self._randomness.uniform(1.0, 1.5))
            self._not_before = self._clock() + delay
        self._retry_at = self._clock() + delay
        self._failing = True
        self._warn(f"later {error.reason}", "events cannot be sent now, and are kept: %s", error)
        return False

    def _exceeded(self, batch: Sequence[Entry], error: LimitExceededError) -> bool:
        if error.retry_after is not None:
            return self._later(error, self._backoff.delay())
        # What is too much together may do one by one.
        if len(batch) == 1:
            if not error.limit.endswith("_bytes") and self._clock() - batch[0].since < _LONGEST_RETRY:
                # No size: somebody on the way who does not say when to try again.
                return self._later(error, self._backoff.delay())
            self._refused(batch, error)
            return True
        self._batch = len(batch) // 2
        self._retry_at = self._clock()
        self._put_back(batch)
        return True

    def _refused(self, batch: Sequence[Entry], error: RheostatError) -> None:
        with self._lock():
            self._sending = []
            self._drop(f"refused {error.reason}", "the server refuses events: %s", error, count=len(batch))

    def _request(self, messages: list[Any], *, patches: bool) -> tuple[str, Any]:
        if patches:
            return "UpsertSubjects", event_service_pb2.UpsertSubjectsRequest(
                project=self._project, environment=self._environment, subjects=messages
            )
        return "RecordEvents", event_service_pb2.RecordEventsRequest(
            project=self._project, environment=self._environment, events=messages, client=self._identity()
        )

    def _message(self, entry: Entry) -> _Message:
        what = entry.what
        if isinstance(what, SubjectPatch):
            return patch_to_proto(what)
        message = event_service_pb2.Event(
            idempotency_key=f"{self._prefix}-{entry.number}",
            time=instant_to_proto(datetime.datetime.fromtimestamp(entry.time, datetime.UTC)),
            subjects=[reference_to_proto(subject) for subject in entry.subjects],
        )
        if isinstance(what, Track):
            message.track.name = what.name
            message.track.quantity = what.quantity
            if entry.attributes:
                mapping_to_proto(entry.attributes, message.track.attributes)
        else:
            message.exposure.setting = what.setting
            message.exposure.rule_id = what.rule_id
            message.exposure.variant = what.variant
            message.exposure.revision = what.revision
            message.exposure.count = what.count
            if what.value is not ABSENT:
                message.exposure.value.CopyFrom(value_to_proto(what.value))
        return message


def track_of(
    event: object, quantity: object, attributes: object, subjects: Mapping[str, object]
) -> tuple[Track, tuple[SubjectReference, ...], Mapping[str, Value] | None]:
    """Return the arguments of a call of `track` as they are sent.

    Raises:
        InvalidArgumentError: One is not acceptable; it is named.
    """
    if not isinstance(event, str) or EVENT_NAME.fullmatch(event) is None:
        raise InvalidArgumentError(
            f"the event {str(event)[:200]!r} is not 1 to 200 letters, digits, _, - or dots"
        )
    if type(quantity) is float and quantity.is_integer():
        quantity = int(quantity)
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not INT64_MIN <= quantity <= INT64_MAX:
        raise InvalidArgumentError(f"the quantity of the event {event!r} is no integer of 64 bits")
    if len(subjects) > _MAX_SUBJECTS:
        raise InvalidArgumentError(
            f"the event {event!r} has {len(subjects)} subjects, and may have {_MAX_SUBJECTS}"
        )
    whom = tuple([reference_of(kind, keys) for kind, keys in subjects.items()])
    return Track(event, quantity), whom, _values("attributes", attributes) if attributes else None


def patch_of(kind: object, keys: object, traits: object, member_of: object) -> SubjectPatch:
    """Return the arguments of a call of `identify` as they are sent.

    Raises:
        InvalidArgumentError: One is not acceptable; it is named.
    """
    found = _values("traits", traits) if traits else {}
    for name in found:
        if TRAIT_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(f"the trait {name[:100]!r} is not 1 to 64 letters, digits, _ or -")
    memberships: list[SubjectReference] = []
    if member_of:
        if not isinstance(member_of, Mapping):
            raise InvalidArgumentError("member_of is no mapping of kinds")
        for other, named in member_of.items():
            each = [named] if isinstance(named, Mapping) else named
            memberships.extend(reference_of(other, one) for one in each)
    return SubjectPatch(
        reference=reference_of(kind, keys),
        traits={name: value for name, value in found.items() if value is not None},
        remove_traits=tuple(name for name, value in found.items() if value is None),
        member_of=tuple(memberships),
    )


def reference_of(kind: object, keys: object) -> SubjectReference:
    """Return a subject as it is named in requests.

    Raises:
        InvalidArgumentError: The kind or a key is not acceptable; it is named.
    """
    if not isinstance(kind, str) or SUBJECT_KIND.fullmatch(kind) is None or kind in RESERVED_KINDS:
        raise InvalidArgumentError(f"{str(kind)[:100]!r} is no kind of subjects")
    if not isinstance(keys, Mapping) or not 1 <= len(keys) <= MAX_KEYS:
        raise InvalidArgumentError(f"the keys of the {kind} are no mapping of 1 to {MAX_KEYS} keys")
    found: dict[str, str] = {}
    for name, value in keys.items():
        if not isinstance(name, str) or KEY_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(
                f"the {kind} has the key {str(name)[:100]!r}, which is no name of a key"
            )
        text = str(value) if isinstance(value, uuid.UUID) else value
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_KEY_CHARACTERS:
            raise InvalidArgumentError(
                f"the key {name!r} of the {kind} is no string of 1 to {MAX_KEY_CHARACTERS} characters"
            )
        freeze(text)
        found[name] = text
    return SubjectReference(kind, found)


def _values(what: str, values: object) -> dict[str, Value]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InvalidArgumentError(f"{what} is no mapping of names and values")
    return {str(freeze(name)): freeze(value) for name, value in values.items()}
