"""Follow an environment with the plain generated client: python watch.py [URL]"""

import sys

from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.watch_pb2 import WatchRequest

client = ConfigServiceClientSync(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7420")
for event in client.watch(WatchRequest(project="shop", environment="production")):
    step = event.snapshot_chunk if event.HasField("snapshot_chunk") else event.delta
    for item in step.items:
        print(item.revision, item.kind, item.key, "is gone" if item.deleted else "has changed", flush=True)
