"""Instants and durations as messages."""

from __future__ import annotations

import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration_from_proto", "duration_to_proto", "instant_from_proto", "instant_to_proto"]


def instant_to_proto(instant: datetime.datetime) -> Timestamp:
    """Return an aware *instant* as a message."""
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def instant_from_proto(message: Timestamp) -> datetime.datetime:
    """Return the instant in UTC, to the microsecond.

    Raises:
        ValueError: It is outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(tzinfo=datetime.UTC)
    except OverflowError as exc:
        raise ValueError(f"an instant {message.seconds} s from 1970 is out of range") from exc


def duration_to_proto(seconds: float) -> Duration:
    """Return *seconds*, which are finite, as a message, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def duration_from_proto(message: Duration) -> float:
    """Return the duration in seconds."""
    return message.seconds + message.nanos / 1e9
