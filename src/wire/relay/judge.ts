/**
 * A request's body on its way to an upstream: judged by its route's rule, changed where the server decides, and
 * otherwise passed on as it came, in pieces of the bytes that came.
 *
 * Invariant: what is taken has each key of its first level once; what the server decides (salt, priority, id) stands in
 * what is passed on whatever the client wrote; nothing that the client may not say is in it.
 */
import { stringifyJson } from "#base/json.ts";
import { type JsonScan, scanJson } from "#base/json-scan.ts";
import { type Cut, cut, cutsOf, inserted, type MemberEdits, spliced } from "#base/splice.ts";
import { conform } from "#core/conform.ts";
import { readable } from "#core/readable.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { InvocationBody } from "#wire/vllm/invocations.ts";
import { type Passed, type Told, toldBy } from "./_told.ts";
import { type FoundMedia, findMedia, mediaText, type RelayMedia, WATCHED } from "./media.ts";
import { type Asked, IGNORED, isOurs, NEVER, REFUSED, type RelayRule } from "./rules.ts";

/** What the server decides. */
export interface RelayFacts {
  readonly caps: RequestCaps;
  /** In place of the client's, which is made part of it. */
  readonly salt: (own: string | undefined) => string;
  /** @throws Fault invalid_request: more urgent than the key may ask for */
  readonly priority: (asked: number | undefined) => number;
  readonly requestId: string;
  /** Fields that are passed on though no rule knows them. */
  readonly passed: Passed;
}

/** Of the prompts. */
interface Size {
  /** Token ids that they are, exactly; 0: texts. */
  readonly promptIds: number;
  /** Bytes of what is tokenised, all texts together: no fewer than their tokens, but for what a template adds. */
  readonly promptBytes: number;
  /** Of what a template may print besides; 0: there is none. */
  readonly otherBytes: number;
  readonly templated: boolean;
}

export interface RelayVerdict extends Asked, Size {
  /** As the client calls it. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** Usage was asked for on the server's account: its chunk is left out of the stream. */
  readonly strip: boolean;
  /** To be fetched before the body is passed on. */
  readonly media: readonly RelayMedia[];
  /** Of /v1/responses. */
  readonly kept: Told["kept"];
  readonly body: Uint8Array;
  readonly scan: JsonScan;
  /** What its small fields come to. */
  readonly told: Told;
  /** Values of the server's, as JSON. */
  readonly decided: Decided;
  /** Of which more is known than that; absent: as decided. */
  readonly edits?: MemberEdits;
  readonly cuts: readonly Cut[];
}

/** Undefined: none stands in what is passed on. */
interface Decided {
  readonly cacheSalt: string | undefined;
  readonly priority: string | undefined;
  readonly requestId: string | undefined;
}

/**
 * @param rule of the route
 * @throws Fault invalid_json | invalid_request | not_implemented, as the route itself throws it
 */
export function judgeRelay(rule: RelayRule, body: Uint8Array, facts: RelayFacts): RelayVerdict {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const scan = readable("byte", () => scanJson(bytes, WATCHED));
  // The schema says what is wrong with it.
  if (scan.kind !== "object") conform(InvocationBody, scan.kind === "array" ? [] : null);
  const told = toldBy(rule, bytes, scan, facts.caps, facts.passed);
  const { media, cuts } = mediaOf(rule, bytes, scan);
  const { asked, model, stream, strip, kept } = told;
  const { promptIds, promptBytes, otherBytes, templated } = sizeOf(rule, scan, facts.passed, asked.prompts);
  return {
    ...asked,
    promptIds,
    promptBytes,
    otherBytes,
    templated,
    model,
    stream,
    strip,
    kept,
    body,
    scan,
    media,
    cuts,
    told,
    decided: decide(rule, told, facts),
  };
}

