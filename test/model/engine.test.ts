/**
 * The engine under any commands, against the naive model of alone.ts: whatever is submitted, aborted, paused, evicted,
 * preempted or broken in between, every sequence gets the tokens that it gets alone, nobody starves, nobody overtakes,
 * no step exceeds its budget, and nothing stays.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "#engine/engine.ts";
import { FAKE_LIMITS, FakeKernel } from "#engine/fake.ts";
import type { KernelErrorCode } from "#engine/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { Submission } from "#engine/requests.ts";
import type { SpeculationOptions } from "#engine/speculation/proposer.ts";
import { DIGITS } from "./alone.ts";
import { type FaultyCall, FaultyKernel } from "./faulty-kernel.ts";
import { Witness } from "./witness.ts";

const hasher = await createBlockHasher("sha256", "model");
/** CASTELLAN_MODEL_RUNS: how many command sequences a world gets; more than these find little that is new. */
const RUNS = Number(process.env["CASTELLAN_MODEL_RUNS"] ?? 150);

const BUDGET = 24;
const CONTEXT = 96;
const ADAPTERS = 3;

/** One kind of engine to try everything on. */
interface World {
  readonly name: string;
  readonly limits: Partial<EngineLimits>;
  readonly caching: boolean;
  readonly slots: number;
  readonly cells: number;
  readonly prefillBlock: number;
  readonly samples: number;
  /** Adapters and tenants with their weights. */
  readonly mixed?: boolean;
}

const GUESSES: SpeculationOptions = { method: "ngram", tokens: 4, lookupMax: 2, lookupMin: 1 };
const PLAIN: World = {
  name: "plain",
  limits: {},
  caching: false,
  slots: 4,
  cells: Infinity,
  prefillBlock: 1,
  samples: 1,
};
const WORLDS: readonly World[] = [
  PLAIN,
  { ...PLAIN, name: "priorities", limits: { schedulingPolicy: "priority" } },
  { ...PLAIN, name: "prefix cache, samples", caching: true, samples: 3 },
  { ...PLAIN, name: "prefix cache, prefill blocks", caching: true, prefillBlock: 8, samples: 3 },
  { ...PLAIN, name: "guesses", limits: { speculation: GUESSES }, samples: 2 },
  {
    ...PLAIN,
    name: "guesses, few cells, prefix cache, prefill blocks",
    limits: { speculation: { ...GUESSES, tokens: 9 } },
    cells: 120,
    caching: true,
    prefillBlock: 8,
    samples: 2,
  },
  { ...PLAIN, name: "adapters and tenants", limits: { maxAdapters: 2 }, caching: true, samples: 2, mixed: true },
  {
    ...PLAIN,
    name: "adapters and tenants, few cells",
    caching: true,
    cells: 120,
    prefillBlock: 8,
    samples: 2,
    mixed: true,
  },
  { ...PLAIN, name: "few cells", caching: true, cells: 120, samples: 2 },
  {
    ...PLAIN,
    name: "few cells, prefill blocks, priorities",
    cells: 120,
    prefillBlock: 8,
    caching: true,
    slots: 6,
    samples: 2,
    limits: { schedulingPolicy: "priority" },
  },
];

class Real {
  readonly engine: Engine;
  readonly kernel: FaultyKernel;
  readonly witness: Witness;
  readonly #world: World;
  /** Steps so far, which is the engine's clock: 0 would mean "not yet". */
  now = 1;
  /** The next call of this kind fails so. */
  armed: { readonly call: FaultyCall; readonly code: KernelErrorCode } | undefined;

