import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { Fault } from "#core/fault.ts";
import { bracketed, bracketedPair } from "#prompt/brackets.ts";
import { SPECIALS, writeModel } from "../../../test/fixtures/gguf.ts";
import { WORD_CLS, WORD_SEP, writeBert } from "../../../test/fixtures/gguf-pooling.ts";
import { cutLiterals, literalPattern } from "./encode.ts";
import { INLINE_CHARACTERS, openTokenizer } from "./tokenizer.ts";

const path = join(mkdtempSync(join(tmpdir(), "castellan-tokenizer-")), "model.gguf");
writeModel(path);
const tokenizer = openTokenizer({ modelPath: path, maxCharacters: 200_000 });
after(() => tokenizer.close());

const specialIds = new Set(tokenizer.specials.map((special) => special.id));
const text = (tokens: Int32Array): string =>
  new TextDecoder().decode(Buffer.concat([...tokens].map((token) => tokenizer.piece(token, false))));
const literal = fc.constantFrom(...SPECIALS.map((special) => special.text));

test("plain text comes back as it was, whatever it spells, and never as a special token", async () => {
  const mixed = fc.array(
    fc.oneof(
      fc.string({ unit: "grapheme" }),
      literal,
      literal.chain((t) => fc.nat(t.length).map((n) => t.slice(0, n))),
    ),
    { maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(mixed, async (parts) => {
      const input = parts.join("");
      const tokens = await tokenizer.encodeText(input);
      assert.equal(
        [...tokens].some((token) => specialIds.has(token)),
        false,
      );
      assert.equal(text(tokens), input);
    }),
    { numRuns: 300 },
  );
});

test("trusted text does become special tokens", async () => {
  const tokens = await tokenizer.encodeTemplate("<|im_start|>user<think>");
  assert.equal(tokenizer.spelling(tokens[0] ?? -1), "<|im_start|>");
  assert.equal(tokenizer.spelling(tokens.at(-1) ?? -1), "<think>");
});

test("WordPiece: words are bracketed by the model's own tokens and never become them", async () => {
  const file = join(mkdtempSync(join(tmpdir(), "castellan-wordpiece-")), "bert.gguf");
  writeBert(file);
  const wordPiece = openTokenizer({ modelPath: file, maxCharacters: 20_000 });
  after(() => wordPiece.close());
  const { brackets } = wordPiece;
  assert.deepEqual(brackets, { before: [WORD_CLS], after: [WORD_SEP], between: [WORD_SEP] });
  const [first, second] = [await wordPiece.encodeText("Ab c"), await wordPiece.encodeText("d")];
  assert.deepEqual(
    [...first].map((token) => wordPiece.spelling(token)),
    ["\u2581a", "b", "\u2581c"],
  );
  const [cls, sep] = [WORD_CLS, WORD_SEP];
  assert.deepEqual([...bracketed(brackets, first)], [cls, ...first, sep]);
  assert.deepEqual([...bracketedPair(brackets, first, second)], [cls, ...first, sep, ...second, sep]);
  const spelled = await wordPiece.encodeText("[CLS] [SEP]a[MASK]");
  assert.equal(
    [...spelled].some((token) => token === WORD_CLS || token === WORD_SEP || token === 4),
    false,
  );
  const long = "ab ".repeat(4000);
  assert.equal((await wordPiece.encodeText(long)).length, 8000);
  assert.deepEqual(tokenizer.brackets, { before: [], after: [], between: [] });
});

test("NUL bytes are text", async () => {
  assert.equal(text(await tokenizer.encodeText("a\0b\0")), "a\0b\0");
});

test("a long text goes to the helper process and gives the same tokens", async () => {
  const unit = "the rain in the plain ";
  const long = unit.repeat(Math.ceil(INLINE_CHARACTERS / unit.length) + 1);
  const [whole, once] = [await tokenizer.encodeText(long), await tokenizer.encodeText(unit + unit)];
  assert.equal(text(whole), long);
  assert.deepEqual([...whole.slice(0, 10)], [...once.slice(0, 10)]);
});

test("what cannot fit or cannot be UTF-8 is refused before the native call", async () => {
  const kind = (error: unknown): boolean => error instanceof Fault && error.kind === "invalid_request";
  await assert.rejects(tokenizer.encodeText("x".repeat(200_001)), kind);
  await assert.rejects(tokenizer.encodeText("a\ud800b"), kind);
});

test("literals are cut wherever they stand, overlapping ones included", () => {
  const pattern = literalPattern(["aba", "ab"]);
  for (const part of cutLiterals("abababa", pattern)) assert.doesNotMatch(part, /ab/);
  assert.equal(cutLiterals("abababa", pattern).join(""), "abababa");
  assert.deepEqual(cutLiterals("plain", literalPattern([])), ["plain"]);
});
