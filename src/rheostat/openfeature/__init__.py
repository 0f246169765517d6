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

from rheostat.errors import MissingDependencyError

try:
    from rheostat.openfeature.hook import ExposureHook
    from rheostat.openfeature.provider import AsyncRheostatProvider, RheostatProvider
except ModuleNotFoundError as exc:
    raise MissingDependencyError(
        f"{exc.name} is not installed, which this needs: pip install 'rheostat[openfeature]'"
    ) from exc

__all__ = ["AsyncRheostatProvider", "ExposureHook", "RheostatProvider"]
