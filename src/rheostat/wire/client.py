"""Reports of clients as messages."""

from __future__ import annotations

from rheo.v1 import client_pb2
from rheostat.model.client import ClientReport
from rheostat.wire.instant import duration_from_proto, duration_to_proto, instant_from_proto, instant_to_proto

__all__ = ["client_report_from_proto", "client_report_to_proto"]


def client_report_to_proto(report: ClientReport) -> client_pb2.ClientReport:
    """Return *report* as a message."""
    return client_pb2.ClientReport(
        client=client_pb2.ClientIdentity(id=report.id, name=report.name, sdk=report.sdk),
        generation=report.generation,
        revision=report.revision,
        node=report.node,
        declared_types_hash=report.types,
        diverged=report.diverged,
        reported_at=None if report.reported_at is None else instant_to_proto(report.reported_at),
        age=None if report.age is None else duration_to_proto(report.age),
        lag=None if report.lag is None else duration_to_proto(report.lag),
        error=report.error,
        settings_read=report.settings_read,
    )


def client_report_from_proto(message: client_pb2.ClientReport) -> ClientReport:
    """Return the report that *message* holds. Never raises: an instant out of range counts as none."""
    reported_at = None
    if message.HasField("reported_at"):
        try:
            reported_at = instant_from_proto(message.reported_at)
        except ValueError:
            reported_at = None
    return ClientReport(
        id=message.client.id,
        name=message.client.name,
        sdk=message.client.sdk,
        generation=message.generation,
        revision=message.revision,
        node=message.node,
        types=message.declared_types_hash,
        diverged=message.diverged,
        reported_at=reported_at,
        age=duration_from_proto(message.age) if message.HasField("age") else None,
        lag=duration_from_proto(message.lag) if message.HasField("lag") else None,
        error=message.error,
        settings_read=tuple(message.settings_read),
    )
