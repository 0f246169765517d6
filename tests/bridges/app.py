"""OFREP on WSGI, as the tests serve it; ``RHEOSTAT_TEST_STORE`` is the URL of the store."""

from __future__ import annotations

import os

from rheostat.server import open_service, wsgi_app

service = open_service(os.environ["RHEOSTAT_TEST_STORE"])
wsgi = wsgi_app(service, ofrep=True)
