"""Read settings as flags of OpenFeature, and react to changes: python flags.py [URL]

Asks for two customers, and again whenever a flag has changed. Writes who was given what to files below exposures/.
"""

from __future__ import annotations

import contextlib
import sys
import threading

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent

from rheostat.integrations.ndjson import NdjsonWriter
from rheostat.openfeature import ExposureHook, RheostatProvider

CUSTOMERS = {
    "a subscriber in Europe": EvaluationContext("customer-7", {"region": "eu", "user": {"plan": "plus"}}),
    "somebody in Asia": EvaluationContext("customer-8", {"region": "apac"}),
}


def show() -> None:
    flags = api.get_client()
    for who, customer in CUSTOMERS.items():
        timeout = flags.get_float_details("checkout.timeout", 2.5, customer)
        guest = flags.get_boolean_value("checkout.guest", False, customer)
        print(f"{who}: {timeout.value} s ({timeout.reason}), as a guest: {guest}", flush=True)


def changed(details: EventDetails) -> None:
    print("changed:", ", ".join(details.flags_changed or ()), flush=True)
    show()


def main(url: str) -> None:
    provider = RheostatProvider(url, project="shop", environment="production")
    with NdjsonWriter("exposures/exposures.ndjson") as writer:
        api.add_hooks([ExposureHook(writer, attributes=["region", "user.plan"])])
        api.set_provider_and_wait(provider)
        api.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, changed)
        show()
        print("Ctrl-C ends", flush=True)
        try:
            threading.Event().wait()
        finally:
            api.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420")
