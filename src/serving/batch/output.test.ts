import assert from "node:assert/strict";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BatchOutput, OutputError, statePath } from "./output.ts";

const FOLDER = mkdtempSync(join(tmpdir(), "castellan-output-"));
const IDENTITY = { input: "a".repeat(64), model: "m" };
let files = 0;
const scratch = (): string => join(FOLDER, `${files++}.jsonl`);
const row = (i: number): string => `{"id":"vllm-${i}","custom_id":"${i}","response":null,"error":null}`;

/** A run that was broken off after so many rows. */
async function broken(rows: number): Promise<string> {
  const path = scratch();
  const output = await BatchOutput.open(path, IDENTITY);
  for (let i = 0; i < rows; i++) await output.append(row(i));
  await output.close();
  return path;
}

const text = (rows: number): string => Array.from({ length: rows }, (_, i) => `${row(i)}\n`).join("");

test("a run that is over leaves its rows and nothing else", async () => {
  const path = scratch();
  const output = await BatchOutput.open(path, IDENTITY);
  assert.equal(output.rows, 0);
  for (let i = 0; i < 3; i++) await output.append(row(i));
  assert.ok(existsSync(statePath(path)));
  await output.finish();
  assert.equal(readFileSync(path, "utf8"), text(3));
  assert.equal(existsSync(statePath(path)), false);
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

for (const [name, tail, more] of [
  ["nothing", "", 0],
  ["a half row", row(3).slice(0, 20), 0],
  ["whole rows that nobody waited for, and a half one", `${row(3)}\n${row(4)}\n{"id`, 2],
  ["a row without its end", row(3), 0],
  ["zeros", `${row(3)}\n${"\0".repeat(500)}\n`, 1],
  ["what is no row", `${row(3)}\n[]\n${row(4)}\n`, 1],
] as const)
  test(`a run goes on behind its last whole row: ${name} at the end`, async () => {
    const path = await broken(3);
    appendFileSync(path, tail);
    const output = await BatchOutput.open(path, IDENTITY);
    assert.equal(output.rows, 3 + more);
    for (let i = output.rows; i < 8; i++) await output.append(row(i));
    await output.finish();
    assert.equal(readFileSync(path, "utf8"), text(8));
  });

test("rows of one input are not gone on with another's, nor with another model's", async () => {
  const path = await broken(3);
  for (const other of [
    { ...IDENTITY, input: "b".repeat(64) },
    { ...IDENTITY, model: "n" },
  ])
    await assert.rejects(BatchOutput.open(path, other), OutputError);
  assert.equal(readFileSync(path, "utf8"), text(3));
});

test("an output that lost rows that were there, or is gone, is refused; so is a state that is none", async () => {
  const path = await broken(3);
  truncateSync(path, 50);
  await assert.rejects(BatchOutput.open(path, IDENTITY), /shorter than it was/);
  const gone = scratch();
  writeFileSync(statePath(gone), readFileSync(statePath(path)));
  await assert.rejects(BatchOutput.open(gone, IDENTITY), /is gone/);
  for (const content of ["", "{}", '{"version":2}', "x".repeat(5000)]) {
    writeFileSync(statePath(gone), content);
    await assert.rejects(BatchOutput.open(gone, IDENTITY), OutputError);
  }
});

test("an output of a run that is over is written anew, as vLLM does", async () => {
  const path = scratch();
  writeFileSync(path, text(5));
  const output = await BatchOutput.open(path, IDENTITY);
  assert.equal(output.rows, 0);
  await output.finish();
  assert.equal(readFileSync(path, "utf8"), "");
});
