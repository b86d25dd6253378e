/**
 * A line of a batch as a call through the corridor, in this process: what a client over a socket would be told, it is
 * told. Callers: the runners of batches.
 */

import { setTimeout as wait } from "node:timers/promises";
import { newId } from "#base/ids.ts";
import { parseJson, stringifyJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import type { AnyRoute } from "#http/route.ts";
import type { Http } from "#http/server.ts";
import { BATCH_URLS, batchRoute } from "#routes/batch-urls.ts";
import type { Services } from "#routes/index.ts";
import type { InputLine } from "#serving/batch/lines.ts";
import type { Tries } from "#serving/batch/turns.ts";
import { type BatchLine, decodeLine, type LineOutcome } from "#wire/batch/line.ts";

/** Body of a request, and what stands around it in its line. */
export const LINE_BYTES = 8 * 1024 * 1024 + 64 * 1024;

export interface LineParts {
  readonly http: Pick<Http, "inject" | "isDraining">;
  /** Those that this server has. */
  readonly routes: readonly AnyRoute<Services>[];
  /** As whom the lines call. */
  readonly key: Secret;
  /** The one URL that lines may name; absent: each its own. */
  readonly only?: string;
  /** How long a line waits for a server that is full, or a limit that is used up, all its tries together. */
  readonly patienceMs: number;
  /** Absent: at once, and none but the signal ends a wait. */
  readonly tries?: Tries;
}

/**
 * @throws the signal's reason, or Fault draining while the server is ending: the line has no outcome and is to be done
 * another time
 */
export async function runLine(parts: LineParts, { text }: InputLine, signal: AbortSignal): Promise<LineOutcome> {
  if (text === undefined) return refused(null, `The line is longer than ${LINE_BYTES} bytes.`);
  const line = decodeLine(text);
  if ("problem" in line) return refused(line.customId, line.problem);
  const route = batchRoute(line.url, parts.routes);
  if (route === undefined)
    return refused(
      line.customId,
      `URL ${stringifyJson(line.url)} was used. Supported endpoints: ${BATCH_URLS.join(", ")}, as far as this server has them.`,
    );
  if (parts.only !== undefined && line.url !== parts.only)
    return refused(line.customId, `The batch goes to ${parts.only}, and the line to another url.`);
  // vLLM's words.
  if (line.body["stream"] === true) return refused(line.customId, "Request must not be sent in stream mode");
  return ask(parts, line, route.path, signal);
}

function refused(customId: string | null, problem: string): LineOutcome {
  return { ...ids(), customId, status: 400, problem };
}

function ids(): Pick<LineOutcome, "id" | "requestId"> {
  const [id, requestId] = [newId(), newId()] as const;
  return { id, requestId };
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;

async function ask(parts: LineParts, line: BatchLine, path: string, signal: AbortSignal): Promise<LineOutcome> {
  const payload = stringifyJson(line.body);
  const headers = { "content-type": "application/json", authorization: `Bearer ${parts.key.expose()}` };
  const until = performance.now() + parts.patienceMs;
  const tries = parts.tries ?? unbounded(signal);
  for (let pause = FIRST_WAIT_MS; ; pause = Math.min(2 * pause, LONGEST_WAIT_MS)) {
    signal.throwIfAborted();
    const reply = await tries.once(() =>
      parts.http.inject("public", { method: "POST", url: path, headers, payload, signal }),
    );
    const { statusCode: status } = reply;
    // What is answered is answered, and metered, whatever has come in between.
    if (status >= 300) signal.throwIfAborted();
    if (status >= 500 && parts.http.isDraining())
      throw new Fault("draining", "The server is shutting down.", { detail: "a line is done again at the next start" });
    const retryAfter = reply.headers["retry-after"];
    const next = Math.max(pause, Number(retryAfter ?? 0) * 1000);
    // A limit that says no time is one that the line will never fit under.
    const later = status === 503 || (status === 429 && retryAfter !== undefined);
    if (!later || performance.now() + next > until)
      return outcomeOf(line, status, String(reply.headers["content-type"] ?? ""), reply.payload);
    await tries.wait(next);
  }
}

function unbounded(signal: AbortSignal): Tries {
  return { once: (work) => work(), wait: (ms) => wait(ms, undefined, { signal }) };
}

function outcomeOf({ customId }: BatchLine, status: number, type: string, payload: string): LineOutcome {
  if (!type.startsWith("application/json"))
    return refused(customId, "The answer is not JSON: ask for one that is (encoding_format float or base64).");
  // What a route printed as JSON text may have line ends of its own.
  const answer = payload.includes("\n") ? stringifyJson(parseJson(payload)) : payload;
  return { ...ids(), customId, status, answer };
}
