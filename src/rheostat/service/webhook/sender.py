"""Sending one message over HTTP, to an address that was looked at first."""

from __future__ import annotations

import contextlib
import http
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from rheostat._version import __version__
from rheostat.errors import InvalidArgumentError
from rheostat.model.webhook import checked_url, is_public

__all__ = ["Attempt", "HttpSender", "Sender"]

_READ_BYTES: Final = 4 * 1024
"""Of an answer's body, which is not looked at: a receiver may not like to be hung up on while it writes."""

_ADDRESSES: Final = 4
"""How many addresses of a name are tried."""

Resolve = Callable[[str, int], Sequence[tuple[int, tuple[str, int]]]]
"""Returns the socket family and the address of each place that a name and port lead to."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a message once.

    Attributes:
        status: The HTTP status; 0 when there was no answer.
        error: What went wrong; empty when the receiver has taken the message.
    """

    status: int = 0
    error: str = ""

    @property
    def taken(self) -> bool:
        """The receiver has taken the message."""
        return not self.error


class Sender(Protocol):
    """Sends messages. Safe from any thread."""

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        """Post *body* to *url* once, within a bounded time, and return what came of it. Never raises."""


class _RefusedError(Exception):
    """The message is not sent; the text says why."""


class HttpSender:
    """Sends over a connection of its own for each message. Safe from any thread.

    The name is resolved once, all its addresses are checked, and the connection is made to one of these: a name that
    leads elsewhere a moment later gains nothing. Redirects are not followed and proxies not used, since either would
    choose the address.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        connect_timeout: float = 5.0,
        timeout: float = 15.0,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a sender.

        Args:
            allow_private: Send to addresses of private networks too, and over plain http.
            connect_timeout: Seconds for a connection.
            timeout: Seconds from the connection to the end of the answer.
            resolve: Looks names up; by default as the system does.
            tls: By default, the system's certificates.
        """
        self._allow_private = allow_private
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._resolve = resolve or _resolve
        self._tls = tls

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        """See `Sender.send`."""
        try:
            return self._sent(url, body, headers)
        except _RefusedError as exc:
            return Attempt(error=str(exc))
        except InvalidArgumentError as exc:
            return Attempt(error=exc.message)
        except ssl.SSLCertVerificationError as exc:
            return Attempt(error=f"the certificate is not trusted: {exc.verify_message}")
        except ssl.SSLError:
            return Attempt(error="no TLS connection can be made")
        except http.client.HTTPException:
            return Attempt(error="the answer is not HTTP, or was cut off")
        except OSError as exc:
            return Attempt(error=(exc.strerror or "the connection failed").lower())
        except ValueError:
            return Attempt(error="the URL cannot be used")

    def _sent(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
        # Again: the server may allow less than when the webhook was made.
        parts = urlsplit(checked_url(url, allow_private=self._allow_private))
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        connected = self._connected(host, parts.port or (443 if secure else 80))
        if secure:
            # Without its handshake, which is to be cut off in time as well.
            connected = self._context().wrap_socket(
                connected, server_hostname=host, do_handshake_on_connect=False
            )
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which would go on in the clear.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

        # A time-out of the socket bounds each read, and not a receiver that sends a byte every few seconds.
        timer = threading.Timer(self._timeout, cut)
        timer.daemon = True
        connected.settimeout(self._timeout)
        timer.start()
        try:
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return _posted(connected, target, parts.netloc, body, headers, late)
        except (OSError, http.client.HTTPException) as exc:
            # Either of the two may come first.
            if late.is_set() or isinstance(exc, TimeoutError):
                raise _RefusedError(f"no answer within {self._timeout:g} s") from None
            raise
        finally:
            timer.cancel()
            connected.close()

    def _connected(self, host: str, port: int) -> socket.socket:
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError):
            raise _RefusedError("the name does not resolve") from None
        if not self._allow_private and not all(is_public(address[0]) for _, address in found):
            raise _RefusedError("the name leads to a private network, which this server does not allow")
        deadline = time.monotonic() + self._connect_timeout
        failure: OSError = OSError("the name has no address")
        for family, address in found[:_ADDRESSES]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(left)
                connection.connect(address)
            except OSError as exc:
                connection.close()
                failure = exc
            else:
                return connection
        if isinstance(failure, TimeoutError):
            raise _RefusedError(f"no connection within {self._connect_timeout:g} s")
        raise failure

    def _context(self) -> ssl.SSLContext:
        # Without a lock: what two threads make at the same time is the same, and a fork would keep it locked.
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _posted(
    connected: socket.socket,
    target: str,
    host: str,
    body: bytes,
    headers: Mapping[str, str],
    late: threading.Event,
) -> Attempt:
    # The connection is made already: this only speaks on it, and nothing of it would follow a redirect.
    connection = http.client.HTTPConnection("unused")
    connection.sock = connected
    said = {"host": host, "user-agent": f"rheostat-webhook/{__version__}", "connection": "close", **headers}
    connection.request("POST", target, body=body, headers=said)
    with connection.getresponse() as response:
        status = response.status
        if late.is_set():
            # Headers that were cut off look as if they had ended.
            raise TimeoutError
        with contextlib.suppress(OSError, http.client.HTTPException):
            response.read(_READ_BYTES)
    if 200 <= status < 300:
        return Attempt(status)
    note = ": redirects are not followed" if 300 <= status < 400 else ""
    return Attempt(status, f"HTTP {status}{_phrase(status)}{note}")


def _phrase(status: int) -> str:
    # Not what the receiver says, which could be anything.
    try:
        return f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _resolve(host: str, port: int) -> Sequence[tuple[int, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # Those of IPv6 have four parts, which are handed on as they are.
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]
