// Follows an environment with the plain generated client: node watch.ts [URL]
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ConfigService } from "@rheostat/rheo/config_service_pb";

const baseUrl = process.argv[2] ?? "http://127.0.0.1:7420";
const client = createClient(ConfigService, createConnectTransport({ baseUrl, httpVersion: "1.1" }));

for await (const { event } of client.watch({ project: "shop", environment: "production" })) {
  if (event.case !== "snapshotChunk" && event.case !== "delta") continue;
  for (const item of event.value.items) {
    console.log(`${item.revision} ${item.kind} ${item.key} ${item.deleted ? "is gone" : "has changed"}`);
  }
}
