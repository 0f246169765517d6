"""Reports of clients, and rollouts."""

from __future__ import annotations

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import config_service_pb2 as config
from rheostat.errors import FieldViolation, InvalidArgumentError
from rheostat.model.key import KeyKind
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    PAGE_SIZE,
    Handling,
    page_start,
    page_token,
)
from rheostat.server.throttle import Throttle
from rheostat.service import Service
from rheostat.service.access import Principal
from rheostat.wire.client import client_report_from_proto, client_report_to_proto
from rheostat.wire.instant import duration_to_proto, instant_to_proto

__all__ = ["ReportHandlers"]


class ReportHandlers(Handling):
    """Where the clients are. Safe from any thread."""

    def __init__(self, service: Service) -> None:
        """Make handlers; the service is not closed by them."""
        super().__init__(service)
        limits = service.limits
        self._reports = Throttle(
            limits.max_reports_per_second, limit="max_reports_per_second", what="reports"
        )
        self._asks = Throttle(
            limits.max_asks_per_second, limit="max_asks_per_second", what="questions about a rollout"
        )

    def report_status(self, request: config.ReportStatusRequest, call: Call) -> config.ReportStatusResponse:
        """Take reports of where clients stand."""
        service = self.service
        project, environment = self._resolve(service.head, call, request.project, request.environment)
        relayed = _speaks_for_others(call.principal)
        if not relayed:
            if len(request.reports) > 1:
                raise _wrong(
                    "reports", "has more than one: a client reports for itself, and only a relay for others"
                )
            if not request.reports[0].client.id:
                raise _wrong("reports[0].client.id", "is empty: a client reports under its own id")
        self._reports.count(call.principal.actor, len(request.reports))
        reports = [client_report_from_proto(report) for report in request.reports]
        declare_again = service.fleet.report(
            project, environment, reports, call.principal.actor, relayed=relayed
        )
        return config.ReportStatusResponse(declare_again=declare_again)

    def list_clients(self, request: admin.ListClientsRequest, call: Call) -> admin.ListClientsResponse:
        """Answer the connected clients, by id; those that have not reported, too."""
        service = self.service
        project, environment = self._resolve(service.head, call, request.project, request.environment)
        size = request.page_size or PAGE_SIZE
        found = service.fleet.clients(project, environment, after=page_start(request), limit=size + 1)
        page = found[:size]
        return admin.ListClientsResponse(
            clients=[client_report_to_proto(client) for client in page],
            next_page_token=page_token(page[-1].id.encode()) if len(found) > size else "",
        )

    def get_rollout(self, request: admin.GetRolloutRequest, call: Call) -> admin.GetRolloutResponse:
        """Answer how far the clients have got."""
        service = self.service
        project, environment = self._resolve(service.head, call, request.project, request.environment)
        if request.ask:
            # It makes all clients of the environment report.
            self._asks.count(call.principal.actor)
        rollout = service.fleet.rollout(
            project,
            environment,
            revision=request.revision,
            ask=request.ask,
            max_laggards=request.max_laggards or PAGE_SIZE,
        )
        count = rollout.count
        lags = (None, None, None) if count.lags is None else map(duration_to_proto, count.lags)
        p50, p99, longest = lags
        return admin.GetRolloutResponse(
            revision=rollout.revision,
            generation=rollout.generation,
            committed_at=None if rollout.committed_at is None else instant_to_proto(rollout.committed_at),
            reporting=count.reporting,
            reached=count.reached,
            diverged=count.diverged,
            silent=count.silent,
            lag_p50=p50,
            lag_p99=p99,
            lag_max=longest,
            laggards=[client_report_to_proto(client) for client in rollout.laggards],
        )


def _speaks_for_others(principal: Principal) -> bool:
    """Tell whether the caller may report for other clients: a relay, which in open mode needs no key."""
    return principal.key is None or principal.key.kind is KeyKind.RELAY


def _wrong(field: str, description: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{field}: {description}", violations=[FieldViolation(field, description)], reason="INVALID_FIELD"
    )
