/** What tenants have open, whoever comes and goes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { QueueShares } from "./queue-shares.ts";

test("whoever comes and goes: a tenant has what it took and did not leave, and room is shared by the rule", () => {
  const turn = fc.tuple(fc.nat({ max: 5 }), fc.integer({ min: 1, max: 9 }));
  fc.assert(
    fc.property(fc.array(turn, { maxLength: 60 }), (turns) => {
      const shares = new QueueShares(30);
      const held = new Map<string, number[]>();
      for (const [who, sequences] of turns) {
        const tenant = `t${who}`;
        const own = held.get(tenant) ?? [];
        held.set(tenant, own);
        const [open, total] = [sum(own), sum([...held.values()].flat())];
        // Every other turn of a tenant with something open gives it back.
        if (own.length > 0 && sequences % 2 === 0) shares.leave(tenant, own.pop() as number);
        else if (shares.take(tenant, sequences) === undefined) {
          assert.ok(open === 0 || open + sequences <= 30 - total);
          own.push(sequences);
        } else assert.ok(open > 0 && open + sequences > 30 - total);
        assert.equal(shares.total, sum([...held.values()].flat()));
      }
    }),
  );
});

test("tenants that have nothing open are forgotten, and those that have are not", () => {
  const shares = new QueueShares(100);
  shares.take("steady", 50);
  for (let round = 0; round < 3; round++)
    for (let n = 0; n < 1500; n++) {
      const tenant = `passing ${n}`;
      assert.equal(shares.take(tenant, 1), undefined);
      assert.equal(shares.remembered <= 1002, true);
      shares.leave(tenant, 1);
    }
  assert.equal(shares.total, 50);
  assert.equal(shares.take("steady", 51)?.kind, "rate_limited");
  shares.leave("steady", 50);
  assert.equal(shares.total, 0);
  assert.equal(shares.take("steady", 100), undefined);
});

function sum(amounts: readonly number[]): number {
  return amounts.reduce((a, b) => a + b, 0);
}
