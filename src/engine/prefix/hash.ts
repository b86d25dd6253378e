/**
 * Names of cached blocks: each block's hash covers its tokens and, through its parent, everything before it.
 *
 * Formula, vLLM's (vllm/v1/core/kv_cache_utils.py, hash_block_tokens): H(parent, token ids, extra keys), extra keys in
 * the order LoRA name, media, salt (the salt in the first block only; later ones inherit it). With `sha256_cbor` and a
 * seed the hashes are vLLM's, byte for byte. `sha256` and `xxhash` hash the same fields in a layout of our own, where
 * vLLM pickles them. xxh3 does not resist collisions: two tenants' blocks can be made to meet.
 * Called by cache.ts; one hasher an engine.
 */
import { hash, randomBytes } from "node:crypto";
import { endianness } from "node:os";
import type { encode } from "cborg";
import type { IHasher } from "hash-wasm";

export type HashAlgorithm = "sha256" | "sha256_cbor" | "xxhash" | "xxhash_cbor";

export interface PrefixCacheOptions {
  /** Keep what ended sequences computed, for prompts that start alike. Samples of one request share without it. */
  readonly enabled: boolean;
  readonly algorithm: HashAlgorithm;
  readonly seed?: string;
  /** Tokens of a block, ≥ 1: a shorter prefix is not found. */
  readonly blockSize: number;
  /** Also take over what was computed while answering; see placement.ts. */
  readonly reuseGenerated: boolean;
}

export const NO_PREFIX_CACHE: PrefixCacheOptions = {
  enabled: false,
  algorithm: "sha256",
  blockSize: 16,
  reuseGenerated: false,
};

const LITTLE_ENDIAN = endianness() === "LE";

/** Hexadecimal: 64 digits of SHA-256 or 32 of XXH3-128. */
export type BlockHash = string;

export interface BlockHasher {
  /** The parent of first blocks. */
  readonly root: BlockHash;
  /** @param extra LoRA name, media digests, salt: those that the block has; strings compare by their bytes */
  block(parent: BlockHash, tokens: Int32Array, extra: readonly string[]): BlockHash;
}

/**
 * @param seed as PYTHONHASHSEED: the root is its hash, the same in every process; without one the root is random, so
 * that nobody outside can compute a block's name
 */
export async function createBlockHasher(algorithm: HashAlgorithm, seed?: string): Promise<BlockHasher> {
  // Loaded where they are asked for: the engine's start waits for them.
  const digest = algorithm.startsWith("sha256") ? sha256 : xxh3(await (await import("hash-wasm")).createXXHash128());
  const cbor = algorithm.endsWith("_cbor") ? (await import("cborg")).encode : undefined;
  const root = seed === undefined ? randomBytes(32).toString("hex") : digest(cbor?.(seed) ?? Buffer.from(seed));
  const bytes = cbor === undefined ? plainBytes : cborBytes(cbor);
  return { root, block: (parent, tokens, extra) => digest(bytes(parent, tokens, extra)) };
}

function sha256(data: Uint8Array): string {
  return hash("sha256", data, "hex");
}

function xxh3(hasher: IHasher): (data: Uint8Array) => string {
  return (data) => hasher.init().update(data).digest("hex");
}

/** cbor2.dumps((parent, tokens, extra or None), canonical=True) */
function cborBytes(cbor: typeof encode) {
  return (parent: BlockHash, tokens: Int32Array, extra: readonly string[]): Uint8Array =>
    cbor([Buffer.from(parent, "hex"), Array.from(tokens), extra.length === 0 ? null : extra]);
}

/** Parent, count and tokens (little-endian), then each extra key with its length before it: no two inputs look alike. */
function plainBytes(parent: BlockHash, tokens: Int32Array, extra: readonly string[]): Uint8Array {
  const keys = extra.map((key) => Buffer.from(key));
  const head = Buffer.from(parent, "hex");
  const size = head.length + 4 + tokens.length * 4 + keys.reduce((sum, key) => sum + 4 + key.length, 0);
  const out = Buffer.allocUnsafe(size);
  let at = head.copy(out);
  at = out.writeUInt32LE(tokens.length, at);
  if (LITTLE_ENDIAN) {
    out.set(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength), at);
    at += tokens.byteLength;
  } else for (const token of tokens) at = out.writeInt32LE(token, at);
  for (const key of keys) {
    at = out.writeUInt32LE(key.length, at);
    at += key.copy(out, at);
  }
  return out;
}
