/**
 * Tools of a response that an upstream answers: those that the client itself runs, as where the engine here answers.
 * Pure. Called by serving's relay of the Responses API.
 *
 * Invariant (Wall: T130): no request has a server behind this one run code, browse or call a tool server, whatever that
 * was started with.
 */
import { Fault } from "#core/fault.ts";
import { requireList, requireObject, requireString } from "#wire/openai/_compound.ts";
import { valueAt } from "./_body.ts";
import type { RelayVerdict } from "./judge.ts";

/** @throws Fault invalid_json | invalid_request | not_implemented, naming the tool */
export function refuseServerTools({ body, scan }: Pick<RelayVerdict, "body" | "scan">): void {
  const member = scan.members.find(({ name }) => name === "tools");
  if (member === undefined || member.kind === "null") return;
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  // The judge has bounded it.
  const tools = requireList(valueAt(bytes, member), "tools", Number.POSITIVE_INFINITY);
  for (const [i, tool] of tools.entries()) {
    const param = `tools.${i}.type`;
    if (requireString(requireObject(tool, `tools.${i}`)["type"], param) !== "function")
      throw new Fault("not_implemented", "Only tools of type function are supported by this server.", { param });
  }
}
