import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Load, Router } from "./router.ts";

const router = (affine = true): Router => new Router({ affine, blockSize: 16, maxNumSeqs: 8 });
const idle = (engines: number): Load[] =>
  Array.from({ length: engines }, (_, engine) => ({ engine, sequences: 0, promptTokens: 0 }));
const tokens = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 16, maxLength: 200 });

describe("Router", () => {
  it("sends prompts that begin alike to one engine, whatever comes after", () => {
    fc.assert(
      fc.property(tokens, tokens, tokens, fc.array(tokens, { maxLength: 20 }), (begin, a, b, others) => {
        const one = router();
        const shared = [...begin, ...begin];
        const first = one.choose(Int32Array.from([...shared, ...a]), "s", idle(4));
        for (const other of others) one.choose(Int32Array.from([...other.map((token) => token + 2000)]), "s", idle(4));
        assert.equal(one.choose(Int32Array.from([...shared, ...b]), "s", idle(4)), first);
      }),
    );
  });

  it("shares nothing between salts: a beginning of somebody else's is no match", () => {
    fc.assert(
      fc.property(tokens, (begin) => {
        const one = router();
        const prompt = Int32Array.from(begin);
        const first = one.choose(prompt, "a", idle(2));
        // Equals take turns, so that the next one without a match goes to the other.
        assert.notEqual(one.choose(prompt, "b", idle(2)), first);
        assert.equal(one.choose(prompt, "a", idle(2)), first);
      }),
    );
  });

  it("keeps loads within the bonus of a match and one request, however skewed the prompts are", () => {
    const arrival = fc.record({ prompt: fc.integer({ min: 0, max: 2 }), ends: fc.array(fc.nat(), { maxLength: 2 }) });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 5 }), fc.array(arrival, { maxLength: 200 }), (engines, arrivals) => {
        const one = router();
        const open: number[][] = Array.from({ length: engines }, () => []);
        const loads = (): Load[] => open.map((held, engine) => ({ engine, sequences: held.length, promptTokens: 0 }));
        for (const { prompt, ends } of arrivals) {
          const before = Math.min(...open.map((held) => held.length));
          const chosen = one.choose(new Int32Array(3000).fill(prompt), "", loads());
          open[chosen]?.push(prompt);
          assert.ok((open[chosen]?.length ?? 0) <= before + one.maxBonus + 1);
          for (const end of ends) open[end % engines]?.pop();
        }
      }),
    );
  });

  it("without a prefix cache only the load counts, prompts to be computed too", () => {
    const one = router(false);
    const prompt = new Int32Array(64).fill(1);
    const counts = [0, 0, 0];
    for (let at = 0; at < 30; at++) {
      const loads = counts.map((sequences, engine) => ({ engine, sequences, promptTokens: 0 }));
      const chosen = one.choose(prompt, "", loads);
      counts[chosen] = (counts[chosen] ?? 0) + 1;
    }
    assert.deepEqual(counts, [10, 10, 10]);
    const long = [
      { engine: 0, sequences: 1, promptTokens: 5000 },
      { engine: 1, sequences: 3, promptTokens: 0 },
    ];
    assert.equal(one.choose(prompt, "", long), 1);
    assert.equal(one.size, 0);
  });

  it("remembers no more than it may, and nothing of an engine that has forgotten", () => {
    const one = router();
    for (let at = 0; at < 40_000; at++)
      one.choose(
        Int32Array.from({ length: 16 }, (_, i) => at * (i + 1)),
        "",
        idle(2),
      );
    assert.equal(one.size, 32_768);
    one.forget(0);
    assert.ok(one.size < 32_768 && one.size > 0);
    one.forget(1);
    assert.equal(one.size, 0);
  });
});
