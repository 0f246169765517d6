"""A node that forks, as a pre-forking server does: its child answers, sees later commits, and writes itself.

Run as a program with the path of the store; it ends with 0 when all of that worked.
"""

from __future__ import annotations

import os
import sys
import threading

from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.service.book import put

WRITER = Writer(OPEN)


def arrived(service: Service, revision: int) -> bool:
    """Wait until the node's own tail has read a revision."""
    while service.head.revision < revision:
        bell = service.hub.bell
        if service.head.revision < revision:
            service.hub.wait(bell, 20.0)
    return True


def commit(service: Service, name: str) -> int:
    return service.commit(WRITER, "default", "production", [put(name)]).revision


def child(service: Service, ready: int) -> None:
    assert service.head.revision == 2
    assert not service.admission.open
    os.write(ready, b"1")
    assert arrived(service, 3)
    assert service.view("default", "production").snapshot.setting("by-parent") is not None
    assert commit(service, "by-child") == 4
    service.close()


def main(path: str) -> None:
    service = Service(open_store(path)).start()
    commit(service, "before")
    reading, ready = os.pipe()
    # Another thread holds the node's lock at the moment of the fork.
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with service._lock:
            held.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            child(service, ready)
            status = 0
        finally:
            os._exit(status)
    release.set()
    holder.join()
    os.read(reading, 1)
    assert commit(service, "by-parent") == 3
    assert arrived(service, 4)
    assert service.view("default", "production").snapshot.setting("by-child") is not None
    _, status = os.waitpid(pid, 0)
    service.close()
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1])
