"""The generated service as a WSGI application, for a server in a process of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from rheo.v1.config_service_connect import ConfigServiceSync, ConfigServiceWSGIApplication
from rheo.v1.config_service_pb2 import PingResponse
from rheo.v1.watch_pb2 import Bookmark, Hello, Position, WatchResponse

if TYPE_CHECKING:
    from collections.abc import Iterator


class Service(ConfigServiceSync):
    def ping(self, request: Any, ctx: Any) -> PingResponse:
        ctx.response_headers["x-echoed"] = ctx.request_headers.get("x-echo", "")
        return PingResponse(node=ctx.request_headers.get("x-node", "wsgi"))

    def watch(self, request: Any, ctx: Any) -> Iterator[WatchResponse]:
        yield WatchResponse(hello=Hello(node="wsgi"))
        for revision in range(1, int(ctx.request_headers.get("x-count", "0")) + 1):
            yield WatchResponse(bookmark=Bookmark(position=Position(revision=revision)))
        if "x-count" in ctx.request_headers:
            return
        # A WSGI server learns that its client has left only by writing: a silent time, then heartbeats.
        pause = threading.Event()
        pause.wait(3)
        while True:
            yield WatchResponse(bookmark=Bookmark())
            pause.wait(0.2)


application = ConfigServiceWSGIApplication(Service())
