"""Running the server by itself, on uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import math
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import uvicorn

from rheostat.bridges.ofrep import OfrepOptions
from rheostat.errors import InvalidArgumentError
from rheostat.server.asgi import asgi_app
from rheostat.server.line import limit_buffers
from rheostat.server.punctual import protocol_of
from rheostat.service import Limits, Service
from rheostat.store import open_store

if TYPE_CHECKING:
    from asgiref.typing import ASGI3Application

__all__ = ["ServeConfig", "check_exposure", "open_service", "run", "serve"]

log = logging.getLogger("rheostat.server")

_LAST_MESSAGES_SECONDS: Final = 0.2
"""What streams get beyond the grace to send their end."""

_GC_THRESHOLD: Final = (200_000, 50, 1_000)
"""With the defaults, 10 000 streams cost a pause of a second and twice the processor time."""


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How `serve` runs.

    Attributes:
        host: Address to bind.
        port: 0 takes a free one.
        open: No keys: None means open on loopback without keys in the store, closed otherwise.
        insecure: Bind another address than loopback although there is no TLS.
        allow_origins: Origins of web pages that may call.
        ofrep: How OFREP is served; None when it is not.
        ssl_certfile: PEM file of the certificate chain.
        ssl_keyfile: PEM file of its key, without a passphrase.
        ssl_client_ca: PEM file of the authorities of which clients need a certificate; None asks for none. Calls
            need their keys all the same.
        backlog: Connections that may wait to be accepted.
        log_level: Of the server's log.
    """

    host: str = "127.0.0.1"
    port: int = 7420
    open: bool | None = None
    insecure: bool = False
    allow_origins: tuple[str, ...] = ()
    ofrep: OfrepOptions | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_client_ca: str | None = None
    backlog: int = 4096
    log_level: str = "info"

    @property
    def tls(self) -> bool:
        """The server speaks TLS."""
        return self.ssl_certfile is not None


def open_service(
    store: str, *, limits: Limits | None = None, webhook_allow_private: bool = False, background: bool = True
) -> Service:
    """Return a service over the store at a URL such as ``sqlite:rheostat.db`` or ``memory:``.

    Args:
        store: The URL.
        limits: Of the node.
        webhook_allow_private: Let webhooks be sent over http and to addresses of private networks.
        background: Tell webhooks of changes, and commit drafts when their time comes.

    Raises:
        InvalidArgumentError: The URL names no store that this version has.
        StoreError: The store cannot be opened.
    """
    return Service(
        open_store(store), limits=limits, webhook_allow_private=webhook_allow_private, background=background
    )


