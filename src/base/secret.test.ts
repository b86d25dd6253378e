import assert from "node:assert/strict";
import { test } from "node:test";
import { format, inspect } from "node:util";
import { headerValues } from "./headers.ts";
import { Secret } from "./secret.ts";

test("no accidental way to text gives the value", () => {
  const secret = new Secret("hunter2");
  const shown = [
    `${secret}`,
    String(secret),
    JSON.stringify({ secret }),
    inspect({ secret }, { showHidden: true, depth: 9 }),
    format("%s %o %j", secret, secret, secret),
    Object.values(secret).join(),
  ];
  for (const text of shown) assert.ok(!text.includes("hunter2"), text);
  assert.equal(secret.expose(), "hunter2");
});

test("headerValues sees every copy, whatever its case", () => {
  const raw = ["Host", "a", "AUTHORIZATION", "1", "authorization", "2", "x-authorization", "3"];
  assert.deepEqual(headerValues(raw, "authorization"), ["1", "2"]);
  assert.deepEqual(headerValues(raw, "cookie"), []);
});
