"""A WSGI application that answers with what its worker reads: process, client id, value, streams that have begun.

``RHEOSTAT_TEST_START=1`` starts the client where the application is imported: under ``--preload`` that is the parent.
"""

from __future__ import annotations

import os
from typing import Any

from rheostat import Client
from tests.e2e.writing import SETTING

# Address and all from the environment.
client: Client[Any] = Client()
seen: list[str] = []
client.subscribe(SETTING, lambda change: seen.append(f"{change.after}"))
if os.environ["RHEOSTAT_TEST_START"] == "1":
    client.start()


def application(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("content-type", "text/plain"), ("connection", "close")])
    value = client.get(SETTING)
    told = ",".join(seen)
    return [f"{os.getpid()} {client.client_id} {value} {client.status.value} [{told}]".encode()]
