"""Read settings with the SDK, and react to changes: python read.py [URL]

Declares three settings, reads them for two customers, and reads again whenever one of them changes. Without a server it
goes on with defaults, and with the server's values from the moment that it is there.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from typing import Any

from rheostat import Client, Setting, SettingChange, ambient


class Checkout:
    """What the checkout reads, with what it does as long as nobody says otherwise."""

    timeout = Setting("checkout.timeout", float, default=2.5, version="1.2", alias="payment.timeout")
    max_items = Setting("checkout.max-items", int, default=50, features=["user.plan"])
    disabled = Setting("payments.disabled-methods", Sequence[str], default=())


@Checkout.timeout.add_validator
def above_zero(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("a time-out is above zero")
    return seconds


def checkout(customer: str) -> str:
    # Deep inside, nobody passes a client or a context around.
    limits = f"{Checkout.timeout.get()} s, at most {Checkout.max_items.get()} articles"
    return f"{customer}: {limits}, not by {Checkout.disabled.get()}"


def show() -> None:
    with ambient(region="eu", user={"plan": "plus"}):
        print(checkout("a subscriber in Europe"), flush=True)
    with ambient(region="apac"):
        print(checkout("somebody in Asia"), flush=True)


def changed(change: SettingChange[Any]) -> None:
    print(f"revision {change.revision}: {change.name} has changed", flush=True)
    show()


def main(url: str) -> None:
    with Client(
        url,
        project="shop",
        environment="production",
        settings=Checkout,
        on_status=lambda status: print("status:", status.value, flush=True),
    ):
        for setting in (Checkout.timeout, Checkout.max_items, Checkout.disabled):
            setting.subscribe(changed)
        show()
        print("Ctrl-C ends", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420")
