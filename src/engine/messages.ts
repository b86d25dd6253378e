/**
 * The closed set of messages between the HTTP process (parent) and the engine process (child).
 *
 * They cross the border by structured clone, so typed arrays stay typed arrays. Each side checks the shape of what it
 * reads: a message of another version or a bug ends in one clear error, not in a wrong token.
 * All tokens of a step travel in ONE message. Sent by supervisor.ts and loop.ts; packing in packed.ts.
 */
import type { EngineLimits } from "./engine.ts";
import type { FakeScript } from "./fake.ts";
import type { KernelLimits } from "./kernel.ts";
import type { Operation, Outcome } from "./operations.ts";
import type { PackedLogprobs } from "./packed.ts";
import type { FakePoolingScript } from "./pooling/fake.ts";
import type { PoolingLimits } from "./pooling/kernel.ts";
import type { PooledReport, PoolSubmission } from "./pooling/submission.ts";
import type { EngineGauges, FailureReport, FinishReport } from "./report.ts";
import type { Submission } from "./requests.ts";

/** Which kernel the engine process opens. For the native ones `options` goes to the opener as it is. */
export type GeneratingInit =
  | { readonly kernel: "native"; readonly options: unknown }
  | { readonly kernel: "fake"; readonly script: FakeScript };
export type KernelInit =
  | GeneratingInit
  | { readonly kernel: "native-pooling"; readonly options: unknown }
  | { readonly kernel: "fake-pooling"; readonly script: FakePoolingScript };

/** Parent to child. `init` comes first and once. */
export type Command =
  | {
      readonly type: "init";
      readonly kernel: KernelInit;
      /** The smaller model of speculative decoding. */
      readonly draft?: GeneratingInit;
      readonly limits: EngineLimits;
    }
  | ({ readonly type: "submit" } & Submission)
  | ({ readonly type: "pool" } & PoolSubmission)
  | { readonly type: "abort"; readonly request: number }
  | { readonly type: "pause"; readonly request: number }
  | { readonly type: "resume"; readonly request: number }
  /** Answered by an `answer` of the same number. */
  | { readonly type: "load-adapter"; readonly ask: number; readonly adapter: number; readonly path: string }
  | { readonly type: "unload-adapter"; readonly adapter: number }
  /** All step messages up to this number were read: the child never runs far ahead of its reader. */
  | { readonly type: "ack"; readonly step: number }
  /** Answered by one `operated` with the same number. */
  | { readonly type: "operate"; readonly call: number; readonly operation: Operation }
  | { readonly type: "close" };

/** One step's news. The first three arrays are parallel: one entry a token, in order within a sequence. */
export interface StepMessage {
  readonly type: "step";
  /** 1, 2, … for `ack`. */
  readonly step: number;
  readonly requests: Float64Array;
  readonly samples: Int32Array;
  readonly tokens: Int32Array;
  /** One position a token, when any of them has logprobs. */
  readonly logprobs: PackedLogprobs | undefined;
  readonly prompts: readonly PromptMessage[];
  readonly finishes: readonly FinishReport[];
  readonly failures: readonly FailureReport[];
  readonly pooled: readonly PooledReport[];
  readonly gauges: EngineGauges;
}

export interface PromptMessage {
  readonly request: number;
  readonly cachedTokens: number;
  readonly logprobs: PackedLogprobs | undefined;
}

/** What the parent has to know of the kernel, whichever kind it is. */
export type ProcessLimits = KernelLimits | PoolingLimits;

/** Child to parent. `ready` or `refused` comes once, before all but `tried`, which may come before it. */
export type Notice =
  /** The model's file was opened and its vocabulary tried: another process may read it. */
  | { readonly type: "tried" }
  | { readonly type: "ready"; readonly limits: ProcessLimits }
  | { readonly type: "refused"; readonly message: string }
  | OperatedMessage
  /** What came of a command that asked; `error` is for people. */
  | { readonly type: "answer"; readonly ask: number; readonly error: string | undefined }
  | StepMessage;

export interface OperatedMessage {
  readonly type: "operated";
  readonly call: number;
  readonly outcome: Outcome;
}

/** The two sides do not speak the same language. */
export class MessageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "MessageError";
  }
}

type Shape = Readonly<Record<string, (value: unknown) => boolean>>;

const isNumber = (value: unknown): boolean => typeof value === "number";
const isText = (value: unknown): boolean => typeof value === "string";
const isObject = (value: unknown): boolean => typeof value === "object" && value !== null;
const isInts = (value: unknown): boolean => value instanceof Int32Array;

const COMMANDS: Readonly<Record<Command["type"], Shape>> = {
  init: { kernel: isObject, limits: isObject },
  submit: { request: isNumber, prompt: isInts, sampling: isObject, samples: isNumber, priority: isNumber },
  pool: { request: isNumber, inputs: Array.isArray, task: isText, info: isObject, priority: isNumber },
  abort: { request: isNumber },
  pause: { request: isNumber },
  resume: { request: isNumber },
  "load-adapter": { ask: isNumber, adapter: isNumber, path: isText },
  "unload-adapter": { adapter: isNumber },
  ack: { step: isNumber },
  operate: { call: isNumber, operation: isObject },
  close: {},
};

const NOTICES: Readonly<Record<Notice["type"], Shape>> = {
  tried: {},
  ready: { limits: isObject },
  refused: { message: isText },
  operated: { call: isNumber, outcome: isObject },
  answer: { ask: isNumber },
  step: {
    step: isNumber,
    requests: (value) => value instanceof Float64Array,
    samples: isInts,
    tokens: isInts,
    prompts: Array.isArray,
    finishes: Array.isArray,
    failures: Array.isArray,
    pooled: Array.isArray,
    gauges: isObject,
  },
};

function read(value: unknown, shapes: Readonly<Record<string, Shape>>): void {
  const message = value as Record<string, unknown> | null;
  const type = message?.type;
  const shape = typeof type === "string" && Object.hasOwn(shapes, type) ? shapes[type] : undefined;
  if (shape === undefined || message === null) throw new MessageError(`a message of unknown type ${String(type)}`);
  for (const [field, holds] of Object.entries(shape)) {
    if (!holds(message[field])) throw new MessageError(`a ${String(type)} message with a bad ${field}`);
  }
}

/** @throws MessageError */
export function readCommand(value: unknown): Command {
  read(value, COMMANDS);
  return value as Command;
}

/** @throws MessageError */
export function readNotice(value: unknown): Notice {
  read(value, NOTICES);
  const notice = value as Notice;
  if (notice.type === "step") {
    const { requests, samples, tokens, logprobs } = notice;
    const count = tokens.length;
    if (requests.length !== count || samples.length !== count) throw new MessageError("a step whose arrays differ");
    if (logprobs !== undefined && logprobs.counts.length !== count) throw new MessageError("a step with odd logprobs");
  }
  return notice;
}
