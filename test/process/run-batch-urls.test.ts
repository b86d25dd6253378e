/**
 * `castellan run-batch` from one URL to another, as people run it. Skipped where this user can make no network namespace.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const NAMESPACE = ["--net", ...(process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"])];

test("the input is fetched, the output is put, and no query is in any word of it", async (t) => {
  const probe = spawnSync("unshare", [...NAMESPACE, "ip", "link", "set", "lo", "up"], { encoding: "utf8" });
  if (probe.status !== 0) return t.skip(`no network namespace here: ${probe.error?.message ?? probe.stderr}`);
  const folder = mkdtempSync(join(tmpdir(), "castellan-batch-urls-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const store = join(import.meta.dirname, "run-batch-store.ts");
  const child = spawn("unshare", [
    ...NAMESPACE,
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    store,
    folder,
  ]);
  let [text, problem] = ["", ""];
  child.stdout.on("data", (chunk) => {
    text += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    problem += String(chunk);
  });
  await new Promise((done) => child.on("close", done));
  assert.match(text, /^\{/, problem);
  const { code, out, err, seen } = JSON.parse(text) as { code: number; out: string; err: string; seen: string[] };
  assert.equal(code, 0, err);
  assert.match(out, /^https:\/\/93\.184\.216\.34\/out\.jsonl: 1 answered, 1 failed\n$/);
  assert.equal(seen.length, 2);
  assert.equal(seen[0], "GET /in.jsonl?secret=1 ");
  const rows = (seen[1] ?? "").replace("PUT /out.jsonl?secret=2 ", "").trim().split("\n");
  assert.deepEqual(
    rows.map((row) => {
      const { custom_id, response } = JSON.parse(row) as { custom_id: string; response: { status_code: number } };
      return [custom_id, response.status_code];
    }),
    [
      ["a", 200],
      ["b", 400],
    ],
  );
  assert.doesNotMatch(err, /secret/);
  const records = err.split("\n").filter((line) => line.includes('"msg":"egress"'));
  assert.deepEqual(
    records.map((line) => {
      const { kind, decision, outcome, host, addresses } = JSON.parse(line) as Record<string, unknown>;
      return [kind, decision, outcome, host, addresses];
    }),
    [
      ["batch-input", "allowed", "ok", "93.184.216.34", ["93.184.216.34"]],
      ["batch-output", "allowed", "ok", "93.184.216.34", ["93.184.216.34"]],
    ],
  );
  assert.deepEqual(readdirSync(join(folder, "tmp")), []);
});
