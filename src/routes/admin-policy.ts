/**
 * GET /admin/policy; POST /admin/policy/reload, /admin/policy/explain, /admin/policy/rights,
 * /admin/policy/test: on the operations listener.
 */
import { key, operatorKey } from "#http/access.ts";
import { json } from "#http/reply.ts";
import {
  decodeExplain,
  decodeRights,
  ExplainBody,
  encodeCases,
  encodePolicy,
  encodeRights,
  encodeVerdict,
  PolicyReply,
  RightsBody,
  RightsReply,
  TestBody,
  TestReply,
  VerdictReply,
} from "#wire/admin/policy.ts";
import { openai } from "#wire/openai/dialect.ts";
import { failures } from "./_answers.ts";
import { KIB, MIB, MINUTE, route, SECOND } from "./_services.ts";

const common = { dialect: openai, plane: "ops", audit: "metadata" } as const;
const asks = { ...common, access: key("keys:read"), limits: { bodyBytes: 64 * KIB, timeoutMs: 30 * SECOND } } as const;

const inForce = {
  status: 200,
  contentType: "application/json",
  schema: PolicyReply,
  doc: "What the policy file in force says.",
} as const;

export const policy = route({
  ...common,
  method: "GET",
  path: "/admin/policy",
  access: operatorKey("keys:read"),
  limits: { timeoutMs: 30 * SECOND },
  reply: [inForce, ...failures],
  doc: "Show the policy file that is in force.",
  handler: ({ caller, services }) => json(encodePolicy(services.admin.policy.current(caller))),
});

export const reloadPolicy = route({
  ...common,
  method: "POST",
  path: "/admin/policy/reload",
  access: operatorKey("admin"),
  limits: { timeoutMs: MINUTE },
  reply: [inForce, ...failures],
  doc: "Read the policy file anew: all of it or, with the reason in the answer, none of it.",
  handler: async ({ caller, services }) => json(encodePolicy(await services.admin.policy.reload(caller))),
});

export const explainPolicy = route({
  ...asks,
  method: "POST",
  path: "/admin/policy/explain",
  body: ExplainBody,
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: VerdictReply,
      doc: "The verdict, and the rule that decides.",
    },
    ...failures,
  ],
  doc: "Say whether a request would be let in, and by which rule.",
  handler: async ({ caller, body, services }) =>
    json(encodeVerdict(await services.admin.policy.explain(caller, decodeExplain(body)))),
});

export const testPolicy = route({
  ...common,
  method: "POST",
  path: "/admin/policy/test",
  access: operatorKey("keys:read"),
  limits: { bodyBytes: 2 * MIB, timeoutMs: 30 * SECOND },
  body: TestBody,
  reply: [
    { status: 200, contentType: "application/json", schema: TestReply, doc: "What each of its tests came to." },
    ...failures,
  ],
  doc: "Check the text of a policy file and run the tests that it carries; nothing changes.",
  handler: async ({ caller, body, services }) =>
    json(encodeCases(await services.admin.policy.test(caller, body.policy))),
});

export const callerRights = route({
  ...asks,
  method: "POST",
  path: "/admin/policy/rights",
  body: RightsBody,
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: RightsReply,
      doc: "A verdict for every route of the server.",
    },
    ...failures,
  ],
  doc: "Say of every route whether a caller may use it.",
  handler: async ({ caller, body, services }) =>
    json(encodeRights(await services.admin.policy.rights(caller, decodeRights(body)))),
});