  constructor(world: World) {
    this.#world = world;
    const { slots, cells, prefillBlock } = world;
    // The kernel could do more than the engine may.
    const more = { maxSequences: slots + 2, maxBatchTokens: BUDGET * 2 };
    const inner = new FakeKernel({ ...more, cells, prefillBlock, contextPerSlot: CONTEXT + 10 });
    this.kernel = new FaultyKernel(inner, (call) => this.#fault(call));
    const limits: EngineLimits = {
      maxNumSeqs: slots,
      maxNumBatchedTokens: BUDGET,
      contextLength: CONTEXT,
      schedulingPolicy: "fcfs",
      prefixCache: { ...NO_PREFIX_CACHE, enabled: world.caching, blockSize: 4 },
      ...world.limits,
    };
    this.engine = new Engine(this.kernel, limits, hasher, { now: () => this.now });
    for (let adapter = 1; adapter <= ADAPTERS; adapter++) this.engine.loadAdapter(adapter, "adapter");
    const guesses = world.limits.speculation?.tokens ?? 0;
    this.witness = new Witness(this.engine, { ...FAKE_LIMITS, prefillBlock }, CONTEXT, guesses);
  }

  submit(submission: Submission): void {
    this.witness.submit(submission, this.now);
    this.engine.checkIntegrity();
  }

  /** @returns whether there was anything to do */
  step(): boolean {
    this.now++;
    const armed = this.armed?.call === "forward";
    const report = this.engine.step();
    const struck = armed && this.armed === undefined;
    this.engine.checkIntegrity();
    const { cells, slots } = this.#world;
    assert.ok(this.kernel.batchTokens <= BUDGET, "the step's budget");
    assert.ok(this.engine.gauges.running <= slots, "sequences at once");
    if (report === undefined) {
      // Paused sequences keep their slots and their adapters' places, so they can keep everybody out.
      const paused = this.witness.open().every((request) => this.witness.requests.get(request)?.paused);
      assert.ok(paused || this.engine.gauges.running >= (this.#world.mixed ? 1 : slots), "nobody is left idle");
      return false;
    }
    this.witness.read(report, (_, expected) => struck || expected.some((one) => one.cells > cells));
    return true;
  }

  #fault(call: FaultyCall): KernelErrorCode | undefined {
    if (this.armed?.call !== call) return undefined;
    const { code } = this.armed;
    this.armed = undefined;
    return code;
  }
}

type Model = Record<string, never>;
type Command = fc.Command<Model, Real>;

/** A command that does one thing to the engine and is always allowed. */
function command(text: string, run: (real: Real) => void): Command {
  return {
    check: () => true,
    run: (_, real) => {
      run(real);
      real.engine.checkIntegrity();
    },
    toString: () => text,
  };
}

const pick = (real: Real, nth: number): number => {
  const open = real.witness.open();
  return open.length === 0 ? -1 : (open[nth % open.length] as number);
};

const sampling: fc.Arbitrary<SamplingParams> = fc
  .record({
    kind: fc.constantFrom("greedy", "seeded", "grammar"),
    seed: fc.integer(),
    maxTokens: fc.integer({ min: 0, max: 12 }),
    minTokens: fc.integer({ min: 0, max: 3 }),
    stopTokenIds: fc.constantFrom([], [7, 21]),
    ignoreEos: fc.boolean(),
    prompt: fc.boolean(),
  })
  .map(({ kind, seed, maxTokens, minTokens, stopTokenIds, ignoreEos, prompt }) => ({
    ...NEUTRAL_SAMPLING,
    temperature: kind === "seeded" ? 1 : 0,
    seed,
    maxTokens,
    ignoreEos,
    ...(kind === "grammar" ? { constraint: DIGITS } : { minTokens: Math.min(minTokens, maxTokens), stopTokenIds }),
    ...(prompt ? { promptLogprobs: 1 } : {}),
  }));

/** Prompts start alike in one of three ways, or with a token of their own. */
const submission = fc.record({
  sampling,
  start: fc.nat(3),
  length: fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 30, max: 80 })),
  end: fc.nat(63),
  samples: fc.integer({ min: 1, max: 3 }),
  priority: fc.integer({ min: -1, max: 1 }),
  salt: fc.constantFrom("", "", "a"),
  adapter: fc.nat(ADAPTERS),
  share: fc.record({ key: fc.constantFrom("x", "y", "z"), weight: fc.constantFrom(0.1, 1, 7) }),
});

function submitOf(world: World): fc.Arbitrary<Command> {
  return submission.map(({ start, length, end, salt, samples, priority, adapter, share, sampling }) =>
    command(`submit ${length} × ${samples} ${JSON.stringify(sampling)}`, (real) => {
      const request = real.witness.requests.size;
      const prompt = Int32Array.from({ length }, (_, at) => (at * 7 + start * 13 + (start === 3 ? request : 0)) % 60);
      prompt[length - 1] = end;
      const named = adapter === 0 ? {} : { adapter: { number: adapter, name: `adapter ${adapter}` } };
      const mixed = world.mixed ? { share, ...named } : {};
      const count = Math.min(samples, world.samples);
      real.submit({ request, prompt, sampling, samples: count, priority, cacheSalt: salt, ...mixed });
    }),
  );
}

