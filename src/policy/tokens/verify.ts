/**
 * From a bearer token to who calls: JSON Web Tokens (RFC 7519, with RFC 8725 and RFC 9068 in mind) of the issuers that
 * the operator named.
 *
 * Order (Wall: T45): text → issuer → header → key → signature and claims (jose) → rules. What can be told without
 * arithmetic is told first. A token that proves nothing is a wrong key, with the same answer; the reason goes to the log.
 * A good token that no rule maps is 403: its holder has proven who they are and learns that they have no place here.
 * A token of a known issuer whose keys could not be had is 503, never let through.
 * Callers: app, which puts it beside keys and certificates (identify.ts).
 */
import { errors, type JWTVerifyOptions, jwtVerify } from "jose";
import type { Log } from "#base/log.ts";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { guardedGet } from "#egress/guarded-fetch.ts";
import type { TokenProver } from "#policy/identify.ts";
import { ruleChain } from "#policy/rule-chain.ts";
import { readClaims, readCompact, type TokenHeader } from "./compact.ts";
import type { TokenKey } from "./key-set.ts";
import { KeySource } from "./key-source.ts";
import { type GuardedGet, isLocal, loadKeys } from "./load-keys.ts";
import { type Claims, TokenProblem } from "./problem.ts";
import { principalFrom, tokenPrincipalId } from "./rules.ts";
import type { IssuerConfig, TokensConfig } from "./schema.ts";
import { VerifiedTokens } from "./verified-tokens.ts";

export interface TokenOptions {
  readonly log: Log;
  /** The guard, with a record of each fetch; without one unless said. */
  readonly get?: GuardedGet;
  /** Unix milliseconds. For tests. */
  readonly now?: () => number;
  /** Milliseconds that never go back. For tests. */
  readonly monotonic?: () => number;
}

interface Issuer {
  readonly config: IssuerConfig;
  readonly algorithms: ReadonlySet<string>;
  readonly types: ReadonlySet<string>;
  readonly source: KeySource;
  readonly marks: readonly string[];
}

const MAX_SUBJECT = 1024;

export class Tokens implements TokenProver {
  readonly maxLength: number;
  readonly #issuers: ReadonlyMap<string, Issuer>;
  readonly #verified: VerifiedTokens;
  readonly #now: () => number;
  readonly #get: GuardedGet;

  constructor(config: TokensConfig, options: TokenOptions) {
    this.maxLength = config.maxLength;
    this.#verified = new VerifiedTokens(config.cacheEntries);
    this.#now = options.now ?? Date.now;
    this.#get = options.get ?? guardedGet;
    this.#issuers = new Map(config.issuers.map((issuer) => [issuer.issuer, this.#issuer(issuer, options)]));
  }

  #issuer(config: IssuerConfig, { log, monotonic }: TokenOptions): Issuer {
    return {
      config,
      algorithms: new Set(config.algorithms),
      types: new Set(config.types.map(plainType)),
      marks: ruleChain(config.issuer, config.rules),
      source: new KeySource({
        issuer: config.issuer,
        load: () => loadKeys(config, this.#get),
        refreshMs: config.keys.refreshSeconds * 1000,
        cooldownMs: config.keys.cooldownSeconds * 1000,
        keepMs: config.keys.keepSeconds * 1000,
        log,
        ...(monotonic === undefined ? {} : { now: monotonic }),
      }),
    };
  }

