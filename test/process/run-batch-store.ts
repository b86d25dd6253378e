/**
 * A store of files at a public address, in a network namespace of run-batch-urls.test.ts, and `castellan run-batch` in
 * the same: prints what the command said and what the store was sent, as JSON.
 * usage: unshare --net node run-batch-store.ts FOLDER
 */
import { spawn, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { join, resolve } from "node:path";
import { authority } from "#test/fixtures/certificates.ts";

const ADDRESS = "93.184.216.34";
const [, , folder = ""] = process.argv;
const line = (id: string, tokens: number) =>
  JSON.stringify({
    custom_id: id,
    method: "POST",
    url: "/v1/completions",
    body: { prompt: [5, 6], max_tokens: tokens },
  });

for (const args of [
  ["link", "set", "lo", "up"],
  ["route", "add", "local", `${ADDRESS}/32`, "dev", "lo"],
]) {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}
const ca = await authority();
const { cert, key } = await ca.issue({ names: [`ip:${ADDRESS}`] });
writeFileSync(join(folder, "ca.pem"), ca.cert);
const seen: string[] = [];
const server = createServer({ cert, key }, async (request, response) => {
  seen.push(`${request.method} ${request.url} ${(await request.toArray()).join("")}`);
  response.end(request.method === "GET" ? `${line("a", 2)}\n${line("b", -1)}\n` : "");
});
await new Promise<void>((done) => server.listen(443, ADDRESS, done));
const args = ["-i", `https://${ADDRESS}/in.jsonl?secret=1`, "-o", `https://${ADDRESS}/out.jsonl?secret=2`];
const flags = ["--batch-url-hosts", ADDRESS, "--threads", "1", "--state-dir", join(folder, "state")];
const command = resolve(import.meta.dirname, "../../src/cli/main.ts");
const child = spawn(
  process.execPath,
  [command, "run-batch", ...args, "--output-tmp-dir", join(folder, "tmp"), ...flags],
  {
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      NO_COLOR: "1",
      NODE_EXTRA_CA_CERTS: join(folder, "ca.pem"),
    },
  },
);
let [out, err] = ["", ""];
child.stdout.on("data", (chunk) => {
  out += String(chunk);
});
child.stderr.on("data", (chunk) => {
  err += String(chunk);
});
const code = await new Promise((done) => child.on("close", done));
process.stdout.write(JSON.stringify({ code, out, err, seen }));
process.exit(0);
