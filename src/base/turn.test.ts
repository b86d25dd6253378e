import assert from "node:assert/strict";
import { test } from "node:test";
import { gathered, turnOver } from "./turn.ts";

/** Turns of the loop until it resolves, when each of the first ones brings so much. */
async function turnsOf(each: readonly number[]): Promise<number> {
  let turns = 0;
  let over = false;
  const bring = (): void => {
    for (let i = 0; i < (each[turns] ?? 0); i++) gathered();
  };
  const done = turnOver().then(() => {
    over = true;
  });
  bring();
  while (!over && turns < 100) {
    await new Promise(setImmediate);
    turns++;
    bring();
  }
  await done;
  return turns;
}

test("what comes alone, or with little, goes on at the end of its turn", async () => {
  for (const each of [[], [1], [2], [2, 9, 9]]) assert.equal(await turnsOf(each), 1, each.join());
});

test("while each turn brings much more it is put off, for a few turns at most", async () => {
  assert.equal(await turnsOf([3]), 2);
  assert.equal(await turnsOf([5, 3, 2, 9]), 3);
  assert.equal(await turnsOf(Array(50).fill(9)), 6);
  assert.equal(await turnsOf([1]), 1, "and nothing of it is left");
});

test("all who wait go on together, and who comes then waits anew", async () => {
  const order: string[] = [];
  const first = turnOver();
  assert.equal(turnOver(), first);
  await Promise.all([first.then(() => order.push("a")), turnOver().then(() => order.push("b"))]);
  assert.deepEqual(order, ["a", "b"]);
  assert.notEqual(turnOver(), first);
});
