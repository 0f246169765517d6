"""What a relay's clients report, and who is asked to: passed on in one call a second."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeAlias

from rheo.v1.config_service_pb2 import ReportStatusRequest
from rheostat.model.client import ClientReport
from rheostat.model.key import Key
from rheostat.service.fleet import Ask
from rheostat.wire.client import client_report_from_proto, client_report_to_proto

__all__ = ["RelayFleet", "RelayUsage", "Reports"]

_Place: TypeAlias = tuple[str, str]

_BATCH: Final = 10_000
"""Reports of one call; the contract allows no more."""

_MAX_KEPT: Final = 100_000
"""Reports that wait for an upstream; the newest of each client."""

_MAX_AGAIN: Final = 100_000

_LEAST_ASK_SECONDS: Final = 1.0


class Reports:
    """What clients have reported, until it is sent. Safe from any thread."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._lock = threading.Lock()
        self._waiting: dict[_Place, dict[str, ClientReport]] = {}
        self._again: dict[tuple[_Place, str], None] = {}

    def take(self, place: _Place, reports: Iterable[ClientReport]) -> list[str]:
        """Keep reports until the next call, and return the ids of those who are to declare again.

        Upstream says that of a report that was sent before, so that a client gets to know with its next one.
        """
        again: list[str] = []
        with self._lock:
            waiting = self._waiting.setdefault(place, {})
            for report in reports:
                former = waiting.pop(report.id, None)
                if former is not None:
                    named = dict.fromkeys((*former.settings_read, *report.settings_read))
                    report = replace(report, settings_read=tuple(named), error=report.error or former.error)
                waiting[report.id] = report
                if len(waiting) > _MAX_KEPT:
                    del waiting[next(iter(waiting))]
                if (place, report.id) in self._again:
                    del self._again[place, report.id]
                    again.append(report.id)
        return again

    def batches(self) -> list[ReportStatusRequest]:
        """Return what is to be sent now."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        made: list[ReportStatusRequest] = []
        for (project, environment), by_id in waiting.items():
            reports = [client_report_to_proto(report) for report in by_id.values()]
            for at in range(0, len(reports), _BATCH):
                request = ReportStatusRequest(project=project, environment=environment)
                request.reports.extend(reports[at : at + _BATCH])
                made.append(request)
        return made

    def answered(self, request: ReportStatusRequest, declare_again: Iterable[str]) -> None:
        """Keep in mind who is to declare again."""
        place = (request.project, request.environment)
        with self._lock:
            for id_ in declare_again:
                self._again[place, id_] = None
            while len(self._again) > _MAX_AGAIN:
                del self._again[next(iter(self._again))]

    def failed(self, request: ReportStatusRequest) -> None:
        """Keep what could not be sent, where no newer report has come since."""
        place = (request.project, request.environment)
        with self._lock:
            waiting = self._waiting.setdefault(place, {})
            for report in request.reports:
                if len(waiting) < _MAX_KEPT:
                    waiting.setdefault(report.client.id, client_report_from_proto(report))


class RelayFleet:
    """What a relay knows of its clients and of rollouts. Safe from any thread.

    Attributes:
        reports: What the clients have reported.
    """

    def __init__(self, clock: Callable[[], datetime.datetime], monotonic: Callable[[], float]) -> None:
        """Know of none yet."""
        self.reports = Reports()
        self._clock = clock
        self._monotonic = monotonic
        self._asks: dict[_Place, Ask] = {}
        self._serials = itertools.count()

    def ask(self, place: _Place, within: float) -> None:
        """Ask the clients of an environment to report within so many seconds."""
        until = self._monotonic() + max(within, _LEAST_ASK_SECONDS)
        self._asks[place] = Ask(str(next(self._serials)), within, until)

    def asked(self, place: _Place, now: float) -> Ask | None:
        """Return the question that somebody waits with, at *now* (monotonic); None when nobody does."""
        ask = self._asks.get(place)
        return ask if ask is not None and now < ask.until else None

    def report(
        self,
        project: str,
        environment: str,
        reports: Iterable[ClientReport],
        actor: str,
        *,
        relayed: bool = False,
    ) -> list[str]:
        """Take reports, and return the ids of those who are to declare again.

        Args:
            project: Slug.
            environment: Slug.
            reports: Those without an id are passed over.
            actor: The selector of the key that they come under; upstream they come under the relay's.
            relayed: They tell when they were made.
        """
        now = self._clock()
        dated = [
            report if relayed and report.reported_at is not None else replace(report, reported_at=now)
            for report in reports
            if report.id
        ]
        return self.reports.take((project, environment), dated)

    def connected(
        self, project: str, environment: str, client: ClientReport, actor: str
    ) -> contextlib.AbstractContextManager[None]:
        """Do nothing: upstream knows of the clients that report."""
        return contextlib.nullcontext()


class RelayUsage:
    """Notes nothing: a relay's clients name what they read in their reports."""

    def note_key(self, key: Key) -> None:
        """Do nothing."""

    def note_reads(self, project: str, environment: str, names: Iterable[str]) -> None:
        """Do nothing."""
