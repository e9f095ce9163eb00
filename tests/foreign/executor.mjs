// A compute-module runtime in plain Node, by the emulator's page alone: node executor.mjs URL RUNTIME_ID APP_RID
const [url, runtimeId, deployedAppRid] = process.argv.slice(2);

const functions = {
  add: ({ x, y }) => x + y,
  reverse: ({ text }) => [...text].reverse().join(""),
  count: ({ words }) => Object.fromEntries(words.map((word) => [word, words.filter((other) => other === word).length])),
};

async function post(uri, headers, body) {
  const answer = await fetch(uri, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(`${uri} answered ${answer.status}: ${await answer.text()}`);
  return answer;
}

const opened = await post(
  `${url}/_emulate/foundry/compute-modules/runtimes`,
  { "Content-Type": "application/json" },
  JSON.stringify({ runtimeId, deployedAppRid, branch: "master", displayName: "Node" }),
);
const { moduleAuthToken, getJobUri, postResultUri, postSchemaUri } = await opened.json();
const token = { "Module-Auth-Token": moduleAuthToken };

await post(
  postSchemaUri,
  { ...token, "Content-Type": "application/json" },
  JSON.stringify(Object.keys(functions).map((functionName) => ({ functionName, schema: { type: "object" } }))),
);

for (;;) {
  const answer = await fetch(getJobUri, { headers: token });
  if (answer.status === 204) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  } else if (answer.status === 200) {
    const { jobId, queryType, query } = (await answer.json()).computeModuleJobV1;
    const result = JSON.stringify(functions[queryType](query));
    await post(`${postResultUri}/${jobId}`, { ...token, "Content-Type": "application/octet-stream" }, result);
  } else {
    throw new Error(`polling answered ${answer.status}: ${await answer.text()}`);
  }
}
