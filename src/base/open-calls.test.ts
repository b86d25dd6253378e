import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type OpenCall, OpenCalls } from "./open-calls.ts";

test("whatever comes and goes: those are there that came and did not go, each once", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 9 }), { maxLength: 60 }), (turns) => {
      const calls: OpenCall[] = Array.from({ length: 10 }, () => ({ place: -1 }));
      const open = new OpenCalls();
      const expected = new Set<OpenCall>();
      for (const turn of turns) {
        const call = calls[turn] as OpenCall;
        if (expected.delete(call)) open.delete(call);
        else {
          expected.add(call);
          open.add(call);
        }
        assert.equal(open.size, expected.size);
        assert.deepEqual(new Set(open.all()), expected);
        for (const one of calls) assert.equal(one.place >= 0, expected.has(one));
      }
    }),
  );
});
