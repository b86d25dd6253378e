/**
 * How urgent a request may say it is. Called by chat.ts, complete.ts, pool.ts and generative-scoring.ts.
 */
import { invalid } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";

/**
 * Wall: T46. Nobody jumps the queue by saying so: what a key may ask for at most is written on the key.
 * @param asked absent: 0, or later where the key says so
 * @param enabled priorities mean something (--scheduling-policy priority)
 * @throws Fault invalid_request
 */
export function priorityOf(asked: number | undefined, { reach }: Principal, enabled: boolean): number {
  const most = reach.priority ?? 0;
  const priority = asked ?? (enabled ? Math.max(0, most) : 0);
  if (priority !== 0 && !enabled)
    throw invalid("priority", `Got priority ${priority} but priority scheduling is not enabled.`);
  if (enabled && priority < most)
    throw invalid("priority", `Got priority ${priority}; this key may ask for ${most} or later (larger numbers).`);
  return priority;
}
