/**
 * Private copies of adapters: what was hashed is what is loaded; hostile folders in PEFT form are refused by their reason.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { readAdapter } from "#engine/gguf/adapter.ts";
import { readGgufHeader } from "#engine/gguf/header.ts";
import { writeAdapter, writeModel } from "../../test/fixtures/gguf.ts";
import {
  type PeftTensor,
  PLAIN_CONFIG,
  randomTensors,
  safetensorsBytes,
  safetensorsOf,
  tinyModules,
  writePeft,
} from "../../test/fixtures/peft.ts";
import { AdapterFileError } from "./adapter-file.ts";
import { AdapterStore, type AdapterStoreOptions } from "./adapter-store.ts";

const base = mkdtempSync(join(tmpdir(), "castellan-store-"));
const modelPath = join(base, "model.gguf");
writeModel(modelPath);
const model = readGgufHeader(modelPath);
let count = 0;
const fresh = (): string => join(base, `x${++count}`);
const open = (options: Partial<AdapterStoreOptions> = {}) =>
  AdapterStore.open({ folder: fresh(), maxBytes: 1 << 24, folderBytes: 1 << 26, maxRank: 8, base: model, ...options });
const store = await open();
const prepare = (path: string, sha256?: string) => store.prepare({ path, roots: "anywhere", sha256 });
const sha256 = (bytes: Uint8Array | string): string => createHash("sha256").update(bytes).digest("hex");
const WEIGHTS = safetensorsOf(randomTensors(tinyModules(4), "F16"));
const peft = (config: object | string = PLAIN_CONFIG, weights: Uint8Array = WEIGHTS) =>
  writePeft(fresh(), config, weights);
const refused = (work: Promise<unknown>, says: RegExp) =>
  assert.rejects(work, (error) => error instanceof AdapterFileError && says.test(error.message), String(says));
const refusedWeights = (weights: Uint8Array, says: RegExp) => refused(prepare(peft(PLAIN_CONFIG, weights)), says);
const refusedConfig = (config: object | string, says: RegExp) => refused(prepare(peft(config)), says);

test("a GGUF is copied under its digest; the copy stays when the file changes", async () => {
  const path = `${fresh()}.gguf`;
  writeAdapter(path, {}, { seed: 3 });
  const bytes = readFileSync(path);
  const found = await prepare(path);
  assert.deepEqual([found.sha256, found.form], [sha256(bytes), "gguf"]);
  appendFileSync(path, "changed");
  assert.deepEqual(readFileSync(found.path), bytes);
  assert.equal(statSync(found.path).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(found.path)).mode & 0o777, 0o700);
});

test("a folder becomes a GGUF that is judged good, once; its digest is what sha256sum says of its two files", async () => {
  const path = peft();
  const [config, weights] = ["adapter_config.json", "adapter_model.safetensors"].map((name) =>
    sha256(readFileSync(join(path, name))),
  );
  const list = sha256(`${config}  adapter_config.json\n${weights}  adapter_model.safetensors\n`);
  const found = await prepare(path, list);
  assert.deepEqual([found.sha256, found.form], [list, "peft"]);
  const { rank, alpha } = readAdapter(found.path, model, 8);
  assert.deepEqual([rank, alpha], [4, 8]);
  const { ino } = statSync(found.path);
  assert.equal((await prepare(path)).path, found.path);
  assert.equal(statSync(found.path).ino, ino, "it is not made again");
  assert.deepEqual(
    readdirSync(dirname(found.path)).filter((name) => name.startsWith("staging-")),
    [],
  );
});

test("another digest than the one that was named is refused, and nothing is kept", async () => {
  const empty = await open();
  const folder = mkdtempSync(join(base, "kept-"));
  const kept = await open({ folder });
  for (const path of [peft(), modelPath])
    for (const each of [empty, kept])
      await refused(each.prepare({ path, roots: "anywhere", sha256: "0".repeat(64) }), /SHA-256 is not the one/);
  assert.deepEqual(readdirSync(folder), []);
});

test("a copy that has changed in the folder is made anew", async () => {
  const path = peft();
  const found = await prepare(path);
  const good = readFileSync(found.path);
  const bad = Buffer.from(good);
  bad[bad.length - 1] = (bad.at(-1) ?? 0) ^ 1;
  writeFileSync(found.path, bad);
  assert.deepEqual(readFileSync((await prepare(path)).path), good);
  writeFileSync(`${found.path}.json`, "{");
  assert.deepEqual(readFileSync((await prepare(path)).path), good);
});

test("the folder is bounded: what was used longest ago goes, what is in use stays", async () => {
  const adapters = [1, 2, 3].map((seed) => {
    const path = `${fresh()}.gguf`;
    writeAdapter(path, {}, { seed });
    return path;
  });
  const size = statSync(adapters[0] as string).size;
  const small = await open({ folderBytes: 2 * size });
  const load = (at: number) => small.prepare({ path: adapters[at] as string, roots: "anywhere" });
  const first = await load(0);
  const second = await load(1);
  utimesSync(first.path, 1, 1);
  await refused(load(2), /no more fits/);
  second.release();
  second.release();
  const third = await load(2);
  const kept = readdirSync(dirname(first.path)).filter((name) => name.endsWith(".gguf"));
  assert.deepEqual(new Set(kept.map((name) => join(dirname(first.path), name))), new Set([first.path, third.path]));
});

test("sizes are bounded before anything is read", async () => {
  const small = await open({ maxBytes: 2000 });
  await refused(small.prepare({ path: peft(), roots: "anywhere" }), /larger than 2000 bytes/);
  await refusedConfig(`{"x":"${"y".repeat(300_000)}"}`, /larger than 262144 bytes/);
});

test("who gives up is not worked for", async () => {
  const signal = AbortSignal.abort();
  await assert.rejects(store.prepare({ path: peft(), roots: "anywhere", signal }), { name: "AbortError" });
});

test("what is no safetensors file is refused by what it is", async () => {
  await refusedWeights(Buffer.from("PK\x03\x04 an archive of a pickle"), /zip archive.*never read/);
  await refusedWeights(Buffer.from([0x80, 2, 0x8a, 10, 1, 2, 3, 4, 5, 6, 7, 8]), /is a pickle/);
  await refusedWeights(Buffer.from("GGUF\x03\0\0\0 and more"), /is a GGUF/);
  await refusedWeights(Buffer.from("neither this nor that"), /not a safetensors file/);
  for (const bytes of [0, 1, 8]) await refusedWeights(Buffer.alloc(bytes), /too short|not a safetensors/);
});

const entry = (data_offsets: readonly number[], shape: readonly number[] = [1, 4], dtype = "F32") => ({
  dtype,
  shape,
  data_offsets,
});

test("headers that promise what is not there", async () => {
  const data = Buffer.alloc(32);
  const file = (header: unknown, length?: bigint) => safetensorsBytes(header, data, length);
  for (const length of [2n ** 63n, 2n ** 64n - 1n, 2n ** 53n, 2n ** 32n, 5_000_000n])
    await refusedWeights(file({}, length), /header of more than/);
  await refusedWeights(file({}, 1000n), /shorter than its header/);
  await refusedWeights(file({}, 1n), /shorter than its header/);
  const cases: readonly [unknown, RegExp][] = [
    [{ a: entry([0, 16]), b: entry([8, 24]) }, /overlap, or lie apart/],
    [{ a: entry([0, 16]), b: entry([0, 16]) }, /overlap, or lie apart/],
    [{ a: entry([16, 32]) }, /overlap, or lie apart/],
    [{ a: entry([0, 16]) }, /not as long as its tensors/],
    [{ a: entry([0, 16]), b: entry([16, 48], [1, 8]) }, /not as long as its tensors/],
    [{ a: entry([16, 0]) }, /not as long as its shape/],
    [{ a: entry([0, 32]) }, /not as long as its shape/],
    [{ a: entry([0, -16]) }, /without its place/],
    [{ a: entry([0, 16, 32]) }, /without its place/],
    [{ a: entry([0, 16], [2 ** 40, 2 ** 40]) }, /absurd shape/],
    [{ a: entry([0, 16], [2 ** 31, 2 ** 31]) }, /not as long as its shape/],
    [{ a: entry([0, 0], [0, 4]) }, /absurd shape/],
    [{ a: entry([0, 16], [1, 1, 1, 4]) }, /absurd shape/],
    [{ a: entry([0, 16], [1.5, 4]) }, /absurd shape/],
    [{ a: entry([0, 16], [1, 4], "I8") }, /not F32, F16 or BF16/],
    [{ a: { ...entry([0, 16]), more: 1 } }, /not described/],
    [{ a: 1 }, /not described/],
    [{ "a b": entry([0, 16]) }, /name of odd form/],
    [{ ["n".repeat(600)]: entry([0, 16]) }, /name of odd form/],
    ["[]", /not a safetensors file/],
    ["{} ", /not as long as its tensors/],
    ["{broken", /header that cannot be read/],
    ['{"a":1,"a":2}', /header that cannot be read/],
    ['{"__proto__":{}}', /header that cannot be read/],
    [`{"a":${"[".repeat(5000)}`, /header that cannot be read/],
    [`{"a":[${"1,".repeat(1_200_000)}1]}`, /header that cannot be read/],
    [
      Object.fromEntries(Array.from({ length: 17_000 }, (_, i) => [`t${i}`, entry([0, 16])])),
      /more than 16384 tensors/,
    ],
  ];
  for (const [header, says] of cases) await refusedWeights(file(header), says);
});

test("whatever bytes are changed or cut, the folder is taken or refused, and nothing else happens", async () => {
  const path = peft();
  const file = join(path, "adapter_model.safetensors");
  const headerEnd = 8 + WEIGHTS.readUInt32LE(0);
  const change = fc.record({ at: fc.nat(headerEnd + 64), value: fc.nat(255) });
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 3 }), fc.nat(3), async (changes, cut) => {
      const bytes = Buffer.from(WEIGHTS.subarray(0, cut === 0 ? WEIGHTS.length : Math.floor(WEIGHTS.length / cut)));
      for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
      writeFileSync(file, bytes);
      try {
        readAdapter((await prepare(path)).path, model, 8);
        taken++;
      } catch (error) {
        if (!(error instanceof AdapterFileError)) throw error;
      }
    }),
    { numRuns: 150, examples: [[[], 0]] },
  );
  assert.ok(taken > 0);
});

test("tensors that are no adapter of this model", async () => {
  const tensors = randomTensors(tinyModules(4), "F32");
  const renamed = (from: RegExp, to: string): PeftTensor[] =>
    tensors.map((tensor, i) => (i < 2 ? { ...tensor, name: tensor.name.replace(from, to) } : tensor));
  const cases: readonly [readonly PeftTensor[], RegExp][] = [
    [[], /changes no tensor/],
    [tensors.slice(1), /one of its two tensors only/],
    [renamed(/base_model\.model\./, ""), /is not taken/],
    [renamed(/layers\.0/, "layers.7"), /a tensor of which the model does not have/],
    [renamed(/layers\.0/, "layers.00"), /is not taken/],
    [renamed(/q_proj/, "constructor"), /is not taken/],
    [renamed(/q_proj/, "../../q_proj"), /is not taken/],
    [renamed(/lora_A/, "lora_magnitude_vector"), /DoRA is not supported/],
    [renamed(/lora_A\.weight/, "base_layer.weight"), /is not taken/],
    [renamed(/lora_A\.weight/, "lora_A.bias"), /is not taken/],
    [renamed(/self_attn\.q_proj/, "mlp.experts.0.up_proj"), /is not taken/],
    [[...tensors, ...renamed(/model\.layers/, "language_model.model.layers").slice(0, 2)], /two tensors change/],
    [randomTensors([{ module: "model.layers.0.self_attn.q_proj", rank: 4, inner: 32, outer: 64 }], "F32"), /shape/],
    [randomTensors([{ module: "model.layers.0.self_attn.q_proj", rank: 4, inner: 64, outer: 65 }], "F32"), /shape/],
    [randomTensors(tinyModules(2), "F32"), /rank of .* is 2, and not what adapter_config.json says/],
  ];
  for (const [wrong, says] of cases) await refusedWeights(safetensorsOf(wrong), says);
  const large = safetensorsOf(randomTensors(tinyModules(9), "F32"));
  await refused(prepare(peft({ ...PLAIN_CONFIG, r: 9 }, large)), /rank is 9 and --max-lora-rank is 8/);
});

test("values that are not finite numbers are refused, in every type; those that the factor makes so, too", async () => {
  for (const dtype of ["F32", "F16", "BF16"] as const)
    for (const [bad, bits] of [
      [Number.NaN, 0x7e00],
      [Number.POSITIVE_INFINITY, 0x7c00],
      [Number.NEGATIVE_INFINITY, 0xfc00],
    ] as const) {
      const tensors = randomTensors(tinyModules(4), dtype);
      const last = tensors.at(-1)?.values as Float32Array;
      last[last.length - 1] = bad;
      const bytes = safetensorsOf(tensors);
      if (dtype === "F16") bytes.writeUInt16LE(bits, bytes.length - 2);
      await refusedWeights(bytes, /not a finite number/);
    }
  const tensors = randomTensors(tinyModules(4), "F32");
  (tensors[1]?.values as Float32Array)[0] = 3e38;
  const config = { ...PLAIN_CONFIG, alpha_pattern: { "layers.0.self_attn.q_proj": 800 } };
  await refused(prepare(peft(config, safetensorsOf(tensors))), /not a finite number/);
});

test("a configuration that means something else is refused by the field's name", async () => {
  const changed = (fields: object) => ({ ...PLAIN_CONFIG, ...fields });
  const cases: readonly [object | string, RegExp][] = [
    ["{", /adapter_config.json: /],
    ["[]", /adapter_config.json: /],
    ['{"r":4,"r":8}', /twice/],
    [`{"a":${"[".repeat(100_000)}`, /adapter_config.json: /],
    [changed({ peft_type: "LOHA" }), /peft_type/],
    [changed({ r: 0 }), /^adapter_config.json: r: /],
    [changed({ r: 4.5 }), /r: /],
    [changed({ lora_alpha: 0 }), /lora_alpha/],
    [changed({ lora_alpha: "8" }), /lora_alpha/],
    [changed({ use_dora: true }), /use_dora is not supported/],
    [changed({ modules_to_save: ["lm_head"] }), /modules_to_save is not supported/],
    [changed({ bias: "all" }), /bias: is not supported/],
    [changed({ lora_bias: true }), /lora_bias is not supported/],
    [changed({ fan_in_fan_out: true }), /fan_in_fan_out is not supported/],
    [changed({ layer_replication: [[0, 2]] }), /layer_replication is not supported/],
    [changed({ alora_invocation_tokens: [1] }), /alora_invocation_tokens is not supported/],
    [changed({ trainable_token_indices: [1] }), /trainable_token_indices is not supported/],
    [changed({ init_lora_weights: "pissa" }), /init_lora_weights: changes the base model/],
    [changed({ something_new: 1 }), /something_new is not supported/],
    [changed({ rank_pattern: { "(a+)+$": 4 } }), /rank_pattern.*regular expressions are not read/],
    [changed({ alpha_pattern: { q_proj: -1 } }), /alpha_pattern/],
  ];
  for (const [config, says] of cases) await refusedConfig(config, says);
  await prepare(peft(changed({ something_new: null, other: false, more: {}, peft_version: "0.18.0" })));
});

test("for a model whose weights are named otherwise, the architecture is named", async () => {
  const other = await open({ base: { ...model, architecture: "falcon" } });
  await refused(
    other.prepare({ path: peft(), roots: "anywhere" }),
    /not supported for models of the architecture falcon/,
  );
});

test("where rotary pairs lie as in Hugging Face's form, no row is moved", async () => {
  const path = peft();
  const data = async (architecture: string): Promise<Buffer> => {
    const metadata = new Map(model.metadata);
    for (const name of ["head_count", "head_count_kv"])
      metadata.set(`${architecture}.attention.${name}`, model.metadata.get(`llama.attention.${name}`) ?? 0);
    const other = await open({ base: { ...model, architecture, metadata } });
    const { path: made } = await other.prepare({ path, roots: "anywhere" });
    return readFileSync(made).subarray(-1 * (WEIGHTS.length - 4096));
  };
  assert.deepEqual(await data("qwen3"), await data("gemma2"));
  assert.deepEqual(await data("mistral3"), await data("granite"));
  assert.notDeepEqual(await data("qwen3"), await data("granite"));
});
