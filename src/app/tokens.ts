/**
 * Signed tokens as callers' credentials, where --jwt-config names a file: its issuers, their keys, and what it loosens.
 */
import type { Log } from "#base/log.ts";
import { looksLikeToken } from "#policy/identify.ts";
import { TokensSection } from "#policy/tokens/schema.ts";
import { Tokens } from "#policy/tokens/verify.ts";
import { operatorYaml } from "./operator-yaml.ts";
import { StartupError } from "./startup-error.ts";

export interface CallerTokens {
  readonly prover: Tokens;
  readonly issuers: number;
  /** Where the file leaves the safe defaults. */
  readonly warnings: readonly string[];
}

/**
 * @param path of --jwt-config
 * @param apiKeys the operator's
 * @throws StartupError
 */
export async function callerTokens(path: string, apiKeys: readonly string[], log: Log): Promise<CallerTokens> {
  if (apiKeys.some(looksLikeToken))
    throw new StartupError("an API key looks like a signed token, and with --jwt-config would be read as one");
  const config = operatorYaml(path, TokensSection);
  const prover = new Tokens(config, { log });
  try {
    await prover.start();
  } catch (error) {
    throw new StartupError(`${path}: ${error instanceof Error ? error.message : error}`);
  }
  const warnings = config.issuers.flatMap(({ issuer, keys }) => [
    ...(keys.privateNetworks ? [`${path}: the keys of ${issuer} may come from a private address`] : []),
    ...(keys.loopback ? [`${path}: the keys of ${issuer} may come from this machine, without TLS`] : []),
  ]);
  return { prover, issuers: config.issuers.length, warnings };
}
