import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BATCH_STATUSES, type BatchStatus } from "#core/batches.ts";
import type { Grant } from "#core/principal.ts";
import { principalOf } from "#policy/roles.ts";
import { memoryRecords } from "#test/fixtures/batches.ts";
import { Batches } from "./batches.ts";
import { Files } from "./files.ts";

/** What a batch of each status is after somebody has cancelled it; absent: that is refused. */
const CANCELLED: Readonly<Partial<Record<BatchStatus, BatchStatus>>> = {
  validating: "cancelling",
  in_progress: "cancelling",
  cancelling: "cancelling",
  // Its lines are done: it ends as it would.
  finalizing: "finalizing",
  cancelled: "cancelled",
};

test("a batch is cancelled in each status, or not, and only by its tenant", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-cancel-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const records = memoryRecords();
  const room = { allBytes: 1e6, tenantBytes: 1e6, tenantFiles: 10 };
  const files = new Files({ records, folder, room, keepMs: 1e9 });
  let woken = 0;
  const wake = (): void => {
    woken++;
  };
  const batches = new Batches({ records, files, takes: () => true, wake, mostOpen: 10, now: () => 5000 });
  const grantOf = (tenant: string): Grant<"batch"> =>
    ({ principal: principalOf({ id: "k", tenant, role: "user" }) }) as unknown as Grant<"batch">;
  const [own, other] = [grantOf("a"), grantOf("b")];
  const { id: inputFileId } = await files.upload(own, async (take) => {
    const content = (async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from("{}\n");
    })();
    await take({ name: "in", atLeast: 0, content });
    return {};
  });
  for (const status of BATCH_STATUSES) {
    const words = { inputFileId, endpoint: "/v1/completions", window: "24h", windowMs: 100, metadata: null };
    const made = await batches.create(own, words);
    assert.deepEqual([made.createdAt, made.expiresAt], [5000, 5100]);
    await records.change(made.id, ["validating"], { status });
    await assert.rejects(batches.cancel(other, made.id), { kind: "batch_not_found" });
    woken = 0;
    const expected = CANCELLED[status];
    if (expected === undefined) await assert.rejects(batches.cancel(own, made.id), { kind: "invalid_request" }, status);
    else assert.equal((await batches.cancel(own, made.id)).status, expected, status);
    const now = await batches.get(own, made.id);
    assert.equal(now.status, expected ?? status);
    const begun = expected === "cancelling" && status !== "cancelling";
    assert.deepEqual([now.times.cancelling, woken], begun ? [5000, 1] : [undefined, 0], status);
    await records.change(made.id, BATCH_STATUSES, { status: "cancelled" });
  }
  const [newest, next] = await batches.list(own, { limit: 2 });
  assert.deepEqual(await batches.list(own, { limit: 1, after: newest?.id ?? "" }), [next]);
  for (const [grant, id] of [
    [own, "batch_none"],
    [other, newest?.id ?? ""],
  ] as const)
    await assert.rejects(batches.list(grant, { limit: 1, after: id }), { kind: "invalid_request" });
});
