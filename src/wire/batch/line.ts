/**
 * A line of a batch and the row that answers it: JSONL as OpenAI's Batch API has it, and as vLLM's run-batch prints it.
 *
 * Pure. A line that cannot be read is a value like any other, so that it becomes a row of the output; what of it could
 * be read (its custom_id) names it there.
 */
import { z } from "zod";
import { JsonError, type JsonValue, parseJson, stringifyJson } from "#base/json.ts";

/** Longer names of lines are not taken: every row repeats them. */
const MAX_CUSTOM_ID = 512;
const MAX_URL = 256;
/** Characters of what is told about one line. */
const MAX_MESSAGE = 1000;

const Line = z.looseObject({
  custom_id: z.string().max(MAX_CUSTOM_ID),
  method: z.literal("POST"),
  url: z.string().max(MAX_URL),
  body: z.record(z.string(), z.unknown()),
});

export interface BatchLine {
  readonly customId: string;
  readonly url: string;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface BadLine {
  /** Null: the line does not say, or not legibly. */
  readonly customId: string | null;
  /** What is wrong, for the row. */
  readonly problem: string;
}

export function decodeLine(text: Uint8Array): BatchLine | BadLine {
  let value: JsonValue;
  try {
    value = parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    return { customId: null, problem: `The line is not JSON that is taken: ${error.message}.` };
  }
  const { success, data, error } = Line.safeParse(value);
  if (success) return { customId: data.custom_id, url: data.url, body: data.body };
  const problem = error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
  return { customId: nameOf(value), problem: `The line is not a request: ${problem}`.slice(0, MAX_MESSAGE) };
}

function nameOf(value: JsonValue): string | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const id = value["custom_id"];
  return typeof id === "string" && id.length <= MAX_CUSTOM_ID ? id : null;
}

/** What became of a line. */
export interface LineOutcome {
  readonly customId: string | null;
  /** Random, 32 hex digits each: of the row, and of the request. */
  readonly id: string;
  readonly requestId: string;
  readonly status: number;
  /** JSON text of the answer, or of the error object; absent: the line did not get as far as a route. */
  readonly answer?: string;
  /** Why it did not. */
  readonly problem?: string;
}

export function succeeded({ status, problem }: LineOutcome): boolean {
  return problem === undefined && status >= 200 && status < 300;
}

/** As vLLM's run-batch prints it: a failure's answer stands under `error`, without a body. */
export function printVllmRow(outcome: LineOutcome): string {
  const good = succeeded(outcome);
  const error = outcome.answer ?? stringifyJson(outcome.problem ?? null);
  return row(outcome, ["vllm-", "vllm-batch-"], good ? (outcome.answer ?? "null") : "null", good ? "null" : error);
}

/** As OpenAI's Batch API prints it: a failure's answer stands in the body. */
export function printOpenaiRow(outcome: LineOutcome): string {
  const { answer, customId, id, problem = "" } = outcome;
  if (answer !== undefined) return row(outcome, ["batch_req_", ""], answer, "null");
  return printUnanswered(id, customId, "invalid_request", problem);
}

/** A line that no route saw. */
export function printUnanswered(id: string, customId: string | null, code: string, message: string): string {
  const head = `{"id":"batch_req_${id}","custom_id":${stringifyJson(customId)}`;
  return `${head},"response":null,"error":${stringifyJson({ code, message })}}`;
}

/** Room for the longest head of a row that `rowSucceeded` looks at. */
export const ROW_HEAD = 8192;
const HEAD = /^\{"id":"[^"]*","custom_id":(?:null|"(?:[^"\\]|\\.)*"),"response":\{"status_code":2\d\d,/;

/** Of a row that was printed here. @param head its first characters, ROW_HEAD of them at least */
export function rowSucceeded(head: string): boolean {
  return HEAD.test(head);
}

/** `answer` is JSON text already and goes in as it is. */
function row(
  { id, customId, status, requestId }: LineOutcome,
  [rowPrefix, requestPrefix]: readonly [string, string],
  body: string,
  error: string,
): string {
  const head = `{"id":"${rowPrefix}${id}","custom_id":${stringifyJson(customId)}`;
  const response = `{"status_code":${status},"request_id":"${requestPrefix}${requestId}","body":${body}}`;
  return `${head},"response":${response},"error":${error}}`;
}
