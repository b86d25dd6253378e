/**
 * The real server over TLS, as people use it: curl, the openai client, chat and bench, client certificates from files,
 * renewal by looking and by SIGHUP, and what a start says.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { connect } from "node:tls";
import OpenAI, { AuthenticationError } from "openai";
import { Agent, fetch as undiciFetch } from "undici";
import { type Authority, authority, type Issued } from "#test/fixtures/certificates.ts";
import { startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

const COMMAND = resolve(import.meta.dirname, "../../bin/castellan");
const DAY = 86_400_000;
const folder = mkdtempSync(join(tmpdir(), "castellan-tls-"));
const path = (name: string): string => join(folder, name);

let ca: Authority;
let first: Issued;
let client: Issued;
let server: TestServer;

function write(name: string, text: string): string {
  writeFileSync(path(name), text, { mode: 0o600 });
  return path(name);
}

function pair({ cert, key }: Issued): void {
  write("cert.pem", cert);
  write("key.pem", key);
}

before(async () => {
  ca = await authority();
  first = await ca.issue({ until: 5 * DAY });
  client = await ca.issue({ subject: "CN=app,O=Acme", names: ["uri:spiffe://td/ns/app"] });
  pair(first);
  write("ca.pem", ca.cert);
  write("client.pem", client.cert + client.key);
  write(
    "clients.yaml",
    "- spiffe: spiffe://td/ns/*\n  tenant: acme\n  role: user\n- subject: {CN: gone}\n  tenant: acme\n  role: user\n",
  );
  server = await startServer({
    waitReady: false,
    args: [
      ...["--ssl-certfile", path("cert.pem"), "--ssl-keyfile", path("key.pem"), "--ssl-ca-certs", path("ca.pem")],
      ...["--ssl-cert-reqs", "1", "--client-certificates", path("clients.yaml"), "--enable-ssl-refresh"],
      ...["--host", "0.0.0.0", "--log-level", "info", "--disable-access-log", "--ops-ssl-cert-reqs", "0"],
    ],
  });
  await until("it answers over TLS", async () => {
    assert.equal(server.child.exitCode, null, server.stderr());
    return (await status("/health")) === 200;
  });
});
after(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The status of a GET, or 0. */
function status(target: string, options: { key?: string; identity?: Issued; port?: number } = {}): Promise<number> {
  const { key, identity, port = server.port } = options;
  return new Promise((done) => {
    request(
      {
        ...{ host: "127.0.0.1", port, path: target, ca: ca.cert, agent: false },
        ...(identity === undefined ? {} : { cert: identity.cert, key: identity.key }),
        ...(key === undefined ? {} : { headers: { authorization: `Bearer ${key}` } }),
      },
      (res) => {
        res.resume();
        res.on("end", () => done(res.statusCode ?? 0));
        res.on("error", () => done(0));
      },
    )
      .on("error", () => done(0))
      .end();
  });
}

/** The serial number that the server shows. */
function shown(port = server.port): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect({ host: "127.0.0.1", port, ca: ca.cert }, () => {
      done(socket.getPeerCertificate().serialNumber.toLowerCase());
      socket.destroy();
    });
    socket.on("error", fail);
  });
}

