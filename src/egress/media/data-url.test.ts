import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { dataUrl, isDataUrl, readDataUrl } from "./data-url.ts";

const problem = (text: string, max = 100): string => {
  const read = readDataUrl(text, max);
  assert.ok("problem" in read, text);
  return read.problem;
};

test("a content has one text, and comes back from it", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), (bytes) => {
      const text = dataUrl("image/png", Buffer.from(bytes));
      assert.ok(isDataUrl(text));
      const read = readDataUrl(text, 100);
      assert.ok("bytes" in read);
      assert.deepEqual(read, { type: "image/png", bytes: Buffer.from(bytes) });
    }),
  );
  assert.deepEqual(readDataUrl("DATA:Audio/WebM;codecs=opus;base64,AA==", 10), {
    type: "Audio/WebM;codecs=opus",
    bytes: Buffer.from([0]),
  });
  assert.deepEqual(readDataUrl("data:;base64,AAAA", 3), { type: "", bytes: Buffer.alloc(3) });
});

test("any other spelling is refused", () => {
  for (const text of [
    "data:image/png;base64",
    "data:image/png,AAAA",
    "data:image/png;base64;,AAAA",
    'data:image/png;charset="a,b";base64,AAAA',
    "data:image;base64,AAAA",
    "data: image/png;base64,AAAA",
    `data:image/png;${"x=1;".repeat(5)}base64,AAAA`,
    `data:image/${"x".repeat(500)};base64,AAAA`,
  ])
    assert.match(problem(text), /of the form/, text);
  for (const content of [
    "AA",
    "AA=",
    "AB==",
    "AAB=",
    "AAAA=",
    "AA==AA==",
    "AA\n==",
    " AAAA",
    "AA-_",
    "AA%3D%3D",
    "AAAA#",
    "ÄÄÄÄ",
  ])
    assert.match(problem(`data:image/png;base64,${content}`), /canonical/, content);
  assert.match(problem("data:image/png;base64,"), /nothing/);
  assert.match(problem(dataUrl("image/png", Buffer.alloc(101))), /more than 100/);
  assert.match(problem(`data:image/png;base64,${"!".repeat(10_000)}`), /more than 100/);
});
