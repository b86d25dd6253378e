import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolingInfo } from "#core/pool.ts";
import type { ModelFacts, PoolingFacts } from "#engine/gguf/facts.ts";
import { readPooling } from "./pooler-config.ts";
import { resolveRunner } from "./runner.ts";
import { StartupError } from "./startup-error.ts";

const DECODER: PoolingFacts = {
  declared: undefined,
  encoder: false,
  causal: true,
  embeddingSize: 64,
  classes: 0,
  labels: [],
  softmaxHead: false,
};
const ENCODER: PoolingFacts = { ...DECODER, declared: "mean", encoder: true, causal: false };
const HEAD: PoolingFacts = { ...ENCODER, declared: "rank", classes: 1 };

type RunnerSettings = Parameters<typeof resolveRunner>[0];
const NOTHING_ELSE = { enableLora: false, speculativeConfig: undefined, kvSpillDir: undefined };

interface Given {
  readonly runner?: RunnerSettings["runner"];
  readonly config?: unknown;
  readonly overrides?: unknown;
  readonly settings?: Partial<RunnerSettings>;
}

function resolve(
  pooling: PoolingFacts,
  { runner = "auto", config, overrides, settings }: Given = {},
): PoolingInfo | undefined {
  const json = (value: unknown) => (value === undefined ? undefined : JSON.stringify(value));
  const facts: ModelFacts = {
    architecture: "bert",
    title: undefined,
    trainedContext: 512,
    chatTemplate: undefined,
    rerankTemplate: undefined,
    parameters: 1,
    vocabularySize: 100,
    kvBytesPerToken: 1,
    pooling,
  };
  const said = readPooling({ poolerConfig: json(config), hfOverrides: json(overrides) });
  return resolveRunner({ ...NOTHING_ELSE, runner, ...settings }, facts, said);
}

const refused = (message: RegExp, ...given: Parameters<typeof resolve>) =>
  assert.throws(
    () => resolve(...given),
    (error) => error instanceof StartupError && message.test(error.message),
  );

test("auto looks at the header", () => {
  assert.equal(resolve(DECODER), undefined);
  assert.equal(resolve({ ...DECODER, declared: "none" }), undefined);
  assert.equal(resolve({ ...DECODER, declared: "last" })?.type, "last");
  assert.equal(resolve(ENCODER)?.type, "mean");
  assert.equal(resolve({ ...ENCODER, declared: undefined })?.type, "cls");
  assert.equal(resolve({ ...ENCODER, declared: "none" })?.type, "cls");
  assert.deepEqual(resolve(ENCODER)?.tasks, ["embed", "token_embed"]);
});

test("a model that generates gives its last token's vector when it is told to pool", () => {
  const info = resolve(DECODER, { runner: "pooling" });
  assert.deepEqual(info, {
    tasks: ["embed", "token_embed"],
    type: "last",
    embeddingSize: 64,
    classes: 0,
    labels: [],
    head: "logits",
    matryoshka: undefined,
    defaults: { useActivation: true },
  });
  assert.equal(resolve({ ...DECODER, declared: "last" }, { runner: "generate" }), undefined);
  refused(/does not generate/, ENCODER, { runner: "generate" });
  refused(/goes with --runner pooling/, DECODER, { config: { pooling_type: "MEAN" } });
});

test("a head makes classes; one number, or yes and no, also makes scores", () => {
  assert.deepEqual(resolve(HEAD)?.tasks, ["classify", "score"]);
  const three = resolve({ ...HEAD, classes: 3, labels: ["a", "b", "c"] });
  assert.deepEqual([three?.tasks, three?.labels, three?.head], [["classify"], ["a", "b", "c"], "logits"]);
  const yesNo = { ...HEAD, softmaxHead: true, classes: 2, labels: ["yes", "no"] };
  assert.deepEqual([resolve(yesNo)?.tasks, resolve(yesNo)?.head], [["classify", "score"], "softmax"]);
  assert.deepEqual(resolve({ ...yesNo, labels: ["good", "bad"] })?.tasks, ["classify"]);
  refused(/softmax itself/, yesNo, { config: { use_activation: false } });
  refused(/every score would be 1/, { ...HEAD, softmaxHead: true });
  refused(/head that is not there/, { ...HEAD, classes: 0 });
  assert.deepEqual(resolve(HEAD, { config: { pooling_type: "MEAN" } })?.tasks, ["embed", "token_embed"]);
});

test("the pooler config is taken by vLLM's names", () => {
  for (const [name, type] of [
    ["MEAN", "mean"],
    ["cls", "cls"],
    ["LAST", "last"],
    ["ALL", "none"],
  ] as const)
    assert.equal(resolve(ENCODER, { config: { pooling_type: name } })?.type, type);
  assert.deepEqual(resolve(ENCODER, { config: { pooling_type: "ALL" } })?.tasks, ["token_embed"]);
  for (const name of ["use_activation", "normalize", "activation", "softmax"])
    assert.deepEqual(resolve(ENCODER, { config: { [name]: false } })?.defaults, { useActivation: false });
  assert.deepEqual(resolve(ENCODER, { config: { task: "embed" } })?.tasks, ["embed"]);
  refused(/does not do classify/, ENCODER, { config: { task: "classify" } });
  refused(/--pooler-config/, ENCODER, { config: { pooling_type: "STEP" } });
  refused(/--pooler-config/, ENCODER, { config: { poolingtype: "MEAN" } });
  refused(/--pooler-config/, ENCODER, { config: [] });
  assert.throws(() => readPooling({ poolerConfig: "{", hfOverrides: undefined }), StartupError);
});

test("what is for models that generate is refused by its flag", () => {
  refused(/--enable-lora is for/, ENCODER, { settings: { enableLora: true } });
  refused(/--speculative-config is for/, ENCODER, { settings: { speculativeConfig: "{}" } });
  refused(/--kv-spill-dir is for/, ENCODER, { settings: { kvSpillDir: "/tmp" } });
  assert.equal(resolve(DECODER, { settings: { enableLora: true } }), undefined);
});

test("fewer dimensions want a model that was trained for them", () => {
  const anySize = { is_matryoshka: true };
  refused(/--hf-overrides/, ENCODER, { config: { dimensions: 32 } });
  assert.equal(resolve(ENCODER, { config: { dimensions: 32 }, overrides: anySize })?.defaults.dimensions, 32);
  assert.equal(resolve(ENCODER, { overrides: anySize })?.matryoshka, "any");
  assert.deepEqual(resolve(ENCODER, { overrides: { matryoshka_dimensions: [16, 32] } })?.matryoshka, [16, 32]);
  refused(/only supports.*16, 32/, ENCODER, {
    config: { dimensions: 8 },
    overrides: { matryoshka_dimensions: [16, 32] },
  });
  refused(/at most 64/, ENCODER, { config: { dimensions: 65 }, overrides: anySize });
  refused(/--hf-overrides/, ENCODER, { overrides: { architectures: ["X"] } });
});
