/**
 * Signed tokens against the whole server: an identity provider on loopback, the official client, and what leaks.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import OpenAI from "openai";
import { startIssuer, type TestIssuer } from "../fixtures/issuer.ts";
import { startServer, TEST_KEY, type TestServer } from "../harness.ts";

const folder = mkdtempSync(join(tmpdir(), "castellan-tokens-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function config(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

describe("a server with an issuer", () => {
  let issuer: TestIssuer;
  let server: TestServer;
  const ends: (() => void | Promise<void>)[] = [];
  before(async () => {
    issuer = await startIssuer({ after: (end: () => void) => void ends.push(end) } as unknown as TestContext);
    const path = config(
      "tokens.yaml",
      `issuers:
  - issuer: ${issuer.url}
    audiences: [castellan]
    algorithms: [ES256]
    keys: { discovery: true, loopback: true, caFile: ${issuer.caFile} }
    rules:
      - when: [{ claim: groups, contains: llm }]
        tenant: { claim: org }
        role: { claim: groups, table: { llm-admins: admin, llm: user } }
      - when: [{ claim: groups, contains: watchers }]
        tenant: ops
        role: auditor
`,
    );
    server = await startServer({ args: ["--jwt-config", path, "--log-level", "info"] });
  });
  after(async () => {
    await server?.stop();
    for (const end of ends) await end();
  });

  const status = async (key: string, path = "/v1/models"): Promise<number> =>
    (await server.fetch(path, { key })).status;

  test("the openai client works with a token as its key", async () => {
    const apiKey = issuer.token({ groups: ["llm"], org: "acme" });
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
    const models = await client.models.list();
    const model = models.data[0]?.id ?? assert.fail();
    const answer = await client.chat.completions.create({
      model,
      messages: [{ role: "user", content: "Hello" }],
      max_tokens: 4,
    });
    assert.ok((answer.usage?.completion_tokens ?? 0) > 0);
    assert.equal(await status(TEST_KEY), 200, "keys go on working");
  });

  test("a bad token is answered as a wrong key is", async () => {
    const wrong = await server.fetch("/v1/models", { key: "wrong" });
    const body = await wrong.text();
    const bad = [
      issuer.token({ groups: ["llm"], org: "acme", exp: 1 }),
      issuer.token({ groups: ["llm"], org: "acme", aud: "other" }),
      issuer.token({ groups: ["llm"], org: "acme" }, { alg: "none" }),
      `${issuer.token()}=`,
      "eyJhbGciOiJub25lIn0.e30.",
      `eyJhbGciOiJFUzI1NiJ9.${"e".repeat(9000)}.e30`,
    ];
    for (const key of bad) {
      const answer = await server.fetch("/v1/models", { key });
      assert.equal(answer.status, 401);
      assert.equal(await answer.text(), body);
      assert.equal(answer.headers.get("www-authenticate"), wrong.headers.get("www-authenticate"));
    }
  });

  test("what the claims give is what the token may", async () => {
    const user = issuer.token({ groups: ["llm"], org: "acme" });
    const auditor = issuer.token({ groups: ["watchers"] });
    assert.equal(await status(user), 200);
    assert.equal(await status(user, "/metrics"), 403);
    assert.equal(await status(auditor, "/metrics"), 200);
    const chat = { method: "POST", body: JSON.stringify({ model: "x", messages: [] }) };
    assert.equal((await server.fetch("/v1/chat/completions", { key: auditor, ...chat })).status, 403);
    const nobody = await server.fetch("/v1/models", { key: issuer.token({ groups: ["sales"] }) });
    assert.equal(nobody.status, 403);
    assert.match(await nobody.text(), /no rule of this server gives it access/);
    assert.equal(await status(issuer.token({ groups: ["llm"], org: "../x" })), 403);
  });

  test("the log says why and holds no token; the start says what is loosened", async () => {
    const token = issuer.token({ groups: ["llm"], org: "acme", sub: "somebody@example.com" });
    assert.equal(await status(token), 200);
    assert.match(server.stderr(), /"detail":"token: exp says that it is over"/);
    assert.match(server.stderr(), /"principal":"tok_[0-9a-f]{32}"/);
    assert.match(server.stdout(), /tokens {2}of 1 issuer, besides keys/);
    assert.match(server.stdout(), /warning .*may come from this machine, without TLS/);
    const said = server.stdout() + server.stderr();
    assert.ok(!said.includes(token.split(".")[2] ?? "?") && !said.includes("somebody@example.com"));
    assert.ok(!/eyJ[A-Za-z0-9_-]{20}/.test(said));
  });
});

test("a file that is not right stops the start and names the place", async () => {
  const refused = async (args: readonly string[], told: RegExp): Promise<void> => {
    const server = await startServer({ args, waitReady: false });
    assert.equal(await server.exited, 1);
    assert.match(server.stderr(), told);
  };
  const path = config(
    "bad.yaml",
    "issuers:\n  - issuer: x\n    audiences: [a]\n    keys: { jwksFile: /nowhere }\n    rules: [{ tenant: a, role: root }]\n",
  );
  await refused(["--jwt-config", path], /bad\.yaml:5: issuers\.0\.rules\.0\.role: /);
  const missing = config(
    "missing.yaml",
    "issuers:\n  - issuer: x\n    audiences: [a]\n    keys: { jwksFile: /nowhere }\n    rules: [{ tenant: a, role: user }]\n",
  );
  await refused(["--jwt-config", missing], /\/nowhere cannot be read \(ENOENT\)/);
  await refused(["--jwt-config", missing, "--api-key", "eyJh.eyJi.c2ln"], /looks like a signed token/);
});
