// Makes the calls that it reads from its input, a line of JSON each, with Palantir's conjure-lite, and prints the answers.
import { createInterface } from "node:readline";
import { conjureFetch } from "conjure-lite";

const [baseUrl, token] = process.argv.slice(2);
const context = { baseUrl, servicePath: "/contour-backend-multiplexer/api", tokenProvider: async () => token };

for await (const line of createInterface({ input: process.stdin })) {
  const { path, method, body, params } = JSON.parse(line);
  let answer;
  try {
    const value = await conjureFetch(context, path, method, body, params);
    answer = { value: value instanceof Blob ? await value.text() : (value ?? null) };
  } catch (error) {
    answer = { status: error.status, error: error.body };
  }
  console.log(JSON.stringify(answer));
}
