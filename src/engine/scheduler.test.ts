import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Placement } from "./placement.ts";
import { type Plan, Scheduler, type SchedulerLimits } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";

/** A scheduler with its slots; nothing is cached. */
function schedulerOf(limits: SchedulerLimits): { scheduler: Scheduler; placement: Placement } {
  const placement = new Placement({
    slots: limits.maxSequences,
    blockSize: 4,
    minCopyTokens: 4,
    retain: false,
    prefillBlock: 1,
    reuseGenerated: false,
  });
  return { scheduler: new Scheduler(limits, placement), placement };
}

const LIMITS: SchedulerLimits = {
  maxSequences: 4,
  maxBatchTokens: 10,
  maxPromptRows: 3,
  maxPromptTokens: 10,
  policy: "fcfs",
  maxAdapters: 2,
  prefillBlock: 1,
};

function sequenceOf(
  order: number,
  length: number,
  priority = 0,
  promptLogprobs = false,
  share = "",
  weight = 1,
  adapter?: number,
): Sequence {
  const sampling = promptLogprobs ? { ...NEUTRAL_SAMPLING, promptLogprobs: 0 } : NEUTRAL_SAMPLING;
  const prompt = new Int32Array(length);
  return new Sequence({
    request: order,
    sample: 0,
    order,
    prompt,
    sampling,
    priority,
    arrived: 0,
    cacheSalt: "",
    share,
    weight,
    adapter: adapter === undefined ? undefined : { number: adapter, name: String(adapter) },
    shared: false,
  });
}

/** What a forward and a settle do to the sequences: compute, and grow by a token once all is computed. */
function run(plan: Plan): void {
  for (const [sequence, count] of plan) {
    sequence.computed += count;
    while ((sequence.promptLogprobs?.length ?? Infinity) < Math.min(sequence.computed + 1, sequence.prompt.length)) {
      sequence.promptLogprobs?.push(null);
    }
    if (sequence.pending === 0) sequence.output.push(1);
  }
}

/** Schedules and runs a step. */
function advanced(scheduler: Scheduler): Plan {
  const plan = scheduler.schedule();
  run(plan);
  return plan;
}

const tokensOf = (plan: Plan): Record<number, number> =>
  Object.fromEntries([...plan].map(([sequence, count]) => [sequence.order, count]));

