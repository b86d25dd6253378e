/**
 * What a call's record says, printed. Calls are all but all there is to record, so their text is put together from its
 * pieces, byte for byte as JSON.stringify prints the fields (its test compares them). Used by gate.ts only. Pure.
 */
import { stringifyJson } from "#base/json.ts";
import type { Usage } from "#core/calls.ts";
import type { Principal } from "#core/principal.ts";
import type { Outcome, PolicyCall } from "#policy/gate.ts";

export interface CallWork {
  readonly model: string;
  readonly usage: Usage;
}

/** Texts that JSON prints as they are, between quotes. */
const PLAIN = /^[ !#-[\]-~]*$/;

/** Fields with a comma before each, as `AuditLog.append` takes them. */
export function callText(call: PolicyCall, { status, fault, target }: Outcome, decision: "allow" | "deny"): string {
  const { certificate } = call.peer;
  const aim = target === undefined ? "" : `,"target":${quoted(target)}`;
  const proof = certificate === undefined ? "" : `,"certificate":${quoted(certificate.fingerprint)}`;
  const end = `,"status":${status},"fault":${orNull(fault)},"decision":"${decision}"`;
  return `,"request":${quoted(call.requestId)}${whoAndWhere(call)}${aim}${fromText(call.peer.address)}${proof}${end}`;
}

/** What calls of a principal have in common as long as they are of one route. */
interface Common {
  readonly scope: string | undefined;
  readonly plane: string;
  readonly method: string;
  readonly route: string | undefined;
  readonly text: string;
}

/** Of the route that each asked for last. */
const known = new WeakMap<Principal, Common>();

function whoAndWhere(call: PolicyCall): string {
  const { principal, scope, plane, method, route } = call;
  if (principal === undefined) return `,"principal":null${whereText(call)}`;
  const before = known.get(principal);
  if (before !== undefined && before.route === route && before.method === method)
    if (before.plane === plane && before.scope === scope) return before.text;
  const who = `{"id":${quoted(principal.id)},"kind":"${principal.kind}","tenant":${quoted(principal.tenant)}}`;
  const text = `,"principal":${who}${whereText(call)}`;
  known.set(principal, { scope, plane, method, route, text });
  return text;
}

function whereText({ scope, plane, method, route }: PolicyCall): string {
  return `,"scope":${orNull(scope)},"plane":"${plane}","method":${quoted(method)},"route":${orNull(route)}`;
}

/** The address that was asked for last: a connection's calls come one after the other, and proxies have few. */
let latest = { address: "unix", text: ',"peer":"unix"' };

function fromText(address = "unix"): string {
  if (address !== latest.address) latest = { address, text: `,"peer":${quoted(address)}` };
  return latest.text;
}

/** What it used, behind those. */
export function workText({ model, usage }: CallWork): string {
  const { promptTokens, cachedTokens, completionTokens } = usage;
  const counts = `{"prompt":${figure(promptTokens)},"cached":${figure(cachedTokens)},"completion":${figure(completionTokens)}}`;
  return `,"model":${quoted(model)},"usage":${counts}`;
}

function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : stringifyJson(text);
}

function figure(value: number): string {
  return Number.isFinite(value) ? `${value}` : "null";
}

function orNull(text: string | undefined): string {
  return text === undefined ? "null" : quoted(text);
}
