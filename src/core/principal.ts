/**
 * Who calls, and the proof that they may. The types only; policy/ is the one area that makes values of them.
 */
import type { Limits } from "./limits.ts";
import type { Meter } from "./metering.ts";
import type { RequestCaps } from "./request-caps.ts";

/** scope → what it opens, one line for help and docs. The keys are the closed list. */
export const SCOPE_DOCS = {
  inference: "generate text",
  embeddings: "embeddings, scores, rerankings and classes",
  audio: "transcribe and translate speech",
  tokenize: "turn text into tokens and back",
  "models:read": "list the models that the key may use; the server's version",
  responses: "store, read and cancel responses",
  batch: "files and batches",
  "metrics:read": "metrics and load",
  "lora:write": "load and unload LoRA adapters",
  ops: "pause, resume, sleep, scale, reset caches, abort",
  weights: "change the weights of a running engine",
  profile: "profiles and timelines",
  dev: "development routes",
  "keys:read": "list keys and usage",
  "keys:write": "make, rotate, disable and delete keys",
  "audit:read": "read and verify the audit log",
  admin: "change tenants, limits and policy",
} as const;

export type Scope = keyof typeof SCOPE_DOCS;
export const SCOPES = Object.keys(SCOPE_DOCS) as readonly Scope[];

const USER = ["inference", "embeddings", "audio", "tokenize", "models:read", "responses", "batch"] as const;

/** role → its scopes. A key has one role; its scopes may be narrowed, never widened beyond it. */
export const ROLES = {
  user: USER,
  /** A program of the platform: a user that also watches the load. */
  service: [...USER, "metrics:read"],
  operator: ["models:read", "metrics:read", "lora:write", "ops", "profile"],
  trainer: ["inference", "tokenize", "models:read", "metrics:read", "lora:write", "weights"],
  developer: [...USER, "metrics:read", "profile", "dev"],
  auditor: ["models:read", "metrics:read", "keys:read", "audit:read"],
  admin: SCOPES,
} as const satisfies Readonly<Record<string, readonly Scope[]>>;

export type Role = keyof typeof ROLES;

/** The operator's own: whose principals administer every tenant, and whose keys are those for which nobody named one. */
export const OPERATOR_TENANT = "default";

/** Names with `*` (any characters) and `?` (one); a name is allowed when one of them matches the whole of it. */
export type NamePatterns = readonly string[];

/** What principals reach by its name. */
export type Named = "models" | "adapters" | "tools";

/** What of the server a principal sees. An absent list: all. */
export interface Reach {
  /** Served names. What is not matched does not exist for this principal. */
  readonly models?: NamePatterns;
  /** Served names of LoRA adapters; an adapter needs a match here, its base model needs none. */
  readonly adapters?: NamePatterns;
  /** Tools that the server runs. */
  readonly tools?: NamePatterns;
  /** Addresses that may present the credential: CIDR, IPv4 or IPv6. */
  readonly networks?: readonly string[];
  /** The most urgent `priority` that a request may ask for (lower runs first); absent: 0. */
  readonly priority?: number;
}

export interface Principal {
  /** Stable, not secret: safe in logs and metrics. */
  readonly id: string;
  /** What proved it. `server`: the server itself, for its own first question. */
  readonly kind: "key" | "token" | "certificate" | "server";
  /** Whose resources these are. */
  readonly tenant: string;
  readonly role: Role;
  readonly scopes: ReadonlySet<Scope>;
  readonly reach: Reach;
  /** What nobody of its tenant sees more of, whatever `reach` says. Absent: the tenant is not narrowed. */
  readonly within?: Pick<Reach, Named>;
  /** Of this principal alone; those of its tenant and of models come besides. */
  readonly limits: Limits;
  /**
   * Digest of the operator's rules that made it, up to the one that decided: as long as those stand, whoever it is would
   * be made the same again. Absent: no rule did (a key).
   */
  readonly ruledBy?: string;
  /** Unix milliseconds: of a key that ends, or whose secret does. A token or certificate is renewed elsewhere, and has none. */
  readonly until?: number;
  /** What it asks for waits behind what others do; a batch's lines. */
  readonly behind?: true;
  /** Request-parameter limits that differ from the server's. */
  readonly caps: Partial<RequestCaps>;
}

declare const granted: unique symbol;

/**
 * Proof that `principal` passed authorization for scope S, with the meter of its call. Only policy/authorize.ts can
 * make one (the symbol is declared, never defined), so a handler without a key scope has nothing to give to serving.
 */
export interface Grant<S extends Scope> {
  readonly principal: Principal;
  readonly scope: S;
  /** What the call may use up; serving reserves here before any work. */
  readonly meter: Meter;
  readonly [granted]: S;
}
