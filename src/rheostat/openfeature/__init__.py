"""OpenFeature: settings as the flags of its SDK for Python.

Needs the extra `openfeature`.

::

    from openfeature import api
    from rheostat.openfeature import RheostatProvider

    api.set_provider_and_wait(RheostatProvider("http://127.0.0.1:7420", key="rst_…"))
    api.get_client().get_boolean_value("checkout.new", False, EvaluationContext("user-1"))

Evaluation is local, as it is everywhere in the SDK: no flag waits for the network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from rheostat.errors import MissingDependencyError

if TYPE_CHECKING:
    from rheostat.openfeature.aio import AsyncRheostatProvider
    from rheostat.openfeature.hook import ExposureHook
    from rheostat.openfeature.sync import RheostatProvider

try:
    import openfeature.exception  # noqa: F401 - to say at once that it is not there
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[openfeature]'"
    ) from exc

__all__ = ["AsyncRheostatProvider", "ExposureHook", "RheostatProvider"]

# Imported when they are first used: programs with threads do without aiohttp.
_HOMES: Final = {
    "AsyncRheostatProvider": "rheostat.openfeature.aio",
    "ExposureHook": "rheostat.openfeature.hook",
    "RheostatProvider": "rheostat.openfeature.sync",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
