import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as tick } from "node:timers/promises";
import fc from "fast-check";
import { merge } from "./merge.ts";

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function* paced(items: readonly number[], waits: number): AsyncGenerator<number> {
  for (const item of items) {
    for (let i = 0; i < waits; i++) await tick();
    yield item;
  }
}

test("so many sources at a time, each begun when one before it has ended, and none after the consumer left", async () => {
  for (const leaveAfter of [undefined, 3]) {
    let open = 0;
    let peak = 0;
    const begun: number[] = [];
    const source = async function* (number: number) {
      begun.push(number);
      peak = Math.max(peak, ++open);
      try {
        for (let i = 0; i <= number % 3; i++) {
          await tick();
          yield number;
        }
      } finally {
        open--;
      }
    };
    const seen: number[] = [];
    const sources = Array.from({ length: 10 }, (_, number) => source(number));
    for await (const number of merge(sources, () => {}, 2)) if (seen.push(number) === leaveAfter) break;
    assert.deepEqual([peak, open], [2, 0]);
    assert.deepEqual(
      begun,
      begun.map((_, at) => at),
    );
    assert.equal(begun.length, leaveAfter === undefined ? 10 : begun.length);
    assert.ok(leaveAfter === undefined ? seen.length === 19 : begun.length < 6);
  }
});

test("keeps every item, and the order within each source", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.array(fc.integer(), { maxLength: 5 }), fc.nat(2)), { maxLength: 5 }),
      async (sources) => {
        const tagged = sources.map(([items, waits], s) => map(paced(items, waits), (item) => ({ s, item })));
        const seen = await collect(merge(tagged, () => {}));
        for (const [s, [items]] of sources.entries()) {
          const own = seen.filter((entry) => entry.s === s).map((entry) => entry.item);
          assert.deepEqual(own, items);
        }
      },
    ),
    { numRuns: 50 },
  );
});

async function* map<T, U>(source: AsyncIterable<T>, change: (item: T) => U): AsyncGenerator<U> {
  for await (const item of source) yield change(item);
}

test("pulls at most one item ahead of each source", async () => {
  let pulled = 0;
  async function* counting(): AsyncGenerator<number> {
    for (;;) yield pulled++;
  }
  const merged = merge([counting(), counting()], () => {});
  await merged.next();
  for (let i = 0; i < 10; i++) await tick();
  assert.ok(pulled <= 3, `${pulled} items pulled for one taken`);
  await merged.return(undefined);
});

test("a failing source stops the others before the failure leaves", async () => {
  const controller = new AbortController();
  const closed: string[] = [];
  async function* failing(): AsyncGenerator<number> {
    yield 1;
    throw new Error("broken");
  }
  async function* waiting(): AsyncGenerator<number> {
    try {
      await new Promise((resolve) => controller.signal.addEventListener("abort", resolve));
    } finally {
      closed.push("waiting");
    }
  }
  await assert.rejects(collect(merge([failing(), waiting()], () => controller.abort())), /broken/);
  assert.deepEqual(closed, ["waiting"]);
});

test("leaving early closes sources that wait for ever, once stop has been called", async () => {
  const controller = new AbortController();
  async function* first(): AsyncGenerator<number> {
    yield 1;
  }
  async function* waiting(): AsyncGenerator<number> {
    await new Promise((resolve) => controller.signal.addEventListener("abort", resolve));
  }
  for await (const item of merge([first(), waiting()], () => controller.abort())) {
    assert.equal(item, 1);
    break;
  }
  assert.ok(controller.signal.aborted);
});
