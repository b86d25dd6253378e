/**
 * What the small fields of a body, and the shapes of the others, come to, whoever sends it: what is asked for, and what
 * is taken out.
 *
 * Invariant: what is kept is what would be found anew. All that it depends on is the rule, the caps, the text of each
 * small field and the shape of each other; by these it is found (_kept-told.ts). Clients send the same few numbers and
 * switches again and again, and only of bodies with nothing else that is small is something kept: what a tenant writes
 * in words is not. Used by judge.ts.
 */
import { stringifyJson } from "#base/json.ts";
import type { JsonMember, JsonScan } from "#base/json-scan.ts";
import { addition, type MemberEdits } from "#base/splice.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { decodeSalt } from "#wire/openai/_output.ts";
import { refuseUnsupported } from "#wire/openai/_refusals.ts";
import { SamplingBody } from "#wire/vllm/generate.ts";
import { type Shape, shapeOf, smallFields } from "./_body.ts";
import { KeptBodies } from "./_kept-told.ts";
import { type Asked, IGNORED, isOurs, NEVER, REFUSED, type RelayRule, SIZED, UNREAD } from "./rules.ts";

export interface Told {
  readonly asked: Asked;
  /** As the client calls it. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** Usage was asked for on the server's account. */
  readonly strip: boolean;
  /** As the client asks for it, and whether it says something about it. */
  readonly priority: number | undefined;
  readonly prioritized: boolean;
  /** The client's own. */
  readonly salt: string | undefined;
  /** name → what it says instead, as JSON; undefined: it goes. Not among them: what the server decides a call. */
  readonly edits: MemberEdits;
  /** All of the body stays: no member of it is edited, or is one that the server decides. */
  readonly stays: boolean;
  /** What the edits then add, as text. */
  readonly added: string;
  readonly kept: {
    readonly store: boolean | undefined;
    readonly background: boolean;
    readonly previousId: string | undefined;
  };
}

const known = new WeakMap<RequestCaps, Map<RelayRule, KeptBodies<Told>>>();

/** The names beyond the rule's that the operator lets pass. */
export type Passed = ReadonlySet<string>;

/** @throws Fault invalid_json | invalid_request | not_implemented */
export function toldBy(rule: RelayRule, bytes: Buffer, scan: JsonScan, caps: RequestCaps, passed: Passed): Told {
  const kept = keptOf(rule, caps);
  const hash = kept.hashOf(bytes, scan.members);
  if (hash === undefined) return tell(rule, bytes, scan, caps, passed);
  const before = kept.find(hash, bytes, scan.members);
  if (before !== undefined) return before;
  const told = tell(rule, bytes, scan, caps, passed);
  kept.keep(hash, bytes, scan.members, told);
  return told;
}

function keptOf(rule: RelayRule, caps: RequestCaps): KeptBodies<Told> {
  let ofCaps = known.get(caps);
  if (ofCaps === undefined) {
    ofCaps = new Map();
    known.set(caps, ofCaps);
  }
  let kept = ofCaps.get(rule);
  if (kept === undefined) {
    kept = new KeptBodies(rule);
    ofCaps.set(rule, kept);
  }
  return kept;
}

function tell(rule: RelayRule, bytes: Buffer, { members }: JsonScan, caps: RequestCaps, passed: Passed): Told {
  const small = smallFields(bytes, members, rule.fields);
  const asked = rule.judge(small, shapesOf(rule, members), caps);
  refuseUnsupported(small);
  refuseInputs(members);
  const edits = new Map<string, string | undefined>();
  for (const member of members) if (!goesOn(rule, member, passed)) edits.set(member.name, undefined);
  const sampling = small["sampling_params"];
  // The engine's own parameters: what is not known here is not passed on.
  if (isObject(sampling)) edits.set("sampling_params", stringifyJson(ofSchema(sampling)));
  for (const [name, value] of Object.entries(rule.sets)) edits.set(name, value);
  const stream = small["stream"] === true;
  const { model, priority, cache_salt: salt, store, background, previous_response_id: previousId } = small;
  const strip = setUsage(rule.asksForUsage && stream, small, edits);
  return {
    asked,
    model: textOf(model),
    stream,
    strip,
    priority: typeof priority === "number" ? priority : undefined,
    prioritized: priority !== undefined,
    salt: decodeSalt(textOf(salt)),
    edits,
    stays: !members.some(({ name }) => edits.has(name) || isOurs(name)),
    added: addition([], edits),
    kept: {
      store: typeof store === "boolean" ? store : undefined,
      background: background === true,
      previousId: textOf(previousId),
    },
  };
}

function shapesOf({ fields }: RelayRule, members: readonly JsonMember[]): ReadonlyMap<string, Shape> {
  const shapes = new Map<string, Shape>();
  for (const member of members)
    if (!fields.has(member.name)) shapes.set(member.name, shapeOf(member, SIZED.has(member.name)));
  return shapes;
}

function refuseInputs(members: readonly JsonMember[]): void {
  for (const { name, kind } of members)
    if (NEVER.has(name) && kind !== "null") throw invalid(name, `${name} is not accepted from clients.`);
}

function ofSchema(sampling: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(sampling).filter(([name]) => Object.hasOwn(SamplingBody.shape, name)));
}

/** Wall: T124. What is known in neither list may mean anything to an upstream of another version. */
function goesOn({ fields, big }: RelayRule, { name, kind }: JsonMember, passed: Passed): boolean {
  if (REFUSED.has(name) || IGNORED.has(name)) return false;
  if (fields.has(name) || big.has(name) || passed.has(name)) return true;
  return UNREAD.has(name) && (kind === "number" || kind === "true" || kind === "false" || kind === "null");
}

const USAGE_OPTIONS: ReadonlySet<string> = new Set(["include_usage", "continuous_usage_stats"]);

/** @param asks whether usage has to be told @returns whether it was not the client that asked for it */
function setUsage(asks: boolean, small: JsonObject, edits: Map<string, string | undefined>): boolean {
  const { stream_options: given } = small;
  const options = isObject(given) ? given : {};
  const own = Object.entries(options).filter(([name]) => USAGE_OPTIONS.has(name));
  const said = Object.fromEntries(own);
  const strip = asks && said["include_usage"] !== true;
  if (strip)
    edits.set("stream_options", stringifyJson({ ...said, include_usage: true, continuous_usage_stats: false }));
  else if (own.length < Object.keys(options).length) edits.set("stream_options", stringifyJson(said));
  return strip;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
