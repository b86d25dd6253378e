/**
 * Hostile model files: each is refused with a reason or loaded, and none ends a process. Most meet the header's judge
 * alone; a share goes through a real process with libllama in it.
 *
 * CASTELLAN_FUZZ_FILES: how many random files go through the process (default 150); with it, all others do too.
 */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fit } from "#app/sizing.ts";
import { StartupError } from "#app/startup-error.ts";
import { GgufError } from "#engine/gguf/errors.ts";
import { modelFacts } from "#engine/gguf/facts.ts";
import { readGgufHeader } from "#engine/gguf/header.ts";
import { EngineStartError, startEngine } from "#engine/launcher.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { type Hostile, takeApart } from "../fixtures/gguf-edit.ts";
import { DEMO_MODEL, startServer } from "../harness.ts";
import { hostileFiles, randomHostile } from "./hostile-gguf.ts";

const LONG = process.env["CASTELLAN_FUZZ_FILES"];
const RANDOM = Number(LONG ?? 150);
/** One in so many of the named files is judged, and one in so many goes through the process. */
const [JUDGED, OPENED] = LONG === undefined ? [6, 12] : [1, 1];
const demo = takeApart(DEMO_MODEL);
const files = hostileFiles(demo);
const directory = mkdtempSync(join(tmpdir(), "castellan-hostile-"));
after(() => rmSync(directory, { recursive: true }));

function written(name: string, { bytes }: Hostile): string {
  const path = join(directory, name);
  writeFileSync(path, bytes());
  return path;
}

/** Each ended the process that opened it before the header's judge knew of it: abort, uncaught exception or SIGSEGV. */
const KILLERS: readonly RegExp[] = [
  // GGML_ASSERT(id_to_token.size() == token_to_id.size())
  /^tokenizer\.ggml\.tokens (all the same|an odd one, (2|7)|one more|twice)$/,
  // GGML_ASSERT(type != LLAMA_VOCAB_TYPE_NONE)
  /^tokenizer (no_vocab|none), /,
  // std::out_of_range of llama_vocab::byte_to_token, at the first text
  /^tokenizer llama, (no scores|scores), tokens as they are$/,
  /^charsmap \d, llama$/,
  // load_hparams
  /^architecture smallthinker$/,
  /^llama\.block_count = u32 (0|513|65536|2\^31-1|2\^31|2\^32-1)$/,
  /^llama\.expert_count = u32 (1|3|513|65536|2\^31-1|2\^31|2\^32-1)$/,
  /^llama\.expert_used_count = (u32 (1|3|513|65536|2\^31-1|2\^31|2\^32-1)|u32\[5\] 4,3|bool\[5\])$/,
  /^llama\.expert_group_count = u32 (1|3|513|65536|2\^31-1|2\^31|2\^32-1)$/,
  /^llama\.nextn_predict_layers = u32 (513|65536|2\^31-1|2\^31|2\^32-1)$/,
  /^expert_count (1025|2048) expert_used_count 2$/,
  /^expert_count 8 expert_used_count 9$/,
  /^expert_count 8 expert_used_count 2 expert_group_count (3|4 expert_group_used_count (0|5)|(8|16) expert_group_used_count 1)$/,
  /^llama\.rope\.scaling\.type = text (empty|long)$/,
  // ggml: GGML_ASSERT(eps >= 0.0f), GGML_ASSERT(n_dims % 2 == 0)
  /^llama\.attention\.layer_norm_rms_epsilon = f32 (nan|-1)$/,
  /^attention\.head_count 192 attention\.head_count_kv 192 rope\.dimension_count 1$/,
  // types without a product or a dot product: abort, or a call of null
  /^(output_norm|blk\.0\.attn_norm)\.weight type (1|2|9|24|26|27|28|30|39|40), laid out$/,
  /^(token_embd|blk\..*)\.weight type (9|24|26|27|28), laid out$/,
  /^all matrices of type (9|24|25|26|27|28), laid out$/,
];

