"""Clients after `os.fork`: the child's become its own, and nothing inherited is closed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, Final, Protocol
from weakref import WeakSet

__all__ = ["KEPT", "ForkedClient", "keep", "register", "runs_threads"]

KEPT: Final[list[object]] = []
"""What a child has inherited: connections, threads, sessions.

Closing them there would send the parent's server a TLS close_notify, or take sockets out of an epoll set that both
processes share; so they are kept for good, and forgotten.
"""

log = logging.getLogger("rheostat")

_clients: Final[WeakSet[ForkedClient]] = WeakSet()
_leak: Any = None


class ForkedClient(Protocol):
    """A client as the fork sees it."""

    def after_fork(self) -> None:
        """Become the client of the child process. Runs in the child, before anything else does."""


def register(client: ForkedClient) -> None:
    """Tell *client* of forks for as long as it lives."""
    global _leak  # noqa: PLW0603 - imported once, and not in a child, where another thread's import may hang
    if _leak is None:
        with contextlib.suppress(ImportError, AttributeError):
            import ctypes

            incref = ctypes.pythonapi.Py_IncRef
            _leak = lambda kept: incref(ctypes.py_object(kept))  # noqa: E731 - a name of its own adds nothing
    _clients.add(client)


def keep(inherited: object) -> None:
    """Keep *inherited* until the process has ended, and beyond the clean-up of the interpreter."""
    if not KEPT and _leak is not None:
        # The interpreter clears modules when it ends, and what was kept would be finalized after all.
        _leak(KEPT)
    KEPT.append(inherited)


def runs_threads() -> bool:
    """Whether threads that are started now stay what they are.

    Not where gevent is loaded and has not patched `threading` yet: a server such as gunicorn does so in each worker.
    """
    if "gevent" not in sys.modules:
        return True
    from gevent import monkey

    return bool(monkey.is_module_patched("threading"))


def _after_fork() -> None:
    for client in tuple(_clients):
        try:
            client.after_fork()
        except Exception:
            log.exception("a client has not survived a fork: it serves its last state")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
