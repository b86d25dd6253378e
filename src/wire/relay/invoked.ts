/**
 * Which route the body of POST /invocations is for, by the fields that a scan finds in its bytes: what a model behind
 * others can do, its server says. Called by the gateway's relay.
 */
import { scanJson } from "#base/json-scan.ts";
import { TASK_KINDS } from "#core/pool.ts";
import { readable } from "#core/readable.ts";
import { type Invoked, invokedBy } from "#wire/vllm/invocations.ts";

/** @throws Fault invalid_json | invalid_request: no route takes it */
export function invokedOf(body: Uint8Array): Invoked {
  const { members } = readable("byte", () => scanJson(body));
  const given = members.filter(({ kind }) => kind !== "null").map(({ name }) => [name, true] as const);
  return invokedBy(Object.fromEntries(given), TASK_KINDS);
}
