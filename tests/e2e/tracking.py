"""What each of several processes does in the tests of events. It imports little, as spawned processes do so anew."""

from __future__ import annotations

from rheostat import Client

__all__ = ["track"]


def track(url: str, company: str, count: int) -> None:
    """Track events and end, without `close`."""
    client = Client(url, event_interval=3600.0)
    client.start(timeout=60.0)
    for _ in range(count):
        client.track("call", company={"id": company})
