"""Descriptors of sockets that a child process has inherited."""

from __future__ import annotations

import _socket
import contextlib
import os

__all__ = ["disown"]


def disown(descriptor: int) -> None:
    """Put a connection that has ended under the number of an inherited one, in this process alone.

    Whatever is done to the socket here then does not reach the parent's connection: reading finds an end, and shutting
    down, a TLS goodbye or taking it out of an epoll set, which both processes share, have no effect. Nor does the
    server wait for this process when the parent hangs up.
    """
    if descriptor < 0:
        return
    # Not `socket.socketpair`, whose sockets would be known to gevent before it knows of the fork.
    ours, other = _socket.socketpair()
    with contextlib.suppress(OSError):
        os.dup2(ours.fileno(), descriptor, inheritable=False)
    ours.close()
    other.close()
