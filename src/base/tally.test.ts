/**
 * Tallies beside prom-client's own histogram: the same text, whatever was seen.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createRegistry, Histogram, printMetrics } from "./metrics.ts";
import { type Tally, TallyHistogram } from "./tally.ts";

const NAMES = ["handler", "method"] as const;
const label = fc.constantFrom('/v1/"a"\\b', "/b", "none");
const seen = fc.array(
  fc.record({
    handler: label,
    method: label,
    value: fc.oneof(fc.constantFrom(0, 0.1, 0.5, 1), fc.double({ min: -1, max: 3, noNaN: true })),
  }),
);

test("what is printed is what prom-client prints", async () => {
  const run = async (buckets: number[], observations: typeof seen extends fc.Arbitrary<infer T> ? T : never) => {
    const named = { name: "seen_seconds", help: 'What was "seen".', labelNames: NAMES, buckets };
    const [ours, theirs] = [createRegistry(), createRegistry()];
    const tallies = new TallyHistogram({ ...named, registry: ours });
    const histogram = new Histogram({ ...named, registers: [theirs] });
    const kept = new Map<string, Tally>();
    for (const { handler, method, value } of observations) {
      const name = `${handler} ${method}`;
      const tally = kept.get(name) ?? tallies.tally({ handler, method });
      kept.set(name, tally);
      tally.observe(value);
      histogram.observe({ handler, method }, value);
    }
    assert.deepEqual(await printMetrics(ours), await printMetrics(theirs));
  };
  await fc.assert(fc.asyncProperty(fc.constantFrom<number[]>([], [0.1, 0.5, 1]), seen, run), { numRuns: 300 });
});

test("without labels there is one tally, printed before anything was seen", async () => {
  const named = { name: "seen", help: "h", buckets: [1, 2] };
  const [ours, theirs] = [createRegistry(), createRegistry()];
  const tally = new TallyHistogram({ ...named, labelNames: [], registry: ours }).tally({});
  const histogram = new Histogram({ ...named, registers: [theirs] });
  assert.deepEqual(await printMetrics(ours), await printMetrics(theirs));
  for (const value of [0.5, 1, 1.5, 9]) {
    tally.observe(value);
    histogram.observe(value);
  }
  assert.deepEqual(await printMetrics(ours), await printMetrics(theirs));
});
