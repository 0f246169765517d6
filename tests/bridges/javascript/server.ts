// Asks for flags as a server does: prints what OpenFeature's SDK makes of each answer, one JSON object a line.
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature } from "@openfeature/server-sdk";

const [url, key] = process.argv.slice(2);

const headers: [string, string][] = [["X-API-Key", key]];
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: url, headers }));
const client = OpenFeature.getClient();
const context = { targetingKey: "u-1", region: "eu" };

for (const details of [
  await client.getBooleanDetails("banner", false, context),
  await client.getBooleanDetails("banner", true, { region: "us" }),
  await client.getStringDetails("color", "none", context),
  await client.getNumberDetails("ratio", 0, context),
  await client.getObjectDetails("theme", {}, context),
  await client.getObjectDetails("tags", [], context),
  await client.getStringDetails("banner", "none", context),
  await client.getBooleanDetails("unknown", true, context),
  await client.getObjectDetails("nothing", { none: true }, context),
]) {
  console.log(JSON.stringify(details));
}
await OpenFeature.close();
