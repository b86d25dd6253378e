import assert from "node:assert/strict";
import { test } from "node:test";
import { createRegistry, printMetrics } from "#base/metrics.ts";
import { registerBatchMetrics } from "./metrics.ts";

test("what is kept is asked once a scrape, what happens is counted, and a store that is away leaves its part out", async () => {
  const registry = createRegistry();
  let [asked, away] = [0, false];
  const onRow = registerBatchMetrics(registry, async () => {
    asked++;
    if (away) throw new Error("away");
    return { files: 2, bytes: 300, batches: new Map([["in_progress", 1] as const]) };
  });
  onRow("answered");
  onRow("answered");
  onRow("failed");
  const print = async (): Promise<readonly string[]> =>
    (await printMetrics(registry)).body.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const counted = [
    'castellan_batch_lines_total{outcome="answered"} 2',
    'castellan_batch_lines_total{outcome="failed"} 1',
  ];
  assert.deepEqual(await print(), [
    ...counted,
    "castellan_files 2",
    "castellan_files_bytes 300",
    'castellan_batches{status="validating"} 0',
    'castellan_batches{status="failed"} 0',
    'castellan_batches{status="in_progress"} 1',
    'castellan_batches{status="finalizing"} 0',
    'castellan_batches{status="completed"} 0',
    'castellan_batches{status="expired"} 0',
    'castellan_batches{status="cancelling"} 0',
    'castellan_batches{status="cancelled"} 0',
  ]);
  assert.equal(asked, 1);
  away = true;
  assert.deepEqual(await print(), counted);
});
