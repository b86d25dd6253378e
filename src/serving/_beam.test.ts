import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { Engine } from "#engine/engine.ts";
import { FakeKernel } from "#engine/fake.ts";
import { createBatch } from "#engine/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { collect, type Fixture, fixture, grant, summary } from "./_fixture.ts";
import { ScriptedBackend } from "./_scripted-backend.ts";
import { complete } from "./complete.ts";
import type { ServedModel } from "./models.ts";

const EOS = 2;
const VOCABULARY = 5;
const KERNEL = { vocabularySize: VOCABULARY, endOfTurn: [EOS] };
const hasher = await createBlockHasher("sha256");
const never = new AbortController().signal;

/** The engine itself, over the fake kernel. */
class EngineBackend extends ScriptedBackend {
  readonly #engine = new Engine(
    new FakeKernel(KERNEL),
    {
      maxNumSeqs: 8,
      maxNumBatchedTokens: 64,
      contextLength: 256,
      schedulingPolicy: "fcfs",
      prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
    },
    hasher,
  );
  /** Fails the request with this number. */
  failAt = 0;

  constructor() {
    super({ model: { vocabularySize: VOCABULARY, contextLength: 256 } });
  }

  override async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    const number = this.requests.push(request);
    this.open++;
    try {
      await new Promise((resolve) => setImmediate(resolve));
      if (number === this.failAt) throw new Fault("overloaded", "too many requests are waiting");
      if (signal.aborted) throw new Fault("cancelled", "The request was cancelled.");
      this.#engine.submit({ ...request, request: number });
      for (let report = this.#engine.step(); report !== undefined; report = this.#engine.step()) {
        for (const prompt of report.prompts) yield { type: "prompt", ...prompt };
        for (const { sample, token, logprobs } of report.tokens)
          yield {
            type: "tokens",
            sample,
            tokens: [token],
            ...(logprobs === undefined ? {} : { logprobs: [logprobs] }),
          };
      }
      yield { type: "finish", sample: 0, reason: "length" };
    } finally {
      this.open--;
    }
  }
}

function setUp(): { setting: Fixture; backend: EngineBackend } {
  const backend = new EngineBackend();
  const tokenizer = { ...fixture().model.tokenizer, endOfTurn: new Set([EOS]), piece: letter };
  const changes: Partial<ServedModel> = { backend, tokenizer };
  return { setting: fixture({}, changes), backend };
}

function letter(token: number): Uint8Array {
  return Buffer.from("abcde"[token] ?? "?");
}

async function ask(setting: Fixture, body: Record<string, unknown>, signal = never): Promise<CallEvent[]> {
  const parsed = CompletionBody.parse({ prompt: [0, 1], use_beam_search: true, ...body });
  return collect(
    complete(
      grant("inference"),
      setting.serving,
      decodeCompletion(parsed, { ...DEFAULT_CAPS, n: 128, choices: 1024 }).call,
      signal,
    ),
  );
}

interface Line {
  readonly tokens: readonly number[];
  readonly logprob: number;
  readonly ended: boolean;
}

/** The logprobs behind these tokens, straight from the kernel. */
function logprobsAfter(tokens: readonly number[]): number[] {
  const kernel = new FakeKernel(KERNEL);
  const batch = createBatch(tokens.length);
  batch.count = tokens.length;
  batch.tokens.set(tokens);
  batch.positions.set([...tokens.keys()]);
  batch.outputs[tokens.length - 1] = 1;
  const row = Array.from(kernel.forward(batch)[0] as Float32Array);
  const sum = Math.log(row.reduce((all, logit) => all + Math.exp(logit), 0));
  return row.map((logit) => logit - sum);
}

/** Every text of at most so many tokens. */
function everything(prompt: readonly number[], depth: number, ignoreEos: boolean): Line[] {
  const lines: Line[] = [];
  const walk = (tokens: readonly number[], logprob: number): void => {
    if (tokens.length === depth) {
      lines.push({ tokens, logprob, ended: false });
      return;
    }
    logprobsAfter([...prompt, ...tokens]).forEach((next, token) => {
      if (token === EOS && !ignoreEos) lines.push({ tokens, logprob: logprob + next, ended: true });
      else walk([...tokens, token], logprob + next);
    });
  };
  walk([], 0);
  return lines;
}

function score({ tokens, logprob }: Line, prompt: readonly number[], penalty: number): number {
  const length = prompt.length + tokens.length - (tokens.at(-1) === EOS ? 1 : 0);
  return logprob / length ** penalty;
}

function ranked(lines: readonly Line[], prompt: readonly number[], penalty: number): Line[] {
  return [...lines].sort((a, b) => score(b, prompt, penalty) - score(a, prompt, penalty));
}

/** Beam search as vLLM writes it: no early end, candidates step by step. */
function narrow(prompt: readonly number[], width: number, depth: number, penalty: number): Line[] {
  let beams: Line[] = [{ tokens: [], logprob: 0, ended: false }];
  const completed: Line[] = [];
  for (let step = 0; step < depth; step++) {
    const next: Line[] = [];
    for (const beam of beams) {
      const likely = [...logprobsAfter([...prompt, ...beam.tokens]).entries()].sort(([, a], [, b]) => b - a);
      for (const [token, logprob] of likely.slice(0, 2 * width)) {
        const sum = beam.logprob + logprob;
        if (token === EOS) completed.push({ tokens: beam.tokens, logprob: sum, ended: true });
        else next.push({ tokens: [...beam.tokens, token], logprob: sum, ended: false });
      }
    }
    beams = next.sort((a, b) => b.logprob - a.logprob).slice(0, width);
  }
  return ranked([...completed, ...beams], prompt, penalty).slice(0, width);
}

