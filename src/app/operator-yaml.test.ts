import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { TokensSection } from "#policy/tokens/schema.ts";
import { operatorYaml } from "./operator-yaml.ts";
import { StartupError } from "./startup-error.ts";

const folder = mkdtempSync(join(tmpdir(), "castellan-yaml-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, "tokens.yaml");

const GOOD = `issuers:
  - issuer: https://login.example.com/realms/a
    audiences: [castellan]
    algorithms: [RS256]
    keys: { discovery: true }
    rules:
      - when:
          - { claim: [realm_access, roles], contains: llm-admin }
        tenant: { claim: org, prefix: kc- }
        role: admin
      - tenant: guests
        role: { claim: groups, table: { llm: user } }
        scopes: [inference]
        limits: { requestsPerMinute: 10 }
`;

function problem(text: string, schema: z.ZodType = TokensSection): string {
  writeFileSync(file, text, { mode: 0o600 });
  try {
    operatorYaml(file, schema);
  } catch (error) {
    assert.ok(error instanceof StartupError, String(error));
    return error.message.replaceAll(file, "F");
  }
  return "";
}

test("a good file, with its defaults", () => {
  writeFileSync(file, GOOD, { mode: 0o600 });
  const { issuers, maxLength, cacheEntries } = operatorYaml(file, TokensSection);
  assert.deepEqual([maxLength, cacheEntries, issuers.length], [8192, 10_000, 1]);
  const { rules, keys, ...rest } = issuers[0] ?? assert.fail();
  assert.deepEqual(rest, {
    issuer: "https://login.example.com/realms/a",
    audiences: ["castellan"],
    algorithms: ["RS256"],
    types: ["at+jwt", "JWT"],
    typeRequired: true,
    requiredClaims: [],
    clockToleranceSeconds: 5,
    maxAgeSeconds: 86_400,
  });
  assert.deepEqual([keys.privateNetworks, keys.loopback, keys.hosts], [false, false, []]);
  assert.equal(rules.length, 2);
});

test("keys of a map are unique, as they are called, and many of them are looked at once", () => {
  for (const [one, two] of [
    ["a", "'a'"],
    ["1", "'1'"],
    ["~", "''"],
    ["[a]", "[a]"],
  ])
    assert.match(problem(`x:\n  - { ${one}: 1, b: 2, ${two}: 3 }\n`), /F: Map keys must be unique/, two);
  // Each compared with every other one would be minutes.
  const many = Array.from({ length: 50_000 }, (_, i) => `k${i}: 1\n`).join("");
  assert.match(problem(many), /is not right/);
});

test("what is wrong is told with its line and field", () => {
  const cases: readonly (readonly [from: string, to: string, told: RegExp])[] = [
    ["audiences: [castellan]", "audience: castellan", /F:2: issuers\.0: .*audience/],
    ["audiences: [castellan]", "audiences: castellan", /F:3: issuers\.0\.audiences: .*array/],
    ["algorithms: [RS256]", "algorithms: [RS256, none]", /F:4: issuers\.0\.algorithms\.1: /],
    ["algorithms: [RS256]", "algorithms: [HS256]", /F:4: issuers\.0\.algorithms: HS\* algorithms go with/],
    [
      "{ discovery: true }",
      "{ discovery: true, jwks: 'https://a.example/k' }",
      /F:5: issuers\.0\.keys: has exactly one/,
    ],
    ["{ discovery: true }", "{}", /F:5: issuers\.0\.keys: has exactly one of discovery, jwks, jwksFile, secretFile/],
    ["{ discovery: true }", "{ jwks: 'ftp://a.example/k' }", /F:5: issuers\.0\.keys\.jwks: /],
    ["https://login.example.com/realms/a", "login", /F:5: issuers\.0\.keys\.discovery: discovery needs/],
    ["contains: llm-admin", "contains: llm-admin, equals: x", /F:8: issuers\.0\.rules\.0\.when\.0: has exactly one of/],
    [", contains: llm-admin", "", /F:8: issuers\.0\.rules\.0\.when\.0: has exactly one of/],
    ["role: admin", "role: root", /F:10: issuers\.0\.rules\.0\.role: .*"user".*; or /],
    ["        role: admin\n", "", /F:7: issuers\.0\.rules\.0\.role: /],
    ["tenant: guests", "tenant: 'a b'", /F:11: issuers\.0\.rules\.1\.tenant: is 1 to 64 letters/],
    ["table: { llm: user }", "table: { llm: root }", /F:12: issuers\.0\.rules\.1\.role\.table\.llm: /],
    ["scopes: [inference]", "scopes: [inference, everything]", /F:13: issuers\.0\.rules\.1\.scopes\.1: /],
    ["requestsPerMinute: 10", "requestsPerMinute: -1", /F:14: issuers\.0\.rules\.1\.limits\.requestsPerMinute: /],
    ["requestsPerMinute: 10", "perMinute: 10", /F:14: issuers\.0\.rules\.1\.limits: .*perMinute/],
    ["audiences:", "issuer: twice\n    audiences:", /F: Map keys must be unique/],
    ["issuers:", "issuers: [", /^F: /],
    ["issuers:\n", "issuers: &a\n  - *a\n", /^F/],
  ];
  for (const [from, to, told] of cases) {
    const text = GOOD.replace(from, to);
    assert.notEqual(text, GOOD, from);
    assert.match(problem(text), told, to);
  }
  assert.match(problem(""), /F:1: /);
  assert.match(problem("- a\n"), /F:1: /);
  assert.match(problem(GOOD + GOOD.replace("issuers:\n", "")), /F:2: issuers: an issuer stands here twice/);
});

test("many errors are told in part", () => {
  const told = problem(`{${"abcdefgh".split("").map((key) => `${key}: x`)}}`, z.record(z.string(), z.number()));
  assert.equal(told.split("\n").length, 7);
  assert.match(told, /and 3 more$/);
});

test("aliases cannot multiply, and files are ours alone to write", () => {
  const bomb = ["a: &a [x, x]"];
  for (let i = 1; i < 20; i++) bomb.push(`a${i}: &a${i} [*a${i === 1 ? "" : i - 1}, *a${i === 1 ? "" : i - 1}]`);
  assert.match(problem(bomb.join("\n")), /alias/i);
  problem(GOOD);
  chmodSync(file, 0o622);
  assert.throws(() => operatorYaml(file, TokensSection), /written by others/);
  chmodSync(file, 0o600);
  assert.throws(() => operatorYaml(join(folder, "none"), TokensSection), /cannot be read \(ENOENT\)/);
  mkdirSync(join(folder, "d"));
  assert.throws(() => operatorYaml(join(folder, "d"), TokensSection), /no file of at most/);
});
