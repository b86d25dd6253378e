import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createBlockHasher } from "#engine/prefix/hash.ts";
import { PrefixNamer } from "./affinity.ts";
import { Balancer, type BalancerOptions, type Ticket } from "./balancer.ts";
import { RetryBudget } from "./retry-budget.ts";

const NOBODY: ReadonlySet<number> = new Set();
const OPTIONS = {
  maxInFlight: 4,
  affinityFactor: 1.5,
  affinitySlackTokens: 100,
  affinityEntries: 32,
  slowStartMs: 1000,
  consecutiveFailures: 3,
  failureShare: 0.5,
  failureLeast: 10,
  ejectMs: 1000,
  ejectMostMs: 8000,
  ejectShare: 0.5,
};

function balancer(now: () => number, change: Partial<BalancerOptions> = {}): Balancer {
  return new Balancer({ ...OPTIONS, now, ...change });
}

function take(of: Balancer, tokens = 10, blocks: readonly string[] = [], excluded = NOBODY): Ticket {
  const taken = of.take({ tokens, blocks, excluded });
  assert.ok(typeof taken === "object", String(taken));
  return taken;
}

type Step =
  | { readonly kind: "take"; readonly tokens: number; readonly block: number; readonly excluded: number }
  | { readonly kind: "give"; readonly which: number; readonly verdict: "ok" | "failed" | "neutral" }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "health" | "sleep"; readonly id: number; readonly on: boolean }
  | { readonly kind: "leave"; readonly id: number }
  | { readonly kind: "add"; readonly weight: number };

const id = fc.nat(7);
const STEPS: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("take" as const),
        tokens: fc.nat(5000),
        block: fc.nat(100),
        excluded: id,
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("give" as const),
        which: fc.nat(1000),
        verdict: fc.constantFrom("ok" as const, "failed" as const, "neutral" as const),
      }),
    },
    fc.record({ kind: fc.constant("wait" as const), ms: fc.nat(3000) }),
    fc.record({ kind: fc.constantFrom("health" as const, "sleep" as const), id, on: fc.boolean() }),
    fc.record({ kind: fc.constant("leave" as const), id }),
    fc.record({ kind: fc.constant("add" as const), weight: fc.integer({ min: 1, max: 9 }) }),
  ),
  { maxLength: 200 },
);

test("property: nobody who is out is taken, counts return to zero, memory is bounded, few are ejected", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }), STEPS, (weights, steps) => {
      let now = 0;
      const of = balancer(() => now);
      for (const weight of weights) of.add(weight, false);
      const open: Ticket[] = [];
      const outs = new Map<number, string>();
      for (const step of steps) {
        if (step.kind === "wait") now += step.ms;
        else if (step.kind === "add") of.add(step.weight, true);
        else if (step.kind === "leave") of.leave(step.id);
        else if (step.kind === "health") of.setHealthy(step.id, step.on);
        else if (step.kind === "sleep") of.setAsleep(step.id, step.on);
        else if (step.kind === "give") {
          const [ticket] = open.splice(step.which % Math.max(1, open.length), 1);
          if (ticket !== undefined) of.give(ticket, step.verdict);
        } else if (step.kind === "take") {
          const before = new Map(of.states().map((state) => [state.id, state]));
          const excluded = new Set([step.excluded]);
          const taken = of.take({ tokens: step.tokens, blocks: [`b${step.block}`, `c${step.block}`], excluded });
          const usable = [...before.values()].filter((each) => each.state === "ready" && !excluded.has(each.id));
          if (taken === "none") assert.equal(usable.length, 0);
          else if (taken === "full") assert.ok(usable.every(({ inFlight }) => inFlight >= OPTIONS.maxInFlight));
          else {
            open.push(taken);
            assert.equal(before.get(taken.id)?.state, "ready");
            assert.ok(!excluded.has(taken.id));
            assert.ok((before.get(taken.id)?.inFlight ?? 99) < OPTIONS.maxInFlight);
          }
        }
        const states = of.states();
        const staying = states.filter(({ state }) => state !== "leaving");
        const fresh = staying.filter((each) => each.state === "ejected" && outs.get(each.id) !== "ejected");
        const out = staying.filter(({ state }) => state === "ejected");
        if (fresh.length > 0) assert.ok(out.length <= Math.floor(OPTIONS.ejectShare * staying.length));
        for (const { id: each, state } of states) outs.set(each, state);
        assert.ok(of.affinityEntries <= OPTIONS.affinityEntries);
        assert.equal(
          states.reduce((sum, { inFlight }) => sum + inFlight, 0),
          open.length,
        );
        assert.equal(
          states.reduce((sum, { outstandingTokens }) => sum + outstandingTokens, 0),
          open.reduce((sum, { tokens }) => sum + tokens, 0),
        );
      }
      for (const ticket of open) {
        of.give(ticket, "ok");
        of.give(ticket, "failed");
      }
      for (const state of of.states())
        assert.deepEqual([state.inFlight, state.outstandingTokens, state.state === "leaving"], [0, 0, false]);
    }),
    { numRuns: 300 },
  );
});

