/**
 * The policy file against the whole server: what it says holds, is read anew at SIGHUP or not at all, and is explained
 * on the command line.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, type TestContext, test } from "node:test";
import { startIssuer } from "../fixtures/issuer.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

const MAIN = resolve(import.meta.dirname, "../../src/cli/main.ts");
const folder = mkdtempSync(join(tmpdir(), "castellan-policy-"));
after(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function policyFile(text: string): string {
  const path = join(folder, `policy-${++files}.yaml`);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

async function serverWith(t: TestContext, policy: string, ...args: string[]): Promise<TestServer> {
  const server = await startServer({ args: ["--policy", policy, "--log-level", "info", ...args] });
  t.after(() => server.stop());
  return server;
}

/** The log's line of the reload that `act` causes. */
async function reload(server: TestServer, act: () => void, says: RegExp): Promise<void> {
  const before = server.stderr().length;
  act();
  server.child.kill("SIGHUP");
  await until("the reload", () => says.test(server.stderr().slice(before)));
}

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function castellan(...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", MAIN, ...args], {
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"] },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => {
    out += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    err += String(chunk);
  });
  return new Promise((done) => child.on("close", (code) => done({ code, out, err })));
}

const chat = (server: TestServer, key: string): Promise<Response> =>
  server.fetch("/v1/completions", {
    key,
    method: "POST",
    body: JSON.stringify({ model: "castellan-demo", prompt: "a", max_tokens: 1 }),
  });

const audited = (server: TestServer): string => {
  const directory = join(server.stateDir, "audit");
  const logs = readdirSync(directory).filter((name) => name.endsWith(".jsonl"));
  return logs.map((name) => readFileSync(join(directory, name), "utf8")).join("");
};

test("tenants' lists and limits hold; a changed file holds from the next request on, a wrong one never", async (t) => {
  const path = policyFile(`version: 1
tenants:
  acme: { limits: { requestsPerDay: 2 } }
  closed: { models: [] }
`);
  const server = await serverWith(t, path);
  const acme = await makeKey(server.stateDir, "user", { tenant: "acme" });
  const closed = await makeKey(server.stateDir, "user", { tenant: "closed" });
  await until("the keys are known", async () => (await server.fetch("/v1/models", { key: closed })).status === 200);
  const models = async (key: string): Promise<number> =>
    ((await (await server.fetch("/v1/models", { key })).json()) as { data: unknown[] }).data.length;
  assert.equal(await models(closed), 0);
  assert.equal((await chat(server, closed)).status, 404);
  assert.equal((await chat(server, acme)).status, 200);
  assert.equal((await chat(server, acme)).status, 200);
  const over = await chat(server, acme);
  assert.equal(over.status, 429);
  assert.equal(over.headers.get("x-ratelimit-remaining-requests"), "0");

  const said = `version: 1
tenants:
  acme: { limits: { requestsPerDay: 100 } }
  closed: { disabled: true }
`;
  await reload(server, () => writeFileSync(path, said), /the policy file was read anew/);
  assert.equal((await chat(server, acme)).status, 200);
  assert.equal((await server.fetch("/v1/models", { key: closed })).status, 401);

  for (const [wrong, why] of [
    ["version: 1\ntenant: {}\n", /is not right/],
    [`${said}tests:\n  - { as: nobody, request: GET /v1/models, expect: allow }\n`, /its own tests fail/],
    [
      "version: 1\ntokens: {issuers: [{issuer: a, audiences: [b], keys: {jwks: 'https://a.invalid/k'}, rules: [{tenant: a, role: user}]}]}\n",
      /takes a restart/,
    ],
  ] as const) {
    await reload(server, () => writeFileSync(path, wrong), why);
    assert.equal((await server.fetch("/v1/models", { key: closed })).status, 401, "what held goes on");
    assert.equal((await chat(server, acme)).status, 200);
  }
  await reload(server, () => chmodSync(path, 0o666), /can be written by others/);

  const changes = audited(server)
    .split("\n")
    .filter((line) => line.includes('"policy.change"'));
  assert.equal(changes.length, 1, "what did not come into force is no change");
  assert.match(changes[0] ?? "", /"actor":\{"kind":"operator","id":"SIGHUP"\}.*"sha256":"[0-9a-f]{64}"/);
  assert.match(audited(server), /"server.start".*"policy":"[0-9a-f]{64}"/);
});

