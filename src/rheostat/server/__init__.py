"""The server: Connect services over a `rheostat.service.Service`, as WSGI and ASGI applications.

from rheostat.server import open_service, wsgi_app

app = wsgi_app(open_service("sqlite:rheostat.db"))   # closed: every call needs a key
"""

from __future__ import annotations

from rheostat.bridges.ofrep import OfrepOptions
from rheostat.server.asgi import asgi_app
from rheostat.server.serve import ServeConfig, open_service, serve
from rheostat.server.wsgi import wsgi_app

__all__ = ["OfrepOptions", "ServeConfig", "asgi_app", "open_service", "serve", "wsgi_app"]
