/**
 * The store's tables, as the newest migration leaves them. Types only.
 *
 * Times are Unix milliseconds, flags are times (null: not), lists and objects are JSON text. No column holds a secret:
 * digests are keyed with a pepper that is not in the store.
 * Callers: policy/ alone.
 */
export interface Tables {
  facts: FactTable;
  revisions: RevisionTable;
  tenants: TenantTable;
  keys: KeyTable;
  key_secrets: KeySecretTable;
  usage: UsageTable;
  usage_writers: UsageWriterTable;
  responses: ResponseTable;
  response_totals: ResponseTotalTable;
  response_servers: ResponseServerTable;
  files: FileTable;
  batches: BatchTable;
}

/** What is true of the whole store. */
interface FactTable {
  /** `pepper`: a mark by which a store that was made under another pepper is told. */
  name: string;
  value: string;
}

/**
 * Counters by which other processes see that something changed. Who changes rows of a group adds one in the same
 * transaction and writes the new value into the rows: the counter's row lock makes its order the order of commits.
 */
interface RevisionTable {
  /** `keys`; `files`, as a lock alone. */
  name: string;
  value: number;
}

interface TenantTable {
  name: string;
  /** `Limits` of core/limits.ts. */
  limits: string;
  created_at: number;
  created_by: string;
}

/** What a key may do. Its id is what usage and limits count under, whatever secret was presented. */
export interface KeyTable {
  id: string;
  tenant: string;
  name: string;
  role: string;
  /** Narrower than the role's; null: the role's. */
  scopes: string | null;
  /** `Reach` of core/principal.ts. */
  reach: string;
  /** `Limits` of core/limits.ts. */
  limits: string;
  /** Part of `RequestCaps` of core/request-caps.ts. */
  caps: string;
  not_before: number | null;
  expires_at: number | null;
  disabled_at: number | null;
  /** The row stays, so that records that name it can be read. */
  deleted_at: number | null;
  created_at: number;
  created_by: string;
  /** About; written in batches. */
  last_used_at: number | null;
  revision: number;
}

/** What opens a key: one row a generation; rotation adds one and sets an end to the one before. */
export interface KeySecretTable {
  /** HMAC-SHA256(pepper, secret), 64 hex digits. */
  digest: string;
  key_id: string;
  /** From 1; each replaces the one before it. */
  generation: number;
  created_at: number;
  created_by: string;
  /** Works until then; null: as long as its key. */
  ends_at: number | null;
}

/** What was used: sums of a UTC day. Rows name keys that may be deleted, and principals that are no keys. */
interface UsageTable {
  key_id: string;
  /** `2026-11-25` */
  day: string;
  tenant: string;
  /** Empty: calls that reached no model. */
  model: string;
  requests: number;
  errors: number;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  /** Micro-dollars. */
  cost: number;
}

/** The last group of additions that each process has written, so that none is added twice. */
interface UsageWriterTable {
  id: string;
  number: number;
  at: number;
}

/** Stored responses: what their tenants said and were answered, as it is. */
export interface ResponseTable {
  id: string;
  tenant: string;
  /** That works on it; null: it has ended. */
  server: string | null;
  /** `ResponseStatus` of core/responses.ts. */
  status: string;
  /** `ResponseError`; null: what the body says. */
  error: string | null;
  body: string;
  /** The conversation with the answer: `ChatMessage`s. */
  messages: string;
  /** The same as items, of a model behind others; then `messages` is an empty list. */
  items: string | null;
  /** `CallEvent`s of a background response that has ended. */
  log: string | null;
  /** Of body, messages, items and log. */
  bytes: number;
  created_at: number;
}

/** Sums of what a tenant has in `responses`. Its row is locked first by whoever adds or takes away. */
interface ResponseTotalTable {
  tenant: string;
  responses: number;
  bytes: number;
}

/** Servers that work on responses. Who sees a beat stand still for long takes the server for dead. */
interface ResponseServerTable {
  id: string;
  beat: number;
}

/** Files of batches. Their contents are in the state directory of the server that has them, `node`. */
export interface FileTable {
  id: string;
  node: string;
  tenant: string;
  created_by: string;
  purpose: string;
  name: string;
  bytes: number;
  created_at: number;
  expires_at: number;
}

export interface BatchTable {
  id: string;
  node: string;
  tenant: string;
  /** `BatchAuthor` of core/batches.ts. */
  author: string;
  endpoint: string;
  input_file_id: string;
  completion_window: string;
  metadata: string | null;
  status: string;
  created_at: number;
  expires_at: number;
  /** Status → when. */
  times: string;
  counts: string;
  output_file_id: string | null;
  error_file_id: string | null;
  problem: string | null;
}
