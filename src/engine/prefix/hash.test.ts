import assert from "node:assert/strict";
import { test } from "node:test";
import { createBlockHasher } from "./hash.ts";

const FIRST = Int32Array.of(1, 2, 300, 70_000);
const SECOND = Int32Array.of(5, 6, 7, 8);

// Computed with cbor2.dumps(value, canonical=True), hashlib.sha256 and xxhash.xxh3_128_digest, seed "0".
const VLLM = {
  sha256_cbor: [
    "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e",
    "f8e3c167af5a3c4cbe42b3a7750bbd2466d1228751c33477f79cebe883f5d82b",
    "304b73fff194476fa198fe58b14638c3e2307751919d591792e108ca99dab2d7",
  ],
  xxhash_cbor: [
    "1ebe36576dcb573f26b99533a20aaeca",
    "a8b990110757662cffcd4cb7f0bcec66",
    "995673c55a6c522518ca017c06612ca1",
  ],
} as const;

for (const algorithm of ["sha256_cbor", "xxhash_cbor"] as const) {
  test(`${algorithm} names blocks as vLLM does, byte for byte`, async () => {
    const hasher = await createBlockHasher(algorithm, "0");
    const first = hasher.block(hasher.root, FIRST, ["tenant\0salt"]);
    assert.deepEqual([hasher.root, first, hasher.block(first, SECOND, [])], VLLM[algorithm]);
  });
}

for (const algorithm of ["sha256", "xxhash", "sha256_cbor", "xxhash_cbor"] as const) {
  test(`${algorithm}: every part of a block counts, and the root is a secret without a seed`, async () => {
    const hasher = await createBlockHasher(algorithm, "seed");
    const { root } = hasher;
    const names = [
      hasher.block(root, FIRST, []),
      hasher.block(root, SECOND, []),
      hasher.block(root, FIRST.slice(0, 3), []),
      hasher.block(hasher.block(root, FIRST, []), FIRST, []),
      hasher.block(root, FIRST, ["a", "b"]),
      hasher.block(root, FIRST, ["ab"]),
      hasher.block(root, FIRST, ["b", "a"]),
      hasher.block(root, FIRST, [""]),
    ];
    assert.equal(new Set(names).size, names.length);
    assert.equal(hasher.block(root, FIRST, []), names[0]);
    assert.equal((await createBlockHasher(algorithm, "seed")).root, root);
    assert.notEqual((await createBlockHasher(algorithm)).root, (await createBlockHasher(algorithm)).root);
  });
}
