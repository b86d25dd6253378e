/**
 * A gateway before an upstream that speaks TLS both ways, whose authority, clients and key all become others while an
 * answer is on its way.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, mkdtempSync, renameSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { type Authority, authority } from "../fixtures/certificates.ts";
import { startServer, type TestServer, until } from "../harness.ts";

const KEYS = ["the-first-key-of-the-upstream", "the-second-key-of-the-upstream"] as const;
const folder = mkdtempSync(join(tmpdir(), "castellan-test-"));
const path = (name: string): string => join(folder, name);
/** As whoever renews secrets does it: whole. */
function put(name: string, text: string): void {
  writeFileSync(path("new"), text);
  chmodSync(path("new"), 0o600);
  renameSync(path("new"), path(name));
}

const server = createServer({ requestCert: true, rejectUnauthorized: true });
/** Whom the upstream takes. */
let taken: { key: string; clients: string };
const seen: string[] = [];
const held: ServerResponse[] = [];
let gateway: TestServer;

async function become(ca: Authority, key: string): Promise<void> {
  const own = await ca.issue({ subject: "CN=vllm" });
  server.setSecureContext({ cert: own.cert, key: own.key, ca: ca.cert });
  taken = { key, clients: ca.certificate.subject };
}

async function show(ca: Authority, key: string): Promise<void> {
  const mine = await ca.issue({ subject: "CN=gateway", usage: ["1.3.6.1.5.5.7.3.2"] });
  put("key", key);
  put("ca.pem", ca.cert);
  put("cert.pem", mine.cert);
  put("cert-key.pem", mine.key);
}

server.on("request", async (request, response: ServerResponse) => {
  request.resume();
  await once(request, "end");
  const issuer = (request.socket as TLSSocket).getPeerX509Certificate()?.issuer;
  const right = request.headers.authorization === `Bearer ${taken.key}` && issuer === taken.clients;
  seen.push(`${request.url} ${right}`);
  response.setHeader("content-type", "application/json");
  if (!right) response.writeHead(401).end("{}");
  else if (request.url === "/v1/models") response.end('{"data":[{"id":"inside","max_model_len":4096}]}');
  else if (request.url !== "/v1/completions") response.end("{}");
  else {
    held.push(response);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"choices":[{"text":"begun"}]}\n\n');
  }
});

before(async () => {
  const ca = await authority();
  await become(ca, KEYS[0]);
  await show(ca, KEYS[0]);
  await once(server.listen(0, "127.0.0.1"), "listening");
  gateway = await startServer({
    args: [
      ...["--upstream", `https://127.0.0.1:${(server.address() as AddressInfo).port}`, "--served-model-name", "inside"],
      ...["--upstream-key-file", path("key"), "--upstream-ca", path("ca.pem")],
      ...["--upstream-cert", path("cert.pem"), "--upstream-cert-key", path("cert-key.pem")],
      ...["--upstream-health-interval", "1", "--log-level", "info"],
    ],
  });
});
after(async () => {
  await gateway.stop();
  server.closeAllConnections();
  server.close();
});

const ask = () =>
  gateway.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ model: "inside", prompt: "Hi", stream: true }),
  });
const finish = async (answer: Response): Promise<string> => {
  held.shift()?.end("data: [DONE]\n\n");
  return answer.text();
};
const WHOLE = /begun[\s\S]*data: \[DONE\]\n\n$/;

test("new files are taken while an answer is on its way, which ends as it began", { timeout: 120_000 }, async () => {
  const running = await ask();
  assert.equal(running.status, 200);
  const ca = await authority("CN=Renewed CA");
  await become(ca, KEYS[1]);
  await show(ca, KEYS[1]);
  await until("the new files are in use", () => /upstreams have new credentials/.test(gateway.stderr()));
  let next = await ask();
  await until("it answers by the new ones", async () => {
    if (next.status !== 200) {
      await next.text();
      next = await ask();
    }
    return next.status === 200;
  });
  assert.equal(held.length, 2, "the first was not given up");
  assert.match(await finish(running), WHOLE);
  assert.match(await finish(next), WHOLE);
});

test("files that cannot be used change nothing, and are told; no key is in the log", { timeout: 120_000 }, async () => {
  put("ca.pem", "none");
  await until("it is told", () => /keep their credentials: the new files cannot be used/.test(gateway.stderr()));
  const answer = await ask();
  assert.equal(answer.status, 200);
  assert.match(await finish(answer), WHOLE);
  gateway.child.kill("SIGHUP");
  await until("it is told again", () => gateway.stderr().split("keep their credentials").length === 3);
  for (const key of KEYS) assert.ok(!gateway.stderr().includes(key));
});
