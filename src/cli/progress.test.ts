import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { createProgress, formatBytes } from "./progress.ts";

const KIB = 1024;

function rig(isTTY: boolean) {
  let text = "";
  let now = 0;
  const sink = new Writable({
    write: (chunk, _, done) => {
      text += String(chunk);
      done();
    },
  });
  const stream = Object.assign(sink, { isTTY, columns: 120 });
  return {
    progress: createProgress(stream, () => now),
    text: () => text,
    passes: (milliseconds: number) => {
      now += milliseconds;
    },
  };
}

test("into a file: a line every tenth, with the speed since the first, and none twice", () => {
  const { progress, text, passes } = rig(false);
  progress.update("Requests", 0, 10 * KIB);
  passes(1000);
  for (let done = 0; done <= 10 * KIB; done += 100) progress.update("Requests", done, 10 * KIB);
  progress.update("Requests", 10 * KIB, 10 * KIB);
  progress.stop();
  const lines = text().split("\n");
  assert.equal(lines.pop(), "", "the last line is whole");
  assert.deepEqual(
    lines.map((line) => line.slice(0, line.indexOf(" of "))),
    Array.from({ length: 11 }, (_, tenth) => `Requests: ${tenth * 10}%`),
  );
  assert.equal(lines[0], "Requests: 0% of 10.0 KiB, -");
  assert.equal(lines[10], "Requests: 100% of 10.0 KiB, 10.0 KiB/s");
});

test("into a file: another label begins anew, and what an earlier run did is no speed", () => {
  const { progress, text, passes } = rig(false);
  progress.update("Checking a", 5, 10);
  progress.update("Requests", 8 * KIB, 10 * KIB);
  passes(2000);
  progress.update("Requests", 10 * KIB, 10 * KIB);
  assert.deepEqual(text().split("\n"), [
    "Checking a: 50% of 10 B, -",
    "Requests: 80% of 10.0 KiB, -",
    "Requests: 100% of 10.0 KiB, 1.0 KiB/s",
    "",
  ]);
});

test("nothing to do is done", () => {
  const { progress, text } = rig(false);
  progress.update("Requests", 0, 0);
  assert.equal(text(), "Requests: 100% of 0 B, -\n");
});

test("on a terminal: a bar that is drawn over, and a line of its own when it is full or stopped", () => {
  for (const [label, done, shown] of [
    ["Requests", 10 * KIB, /Requests \[=+\] 100% · 10\.0 KiB of 10\.0 KiB · /],
    ["Checking {bar}", 5 * KIB, /Checking \(bar\} \[=+-+\] 50% · 5\.0 KiB of 10\.0 KiB · 5\.0 KiB\/s/],
  ] as const) {
    const { progress, text, passes } = rig(true);
    progress.update(label, 0, 10 * KIB);
    passes(1000);
    progress.update(label, done, 10 * KIB);
    progress.stop();
    progress.stop();
    const plain = stripVTControlCharacters(text());
    assert.match(plain, shown);
    assert.equal(plain.split("\n").length, 2, "one bar, one line");
    assert.ok(plain.endsWith("\n"), "what is printed next stands on its own line");
    assert.ok(text().includes("\u001b["), "what was there is drawn over");
  }
});

test("bytes are read by people", () => {
  assert.deepEqual([0, 1023, 1536, 3 * KIB ** 3, 5000 * KIB ** 4].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.5 KiB",
    "3.0 GiB",
    "5000.0 TiB",
  ]);
});
