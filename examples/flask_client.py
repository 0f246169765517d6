"""A Flask application that reads its settings from a server: flask --app flask_client run

Each request has a context of its own, which every read in it sees, and reads one revision from its beginning to its
end. The server is at RHEOSTAT_URL, http://127.0.0.1:7420 unless that is set.
"""

from __future__ import annotations

import os

from flask import Flask, Request

from rheostat import Client, Setting
from rheostat.integrations.flask import Rheostat

timeout = Setting("checkout.timeout", float, default=2.5, version="1.2", alias="payment.timeout")

# Made at import, started by the first read of each worker: also right with gunicorn's --preload.
client: Client = Client(
    os.environ.get("RHEOSTAT_URL", "http://127.0.0.1:7420"),
    project="shop",
    environment="production",
    settings=[timeout],
)


def context_of(request: Request) -> dict[str, object]:
    return {
        "region": request.headers.get("x-region"),
        "user": {"plan": request.headers.get("x-plan", "free")},
    }


app = Flask(__name__)
Rheostat(app, client=client, context=context_of)


@app.get("/")
def index() -> str:
    return f"the time-out is {timeout.get()}, says revision {client.revision}\n"
