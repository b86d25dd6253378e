import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sseComment, sseData, sseEvent } from "./sse.ts";

/** A reader after WHATWG HTML 9.2.6, for one event stream that ends with a blank line. */
function read(stream: string): { name: string; data: string }[] {
  const events: { name: string; data: string }[] = [];
  let name = "";
  let data: string[] = [];
  for (const line of stream.split(/\r\n|\r|\n/)) {
    if (line === "") {
      if (data.length > 0) events.push({ name, data: data.join("\n") });
      name = "";
      data = [];
      continue;
    }
    const [, field = "", value = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (field === "event") name = value;
    if (field === "data") data.push(value);
  }
  return events;
}

test("frames are these bytes", () => {
  assert.equal(sseData('{"a":1}'), 'data: {"a":1}\n\n');
  assert.equal(sseData("[DONE]"), "data: [DONE]\n\n");
  assert.equal(sseData(""), "data: \n\n");
  assert.equal(sseEvent("ping", "{}"), "event: ping\ndata: {}\n\n");
  assert.equal(sseComment("keep-alive"), ": keep-alive\n\n");
  assert.equal(sseData("a\r\nb\rc\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
});

test("no data, name or comment can forge an event", () => {
  const hostile = fc
    .array(fc.constantFrom("\n", "\r", "data: x", "event: y", ":", " ", "a"), { maxLength: 12 })
    .map((p) => p.join(""));
  fc.assert(
    fc.property(hostile, hostile, (data, comment) => {
      const normal = data.replaceAll(/\r\n|\r/g, "\n");
      assert.deepEqual(read(sseComment(comment) + sseEvent("n", data)), [{ name: "n", data: normal }]);
    }),
  );
  assert.throws(() => sseEvent("a\nb", ""), RangeError);
});
