import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { CertificateMap, type CertificateRule, CertificateRules } from "./certificates.ts";
import { parseDistinguishedName } from "./distinguished-name.ts";
import { type Identify, identifyBy } from "./identify.ts";
import { NO_PEER, type PeerCertificate } from "./peer.ts";
import { principalOf } from "./roles.ts";

const NOW = Date.UTC(2026, 0, 1);

function certificate(more: Partial<PeerCertificate> = {}): PeerCertificate {
  return { fingerprint: "00", subject: "", uris: [], notBefore: NOW - 1000, notAfter: NOW + 1000, ...more };
}

function rules(...list: unknown[]): CertificateRule[] {
  return CertificateRules.parse(list);
}

const user = { tenant: "acme", role: "user" };

test("a SPIFFE id maps by the first rule that matches; its tenant, role, scopes and reach are the rule's", () => {
  const map = new CertificateMap(
    rules(
      { spiffe: "spiffe://prod.example/ns/train/sa/*", tenant: "lab", role: "trainer", scopes: ["weights"] },
      { spiffe: "spiffe://prod.example/ns/*", ...user, models: ["a-*"], priority: -1 },
    ),
  );
  const found = map.find(certificate({ uris: ["spiffe://prod.example/ns/train/sa/one"] }));
  assert.deepEqual(
    [found?.kind, found?.tenant, found?.role, [...(found?.scopes ?? [])]],
    ["certificate", "lab", "trainer", ["weights"]],
  );
  assert.match(found?.id ?? "", /^crt_[0-9a-f]{32}$/);
  const other = map.find(certificate({ uris: ["spiffe://prod.example/ns/web/sa/x"] }));
  assert.deepEqual([other?.tenant, other?.reach], ["acme", { models: ["a-*"], priority: -1 }]);
  assert.notEqual(found?.id, other?.id);
  assert.equal(map.find(certificate({ uris: ["spiffe://prod.example/other"] })), undefined);
});

test("malformed, doubled or accompanied SPIFFE ids are nobody, also where the subject would be somebody", () => {
  const map = new CertificateMap(
    rules({ spiffe: "spiffe://td/*", ...user }, { subject: { CN: "*" }, tenant: "acme", role: "admin" }),
  );
  const bad = [
    ["spiffe://td/a", "spiffe://td/b"],
    ["spiffe://td/a", "https://td/a"],
    ["https://td/a", "spiffe://td/a"],
    ["spiffe://td/"],
    ["spiffe://td"],
    ["spiffe:///a"],
    ["spiffe://TD/a"],
    ["SPIFFE://td/a"],
    ["spiffe://td/a/"],
    ["spiffe://td//a"],
    ["spiffe://td/../a"],
    ["spiffe://td/a/."],
    ["spiffe://td/a?x"],
    ["spiffe://td/a#x"],
    ["spiffe://td/%61"],
    ["spiffe://td:443/a"],
    ["spiffe://u@td/a"],
    ["spiffe://td/a b"],
    ['"spiffe://td/a\\u0000"'],
    [`spiffe://td/${"a".repeat(2048)}`],
    ["spiffe:td/a"],
  ];
  for (const uris of bad) assert.equal(map.find(certificate({ uris, subject: "CN=root" })), undefined, String(uris));
  assert.equal(map.find(certificate({ uris: ["spiffe://td/a"], subject: "CN=root" }))?.role, "user");
  assert.equal(map.find(certificate({ uris: ["https://x"], subject: "CN=root" }))?.role, "admin");
});

test("a subject is held against a rule attribute by attribute, so that no value spells another attribute", () => {
  const map = new CertificateMap(rules({ subject: { cn: "batch-*", O: "Acme" }, ...user }));
  const find = (subject: string) => map.find(certificate({ subject }))?.tenant;
  assert.equal(find("CN=batch-1,O=Acme"), "acme");
  assert.equal(find("CN=batch-1,OU=x,O=Acme,C=DE"), "acme");
  assert.equal(find("CN=batch-1+O=Acme"), "acme");
  assert.equal(find("CN=batch-1\\,O=Acme"), undefined);
  assert.equal(find("CN=batch-1\\2CO=Acme"), undefined);
  assert.equal(find("CN=batch-1\\+O=Acme"), undefined);
  assert.equal(find("CN=batch-1,O=Acme,O=Evil"), undefined);
  assert.equal(find("CN=batch-1,CN=batch-2,O=Acme"), undefined);
  assert.equal(find("CN=batch-1"), undefined);
  assert.equal(find("CN=x,O=Acme"), undefined);
  assert.equal(find("O=#040141,CN=batch-1"), undefined);
  assert.equal(find(""), undefined);
  assert.equal(find("CN"), undefined);
  assert.equal(find("CN=batch-1,O=Acme\\"), undefined);
});

