/**
 * GET /admin/audit, /admin/audit/head; POST /admin/audit/verify: on the operations listener.
 */
import { key, operatorKey } from "#http/access.ts";
import { json } from "#http/reply.ts";
import {
  decodeListRecords,
  encodeHead,
  encodeRecords,
  encodeVerification,
  HeadReply,
  ListRecordsQuery,
  RecordListReply,
  VerificationReply,
} from "#wire/admin/audit.ts";
import { openai } from "#wire/openai/dialect.ts";
import { failures } from "./_answers.ts";
import { MINUTE, route, SECOND } from "./_services.ts";

const common = { dialect: openai, plane: "ops", audit: "metadata" } as const;
const reads = { ...common, access: key("audit:read") } as const;
/** Head and proof are over the records of every tenant. */
const readsAll = { ...common, access: operatorKey("audit:read") } as const;

export const auditRecords = route({
  ...reads,
  method: "GET",
  path: "/admin/audit",
  limits: { timeoutMs: 60 * SECOND },
  query: ListRecordsQuery,
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: RecordListReply,
      doc: "The newest records that match, oldest first.",
    },
    ...failures,
  ],
  doc: "Read the audit log's newest records.",
  handler: async ({ caller, query, signal, services }) =>
    json(encodeRecords(await services.admin.audit.records(caller, decodeListRecords(query), signal))),
});

export const verifyAudit = route({
  ...readsAll,
  method: "POST",
  path: "/admin/audit/verify",
  limits: { timeoutMs: 10 * MINUTE },
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: VerificationReply,
      doc: "What was found; no finding: the log is the one that was written.",
    },
    ...failures,
  ],
  doc: "Verify the audit log: every record, link and signature. One at a time.",
  handler: async ({ caller, signal, services }) =>
    json(encodeVerification(await services.admin.audit.verify(caller, signal))),
});

export const auditHead = route({
  ...readsAll,
  method: "GET",
  path: "/admin/audit/head",
  limits: { timeoutMs: 30 * SECOND },
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: HeadReply,
      doc: "The head that was signed last, and the key to check it with: for somebody else to hold.",
    },
    ...failures,
  ],
  doc: "The audit log's last signed head, and its public key.",
  handler: ({ caller, services }) => {
    const { head, publicKey } = services.admin.audit.head(caller);
    return json(encodeHead(head && { ...head }, publicKey));
  },
});