test("property: those with nothing to do take turns by their weights", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 300 }),
      (weights, requests) => {
        const of = balancer(() => 0);
        for (const weight of weights) of.add(weight, false);
        const counts = weights.map(() => 0);
        for (let i = 0; i < requests; i++) {
          const ticket = take(of);
          counts[ticket.id] = (counts[ticket.id] ?? 0) + 1;
          of.give(ticket, "ok");
        }
        for (const [i, a] of weights.entries())
          for (const [j, b] of weights.entries())
            assert.ok(
              Math.abs((counts[i] ?? 0) / a - (counts[j] ?? 0) / b) <= Math.max(1 / a, 1 / b) + 1e-9,
              `${counts} of ${weights}`,
            );
      },
    ),
  );
});

test("property: under load, outstanding tokens stand by weight to within a request", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 5 }),
      fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 20, maxLength: 80 }),
      (weights, requests) => {
        const of = balancer(() => 0, { maxInFlight: 1000 });
        for (const weight of weights) of.add(weight, false);
        for (const tokens of requests) take(of, tokens);
        const loads = of.states().map(({ outstandingTokens, weight }) => outstandingTokens / weight);
        assert.ok(Math.max(...loads) - Math.min(...loads) <= 1000 / Math.min(...weights));
      },
    ),
  );
});