  /**
   * Loads every issuer's keys. An issuer that is away is asked again when a token comes.
   * @throws Error a file of this machine that cannot be used
   */
  async start(): Promise<void> {
    const issuers = [...this.#issuers.values()];
    for (const { config } of issuers) {
      if (!isLocal(config)) continue;
      const keys = await loadKeys(config, this.#get);
      if (keys.size === 0) throw new Error(`no key of ${config.keys.jwksFile} can be used: ${keys.dropped.join("; ")}`);
    }
    await Promise.all(issuers.map(({ source }) => source.refresh()));
  }

  /** Whether the rules that made a principal are among its issuer's still. */
  stands(mark: string): boolean {
    return [...this.#issuers.values()].some(({ marks }) => marks.includes(mark));
  }

  /** @throws Fault unauthenticated | forbidden | policy_unavailable, or rejects with one */
  verify(token: string): Principal | Promise<Principal> {
    const digest = this.#verified.digest(token);
    return this.#verified.find(digest, this.#now()) ?? this.#prove(token, digest);
  }

  async #prove(token: string, digest: string): Promise<Principal> {
    try {
      const { header, payload } = readCompact(token);
      const claims = readClaims(payload);
      const issuer = typeof claims["iss"] === "string" ? this.#issuers.get(claims["iss"]) : undefined;
      if (issuer === undefined) throw new TokenProblem("its issuer is not one that is trusted here");
      checkHeader(header, issuer);
      const key = await keyFor(header, issuer);
      await this.#check(token, header, key, issuer.config);
      const subject = subjectOf(claims);
      const made = principalFrom(issuer.config.rules, issuer.config.issuer, subject, claims, issuer.marks);
      if ("reason" in made) throw unmapped(tokenPrincipalId(issuer.config.issuer, subject), made.reason);
      const until = endOf(claims, issuer.config);
      this.#verified.keep(digest, { principal: made, until, stands: () => stands(issuer, key) });
      return made;
    } catch (error) {
      throw translate(error);
    }
  }

  /** Signature and the claims that RFC 7519 registers. */
  async #check(token: string, { alg }: TokenHeader, key: TokenKey, config: IssuerConfig): Promise<void> {
    const material = key.algorithms.get(alg);
    if (material === undefined) throw new TokenProblem("its key does not serve its algorithm");
    const options: JWTVerifyOptions = {
      algorithms: [alg],
      issuer: config.issuer,
      audience: config.audiences,
      requiredClaims: ["exp", "iat", "sub", ...config.requiredClaims],
      clockTolerance: config.clockToleranceSeconds,
      maxTokenAge: config.maxAgeSeconds,
      currentDate: new Date(this.#now()),
    };
    await jwtVerify(token, material, options);
  }
}

/** RFC 7515, 4.1.9: `application/` may be left out; media types have no case. */
function plainType(type: string): string {
  return type.toLowerCase().replace(/^application\//, "");
}

function checkHeader({ alg, typ }: TokenHeader, { algorithms, types, config }: Issuer): void {
  if (!algorithms.has(alg)) throw new TokenProblem("its algorithm is not one that is allowed");
  if (typ === undefined ? config.typeRequired : !types.has(plainType(typ)))
    throw new TokenProblem("its typ is not one that is allowed");
}

async function keyFor({ alg, kid }: TokenHeader, { source }: Issuer): Promise<TokenKey> {
  const known = source.current()?.find(alg, kid);
  if (known !== undefined) return known;
  const keys = await source.newer();
  if (keys === undefined) {
    throw new Fault("policy_unavailable", "This token cannot be checked at the moment.", {
      detail: "token: the keys of its issuer could not be had",
    });
  }
  const found = keys.find(alg, kid);
  if (found === undefined) throw new TokenProblem("its key is not one of its issuer's");
  return found;
}

function stands({ source }: Issuer, key: TokenKey): boolean {
  return source.current()?.has(key.thumbprint) ?? false;
}

function subjectOf({ sub }: Claims): string {
  if (typeof sub !== "string" || sub === "" || sub.length > MAX_SUBJECT) throw new TokenProblem("its sub is no text");
  return sub;
}

/** jose has seen that both are numbers. */
function endOf(claims: Claims, { maxAgeSeconds, clockToleranceSeconds }: IssuerConfig): number {
  return (Math.min(Number(claims["exp"]), Number(claims["iat"]) + maxAgeSeconds) + clockToleranceSeconds) * 1000;
}

function unmapped(id: string, reason: string): Fault {
  return new Fault("forbidden", "This token is valid, and no rule of this server gives it access.", {
    detail: `token of ${id}: ${reason}`,
  });
}

function translate(error: unknown): unknown {
  if (error instanceof TokenProblem) return nobody(error.message);
  if (error instanceof errors.JWTExpired) return nobody(`${error.claim} says that it is over`);
  if (error instanceof errors.JWTClaimValidationFailed) return nobody(`${error.claim} is ${error.reason}`);
  return error instanceof errors.JOSEError ? nobody(error.code) : error;
}

function nobody(reason: string): Fault {
  return new Fault("unauthenticated", "Unauthorized", { detail: `token: ${reason}` });
}
