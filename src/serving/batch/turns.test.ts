import assert from "node:assert/strict";
import { test } from "node:test";
import { Turns } from "./turns.ts";

/** Works that the test ends, by their names. */
function bench(places: number) {
  const turns = new Turns(places);
  const open = new Map<string, () => void>();
  const take = (name: string, signal = new AbortController().signal): Promise<void> =>
    turns.take(name.slice(0, 1), () => new Promise((resolve) => open.set(name, resolve)), signal);
  const end = async (name: string): Promise<void> => {
    open.get(name)?.();
    open.delete(name);
    await new Promise(setImmediate);
  };
  return { take, end, open: () => [...open.keys()] };
}

test("a place that gets free is the tenant's that has the fewest, and in it who came first", async () => {
  const { take, end, open } = bench(2);
  const all = ["a1", "a2", "a3", "a4", "b1", "b2"].map((name) => take(name));
  await new Promise(setImmediate);
  assert.deepEqual(open(), ["a1", "a2"]);
  await end("a2");
  assert.deepEqual(open(), ["a1", "b1"]);
  await end("b1");
  assert.deepEqual(open(), ["a1", "b2"]);
  await end("a1");
  assert.deepEqual(open(), ["b2", "a3"]);
  await end("b2");
  assert.deepEqual(open(), ["a3", "a4"]);
  for (const name of ["a3", "a4"]) await end(name);
  await Promise.all(all);
});

test("who does not wait any more takes no place, and none is lost by a work that fails", async () => {
  const { take, end, open } = bench(1);
  const first = take("a1");
  const gone = new AbortController();
  const left = take("b1", gone.signal);
  const last = take("b2");
  gone.abort(new Error("stopped"));
  await assert.rejects(left, /stopped/);
  await end("a1");
  await first;
  assert.deepEqual(open(), ["b2"]);
  await end("b2");
  await last;
  const turns = new Turns(1);
  const { signal } = new AbortController();
  await assert.rejects(
    turns.take("a", () => Promise.reject(new Error("no")), signal),
    /no/,
  );
  assert.equal(await turns.take("b", async () => "yes", signal), "yes");
  await assert.rejects(
    turns.take("b", async () => "never", AbortSignal.abort(new Error("late"))),
    /late/,
  );
});
