"""What is decided before any service sees a request: open mode's rules, origins, health, metrics.

In open mode whoever reaches the port may do everything, so it must be unreachable for web pages and other
machines: the peer is loopback, the Host is a loopback name (DNS rebinding), nothing was forwarded, and a browser's
Origin is the server's own, or it says that the request comes from no other site.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from rheostat.errors import AuthenticationError, PermissionDeniedError, UnavailableError
from rheostat.server.metrics import exposition
from rheostat.server.screen import Refusal, screen
from rheostat.service import Service
from rheostat.service.access import Permission, authenticate
from rheostat.wire.error import error_json, to_connect

__all__ = ["Answer", "Gate", "Incoming"]

_LOOPBACK_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_FORWARDING: Final = ("forwarded", "x-forwarded-", "x-real-ip")
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""The values of Sec-Fetch-Site that are not another page's: ``none`` is the user's own doing."""

_ALLOWED_HEADERS: Final = (
    "authorization, content-type, connect-protocol-version, connect-timeout-ms, x-user-agent, "
    "connect-accept-encoding, connect-content-encoding, accept-encoding, content-encoding, "
    # Of OFREP.
    "x-api-key, if-none-match, x-rheostat-project, x-rheostat-environment"
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as the gate sees it.

    Attributes:
        method: HTTP method.
        path: Below the mount point.
        peer: The peer's address; empty when the application server gives none (a unix socket).
        scheme: ``http`` or ``https``.
        headers: Lower-case names.
        query: As it came.
        trailers: The application server can send trailers.
    """

    method: str
    path: str
    peer: str
    scheme: str
    headers: Mapping[str, str]
    query: bytes = b""
    trailers: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that the gate gives itself."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = field(default=())

    @classmethod
    def json(cls, status: int, content: Mapping[str, object], *headers: tuple[str, str]) -> Answer:
        """Make an answer in JSON."""
        return cls(
            status,
            json.dumps(content, separators=(",", ":")).encode(),
            (("content-type", "application/json"), ("cache-control", "no-store"), *headers),
        )


class Gate:
    """Decides about requests before the services do. Safe from any thread."""

    def __init__(self, service: Service, *, open_: bool, allow_origins: tuple[str, ...] = ()) -> None:
        """Make a gate.

        Args:
            service: For health.
            open_: Open mode: no keys, loopback only.
            allow_origins: Origins of web pages that may call, such as ``https://admin.example.com``.
        """
        self._service = service
        self._open = open_
        self._allow_origins = frozenset(allow_origins)

    def answer(self, incoming: Incoming) -> Answer | None:
        """Return the gate's own answer, or None to let the request on to the services."""
        if self._open and (reason := self._why_refused(incoming)) is not None:
            message = f"this server runs open, without keys, for this machine only: {reason}"
            return self._refusal(Refusal(403, PermissionDeniedError(message, reason="NOT_LOCAL")))
        origin = incoming.headers.get("origin")
        if origin in self._allow_origins and incoming.method == "OPTIONS":
            return Answer(
                204,
                b"",
                (
                    *self.cors(incoming),
                    ("access-control-allow-methods", "GET, POST"),
                    ("access-control-allow-headers", _ALLOWED_HEADERS),
                    ("access-control-max-age", "7200"),
                ),
            )
        match incoming.path:
            case "/healthz":
                return Answer.json(200, {"status": "ok"})
            case "/readyz":
                return self._readiness()
            case "/metrics":
                return self._metrics(incoming)
            case _:
                return None

    def screened(self, incoming: Incoming) -> Answer | None:
        """Return the answer to a call that the services cannot take as HTTP, or None when they can."""
        refusal = screen(
            incoming.method, incoming.path, incoming.query, incoming.headers, trailers=incoming.trailers
        )
        return None if refusal is None else self._refusal(refusal, *self.cors(incoming))

    def _refusal(self, refusal: Refusal, *headers: tuple[str, str]) -> Answer:
        return Answer(
            refusal.status,
            error_json(to_connect(refusal.error)),
            (
                ("content-type", "application/json"),
                ("cache-control", "private, no-store"),
                ("x-request-id", self._service.randomness(8).hex()),
                *refusal.headers,
                *headers,
            ),
        )

    def cors(self, incoming: Incoming) -> tuple[tuple[str, str], ...]:
        """Return the headers that let an allowed origin read the answer."""
        origin = incoming.headers.get("origin")
        if origin is None or origin not in self._allow_origins:
            return ()
        return (
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", "x-request-id, retry-after, etag"),
            ("vary", "Origin"),
        )

    @property
    def stale_seconds(self) -> float | None:
        """How old the state is; None on a node that reads the store itself."""
        return None

    @property
    def redis_seconds(self) -> float | None:
        """For how long Redis may not have held the state; None where none is written."""
        return None

    def _metrics(self, incoming: Incoming) -> Answer:
        """Answer with the node's counts; any key but a public one may read them, since they name nothing."""
        if incoming.method not in ("GET", "HEAD"):
            return Answer(405, b"", (("allow", "GET, HEAD"),))
        service = self._service
        if not self._open:
            try:
                state = service.head.state
                authenticate(state, incoming.headers.get("authorization"), service.clock()).require(
                    Permission.WATCH
                )
            except AuthenticationError as exc:
                return self._refusal(Refusal(401, exc), ("www-authenticate", "Bearer"))
            except PermissionDeniedError as exc:
                return self._refusal(Refusal(403, exc))
            except Exception:  # noqa: BLE001 - whatever it is, no key can be checked; the log has it
                return self._refusal(Refusal(503, UnavailableError("the keys cannot be read now")))
        body, content_type = exposition(
            service,
            incoming.headers.get("accept", ""),
            stale_seconds=self.stale_seconds,
            redis_seconds=self.redis_seconds,
        )
        return Answer(200, body, (("content-type", content_type), ("cache-control", "private, no-store")))

    def _readiness(self) -> Answer:
        service = self._service
        if service.draining:
            return Answer.json(503, {"status": "draining"}, ("retry-after", "5"))
        try:
            head = service.head
        except Exception:  # noqa: BLE001 - whatever it is, this node is not ready; the log has it
            return Answer.json(503, {"status": "unavailable"}, ("retry-after", "1"))
        return Answer.json(
            200,
            {"status": "ready", "revision": head.revision, "generation": head.identity.generation},
        )

    def _why_refused(self, incoming: Incoming) -> str | None:
        if not incoming.peer:
            # A unix socket: most often a proxy is behind it, and lets in the whole network.
            return "the caller has no address, as on a unix socket"
        if not _is_loopback(incoming.peer):
            return "the caller is on another machine"
        if _LOOPBACK_HOST.fullmatch(incoming.headers.get("host", "")) is None:
            return "the Host header is not a loopback name"
        forwarded = next((name for name in incoming.headers if name.startswith(_FORWARDING)), None)
        if forwarded is not None:
            return f"the request came through a proxy ({forwarded})"
        origin = incoming.headers.get("origin")
        if origin in self._allow_origins:
            return None
        if origin is not None and not _is_own(origin, incoming):
            return "the Origin is another site"
        # The GET of an image or a script carries no Origin.
        if incoming.headers.get("sec-fetch-site", "none").lower() not in _OWN_SITES:
            return "the browser says that it comes from another site"
        return None


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_own(origin: str, incoming: Incoming) -> bool:
    parts = urlsplit(origin)
    return (
        parts.scheme == incoming.scheme and parts.netloc.lower() == incoming.headers.get("host", "").lower()
    )
