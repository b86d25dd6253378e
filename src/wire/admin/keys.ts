/**
 * Keys over the admin routes: what is asked, and how a record is printed, by `castellan keys --json` too. Pure.
 *
 * Invariant: a printed record holds no secret; the one answer that does is `encodeNewKey`'s.
 */
import { z } from "zod";
import { KEY_STATUSES, keyStatus } from "#core/key-status.ts";
import { BUDGET_UNITS, LIMIT_DOCS, type LimitFigure, type Limits, PERIODS } from "#core/limits.ts";
import { type Reach, ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { CAP_ROWS, type CapName, type CapRow, type RequestCaps } from "#core/request-caps.ts";
import { count, given, printedTime, queryCount, snake, snakeKeys, timestamp } from "./_fields.ts";

const MOST_KEYS = 500;
const MOST_ENTRIES = 256;
const DAY_SECONDS = 86_400;
const LONGEST_OVERLAP = 366 * DAY_SECONDS;

const id = z.string().min(1).max(64).meta({ description: "Of a key: key_…" });
const names = z.array(z.string().min(1).max(256)).max(MOST_ENTRIES);
const ROLE_NAMES = Object.keys(ROLES) as [Role, ...Role[]];
const role = z.enum(ROLE_NAMES);
const scopes = z.array(z.enum(SCOPES as [Scope, ...Scope[]]));

const FIGURES = Object.entries(LIMIT_DOCS) as [LimitFigure, string][];
const LIMITS = z.strictObject({
  ...Object.fromEntries(FIGURES.map(([name, doc]) => [snake(name), count.meta({ description: doc }).nullish()])),
  budgets: z
    .array(
      z.strictObject({
        period: z.enum(PERIODS),
        unit: z.enum(BUDGET_UNITS),
        amount: count.meta({ description: "Tokens, or micro-dollars." }),
      }),
    )
    .nullish(),
});

const CAPS = z.strictObject(
  Object.fromEntries(
    Object.entries<CapRow>(CAP_ROWS).map(([name, { bounds, unit, doc }]) => {
      const figure = unit === "seconds" ? z.number() : z.int();
      return [snake(name), figure.min(bounds[0]).max(bounds[1]).meta({ description: doc }).nullish()];
    }),
  ),
);

export const ListKeysQuery = z.strictObject({
  tenant: z.string().max(256).optional(),
  deleted: z.enum(["true", "false"]).optional().meta({ description: "Deleted ones too." }),
  limit: queryCount(1, MOST_KEYS, 100, "Keys of an answer at most."),
  after: id.optional().meta({ description: "Goes on behind this key: last_id of the answer before." }),
});

export const ShowKeyQuery = z.strictObject({ id });

export const CreateKeyBody = z.strictObject({
  tenant: z.string().max(256).nullish().meta({ description: "Absent: the caller's." }),
  name: z.string().max(100).nullish().meta({ description: "For people; need not be unique." }),
  role: role.nullish().meta({ description: "Absent: user." }),
  scopes: scopes.max(SCOPES.length).nullish().meta({ description: "Fewer than the role's. Absent: the role's." }),
  models: names.nullish().meta({ description: "Served names, with * and ?. Absent: all." }),
  adapters: names.nullish().meta({ description: "Names of LoRA adapters, with * and ?. Absent: all." }),
  tools: names.nullish().meta({ description: "Tools of the server, with * and ?. Absent: all." }),
  networks: names.nullish().meta({ description: "Where it may come from: 10.0.0.0/8. Absent: anywhere." }),
  priority: z.int().nullish().meta({ description: "The most urgent that a request may ask for; lower is sooner." }),
  limits: LIMITS.nullish(),
  caps: CAPS.nullish().meta({ description: "Limits of one request that differ from the server's." }),
  not_before: timestamp.nullish().meta({ description: "Works from then on." }),
  expires_at: timestamp.nullish().meta({ description: "Works until then. Absent: for ever." }),
});

export const RotateKeyBody = z.strictObject({
  id,
  overlap_seconds: z
    .int()
    .min(0)
    .max(LONGEST_OVERLAP)
    .default(DAY_SECONDS)
    .meta({ description: "How long the generation before works on." }),
});

export const ChangeKeyBody = z.strictObject({ id });

const list = z.array(z.string()).nullable();

export const KeyReply = z.object({
  id: z.string(),
  status: z.enum(KEY_STATUSES),
  tenant: z.string(),
  name: z.string(),
  role,
  scopes,
  models: list,
  adapters: list,
  tools: list,
  networks: list,
  priority: z.int().nullable(),
  limits: LIMITS,
  caps: CAPS,
  not_before: printedTime,
  expires_at: printedTime,
  disabled_at: printedTime,
  deleted_at: printedTime,
  created_at: printedTime,
  created_by: z.string(),
  last_used_at: printedTime,
  generations: z.array(
    z.object({ generation: count, created_at: printedTime, created_by: z.string(), ends_at: printedTime }),
  ),
});

export const NewKeyReply = KeyReply.extend({
  key: z.string().meta({ description: "The key itself, shown this once." }),
});

export const KeyListReply = z.object({
  object: z.literal("list"),
  data: z.array(KeyReply),
  has_more: z.boolean(),
  last_id: z.string().nullable(),
});

export interface ListKeysCall {
  readonly tenant?: string;
  readonly deleted: boolean;
  readonly limit: number;
  readonly after?: string;
}

export function decodeListKeys({ deleted, limit, ...rest }: z.infer<typeof ListKeysQuery>): ListKeysCall {
  return { ...given(rest), limit, deleted: deleted === "true" };
}

/** What a key is told to be; policy judges it. */
export interface CreateKeyCall {
  /** Absent: the caller's. */
  readonly tenant?: string;
  readonly name: string;
  readonly role: Role;
  readonly scopes?: readonly Scope[];
  readonly reach: Reach;
  readonly limits: Limits;
  readonly caps: Partial<RequestCaps>;
  /** Unix milliseconds. */
  readonly notBefore?: number;
  readonly expiresAt?: number;
}

export function decodeCreateKey(body: z.infer<typeof CreateKeyBody>): CreateKeyCall {
  const { tenant, name, role = "user", scopes, models, adapters, tools, networks, priority, limits, caps } = body;
  const times = given({ notBefore: timeOf(body.not_before), expiresAt: timeOf(body.expires_at) });
  const { budgets, ...figures } = limits ?? {};
  return {
    ...given({ tenant, scopes }),
    name: name ?? "",
    role: role ?? "user",
    reach: given({ models, adapters, tools, networks, priority }),
    limits: { ...named(figures, FIGURE_OF), ...given({ budgets }) },
    caps: named(caps ?? {}, CAP_OF),
    ...times,
  };
}

const FIGURE_OF = new Map(FIGURES.map(([name]) => [snake(name), name]));
const CAP_OF = new Map((Object.keys(CAP_ROWS) as CapName[]).map((name) => [snake(name), name]));

/** From the names of the wire to the program's. */
function named<N extends string>(values: object, names: ReadonlyMap<string, N>): Partial<Record<N, number>> {
  const known = Object.entries(given(values)).flatMap(([name, value]) => {
    const own = names.get(name);
    return own === undefined ? [] : [[own, value] as const];
  });
  return Object.fromEntries(known) as Partial<Record<N, number>>;
}

function timeOf(text: string | null | undefined): number | undefined {
  return text === null || text === undefined ? undefined : Date.parse(text);
}

/** A key as it is kept, without its secrets. */
export interface PrintedKey extends Omit<CreateKeyCall, "tenant"> {
  readonly id: string;
  readonly tenant: string;
  readonly createdAt: number;
  readonly createdBy: string;
  readonly disabledAt?: number;
  readonly deletedAt?: number;
  readonly lastUsedAt?: number;
  /** Oldest first. */
  readonly secrets: readonly {
    readonly generation: number;
    readonly createdAt: number;
    readonly createdBy: string;
    readonly endsAt?: number;
  }[];
}

/** Names in snake_case, times in RFC 3339; null: not. */
export function encodeKey(key: PrintedKey, now: number): z.infer<typeof KeyReply> {
  return {
    id: key.id,
    status: keyStatus(key, now),
    tenant: key.tenant,
    name: key.name,
    role: key.role,
    scopes: [...(key.scopes ?? ROLES[key.role])],
    models: listOf(key.reach.models),
    adapters: listOf(key.reach.adapters),
    tools: listOf(key.reach.tools),
    networks: listOf(key.reach.networks),
    priority: key.reach.priority ?? null,
    limits: snakeKeys(key.limits),
    caps: snakeKeys(key.caps) as z.infer<typeof CAPS>,
    not_before: iso(key.notBefore),
    expires_at: iso(key.expiresAt),
    disabled_at: iso(key.disabledAt),
    deleted_at: iso(key.deletedAt),
    created_at: iso(key.createdAt),
    created_by: key.createdBy,
    last_used_at: iso(key.lastUsedAt),
    generations: key.secrets.map(({ generation, createdAt, createdBy, endsAt }) => ({
      generation,
      created_at: iso(createdAt),
      created_by: createdBy,
      ends_at: iso(endsAt),
    })),
  };
}

/** @param text the key itself */
export function encodeNewKey(text: string, key: PrintedKey, now: number): z.infer<typeof NewKeyReply> {
  return { key: text, ...encodeKey(key, now) };
}

/** @param more whether another page follows */
export function encodeKeys(keys: readonly PrintedKey[], more: boolean, now: number): z.infer<typeof KeyListReply> {
  return {
    object: "list",
    data: keys.map((key) => encodeKey(key, now)),
    has_more: more,
    last_id: keys.at(-1)?.id ?? null,
  };
}

function listOf(list: readonly string[] | undefined): string[] | null {
  return list === undefined ? null : [...list];
}

function iso(time: number | undefined): string | null {
  return time === undefined ? null : new Date(time).toISOString();
}