test("issuers of the file: their tokens are taken, and a reload changes what they may", async (t) => {
  const issuer = await startIssuer(t);
  const section = (role: string): string => `version: 1
tenants:
  org-x: { disabled: true }
tokens:
  issuers:
    - issuer: ${issuer.url}
      audiences: [castellan]
      algorithms: [ES256]
      keys: { discovery: true, loopback: true, caFile: ${issuer.caFile} }
      rules: [{ tenant: { claim: org, prefix: org- }, role: ${role} }]
tests:
  - { as: { issuer: "${issuer.url}", claims: { org: a } }, request: GET /v1/models, expect: allow, tenant: org-a, role: ${role} }
`;
  const path = policyFile(section("user"));
  const server = await serverWith(t, path);
  const status = async (org: string, at: string): Promise<number> =>
    (await server.fetch(at, { key: issuer.token({ org }) })).status;
  assert.equal(await status("a", "/v1/models"), 200);
  assert.equal(await status("a", "/metrics"), 403);
  assert.equal(await status("x", "/v1/models"), 401, "its tenant is disabled");
  await reload(server, () => writeFileSync(path, section("auditor")), /the policy file was read anew/);
  assert.equal(await status("a", "/metrics"), 200);
});

test("a start with a file that is not right, or that flags contradict, is refused with the reason", async (t) => {
  const refused = async (args: readonly string[], says: RegExp): Promise<void> => {
    const server = await startServer({ args, waitReady: false });
    t.after(() => server.stop());
    assert.equal(await server.exited, 1);
    assert.match(server.stderr(), says);
  };
  const failing = policyFile(`version: 1
tests: [{ name: strangers see models, as: nobody, request: GET /v1/models, expect: allow }]
`);
  await refused(["--policy", failing], /1\. strangers see models: denied with 401: no credential is shown/);
  const limits = policyFile('version: 1\ntenants: { "*": { limits: { requestsPerDay: 1 } } }\n');
  await refused(["--policy", limits, "--tenant-limits", "{}"], /--tenant-limits and .* say the same thing/);
  const certificates = policyFile("version: 1\ncertificates: []\n");
  await refused(["--policy", certificates], /need --ssl-cert-reqs/);
});

