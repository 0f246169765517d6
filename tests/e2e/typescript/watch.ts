// A plain generated client as a program: watch.ts URL TOKEN KEY. Speaks with the tests as client.py does.
import { Buffer } from "node:buffer";
import process from "node:process";
import { createInterface } from "node:readline";
import { toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ConfigService } from "@rheostat/rheo/config_service_pb";
import { WatchResponseSchema } from "@rheostat/rheo/watch_pb";

const [url = "", token = "", key = ""] = process.argv.slice(2);
const client = createClient(ConfigService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
const stop = new AbortController();
createInterface({ input: process.stdin }).on("line", () => stop.abort());

try {
  const request = { environment: "production", resume: Buffer.from(token, "base64") };
  const headers = key ? { authorization: `Bearer ${key}` } : undefined;
  for await (const event of client.watch(request, { signal: stop.signal, headers })) {
    console.log("event", Buffer.from(toBinary(WatchResponseSchema, event)).toString("base64"));
  }
  console.log("end");
} catch (error) {
  const { code } = ConnectError.from(error);
  const name = Code[code].replace(/(?<!^)[A-Z]/g, "_$&").toLowerCase();
  console.log(stop.signal.aborted ? "end" : `error ${name}`);
}
