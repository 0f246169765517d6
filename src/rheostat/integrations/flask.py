"""Flask: each request reads one revision, in a context of its own.

::

    app = Flask(__name__)
    Rheostat(app, client=client, context=context_of)
"""

from __future__ import annotations

from typing import Any, Final

from rheostat.errors import InvalidArgumentError, MissingDependencyError
from rheostat.integrations.request import ContextOf, Request, checked_client, context_from
from rheostat.sdk.reader import Reader

try:
    from flask import Flask, Response, request
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[flask]'"
    ) from exc

__all__ = ["Rheostat"]

_KEY: Final = "rheostat.request"


class Rheostat:
    """The extension: a request reads one revision from its first read to the last byte of its response.

    It holds nothing of an application, and so serves several. ``app.extensions["rheostat"]`` is the client.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        client: Reader[Any] | None = None,
        context: ContextOf | None = None,
    ) -> None:
        """Take what applications get that do not say otherwise, and set up *app*; see `init_app`."""
        self._client = client
        self._context = context
        if app is not None:
            self.init_app(app)

    def init_app(
        self, app: Flask, *, client: Reader[Any] | None = None, context: ContextOf | None = None
    ) -> None:
        """Set up *app*. Functions that it has before each request already run outside of the request's context.

        Args:
            app: The application.
            client: None: the extension's, else ``app.config["RHEOSTAT_CLIENT"]``.
            context: Called with the request, and returns its attributes. What it raises is logged, and the request
                goes on without. None: the extension's, else ``app.config["RHEOSTAT_CONTEXT"]``; without any,
                nothing about a request is used.

        Raises:
            InvalidArgumentError: There is no client.
        """
        # An empty client is false.
        given = [
            each for each in (client, self._client, app.config.get("RHEOSTAT_CLIENT")) if each is not None
        ]
        if not given:
            raise InvalidArgumentError(
                "the extension has no client: pass client=, or set RHEOSTAT_CLIENT in the application's config"
            )
        reader = checked_client(given[0], "the client of the Flask extension")
        context_of = context or self._context or app.config.get("RHEOSTAT_CONTEXT")
        app.extensions["rheostat"] = reader

        def enter() -> None:
            if _KEY not in request.environ:
                entered = request.environ[_KEY] = Request(reader, context_from(context_of, request))
                entered.enter()

        def stream(response: Response) -> Response:
            entered = request.environ.get(_KEY)
            if entered is not None and response.is_streamed and not response.direct_passthrough:
                response.response = entered.streamed(response.response)
            return response

        def leave(_: BaseException | None) -> None:
            entered = request.environ.pop(_KEY, None)
            if entered is not None:
                entered.leave()

        app.before_request(enter)
        app.after_request(stream)
        app.teardown_request(leave)
