/**
 * How a store became what it is: one entry a version, in order. Entries are never changed, only added, and only go
 * forward: a file of any earlier version is brought up by those after it.
 *
 * Statements are plain SQL that both back ends take; what differs comes in as `Dialect`.
 * Callers: migrate.ts, and its test, which builds old files out of the first entries.
 */
export interface Dialect {
  /** Whole numbers up to 2^53. */
  readonly integer: string;
  /** What follows a table's closing parenthesis. */
  readonly table: string;
}

export interface Migration {
  readonly name: string;
  statements(dialect: Dialect): readonly string[];
}

/** Version n is the entry at n - 1. */
export const MIGRATIONS: readonly Migration[] = [
  {
    name: "tenants and keys",
    statements: ({ integer, table }) => [
      `create table facts (name text not null primary key, value text not null)${table}`,
      `create table revisions (name text not null primary key, value ${integer} not null)${table}`,
      "insert into revisions (name, value) values ('keys', 0)",
      `create table tenants (
        name text not null primary key,
        limits text not null,
        created_at ${integer} not null,
        created_by text not null
      )${table}`,
      `create table keys (
        id text not null primary key,
        tenant text not null references tenants (name),
        name text not null,
        role text not null,
        scopes text,
        reach text not null,
        limits text not null,
        caps text not null,
        not_before ${integer},
        expires_at ${integer},
        disabled_at ${integer},
        deleted_at ${integer},
        created_at ${integer} not null,
        created_by text not null,
        last_used_at ${integer},
        revision ${integer} not null
      )${table}`,
      "create index keys_revision on keys (revision, id)",
      "create index keys_tenant on keys (tenant)",
      `create table key_secrets (
        digest text not null primary key,
        key_id text not null references keys (id),
        generation ${integer} not null,
        created_at ${integer} not null,
        created_by text not null,
        ends_at ${integer},
        unique (key_id, generation)
      )${table}`,
    ],
  },
  {
    name: "usage",
    statements: ({ integer, table }) => [
      `create table usage (
        key_id text not null,
        day text not null,
        tenant text not null,
        model text not null,
        requests ${integer} not null,
        errors ${integer} not null,
        prompt_tokens ${integer} not null,
        cached_tokens ${integer} not null,
        completion_tokens ${integer} not null,
        cost ${integer} not null,
        primary key (key_id, day, tenant, model)
      )${table}`,
      "create index usage_tenant on usage (tenant, day)",
      "create index usage_model on usage (model, day)",
      `create table usage_writers (id text not null primary key, number ${integer} not null, at ${integer} not null)${table}`,
    ],
  },
  {
    name: "responses",
    statements: ({ integer, table }) => [
      `create table responses (
        id text not null primary key,
        tenant text not null,
        server text,
        status text not null,
        error text,
        body text not null,
        messages text not null,
        log text,
        bytes ${integer} not null,
        created_at ${integer} not null
      )${table}`,
      "create index responses_tenant on responses (tenant, created_at, id)",
      "create index responses_age on responses (created_at)",
      "create index responses_server on responses (server)",
      `create table response_totals (tenant text not null primary key, responses ${integer} not null, bytes ${integer} not null)${table}`,
      `create table response_servers (id text not null primary key, beat ${integer} not null)${table}`,
    ],
  },
  {
    name: "files and batches",
    statements: ({ integer, table }) => [
      "insert into revisions (name, value) values ('files', 0)",
      `create table files (
        id text not null primary key,
        node text not null,
        tenant text not null,
        created_by text not null,
        purpose text not null,
        name text not null,
        bytes ${integer} not null,
        created_at ${integer} not null,
        expires_at ${integer} not null
      )${table}`,
      "create index files_tenant on files (node, tenant, created_at, id)",
      "create index files_expiry on files (node, expires_at)",
      `create table batches (
        id text not null primary key,
        node text not null,
        tenant text not null,
        author text not null,
        endpoint text not null,
        input_file_id text not null,
        completion_window text not null,
        metadata text,
        status text not null,
        created_at ${integer} not null,
        expires_at ${integer} not null,
        times text not null,
        counts text not null,
        output_file_id text,
        error_file_id text,
        problem text
      )${table}`,
      "create index batches_tenant on batches (node, tenant, created_at, id)",
      "create index batches_status on batches (node, status, created_at)",
    ],
  },
  {
    name: "a tenant's files and batches on every server",
    statements: () => [
      "create index files_everywhere on files (tenant, created_at, id)",
      "create index batches_everywhere on batches (tenant, created_at, id)",
      "create index batches_input on batches (input_file_id)",
    ],
  },
  {
    name: "responses of models behind others",
    statements: () => ["alter table responses add column items text"],
  },
];