test("property: tries stay within the budget", () => {
  const op = fc.oneof(
    fc.constant("request" as const),
    fc.constant("take" as const),
    fc.nat(2000).map((ms) => ({ ms })),
  );
  fc.assert(
    fc.property(
      fc.array(op, { maxLength: 400 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(5),
      (ops, share, perSecond) => {
        let [now, requests, taken] = [0, 0, 0];
        const budget = new RetryBudget({ share, perSecond, now: () => now });
        for (const each of ops) {
          if (each === "request") {
            requests++;
            budget.request();
          } else if (each === "take") taken += budget.take() ? 1 : 0;
          else now += each.ms;
          assert.ok(taken <= perSecond + share * requests + (perSecond * now) / 1000 + 1e-6);
        }
      },
    ),
  );
});

test("the upstream that saw a prompt's beginning keeps it until it is much busier", () => {
  const of = balancer(() => 0, { maxInFlight: 1000 });
  of.add(1, false);
  of.add(1, false);
  const first = take(of, 10, ["a", "b"]);
  of.give(first, "ok");
  const same = take(of, 50, ["a", "b", "c"]);
  assert.equal(same.id, first.id);
  assert.equal(take(of, 50, ["a", "x"]).id, first.id, "the longest part that it has seen");
  assert.equal(take(of, 50, ["a", "b"]).id, first.id, "100 outstanding is what slack allows");
  const moved = take(of, 10, ["a", "b"]);
  assert.notEqual(moved.id, first.id, "150 is more");
  assert.equal(take(of, 1, ["a", "b"]).id, moved.id, "and now the other has seen it");
  assert.notEqual(take(of, 1, ["z"]).id, first.id, "another prompt goes where there is least");
});

test("adapters: who has it, and nobody else; asleep: nothing, and what it had seen is forgotten", () => {
  const of = balancer(() => 0);
  const [a, b] = [of.add(1, false), of.add(1, false)];
  of.setAdapters(b, ["sql"]);
  const wish = { tokens: 1, blocks: ["p"], excluded: NOBODY, adapter: "sql" };
  for (let i = 0; i < 4; i++) assert.equal((of.take(wish) as Ticket).id, b);
  assert.equal(of.take(wish), "full", "it is waited for");
  assert.equal(of.take({ ...wish, adapter: "new" }), "none");
  const asked = of.adapterChanges(a);
  of.changeAdapter(a, "new", true);
  of.setAdapters(a, ["sql"], asked);
  assert.deepEqual(of.states()[a]?.adapters, ["new"], "what was asked before it was loaded is not believed");
  assert.equal((of.take({ ...wish, adapter: "new" }) as Ticket).id, a);
  of.setAsleep(b, true);
  assert.equal(of.take(wish), "none");
  of.changeAdapter(a, "new", false);
  assert.equal(of.take({ ...wish, adapter: "new" }), "none");
});

test("ejection: after failures in a row, longer each time, and back little by little", () => {
  let now = 0;
  const ejected: number[] = [];
  const of = balancer(() => now, { onEjected: (id) => void ejected.push(id), maxInFlight: 1000 });
  of.add(1, false);
  of.add(1, false);
  const fail = (times: number): void => {
    for (let i = 0; i < times; i++) of.give(take(of, 10, [], new Set([1])), "failed");
  };
  fail(2);
  of.give(take(of, 10, [], new Set([1])), "ok");
  fail(2);
  assert.deepEqual(ejected, []);
  fail(1);
  assert.deepEqual([ejected, of.states()[0]?.state, of.soonestBack()], [[0], "ejected", 1000]);
  assert.equal(of.take({ tokens: 1, blocks: [], excluded: new Set([1]) }), "none");
  now = 1000;
  fail(3);
  assert.equal(of.soonestBack(), 2000, "twice as long");
  // The other may not follow: half of two is one.
  for (let i = 0; i < 20; i++) of.give(take(of), "failed");
  assert.equal(of.states()[1]?.state, "ready");
  now = 3000;
  const taken = [0, 0];
  for (let i = 0; i < 110; i++) {
    const { id: which } = take(of);
    taken[which] = (taken[which] ?? 0) + 1;
  }
  assert.deepEqual(taken, [10, 100], "a tenth of its weight at first");
});

test("a rate of failures ejects, too", () => {
  const of = balancer(() => 0, { ejectShare: 1 });
  of.add(1, false);
  for (let i = 0; i < 9; i++) of.give(take(of), i % 2 === 0 ? "failed" : "ok");
  assert.equal(of.states()[0]?.state, "ready");
  of.give(take(of), "failed");
  assert.equal(of.states()[0]?.state, "ejected");
});

test("prefixes are named by tenant, block by block, whatever the pieces", async () => {
  const namer = new PrefixNamer(await createBlockHasher("sha256", "seed"));
  const text = Buffer.from("x".repeat(5000));
  const whole = namer.blocks({ salt: "t1", pieces: [text] });
  assert.equal(whole.length, 3, "1024, 2048, 4096");
  assert.deepEqual(namer.blocks({ salt: "t1", pieces: [text.subarray(0, 77), text.subarray(77)] }), whole);
  assert.deepEqual(namer.blocks({ salt: "t1", pieces: [text.subarray(0, 2100)] }), whole.slice(0, 2));
  const other = namer.blocks({ salt: "t2", pieces: [text] });
  assert.ok(other.every((block) => !whole.includes(block)));
  const changed = Buffer.from(text);
  changed[3000] = 0;
  assert.deepEqual(namer.blocks({ salt: "t1", pieces: [changed] }).slice(0, 2), whole.slice(0, 2));
  assert.notEqual(namer.blocks({ salt: "t1", pieces: [changed] })[2], whole[2]);
  assert.equal(namer.blocks({ salt: "t1", pieces: [Buffer.alloc(1 << 20)] }).length, 7);
  assert.deepEqual(namer.blocks({ salt: "t1", pieces: [Buffer.from("short")] }), []);
});
