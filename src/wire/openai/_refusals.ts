/**
 * Fields that this server knows and does not do: refused by name, because ignoring them would lose what the
 * client asked for. What is harmless to ignore (user, session_id, …) is not here.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { JsonObject } from "./_compound.ts";
import { REMOVED_FIELDS } from "./_fields.ts";

type Body = JsonObject;

/** @throws Fault invalid_request | not_implemented, naming the field. */
export function refuseUnsupported(body: Body): void {
  for (const field of REMOVED_FIELDS) {
    if (isGiven(body[field])) throw invalid(field, `${field} was removed; use structured_outputs instead.`);
  }
  for (const [field, given, refusal] of REFUSALS) {
    if (given(body[field])) throw refusal(field);
  }
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** Given and not just an empty string, list or object: those ask for nothing. */
function isFilled(value: unknown): boolean {
  if (!isGiven(value) || value === "") return false;
  return typeof value !== "object" || Object.keys(value as object).length > 0;
}

function isTrue(value: unknown): boolean {
  return value === true;
}

function notYet(field: string): Fault {
  return new Fault("not_implemented", `${field} is not supported by this server yet.`, { param: field });
}

function fromClients(field: string): Fault {
  return invalid(field, `${field} is not accepted from clients.`);
}

const REFUSALS: readonly (readonly [
  field: string,
  given: (value: unknown) => boolean,
  refusal: (field: string) => Fault,
])[] = [
  ["watermarking", isTrue, notYet],
  ["suffix", isFilled, (field) => invalid(field, "suffix is not currently supported.")],
  ["prompt_embeds", isFilled, (field) => invalid(field, "prompt_embeds is not accepted by this server; send prompt.")],
  [
    "chat_template",
    isGiven,
    (field) => invalid(field, "chat_template is not accepted in a request: templates come from the model."),
  ],
  ["logits_processors", isFilled, fromClients],
  ["kv_transfer_params", isFilled, fromClients],
  ["ec_transfer_params", isFilled, fromClients],
  ["mm_processor_kwargs", isFilled, fromClients],
  ["media_io_kwargs", isFilled, fromClients],
];
