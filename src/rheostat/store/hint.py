"""Hints between the processes that serve one SQLite file: an empty datagram means "there may be a commit"."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rheostat.errors import UnavailableError

__all__ = ["HintSocket"]

_ADDRESS_BYTES: Final = 100
"""The longest socket path used as it is; Linux takes 107 bytes, macOS 103."""

_BIND_ATTEMPTS: Final = 5


class HintSocket:
    """Sends hints to, and takes hints from, the other stores that have the same directory.

    Everything here may fail without harm (a read-only directory, a file system without sockets): a hint only
    makes the reader look sooner. Safe from any thread; a hint wakes one of the threads that wait.
    """

    _wake: tuple[socket.socket, ...]
    _receiver: socket.socket | None
    _sender: socket.socket | None

    def __init__(self, directory: Path) -> None:
        """Make it for *directory*, which is made by the first wait; nothing is opened yet."""
        self._directory = directory
        self._lock = threading.Lock()
        self._forget()

    def send(self) -> None:
        """Give a hint to everybody else who has waited in the directory. Never blocks, never raises."""
        # OSError: no directory, because nobody waits; no permission; no descriptors left.
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if path.name != self._name:
                    self._send_to(path.name)

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a hint or for `close`.

        Returns:
            True when a hint came. All that came so far count as one.

        Raises:
            UnavailableError: The process has too many open files.
        """
        with self._lock:
            if self._closed:
                return False
            try:
                wake, receiver = self._open()
            except OSError as exc:
                raise UnavailableError(f"cannot wait for the store: {exc.strerror}") from exc
            self._waiting += 1
        try:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if receiver is not None:
                poll.register(receiver, select.POLLIN)
            ready = {number for number, _ in poll.poll(max(0.0, timeout) * 1000)}
        finally:
            with self._lock:
                self._waiting -= 1
                self._close_if_last()
        return bool(ready - {wake.fileno()}) and self._drain()

    def close(self) -> None:
        """Wake the waiting threads and take the socket away. Idempotent."""
        with self._lock:
            self._closed = True
            if self._wake:
                self._wake[1].send(b"\0")
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            name = self._name
            self._close_if_last()
        if not name:
            return
        with contextlib.suppress(OSError):
            (self._directory / name).unlink()
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def after_fork_in_child(self) -> None:
        """Leave the parent's socket alone and take one of its own at the next wait."""
        closed = self._closed
        for inherited in (self._receiver, self._sender, *self._wake):
            if inherited is not None:
                inherited.close()
        self._lock = threading.Lock()
        self._forget()
        self._closed = closed

    def _forget(self) -> None:
        self._closed = False
        self._name = ""
        self._waiting = 0
        self._wake = ()
        self._receiver = None
        self._sender = None

    def _open(self) -> tuple[socket.socket, socket.socket | None]:
        if not self._wake:
            self._wake = socket.socketpair()
            self._bind()
        return self._wake[0], self._receiver

    def _close_if_last(self) -> None:
        # A socket is closed only when no thread polls it any more: its number may be given out again at once.
        if self._closed and not self._waiting:
            for owned in (self._receiver, *self._wake):
                if owned is not None:
                    owned.close()
            self._receiver = None
            self._wake = ()

    def _bind(self) -> None:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        for _ in range(_BIND_ATTEMPTS):
            try:
                # Another process that ends may remove the directory between the two steps; then once more.
                self._directory.mkdir(exist_ok=True)
                with self._address(name) as address:
                    receiver.bind(address)
            except FileNotFoundError:
                continue
            except OSError:
                break
            self._receiver, self._name = receiver, name
            return
        receiver.close()

    def _drain(self) -> bool:
        with self._lock:
            receiver = self._receiver
            if receiver is None:
                return False
            drained = False
            # BlockingIOError: empty, or another thread was first.
            with contextlib.suppress(BlockingIOError):
                while True:
                    receiver.recv(1)
                    drained = True
            return drained

    def _send_to(self, name: str) -> None:
        with self._lock:
            if self._sender is None:
                if self._closed:
                    return
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sender.setblocking(False)
            sender = self._sender
            try:
                with self._address(name) as address:
                    sender.sendto(b"\0", address)
            except ConnectionRefusedError:
                # Its process has ended without taking it away. Names are never used twice.
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink()
            except OSError:
                # Its queue is full, so it has hints already; or it has just gone, or is not ours to reach.
                return

    @contextlib.contextmanager
    def _address(self, name: str) -> Iterator[str]:
        path = str(self._directory / name)
        if len(os.fsencode(path)) <= _ADDRESS_BYTES:
            yield path
            return
        # Socket addresses are short; on Linux a long directory can be named by a descriptor.
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}/{name}"
        finally:
            os.close(descriptor)
