/**
 * Usage is exact whenever the server is killed: what a client saw the end of is booked, once; nothing is that nobody
 * asked for.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Secret } from "#base/secret.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore } from "#policy/store/store.ts";
import { readUsage } from "#policy/usage/table.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "../fixtures/postgres.ts";
import { startServer, type TestServer } from "../harness.ts";

const ROUNDS = 3;
const CLIENTS = 6;
const PEPPER = join(mkdtempSync(join(tmpdir(), "castellan-usage-")), "pepper");
writeFileSync(PEPPER, Buffer.alloc(32, 9), { mode: 0o600 });

let postgres: TestPostgres | undefined;
after(() => postgres?.stop());

/** What clients asked for, by the tokens of the answer, which are different for every call. */
interface Seen {
  readonly complete: number[];
  /** Begun, and cut. */
  readonly cut: number[];
}

/** Keeps asking until the server is gone; half of the answers are streams. */
async function load(server: TestServer, client: number, seen: Seen, next: () => number): Promise<void> {
  for (;;) {
    const tokens = next();
    const stream = client % 2 === 0;
    const body = JSON.stringify({
      model: "castellan-demo",
      prompt: [5],
      max_tokens: tokens,
      ignore_eos: true,
      stream,
    });
    try {
      const response = await server.fetch("/v1/completions", { method: "POST", body });
      const text = await response.text();
      assert.equal(response.status, 200, text);
      assert.ok(stream ? text.endsWith("data: [DONE]\n\n") : text.endsWith("}"), "an answer ended without its end");
      seen.complete.push(tokens);
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      seen.cut.push(tokens);
      return;
    }
  }
}

/** Whether some of the numbers add up to the sum, with so many of them. */
function someOf(numbers: readonly number[], count: number, sum: number): boolean {
  for (let chosen = 0; chosen < 1 << numbers.length; chosen++) {
    const picked = numbers.filter((_, i) => (chosen >> i) & 1);
    if (picked.length === count && picked.reduce((total, n) => total + n, 0) === sum) return true;
  }
  return false;
}

async function booked(stateDir: string, url: string | undefined) {
  const state = openStateDirectory(stateDir);
  const store = await openStore({ state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) });
  try {
    const [sum] = await readUsage(store.db, { by: ["model"], model: "castellan-demo" });
    return { requests: sum?.requests ?? 0, completion: sum?.completionTokens ?? 0, prompt: sum?.promptTokens ?? 0 };
  } finally {
    await store.close();
  }
}

for (const kind of ["SQLite", "PostgreSQL"] as const)
  test(`${kind}: a server that is killed under load has booked what clients saw the end of, once`, {
    skip: kind === "PostgreSQL" ? (postgresMissing ?? false) : false,
  }, async () => {
    if (kind === "PostgreSQL") postgres = await startPostgres();
    const url = await postgres?.database();
    const env: Record<string, string> = url === undefined ? {} : { CASTELLAN_DATABASE_URL: url };
    const args = url === undefined ? [] : ["--pepper-file", PEPPER];
    const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-usage-")), "state");
    let before = { requests: 0, completion: 0, prompt: 0 };
    let tokens = 1;
    for (let round = 0; round < ROUNDS; round++) {
      const server = await startServer({ stateDir, env, args });
      const seen: Seen = { complete: [], cut: [] };
      // Powers and primes would be nicer; different numbers in steps do, as few are cut at once.
      const next = (): number => {
        tokens += 1 + (tokens % 3);
        return 1 + (tokens % 40);
      };
      const clients = Array.from({ length: CLIENTS }, (_, i) => load(server, i, seen, next));
      const enough = 15 + Math.floor(Math.random() * 25);
      while (seen.complete.length < enough) await new Promise((done) => setTimeout(done, Math.random() * 5));
      server.child.kill("SIGKILL");
      await server.exited;
      await Promise.all(clients);
      const now = await booked(stateDir, url);
      const requests = now.requests - before.requests;
      const completion = now.completion - before.completion;
      const sum = seen.complete.reduce((total, n) => total + n, 0);
      const more = requests - seen.complete.length;
      const text = `${requests} requests with ${completion} tokens are booked, ${seen.complete.length} with ${sum} were seen complete, cut: ${seen.cut}`;
      assert.ok(more >= 0 && more <= seen.cut.length, text);
      assert.ok(someOf(seen.cut, more, completion - sum), text);
      assert.equal(now.prompt - before.prompt, requests, "a prompt of one token a request");
      before = now;
    }
  });

test("castellan usage prints what was used, as a table, JSON and CSV", async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const body = JSON.stringify({ model: "castellan-demo", prompt: [5, 6], max_tokens: 3, ignore_eos: true });
  for (let i = 0; i < 3; i++) await (await server.fetch("/v1/completions", { method: "POST", body })).json();
  await server.fetch("/v1/completions", { method: "POST", body: "{" });
  const usage = (...args: string[]): string =>
    execFileSync(process.execPath, ["src/cli/main.ts", "usage", "--state-dir", server.stateDir, ...args], {
      encoding: "utf8",
      stdio: "pipe",
    });
  const today = new Date().toISOString().slice(0, 10);
  assert.match(usage("--by", "tenant,model"), /^default +castellan-demo +3 +0 +6 +0 +9 +\$0\.00$/m);
  assert.match(usage("--by", "tenant"), /^default +4 +1 +6/m);
  const { data: rows } = JSON.parse(usage("--model", "castellan-demo", "--json"));
  assert.deepEqual(rows, [
    {
      day: today,
      requests: 3,
      errors: 0,
      prompt_tokens: 6,
      cached_tokens: 0,
      completion_tokens: 9,
      cost_usd_micros: 0,
    },
  ]);
  assert.match(usage("--by", "day", "--csv"), new RegExp(`\r\n${today},4,1,6,0,9,0.00\r\n$`));
  assert.throws(() => usage("--by", "week"), /--by takes/);
});
