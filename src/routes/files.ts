/**
 * /v1/files: what batches read and write
 */

import { invalid } from "#core/fault.ts";
import { key } from "#http/access.ts";
import { json, stream } from "#http/reply.ts";
import type { Fields } from "#http/route.ts";
import { openai } from "#wire/openai/dialect.ts";
import { DeletedFile, decodeUpload, encodeFile, FileList, FileListQuery, FileReply } from "#wire/openai/files.ts";
import { decodePage, encodePage } from "#wire/openai/list.ts";
import { failures } from "./_answers.ts";
import { MIB, MINUTE, route, SECOND } from "./_services.ts";

const limits = { timeoutMs: 30 * SECOND };
const one = { status: 200, contentType: "application/json", schema: FileReply, doc: "The file's record." } as const;

export const uploadFile = route({
  method: "POST",
  path: "/v1/files",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits: { bodyBytes: 512 * MIB, timeoutMs: 10 * MINUTE },
  form: { fields: 8, fieldBytes: 1024 },
  reply: [one, ...failures],
  audit: "metadata",
  doc: "Upload a file of requests: a form (multipart/form-data) with `purpose` batch and `file`.",
  handler: async ({ caller, form, services }) => {
    const file = await services.files.upload(caller, async (take) => {
      const fields: Fields = await form(async ({ field, ...upload }) => {
        if (field !== "file") throw invalid("file", "The form's file has the name file.");
        await take(upload);
      });
      return decodeUpload(fields);
    });
    return json(encodeFile(file));
  },
});

export const listFiles = route({
  method: "GET",
  path: "/v1/files",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  query: FileListQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: FileList, doc: "The tenant's files, newest first." },
    ...failures,
  ],
  audit: "metadata",
  doc: "The files of the caller's tenant.",
  handler: async ({ caller, query, services }) => {
    const { limit, ...from } = decodePage(query);
    const { purpose, order } = query;
    const page = { ...from, limit: limit + 1, ...(purpose === undefined ? {} : { purpose }) };
    const found = await services.files.list(caller, { ...page, oldestFirst: order === "asc" });
    return json(encodePage(found.map(encodeFile), limit));
  },
});

export const showFile = route({
  method: "GET",
  path: "/v1/files/{file_id}",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  reply: [one, ...failures],
  audit: "metadata",
  doc: "A file's record.",
  handler: async ({ caller, params, services }) => json(encodeFile(await services.files.get(caller, params.file_id))),
});

export const fileContent = route({
  method: "GET",
  path: "/v1/files/{file_id}/content",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits: { timeoutMs: 10 * MINUTE },
  reply: [{ status: 200, contentType: "application/octet-stream", doc: "The file's bytes." }, ...failures],
  audit: "metadata",
  doc: "A file's content.",
  handler: async ({ caller, params, services }) => {
    const { pieces, length } = await services.files.content(caller, params.file_id);
    return stream(pieces, length);
  },
});

export const deleteFile = route({
  method: "DELETE",
  path: "/v1/files/{file_id}",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  reply: [{ status: 200, contentType: "application/json", schema: DeletedFile, doc: "It is gone." }, ...failures],
  audit: "metadata",
  doc: "Delete a file.",
  handler: async ({ caller, params, services }) => {
    await services.files.remove(caller, params.file_id);
    return json({ id: params.file_id, object: "file", deleted: true });
  },
});