test("every file is judged: a reason, or facts that a server can be sized by", () => {
  let refused = 0;
  const share = files.filter((_, at) => at % JUDGED === 0);
  for (const file of share) {
    const path = written("judged.gguf", file);
    try {
      const facts = modelFacts(readGgufHeader(path));
      const { contextLength, maxNumSeqs } = fit(facts, {
        contextLength: undefined,
        maxNumSeqs: undefined,
        budget: 1e9,
      });
      assert.ok(contextLength > 0 && Number.isFinite(contextLength) && maxNumSeqs >= 1, file.name);
    } catch (error) {
      assert.ok(error instanceof GgufError || error instanceof StartupError, `${file.name}: ${String(error)}`);
      assert.ok(error.message.length > 10 && error.message.length < 300, file.name);
      refused++;
    }
  }
  assert.ok(refused > share.length / 10 && refused < share.length, `${refused} of ${share.length}`);
});

test("what ended a process once is refused before anything native sees it", () => {
  for (const killer of KILLERS) {
    const found = files.filter(({ name }) => killer.test(name));
    assert.ok(found.length > 0, String(killer));
    for (const file of found)
      assert.throws(() => readGgufHeader(written("killer.gguf", file)), { name: "GgufError" }, file.name);
  }
});

/** What became of the file in the process; "killed" when the process ended of it. */
function outcome(child: ChildProcess, path: string): Promise<string> {
  return new Promise((resolve) => {
    const done = (what: string): void => {
      child.off("message", done);
      child.off("exit", gone);
      resolve(what);
    };
    const gone = (): void => done("killed");
    child.once("message", done);
    child.once("exit", gone);
    child.send(path);
  });
}

test("no file ends the process that opens it", async () => {
  const share = files.filter((_, at) => at % OPENED === 0);
  const random = Array.from({ length: RANDOM }, (_, seed) => randomHostile(demo, seed + 1));
  const start = (): ChildProcess => fork(new URL("./gguf-child.ts", import.meta.url), { stdio: "ignore" });
  let child = start();
  const outcomes: string[] = [];
  const killed: string[] = [];
  try {
    for (const file of [...share, ...random]) {
      const what = await outcome(child, written("opened.gguf", file));
      outcomes.push(what);
      if (what !== "killed") continue;
      killed.push(file.name);
      child = start();
    }
  } finally {
    child.kill("SIGKILL");
  }
  assert.deepEqual(killed, []);
  for (const kind of [/^loaded$/, /^refused by its header$/, /^refused: Error: libllama cannot load/])
    assert.ok(
      outcomes.some((what) => kind.test(what)),
      `none was ${kind}`,
    );
});

test("a file that does end the engine process is a start error and nothing worse", async () => {
  const model = {
    architecture: "x",
    contextLength: 64,
    trainedContext: 64,
    vocabularySize: 64,
    parameters: 0,
    createdAt: 0,
  };
  const start = startEngine({
    model,
    kernel: { kernel: "fake", script: { crashOnOpen: true } },
    maxNumSeqs: 1,
    maxNumBatchedTokens: 8,
    contextLength: 64,
    schedulingPolicy: "fcfs",
    prefixCache: NO_PREFIX_CACHE,
  });
  await assert.rejects(start, (error) => error instanceof EngineStartError && /signal SIGABRT/.test(error.message));
});

test("the server says what is wrong and ends with 1", async () => {
  for (const [name, reason] of [
    ["tokenizer.ggml.tokens twice", /two tokens .* are the same/],
    ["tokenizer none, scores, tokens as they are", /no tokenizer/],
    ["blk.0.attn_q.weight half, laid out", /libllama cannot load this model/],
  ] as const) {
    const file = files.find((one) => one.name === name) ?? assert.fail(name);
    const server = await startServer({ model: written("served.gguf", file), waitReady: false });
    assert.equal(await server.exited, 1, name);
    assert.match(server.stderr(), reason);
    await server.stop();
  }
});
