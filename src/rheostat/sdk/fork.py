"""Clients after `os.fork`: the child's become its own, and nothing inherited is closed."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["KEPT", "ForkedClient", "register"]

KEPT: Final[list[object]] = []
"""What a child has inherited: connections, threads, sessions.

Closing them there would send the parent's server a TLS close_notify, or take sockets out of an epoll set that both
processes share; so they are kept for good, and forgotten.
"""


is_child = False
"""Whether this process was forked since the SDK was imported."""


class ForkedClient(Protocol):
    """A client as the fork sees it."""

    def after_fork(self) -> None:
        """Become the client of the child process. Runs in the child, before anything else does."""


_clients: Final[WeakSet[ForkedClient]] = WeakSet()


def register(client: ForkedClient) -> None:
    """Tell *client* of forks for as long as it lives."""
    _clients.add(client)


def _after_fork() -> None:
    global is_child  # noqa: PLW0603 - a process is a child for good
    is_child = True
    for client in tuple(_clients):
        client.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
