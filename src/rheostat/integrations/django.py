"""Django: each request reads one revision, in a context of its own.

::

    MIDDLEWARE = [..., "rheostat.integrations.django.RheostatMiddleware"]
    RHEOSTAT_CLIENT = "shop.configuration.client"
    RHEOSTAT_CONTEXT = "shop.configuration.context_of"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rheostat.errors import InvalidArgumentError, MissingDependencyError
from rheostat.integrations.request import ContextOf, Request, checked_client, context_from
from rheostat.sdk.reader import Reader

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.http import FileResponse
    from django.utils.module_loading import import_string
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[django]'"
    ) from exc

__all__ = ["RheostatMiddleware"]


class RheostatMiddleware:
    """Middleware: a request reads one revision from its first read to the last byte of its response.

    For WSGI and ASGI, views of both kinds and streaming responses. Put it behind the middleware whose work the
    context needs, such as `AuthenticationMiddleware`.

    Settings:

    - ``RHEOSTAT_CLIENT``: the client, or the dotted path of it or of a function that returns it.
    - ``RHEOSTAT_CONTEXT``: a function that is called with the request and returns its attributes, or its dotted
      path. What it raises is logged, and the request goes on without. Without one, nothing about a request is used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        """Wrap *get_response*.

        Raises:
            ImproperlyConfigured: ``RHEOSTAT_CLIENT`` is missing, or one of the settings is something else.
        """
        self._get_response = get_response
        self._client = _client()
        self._context = _context()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Return the response; awaitable where the rest of the chain is."""
        entered = Request(self._client, context_from(self._context, request))
        if self._is_async:
            return self._answered(request, entered)
        with entered.entered():
            response = self._get_response(request)
        return _streaming_within(response, entered)

    async def _answered(self, request: Any, entered: Request) -> Any:
        with entered.entered():
            response = await self._get_response(request)
        return _streaming_within(response, entered)


def _streaming_within(response: Any, entered: Request) -> Any:
    # A file reads no settings, and its server may send it in a faster way.
    if getattr(response, "streaming", False) and not isinstance(response, FileResponse):
        content = response.streaming_content
        within = entered.streamed_async if response.is_async else entered.streamed
        response.streaming_content = within(content)
    return response


def _client() -> Reader[Any]:
    found = _imported("RHEOSTAT_CLIENT")
    if found is None:
        raise ImproperlyConfigured("RheostatMiddleware needs the setting RHEOSTAT_CLIENT")
    if not isinstance(found, Reader) and callable(found):
        found = found()
    try:
        return checked_client(found, "the setting RHEOSTAT_CLIENT")
    except InvalidArgumentError as exc:
        raise ImproperlyConfigured(exc.message) from None


def _context() -> ContextOf | None:
    found: ContextOf | None = _imported("RHEOSTAT_CONTEXT")
    if found is not None and (not callable(found) or inspect.iscoroutinefunction(found)):
        raise ImproperlyConfigured(f"the setting RHEOSTAT_CONTEXT is {found!r}, and no plain function")
    return found


def _imported(name: str) -> Any:
    """Return the setting *name*, imported where it is a dotted path."""
    found = getattr(settings, name, None)
    if not isinstance(found, str):
        return found
    try:
        return import_string(found)
    except ImportError as exc:
        raise ImproperlyConfigured(f"the setting {name} cannot be imported: {exc}") from exc
