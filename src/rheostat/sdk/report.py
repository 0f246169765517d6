"""What a client tells the server of itself: when it does, and what it has to say by then.

Nothing here sends anything; `rheostat.sdk.core` does. Reports are for people who look at a rollout: they never hold
up the stream or a read, and one that fails is not sent again before the next is due.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rheo.v1.client_pb2 import ClientIdentity, ClientReport
from rheostat.errors import (
    AuthenticationError,
    FailedPreconditionError,
    LimitExceededError,
    PermissionDeniedError,
    RheostatError,
    UnavailableError,
)
from rheostat.model.setting import SETTING_NAME
from rheostat.sdk.replica import Replica
from rheostat.wire.instant import duration_to_proto

__all__ = ["REPORT_TIMEOUT", "Reporter"]

REPORT_TIMEOUT: Final = 5.0
"""Seconds that the call of a report lasts at most."""

_INTERVAL: Final = (48.0, 72.0)
"""Seconds from one report to the next, when nobody asks for one: a minute ± 20 %."""

_RETURN_SECONDS: Final = 10.0
"""A client that comes back after its report has grown old reports within so many seconds, not at once: the others of
its server come back in the same moment."""

_READ_SECONDS: Final = 12 * 3600.0
"""A setting is named so often at most."""

_MARK_SECONDS: Final = 3600.0
"""How often reads are looked at anew: the next read of each setting then takes the slow way once."""

_MAX_SETTINGS: Final = 1000
"""Of one report. The rest follows in the next ones."""

_MAX_ERROR: Final = 1000
"""Characters of an error."""

_RETRY_SECONDS: Final = 3600.0
"""When a client without a stream, whose reports are refused, tries again; with one it does on the next stream."""


class Reporter:
    """When a client reports, and what. Takes no lock: the core calls it under that of the replica.

    Attributes:
        node: The node that the client is connected to; empty while it is not.
        types_hash: What names the types that were declared to the server; empty when none were.
        diverged: The digest has differed twice in a row, and that is not mended yet.
        due: On the clock, when the next report is to be sent; None while there is none to send.
        under_way: A report is to be sent or being sent now; reset by who sends it.
    """

    def __init__(
        self, replica: Replica, *, polls: bool, clock: Callable[[], float], randomness: random.Random
    ) -> None:
        """Report of *replica*, from the first state on.

        Args:
            replica: What is read.
            polls: There are no streams that could ask for reports.
            clock: Monotonic seconds.
            randomness: Where instants are drawn from.
        """
        self.node = ""
        self.types_hash = b""
        self.diverged = False
        self.due: float | None = None
        self.under_way = False
        self._replica = replica
        self._polls = polls
        self._clock = clock
        self._random = randomness
        self._stopped = False
        # Whether there is a state that was current once in this stream.
        self._begun = False
        self._reported_at: float | None = None
        # When the newest change of the state was applied; None when that came in a snapshot.
        self._applied_at: float | None = None
        self._error = ""
        self._marked_at = clock()
        # When settings were named, by name, and those that are to be named.
        self._named: dict[str, float] = {}
        self._unnamed: dict[str, None] = {}

    # When.

    def connected(self, node: str) -> None:
        """Note that a stream of *node* has begun: whether it takes reports is not known yet."""
        self.node = node
        self._stopped = self._begun = False

    def disconnected(self) -> None:
        """Note that the stream has ended."""
        self.node = ""

    def current(self) -> bool:
        """Note that there is a state that is the server's: the first one of a client is reported at once.

        Returns:
            As `ask`.
        """
        if self._begun:
            return False
        self._begun = True
        now = self._clock()
        if self._reported_at is None:
            return self._no_later_than(now)
        if now - self._reported_at >= _INTERVAL[0]:
            return self._no_later_than(now + self._random.uniform(0.0, _RETURN_SECONDS))
        return self._no_later_than(self._reported_at + self._random.uniform(*_INTERVAL))

    def ask(self, within: float) -> bool:
        """Report once at a random time *within* seconds; several asks are one, at the earliest of their times.

        Returns:
            Whether the next report is due sooner than before.
        """
        return not self._stopped and self._no_later_than(self._clock() + self._random.uniform(0.0, within))

    def applied(self, *, snapshot: bool) -> None:
        """Note that a change of the state was applied, or with *snapshot* that all of it was replaced."""
        self._applied_at = None if snapshot else self._clock()
        if self._polls and self._begun:
            # Nobody can ask for it.
            self.ask(0.0)

    def take(self) -> bool:
        """Return whether a report is due now, which is to be sent then; the next one is due in a minute."""
        if self.due is None or self.under_way or self.due > self._clock():
            return False
        self.due = self._clock() + self._random.uniform(*_INTERVAL)
        self.under_way = True
        return True

    def after_fork(self) -> None:
        """Go on in a child process, which is another client and has not reported yet."""
        self.node = ""
        self.due = self._reported_at = None
        self.under_way = self._begun = self._stopped = False

    def _no_later_than(self, instant: float) -> bool:
        if self.due is not None and self.due <= instant:
            return False
        self.due = instant
        return True

    # What.

    def failed(self, text: str) -> None:
        """Note what went wrong last, in words that hold no value of a setting."""
        self._error = text[:_MAX_ERROR]

    def report(self, client: ClientIdentity, subscribed: Iterable[str]) -> ClientReport:
        """Return what is to be reported now; `answered` or `refused` is to follow.

        Args:
            client: Who reports.
            subscribed: Names of settings whose changes the program wants to be told of.
        """
        now = self._clock()
        replica = self._replica
        shown = replica.shown
        report = ClientReport(
            client=client,
            node=self.node,
            declared_types_hash=self.types_hash,
            diverged=self.diverged,
            error=self._error,
            settings_read=self._to_be_named(now, subscribed),
        )
        if shown.position is not None:
            report.generation = shown.position.generation
            report.revision = shown.revision
        # While the view is frozen, what was applied last is not what is reported.
        if self._applied_at is not None and shown is replica.held:
            report.age.CopyFrom(duration_to_proto(max(0.0, now - self._applied_at)))
        self._error = ""
        return report

    def answered(self, report: ClientReport) -> None:
        """Note that *report* has arrived."""
        self._stopped = False
        self._reported_at = now = self._clock()
        for name in report.settings_read:
            self._named[name] = now
            self._unnamed.pop(name, None)

    def refused(self, report: ClientReport, error: RheostatError) -> None:
        """Note that *report* was not taken: without a right, or by an earlier version, none will be on this stream."""
        self._error = self._error or report.error
        if isinstance(error, (AuthenticationError, PermissionDeniedError, FailedPreconditionError)):
            self._stopped = True
            self.due = self._clock() + _RETRY_SECONDS if self._polls else None
        elif isinstance(error, (LimitExceededError, UnavailableError)) and error.retry_after:
            asked = self._clock() + min(error.retry_after, _RETRY_SECONDS)
            self.due = max(self.due or 0.0, asked)

    def _to_be_named(self, now: float, subscribed: Iterable[str]) -> Sequence[str]:
        snapshot = self._replica.view.snapshot
        for name in (*self._replica.take_read(), *subscribed):
            setting = snapshot.setting(name)
            # Only this process may know what a bootstrap or an override is called.
            if setting is not None and SETTING_NAME.fullmatch(setting.name):
                last = self._named.get(setting.name)
                if last is None or now - last >= _READ_SECONDS:
                    self._unnamed[setting.name] = None
        if now - self._marked_at >= _MARK_SECONDS:
            self._marked_at = now
            self._replica.forget_read()
            self._named = {name: at for name, at in self._named.items() if now - at < _READ_SECONDS}
        return list(self._unnamed)[:_MAX_SETTINGS]
