// Calls functions as an application does: with the OSDK, and with the platform clients of npm.
import { createClient, createPlatformClient } from "@osdk/client";
import { __EXPERIMENTAL__NOT_SUPPORTED_YET__executeStreamingFunction as streaming } from "@osdk/api/unstable";
import { Queries } from "@osdk/foundry.functions";
import { OntologiesV2, Queries as OntologyQueries, QueryTypes } from "@osdk/foundry.ontologies";

const [url, token, ontology] = JSON.parse(process.argv[2]);
const client = createClient(url, ontology, async () => token);
const platform = createPlatformClient(url, async () => token);
const query = (apiName, fixed) => ({ type: "query", apiName, version: "0.0.0", isFixedVersion: fixed, osdkMetadata: { extraUserAgent: "" } });
const big = "1152921504606846977";

async function refusal(call) {
  try {
    return { value: await call };
  } catch (error) {
    return { name: error.errorName ?? error.name, code: error.errorCode, status: error.statusCode, parameters: error.parameters, message: error.message };
  }
}

// The OSDK asks for the types of a query and for its value at the same time, and forgets one of two errors.
process.on("unhandledRejection", () => {});
const found = {};
found.summary = await client(query("summarize", true)).executeFunction({
  orders: [{ item: "apple", amount: big, at: "2026-01-02T03:04:05Z" }],
  prices: { apple: 0.5 },
  stock: { 3: { a: big }, 4: {} },
  days: { "2026-01-02": new Set(["x"]) },
});
found.metadata = await client.fetchMetadata(query("summarize", false));
found.failed = await refusal(client(query("fail", false)).executeFunction());
found.unknown = await refusal(client(query("sumarize", false)).executeFunction());
found.flags = await refusal(client(query("flags", false)).executeFunction());
found.nothing = await refusal(client(query("nothing", false)).executeFunction());
found.streamed = [];
for await (const item of client(streaming).executeStreamingFunction(query("prices", false), { limit: 2 })) {
  found.streamed.push(item);
}
found.ontologies = await OntologiesV2.list(platform);
found.full = Object.keys((await OntologiesV2.getFullMetadata(platform, "shop")).queryTypes);
found.page = await QueryTypes.list(platform, "shop", { pageSize: 1 });
found.next = (await QueryTypes.list(platform, "shop", { pageToken: found.page.nextPageToken })).data.map((each) => each.displayName);
found.executed = await OntologyQueries.execute(platform, "shop", "prices", { parameters: { limit: 1 } }, { version: "^0.0.0", sdkVersion: "1.2.3" });
found.described = (await Queries.get(platform, "summarize", { preview: true })).apiName;
found.called = await Queries.execute(platform, "prices", { parameters: { limit: 1 } }, { preview: true });
const response = await Queries.streamingExecute(platform, "prices", { parameters: { limit: 2 } }, { preview: true });
found.media = response.headers.get("content-type");
found.lines = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
console.log(JSON.stringify(found));
