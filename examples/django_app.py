"""A Django project in one file, with Rheostat mounted under /config: waitress-serve django_app:application

In a real project `application` stands in wsgi.py. Open for this machine, since it is an example; in production leave
out `open=True` and give each caller a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

from rheostat.evaluation import Context
from rheostat.server import open_service, wsgi_app

settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY="example only")
django.setup(set_prefix=False)

service = open_service(os.environ.get("SHOP_STORE", "sqlite:shop.db"))


def index(_: HttpRequest) -> HttpResponse:
    timeout = service.evaluate("shop", "production", "checkout.timeout", Context({"region": "eu"}))
    return HttpResponse(f"the time-out is {timeout.value}\n", content_type="text/plain")


urlpatterns = [path("", index)]

site = WSGIHandler()
config = wsgi_app(service, open=True)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Give what is below /config to Rheostat, and the rest to Django."""
    path = environ.get("PATH_INFO", "")
    if path.startswith("/config/"):
        moved = {
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + "/config",
            "PATH_INFO": path[len("/config") :],
        }
        return config({**environ, **moved}, start_response)
    return site(environ, start_response)
