// Customers of a CRM, with the official TypeScript SDK: a source's credential, a resource alias, an OAuth client.
import { ComputeModule } from "@palantir/compute-module";

const module = new ComputeModule({ sources: { Crm: { credentials: ["password"] } } });
const host = `https://${process.env.FOUNDRY_URL}`;

async function accessToken() {
  const { CLIENT_ID: client_id, CLIENT_SECRET: client_secret } = process.env;
  const body = new URLSearchParams({ grant_type: "client_credentials", client_id, client_secret });
  const answer = await fetch(`${host}/multipass/api/oauth2/token`, { method: "POST", body });
  return (await answer.json()).access_token;
}

module
  .register("connect", async () => ({
    password: module.getCredential("Crm", "password"),
    orders: module.getResource("orders").rid,
    client: process.env.CLIENT_ID,
    level: process.env.LOG_LEVEL,
  }))
  .register("callBack", async () => {
    const headers = { Authorization: `Bearer ${await accessToken()}` };
    return (await fetch(`${host}/_emulate/foundry/compute-modules/runtimes`, { headers })).status;
  });
