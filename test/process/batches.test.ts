/**
 * Files and batches on the real server, with OpenAI's own client: what is uploaded, run, cancelled, limited, and what is
 * left when the server dies in the middle.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI, { APIError, NotFoundError, toFile } from "openai";
import type { Period } from "#core/limits.ts";
import { windowAt } from "#policy/limits/windows.ts";
import { startIssuer } from "../fixtures/issuer.ts";
import { postgresMissing, startPostgres } from "../fixtures/postgres.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

interface Row {
  readonly id: string;
  readonly custom_id: string | null;
  readonly response: {
    readonly status_code: number;
    readonly body: { readonly usage?: { readonly completion_tokens: number }; readonly error?: object };
  } | null;
  readonly error: { readonly code: string } | null;
}

const ARGS = ["--batch-tenant-bytes", "4MiB", "--batch-concurrency", "4", "--max-upload-bytes", "1MiB"];
const HOUR_MS = 3_600_000;
let server: TestServer;
let acme: OpenAI;
let other: OpenAI;

const client = (apiKey: string, of = server): OpenAI => new OpenAI({ baseURL: `${of.url}/v1`, apiKey, maxRetries: 0 });

before(async () => {
  server = await startServer({ args: ARGS });
  acme = client(await makeKey(server.stateDir, "user", { tenant: "acme" }));
  other = client(await makeKey(server.stateDir, "user", { tenant: "other" }));
  for (const one of [acme, other])
    await until("the key is known", () =>
      one.files.list().then(
        () => true,
        () => false,
      ),
    );
});
after(() => server.stop());

function line(name: string, tokens: number, more: object = {}): string {
  const body = { prompt: [5, 6], max_tokens: tokens, ignore_eos: true, seed: 1, ...more };
  return JSON.stringify({ custom_id: name, method: "POST", url: "/v1/completions", body });
}

async function upload(by: OpenAI, lines: readonly string[]): Promise<string> {
  return (await by.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "in.jsonl"), purpose: "batch" }))
    .id;
}

async function begin(by: OpenAI, lines: readonly string[]): Promise<string> {
  const input_file_id = await upload(by, lines);
  return (await by.batches.create({ input_file_id, endpoint: "/v1/completions", completion_window: "24h" })).id;
}

async function over(by: OpenAI, id: string): Promise<OpenAI.Batch> {
  let batch = await by.batches.retrieve(id);
  await until(`${id} is over`, async () => {
    batch = await by.batches.retrieve(id);
    return ["completed", "failed", "cancelled", "expired"].includes(batch.status);
  });
  return batch;
}

async function rowsOf(by: OpenAI, file: string | null | undefined): Promise<Row[]> {
  if (file === null || file === undefined) return [];
  const text = await (await by.files.content(file)).text();
  return text
    .split("\n")
    .slice(0, -1)
    .map((row) => JSON.parse(row) as Row);
}

const status = (error: unknown): number => (error instanceof APIError ? (error.status as number) : 0);

test("a batch from upload to answers, with what failed in a file of its own", async () => {
  const lines = [line("a", 3), "{ no json", line("b", 2), line("c", -1), line("c", 1), line("s", 1, { stream: true })];
  const elsewhere = { custom_id: "e", method: "POST", url: "/v1/chat/completions", body: {} };
  const input = await upload(acme, [...lines, JSON.stringify(elsewhere)]);
  const made = await acme.batches.create({
    input_file_id: input,
    endpoint: "/v1/completions",
    completion_window: "24h",
    metadata: { of: "a test" },
  });
  assert.equal(made.object, "batch");
  assert.deepEqual(made.metadata, { of: "a test" });
  const batch = await over(acme, made.id);
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: 7, completed: 3, failed: 4 });
  const answers = await rowsOf(acme, batch.output_file_id);
  assert.deepEqual(
    answers.map(({ custom_id, response, error }) => [custom_id, response?.body.usage?.completion_tokens, error]),
    [
      ["a", 3, null],
      ["b", 2, null],
      ["c", 1, null],
    ],
  );
  const failures = await rowsOf(acme, batch.error_file_id);
  assert.deepEqual(
    failures.map(({ custom_id, response, error }) => [custom_id, response?.status_code, error?.code]),
    [
      [null, undefined, "invalid_request"],
      ["c", 400, undefined],
      ["s", undefined, "invalid_request"],
      ["e", undefined, "invalid_request"],
    ],
  );
  const { headers } = await acme.files.content(batch.output_file_id ?? "");
  assert.deepEqual(
    ["content-type", "content-disposition", "x-content-type-options"].map((name) => headers.get(name)),
    ["application/octet-stream", "attachment", "nosniff"],
  );
  const file = await acme.files.retrieve(batch.output_file_id ?? "");
  assert.equal(Number(headers.get("content-length")), file.bytes);
  assert.deepEqual([file.purpose, file.filename], ["batch_output", `${made.id}_output.jsonl`]);
  const listed: string[] = [];
  for await (const one of acme.files.list({ limit: 1 })) listed.push(one.id);
  for (const id of [input, batch.output_file_id, batch.error_file_id]) assert.ok(listed.includes(id ?? ""), `${id}`);
  assert.deepEqual(
    (await acme.batches.list()).data.map(({ id }) => id),
    [made.id],
  );
  const metrics = await (await server.fetch(`${server.opsUrl}/metrics`, { key: server.adminKey })).text();
  for (const row of [
    'castellan_batch_lines_total{outcome="answered"} 3',
    'castellan_batch_lines_total{outcome="failed"} 4',
    'castellan_batches{status="completed"} 1',
    "castellan_files 3",
    "castellan_responses_stored 0",
  ])
    assert.ok(metrics.split("\n").includes(row), row);
  assert.doesNotMatch(metrics, /castellan_(?:batch|files).*acme/);
});

test("what is a tenant's does not exist for another", async () => {
  const input = await upload(acme, [line("a", 1)]);
  const id = await begin(acme, [line("a", 1)]);
  const batch = await over(acme, id);
  for (const ask of [
    () => other.files.retrieve(input),
    () => other.files.content(batch.output_file_id ?? ""),
    () => other.files.delete(input),
    () => other.batches.retrieve(id),
    () => other.batches.cancel(id),
    () => acme.files.retrieve("file-none"),
    () => acme.batches.retrieve("batch_none"),
  ])
    await assert.rejects(ask as () => Promise<unknown>, NotFoundError);
  await assert.rejects(
    other.batches.create({ input_file_id: input, endpoint: "/v1/completions", completion_window: "24h" }),
    (error) => status(error) === 400,
  );
  assert.deepEqual((await other.files.list()).data, []);
  assert.deepEqual((await other.batches.list()).data, []);
  assert.equal((await acme.files.delete(input)).deleted, true);
  await assert.rejects(acme.files.retrieve(input), NotFoundError);
  await assert.rejects(acme.batches.cancel(id), (error) => status(error) === 400);
});

test("wrong words are refused by their names, too much by its size", async () => {
  const file = await toFile(Buffer.from(line("a", 1)), "in.jsonl");
  const refused = async (ask: Promise<unknown>, code: number, said: RegExp): Promise<void> =>
    assert.rejects(ask, (error) => status(error) === code && said.test((error as Error).message));
  await refused(acme.files.create({ file, purpose: "fine-tune" }), 400, /purpose/);
  const large = await toFile(Buffer.alloc(2 << 20, "x"), "in.jsonl");
  await refused(acme.files.create({ file: large, purpose: "batch" }), 413, /larger than 1048576/);
  const input_file_id = await upload(acme, [line("a", 1)]);
  const words = { input_file_id, endpoint: "/v1/completions", completion_window: "24h" } as const;
  await refused(acme.batches.create({ ...words, endpoint: "/v1/moderations" }), 400, /endpoint/);
  await refused(acme.batches.create({ ...words, endpoint: "/pause" as never }), 400, /endpoint/);
  await refused(acme.batches.create({ ...words, completion_window: "1h" as never }), 400, /completion_window|24h/);
  await refused(acme.batches.create({ ...words, input_file_id: "file-none" }), 400, /file/);
  await refused(acme.files.list({ after: "file-none" }), 400, /go on behind/);
  await refused(other.files.list({ after: input_file_id }), 400, /go on behind/);
  await refused(acme.batches.list({ after: "batch_none" }), 400, /go on behind/);
  await refused(acme.files.list({ purpose: "other" }), 400, /purpose/);
  assert.deepEqual((await acme.files.list({ purpose: "fine-tune" })).data, []);
  const empty = await begin(acme, ["", " "]);
  const ended = await over(acme, empty);
  assert.deepEqual([ended.status, ended.errors?.data?.[0]?.code], ["failed", "empty_file"]);
  const rest = Array.from({ length: 4 }, () => toFile(Buffer.alloc(1 << 20, "x"), "in.jsonl"));
  const stored = await Promise.allSettled(
    rest.map(async (one) => acme.files.create({ file: await one, purpose: "batch" })),
  );
  assert.ok(
    stored.some((one) => one.status === "rejected" && status(one.reason) === 413),
    "four files and more",
  );
  for await (const one of acme.files.list()) if (one.bytes > 1e6) await acme.files.delete(one.id);
  const folder = join(server.stateDir, "files");
  for (const name of readdirSync(folder)) assert.equal(statSync(join(folder, name)).mode & 0o77, 0, name);
});

test("a batch that is cancelled keeps what it has", async () => {
  const id = await begin(
    acme,
    Array.from({ length: 3000 }, (_, i) => line(`${i}`, 60)),
  );
  await until("some are answered", async () => ((await acme.batches.retrieve(id)).request_counts?.completed ?? 0) > 0);
  const input = (await acme.batches.retrieve(id)).input_file_id;
  await assert.rejects(acme.files.delete(input), (error) => status(error) === 400);
  const cancelling = await acme.batches.cancel(id);
  assert.ok(["cancelling", "cancelled"].includes(cancelling.status));
  const batch = await over(acme, id);
  assert.equal(batch.status, "cancelled");
  const answers = await rowsOf(acme, batch.output_file_id);
  assert.ok(answers.length > 0 && answers.length < 3000);
  assert.equal(answers.length, batch.request_counts?.completed);
  const numbers = answers.map(({ custom_id: name }) => Number(name));
  assert.deepEqual(
    numbers,
    numbers.toSorted((a, b) => a - b),
  );
  const codes = (await rowsOf(acme, batch.error_file_id)).map(({ error }) => error?.code);
  assert.ok(codes.length < 32 && codes.every((code) => code === "batch_cancelled"), codes.join(" "));
});

test("a batch ends with the key that made it", async () => {
  const key = await makeKey(server.stateDir, "user", { tenant: "leaving", name: "leaving" });
  const leaving = client(key);
  await until("the key is known", () =>
    leaving.files.list().then(
      () => true,
      () => false,
    ),
  );
  const id = await begin(
    leaving,
    Array.from({ length: 3000 }, (_, i) => line(`${i}`, 60)),
  );
  const second = client(await makeKey(server.stateDir, "user", { tenant: "leaving" }));
  await until("the second key is known", () =>
    second.batches.retrieve(id).then(
      () => true,
      () => false,
    ),
  );
  await until(
    "some are answered",
    async () => ((await second.batches.retrieve(id)).request_counts?.completed ?? 0) > 0,
  );
  const admin = { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" };
  const keys = (await (await fetch(`${server.opsUrl}/admin/keys?tenant=leaving`, { headers: admin })).json()) as {
    data: { id: string; name: string }[];
  };
  const made = keys.data.find(({ name }) => name === "leaving")?.id;
  const body = JSON.stringify({ id: made });
  assert.equal(
    (await fetch(`${server.opsUrl}/admin/keys/disable`, { method: "POST", headers: admin, body })).status,
    200,
  );
  const batch = await over(second, id);
  assert.deepEqual([batch.status, batch.errors?.data?.[0]?.code], ["failed", "unauthenticated"]);
  assert.ok((await rowsOf(second, batch.output_file_id)).length > 0, "what was answered can be had");
});

test("a token's batch outlives the token, and ends with its rule or with its tenant when the policy says so", async (t) => {
  const issuer = await startIssuer(t);
  const policy = (rule: string, more = ""): string => `version: 1
tenants: { org-b: { disabled: ${more === "closed"} } }
tokens:
  issuers:
    - issuer: ${issuer.url}
      audiences: [castellan]
      algorithms: [ES256]
      clockToleranceSeconds: 0
      keys: { discovery: true, loopback: true, caFile: ${issuer.caFile} }
      rules: [{ tenant: { claim: org, prefix: org- }, role: user${rule} }]
`;
  const folder = mkdtempSync(join(tmpdir(), "castellan-batches-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "policy.yaml");
  writeFileSync(path, policy(""), { mode: 0o600 });
  const own = await startServer({ args: [...ARGS, "--policy", path, "--log-level", "info"] });
  t.after(() => own.stop());
  const lines = Array.from({ length: 3000 }, (_, i) => line(`${i}`, 60));
  const exp = Math.floor(Date.now() / 1000) + 4;
  const by = (org: string): OpenAI => client(issuer.token({ org }), own);
  const short = client(issuer.token({ org: "a", exp }), own);
  const [outlives, closed] = [await begin(short, lines), await begin(by("b"), lines)];
  await until("the token has run out", () =>
    short.batches.list().then(
      () => false,
      (error) => status(error) === 401,
    ),
  );
  const completed = async (): Promise<number> =>
    (await by("a").batches.retrieve(outlives)).request_counts?.completed ?? 0;
  const before = await completed();
  await until("it goes on", async () => (await completed()) > before);
  const reload = async (text: string): Promise<void> => {
    const said = own.stderr().length;
    writeFileSync(path, text);
    own.child.kill("SIGHUP");
    await until("the reload", () => own.stderr().slice(said).includes("the policy file was read anew"));
  };
  await reload(policy("", "closed"));
  const other = await completed();
  await until("another tenant's goes on", async () => (await completed()) > other);
  await reload(policy(", limits: { requestsPerDay: 1000000 }"));
  for (const [org, id] of [
    ["a", outlives],
    ["b", closed],
  ] as const) {
    const batch = await over(by(org), id);
    assert.deepEqual([batch.status, batch.errors?.data?.[0]?.code], ["failed", "unauthenticated"], org);
    assert.ok((await rowsOf(by(org), batch.output_file_id)).length > 0, "what was answered can be had");
  }
});

/** A batch of 20 lines of 10 tokens each, by somebody who has 40 a period. */
async function beyondBudget(tenant: string, period: Period): Promise<{ by: OpenAI; id: string }> {
  const limits = { budgets: [{ period, unit: "tokens", amount: 40 }] } as const;
  const by = client(await makeKey(server.stateDir, "user", { tenant, limits }));
  await until("the key is known", () =>
    by.files.list().then(
      () => true,
      () => false,
    ),
  );
  const lines = Array.from({ length: 20 }, (_, i) => line(`${i}`, 8));
  return { by, id: await begin(by, lines) };
}

