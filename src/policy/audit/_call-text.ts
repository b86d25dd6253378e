/**
 * What a call's record says, printed. Calls are all but all there is to record, so their text is put together from its
 * pieces, byte for byte as JSON.stringify prints the fields (its test compares them). Used by gate.ts only. Pure.
 */
import { stringifyJson } from "#base/json.ts";
import type { Usage } from "#core/calls.ts";
import type { Outcome, PolicyCall } from "#policy/gate.ts";

export interface CallWork {
  readonly model: string;
  readonly usage: Usage;
}

/** Texts that JSON prints as they are, between quotes. */
const PLAIN = /^[ !#-[\]-~]*$/;

/** Fields with a comma before each, as `AuditLog.append` takes them. */
export function callText(call: PolicyCall, { status, fault, target }: Outcome, decision: "allow" | "deny"): string {
  const { principal, scope, plane, peer } = call;
  const who =
    principal === undefined
      ? "null"
      : `{"id":${quoted(principal.id)},"kind":"${principal.kind}","tenant":${quoted(principal.tenant)}}`;
  const where = `"plane":"${plane}","method":${quoted(call.method)},"route":${orNull(call.route)}`;
  const aim = target === undefined ? "" : `,"target":${quoted(target)}`;
  const from = `"peer":${quoted(peer.address ?? "unix")}`;
  const proof = peer.certificate === undefined ? "" : `,"certificate":${quoted(peer.certificate.fingerprint)}`;
  const end = `"status":${status},"fault":${orNull(fault)},"decision":"${decision}"`;
  return `,"request":${quoted(call.requestId)},"principal":${who},"scope":${orNull(scope)},${where}${aim},${from}${proof},${end}`;
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
