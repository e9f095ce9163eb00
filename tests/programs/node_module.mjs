// A compute module as its author would write it, with the official TypeScript SDK.
import { ComputeModule, FoundryService } from "@palantir/compute-module";
import { Type } from "@sinclair/typebox";
import { existsSync } from "node:fs";

const module = new ComputeModule({
  logger: console,
  definitions: {
    addOne: { input: Type.Object({ value: Type.Integer() }), output: Type.Integer() },
    echo: { input: Type.Object({}), output: Type.String() },
    keep: { input: Type.Object({ settings: Type.Object({}) }), output: Type.Object({}) },
  },
});

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

module
  .register("addOne", async ({ value }) => value + 1)
  .register("echo", async (query) => query)
  .register("keep", async ({ settings }) => settings)
  .register("who", async () => process.pid)
  .register("slow", async ({ seconds }) => { await sleep(1000 * seconds); return process.pid; })
  .register("reachThePlatform", async () => {
    const answer = await fetch(`https://${process.env.RUNTIME_API}/_emulate/health`);
    const services = [FoundryService.API_GATEWAY, FoundryService.STREAM_PROXY, FoundryService.MIO];
    const apis = services.map((service) => module.getServiceApi(service));
    const queries = await fetch(`${apis[0]}/v2/functions/queries/addOne`);
    return [(await answer.json()).status, queries.status, ...apis];
  })
  .register("fail", async () => { throw new TypeError("it failed"); })
  .register("never", () => new Promise(() => {}))
  .register("large", async ({ size }) => "x".repeat(size))
  .registerStreaming("count", async ({ to, until }, writable) => {
    for (let number = 0; number < to; number++) {
      writable.write(JSON.stringify(String(number)));
      while (until && !existsSync(until)) await sleep(10);
    }
    writable.end();
  })
  .registerStreaming("talk", async (_, writable) => {
    writable.write("Hello, ");
    writable.end("wörld");
  });

if (process.argv.includes("with-default")) {
  module.default(async (query, queryType) => ({ unknown: queryType }));
}
