"""Where a client stands."""

from __future__ import annotations

import enum

__all__ = ["Status"]


class Status(enum.Enum):
    """Where a client stands; reads work in every one of them."""

    CONNECTING = "connecting"
    """It holds nothing yet: reads give defaults."""
    LIVE = "live"
    """What is read is what the server has, as far as anybody can know."""
    STALE = "stale"
    """What is read was current once: the server has not been heard of for a while, or the state is from the cache."""
    UNAUTHORIZED = "unauthorized"
    """The server refuses the key or the request; tried again every few minutes."""
    OFFLINE = "offline"
    """No server is asked, because the client was told so."""
    CLOSED = "closed"
    """The client was closed; reads go on with the last state."""
