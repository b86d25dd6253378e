/**
 * Vocabularies that do not fit together or to their tokenizer. Used by hostile-gguf.ts.
 */
import {
  ARRAY,
  type EditFile,
  type EditValue,
  F32,
  type Hostile,
  putTogether,
  STRING,
  U8,
  withKey,
} from "../fixtures/gguf-edit.ts";

const MODELS = [
  "no_vocab",
  "none",
  "llama",
  "bert",
  "gpt2",
  "t5",
  "rwkv",
  "plamo2",
  "gemma4",
  "hybriddna",
  "replit",
  "?",
];
const PRES = [
  "default",
  "llama3",
  "deepseek-llm",
  "falcon",
  "starcoder",
  "qwen2",
  "refact",
  "gpt-4o",
  "tekken",
  "chatglm-bpe",
  "viking",
  "superbpe",
  "kimi-k2",
  "bloom",
  "mpt",
  "olmo",
  "dbrx",
  "smollm",
  "jais",
  "exaone",
  "minerva-7b",
  "megrez",
  "hunyuan",
  "?",
];

/** Items of an array, changed. */
function withItems(
  file: EditFile,
  key: string,
  change: (items: readonly (number | bigint | boolean | string)[]) => readonly (number | bigint | boolean | string)[],
): EditFile {
  const value = file.metadata.find(([name]) => name === key)?.[1];
  if (value === undefined || !("items" in value)) throw new Error(`${key} is no array`);
  return withKey(file, key, { ...value, items: change(value.items) });
}

export function vocabularyCases(file: EditFile): Hostile[] {
  const [tokens, types, merges] = ["tokens", "token_type", "merges"].map((key) => `tokenizer.ggml.${key}`) as [
    string,
    string,
    string,
  ];
  const items = (name: string, key: string, change: Parameters<typeof withItems>[2]): Hostile => ({
    name: `${key} ${name}`,
    bytes: () => putTogether(withItems(file, key, change)),
  });
  const set = (at: number, item: number | string) => (all: readonly unknown[]) =>
    all.toSpliced(at, 1, item) as string[];
  return [
    ...[tokens, types, merges].flatMap((key) => [
      items("none", key, () => []),
      items("one", key, (all) => all.slice(0, 1)),
      items("one less", key, (all) => all.slice(0, -1)),
      items("one more", key, (all) => [...all, all[0] as string]),
      items("twice", key, (all) => [...all, ...all]),
      items("all the same", key, (all) => all.map(() => all[0] as string)),
      items("reversed", key, (all) => all.toReversed()),
    ]),
    ...["", " ", "Ċ", "\0", "\u{10ffff}", "x".repeat(70_000), "<0x0A>", "<|im_end|>", "\ufffd"].map((text, at) =>
      items(`an odd one, ${at}`, tokens, set(5, text)),
    ),
    items("empty ones", tokens, (all) => all.map(() => "")),
    items("no bytes", tokens, (all) => all.map((_, at) => `<unused_${at}>`)),
    ...["", " ", "a", "a b c", " a", "a ", "Ġ Ġ", "zzzz yyyy", "x".repeat(70_000)].map((text, at) =>
      items(`an odd one, ${at}`, merges, set(0, text)),
    ),
    ...[0, -1, 7, 2147483647].map((type) => items(`of type ${type}`, types, (all) => all.map(() => type))),
    ...MODELS.flatMap((model) =>
      [true, false].flatMap((scores) =>
        ["tokens as they are", "no scores, short"].map((kind) => ({
          name: `tokenizer ${model}, ${scores ? "scores" : "no scores"}, ${kind}`,
          bytes: () => {
            const count = kind === "tokens as they are" ? 2048 : 3;
            let changed = withKey(file, "tokenizer.ggml.model", { type: STRING, value: model });
            if (scores)
              changed = withKey(changed, "tokenizer.ggml.scores", {
                type: ARRAY,
                of: F32,
                items: new Array(count).fill(Number.NaN),
              });
            return putTogether(count === 3 ? withItems(changed, types, (all) => all.slice(0, 3)) : changed);
          },
        })),
      ),
    ),
    ...PRES.map((pre) => ({
      name: `pre-tokenizer ${pre}`,
      bytes: () => putTogether(withKey(file, "tokenizer.ggml.pre", { type: STRING, value: pre })),
    })),
    ...["", "\0", "\xff".repeat(100), "\x04\0\0\0\xff\xff\xff\xff", "\xff\xff\xff\x7f1234"].flatMap((map, at) =>
      ["t5", "llama"].map((model) => ({
        name: `charsmap ${at}, ${model}`,
        bytes: () => {
          const value: EditValue = { type: ARRAY, of: U8, items: [...Buffer.from(map, "latin1")] };
          const scored = withKey(file, "tokenizer.ggml.scores", {
            type: ARRAY,
            of: F32,
            items: new Array(2048).fill(0),
          });
          const named = withKey(scored, "tokenizer.ggml.model", { type: STRING, value: model });
          return putTogether(withKey(named, "tokenizer.ggml.precompiled_charsmap", value));
        },
      })),
    ),
  ];
}