function commandsOf(world: World): fc.Arbitrary<Iterable<Command>> {
  const nth = fc.nat(30);
  return fc.commands(
    [
      submitOf(world),
      submitOf(world),
      fc.constant(command("step", (real) => void real.step())),
      fc.integer({ min: 2, max: 9 }).map((count) =>
        command(`step × ${count}`, (real) => {
          for (let at = 0; at < count; at++) real.step();
        }),
      ),
      nth.map((at) => command(`abort ${at}`, (real) => real.witness.abort(pick(real, at)))),
      nth.map((at) => command(`pause ${at}`, (real) => real.witness.setPaused(pick(real, at), true))),
      nth.map((at) => command(`resume ${at}`, (real) => real.witness.setPaused(pick(real, at), false))),
      fc.constant(command("reset", (real) => real.engine.resetPrefixCache())),
      fc
        .record({
          call: fc.constantFrom<FaultyCall>("forward", "forward", "copy", "truncate"),
          code: fc.constantFrom<KernelErrorCode>("full", "failed", "invalid"),
        })
        .map((fault) =>
          command(`break ${fault.call} ${fault.code}`, (real) => {
            real.armed = fault;
          }),
        ),
    ],
    { maxCommands: 60, size: "max" },
  );
}

/** Lets everything run out. Whoever starves makes this throw. */
function drain(real: Real): void {
  for (const request of real.witness.requests.keys()) real.witness.setPaused(request, false);
  real.armed = undefined;
  let { patience } = real.witness;
  while (real.step()) assert.ok(--patience > 0, "somebody starves");
  assert.deepEqual(real.witness.open(), [], "nobody is forgotten");
}

function checkEmpty(real: Real): void {
  const { engine, kernel, witness } = real;
  assert.equal(engine.openRequests, 0);
  const { running, waiting, kvUsage, generationTokens } = engine.gauges;
  assert.deepEqual([running, waiting, kvUsage], [0, 0, 0]);
  assert.equal(generationTokens, witness.generated);
  const states = [...witness.requests.values()].map(({ state }) => state);
  if (states.every((state) => state === "finished")) assert.equal(engine.gauges.promptTokens, witness.promptTokens);
  engine.resetPrefixCache();
  for (let slot = 0; slot < kernel.limits.maxSequences; slot++) assert.equal(kernel.length(slot), 0);
  engine.checkIntegrity();
}

/** Whoever stands before another in line, and was there in time, is let in no later. */
function checkOrder({ witness }: Real, policy: "fcfs" | "priority"): void {
  const line = witness.admissions.filter(({ submission, everPaused }) => {
    return !everPaused && submission.sampling.promptLogprobs === undefined;
  });
  const before = (a: Submission, b: Submission): boolean => {
    if (policy === "priority" && a.priority !== b.priority) return a.priority < b.priority;
    return a.request < b.request;
  };
  for (const first of line) {
    for (const second of line) {
      if (!before(first.submission, second.submission) || first.arrived >= second.admitted) continue;
      assert.ok(
        first.admitted <= second.admitted,
        `${second.submission.request} overtakes ${first.submission.request}`,
      );
    }
  }
}

for (const world of WORLDS) {
  test(`any commands: ${world.name}`, () => {
    let [preemptions, hits] = [0, 0];
    fc.assert(
      fc.property(commandsOf(world), (commands) => {
        const real = new Real(world);
        fc.modelRun(() => ({ model: {}, real }), commands);
        drain(real);
        checkEmpty(real);
        preemptions += real.engine.gauges.preemptions;
        hits += real.engine.gauges.prefixHits;
        // Where nothing is shared nobody waits for another's prompt, so the line is kept strictly.
        if (!world.caching && world.samples === 1) checkOrder(real, world.limits.schedulingPolicy ?? "fcfs");
      }),
      { numRuns: RUNS },
    );
    // What the world is there for has happened.
    assert.equal(preemptions > 0, true);
    assert.equal(hits > 0, world.caching);
  });
}
