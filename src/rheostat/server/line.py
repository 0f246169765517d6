"""The connection under a response, where the server by itself gives it to the application.

An ASGI extension: writing to thousands of streams one after the other costs a wake-up of a task and several layers for
each, of which nothing is left when a frame that is ready goes to the connection at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rheostat.server.codec import chunk

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = [
    "EXTENSION",
    "LINGER_SECONDS",
    "SEND_BUFFER_BYTES",
    "UNSENT_BYTES",
    "Line",
    "Outlet",
    "limit_buffers",
]

EXTENSION: Final = "rheostat.line"
"""Where `Line` is among the extensions of a scope."""

UNSENT_BYTES: Final = 32 * 1024
"""What a connection may hold unsent in this process before its senders wait; the kernel holds more."""

SEND_BUFFER_BYTES: Final = 64 * 1024
"""What the kernel holds of a connection that is not acknowledged; Linux takes it for twice as much. Left alone it grows
to 4 MiB for a client that does not read."""

UNACKNOWLEDGED_SECONDS: Final = 60.0
"""After which the kernel ends a connection that takes nothing: twice as long as the server itself waits."""

LINGER_SECONDS: Final = 5.0
"""For which a client that had stopped reading may still fetch what it is owed, once its stream is over."""

_END: Final = b"0\r\n\r\n"


def limit_buffers(connection: Any, seconds: float = UNACKNOWLEDGED_SECONDS) -> None:
    """Limit what a connection may hold for a client that does not read, and for how long.

    A listening socket passes it on to the connections that it accepts.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Not on every system, and never on a unix socket.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


class Outlet:
    """What is written to one connection past uvicorn. Used on its event loop only.

    Attributes:
        open: The client takes what it is sent.
        lost: The connection is over, and its descriptor may be another's.
        write: Writes bytes to the connection, without waiting.
    """

    __slots__ = ("lost", "open", "write")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """Make it for an open connection."""
        self.lost = False
        self.open = True
        self.write = write


class Line:
    """One response of a server by itself, past the head. Used on its event loop only.

    Attributes:
        outlet: For chunks of HTTP/1.1, as `chunk` makes them, while the response goes on.
    """

    __slots__ = ("_cycle", "outlet")

    def __init__(self, cycle: RequestResponseCycle, outlet: Outlet) -> None:
        """Make it for a cycle of uvicorn."""
        self._cycle = cycle
        self.outlet = outlet

    def finish(self, body: bytes) -> None:
        """Write the end of the response although the client does not read, and leave it a moment to do so."""
        cycle = self._cycle
        if cycle.response_complete or cycle.disconnected:
            return
        cycle.response_complete = True
        cycle.message_event.set()
        transport = cycle.transport
        transport.write((chunk(body) if body else b"") + _END)
        transport.close()
        # A transport that is closed waits for its buffers to be taken, if need be for ever.
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.cut)

    def cut(self) -> None:
        """End the connection, and drop what the client has not taken."""
        if self.outlet.lost:
            return
        transport = self._cycle.transport
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # Without it the kernel goes on holding what the client does not take.
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