describe("Scheduler", () => {
  it("serves decodes first, then prompts in chunks, in order of arrival", () => {
    const { scheduler } = schedulerOf(LIMITS);
    for (const [order, length] of [
      [0, 2],
      [1, 14],
      [2, 3],
    ] as const)
      scheduler.enqueue(sequenceOf(order, length));
    const plans: unknown[] = [];
    for (let step = 0; step < 3; step++) {
      const plan = scheduler.schedule();
      plans.push(tokensOf(plan));
      run(plan);
    }
    assert.deepEqual(plans, [
      { 0: 2, 1: 8 },
      { 0: 1, 1: 6, 2: 3 },
      { 0: 1, 1: 1, 2: 1 },
    ]);
  });

  it("gives prompts less while somebody decodes", () => {
    const { scheduler } = schedulerOf({ ...LIMITS, maxPromptTokens: 4 });
    scheduler.enqueue(sequenceOf(0, 9));
    const plans = [tokensOf(advanced(scheduler))];
    for (const order of [1, 2]) scheduler.enqueue(sequenceOf(order, 6));
    for (let step = 0; step < 3; step++) plans.push(tokensOf(advanced(scheduler)));
    assert.deepEqual(plans, [{ 0: 9 }, { 0: 1, 1: 4 }, { 0: 1, 1: 2, 2: 2 }, { 0: 1, 1: 1, 2: 4 }]);
  });

  it("gives the next free place for an adapter to the share that waits for one, however many another has waiting", () => {
    const { scheduler, placement } = schedulerOf(LIMITS);
    const live: Sequence[] = [];
    const enqueue = (order: number, share: string, adapter: number): Sequence => {
      const sequence = sequenceOf(order, 2, 0, false, share, 1, adapter);
      live.push(sequence);
      scheduler.enqueue(sequence);
      return sequence;
    };
    const first = enqueue(0, "a", 1);
    enqueue(1, "a", 2);
    advanced(scheduler);
    const late = enqueue(2, "b", 3);
    const more = Array.from({ length: 6 }, (_, i) => enqueue(3 + i, "a", 1 + (i % 2)));
    advanced(scheduler);
    assert.deepEqual([late.state, ...more.map(({ state }) => state)], new Array(7).fill("waiting"));
    drop(scheduler, placement, live, first);
    advanced(scheduler);
    assert.equal(late.state, "running");
  });

  it("takes the lowest free slot", () => {
    const { scheduler, placement } = schedulerOf(LIMITS);
    const sequences = [0, 1, 2].map((order) => sequenceOf(order, 1));
    for (const sequence of sequences) scheduler.enqueue(sequence);
    run(scheduler.schedule());
    placement.release(sequences[1] as Sequence, true);
    const next = sequenceOf(3, 1);
    scheduler.enqueue(next);
    scheduler.schedule();
    assert.equal(next.slot, 1);
  });

  it("honours priority only under that policy", () => {
    for (const [policy, first] of [
      ["fcfs", 0],
      ["priority", 2],
    ] as const) {
      const { scheduler } = schedulerOf({ ...LIMITS, maxSequences: 1, policy });
      for (const [order, priority] of [
        [0, 5],
        [1, 5],
        [2, -1],
      ] as const)
        scheduler.enqueue(sequenceOf(order, 1, priority));
      assert.deepEqual(Object.keys(tokensOf(scheduler.schedule())), [String(first)]);
    }
  });

  it("gives a paused sequence nothing and keeps its slot", () => {
    const { scheduler } = schedulerOf(LIMITS);
    const sequence = sequenceOf(0, 3);
    scheduler.enqueue(sequence);
    run(scheduler.schedule());
    sequence.paused = true;
    assert.equal(scheduler.schedule().size, 0);
    assert.equal(sequence.slot, 0);
    sequence.paused = false;
    assert.deepEqual(tokensOf(scheduler.schedule()), { 0: 1 });
  });

  it("takes few prompt-logprob rows a step and lets others pass", () => {
    const { scheduler } = schedulerOf(LIMITS);
    scheduler.enqueue(sequenceOf(0, 8, 0, true));
    scheduler.enqueue(sequenceOf(1, 5, 0, false));
    const plan = scheduler.schedule();
    assert.deepEqual(tokensOf(plan), { 0: 3, 1: 5 });
  });

  it("refuses more slots than the budget has tokens", () => {
    assert.throws(() => schedulerOf({ ...LIMITS, maxSequences: 11 }), RangeError);
  });

  it("holds its invariants and follows a naive model under any commands", () => {
    const command = fc.oneof(
      fc.record({
        kind: fc.constant("submit" as const),
        length: fc.integer({ min: 1, max: 25 }),
        priority: fc.integer({ min: 0, max: 2 }),
      }),
      fc.record({ kind: fc.constantFrom("abort" as const, "toggle" as const), pick: fc.nat(20) }),
      fc.record({ kind: fc.constant("step" as const) }),
    );
    const limits = fc.record({
      maxSequences: fc.integer({ min: 1, max: 5 }),
      maxBatchTokens: fc.integer({ min: 5, max: 12 }),
      maxPromptRows: fc.constant(3),
      maxPromptTokens: fc.constant(12),
      policy: fc.constantFrom("fcfs" as const, "priority" as const),
      maxAdapters: fc.constant(1),
      prefillBlock: fc.constant(1),
    });
    fc.assert(
      fc.property(limits, fc.array(command, { maxLength: 60 }), (chosen, commands) => {
        const { scheduler, placement } = schedulerOf(chosen);
        const live: Sequence[] = [];
        commands.forEach((todo, order) => {
          if (todo.kind === "submit") {
            const sequence = sequenceOf(order, todo.length, todo.priority);
            live.push(sequence);
            scheduler.enqueue(sequence);
          } else if (todo.kind !== "step") {
            const sequence = live[todo.pick % Math.max(1, live.length)];
            if (sequence === undefined) return;
            if (todo.kind === "toggle") sequence.paused = !sequence.paused;
            else drop(scheduler, placement, live, sequence);
          } else step(scheduler, live, chosen);
          scheduler.checkIntegrity();
          assert.equal(placement.runningCount + scheduler.waitingCount, live.length);
        });
      }),
      { numRuns: 300 },
    );
  });
});

function drop(scheduler: Scheduler, placement: Placement, live: Sequence[], sequence: Sequence): void {
  if (sequence.state === "running") placement.release(sequence, true);
  else scheduler.dequeue(sequence);
  sequence.state = "finished";
  live.splice(live.indexOf(sequence), 1);
}

/** The naive model: who must get exactly one token, what the plan may hold, and who may not be overtaken. */
function step(scheduler: Scheduler, live: Sequence[], limits: SchedulerLimits): void {
  const decoding = live.filter((sequence) => sequence.state === "running" && !sequence.paused && sequence.decoding);
  const waitingBefore = live.filter((sequence) => sequence.state === "waiting" && !sequence.paused);
  const plan = scheduler.schedule();
  let total = 0;
  for (const [sequence, count] of plan) {
    assert.ok(count >= 1 && count <= sequence.pending && !sequence.paused && sequence.state === "running");
    total += count;
  }
  assert.ok(total <= limits.maxBatchTokens);
  for (const sequence of decoding) assert.equal(plan.get(sequence), 1);
  const runnable = live.filter((sequence) => sequence.state === "running" && !sequence.paused);
  const wanted = runnable.reduce((sum, sequence) => sum + sequence.pending, 0);
  assert.equal(total, Math.min(wanted, limits.maxBatchTokens), "no budget is left unused");
  const key = (sequence: Sequence) => (limits.policy === "priority" ? sequence.priority * 1000 : 0) + sequence.order;
  const admitted = waitingBefore.filter((sequence) => sequence.state === "running").map(key);
  const left = waitingBefore.filter((sequence) => sequence.state === "waiting").map(key);
  if (left.length > 0) assert.ok(Math.max(-1, ...admitted) < Math.min(...left), "nobody is overtaken");
  run(plan);
}
