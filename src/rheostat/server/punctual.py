"""Connections of the server by itself.

They end when a request does not arrive in time, or has no end of headers: uvicorn waits for ever for one that has
begun, and takes headers of any length. They hold little that is not sent, and let the application write to them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rheostat.server.line import EXTENSION, UNSENT_BYTES, Line, Outlet
from rheostat.service.limit import Limits

__all__ = ["protocol_of"]

_TEXT: Final = (
    "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {size}\r\n"
    "connection: close\r\n\r\n{text}"
)


def protocol_of(limits: Limits) -> type[HttpToolsProtocol]:
    """Return the protocol class of connections with the time-outs of *limits*."""

    class Limited(_Punctual):
        _limits = limits

    return Limited


class _Punctual(HttpToolsProtocol):
    """One connection. Runs on its event loop alone."""

    _limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._limit = ""
        self._in_headers = True
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._outlet = Outlet(transport.write)
        self._arm("max_header_seconds")

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._outlet.open, self._outlet.lost = False, True
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._outlet.open = False
        super().pause_writing()

    def resume_writing(self) -> None:
        self._outlet.open = True
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            # Empty lines before a request are no beginning of one, but a sign that somebody keeps us waiting.
            self._arm("max_header_seconds")
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > self._limits.max_header_bytes:
            self._refuse("431 Request Header Fields Too Large", "max_header_bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._arm("max_header_seconds")

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        super().on_headers_complete()
        # The task that was made just now has not begun.
        extensions: Any = {EXTENSION: Line(self.cycle, self._outlet)}
        self.scope["extensions"] = extensions
        self._arm("max_request_seconds")

    def on_message_complete(self) -> None:
        self._disarm()
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_complete()

    def _arm(self, limit: str) -> None:
        self._disarm()
        self._limit = limit
        self._timer = self.loop.call_later(getattr(self._limits, limit), self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            # It is this side that does not read on.
            self._arm(self._limit)
        else:
            self._refuse("408 Request Timeout", self._limit)

    def _refuse(self, status: str, limit: str) -> None:
        self._disarm()
        if self.transport.is_closing():
            return
        answering = (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        )
        begun = self._header_bytes > 0 or not self._in_headers
        if begun and not answering:
            text = f"the request has passed the limit of {getattr(self._limits, limit)} ({limit})\n"
            self.transport.write(_TEXT.format(status=status, size=len(text), text=text).encode())
        self.transport.close()
