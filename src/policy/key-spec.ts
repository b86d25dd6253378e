/**
 * What a key may be told to be: checked when somebody says it and again when it is read back, so that a row that was
 * changed by other hands opens nothing. Pure. Callers: key-store.ts, key-feed.ts, and whoever takes such words from people.
 */
import { z } from "zod";
import { type JsonValue, parseJson } from "#base/json.ts";
import type { Limits } from "#core/limits.ts";
import { type Reach, ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { CAP_ROWS, type CapRow, type RequestCaps } from "#core/request-caps.ts";
import type { Profile } from "./keys.ts";
import { LIMITS } from "./limits/limit-words.ts";
import { networkProblem } from "./networks.ts";
import { principalOf } from "./roles.ts";

export interface KeySpec {
  readonly tenant: string;
  /** For people; need not be unique. */
  readonly name: string;
  readonly role: Role;
  /** Narrower than the role's; absent: the role's. */
  readonly scopes?: readonly Scope[];
  readonly reach: Reach;
  readonly limits: Limits;
  readonly caps: Partial<RequestCaps>;
  /** Unix milliseconds. */
  readonly notBefore?: number;
  readonly expiresAt?: number;
}

/** Something about a key that cannot be; the message is for whoever asked. */
export class KeyError extends Error {
  override readonly name = "KeyError";
}

const MOST_ENTRIES = 256;
const texts = z.array(z.string().min(1).max(256)).max(MOST_ENTRIES);
const network = z.string().refine((text) => networkProblem(text) === undefined, "is no network such as 10.0.0.0/8");
const time = z.int().min(0).max(8.64e15);

const REACH = z.strictObject({
  models: texts.optional(),
  adapters: texts.optional(),
  tools: texts.optional(),
  networks: z.array(network).max(MOST_ENTRIES).optional(),
  priority: z
    .int()
    .min(-(2 ** 31))
    .max(2 ** 31 - 1)
    .optional(),
});

const CAPS = z.strictObject(
  Object.fromEntries(
    Object.entries<CapRow>(CAP_ROWS).map(
      ([
        name,
        {
          bounds: [min, max],
          unit,
        },
      ]) => [name, (unit === "seconds" ? z.number() : z.int()).min(min).max(max).optional()],
    ),
  ),
);

const ROLE = z.enum(Object.keys(ROLES) as [Role, ...Role[]]);
const SCOPE_LIST = z.array(z.enum(SCOPES as [Scope, ...Scope[]])).max(SCOPES.length);
/** Tenants stand in metrics, file names and logs. */
const TENANT = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

const SPEC = z.strictObject({
  tenant: z.string().regex(TENANT, "is a letter or digit, then up to 62 of A-Z a-z 0-9 . _ -"),
  name: z
    .string()
    .max(100)
    .regex(/^[^\p{C}]*$/u, "has a character that cannot be shown"),
  role: ROLE,
  scopes: SCOPE_LIST.optional(),
  reach: REACH,
  limits: LIMITS,
  caps: CAPS,
  notBefore: time.optional(),
  expiresAt: time.optional(),
});

/** @throws KeyError what cannot be, by its name */
export function checkKeySpec(spec: KeySpec): KeySpec {
  const parsed = SPEC.safeParse(spec);
  if (!parsed.success) throw new KeyError(issueText(parsed.error));
  const missing = spec.scopes?.find((scope) => !(ROLES[spec.role] as readonly Scope[]).includes(scope));
  if (missing !== undefined) throw new KeyError(`the role ${spec.role} does not have the scope ${missing}`);
  if (spec.notBefore !== undefined && spec.expiresAt !== undefined && spec.notBefore >= spec.expiresAt)
    throw new KeyError("the key would end before it begins");
  return spec;
}

function issueText(error: z.ZodError): string {
  const [issue] = error.issues;
  const path = issue?.path.join(".") ?? "";
  return path === "" ? (issue?.message ?? "unknown reason") : `${path}: ${issue?.message}`;
}

/** The columns that say what a key may do; equal columns, equal rights. */
export interface RightsColumns {
  readonly tenant: string;
  readonly role: string;
  readonly scopes: string | null;
  readonly reach: string;
  readonly limits: string;
  readonly caps: string;
}

export type Rights = Pick<KeySpec, "tenant" | "role" | "scopes" | "reach" | "limits" | "caps">;

/** @returns undefined: a row that this program did not write, or that a newer one did */
export function readRights(row: RightsColumns): Rights | undefined {
  const role = ROLE.safeParse(row.role);
  const scopes = row.scopes === null ? undefined : SCOPE_LIST.safeParse(json(row.scopes));
  const reach = REACH.safeParse(json(row.reach));
  const limits = LIMITS.safeParse(json(row.limits));
  const caps = CAPS.safeParse(json(row.caps));
  if (!role.success || scopes?.success === false || !reach.success || !limits.success || !caps.success)
    return undefined;
  return {
    tenant: row.tenant,
    role: role.data,
    ...(scopes === undefined ? {} : { scopes: scopes.data as readonly Scope[] }),
    reach: reach.data as Reach,
    limits: limits.data as Limits,
    caps: caps.data as Partial<RequestCaps>,
  };
}

export function profileOf(rights: Rights): Profile {
  return principalOf({ ...rights, id: "" });
}

function json(text: string): JsonValue | undefined {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}
