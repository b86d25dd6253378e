import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { FairQueue } from "./fair-queue.ts";
import { Placement } from "./placement.ts";
import { Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";

const OFTEN = 2000;

interface Wish {
  readonly share: string;
  readonly weight?: number;
  readonly prompt?: number;
  readonly output?: number;
}

/** A scheduler under which every sequence ends after so many tokens; counts what each share was granted. */
class House {
  readonly granted = new Map<string, number>();
  readonly ended: Sequence[] = [];
  readonly #placement: Placement;
  readonly #scheduler: Scheduler;
  readonly #outputs = new Map<Sequence, number>();
  #order = 0;

  constructor(slots: number) {
    const placement = { slots, blockSize: 4, minCopyTokens: 4, retain: false, prefillBlock: 1, reuseGenerated: false };
    this.#placement = new Placement(placement);
    const limits = {
      maxSequences: slots,
      maxBatchTokens: 32,
      maxPromptRows: 8,
      maxPromptTokens: 32,
      policy: "fcfs",
      maxAdapters: 1,
      prefillBlock: 1,
    } as const;
    this.#scheduler = new Scheduler(limits, this.#placement);
  }

  submit({ share, weight = 1, prompt = 4, output = 4 }: Wish): Sequence {
    const order = this.#order++;
    const ids = { request: order, sample: 0, order, prompt: new Int32Array(prompt), sampling: NEUTRAL_SAMPLING };
    const sequence = new Sequence({
      ...ids,
      priority: 0,
      arrived: 0,
      cacheSalt: share,
      share,
      weight,
      adapter: undefined,
      shared: false,
    });
    this.#outputs.set(sequence, output);
    this.#scheduler.enqueue(sequence);
    return sequence;
  }

  step(): void {
    for (const [sequence, count] of this.#scheduler.schedule()) {
      this.granted.set(sequence.share, (this.granted.get(sequence.share) ?? 0) + count);
      sequence.computed += count;
      if (sequence.pending === 0) sequence.output.push(1);
      if (sequence.output.length < (this.#outputs.get(sequence) ?? 0)) continue;
      this.#placement.release(sequence, true);
      sequence.state = "finished";
      this.ended.push(sequence);
    }
    this.#scheduler.checkIntegrity();
  }

  steps(count: number): void {
    for (let at = 0; at < count; at++) this.step();
  }

  endOf(sequence: Sequence): number {
    for (let at = 1; at <= OFTEN; at++) {
      this.step();
      if (sequence.state === "finished") return at;
    }
    throw new Error("the sequence never ends");
  }
}

const many = (house: House, count: number, wish: Wish): void => {
  for (let at = 0; at < count; at++) house.submit(wish);
};

describe("fair shares", () => {
  it("do not let a thousand requests of one starve another's single one", () => {
    const house = new House(4);
    many(house, 1000, { share: "many" });
    house.steps(10);
    const one = house.submit({ share: "one" });
    // It sits down at the next free slot: nobody runs longer than 5 steps here, and it itself takes 5.
    assert.ok(house.endOf(one) <= 10);
  });

  it("follow the weights while both have work", () => {
    const house = new House(8);
    many(house, 600, { share: "heavy", weight: 3 });
    many(house, 600, { share: "light", weight: 1 });
    house.steps(150);
    const ratio = (house.granted.get("heavy") ?? 0) / (house.granted.get("light") ?? 1);
    assert.ok(ratio > 2.7 && ratio < 3.3, `3 to 1 was ${ratio}`);
  });

  it("count tokens, not requests", () => {
    const house = new House(4);
    many(house, 300, { share: "long", prompt: 24, output: 8 });
    many(house, 1200, { share: "short", prompt: 2, output: 2 });
    house.steps(200);
    const ratio = (house.granted.get("long") ?? 0) / (house.granted.get("short") ?? 1);
    assert.ok(ratio > 0.8 && ratio < 1.25, `1 to 1 was ${ratio}`);
  });

  it("give nobody credit for having been idle", () => {
    const house = new House(2);
    many(house, 400, { share: "steady" });
    house.steps(200);
    many(house, 400, { share: "late" });
    const before = house.granted.get("steady") ?? 0;
    house.steps(100);
    const [steady, late] = [(house.granted.get("steady") ?? 0) - before, house.granted.get("late") ?? 0];
    assert.ok(steady / late > 0.8, `while late got ${late}, steady got ${steady}`);
  });

  it("are first come first served with one share", () => {
    const house = new House(1);
    const sequences = [1, 2, 3, 4].map((prompt) => house.submit({ share: "", prompt }));
    house.steps(40);
    assert.deepEqual(house.ended, sequences);
  });

  it("hold their invariants and forget idle shares", () => {
    const wish = fc.record({
      share: fc.constantFrom("a", "b", "c", "d"),
      weight: fc.constantFrom(0.5, 1, 7),
      prompt: fc.integer({ min: 1, max: 40 }),
      output: fc.integer({ min: 1, max: 6 }),
    });
    fc.assert(
      fc.property(fc.array(fc.oneof(wish, fc.constant(undefined)), { maxLength: 60 }), (todo) => {
        const house = new House(3);
        const asked = todo.filter((entry) => entry !== undefined).length;
        for (const entry of todo) entry === undefined ? house.step() : house.submit(entry);
        house.steps(OFTEN / 4);
        assert.equal(house.ended.length, asked);
      }),
      { numRuns: 100 },
    );
    const queue = new FairQueue(() => 0);
    assert.equal(queue.next(new Set()), undefined);
  });
});
