"""Settings that look unused."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1 import admin_service_pb2 as admin
from rheostat.server.call import Call
from rheostat.server.handling.base import (
    PAGE_SIZE,
    Handling,
    page_start,
    page_token,
)
from rheostat.service.stale import Stale, StaleReason, find_stale
from rheostat.wire.instant import instant_to_proto
from rheostat.wire.setting import lifecycle_to_proto

__all__ = ["StaleHandlers"]

_UNREAD_FOR: Final = datetime.timedelta(days=30)

_REASONS: Final[Mapping[StaleReason, admin.StaleReason]] = {
    StaleReason.UNREAD: admin.STALE_REASON_UNREAD,
    StaleReason.ONE_VALUE: admin.STALE_REASON_ONE_VALUE,
    StaleReason.LIFECYCLE: admin.STALE_REASON_LIFECYCLE,
}


class StaleHandlers(Handling):
    """Which settings look unused. Safe from any thread."""

    def list_stale_settings(
        self, request: admin.ListStaleSettingsRequest, call: Call
    ) -> admin.ListStaleSettingsResponse:
        """Answer settings that look unused, by name."""
        service = self.service
        project, environment = self._resolve(service.head, call, request.project, request.environment)
        page = find_stale(
            service,
            project,
            environment,
            unread_for=request.unread_for.ToTimedelta() if request.HasField("unread_for") else _UNREAD_FOR,
            after=page_start(request),
            limit=request.page_size or PAGE_SIZE,
        )
        return admin.ListStaleSettingsResponse(
            settings=[_stale_to_proto(stale) for stale in page.found],
            next_page_token=page_token(page.found[-1].setting.name.encode()) if page.more else "",
            noted_since=_optional_instant(page.noted_since),
        )


def _stale_to_proto(stale: Stale) -> admin.StaleSetting:
    setting = stale.setting
    return admin.StaleSetting(
        name=setting.name,
        owner=setting.owner,
        tags=setting.tags,
        lifecycle=lifecycle_to_proto(setting.lifecycle),
        reasons=[_REASONS[reason] for reason in stale.reasons],
        last_read_at=_optional_instant(stale.last_read_at),
        last_changed_at=_optional_instant(stale.last_changed_at),
        declared_by=stale.declared_by,
    )


def _optional_instant(instant: datetime.datetime | None) -> Timestamp | None:
    return None if instant is None else instant_to_proto(instant)
