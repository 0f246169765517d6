"""Blocking calls in flight: how another thread ends one, and what ends it at its deadline."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from typing import TYPE_CHECKING

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheostat.sdk.transport.cancellation import entered_scopes
from rheostat.sdk.transport.descriptor import disown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse
    from urllib3._base_connection import BaseHTTPConnection

_RETRY_SECONDS = 0.05
"""How soon a call that could not be woken, because its socket was just being opened, is tried again."""

_IDLE_SECONDS = 5.0
"""How long the thread of a register outlives the last call that it had to watch."""


class Call:
    """One request and its response over a blocking connection.

    The thread that makes the call does so inside `using()`. Any other thread may `cancel()`: it shuts the
    socket down, which wakes the first one, and the connection is closed by whichever of the two is not in the
    middle of using it.
    """

    def __init__(self, register: CallRegister, deadline: float | None) -> None:
        """Create a call of the scopes that the current thread is in.

        Args:
            register: Where the call is listed until it ends.
            deadline: When the call has to have ended, as `time.monotonic()` counts, or None.
        """
        self.deadline = deadline
        self.due = math.inf if deadline is None else deadline
        """When the register next has to wake the call's thread, as `time.monotonic()` counts."""
        self._register = register
        self._scopes = entered_scopes()
        self._in_use = threading.Lock()
        # Held while the socket is shut down or given back to its pool, so that a late `cancel` cannot hit the
        # next call on the connection. Reentrant: the garbage collector may end an abandoned call inside any
        # such block.
        self._guard = threading.RLock()
        self._connection: BaseHTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._response: BaseHTTPResponse | None = None
        self._cancelled = False
        self._ended = False

    def begin(self) -> None:
        """List the call in its register and scopes.

        Raises:
            ConnectError: CANCELED, when the register is closed.
        """
        self._register.add(self)
        for scope in self._scopes:
            scope.enroll(self)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Keep others from closing the connection while this thread uses it; any failure ends the call.

        Raises:
            ConnectError: CANCELED, if the call was cancelled before or during the block.
            TimeoutError: The deadline has passed.
        """
        with self._in_use:
            try:
                self.check()
                yield
                self.check()
            except BaseException as error:
                self._end()
                if isinstance(error, Exception):
                    # What the connection says when it is shut down under its reader is not the reason.
                    self.check()
                raise

    def check(self) -> None:
        """Raise if the call may not go on."""
        if self._cancelled:
            raise ConnectError(Code.CANCELED, "call was cancelled")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            msg = "deadline exceeded"
            raise TimeoutError(msg)

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, above zero, or None without one."""
        if self.deadline is None:
            return None
        self.check()
        return max(self.deadline - time.monotonic(), 0.001)

    def take(self, connection: BaseHTTPConnection) -> None:
        """Note the connection on which the call is made; its socket may not be open yet."""
        with self._guard:
            self._connection = connection

    def connected(self) -> None:
        """Note the socket, now that it is open: a response with `connection: close` takes it out of reach."""
        with self._guard:
            self._socket = self._open_socket()
        self.check()

    @contextlib.contextmanager
    def giving_back(self) -> Iterator[None]:
        """Forget the connection while its pool takes it back."""
        with self._guard:
            self._connection = None
            self._socket = None
            yield

    def answered(self, response: BaseHTTPResponse) -> None:
        """Note the response, from whose body the connection comes free."""
        self._response = response

    def wait_at_most(self, seconds: float | None) -> None:
        """Bound each further wait for bytes, by `seconds` and by the deadline."""
        remaining = self.remaining()
        if remaining is not None:
            seconds = remaining if seconds is None else min(seconds, remaining)
        with self._guard:
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def finish(self) -> None:
        """Note that the response was read to its end and the connection was given back."""
        with self._in_use:
            self._end()

    def cancel(self) -> None:
        """End the call from any thread; returns at once."""
        self._cancelled = True
        self.interrupt()
        if not self._ended:
            self._register.hurry(self)

    def interrupt(self) -> None:
        """Wake the thread that waits on the connection; if there is none, close the connection."""
        with self._guard:
            self._shut_down()
        if self._in_use.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._in_use.release()

    def disown(self) -> None:
        """Leave the call to the parent process, after a fork: nothing that is done to it here reaches its connection.

        Takes no lock, because a thread of the parent may have held any.
        """
        self._cancelled = True
        opened = self._socket or self._open_socket()
        if opened is not None:
            disown(getattr(opened, "socket", opened).fileno())

    def _shut_down(self) -> None:
        opened = self._socket or self._open_socket()
        if opened is None:
            return
        # TLS inside TLS (a proxy's) is a wrapper around the socket.
        plain: socket.socket = getattr(opened, "socket", opened)
        with contextlib.suppress(OSError):
            # Not the method of SSLSocket: it drops the TLS state, and the reader would take ciphertext for
            # its answer.
            socket.socket.shutdown(plain, socket.SHUT_RDWR)

    def _open_socket(self) -> socket.socket | None:
        # An attribute of every `http.client.HTTPConnection`, though not of urllib3's protocol for
        # connections.
        return getattr(self._connection, "sock", None)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        response, self._response = self._response, None
        if response is not None:
            # After a complete response both do nothing. Otherwise the connection is closed, and what goes
            # back to the pool is only its place: unread bytes on it would be taken for the next call's
            # answer.
            response.close()
            response.release_conn()
        for scope in self._scopes:
            scope.dismiss(self)
        self._register.discard(self)


