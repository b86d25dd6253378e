/**
 * What an operator asks of the servers behind this one: each of every pool is asked, and their answers become one.
 *
 * Invariants: never tried again, as it may have been done; a server that did not do it is told of, by how many, never by
 * its name; what goes out was written anew by the caller, never by a client. Callers: app's relay.
 */
import { type JsonValue, parseJson } from "#base/json.ts";
import { Fault } from "#core/fault.ts";
import type { RelaySource, UpstreamRequest } from "#core/relay.ts";
import type { PoolMember, UpstreamPool } from "./pool.ts";
import type { Operation } from "./relayed-routes.ts";

export interface OperatedAnswer {
  readonly status: number;
  /** Undefined: none, or none that is JSON. */
  readonly body: JsonValue | undefined;
}

export interface OperateOptions {
  readonly pools: () => readonly UpstreamPool[];
  /** Of one server's answer. */
  readonly timeoutMs: number;
}

const MAX_BYTES = 1 << 20;
/** In turn, for an answer of any. */
const MOST_ASKED = 3;

export class Operate {
  readonly #options: OperateOptions;

  constructor(options: OperateOptions) {
    this.#options = options;
  }

  /** @throws Fault upstream_failed: not all of them did it | upstream_unavailable: there is none */
  async run(request: UpstreamRequest, { joined, leaves }: Operation, signal: AbortSignal): Promise<OperatedAnswer> {
    const all = this.#options
      .pools()
      .flatMap((pool) => [...pool.members()].map(([id, member]) => ({ pool, id, member })));
    if (all.length === 0) throw new Fault("upstream_unavailable", "There is no server behind this one.");
    if (joined === "first") return this.#first(all, request, signal);
    const answers = await Promise.all(
      all.map(async ({ pool, id, member }) => {
        const answer = await this.ask(member, request, signal);
        if (leaves !== undefined && "status" in answer && answer.status < 300) pool.setAsleep(id, leaves === "asleep");
        return answer;
      }),
    );
    return joinAnswers(answers, joined);
  }

  /** Of servers that all say the same, the first that says it. */
  async #first(
    all: readonly { readonly member: PoolMember }[],
    request: UpstreamRequest,
    signal: AbortSignal,
  ): Promise<OperatedAnswer> {
    const answers: (OperatedAnswer | Fault)[] = [];
    for (const { member } of all.slice(0, MOST_ASKED)) {
      const answer = await this.ask(member, request, signal);
      if ("status" in answer && answer.status < 300) return answer;
      answers.push(answer);
    }
    return joinAnswers(answers, "every");
  }

  /** One of them. A failure to answer is returned. */
  async ask({ link }: PoolMember, request: UpstreamRequest, signal: AbortSignal): Promise<OperatedAnswer | Fault> {
    const { timeoutMs } = this.#options;
    const timeouts = { firstByteMs: timeoutMs, idleMs: timeoutMs, totalMs: timeoutMs };
    try {
      const reply = await link.send(request, { timeouts, signal, maxBytes: MAX_BYTES });
      return { status: reply.status, body: readable(await whole(reply.source)) };
    } catch (error) {
      if (error instanceof Fault) return error;
      throw error;
    }
  }
}

/** All of a short answer. @throws Fault */
function whole(source: RelaySource): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  return new Promise((resolve, reject) => {
    source.pipe({
      write: (chunk) => {
        chunks.push(Uint8Array.from(chunk));
        return true;
      },
      end: () => resolve(Buffer.concat(chunks)),
      fail: reject,
    });
  });
}

function readable(bytes: Buffer): JsonValue | undefined {
  try {
    return bytes.length === 0 ? undefined : parseJson(bytes);
  } catch {
    return undefined;
  }
}

/** @throws Fault upstream_failed: some did it, or some failed */
export function joinAnswers(
  all: readonly (OperatedAnswer | Fault)[],
  joined: Exclude<Operation["joined"], "first">,
): OperatedAnswer {
  const answers = joined === "engines" ? withoutGaps(all) : all;
  const given = answers.filter((answer): answer is OperatedAnswer => !(answer instanceof Fault));
  const done = given.filter(({ status }) => status < 300);
  const [first] = done;
  if (first === undefined || done.length < answers.length) {
    // All of one mind: as that is.
    const [refusal] = given;
    if (
      refusal !== undefined &&
      given.length === answers.length &&
      given.every(({ status }) => status === refusal.status)
    )
      if (refusal.status < 500) return refusal;
    throw new Fault("upstream_failed", `${answers.length - done.length} of ${answers.length} servers did not do it.`, {
      detail: answers.map((answer) => (answer instanceof Fault ? answer.kind : answer.status)).join(" "),
    });
  }
  if (joined === "every") return first;
  const bodies = done.map(({ body }) => body);
  return { status: first.status, body: MERGED[joined](bodies) };
}

type Merge = (bodies: readonly (JsonValue | undefined)[]) => JsonValue | undefined;

const MERGED: Readonly<Record<Exclude<Operation["joined"], "first" | "every">, Merge>> = {
  any: (bodies) => merged(bodies, "any"),
  sum: (bodies) => merged(bodies, "sum"),
  results: (bodies) => ({
    results: bodies.filter(isObject).flatMap(({ results }) => (Array.isArray(results) ? results : [])),
  }),
  engines: (bodies) => Object.fromEntries(bodies.flatMap(enginesOf).entries()),
};

const UNREACHED: OperatedAnswer = { status: 200, body: { "0": { status: "unreachable", restarts: 0 } } };

/** What is asked for is who is well: one that does not answer is part of the answer. */
function withoutGaps(answers: readonly (OperatedAnswer | Fault)[]): readonly (OperatedAnswer | Fault)[] {
  const some = answers.some((answer) => "status" in answer && answer.status < 300);
  return some ? answers.map((answer) => (answer instanceof Fault ? UNREACHED : answer)) : answers;
}

const MOST_ENGINES = 1024;
const STATUS = /^[a-z][a-z_-]{0,31}$/i;

/** By number, as this program has them, or a list of `engines`, as vLLM has. */
function enginesOf(body: JsonValue | undefined): readonly JsonValue[] {
  if (!isObject(body)) return [];
  const { engines = Object.values(body) } = body;
  const told = Array.isArray(engines) ? engines.slice(0, MOST_ENGINES) : [];
  return told.filter(isObject).map(({ status, restarts }) => ({
    status: typeof status === "string" && STATUS.test(status) ? status : "unknown",
    restarts: typeof restarts === "number" && Number.isSafeInteger(restarts) ? restarts : 0,
  }));
}

/** Of answers of one shape: switches of which one is on are on, numbers are added. */
function merged(bodies: readonly (JsonValue | undefined)[], joined: "any" | "sum"): JsonValue | undefined {
  const objects = bodies.filter(isObject);
  const names = new Set(objects.flatMap((body) => Object.keys(body)));
  const values = [...names].map((name) => {
    const all = objects.map((body) => body[name]);
    const sum = all.reduce<number>((total, value) => total + (typeof value === "number" ? value : 0), 0);
    if (joined === "sum") return [name, typeof all[0] === "number" ? sum : all[0]] as const;
    return [name, typeof all[0] === "boolean" ? all.includes(true) : all[0]] as const;
  });
  return Object.fromEntries(values) as JsonValue;
}

function isObject(value: JsonValue | undefined): value is { readonly [name: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