/** @returns the first that no setting lets pass: who may not decide what it says does not decide that it may be said */
export function neverPassed(names: Passed): string | undefined {
  return [...names].find((name) => REFUSED.has(name) || NEVER.has(name) || IGNORED.has(name) || isOurs(name));
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
  const { body, scan, told, decided } = verdict;
  // Most bodies only get what the server decides.
  if (told.stays && model === undefined && verdict.edits === undefined && verdict.cuts.length + media.length === 0)
    return inserted(body, scan, joined(ourTexts(decided), told.added));
  const edits = new Map(editsOf(verdict));
  if (model !== undefined) edits.set("model", stringifyJson(model));
  const fetched = verdict.media.map((each, i) =>
    cut(each.start, each.end, stringifyJson(mediaText(each, media[i] ?? ""))),
  );
  return spliced(body, [...cutsOf(scan, edits), ...verdict.cuts, ...fetched]);
}

/** What stands in the members of what is passed on in place of what the client wrote. */
export function editsOf({ edits, told, decided }: RelayVerdict): MemberEdits {
  if (edits !== undefined) return edits;
  const { cacheSalt: cache_salt, priority, requestId: request_id } = decided;
  const all = new Map<string, string | undefined>(Object.entries({ cache_salt, priority, request_id }));
  for (const [name, value] of told.edits) if (!isOurs(name)) all.set(name, value);
  return all;
}

/** Wall: T124; T46 for the priority. */
function decide({ ours }: RelayRule, told: Told, facts: RelayFacts): Decided {
  const priority = facts.priority(told.priority);
  return {
    cacheSalt: ours.includes("cache_salt") ? stringifyJson(facts.salt(told.salt)) : undefined,
    priority: ours.includes("priority") && (priority !== 0 || told.prioritized) ? String(priority) : undefined,
    requestId: ours.includes("request_id") ? stringifyJson(facts.requestId) : undefined,
  };
}

/** As members that are not there yet. */
function ourTexts({ cacheSalt, priority, requestId }: Decided): string {
  let text = cacheSalt === undefined ? "" : `"cache_salt":${cacheSalt}`;
  if (priority !== undefined) text = joined(text, `"priority":${priority}`);
  return requestId === undefined ? text : joined(text, `"request_id":${requestId}`);
}

function joined(before: string, after: string): string {
  if (before === "" || after === "") return before + after;
  return `${before},${after}`;
}

const NO_MEDIA: FoundMedia = { media: [], cuts: [] };

function mediaOf({ media }: RelayRule, bytes: Buffer, { members }: JsonScan): FoundMedia {
  let all = NO_MEDIA;
  for (const member of members) {
    const place = Object.hasOwn(media, member.name) ? media[member.name] : undefined;
    const found = place === undefined ? NO_MEDIA : findMedia(bytes, member, place);
    if (found === NO_MEDIA) continue;
    all = { media: [...all.media, ...found.media], cuts: [...all.cuts, ...found.cuts] };
  }
  return all;
}

/** Beside what is tokenised whatever the rule: a template may print it. */
const PRINTED: ReadonlySet<string> = new Set(["documents"]);
/** A side that stands once and is scored against each of the others. */
const REPEATED: ReadonlySet<string> = new Set(["query", "queries", "data_1", "text_1"]);

function sizeOf({ big }: RelayRule, { members }: JsonScan, passed: Passed, prompts: number): Size {
  let [promptIds, promptBytes, otherBytes] = [0, 0, 0];
  let templated = big.has("tools");
  for (const { name, kind, first, values, count, depth, start, end } of members) {
    templated ||= name === "messages";
    if (!big.has(name) && !passed.has(name) && !PRINTED.has(name)) otherBytes += end - start;
    else if (kind === "array" && first === "number") promptIds += count;
    else if (kind === "array" && first === "array" && depth === 2) promptIds += values - 1 - count;
    else promptBytes += (end - start) * (REPEATED.has(name) && (kind !== "array" || count === 1) ? prompts : 1);
  }
  return { promptIds, promptBytes, templated, otherBytes: templated ? otherBytes : 0 };
}
