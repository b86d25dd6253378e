/**
 * /v1/files as OpenAI's API has it, for files of batches. Pure.
 */
import { z } from "zod";
import type { StoredFile } from "#core/batches.ts";
import { invalid } from "#core/fault.ts";
import { listOf, PAGE_WORDS } from "./list.ts";

const HOUR = 3600;
const DAYS_30 = 30 * 24 * HOUR;

export const FileReply = z.object({
  id: z.string(),
  object: z.literal("file"),
  bytes: z.int(),
  created_at: z.int(),
  expires_at: z.int(),
  filename: z.string(),
  purpose: z.enum(["batch", "batch_output"]),
  status: z.literal("processed"),
  status_details: z.null(),
});

export const FileList = listOf(FileReply);

export const DeletedFile = z.object({ id: z.string(), object: z.literal("file"), deleted: z.literal(true) });

/** OpenAI's: of most of them there are no files here. */
const PURPOSES = [
  "assistants",
  "assistants_output",
  "batch",
  "batch_output",
  "evals",
  "fine-tune",
  "fine-tune-results",
  "user_data",
  "vision",
] as const;

export const FileListQuery = z.strictObject({
  ...PAGE_WORDS,
  purpose: z.enum(PURPOSES).optional().meta({ description: "Files of that purpose alone: batch or batch_output." }),
  order: z.enum(["asc", "desc"]).optional().meta({ description: "By the time of making; desc without it." }),
});

/** Fields of the form, besides `file`. */
const FIELDS = ["purpose", "expires_after[anchor]", "expires_after[seconds]"];

/** @returns how long it is kept, where the client says. @throws Fault invalid_request */
export function decodeUpload(fields: ReadonlyMap<string, string>): { readonly keepMs?: number } {
  for (const name of fields.keys()) if (!FIELDS.includes(name)) throw invalid(name, "The form has no such field.");
  const purpose = fields.get("purpose");
  if (purpose === undefined) throw invalid("purpose", "The form says no purpose.");
  if (purpose !== "batch") throw invalid("purpose", "The only purpose that files have here is batch.");
  const [anchor, seconds] = [fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")];
  if (anchor === undefined && seconds === undefined) return {};
  if (anchor !== "created_at") throw invalid("expires_after.anchor", "The anchor is created_at.");
  const kept = /^[0-9]{1,9}$/.test(seconds ?? "") ? Number(seconds) : Number.NaN;
  if (!(kept >= HOUR && kept <= DAYS_30))
    throw invalid("expires_after.seconds", `The seconds lie between ${HOUR} and ${DAYS_30}.`);
  return { keepMs: kept * 1000 };
}

export function encodeFile(file: StoredFile): z.infer<typeof FileReply> {
  return {
    id: file.id,
    object: "file",
    bytes: file.bytes,
    created_at: Math.floor(file.createdAt / 1000),
    expires_at: Math.floor(file.expiresAt / 1000),
    filename: file.name,
    purpose: file.purpose,
    status: "processed",
    status_details: null,
  };
}
