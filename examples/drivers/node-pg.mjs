// node pg as a driver of `chaos-gate matrix`: chaos-gate matrix --driver 'node pg=node node-pg.mjs'   (npm install pg, beside it)
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import pg from "pg";

console.log("ready", createRequire(import.meta.url)("pg/package.json").version, "node", process.version);
for await (const line of createInterface({ input: process.stdin })) {
  const url = new URL(line.split(" ")[0]);
  const seconds = url.searchParams.get("connect_timeout");
  url.searchParams.delete("connect_timeout");
  const client = new pg.Client({ connectionString: url.href, connectionTimeoutMillis: seconds ? seconds * 1000 : 0 });
  client.on("error", () => {});
  try {
    await client.connect();
    await client.query("SELECT 1");
    await client.end();
    console.log("ok");
  } catch (error) {
    client.end().catch(() => {});
    console.log("error", String(error).split("\n")[0]);
  }
}
