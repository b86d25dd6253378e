/**
 * One streamed completion over HTTP, with the times at which its pieces came.
 */
import type { Pool } from "undici";
import type { Served } from "./servers.ts";

const VOCABULARY = 30_000;

export interface Wish {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly n?: number;
  /** May what was computed before be used? */
  readonly cache?: boolean;
  readonly schema?: unknown;
}

export interface Answer {
  readonly tokens: number;
  /** Milliseconds from the request to the first piece of text. */
  readonly first: number;
  readonly total: number;
  /** Milliseconds between pieces. */
  readonly gaps: readonly number[];
}

/** Prompts are tokens, so that no tokenizer is measured; each seed gives another text from its first token on. */
export function promptOf(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7919 + seed * 104_729) % VOCABULARY);
}

/** @throws Error when the server does not answer 200, or fewer tokens than asked for */
export async function complete(pool: Pool, served: Served, wish: Wish): Promise<Answer> {
  const start = performance.now();
  const { statusCode, body } = await pool.request({
    method: "POST",
    path: "/v1/completions",
    headers: { ...served.headers, "content-type": "application/json" },
    body: JSON.stringify(bodyOf(served, wish)),
    // llama-server closes idle connections when it likes.
    reset: true,
    bodyTimeout: 0,
    headersTimeout: 0,
  });
  const times: number[] = [];
  let text = "";
  for await (const piece of body) {
    const chunk = String(piece);
    text += chunk;
    if (chunk.includes('"text"') || chunk.includes('"content"')) times.push(performance.now() - start);
  }
  if (statusCode !== 200) throw new Error(`${served.name} answered ${statusCode}: ${text.slice(0, 300)}`);
  const counts = [...text.matchAll(/"completion_tokens":\s*(\d+)/g)].map((match) => Number(match[1]));
  const tokens = counts.at(-1) ?? 0;
  const wanted = wish.maxTokens * (wish.n ?? 1);
  // llama-server counts each of n choices by itself.
  if (tokens !== wanted && tokens !== wish.maxTokens && wish.schema === undefined)
    throw new Error(`${served.name} made ${tokens} tokens, not ${wanted}`);
  const gaps = times.slice(1).map((time, i) => time - (times[i] as number));
  return { tokens, first: times[0] ?? Number.NaN, total: performance.now() - start, gaps };
}

function bodyOf(served: Served, { prompt, maxTokens, n = 1, cache = false, schema }: Wish): unknown {
  const peer = served.name !== "castellan";
  const structured = peer ? { json_schema: schema } : { structured_outputs: { json: schema } };
  return {
    model: "m",
    prompt,
    max_tokens: maxTokens,
    // Several samples are only asked for where they can differ.
    temperature: n > 1 ? 1 : 0,
    seed: 1,
    ignore_eos: schema === undefined,
    stream: true,
    stream_options: { include_usage: true },
    ...(n > 1 ? { n } : {}),
    // Here a salt of its own keeps a request from finding anything; there a switch does.
    ...(peer ? { cache_prompt: cache } : cache ? {} : { cache_salt: String(Math.random()) }),
    ...(schema === undefined ? {} : structured),
  };
}
