"""FastAPI: the middleware of Starlette, and a dependency.

::

    app.add_middleware(RheostatMiddleware, client=client, context=context_of)

    @app.get("/")
    def index(client: Annotated[Reader, Depends(get_client)]): ...
"""

from __future__ import annotations

from importlib.util import find_spec

from rheostat.errors import MissingDependencyError

if find_spec("fastapi") is None:
    raise MissingDependencyError(
        "fastapi is not installed, which this needs: pip install 'rheostat[fastapi]'"
    )

from rheostat.integrations.starlette import RheostatMiddleware, get_client

__all__ = ["RheostatMiddleware", "get_client"]
