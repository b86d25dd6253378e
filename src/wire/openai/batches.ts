/**
 * /v1/batches as OpenAI's API has it. Pure.
 */
import { z } from "zod";
import type { Batch, BatchStatus } from "#core/batches.ts";
import { invalid } from "#core/fault.ts";
import { listOf, PAGE_WORDS } from "./list.ts";

const PAIRS = 16;
const KEY_LENGTH = 64;
const VALUE_LENGTH = 512;
const WINDOW = "24h";
const WINDOW_MS = 24 * 3_600_000;

export const BatchBody = z.looseObject({
  input_file_id: z.string().max(128),
  endpoint: z.string().max(256),
  completion_window: z.string().max(16),
  metadata: z.record(z.string(), z.string()).nullish(),
  output_expires_after: z.unknown().optional(),
});

const time = z.int().nullable();
const TIMES = ["in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"] as const;

export const BatchReply = z.object({
  id: z.string(),
  object: z.literal("batch"),
  endpoint: z.string(),
  errors: z
    .object({
      object: z.literal("list"),
      data: z.array(z.object({ code: z.string(), message: z.string(), line: z.null(), param: z.null() })),
    })
    .nullable(),
  input_file_id: z.string(),
  completion_window: z.string(),
  status: z.enum(["validating", ...TIMES]),
  output_file_id: z.string().nullable(),
  error_file_id: z.string().nullable(),
  created_at: z.int(),
  expires_at: z.int(),
  in_progress_at: time,
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: z.object({ total: z.int(), completed: z.int(), failed: z.int() }),
  metadata: z.record(z.string(), z.string()).nullable(),
});

export const BatchList = listOf(BatchReply);

export const BatchListQuery = z.strictObject(PAGE_WORDS);

/** @throws Fault invalid_request */
export function decodeBatch(body: z.infer<typeof BatchBody>) {
  if (body.completion_window !== WINDOW)
    throw invalid("completion_window", `The only completion window that there is: ${WINDOW}.`);
  if (body.output_expires_after !== undefined && body.output_expires_after !== null)
    throw invalid("output_expires_after", "Outputs are kept as long as the operator says.");
  const metadata = body.metadata ?? null;
  checkMetadata(metadata ?? {});
  return {
    inputFileId: body.input_file_id,
    endpoint: body.endpoint,
    window: WINDOW,
    windowMs: WINDOW_MS,
    metadata,
  };
}

function checkMetadata(metadata: Readonly<Record<string, string>>): void {
  const entries = Object.entries(metadata);
  if (entries.length > PAIRS) throw invalid("metadata", `metadata has at most ${PAIRS} entries.`);
  for (const [key, value] of entries) {
    if (key.length > KEY_LENGTH) throw invalid("metadata", `A key of metadata has at most ${KEY_LENGTH} characters.`);
    if (value.length > VALUE_LENGTH)
      throw invalid("metadata", `A value of metadata has at most ${VALUE_LENGTH} characters.`);
  }
}

export function encodeBatch(batch: Batch): z.infer<typeof BatchReply> {
  const { problem } = batch;
  const at = (status: BatchStatus): number | null => {
    const when = batch.times[status];
    return when === undefined ? null : seconds(when);
  };
  return {
    id: batch.id,
    object: "batch",
    endpoint: batch.endpoint,
    errors: problem === undefined ? null : { object: "list", data: [{ ...problem, line: null, param: null }] },
    input_file_id: batch.inputFileId,
    completion_window: batch.window,
    status: batch.status,
    output_file_id: batch.outputFileId ?? null,
    error_file_id: batch.errorFileId ?? null,
    created_at: seconds(batch.createdAt),
    expires_at: seconds(batch.expiresAt),
    in_progress_at: at("in_progress"),
    finalizing_at: at("finalizing"),
    completed_at: at("completed"),
    failed_at: at("failed"),
    expired_at: at("expired"),
    cancelling_at: at("cancelling"),
    cancelled_at: at("cancelled"),
    request_counts: batch.counts,
    metadata: batch.metadata,
  };
}

function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}
