"""The handlers of all RPCs, written once: plain functions of a request and its call.

The WSGI side calls them as they are, the ASGI side in a thread where they may wait. Watch is apart: its session is
sans-IO, and each side drives it.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message

from rheostat.errors import (
    DeadlineExceededError,
)
from rheostat.server.call import Call, check_request
from rheostat.server.handling.admin import AdminHandlers
from rheostat.server.handling.config import ConfigHandlers
from rheostat.server.handling.draft import DraftHandlers
from rheostat.server.handling.event import EventHandlers
from rheostat.server.handling.report import ReportHandlers
from rheostat.server.handling.stale import StaleHandlers
from rheostat.server.handling.webhook import WebhookHandlers

__all__ = ["Handlers", "ProgramHandlers"]

LARGE_BYTES: Final = 16 * 1024
"""A request of more than this is worth another thread, even where its handler does not wait."""

_NEVER_BLOCK: Final = frozenset(
    f"rheo.v1.{name}"
    for name in (
        "ConfigService/Evaluate",
        "ConfigService/Ping",
    )
)


class ProgramHandlers(ConfigHandlers, ReportHandlers):
    """The handlers of what programs call, and what all handlers go through. Safe from any thread."""

    def blocks(self, method: str, request: Message) -> bool:
        """Tell whether the handler may wait for the store or take long, so that an event loop must not run it."""
        if method in _NEVER_BLOCK:
            ahead = getattr(request, "min_revision", 0) > self.service.head.revision
            if getattr(request, "subjects", ()):
                # They may have to be read from the store.
                return True
            # An explanation of many rules takes long, and so does a large context.
            return ahead or bool(getattr(request, "explain", False)) or request.ByteSize() > LARGE_BYTES
        return True

    def handle(self, name: str, request: Any, call: Call) -> Any:
        """Check *request* and answer it. Raises only errors of `rheostat.errors`, or unexpected ones."""
        if call.deadline is not None and self.service.monotonic() >= call.deadline:
            # Nobody waits for the answer, and a write that the caller takes for refused must not happen.
            raise DeadlineExceededError("the deadline has passed")
        check_request(self.service, request, call.method)
        return getattr(self, name)(request, call)


class Handlers(
    ProgramHandlers,
    AdminHandlers,
    StaleHandlers,
    DraftHandlers,
    WebhookHandlers,
    EventHandlers,
):
    """The handlers over one service. Safe from any thread."""
