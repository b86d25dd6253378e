/**
 * Watches an engine from outside and holds what it says against the naive model (alone.ts): tokens, prompts, endings,
 * order, step by step. Used by engine.test.ts and faults.test.ts.
 */
import assert from "node:assert/strict";
import type { Engine } from "#engine/engine.ts";
import type { KernelLimits } from "#engine/kernel.ts";
import type { StepReport } from "#engine/report.ts";
import type { Submission } from "#engine/requests.ts";
import { type Alone, alone } from "./alone.ts";

interface Watched {
  readonly submission: Submission;
  readonly arrived: number;
  readonly expected: readonly Alone[];
  readonly got: number[][];
  readonly finished: Set<number>;
  promptSeen: boolean;
  paused: boolean;
  everPaused: boolean;
  state: "open" | "finished" | "aborted" | "failed";
}

/** When a sequence was let in, for the order of admission; steps count from 1. */
export interface Admission {
  readonly submission: Submission;
  readonly arrived: number;
  readonly admitted: number;
  readonly everPaused: boolean;
}

export class Witness {
  readonly requests = new Map<number, Watched>();
  readonly admissions: Admission[] = [];
  promptTokens = 0;
  generated = 0;
  /** Steps after which everything must have ended if nothing were paused, aborted or cut short. */
  patience = 100;
  readonly #engine: Engine;
  readonly #limits: KernelLimits;
  readonly #contextLength: number;

  /** Tokens that a sequence may get in one step: one, and one for each guess. */
  readonly #atOnce: number;

  constructor(engine: Engine, limits: KernelLimits, contextLength: number, guesses = 0) {
    this.#atOnce = 1 + guesses;
    this.#engine = engine;
    this.#limits = limits;
    this.#contextLength = contextLength;
  }

  /** @param now by the clock that the engine was given */
  submit(submission: Submission, now: number): void {
    const expected = Array.from({ length: submission.samples }, (_, sample) =>
      alone(submission, sample, this.#limits, this.#contextLength),
    );
    this.requests.set(submission.request, {
      submission,
      arrived: now,
      expected,
      got: expected.map(() => []),
      finished: new Set(),
      promptSeen: false,
      paused: false,
      everPaused: false,
      state: "open",
    });
    // The first in line gets a token a step at least, so all together cannot take more steps than tokens.
    for (const { tokens } of expected) this.patience += submission.prompt.length + tokens.length + 4;
    this.#engine.submit(submission);
  }

  abort(request: number): void {
    this.#engine.abort(request);
    const watched = this.requests.get(request);
    if (watched?.state === "open") watched.state = "aborted";
  }

  setPaused(request: number, paused: boolean): void {
    this.#engine.setPaused(request, paused);
    const watched = this.requests.get(request);
    if (watched?.state !== "open") return;
    watched.paused = paused;
    watched.everPaused ||= paused;
  }

  open(): number[] {
    return [...this.requests].filter(([, { state }]) => state === "open").map(([request]) => request);
  }

  /** Takes a step's report in. @param mayFail whether this failure is one that the test brought about */
  read(report: StepReport, mayFail: (submission: Submission, expected: readonly Alone[]) => boolean): void {
    for (const prompt of report.prompts) this.#readPrompt(prompt);
    this.#readTokens(report);
    for (const finish of report.finishes) this.#readFinish(finish);
    for (const { request, kind } of report.failures) {
      const watched = this.#openOne(request);
      assert.equal(kind, "engine_failed");
      assert.ok(mayFail(watched.submission, watched.expected), `request ${request} fails without a cause`);
      watched.state = "failed";
    }
  }

  #openOne(request: number): Watched {
    const watched = this.requests.get(request);
    assert.ok(watched !== undefined && watched.state === "open", `news of request ${request}, which is not open`);
    return watched;
  }

  #readPrompt({ request, logprobs, cachedTokens }: StepReport["prompts"][number]): void {
    const watched = this.#openOne(request);
    assert.equal(watched.promptSeen, false, "a prompt is reported once");
    watched.promptSeen = true;
    assert.ok(cachedTokens >= 0 && cachedTokens < watched.submission.prompt.length);
    if (watched.submission.sampling.promptLogprobs === undefined) {
      assert.equal(logprobs, undefined);
      return;
    }
    assert.equal(cachedTokens, 0, "each row of such a prompt is computed");
    assert.equal(logprobs?.length, watched.submission.prompt.length);
    assert.equal(logprobs?.[0], null);
    watched.expected[0]?.prompt.forEach(({ logprob, rank }, at) => {
      const chosen = logprobs?.[at + 1]?.chosen;
      assert.deepEqual([chosen?.token, chosen?.rank], [watched.submission.prompt[at + 1], rank]);
      assert.ok(Math.abs((chosen?.logprob ?? Number.NaN) - logprob) < 1e-6);
    });
  }

  #readTokens({ tokens }: StepReport): void {
    const seen = new Map<string, number>();
    for (const { request, sample, token } of tokens) {
      const watched = this.#openOne(request);
      assert.ok(watched.promptSeen, "the prompt is reported before its first token");
      assert.equal(watched.paused, false, "a paused request gets nothing");
      const count = (seen.get(`${request} ${sample}`) ?? 0) + 1;
      assert.ok(count <= this.#atOnce, `${count} tokens in a step`);
      seen.set(`${request} ${sample}`, count);
      const got = watched.got[sample] as number[];
      assert.equal(token, watched.expected[sample]?.tokens[got.length], `request ${request}, token ${got.length}`);
      got.push(token);
      this.generated++;
    }
  }

  #readFinish(finish: StepReport["finishes"][number]): void {
    const { request, sample, reason, stopToken, promptTokens, outputTokens, queue } = finish;
    const watched = this.#openOne(request);
    const { submission, expected, finished, got, everPaused, arrived } = watched;
    const wanted = expected[sample] as Alone;
    assert.deepEqual(got[sample], wanted.tokens);
    assert.deepEqual([reason, stopToken], [wanted.reason, wanted.stopToken]);
    assert.deepEqual([promptTokens, outputTokens], [submission.prompt.length, wanted.tokens.length]);
    assert.ok(!finished.has(sample));
    finished.add(sample);
    this.promptTokens += promptTokens;
    if (finished.size === submission.samples) watched.state = "finished";
    assert.ok(queue >= 0);
    this.admissions.push({ submission, arrived, admitted: arrived + queue, everPaused });
  }
}
