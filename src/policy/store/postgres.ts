/**
 * Kysely over PostgreSQL: the pool of connections, made safe. The one place that opens a connection to a database.
 *
 * Invariants: another machine is reached over TLS with its certificate verified unless the URL itself says otherwise;
 * whole numbers are numbers; every wait has an end; no error shows the URL, which may hold a password.
 * Caller: store.ts.
 */
import { type Dialect, PostgresDialect } from "kysely";
import { Pool, type PoolConfig, types } from "pg";
import type { Secret } from "#base/secret.ts";
import { reasonOf, StoreError } from "./store-error.ts";

/** OID of bigint. */
const INT8 = 20;
const LOOPBACK = /^127(\.[0-9]{1,3}){3}$/;
const CONNECTIONS = 8;
const CONNECT_TIMEOUT_MS = 5000;
const STATEMENT_TIMEOUT_MS = 30_000;
/** In milliseconds; longer waits for a row are somebody's hanging transaction. */
const LOCK_TIMEOUT_MS = 10_000;

/** @param onError what an idle connection says when it breaks; the pool replaces it. @throws StoreError the URL */
export function postgresDialect(url: Secret, onError: (message: string) => void): Dialect {
  const pool = makePool(poolConfig(url));
  pool.on("error", (error) => onError(reasonOf(error)));
  // The pool listens to idle connections only: one that breaks in a query would end the process by an unheard event,
  // besides failing the query.
  pool.on("connect", (client) => client.on("error", () => {}));
  return new PostgresDialect({ pool });
}

function makePool(config: PoolConfig): Pool {
  try {
    return new Pool(config);
  } catch (error) {
    throw new StoreError(`the database URL cannot be used (${reasonOf(error)})`);
  }
}

function poolConfig(url: Secret): PoolConfig {
  // A user without a host is no URL to the standard, and means a socket to PostgreSQL.
  const parsed = URL.parse(url.expose().replace("@/", "@localhost/"));
  if (parsed === null || !/^postgres(ql)?:$/.test(parsed.protocol))
    throw new StoreError("the database URL does not look like postgres://user@host/database");
  const said = ["sslmode", "ssl", "sslcert", "sslkey", "sslrootcert"].some((name) => parsed.searchParams.has(name));
  const host = parsed.searchParams.get("host") ?? decodeURIComponent(parsed.hostname);
  return {
    connectionString: url.expose(),
    // The URL's own words come after this and win (Wall: T40).
    ssl: !said && !isLocal(host),
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: LOCK_TIMEOUT_MS,
    application_name: "castellan",
    allowExitOnIdle: true,
    types: {
      getTypeParser: (oid: number, format?: "text" | "binary") =>
        oid === INT8 && format !== "binary" ? wholeNumber : types.getTypeParser(oid, format as "text"),
    } as NonNullable<PoolConfig["types"]>,
  };
}

/** Sockets' paths begin with a slash; no host at all is this machine. */
function isLocal(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  return bare === "" || bare.startsWith("/") || bare === "localhost" || bare === "::1" || LOOPBACK.test(bare);
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new StoreError("the database holds a number beyond 2^53");
  return value;
}
