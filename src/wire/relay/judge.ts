/**
 * A request's body on its way to an upstream: judged by its route's rule, changed where the server decides, and
 * otherwise passed on as it came, in pieces of the bytes that came.
 *
 * Invariant: what is taken has each key of its first level once; what the server decides (salt, priority, id) stands in
 * what is passed on whatever the client wrote; nothing that the client may not say is in it.
 */
import { stringifyJson } from "#base/json.ts";
import { type JsonScan, scanJson } from "#base/json-scan.ts";
import { type Cut, cut, cutsOf, spliced } from "#base/splice.ts";
import { conform } from "#core/conform.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { decodeSalt } from "#wire/openai/_output.ts";
import { refuseUnsupported } from "#wire/openai/_refusals.ts";
import { SamplingBody } from "#wire/vllm/generate.ts";
import { InvocationBody } from "#wire/vllm/invocations.ts";
import { type Members, readable, smallFields } from "./_body.ts";
import { findMedia, type RelayMedia, WATCHED } from "./media.ts";
import { type Asked, IGNORED, NEVER, REFUSED, type RelayRule } from "./rules.ts";

/** What the server decides. */
export interface RelayFacts {
  readonly caps: RequestCaps;
  /** In place of the client's, which is made part of it. */
  readonly salt: (own: string | undefined) => string;
  /** @throws Fault invalid_request: more urgent than the key may ask for */
  readonly priority: (asked: number | undefined) => number;
  readonly requestId: string;
}

export interface RelayVerdict extends Asked {
  /** As the client calls it. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** Usage was asked for on the server's account: its chunk is left out of the stream. */
  readonly strip: boolean;
  /** Token ids that the prompts are, exactly; 0: texts. */
  readonly promptIds: number;
  /** Bytes of what is tokenised, all texts together: no fewer than their tokens, but for what a template adds. */
  readonly promptBytes: number;
  /** To be fetched before the body is passed on. */
  readonly media: readonly RelayMedia[];
  /** Of /v1/responses. */
  readonly kept: {
    readonly store: boolean | undefined;
    readonly background: boolean;
    readonly previousId: string | undefined;
  };
  readonly body: Uint8Array;
  readonly scan: JsonScan;
  readonly edits: ReadonlyMap<string, string | undefined>;
  readonly cuts: readonly Cut[];
}

/**
 * @param rule of the route
 * @throws Fault invalid_json | invalid_request | not_implemented, as the route itself throws it
 */
export function judgeRelay(rule: RelayRule, body: Uint8Array, facts: RelayFacts): RelayVerdict {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const scan = readable(() => scanJson(bytes, WATCHED));
  // The schema says what is wrong with it.
  if (scan.kind !== "object") conform(InvocationBody, scan.kind === "array" ? [] : null);
  const members: Members = new Map(scan.members.map((member) => [member.name, member]));
  const small = smallFields(bytes, members, rule.fields);
  const asked = rule.judge(small, members, facts.caps);
  refuseUnsupported(small);
  refuseInputs(members);
  const edits = new Map<string, string | undefined>();
  for (const name of members.keys()) if (REFUSED.has(name) || IGNORED.has(name)) edits.set(name, undefined);
  decide(rule, small, members, facts, edits);
  for (const [name, value] of Object.entries(rule.sets)) edits.set(name, value);
  const stream = small["stream"] === true;
  const strip = rule.asksForUsage && stream && askForUsage(small, edits);
  const found = Object.entries(rule.media).map(([name, place]) => {
    const member = members.get(name);
    return member === undefined ? undefined : findMedia(bytes, member, place);
  });
  return {
    ...asked,
    ...sizeOf(members, rule),
    ...{ model: textOf(small["model"]), stream, strip, body, scan, edits },
    media: found.flatMap((entry) => entry?.media ?? []),
    cuts: found.flatMap((entry) => entry?.cuts ?? []),
    kept: {
      store: typeof small["store"] === "boolean" ? small["store"] : undefined,
      background: small["background"] === true,
      previousId: textOf(small["previous_response_id"]),
    },
  };
}

export interface BodyChanges {
  /** The upstream's name of the model, where it is another than the client's. */
  readonly model?: string;
  /** `data:` URLs for the verdict's media, in their order. */
  readonly media?: readonly string[];
}

/** @throws RangeError media for which nothing was fetched */
export function relayBody(verdict: RelayVerdict, { model, media = [] }: BodyChanges = {}): readonly Uint8Array[] {
  if (media.length !== verdict.media.length) throw new RangeError("each medium has its data");
  const edits = model === undefined ? verdict.edits : new Map([...verdict.edits, ["model", stringifyJson(model)]]);
  const fetched = verdict.media.map(({ start, end }, i) => cut(start, end, stringifyJson(media[i])));
  return spliced(verdict.body, [...cutsOf(verdict.scan, edits), ...verdict.cuts, ...fetched]);
}

function refuseInputs(members: Members): void {
  for (const name of NEVER) {
    const { kind = "null" } = members.get(name) ?? {};
    if (kind !== "null") throw invalid(name, `${name} is not accepted from clients.`);
  }
}

/** Wall: T124; T46 for the priority. */
function decide(
  rule: RelayRule,
  small: JsonObject,
  members: Members,
  facts: RelayFacts,
  edits: Map<string, string | undefined>,
): void {
  const asked = small["priority"];
  const priority = facts.priority(typeof asked === "number" ? asked : undefined);
  const own = decodeSalt(textOf(small["cache_salt"]));
  const values = {
    cache_salt: stringifyJson(facts.salt(own)),
    priority: priority === 0 && !members.has("priority") ? undefined : String(priority),
    request_id: stringifyJson(facts.requestId),
  };
  for (const name of ["cache_salt", "priority", "request_id"] as const)
    edits.set(name, rule.ours.includes(name) ? values[name] : undefined);
  const sampling = small["sampling_params"];
  // The engine's own parameters: what is not known here is not passed on.
  if (isObject(sampling)) edits.set("sampling_params", stringifyJson(known(sampling)));
}

function known(sampling: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(sampling).filter(([name]) => Object.hasOwn(SamplingBody.shape, name)));
}

/** @returns whether the client did not ask itself */
function askForUsage(small: JsonObject, edits: Map<string, string | undefined>): boolean {
  const options = isObject(small["stream_options"]) ? small["stream_options"] : {};
  if (options["include_usage"] === true) return false;
  edits.set("stream_options", stringifyJson({ ...options, include_usage: true, continuous_usage_stats: false }));
  return true;
}

function sizeOf(members: Members, rule: RelayRule): Pick<RelayVerdict, "promptIds" | "promptBytes"> {
  let promptIds = 0;
  let promptBytes = 0;
  for (const { name, kind, first, values, count, depth, start, end } of members.values()) {
    if (rule.fields.has(name)) continue;
    if (kind === "array" && first === "number") promptIds += count;
    else if (kind === "array" && first === "array" && depth === 2) promptIds += values - 1 - count;
    else promptBytes += end - start;
  }
  return { promptIds, promptBytes };
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
