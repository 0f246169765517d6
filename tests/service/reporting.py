"""A node that forks while it has clients, as a pre-forking server does; the child takes reports of its own.

Run as a program with the URL of the store; it ends with 0 when both processes' clients are there.
"""

from __future__ import annotations

import os
import sys
import threading

from rheostat.model.client import ClientReport
from rheostat.service import Service
from rheostat.store import open_store

PLACE = ("default", "production")


def ids(service: Service) -> list[str]:
    return [client.id for client in service.fleet.clients(*PLACE, after="", limit=9)]


def wait_for(service: Service, *expected: str) -> None:
    """Wait until the node's own thread has written its clients."""
    pause = threading.Event()
    for _ in range(2_000):
        if ids(service) == list(expected):
            return
        pause.wait(0.01)
    raise SystemExit(f"there are {ids(service)}, not {expected}")


def main(url: str) -> None:
    service = Service(open_store(url)).start()
    stream = service.fleet.connected(*PLACE, ClientReport("parent"), "")
    stream.__enter__()
    wait_for(service, "parent")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            # As when the child's copy of the stream is collected.
            stream.__exit__(None, None, None)
            service.fleet.report(*PLACE, [ClientReport("child")], "")
            wait_for(service, "child", "parent")
            service.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if not status:
        wait_for(service, "child", "parent")
        # It lives on for as long as its stream is open, so it was not ended.
        (_, parent) = service.store.clients(*PLACE, now=service.clock())
        status = 0 if (parent.expires_at - service.clock()).total_seconds() > 60 else 2
    service.close()
    sys.exit(os.waitstatus_to_exitcode(status) if status > 255 else status)


if __name__ == "__main__":
    main(sys.argv[1])