def serve(
    service: Service,
    config: ServeConfig | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: GoAway to all watches, end within 5 s.

    Call it from the main thread. The service is closed at the end.

    Args:
        service: What to serve.
        config: How.
        on_ready: Called with the URL once the port accepts connections.

    Raises:
        InvalidArgumentError: The address is not allowed without keys or TLS.
        OSError: The port is taken.
    """
    config = config or ServeConfig()
    service.start()
    open_ = check_first_start(service, config)
    application = asgi_app(
        service, open=open_, allow_origins=config.allow_origins, ofrep=config.ofrep or False
    )
    run(service, application, config, on_ready=on_ready)


def run(
    service: Service,
    application: ASGI3Application,
    config: ServeConfig,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve *application* as `serve` does, whatever it is of.

    Args:
        service: Drained and closed at the end.
        application: What answers.
        config: How.
        on_ready: Called with the URL once the port accepts connections.

    Raises:
        InvalidArgumentError: The files for TLS are unfit.
        OSError: The port is taken.
    """
    _check_tls(config)
    _raise_open_files()
    sockets = [_bind(config)]
    host, port = sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if config.tls else 'http'}://{shown}:{port}"
    server = _Server(
        uvicorn.Config(
            application,
            loop="auto",
            http=protocol_of(service.limits),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=config.log_level,
            access_log=False,
            # The peer of a request decides about open mode, so no header may replace it.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=service.limits.max_idle_seconds,
            ssl_certfile=config.ssl_certfile,
            ssl_keyfile=config.ssl_keyfile,
            ssl_ca_certs=config.ssl_client_ca,
            ssl_cert_reqs=ssl.CERT_NONE if config.ssl_client_ca is None else ssl.CERT_REQUIRED,
        ),
        service,
        lambda: on_ready(url) if on_ready is not None else None,
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        server.run(sockets=sockets)
    finally:
        service.close()
        for bound in sockets:
            bound.close()


def check_first_start(service: Service, config: ServeConfig) -> bool:
    """Decide whether the server runs open, and refuse what would expose it by mistake.

    Raises:
        InvalidArgumentError: See the text; it names the option that allows it.
    """
    loopback = is_loopback(config.host)
    has_keys = any(key.revoked_at is None for key in service.head.state.keys.values())
    open_ = config.open if config.open is not None else loopback and not has_keys
    if open_ and not loopback:
        raise InvalidArgumentError(
            f"an open server may only bind a loopback address, not {config.host}; create a key first with "
            "'rheostat keys create'",
            reason="OPEN_NEEDS_LOOPBACK",
        )
    if not loopback and not has_keys:
        raise InvalidArgumentError(
            f"binding {config.host} needs keys: create the first one on loopback with 'rheostat keys create'",
            reason="KEYS_NEEDED",
        )
    check_exposure(config)
    if open_:
        log.warning("running OPEN: without keys, everybody on this machine may read and change everything")
    return open_


def check_exposure(config: ServeConfig) -> None:
    """Refuse to send keys over a network in the clear.

    Raises:
        InvalidArgumentError: The text names the option that allows it.
    """
    if not is_loopback(config.host) and not config.tls and not config.insecure:
        raise InvalidArgumentError(
            f"binding {config.host} without TLS would send keys in the clear; give --ssl-certfile and "
            "--ssl-keyfile, or --insecure behind a proxy that speaks TLS",
            reason="TLS_NEEDED",
        )


def is_loopback(host: str) -> bool:
    """Tell whether *host* is a loopback address or name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_tls(config: ServeConfig) -> None:
    """Read the files for TLS, so that what is wrong with them is told before the port is bound.

    Raises:
        InvalidArgumentError: One is missing or unfit.
    """
    if config.ssl_client_ca is not None and not config.tls:
        raise InvalidArgumentError("certificates of clients need TLS: give --ssl-certfile and --ssl-keyfile")
    for name in (config.ssl_certfile, config.ssl_keyfile, config.ssl_client_ca):
        if name is not None and not Path(name).is_file():
            raise InvalidArgumentError(f"there is no file {Path(name).name!r} to read for TLS")
    if config.ssl_certfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase: OpenSSL would ask for one on the terminal, where nobody may be.
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password=lambda: b"")
        if config.ssl_client_ca is not None:
            context.load_verify_locations(config.ssl_client_ca)
    except (ssl.SSLError, OSError) as exc:
        raise InvalidArgumentError(
            "the files for TLS are not PEM files of a certificate chain, its key without a passphrase, and "
            f"authorities of clients: {getattr(exc, 'reason', None) or type(exc).__name__}"
        ) from None


def _raise_open_files() -> None:
    """Allow as many open files as the system lets us: each watch is one, and the usual limit is 1 024."""
    try:
        import resource
    except ImportError:
        # Not on Windows.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems name a hard limit that they do not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        limit_buffers(bound)
        bound.bind((config.host, config.port))
        bound.listen(config.backlog)
    except OSError:
        bound.close()
        raise
    return bound


class _Server(uvicorn.Server):
    """Uvicorn that drains the service first, and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def main_loop(self) -> None:
        """Serve until asked to end, and on until the watches have left: probes and clients are told why."""
        await super().main_loop()
        service = self._service
        # Here, and not in the handler of the signal, which may interrupt whoever holds a lock that this needs.
        service.drain()
        asked = service.monotonic()
        while service.admission.open and not self.force_exit:
            if service.monotonic() > asked + service.drain_grace + _LAST_MESSAGES_SECONDS:
                break
            await asyncio.sleep(_LAST_MESSAGES_SECONDS / 4)
        # What is left of the time is for other requests in progress.
        left = asked + service.drain_grace + 1.0 - service.monotonic()
        self.config.timeout_graceful_shutdown = max(1, math.ceil(left))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask all watches to leave, then end; a second interrupt ends at once.

        Uvicorn's own handler would raise the signal again after its shutdown, which kills the process before the
        store is closed.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
