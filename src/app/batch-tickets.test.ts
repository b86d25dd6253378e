import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch, BatchAuthor } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { SCOPES } from "#core/principal.ts";
import { CertificateMap, CertificateRules } from "#policy/certificates.ts";
import type { KeyRecord } from "#policy/key-store.ts";
import { TokensSection } from "#policy/tokens/schema.ts";
import { Tokens } from "#policy/tokens/verify.ts";
import { signingKey, startIssuer } from "#test/fixtures/issuer.ts";
import { BatchTickets, type TicketParts } from "./batch-tickets.ts";

const ENDLESS = new AbortController().signal;

function batchOf(author: Partial<BatchAuthor>): Batch {
  const made: BatchAuthor = {
    ...{ id: "x", kind: "token", role: "user", scopes: [...SCOPES], reach: {}, limits: {}, caps: {} },
    ...author,
  };
  return { id: "batch_1", tenant: "acme", author: made, endpoint: "/v1/completions" } as unknown as Batch;
}

function parts(more: Partial<TicketParts>): TicketParts {
  return {
    keys: { get: async () => undefined },
    isGiven: () => false,
    stands: () => false,
    needs: "inference",
    ...more,
  };
}

/** What a batch's lines are told when they begin. */
async function renewed(author: Partial<BatchAuthor>, more: Partial<TicketParts>): Promise<string> {
  const tickets = new BatchTickets();
  const ticket = tickets.issue(batchOf(author), parts(more));
  try {
    await ticket.renew(ENDLESS);
    const found = tickets.find(ticket.key.expose());
    assert.ok(found?.behind === true && found.tenant === "acme");
    ticket.revoke();
    assert.equal(tickets.find(ticket.key.expose()), undefined);
    return "goes on";
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    assert.equal(tickets.find(ticket.key.expose()), undefined);
    return error.kind;
  }
}

const RULES = (more: object = {}) => [
  { when: [{ claim: "team", equals: "ops" }], tenant: "acme", role: "operator" },
  { tenant: "acme", role: "user", ...more },
  { tenant: "late", role: "user" },
];

test("a token's batch goes on past the token, and ends with a rule that made its author or stands before it", async (t) => {
  const issuer = await startIssuer(t);
  const tokens = async (rules: readonly object[], url = issuer.url): Promise<Tokens> => {
    const config = {
      ...{ issuer: url, audiences: ["castellan"], algorithms: ["ES256"], rules },
      keys: { jwks: `https://${issuer.host}/realms/a/keys`, loopback: true, caFile: issuer.caFile },
    };
    const made = new Tokens(TokensSection.parse({ issuers: [config] }), { log: () => {} });
    await made.start();
    return made;
  };
  const { ruledBy } = await (await tokens(RULES())).verify(issuer.token());
  assert.match(ruledBy ?? "", /^[0-9a-f]{64}$/);
  issuer.keys = [signingKey("ES256")];
  const author = { kind: "token", ...(ruledBy !== undefined && { ruledBy }) } as const;
  const under = async (now: Tokens | undefined, needs: TicketParts["needs"] = "inference"): Promise<string> =>
    renewed(author, { needs, stands: (kind, mark) => kind === "token" && now?.stands(mark) === true });
  const [first, own, last] = RULES();
  assert.ok(first && own && last);
  assert.equal(await under(await tokens(RULES())), "goes on", "its signing key is gone, too");
  assert.equal(await under(await tokens([first, own])), "goes on", "rules behind it are not asked");
  const ended = "unauthenticated";
  assert.equal(await under(await tokens(RULES({ limits: { requestsPerDay: 1 } }))), ended, "its limits");
  assert.equal(await under(await tokens(RULES({ scopes: ["inference"] }))), ended, "its scopes");
  assert.equal(await under(await tokens(RULES({ models: ["other"] }))), ended, "its models");
  assert.equal(await under(await tokens([own, last])), ended, "who was an operator would be a user now");
  assert.equal(await under(await tokens([last, ...RULES()])), ended, "another rule comes first");
  assert.equal(await under(await tokens(RULES(), "https://elsewhere.example/a")), ended, "another issuer");
  assert.equal(await under(undefined), ended, "no tokens are taken");
  assert.equal(await renewed({ kind: "token" }, { stands: () => true }), ended, "a record without rules");
});

test("a certificate's batch goes on past the certificate, and ends with its rule", async () => {
  const rule = { spiffe: "spiffe://acme.example/*", tenant: "acme", role: "user" };
  const map = new CertificateMap(CertificateRules.parse([rule]));
  const certificate = {
    ...{ fingerprint: "", subject: "", uris: ["spiffe://acme.example/job"] },
    ...{ notBefore: 0, notAfter: 1 },
  };
  const ruledBy = map.find(certificate)?.ruledBy ?? assert.fail("nobody");
  const now = (): Promise<string> =>
    renewed({ kind: "certificate", ruledBy }, { stands: (kind, mark) => kind === "certificate" && map.stands(mark) });
  assert.equal(await now(), "goes on");
  for (const [rules, how] of [
    [[rule, { ...rule, tenant: "b" }], "goes on"],
    [[{ ...rule, scopes: ["inference"] }], "unauthenticated"],
    [[{ ...rule, spiffe: "spiffe://acme.example/other/*" }, rule], "unauthenticated"],
    [[], "unauthenticated"],
  ] as const) {
    map.replace(CertificateRules.parse(rules));
    assert.equal(await now(), how, JSON.stringify(rules));
  }
});

test("a key's batch is done with what the key may now", async () => {
  const record: KeyRecord = {
    ...{ id: "key_a", tenant: "acme", name: "", role: "user", reach: {}, limits: {}, caps: {} },
    ...{ createdAt: 0, createdBy: "", secrets: [] },
  };
  const kept = (more: Partial<KeyRecord> | undefined): Promise<string> =>
    renewed({ kind: "key" }, { keys: { get: async () => (more === undefined ? undefined : { ...record, ...more }) } });
  assert.equal(await kept({}), "goes on");
  assert.equal(await kept({ reach: { networks: ["10.0.0.0/8"] } }), "goes on", "it came from there");
  for (const more of [undefined, { disabledAt: 1 }, { deletedAt: 1 }, { expiresAt: 1 }, { tenant: "other" }])
    assert.equal(await kept(more), "unauthenticated", JSON.stringify(more));
  assert.equal(await kept({ scopes: ["inference"] }), "forbidden", "no batches any more");
  assert.equal(await kept({ scopes: ["batch"] }), "forbidden", "no text any more");
  assert.equal(await renewed({ kind: "key" }, { isGiven: () => true }), "goes on");
});

test("a store that is away is asked again, and who waits for it can be stopped", async () => {
  const stop = new AbortController();
  let asked = 0;
  const keys = {
    get: async () => {
      asked++;
      throw new Error("away");
    },
  };
  const ticket = new BatchTickets().issue(batchOf({ kind: "key" }), parts({ keys }));
  const waiting = ticket.renew(stop.signal);
  while (asked === 0) await new Promise(setImmediate);
  stop.abort(new Error("closing"));
  await assert.rejects(waiting, { name: "AbortError" });
});