test("lines are metered as their author's: what is used up for longer than the batch has ends them as it would a request", async (t) => {
  const outlives = (["week", "month"] as const).find(
    (each) => windowAt(each, Date.now()).end > Date.now() + 25 * HOUR_MS,
  );
  if (outlives === undefined) return t.skip("the week and the month both end within a day");
  const { by, id } = await beyondBudget("poor", outlives);
  const batch = await over(by, id);
  assert.equal(batch.status, "completed");
  const answers = await rowsOf(by, batch.output_file_id);
  assert.ok(answers.length >= 1 && answers.length <= 4, `${answers.length} of 10 tokens each`);
  for (const { response } of await rowsOf(by, batch.error_file_id)) assert.equal(response?.status_code, 429);
});

test("what begins anew within the batch's time is waited for, and other tenants' batches do not wait with it", async () => {
  const { by, id } = await beyondBudget("patient", "day");
  let batch = await by.batches.retrieve(id);
  await until("some are answered", async () => {
    batch = await by.batches.retrieve(id);
    return (batch.request_counts?.completed ?? 0) >= 1;
  });
  await until("the budget is used up", () =>
    by.completions.create({ model: "castellan-demo", prompt: [5, 6], max_tokens: 8, ignore_eos: true } as never).then(
      () => false,
      (error) => status(error) === 429,
    ),
  );
  const lines = Array.from({ length: 6 }, (_, i) => line(`${i}`, 2));
  const others = await over(other, await begin(other, lines));
  assert.deepEqual([others.status, others.request_counts], ["completed", { total: 6, completed: 6, failed: 0 }]);
  batch = await by.batches.retrieve(id);
  assert.deepEqual([batch.status, batch.request_counts?.failed], ["in_progress", 0]);
  assert.ok((batch.request_counts?.completed ?? 0) >= 1);
  await by.batches.cancel(id);
  assert.equal((await over(by, id)).status, "cancelled");
});

