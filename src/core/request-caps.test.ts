import assert from "node:assert/strict";
import { test } from "node:test";
import { capsFor, DEFAULT_CAPS } from "./request-caps.ts";

test("a principal's own caps stand in place of the server's, and make one object for each two", () => {
  assert.equal(capsFor(DEFAULT_CAPS, {}), DEFAULT_CAPS);
  const own = { messages: 3 };
  const caps = capsFor(DEFAULT_CAPS, own);
  assert.deepEqual(caps, { ...DEFAULT_CAPS, messages: 3 });
  assert.equal(capsFor(DEFAULT_CAPS, own), caps);
  const server = { ...DEFAULT_CAPS, stops: 1 };
  assert.deepEqual(capsFor(server, own), { ...server, messages: 3 });
  assert.deepEqual(capsFor(DEFAULT_CAPS, { messages: 4 }), { ...DEFAULT_CAPS, messages: 4 });
});