test("names with any characters come out of RFC 4514 text as they went in", () => {
  const escaped = (value: string): string => value.replace(/[",+;<>\\#= ]/g, (c) => `\\${c}`);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom("CN", "O", "OU"), fc.string({ unit: "grapheme" }))), (pairs) => {
      const parsed = parseDistinguishedName(pairs.map(([type, value]) => `${type}=${escaped(value)}`).join(","));
      const expected = new Map<string, string[]>();
      for (const [type, value] of pairs) expected.set(type, [...(expected.get(type) ?? []), value]);
      assert.deepEqual(parsed, expected);
    }),
  );
  assert.deepEqual(parseDistinguishedName("CN=J\\C3\\BCrgen"), new Map([["CN", ["Jürgen"]]]));
});

test("rules that could be meant in two ways are refused when they are read", () => {
  const bad = [
    { ...user },
    { spiffe: "spiffe://td/a", subject: { CN: "a" }, ...user },
    { spiffe: "spiffe://*/a", ...user },
    { spiffe: "spiffe://td*/a", ...user },
    { spiffe: "https://td/a", ...user },
    { spiffe: "spiffe://td", ...user },
    { subject: {}, ...user },
    { subject: { CN: "" }, ...user },
    { subject: { CN: "a" }, tenant: "a/b", role: "user" },
    { subject: { CN: "a" }, tenant: "acme", role: "root" },
    { subject: { CN: "a" }, ...user, scopes: ["all"] },
    { subject: { CN: "a" }, ...user, model: ["a"] },
    { subject: { CN: "a" }, role: "user" },
  ];
  for (const rule of bad) assert.equal(CertificateRules.safeParse([rule]).success, false, JSON.stringify(rule));
});

const keyed: Record<string, Principal> = {
  "Bearer acme": principalOf({ id: "key_1", tenant: "acme", role: "user" }),
  "Bearer other": principalOf({ id: "key_2", tenant: "other", role: "user" }),
};

function guarded(map: CertificateMap): Identify {
  return map.guard(identifyBy({ keys: (key) => keyed[`Bearer ${key}`], certificates: (found) => map.find(found) }));
}

async function idOf(identify: Identify, headers: string[], peer: PeerCertificate | undefined): Promise<string> {
  try {
    const found = await identify(
      headers,
      "openai",
      peer === undefined ? NO_PEER : { address: "::1", certificate: peer },
    );
    return found.kind === "certificate" ? "certificate" : found.id;
  } catch (error) {
    assert.ok(error instanceof Fault && error.kind === "unauthenticated");
    return error.detail?.includes("another tenant") === true ? "two tenants" : "nobody";
  }
}

test("a header beside a certificate decides within its tenant, never two identities, never silently the other", async () => {
  const map = new CertificateMap(
    rules(
      { subject: { CN: "app" }, ...user },
      { subject: { CN: "gateway" }, tenant: "acme", role: "service", forwards: true },
    ),
    () => NOW,
  );
  const identify = guarded(map);
  const [app, gateway, stranger] = ["CN=app", "CN=gateway", "CN=x"].map((subject) => certificate({ subject }));
  const header = (value: string) => ["Authorization", value];
  assert.equal(await idOf(identify, [], app), "certificate");
  assert.equal(await idOf(identify, header("Bearer acme"), app), "key_1");
  assert.equal(await idOf(identify, header("Bearer other"), app), "two tenants");
  assert.equal(await idOf(identify, header("Bearer wrong"), app), "nobody");
  assert.equal(await idOf(identify, header("Basic x"), app), "nobody");
  assert.equal(await idOf(identify, header(""), app), "nobody");
  assert.equal(await idOf(identify, [...header("Bearer acme"), ...header("Bearer acme")], app), "nobody");
  assert.equal(await idOf(identify, header("Bearer other"), gateway), "key_2");
  assert.equal(await idOf(identify, [], gateway), "certificate");
  assert.equal(await idOf(identify, [], stranger), "nobody");
  assert.equal(await idOf(identify, header("Bearer other"), stranger), "key_2");
  assert.equal(await idOf(identify, [], undefined), "nobody");
  assert.equal(await idOf(identify, header("Bearer other"), undefined), "key_2");
});

test("a certificate is valid at each request or it is nobody, whatever the header says", async () => {
  let now = NOW;
  const map = new CertificateMap(rules({ subject: { CN: "app" }, ...user }), () => now);
  const identify = guarded(map);
  const peer = certificate({ subject: "CN=app" });
  assert.equal(await idOf(identify, [], peer), "certificate");
  for (const moment of [NOW + 1001, NOW - 1001]) {
    now = moment;
    assert.equal(await idOf(identify, [], peer), "nobody");
    assert.equal(await idOf(identify, ["Authorization", "Bearer acme"], peer), "nobody");
  }
  now = NOW;
  assert.equal(await idOf(identify, [], certificate({ subject: "CN=app", notAfter: Number.NaN })), "nobody");
});
