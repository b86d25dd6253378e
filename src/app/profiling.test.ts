import assert from "node:assert/strict";
import { test } from "node:test";
import { createRedact } from "#base/redact.ts";
import { Secret } from "#base/secret.ts";
import { cpuRecorder } from "./profiling.ts";

/** Long enough that a sampler of every millisecond meets it. */
const TEXT = "some words that say nothing, cst_ and eyJ; ".repeat(50_000);

test("a CPU profile has no text of a pattern: V8 names the code of an expression by it", async () => {
  const canary = "a-canary-in-a-pattern";
  const pattern = new RegExp(`${canary}|zz(?:y|z)*q`, "g");
  const recorder = cpuRecorder();
  await recorder.start();
  for (let i = 0; i < 100; i++) TEXT.replace(pattern, "");
  const profile = JSON.stringify(await recorder.stop());
  assert.ok(profile.includes('"RegExp"'), "the pattern was never met");
  assert.ok(!profile.includes(canary));
});

test("the secrets of the server are in no pattern", () => {
  const secret = "wordofpass";
  const patterns: string[] = [];
  const { exec } = RegExp.prototype;
  RegExp.prototype.exec = function (this: RegExp, text: string) {
    patterns.push(this.source);
    return exec.call(this, text);
  };
  try {
    assert.equal(createRedact([new Secret(secret)])(`x ${secret}`), "x [secret]");
  } finally {
    RegExp.prototype.exec = exec;
  }
  assert.ok(patterns.length > 0);
  // Its first letter may be spelled otherwise.
  assert.ok(!patterns.join().includes(secret.slice(1)));
});
