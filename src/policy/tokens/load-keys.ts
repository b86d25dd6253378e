/**
 * Where an issuer's keys come from: a file, a URL, or a URL that the issuer's discovery document names (OpenID Connect
 * Discovery 1.0, section 4; its `issuer` has to be the configured one to the letter).
 *
 * Invariants: over the network only through the egress guard, to the hosts that the configuration names; discovery and
 * key set share one deadline; a file that others can change is refused (Wall: T45).
 * Callers: verify.ts.
 */
import { readFile, stat } from "node:fs/promises";
import { z } from "zod";
import { parseJson } from "#base/json.ts";
import { isOpen, OTHERS_ANY, OTHERS_WRITE } from "#base/owner.ts";
import type { GuardedAnswer, GuardOptions } from "#egress/guarded-fetch.ts";
import { keysOfSet, secretKeys, type TokenKeys } from "./key-set.ts";
import type { IssuerConfig } from "./schema.ts";

export type GuardedGet = (url: string, options: GuardOptions) => Promise<Pick<GuardedAnswer, "status" | "body">>;

const MAX_BYTES = 256 * 1024;
const JSON_LIMITS = { maxDepth: 16, maxValues: 100_000 };
/** RFC 7518, 3.2: as long as the hash at least. */
const SECRET_BYTES: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

const Discovery = z.looseObject({ issuer: z.string(), jwks_uri: z.string() });

/** Whether the keys come from this machine's disk, so that failing to read them is the operator's to mend. */
export function isLocal({ keys }: IssuerConfig): boolean {
  return keys.jwksFile !== undefined || keys.secretFile !== undefined;
}

/** @throws Error EgressError: for the log */
export async function loadKeys(issuer: IssuerConfig, get: GuardedGet): Promise<TokenKeys> {
  const { algorithms, keys } = issuer;
  if (keys.secretFile !== undefined) return secretKeys(await secret(keys.secretFile, algorithms), algorithms);
  if (keys.jwksFile !== undefined) {
    const bytes = await ownFile(keys.jwksFile, OTHERS_WRITE);
    return keysOfSet(parseJson(bytes, JSON_LIMITS), algorithms);
  }
  return keysOfSet(await fetched(issuer, get), algorithms);
}

async function fetched(issuer: IssuerConfig, get: GuardedGet): Promise<unknown> {
  const end = performance.now() + issuer.keys.timeoutSeconds * 1000;
  const caFile = issuer.keys.caFile;
  const ca = caFile === undefined ? undefined : (await ownFile(caFile, OTHERS_WRITE)).toString("utf8");
  const ask = async (url: string): Promise<unknown> => {
    const answer = await get(url, {
      hosts: hostsOf(issuer),
      privateNetworks: issuer.keys.privateNetworks,
      loopback: issuer.keys.loopback,
      ...(ca === undefined ? {} : { ca }),
      deadlineMs: Math.max(1, Math.ceil(end - performance.now())),
      maxBytes: MAX_BYTES,
      accept: "application/json, application/jwk-set+json",
    });
    if (answer.status !== 200) throw new Error(`the issuer's server answers ${answer.status}`);
    return parseJson(answer.body, JSON_LIMITS);
  };
  if (issuer.keys.jwks !== undefined) return ask(issuer.keys.jwks);
  const found = Discovery.safeParse(await ask(discoveryUrl(issuer.issuer)));
  if (!found.success) throw new Error("the discovery document has no issuer or jwks_uri");
  if (found.data.issuer !== issuer.issuer) throw new Error("the discovery document is another issuer's");
  return ask(found.data.jwks_uri);
}

function discoveryUrl(issuer: string): string {
  return `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
}

function hostsOf({ issuer, keys }: IssuerConfig): string[] {
  // A URL that the operator wrote names its host; one that the issuer's document wrote has to stay on those named.
  const named = URL.parse(keys.jwks ?? issuer)?.host;
  return [...(named === undefined ? [] : [named]), ...keys.hosts];
}

async function secret(path: string, algorithms: readonly string[]): Promise<Buffer> {
  const bytes = await ownFile(path, OTHERS_ANY);
  const text = bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes;
  const least = Math.max(...algorithms.map((alg) => SECRET_BYTES[alg] ?? 0));
  if (text.length < least) throw new Error(`${path} holds fewer than the ${least} bytes that its algorithms need`);
  return text;
}

async function ownFile(path: string, others: number): Promise<Buffer> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read (${error.code ?? "error"})`);
  });
  if (!found.isFile() || found.size > MAX_BYTES) throw new Error(`${path} is no file of at most ${MAX_BYTES} bytes`);
  if (isOpen(found, others))
    throw new Error(`${path} can be ${others === OTHERS_ANY ? "read or " : ""}written by others`);
  return readFile(path);
}
