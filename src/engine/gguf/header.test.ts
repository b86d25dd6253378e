import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { headerBytes, type MetaValue, type TensorSpec, writeModel } from "../../../test/fixtures/gguf.ts";
import { RANK, writeBert, writeQwen3 } from "../../../test/fixtures/gguf-pooling.ts";
import { GgufError, type GgufErrorCode } from "./errors.ts";
import { modelFacts } from "./facts.ts";
import { readGgufHeader } from "./header.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-gguf-"));
const good = join(directory, "good.gguf");
writeModel(good, { layers: 1, vocabulary: 320 });
const scratch = join(directory, "scratch.gguf");

const refusedAs = (bytes: Uint8Array, code: GgufErrorCode, message?: RegExp): void => {
  writeFileSync(scratch, bytes);
  assert.throws(
    () => readGgufHeader(scratch),
    (error) => error instanceof GgufError && error.code === code && (message?.test(error.message) ?? true),
  );
};
const arch = (value: string): readonly [string, MetaValue] => ["general.architecture", { type: "string", value }];
const tensor = (shape: readonly number[]): TensorSpec => ({
  name: "t",
  shape,
  type: "f32",
  data: () => new Uint8Array(0),
});

test("a good model's facts are read", () => {
  const header = readGgufHeader(good);
  const facts = modelFacts(header);
  assert.equal(facts.architecture, "llama");
  assert.equal(facts.title, "Fixture");
  assert.equal(facts.trainedContext, 512);
  assert.match(facts.chatTemplate ?? "", /im_start/);
  // 1 layer, 2 KV heads of 16, K and V, two bytes a number.
  assert.equal(facts.kvBytesPerToken, 1 * 2 * (16 + 16) * 2);
  assert.equal(header.arrayLengths.get("tokenizer.ggml.tokens"), 320);
});

test("a file cut anywhere is refused", () => {
  const bytes = readFileSync(good);
  const cut = join(directory, "cut.gguf");
  fc.assert(
    fc.property(fc.integer({ min: 0, max: bytes.length - 64 }), (length) => {
      writeFileSync(cut, bytes);
      truncateSync(cut, length);
      assert.throws(() => readGgufHeader(cut), GgufError);
    }),
    { numRuns: 200 },
  );
});

test("random bytes are refused, with and without the magic in front", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (bytes, magic) => {
      writeFileSync(scratch, magic ? Buffer.concat([Buffer.from("GGUF\x03\0\0\0"), bytes]) : bytes);
      assert.throws(() => readGgufHeader(scratch), GgufError);
    }),
  );
});

test("each kind of bad file is refused by its name", () => {
  refusedAs(Buffer.from("PK\x03\x04 a zip archive"), "not-gguf", /not a GGUF/);
  refusedAs(Buffer.from("GGUF\x09\0\0\0"), "unsupported", /version 9/);
  refusedAs(Buffer.from("GGUF\0\0\0\x03"), "unsupported", /big-endian/);
  refusedAs(headerBytes([arch("mamba")], []), "unsupported", /'mamba' is not supported/);
  refusedAs(headerBytes([arch("evil\u001b[2J")], []), "unsupported", /evil\?/);
  refusedAs(headerBytes([], []), "malformed", /does not name an architecture/);
  refusedAs(
    headerBytes([arch("llama"), ["split.count", { type: "u32", value: 3 }]], []),
    "unsupported",
    /split into 3/,
  );
  refusedAs(headerBytes([arch("llama"), arch("llama")], []), "malformed", /twice/);
  refusedAs(headerBytes([arch("llama")], [tensor([4, 0])]), "malformed", /shape/);
  refusedAs(headerBytes([arch("llama")], [tensor([2 ** 40, 2 ** 40])]), "malformed", /shape/);
  refusedAs(headerBytes([arch("llama")], [tensor([1, 1, 1, 1, 1])]), "malformed", /5 dimensions/);
  refusedAs(headerBytes([arch("llama")], [tensor([1000])]), "truncated", /truncated/);
});

test("absurd counts are refused before anything is allocated for them", () => {
  const huge = (at: number): Buffer => {
    const bytes = headerBytes([arch("llama")], []);
    bytes.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, at);
    return bytes;
  };
  refusedAs(huge(8), "malformed");
  refusedAs(huge(16), "malformed");
  refusedAs(huge(24), "malformed");
});

test("what a pooling model says of itself is read", () => {
  const file = join(directory, "pooling.gguf");
  const facts = (write: () => void) => {
    write();
    return modelFacts(readGgufHeader(file)).pooling;
  };
  const encoder = { encoder: true, causal: false, embeddingSize: 32, softmaxHead: false };
  const none = { classes: 0, labels: [] };
  assert.deepEqual(
    facts(() => writeBert(file)),
    { declared: "mean", ...encoder, ...none },
  );
  assert.deepEqual(
    facts(() => writeBert(file, { pooling: RANK, labels: [] })),
    { declared: "rank", ...encoder, classes: 1, labels: [] },
  );
  assert.deepEqual(
    facts(() => writeBert(file, { pooling: RANK, labels: ["a", "b", "c"] })),
    { declared: "rank", ...encoder, classes: 3, labels: ["a", "b", "c"] },
  );
  const decoder = { encoder: false, causal: true, embeddingSize: 32, softmaxHead: true };
  assert.deepEqual(
    facts(() => writeQwen3(file, { pooling: undefined })),
    { declared: undefined, ...decoder, ...none },
  );
  assert.equal(facts(() => writeBert(file, { pooling: 77 })).declared, undefined);
  assert.deepEqual(modelFacts(readGgufHeader(good)).pooling.declared, undefined);
});

test("labels are texts, and not without bound", () => {
  const labels = (value: MetaValue) => headerBytes([arch("bert"), ["bert.classifier.output_labels", value]], []);
  refusedAs(labels({ type: "i32s", value: [1, 2] }), "malformed", /labels/);
  refusedAs(labels({ type: "strings", value: ["x".repeat(5000)] }), "malformed", /longer than any model needs/);
  refusedAs(labels({ type: "strings", value: new Array(70_000).fill("x") }), "malformed", /70000 labels/);
});
