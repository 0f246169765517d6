// Holds all flags as a web page does, and prints one of them at the beginning and after each change that it hears of.
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";

const [url, key, flag] = process.argv.slice(2);

const provider = new OFREPWebProvider({
  baseUrl: url,
  headers: [["Authorization", `Bearer ${key}`]],
  cacheMode: "disabled",
  pollInterval: 0,
});
const client = OpenFeature.getClient();
const tell = (changed: string[]) =>
  console.log(JSON.stringify({ changed, details: client.getNumberDetails(flag, 0) }));

await OpenFeature.setContext({ targetingKey: "u-1", region: "eu" });
await OpenFeature.setProviderAndWait(provider);
client.addHandler(ProviderEvents.ConfigurationChanged, (event) => tell(event?.flagsChanged ?? []));
tell([]);
