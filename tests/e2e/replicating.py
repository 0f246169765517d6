"""A relay that writes to Redis with a short heartbeat, as a program: the addresses are its arguments."""

from __future__ import annotations

import os
import sys

from rheostat.relay.relay import Relay
from rheostat.relay.replicator import Replicator
from rheostat.relay.serve import serve_relay
from rheostat.server import ServeConfig


def _say(url: str) -> None:
    sys.stdout.write(f"ready at {url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    upstream, redis, seconds = sys.argv[1:]
    with Relay([upstream], os.environ["RHEOSTAT_KEY"], heartbeat=float(seconds)) as relay:
        replicator = Replicator(relay, redis)
        replicator.start()
        serve_relay(relay, ServeConfig(port=0), on_ready=_say)