class CallRegister:
    """The calls in flight over one transport, and the thread that wakes those whose time has come.

    Sockets have time-outs of their own, but these start anew with every byte: a server that sends a byte now
    and then would keep a call for ever. The thread runs only while some call has a deadline or is being
    cancelled. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: set[Call] = set()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf
        self._closed = False

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """List a call.

        Raises:
            ConnectError: CANCELED, when the register is closed.
        """
        with self._changed:
            if self._closed:
                raise ConnectError(Code.CANCELED, "transport is closed")
            self._calls.add(call)
            if call.due < math.inf:
                self._watch(call.due)

    def discard(self, call: Call) -> None:
        """Forget a call that has ended."""
        with self._changed:
            self._calls.discard(call)

    def hurry(self, call: Call) -> None:
        """Keep waking the call's thread until the call has ended."""
        with self._changed:
            call.due = time.monotonic() + _RETRY_SECONDS
            self._watch(call.due)

    def cancel_all(self) -> None:
        """Cancel every call in flight."""
        with self._changed:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def close(self) -> None:
        """Refuse further calls and cancel those in flight."""
        with self._changed:
            self._closed = True
        self.cancel_all()

    def disown(self) -> None:
        """Leave all calls to the parent process, after a fork."""
        self._closed = True
        for call in tuple(self._calls):
            call.disown()

    def _watch(self, due: float) -> None:
        # A thread does not survive `fork`; the child's first call starts its own.
        if self._thread is None or not self._thread.is_alive():
            self._wakes_at = due
            thread = threading.Thread(target=self._wake_overdue, name="rheostat-calls", daemon=True)
            # The interpreter may be shutting down: the time-outs of the sockets remain.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        elif due < self._wakes_at:
            self._changed.notify()

    def _wake_overdue(self) -> None:
        while (overdue := self._await_overdue()) is not None:
            for call in overdue:
                call.interrupt()

    def _await_overdue(self) -> list[Call] | None:
        with self._changed:
            while True:
                # A copy: the garbage collector may end a call, and so shrink the set, in the middle of a loop
                # over it.
                calls = list(self._calls)
                now = time.monotonic()
                overdue = [call for call in calls if call.due <= now]
                for call in overdue:
                    call.due = now + _RETRY_SECONDS
                if overdue:
                    return overdue
                self._wakes_at = min((call.due for call in calls), default=math.inf)
                if self._wakes_at < math.inf:
                    self._changed.wait(self._wakes_at - now)
                elif not self._changed.wait(_IDLE_SECONDS) and all(
                    call.due == math.inf for call in list(self._calls)
                ):
                    self._thread = None
                    return None
