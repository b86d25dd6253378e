/**
 * A verifier over one issuer whose keys are in memory, with clocks that a test turns. For tests.
 */
import { EgressError } from "#egress/policy.ts";
import { type SigningKey, signingKey, token } from "#test/fixtures/issuer.ts";
import type { GuardedGet } from "./load-keys.ts";
import { TokensSection } from "./schema.ts";
import { Tokens } from "./verify.ts";

export const ISSUER = "https://login.example.com/realms/a";
export const JWKS = "https://login.example.com/keys";

export interface Bench {
  readonly tokens: Tokens;
  readonly asked: string[];
  readonly logged: { message: string; fields: Readonly<Record<string, unknown>> }[];
  readonly key: SigningKey;
  /** What the issuer's server holds; "away": it does not answer. */
  served: readonly SigningKey[] | "away";
  now: number;
  monotonic: number;
  token(claims?: Record<string, unknown>, header?: Record<string, unknown>, key?: SigningKey): string;
}

export interface BenchOptions {
  readonly issuer?: Record<string, unknown>;
  readonly keys?: Record<string, unknown>;
  readonly section?: Record<string, unknown>;
  readonly rules?: readonly unknown[];
  readonly key?: SigningKey;
}

export async function bench(options: BenchOptions = {}): Promise<Bench> {
  const { issuer = {}, keys = {}, section = {}, rules = [{ tenant: "acme", role: "user" }] } = options;
  const config = TokensSection.parse({
    ...section,
    issuers: [
      {
        issuer: ISSUER,
        audiences: ["castellan"],
        keys: { jwks: JWKS, ...keys },
        algorithms: ["ES256"],
        rules,
        ...issuer,
      },
    ],
  });
  const key = options.key ?? signingKey();
  const made: Omit<Bench, "tokens"> = {
    asked: [],
    logged: [],
    key,
    served: [key],
    now: Date.now(),
    monotonic: 0,
    token: (claims, header, by = key) => token(by, ISSUER, claims, header, bound.now),
  };
  const get: GuardedGet = async (url) => {
    made.asked.push(url);
    if (bound.served === "away") throw new EgressError("network", "the connection to login.example.com failed");
    const body = Buffer.from(JSON.stringify({ keys: bound.served.map(({ jwk }) => jwk) }));
    return { status: 200, body };
  };
  const tokens = new Tokens(config, {
    log: (_, message, fields = {}) => void made.logged.push({ message, fields }),
    get,
    now: () => bound.now,
    monotonic: () => bound.monotonic,
  });
  const bound: Bench = Object.assign(made, { tokens });
  await tokens.start();
  return bound;
}