test("over the operations listener: what is in force, explained, and read anew with the reason where not", async (t) => {
  const path = policyFile('version: 1\ntenants: { acme: { models: ["castellan-*"] } }\n');
  const server = await serverWith(t, path);
  const ask = async (target: string, body?: unknown): Promise<{ status: number; body: Record<string, unknown> }> => {
    const answer = await server.fetch(`${server.opsUrl}${target}`, {
      key: server.adminKey,
      ...(body === undefined ? {} : { method: "POST", body: body === "" ? null : JSON.stringify(body) }),
    });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  };
  const before = (await ask("/admin/policy")).body;
  assert.deepEqual(before["tenants"], { acme: { models: ["castellan-*"] } });
  const question = { as: { tenant: "acme", role: "user" }, method: "post", path: "/v1/completions", model: "other" };
  const verdict = (await ask("/admin/policy/explain", question)).body;
  assert.deepEqual([verdict["allowed"], verdict["status"], verdict["decided_by"]], [false, 404, "model"]);
  const rights = (await ask("/admin/policy/rights", { as: "nobody" })).body["data"] as {
    path: string;
    allowed: boolean;
  }[];
  const open = rights.filter(({ allowed }) => allowed).map((row) => row.path);
  assert.deepEqual([...new Set(open)], ["/health", "/ping"]);

  const trial = `${readFileSync(path, "utf8")}tests: [{ as: nobody, request: GET /v1/models, expect: allow }]`;
  const tested = (await ask("/admin/policy/test", { policy: trial })).body as { failed: number; tests: unknown[] };
  assert.deepEqual([tested.failed, tested.tests.length], [1, 1]);
  assert.equal((await ask("/admin/policy/test", { policy: "version: [" })).status, 400);

  writeFileSync(path, "version: 1\ntenants: { acme: { disabled: true } }\n");
  const reloaded = await ask("/admin/policy/reload", "");
  assert.equal(reloaded.status, 200);
  assert.notEqual(reloaded.body["sha256"], before["sha256"]);
  assert.equal((await ask("/admin/policy/explain", question)).body["decided_by"], "tenant");
  writeFileSync(path, "version: 2\n");
  const refused = await ask("/admin/policy/reload", "");
  assert.equal(refused.status, 400);
  assert.match(JSON.stringify(refused.body), /version/);
  assert.equal((await ask("/admin/policy")).body["sha256"], reloaded.body["sha256"]);
  assert.match(audited(server), /"policy.change","actor":\{"kind":"key","id":"key_/);
});

test("castellan policy test and explain", async () => {
  const stateDir = join(folder, `state-${++files}`);
  const key = await castellan("keys", "create", "--name", "laptop", "--tenant", "acme", "--state-dir", stateDir);
  assert.equal(key.code, 0, key.err);
  const path = policyFile(`version: 1
tenants: { acme: { models: ["castellan-*"] } }
tests:
  - { name: acme sees its models, as: { tenant: acme, role: user }, request: POST /v1/completions, model: castellan-demo, expect: allow }
`);
  const tested = await castellan("policy", "test", path);
  assert.deepEqual([tested.code, tested.err], [0, ""]);
  assert.match(tested.out, /1 +ok +acme sees its models/);
  assert.match(tested.out, /1 of 1 tests pass/);
  writeFileSync(path, readFileSync(path, "utf8").replace("expect: allow", "expect: deny"));
  const failed = await castellan("policy", "test", path, "--json");
  assert.equal(failed.code, 1);
  const { tests } = JSON.parse(failed.out) as { tests: { passed: boolean; problem: string }[] };
  assert.equal(tests[0]?.passed, false);
  writeFileSync(path, readFileSync(path, "utf8").replace("expect: deny", "expect: allow"));

  const explain = (...args: string[]): Promise<Ended> =>
    castellan("policy", "explain", "--state-dir", stateDir, "--policy", path, ...args);
  const allowed = await explain("--key", "laptop", "POST", "/v1/completions", "--model", "castellan-demo");
  assert.equal(allowed.code, 0, allowed.err);
  assert.match(allowed.out, /^Allowed: POST \/v1\/completions on the public listener/);
  const denied = await explain("--key", "laptop", "POST", "/v1/completions", "--model", "other", "--json");
  assert.equal(denied.code, 1);
  const verdict = JSON.parse(denied.out) as Record<string, unknown>;
  assert.deepEqual(
    [verdict["allowed"], verdict["status"], verdict["decided_by"], verdict["because"]],
    [false, 404, "model", "other is not among the tenant's models: castellan-*"],
  );
  assert.equal((await castellan("keys", "disable", "laptop", "--state-dir", stateDir)).code, 0);
  const disabled = await explain("--key", "laptop", "GET", "/v1/models");
  assert.match(disabled.out, /^Denied with 401, by the rule credential/);
  assert.match(disabled.out, /is disabled/);
  const all = await explain("--role", "operator");
  assert.match(all.out, /^GET +\/metrics +public +allowed/m);
  assert.match(all.out, /^POST +\/v1\/chat\/completions +public +denied, 403/m);
  assert.match(all.out, /load_lora_adapter +ops +denied, 404 .*--enable-lora/);
  const unclear = await explain("--key", "laptop", "--nobody", "GET", "/v1/models");
  assert.deepEqual([unclear.code, unclear.out], [2, ""]);
});
