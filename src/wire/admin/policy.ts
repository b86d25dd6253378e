/**
 * The policy over the admin routes: who is asked about and what, and how verdicts and what is in force are printed; by
 * `castellan policy --json` too. Pure.
 */
import { z } from "zod";
import { ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { count, given } from "./_fields.ts";

const names = z.array(z.string().min(1).max(256)).max(256).optional();
const name = z.string().min(1).max(256);
const role = z.enum(Object.keys(ROLES) as [Role, ...Role[]]);
const LISTENERS = ["public", "ops"] as const;

const Caller = z
  .union([
    z.literal("nobody"),
    z.strictObject({ key: z.string().min(1).max(64).meta({ description: "Id of a stored key." }) }),
    z.strictObject({
      tenant: name,
      role,
      scopes: z
        .array(z.enum(SCOPES as [Scope, ...Scope[]]))
        .max(SCOPES.length)
        .optional(),
      models: names,
      adapters: names,
      tools: names,
      networks: names,
    }),
    z.strictObject({ issuer: name, claims: z.record(z.string(), z.json()) }),
    z.strictObject({ certificate: z.string().min(1).max(2048) }),
  ])
  .meta({
    description: "A stored key, a key as it could be, a verified token's claims, a certificate's name, or nobody.",
  });

const Subject = {
  as: Caller,
  model: name.optional().meta({ description: "The request is about this model." }),
  adapter: name.optional(),
  tool: name.optional(),
  from: z.string().min(1).max(64).optional().meta({ description: "The caller's address." }),
};

export const RightsBody = z.strictObject(Subject);
export const ExplainBody = z.strictObject({
  ...Subject,
  method: z
    .string()
    .regex(/^[A-Za-z]{1,16}$/, "is a method such as POST")
    .transform((text) => text.toUpperCase()),
  path: z
    .string()
    .max(2048)
    .regex(/^\/\S*$/, "is a path such as /v1/models"),
  listener: z.enum(LISTENERS).optional().meta({ description: "Absent: the one that has the path." }),
});

const VerdictReply = z.object({
  method: z.string(),
  path: z.string(),
  listener: z.enum(LISTENERS),
  from: z.string().nullable(),
  model: z.string().nullable(),
  adapter: z.string().nullable(),
  tool: z.string().nullable(),
  allowed: z.boolean(),
  status: z.int().meta({ description: "200: let in. Else what the caller is told." }),
  decided_by: z.string().meta({ description: "The rule that decides." }),
  because: z.string(),
  steps: z.array(z.object({ rule: z.string(), holds: z.boolean(), says: z.string() })),
});

export { VerdictReply };
export const TestBody = z.strictObject({
  policy: z
    .string()
    .max(1 << 20)
    .meta({ description: "The text of a policy file, YAML." }),
});
export const TestReply = z.object({
  failed: count,
  tests: z.array(
    z.object({
      number: count,
      name: z.string(),
      passed: z.boolean(),
      problem: z.string().nullable(),
      allowed: z.boolean(),
      status: z.int(),
      decided_by: z.string(),
      because: z.string(),
    }),
  ),
});

export const RightsReply = z.object({ object: z.literal("list"), data: z.array(VerdictReply) });

export const PolicyReply = z.object({
  sha256: z.string().nullable().meta({ description: "Of the policy file; null: there is none." }),
  tenants: z.record(z.string(), z.unknown()),
  keys: z.record(z.string(), z.unknown()),
  models: z.record(z.string(), z.unknown()),
  issuers: z.array(z.string()),
  certificates: count.meta({ description: "Rules of client certificates." }),
  tests: count.meta({ description: "Cases of the file; all of them pass." }),
});

/** Whom a question means. */
export type CallerWords = z.output<typeof Caller>;

export interface SubjectWords {
  readonly as: CallerWords;
  readonly model?: string;
  readonly adapter?: string;
  readonly tool?: string;
  readonly address?: string;
}

export interface ExplainCall extends SubjectWords {
  readonly method: string;
  readonly path: string;
  readonly listener?: (typeof LISTENERS)[number];
}

export function decodeRights({ as, from, ...rest }: z.output<typeof RightsBody>): SubjectWords {
  return { as, ...given(rest), ...(from === undefined ? {} : { address: from }) };
}

export function decodeExplain({ method, path, listener, ...subject }: z.output<typeof ExplainBody>): ExplainCall {
  return { ...decodeRights(subject), method, path, ...(listener === undefined ? {} : { listener }) };
}

/** A question and what came of it. */
export interface PrintedVerdict {
  readonly question: {
    readonly method: string;
    readonly path: string;
    readonly listener: (typeof LISTENERS)[number];
    readonly address?: string;
    readonly model?: string;
    readonly adapter?: string;
    readonly tool?: string;
  };
  readonly verdict: {
    readonly allowed: boolean;
    readonly status: number;
    readonly decidedBy: string;
    readonly because: string;
    readonly steps: readonly { readonly rule: string; readonly holds: boolean; readonly says: string }[];
  };
}

export function encodeVerdict({ question, verdict }: PrintedVerdict): z.output<typeof VerdictReply> {
  const { method, path, listener, address, model, adapter, tool } = question;
  const { allowed, status, decidedBy, because, steps } = verdict;
  return {
    method,
    path,
    listener,
    from: address ?? null,
    model: model ?? null,
    adapter: adapter ?? null,
    tool: tool ?? null,
    allowed,
    status,
    decided_by: decidedBy,
    because,
    steps: [...steps],
  };
}

export function encodeRights(verdicts: readonly PrintedVerdict[]): z.output<typeof RightsReply> {
  return { object: "list", data: verdicts.map(encodeVerdict) };
}

/** The file in force; its words are printed as they stand there. */
export interface PrintedPolicy {
  readonly sha256: string | undefined;
  readonly file: {
    readonly tenants?: object | undefined;
    readonly keys?: object | undefined;
    readonly models?: object | undefined;
    readonly tokens?: { readonly issuers: readonly { readonly issuer: string }[] } | undefined;
    readonly certificates?: readonly unknown[] | undefined;
    readonly tests?: readonly unknown[] | undefined;
  };
}

export function encodePolicy({ sha256, file }: PrintedPolicy): z.output<typeof PolicyReply> {
  return {
    sha256: sha256 ?? null,
    tenants: { ...file.tenants },
    keys: { ...file.keys },
    models: { ...file.models },
    issuers: file.tokens?.issuers.map(({ issuer }) => issuer) ?? [],
    certificates: file.certificates?.length ?? 0,
    tests: file.tests?.length ?? 0,
  };
}

/** A case and what came of it. */
export interface PrintedCase {
  readonly number: number;
  readonly name: string;
  readonly passed: boolean;
  readonly problem?: string;
  readonly verdict: PrintedVerdict["verdict"];
}

export function encodeCases(results: readonly PrintedCase[]): z.output<typeof TestReply> {
  return {
    failed: results.filter(({ passed }) => !passed).length,
    tests: results.map(({ number, name, passed, problem, verdict }) => ({
      number,
      name,
      passed,
      problem: problem ?? null,
      allowed: verdict.allowed,
      status: verdict.status,
      decided_by: verdict.decidedBy,
      because: verdict.because,
    })),
  };
}
