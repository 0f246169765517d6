"""A relay as an application, and on a port of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from rheostat.bridges.ofrep import OfrepOptions
from rheostat.relay.handling import RelayHandlers
from rheostat.relay.relay import Relay
from rheostat.server.asgi import application_of
from rheostat.server.gate import Answer, Gate
from rheostat.server.ofrep import options_of
from rheostat.server.serve import ServeConfig, check_exposure, run

if TYPE_CHECKING:
    from asgiref.typing import ASGI3Application

    from rheostat.server.handler import Handlers
    from rheostat.service import Service

__all__ = ["relay_app", "serve_relay"]

_REASON: Final = re.compile("[A-Z][A-Z0-9_]{1,62}")


class _Gate(Gate):
    """A gate whose readiness tells how old the state is: a relay that is cut off is ready all the same."""

    def __init__(self, relay: Relay, *, allow_origins: tuple[str, ...]) -> None:
        super().__init__(_as_service(relay), open_=False, allow_origins=allow_origins)
        self._relay = relay

    @property
    def stale_seconds(self) -> float | None:
        """How old the state is."""
        return self._relay.stale_seconds

    @property
    def redis_seconds(self) -> float | None:
        """For how long Redis may not have held it."""
        return self._relay.redis_seconds

    def _readiness(self) -> Answer:
        relay = self._relay
        branches = relay.branches
        # No names: everybody may ask.
        state: dict[str, float | str] = {
            "stale_seconds": round(relay.stale_seconds, 3),
            "environments": len(branches),
            "connected": sum(bool(branch.upstream) for branch in branches),
        }
        if relay.redis_seconds is not None:
            state["redis_seconds"] = round(relay.redis_seconds, 3)
        problem = relay.problem
        if problem:
            # What stands between this relay and its upstream could put anything there.
            state["problem"] = problem if _REASON.fullmatch(problem) else "UNKNOWN"
        if relay.draining:
            return Answer.json(503, {"status": "draining", **state}, ("retry-after", "5"))
        if not relay.has_state:
            return Answer.json(503, {"status": "unavailable", **state}, ("retry-after", "1"))
        head = relay.head
        found = {"status": "ready", "revision": head.revision, "generation": head.identity.generation}
        return Answer.json(200, {**found, **state})


def relay_app(
    relay: Relay, *, allow_origins: Iterable[str] = (), ofrep: bool | OfrepOptions = False
) -> ASGI3Application:
    """Return an ASGI application that serves *relay*, which is started on first use and not closed by it.

    Every call needs a key of the store.

    Args:
        relay: What to serve.
        allow_origins: Origins of web pages that may call.
        ofrep: Serve OFREP below ``/ofrep/v1`` too.
    """
    return application_of(
        _as_service(relay),
        # Applications call them by `handle` alone, which refuses what is missing.
        cast("Handlers", RelayHandlers(relay)),
        _Gate(relay, allow_origins=tuple(allow_origins)),
        open_=False,
        ofrep=options_of(ofrep),
    )


def serve_relay(
    relay: Relay, config: ServeConfig | None = None, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain as a node does. Call it from the main thread.

    The relay is closed at the end. The port accepts connections at once; until there is a state, calls are told to
    come back.

    Args:
        relay: What to serve.
        config: How; a relay is never open.
        on_ready: Called with the URL once the port accepts connections.

    Raises:
        InvalidArgumentError: The address is not allowed without TLS.
        OSError: The port is taken.
    """
    config = config or ServeConfig()
    check_exposure(config)
    relay.start()
    application = relay_app(relay, allow_origins=config.allow_origins, ofrep=config.ofrep or False)
    run(_as_service(relay), application, config, on_ready=on_ready)


def _as_service(relay: Relay) -> Service:
    """A relay offers what applications, gates and servers use of a service."""
    return cast("Service", relay)
