/**
 * Operations over the real kernel in real processes: memory goes and comes back, weights change, outputs with them.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CACHE, open, request, startFleet, until } from "#engine/_fleet-fixture.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import { writeModel } from "../../../test/fixtures/gguf.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-operations-"));
const first = join(directory, "first.gguf");
const second = join(directory, "second.gguf");
const garbled = join(directory, "garbled.gguf");
const other = join(directory, "other.gguf");
/** Large enough that the process is plainly smaller without it. */
const CONTEXT = 16_384;

const kernelFor = ({ path = first }: { path?: string }): EngineOptions["kernel"] => ({
  kernel: "native",
  options: { modelPath: path, contextPerSlot: CONTEXT, maxSequences: 8, maxBatchTokens: 256, threads: 1, gpuLayers: 0 },
});

let engine: EngineHandle;
before(async () => {
  writeModel(first);
  writeModel(second, { seed: 9 });
  writeModel(other, { vocabulary: 300 });
  writeFileSync(garbled, readFileSync(first).subarray(0, 5000));
  engine = await startFleet(2, { kernel: kernelFor({}), kernelFor, prefixCache: CACHE, maxNumBatchedTokens: 256 });
});
after(() => engine.close());

async function answer(): Promise<number[]> {
  const reader = open(
    engine,
    request({ maxTokens: 24 }, { prompt: Int32Array.from({ length: 70 }, (_, at) => at + 1) }),
  );
  await reader.done;
  assert.equal(reader.ending, "length");
  return reader.tokens;
}

/** Bytes that the engine processes have in memory of their own. */
function resident(): number {
  const of = (pid: number | undefined): number =>
    Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? assert.fail()) * 1024;
  return engine.pids.reduce<number>((sum, pid) => sum + of(pid), 0);
}

test("asleep the KV cache is given back; awake the same is answered as before, by frozen requests too", async () => {
  const expected = await answer();
  const running = open(engine, request({ maxTokens: 2000 }, { id: "long" }));
  await until(() => running.tokens.length > 0, "it runs");
  const awake = resident();
  await engine.operations.sleep(1, "keep");
  const asleep = resident();
  // 2 engines × 8 slots: see the model's shape in the fixture.
  assert.ok(awake - asleep > 16 * 2 ** 20, `${awake} awake, ${asleep} asleep`);
  await engine.operations.wake();
  assert.deepEqual(await answer(), expected);
  const { length } = running.tokens;
  await until(() => running.tokens.length > length, "it goes on");
  engine.operations.abort(["long"]);
});

test("other weights answer otherwise, the first ones as before; what is no such model is refused", async () => {
  const expected = await answer();
  await engine.operations.reload(second, "keep");
  const changed = await answer();
  assert.notDeepEqual(changed, expected);
  for (const bad of [garbled, other, join(directory, "missing.gguf")])
    await assert.rejects(engine.operations.reload(bad, "keep"), /the weights are refused/);
  assert.deepEqual(await answer(), changed);
  await engine.operations.reload(first, "keep");
  assert.deepEqual(await answer(), expected);
  assert.equal(engine.stats().restarts, 0);
});

test("sleeping and waking again and again leaves the processes no larger", async () => {
  const round = async (): Promise<void> => {
    await engine.operations.sleep(1, "abort");
    await engine.operations.wake();
    await answer();
  };
  for (let at = 0; at < 3; at++) await round();
  const before = resident();
  for (let at = 0; at < 12; at++) await round();
  assert.ok(resident() - before < 12 * 2 ** 20, `${resident() - before} bytes more after 12 rounds`);
});
