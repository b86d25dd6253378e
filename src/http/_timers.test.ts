import assert from "node:assert/strict";
import { test } from "node:test";
import { Timers } from "./_timers.ts";

test("each runs once, in its time's order; what was ended does not run, and ending again is nothing", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const pass = (milliseconds: number): void => {
    for (let i = 0; i < milliseconds; i++) {
      now++;
      t.mock.timers.tick(1);
    }
  };
  const timers = new Timers();
  const ran: string[] = [];
  timers.after(100, () => ran.push("a"));
  const b = timers.after(100, () => ran.push("b"));
  pass(50);
  timers.after(100, () => ran.push("c"));
  timers.after(20, () => ran.push("d"));
  b.end();
  b.end();
  assert.equal(timers.open, 3);
  pass(49);
  assert.deepEqual(ran, ["d"]);
  pass(1);
  assert.deepEqual(ran, ["d", "a"]);
  const e = timers.after(100, () => ran.push("e"));
  pass(49);
  assert.deepEqual(ran, ["d", "a"]);
  pass(1);
  assert.deepEqual(ran, ["d", "a", "c"]);
  e.end();
  pass(200);
  assert.deepEqual(ran, ["d", "a", "c"]);
  assert.equal(timers.open, 0);
});

test("one that starts and ends others while it runs does them no harm", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const timers = new Timers();
  const ran: string[] = [];
  timers.after(10, () => {
    ran.push("a");
    b.end();
    timers.after(10, () => ran.push("d"));
  });
  const b = timers.after(10, () => ran.push("b"));
  timers.after(10, () => ran.push("c"));
  now = 10;
  t.mock.timers.tick(10);
  assert.deepEqual(ran, ["a", "c"]);
  now = 20;
  t.mock.timers.tick(10);
  assert.deepEqual(ran, ["a", "c", "d"]);
});

test("more durations than are kept: the idle ones go, the others run", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const timers = new Timers();
  let ran = 0;
  for (let i = 1; i <= 200; i++) {
    const timer = timers.after(i, () => ran++);
    if (i % 2 === 0) timer.end();
  }
  now = 1000;
  t.mock.timers.tick(1000);
  assert.equal(ran, 100);
});
