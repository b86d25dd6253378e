/**
 * Signed tokens as callers' credentials: the issuers of --jwt-config or of the policy file, their keys, and what is
 * loosened there.
 */
import { looksLikeToken, type TokenProver } from "#policy/identify.ts";
import { type TokensConfig, TokensSection } from "#policy/tokens/schema.ts";
import { type TokenOptions, Tokens } from "#policy/tokens/verify.ts";
import { operatorYaml } from "./operator-yaml.ts";
import { StartupError } from "./startup-error.ts";

export interface CallerTokens {
  readonly prover: TokenProver;
  readonly issuers: number;
  /** Whether the rules that made a principal hold still. */
  stands(mark: string): boolean;
  /** Where the file leaves the safe defaults. */
  readonly warnings: readonly string[];
  /** Has the keys of other issuers fetched. @returns puts them in force. @throws StartupError */
  prepare(config: TokensConfig): Promise<() => void>;
}

export interface TokenFile {
  readonly path: string;
  readonly config: TokensConfig;
}

/** @param path of --jwt-config. @throws StartupError */
export function readTokenFile(path: string): TokenFile {
  return { path, config: operatorYaml(path, TokensSection) };
}

/**
 * @param apiKeys the operator's
 * @throws StartupError
 */
export async function callerTokens(
  file: TokenFile,
  apiKeys: readonly string[],
  options: TokenOptions,
): Promise<CallerTokens> {
  if (apiKeys.some(looksLikeToken))
    throw new StartupError("an API key looks like a signed token, and where tokens are taken would be read as one");
  const { path, config } = file;
  let current = await started(file, options);
  const warnings = config.issuers.flatMap(({ issuer, keys }) => [
    ...(keys.privateNetworks ? [`${path}: the keys of ${issuer} may come from a private address`] : []),
    ...(keys.loopback ? [`${path}: the keys of ${issuer} may come from this machine, without TLS`] : []),
  ]);
  return {
    prover: {
      get maxLength() {
        return current.maxLength;
      },
      verify: (token) => current.verify(token),
    },
    issuers: config.issuers.length,
    stands: (mark) => current.stands(mark),
    warnings,
    prepare: async (next) => {
      const prover = await started({ path, config: next }, options);
      return () => {
        current = prover;
      };
    },
  };
}

async function started({ path, config }: TokenFile, options: TokenOptions): Promise<Tokens> {
  const prover = new Tokens(config, options);
  try {
    await prover.start();
  } catch (error) {
    throw new StartupError(`${path}: ${error instanceof Error ? error.message : error}`);
  }
  return prover;
}
