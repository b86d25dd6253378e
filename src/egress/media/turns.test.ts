import assert from "node:assert/strict";
import { test } from "node:test";
import { EgressEnd } from "#egress/decision.ts";
import { Turns } from "./turns.ts";

const LIMITS = { atOnce: 3, atOncePerTenant: 2, waiting: 3, waitingPerTenant: 2 };
const never = new AbortController().signal;

test("a tenant that fills its share waits for itself, and nobody for it", async () => {
  const turns = new Turns(LIMITS);
  const order: string[] = [];
  const take = (name: string, tenant: string) =>
    turns.take(tenant, never).then((over) => {
      order.push(name);
      return over;
    });
  const [a1, a2] = [await take("a1", "a"), await take("a2", "a")];
  const [a3, a4] = [take("a3", "a"), take("a4", "a")];
  await assert.rejects(take("a5", "a"), (error) => error instanceof EgressEnd && error.outcome === "busy");
  const b1 = await take("b1", "b");
  const b2 = take("b2", "b");
  await assert.rejects(take("c1", "c"), (error) => error instanceof EgressEnd && error.outcome === "busy");
  assert.deepEqual(order, ["a1", "a2", "b1"]);
  b1();
  // a3 has waited longer, but its tenant has two.
  (await b2)();
  a1();
  (await a3)();
  a2();
  (await a4)();
  assert.deepEqual(order, ["a1", "a2", "b1", "b2", "a3", "a4"]);
  (await take("d", "d"))();
});

test("whoever leaves the line leaves no place taken", async () => {
  const turns = new Turns({ ...LIMITS, atOnce: 1 });
  const over = await turns.take("a", never);
  const stop = new AbortController();
  const gone = turns.take("a", stop.signal);
  const stays = turns.take("b", never);
  stop.abort(new Error("away"));
  await assert.rejects(gone, /away/);
  over();
  (await stays)();
  await assert.rejects(turns.take("a", AbortSignal.abort(new Error("before"))), /before/);
  (await turns.take("c", never))();
});
