"""Which generated application answers which path, the same on ASGI and WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rheostat.server.call import LARGE
from rheostat.service import Limits

__all__ = ["by_prefix"]


def by_prefix(classes: Iterable[Any], make: Callable[[Any, int], Any], limits: Limits) -> dict[str, Any]:
    """Return applications by the prefix of the paths that they answer; the first that fits is the one to call.

    Args:
        classes: The generated classes of applications, one for each service.
        make: Makes an application of a class that reads requests of so many bytes.
        limits: Only whole change-sets may be large.
    """
    found: dict[str, Any] = {}
    for class_ in classes:
        application = make(class_, limits.max_request_bytes)
        prefix = f"{application.path}/"
        methods = [f"/{method}" for method in LARGE if f"/{method}".startswith(prefix)]
        if methods:
            found.update(dict.fromkeys(methods, make(class_, limits.max_commit_bytes)))
        found[prefix] = application
    return found
