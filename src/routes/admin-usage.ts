/**
 * GET /admin/usage: on the operations listener.
 */
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { decodeUsage, encodeUsage, UsageQueryWords, UsageReport } from "#wire/admin/usage.ts";
import { openai } from "#wire/openai/dialect.ts";
import { failures } from "./_answers.ts";
import { route, SECOND } from "./_services.ts";

export const usage = route({
  method: "GET",
  path: "/admin/usage",
  dialect: openai,
  access: key("keys:read"),
  plane: "ops",
  limits: { timeoutMs: 60 * SECOND },
  query: UsageQueryWords,
  reply: [
    { status: 200, contentType: "application/json", schema: UsageReport, doc: "A row a group, in their order." },
    ...failures,
  ],
  audit: "metadata",
  doc: "What was used, summed up by day, key, tenant or model.",
  handler: async ({ caller, query, services }) => {
    const { query: asked, sums } = await services.admin.usage.read(caller, decodeUsage(query));
    return json(encodeUsage(asked, sums));
  },
});
