"""A Flask application with Rheostat mounted under /config: flask --app flask_app run

Open for this machine, since it is an example. In production leave out `open=True` and give each caller a key.
"""

from __future__ import annotations

import os

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from rheostat.evaluation import Context
from rheostat.server import open_service, wsgi_app

service = open_service(os.environ.get("SHOP_STORE", "sqlite:shop.db"))
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/config": wsgi_app(service, open=True)})


@app.get("/")
def index() -> str:
    # In the same process a read needs no network.
    timeout = service.evaluate("shop", "production", "checkout.timeout", Context({"region": "eu"}))
    return f"the time-out is {timeout.value}\n"