test("a server that dies goes on at its next start: no line twice, none lost", async (t) => {
  const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-batches-")), "state");
  let running = await startServer({ stateDir, args: ARGS });
  const key = await makeKey(stateDir, "user", { tenant: "acme" });
  let by = client(key, running);
  await until("the key is known", () =>
    by.files.list().then(
      () => true,
      () => false,
    ),
  );
  const count = 400;
  const id = await begin(
    by,
    Array.from({ length: count }, (_, i) => line(`${i}`, 1 + (i % 40))),
  );
  let before = 0;
  for (const signal of ["SIGKILL", "SIGTERM", "SIGKILL"] as const) {
    let done = 0;
    await until("more are answered", async () => {
      const { request_counts: counts } = await by.batches.retrieve(id);
      done = (counts?.completed ?? 0) + (counts?.failed ?? 0);
      return done > before;
    });
    before = done;
    running.child.kill(signal);
    await running.exited;
    running = await startServer({ stateDir, args: ARGS });
    by = client(key, running);
  }
  t.after(() => running.stop());
  const batch = await over(by, id);
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: count, completed: count, failed: 0 });
  assert.deepEqual(
    (await rowsOf(by, batch.output_file_id)).map(({ custom_id, response }) => [
      custom_id,
      response?.body.usage?.completion_tokens,
    ]),
    Array.from({ length: count }, (_, i) => [`${i}`, 1 + (i % 40)]),
  );
  const left = readdirSync(join(stateDir, "files")).filter((name) => !name.startsWith("file-"));
  assert.deepEqual(left, [], "nothing of the work is left");
});

