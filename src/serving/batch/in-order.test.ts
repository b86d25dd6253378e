import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder } from "./in-order.ts";

async function* count(to: number): AsyncGenerator<number> {
  for (let i = 0; i < to; i++) yield i;
}

/** Work that ends when the test says so. */
function bench() {
  const open = new Map<number, (value: number) => void>();
  let most = 0;
  const work = (thing: number) =>
    new Promise<number>((resolve) => {
      open.set(thing, (value) => {
        open.delete(thing);
        resolve(value);
      });
      most = Math.max(most, open.size);
    });
  const turn = () => new Promise((done) => setImmediate(done));
  return { open, work, turn, most: () => most };
}

test("results come in the order of the things, whoever ends first", async () => {
  const { open, work, turn, most } = bench();
  const results: number[] = [];
  const all = (async () => {
    for await (const result of inOrder(count(20), { width: 3, ahead: 6 }, work)) results.push(result);
  })();
  // The newest first, as long as there are any.
  for (await turn(); open.size > 0; await turn()) {
    const newest = Math.max(...open.keys());
    open.get(newest)?.(newest * 10);
  }
  await all;
  assert.deepEqual(
    results,
    Array.from({ length: 20 }, (_, i) => i * 10),
  );
  assert.equal(most(), 3);
});

test("a slow one holds up no more than what may be ahead of it", async () => {
  const { open, work, turn } = bench();
  const results: number[] = [];
  const all = (async () => {
    for await (const result of inOrder(count(10), { width: 2, ahead: 4 }, work)) results.push(result);
  })();
  await turn();
  for (const thing of [1, 2, 3]) {
    open.get(thing)?.(thing);
    await turn();
  }
  assert.deepEqual([...open.keys()], [0], "nothing more begins");
  assert.deepEqual(results, []);
  open.get(0)?.(0);
  await turn();
  assert.deepEqual(results, [0, 1, 2, 3]);
  for (; open.size > 0; await turn()) for (const [thing, end] of open) end(thing);
  await all;
  assert.equal(results.length, 10);
});

test("what work throws comes out in its turn, and ends the source", async () => {
  let returned = false;
  async function* source() {
    try {
      yield* count(100);
    } finally {
      returned = true;
    }
  }
  const results: number[] = [];
  const work = async (thing: number): Promise<number> => {
    if (thing === 3) throw new Error("three");
    return thing;
  };
  await assert.rejects(async () => {
    for await (const result of inOrder(source(), { width: 8, ahead: 8 }, work)) results.push(result);
  }, /three/);
  assert.deepEqual(results, [0, 1, 2]);
  assert.equal(returned, true);
});
