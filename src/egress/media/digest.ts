/**
 * What media are told apart by: a digest of their bytes as they came, by the algorithm that the operator chose.
 * Callers: fetcher.ts, and app, which chooses.
 */
import { hash } from "node:crypto";

export type MediaAlgorithm = "sha256" | "sha512" | "blake3";

export interface MediaDigest {
  readonly algorithm: MediaAlgorithm;
  /** Hex. */
  of(bytes: Buffer): string;
}

/** @param fips whether only approved algorithms may be used. @throws RangeError blake3 then: it is not one */
export async function mediaDigest(algorithm: MediaAlgorithm, fips: boolean): Promise<MediaDigest> {
  if (algorithm !== "blake3") return { algorithm, of: (bytes) => hash(algorithm, bytes, "hex") };
  if (fips) throw new RangeError("blake3 is not an approved algorithm");
  const hasher = await (await import("hash-wasm")).createBLAKE3();
  return { algorithm, of: (bytes) => hasher.init().update(bytes).digest("hex") };
}
