import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "#engine/engine.ts";
import { FakeKernel, type FakeScript } from "#engine/fake.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { SpillCatalog } from "./catalog.ts";
import { Spill } from "./spill.ts";
import { SpillStore } from "./store.ts";

const hasher = await createBlockHasher("sha256");
const folder = (): string => mkdtempSync(join(tmpdir(), "castellan-spill-"));
const filesIn = (directory: string): string[] =>
  readdirSync(directory, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith(".kv"));

/** Two slots, so that a third prompt drives out the first. */
const SCRIPT: FakeScript = { maxSequences: 2, contextPerSlot: 512, maxBatchTokens: 64 };
const LIMITS: EngineLimits = {
  maxNumSeqs: 2,
  maxNumBatchedTokens: 64,
  contextLength: 512,
  schedulingPolicy: "fcfs",
  prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
};

class WatchedKernel extends FakeKernel {
  restored = 0;
  override restore(slot: number, data: Uint8Array, length: number): void {
    this.restored++;
    super.restore(slot, data, length);
  }
}

const engineOf = (kernel: FakeKernel, directory: string | undefined, maxBytes = 1 << 20): Engine =>
  new Engine(kernel, directory === undefined ? LIMITS : { ...LIMITS, spill: { directory, maxBytes } }, hasher);

const text = (length: number, seed: number): number[] => Array.from({ length }, (_, i) => 3 + ((i * seed + i) % 50));

function run(engine: Engine, prompt: readonly number[], cacheSalt = ""): { tokens: number[]; cached: number } {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 6 };
  engine.submit({ request: 1, prompt: Int32Array.from(prompt), sampling, samples: 1, priority: 0, cacheSalt });
  const tokens: number[] = [];
  let cached = -1;
  for (let at = 0; at < 500; at++) {
    const report = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return { tokens, cached };
    assert.deepEqual(report.failures, []);
    for (const prompted of report.prompts) cached = prompted.cachedTokens;
    tokens.push(...report.tokens.map(({ token }) => token));
  }
  throw new Error("the engine did not become idle");
}

describe("spilled prefixes", () => {
  it("come back from disk, with the same answer", async () => {
    const directory = folder();
    const kernel = new WatchedKernel(SCRIPT);
    const engine = engineOf(kernel, directory);
    const prompts = [1, 2, 3, 4].map((seed) => text(120, seed));
    const first = prompts.map((prompt) => run(engine, prompt).tokens);
    await engine.spilled();
    assert.equal(filesIn(directory).length, 2);
    const again = run(engine, prompts[0] as number[]);
    assert.equal(kernel.restored, 1);
    assert.equal(again.cached, 119);
    assert.deepEqual(again.tokens, first[0]);
    const longer = run(engine, [...(prompts[1] as number[]), ...text(40, 9)]);
    assert.equal(kernel.restored, 2);
    assert.equal(longer.cached, 120);
    assert.deepEqual(
      longer.tokens,
      run(engineOf(new FakeKernel(SCRIPT), undefined), [...(prompts[1] as number[]), ...text(40, 9)]).tokens,
    );
    assert.deepEqual(run(engine, prompts[0] as number[], "another tenant").cached, 0);
    engine.close();
    assert.deepEqual(readdirSync(directory), []);
  });

  it("that somebody changed, cut or swapped are not read; the prompt is computed", async () => {
    const directory = folder();
    const kernel = new WatchedKernel(SCRIPT);
    const engine = engineOf(kernel, directory);
    const prompts = [1, 2, 3, 4, 5, 6].map((seed) => text(120, seed));
    const first = prompts.map((prompt) => run(engine, prompt).tokens);
    await engine.spilled();
    const paths = filesIn(directory).map((name) => join(directory, name));
    assert.equal(paths.length, 4);
    const files = paths.map((path) => readFileSync(path));
    const flipped = Buffer.from(files[0] as Buffer);
    flipped[40] = (flipped[40] as number) ^ 1;
    writeFileSync(paths[0] as string, flipped);
    writeFileSync(paths[1] as string, (files[1] as Buffer).subarray(0, 50));
    writeFileSync(paths[2] as string, files[3] as Buffer);
    writeFileSync(paths[3] as string, "");
    for (const at of [0, 1, 2, 3])
      assert.deepEqual(run(engine, prompts[at] as number[]), { tokens: first[at], cached: 0 });
    assert.equal(kernel.restored, 0);
    engine.close();
  });

  it("are forgotten with the cache, and nothing goes to disk where nothing is cached", async () => {
    const directory = folder();
    const engine = engineOf(new FakeKernel(SCRIPT), directory);
    for (const seed of [1, 2, 3, 4]) run(engine, text(120, seed));
    await engine.spilled();
    engine.resetPrefixCache();
    await engine.spilled();
    assert.deepEqual(filesIn(directory), []);
    assert.equal(run(engine, text(120, 1)).cached, 0);
    engine.close();
    const off = new Engine(
      new FakeKernel(SCRIPT),
      { ...LIMITS, prefixCache: NO_PREFIX_CACHE, spill: { directory: join(directory, "off"), maxBytes: 1 << 20 } },
      hasher,
    );
    for (const seed of [1, 2, 3, 4]) run(off, text(120, seed));
    assert.ok(!existsSync(join(directory, "off")));
  });

  it("never change an answer (any order of prompts that share beginnings)", () => {
    const prompts = fc.record({ family: fc.integer({ min: 0, max: 3 }), length: fc.integer({ min: 1, max: 200 }) });
    const [spilling, plain] = [new WatchedKernel(SCRIPT), new FakeKernel(SCRIPT)];
    const engine = engineOf(spilling, folder(), 4000);
    const reference = engineOf(plain, undefined);
    fc.assert(
      fc.property(fc.array(prompts, { maxLength: 12 }), (asked) => {
        for (const { family, length } of asked) {
          const prompt = text(length, family + 1);
          assert.deepEqual(run(engine, prompt).tokens, run(reference, prompt).tokens);
        }
      }),
      { numRuns: 40 },
    );
    assert.ok(spilling.restored > 0);
    engine.close();
  });
});

