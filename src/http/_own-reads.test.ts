import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { readTo } from "./_own-reads.ts";

test("a connection that cannot read so is left as it was", () => {
  const stream = new PassThrough();
  const before = Object.getOwnPropertySymbols(stream).length;
  const reads = { came: () => assert.fail(), into: () => assert.fail() };
  assert.equal(readTo(stream as unknown as Socket, reads), false);
  assert.equal(Object.getOwnPropertySymbols(stream).length, before);
});
