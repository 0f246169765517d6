"""The services of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from rheo.v1 import (
    admin_service_pb2,
    config_service_pb2,
    draft_service_pb2,
    event_service_pb2,
    webhook_service_pb2,
)

__all__ = ["SERVICES"]

SERVICES: Final[Sequence[ServiceDescriptor]] = tuple(
    service
    for file in (
        config_service_pb2,
        admin_service_pb2,
        draft_service_pb2,
        webhook_service_pb2,
        event_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""All of them, with their methods."""
