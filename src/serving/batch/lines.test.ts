import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { readLines } from "./lines.ts";

const FILE = join(mkdtempSync(join(tmpdir(), "castellan-lines-")), "in.jsonl");

async function lines(content: string | Uint8Array, maxBytes = 1 << 20) {
  writeFileSync(FILE, content);
  const found: [number, string | undefined, number][] = [];
  for await (const { number, text, end } of readLines(FILE, maxBytes))
    found.push([number, text === undefined ? undefined : Buffer.from(text).toString(), end]);
  return found;
}

test("blank lines are none, and a last line needs no end", async () => {
  assert.deepEqual(await lines("\ufeffa\r\n\n  \t\nb"), [
    [1, "a\r", 6],
    [4, "b", 12],
  ]);
  assert.deepEqual(await lines(""), []);
  assert.deepEqual(await lines("\ufeff\n\n"), []);
});

test("a line that is too long is told and not kept, wherever the pieces of the file end", async () => {
  const long = "x".repeat(300_000);
  assert.deepEqual(await lines(`a\n${long}\nb\n`, 100), [
    [1, "a", 2],
    [2, undefined, 300_003],
    [3, "b", 300_005],
  ]);
  assert.deepEqual(await lines(long, 299_999), [[1, undefined, 300_000]]);
  assert.deepEqual(await lines(long, 300_000), [[1, long, 300_000]]);
});

test("any lines come back as they were written", async () => {
  const line = fc.string({ unit: "grapheme", maxLength: 40 }).filter((text) => !/\n|^\ufeff/.test(text));
  await fc.assert(
    fc.asyncProperty(fc.array(line), async (written) => {
      const found = (await lines(written.join("\n"))).map(([, text]) => text);
      assert.deepEqual(
        found,
        written.filter((text) => !/^[\t-\r ]*$/.test(text)),
      );
    }),
  );
});