describe("SpillStore", () => {
  it("keeps no plain text, in files of its own user", async () => {
    const directory = folder();
    const store = new SpillStore(directory);
    const secret = Buffer.from("what the prompt said ".repeat(100));
    store.write(1, secret, () => assert.fail("written"));
    assert.deepEqual(Buffer.from(store.read(1) ?? []), secret, "readable while it is written");
    await store.settled();
    const [own] = readdirSync(directory);
    assert.equal(statSync(join(directory, own as string)).mode & 0o777, 0o700);
    const path = join(directory, own as string, "1.kv");
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(readFileSync(path).includes("prompt"), false);
    assert.deepEqual(Buffer.from(store.read(1) ?? []), secret);
    assert.equal(store.read(2), undefined);
    store.close();
    assert.deepEqual(readdirSync(directory), []);
  });

  it("says when the disk does not take it, and leaves nothing that was removed while it was written", async () => {
    const directory = folder();
    const store = new SpillStore(directory);
    store.write(1, Buffer.from("one"), () => {});
    store.remove(1);
    await store.settled();
    assert.deepEqual(filesIn(directory), []);
    writeFileSync(join(directory, readdirSync(directory)[0] as string, "2.kv"), "in the way");
    let failed = false;
    store.write(2, Buffer.from("two"), () => {
      failed = true;
    });
    await store.settled();
    assert.ok(failed);
    store.close();
  });

  it("removes what a process that is gone left behind, and nothing else", () => {
    const directory = folder();
    const [dead, alive] = [
      `castellan-spill-999999999-${"0".repeat(16)}`,
      `castellan-spill-${process.ppid}-${"0".repeat(16)}`,
    ];
    for (const name of [dead, alive, "mine"]) mkdirSync(join(directory, name));
    const store = new SpillStore(directory);
    assert.deepEqual(
      readdirSync(directory).filter((name) => [dead, alive, "mine"].includes(name)),
      [alive, "mine"].sort(),
    );
    store.close();
  });
});

describe("SpillCatalog", () => {
  it("finds the longest beginning and forgets what was of no use for longest", () => {
    const removed: number[] = [];
    const catalog = new SpillCatalog(100, (id) => removed.push(id));
    const one = catalog.add(["a", "b", "c"], 12, 12, 40);
    catalog.add(["a", "x"], 8, 8, 40);
    assert.equal(catalog.find(["a", "b", "q"])?.blocks, 2);
    assert.equal(catalog.find(["a", "b", "q"])?.entry, one);
    assert.equal(catalog.find(["q"]), undefined);
    assert.ok(catalog.has(["a", "b", "c"]) && !catalog.has(["a", "b", "c", "d"]) && !catalog.has([]));
    catalog.touch(one?.id ?? 0);
    catalog.add(["z"], 4, 4, 40);
    assert.deepEqual([removed, catalog.bytes, catalog.count], [[2], 80, 2]);
    assert.equal(catalog.find(["a", "x"])?.blocks ?? 0, 0);
    assert.equal(catalog.add(["huge"], 4, 4, 101), undefined);
    catalog.clear();
    assert.deepEqual([removed, catalog.bytes, catalog.find(["z"])], [[2, 1, 3], 0, undefined]);
  });

  it("forgets an entry whose bytes are gone", () => {
    const spill = new Spill({ directory: folder(), maxBytes: 1000 });
    const entry = spill.catalog.add(["a"], 4, 4, 10);
    assert.equal(spill.load(entry?.id ?? 0), undefined);
    assert.equal(spill.catalog.count, 0);
    spill.close();
  });
});
