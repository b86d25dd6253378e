/**
 * The corridor's failing end: from whatever was thrown to what the client can still be told.
 *
 * Private to the pipeline.
 */
import { stringifyJson } from "#base/json.ts";
import type { FaultReply } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { Exchange } from "./_exchange.ts";
import type { OwnHeaders } from "./_head.ts";
import { type Corridor, openBooks, type Walk } from "./_walk.ts";
import { writeWhole } from "./_write.ts";

/** The one catch: prints the failure in the dialect, as far as the client can still be told. */
export async function refuse<S>(corridor: Corridor<S>, step: Walk<S>, error: unknown): Promise<void> {
  const { exchange, dialect } = step;
  const fault = faultOf(corridor, exchange, error);
  step.fault = fault;
  // Whatever still works for the answer hears that it does not leave.
  exchange.abort(fault);
  if (exchange.gone) return;
  try {
    if (!exchange.res.headersSent) await writeFault(corridor, step, fault);
    else if (exchange.res.writableEnded || !exchange.streaming) exchange.res.destroy();
    else {
      exchange.write(exchange.options.redact(dialect.streamFault(fault, exchange.requestId)));
      exchange.end();
      await exchange.taken();
    }
  } catch (second) {
    // A second abort while the first failure is printed is no bug: the client was slow and the time ran out.
    if (!(second instanceof Fault))
      corridor.log("error", "a failure could not be printed", {
        requestId: exchange.requestId,
        stack: stackOf(second),
      });
    exchange.res.destroy();
  }
}

function faultOf<S>(corridor: Corridor<S>, exchange: Exchange, error: unknown): Fault {
  if (error instanceof Fault) return error;
  // What a handler throws on its way out after an abort (an AbortError, as a rule) is not the cause.
  if (exchange.aborted !== undefined) return exchange.aborted;
  corridor.log("error", "a bug ended a call", { requestId: exchange.requestId, stack: stackOf(error) });
  return new Fault("internal", "Internal server error.", { cause: error });
}

export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** A failure that cannot be recorded is not told: that it cannot is what the client hears. */
async function recorded<S>(step: Walk<S>, fault: Fault): Promise<[Fault, OwnHeaders]> {
  try {
    await step.record(step.dialect.fault(fault, step.exchange.requestId).status);
    return [fault, step.headers()];
  } catch (error) {
    if (!(error instanceof Fault) || error.kind !== "policy_unavailable") throw error;
    step.fault = error;
    return [error, {}];
  }
}

async function writeFault<S>(corridor: Corridor<S>, step: Walk<S>, cause: Fault): Promise<void> {
  const { exchange, dialect, matched } = step;
  openBooks(corridor, step);
  const [fault, own] = await recorded(step, cause);
  const { status, body }: FaultReply = dialect.fault(fault, exchange.requestId);
  const headers: Record<string, string> = { ...own, "content-type": "application/json" };
  if (fault.kind === "unauthenticated") headers["www-authenticate"] = "Bearer";
  if (matched.kind === "other-method" && fault.kind === "method_not_allowed") headers.allow = matched.allow;
  if (fault.kind === "draining" || fault.kind === "request_timeout") exchange.last = true;
  if (fault.retryAfterMs !== undefined)
    headers["retry-after"] = String(Math.max(1, Math.ceil(fault.retryAfterMs / 1000)));
  if (isVain(fault)) headers["x-should-retry"] = "false";
  await writeWhole(exchange, status, headers, exchange.options.redact(stringifyJson(body)));
}

/** OpenAI's and Anthropic's clients try 408, 429 and every 5xx again; they wait no minute, and do more soon. */
const PATIENCE_MS = 60_000;

/** Whether they would ask for the same work in vain, or for work that has just taken too long. */
function isVain({ kind, retryAfterMs = 0 }: Fault): boolean {
  return kind === "not_implemented" || kind === "request_timeout" || retryAfterMs > PATIENCE_MS;
}
