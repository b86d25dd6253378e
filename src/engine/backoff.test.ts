import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Backoff } from "./backoff.ts";

describe("Backoff", () => {
  it("starts early first and never later than 30 s, however often it failed", (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    const backoff = new Backoff(250);
    let starts = 0;
    backoff.schedule(() => starts++);
    context.mock.timers.tick(124);
    assert.deepEqual([starts, backoff.timers], [0, 1]);
    context.mock.timers.tick(126);
    assert.deepEqual([starts, backoff.timers, backoff.remainingMs], [1, 0, 0]);
    for (let failure = 0; failure < 40; failure++) {
      backoff.schedule(() => starts++);
      assert.ok(backoff.remainingMs <= 30_000);
      context.mock.timers.tick(30_000);
    }
    assert.equal(starts, 41);
    backoff.schedule(() => starts++);
    assert.ok(backoff.remainingMs > 14_000, "by now the pauses are long");
    backoff.cancel();
    context.mock.timers.tick(30_000);
    assert.deepEqual([starts, backoff.timers], [41, 0]);
  });

  it("starts at once when it is told to, and only what is planned", (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    const backoff = new Backoff(250);
    let starts = 0;
    backoff.hurry();
    assert.equal(starts, 0);
    backoff.schedule(() => starts++);
    backoff.hurry();
    assert.deepEqual([starts, backoff.timers, backoff.remainingMs], [1, 0, 0]);
    backoff.hurry();
    context.mock.timers.tick(30_000);
    assert.equal(starts, 1, "once a plan");
  });
});
