/**
 * How a route stands to vLLM's: for docs/reference/routes.md and the test that compares the two lists.
 */
import type { AnyRoute } from "#http/route.ts";
import type { Services } from "./_services.ts";

/** `own`: vLLM has none of this method and path. `later`: it is declared, and answers 501 until it can do more. */
export type Standing = "vllm" | "own" | "later";

const OWN = /^\/(?:admin|metrics\/upstreams|v1\/(?:files|batches))(?:\/|$)/;
const OWN_METHODS = /^(?:GET \/v1\/models\/.*|DELETE \/v1\/responses\/.*|GET \/v1\/responses\/.*\/input_items)$/;

export function standing({ path, method, reply }: AnyRoute<Services>): Standing {
  if (OWN.test(path) || OWN_METHODS.test(`${method} ${path}`)) return "own";
  return reply.every(({ status }) => status >= 400) ? "later" : "vllm";
}