function run(command: string, args: readonly string[], input = ""): Promise<{ code: number | null; out: string }> {
  const env = { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1", CASTELLAN_API_KEY: TEST_KEY };
  const child = spawn(command, args, { env });
  let out = "";
  child.stdout.on("data", (data) => {
    out += String(data);
  });
  child.stderr.on("data", (data) => {
    out += String(data);
  });
  child.stdin.end(input);
  return new Promise((done) => {
    child.on("error", () => done({ code: null, out }));
    child.on("close", (code) => done({ code, out }));
  });
}

const opsPort = (): number => Number(new URL(server.opsUrl).port);
const secureUrl = (): string => `https://127.0.0.1:${server.port}`;

test("the start says https, warns of an end that is near, and of no public address", async () => {
  await until("the announcement", () => server.stdout().includes("Try it:"));
  assert.match(server.stdout(), new RegExp(`public {2}https://127\\.0\\.0\\.1:${server.port}\n`));
  assert.match(server.stdout(), /ops {5}https:\/\//);
  assert.match(server.stdout(), /warning the certificate in .*cert\.pem runs out at/);
  assert.doesNotMatch(server.stdout(), /in the clear/);
});

test("curl, the openai client, chat and bench speak to it when they know its authority, and not otherwise", async (t) => {
  const url = `${secureUrl()}/v1/models`;
  const curl = await run("curl", ["-sS", "--cacert", path("ca.pem"), "-H", `Authorization: Bearer ${TEST_KEY}`, url]);
  if (curl.code === null) t.diagnostic("there is no curl here");
  else {
    assert.match(curl.out, /castellan-demo/);
    assert.equal((await run("curl", ["-sS", url])).code, 60);
    assert.match(
      (await run("curl", ["-sS", "--cacert", path("ca.pem"), "--cert", path("client.pem"), url])).out,
      /castellan-demo/,
    );
    assert.notEqual((await run("curl", ["-sS", "--cacert", path("ca.pem"), "--tls-max", "1.1", url])).code, 0);
  }
  const dispatcher = new Agent({ connect: { ca: ca.cert } });
  // Node's own fetch takes no agent of another undici than its own.
  const trusting = ((url: string, init: object) =>
    undiciFetch(url, { ...init, dispatcher })) as unknown as typeof fetch;
  const openai = (apiKey: string) =>
    new OpenAI({ baseURL: `${secureUrl()}/v1`, apiKey, maxRetries: 0, fetch: trusting });
  const stream = await openai(TEST_KEY).chat.completions.create({
    model: "castellan-demo",
    messages: [{ role: "user", content: "Hello!" }],
    max_tokens: 8,
    stream: true,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert.ok(text.length > 0);
  await assert.rejects(openai("wrong").models.list(), AuthenticationError);
  await dispatcher.close();
  const trusted = ["--url", secureUrl(), "--cacert", path("ca.pem")];
  const chat = await run(COMMAND, ["chat", ...trusted, "--max-tokens", "8"], "Hello!\n");
  assert.equal(chat.code, 0, chat.out);
  const bench = await run(COMMAND, ["bench", ...trusted, "--requests", "2", "--max-tokens", "4", "--json"]);
  assert.equal(bench.code, 0, bench.out);
  const stranger = await run(COMMAND, ["chat", "--url", secureUrl()], "Hello!\n");
  assert.equal(stranger.code, 1);
  assert.match(stranger.out, /certificate is not trusted .*--cacert/);
});

test("a client certificate is a principal by the table: its role's rights, and no other tenant's key beside it", async () => {
  assert.equal(await status("/v1/models"), 401);
  assert.equal(await status("/v1/models", { identity: client }), 200);
  assert.equal(await status("/metrics", { identity: client }), 403);
  const other = await ca.issue({ names: ["uri:spiffe://td/other"] });
  assert.equal(await status("/v1/models", { identity: other }), 401);
  assert.equal(await status("/v1/models", { identity: other, key: TEST_KEY }), 200);
  assert.equal(await status("/v1/models", { identity: client, key: TEST_KEY }), 401);
  assert.equal(await status("/v1/models", { identity: await (await authority()).issue() }), 0);
});

test("the operations listener speaks TLS with the same certificate, and asks for none as it was told", async () => {
  assert.equal(await status("/health", { port: opsPort() }), 200);
  assert.equal(await status("/version", { port: opsPort(), identity: client }), 401);
  assert.equal(await shown(opsPort()), first.certificate.serialNumber);
});

test("new files are taken by looking and by SIGHUP, on both listeners; bad ones are not", async () => {
  const second = await ca.issue();
  pair(second);
  await until("the second certificate", async () => (await shown()) === second.certificate.serialNumber);
  await until("the second one for ops", async () => (await shown(opsPort())) === second.certificate.serialNumber);
  write("cert.pem", (await ca.issue()).cert);
  await until("the bad pair is told", () => /keeps what it had.*|does not belong/.test(server.stderr()));
  assert.equal(await shown(), second.certificate.serialNumber);
  const third = await ca.issue();
  pair(third);
  write("clients.yaml", "- {spiffe: 'spiffe://td/*', tenant: default, role: service}\n");
  server.child.kill("SIGHUP");
  await until("the third certificate", async () => (await shown()) === third.certificate.serialNumber);
  await until("the new table", async () => (await status("/metrics", { identity: client })) === 200);
  assert.equal(await status("/v1/models", { identity: client, key: TEST_KEY }), 200);
  write("clients.yaml", "- {spiffe: 'spiffe://*', tenant: default, role: service}\n");
  server.child.kill("SIGHUP");
  await until("the bad table is told", () => server.stderr().includes("stays as it was"));
  assert.equal(await status("/metrics", { identity: client }), 200);
});

test("an authority that goes takes its clients along", async () => {
  const next = await authority("CN=Next");
  write("ca.pem", next.cert);
  server.child.kill("SIGHUP");
  await until("the client is refused", async () => (await status("/v1/models", { identity: client })) === 0);
  const fresh = await next.issue({ names: ["uri:spiffe://td/ns/app"] });
  assert.equal(await status("/v1/models", { identity: fresh }), 200);
});

test("a start with files that do not fit ends with a sentence, and tells no key", async () => {
  const expired = await ca.issue({ from: -2 * DAY, until: -DAY });
  const bad = write("bad.pem", expired.cert + expired.key);
  for (const [flags, text] of [
    [["--ssl-certfile", bad], /ran out on/],
    [["--ssl-certfile", path("nowhere")], /cannot be read \(ENOENT\)/],
    [["--ssl-certfile", bad, "--ssl-cert-reqs", "2"], /need --ssl-ca-certs/],
  ] as const) {
    const failed = await startServer({ waitReady: false, args: flags });
    assert.equal(await failed.exited, 1);
    assert.match(failed.stderr(), text);
    assert.doesNotMatch(failed.stderr() + failed.stdout(), /PRIVATE KEY|at file:/);
    await failed.stop();
  }
});
