/**
 * The connection to Redis or Valkey: scripts over ioredis, with an end to every wait. The one place that opens one.
 *
 * Invariants: nothing is sent twice (a take that was sent and not answered may have been done), nothing is queued
 * while there is no connection; `rediss:` verifies the certificate; no error shows the URL, which may hold a password.
 * Caller: app, for redis-ledger.ts.
 */
import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import type { Secret } from "#base/secret.ts";

/** The URL is of no use. */
export class RedisUrlError extends Error {
  override readonly name = "RedisUrlError";
}

/** There is no connection: nothing was sent. */
export class RedisAwayError extends Error {
  override readonly name = "RedisAwayError";
}

export interface Script {
  readonly text: string;
  readonly sha: string;
}

export interface RedisConnection {
  /** Numbers come back as numbers, up to 2^53. @throws RedisAwayError | Error: it may have run */
  run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  close(): Promise<void>;
}

export interface RedisOptions {
  /** `redis:` or `rediss:`, with user, password and database as need be. */
  readonly url: Secret;
  /** PEM of the authority that signed the server's certificate; the system's without it. */
  readonly ca?: string;
  /** The connection came or went. */
  readonly onState: (state: "ready" | "away", reason: string | undefined) => void;
}

const CONNECT_TIMEOUT_MS = 3000;
const COMMAND_TIMEOUT_MS = 1000;
const MAX_RECONNECT_DELAY_MS = 2000;
const LOOPBACK = /^(127(\.[0-9]{1,3}){3}|\[::1\]|localhost)$/;

export function script(text: string): Script {
  return { text, sha: createHash("sha1").update(text).digest("hex") };
}

/** Whether passwords and counters would travel in the clear between machines. @throws RedisUrlError */
export function isPlainRemote(url: Secret): boolean {
  const { protocol, hostname } = parsed(url);
  return protocol === "redis:" && !LOOPBACK.test(hostname);
}

/** Connects by itself, and again when the connection breaks. @throws RedisUrlError */
export function connectRedis({ url, ca, onState }: RedisOptions): RedisConnection {
  const { protocol, hostname, port, username, password, pathname } = parsed(url);
  const client = new Redis({
    host: hostname.replace(/^\[|\]$/g, ""),
    port: port === "" ? 6379 : Number(port),
    ...(username === "" ? {} : { username: decodeURIComponent(username) }),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    db: Number(pathname.slice(1)),
    ...(protocol === "rediss:" ? { tls: ca === undefined ? {} : { ca } } : {}),
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (times) => Math.min(50 * 2 ** times, MAX_RECONNECT_DELAY_MS),
  });
  let reason: string | undefined;
  client.on("error", (error) => {
    reason = codeOf(error);
  });
  client.on("ready", () => onState("ready", undefined));
  client.on("close", () => onState("away", reason));
  return {
    run: async ({ text, sha }, keys, args) => {
      if (client.status !== "ready") throw new RedisAwayError("there is no connection to Redis");
      try {
        return await client.evalsha(sha, keys.length, ...keys, ...args);
      } catch (error) {
        // It has not run, so that it may be sent again.
        if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
        return client.eval(text, keys.length, ...keys, ...args);
      }
    },
    close: async () => {
      client.disconnect();
    },
  };
}

/** A code, not the message: some have addresses in them. */
function codeOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code ?? /^[A-Z]+/.exec(message)?.[0] ?? "unknown reason";
}

function parsed(url: Secret): URL {
  const found = URL.parse(url.expose());
  if (
    found === null ||
    !/^rediss?:$/.test(found.protocol) ||
    found.hostname === "" ||
    !/^(|\/[0-9]{0,4})$/.test(found.pathname)
  )
    throw new RedisUrlError("the Redis URL does not look like rediss://user:password@host:port/database");
  return found;
}