test("two servers on one database: each shows a tenant's files and batches, contents are where they were written", {
  skip: postgresMissing ?? false,
}, async (t) => {
  const postgres = await startPostgres();
  t.after(() => postgres.stop());
  const folder = mkdtempSync(join(tmpdir(), "castellan-batches-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const pepper = join(folder, "pepper");
  writeFileSync(pepper, randomBytes(32).toString("hex"), { mode: 0o600 });
  const args = [...ARGS, "--database-url", await postgres.database(), "--pepper-file", pepper];
  const [first, second] = [await startServer({ args }), await startServer({ args })];
  t.after(() => Promise.all([first.stop(), second.stop()]));
  const [here, there] = [client(TEST_KEY, first), client(TEST_KEY, second)];
  const input = await upload(here, [line("a", 2), line("b", 3)]);
  assert.equal((await there.files.retrieve(input)).filename, "in.jsonl");
  assert.deepEqual(
    (await there.files.list()).data.map(({ id }) => id),
    [input],
  );
  await assert.rejects(
    there.files.content(input) as unknown as Promise<unknown>,
    (error) => status(error) === 409 && /another server/.test((error as Error).message),
  );
  const made = await there.batches.create({
    input_file_id: input,
    endpoint: "/v1/completions",
    completion_window: "24h",
  });
  const batch = await over(there, made.id);
  assert.deepEqual([batch.status, batch.request_counts?.completed], ["completed", 2]);
  assert.deepEqual(
    (await rowsOf(here, batch.output_file_id)).map(({ custom_id: name }) => name),
    ["a", "b"],
  );
  const long = await begin(
    here,
    Array.from({ length: 3000 }, (_, i) => line(`${i}`, 60)),
  );
  assert.equal((await there.batches.cancel(long)).status, "cancelling");
  assert.equal((await over(here, long)).status, "cancelled");
  assert.equal((await there.files.delete(input)).deleted, true);
  await assert.rejects(here.files.retrieve(input), NotFoundError);
  assert.deepEqual(
    (await there.batches.list()).data.map(({ id }) => id),
    [long, made.id],
  );
});
