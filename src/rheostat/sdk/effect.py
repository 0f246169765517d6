"""What the loops of the SDK ask of a driver; the drivers carry it out and send back what came of it.

A driver answers an effect by sending its result, or by throwing a `RheostatError` into the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from google.protobuf.message import Message

from rheo.v1.watch_pb2 import WatchRequest

__all__ = ["CloseStream", "Effect", "Fetch", "OpenStream", "Receive", "Sleep"]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a watch; it is the stream that `Receive` and `CloseStream` speak of. Sent None."""

    request: WatchRequest


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for the stream's next event. Sent a WatchResponse, or None at its end.

    Attributes:
        timeout: Seconds after which `DeadlineExceededError` is thrown.
    """

    timeout: float


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Leave the stream, if one is open. Sent None; never thrown an error."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Sent None; earlier when there is something new to do.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Make one unary call. Sent a `rheostat.sdk.call.Answer`.

    Attributes:
        method: The RPC, such as ``GetSnapshot``.
        request: Its request.
        timeout: Seconds.
        headers: Further headers.
    """

    method: str
    request: Message
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Effect: TypeAlias = "OpenStream | Receive | CloseStream | Sleep | Fetch"
