"""The applications that the tests serve. Run as a program, it is what ``rheostat serve`` runs.

They are told by environment variables: ``RHEOSTAT_TEST_STORE`` (a URL), ``RHEOSTAT_TEST_HEARTBEAT`` (seconds) and
``RHEOSTAT_TEST_OPEN`` (``0`` demands keys). The history of the setting ``faulty``, and a watch that is filtered to it,
raise what nobody expects.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rheostat.server import ServeConfig, asgi_app, serve, wsgi_app
from rheostat.service import Service
from rheostat.store import open_store

service = Service(
    open_store(os.environ["RHEOSTAT_TEST_STORE"]),
    heartbeat=float(os.environ.get("RHEOSTAT_TEST_HEARTBEAT", "15")),
)
_UNEXPECTED = "cannot read /srv/secret/rheostat.db with the password hunter2"
OPEN = os.environ.get("RHEOSTAT_TEST_OPEN", "1") == "1"

_history, _watch = service.store.history, service.watch


def _faulty_history(*, key: str | None = None, **others: Any) -> Any:
    if key == "faulty":
        raise RuntimeError(_UNEXPECTED)
    return _history(key=key, **others)


def _faulty_watch(options: Any) -> Any:
    if "faulty" in options.filter.names:
        raise RuntimeError(_UNEXPECTED)
    return _watch(options)


service.store.history = _faulty_history  # type: ignore[method-assign]
service.watch = _faulty_watch  # type: ignore[method-assign]

_wsgi = wsgi_app(service, open=OPEN)
_asgi: Any = asgi_app(service, open=OPEN)


def wsgi(environ: Any, start_response: Any) -> Any:
    """The WSGI application, and beside it the number of open watches."""
    if environ["PATH_INFO"] == "/test/watchers":
        start_response("200 OK", [("content-type", "text/plain")])
        return [str(service.admission.open).encode()]
    return _wsgi(environ, start_response)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application, and beside it the number of open watches."""
    if scope["type"] == "http" and scope["path"] == "/test/watchers":
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain")],
            }
        )
        await send({"type": "http.response.body", "body": str(service.admission.open).encode()})
        return
    await _asgi(scope, receive, send)


def _say(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(
        service,
        ServeConfig(port=int(sys.argv[1]), open=None if OPEN else False),
        on_ready=_say,
    )
