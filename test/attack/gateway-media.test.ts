/**
 * Media URLs through a gateway, from the client to the bytes at the server behind, with a server of media over TLS at
 * public addresses (gateway-media-bed.ts). Skipped where this user can make no network namespace.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, test } from "node:test";
import { networkMissing, runInOwnNetwork } from "../fixtures/own-network.ts";
import type { Checked } from "./gateway-media-bed.ts";

const CHECKS = [
  "what URLs name arrives as data, in every dialect, and data: URLs as they were",
  "what may not be fetched is a 400 that names it, and nothing is sent",
  "a tenant has its share of the fetches, and no more",
  "what is kept is fetched once for each tenant",
];
const absent = networkMissing();
let checked: readonly Checked[] = [];

before(async () => {
  if (absent !== undefined) return;
  checked = (await runInOwnNetwork(join(import.meta.dirname, "gateway-media-bed.ts"))) as readonly Checked[];
});

for (const name of CHECKS)
  test(name, { skip: absent ?? false }, () => {
    const found = checked.find((each) => each.name === name) ?? assert.fail("it was not checked");
    assert.equal(found.error, undefined, found.error);
  });
