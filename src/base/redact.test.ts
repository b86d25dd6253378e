import assert from "node:assert/strict";
import { test } from "node:test";
import { createRedact } from "./redact.ts";
import { Secret } from "./secret.ts";

test("known secrets, plain and as JSON spells them, the longer before the shorter", () => {
  const redact = createRedact([
    new Secret("pass.word+1"),
    new Secret("pass.word+1-longer"),
    new Secret('quo"te\\d-key'),
  ]);
  assert.equal(redact("a pass.word+1 b passXword+1 pass.word+1-longer."), "a [secret] b passXword+1 [secret].");
  assert.equal(redact(JSON.stringify({ key: 'quo"te\\d-key' })), '{"key":"[secret]"}');
});

test("short ones are left: they stand in ordinary words", () => {
  assert.equal(createRedact([new Secret("key")])("monkey"), "monkey");
});

test("those that come later, so many at most", () => {
  const redact = createRedact([new Secret("from-the-start")]);
  assert.equal(redact("made-here-1"), "made-here-1");
  for (let n = 0; n <= 256; n++) redact.also(new Secret(`made-here-${n}.`));
  assert.equal(
    redact("from-the-start made-here-0. made-here-1. made-here-256."),
    "[secret] made-here-0. [secret] [secret]",
  );
});

test("what looks like a key or a token, known or not", () => {
  const redact = createRedact([]);
  const minted = `cst_${"a1B2".repeat(11)}zz`;
  const token = `eyJ${"a".repeat(30)}.${"b".repeat(40)}.${"c-_".repeat(10)}`;
  assert.equal(redact(`id ${minted}, Bearer ${token}`), "id [secret], Bearer [secret]");
  assert.equal(redact(`sk-${"x".repeat(24)} hf_${"y".repeat(30)}`), "[secret] [secret]");
  const ordinary = "The eyJ of a task-force: cst_ is a prefix; request 0f3c2a.";
  assert.equal(redact(ordinary), ordinary);
});

test("linear in the text", () => {
  const redact = createRedact([new Secret("a".repeat(50))]);
  const text = `eyJ${"a.".repeat(500_000)}`;
  assert.ok(redact(text).length > 0);
});