const textOf = (line: Line | undefined): string => Buffer.concat((line?.tokens ?? []).map(letter)).toString();

for (const [penalty, ignoreEos] of [
  [1, false],
  [0, false],
  [-2, false],
  [3, false],
  [1, true],
] as const) {
  test(`a width that drops nothing finds the best of all texts: penalty ${penalty}, ignore_eos ${ignoreEos}`, async () => {
    const { setting } = setUp();
    const prompt = [0, 1];
    // 64 beams: all texts of three tokens that have not ended.
    const width = ignoreEos ? 125 : 64;
    const events = await ask(setting, { n: width, max_tokens: 4, length_penalty: penalty, ignore_eos: ignoreEos });
    const best = ranked(everything(prompt, 4, ignoreEos), prompt, penalty);
    for (let at = 0; at < 20; at++) {
      const { text, finish } = summary(events, at);
      assert.deepEqual([text, finish], [textOf(best[at]), best[at]?.ended ? "stop" : "length"], `choice ${at}`);
    }
  });
}

test("narrow searches go as vLLM's: for many prompts, widths and penalties", async () => {
  const { setting, backend } = setUp();
  let spared = 0;
  for (let seed = 0; seed < 30; seed++) {
    const prompt = [seed % 5, (seed * 3) % 5, (seed * 7 + 1) % 5].map((token) => (token === EOS ? 4 : token));
    const [width, penalty] = [1 + (seed % 3), [0, 0.5, 1, 2, -1][seed % 5] as number];
    const before = backend.requests.length;
    const events = await ask(setting, { prompt, n: width, max_tokens: 9, length_penalty: penalty });
    spared += 1 + 8 * width - (backend.requests.length - before);
    const wanted = narrow(prompt, width, 9, penalty);
    const choices = wanted.map((_, at) => summary(events, at));
    assert.deepEqual(
      choices.map(({ text, finish }) => [text, finish]),
      wanted.map((line) => [textOf(line), line.ended ? "stop" : "length"]),
    );
  }
  assert.ok(spared > 0, "no search ended before its budget");
  assert.equal(backend.open, 0);
});

for (const penalty of [0, 4]) {
  test(`logprobs are the beam's own, the ending token is reported, and shown when asked for: penalty ${penalty}`, async () => {
    const { setting } = setUp();
    const body = { n: 3, max_tokens: 6, logprobs: 2, length_penalty: penalty, return_token_ids: true };
    const hidden = await ask(setting, body);
    const shown = await ask(setting, { ...body, include_stop_str_in_output: true });
    const wanted = narrow([0, 1], 3, 6, penalty);
    for (const [at, line] of wanted.entries()) {
      const of = (events: readonly CallEvent[]) => events.filter((event) => "choice" in event && event.choice === at);
      const [plain] = of(hidden);
      assert.ok(plain?.type === "text");
      assert.deepEqual(plain.tokenIds ?? [], line.tokens);
      let sum = 0;
      plain.logprobs?.forEach((position, i) => {
        assert.equal(position.token, line.tokens[i]);
        assert.equal(position.top.length, 2);
        sum += position.logprob;
      });
      const last = logprobsAfter([0, 1, ...line.tokens])[EOS] as number;
      assert.ok(Math.abs(sum + (line.ended ? last : 0) - line.logprob) < 1e-4);
      const [full] = of(shown);
      assert.ok(full?.type === "text");
      assert.deepEqual(full.tokenIds, line.ended ? [...line.tokens, EOS] : line.tokens);
      assert.equal(summary(shown, at).text, textOf(line) + (line.ended ? "c" : ""));
      assert.equal(summary(hidden, at).stop, line.ended ? EOS : undefined);
    }
    assert.ok(wanted.some(({ ended }) => ended === (penalty === 0)));
  });
}

test("several prompts, prompt logprobs, usage", async () => {
  const { setting, backend } = setUp();
  const prompts = [
    [0, 1],
    [3, 4, 3],
  ];
  const events = await ask(setting, { prompt: prompts, n: 2, max_tokens: 3, prompt_logprobs: 1 });
  for (const [p, prompt] of prompts.entries()) {
    const wanted = narrow(prompt, 2, 3, 1);
    for (let s = 0; s < 2; s++) assert.equal(summary(events, p * 2 + s).text, textOf(wanted[s]));
  }
  const reported = events.flatMap((event) => (event.type === "prompt-logprobs" ? [event.positions.length] : []));
  assert.deepEqual(reported, [2, 3]);
  const last = events.at(-1);
  const tokens = prompts
    .flatMap((prompt) => narrow(prompt, 2, 3, 1))
    .reduce((sum, line) => sum + line.tokens.length, 0);
  assert.ok(last?.type === "usage" && last.final);
  assert.deepEqual([last.usage.promptTokens, last.usage.completionTokens], [5, tokens]);
  // Every step is the tenant's own work.
  for (const { cacheSalt, share } of backend.requests) assert.deepEqual([cacheSalt, share?.key], ["t\0", "t"]);
});

test("a failure of one step ends the whole search, plainly; so does a caller that leaves", async () => {
  const { setting, backend } = setUp();
  backend.failAt = 4;
  await assert.rejects(ask(setting, { n: 3, max_tokens: 9 }), (error) => {
    assert.ok(error instanceof Fault);
    return error.kind === "overloaded";
  });
  assert.equal(backend.open, 0);
  await assert.rejects(ask(setting, { n: 3, max_tokens: 9 }, AbortSignal.abort()), { kind: "cancelled" });
  assert.equal(backend.open, 0);
});
